//! The objects in force: what the files say now, or said when they were last good.
//!
//! * A file with a document that is no YAML may be half-written. Its last good objects stay in force, all of
//!   them; only a file that never was good is read for the documents that are.
//! * An object whose values do not fit stays in force as it was, as an API server would have it.
//! * A file that cannot be read keeps its objects; a file that is gone has none.
//! * Of an object in two files, the one in the file that sorts first is in force.
//!
//! What an API server would add is added here and kept in the state directory: a creation time, and a
//! generation that rises when the spec changes ([`history`]).

mod history;
mod saved;

use std::collections::BTreeMap;

use penstock_gateway_types::Time;
use xxhash_rust::xxh3::xxh3_128;

use crate::finding::{Finding, Severity};
use crate::manifest::{self, Manifest};
use crate::object::{ObjectKey, Objects};
use crate::source::folder::Texts;
use history::History;

/// Files, the objects of each, and the history of all.
#[derive(Debug, Default)]
pub struct Store {
    files: BTreeMap<String, StoredFile>,
    history: History,
}

/// What is in force of one file.
#[derive(Debug, Default)]
struct StoredFile {
    /// The hash of the text we read; `None` if it has not been read since we started.
    read: Option<u128>,
    manifests: Vec<Manifest>,
    findings: Vec<Finding>,
}

/// The objects in force, and what is wrong with the files they come from.
#[derive(Debug, Default)]
pub struct InForce {
    /// The objects.
    pub objects: Objects,
    /// The file of each.
    pub origins: BTreeMap<ObjectKey, String>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Store {
    /// Takes in what the files say now. Returns whether any of them changed.
    pub fn update(&mut self, texts: Texts) -> bool {
        let before = self.files.len();
        self.files.retain(|name, _| texts.contains_key(name));
        let mut changed = self.files.len() != before;
        for (name, text) in texts {
            let file = self.files.entry(name.clone()).or_default();
            changed |= match text {
                Ok(text) => file.read(&name, &text),
                Err(error) => file.unreadable(&name, error),
            };
        }
        changed
    }

    /// Reads every file anew at the next [`Self::update`], changed or not.
    pub fn forget_texts(&mut self) {
        self.files.values_mut().for_each(|file| file.read = None);
    }

    /// Whether there is anything in force: files, or what was saved of them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The objects in force, each with its generation and creation time. What is new is created `now`.
    pub fn in_force(&mut self, now: &Time) -> InForce {
        let mut all = InForce::default();
        for (name, file) in &self.files {
            all.findings.extend(file.findings.iter().cloned());
            for manifest in &file.manifests {
                let key = manifest.object.key();
                if let Some(first) = all.origins.get(&key) {
                    all.findings.push(Finding {
                        file: name.clone(),
                        place: Some(manifest.place),
                        severity: Severity::Error,
                        message: format!(
                            "given twice: {first} has it already, and that one is in force"
                        ),
                        object: Some(key),
                    });
                    continue;
                }
                let mut object = manifest.object.clone();
                self.history.stamp(&key, &mut object, now);
                all.origins.insert(key, name.clone());
                all.objects.insert(object);
            }
        }
        self.history.keep_only(&all.origins);
        all
    }
}

impl StoredFile {
    fn read(&mut self, name: &str, text: &str) -> bool {
        let hash = xxh3_128(text.as_bytes());
        if self.read == Some(hash) {
            return false;
        }
        self.read = Some(hash);
        let contents = manifest::read(name, text);
        self.findings = contents.findings;
        match contents.whole || self.manifests.is_empty() {
            true => self.take(contents.manifests, &contents.unreadable),
            false => self.findings.push(kept(name)),
        }
        true
    }

    /// Replaces the objects, and keeps those that now cannot be read as they were.
    fn take(&mut self, manifests: Vec<Manifest>, unreadable: &[ObjectKey]) {
        let old = std::mem::replace(&mut self.manifests, manifests);
        let still = old.into_iter().filter(|old| unreadable.contains(&old.object.key()));
        self.manifests.extend(still);
    }

    fn unreadable(&mut self, name: &str, message: String) -> bool {
        let finding = about(name, message);
        let new = self.findings != [finding.clone()];
        self.read = None;
        self.findings = vec![finding];
        new
    }
}

fn kept(name: &str) -> Finding {
    about(name, "it may be half-written: its last good objects stay in force".to_owned())
}

fn about(file: &str, message: String) -> Finding {
    Finding { file: file.to_owned(), place: None, severity: Severity::Error, object: None, message }
}
