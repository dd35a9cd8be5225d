//! Routes of every kind: where they attach, and what they send to.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_feed::model::{Group, Name, Protocol};
use penstock_gateway_types::route::RouteRule;
use penstock_gateway_types::route::http::{HTTPBackendRef, HTTPRouteFilter};
use penstock_gateway_types::{BackendRef, GROUP, ParentReference, Time};

use super::backend::{Backends, Endpoints};
use super::gateway::{self, Age, Plan as GatewayPlan};
use super::hostname;
use super::listener::{Owner, Plan as ListenerPlan};
use super::listener_set::Plan as SetPlan;
use super::verdict::{Refusal, Verdict};
use super::weight::{self, Readiness, Share};
use super::{Note, ParentVerdict};
use crate::object::{Kind, NamespacedName, ObjectKey, Objects};

/// A route of any kind.
pub(super) struct Route<'a> {
    pub(super) key: ObjectKey,
    pub(super) name: &'a NamespacedName,
    created: Option<&'a Time>,
    parents: &'a [ParentReference],
    hostnames: &'a [String],
    /// What it sends to, with the field that says so.
    pub(super) backends: Vec<(String, BackendRef)>,
    protocol: Protocol,
}

impl Route<'_> {
    pub(super) fn age(&self) -> (Age<'_>, Kind) {
        (gateway::age(self.created, self.name), self.key.kind)
    }

    /// Whether the data plane forwards it by itself.
    fn is_l4(&self) -> bool {
        matches!(self.key.kind, Kind::TcpRoute | Kind::UdpRoute)
    }

    /// The name of the group that its only rule becomes; none if its packets are not the data plane's. The kind
    /// is part of it, since a TCPRoute and a UDPRoute may bear one name.
    pub(super) fn group_name(&self) -> Option<Name> {
        let kind = self.key.kind.as_str().to_ascii_lowercase();
        self.is_l4().then(|| Name::new(&format!("{kind}/{}/0", self.name)).ok())?
    }
}

/// All routes, oldest first: the order in which they attach.
pub(super) fn routes(objects: &Objects) -> Vec<Route<'_>> {
    let mut routes = Vec::new();
    for (name, route) in &objects.tcp_routes {
        let (created, spec) = (&route.metadata.creation_timestamp, &route.spec);
        let backends = l4_backends(&spec.rules);
        routes.push(Route::of(Kind::TcpRoute, name, created, &spec.parent_refs, &[], backends));
    }
    for (name, route) in &objects.udp_routes {
        let (created, spec) = (&route.metadata.creation_timestamp, &route.spec);
        let backends = l4_backends(&spec.rules);
        routes.push(Route::of(Kind::UdpRoute, name, created, &spec.parent_refs, &[], backends));
    }
    for (name, route) in &objects.tls_routes {
        let (created, spec) = (&route.metadata.creation_timestamp, &route.spec);
        let (parents, hosts, backends) =
            (&spec.parent_refs, &spec.hostnames, l4_backends(&spec.rules));
        routes.push(Route::of(Kind::TlsRoute, name, created, parents, hosts, backends));
    }
    for (name, route) in &objects.http_routes {
        let (created, spec) = (&route.metadata.creation_timestamp, &route.spec);
        let rules = spec.rules.iter().map(|rule| (&*rule.filters, &*rule.backend_refs));
        let (parents, hosts, backends) = (&spec.parent_refs, &spec.hostnames, http_backends(rules));
        routes.push(Route::of(Kind::HttpRoute, name, created, parents, hosts, backends));
    }
    for (name, route) in &objects.grpc_routes {
        let (created, spec) = (&route.metadata.creation_timestamp, &route.spec);
        let rules = spec.rules.iter().map(|rule| (&*rule.filters, &*rule.backend_refs));
        let (parents, hosts, backends) = (&spec.parent_refs, &spec.hostnames, http_backends(rules));
        routes.push(Route::of(Kind::GrpcRoute, name, created, parents, hosts, backends));
    }
    routes.sort_by(|one, other| one.age().cmp(&other.age()));
    routes
}

