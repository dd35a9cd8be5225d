//! A backendRef to the endpoints behind it: Service, its port, EndpointSlices; or a Backend (`own_backend`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use penstock_feed::model::Protocol;
use penstock_gateway_types::k8s_openapi::api::core::v1::ServicePort;
use penstock_gateway_types::k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};
use penstock_gateway_types::{BackendRef, EndpointSlice, OWN_GROUP, Service};

use super::grant;
use super::look::View;
use super::verdict::Refusal;
use super::weight::Readiness;
use super::{Note, own_backend};
use crate::object::{Kind, NamespacedName, ObjectKey};

/// The label by which an EndpointSlice says whose it is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Endpoints by address and L4 port.
pub(super) type Endpoints = BTreeMap<SocketAddr, Readiness>;

/// Which EndpointSlices each Service has.
#[derive(Debug, Default)]
pub(super) struct Slices {
    of: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
    service_of: BTreeMap<NamespacedName, NamespacedName>,
}

impl Slices {
    /// Takes in what the slice `name` says now; nothing if there is none. Returns the Services that it concerns:
    /// the one whose it was and the one whose it is.
    pub(super) fn put(
        &mut self,
        name: &NamespacedName,
        slice: Option<&EndpointSlice>,
    ) -> BTreeSet<NamespacedName> {
        let before = self.service_of.remove(name);
        if let Some(service) = &before
            && let Some(slices) = self.of.get_mut(service)
        {
            slices.remove(name);
            if slices.is_empty() {
                self.of.remove(service);
            }
        }
        let service = slice.and_then(service_of);
        let service = service.map(|service| NamespacedName::new(&name.namespace, service));
        if let Some(service) = &service {
            self.of.entry(service.clone()).or_default().insert(name.clone());
            self.service_of.insert(name.clone(), service.clone());
        }
        before.into_iter().chain(service).collect()
    }

    /// The slices of a Service, in the order of their names.
    pub(super) fn of<'s>(
        &'s self,
        service: &NamespacedName,
    ) -> impl Iterator<Item = &'s NamespacedName> + use<'s> {
        self.of.get(service).into_iter().flatten()
    }
}

/// The Service that an EndpointSlice says it is of.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<&String> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME)
}

/// Services and their EndpointSlices, joined.
#[derive(Clone, Copy)]
pub(super) struct Backends<'a> {
    view: View<'a>,
}

impl<'a> Backends<'a> {
    pub(super) fn of(view: View<'a>) -> Self {
        Self { view }
    }

    /// The endpoints behind `backend`, a reference of the route `from`.
    ///
    /// # Errors
    /// A refusal for the route's `ResolvedRefs`. What has no endpoints is none.
    pub(super) fn resolve(
        &self,
        from: &ObjectKey,
        protocol: Protocol,
        backend: &BackendRef,
    ) -> Result<Endpoints, Refusal> {
        let Some(kind) = kind(backend) else {
            let group = backend.group.as_deref().unwrap_or_default();
            let kind = backend.kind.as_deref().unwrap_or("Service");
            let message = format!(
                "group {group:?} kind {kind:?} is not served: a backendRef names a Service, or a Backend of group \
                 {OWN_GROUP}"
            );
            return Err(Refusal::new("InvalidKind", message));
        };
        let namespace = backend.namespace.as_deref().unwrap_or(&from.namespace);
        let name = NamespacedName::new(namespace, &backend.name);
        if !self.view.allows(from.kind, &from.namespace, kind, &name) {
            let message = grant::missing(from.kind, &from.namespace, kind, &name);
            return Err(Refusal::new("RefNotPermitted", message));
        }
        if kind == Kind::Backend {
            let own = self.view.backend(&name);
            let own = own.ok_or_else(|| not_found(format!("Backend {name} does not exist")))?;
            return own_backend::endpoints(&name, own, backend.port, self.view);
        }
        let service = self.view.service(&name);
        let service = service.ok_or_else(|| not_found(format!("Service {name} does not exist")))?;
        let port = service_port(&name, service, protocol, backend.port)?;
        Ok(self.endpoints(&name, port, protocol))
    }

    fn endpoints(
        &self,
        service: &NamespacedName,
        port: &ServicePort,
        protocol: Protocol,
    ) -> Endpoints {
        let mut found = Endpoints::new();
        for slice in self.view.slices(service) {
            let Some(port) = slice_port(slice, port, protocol) else { continue };
            for endpoint in &slice.endpoints {
                let Some(readiness) = readiness(endpoint) else { continue };
                if let Ok(address) = address(slice, endpoint) {
                    let known = found.entry(SocketAddr::new(address, port)).or_insert(readiness);
                    *known = (*known).max(readiness); // ready in one slice is ready
                }
            }
        }
        found
    }
}

