//! The translation, kept and changed by what changed.
//!
//! Every judgement is kept with what was looked at for it ([`look`](super::look)). A change makes due what looked
//! at it, and what comes of that the next: [`Due`] holds what each step leaves to the later ones, and steps go one
//! way, so that an update is one pass. From nothing it is the same pass with everything due; there is no other
//! body of rules.
//!
//! ```text
//!  reading   indexes: grants, EndpointSlices by Service, labels, parsed certificates
//!  judging   Gateways by themselves, the addresses of all if one asks for others, ListenerSets, their conflicts
//!  attaching routes to listeners (seat), and where they send;
//!            what of that takes another place, or other groups
//!  answering the conditions of what any of this was about
//! ```

mod answering;
mod attaching;
mod judging;
mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::net::SocketAddr;
use std::sync::Arc;

use penstock_feed::model::{Name, Touched};

use super::backend::Slices;
use super::backend_tls::{Reach, Targets};
use super::certificate::{Certificates, Parsed};
use super::claim::Register;
use super::gateway::Plan as GatewayPlan;
use super::grant::Grants;
use super::holding::Sizes;
use super::l4_policy::{self, L4Policies};
use super::listener_set::Plan as SetPlan;
use super::look::{Lookers, Looks, View, health_of, name_of};
use super::route::{Meeting, Resolved};
use super::seat::{Seat, Seats, Turn};
use super::{Known, Translation};
use crate::health::Check;
use crate::object::{NamespacedName, ObjectKey, Objects};
use crate::observed::Observed;

/// Translates what changes, and remembers the rest.
///
/// Whatever the order of changes, what it comes to is what [`super::translate_with`] makes of the objects from
/// nothing, with the addresses that Gateways had before the last change. An update costs what it reaches: a change
/// of endpoints the routes that send there, a change of a route its listeners, a change of a Gateway that Gateway
/// with its ListenerSets and routes. All Gateways are looked at only where their addresses may move: when one asks
/// for others, comes or goes, and when a pool changes.
pub struct Translator {
    bundle_version: Option<String>,
    read: Read,
    lookers: Lookers,
    gateways: BTreeMap<NamespacedName, GatewayPlan>,
    sets: BTreeMap<NamespacedName, SetPlan>,
    /// The ListenerSets that name each Gateway, and the Gateway that each names.
    children: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
    parents: BTreeMap<NamespacedName, NamespacedName>,
    /// The class of each Gateway, ours or not, and how many have each.
    class_of: BTreeMap<NamespacedName, String>,
    classes: BTreeMap<String, usize>,
    routes: BTreeMap<ObjectKey, Standing>,
    seats: Seats,
    register: Register,
    targets: Targets,
    translation: Translation,
    has_begun: bool,
    /// What stands for what was found out since the last update.
    found_out: BTreeSet<ObjectKey>,
}

/// What an update changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// The objects whose answers are others now, or are there for the first time or no more.
    pub answers: BTreeSet<ObjectKey>,
    /// What is touched of [`Translation::state`].
    pub touched: Touched,
    /// The places that are touched of [`Translation::l7`].
    pub l7_places: BTreeSet<SocketAddr>,
    /// The Gateways for which [`Translation::infrastructure`] changed.
    pub infrastructure: BTreeSet<NamespacedName>,
    /// Whether [`Translation::notes`] changed.
    pub has_notes: bool,
    /// Whether others are to be asked: by [`Translation::checkups`], or by [`Translation::names`].
    pub has_questions: bool,
}

/// What is read of objects before any is judged.
#[derive(Default)]
struct Read {
    grants: Grants,
    slices: Slices,
    labels: BTreeMap<String, BTreeMap<String, String>>,
    parsed: Parsed,
    policies: L4Policies,
    observed: Arc<Observed>,
    looks: Looks,
}

impl Read {
    fn view<'a>(&'a self, objects: &'a Objects) -> View<'a> {
        View::of(objects, &self.grants, &self.slices, &self.policies, &self.observed, &self.looks)
    }

    fn certificates<'a>(&'a self, objects: &'a Objects) -> Certificates<'a> {
        Certificates::of(self.view(objects), &self.parsed)
    }
}

/// A route, where it is attached and where it sends.
struct Standing {
    turn: Turn,
    meetings: Vec<Meeting>,
    /// The name of its group, if the data plane forwards it.
    group: Option<Name>,
    reach: Reach,
    l4_reach: l4_policy::Reach,
    /// None until it is known, and of a route that is not ours.
    resolved: Option<Resolved>,
}

impl Standing {
    /// The Gateway whose parameters say what is usual for it.
    fn gateway(&self) -> Option<&NamespacedName> {
        self.meetings.first().map(Meeting::of)
    }

    fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.meetings.iter().flat_map(Meeting::seats)
    }
}

