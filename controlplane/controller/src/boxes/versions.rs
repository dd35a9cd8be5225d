//! Earlier versions of the configuration, and going back to one.
//!
//! A version is what people wrote: Gateways, routes, policies, Services, without statuses. What machines keep up to date is no part of
//! it: endpoints and the texts of Secrets are those of now, whichever version is in force, so that going back sends
//! nobody to a pod that is gone or shows a certificate that is over.
//!
//! The last [`MOST`] are kept in the state directory. Going back *pins* a version: whatever is written afterwards waits
//! until it is released.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use penstock_gateway_types::Time;
use serde::{Deserialize, Serialize};

use crate::link::Digest;
use crate::object::{self, Kind, NamespacedName, Object, Objects};
use crate::whole_file;

/// So many versions are kept.
pub const MOST: usize = 16;

/// One version.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// What tells it from others: the same on every controller.
    pub id: String,
    /// When it was first in force here.
    pub since: Time,
    /// The objects that people write.
    pub objects: Objects,
    /// What Gateways had.
    pub addresses: BTreeMap<NamespacedName, Vec<IpAddr>>,
}

/// Whether objects of this kind are those of now in every version.
fn is_live(kind: Kind) -> bool {
    matches!(kind, Kind::EndpointSlice | Kind::Secret | Kind::Namespace | Kind::Box)
}

impl Version {
    /// The version that is in force with these objects.
    #[must_use]
    pub fn of(
        all: &Objects,
        addresses: &BTreeMap<NamespacedName, Vec<IpAddr>>,
        since: Time,
    ) -> Self {
        let written = all.iter().filter(|object| !is_live(object.kind()));
        let mut objects = Objects::default();
        let mut text = Vec::new();
        for object in written.map(Object::without_status) {
            // Memory takes every write, and these types are JSON's.
            let _ = serde_json::to_writer(&mut text, &object);
            text.push(b'\n');
            objects.insert(object);
        }
        let id = Digest::of(&text).to_string()[..12].to_owned();
        Self { id, since, objects, addresses: addresses.clone() }
    }

    /// This version with what is live now.
    #[must_use]
    pub fn overlay(&self, now: &Objects) -> Objects {
        let live = now.iter().filter(|object| is_live(object.kind()));
        self.objects.iter().chain(live).collect()
    }
}

/// The versions that are kept, the newest last.
#[derive(Debug)]
pub struct Versions {
    folder: PathBuf,
    kept: VecDeque<Arc<Version>>,
    /// The number of the newest file.
    newest: u64,
}

#[derive(Deserialize, Serialize)]
struct Saved {
    id: String,
    since: Time,
    addresses: BTreeMap<String, Vec<IpAddr>>,
    objects: Vec<serde_json::Value>,
}

impl Versions {
    /// Those in `folder`. What cannot be read is left out.
    ///
    /// # Errors
    /// The file system's, if the folder cannot be made or read.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| whole_file::named(folder, &error))?;
        let mut numbers: Vec<u64> = std::fs::read_dir(folder)
            .map_err(|error| whole_file::named(folder, &error))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        let newest = numbers.last().copied().unwrap_or_default();
        let read = |number: &u64| {
            let path = folder.join(number.to_string());
            let read = whole_file::read(&path, |bytes| decode(bytes).map(Some));
            let read = read.inspect_err(|error| tracing::warn!(%error, "a version is lost"));
            read.ok().flatten().map(Arc::new)
        };
        let mut kept: VecDeque<Arc<Version>> = VecDeque::new();
        for version in numbers.iter().filter_map(read) {
            kept.retain(|earlier| earlier.id != version.id);
            kept.push_back(version);
        }
        Ok(Self { folder: folder.to_owned(), kept, newest })
    }

    /// All of them, the newest last.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Arc<Version>> {
        self.kept.iter()
    }

    /// The version of that name, or whose name begins so if only one does.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Arc<Version>> {
        let mut found = self.kept.iter().rev().filter(|version| version.id.starts_with(id));
        found.next().filter(|_| !id.is_empty() && found.next().is_none())
    }

    /// Takes in what is in force. Returns whether it is new, and writes it if so: it goes to the end also if it was
    /// there before.
    ///
    /// # Errors
    /// The file system's, with the path: then it is known until the process ends.
    pub fn note(&mut self, version: Version) -> io::Result<bool> {
        if self.kept.back().is_some_and(|last| last.id == version.id) {
            return Ok(false);
        }
        self.newest += 1;
        let path = self.folder.join(self.newest.to_string());
        let bytes = encode(&version);
        self.kept.retain(|kept| kept.id != version.id);
        self.kept.push_back(Arc::new(version));
        while self.kept.len() > MOST {
            self.kept.pop_front();
        }
        let written = whole_file::write_durably(&path, &bytes?);
        self.prune();
        written.map(|()| true)
    }

    /// Removes files that are too old.
    fn prune(&self) {
        let oldest = self.newest.saturating_sub(MOST as u64);
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries {
            let number = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            if number.is_some_and(|number| number <= oldest) {
                let _ = std::fs::remove_file(entry.path()); // the next one tries again
            }
        }
    }
}

