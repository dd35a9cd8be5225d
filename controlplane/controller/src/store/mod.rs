//! The objects in force: what the files say now, or said when they were last good.
//!
//! * A file with a document that is no YAML may be half-written. So may one that is empty, ends within a line
//!   or in an object that does not fit, if objects are missing that it had. The last good objects of such a
//!   file stay in force, all of them; only a file that never was good is read for what is good in it.
//! * An object that an API server would refuse stays in force as it was, as an API server would have it.
//! * A file that cannot be read keeps its objects; a file that is gone has none.
//! * Of an object in two files, the one in the file that sorts first is in force.
//!
//! What an API server would add is added here and kept in the state directory: a creation time, and a
//! generation that rises when the spec changes.

mod history;
pub mod mirror;
mod saved;

use std::collections::{BTreeMap, BTreeSet};

use penstock_gateway_types::Time;
use xxhash_rust::xxh3::xxh3_128;

use crate::finding::{Finding, Severity};
use crate::manifest::{self, Manifest};
use crate::object::{Kind, ObjectKey, Objects};
use crate::source::folder::Texts;
use crate::translate::service;
use history::History;

/// Files, the objects of each, and the history of all.
#[derive(Clone, Debug, Default)]
pub struct Store {
    files: BTreeMap<String, StoredFile>,
    history: History,
    holders: Holders,
}

/// What is in force of one file.
#[derive(Clone, Debug, Default)]
struct StoredFile {
    /// The hash of the text we read; `None` if it has not been read since we started.
    read: Option<u128>,
    manifests: BTreeMap<ObjectKey, Manifest>,
    findings: Vec<Finding>,
}

/// Which files hold which objects, as of what was put in force last.
#[derive(Clone, Debug, Default)]
struct Holders {
    of: BTreeMap<ObjectKey, BTreeSet<String>>,
    held: BTreeMap<String, BTreeSet<ObjectKey>>,
    /// Objects in several files.
    twice: BTreeSet<ObjectKey>,
    /// Files that changed since.
    changed: BTreeSet<String>,
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
        self.update_beside(texts, &BTreeSet::new())
    }

    /// The same of `texts`, where others are there and the `same` as before.
    pub fn update_beside(&mut self, texts: Texts, same: &BTreeSet<String>) -> bool {
        let is_gone = |name: &&String| !texts.contains_key(*name) && !same.contains(*name);
        let gone: Vec<String> = self.files.keys().filter(is_gone).cloned().collect();
        let mut changed = gone;
        changed.iter().for_each(|name| _ = self.files.remove(name));
        for (name, text) in texts {
            let file = self.files.entry(name.clone()).or_default();
            let is_changed = match text {
                Ok(text) => file.read(&name, &text),
                Err(error) => file.unreadable(&name, error),
            };
            changed.extend(is_changed.then_some(name));
        }
        let is_changed = !changed.is_empty();
        self.holders.changed.extend(changed);
        is_changed
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
        let (mut all, changed) = (InForce::default(), self.files.keys().cloned().collect());
        self.holders = Holders { changed, ..Holders::default() };
        self.follow(&mut all, now);
        self.history.keep_only(&all.origins);
        all
    }

    /// Makes `in_force`, which this store made, what is in force now. Returns the objects that came, changed or went,
    /// with what stands in for Services of them. Costs the files that changed, and what is wrong with all.
    pub fn follow(&mut self, in_force: &mut InForce, now: &Time) -> BTreeSet<ObjectKey> {
        let mut changed = BTreeSet::new();
        for key in self.holders.follow(&self.files) {
            if self.put(&key, in_force, now) {
                changed.insert(key);
            }
        }
        in_force.findings = self.findings();
        let services: Vec<_> = changed.iter().filter(|key| key.kind == Kind::Service).collect();
        let names: Vec<_> = services.into_iter().map(ObjectKey::namespaced).collect();
        for name in names {
            changed.extend(service::follow(&mut in_force.objects, &name));
        }
        changed
    }

    /// Puts an object in force as the first file that holds it has it. Returns whether it came, changed or went.
    fn put(&mut self, key: &ObjectKey, in_force: &mut InForce, now: &Time) -> bool {
        let file = self.holders.of.get(key).and_then(BTreeSet::first);
        let manifest =
            file.and_then(|file| Some((file, self.files.get(file)?.manifests.get(key)?)));
        let Some((file, manifest)) = manifest else {
            in_force.origins.remove(key);
            self.history.entries.remove(key); // one that comes back is a new one
            return in_force.objects.remove(key);
        };
        in_force.origins.insert(key.clone(), file.clone());
        let mut object = manifest.object.clone();
        self.history.stamp(key, &mut object, now);
        if in_force.objects.get(key).as_ref() == Some(&object) {
            return false;
        }
        in_force.objects.insert(object);
        true
    }

    /// What is wrong with files, and with objects that several have.
    fn findings(&self) -> Vec<Finding> {
        let mut twice: BTreeMap<&String, Vec<Finding>> = BTreeMap::new();
        for key in &self.holders.twice {
            let mut files = self.holders.of.get(key).into_iter().flatten();
            let Some(first) = files.next() else { continue };
            for file in files {
                let manifest = self.files.get(file).and_then(|held| held.manifests.get(key));
                twice.entry(file).or_default().push(Finding {
                    file: file.clone(),
                    place: manifest.map(|manifest| manifest.place),
                    severity: Severity::Error,
                    message: format!(
                        "given twice: {first} has it already, and that one is in force"
                    ),
                    object: Some(key.clone()),
                });
            }
        }
        let mut all = Vec::new();
        for (name, file) in &self.files {
            all.extend(file.findings.iter().cloned());
            let mut of_file = twice.remove(name).unwrap_or_default();
            of_file.sort_by_key(|finding| finding.place);
            all.extend(of_file);
        }
        all
    }
}

