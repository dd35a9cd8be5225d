//! Routes of every kind: where they attach, and what they send to.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_feed::model::{Group, Name, Protocol};
use penstock_gateway_types::route::RouteRule;
use penstock_gateway_types::route::http::{HTTPBackendRef, HTTPRouteFilter};
use penstock_gateway_types::{BackendRef, GROUP, ParentReference, Time};

use super::backend::{self, Backends, Endpoints};
use super::checked::{self, CheckVerdict};
use super::gateway::{Age, Plan as GatewayPlan};
use super::hostname;
use super::listener::{Owner, Plan as ListenerPlan};
use super::listener_set::Plan as SetPlan;
use super::look::View;
use super::seat::{Seat, Seats, Turn};
use super::verdict::{Refusal, Verdict};
use super::weight::{self, Readiness, Share};
use super::{Note, ParentVerdict};
use crate::health::Check;
use crate::object::{Kind, NamespacedName, ObjectKey, Objects};

/// A route of any kind.
pub(crate) struct Route<'a> {
    pub(crate) key: ObjectKey,
    pub(super) name: &'a NamespacedName,
    created: Option<&'a Time>,
    parents: &'a [ParentReference],
    hostnames: &'a [String],
    /// What it sends to, with the field that says so.
    pub(crate) backends: Vec<(String, BackendRef)>,
    pub(super) protocol: Protocol,
}

impl Route<'_> {
    /// When its turn comes to attach.
    pub(super) fn turn(&self) -> Turn {
        Turn { age: Age::of(self.created, self.name), kind: self.key.kind }
    }

    /// The Gateways and ListenerSets that its parentRefs name.
    pub(crate) fn parents(&self) -> impl Iterator<Item = (Kind, NamespacedName)> {
        self.parents.iter().filter_map(|parent| parent_of(self, parent))
    }

    /// Whether the data plane forwards it by itself.
    pub(super) fn is_l4(&self) -> bool {
        is_l4(self.key.kind)
    }

    /// The object that a backendRef of it names, if it is of a kind that we send to.
    pub(super) fn key_of(&self, backend: &BackendRef) -> Option<ObjectKey> {
        let namespace = backend.namespace.as_deref().unwrap_or(&self.name.namespace);
        let kind = backend::kind(backend)?;
        Some(ObjectKey::of(kind, &NamespacedName::new(namespace, &backend.name)))
    }

    /// The name of the group that its only rule becomes; none if its packets are not the data plane's. The kind
    /// is part of it, since a TCPRoute and a UDPRoute may bear one name.
    pub(super) fn group_name(&self) -> Option<Name> {
        let kind = self.key.kind.as_str().to_ascii_lowercase();
        self.is_l4().then(|| Name::new(&format!("{kind}/{}/0", self.name)).ok())?
    }
}

/// Whether the data plane forwards routes of a kind by itself.
fn is_l4(kind: Kind) -> bool {
    matches!(kind, Kind::TcpRoute | Kind::UdpRoute)
}

/// The route of that kind and name, as all kinds are read here.
pub(crate) fn of<'a>(objects: &'a Objects, key: &ObjectKey) -> Option<Route<'a>> {
    let name = key.namespaced();
    Some(match key.kind {
        Kind::TcpRoute => {
            let (name, route) = objects.tcp_routes.get_key_value(&name)?;
            let (created, spec) = (&route.metadata.creation_timestamp, &route.spec);
            let backends = l4_backends(&spec.rules);
            Route::of(key.kind, name, created, &spec.parent_refs, &[], backends)
        }
        Kind::UdpRoute => {
            let (name, route) = objects.udp_routes.get_key_value(&name)?;
            let (created, spec) = (&route.metadata.creation_timestamp, &route.spec);
            let backends = l4_backends(&spec.rules);
            Route::of(key.kind, name, created, &spec.parent_refs, &[], backends)
        }
        Kind::TlsRoute => {
            let (name, route) = objects.tls_routes.get_key_value(&name)?;
            let (created, spec) = (&route.metadata.creation_timestamp, &route.spec);
            let backends = l4_backends(&spec.rules);
            Route::of(key.kind, name, created, &spec.parent_refs, &spec.hostnames, backends)
        }
        Kind::HttpRoute => {
            let (name, route) = objects.http_routes.get_key_value(&name)?;
            let (created, spec) = (&route.metadata.creation_timestamp, &route.spec);
            let rules = spec.rules.iter().map(|rule| (&*rule.filters, &*rule.backend_refs));
            let backends = http_backends(rules);
            Route::of(key.kind, name, created, &spec.parent_refs, &spec.hostnames, backends)
        }
        Kind::GrpcRoute => {
            let (name, route) = objects.grpc_routes.get_key_value(&name)?;
            let (created, spec) = (&route.metadata.creation_timestamp, &route.spec);
            let rules = spec.rules.iter().map(|rule| (&*rule.filters, &*rule.backend_refs));
            let backends = http_backends(rules);
            Route::of(key.kind, name, created, &spec.parent_refs, &spec.hostnames, backends)
        }
        _ => return None,
    })
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
    pub(super) groups: [Arc<Group>; 2],
    pub(super) references: Verdict,
    /// What came of its health checks.
    pub(super) checks: Vec<CheckVerdict>,
}

