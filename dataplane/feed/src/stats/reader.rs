//! Everybody else's side: opens a segment, believes nothing in it, and reads it while it is written.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::layout::{self, Place, Text};
use super::mapping::{Mapping, WORD};
use super::{Generation, Kind, ProcessInfo, StatsError, label, process, seqlock};

/// A table as the file describes it.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns, in the order of [`Row::total`].
    pub columns: Vec<ColumnInfo>,
    /// How many rows it has room for.
    pub rows: usize,
    /// Blocks of cells: one a worker, or one.
    pub blocks: usize,
    place: Place,
}

impl Table {
    /// The index of the column called `name`.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// A column as the file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Its name, for instance `packets`.
    pub name: String,
    /// Whether it only grows.
    pub kind: Kind,
    /// Its unit, for instance `bytes`; may be empty.
    pub unit: String,
}

/// A row that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its number: stable while the label stays.
    pub index: usize,
    /// What the row is about. Empty in the row of a table of one row.
    pub labels: Vec<(String, String)>,
    /// A number a column: the sum over the blocks, wrapping. Sums of gauges mean what their column
    /// says: flows add up, a ratio does not.
    pub total: Vec<u64>,
    /// The same for each block, that is for each worker.
    pub blocks: Vec<Vec<u64>>,
}

impl Row {
    /// The value of the label called `key`.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }
}

/// How the process that writes the segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is there and its main lcore beats.
    Beating,
    /// It is there, but its last beat is older than [`StatsReader::SILENT_AFTER`].
    Silent {
        /// The last beat.
        since: SystemTime,
    },
    /// It is not there any more, or its process id is another's by now.
    Gone {
        /// The last beat.
        since: SystemTime,
    },
}

/// The reading end: a private look at a segment that somebody else writes, or once wrote.
pub struct StatsReader {
    mapping: Mapping,
    process: ProcessInfo,
    started_ticks: Option<u64>,
    workers: usize,
    tables: Vec<Table>,
}

impl StatsReader {
    /// A data plane without a beat for so long is called silent; it beats at least once a second.
    pub const SILENT_AFTER: Duration = Duration::from_secs(3);

    /// Maps the segment at `path` and checks all that it says about itself.
    ///
    /// # Errors
    /// [`StatsError::Io`] if it cannot be opened ([`StatsError::is_missing`]: it is not there),
    /// [`StatsError::Foreign`], [`StatsError::OtherVersion`], [`StatsError::Damaged`] with the place.
    pub fn open(path: &Path) -> Result<Self, StatsError> {
        let error = |doing| move |source| StatsError::Io { path: path.to_owned(), doing, source };
        let file = File::open(path).map_err(error("open it"))?;
        let bytes = file.metadata().map_err(error("tell its size"))?.len();
        let words = usize::try_from(bytes).unwrap_or(usize::MAX) / WORD;
        if words < layout::PAGE_WORDS {
            return Err(StatsError::Foreign { path: path.to_owned() });
        }
        let mapping = Mapping::read_only(&file, words).map_err(error("map it"))?;
        Self::check(mapping, path)
    }

    fn check(mapping: Mapping, path: &Path) -> Result<Self, StatsError> {
        let words = mapping.words();
        if load(words, layout::AT_MAGIC) != layout::MAGIC {
            return Err(StatsError::Foreign { path: path.to_owned() });
        }
        let found = load(words, layout::AT_LAYOUT);
        if found != layout::LAYOUT_VERSION {
            return Err(StatsError::OtherVersion { path: path.to_owned(), found });
        }
        let damaged = |what| StatsError::Damaged { path: path.to_owned(), what };
        let workers =
            count(words, layout::AT_WORKERS, "workers", layout::MAX_WORKERS).map_err(damaged)?;
        let tables = directory(words, workers).map_err(damaged)?;
        let process = writer(words).map_err(damaged)?;
        let started_ticks = Some(load(words, layout::AT_PID_STARTED)).filter(|&ticks| ticks != 0);
        Ok(Self { mapping, process, started_ticks, workers, tables })
    }

