//! The answers of `translate` and the acknowledgements of the data plane, as the status of every object.
//!
//! `Programmed=True` means that packets flow: a listener has it when the state that the data plane
//! acknowledged holds the very listener that we want now. So a change elsewhere does not take it away for a
//! moment, and a change of the listener does, until the next acknowledgement.
//!
//! [`conclude`] is pure; [`files`] puts the result where people find it.

pub mod cluster;
pub mod files;
mod programmed;
mod stamp;

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_feed::model::{ObjectError, State};
use penstock_gateway_types::gateway::GatewayStatusAddress;
use penstock_gateway_types::gateway_class::SupportedFeature;
use penstock_gateway_types::{
    AddressType, Condition, GROUP, GatewayClassStatus, GatewayStatus, ListenerStatus,
    ParentReference, RouteParentStatus, RouteStatus,
};

use crate::object::{Kind, NamespacedName, Object, ObjectKey, Objects};
use crate::translate::{
    CONTROLLER_NAME, GatewayVerdict, ParentVerdict, SUPPORTED_FEATURES, Translation, Verdict,
};
pub use stamp::Stamp;

/// Objects with their status, by name.
pub type Statuses = BTreeMap<ObjectKey, Object>;

/// What the data plane said last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// The state that it acknowledged last; `None` until it said so to this process.
    pub acknowledged: Option<Arc<State>>,
    /// The objects of that state that it cannot serve.
    pub errors: Vec<ObjectError>,
    /// Why it did not take the state that we want now.
    pub refused: Option<RefusedState>,
    /// Whether it has been out of reach for longer than a restart takes.
    pub lost: bool,
}

/// Why the data plane did not take a state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RefusedState {
    /// In words.
    pub reason: String,
    /// The objects that are to blame, as far as that is known.
    pub errors: Vec<ObjectError>,
}

/// The status of every object of ours.
#[must_use]
pub fn conclude(
    objects: &Objects,
    translation: &Translation,
    progress: &Progress,
    stamp: &Stamp<'_>,
) -> Statuses {
    let mut statuses = Statuses::new();
    for (name, verdicts) in &translation.classes {
        if let Some(class) = objects.gateway_classes.get(name) {
            let key = ObjectKey::cluster(Kind::GatewayClass, name);
            let mut class = (**class).clone();
            let conditions =
                stamp.conditions(verdicts, class.metadata.generation, stamp.of_class(&key));
            let feature = |name: &&str| SupportedFeature { name: (*name).to_owned() };
            let supported_features = SUPPORTED_FEATURES.iter().map(feature).collect();
            class.status = Some(GatewayClassStatus { conditions, supported_features });
            statuses.insert(key, Object::GatewayClass(Arc::new(class)));
        }
    }
    for (name, verdict) in &translation.gateways {
        if let Some(gateway) = objects.gateways.get(name) {
            let key = ObjectKey::of(Kind::Gateway, name);
            let mut gateway = (**gateway).clone();
            let generation = gateway.metadata.generation;
            let programmed = programmed::Programmed { wanted: &translation.state, progress };
            gateway.status = Some(gateway_status(verdict, &programmed, generation, stamp, &key));
            statuses.insert(key, Object::Gateway(Arc::new(gateway)));
        }
    }
    for (key, answers) in &translation.routes {
        statuses.extend(route(objects, key, answers, stamp).map(|route| (key.clone(), route)));
    }
    statuses
}

fn gateway_status(
    verdict: &GatewayVerdict,
    programmed: &programmed::Programmed<'_>,
    generation: Option<i64>,
    stamp: &Stamp<'_>,
    key: &ObjectKey,
) -> GatewayStatus {
    let previous = stamp.of_gateway(key);
    let conditions = [verdict.accepted.clone(), programmed.gateway(verdict)];
    let addresses = programmed.addresses(verdict).into_iter().map(|address| GatewayStatusAddress {
        type_: Some(AddressType::IpAddress),
        value: address.to_string(),
    });
    let listener = |listener: &crate::translate::ListenerVerdict| {
        let before = previous.iter().flat_map(|status| &status.listeners);
        let before = before.into_iter().find(|before| before.name == listener.name);
        let before = before.map(|before| before.conditions.as_slice()).unwrap_or_default();
        let mut verdicts = listener.conditions.clone();
        verdicts.push(programmed.listener(&listener.serving));
        ListenerStatus {
            name: listener.name.clone(),
            supported_kinds: listener.supported_kinds.clone(),
            attached_routes: listener.attached_routes,
            conditions: stamp.conditions(&verdicts, generation, before),
        }
    };
    let before = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    GatewayStatus {
        addresses: addresses.collect(),
        attached_listener_sets: None,
        conditions: stamp.conditions(&conditions, generation, before),
        listeners: verdict.listeners.iter().map(listener).collect(),
    }
}