/// Follows the backendRefs of a route. `usual` is the health check of those that no policy is about.
pub(super) fn resolve(route: &Route<'_>, usual: Option<&Arc<Check>>, view: View<'_>) -> Resolved {
    let backends = Backends::of(view);
    let (mut shares, mut checks) = (Vec::new(), Vec::new());
    let mut refusals: Vec<Refusal> = Vec::new();
    let mut empty = Vec::new();
    for (path, backend) in &route.backends {
        let weight = u32::try_from(backend.weight.unwrap_or(1)).unwrap_or_default();
        let endpoints = match backends.resolve(&route.key, route.protocol, backend) {
            Ok(mut endpoints) => {
                if weight > 0 && !has_ready(&endpoints) {
                    let kind = backend.kind.as_deref().unwrap_or("Service");
                    empty.push(format!("{kind} {}", backend.name));
                }
                checks.extend(checked::check(route, backend, usual, &mut endpoints, view));
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
        true => [false, true].map(|ipv6| Arc::new(weight::group(&of_family(&shares, ipv6)))),
        false => Default::default(),
    };
    let references = references(route, &shares, &refusals, &empty);
    Resolved { groups, references, checks }
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
    empty: &[String],
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
            "{} has no ready endpoints: new flows of that share are refused",
            empty.join(", ")
        ),
        _ => "all references are resolved".to_owned(),
    };
    Verdict::holds("ResolvedRefs", "ResolvedRefs", message)
}

/// The parents that are ours.
#[derive(Clone, Copy)]
pub(super) struct Parents<'p> {
    pub(super) gateways: &'p BTreeMap<NamespacedName, GatewayPlan>,
    pub(super) sets: &'p BTreeMap<NamespacedName, SetPlan>,
}

impl<'p> Parents<'p> {
    /// The parent of that kind and name, if it is ours, or that it does not exist at all.
    fn get(
        &self,
        kind: Kind,
        name: &NamespacedName,
        view: View<'_>,
    ) -> Result<Parent<'p>, Missing> {
        let exists = view.exists(&ObjectKey::of(kind, name));
        let missing = if exists { Missing::IsNotOurs } else { Missing::DoesNotExist };
        let owner = Owner { kind, name: name.clone() };
        if kind == Kind::Gateway {
            let gateway = self.gateways.get(name).ok_or(missing)?;
            return Ok(Parent { owner, listeners: Ok(&gateway.listeners), gateway: &gateway.name });
        }
        let set = self.sets.get(name).ok_or(missing)?;
        let listeners = set.allowed.as_ref().map(|()| set.listeners.as_slice());
        Ok(Parent { owner, listeners, gateway: &set.gateway })
    }

    /// The listener of a seat.
    fn listener(&self, seat: &Seat) -> Option<&'p ListenerPlan> {
        let name = seat.owner.namespaced();
        let listeners = match seat.owner.kind {
            Kind::Gateway => &self.gateways.get(&name)?.listeners,
            _ => &self.sets.get(&name)?.listeners,
        };
        listeners.get(seat.listener)
    }
}

#[derive(Clone, Copy)]
enum Missing {
    DoesNotExist,
    IsNotOurs,
}

/// What a parentRef names.
struct Parent<'p> {
    owner: Owner,
    /// Its listeners, or why they do not exist.
    listeners: Result<&'p [ListenerPlan], &'p Refusal>,
    /// The Gateway that it is, or that it joins.
    gateway: &'p NamespacedName,
}

/// What comes of one parentRef that names a parent of ours.
#[derive(Debug)]
pub(super) struct Meeting {
    parent: ParentReference,
    gateway: NamespacedName,
    /// The listeners to which the route is attached, or why to none.
    outcome: Result<Vec<Seat>, Refusal>,
}

impl Meeting {
    /// The listeners to which the route is attached.
    pub(super) fn seats(&self) -> &[Seat] {
        self.outcome.as_deref().unwrap_or_default()
    }

    /// The Gateway that its parent is, or joins.
    pub(super) fn of(&self) -> &NamespacedName {
        &self.gateway
    }

    /// The Gateway by which the route is reached.
    pub(super) fn gateway(&self) -> Option<&NamespacedName> {
        self.outcome.is_ok().then_some(&self.gateway)
    }
}

