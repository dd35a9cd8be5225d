//! What the data plane counts, in a file that explains itself.
//!
//! The data plane writes `RUN/dataplane.stats`; anyone may map it read-only: `penstock status`, an
//! exporter, a stranger's script. Nothing is asked of the data plane, no lock is shared, and a reader
//! never writes to a line that a worker writes. What a table is called, its columns, their kinds and
//! units stand in the file, so a reader needs no list of its own and follows a data plane that is
//! older or newer than itself.
//!
//! ```text
//! header     who writes, since when, its last beat, the generation it serves      (seqlocked: generation)
//! directory  tables and their columns: names, kinds, units, offsets                (never changes)
//! per table  rows in use: one bit a row
//!            cells: rows × columns of u64, a block for each worker, on pages of its own
//!            labels: 1 KiB a row, seqlocked, so that nobody ever reads half a label
//! ```
//!
//! * [`StatsWriter`] creates the file under a temporary name and renames it when it is whole; who has
//!   the old one open keeps a valid mapping of the last values. A file never shrinks.
//! * [`Cells`] is a worker's own block: it adds by a load and a store, both `Relaxed`, since nobody
//!   else writes there.
//! * [`StatsReader`] believes nothing: magic, version, every offset and every length are compared with
//!   the file before a cell is read. Damage is an error with a place in it, never a panic.
//!
//! **A row and its numbers belong together.** A row is given to another object in three steps, each by
//! the one thread that owns the writer: [`StatsWriter::clear_label`], then
//! [`StatsWriter::zero_row`] once no worker counts there any more, then [`StatsWriter::set_label`].
//! A reader takes label and numbers inside one turn of the row's seqlock, so that it never shows
//! one object's packets under another's name. The numbers themselves are read one by one while the
//! workers go on: each is true, and `packets` and `bytes` may be a burst apart.
//!
//! **Cost.** Cells are allocated before a worker is told to count in them, 4096 rows at once, so that it
//! neither waits for a page nor dies of a full `/run`; labels are when a row is first named, 64 at once. With
//! room for 32 768 listeners of 8 columns and 262 144 backends of 8, two workers: a file of 344 MiB of
//! which all but a MiB are holes, until more than 4096 rows of a table are used: each of those then takes
//! 64 bytes a worker, and its label 1 KiB (test `a_large_segment_costs_what_is_used_of_it`).
//! A counter costs its worker one load and one store on a line of its own.

mod label;
mod layout;
mod mapping;
mod process;
mod reader;
mod seqlock;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

pub use label::MAX_LABEL_BYTES;
pub use layout::{MAX_COLUMNS, MAX_NAME_BYTES, MAX_ROWS, MAX_TABLES, MAX_UNIT_BYTES, MAX_WORKERS};
pub use process::is_running;
pub use reader::{ColumnInfo, Life, Row, StatsReader, Table};
pub use writer::{Cells, StatsWriter};

/// What a column's number means over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the row has its label; starts again at 0 with the process.
    Counter,
    /// Is what it is now, up or down.
    Gauge,
}

/// One column of a table, as the writer declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// At most [`MAX_NAME_BYTES`] of printable ASCII, for instance `packets`.
    pub name: &'static str,
    /// Whether the number only grows.
    pub kind: Kind,
    /// At most [`MAX_UNIT_BYTES`] of printable ASCII, for instance `bytes`; may be empty.
    pub unit: &'static str,
}

impl Column {
    /// A number that only grows.
    #[must_use]
    pub const fn counter(name: &'static str, unit: &'static str) -> Self {
        Self { name, kind: Kind::Counter, unit }
    }

    /// A number that is what it is now.
    #[must_use]
    pub const fn gauge(name: &'static str, unit: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit }
    }
}

/// One table, as the writer declares it.
#[derive(Clone, Copy, Debug)]
pub struct TableSpec {
    /// At most [`MAX_NAME_BYTES`] of printable ASCII; unique in the segment.
    pub name: &'static str,
    /// 1 to [`MAX_COLUMNS`].
    pub columns: &'static [Column],
    /// 1 to [`MAX_ROWS`]. A row is shown once it has a label; the row of a table of one row always is.
    pub rows: usize,
    /// Whether every worker has a block of its own, or the main lcore alone writes the one block.
    pub per_worker: bool,
}

/// The process that writes the segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its process id.
    pub pid: u32,
    /// Its version, at most 120 bytes, for instance `0.1.0`.
    pub version: String,
    /// When it started.
    pub started: SystemTime,
}

/// Which configuration the data plane serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generation {
    /// The control process's number for it; 0 before the first.
    pub generation: u64,
    /// The digest of the state, as in the feed's hello.
    pub digest: u128,
    /// The connection's epoch: rises with every control process that takes over.
    pub epoch: u64,
    /// Whether every worker forwards by this generation.
    pub ready: bool,
}

/// Why a segment cannot be created, written or read.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// The operating system refused.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io {
        /// The segment's file.
        path: PathBuf,
        /// What was tried, as a verb with its object.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is something else, or cut short.
    #[error(
        "{}: not a Penstock statistics segment, or cut short; restart penstock-dataplane, which writes it anew",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is of another layout.
    #[error(
        "{}: layout {found}, this program reads {}: install penstock and penstock-dataplane of one release",
        path.display(), layout::LAYOUT_VERSION
    )]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// The layout it says it has.
        found: u64,
    },
    /// The file contradicts itself or its own size.
    #[error("{}: damaged: {what}; restart penstock-dataplane, which writes it anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// The tables asked for cannot be laid out.
    #[error("statistics segment: {0}")]
    Spec(String),
    /// The label does not fit its row.
    #[error("statistics table {table}, row {row}: a {what} of {bytes} bytes, {most} fit")]
    LabelTooLong {
        /// The table's name.
        table: String,
        /// The row.
        row: usize,
        /// What is too long: the label, or one of its keys.
        what: &'static str,
        /// Its length, encoded.
        bytes: usize,
        /// What would fit.
        most: usize,
    },
    /// There is no such row.
    #[error("statistics segment: no row {row} in a table {table}")]
    NoSuchRow {
        /// The table's name.
        table: String,
        /// The row.
        row: usize,
    },
}

impl StatsError {
    /// Whether the file is not there at all: the data plane has not run since the box started.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
