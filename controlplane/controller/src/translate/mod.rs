//! Objects in; what the data plane must know, and the conditions of every object, out.
//!
//! [`translate`] is pure: no clock, no files, no memory of the last call, so that golden files can be its
//! specification (`tests/golden/`, a promise a folder). The order of its input does not exist: objects come as
//! maps by name, and who goes first where only one can is decided by age, then by name. It is a [`Translator`] that
//! is told of everything once; the control process keeps one, and tells it of what changes (`translator`, `look`):
//! whatever the order of changes, it comes to the same (`tests/agreement.rs`), at the cost of what they reach.
//!
//! ```text
//! class          which Gateways are ours, and what is usual for them (parameters)
//! l4_policy      who has which L4Policy, and what it asks for (settings)
//! gateway        is each well-formed, and what does it ask for (address, frontend)
//! service        what stands in for a Service of type LoadBalancer, before all this
//! listener_set   which ListenerSets join it
//! listener       what would each listener serve, who may attach, are its certificates good (certificate)
//! conflict       which listeners cannot be told apart
//! route          what it sends to (backend, own_backend, grant, checked, weight), where it attaches (namespace,
//!                hostname), oldest first (seat)
//! claim          oldest Gateway first: who gets which VIP, protocol and port
//! holding        what that comes to: the feed's State, and the L7 tier's work
//! backend_tls    what becomes of BackendTLSPolicies, and l4_policy of L4Policies
//! answer         the conditions of all of them
//! ```
//!
//! One condition cannot be known here: `Programmed` depends on what the data plane acknowledged. The answer
//! for a listener therefore names the listeners of the feed and of the L7 tier that must be acknowledged
//! ([`Serving`]), and [`crate::status`] concludes.
//!
//! Nothing an object says can stop the translation or reach another object: what is wrong with it becomes its
//! own condition, and what it would have served is refused or left out.

mod address;
mod answer;
mod backend;
mod backend_tls;
mod certificate;
mod checked;
mod claim;
mod class;
mod conflict;
mod frontend;
mod gateway;
mod grant;
mod holding;
mod hostname;
mod infrastructure;
mod l4_policy;
pub mod l7;
mod listener;
mod listener_set;
mod look;
mod namespace;
mod note;
mod own_backend;
mod parameters;
mod route;
mod seat;
pub mod service;
mod settings;
mod translator;
mod verdict;
mod weight;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use penstock_feed::model::{Name, State};
use penstock_gateway_types::ParentReference;
use penstock_gateway_types::reference::RouteGroupKind;

pub(crate) use backend::service_of;
pub(crate) use backend_tls::services as services_of_policy;
pub use checked::{CheckVerdict, Checkups};
pub use class::{CONTROLLER_NAME, SUPPORTED_FEATURES};
pub use holding::Sizes;
pub use infrastructure::Infrastructure;
pub use l7::L7;
pub use listener::owner_of;
pub(crate) use listener_set::gateway_of;
pub use namespace::matches as selects;
pub use note::{Note, Notes};
pub use own_backend::BackendVerdict;
pub(crate) use route::{Route, of as route_of};
pub use translator::{Translator, Update};
pub use verdict::{Refusal, Truth, Verdict};

use crate::object::{Kind, NamespacedName, ObjectKey, Objects};
use crate::observed::Observed;

/// What a set of objects means.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    /// What the data plane must know. [`State::check`] finds no fault in it.
    pub state: Arc<State>,
    /// What the L7 tier must do.
    pub l7: Arc<L7>,
    /// What every Gateway of ours has. To be given as [`Known::held`] the next time.
    pub addresses: BTreeMap<NamespacedName, Vec<IpAddr>>,
    /// The conditions of our GatewayClasses.
    pub classes: BTreeMap<String, Vec<Verdict>>,
    /// The answers to our Gateways.
    pub gateways: BTreeMap<NamespacedName, GatewayVerdict>,
    /// The answers to the ListenerSets of our Gateways.
    pub listener_sets: BTreeMap<NamespacedName, ListenerSetVerdict>,
    /// The answers to routes with a parent of ours, one a parent.
    pub routes: BTreeMap<ObjectKey, Vec<ParentVerdict>>,
    /// The answers to BackendTLSPolicies, one a Gateway by which their Services are reached.
    pub policies: BTreeMap<NamespacedName, Vec<AncestorVerdict>>,
    /// The answers to L4Policies.
    pub l4_policies: BTreeMap<NamespacedName, L4PolicyVerdict>,
    /// The answers to Backends.
    pub backends: BTreeMap<NamespacedName, BackendVerdict>,
    /// What came of health checks, and whom to ask.
    pub checkups: Checkups,
    /// The names to resolve, and the Backends that have them.
    pub names: BTreeMap<String, BTreeSet<NamespacedName>>,
    /// What belongs on the Service that stands for a Gateway, for each that is accepted.
    pub infrastructure: BTreeMap<NamespacedName, Infrastructure>,
    /// What no condition can say, since the object has none or is not ours.
    pub notes: Notes,
}