    /// Who writes, or wrote, the segment.
    #[must_use]
    pub fn process(&self) -> &ProcessInfo {
        &self.process
    }

    /// How many workers the process has.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// When the main lcore last beat; its start if it never did.
    #[must_use]
    pub fn heartbeat(&self) -> SystemTime {
        time(load(self.mapping.words(), layout::AT_HEARTBEAT))
    }

    /// Whether the writer lives, as seen at `now`: by its process id, by the start time of that
    /// process, since ids come round again, and by its last beat.
    #[must_use]
    pub fn life(&self, now: SystemTime) -> Life {
        let since = self.heartbeat();
        if !process::is_running(self.process.pid, self.started_ticks) {
            return Life::Gone { since };
        }
        match now.duration_since(since) {
            Ok(age) if age > Self::SILENT_AFTER => Life::Silent { since },
            _ => Life::Beating, // a beat in the future: the clock was set back
        }
    }

    /// Which configuration is served. `None` if the writer died while it changed this.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        let words = self.mapping.words();
        seqlock::read(&words[layout::AT_GENERATION_SEQUENCE], || Generation {
            generation: load(words, layout::AT_GENERATION),
            digest: u128::from(load(words, layout::AT_DIGEST))
                | u128::from(load(words, layout::AT_DIGEST + 1)) << 64,
            epoch: load(words, layout::AT_EPOCH),
            ready: load(words, layout::AT_READY) != 0,
        })
    }

    /// All tables, in the writer's order.
    #[must_use]
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The table called `name`.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// The rows in use of one of [`Self::tables`], label and numbers of one and the same object.
    ///
    /// Touches only the pages of rows in use. A row whose label is being written by a writer that died
    /// in the middle of it is left out; so is one whose label is not text.
    #[must_use]
    pub fn rows(&self, table: &Table) -> Vec<Row> {
        (0..table.place.rows).filter_map(|row| self.row(&table.place, row)).collect()
    }

    fn row(&self, place: &Place, index: usize) -> Option<Row> {
        let words = self.mapping.words();
        let (used_at, bit) = place.used_bit(index);
        let used = || load(words, used_at) & bit != 0;
        if !used() {
            return None;
        }
        let at = place.label_of(index);
        let (label, blocks) = seqlock::read(&words[at + layout::LABEL_SEQUENCE], || {
            let label = used().then(|| Text::label(at).get(words)).flatten();
            let cells_of = |block| &words[place.cells_of(block, index)..][..place.columns];
            let blocks: Vec<Vec<u64>> = (0..place.blocks)
                .map(|block| cells_of(block).iter().map(relaxed).collect())
                .collect();
            (label, blocks)
        })?;
        let labels = label::decode(&label?)?;
        let mut total = vec![0u64; place.columns];
        for block in &blocks {
            for (sum, cell) in total.iter_mut().zip(block) {
                *sum = sum.wrapping_add(*cell);
            }
        }
        Some(Row { index, labels, total, blocks })
    }
}

