//! The objects of a cluster that are in force: what the API server says now, or said when it was last heard.
//!
//! Generations, creation times and uids are the API server's. Nothing is taken away because the API server is
//! silent, does not know a kind, or sends an object that does not decode: only an object's deletion, or a whole
//! list without it, removes it. Every change costs its own object and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::InForce;
use crate::finding::{Finding, Severity};
use crate::object::{self, Kind, NamespacedName, Object, ObjectKey, Objects};
use crate::report::MOST_TOLD;
use crate::source::cluster::Happening;
use crate::translate::service;
use crate::whole_file;

/// The version of the format; another one is not read.
const VERSION: u32 = 1;

/// What is known of the cluster beside the objects in force.
#[derive(Debug, Default)]
pub struct Mirror {
    /// Of a kind that is being listed: what was named so far.
    listing: BTreeMap<Kind, BTreeSet<ObjectKey>>,
    /// The kinds that have been listed once.
    listed: BTreeSet<Kind>,
    /// The kinds that the API server does not know.
    absent: BTreeSet<Kind>,
    /// The Services that we made for Gateways: nothing that anyone else wants, and no change of the cluster.
    made: BTreeSet<ObjectKey>,
    /// What does not decode, and why.
    refused: BTreeMap<ObjectKey, String>,
    /// How many of them there are of each kind.
    refused_of: BTreeMap<Kind, usize>,
    /// Of which release the installed CRDs are, or why that cannot be known; `None` until it was asked.
    bundle: Option<Result<Option<String>, String>>,
    /// Whether [`Self::findings`] differ from when they were asked for last.
    has_news: bool,
}

impl Mirror {
    /// Takes in what happened. Returns the objects that changed or are gone.
    pub fn take(&mut self, happening: &Happening, in_force: &mut InForce) -> Vec<ObjectKey> {
        match happening {
            Happening::Listing(kind) => {
                self.listing.insert(*kind, BTreeSet::new());
                Vec::new()
            }
            Happening::Seen(seen) => {
                if let Some(named) = self.listing.get_mut(&seen.key.kind) {
                    named.insert(seen.key.clone());
                }
                let is_changed = match seen.made {
                    Some(_) => self.put_made(&seen.key, in_force),
                    None => self.put(&seen.key, seen.object.as_ref(), in_force),
                };
                let mut changed: Vec<_> =
                    is_changed.then(|| seen.key.clone()).into_iter().collect();
                stand_ins(&mut changed, in_force);
                changed
            }
            Happening::Gone(key) => {
                self.remove(key, in_force);
                let mut changed = vec![key.clone()];
                stand_ins(&mut changed, in_force);
                changed
            }
            Happening::Listed(kind) => self.end_list(*kind, in_force),
            Happening::Absent(kind) => {
                self.has_news |= self.absent.insert(*kind);
                Vec::new()
            }
            Happening::Bundle(version) => self.take_bundle(Ok(version.clone())),
            Happening::BundleUnknown(reason) => self.take_bundle(Err(reason.clone())),
            Happening::Trouble { .. } => Vec::new(),
        }
    }

    /// What was known stays known.
    fn take_bundle(&mut self, bundle: Result<Option<String>, String>) -> Vec<ObjectKey> {
        if bundle.is_ok() || !matches!(self.bundle, Some(Ok(_))) {
            self.has_news |= self.bundle.as_ref() != Some(&bundle);
            self.bundle = Some(bundle);
        }
        Vec::new()
    }

    /// Of which release the installed CRDs are, as far as it is known.
    #[must_use]
    pub fn bundle_version(&self) -> Option<&str> {
        self.bundle.as_ref()?.as_ref().ok()?.as_deref()
    }

    fn put_made(&mut self, key: &ObjectKey, in_force: &mut InForce) -> bool {
        let was_in_force = in_force.origins.contains_key(key);
        self.remove(key, in_force);
        self.made.insert(key.clone());
        was_in_force
    }

    fn put(
        &mut self,
        key: &ObjectKey,
        object: Result<&Object, &String>,
        in_force: &mut InForce,
    ) -> bool {
        self.made.remove(key);
        match object {
            Ok(object) => {
                self.is_readable(key);
                if in_force.objects.get(key).as_ref() == Some(object) {
                    return false;
                }
                in_force.origins.entry(key.clone()).or_default();
                in_force.objects.insert(object.clone());
                true
            }
            Err(reason) => {
                let before = self.refused.insert(key.clone(), reason.clone());
                self.has_news |= before.as_ref() != Some(reason);
                if before.is_none() {
                    *self.refused_of.entry(key.kind).or_default() += 1;
                }
                false
            }
        }
    }

    fn remove(&mut self, key: &ObjectKey, in_force: &mut InForce) {
        self.is_readable(key);
        self.made.remove(key);
        in_force.origins.remove(key);
        in_force.objects.remove(key);
    }

