//! Services of `type: LoadBalancer` whose class is ours.
//!
//! Such a Service asks for what a Gateway with a route a port asks for. So it has *stand-ins*: a Gateway of a class of
//! their own and those routes, beside the objects that people wrote, and is given its address, claims its ports by
//! age and is acknowledged as they are, by the same rules and the same code. The stand-ins follow their Service
//! ([`follow`]); their names hold a colon, which no name of an object may, and their answers are told of the Service
//! ([`service_of`], [`crate::status`]).
//!
//! ```text
//! Service shop/web, ports 80 (http) and 53/UDP  ─►  Gateway shop/service:web, listeners http and 53
//!                                                   TCPRoute shop/service:web:http, UDPRoute shop/service:web:53
//! ```
//!
//! What is served and what is told: packets go to endpoints and never to node ports, so `allocateLoadBalancerNodePorts`
//! and `healthCheckNodePort` mean nothing here; `externalTrafficPolicy` has one meaning left, that the backend sees the
//! client's address, which is the mode's to keep. Whom a Service lets in (`loadBalancerSourceRanges`) and how its
//! backends are chosen (`sessionAffinity`) is a policy of the Gateway that stands in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use penstock_gateway_types::gateway::{GatewaySpecAddress, GatewayStatusAddress};
use penstock_gateway_types::k8s_openapi::api::core::v1::ServiceStatus;
use penstock_gateway_types::l4_policy::{AffinityPolicy, L4PolicyTarget, ListenerPolicy};
use penstock_gateway_types::route::{RouteRule, RouteSpec};
use penstock_gateway_types::value::AffinityBy;
use penstock_gateway_types::{
    AddressType, BackendRef, GROUP, Gateway, GatewayClass, GatewayClassSpec, GatewaySpec,
    GatewayStatus, L4Policy, L4PolicySpec, Listener, ObjectMeta, ParentReference, Protocol,
    Service, TCPRoute, UDPRoute,
};

use super::class::CONTROLLER_NAME;
use super::settings::networks;
use super::verdict::Refusal;
use crate::object::{Kind, NamespacedName, Object, ObjectKey, Objects};

/// The `loadBalancerClass` of Services that we serve.
pub const LOAD_BALANCER_CLASS: &str = "penstock.dev/l4";
/// The annotation that asks for addresses by value, one or one a family, as `spec.loadBalancerIP` asks for one.
pub const ADDRESSES_ANNOTATION: &str = "penstock.dev/addresses";
/// What clouds read beside `spec.loadBalancerSourceRanges`.
pub(crate) const RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// What every name of a stand-in begins with.
const PREFIX: &str = "service:";
/// The class of all of them.
const CLASS: &str = "service:penstock.dev/l4";
/// As Kubernetes spells it.
const LOCAL: &str = "Local";

/// Whether a Service is ours to serve.
#[must_use]
pub fn is_ours(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.type_.as_deref() == Some("LoadBalancer")
            && spec.load_balancer_class.as_deref() == Some(LOAD_BALANCER_CLASS)
    })
}

/// Makes the stand-ins of every Service of ours.
pub fn stand_in(objects: &mut Objects) {
    let ours = objects.services.iter().filter(|(_, service)| is_ours(service));
    let names: Vec<NamespacedName> = ours.map(|(name, _)| name.clone()).collect();
    for name in names {
        follow(objects, &name);
    }
}

/// Lets the stand-ins of a Service follow it, after it came, changed or went. Returns those that came, changed or
/// went. O(its ports).
pub fn follow(objects: &mut Objects, name: &NamespacedName) -> Vec<ObjectKey> {
    let service = objects.services.get(name).filter(|service| is_ours(service));
    let wanted: BTreeMap<ObjectKey, Object> = service
        .map(|service| stand_ins(name, service))
        .into_iter()
        .flatten()
        .map(|object| (object.key(), object))
        .collect();
    let mut changed = Vec::new();
    for key in there(objects, name) {
        if !wanted.contains_key(&key) {
            objects.remove(&key);
            changed.push(key);
        }
    }
    for (key, object) in wanted {
        if objects.get(&key).as_ref() != Some(&object) {
            objects.insert(object);
            changed.push(key);
        }
    }
    changed
}

