//! What of all objects a box needs: its Gateways, what joins and attaches to them, and what that refers to.
//!
//! Small kinds that say who may do what (ReferenceGrant, AddressPool, Namespace) go along whole, so that a box
//! translates as the controller does. Secrets, ConfigMaps, Services and their endpoints only where something that goes
//! along names them. Statuses do not go along, but for the addresses that Gateways were given.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use penstock_gateway_types::gateway::{GatewayStatusAddress, ListenerTlsConfig};
use penstock_gateway_types::route::RouteRule;
use penstock_gateway_types::route::http::{HTTPBackendRef, HTTPRouteFilter};
use penstock_gateway_types::{
    AddressType, BackendRef, BackendTLSPolicy, Gateway, GatewayStatus, Listener, ParentReference,
};

use crate::link::Contents;
use crate::object::{NamespacedName, Object, Objects};
use crate::translate::{ListenerVerdict, Translation};

/// The label by which an EndpointSlice says whose it is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The listeners that boxes which carry `gateways` serve, by their names in the feed.
#[must_use]
pub fn listeners(
    gateways: &BTreeSet<NamespacedName>,
    objects: &Objects,
    translation: &Translation,
) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut take = |listeners: &[ListenerVerdict]| {
        for listener in listeners {
            let (forwarded, read) = (&listener.serving.places, &listener.serving.l7);
            let all = forwarded.iter().map(|(_, name)| name).chain(read.iter().map(|(_, n)| n));
            names.extend(all.map(|name| name.as_str().to_owned()));
        }
    };
    for name in gateways {
        if let Some(verdict) = translation.gateways.get(name) {
            take(&verdict.listeners);
        }
    }
    for (name, set) in &objects.listener_sets {
        if gateways.contains(&parent_of_set(&name.namespace, &set.spec.parent_ref))
            && let Some(verdict) = translation.listener_sets.get(name)
        {
            take(&verdict.listeners);
        }
    }
    names
}

/// What a box must know that carries `gateways`, of all objects. `addresses`: what Gateways have. Costs a look at
/// every object.
#[must_use]
pub fn contents(
    gateways: &BTreeSet<NamespacedName>,
    listeners: BTreeSet<String>,
    addresses: &BTreeMap<NamespacedName, Vec<IpAddr>>,
    all: &Objects,
) -> Contents {
    let mut needs = Needs { all, some: Objects::default(), services: BTreeSet::new() };
    needs.gateways(gateways, addresses);
    needs.routes();
    needs.services();
    needs.policies();
    needs.small_kinds();
    Contents { objects: needs.some, listeners, unread: 0 }
}

/// What was found so far.
struct Needs<'a> {
    all: &'a Objects,
    some: Objects,
    /// The Services that routes name.
    services: BTreeSet<NamespacedName>,
}