    /// Nothing is refused of it any more.
    fn is_readable(&mut self, key: &ObjectKey) {
        if self.refused.remove(key).is_some() {
            self.has_news = true;
            if let Some(number) = self.refused_of.get_mut(&key.kind) {
                *number = number.saturating_sub(1);
            }
        }
    }

    /// How many objects do not decode, by kind.
    #[must_use]
    pub fn refused_of(&self) -> &BTreeMap<Kind, usize> {
        &self.refused_of
    }

    /// What the list did not name is gone.
    fn end_list(&mut self, kind: Kind, in_force: &mut InForce) -> Vec<ObjectKey> {
        self.listed.insert(kind);
        self.has_news |= self.absent.remove(&kind);
        let named = self.listing.remove(&kind).unwrap_or_default();
        let known = in_force.origins.keys().chain(self.refused.keys()).chain(&self.made);
        let gone: BTreeSet<ObjectKey> =
            known.filter(|key| key.kind == kind && !named.contains(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key, in_force));
        let mut gone: Vec<_> = gone.into_iter().collect();
        stand_ins(&mut gone, in_force);
        gone
    }

    /// Whether every kind has been listed once, or is not installed, and the release of the CRDs was asked for: before that, what is missing may only not
    /// have been heard of yet.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let known = |kind| self.listed.contains(kind) || self.absent.contains(kind);
        Kind::ALL.iter().all(known) && self.bundle.is_some()
    }

    /// Whether [`Self::findings`] changed since this was asked last.
    pub fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// What is wrong with objects, and which kinds are not installed. Of objects that do not decode, the first
    /// [`MOST_TOLD`]; [`Self::refused_of`] counts all.
    #[must_use]
    pub fn findings(&self, in_force: &InForce) -> Vec<Finding> {
        let finding = |severity, object, message| Finding {
            file: String::new(),
            place: None,
            severity,
            object,
            message,
        };
        let refused = self.refused.iter().take(MOST_TOLD).map(|(key, reason)| {
            let next = match in_force.origins.contains_key(key) {
                true => "The last good one stays in force",
                false => "The object is refused",
            };
            finding(Severity::Error, Some(key.clone()), format!("{reason}. {next}"))
        });
        let absent = self.absent.iter().map(|kind| {
            let (group, version) = (kind.group(), kind.versions()[0]);
            let message = format!(
                "the API server does not know kind {kind} of {group}/{version}: install its CRD; objects of it \
                 that were seen before stay in force"
            );
            finding(Severity::Warning, None, message)
        });
        let bundle = self.bundle.iter().filter_map(|bundle| bundle.as_ref().err()).map(|reason| {
            let message = format!(
                "of which release the installed CRDs are cannot be known, and is taken to be ours: {reason}"
            );
            finding(Severity::Warning, None, message)
        });
        refused.chain(absent).chain(bundle).collect()
    }
}

/// Lets what stands in for Services follow those that changed, which is a change, too.
fn stand_ins(changed: &mut Vec<ObjectKey>, in_force: &mut InForce) {
    let services = changed.iter().filter(|key| key.kind == Kind::Service);
    let services: Vec<_> =
        services.map(|key| NamespacedName::new(&key.namespace, &key.name)).collect();
    for service in services {
        changed.extend(service::follow(&mut in_force.objects, &service));
    }
}

#[derive(Serialize)]
struct Saved<'a> {
    version: u32,
    objects: Written<'a>,
}

/// Objects, one after the other: their JSON is never there as a whole but as text.
struct Written<'a>(&'a Objects);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = |object: &Object| object.metadata().name.clone().unwrap_or_default();
        let objects = self.0.iter().filter(|object| !service::is_stand_in(&name(object)));
        serializer.collect_seq(objects)
    }
}

/// Saves objects at `path`, whole or not at all; what stands in for Services is made anew. Costs two syncs of the
/// disk and O(objects).
///
/// # Errors
/// The file system's, with the path.
pub fn save(objects: &Objects, path: &Path) -> io::Result<()> {
    let saved = Saved { version: VERSION, objects: Written(objects) };
    let bytes = serde_json::to_vec(&saved).map_err(io::Error::other)?;
    whole_file::write_durably(path, &bytes)
}

/// The objects that were saved at `path`; none if nothing was saved yet.
///
/// # Errors
/// The file system's, or [`io::ErrorKind::InvalidData`] for a file that is not ours: both with the path.
pub fn load(path: &Path) -> io::Result<InForce> {
    whole_file::read(path, decode)
}

#[derive(Deserialize)]
struct Loaded {
    version: u32,
    objects: Reading,
}

#[derive(Default)]
struct Reading(InForce);

/// Reads one object after the other, for the same reason.
impl<'de> Deserialize<'de> for Reading {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Self::default())
    }
}

impl<'de> Visitor<'de> for Reading {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut objects: A) -> Result<Self, A::Error> {
        while let Some(value) = objects.next_element::<serde_json::Value>()? {
            let kind = value.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default();
            let kind = super::saved::kind(kind).map_err(A::Error::custom)?;
            let object = object::deserialize(kind, value).map_err(A::Error::custom)?;
            self.0.origins.insert(object.key(), String::new());
            self.0.objects.insert(object);
        }
        Ok(self)
    }
}

