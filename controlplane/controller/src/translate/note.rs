//! Words about objects that no condition carries.

use std::collections::BTreeMap;
use std::fmt;

use crate::object::ObjectKey;

/// A word about an object that no condition carries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The object.
    pub object: ObjectKey,
    /// What is wrong, and the next move.
    pub message: String,
}

/// What a note came of. It is forgotten when that is judged anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// An object, judged by itself.
    Judged(ObjectKey),
    /// The listeners of an object at their places.
    Served(ObjectKey),
    /// The AddressPools.
    Pools,
}

/// All notes, in order.
#[derive(Clone, Default)]
pub struct Notes {
    by_source: BTreeMap<Source, Vec<Note>>,
    /// How often each was made.
    all: BTreeMap<Note, usize>,
}

impl Notes {
    /// The notes, by object and text.
    pub fn iter(&self) -> impl Iterator<Item = &Note> {
        self.all.iter().flat_map(|(note, count)| std::iter::repeat_n(note, *count))
    }

    /// Replaces what came of `source`. Returns whether that is something else now.
    pub(super) fn set(&mut self, source: Source, notes: Vec<Note>) -> bool {
        let before = match notes.is_empty() {
            true => self.by_source.remove(&source),
            false => self.by_source.insert(source, notes.clone()),
        };
        let before = before.unwrap_or_default();
        if before == notes {
            return false;
        }
        for note in before {
            if let Some(count) = self.all.get_mut(&note) {
                *count -= 1;
                if *count == 0 {
                    self.all.remove(&note);
                }
            }
        }
        for note in notes {
            *self.all.entry(note).or_default() += 1;
        }
        true
    }
}

/// The same words, whatever they came of.
impl PartialEq for Notes {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
