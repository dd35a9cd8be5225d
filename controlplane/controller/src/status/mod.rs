//! The answers of `translate` and the acknowledgements of the data plane, as the status of every object.
//!
//! `Programmed=True` means that packets flow: a listener has it when the state that the data plane
//! acknowledged holds the very listener that we want now. So a change elsewhere does not take it away for a
//! moment, and a change of the listener does, until the next acknowledgement.
//!
//! [`conclude_one`] is pure; [`files`] puts the result where people find it.

mod boxes;
pub mod cluster;
pub mod files;
mod ledger;
mod programmed;
mod services;
mod stamp;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use penstock_feed::model::{ObjectError, State};
use penstock_gateway_types::backend::NameStatus;
use penstock_gateway_types::backend_tls_policy::PolicyAncestorStatus;
use penstock_gateway_types::gateway::GatewayStatusAddress;
use penstock_gateway_types::gateway_class::SupportedFeature;
use penstock_gateway_types::l4_policy::CheckStatus;
use penstock_gateway_types::{
    AddressType, BackendStatus, Condition, GROUP, GatewayClassStatus, GatewayStatus,
    L4PolicyStatus, ListenerSetStatus, ListenerStatus, ParentReference, PolicyStatus,
    RouteParentStatus, RouteStatus,
};

use crate::object::{Kind, Object, ObjectKey, Objects};
use crate::translate::{
    AncestorVerdict, BackendVerdict, CONTROLLER_NAME, CheckVerdict, GatewayVerdict, L7,
    ListenerSetVerdict, ListenerVerdict, ParentVerdict, SUPPORTED_FEATURES, Translation, Verdict,
    service,
};
pub use boxes::BoxProgress;
pub use ledger::Ledger;
use programmed::Programmed;
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
    /// What the L7 tier acknowledged last; `None` until one said so to this process.
    pub l7: Option<Arc<L7>>,
    /// The listeners of that which it cannot serve.
    pub l7_errors: Vec<ObjectError>,
    /// Whether it has been out of reach for longer than a restart takes.
    pub l7_lost: bool,
    /// The boxes that are told instead of a data plane and an L7 tier here, each with its own progress.
    pub boxes: Option<Arc<Vec<BoxProgress>>>,
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
    let one = |key: ObjectKey| {
        let object = conclude_one(&key, objects, translation, progress, stamp)?;
        Some((key, object))
    };
    answered(translation, progress).filter_map(one).collect()
}

/// Everything that has a status.
fn answered(translation: &Translation, progress: &Progress) -> impl Iterator<Item = ObjectKey> {
    let boxes = progress.boxes.iter().flat_map(|boxes| boxes.iter());
    let boxes = boxes.map(|it| ObjectKey::cluster(Kind::Box, &it.name));
    translation.answered().chain(boxes)
}

/// The status of one object; `None` if it is none of ours.
#[must_use]
pub fn conclude_one(
    key: &ObjectKey,
    objects: &Objects,
    translation: &Translation,
    progress: &Progress,
    stamp: &Stamp<'_>,
) -> Option<Object> {
    if key.kind != Kind::Service && service::is_stand_in(&key.name) {
        return None; // the Service is answered in its stead
    }
    let programmed = Programmed { wanted: &translation.state, l7: &translation.l7, progress };
    let mut object = objects.get(key)?;
    let generation = object.metadata().generation;
    match &mut object {
        Object::GatewayClass(class) => {
            let verdicts = translation.classes.get(&key.name)?;
            let conditions = stamp.conditions(verdicts, generation, stamp.of_class(key));
            let feature = |name: &&str| SupportedFeature { name: (*name).to_owned() };
            let supported_features = SUPPORTED_FEATURES.iter().map(feature).collect();
            let status = GatewayClassStatus { conditions, supported_features };
            Arc::make_mut(class).status = Some(status);
        }
        Object::Gateway(gateway) => {
            let verdict = translation.gateways.get(&key.namespaced())?;
            let status = gateway_status(verdict, &programmed, generation, stamp, key);
            Arc::make_mut(gateway).status = Some(status);
        }
        Object::ListenerSet(set) => {
            let verdict = translation.listener_sets.get(&key.namespaced())?;
            let status = set_status(verdict, &programmed, generation, stamp, key);
            Arc::make_mut(set).status = Some(status);
        }
        Object::BackendTlsPolicy(policy) => {
            let answers = translation.policies.get(&key.namespaced())?;
            let ancestors = ancestors(answers, generation, stamp, key);
            Arc::make_mut(policy).status = Some(PolicyStatus { ancestors });
        }
        Object::L4Policy(policy) => {
            let verdict = translation.l4_policies.get(&key.namespaced())?;
            let ancestors = ancestors(&verdict.ancestors, generation, stamp, key);
            let checks = checks(&verdict.checks);
            Arc::make_mut(policy).status = Some(L4PolicyStatus { ancestors, checks });
        }
        Object::Backend(backend) => {
            let verdict = translation.backends.get(&key.namespaced())?;
            let status = backend_status(verdict, generation, stamp, key);
            Arc::make_mut(backend).status = Some(status);
        }
        Object::Service(service) => {
            let stand_in = service::stand_in_of(&key.namespaced());
            let verdict = translation.gateways.get(&stand_in)?;
            let given = translation.addresses.get(&stand_in).map(Vec::as_slice);
            let given = given.unwrap_or_default();
            return Some(services::answer(service, verdict, given, &programmed, stamp, key));
        }
        Object::Box(object) => {
            let boxes = progress.boxes.as_ref()?;
            let it = boxes.iter().find(|it| it.name == key.name)?;
            Arc::make_mut(object).status = Some(boxes::status(it, generation, stamp, key));
        }
        route => {
            let answers = translation.routes.get(key)?;
            put_route_status(route, route_status(answers, generation, stamp, key))?;
        }
    }
    Some(object)
}

