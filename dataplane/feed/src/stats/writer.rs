//! The data plane's side: creates the segment, names rows, beats.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::label::TooLong;
use super::layout::{self, Place, Plan, Text};
use super::mapping::{Mapping, WORD};
use super::{ProcessInfo, StatsError, TableSpec, label, process, seqlock};

/// The writing end, owned by one thread (the main lcore). Workers get their [`Cells`] from it.
pub struct StatsWriter {
    path: PathBuf,
    file: File,
    mapping: Arc<Mapping>,
    tables: Vec<(&'static str, Place)>,
    /// By table, as far as there are pages.
    reserved: Vec<Reserved>,
}

/// The rows of a table, from the first on, whose cells and whose labels have their pages.
#[derive(Clone, Copy)]
struct Reserved {
    cells: usize,
    labels: usize,
}

/// Rows whose cells get their pages together.
const ROWS_AT_ONCE: usize = 4096;
/// The same of labels, 68 KiB.
const LABELS_AT_ONCE: usize = 64;

impl StatsWriter {
    /// Creates the segment at `path` (mode 0644), in the place of one that may be there: the file is
    /// made under a temporary name beside it, filled, and renamed, so that whoever opens `path` finds
    /// a whole segment, old or new, and readers of the old one keep it.
    ///
    /// The cells of the first 4096 rows of each table are allocated here, zero, the others by
    /// [`Self::reserve`]; where the file system cannot allocate ahead they are holes.
    ///
    /// # Errors
    /// [`StatsError::Spec`] if the tables break a limit, [`StatsError::Io`] if the file cannot be made,
    /// for instance because the file system is full.
    pub fn create(
        path: &Path,
        process: &ProcessInfo,
        workers: usize,
        tables: &[TableSpec],
    ) -> Result<Self, StatsError> {
        let plan = layout::plan(workers, tables)?;
        let error = |doing| move |source| StatsError::Io { path: path.to_owned(), doing, source };
        let temporary = temporary_name(path);
        let file = create_file(&temporary, &plan).map_err(error("create it"))?;
        let reserved = |place: &Place| Reserved { cells: place.rows.min(ROWS_AT_ONCE), labels: 0 };
        let reserved: Vec<Reserved> = plan.places.iter().map(reserved).collect();
        let made =
            Mapping::writable(&file, plan.words).map_err(error("map it")).and_then(|mapping| {
                for (place, reserved) in plan.places.iter().zip(&reserved) {
                    allocate_rows(&file, place, 0, reserved.cells)
                        .map_err(error("allocate its cells"))?;
                }
                describe(mapping.words(), process, workers, tables, &plan);
                for place in plan.places.iter().filter(|place| place.rows == 1) {
                    allocate(&file, place.label_of(0), layout::LABEL_WORDS)
                        .map_err(error("allocate its pages"))?;
                    mark(mapping.words(), place, 0, true);
                }
                fs::rename(&temporary, path).map_err(error("rename the new segment to it"))?;
                Ok(mapping)
            });
        let mapping = made.inspect_err(|_| {
            let _ = fs::remove_file(&temporary); // the error at hand says more than a second one
        })?;
        let tables = tables.iter().map(|table| table.name).zip(plan.places).collect();
        Ok(Self { path: path.to_owned(), file, mapping: Arc::new(mapping), tables, reserved })
    }

    /// Sees that the cells of `row` of `table` have their pages in every block. To be called before
    /// anyone is told to count there. Costs nothing for a row below one that was reserved before.
    ///
    /// # Errors
    /// [`StatsError::NoSuchRow`], and [`StatsError::Io`] if the file system has no room for it.
    pub fn reserve(&mut self, table: &str, row: usize) -> Result<(), StatsError> {
        let (place, at) = self.row_place(table, row)?;
        let reserved = self.reserved[at].cells;
        if row < reserved {
            return Ok(());
        }
        let rows = (row + 1).next_multiple_of(ROWS_AT_ONCE).min(place.rows);
        allocate_rows(&self.file, &place, reserved, rows)
            .map_err(|source| self.no_room("find room for counters in it", source))?;
        self.reserved[at].cells = rows;
        Ok(())
    }

    /// The same for the label of a row.
    fn reserve_label(&mut self, place: &Place, at: usize, row: usize) -> Result<(), StatsError> {
        let reserved = self.reserved[at].labels;
        if row < reserved {
            return Ok(());
        }
        let rows = (row + 1).next_multiple_of(LABELS_AT_ONCE).min(place.rows);
        allocate(&self.file, place.label_of(reserved), (rows - reserved) * layout::LABEL_WORDS)
            .map_err(|source| self.no_room("find room for a label in it", source))?;
        self.reserved[at].labels = rows;
        Ok(())
    }

