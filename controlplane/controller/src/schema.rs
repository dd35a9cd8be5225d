//! What an API server would refuse: the limits of the API's own schemas.
//!
//! An object that breaks one is refused whole, and the last good one stays in force, as `kubectl apply` would
//! leave it. What an API server takes and we cannot serve is not for here: `translate` answers it with a
//! condition.
//!
//! The limits are those of the CRDs of Gateway API v1.6 (OpenAPI and CEL) and of Kubernetes' validation of
//! Service and EndpointSlice, for the fields we read.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use penstock_gateway_types::gateway::GatewaySpecAddress;
use penstock_gateway_types::route::http::HTTPBackendRef;
use penstock_gateway_types::route::{RouteRule, RouteSpec};
use penstock_gateway_types::{
    AddressType, BackendRef, EndpointSlice, GRPCRouteSpec, Gateway, HTTPRouteSpec, Listener,
    ParentReference, Protocol, Service, TLSRouteSpec,
};

use crate::manifest::valid_name;
use crate::object::Object;
use crate::{crd, structural};

const PORTS: RangeInclusive<i32> = 1..=65_535;
const WEIGHTS: RangeInclusive<i32> = 0..=1_000_000;
const LISTENERS: RangeInclusive<usize> = 1..=64;
const ADDRESSES: RangeInclusive<usize> = 0..=16;
const PARENTS: RangeInclusive<usize> = 0..=32;
const RULES: RangeInclusive<usize> = 1..=1;
const BACKENDS: RangeInclusive<usize> = 1..=16;
const HTTP_RULES: RangeInclusive<usize> = 0..=16;
const HTTP_BACKENDS: RangeInclusive<usize> = 0..=16;
const HOSTNAMES: RangeInclusive<usize> = 0..=16;
const TLS_HOSTNAMES: RangeInclusive<usize> = 1..=1024;

/// A value outside the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The field, for instance `spec.listeners[0].port`.
    pub(crate) path: String,
    /// The value, and what the schema allows.
    pub(crate) message: String,
}

type Checked = Result<(), Violation>;

/// Whether an API server would take `object`.
///
/// # Errors
/// The first [`Violation`], in the order of the fields.
pub(crate) fn check(object: &Object) -> Checked {
    match object {
        Object::Gateway(gateway) => check_gateway(gateway),
        Object::TcpRoute(route) => check_route(&route.spec),
        Object::UdpRoute(route) => check_route(&route.spec),
        Object::Service(service) => check_service(service),
        Object::EndpointSlice(slice) => check_slice(slice),
        Object::TlsRoute(route) => check_tls_route(&route.spec),
        Object::HttpRoute(route) => {
            let HTTPRouteSpec { parent_refs, hostnames, rules } = &route.spec;
            check_l7_route(parent_refs, hostnames, rules.iter().map(|rule| &*rule.backend_refs))
        }
        Object::GrpcRoute(route) => {
            let GRPCRouteSpec { parent_refs, hostnames, rules } = &route.spec;
            check_l7_route(parent_refs, hostnames, rules.iter().map(|rule| &*rule.backend_refs))
        }
        Object::ListenerSet(set) => check_listeners(&set.spec.listeners),
        Object::GatewayClass(_)
        | Object::ReferenceGrant(_)
        | Object::BackendTlsPolicy(_)
        | Object::Namespace(_)
        | Object::Secret(_)
        | Object::ConfigMap(_) => Ok(()),
        Object::AddressPool(_)
        | Object::Box(_)
        | Object::GatewayParameters(_)
        | Object::L4Policy(_)
        | Object::Backend(_) => check_own(object),
    }
}

/// An object of our own group, by the schema of its CRD.
fn check_own(object: &Object) -> Checked {
    let Some(schema) = crd::spec(object.kind()) else { return Ok(()) };
    structural::check("spec", &object.to_json()["spec"], schema)
}

