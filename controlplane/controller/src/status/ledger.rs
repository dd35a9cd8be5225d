//! The statuses of all objects, kept, and concluded anew for those of which something else may have to be said.

use std::collections::BTreeSet;
use std::mem::take;

use penstock_gateway_types::Time;

use super::{Progress, Stamp, Statuses, conclude_one};
use crate::object::{ObjectKey, Objects};
use crate::translate::Translation;

/// Every object of ours with its status. Concluding costs what was noted since, and not what there is.
#[derive(Debug, Default)]
pub struct Ledger {
    statuses: Statuses,
    /// Whose status may be another one now.
    noted: BTreeSet<ObjectKey>,
    /// Whether anyone's may.
    all: bool,
}

impl Ledger {
    /// One that begins with statuses that an earlier process concluded, each in doubt.
    #[must_use]
    pub fn of(statuses: Statuses) -> Self {
        Self { statuses, noted: BTreeSet::new(), all: true }
    }

    /// What was concluded last.
    #[must_use]
    pub fn statuses(&self) -> &Statuses {
        &self.statuses
    }

    /// The status of each of these may be another one now.
    pub fn note(&mut self, keys: impl IntoIterator<Item = ObjectKey>) {
        self.noted.extend(keys);
    }

    /// The status of anyone may be another one now, if `all`.
    pub fn note_all(&mut self, all: bool) {
        self.all |= all;
    }

    /// Concludes what was noted. Returns the objects whose status is another one now, or is there for the first time
    /// or no more.
    pub fn conclude(
        &mut self,
        objects: &Objects,
        translation: &Translation,
        progress: &Progress,
        now: &Time,
    ) -> Vec<ObjectKey> {
        let mut keys = take(&mut self.noted);
        if take(&mut self.all) {
            keys.extend(super::answered(translation, progress));
            keys.extend(self.statuses.keys().cloned());
        }
        keys.retain(|key| {
            let stamp = Stamp { now, previous: &self.statuses };
            let status = conclude_one(key, objects, translation, progress, &stamp);
            if self.statuses.get(key) == status.as_ref() {
                return false;
            }
            match status {
                Some(status) => _ = self.statuses.insert(key.clone(), status),
                None => _ = self.statuses.remove(key),
            }
            true
        });
        keys.into_iter().collect()
    }
}