/// Finds the listeners that a route attaches to. A meeting for each parent of ours.
pub(super) fn meet(
    route: &Route<'_>,
    parents: Parents<'_>,
    view: View<'_>,
    notes: &mut Vec<Note>,
) -> Vec<Meeting> {
    let mut meetings: Vec<Meeting> = Vec::new();
    for reference in route.parents {
        let Some((kind, name)) = parent_of(route, reference) else { continue };
        let parent = match parents.get(kind, &name, view) {
            Ok(parent) => parent,
            Err(Missing::IsNotOurs) => continue,
            Err(Missing::DoesNotExist) => {
                let message = format!("its parent {kind} {name} does not exist, or is refused");
                notes.push(Note { object: route.key.clone(), message });
                continue;
            }
        };
        if meetings.iter().any(|meeting| meeting.parent == *reference) {
            continue; // the same reference twice has one answer
        }
        let (parent_ref, gateway) = (reference.clone(), parent.gateway.clone());
        let outcome = meet_at(route, reference, &parent, view);
        meetings.push(Meeting { parent: parent_ref, gateway, outcome });
    }
    meetings
}

/// Answers a route for each of its parents, once it is known who else is there.
pub(super) fn answer(
    kind: Kind,
    turn: &Turn,
    meetings: &[Meeting],
    references: &Verdict,
    parents: Parents<'_>,
    seats: &Seats,
) -> Vec<ParentVerdict> {
    let behind = |seat: &Seat| {
        let oldest = seats.oldest(seat).filter(|oldest| *oldest != turn && is_l4(kind))?;
        let listener = &parents.listener(seat)?.spec.name;
        Some(format!("{listener} is served by the older {kind} {}", oldest.age.name))
    };
    let answer = |meeting: &Meeting| {
        let accepted = match &meeting.outcome {
            Ok(seats) => {
                // At L4 there is one at most.
                let behind: Vec<_> = seats.iter().filter_map(behind).collect();
                let message = match behind.as_slice() {
                    [] => "the route is attached".to_owned(),
                    behind => format!("the route is attached; listener {}", behind.join(", ")),
                };
                accepted(kind, message)
            }
            Err(refusal) => Verdict::fails("Accepted", refusal.clone()),
        };
        let conditions = vec![accepted, references.clone()];
        ParentVerdict { parent: meeting.parent.clone(), conditions }
    };
    meetings.iter().map(answer).collect()
}

/// `Accepted` of a route that is attached. What is attached and cannot be forwarded yet is not accepted: nobody
/// shall believe that it serves. It counts as attached all the same, since that is by listener and parentRef
/// alone (and the conformance suite counts HTTPRoutes for an implementation of TCPRoute, in GatewayModifyListeners).
fn accepted(kind: Kind, message: String) -> Verdict {
    if is_l4(kind) {
        return Verdict::holds("Accepted", "Accepted", message);
    }
    let meanwhile = match kind {
        Kind::TlsRoute => "connections are refused",
        _ => "requests are answered 404",
    };
    let message =
        format!("{message}, but rules of kind {kind} are not served by this version: {meanwhile}");
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

/// Every listener that the reference means and that allows the route.
fn meet_at(
    route: &Route<'_>,
    reference: &ParentReference,
    parent: &Parent<'_>,
    view: View<'_>,
) -> Result<Vec<Seat>, Refusal> {
    let listeners = parent.listeners.map_err(|refusal| {
        let message = format!("{} is not accepted: {}", parent.owner, refusal.message);
        Refusal::new("NoMatchingParent", message)
    })?;
    let section_name = reference.section_name.as_deref();
    let is_meant = |l: &ListenerPlan| l.is_meant_by(section_name, reference.port);
    if !listeners.iter().any(is_meant) {
        return Err(no_matching_parent(&parent.owner, listeners, reference));
    }
    let owner = ObjectKey::of(parent.owner.kind, &parent.owner.name);
    let (mut seats, mut refused, mut unnamed) = (Vec::new(), Vec::new(), Vec::new());
    for (index, listener) in listeners.iter().enumerate().filter(|(_, l)| is_meant(l)) {
        if let Some(fault) = listener.refuses(route.key.kind, &route.name.namespace, view) {
            refused.push(fault);
            continue;
        }
        if !hostname::serves(listener.spec.hostname.as_deref(), route.hostnames) {
            let served = listener.spec.hostname.as_deref().unwrap_or_default();
            unnamed.push(format!("listener {} serves {served}", listener.spec.name));
            continue;
        }
        seats.push(Seat { owner: owner.clone(), listener: index });
    }
    match (seats.is_empty(), unnamed.is_empty()) {
        (false, _) => Ok(seats),
        (true, true) => Err(Refusal::new("NotAllowedByListeners", refused.join("; "))),
        (true, false) => {
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
    owner: &Owner,
    listeners: &[ListenerPlan],
    parent: &ParentReference,
) -> Refusal {
    let section =
        parent.section_name.as_ref().map(|name| format!(" named {name}")).unwrap_or_default();
    let port = parent.port.map(|port| format!(" on port {port}")).unwrap_or_default();
    let one = |listener: &ListenerPlan| format!("{} ({})", listener.spec.name, listener.spec.port);
    let listeners = listeners.iter().map(one).collect::<Vec<_>>().join(", ");
    let message = format!("{owner} has no listener{section}{port}: it has {listeners}");
    Refusal::new("NoMatchingParent", message)
}
