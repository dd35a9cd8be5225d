//! What `translate` comes to by what is known beside the objects.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use penstock_controlplane::manifest;
use penstock_controlplane::object::{NamespacedName, Objects};
use penstock_controlplane::translate::{Known, Translation, Truth, translate, translate_with};
use penstock_gateway_types::GatewayStatus;
use penstock_gateway_types::gateway::GatewayStatusAddress;

const HEAD: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: penstock}
spec: {controllerName: penstock.dev/gateway-controller}
---
apiVersion: penstock.dev/v1alpha1
kind: AddressPool
metadata: {name: lan}
spec: {addresses: [192.0.2.1-192.0.2.3]}
---
";

/// Gateways without addresses, the later in the alphabet the younger.
fn gateways(names: &[&str]) -> Objects {
    let mut text = HEAD.to_owned();
    for name in names {
        let day = usize::from(name.as_bytes()[0] - b'a' + 1);
        text += &format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, creationTimestamp: \"2024-01-{day:02}T00:00:00Z\"}}
spec: {{gatewayClassName: penstock, infrastructure: {{labels: {{team: web}}, annotations: {{a: b}}}}, \
             listeners: [{{name: tcp, protocol: TCP, port: 22}}]}}
---
"
        );
    }
    let contents = manifest::read("in.yaml", &text);
    assert_eq!(contents.findings, []);
    contents.manifests.into_iter().map(|manifest| manifest.object).collect()
}

fn addresses(translation: &Translation) -> Vec<(&str, String)> {
    let all = translation.addresses.iter();
    all.map(|(name, addresses)| (name.name.as_str(), addresses[0].to_string())).collect()
}

#[test]
fn an_address_stays_with_its_gateway_whoever_comes_and_goes() {
    let first = translate(&gateways(&["c", "d"]));
    assert_eq!(addresses(&first), [("c", "192.0.2.1".into()), ("d", "192.0.2.2".into())]);
    let next = |objects: &Objects, before: &Translation| {
        translate_with(objects, Known { held: Some(&before.addresses), ..Known::default() })
    };
    let older = next(&gateways(&["a", "b", "c", "d"]), &first);
    let expected = [
        ("a", "192.0.2.3".to_owned()), // the oldest of those that had none; for `b` there is none left
        ("c", "192.0.2.1".to_owned()),
        ("d", "192.0.2.2".to_owned()),
    ];
    assert_eq!(addresses(&older), expected);
    let fewer = next(&gateways(&["a", "b", "d"]), &older);
    let expected = [
        ("a", "192.0.2.3".to_owned()),
        ("b", "192.0.2.1".to_owned()),
        ("d", "192.0.2.2".to_owned()),
    ];
    assert_eq!(addresses(&fewer), expected, "what is free is given again");
}

#[test]
fn what_a_status_says_goes_before_what_one_controller_remembers() {
    let mut objects = gateways(&["a", "b"]);
    let told = "192.0.2.3".to_owned();
    for gateway in objects.gateways.values_mut() {
        if gateway.metadata.name.as_deref() == Some("b") {
            let addresses = vec![GatewayStatusAddress { type_: None, value: told.clone() }];
            let status = GatewayStatus { addresses, ..GatewayStatus::default() };
            Arc::make_mut(gateway).status = Some(status);
        }
    }
    let remembered = translate(&gateways(&["a", "b"])).addresses;
    let known = Known { held: Some(&remembered), ..Known::default() };
    let translation = translate_with(&objects, known);
    assert_eq!(addresses(&translation), [("a", "192.0.2.1".into()), ("b", told)]);
}

#[test]
fn an_address_that_no_pool_holds_any_more_is_replaced() {
    let name = NamespacedName::new("default", "a");
    let gone: IpAddr = "198.51.100.1".parse().unwrap();
    let held = BTreeMap::from([(name, vec![gone])]);
    let translation =
        translate_with(&gateways(&["a"]), Known { held: Some(&held), ..Known::default() });
    assert_eq!(addresses(&translation), [("a", "192.0.2.1".into())]);
}

#[test]
fn crds_of_another_version_are_told_and_served() {
    for (installed, supported) in
        [(None, Truth::True), (Some("v1.6.1"), Truth::True), (Some("v1.5.0"), Truth::False)]
    {
        let known = Known { bundle_version: installed, ..Known::default() };
        let translation = translate_with(&gateways(&["a"]), known);
        let conditions = &translation.classes["penstock"];
        let said: Vec<_> = conditions.iter().map(|c| (c.type_, c.status)).collect();
        assert_eq!(
            said,
            [("Accepted", Truth::True), ("SupportedVersion", supported)],
            "{installed:?}"
        );
        assert_eq!(translation.state.listeners.size(), 1, "{installed:?}");
    }
}

#[test]
fn what_belongs_on_the_service_of_a_gateway_is_told() {
    let translation = translate(&gateways(&["a"]));
    let found = &translation.infrastructure[&NamespacedName::new("default", "a")];
    let text = |map: &BTreeMap<String, String>| {
        map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(text(&found.labels), "gateway.networking.k8s.io/gateway-name=a team=web");
    assert_eq!(text(&found.annotations), "a=b");
}