/// The kind of what a backendRef names; `None` if we send to none of that kind.
pub(super) fn kind(backend: &BackendRef) -> Option<Kind> {
    let (group, kind) = (backend.group.as_deref(), backend.kind.as_deref());
    match (group.unwrap_or_default(), kind.unwrap_or("Service")) {
        ("", "Service") => Some(Kind::Service),
        (OWN_GROUP, "Backend") => Some(Kind::Backend),
        _ => None,
    }
}

/// What is left out of an EndpointSlice, for the people who wrote it.
pub(super) fn notes(name: &NamespacedName, slice: &EndpointSlice) -> Vec<Note> {
    let note = |message| Note { object: ObjectKey::of(Kind::EndpointSlice, name), message };
    match service_of(slice) {
        None => vec![note(format!("it has no label {SERVICE_NAME}: no Service uses it"))],
        Some(service) if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6") => {
            vec![note(format!(
                "addressType {} is not served, IPv4 and IPv6 are: Service {}/{service} does without it",
                slice.address_type, name.namespace
            ))]
        }
        Some(_) => {
            let faults = slice.endpoints.iter().map(|endpoint| address(slice, endpoint).err());
            let faults = faults.enumerate().filter_map(|(index, fault)| Some((index, fault?)));
            faults.map(|(index, fault)| note(format!("endpoints[{index}]: {fault}"))).collect()
        }
    }
}

pub(super) fn not_found(message: String) -> Refusal {
    Refusal::new("BackendNotFound", message)
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

/// The port of `service` that `wanted` names.
fn service_port<'s>(
    name: &NamespacedName,
    service: &'s Service,
    protocol: Protocol,
    wanted: Option<i32>,
) -> Result<&'s ServicePort, Refusal> {
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        let message = format!("Service {name} is of type ExternalName, which has no endpoints");
        return Err(not_found(message));
    }
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let listed = || {
        let one = |port: &ServicePort| format!("{} {}", port.port, protocol_of(port));
        ports.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let Some(wanted) = wanted else {
        let message = format!("port is missing: name one of Service {name} ({})", listed());
        return Err(not_found(message));
    };
    let of_number = || ports.iter().filter(|port| port.port == wanted);
    if let Some(port) = of_number().find(|port| protocol_of(port) == word(protocol)) {
        return Ok(port);
    }
    let message = format!(
        "Service {name} has no port {wanted} {}: it has {}",
        word(protocol),
        match ports {
            [] => "none".to_owned(),
            _ => listed(),
        }
    );
    let reason =
        if of_number().next().is_some() { "UnsupportedProtocol" } else { "BackendNotFound" };
    Err(Refusal::new(reason, message))
}

fn protocol_of(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The L4 port of the slice's endpoints that goes by the name of the Service's port.
fn slice_port(slice: &EndpointSlice, port: &ServicePort, protocol: Protocol) -> Option<u16> {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let same = |candidate: &&EndpointPort| {
        name(&candidate.name) == name(&port.name)
            && candidate.protocol.as_deref().unwrap_or("TCP") == word(protocol)
    };
    let number = slice.ports.iter().flatten().find(same)?.port?;
    u16::try_from(number).ok().filter(|number| *number > 0)
}

/// Whether an endpoint takes part, and how. Kubernetes reads an absent `ready` as true, and an absent
/// `serving` as `ready`.
fn readiness(endpoint: &Endpoint) -> Option<Readiness> {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    match (ready, serving && terminating) {
        (true, _) => Some(Readiness::Ready),
        (false, true) => Some(Readiness::Draining),
        (false, false) => None,
    }
}

/// The endpoint's address: the first, since the others are the same endpoint.
fn address(slice: &EndpointSlice, endpoint: &Endpoint) -> Result<IpAddr, String> {
    let family = slice.address_type.as_str();
    if !matches!(family, "IPv4" | "IPv6") {
        return Err(format!("addressType {family} is not served"));
    }
    let text = endpoint.addresses.first().ok_or("it has no address: give it one")?;
    let address =
        text.parse().ok().filter(|address: &IpAddr| address.is_ipv4() == (family == "IPv4"));
    let address = address
        .ok_or_else(|| format!("address {text:?} is no {family} address: it is left out"))?;
    match not_a_host(address) {
        true => Err(format!("address {address} is not one host's: it is left out")),
        false => Ok(address),
    }
}

/// Whether an address is that of no single host that we could send to.
pub(super) fn not_a_host(address: IpAddr) -> bool {
    let nobodys = match address {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    nobodys || address.is_unspecified() || address.is_multicast()
}