fn encode(version: &Version) -> io::Result<Vec<u8>> {
    let addresses = version.addresses.iter().map(|(name, a)| (name.to_string(), a.clone()));
    let saved = Saved {
        id: version.id.clone(),
        since: version.since.clone(),
        addresses: addresses.collect(),
        objects: version.objects.iter().map(|object| object.to_json()).collect(),
    };
    serde_json::to_vec(&saved).map_err(io::Error::other)
}

fn decode(bytes: &[u8]) -> Result<Version, String> {
    let saved: Saved = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let mut objects = Objects::default();
    for value in saved.objects {
        let kind = value.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default();
        let kind = Kind::ALL.into_iter().find(|it| it.as_str() == kind);
        let kind = kind.ok_or("an object of a kind that is not known")?;
        objects.insert(object::deserialize(kind, value).map_err(|error| error.to_string())?);
    }
    let mut addresses = BTreeMap::new();
    for (name, of) in saved.addresses {
        let (namespace, name) = name.split_once('/').ok_or("a name without a namespace")?;
        addresses.insert(NamespacedName::new(namespace, name), of);
    }
    Ok(Version { id: saved.id, since: saved.since, objects, addresses })
}

#[cfg(test)]
mod tests {
    use penstock_gateway_types::k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::manifest;

    fn at(seconds: i64) -> Time {
        Time(Timestamp::from_second(seconds).unwrap())
    }

    fn objects(text: &str) -> Objects {
        let read = manifest::read("t.yaml", text);
        assert_eq!(read.findings, []);
        read.manifests.into_iter().map(|m| m.object).collect()
    }

    fn service(port: u16, endpoint: &str) -> Objects {
        objects(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{ports: [{{port: {port}}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s-1}}\naddressType: IPv4\n\
             endpoints: [{{addresses: [{endpoint}]}}]\n"
        ))
    }

    #[test]
    fn a_version_is_what_people_wrote() {
        let none = BTreeMap::new();
        let of = |objects: &Objects| Version::of(objects, &none, at(1));
        let (one, other) = (service(80, "10.0.0.1"), service(81, "10.0.0.1"));
        let moved = service(80, "10.0.0.2");
        assert_ne!(of(&one).id, of(&other).id);
        assert_eq!(of(&one).id, of(&moved).id, "where a pod is, is no version");
        assert_eq!(of(&one).overlay(&service(81, "10.0.0.2")), moved, "and is that of now");
    }

    #[test]
    fn the_last_ones_are_kept_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let none = BTreeMap::new();
        let mut versions = Versions::open(folder.path()).unwrap();
        let version = |port| Version::of(&service(port, "10.0.0.1"), &none, at(port.into()));
        for port in 1..=20 {
            assert!(versions.note(version(port)).unwrap());
            assert!(!versions.note(version(port)).unwrap(), "once");
        }
        let kept: Vec<_> = versions.all().cloned().collect();
        assert_eq!(kept.len(), MOST);
        let mut versions = Versions::open(folder.path()).unwrap();
        assert_eq!(versions.all().cloned().collect::<Vec<_>>(), kept, "as before the restart");
        let (id, whole) = (version(9).id, version(9));
        assert_eq!(versions.find(&id[..8]), Some(&Arc::new(whole)));
        assert_eq!(versions.find(""), None);
        assert_eq!(versions.find("nothing"), None);
        assert!(versions.note(version(9)).unwrap(), "what comes back goes to the end");
        assert_eq!(versions.all().next_back().unwrap().id, id);
        assert_eq!(versions.all().filter(|it| it.id == id).count(), 1);
        std::fs::write(folder.path().join("21"), "{").unwrap();
        assert_eq!(Versions::open(folder.path()).unwrap().all().count(), MOST - 1, "one is lost");
    }
}