impl Needs<'_> {
    fn gateways(
        &mut self,
        gateways: &BTreeSet<NamespacedName>,
        addresses: &BTreeMap<NamespacedName, Vec<IpAddr>>,
    ) {
        for name in gateways {
            let Some(gateway) = self.all.gateways.get(name) else { continue };
            let gateway = with_addresses(gateway, addresses.get(name));
            self.certificates(&name.namespace, &gateway.spec.listeners);
            self.tls_of(&name.namespace, &gateway);
            if let Some(class) = self.all.gateway_classes.get(&gateway.spec.gateway_class_name) {
                let mut class = (**class).clone();
                class.status = None;
                self.some.insert(Object::GatewayClass(Arc::new(class)));
            }
            self.some.insert(Object::Gateway(Arc::new(gateway)));
        }
        for (name, set) in &self.all.listener_sets {
            if gateways.contains(&parent_of_set(&name.namespace, &set.spec.parent_ref)) {
                self.certificates(&name.namespace, &set.spec.listeners);
                let mut set = (**set).clone();
                set.status = None;
                self.some.insert(Object::ListenerSet(Arc::new(set)));
            }
        }
    }

    fn certificates(&mut self, namespace: &str, listeners: &[Listener]) {
        let tls = listeners.iter().filter_map(|listener| listener.tls.as_ref());
        for ListenerTlsConfig { certificate_refs, .. } in tls {
            for reference in certificate_refs {
                self.secret(reference.namespace.as_deref().unwrap_or(namespace), &reference.name);
            }
        }
    }

    /// What a Gateway names for TLS as a whole.
    fn tls_of(&mut self, namespace: &str, gateway: &Gateway) {
        let Some(tls) = &gateway.spec.tls else { return };
        let own = tls.backend.as_ref().and_then(|backend| backend.client_certificate_ref.as_ref());
        if let Some(reference) = own {
            self.secret(reference.namespace.as_deref().unwrap_or(namespace), &reference.name);
        }
        let Some(frontend) = &tls.frontend else { return };
        let ports = frontend.per_port.iter().map(|port| &port.tls);
        let validations = std::iter::once(&frontend.default).chain(ports);
        for validation in validations.filter_map(|tls| tls.validation.as_ref()) {
            for reference in &validation.ca_certificate_refs {
                let namespace = reference.namespace.as_deref().unwrap_or(namespace);
                self.authority(&reference.kind, namespace, &reference.name);
            }
        }
    }

    fn secret(&mut self, namespace: &str, name: &str) {
        let name = NamespacedName::new(namespace, name);
        let secret = self.all.secrets.get(&name);
        self.some.secrets.extend(secret.map(|secret| (name, Arc::clone(secret))));
    }

    /// A certificate authority: of a ConfigMap, or of a Secret.
    fn authority(&mut self, kind: &str, namespace: &str, name: &str) {
        if kind == "Secret" {
            return self.secret(namespace, name);
        }
        let name = NamespacedName::new(namespace, name);
        let map = self.all.config_maps.get(&name);
        self.some.config_maps.extend(map.map(|map| (name, Arc::clone(map))));
    }

    /// The routes that want to attach to something that goes along.
    fn routes(&mut self) {
        let all = self.all;
        for (name, route) in &all.tcp_routes {
            if self.attaches(name, &route.spec.parent_refs) {
                self.backends(name, l4(&route.spec.rules));
                let mut route = (**route).clone();
                route.status = None;
                self.some.insert(Object::TcpRoute(Arc::new(route)));
            }
        }
        for (name, route) in &all.udp_routes {
            if self.attaches(name, &route.spec.parent_refs) {
                self.backends(name, l4(&route.spec.rules));
                let mut route = (**route).clone();
                route.status = None;
                self.some.insert(Object::UdpRoute(Arc::new(route)));
            }
        }
        for (name, route) in &all.tls_routes {
            if self.attaches(name, &route.spec.parent_refs) {
                self.backends(name, l4(&route.spec.rules));
                let mut route = (**route).clone();
                route.status = None;
                self.some.insert(Object::TlsRoute(Arc::new(route)));
            }
        }
        for (name, route) in &all.http_routes {
            if self.attaches(name, &route.spec.parent_refs) {
                let rules = route.spec.rules.iter();
                self.backends(name, l7(rules.map(|rule| (&*rule.filters, &*rule.backend_refs))));
                let mut route = (**route).clone();
                route.status = None;
                self.some.insert(Object::HttpRoute(Arc::new(route)));
            }
        }
        for (name, route) in &all.grpc_routes {
            if self.attaches(name, &route.spec.parent_refs) {
                let rules = route.spec.rules.iter();
                self.backends(name, l7(rules.map(|rule| (&*rule.filters, &*rule.backend_refs))));
                let mut route = (**route).clone();
                route.status = None;
                self.some.insert(Object::GrpcRoute(Arc::new(route)));
            }
        }
    }

    fn attaches(&self, route: &NamespacedName, parents: &[ParentReference]) -> bool {
        parents.iter().any(|parent| {
            let namespace = parent.namespace.as_deref().unwrap_or(&route.namespace);
            let name = NamespacedName::new(namespace, &parent.name);
            match parent.kind.as_deref() {
                None | Some("Gateway") => self.some.gateways.contains_key(&name),
                Some("ListenerSet") => self.some.listener_sets.contains_key(&name),
                Some(_) => false,
            }
        })
    }

    fn backends(&mut self, route: &NamespacedName, backends: impl Iterator<Item = BackendRef>) {
        for backend in backends {
            let namespace = backend.namespace.as_deref().unwrap_or(&route.namespace);
            self.services.insert(NamespacedName::new(namespace, &backend.name));
        }
    }

    fn services(&mut self) {
        for name in &self.services {
            let Some(service) = self.all.services.get(name) else { continue };
            let mut service = Arc::clone(service);
            if service.status.is_some() {
                Arc::make_mut(&mut service).status = None;
            }
            self.some.services.insert(name.clone(), service);
        }
        for (name, slice) in &self.all.endpoint_slices {
            let of = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
            let is_named = of.is_some_and(|service| {
                self.services.contains(&NamespacedName::new(&name.namespace, service))
            });
            if is_named {
                self.some.endpoint_slices.insert(name.clone(), Arc::clone(slice));
            }
        }
    }

    /// How TLS is spoken to the Services that go along.
    fn policies(&mut self) {
        for (name, policy) in &self.all.backend_tls_policies {
            let BackendTLSPolicy { spec, .. } = &**policy;
            let is_about = |target: &str| {
                self.services.contains(&NamespacedName::new(&name.namespace, target))
            };
            if !spec.target_refs.iter().any(|target| is_about(&target.name)) {
                continue;
            }
            for reference in &spec.validation.ca_certificate_refs {
                self.authority(&reference.kind, &name.namespace, &reference.name);
            }
            let mut policy = (**policy).clone();
            policy.status = None;
            self.some.insert(Object::BackendTlsPolicy(Arc::new(policy)));
        }
    }

    fn small_kinds(&mut self) {
        self.some.reference_grants = self.all.reference_grants.clone();
        self.some.address_pools = self.all.address_pools.clone();
        let some = &self.some;
        let namespaces: BTreeSet<String> =
            some.iter().filter_map(|object| object.metadata().namespace.clone()).collect();
        for name in namespaces {
            let namespace = self.all.namespaces.get(&name);
            self.some.namespaces.extend(namespace.map(|it| (name, Arc::clone(it))));
        }
    }
}

