//! Status files: `<run dir>/status/<kind>/<namespace>/<name>.yaml`, the object with its conditions.
//!
//! A file appears whole or not at all (written beside, then renamed), is written only when its content
//! changes, and goes when its object goes. A GatewayClass, which has no namespace, is
//! `status/GatewayClass/<name>.yaml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use super::Statuses;
use crate::object::{Object, ObjectKey};
use crate::{manifest, whole_file};

/// The folder of status files, and what is in it.
pub struct StatusFiles {
    root: PathBuf,
    /// What each file holds, by its hash; `None` if that is not known.
    written: BTreeMap<PathBuf, Option<u128>>,
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
    /// The folder below `run_dir`, and the statuses that an earlier process left in it: where the times of conditions
    /// come from after a restart. What cannot be read is left out; it will be written anew.
    #[must_use]
    pub fn open(run_dir: &Path) -> (Self, Statuses) {
        let root = run_dir.join("status");
        let (mut written, mut statuses) = (BTreeMap::new(), Statuses::new());
        read_all(&root, 3, &mut |path, text| {
            let manifests = manifest::read(&path.to_string_lossy(), text).manifests;
            statuses.extend(manifests.into_iter().map(|read| (read.object.key(), read.object)));
            written.insert(path, Some(hash(text)));
        });
        (Self { root, written, last: Statuses::new() }, statuses)
    }

    /// Makes the folder hold exactly `statuses`. Goes on after an error, and tries again the next time.
    ///
    /// # Errors
    /// The first error of the file system, with its path.
    pub fn write(&mut self, statuses: &Statuses) -> io::Result<Written> {
        let gone = self.last.keys().filter(|key| !statuses.contains_key(*key)).cloned();
        let keys: BTreeSet<ObjectKey> = gone.chain(statuses.keys().cloned()).collect();
        let mut written = self.write_some(&keys, statuses);
        let wanted: BTreeSet<PathBuf> = statuses.keys().map(|key| self.path(key)).collect();
        let strangers = self.written.keys().filter(|path| !wanted.contains(*path));
        let strangers: Vec<_> = strangers.cloned().collect();
        for path in strangers {
            let removed = self.remove(&path);
            written = written.and_then(|written| {
                removed.map(|()| Written { removed: written.removed + 1, ..written })
            });
        }
        written
    }

    /// Makes the folder say of each of `keys` what `statuses` does, and removes the files of those that have none.
    /// Goes on after an error, and tries again the next time.
    ///
    /// # Errors
    /// The first error of the file system, with its path.
    pub fn write_some(
        &mut self,
        keys: &BTreeSet<ObjectKey>,
        statuses: &Statuses,
    ) -> io::Result<Written> {
        let (mut done, mut failed) = (Written::default(), None);
        for key in keys {
            let path = self.path(key);
            let Some(object) = statuses.get(key) else {
                self.last.remove(key);
                if self.written.contains_key(&path) {
                    match self.remove(&path) {
                        Ok(()) => done.removed += 1,
                        Err(error) => failed = failed.or(Some(error)),
                    }
                }
                continue;
            };
            let same = self.last.get(key) == Some(object) && self.is_written(&path);
            match if same { Ok(false) } else { self.put(&path, object) } {
                Ok(changed) => done.files += usize::from(changed),
                Err(error) => {
                    // Whatever the file holds, it is tried again.
                    self.written.insert(path, None);
                    failed = failed.or(Some(error));
                }
            }
            self.last.insert(key.clone(), object.clone());
        }
        failed.map_or(Ok(done), Err)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                self.written.remove(path);
                Ok(())
            }
        }
    }

    /// Whether the file holds what was last said of its object.
    fn is_written(&self, path: &Path) -> bool {
        self.written.get(path).is_some_and(Option::is_some)
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        let folder = self.root.join(key.kind.as_str());
        let folder = if key.namespace.is_empty() { folder } else { folder.join(&key.namespace) };
        folder.join(format!("{}.yaml", key.name))
    }

    fn put(&mut self, path: &Path, object: &Object) -> io::Result<bool> {
        let text = serde_saphyr::to_string(object).map_err(io::Error::other)?;
        let hash = Some(hash(&text));
        if self.written.get(path) == Some(&hash) {
            return Ok(false);
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| whole_file::named(folder, &error))?;
        }
        whole_file::write(path, text.as_bytes())?;
        self.written.insert(path.to_owned(), hash);
        Ok(true)
    }
}

fn hash(text: &str) -> u128 {
    xxh3_128(text.as_bytes())
}

/// Reads every file below `folder`, `depth` levels down. A folder that is not there holds nothing.
fn read_all(folder: &Path, depth: usize, read: &mut dyn FnMut(PathBuf, &str)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => read_all(&path, depth - 1, read),
            Ok(kind) if kind.is_file() => {
                let text = fs::read_to_string(&path).unwrap_or_default();
                read(path, &text);
            }
            _ => {}
        }
    }
}
