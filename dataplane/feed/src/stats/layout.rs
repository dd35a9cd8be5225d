//! Where everything stands in the file. All offsets and lengths are counted in words of 64 bits, in the
//! machine's own byte order; the magic word tells a file of the other order.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Kind, StatsError, TableSpec, label, mapping::WORD};

/// `PNSTSTAT`.
pub(super) const MAGIC: u64 = u64::from_be_bytes(*b"PNSTSTAT");
/// Rises when a reader of the layout before would misread this one.
pub(super) const LAYOUT_VERSION: u64 = 1;

// Limits of a segment, so that a damaged one cannot make a reader work for long.

/// Tables of one segment.
pub const MAX_TABLES: usize = 64;
/// Columns of one table.
pub const MAX_COLUMNS: usize = 64;
/// Rows of one table.
pub const MAX_ROWS: usize = 1 << 20;
/// Workers of one process.
pub const MAX_WORKERS: usize = 256;
/// Bytes of a table's or a column's name.
pub const MAX_NAME_BYTES: usize = 56;
/// Bytes of a column's unit.
pub const MAX_UNIT_BYTES: usize = 24;

pub(super) const PAGE_WORDS: usize = 4096 / WORD;
const LINE_WORDS: usize = 64 / WORD;

// The header: one page. The heartbeat and the generation have cache lines of their own.
pub(super) const AT_MAGIC: usize = 0;
pub(super) const AT_LAYOUT: usize = 1;
pub(super) const AT_FILE_WORDS: usize = 2;
pub(super) const AT_WORKERS: usize = 3;
pub(super) const AT_TABLES: usize = 4;
pub(super) const AT_PID: usize = 5;
pub(super) const AT_PID_STARTED: usize = 6; // clock ticks since boot, as /proc/PID/stat has it; 0: unknown
pub(super) const AT_STARTED: usize = 7; // ns since 1970
pub(super) const AT_PROGRAM_VERSION: Text = Text { at: 8, words: 16 };
pub(super) const AT_HEARTBEAT: usize = 32; // ns since 1970
pub(super) const AT_GENERATION_SEQUENCE: usize = 40;
pub(super) const AT_GENERATION: usize = 41;
pub(super) const AT_DIGEST: usize = 42; // low half, then high half
pub(super) const AT_EPOCH: usize = 44;
pub(super) const AT_READY: usize = 45;

// The directory: the tables, then the columns of each.
pub(super) const AT_DIRECTORY: usize = PAGE_WORDS;
pub(super) const TABLE_WORDS: usize = 16;
pub(super) const COLUMN_WORDS: usize = 16;
const NAME_WORDS: usize = 1 + MAX_NAME_BYTES / WORD;
const UNIT_WORDS: usize = 1 + MAX_UNIT_BYTES / WORD;

// A table: its name, then these.
pub(super) const TABLE_ROWS: usize = NAME_WORDS;
pub(super) const TABLE_COLUMNS: usize = NAME_WORDS + 1;
pub(super) const TABLE_COLUMNS_AT: usize = NAME_WORDS + 2;
pub(super) const TABLE_USED_AT: usize = NAME_WORDS + 3;
pub(super) const TABLE_LABELS_AT: usize = NAME_WORDS + 4;
pub(super) const TABLE_CELLS_AT: usize = NAME_WORDS + 5;
pub(super) const TABLE_BLOCKS: usize = NAME_WORDS + 6; // one, or one a worker
pub(super) const TABLE_BLOCK_WORDS: usize = NAME_WORDS + 7; // from one block to the next
const _: () = assert!(TABLE_BLOCK_WORDS < TABLE_WORDS);

// A column: its name, its unit, its kind.
pub(super) const COLUMN_KIND: usize = NAME_WORDS + UNIT_WORDS;
const _: () = assert!(COLUMN_KIND < COLUMN_WORDS);

// A label: sequence, length in bytes, the bytes.
pub(super) const LABEL_SEQUENCE: usize = 0;
pub(super) const LABEL_TEXT: usize = 1;
pub(super) const LABEL_WORDS: usize = {
    let words = 2 + label::MAX_LABEL_BYTES / WORD;
    words.next_multiple_of(LINE_WORDS)
};

/// A place for bytes: their number in the first word, themselves in the others.
#[derive(Clone, Copy)]
pub(super) struct Text {
    pub(super) at: usize,
    /// With the word of the length.
    pub(super) words: usize,
}

impl Text {
    pub(super) fn name(at: usize) -> Self {
        Self { at, words: NAME_WORDS }
    }

    pub(super) fn unit(column_at: usize) -> Self {
        Self { at: column_at + NAME_WORDS, words: UNIT_WORDS }
    }

    pub(super) fn label(label_at: usize) -> Self {
        Self { at: label_at + LABEL_TEXT, words: 1 + label::MAX_LABEL_BYTES / WORD }
    }

    fn capacity(self) -> usize {
        (self.words - 1) * WORD
    }