/// The Gateway, with the addresses that it was given in place of its status.
fn with_addresses(gateway: &Gateway, addresses: Option<&Vec<IpAddr>>) -> Gateway {
    let address = |address: &IpAddr| GatewayStatusAddress {
        type_: Some(AddressType::IpAddress),
        value: address.to_string(),
    };
    let addresses: Vec<_> = addresses.into_iter().flatten().map(address).collect();
    let status = GatewayStatus { addresses, ..GatewayStatus::default() };
    Gateway { status: Some(status), ..gateway.clone() }
}

fn parent_of_set(
    namespace: &str,
    parent: &penstock_gateway_types::listener_set::ParentGatewayReference,
) -> NamespacedName {
    NamespacedName::new(parent.namespace.as_deref().unwrap_or(namespace), &parent.name)
}

fn l4(rules: &[RouteRule]) -> impl Iterator<Item = BackendRef> {
    rules.iter().flat_map(|rule| rule.backend_refs.iter().cloned())
}

/// The backends of every rule, mirrors too.
fn l7<'a>(
    rules: impl Iterator<Item = (&'a [HTTPRouteFilter], &'a [HTTPBackendRef])>,
) -> impl Iterator<Item = BackendRef> {
    let mirror = |filter: &HTTPRouteFilter| {
        filter.request_mirror.as_ref().map(|mirror| mirror.backend_ref.clone().into())
    };
    rules.flat_map(move |(filters, backends)| {
        let of_backends = backends.iter().flat_map(|backend| &backend.filters);
        let mirrors = filters.iter().chain(of_backends).filter_map(mirror);
        mirrors.chain(backends.iter().map(HTTPBackendRef::reference)).collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;
    use crate::translate::translate;

    const TEAMS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: penstock}
spec: {controllerName: penstock.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: a}
spec:
  gatewayClassName: penstock
  addresses: [{value: 192.0.2.1}]
  allowedListeners: {namespaces: {from: All}}
  listeners:
  - {name: tcp, protocol: TCP, port: 80}
  - {name: tls, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: cert-a}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: b}
spec:
  gatewayClassName: penstock
  addresses: [{value: 192.0.2.1}]
  listeners:
  - {name: tcp, protocol: TCP, port: 80}
  - {name: other, protocol: TCP, port: 81}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: shop}