fn check_gateway(gateway: &Gateway) -> Checked {
    check_listeners(&gateway.spec.listeners)?;
    count("spec.addresses", gateway.spec.addresses.len(), &ADDRESSES)?;
    for (index, address) in gateway.spec.addresses.iter().enumerate() {
        check_address(&format!("spec.addresses[{index}].value"), address)?;
    }
    Ok(())
}

fn check_listeners(listeners: &[Listener]) -> Checked {
    count("spec.listeners", listeners.len(), &LISTENERS)?;
    let (mut names, mut waits) = (BTreeSet::new(), BTreeSet::new());
    for (index, listener) in listeners.iter().enumerate() {
        let path = format!("spec.listeners[{index}]");
        check_listener(&path, listener)?;
        let name = &listener.name;
        if !names.insert(name) {
            let message = format!("{name} is the name of two listeners: give each its own");
            return violation(path + ".name", message);
        }
        let Listener { port, protocol, hostname, .. } = listener;
        if !waits.insert((port, protocol, hostname)) {
            let message = format!("another listener has port {port} {protocol} too: keep one");
            return violation(path, message);
        }
    }
    Ok(())
}

fn check_listener(path: &str, listener: &Listener) -> Checked {
    let Listener { name, port, protocol, hostname, tls, .. } = listener;
    if !valid_name(name, 253) {
        let message = format!(
            "{name:?} is no valid name: use lower-case letters, digits, '-' and '.', with a letter or digit \
             at both ends"
        );
        return violation(format!("{path}.name"), message);
    }
    within(&format!("{path}.port"), *port, &PORTS)?;
    if hostname.is_some() && matches!(protocol, Protocol::Tcp | Protocol::Udp) {
        let message = format!("a {protocol} listener sees no host name: remove it");
        return violation(format!("{path}.hostname"), message);
    }
    if let Some(hostname) = hostname.as_deref().filter(|hostname| !hostname.is_empty()) {
        check_hostname(&format!("{path}.hostname"), hostname)?;
    }
    if tls.is_some() && matches!(protocol, Protocol::Http | Protocol::Tcp | Protocol::Udp) {
        let message = format!("a {protocol} listener does not end TLS: remove it");
        return violation(format!("{path}.tls"), message);
    }
    Ok(())
}

fn check_address(path: &str, address: &GatewaySpecAddress) -> Checked {
    let is_ip =
        address.type_.as_ref().unwrap_or(&AddressType::IpAddress) == &AddressType::IpAddress;
    match address.value.as_deref() {
        Some(text) if is_ip && !text.is_empty() && text.parse::<IpAddr>().is_err() => {
            violation(path.to_owned(), format!("{text:?} is no IP address, such as 192.0.2.10"))
        }
        _ => Ok(()),
    }
}

fn check_route(route: &RouteSpec) -> Checked {
    check_parents(&route.parent_refs)?;
    check_l4_rules(&route.rules)
}

fn check_tls_route(route: &TLSRouteSpec) -> Checked {
    check_parents(&route.parent_refs)?;
    count("spec.hostnames", route.hostnames.len(), &TLS_HOSTNAMES)?;
    check_hostnames(&route.hostnames)?;
    check_l4_rules(&route.rules)
}

/// An HTTPRoute or a GRPCRoute; `rules` are the backends of each.
fn check_l7_route<'a>(
    parents: &[ParentReference],
    hostnames: &[String],
    rules: impl ExactSizeIterator<Item = &'a [HTTPBackendRef]>,
) -> Checked {
    check_parents(parents)?;
    count("spec.hostnames", hostnames.len(), &HOSTNAMES)?;
    check_hostnames(hostnames)?;
    count("spec.rules", rules.len(), &HTTP_RULES)?;
    for (index, backends) in rules.enumerate() {
        check_http_backends(index, backends)?;
    }
    Ok(())
}

fn check_parents(parents: &[ParentReference]) -> Checked {
    count("spec.parentRefs", parents.len(), &PARENTS)?;
    for (index, parent) in parents.iter().enumerate() {
        within_if(&format!("spec.parentRefs[{index}].port"), parent.port, &PORTS)?;
    }
    Ok(())
}

