//! When a burst of changes is over.
//!
//! ```text
//! rename, remove ───────────────────────────► QUIET later
//! write … write … close ────────────────────► QUIET after the close
//! write … (the writer never closes)  ───────► PATIENCE after the last write
//! events without end ───────────────────────► LONGEST after the first
//! ```
//!
//! Time is an argument, so the rows above are tests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Events closer together than this are one change: the two renames of an editor, the files of a `cp`.
const QUIET: Duration = Duration::from_millis(20);
/// How long a file may stay open for writing before it is read as it is.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest that a change waits, whatever comes after it.
const LONGEST: Duration = Duration::from_secs(5);

/// Something happened to a file of the folder, or to the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Someone writes to the file.
    Writing(PathBuf),
    /// Its writer closed it.
    Closed(PathBuf),
    /// It came, went, or got another name: whole at once.
    Whole,
}

/// Collects changes until they have settled.
#[derive(Debug, Default)]
pub struct Settle {
    first: Option<Instant>,
    last: Option<Instant>,
    open: BTreeMap<PathBuf, Instant>,
}

impl Settle {
    /// Takes a change in.
    pub fn note(&mut self, change: Change, now: Instant) {
        self.first.get_or_insert(now);
        self.last = Some(now);
        match change {
            Change::Writing(path) => drop(self.open.insert(path, now)),
            Change::Closed(path) => drop(self.open.remove(&path)),
            Change::Whole => {}
        }
    }

    /// When to look; `None` if nothing changed.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let quiet = self.last? + QUIET;
        let closed = self.open.values().map(|written| *written + PATIENCE).max();
        Some(closed.map_or(quiet, |closed| closed.max(quiet)).min(self.first? + LONGEST))
    }

    /// Starts over: the folder is looked at now.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_when_it_has_settled() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let path = || PathBuf::from("a.yaml");
        let writing = |ms| (ms, Change::Writing(path()));
        let closed = |ms| (ms, Change::Closed(path()));
        let whole = |ms| (ms, Change::Whole);
        for (promise, changes, due) in [
            ("nothing waits for nothing", vec![], None),
            ("a rename waits for its neighbours", vec![whole(0)], Some(20)),
            ("a burst is one change", vec![whole(0), whole(15), whole(30)], Some(50)),
            (
                "a file is read once it is closed",
                vec![writing(0), writing(900), closed(1000)],
                Some(1020),
            ),
            (
                "a file that is never closed is read in the end",
                vec![writing(0), writing(100)],
                Some(2100),
            ),
            ("another file waits for the open one", vec![writing(0), whole(50)], Some(2000)),
            ("no burst is endless", (0..60).map(|i| writing(i * 100)).collect(), Some(5000)),
        ] {
            let mut settle = Settle::default();
            for (ms, change) in changes {
                settle.note(change, at(ms));
            }
            assert_eq!(settle.due(), due.map(at), "{promise}");
            settle.clear();
            assert_eq!(settle.due(), None, "{promise}");
        }
    }
}
