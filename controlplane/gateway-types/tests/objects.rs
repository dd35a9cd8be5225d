//! Each kind is read whole, and written as it was read.

use penstock_gateway_types::k8s_openapi::{Metadata, Resource};
use penstock_gateway_types::{Gateway, GatewayClass, ReferenceGrant, TCPRoute, UDPRoute};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Reads `object` as a `T` and writes it again.
fn round_trip<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let read: T = serde_json::from_value(object.clone()).unwrap();
    serde_json::to_value(read).unwrap()
}

fn object(kind: &str, spec: &Value, status: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": "x", "namespace": "default", "labels": {"a": "b"}, "generation": 3},
        "spec": spec,
    });
    if !status.is_null() {
        object["status"] = status.clone();
    }
    object
}

fn condition() -> Value {
    json!({
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "m",
        "observedGeneration": 3, "lastTransitionTime": "2024-01-01T00:00:00Z",
    })
}

#[test]
fn what_is_read_is_what_is_written() {
    let class = json!({
        "controllerName": "c", "description": "d",
        "parametersRef": {"group": "g", "kind": "k", "name": "n", "namespace": "s"},
    });
    let class_status =
        json!({"conditions": [condition()], "supportedFeatures": [{"name": "TCPRoute"}]});
    let written = object("GatewayClass", &class, &class_status);
    assert_eq!(round_trip::<GatewayClass>(&written), written);

    let written = object("Gateway", &full_gateway(), &gateway_status());
    assert_eq!(round_trip::<Gateway>(&written), written);

    let parent = json!({
        "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "n", "name": "web",
        "sectionName": "tcp", "port": 80,
    });
    let backend = json!({"group": "", "kind": "Service", "name": "b", "namespace": "n", "port": 80, "weight": 0});
    let route = json!({"parentRefs": [parent], "rules": [{"name": "r", "backendRefs": [backend]}]});
    let status = json!({"parents": [{"parentRef": parent, "controllerName": "c", "conditions": [condition()]}]});
    let written = object("TCPRoute", &route, &status);
    assert_eq!(round_trip::<TCPRoute>(&written), written);
    let written = object("UDPRoute", &route, &status);
    assert_eq!(round_trip::<UDPRoute>(&written), written);

    let grant = json!({
        "from": [{"group": "gateway.networking.k8s.io", "kind": "TCPRoute", "namespace": "n"}],
        "to": [{"group": "", "kind": "Service"}, {"group": "", "kind": "Service", "name": "one"}],
    });
    let written = object("ReferenceGrant", &grant, &Value::Null);
    assert_eq!(round_trip::<ReferenceGrant>(&written), written);
}

fn full_gateway() -> Value {
    let secret = json!({"group": "", "kind": "Secret", "name": "s", "namespace": "n"});
    let selector = json!({
        "matchLabels": {"a": "b"},
        "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}],
    });
    let validation = json!({
        "validation": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}], "mode": "AllowValidOnly"},
    });
    json!({
        "gatewayClassName": "penstock",
        "addresses": [{"type": "IPAddress", "value": "192.0.2.1"}, {"type": "Odd"}],
        "listeners": [
            {"name": "tcp", "protocol": "TCP", "port": 80,
             "allowedRoutes": {"namespaces": {"from": "Selector", "selector": selector}, "kinds": [{"group": "g", "kind": "TCPRoute"}]}},
            {"name": "https", "protocol": "HTTPS", "port": 443, "hostname": "example.com",
             "tls": {"mode": "Terminate", "certificateRefs": [secret], "options": {"o": "p"}}},
        ],
        "infrastructure": {"labels": {"a": "b"}, "annotations": {"c": "d"}, "parametersRef": {"group": "g", "kind": "k", "name": "n"}},
        "allowedListeners": {"namespaces": {"from": "All"}},
        "tls": {"backend": {"clientCertificateRef": secret}, "frontend": {"default": validation, "perPort": [{"port": 443, "tls": validation}]}},
    })
}

fn gateway_status() -> Value {
    json!({
        "addresses": [{"type": "IPAddress", "value": "192.0.2.1"}],
        "attachedListenerSets": 0,
        "conditions": [condition()],
        "listeners": [{
            "name": "tcp", "supportedKinds": [], "attachedRoutes": 1, "conditions": [condition()],
        }],
    })
}

#[test]
fn a_listener_without_kinds_says_so() {
    let status = json!({"listeners": [{"name": "x", "attachedRoutes": 0}]});
    let spec = json!({"gatewayClassName": "p", "listeners": []});
    let written = round_trip::<Gateway>(&object("Gateway", &spec, &status));
    assert_eq!(written["status"]["listeners"][0]["supportedKinds"], json!([]));
}

#[test]
fn each_kind_is_what_kube_asks_for() {
    fn named<T: Resource + Metadata>() -> (&'static str, &'static str, &'static str) {
        (T::API_VERSION, T::KIND, T::URL_PATH_SEGMENT)
    }
    let v1 = "gateway.networking.k8s.io/v1";
    assert_eq!(named::<GatewayClass>(), (v1, "GatewayClass", "gatewayclasses"));
    assert_eq!(named::<Gateway>(), (v1, "Gateway", "gateways"));
    assert_eq!(named::<TCPRoute>(), (v1, "TCPRoute", "tcproutes"));
    assert_eq!(named::<UDPRoute>(), (v1, "UDPRoute", "udproutes"));
    assert_eq!(named::<ReferenceGrant>(), (v1, "ReferenceGrant", "referencegrants"));
}