    /// Writes `text`, cut at the capacity: callers check where that would matter.
    pub(super) fn put(self, words: &[AtomicU64], text: &[u8]) {
        let text = &text[..text.len().min(self.capacity())];
        words[self.at].store(text.len() as u64, Ordering::Relaxed);
        for (word, chunk) in words[self.at + 1..].iter().zip(text.chunks(WORD)) {
            let mut bytes = [0; WORD];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
    }

    /// The bytes there, or `None` if the length is above the capacity. The place lies in `words`.
    pub(super) fn get(self, words: &[AtomicU64]) -> Option<Vec<u8>> {
        let len = usize::try_from(words[self.at].load(Ordering::Relaxed)).ok()?;
        if len > self.capacity() {
            return None;
        }
        let mut bytes = Vec::with_capacity(len.next_multiple_of(WORD));
        for word in &words[self.at + 1..][..len.div_ceil(WORD)] {
            bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        bytes.truncate(len);
        Some(bytes)
    }
}

pub(super) fn kind_to_word(kind: Kind) -> u64 {
    match kind {
        Kind::Counter => 0,
        Kind::Gauge => 1,
    }
}

pub(super) fn kind_from_word(word: u64) -> Option<Kind> {
    match word {
        0 => Some(Kind::Counter),
        1 => Some(Kind::Gauge),
        _ => None,
    }
}

/// Where one table's parts stand. The reader fills it from the file, after checks; the writer by
/// [`plan`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) columns_at: usize,
    pub(super) used_at: usize,
    pub(super) labels_at: usize,
    pub(super) cells_at: usize,
    pub(super) blocks: usize,
    pub(super) block_words: usize,
}

impl Place {
    /// Where block `block` of cells begins.
    pub(super) fn block_at(&self, block: usize) -> usize {
        self.cells_at + block * self.block_words
    }

    /// Where the cells of `row` begin in block `block`.
    pub(super) fn cells_of(&self, block: usize, row: usize) -> usize {
        self.block_at(block) + row * self.columns
    }

    pub(super) fn label_of(&self, row: usize) -> usize {
        self.labels_at + row * LABEL_WORDS
    }

    /// The word and the bit that say whether `row` has a label.
    pub(super) fn used_bit(&self, row: usize) -> (usize, u64) {
        (self.used_at + row / 64, 1 << (row % 64))
    }
}

/// A whole segment, laid out.
pub(super) struct Plan {
    pub(super) places: Vec<Place>,
    /// Where the cells begin: what stands before them is written by us alone.
    pub(super) cells_at: usize,
    pub(super) words: usize,
}

/// Lays out `tables`: header, directory, bits of use, cells, labels, each block of cells from a page of
/// its own so that no two workers write one line.
///
/// # Errors
/// [`StatsError::Spec`] with the limit that does not hold.
pub(super) fn plan(workers: usize, tables: &[TableSpec]) -> Result<Plan, StatsError> {
    check(workers, tables).map_err(StatsError::Spec)?;
    let mut end = AT_DIRECTORY + tables.len() * TABLE_WORDS;
    let mut take = |words: usize, align: usize| {
        let at = end.next_multiple_of(align);
        end = at + words;
        at
    };
    let mut places = Vec::with_capacity(tables.len());
    for table in tables {
        let (rows, columns) = (table.rows, table.columns.len());
        places.push(Place {
            rows,
            columns,
            columns_at: take(columns * COLUMN_WORDS, 1),
            used_at: take(rows.div_ceil(64), LINE_WORDS),
            labels_at: 0,
            cells_at: 0,
            blocks: if table.per_worker { workers } else { 1 },
            block_words: (rows * columns).next_multiple_of(PAGE_WORDS),
        });
    }
    let cells_at = take(0, PAGE_WORDS);
    for place in &mut places {
        place.cells_at = take(place.blocks * place.block_words, PAGE_WORDS);
    }
    for place in &mut places {
        place.labels_at = take(place.rows * LABEL_WORDS, PAGE_WORDS);
    }
    let words = take(0, PAGE_WORDS);
    Ok(Plan { places, cells_at, words })
}

fn check(workers: usize, tables: &[TableSpec]) -> Result<(), String> {
    within("workers", workers, 1, MAX_WORKERS)?;
    within("tables", tables.len(), 1, MAX_TABLES)?;
    for (index, table) in tables.iter().enumerate() {
        printable("table name", table.name, MAX_NAME_BYTES)?;
        if tables[..index].iter().any(|other| other.name == table.name) {
            return Err(format!("two tables are called {}", table.name));
        }
        let of = |what| format!("{what} of table {}", table.name);
        within(&of("columns"), table.columns.len(), 1, MAX_COLUMNS)?;
        within(&of("rows"), table.rows, 1, MAX_ROWS)?;
        for column in table.columns {
            printable(&of("column name"), column.name, MAX_NAME_BYTES)?;
            if !column.unit.is_empty() {
                printable(&of("column unit"), column.unit, MAX_UNIT_BYTES)?;
            }
        }
    }
    Ok(())
}

/// Whether `value` is in `least..=most`; the sentence if not.
pub(super) fn within(what: &str, value: usize, least: usize, most: usize) -> Result<(), String> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(format!("{value} {what}, allowed are {least} to {most}"))
}

/// Whether `text` is 1 to `most` bytes of printable ASCII; the sentence if not.
pub(super) fn printable(what: &str, text: &str, most: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > most || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{what} {text:?} is not 1 to {most} bytes of printable ASCII"));
    }
    Ok(())
}
