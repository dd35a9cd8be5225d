//! Each kind is read whole, and written as it was read.

use penstock_gateway_types::k8s_openapi::{Metadata, Resource};
use penstock_gateway_types::{
    AddressPool, BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet,
    ReferenceGrant, TCPRoute, TLSRoute, UDPRoute,
};
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

#[test]
fn routes_of_the_l7_tier_are_written_as_they_were_read() {
    let parent = json!({"kind": "ListenerSet", "name": "more"});
    let mirror = json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m", "port": 80}, "percent": 5, "fraction": {"numerator": 1}}});
    let filters = json!([
        mirror, {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}]}},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["a"]}},
        {"type": "RequestRedirect", "requestRedirect": {"statusCode": 301}}, {"type": "URLRewrite", "urlRewrite": {"hostname": "h"}},
        {"type": "CORS", "cors": {"maxAge": 5}}, {"type": "ExternalAuth", "externalAuth": {"protocol": "GRPC"}},
        {"type": "FromTheFuture"}, {"type": "ExtensionRef", "extensionRef": {"group": "g", "kind": "k", "name": "n"}},
    ]);
    let backend = json!({"group": "", "kind": "Service", "name": "b", "namespace": "n", "port": 80, "weight": 2, "filters": filters});
    let rule = json!({
        "name": "r", "matches": [{"path": {"type": "Exact", "value": "/"}}], "filters": filters, "backendRefs": [backend],
        "timeouts": {"request": "1s"}, "retry": {"attempts": 2}, "sessionPersistence": {"type": "Cookie"},
    });
    let spec = json!({"parentRefs": [parent], "hostnames": ["*.example.com"], "rules": [rule]});
    let written = object("HTTPRoute", &spec, &Value::Null);
    assert_eq!(round_trip::<HTTPRoute>(&written), written);

    let rule = json!({"matches": [{"method": {"service": "s"}}], "filters": [mirror], "backendRefs": [backend]});
    let spec = json!({"parentRefs": [parent], "hostnames": ["a.example.com"], "rules": [rule]});
    let written = object("GRPCRoute", &spec, &Value::Null);
    assert_eq!(round_trip::<GRPCRoute>(&written), written);

    let rule = json!({"name": "r", "backendRefs": [{"name": "b", "port": 443}]});
    let spec = json!({"parentRefs": [parent], "hostnames": ["a.example.com"], "rules": [rule]});
    let written = object("TLSRoute", &spec, &json!({"parents": []}));
    assert_eq!(round_trip::<TLSRoute>(&written), written);
}

#[test]
fn listener_sets_policies_and_pools_are_written_as_they_were_read() {
    let listeners = full_gateway()["listeners"].clone();
    let parent = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g", "namespace": "n"});
    let status = json!({"conditions": [condition()], "listeners": [{
        "name": "tcp", "supportedKinds": [], "attachedRoutes": 1, "conditions": [condition()],
    }]});
    let spec = json!({"parentRef": parent, "listeners": listeners});
    let written = object("ListenerSet", &spec, &status);
    assert_eq!(round_trip::<ListenerSet>(&written), written);

    let spec = json!({
        "targetRefs": [{"group": "", "kind": "Service", "name": "s", "sectionName": "https"}],
        "validation": {
            "hostname": "h", "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}],
            "wellKnownCACertificates": "System",
            "subjectAltNames": [{"type": "URI", "uri": "spiffe://a/b"}, {"type": "Odd"}],
        },
        "options": {"a": "b"},
    });
    let ancestor =
        json!({"ancestorRef": parent, "controllerName": "c", "conditions": [condition()]});
    let written = object("BackendTLSPolicy", &spec, &json!({"ancestors": [ancestor]}));
    assert_eq!(round_trip::<BackendTLSPolicy>(&written), written);

    let mut written = object(
        "AddressPool",
        &json!({"addresses": ["192.0.2.0/28"], "gatewayNamespaces": {"matchLabels": {"a": "b"}}}),
        &Value::Null,
    );
    written["apiVersion"] = json!("penstock.dev/v1alpha1");
    assert_eq!(round_trip::<AddressPool>(&written), written);
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
    assert_eq!(named::<ListenerSet>(), (v1, "ListenerSet", "listenersets"));
    assert_eq!(named::<TLSRoute>(), (v1, "TLSRoute", "tlsroutes"));
    assert_eq!(named::<HTTPRoute>(), (v1, "HTTPRoute", "httproutes"));
    assert_eq!(named::<GRPCRoute>(), (v1, "GRPCRoute", "grpcroutes"));
    assert_eq!(named::<BackendTLSPolicy>(), (v1, "BackendTLSPolicy", "backendtlspolicies"));
    let own = "penstock.dev/v1alpha1";
    assert_eq!(named::<AddressPool>(), (own, "AddressPool", "addresspools"));
    assert_eq!(AddressPool::GROUP, "penstock.dev");
    assert_eq!(AddressPool::VERSION, "v1alpha1");
    assert_eq!(named::<ReferenceGrant>(), (v1, "ReferenceGrant", "referencegrants"));
}
