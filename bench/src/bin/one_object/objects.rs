//! A site of so many routes, and changes of it.

use penstock_controlplane::object::{self, Kind, Object, ObjectKey};
use serde_json::{Value, json};

use super::rig::Outcome;

/// Listeners to a Gateway; the last of them has no route.
const LISTENERS: usize = 64;
const ENDPOINTS: usize = 10;
const CREATED: &str = "2026-01-01T00:00:00Z";

/// So many routes, Services and ten times as many endpoints.
#[derive(Clone, Copy)]
pub(super) struct Site {
    pub(super) routes: usize,
}

/// An object that comes, changes or goes.
pub(super) enum Change {
    Put(Object),
    Remove(ObjectKey),
}

fn read(kind: Kind, value: Value) -> Outcome<Object> {
    let mut value = value;
    value["metadata"]["creationTimestamp"] = CREATED.into();
    value["metadata"]["uid"] = "7e3a2c4e-8f5e-4a39-9d3c-2f6b6d0c1a55".into();
    value["metadata"]["generation"] = 1.into();
    Ok(object::deserialize(kind, value)?)
}

impl Site {
    fn gateways(&self) -> usize {
        self.routes.div_ceil(LISTENERS - 1)
    }

    /// Every object.
    pub(super) fn objects(&self) -> Outcome<Vec<Object>> {
        let class = json!({"metadata": {"name": "penstock"},
            "spec": {"controllerName": "penstock.dev/gateway-controller"}});
        let mut all = vec![read(Kind::GatewayClass, class)?];
        for gateway in 0..self.gateways() {
            all.extend(Self::owner(gateway, None)?);
        }
        for route in 0..self.routes {
            all.push(Self::route(route / (LISTENERS - 1), route % (LISTENERS - 1), route)?);
            all.push(Self::service(route)?);
            all.push(Self::slice(route, None)?);
        }
        Ok(all)
    }

    /// A Gateway, or one with a ListenerSet: every other is so. One listener may have another port.
    fn owner(gateway: usize, other: Option<usize>) -> Outcome<Vec<Object>> {
        let listener = |index: usize| {
            let port = if other == Some(index) { 20_000 } else { 10_000 } + index;
            json!({"name": format!("l{index}"), "protocol": "TCP", "port": port})
        };
        let listeners: Vec<_> = (0..LISTENERS).map(listener).collect();
        let by_set = gateway % 2 == 1;
        let own = json!([{"name": "own", "protocol": "TCP", "port": 9}]);
        let address = format!("10.{}.{}.1", 100 + gateway / 250, gateway % 250);
        let mut all = vec![read(
            Kind::Gateway,
            json!({"metadata": {"name": format!("g{gateway}"), "namespace": "default"}, "spec": {
                "gatewayClassName": "penstock",
                "addresses": [{"value": address}],
                "allowedListeners": {"namespaces": {"from": "Same"}},
                "listeners": if by_set { own } else { json!(listeners) },
            }}),
        )?];
        if by_set {
            all.push(read(
                Kind::ListenerSet,
                json!({"metadata": {"name": format!("s{gateway}"), "namespace": "default"}, "spec": {
                    "parentRef": {"name": format!("g{gateway}")},
                    "listeners": listeners,
                }}),
            )?);
        }
        Ok(all)
    }

    fn route(gateway: usize, listener: usize, service: usize) -> Outcome<Object> {
        let (kind, name) = match gateway % 2 {
            0 => ("Gateway", format!("g{gateway}")),
            _ => ("ListenerSet", format!("s{gateway}")),
        };
        read(
            Kind::TcpRoute,
            json!({"metadata": {"name": format!("r{gateway}-{listener}"), "namespace": "default"}, "spec": {
                "parentRefs": [{"kind": kind, "name": name, "sectionName": format!("l{listener}")}],
                "rules": [{"backendRefs": [{"name": format!("v{service}"), "port": 80}]}],
            }}),
        )
    }

    fn service(number: usize) -> Outcome<Object> {
        let name = format!("v{number}");
        read(
            Kind::Service,
            json!({"metadata": {"name": name, "namespace": "default"},
                "spec": {"ports": [{"name": "tcp", "port": 80, "protocol": "TCP"}],
                    "selector": {"app": name}, "type": "ClusterIP"}}),
        )
    }

    /// The endpoints of a Service, of which one may be unready.
    fn slice(number: usize, unready: Option<usize>) -> Outcome<Object> {
        let endpoint = |at: usize| {
            let n = number * 16 + at;
            json!({"addresses": [format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255)],
                "conditions": {"ready": unready != Some(at)}})
        };
        let endpoints: Vec<_> = (0..ENDPOINTS).map(endpoint).collect();
        read(
            Kind::EndpointSlice,
            json!({"metadata": {"name": format!("v{number}-x"), "namespace": "default",
                    "labels": {"kubernetes.io/service-name": format!("v{number}")}},
                "addressType": "IPv4",
                "ports": [{"name": "tcp", "port": 8080, "protocol": "TCP"}],
                "endpoints": endpoints}),
        )
    }

    /// Another place each round, all over the site.
    fn chosen(round: usize, of: usize) -> usize {
        round.wrapping_mul(2_654_435_761) % of
    }

    pub(super) fn route_created(&self, round: usize) -> Outcome<Change> {
        let gateway = Self::chosen(round, self.gateways());
        let service = Self::chosen(round, self.routes);
        Ok(Change::Put(Self::route(gateway, LISTENERS - 1, service)?))
    }

    pub(super) fn route_removed(&self, round: usize) -> Outcome<Change> {
        match self.route_created(round)? {
            Change::Put(route) => Ok(Change::Remove(route.key())),
            Change::Remove(key) => Ok(Change::Remove(key)),
        }
    }

    pub(super) fn endpoint_changed(&self, round: usize) -> Outcome<Change> {
        // The same Service twice: its endpoint goes, and comes back.
        let number = Self::chosen(round / 2, self.routes);
        let unready = round.is_multiple_of(2).then_some(round % ENDPOINTS);
        Ok(Change::Put(Self::slice(number, unready)?))
    }

    pub(super) fn listener_changed(&self, round: usize) -> Outcome<Change> {
        let gateway = Self::chosen(round / 2, self.gateways());
        let other = round.is_multiple_of(2).then_some(round / 2 % LISTENERS);
        let changed = Self::owner(gateway, other)?.pop();
        Ok(Change::Put(changed.ok_or("a Gateway is at least itself")?))
    }

    pub(super) fn gateway_created(&self, round: usize) -> Outcome<Change> {
        let gateway = json!({"metadata": {"name": "new", "namespace": "default"}, "spec": {
            "gatewayClassName": "penstock",
            "addresses": [{"value": "10.99.0.1"}],
            "listeners": [{"name": "own", "protocol": "TCP", "port": 9}],
        }});
        let gateway = read(Kind::Gateway, gateway)?;
        Ok(match round % 2 {
            0 => Change::Put(gateway),
            _ => Change::Remove(gateway.key()),
        })
    }

    /// What has to happen before a change can, without being counted.
    pub(super) fn before(&self, kind: &str, round: usize) -> Outcome<Option<Change>> {
        match kind {
            "route_created" => self.route_removed(round).map(Some),
            "route_removed" => self.route_created(round).map(Some),
            _ => Ok(None),
        }
    }
}