fn check_l4_rules(rules: &[RouteRule]) -> Checked {
    count("spec.rules", rules.len(), &RULES)?;
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("spec.rules[{index}].backendRefs");
        count(&path, rule.backend_refs.len(), &BACKENDS)?;
        for (index, BackendRef { port, weight, .. }) in rule.backend_refs.iter().enumerate() {
            check_backend(&format!("{path}[{index}]"), *port, *weight)?;
        }
    }
    Ok(())
}

fn check_http_backends(rule: usize, backends: &[HTTPBackendRef]) -> Checked {
    let path = format!("spec.rules[{rule}].backendRefs");
    count(&path, backends.len(), &HTTP_BACKENDS)?;
    for (index, HTTPBackendRef { port, weight, .. }) in backends.iter().enumerate() {
        check_backend(&format!("{path}[{index}]"), *port, *weight)?;
    }
    Ok(())
}

fn check_backend(path: &str, port: Option<i32>, weight: Option<i32>) -> Checked {
    within_if(&format!("{path}.port"), port, &PORTS)?;
    within_if(&format!("{path}.weight"), weight, &WEIGHTS)
}

fn check_hostnames(hostnames: &[String]) -> Checked {
    for (index, hostname) in hostnames.iter().enumerate() {
        check_hostname(&format!("spec.hostnames[{index}]"), hostname)?;
    }
    Ok(())
}

/// A name, or `*.` and a name: RFC 1123, with a wildcard for the first label, and no IP address.
fn check_hostname(path: &str, hostname: &str) -> Checked {
    let name = hostname.strip_prefix("*.").unwrap_or(hostname);
    if valid_name(name, 253) && name.parse::<IpAddr>().is_err() {
        return Ok(());
    }
    let message = format!("{hostname:?} is no host name, such as example.com or *.example.com");
    violation(path.to_owned(), message)
}

fn check_service(service: &Service) -> Checked {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    for (index, port) in ports.enumerate() {
        let path = format!("spec.ports[{index}]");
        within(&format!("{path}.port"), port.port, &PORTS)?;
        check_protocol(&path, port.protocol.as_deref())?;
    }
    Ok(())
}

fn check_slice(slice: &EndpointSlice) -> Checked {
    if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6" | "FQDN") {
        let message = format!("{:?} is none of IPv4, IPv6 and FQDN", slice.address_type);
        return violation("addressType".to_owned(), message);
    }
    for (index, port) in slice.ports.iter().flatten().enumerate() {
        let path = format!("ports[{index}]");
        within_if(&format!("{path}.port"), port.port, &PORTS)?;
        check_protocol(&path, port.protocol.as_deref())?;
    }
    Ok(())
}

fn check_protocol(path: &str, protocol: Option<&str>) -> Checked {
    match protocol {
        None | Some("TCP" | "UDP" | "SCTP") => Ok(()),
        Some(other) => {
            violation(format!("{path}.protocol"), format!("{other:?} is none of TCP, UDP and SCTP"))
        }
    }
}

fn within_if(path: &str, value: Option<i32>, allowed: &RangeInclusive<i32>) -> Checked {
    value.map_or(Ok(()), |value| within(path, value, allowed))
}

fn within(path: &str, value: i32, allowed: &RangeInclusive<i32>) -> Checked {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (least, most) = (allowed.start(), allowed.end());
    violation(path.to_owned(), format!("{value} is not within {least} to {most}"))
}

fn count(path: &str, entries: usize, allowed: &RangeInclusive<usize>) -> Checked {
    if allowed.contains(&entries) {
        return Ok(());
    }
    let (least, most) = (allowed.start(), allowed.end());
    let wanted = match (least, most) {
        (least, most) if least == most => format!("exactly {least} belongs here"),
        (0, most) => format!("at most {most} are allowed"),
        (least, most) => format!("{least} to {most} are allowed"),
    };
    violation(path.to_owned(), format!("it has {entries} entries: {wanted}"))
}

fn violation(path: String, message: String) -> Checked {
    Err(Violation { path, message })
}
