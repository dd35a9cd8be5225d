//! The numbers of bundles: for people, and to tell which of two is newer.
//!
//! A digest that had a number keeps it over restarts, so that all boxes with one digest name one number. What boxes
//! have heard of is never given again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::link::Digest;
use crate::whole_file;

#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
struct Given {
    highest: u64,
    bundles: BTreeMap<Digest, u64>,
}

/// The numbers that were given.
#[derive(Debug)]
pub(super) struct Numbers {
    file: PathBuf,
    given: Given,
    /// Whether the file does not say so yet.
    is_news: bool,
}

impl Numbers {
    /// As kept in `file`. If that is lost, boxes say how far we were.
    pub(super) fn open(file: PathBuf) -> Self {
        let decode = |bytes: &[u8]| serde_json::from_slice(bytes).map_err(|e| e.to_string());
        let given = whole_file::read(&file, decode).unwrap_or_else(|error| {
            warn!(%error, "the numbers of bundles are lost: boxes say how far we were");
            Given::default()
        });
        Self { file, given, is_news: false }
    }

    /// The number of the bundle with `digest`: a new one only if it is new.
    pub(super) fn of(&mut self, digest: Digest) -> u64 {
        let next = self.given.highest + 1;
        let number = *self.given.bundles.entry(digest).or_insert(next);
        self.meet(number);
        number
    }

    /// A box has heard of this one.
    pub(super) fn meet(&mut self, number: u64) {
        self.is_news |= number > self.given.highest;
        self.given.highest = self.given.highest.max(number);
    }

    /// Forgets all digests but these, and writes what is left if it is news. Not durably: what is lost, boxes say.
    pub(super) fn keep(&mut self, digests: impl Iterator<Item = Digest>) {
        let digests: BTreeSet<_> = digests.collect();
        let before = self.given.bundles.len();
        self.given.bundles.retain(|digest, _| digests.contains(digest));
        self.is_news |= self.given.bundles.len() != before;
        if !self.is_news {
            return;
        }
        let bytes = serde_json::to_vec(&self.given).unwrap_or_default();
        match whole_file::write(&self.file, &bytes) {
            Ok(_) => self.is_news = false,
            Err(error) => warn!(%error, "the numbers of bundles are not kept"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_keeps_its_number_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Numbers::open(folder.path().join("numbers"));
        let digest = |n: u8| Digest::of(&[n]);
        let mut numbers = open();
        assert_eq!(
            [numbers.of(digest(1)), numbers.of(digest(1)), numbers.of(digest(2))],
            [1, 1, 2]
        );
        numbers.keep([digest(2)].into_iter());
        let mut numbers = open();
        assert_eq!(numbers.of(digest(2)), 2, "as before the restart");
        numbers.meet(40);
        assert_eq!(numbers.of(digest(1)), 41, "what a box has heard of is not given again");
        std::fs::write(folder.path().join("numbers"), "x").unwrap();
        assert_eq!(open().of(digest(1)), 1, "what is lost begins anew");
    }

    #[test]
    fn what_the_file_says_already_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("numbers");
        let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let mut numbers = Numbers::open(file.clone());
        type Change = fn(&mut Numbers, Digest, Digest);
        let rows: [(&str, Change, &[u8], bool); 6] = [
            ("nothing is there yet", |_, _, _| {}, b"", false),
            ("a new digest", |numbers, one, _| _ = numbers.of(one), b"1", true),
            ("the same again", |numbers, one, _| _ = numbers.of(one), b"1", false),
            ("a box has heard of a higher number", |numbers, _, _| numbers.meet(9), b"1", true),
            ("and of a lower one", |numbers, _, _| numbers.meet(8), b"1", false),
            ("one goes for another", |numbers, _, other| _ = numbers.of(other), b"2", true),
        ];
        for (promise, change, kept, is_written) in rows {
            change(&mut numbers, one, other);
            numbers.keep(kept.iter().map(|byte| Digest::of(&[*byte])));
            assert_eq!(std::fs::remove_file(&file).is_ok(), is_written, "{promise}");
        }
    }
}
