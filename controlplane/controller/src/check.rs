//! Whether files would be served as their author means them, without a data plane or a cluster.
//!
//! What `penstock check` prints: faults of YAML, values that do not fit, unknown fields, names given twice, and
//! every condition that would not hold, each with file and line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use penstock_gateway_types::Time;
use penstock_gateway_types::k8s_openapi::jiff::Timestamp;

use crate::finding::{Finding, Severity};
use crate::manifest::{self, Manifest};
use crate::object::{ObjectKey, Objects};
use crate::source::folder;
use crate::status::{self, Progress, Stamp, Statuses};
use crate::translate;

/// Checks `paths`, files or folders, as one set of objects. Sorted by file and place; empty if all is well.
///
/// A folder is read as the control process reads its configuration: its `*.yaml`, `*.yml` and `*.json`
/// files, not those in folders below or hidden ones.
#[must_use]
pub fn check<P: AsRef<Path>>(paths: &[P]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut set = Set::default();
    for path in paths {
        for file in files(path.as_ref(), &mut findings) {
            let name = file.display().to_string();
            match folder::text(&file) {
                Ok(text) => set.read(&name, &text, &mut findings),
                Err(error) => findings.push(about_file(&name, format!("cannot be read: {error}"))),
            }
        }
    }
    set.judge(&mut findings);
    findings.sort();
    findings
}

fn about_file(file: &str, message: String) -> Finding {
    Finding { file: file.to_owned(), place: None, severity: Severity::Error, object: None, message }
}

fn files(path: &Path, findings: &mut Vec<Finding>) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    match folder::files(path) {
        Ok(files) => files,
        Err(error) => {
            findings
                .push(about_file(&path.display().to_string(), format!("cannot be read: {error}")));
            Vec::new()
        }
    }
}

/// Objects, and the file and manifest of each.
#[derive(Default)]
struct Set {
    origins: BTreeMap<ObjectKey, (String, Manifest)>,
}

impl Set {
    fn read(&mut self, file: &str, text: &str, findings: &mut Vec<Finding>) {
        let contents = manifest::read(file, text);
        findings.extend(contents.findings);
        for manifest in contents.manifests {
            let key = manifest.object.key();
            match self.origins.get(&key) {
                None => {
                    self.origins.insert(key, (file.to_owned(), manifest));
                }
                Some((first, _)) => findings.push(Finding {
                    file: file.to_owned(),
                    place: Some(manifest.place),
                    severity: Severity::Error,
                    object: Some(key),
                    message: format!("given twice: {first} has it already, and that one is read"),
                }),
            }
        }
    }

    /// Translates the set as if the data plane served all of it, and reports what does not hold.
    fn judge(&self, findings: &mut Vec<Finding>) {
        let mut objects: Objects = self.origins.values().map(|(_, m)| m.object.clone()).collect();
        translate::service::stand_in(&mut objects);
        let translation = translate::translate(&objects);
        let acknowledged = Some(Arc::clone(&translation.state));
        let l7 = Some(Arc::clone(&translation.l7));
        let progress = Progress { acknowledged, l7, ..Progress::default() };
        let (now, previous) = (Time(Timestamp::UNIX_EPOCH), Statuses::new());
        let stamp = Stamp { now: &now, previous: &previous };
        for (key, object) in status::conclude(&objects, &translation, &progress, &stamp) {
            findings.extend(
                status::faults(&object)
                    .into_iter()
                    .map(|message| self.finding(&key, Severity::Error, message)),
            );
        }
        for note in translation.notes.iter() {
            let about = translate::service::subject(&note.object);
            findings.push(self.finding(&about, Severity::Warning, note.message.clone()));
        }
    }

    fn finding(&self, key: &ObjectKey, severity: Severity, message: String) -> Finding {
        let origin = self.origins.get(key);
        Finding {
            file: origin.map(|(file, _)| file.clone()).unwrap_or_default(),
            place: origin.map(|(_, manifest)| manifest.place),
            severity,
            object: Some(key.clone()),
            message,
        }
    }
}