impl<'a> Route<'a> {
    fn of(
        kind: Kind,
        name: &'a NamespacedName,
        created: &'a Option<Time>,
        parents: &'a [ParentReference],
        hostnames: &'a [String],
        backends: Vec<(String, BackendRef)>,
    ) -> Self {
        let protocol = if kind == Kind::UdpRoute { Protocol::Udp } else { Protocol::Tcp };
        let key = ObjectKey::of(kind, name);
        Self { key, name, created: created.as_ref(), parents, hostnames, backends, protocol }
    }
}

/// The backends of the only rule.
fn l4_backends(rules: &[RouteRule]) -> Vec<(String, BackendRef)> {
    let backends = rules.first().into_iter().flat_map(|rule| &rule.backend_refs);
    let named =
        |(index, backend): (usize, &BackendRef)| (format!("backendRefs[{index}]"), backend.clone());
    backends.enumerate().map(named).collect()
}

/// The backends of every rule, mirrors too.
fn http_backends<'a>(
    rules: impl Iterator<Item = (&'a [HTTPRouteFilter], &'a [HTTPBackendRef])>,
) -> Vec<(String, BackendRef)> {
    let mut all = Vec::new();
    for (rule, (filters, backends)) in rules.enumerate() {
        let path = format!("rules[{rule}]");
        mirrors(&path, filters, &mut all);
        for (index, backend) in backends.iter().enumerate() {
            let path = format!("{path}.backendRefs[{index}]");
            mirrors(&path, &backend.filters, &mut all);
            all.push((path, backend.reference()));
        }
    }
    all
}