    fn no_room(&self, doing: &'static str, source: io::Error) -> StatsError {
        StatsError::Io { path: self.path.clone(), doing, source }
    }

    /// The cells of `table` that `worker` alone writes: `rows * columns`, row-major, on pages that no
    /// other worker writes. A table that is not per worker has one block: ask for worker 0.
    ///
    /// # Panics
    /// If there is no such table or worker: both are the caller's own, said to [`Self::create`].
    #[must_use]
    pub fn cells(&self, table: &str, worker: usize) -> Cells {
        let place = self.place(table).unwrap_or_else(|| panic!("no statistics table {table}"));
        assert!(
            worker < place.blocks,
            "statistics table {table}: no block {worker} of {}",
            place.blocks
        );
        Cells {
            mapping: Arc::clone(&self.mapping),
            at: place.block_at(worker),
            len: place.rows * place.columns,
        }
    }

    /// Gives `row` of `table` its label, in one step for every reader, and shows the row.
    ///
    /// # Errors
    /// [`StatsError::LabelTooLong`], [`StatsError::NoSuchRow`], and [`StatsError::Io`] if the file
    /// system has no page left for the label; the row then stays as it was.
    pub fn set_label(
        &mut self,
        table: &str,
        row: usize,
        pairs: &[(&str, &str)],
    ) -> Result<(), StatsError> {
        let (place, table_at) = self.row_place(table, row)?;
        let encoded = label::encode(pairs).map_err(|TooLong { what, bytes, most }| {
            StatsError::LabelTooLong { table: table.to_owned(), row, what, bytes, most }
        })?;
        self.reserve_label(&place, table_at, row)?;
        let at = place.label_of(row);
        let words = self.mapping.words();
        seqlock::write(&words[at + layout::LABEL_SEQUENCE], || {
            Text::label(at).put(words, &encoded);
            mark(words, &place, row, true);
        });
        Ok(())
    }

    /// Takes the label from `row` and hides the row. Its cells stay as they are.
    ///
    /// # Errors
    /// [`StatsError::NoSuchRow`].
    pub fn clear_label(&mut self, table: &str, row: usize) -> Result<(), StatsError> {
        let (place, _) = self.row_place(table, row)?;
        let words = self.mapping.words();
        let (word, bit) = place.used_bit(row);
        if words[word].load(Ordering::Relaxed) & bit != 0 {
            let at = place.label_of(row);
            seqlock::write(&words[at + layout::LABEL_SEQUENCE], || {
                Text::label(at).put(words, &[]);
                mark(words, &place, row, false);
            });
        }
        Ok(())
    }