/// The stand-ins that a Service has.
fn there(objects: &Objects, name: &NamespacedName) -> Vec<ObjectKey> {
    let gateway = stand_in_of(name);
    let begin = NamespacedName::new(&name.namespace, &format!("{}:", gateway.name));
    let is_its = |route: &&NamespacedName| {
        route.namespace == begin.namespace && route.name.starts_with(&begin.name)
    };
    let tcp = objects.tcp_routes.range(&begin..).map(|(route, _)| route).take_while(is_its);
    let udp = objects.udp_routes.range(&begin..).map(|(route, _)| route).take_while(is_its);
    let tcp = tcp.map(|route| ObjectKey::of(Kind::TcpRoute, route));
    let udp = udp.map(|route| ObjectKey::of(Kind::UdpRoute, route));
    let own = objects.gateways.contains_key(&gateway);
    let own = own.then(|| ObjectKey::of(Kind::Gateway, &gateway));
    let policy = objects.l4_policies.contains_key(&gateway);
    let policy = policy.then(|| ObjectKey::of(Kind::L4Policy, &gateway));
    own.into_iter().chain(policy).chain(tcp).chain(udp).collect()
}

/// The Gateway that stands in for a Service.
#[must_use]
pub fn stand_in_of(service: &NamespacedName) -> NamespacedName {
    NamespacedName::new(&service.namespace, &format!("{PREFIX}{}", service.name))
}

/// Whether an object is a stand-in, or the class of all of them.
#[must_use]
pub fn is_stand_in(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The Service for which a stand-in stands.
#[must_use]
pub fn service_of(namespace: &str, stand_in: &str) -> Option<NamespacedName> {
    let rest = stand_in.strip_prefix(PREFIX).filter(|_| !namespace.is_empty())?;
    Some(NamespacedName::new(namespace, rest.split(':').next()?))
}

/// What an answer about `key` is about.
#[must_use]
pub fn subject(key: &ObjectKey) -> ObjectKey {
    match service_of(&key.namespace, &key.name) {
        Some(service) => ObjectKey::of(Kind::Service, &service),
        None => key.clone(),
    }
}

/// Why a Service of ours is not served, though everything about it is known.
///
/// # Errors
/// `Unsupported`, for whom it wants let in: nobody is served rather than those whom that shuts out.
pub fn accept(service: &Service) -> Result<(), Refusal> {
    let (field, ranges) = source_ranges(service);
    match networks(&ranges) {
        Ok(_) => Ok(()),
        Err(fault) => Err(Refusal::new("Unsupported", format!("{field}: {fault}"))),
    }
}

/// The networks whose clients a Service lets in, as they are written, and where; none if it lets all in. As with
/// others, the annotation counts where the field says nothing.
fn source_ranges(service: &Service) -> (&'static str, Vec<String>) {
    let spec = service.spec.as_ref();
    let ranges = spec.and_then(|spec| spec.load_balancer_source_ranges.as_deref());
    if let Some(ranges) = ranges.filter(|ranges| !ranges.is_empty()) {
        return ("spec.loadBalancerSourceRanges", ranges.to_vec());
    }
    let annotated = annotation(service, RANGES_ANNOTATION).unwrap_or_default().trim();
    let ranges = annotated.split(',').filter(|_| !annotated.is_empty());
    (RANGES_ANNOTATION, ranges.map(|range| range.trim().to_owned()).collect())
}

/// What a Service of ours asks for and does not get, though it is served: if one of its listeners is of mode full-nat.
#[must_use]
pub fn caveat(service: &Service, is_full_nat: bool) -> Option<&'static str> {
    let policy = service.spec.as_ref()?.external_traffic_policy.as_deref()?;
    (policy == LOCAL && is_full_nat).then_some(
        "externalTrafficPolicy Local asks for the client's address, which mode full-nat replaces: write Cluster, or an \
         L4Policy about the Service with another listener.mode",
    )
}

fn annotation<'s>(service: &'s Service, name: &str) -> Option<&'s str> {
    service.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The class, the Gateway and the routes that stand in for a Service of ours.
