//! What cannot be served, by the object whose fault it is.

use std::collections::{BTreeMap, BTreeSet};

use penstock_feed::{Name, ObjectError, ObjectId, ObjectKind};

/// The faults of objects, sorted.
#[derive(Debug, Default)]
pub(super) struct Errors(BTreeMap<ObjectId, BTreeSet<String>>);

impl Errors {
    /// Forgets what was wrong with an object: it is looked at anew.
    pub(super) fn clear(&mut self, kind: ObjectKind, name: &Name) {
        if !self.0.is_empty() {
            self.0.remove(&ObjectId { kind, name: name.clone() });
        }
    }

    /// Notes a fault; once, however often it is found.
    pub(super) fn report(&mut self, error: ObjectError) {
        self.0.entry(error.object).or_default().insert(error.message);
    }

    /// All of them.
    pub(super) fn list(&self) -> Vec<ObjectError> {
        let error = |(object, message): (&ObjectId, &String)| ObjectError {
            object: object.clone(),
            message: message.clone(),
        };
        let of_objects = self.0.iter();
        of_objects
            .flat_map(|(object, all)| all.iter().map(move |one| (object, one)))
            .map(error)
            .collect()
    }
}

/// A fault of an object.
pub(super) fn refused(kind: ObjectKind, name: &Name, message: &impl ToString) -> ObjectError {
    ObjectError { object: ObjectId { kind, name: name.clone() }, message: message.to_string() }
}