spec:
  parentRef: {name: a, namespace: default}
  listeners: [{name: x, protocol: TCP, port: 90}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: ra}
spec: {parentRefs: [{name: a}], rules: [{backendRefs: [{name: sa, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: rs, namespace: shop}
spec: {parentRefs: [{kind: ListenerSet, name: more}], rules: [{backendRefs: [{name: ss, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: rb}
spec: {parentRefs: [{name: b}], rules: [{backendRefs: [{name: sb, port: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: sa}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: sb}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: ss, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: sa-1, labels: {kubernetes.io/service-name: sa}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [10.0.0.1]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: sb-1, labels: {kubernetes.io/service-name: sb}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [10.0.0.2]}]
---
apiVersion: v1
kind: Secret
metadata: {name: cert-a}
type: kubernetes.io/tls
data: {tls.crt: QQ==, tls.key: QQ==}
---
apiVersion: v1
kind: Secret
metadata: {name: cert-b}
type: kubernetes.io/tls
data: {tls.crt: QQ==, tls.key: QQ==}
---
apiVersion: penstock.dev/v1alpha1
kind: Box
metadata: {name: edge-1}
spec: {}
";

    fn of(gateways: &[&str]) -> Contents {
        let read = manifest::read("t.yaml", TEAMS);
        assert_eq!(read.findings, []);
        let objects: Objects = read.manifests.into_iter().map(|m| m.object).collect();
        let translation = translate(&objects);
        let names = gateways.iter().map(|name| NamespacedName::new("default", name)).collect();
        let served = listeners(&names, &objects, &translation);
        contents(&names, served, &translation.addresses, &objects)
    }

    #[test]
    fn a_box_gets_what_its_gateways_need_and_nothing_else() {
        let keys = |contents: &Contents| -> Vec<String> {
            contents.objects.iter().map(|object| object.key().to_string()).collect()
        };
        assert_eq!(
            keys(&of(&["a"])),
            [
                "GatewayClass penstock",
                "Gateway default/a",
                "ListenerSet shop/more",
                "TCPRoute default/ra",
                "TCPRoute shop/rs",
                "Service default/sa",
                "Service shop/ss",
                "EndpointSlice default/sa-1",
                "Secret default/cert-a",
            ]
        );
        assert_eq!(
            keys(&of(&["b"])),
            [
                "GatewayClass penstock",
                "Gateway default/b",
                "TCPRoute default/rb",
                "Service default/sb",
                "EndpointSlice default/sb-1",
            ]
        );
        assert_eq!(keys(&of(&[])), Vec::<String>::new());
    }

    /// Both Gateways want one port; `a`, which sorts first, has it. A box that carries `b` alone cannot know.
    #[test]
    fn what_only_the_whole_can_decide_goes_along() {
        let only = |contents: &Contents| contents.listeners.iter().cloned().collect::<Vec<_>>();
        assert_eq!(only(&of(&["b"])), ["default/b/other"]);
        assert_eq!(only(&of(&["a"])), ["default/a/tcp", "listenerset/shop/more/x"]);
        let alone = of(&["b"]);
        let gateway = alone.objects.gateways.values().next().unwrap();
        assert_eq!(gateway.status.as_ref().unwrap().addresses[0].value, "192.0.2.1");
    }
}
