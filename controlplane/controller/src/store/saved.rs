//! The store on disk: the last good objects, so that a restart with a broken folder still serves, and their
//! history.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use penstock_gateway_types::Time;
use serde::{Deserialize, Serialize};

use super::history::Entry;
use super::{Store, StoredFile};
use crate::manifest::Manifest;
use crate::object::{self, Kind, ObjectKey};
use crate::whole_file;
use crate::yaml::Place;

/// The version of the format; another one is not read.
const VERSION: u32 = 1;

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Saved {
    version: u32,
    files: BTreeMap<String, Vec<SavedObject>>,
    history: Vec<SavedEntry>,
}

#[derive(Deserialize, Serialize)]
struct SavedObject {
    line: u32,
    column: u32,
    object: serde_json::Value,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct SavedEntry {
    kind: String,
    namespace: String,
    name: String,
    generation: i64,
    created: Time,
    spec: String,
}

impl Store {
    /// The store as it was saved at `path`; an empty one if there is none yet.
    ///
    /// # Errors
    /// The file system's, or [`io::ErrorKind::InvalidData`] for a file that is not ours: both with the path.
    pub fn load(path: &Path) -> io::Result<Self> {
        whole_file::read(path, decode)
    }

    /// Saves the store at `path`, whole or not at all. Costs two syncs of the disk.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(&encode(self)).map_err(io::Error::other)?;
        whole_file::write_durably(path, &bytes)
    }
}

fn encode(store: &Store) -> Saved {
    let object = |manifest: &Manifest| SavedObject {
        line: manifest.place.line,
        column: manifest.place.column,
        object: manifest.object.to_json(),
    };
    let file = |(name, file): (&String, &StoredFile)| {
        (name.clone(), file.manifests.values().map(object).collect())
    };
    let entry = |(key, entry): (&ObjectKey, &Entry)| SavedEntry {
        kind: key.kind.as_str().to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        generation: entry.generation,
        created: entry.created.clone(),
        spec: format!("{:032x}", entry.spec),
    };
    Saved {
        version: VERSION,
        files: store.files.iter().map(file).collect(),
        history: store.history.entries.iter().map(entry).collect(),
    }
}

fn decode(bytes: &[u8]) -> Result<Store, String> {
    let saved: Saved = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if saved.version != VERSION {
        return Err(format!("its version is {}, not {VERSION}", saved.version));
    }
    let mut store = Store::default();
    for (name, objects) in saved.files {
        let named = |manifest: Manifest| (manifest.object.key(), manifest);
        let manifests = objects.into_iter().map(|saved| manifest(saved).map(named));
        let manifests: Result<_, String> = manifests.collect();
        let file = StoredFile { manifests: manifests?, ..StoredFile::default() };
        store.holders.changed.insert(name.clone());
        store.files.insert(name, file);
    }
    for saved in saved.history {
        let spec = u128::from_str_radix(&saved.spec, 16).map_err(|error| error.to_string())?;
        let key =
            ObjectKey { kind: kind(&saved.kind)?, namespace: saved.namespace, name: saved.name };
        let entry = Entry { generation: saved.generation, created: saved.created, spec };
        store.history.entries.insert(key, entry);
    }
    Ok(store)
}

fn manifest(saved: SavedObject) -> Result<Manifest, String> {
    let kind = kind(saved.object.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default())?;
    let object = object::deserialize(kind, saved.object).map_err(|error| error.to_string())?;
    Ok(Manifest { object, place: Place { line: saved.line, column: saved.column } })
}

pub(super) fn kind(text: &str) -> Result<Kind, String> {
    let found = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
    found.ok_or_else(|| format!("kind {text:?} is not known"))
}
