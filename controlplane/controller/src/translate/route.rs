//! TCPRoute and UDPRoute: where they attach, and what they send to.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_feed::model::{Group, Name, Protocol};
use penstock_gateway_types::route::RouteSpec;
use penstock_gateway_types::{GROUP, ParentReference, Time};

use super::backend::{Backends, Endpoints};
use super::gateway::{self, Age, Plan as GatewayPlan};
use super::listener::Plan as ListenerPlan;
use super::verdict::{Refusal, Verdict};
use super::weight::{self, Readiness, Share};
use super::{Note, ParentVerdict};
use crate::object::{Kind, NamespacedName, ObjectKey, Objects};

/// A route of either kind.
pub(super) struct Route<'a> {
    pub(super) key: ObjectKey,
    pub(super) name: &'a NamespacedName,
    created: Option<&'a Time>,
    spec: &'a RouteSpec,
    protocol: Protocol,
}

impl Route<'_> {
    pub(super) fn age(&self) -> (Age<'_>, Kind) {
        (gateway::age(self.created, self.name), self.key.kind)
    }

    /// The name of the group that its only rule becomes. The kind is part of it, since a TCPRoute and a
    /// UDPRoute may bear one name.
    pub(super) fn group_name(&self) -> Option<Name> {
        let kind = self.key.kind.as_str().to_ascii_lowercase();
        Name::new(&format!("{kind}/{}/0", self.name)).ok()
    }
}

/// All routes, oldest first: the order in which they attach.
pub(super) fn routes(objects: &Objects) -> Vec<Route<'_>> {
    let tcp = objects.tcp_routes.iter().map(|(name, route)| Route {
        key: ObjectKey::of(Kind::TcpRoute, name),
        name,
        created: route.metadata.creation_timestamp.as_ref(),
        spec: &route.spec,
        protocol: Protocol::Tcp,
    });
    let udp = objects.udp_routes.iter().map(|(name, route)| Route {
        key: ObjectKey::of(Kind::UdpRoute, name),
        name,
        created: route.metadata.creation_timestamp.as_ref(),
        spec: &route.spec,
        protocol: Protocol::Udp,
    });
    let mut routes: Vec<_> = tcp.chain(udp).collect();
    routes.sort_by(|one, other| one.age().cmp(&other.age()));
    routes
}

/// What a route's rule comes to.
pub(super) struct Resolved {
    /// Who serves its VIPs: by IPv4, and by IPv6.
    pub(super) groups: [Group; 2],
    references: Verdict,
}

/// Follows the backendRefs of a route.
pub(super) fn resolve(route: &Route<'_>, backends: &Backends<'_>) -> Resolved {
    let mut shares = Vec::new();
    let mut refusals: Vec<Refusal> = Vec::new();
    let mut empty = Vec::new();
    let rules = route.spec.rules.first();
    for (index, backend) in rules.iter().flat_map(|rule| &rule.backend_refs).enumerate() {
        let weight = u32::try_from(backend.weight.unwrap_or(1)).unwrap_or_default();
        let endpoints = match backends.resolve(&route.key, route.protocol, backend) {
            Ok(endpoints) => {
                if weight > 0 && !has_ready(&endpoints) {
                    empty.push(backend.name.as_str());
                }
                endpoints
            }
            Err(refusal) => {
                let message = format!("backendRefs[{index}]: {}", refusal.message);
                refusals.push(Refusal { message, ..refusal });
                Endpoints::new()
            }
        };
        shares.push(Share { weight, endpoints });
    }
    let groups = [false, true].map(|ipv6| weight::group(&of_family(&shares, ipv6)));
    let references = references(&shares, &refusals, &empty);
    Resolved { groups, references }
}

/// The shares with their endpoints of one family only: no packet of the other is translated to it.
fn of_family(shares: &[Share], ipv6: bool) -> Vec<Share> {
    let endpoints = |share: &Share| {
        let endpoints = share.endpoints.iter().filter(|(address, _)| address.is_ipv6() == ipv6);
        endpoints.map(|(address, readiness)| (*address, *readiness)).collect()
    };
    shares.iter().map(|share| Share { weight: share.weight, endpoints: endpoints(share) }).collect()
}

fn has_ready(endpoints: &Endpoints) -> bool {
    endpoints.values().any(|readiness| *readiness == Readiness::Ready)
}