fn stand_ins(name: &NamespacedName, service: &Service) -> Vec<Object> {
    let class = GatewayClass {
        metadata: ObjectMeta { name: Some(CLASS.to_owned()), ..ObjectMeta::default() },
        spec: GatewayClassSpec {
            controller_name: CONTROLLER_NAME.to_owned(),
            ..Default::default()
        },
        status: None,
    };
    let mut all = vec![Object::GatewayClass(Arc::new(class))];
    let mut listeners = Vec::new();
    // A Service that is refused keeps its address, and serves nothing.
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref());
    for port in ports.unwrap_or_default().iter().filter(|_| accept(service).is_ok()) {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let listener = port.name.clone().filter(|name| !name.is_empty());
        let listener = listener.unwrap_or_else(|| port.port.to_string());
        all.extend(route(name, service, &listener, protocol, port.port));
        listeners.push(Listener {
            name: listener,
            hostname: None,
            port: port.port,
            protocol: Protocol::from(protocol),
            tls: None,
            allowed_routes: None,
        });
    }
    let spec = GatewaySpec {
        gateway_class_name: CLASS.to_owned(),
        listeners,
        addresses: asked(service),
        ..GatewaySpec::default()
    };
    let status = GatewayStatus { addresses: held(service), ..GatewayStatus::default() };
    let metadata = metadata(&stand_in_of(name), service);
    all.extend(usual(name, service, &metadata));
    all.push(Object::Gateway(Arc::new(Gateway { metadata, spec, status: Some(status) })));
    all
}

/// What a Service says of its listeners, as the policy of the Gateway that stands in: an L4Policy about the Service
/// itself is more specific, and goes first.
fn usual(name: &NamespacedName, service: &Service, metadata: &ObjectMeta) -> Option<Object> {
    let affinity = service.spec.as_ref()?.session_affinity.as_deref() == Some("ClientIP");
    // Maglev chooses by the address alone, and remembers no longer than the connection: no timeout to keep.
    let (by, ipv4_prefix_length, ipv6_prefix_length) = (AffinityBy::Source, None, None);
    let affinity =
        affinity.then_some(AffinityPolicy { by, ipv4_prefix_length, ipv6_prefix_length });
    let (_, source_ranges) = source_ranges(service);
    let listener = ListenerPolicy { affinity, source_ranges, ..ListenerPolicy::default() };
    if listener == ListenerPolicy::default() {
        return None;
    }
    let target = L4PolicyTarget {
        group: GROUP.to_owned(),
        kind: "Gateway".to_owned(),
        name: stand_in_of(name).name,
        section_name: None,
    };
    let spec = L4PolicySpec { target_refs: vec![target], listener: Some(listener), backend: None };
    let metadata = metadata.clone();
    Some(Object::L4Policy(Arc::new(L4Policy { metadata, spec, status: None })))
}

/// The addresses that a Service asks for by value; nothing if it leaves the choice to us.
fn asked(service: &Service) -> Vec<GatewaySpecAddress> {
    let annotated = annotation(service, ADDRESSES_ANNOTATION).into_iter();
    let annotated = annotated.flat_map(|list| list.split(',')).map(str::trim);
    let by_field = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref());
    let mut values: Vec<&str> = annotated.filter(|value| !value.is_empty()).collect();
    if values.is_empty() {
        values.extend(by_field.filter(|value| !value.is_empty()));
    }
    let type_ = Some(AddressType::IpAddress);
    let address =
        |value: &str| GatewaySpecAddress { type_: type_.clone(), value: Some(value.to_owned()) };
    values.into_iter().map(address).collect()
}

/// The addresses that a Service has, by its status.
fn held(service: &Service) -> Vec<GatewayStatusAddress> {
    let address = |address: IpAddr| GatewayStatusAddress {
        type_: Some(AddressType::IpAddress),
        value: address.to_string(),
    };
    service.status.iter().flat_map(addresses).map(address).collect()
}

/// The addresses that a status names.
pub fn addresses(status: &ServiceStatus) -> impl Iterator<Item = IpAddr> {
    let ingress = status.load_balancer.iter().flat_map(|given| given.ingress.iter().flatten());
    ingress.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
}