    /// Sets the cells of `row` to zero in every worker's block. Only for a row without a label, and
    /// only once no worker counts there any more: a worker's addition under way would survive.
    ///
    /// # Errors
    /// [`StatsError::NoSuchRow`].
    pub fn zero_row(&mut self, table: &str, row: usize) -> Result<(), StatsError> {
        let (place, _) = self.row_place(table, row)?;
        for block in 0..place.blocks {
            for cell in &self.mapping.words()[place.cells_of(block, row)..][..place.columns] {
                cell.store(0, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Says which configuration is served, in one step for every reader.
    pub fn set_generation(&mut self, generation: u64, digest: u128, epoch: u64, ready: bool) {
        let words = self.mapping.words();
        let put = |at: usize, value: u64| words[at].store(value, Ordering::Relaxed);
        seqlock::write(&words[layout::AT_GENERATION_SEQUENCE], || {
            put(layout::AT_GENERATION, generation);
            put(layout::AT_DIGEST, digest as u64);
            put(layout::AT_DIGEST + 1, (digest >> 64) as u64);
            put(layout::AT_EPOCH, epoch);
            put(layout::AT_READY, u64::from(ready));
        });
    }

    /// Shows that the main lcore and all workers run. Call it at least once a second: readers call the data plane
    /// silent after [`super::StatsReader::SILENT_AFTER`].
    pub fn beat(&self, now: SystemTime) {
        self.mapping.words()[layout::AT_HEARTBEAT].store(nanoseconds(now), Ordering::Relaxed);
    }

    /// The segment's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn place(&self, table: &str) -> Option<Place> {
        self.tables.iter().find(|(name, _)| *name == table).map(|(_, place)| *place)
    }

    /// Where a table that has the row stands, and which it is.
    fn row_place(&self, table: &str, row: usize) -> Result<(Place, usize), StatsError> {
        let at = self.tables.iter().position(|(name, place)| *name == table && row < place.rows);
        at.map(|at| (self.tables[at].1, at))
            .ok_or_else(|| StatsError::NoSuchRow { table: table.to_owned(), row })
    }
}

/// Shows or hides a row. Only the owner of the writer comes here.
fn mark(words: &[AtomicU64], place: &Place, row: usize, used: bool) {
    let (word, bit) = place.used_bit(row);
    let before = words[word].load(Ordering::Relaxed);
    words[word].store(if used { before | bit } else { before & !bit }, Ordering::Relaxed);
}

/// A block of cells with one writer. Keeps the mapping alive, so it may outlive the [`StatsWriter`].
#[derive(Clone)]
pub struct Cells {
    mapping: Arc<Mapping>,
    at: usize,
    len: usize,
}

impl Deref for Cells {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        &self.mapping.words()[self.at..][..self.len]
    }
}

/// `dataplane.stats` becomes `.dataplane.stats.PID`: hidden, and our own whoever else starts now.
fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

fn create_file(path: &Path, plan: &Plan) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o644).open(path)?;
    let fill = || {
        file.set_permissions(fs::Permissions::from_mode(0o644))?; // whatever the umask
        file.set_len((plan.words * WORD) as u64)?;
        allocate(&file, 0, plan.cells_at)
    };
    fill().inspect_err(|_| {
        let _ = fs::remove_file(path); // the error at hand says more than a second one
    })?;
    Ok(file)
}

/// Sees that the pages are there, since a page that cannot be had later would be a SIGBUS.
fn allocate(file: &File, at: usize, words: usize) -> io::Result<()> {
    loop {
        match fallocate(file, FallocateFlags::KEEP_SIZE, (at * WORD) as u64, (words * WORD) as u64)
        {
            Err(Errno::INTR) => {}
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The same for the cells of some rows, in each block.
fn allocate_rows(file: &File, place: &Place, from: usize, to: usize) -> io::Result<()> {
    let words = (to - from) * place.columns;
    (0..place.blocks).try_for_each(|block| allocate(file, place.cells_of(block, from), words))
}

/// Fills header and directory. The file is still ours alone.
fn describe(
    words: &[AtomicU64],
    process: &ProcessInfo,
    workers: usize,
    tables: &[TableSpec],
    plan: &Plan,
) {
    let put = |at: usize, value: usize| words[at].store(value as u64, Ordering::Relaxed);
    words[layout::AT_MAGIC].store(layout::MAGIC, Ordering::Relaxed);
    words[layout::AT_LAYOUT].store(layout::LAYOUT_VERSION, Ordering::Relaxed);
    put(layout::AT_FILE_WORDS, plan.words);
    put(layout::AT_WORKERS, workers);
    put(layout::AT_TABLES, tables.len());
    put(layout::AT_PID, process.pid as usize);
    words[layout::AT_PID_STARTED]
        .store(process::started_ticks(process.pid).unwrap_or(0), Ordering::Relaxed);
    words[layout::AT_STARTED].store(nanoseconds(process.started), Ordering::Relaxed);
    words[layout::AT_HEARTBEAT].store(nanoseconds(process.started), Ordering::Relaxed);
    layout::AT_PROGRAM_VERSION.put(words, process.version.as_bytes());
    for (index, (table, place)) in tables.iter().zip(&plan.places).enumerate() {
        let at = layout::AT_DIRECTORY + index * layout::TABLE_WORDS;
        Text::name(at).put(words, table.name.as_bytes());
        put(at + layout::TABLE_ROWS, place.rows);
        put(at + layout::TABLE_COLUMNS, place.columns);
        put(at + layout::TABLE_COLUMNS_AT, place.columns_at);
        put(at + layout::TABLE_USED_AT, place.used_at);
        put(at + layout::TABLE_LABELS_AT, place.labels_at);
        put(at + layout::TABLE_CELLS_AT, place.cells_at);
        put(at + layout::TABLE_BLOCKS, place.blocks);
        put(at + layout::TABLE_BLOCK_WORDS, place.block_words);
        for (index, column) in table.columns.iter().enumerate() {
            let at = place.columns_at + index * layout::COLUMN_WORDS;
            Text::name(at).put(words, column.name.as_bytes());
            Text::unit(at).put(words, column.unit.as_bytes());
            words[at + layout::COLUMN_KIND]
                .store(layout::kind_to_word(column.kind), Ordering::Relaxed);
        }
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