/// `ResolvedRefs`, with a word on every share that is refused.
fn references(shares: &[Share], refusals: &[Refusal], empty: &[&str]) -> Verdict {
    if let Some(first) = refusals.first() {
        let all: Vec<_> = refusals.iter().map(|refusal| refusal.message.as_str()).collect();
        let message = format!("{}. New flows of that share are refused", all.join("; "));
        return Verdict::fails("ResolvedRefs", Refusal { reason: first.reason, message });
    }
    let message = match shares {
        shares if shares.iter().all(|share| share.weight == 0) => {
            "every weight is zero: every new flow is refused".to_owned()
        }
        _ if !empty.is_empty() => format!(
            "Service {} has no ready endpoints: new flows of that share are refused",
            empty.join(", ")
        ),
        _ => "all references are resolved".to_owned(),
    };
    Verdict::holds("ResolvedRefs", "ResolvedRefs", message)
}

/// Attaches a route to the listeners of its parents, and answers for each parent of ours.
pub(super) fn attach(
    route: &Route<'_>,
    resolved: &Resolved,
    gateways: &mut BTreeMap<NamespacedName, GatewayPlan<'_>>,
    objects: &Objects,
    notes: &mut Vec<Note>,
) -> Vec<ParentVerdict> {
    let mut answers: Vec<ParentVerdict> = Vec::new();
    for parent in &route.spec.parent_refs {
        let Some(name) = gateway_of(route, parent) else { continue };
        let Some(gateway) = gateways.get_mut(&name) else {
            if !objects.gateways.contains_key(&name) {
                let message = format!("its parent Gateway {name} does not exist, or is refused");
                notes.push(Note { object: route.key.clone(), message });
            }
            continue;
        };
        if answers.iter().any(|answer| answer.parent == *parent) {
            continue; // the same reference twice has one answer
        }
        let accepted = match attach_to(route, parent, gateway, objects) {
            Ok(message) => Verdict::holds("Accepted", "Accepted", message),
            Err(refusal) => Verdict::fails("Accepted", refusal),
        };
        let conditions = vec![accepted, resolved.references.clone()];
        answers.push(ParentVerdict { parent: parent.clone(), conditions });
    }
    answers
}

/// The Gateway that a parentRef names; `None` if it names something else.
fn gateway_of(route: &Route<'_>, parent: &ParentReference) -> Option<NamespacedName> {
    let group = parent.group.as_deref().unwrap_or(GROUP);
    let kind = parent.kind.as_deref().unwrap_or("Gateway");
    let namespace = parent.namespace.as_deref().unwrap_or(&route.name.namespace);
    (group == GROUP && kind == "Gateway").then(|| NamespacedName::new(namespace, &parent.name))
}

/// Attaches to every listener that the reference means and that allows it.
fn attach_to(
    route: &Route<'_>,
    parent: &ParentReference,
    gateway: &mut GatewayPlan<'_>,
    objects: &Objects,
) -> Result<String, Refusal> {
    let section_name = parent.section_name.as_deref();
    let meant: Vec<&mut ListenerPlan<'_>> = gateway
        .listeners
        .iter_mut()
        .filter(|listener| listener.is_meant_by(section_name, parent.port))
        .collect();
    if meant.is_empty() {
        return Err(no_matching_parent(gateway, parent));
    }
    let (mut behind, mut refused, mut attached) = (Vec::new(), Vec::new(), false);
    for listener in meant {
        if let Some(fault) = listener.refuses(route.key.kind, &route.name.namespace, objects) {
            refused.push(fault);
            continue;
        }
        attached = true;
        if let Some(older) = listener.attach(route.name) {
            let (older, kind) = (older.clone(), route.key.kind);
            behind.push(format!("{} is served by the older {kind} {older}", listener.spec.name));
        }
    }
    match (attached, behind.as_slice()) {
        (false, _) => Err(Refusal::new("NotAllowedByListeners", refused.join("; "))),
        (true, []) => Ok("the route is attached".to_owned()),
        (true, behind) => Ok(format!("the route is attached; listener {}", behind.join(", "))),
    }
}

fn no_matching_parent(gateway: &GatewayPlan<'_>, parent: &ParentReference) -> Refusal {
    let section =
        parent.section_name.as_ref().map(|name| format!(" named {name}")).unwrap_or_default();
    let port = parent.port.map(|port| format!(" on port {port}")).unwrap_or_default();
    let one =
        |listener: &ListenerPlan<'_>| format!("{} ({})", listener.spec.name, listener.spec.port);
    let listeners = gateway.listeners.iter().map(one).collect::<Vec<_>>().join(", ");
    let message =
        format!("Gateway {} has no listener{section}{port}: it has {listeners}", gateway.name);
    Refusal::new("NoMatchingParent", message)
}

/// The routes by kind and name, with the name of their groups, and these: by IPv4, and by IPv6.
pub(super) type Groups = BTreeMap<(Kind, NamespacedName), (Name, [Arc<Group>; 2])>;
