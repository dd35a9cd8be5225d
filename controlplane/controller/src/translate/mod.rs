//! Objects in; what the data plane must know, and the conditions of every object, out.
//!
//! A pure function: no clock, no files, no memory of the last call, so that golden files can be its
//! specification (`tests/golden/`, a promise a folder). The order of its input does not exist: objects come as
//! maps by name, and who goes first where only one can is decided by age, then by name.
//!
//! ```text
//! class      which Gateways are ours
//! gateway    is each well-formed, and which addresses may it have
//! listener   what would each of its listeners serve, which siblings collide, who may attach
//! route      oldest first: what it sends to (backend, grant, weight), where it attaches (namespace)
//! claim      oldest Gateway first: who gets which VIP, protocol and port; the feed's State
//! answer     the conditions of all of them
//! ```
//!
//! One condition cannot be known here: `Programmed` depends on what the data plane acknowledged. The answer
//! for a listener therefore names the feed's listeners that must be acknowledged ([`Serving`]), and
//! [`crate::status`] concludes.
//!
//! Nothing an object says can stop the translation or reach another object: what is wrong with it becomes its
//! own condition, and what it would have served is refused or left out.

mod answer;
mod backend;
mod claim;
mod class;
mod gateway;
mod grant;
mod listener;
mod namespace;
mod policy;
mod route;
mod verdict;
mod weight;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use penstock_feed::model::{Name, State};
use penstock_gateway_types::ParentReference;
use penstock_gateway_types::reference::RouteGroupKind;

pub use class::{CONTROLLER_NAME, SUPPORTED_FEATURES};
pub use gateway::{AFFINITY_ANNOTATION, MODE_ANNOTATION};
pub use policy::{
    MSS_CLAMP_ANNOTATION, ON_EXHAUSTION_ANNOTATION, ON_REMOVAL_ANNOTATION, ON_UNKNOWN_ANNOTATION,
};
pub use verdict::{Refusal, Truth, Verdict};

use crate::object::{Kind, NamespacedName, ObjectKey, Objects};

/// What a set of objects means.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    /// What the data plane must know. [`State::check`] finds no fault in it.
    pub state: Arc<State>,
    /// The conditions of our GatewayClasses.
    pub classes: BTreeMap<String, Vec<Verdict>>,
    /// The answers to our Gateways.
    pub gateways: BTreeMap<NamespacedName, GatewayVerdict>,
    /// The answers to routes with a parent of ours, one a parent.
    pub routes: BTreeMap<ObjectKey, Vec<ParentVerdict>>,
    /// What no condition can say, since the object has none or is not ours.
    pub notes: Vec<Note>,
}

/// The answer to a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayVerdict {
    /// Its `Accepted`.
    pub accepted: Verdict,
    /// Why it cannot be programmed, whatever is acknowledged.
    pub obstacle: Option<Refusal>,
    /// One answer a listener, in the order of the spec.
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
    /// Why it does not serve, or not on every address.
    pub obstacles: Vec<String>,
}

/// The answer to a route for one parent.
#[derive(Clone, Debug, PartialEq)]
pub struct ParentVerdict {
    /// The parent, as the route wrote it.
    pub parent: ParentReference,
    /// `Accepted` and `ResolvedRefs`.
    pub conditions: Vec<Verdict>,
}

/// A word about an object that no condition carries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The object.
    pub object: ObjectKey,
    /// What is wrong, and the next move.
    pub message: String,
}

/// Translates.
#[must_use]
pub fn translate(objects: &Objects) -> Translation {
    let classes = class::ours(objects);
    let mut notes = backend::notes(objects);
    let mut gateways = our_gateways(objects, &classes, &mut notes);

    let backends = backend::Backends::of(objects);
    let mut groups = route::Groups::new();
    let mut routes = BTreeMap::new();
    for route in route::routes(objects) {
        let resolved = route::resolve(&route, &backends);
        let answers = route::attach(&route, &resolved, &mut gateways, objects, &mut notes);
        if answers.is_empty() {
            continue; // not ours
        }
        if let Some(group) = route.group_name() {
            let key = (route.key.kind, route.name.clone());
            groups.insert(key, (group, resolved.groups.map(Arc::new)));
        }
        routes.insert(route.key, answers);
    }

    let mut by_age: Vec<_> = gateways.values().collect();
    by_age.sort_by(|one, other| one.age().cmp(&other.age()));
    let (state, claims) = claim::claim(&by_age, &groups, &mut notes);
    let gateways = gateways.values().map(|plan| answer::gateway(plan, &claims));

    notes.sort();
    Translation {
        state: Arc::new(state),
        gateways: gateways.collect(),
        classes: classes
            .iter()
            .map(|(name, c)| ((*name).to_owned(), class::conditions(c)))
            .collect(),
        routes,
        notes,
    }
}

/// The Gateways whose class is ours, each judged by itself.
fn our_gateways<'a>(
    objects: &'a Objects,
    classes: &BTreeMap<&str, Result<(), Refusal>>,
    notes: &mut Vec<Note>,
) -> BTreeMap<NamespacedName, gateway::Plan<'a>> {
    let mut ours = BTreeMap::new();
    for (name, gateway) in &objects.gateways {
        let class = gateway.spec.gateway_class_name.as_str();
        if let Some(accepted) = classes.get(class) {
            let accepted = accepted.clone().map_err(|refusal| Refusal {
                message: format!("GatewayClass {class}: {}", refusal.message),
                ..refusal
            });
            ours.insert(name.clone(), gateway::Plan::of(name, gateway, accepted));
        } else if !objects.gateway_classes.contains_key(class) {
            let message = format!(
                "GatewayClass {class} does not exist: write one with controllerName {CONTROLLER_NAME}"
            );
            notes.push(Note { object: ObjectKey::of(Kind::Gateway, name), message });
        }
    }
    ours
}