fn route(
    objects: &Objects,
    key: &ObjectKey,
    answers: &[ParentVerdict],
    stamp: &Stamp<'_>,
) -> Option<Object> {
    let name = NamespacedName::new(&key.namespace, &key.name);
    match key.kind {
        Kind::TcpRoute => {
            let mut route = (**objects.tcp_routes.get(&name)?).clone();
            route.status = Some(route_status(answers, route.metadata.generation, stamp, key));
            Some(Object::TcpRoute(Arc::new(route)))
        }
        Kind::UdpRoute => {
            let mut route = (**objects.udp_routes.get(&name)?).clone();
            route.status = Some(route_status(answers, route.metadata.generation, stamp, key));
            Some(Object::UdpRoute(Arc::new(route)))
        }
        _ => None,
    }
}

fn route_status(
    answers: &[ParentVerdict],
    generation: Option<i64>,
    stamp: &Stamp<'_>,
    key: &ObjectKey,
) -> RouteStatus {
    let previous = stamp.of_route(key).map(|status| status.parents.as_slice()).unwrap_or_default();
    let parent = |answer: &ParentVerdict| {
        let parent_ref = with_defaults(&answer.parent);
        let before = previous.iter().find(|before| before.parent_ref == parent_ref);
        let before = before.map(|before| before.conditions.as_slice()).unwrap_or_default();
        RouteParentStatus {
            conditions: stamp.conditions(&answer.conditions, generation, before),
            controller_name: CONTROLLER_NAME.to_owned(),
            parent_ref,
        }
    };
    RouteStatus { parents: answers.iter().map(parent).collect() }
}

/// The reference as declared, with group and kind filled in, as the API does.
fn with_defaults(parent: &ParentReference) -> ParentReference {
    let mut filled = parent.clone();
    filled.group.get_or_insert_with(|| GROUP.to_owned());
    filled.kind.get_or_insert_with(|| "Gateway".to_owned());
    filled
}

/// Every condition of an object, with the part of it that the condition is about.
#[must_use]
pub fn conditions(object: &Object) -> Vec<(String, &Condition)> {
    let under = |part: String| move |condition| (part.clone(), condition);
    let mut found = Vec::new();
    match object {
        Object::GatewayClass(class) => {
            let status = class.status.iter().flat_map(|status| &status.conditions);
            found.extend(status.map(under(String::new())));
        }
        Object::Gateway(gateway) => {
            if let Some(status) = &gateway.status {
                found.extend(status.conditions.iter().map(under(String::new())));
                for listener in &status.listeners {
                    let part = format!("listener {}", listener.name);
                    found.extend(listener.conditions.iter().map(under(part)));
                }
            }
        }
        Object::TcpRoute(route) => found.extend(parents(route.status.as_ref())),
        Object::UdpRoute(route) => found.extend(parents(route.status.as_ref())),
        _ => {}
    }
    found
}

fn parents(status: Option<&RouteStatus>) -> Vec<(String, &Condition)> {
    let mut found = Vec::new();
    for parent in status.iter().flat_map(|status| &status.parents) {
        let ParentReference { namespace, name, section_name, port, .. } = &parent.parent_ref;
        let namespace = namespace.as_ref().map(|n| format!("{n}/")).unwrap_or_default();
        let section = section_name.as_ref().map(|s| format!(" listener {s}")).unwrap_or_default();
        let port = port.map(|port| format!(" port {port}")).unwrap_or_default();
        let part = format!("parent {namespace}{name}{section}{port}");
        found.extend(parent.conditions.iter().map(|condition| (part.clone(), condition)));
    }
    found
}

/// What is wrong with an object, by its conditions that do not hold, each message once: `Programmed` repeats
/// what `Accepted` says. What only waits for the data plane is no fault of the object.
#[must_use]
pub fn faults(object: &Object) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (part, condition) in conditions(object) {
        let good = if condition.type_ == "Conflicted" { "False" } else { "True" };
        let is_known = |part: &str| {
            let cause = part.rsplit("not accepted: ").next().unwrap_or(part);
            found.iter().any(|message| message.contains(cause))
        };
        let said = condition.message.split("; ").all(is_known);
        if condition.status == good || condition.reason == "Pending" || said {
            continue;
        }
        let part = if part.is_empty() { String::new() } else { format!("{part}: ") };
        let (type_, reason) = (&condition.type_, &condition.reason);
        found.push(format!("{part}{type_}={}/{reason}: {}", condition.status, condition.message));
    }
    found
}

/// A verdict and a condition say the same, times aside.
fn says_the_same(verdict: &Verdict, condition: &Condition) -> bool {
    verdict.type_ == condition.type_ && verdict.status.as_str() == condition.status
}
