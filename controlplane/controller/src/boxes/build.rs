//! Bundles are made beside the event loop: of what is in force, for each different set of Gateways that boxes carry.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_feed::State;
use penstock_gateway_types::Time;

use super::needs;
use super::versions::Version;
use crate::link::bundle::BundleError;
use crate::link::{Bundle, Digest};
use crate::object::{NamespacedName, Objects};
use crate::translate::{Known, L7, translate_with};

/// The Gateways that a box carries.
pub(super) type Selection = Arc<BTreeSet<NamespacedName>>;

/// What is to be made.
pub(super) struct Job {
    /// All objects in force.
    pub(super) objects: Objects,
    /// What Gateways have.
    pub(super) addresses: BTreeMap<NamespacedName, Vec<IpAddr>>,
    /// What all of it means.
    pub(super) means: Meaning,
    /// Each selection, the listeners that serve it, and the digest of the last bundle made of it.
    pub(super) parts: Vec<(Selection, Listeners, Option<Digest>)>,
    /// The version that is in force instead.
    pub(super) pinned: Option<Arc<Version>>,
    /// The time, for a version that is new.
    pub(super) since: Time,
    /// The version that was in force last.
    pub(super) known: Option<String>,
}

/// Names of listeners in the feed.
pub(super) type Listeners = Arc<BTreeSet<String>>;

/// What a bundle means to the consumers on a box.
#[derive(Clone, Debug, Default)]
pub(super) struct Meaning {
    pub(super) state: Arc<State>,
    pub(super) l7: Arc<L7>,
}

/// What was made.
#[derive(Debug)]
pub struct Built {
    pub(super) means: Meaning,
    pub(super) parts: Vec<Part>,
    /// What is written now, if it is another version than the last one.
    pub(super) version: Option<Version>,
    /// How long it took.
    pub(super) took: Duration,
}

/// What was made of one selection.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) selection: Selection,
    pub(super) listeners: Listeners,
    pub(super) digest: Digest,
    /// The bundle, if it is another than the last one.
    pub(super) bundle: Option<Result<Bundle, BundleError>>,
}

/// Makes them. Costs a look at every object, and an encoding of those that go along.
pub(super) fn build(job: Job) -> Built {
    let Job { mut objects, mut addresses, mut means, mut parts, pinned, since, known } = job;
    let version = Version::of(&objects, &addresses, since);
    if let Some(pinned) = pinned {
        objects = pinned.overlay(&objects);
        addresses.clone_from(&pinned.addresses);
        let known = Known { held: Some(&addresses), ..Known::default() };
        let translation = translate_with(&objects, known);
        for (selection, listeners, _) in &mut parts {
            *listeners = Arc::new(needs::listeners(selection, &objects, &translation));
        }
        means = Meaning { state: translation.state, l7: translation.l7 };
    }
    let part = |(selection, listeners, last): (Selection, Listeners, Option<Digest>)| {
        let contents = needs::contents(&selection, (*listeners).clone(), &addresses, &objects);
        let body = contents.body();
        let digest = Digest::of(&body);
        let bundle = (last != Some(digest)).then(|| Bundle::pack(0, &body));
        Part { selection, listeners, digest, bundle }
    };
    Built {
        means,
        parts: parts.into_iter().map(part).collect(),
        version: Some(version).filter(|version| known.as_ref() != Some(&version.id)),
        took: Duration::ZERO,
    }
}