impl Holders {
    /// Takes in what the changed files hold now. Returns the objects that are, or were, in one of them.
    fn follow(&mut self, files: &BTreeMap<String, StoredFile>) -> BTreeSet<ObjectKey> {
        let mut keys = BTreeSet::new();
        for name in std::mem::take(&mut self.changed) {
            let before = self.held.remove(&name).unwrap_or_default();
            let now = files.get(&name).map(|file| file.manifests.keys().cloned().collect());
            let now: BTreeSet<ObjectKey> = now.unwrap_or_default();
            for key in before.difference(&now) {
                self.change(key, |files| _ = files.remove(&name));
            }
            for key in now.difference(&before) {
                self.change(key, |files| _ = files.insert(name.clone()));
            }
            keys.extend(before);
            keys.extend(now.iter().cloned());
            self.held.insert(name, now);
        }
        self.held.retain(|name, held| !held.is_empty() || files.contains_key(name));
        keys
    }

    fn change(&mut self, key: &ObjectKey, change: impl FnOnce(&mut BTreeSet<String>)) {
        let files = self.of.entry(key.clone()).or_default();
        change(files);
        match files.len() {
            0 => {
                self.of.remove(key);
                self.twice.remove(key);
            }
            1 => _ = self.twice.remove(key),
            _ => _ = self.twice.insert(key.clone()),
        }
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
        let missing = self.missing(&contents.manifests, &contents.refused);
        if self.manifests.is_empty() || (contents.whole && !(contents.cut && missing > 0)) {
            self.take(contents.manifests, &contents.refused);
        } else {
            self.findings.push(kept(name, contents.whole, missing));
        }
        true
    }

    /// How many objects are in force that the file does not name any more.
    fn missing(&self, manifests: &[Manifest], refused: &[ObjectKey]) -> usize {
        let read: BTreeSet<_> = manifests.iter().map(|m| m.object.key()).collect();
        let is_missing = |key: &&ObjectKey| !read.contains(*key) && !refused.contains(key);
        self.manifests.keys().filter(is_missing).count()
    }

