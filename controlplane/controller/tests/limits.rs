//! What is larger than a data plane takes is left out, the youngest first, and told so.

use std::fmt::Write as _;
use std::sync::Arc;

use penstock_controlplane::manifest;
use penstock_controlplane::object::Object;
use penstock_controlplane::translate::{Translation, translate};
use penstock_feed::model::limits;
use penstock_gateway_types::EndpointSlice;
use penstock_gateway_types::k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};

const HEAD: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: penstock}
spec: {controllerName: penstock.dev/gateway-controller}
---
";

fn translated(text: &str, more: Vec<Object>) -> Translation {
    let contents = manifest::read("in.yaml", text);
    assert_eq!(contents.findings, []);
    let read = contents.manifests.into_iter().map(|m| m.object);
    let translation = translate(&read.chain(more).collect());
    assert_eq!(translation.state.check(), []);
    translation
}

/// A Gateway with `listeners` of them, younger with a higher `number`.
fn gateway(number: usize, listeners: usize) -> String {
    let (day, address) = (number % 28 + 1, number % 250 + 1);
    let (month, net) = (number / 28 + 1, number / 250);
    let listeners: Vec<_> = (1..=listeners)
        .map(|port| format!("{{name: p{port}, protocol: TCP, port: {port}}}"))
        .collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: g{number:03}, creationTimestamp: \"2024-{month:02}-{day:02}T00:00:00Z\"}}
spec: {{gatewayClassName: penstock, addresses: [{{value: 10.1.{net}.{address}}}], listeners: [{}]}}
---
",
        listeners.join(", ")
    )
}

#[test]
fn the_youngest_listeners_are_left_out_beyond_the_limit() {
    let full = limits::LISTENERS / 64;
    let mut text = HEAD.to_owned();
    for number in 0..=full {
        text += &gateway(number, 64);
    }
    let translation = translated(&text, Vec::new());
    assert_eq!(translation.state.listeners.size(), limits::LISTENERS);
    for (name, gateway) in &translation.gateways {
        let youngest = name.name == format!("g{full:03}");
        for listener in &gateway.listeners {
            assert_eq!(
                listener.serving.obstacles.is_empty(),
                !youngest,
                "{name} {}",
                listener.name
            );
        }
        let reason = if youngest { "ListenersNotValid" } else { "Accepted" };
        assert_eq!(gateway.accepted.reason, reason, "{name}");
    }
}

#[test]
fn the_youngest_listeners_of_the_l7_tier_are_left_out_beyond_its_limit() {
    let most = 16_384;
    let mut text = HEAD.to_owned();
    for number in 0..=most / 64 {
        text += &gateway(number, 64).replace("TCP", "HTTP");
    }
    let translation = translated(&text, Vec::new());
    assert_eq!(translation.state.listeners.size(), 0);
    assert_eq!(translation.l7.places.size(), most);
    let refused = translation.gateways.iter().filter(|(_, g)| g.accepted.reason != "Accepted");
    let refused: Vec<_> =
        refused.map(|(name, g)| (name.name.as_str(), g.accepted.reason)).collect();
    assert_eq!(refused, [(format!("g{:03}", most / 64).as_str(), "ListenersNotValid")]);
}

/// 1000 endpoints of Service `s<number>`.
fn slice(number: u8) -> Object {
    let endpoint = |index: u16| Endpoint {
        addresses: vec![format!("10.{}.{}.{}", number + 10, index / 250, index % 250 + 1)],
        ..Endpoint::default()
    };
    let mut slice = EndpointSlice { address_type: "IPv4".into(), ..EndpointSlice::default() };
    slice.metadata.namespace = Some("default".into());
    slice.metadata.name = Some(format!("s{number}"));
    let label = ("kubernetes.io/service-name".to_owned(), format!("s{number}"));
    slice.metadata.labels = Some([label].into());
    slice.ports = Some(vec![EndpointPort { port: Some(80), ..EndpointPort::default() }]);
    slice.endpoints = (0..1000).map(endpoint).collect();
    Object::EndpointSlice(Arc::new(slice))
}

#[test]
fn a_group_that_does_not_fit_is_left_out_with_its_listener() {
    let mut text = HEAD.to_owned();
    let mut slices = Vec::new();
    // 140 Services of 1000 endpoints, a Gateway and a route each: 140 000 members of 131 072.
    for number in 0..140_u8 {
        text += &gateway(number.into(), 1);
        let _ = write!(
            text,
            "apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {{name: r{number}}}
spec: {{parentRefs: [{{name: g{number:03}}}], rules: [{{backendRefs: [{{name: s{number}, port: 80}}]}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: s{number}}}
spec: {{ports: [{{port: 80}}]}}
---
"
        );
        slices.push(slice(number));
    }
    let translation = translated(&text, slices);
    let members: usize = translation.state.groups.values().map(|group| group.members.len()).sum();
    assert_eq!(members, 131_000);
    let served =
        translation.gateways.values().filter(|gateway| gateway.accepted.reason == "Accepted");
    assert_eq!(served.count(), 131);
    let youngest = translation.gateways.values().next_back().unwrap();
    let message = &youngest.listeners[0].serving.obstacles[0];
    assert!(message.contains("131072") && message.contains("does not fit"), "{message}");
}