/// What has to be done yet.
#[derive(Default)]
struct Due {
    /// To be judged: whether addresses, which Gateways and ListenerSets.
    addresses: bool,
    gateways: BTreeSet<NamespacedName>,
    sets: BTreeSet<NamespacedName>,
    /// Gateways whose listeners, with those of their ListenerSets, are to be compared and to claim anew.
    families: BTreeSet<NamespacedName>,
    /// Routes that are to be attached, and those whose backends are to be looked up.
    attachments: BTreeSet<ObjectKey>,
    backends: BTreeSet<ObjectKey>,
    /// Owners of listeners that are to claim anew, and single listeners.
    owners: BTreeSet<ObjectKey>,
    listeners: BTreeSet<Seat>,
    /// What is to be answered.
    answers: BTreeSet<ObjectKey>,
    policies: BTreeSet<NamespacedName>,
    classes: BTreeSet<String>,
    l4_policies: BTreeSet<NamespacedName>,
    own_backends: BTreeSet<NamespacedName>,
}

impl Translator {
    /// One that knows no object.
    #[must_use]
    pub fn new(known: Known<'_>) -> Self {
        let addresses = known.held.cloned().unwrap_or_default();
        let mut register = Register::new(known.most.unwrap_or(Sizes::LIMITS));
        register.serve_only(known.only.cloned());
        Self {
            bundle_version: known.bundle_version.map(str::to_owned),
            read: Read { observed: known.observed.cloned().unwrap_or_default(), ..Read::default() },
            lookers: Lookers::default(),
            gateways: BTreeMap::new(),
            sets: BTreeMap::new(),
            children: BTreeMap::new(),
            class_of: BTreeMap::new(),
            classes: BTreeMap::new(),
            parents: BTreeMap::new(),
            routes: BTreeMap::new(),
            seats: Seats::default(),
            register,
            targets: Targets::default(),
            translation: Translation { addresses, ..Translation::default() },
            has_begun: false,
            found_out: BTreeSet::new(),
        }
    }

    /// Takes in what the box found out by itself. It counts from the next update on, which has to follow even if no
    /// object changed. Costs what is found out, not what it means.
    pub fn observe(&mut self, observed: &Arc<Observed>) {
        let before = std::mem::replace(&mut self.read.observed, Arc::clone(observed));
        let unhealthy = before.unhealthy.symmetric_difference(&observed.unhealthy);
        self.found_out.extend(unhealthy.map(|asked| health_of(asked.backend)));
        let names = before.names.keys().chain(observed.names.keys());
        let others = names.filter(|name| before.names.get(*name) != observed.names.get(*name));
        self.found_out.extend(others.map(|name| name_of(name)));
    }

    /// What the objects of the last update mean.
    #[must_use]
    pub fn translation(&self) -> &Translation {
        &self.translation
    }

    /// The same, and nothing more.
    #[must_use]
    pub fn into_translation(self) -> Translation {
        self.translation
    }

    /// Takes in of which release the installed CRDs are. It counts from the next update on that is told of the
    /// GatewayClasses.
    pub fn know_bundle(&mut self, version: Option<&str>) {
        self.bundle_version = version.map(str::to_owned);
    }

    /// Serves only these listeners from the next update on; see [`Known::only`].
    pub fn serve_only(&mut self, only: Option<Arc<BTreeSet<String>>>) {
        self.register.serve_only(only);
    }

    /// The classes that Gateways use, ours or not.
    pub fn classes_in_use(&self) -> impl Iterator<Item = &str> {
        self.classes.keys().map(String::as_str)
    }

    /// Takes in that `objects` are now as they are, and that since the last update none but those `changed` came,
    /// changed or went. One that did not change may be among them.
    pub fn update(&mut self, objects: &Objects, changed: &BTreeSet<ObjectKey>) -> Update {
        let mut due = Due { addresses: !self.has_begun, ..Due::default() };
        let mut update = Update::default();
        self.has_begun = true;
        for key in changed {
            self.read(objects, key, &mut due, &mut update);
        }
        for key in take(&mut self.found_out) {
            self.touch(&key, &mut due);
        }
        self.judge_classes(objects, &mut due, &mut update);
        self.judge_gateways(objects, &mut due, &mut update);
        self.give_addresses(objects, &mut due, &mut update);
        self.judge_sets(objects, &mut due, &mut update);
        self.compare_families(&mut due);
        self.attach(objects, &mut due, &mut update);
        self.resolve(objects, &mut due);
        self.claim(&mut due, &mut update);
        self.answer(&mut due, &mut update);
        self.answer_policies(objects, take(&mut due.policies), &mut update);
        self.answer_l4_policies(objects, due.l4_policies, &mut update);
        self.answer_backends(objects, due.own_backends, &mut update);
        update
    }
}

/// The health check that the parameters of a Gateway ask for.
fn usual_check(plan: &GatewayPlan) -> Option<&Arc<Check>> {
    plan.accepted()?.parameters.check.as_ref()
}

/// Puts a value, or takes it away. Returns whether that is another than before.
fn put<K: Ord + Clone, V: PartialEq>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) -> bool {
    if map.get(key) == value.as_ref() {
        return false;
    }
    match value {
        Some(value) => _ = map.insert(key.clone(), value),
        None => _ = map.remove(key),
    }
    true
}
