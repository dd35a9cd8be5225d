//! What an API server remembers of an object: when it was created, and how often its spec changed.

use std::collections::BTreeMap;

use penstock_gateway_types::Time;
use xxhash_rust::xxh3::xxh3_128;

use crate::object::{Object, ObjectKey};

/// The history of every object with a status.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct History {
    pub(super) entries: BTreeMap<ObjectKey, Entry>,
}

/// The history of one object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) generation: i64,
    pub(super) created: Time,
    /// The hash of the spec that has this generation.
    pub(super) spec: u128,
}

impl History {
    /// Writes generation and creation time into `object`. A creation time that its author gave is kept.
    pub(super) fn stamp(&mut self, key: &ObjectKey, object: &mut Object, now: &Time) {
        if !key.kind.has_status() {
            return;
        }
        let json = object.to_json();
        let spec = json.get("spec").map(ToString::to_string).unwrap_or_default();
        let spec = xxh3_128(spec.as_bytes());
        let new = || Entry { generation: 1, created: now.clone(), spec };
        let entry = self.entries.entry(key.clone()).or_insert_with(new);
        if entry.spec != spec {
            entry.generation += 1;
            entry.spec = spec;
        }
        let metadata = object.metadata_mut();
        metadata.generation = Some(entry.generation);
        metadata.creation_timestamp.get_or_insert_with(|| entry.created.clone());
    }

    /// Forgets what is not in force any more: an object that comes back is a new one.
    pub(super) fn keep_only<V>(&mut self, in_force: &BTreeMap<ObjectKey, V>) {
        self.entries.retain(|key, _| in_force.contains_key(key));
    }
}