/// How many of a kind a status tells of.
const TOLD: usize = 16;

/// What came of health checks.
fn checks(checks: &[CheckVerdict]) -> Vec<CheckStatus> {
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let status = |check: &CheckVerdict| CheckStatus {
        target: check.to_string(),
        backends: number(check.asked.len()),
        unhealthy: number(check.unhealthy.len()),
        fail_open: check.fail_open,
        unhealthy_backends: check.unhealthy.iter().take(TOLD).map(ToString::to_string).collect(),
    };
    checks.iter().take(TOLD).map(status).collect()
}

fn backend_status(
    verdict: &BackendVerdict,
    generation: Option<i64>,
    stamp: &Stamp<'_>,
    key: &ObjectKey,
) -> BackendStatus {
    let name = |(hostname, addresses): &(String, Vec<IpAddr>)| NameStatus {
        hostname: hostname.clone(),
        addresses: addresses.iter().take(TOLD).map(ToString::to_string).collect(),
    };
    BackendStatus {
        conditions: stamp.conditions(&verdict.conditions, generation, stamp.of_backend(key)),
        names: verdict.names.iter().map(name).collect(),
        checks: checks(&verdict.checks),
    }
}

fn ancestors(
    answers: &[AncestorVerdict],
    generation: Option<i64>,
    stamp: &Stamp<'_>,
    key: &ObjectKey,
) -> Vec<PolicyAncestorStatus> {
    let previous = stamp.of_policy(key);
    let ancestor = |answer: &AncestorVerdict| {
        let mut before = previous.iter();
        let before = before.find(|before| before.ancestor_ref == answer.ancestor);
        let before = before.map(|before| before.conditions.as_slice()).unwrap_or_default();
        PolicyAncestorStatus {
            ancestor_ref: answer.ancestor.clone(),
            controller_name: CONTROLLER_NAME.to_owned(),
            conditions: stamp.conditions(&answer.conditions, generation, before),
        }
    };
    answers.iter().map(ancestor).collect()
}

fn gateway_status(
    verdict: &GatewayVerdict,
    programmed: &Programmed<'_>,
    generation: Option<i64>,
    stamp: &Stamp<'_>,
    key: &ObjectKey,
) -> GatewayStatus {
    let previous = stamp.of_gateway(key);
    let mut conditions = vec![verdict.accepted.clone(), programmed.gateway(verdict)];
    conditions.extend(verdict.conditions.iter().cloned());
    let addresses = programmed.addresses(verdict).into_iter().map(|address| GatewayStatusAddress {
        type_: Some(AddressType::IpAddress),
        value: address.to_string(),
    });
    let before = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let listeners = previous.map(|status| status.listeners.as_slice()).unwrap_or_default();
    GatewayStatus {
        addresses: addresses.collect(),
        attached_listener_sets: Some(verdict.attached_listener_sets),
        conditions: stamp.conditions(&conditions, generation, before),
        listeners: listener_statuses(&verdict.listeners, programmed, generation, stamp, listeners),
    }
}

fn set_status(
    verdict: &ListenerSetVerdict,
    programmed: &Programmed<'_>,
    generation: Option<i64>,
    stamp: &Stamp<'_>,
    key: &ObjectKey,
) -> ListenerSetStatus {
    let previous = stamp.of_listener_set(key);
    let conditions = [verdict.accepted.clone(), programmed.listener_set(verdict)];
    let before = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let listeners = previous.map(|status| status.listeners.as_slice()).unwrap_or_default();
    ListenerSetStatus {
        conditions: stamp.conditions(&conditions, generation, before),
        listeners: listener_statuses(&verdict.listeners, programmed, generation, stamp, listeners),
    }
}