fn mirrors(path: &str, filters: &[HTTPRouteFilter], all: &mut Vec<(String, BackendRef)>) {
    for (index, filter) in filters.iter().enumerate() {
        if let Some(mirror) = &filter.request_mirror {
            let path = format!("{path}.filters[{index}].requestMirror");
            all.push((path, mirror.backend_ref.clone().into()));
        }
    }
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
    for (path, backend) in &route.backends {
        let weight = u32::try_from(backend.weight.unwrap_or(1)).unwrap_or_default();
        let endpoints = match backends.resolve(&route.key, route.protocol, backend) {
            Ok(endpoints) => {
                if weight > 0 && !has_ready(&endpoints) {
                    empty.push(backend.name.as_str());
                }
                endpoints
            }
            Err(refusal) => {
                let message = format!("{path}: {}", refusal.message);
                refusals.push(Refusal { message, ..refusal });
                Endpoints::new()
            }
        };
        shares.push(Share { weight, endpoints });
    }
    let groups = match route.is_l4() {
        true => [false, true].map(|ipv6| weight::group(&of_family(&shares, ipv6))),
        false => Default::default(),
    };
    let references = references(route, &shares, &refusals, &empty);
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
fn references(
    route: &Route<'_>,
    shares: &[Share],
    refusals: &[Refusal],
    empty: &[&str],
) -> Verdict {
    if let Some(first) = refusals.first() {
        let all: Vec<_> = refusals.iter().map(|refusal| refusal.message.as_str()).collect();
        let consequence = if route.is_l4() { ". New flows of that share are refused" } else { "" };
        let message = all.join("; ") + consequence;
        return Verdict::fails("ResolvedRefs", Refusal { reason: first.reason, message });
    }
    let message = match shares {
        _ if !route.is_l4() => "all references are resolved".to_owned(),
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

/// The parents that are ours.
pub(super) struct Parents<'p, 'a> {
    pub(super) gateways: &'p mut BTreeMap<NamespacedName, GatewayPlan<'a>>,
    pub(super) sets: &'p mut [SetPlan<'a>],
    /// Where each is in `sets`.
    pub(super) positions: &'p BTreeMap<&'a NamespacedName, usize>,
}

impl<'a> Parents<'_, 'a> {
    /// The parent of that kind and name, if it is ours, or that it does not exist at all.
    fn get(
        &mut self,
        kind: Kind,
        name: &NamespacedName,
        objects: &Objects,
    ) -> Result<Parent<'_, 'a>, Missing> {
        let exists = objects.get(&ObjectKey::of(kind, name)).is_some();
        let missing = if exists { Missing::IsNotOurs } else { Missing::DoesNotExist };
        if kind == Kind::Gateway {
            let gateway = self.gateways.get_mut(name).ok_or(missing)?;
            let owner = Owner { kind, name: gateway.name };
            return Ok(Parent {
                owner,
                listeners: Ok(&mut gateway.listeners),
                gateway: gateway.name.clone(),
            });
        }
        let position = *self.positions.get(name).ok_or(missing)?;
        let set = self.sets.get_mut(position).ok_or(missing)?;
        let owner = Owner { kind, name: set.name };
        let listeners = match &set.allowed {
            Ok(()) => Ok(&mut set.listeners),
            Err(refusal) => Err(refusal),
        };
        Ok(Parent { owner, listeners, gateway: set.gateway.clone() })
    }
}

#[derive(Clone, Copy)]
enum Missing {
    DoesNotExist,
    IsNotOurs,
}

/// What a parentRef names.
struct Parent<'p, 'a> {
    owner: Owner<'a>,
    /// Its listeners, or why they do not exist.
    listeners: Result<&'p mut Vec<ListenerPlan<'a>>, &'p Refusal>,
    /// The Gateway that it is, or that it joins.
    gateway: NamespacedName,
}

/// Attaches a route to the listeners of its parents. Answers for each parent of ours, and names the Gateways to
/// which it is attached.
pub(super) fn attach(
    route: &Route<'_>,
    resolved: &Resolved,
    parents: &mut Parents<'_, '_>,
    objects: &Objects,
    notes: &mut Vec<Note>,
) -> (Vec<ParentVerdict>, Vec<NamespacedName>) {
    let (mut answers, mut attached): (Vec<ParentVerdict>, _) = (Vec::new(), Vec::new());
    for reference in route.parents {
        let Some((kind, name)) = parent_of(route, reference) else { continue };
        let parent = match parents.get(kind, &name, objects) {
            Ok(parent) => parent,
            Err(Missing::IsNotOurs) => continue,
            Err(Missing::DoesNotExist) => {
                let message = format!("its parent {kind} {name} does not exist, or is refused");
                notes.push(Note { object: route.key.clone(), message });
                continue;
            }
        };
        if answers.iter().any(|answer| answer.parent == *reference) {
            continue; // the same reference twice has one answer
        }
        let gateway = parent.gateway.clone();
        let accepted = match attach_to(route, reference, parent, objects) {
            Ok(message) => {
                attached.push(gateway);
                accepted(route, message)
            }
            Err(refusal) => Verdict::fails("Accepted", refusal),
        };
        let conditions = vec![accepted, resolved.references.clone()];
        answers.push(ParentVerdict { parent: reference.clone(), conditions });
    }
    (answers, attached)
}

/// `Accepted` of a route that is attached. What is attached and cannot be forwarded yet is not accepted: nobody
/// shall believe that it serves. It counts as attached all the same, since that is by listener and parentRef
/// alone (and the conformance suite counts HTTPRoutes for an implementation of TCPRoute, in GatewayModifyListeners).
fn accepted(route: &Route<'_>, message: String) -> Verdict {
    if route.is_l4() {
        return Verdict::holds("Accepted", "Accepted", message);
    }
    let meanwhile = match route.key.kind {
        Kind::TlsRoute => "connections are refused",
        _ => "requests are answered 404",
    };
    let message = format!(
        "{message}, but rules of kind {} are not served by this version: {meanwhile}",
        route.key.kind
    );
    Verdict::fails("Accepted", Refusal::new("UnsupportedValue", message))
}

/// The Gateway or ListenerSet that a parentRef names; `None` if it names something else.
fn parent_of(route: &Route<'_>, parent: &ParentReference) -> Option<(Kind, NamespacedName)> {
    let namespace = parent.namespace.as_deref().unwrap_or(&route.name.namespace);
    let kind = match parent.kind.as_deref().unwrap_or("Gateway") {
        "Gateway" => Kind::Gateway,
        "ListenerSet" => Kind::ListenerSet,
        _ => return None,
    };
    (parent.group.as_deref().unwrap_or(GROUP) == GROUP)
        .then(|| (kind, NamespacedName::new(namespace, &parent.name)))
}

/// Attaches to every listener that the reference means and that allows it.
fn attach_to(
    route: &Route<'_>,
    reference: &ParentReference,
    parent: Parent<'_, '_>,
    objects: &Objects,
) -> Result<String, Refusal> {
    let listeners = parent.listeners.map_err(|refusal| {
        let message = format!("{} is not accepted: {}", parent.owner, refusal.message);
        Refusal::new("NoMatchingParent", message)
    })?;
    let section_name = reference.section_name.as_deref();
    let is_meant = |l: &ListenerPlan<'_>| l.is_meant_by(section_name, reference.port);
    if !listeners.iter().any(is_meant) {
        return Err(no_matching_parent(parent.owner, listeners, reference));
    }
    let kind = route.key.kind;
    let (mut behind, mut refused, mut unnamed) = (Vec::new(), Vec::new(), Vec::new());
    let mut attached = false;
    for listener in listeners.iter_mut().filter(|listener| is_meant(listener)) {
        if let Some(fault) = listener.refuses(kind, &route.name.namespace, objects) {
            refused.push(fault);
            continue;
        }
        if !hostname::serves(listener.spec.hostname.as_deref(), route.hostnames) {
            let served = listener.spec.hostname.as_deref().unwrap_or_default();
            unnamed.push(format!("listener {} serves {served}", listener.spec.name));
            continue;
        }
        attached = true;
        if let Some(older) = listener.attach(kind, route.name) {
            let older = older.clone();
            behind.push(format!("{} is served by the older {kind} {older}", listener.spec.name));
        }
    }
    match (attached, behind.as_slice()) {
        (true, []) => Ok("the route is attached".to_owned()),
        (true, behind) => Ok(format!("the route is attached; listener {}", behind.join(", "))),
        (false, _) if unnamed.is_empty() => {
            Err(Refusal::new("NotAllowedByListeners", refused.join("; ")))
        }
        (false, _) => {
            let message = format!(
                "none of the host names {} is served: {}",
                route.hostnames.join(", "),
                unnamed.join("; ")
            );
            Err(Refusal::new("NoMatchingListenerHostname", message))
        }
    }
}

fn no_matching_parent(
    owner: Owner<'_>,
    listeners: &[ListenerPlan<'_>],
    parent: &ParentReference,
) -> Refusal {
    let section =
        parent.section_name.as_ref().map(|name| format!(" named {name}")).unwrap_or_default();
    let port = parent.port.map(|port| format!(" on port {port}")).unwrap_or_default();
    let one =
        |listener: &ListenerPlan<'_>| format!("{} ({})", listener.spec.name, listener.spec.port);
    let listeners = listeners.iter().map(one).collect::<Vec<_>>().join(", ");
    let message = format!("{owner} has no listener{section}{port}: it has {listeners}");
    Refusal::new("NoMatchingParent", message)
}

/// The routes by kind and name, with the name of their groups, and these: by IPv4, and by IPv6.
pub(super) type Groups = BTreeMap<(Kind, NamespacedName), (Name, [Arc<Group>; 2])>;
