//! Status files: `<run dir>/status/<kind>/<namespace>/<name>.yaml`, the object with its conditions.
//!
//! A file appears whole or not at all (written beside, then renamed), is written only when its content
//! changes, and goes when its object goes. A GatewayClass, which has no namespace, is
//! `status/GatewayClass/<name>.yaml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Statuses;
use crate::object::{Object, ObjectKey};
use crate::{manifest, whole_file};

/// The folder of status files, and what is in it.
pub struct StatusFiles {
    root: PathBuf,
    written: BTreeMap<PathBuf, String>,
    /// What was written last: comparing objects is cheaper than encoding them.
    last: Statuses,
}

/// What one round of writing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files that are new or changed.
    pub files: usize,
    /// Files that went.
    pub removed: usize,
}

impl StatusFiles {
    /// The folder below `run_dir`, with whatever an earlier process left in it.
    #[must_use]
    pub fn open(run_dir: &Path) -> Self {
        let root = run_dir.join("status");
        let mut written = BTreeMap::new();
        read_all(&root, 3, &mut written);
        Self { root, written, last: Statuses::new() }
    }

    /// The statuses that are in the folder: where the times of conditions come from after a restart. What
    /// cannot be read is left out; it will be written anew.
    #[must_use]
    pub fn statuses(&self) -> Statuses {
        let objects = self
            .written
            .iter()
            .flat_map(|(path, text)| manifest::read(&path.to_string_lossy(), text).manifests);
        objects.map(|manifest| (manifest.object.key(), manifest.object)).collect()
    }

    /// Makes the folder hold exactly `statuses`. Goes on after an error, and tries again the next time.
    ///
    /// # Errors
    /// The first error of the file system, with its path.
    pub fn write(&mut self, statuses: &Statuses) -> io::Result<Written> {
        let mut done = Written::default();
        let mut failed = None;
        let mut wanted = BTreeSet::new();
        for (key, object) in statuses {
            let path = self.path(key);
            let same = self.last.get(key) == Some(object) && self.is_written(&path);
            match if same { Ok(false) } else { self.put(&path, object) } {
                Ok(changed) => done.files += usize::from(changed),
                Err(error) => {
                    // Whatever the file holds, it is tried again.
                    self.written.entry(path.clone()).or_default().clear();
                    failed = failed.or(Some(error));
                }
            }
            wanted.insert(path);
        }
        let removed = self.remove_all_but(&wanted, &mut done);
        self.last.clone_from(statuses);
        failed.or(removed).map_or(Ok(done), Err)
    }

    /// Removes the files that are not wanted. Returns the first error.
    fn remove_all_but(
        &mut self,
        wanted: &BTreeSet<PathBuf>,
        done: &mut Written,
    ) -> Option<io::Error> {
        let mut failed = None;
        let all = self.written.keys();
        let stale: Vec<_> = all.filter(|path| !wanted.contains(*path)).cloned().collect();
        for path in stale {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    failed = failed.or(Some(error));
                }
                _ => {
                    self.written.remove(&path);
                    done.removed += 1;
                }
            }
        }
        failed
    }

    /// Whether the file holds what was last said of its object.
    fn is_written(&self, path: &Path) -> bool {
        self.written.get(path).is_some_and(|text| !text.is_empty())
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        let folder = self.root.join(key.kind.as_str());
        let folder = if key.namespace.is_empty() { folder } else { folder.join(&key.namespace) };
        folder.join(format!("{}.yaml", key.name))
    }

    fn put(&mut self, path: &Path, object: &Object) -> io::Result<bool> {
        let text = serde_saphyr::to_string(object).map_err(io::Error::other)?;
        if self.written.get(path) == Some(&text) {
            return Ok(false);
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| whole_file::named(folder, &error))?;
        }
        whole_file::write(path, text.as_bytes())?;
        self.written.insert(path.to_owned(), text);
        Ok(true)
    }
}

/// Reads every file below `folder`, `depth` levels down. A folder that is not there holds nothing.
fn read_all(folder: &Path, depth: usize, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => read_all(&path, depth - 1, found),
            Ok(kind) if kind.is_file() => {
                found.insert(path.clone(), fs::read_to_string(&path).unwrap_or_default());
            }
            _ => {}
        }
    }
}