fn decode(bytes: &[u8]) -> Result<InForce, String> {
    let loaded: Loaded = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if loaded.version != VERSION {
        return Err(format!("its version is {}, not {VERSION}", loaded.version));
    }
    let Reading(mut in_force) = loaded.objects;
    service::stand_in(&mut in_force.objects);
    Ok(in_force)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::source::cluster::raw::Raw;

    fn gateway(name: &str, port: &Value) -> Happening {
        let value = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "generation": 7, "resourceVersion": "9",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "managedFields": [{"manager": "kubectl"}],
                "labels": {"a": "b"},
                "annotations": {"gateway.networking.k8s.io/x": "y", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"gatewayClassName": "penstock", "listeners": [{"name": "a", "protocol": "TCP", "port": port}]},
            "status": {"conditions": []},
        });
        Happening::Seen(Box::new(Raw::from(value).seen(Kind::Gateway, false)))
    }

    fn names(in_force: &InForce) -> Vec<&str> {
        in_force.objects.gateways.keys().map(|name| name.name.as_str()).collect()
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey { kind: Kind::Gateway, namespace: "default".into(), name: name.into() }
    }

    #[test]
    fn only_a_deletion_or_a_whole_list_takes_away() {
        let list = || Happening::Listing(Kind::Gateway);
        let end = || Happening::Listed(Kind::Gateway);
        let (a, b) = (|| gateway("a", &json!(1)), || gateway("b", &json!(1)));
        let (mut mirror, mut in_force) = (Mirror::default(), InForce::default());
        for (promise, happenings, expected) in [
            ("what is seen is in force", vec![list(), a(), b(), end()], vec!["a", "b"]),
            ("what is seen again", vec![a()], vec!["a", "b"]),
            ("a list that is not whole takes nothing away", vec![list(), b()], vec!["a", "b"]),
            ("a list that begins anew counts from there", vec![list(), a()], vec!["a", "b"]),
            ("a whole one does", vec![end()], vec!["a"]),
            ("what does not decode stays", vec![gateway("a", &json!("x"))], vec!["a"]),
            ("what a schema refuses stays", vec![gateway("a", &json!(65536))], vec!["a"]),
            (
                "what does not decode is named by a list",
                vec![list(), gateway("a", &json!("x")), end()],
                vec!["a"],
            ),
            ("and a stranger is not in force", vec![gateway("c", &json!("x"))], vec!["a"]),
            (
                "a kind that goes takes nothing away",
                vec![Happening::Absent(Kind::Gateway)],
                vec!["a"],
            ),
            ("a deletion does", vec![Happening::Gone(key("a"))], vec![]),
        ] {
            for happening in happenings {
                mirror.take(&happening, &mut in_force);
            }
            assert_eq!(names(&in_force), expected, "{promise}");
        }
        let told: Vec<_> = mirror.findings(&in_force).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "error: Gateway default/c: invalid type: string \"x\", expected i32. The object is refused",
                "warning: the API server does not know kind Gateway of gateway.networking.k8s.io/v1: install its CRD; \
                 objects of it that were seen before stay in force"
            ]
        );
    }

    #[test]
    fn a_status_is_no_change_and_what_means_nothing_is_not_kept() {
        let (mut mirror, mut in_force) = (Mirror::default(), InForce::default());
        assert_eq!(mirror.take(&gateway("a", &json!(1)), &mut in_force), [key("a")]);
        let Happening::Seen(mut again) = gateway("a", &json!(1)) else { unreachable!() };
        again.observed.as_mut().unwrap().status = json!({"conditions": [{"type": "Accepted"}]});
        assert_eq!(mirror.take(&Happening::Seen(again), &mut in_force), [], "a status changed");
        assert_eq!(mirror.take(&gateway("a", &json!(2)), &mut in_force).len(), 1, "a port changed");
        let metadata = &in_force.objects.gateways.values().next().unwrap().metadata;
        let expected = json!({"name": "a", "namespace": "default", "uid": "a", "generation": 7,
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b"},
            "annotations": {"gateway.networking.k8s.io/x": "y"}});
        assert_eq!(serde_json::to_value(metadata).unwrap(), expected);
    }

    #[test]
    fn what_was_in_force_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cluster.json");
        assert!(load(&file).unwrap().objects.is_empty(), "none yet");
        let (mut mirror, mut in_force) = (Mirror::default(), InForce::default());
        mirror.take(&gateway("a", &json!(1)), &mut in_force);
        save(&in_force.objects, &file).unwrap();
        let again = load(&file).unwrap();
        assert_eq!(again.objects, in_force.objects);
        assert_eq!(again.origins, in_force.origins);
        std::fs::write(&file, "{").unwrap();
        let error = load(&file).unwrap_err().to_string();
        assert!(error.contains("cluster.json") && error.contains("remove it"), "{error}");
    }
}