fn relaxed(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

fn load(words: &[AtomicU64], at: usize) -> u64 {
    relaxed(&words[at])
}

fn time(nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

/// A number from 1 to `most`, or the sentence that says it is not.
fn count(words: &[AtomicU64], at: usize, what: &str, most: usize) -> Result<usize, String> {
    let value = usize::try_from(load(words, at)).unwrap_or(usize::MAX);
    layout::within(what, value, 1, most)?;
    Ok(value)
}

/// The start of `len` words that the word at `at` names, if they lie behind the header in the file.
fn region(words: &[AtomicU64], at: usize, len: usize, what: &str) -> Result<usize, String> {
    let start = usize::try_from(load(words, at)).unwrap_or(usize::MAX);
    let end = start.saturating_add(len);
    if start < layout::PAGE_WORDS || end > words.len() {
        return Err(format!("{what}: words {start} to {end}, the file has {}", words.len()));
    }
    Ok(start)
}

fn text(words: &[AtomicU64], place: Text, what: &str) -> Result<String, String> {
    let bytes =
        place.get(words).ok_or_else(|| format!("{what}: its length is more than its place"))?;
    String::from_utf8(bytes).map_err(|_| format!("{what} is not text"))
}

fn writer(words: &[AtomicU64]) -> Result<ProcessInfo, String> {
    let pid = load(words, layout::AT_PID);
    let version = text(words, layout::AT_PROGRAM_VERSION, "the program's version")?;
    Ok(ProcessInfo {
        pid: u32::try_from(pid).map_err(|_| format!("process id {pid}"))?,
        version,
        started: time(load(words, layout::AT_STARTED)),
    })
}

fn directory(words: &[AtomicU64], workers: usize) -> Result<Vec<Table>, String> {
    let said = load(words, layout::AT_FILE_WORDS);
    if said != words.len() as u64 {
        return Err(format!("it says it has {said} words, the file has {}", words.len()));
    }
    let tables = count(words, layout::AT_TABLES, "tables", layout::MAX_TABLES)?;
    if layout::AT_DIRECTORY + tables * layout::TABLE_WORDS > words.len() {
        return Err(format!("{tables} tables do not fit in {} words", words.len()));
    }
    (0..tables)
        .map(|index| {
            table(words, layout::AT_DIRECTORY + index * layout::TABLE_WORDS, workers)
                .map_err(|what| format!("table {index}: {what}"))
        })
        .collect()
}

fn table(words: &[AtomicU64], at: usize, workers: usize) -> Result<Table, String> {
    let name = text(words, Text::name(at), "its name")?;
    layout::printable("its name", &name, layout::MAX_NAME_BYTES)?;
    let rows = count(words, at + layout::TABLE_ROWS, "rows", layout::MAX_ROWS)?;
    let columns = count(words, at + layout::TABLE_COLUMNS, "columns", layout::MAX_COLUMNS)?;
    let blocks = count(words, at + layout::TABLE_BLOCKS, "blocks of cells", workers)?;
    let block_words =
        usize::try_from(load(words, at + layout::TABLE_BLOCK_WORDS)).unwrap_or(usize::MAX);
    layout::within("words in a block of cells", block_words, rows * columns, words.len())?;
    let place = Place {
        rows,
        columns,
        columns_at: region(
            words,
            at + layout::TABLE_COLUMNS_AT,
            columns * layout::COLUMN_WORDS,
            "columns",
        )?,
        used_at: region(words, at + layout::TABLE_USED_AT, rows.div_ceil(64), "rows in use")?,
        labels_at: region(
            words,
            at + layout::TABLE_LABELS_AT,
            rows * layout::LABEL_WORDS,
            "labels",
        )?,
        cells_at: region(
            words,
            at + layout::TABLE_CELLS_AT,
            blocks.saturating_mul(block_words),
            "cells",
        )?,
        blocks,
        block_words,
    };
    let columns = (0..columns)
        .map(|index| column(words, place.columns_at + index * layout::COLUMN_WORDS))
        .collect::<Result<_, _>>()?;
    Ok(Table { name, columns, rows, blocks, place })
}

fn column(words: &[AtomicU64], at: usize) -> Result<ColumnInfo, String> {
    let name = text(words, Text::name(at), "a column's name")?;
    layout::printable("column name", &name, layout::MAX_NAME_BYTES)?;
    let unit = text(words, Text::unit(at), "a column's unit")?;
    if !unit.is_empty() {
        layout::printable("column unit", &unit, layout::MAX_UNIT_BYTES)?;
    }
    let kind = load(words, at + layout::COLUMN_KIND);
    let kind =
        layout::kind_from_word(kind).ok_or_else(|| format!("column {name}: no kind {kind}"))?;
    Ok(ColumnInfo { name, kind, unit })
}