    /// Replaces the objects, and keeps those that are now refused as they were.
    fn take(&mut self, manifests: Vec<Manifest>, refused: &[ObjectKey]) {
        let manifests = manifests.into_iter().map(|manifest| (manifest.object.key(), manifest));
        let mut kept = std::mem::replace(&mut self.manifests, manifests.collect());
        kept.retain(|key, _| refused.contains(key));
        for finding in &mut self.findings {
            let Some(key) = finding.object.as_ref().filter(|key| refused.contains(key)) else {
                continue;
            };
            finding.message += match kept.contains_key(key) {
                true => ". The last good one stays in force",
                false => ". The object is refused",
            };
        }
        self.manifests.extend(kept);
    }

    fn unreadable(&mut self, name: &str, message: String) -> bool {
        let finding = about(name, message);
        let new = self.findings != [finding.clone()];
        self.read = None;
        self.findings = vec![finding];
        new
    }
}

fn kept(name: &str, whole: bool, missing: usize) -> Finding {
    let message = match whole {
        false => {
            "its last good objects stay in force until every document is valid YAML".to_owned()
        }
        true => format!(
            "it looks cut off, and {missing} of its objects are missing: its last good objects stay in force. \
             To remove objects, leave the file whole, with a new line at its end; to remove all, remove it"
        ),
    };
    about(name, message)
}

fn about(file: &str, message: String) -> Finding {
    Finding { file: file.to_owned(), place: None, severity: Severity::Error, object: None, message }
}

#[cfg(test)]
mod tests {
    use penstock_gateway_types::k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(seconds: i64) -> Time {
        Time(Timestamp::from_second(seconds).unwrap())
    }

