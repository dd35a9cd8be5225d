//! What of all objects a box needs: its Gateways, what joins and attaches to them, and what that refers to.
//!
//! Small kinds that say who may do what (ReferenceGrant, AddressPool, GatewayParameters, Namespace) go along whole, so
//! that a box translates as the controller does. Secrets, ConfigMaps, Services and their endpoints only where something
//! that goes along names them. Statuses do not go along, but for the addresses that Gateways were given.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use penstock_gateway_types::gateway::{GatewayStatusAddress, ListenerTlsConfig};
use penstock_gateway_types::l4_policy::L4PolicyTarget;
use penstock_gateway_types::{AddressType, Gateway, GatewayStatus, Listener};

use crate::link::Contents;
use crate::object::{Kind, NamespacedName, Object, ObjectKey, Objects};
use crate::translate::{
    ListenerVerdict, Route, Translation, gateway_of, route_of, service_of, services_of_policy,
};

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
        if gateway_of(name, set).is_some_and(|gateway| gateways.contains(&gateway))
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
    needs.l4_policies();
    needs.small_kinds();
    Contents { objects: needs.some, listeners, unread: 0 }
}

/// What was found so far.
struct Needs<'a> {
    all: &'a Objects,
    some: Objects,
    /// The Services and Backends that routes name.
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
                let class = Object::GatewayClass(Arc::clone(class));
                self.some.insert(class.without_status());
            }
            self.some.insert(Object::Gateway(Arc::new(gateway)));
        }
        for (name, set) in &self.all.listener_sets {
            if gateway_of(name, set).is_some_and(|gateway| gateways.contains(&gateway)) {
                self.certificates(&name.namespace, &set.spec.listeners);
                self.take(&ObjectKey::of(Kind::ListenerSet, name));
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

    /// The routes that want to attach to something that goes along, and the Services that they name.
    fn routes(&mut self) {
        let all = self.all;
        for key in all.keys() {
            let Some(route) = route_of(all, &key).filter(|route| self.attaches(route)) else {
                continue;
            };
            for (_, backend) in &route.backends {
                let namespace = backend.namespace.as_deref().unwrap_or(&key.namespace);
                self.services.insert(NamespacedName::new(namespace, &backend.name));
            }
            self.take(&key);
        }
    }

    fn attaches(&self, route: &Route<'_>) -> bool {
        route.parents().any(|(kind, name)| match kind {
            Kind::ListenerSet => self.some.listener_sets.contains_key(&name),
            _ => self.some.gateways.contains_key(&name),
        })
    }

    /// Takes an object along, if it is there.
    fn take(&mut self, key: &ObjectKey) {
        if let Some(object) = self.all.get(key) {
            self.some.insert(object.without_status());
        }
    }

    fn services(&mut self) {
        for name in &self.services {
            let service = self.all.services.get(name).cloned().map(Object::Service);
            let backend = self.all.backends.get(name).cloned().map(Object::Backend);
            let named = service.into_iter().chain(backend);
            named.for_each(|object| self.some.insert(object.without_status()));
        }
        for (name, slice) in &self.all.endpoint_slices {
            let is_named = service_of(slice).is_some_and(|service| {
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
            let mut about = services_of_policy(name, policy);
            if !about.any(|(service, _)| self.services.contains(&service)) {
                continue;
            }
            for reference in &policy.spec.validation.ca_certificate_refs {
                self.authority(&reference.kind, &name.namespace, &reference.name);
            }
            self.take(&ObjectKey::of(Kind::BackendTlsPolicy, name));
        }
    }

    /// The L4Policies about something that goes along: of several about one thing all, since one of them has it.
    fn l4_policies(&mut self) {
        for (name, policy) in &self.all.l4_policies {
            let is_here = |target: &L4PolicyTarget| {
                let name = NamespacedName::new(&name.namespace, &target.name);
                match target.kind.as_str() {
                    "Gateway" => self.some.gateways.contains_key(&name),
                    "ListenerSet" => self.some.listener_sets.contains_key(&name),
                    "TCPRoute" => self.some.tcp_routes.contains_key(&name),
                    "UDPRoute" => self.some.udp_routes.contains_key(&name),
                    _ => self.services.contains(&name),
                }
            };
            if policy.spec.target_refs.iter().any(is_here) {
                self.take(&ObjectKey::of(Kind::L4Policy, name));
            }
        }
    }

    fn small_kinds(&mut self) {
        self.some.reference_grants = self.all.reference_grants.clone();
        self.some.address_pools = self.all.address_pools.clone();
        self.some.gateway_parameters = self.all.gateway_parameters.clone();
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
---
apiVersion: penstock.dev/v1alpha1
kind: L4Policy
metadata: {name: pa}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: a}]
  listener: {mode: dnat}
---
apiVersion: penstock.dev/v1alpha1
kind: L4Policy
metadata: {name: pb}
spec:
  targetRefs: [{group: '', kind: Service, name: sb}, {group: penstock.dev, kind: Backend, name: none}]
  backend: {healthCheck: {tcp: {}}}
---
apiVersion: penstock.dev/v1alpha1
kind: Backend
metadata: {name: nobodys}
spec: {endpoints: []}
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
                "L4Policy default/pa",
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
                "L4Policy default/pb",
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