fn listener_statuses(
    listeners: &[ListenerVerdict],
    programmed: &Programmed<'_>,
    generation: Option<i64>,
    stamp: &Stamp<'_>,
    previous: &[ListenerStatus],
) -> Vec<ListenerStatus> {
    let status = |listener: &ListenerVerdict| {
        let before = previous.iter().find(|before| before.name == listener.name);
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
    listeners.iter().map(status).collect()
}

fn put_route_status(object: &mut Object, status: RouteStatus) -> Option<()> {
    let status = Some(status);
    match object {
        Object::TcpRoute(route) => Arc::make_mut(route).status = status,
        Object::UdpRoute(route) => Arc::make_mut(route).status = status,
        Object::TlsRoute(route) => Arc::make_mut(route).status = status,
        Object::HttpRoute(route) => Arc::make_mut(route).status = status,
        Object::GrpcRoute(route) => Arc::make_mut(route).status = status,
        _ => return None,
    }
    Some(())
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
                found.extend(of_listeners(&status.listeners));
            }
        }
        Object::ListenerSet(set) => {
            if let Some(status) = &set.status {
                found.extend(status.conditions.iter().map(under(String::new())));
                found.extend(of_listeners(&status.listeners));
            }
        }
        Object::BackendTlsPolicy(policy) => {
            found.extend(of_ancestors(policy.status.iter().flat_map(|status| &status.ancestors)));
        }
        Object::Backend(backend) => {
            let status = backend.status.iter().flat_map(|status| &status.conditions);
            found.extend(status.map(under(String::new())));
        }
        Object::L4Policy(policy) => {
            found.extend(of_ancestors(policy.status.iter().flat_map(|status| &status.ancestors)));
        }
        Object::Box(object) => {
            let status = object.status.iter().flat_map(|status| &status.conditions);
            found.extend(status.map(under(String::new())));
        }
        Object::TcpRoute(route) => found.extend(parents(route.status.as_ref())),
        Object::UdpRoute(route) => found.extend(parents(route.status.as_ref())),
        Object::TlsRoute(route) => found.extend(parents(route.status.as_ref())),
        Object::HttpRoute(route) => found.extend(parents(route.status.as_ref())),
        Object::GrpcRoute(route) => found.extend(parents(route.status.as_ref())),
        Object::Service(service) => {
            let status =
                service.status.iter().flat_map(|status| status.conditions.iter().flatten());
            found.extend(status.map(under(String::new())));
        }
        _ => {}
    }
    found
}

fn of_ancestors<'a>(
    ancestors: impl Iterator<Item = &'a PolicyAncestorStatus>,
) -> impl Iterator<Item = (String, &'a Condition)> {
    ancestors.flat_map(|ancestor| {
        let ParentReference { kind, namespace, name, section_name, .. } = &ancestor.ancestor_ref;
        let kind = kind.as_deref().unwrap_or("Gateway");
        let section = section_name.as_ref().map(|s| format!(" listener {s}")).unwrap_or_default();
        let namespace = namespace.as_deref().unwrap_or_default();
        let part = format!("{kind} {namespace}/{name}{section}");
        ancestor.conditions.iter().map(move |condition| (part.clone(), condition))
    })
}

fn of_listeners(listeners: &[ListenerStatus]) -> impl Iterator<Item = (String, &Condition)> {
    listeners.iter().flat_map(|listener| {
        let part = format!("listener {}", listener.name);
        listener.conditions.iter().map(move |condition| (part.clone(), condition))
    })
}

fn parents(status: Option<&RouteStatus>) -> Vec<(String, &Condition)> {
    let mut found = Vec::new();
    for parent in status.iter().flat_map(|status| &status.parents) {
        let ParentReference { kind, namespace, name, section_name, port, .. } = &parent.parent_ref;
        let set = kind.as_deref().filter(|kind| *kind == "ListenerSet");
        let set = set.map(|kind| format!("{kind} ")).unwrap_or_default();
        let namespace = namespace.as_ref().map(|n| format!("{n}/")).unwrap_or_default();
        let section = section_name.as_ref().map(|s| format!(" listener {s}")).unwrap_or_default();
        let port = port.map(|port| format!(" port {port}")).unwrap_or_default();
        let part = format!("parent {set}{namespace}{name}{section}{port}");
        found.extend(parent.conditions.iter().map(|condition| (part.clone(), condition)));
    }
    found
}

/// What is wrong with an object, by its conditions that do not hold, each message once: `Programmed` repeats
/// what `Accepted` says. What only waits for the data plane is no fault of the object.
#[must_use]
pub fn faults(object: &Object) -> Vec<String> {
    if let Object::Box(_) = object {
        return Vec::new(); // that a box is away is no fault of its object
    }
    let mut found: Vec<String> = Vec::new();
    for (part, condition) in conditions(object) {
        let good = match condition.type_.as_str() {
            "Conflicted" => "False",
            // What they say is so, and it is what the author asked for.
            "OverlappingTLSConfig" | "InsecureFrontendValidationMode" => continue,
            _ => "True",
        };
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