    fn service(name: &str, port: u16) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n---\n"
        )
    }

    fn gateway(port: &str) -> String {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: web}}\nspec:\n  \
             gatewayClassName: penstock\n  listeners: [{{name: a, protocol: TCP, port: {port}}}]\n"
        )
    }

    fn texts(files: &[(&str, &str)]) -> Texts {
        files.iter().map(|(name, text)| ((*name).to_owned(), Ok((*text).to_owned()))).collect()
    }

    /// The Services in force, as `name:port`.
    fn services(store: &mut Store) -> Vec<String> {
        let objects = store.in_force(&at(0)).objects;
        let port = |service: &penstock_gateway_types::Service| {
            service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port
        };
        objects.services.iter().map(|(name, s)| format!("{}:{}", name.name, port(s))).collect()
    }

    #[test]
    fn what_was_good_stays_in_force() {
        let (a, b) = (service("a", 1), service("b", 2));
        let good = format!("{a}{b}");
        for (promise, next, expected) in [
            ("an object that goes is gone", a.clone(), vec!["a:1"]),
            (
                "an object that changes has changed",
                format!("{}{b}", service("a", 9)),
                vec!["a:9", "b:2"],
            ),
            ("no YAML keeps the whole file", format!("{}: [", service("a", 9)), vec!["a:1", "b:2"]),
            (
                "a value of another type keeps its object",
                format!("{}{b}", a.replace("port: 1", "port: x")),
                vec!["a:1", "b:2"],
            ),
            (
                "a value out of range keeps its object, and the others change",
                format!("{}{}", a.replace("port: 1", "port: 65536"), service("b", 9)),
                vec!["a:1", "b:9"],
            ),
            ("an empty file is half-written", String::new(), vec!["a:1", "b:2"]),
            (
                "a line that does not end is half-written",
                a.trim_end().to_owned(),
                vec!["a:1", "b:2"],
            ),
            (
                "a last object that does not fit, too",
                "apiVersion: v1\nkind: Service\n".to_owned(),
                vec!["a:1", "b:2"],
            ),
            ("a whole file without objects has none", "# nothing\n".to_owned(), vec![]),
        ] {
            let mut store = Store::default();
            assert!(store.update(texts(&[("x.yaml", &good)])), "{promise}");
            assert!(!store.update(texts(&[("x.yaml", &good)])), "{promise}: nothing changed");
            assert!(store.update(texts(&[("x.yaml", &next)])), "{promise}");
            assert_eq!(services(&mut store), expected, "{promise}");
        }
    }

    #[test]
    fn a_file_that_never_was_good_is_read_for_what_is() {
        let mut store = Store::default();
        store.update(texts(&[(
            "x.yaml",
            &format!("{}: [\n---\n{}", service("a", 1), service("b", 2)),
        )]));
        assert_eq!(services(&mut store), ["a:1", "b:2"]);
    }

    #[test]
    fn a_refused_object_says_whether_an_older_one_serves() {
        let mut store = Store::default();
        let mut error = |port| {
            store.update(texts(&[("x.yaml", &(service("a", port) + &service("b", 2)))]));
            store.in_force(&at(0)).findings.first().map(ToString::to_string)
        };
        let start =
            "x.yaml:4:23: error: Service default/a: spec.ports[0].port: 0 is not within 1 to 65535";
        assert_eq!(error(0).unwrap(), format!("{start}. The object is refused"));
        assert_eq!(error(1), None);
        assert_eq!(error(0).unwrap(), format!("{start}. The last good one stays in force"));
    }

    #[test]
    fn a_file_that_is_gone_or_unreadable() {
        let mut store = Store::default();
        store.update(texts(&[("x.yaml", &service("a", 1)), ("y.yaml", &service("b", 2))]));
        let mut next = texts(&[("y.yaml", &service("b", 2))]);
        assert!(store.update(next.clone()));
        assert_eq!(services(&mut store), ["b:2"], "gone is gone");
        next.insert("y.yaml".into(), Err("cannot be read: permission denied".into()));
        assert!(store.update(next.clone()));
        assert!(!store.update(next), "and it is said once");
        assert_eq!(services(&mut store), ["b:2"], "unreadable keeps its objects");
        assert_eq!(store.in_force(&at(0)).findings.len(), 1);
    }

    #[test]
    fn of_two_files_with_one_object_the_first_by_name_counts() {
        let mut store = Store::default();
        store.update(texts(&[("b.yaml", &service("a", 2)), ("a.yaml", &service("a", 1))]));
        assert_eq!(services(&mut store), ["a:1"]);
        let findings = store.in_force(&at(0)).findings;
        let expected = "b.yaml:1:1: error: Service default/a: given twice: a.yaml has it already, and that one is in force";
        assert_eq!(findings[0].to_string(), expected);
    }

    #[test]
    fn a_generation_rises_with_the_spec_and_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("objects.json");
        let stamp = |store: &mut Store, seconds: i64| {
            let objects = store.in_force(&at(seconds)).objects;
            let metadata = objects.gateways.values().next().unwrap().metadata.clone();
            (metadata.generation.unwrap(), metadata.creation_timestamp.unwrap().0.as_second())
        };
        let mut store = Store::default();
        store.update(texts(&[("x.yaml", &gateway("1"))]));
        assert_eq!(stamp(&mut store, 10), (1, 10));
        store.update(texts(&[(
            "x.yaml",
            &gateway("1").replace("name: web", "name: web, labels: {a: b}"),
        )]));
        assert_eq!(stamp(&mut store, 20), (1, 10), "metadata is no spec");
        store.update(texts(&[("y.yaml", &gateway("2"))]));
        assert_eq!(stamp(&mut store, 30), (2, 10), "another file is no other object");
        store.save(&file).unwrap();
        let mut store = Store::load(&file).unwrap();
        assert_eq!(stamp(&mut store, 40), (2, 10), "before any file is read");
        store.update(texts(&[("y.yaml", &gateway("x"))]));
        assert_eq!(stamp(&mut store, 50), (2, 10), "the last good one, from before the restart");
        store.update(texts(&[("y.yaml", "# none\n")]));
        store.in_force(&at(60));
        store.update(texts(&[("y.yaml", &gateway("2"))]));
        assert_eq!(stamp(&mut store, 70), (1, 70), "what comes back is new");
    }

    #[test]
    fn a_saved_file_that_is_not_ours_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("objects.json");
        assert!(Store::load(&file).unwrap().is_empty(), "none yet");
        for text in ["", "{", "{\"version\":2,\"files\":{},\"history\":[]}"] {
            std::fs::write(&file, text).unwrap();
            let error = Store::load(&file).unwrap_err().to_string();
            assert!(error.contains("objects.json") && error.contains("remove it"), "{error}");
        }
    }
}