impl Translation {
    /// Everything that is answered: in the stead of what stands in for a Service, that Service.
    pub fn answered(&self) -> impl Iterator<Item = ObjectKey> {
        let classes = self.classes.keys().filter(|name| !service::is_stand_in(name));
        let classes = classes.map(|name| ObjectKey::cluster(Kind::GatewayClass, name));
        let named = |kind| move |name: &NamespacedName| ObjectKey::of(kind, name);
        let gateways = self.gateways.keys().map(named(Kind::Gateway));
        let gateways = gateways.map(|key| service::subject(&key));
        let sets = self.listener_sets.keys().map(named(Kind::ListenerSet));
        let policies = self.policies.keys().map(named(Kind::BackendTlsPolicy));
        let routes = self.routes.keys().filter(|key| !service::is_stand_in(&key.name)).cloned();
        let own = self.l4_policies.keys().filter(|name| !service::is_stand_in(&name.name));
        let own = own.map(named(Kind::L4Policy));
        let backends = self.backends.keys().map(named(Kind::Backend));
        let own = own.chain(backends);
        classes.chain(gateways).chain(sets).chain(policies).chain(routes).chain(own)
    }
}

/// The answer to a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayVerdict {
    /// Its `Accepted`.
    pub accepted: Verdict,
    /// Why it cannot be programmed, whatever is acknowledged.
    pub obstacle: Option<Refusal>,
    /// The conditions that only some Gateways have: `ResolvedRefs`, `InsecureFrontendValidationMode`.
    pub conditions: Vec<Verdict>,
    /// How many ListenerSets are attached to it and accepted.
    pub attached_listener_sets: i32,
    /// One answer a listener, in the order of the spec.
    pub listeners: Vec<ListenerVerdict>,
}

/// The answer to a ListenerSet.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerSetVerdict {
    /// Its `Accepted`.
    pub accepted: Verdict,
    /// Why it cannot be programmed, whatever is acknowledged.
    pub obstacle: Option<Refusal>,
    /// One answer a listener, in the order of the spec; none if it is not allowed.
    pub listeners: Vec<ListenerVerdict>,
}

/// The answer to a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerVerdict {
    /// Its name.
    pub name: String,
    /// The kinds of routes that may attach.
    pub supported_kinds: Vec<RouteGroupKind>,
    /// How many routes are attached and accepted.
    pub attached_routes: i32,
    /// Its conditions, all but `Programmed`.
    pub conditions: Vec<Verdict>,
    /// What its `Programmed` depends on.
    pub serving: Serving,
}

/// What a listener's `Programmed` depends on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Serving {
    /// The addresses it serves on, and the listener of the feed for each.
    pub places: Vec<(IpAddr, Name)>,
    /// Where the L7 tier serves it, and the listener of [`L7`] for each.
    pub l7: Vec<(SocketAddr, Name)>,
    /// Why it does not serve, or not on every address.
    pub obstacles: Vec<String>,
    /// The reason that `Programmed` gives with them; `Invalid` if none.
    pub reason: Option<&'static str>,
}

impl Serving {
    /// Whether nobody serves it anywhere.
    #[must_use]
    pub fn is_nowhere(&self) -> bool {
        self.places.is_empty() && self.l7.is_empty()
    }
}

/// The answer to a route for one parent.
#[derive(Clone, Debug, PartialEq)]
pub struct ParentVerdict {
    /// The parent, as the route wrote it.
    pub parent: ParentReference,
    /// `Accepted` and `ResolvedRefs`.
    pub conditions: Vec<Verdict>,
}

/// The answer to a policy for one Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct AncestorVerdict {
    /// The Gateway.
    pub ancestor: ParentReference,
    /// `Accepted` and `ResolvedRefs`.
    pub conditions: Vec<Verdict>,
}

/// The answer to an L4Policy.
#[derive(Clone, Debug, PartialEq)]
pub struct L4PolicyVerdict {
    /// One a target, or a Gateway by which it is reached.
    pub ancestors: Vec<AncestorVerdict>,
    /// What came of its health check.
    pub checks: Vec<CheckVerdict>,
}

/// What is known beside the objects.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// What each Gateway had before ([`Translation::addresses`]), as far as its status does not say so.
    pub held: Option<&'a BTreeMap<NamespacedName, Vec<IpAddr>>>,
    /// The version of the installed CRDs (their annotation `gateway.networking.k8s.io/bundle-version`); that of
    /// our types if there is no cluster.
    pub bundle_version: Option<&'a str>,
    /// How much the data plane and the L7 tier take; [`Sizes::LIMITS`] if none.
    pub most: Option<Sizes>,
    /// The listeners that are to be served, by their names in the feed, if somebody who sees more decided: no others
    /// are in [`Translation::state`] and [`Translation::l7`].
    pub only: Option<&'a Arc<BTreeSet<String>>>,
    /// What the box found out by itself: who is not well, and what names come to.
    pub observed: Option<&'a Arc<Observed>>,
}

/// Translates what nothing else is known about.
#[must_use]
pub fn translate(objects: &Objects) -> Translation {
    translate_with(objects, Known::default())
}

/// Translates.
#[must_use]
pub fn translate_with(objects: &Objects, known: Known<'_>) -> Translation {
    let mut translator = Translator::new(known);
    translator.update(objects, &objects.keys().collect());
    translator.into_translation()
}