fn metadata(name: &NamespacedName, service: &Service) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.name.clone()),
        namespace: Some(name.namespace.clone()),
        creation_timestamp: service.metadata.creation_timestamp.clone(),
        ..ObjectMeta::default()
    }
}

/// The route of one port; none for a protocol that has none, which its listener answers.
fn route(
    name: &NamespacedName,
    service: &Service,
    listener: &str,
    protocol: &str,
    port: i32,
) -> Option<Object> {
    let gateway = stand_in_of(name);
    let parent = ParentReference {
        group: Some(GROUP.to_owned()),
        kind: Some("Gateway".to_owned()),
        name: gateway.name.clone(),
        section_name: Some(listener.to_owned()),
        ..ParentReference::default()
    };
    let backend = BackendRef { name: name.name.clone(), port: Some(port), ..BackendRef::default() };
    let rule = RouteRule { name: None, backend_refs: vec![backend] };
    let spec = RouteSpec { parent_refs: vec![parent], rules: vec![rule] };
    let own = NamespacedName::new(&name.namespace, &format!("{}:{listener}", gateway.name));
    let metadata = metadata(&own, service);
    match protocol {
        "TCP" => Some(Object::TcpRoute(Arc::new(TCPRoute { metadata, spec, status: None }))),
        "UDP" => Some(Object::UdpRoute(Arc::new(UDPRoute { metadata, spec, status: None }))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: &Value) -> Object {
        let value = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
        Object::Service(Arc::new(serde_json::from_value(value).unwrap()))
    }

    fn ours(ports: &Value) -> Object {
        service(
            &json!({"type": "LoadBalancer", "loadBalancerClass": "penstock.dev/l4", "ports": ports}),
        )
    }

    #[test]
    fn stand_ins_follow_their_service() {
        let name = NamespacedName::new("shop", "web");
        let mut objects = Objects::default();
        let http = json!({"name": "http", "port": 80});
        let dns = json!({"name": "dns", "port": 53, "protocol": "UDP"});
        let sctp = json!({"name": "sctp", "port": 9, "protocol": "SCTP"});
        let (class, gateway, tcp, udp) = (
            "GatewayClass service:penstock.dev/l4",
            "Gateway shop/service:web",
            "TCPRoute shop/service:web:http",
            "UDPRoute shop/service:web:dns",
        );
        for (promise, object, expected) in [
            (
                "of another class it has none",
                Some(service(&json!({"type": "LoadBalancer", "ports": [http]}))),
                vec![],
            ),
            (
                "of ours it has them",
                Some(ours(&json!([http, dns]))),
                vec![class, gateway, tcp, udp],
            ),
            ("they change with it alone", Some(ours(&json!([http, dns]))), vec![]),
            ("a port that goes", Some(ours(&json!([http]))), vec![udp, gateway]),
            ("a protocol without routes", Some(ours(&json!([http, sctp]))), vec![gateway]),
            (
                "a type that is none of ours",
                Some(service(&json!({"type": "ClusterIP", "ports": [http]}))),
                vec![gateway, tcp],
            ),
            ("of ours again", Some(ours(&json!([http]))), vec![gateway, tcp]),
            ("gone", None, vec![gateway, tcp]),
        ] {
            match object {
                Some(object) => objects.insert(object),
                None => drop(objects.remove(&ObjectKey::of(Kind::Service, &name))),
            }
            let changed = follow(&mut objects, &name);
            let changed: Vec<_> = changed.iter().map(ToString::to_string).collect();
            assert_eq!(changed, expected, "{promise}");
        }
        assert_eq!(
            (objects.gateways.len(), objects.tcp_routes.len(), objects.udp_routes.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn a_service_with_the_name_of_another_s_port_keeps_its_own() {
        let mut objects: Objects = [ours(&json!([{"port": 80}]))].into_iter().collect();
        stand_in(&mut objects);
        let other = NamespacedName::new("shop", "we");
        assert_eq!(follow(&mut objects, &other), []);
        assert_eq!(objects.tcp_routes.len(), 1);
        let route = objects.tcp_routes.keys().next().unwrap();
        assert_eq!(
            service_of(&route.namespace, &route.name),
            Some(NamespacedName::new("shop", "web"))
        );
    }
}
