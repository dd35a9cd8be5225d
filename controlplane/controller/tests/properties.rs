//! What holds for any set of objects, and for any text.

use std::path::Path;

use penstock_controlplane::manifest;
use penstock_controlplane::object::{Object, Objects};
use penstock_controlplane::source::folder::Texts;
use penstock_controlplane::status::{self, Progress, Stamp, Statuses};
use penstock_controlplane::store::Store;
use penstock_controlplane::translate::{Known, Translation, translate, translate_with};
use penstock_feed::model::Protocol;
use penstock_gateway_types::Time;
use penstock_gateway_types::k8s_openapi::jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A few names, so that references meet, miss and collide.
fn name() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b", "c"])
}

fn namespace() -> impl Strategy<Value = &'static str> {
    select(vec!["default", "default", "shop"])
}

/// Nothing, or a field with one of these values.
fn field(key: &'static str, values: Vec<&'static str>) -> impl Strategy<Value = String> {
    proptest::option::weighted(0.4, select(values))
        .prop_map(move |value| value.map(|value| format!(", {key}: {value}")).unwrap_or_default())
}

fn listener() -> impl Strategy<Value = String> {
    let allowed = vec![
        "{namespaces: {from: All}}",
        "{namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: shop}}}}",
        "{namespaces: {from: Odd}}",
        "{kinds: [{kind: UDPRoute}]}",
    ];
    (
        name(),
        select(vec!["TCP", "TCP", "UDP", "HTTP", "HTTP", "HTTPS", "TLS", "ODD"]),
        select(vec!["80", "80", "53", "443", "0", "70000", "-1"]),
        field("allowedRoutes", allowed),
        field("hostname", vec!["a.example.com", "'*.example.com'", "''"]),
        select(vec![
            "{mode: Passthrough}",
            "{certificateRefs: [{name: a}]}",
            "{certificateRefs: [{name: b, namespace: shop}]}",
            "{mode: Odd}",
        ]),
    )
        .prop_map(|(name, protocol, port, allowed, hostname, tls)| {
            let hostname = if matches!(protocol, "TCP" | "UDP") { String::new() } else { hostname };
            let tls = match protocol {
                "HTTPS" | "TLS" => format!(", tls: {tls}"),
                _ => String::new(),
            };
            format!("{{name: {name}, protocol: {protocol}, port: {port}{allowed}{hostname}{tls}}}")
        })
}

fn gateway() -> impl Strategy<Value = String> {
    let address = select(vec![
        "{value: 192.0.2.1}",
        "{value: 192.0.2.1}",
        "{value: 192.0.2.2}",
        "{value: 127.0.0.1}",
        "{value: '::1'}",
        "{type: Hostname, value: x}",
        "{}",
    ]);
    let mode = vec!["{penstock.dev/mode: dnat}", "{penstock.dev/mode: odd}"];
    let sets = vec![
        "{namespaces: {from: All}}",
        "{namespaces: {from: Same}}",
        "{namespaces: {from: Odd}}",
    ];
    let created = vec!["2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"];
    (
        (name(), namespace(), field("annotations", mode), field("creationTimestamp", created)),
        select(vec!["penstock", "penstock", "penstock", "other", "nobody"]),
        vec(address, 0..3),
        vec(listener(), 0..4),
        field("allowedListeners", sets),
    )
        .prop_map(|((name, namespace, mode, created), class, addresses, listeners, sets)| {
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
                 metadata: {{name: {name}, namespace: {namespace}{mode}{created}}}\n\
                 spec: {{gatewayClassName: {class}, addresses: [{}], listeners: [{}]{sets}}}\n",
                addresses.join(", "),
                listeners.join(", ")
            )
        })
}

fn listener_set() -> impl Strategy<Value = String> {
    let created = vec!["2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"];
    (
        (name(), namespace(), field("creationTimestamp", created)),
        name(),
        field("namespace", vec!["default", "shop"]),
        vec(listener(), 1..4),
    )
        .prop_map(|((name, namespace, created), gateway, of, listeners)| {
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\n\
                 metadata: {{name: {name}, namespace: {namespace}{created}}}\n\
                 spec: {{parentRef: {{name: {gateway}{of}}}, listeners: [{}]}}\n",
                listeners.join(", ")
            )
        })
}

fn pool() -> impl Strategy<Value = String> {
    let addresses = select(vec!["192.0.2.0/30", "192.0.2.1-192.0.2.2", "'2001:db8::/126'", "odd"]);
    let selector = "{matchLabels: {kubernetes.io/metadata.name: shop}}";
    (name(), vec(addresses, 1..3), field("gatewayNamespaces", vec![selector])).prop_map(
        |(name, addresses, selector)| {
            format!(
                "apiVersion: penstock.dev/v1alpha1\nkind: AddressPool\nmetadata: {{name: {name}}}\n\
                 spec: {{addresses: [{}]{selector}}}\n",
                addresses.join(", ")
            )
        },
    )
}

fn policy() -> impl Strategy<Value = String> {
    let authority = select(vec![
        "caCertificateRefs: [{group: '', kind: ConfigMap, name: a}]",
        "caCertificateRefs: [{group: '', kind: Secret, name: a}]",
        "wellKnownCACertificates: System",
    ]);
    (name(), namespace(), name(), authority).prop_map(|(name, namespace, service, authority)| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
             metadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{targetRefs: [{{group: '', kind: Service, name: {service}}}], \
             validation: {{hostname: h, {authority}}}}}\n"
        )
    })
}

fn backend() -> impl Strategy<Value = String> {
    (
        name(),
        field("namespace", vec!["shop", "default"]),
        field("port", vec!["80", "80", "80", "53", "9"]),
        field("weight", vec!["0", "1", "3", "70", "1000000", "-1"]),
        field("kind", vec!["Service", "Service", "Pod"]),
    )
        .prop_map(|(name, namespace, port, weight, kind)| {
            format!("{{name: {name}{namespace}{port}{weight}{kind}}}")
        })
}

fn route() -> impl Strategy<Value = String> {
    let parent = (
        name(),
        field("kind", vec!["ListenerSet", "Gateway", "Service"]),
        field("namespace", vec!["default", "shop"]),
        field("sectionName", vec!["a", "b", "z"]),
        field("port", vec!["80", "53", "1"]),
    )
        .prop_map(|(name, kind, namespace, section, port)| {
            format!("{{name: {name}{kind}{namespace}{section}{port}}}")
        });
    let rule = vec(backend(), 0..4)
        .prop_map(|backends| format!("{{backendRefs: [{}]}}", backends.join(", ")));
    let created = vec!["2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"];
    (
        select(vec!["TCPRoute", "TCPRoute", "UDPRoute", "HTTPRoute", "GRPCRoute", "TLSRoute"]),
        (name(), namespace(), field("creationTimestamp", created)),
        vec(parent, 0..3),
        vec(rule, 0..3),
    )
        .prop_map(|(kind, (name, namespace, created), parents, rules)| {
            let hosts = match kind {
                "TCPRoute" | "UDPRoute" => "",
                _ => ", hostnames: [a.example.com, '*.b.example.com']",
            };
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
                 metadata: {{name: {name}, namespace: {namespace}{created}}}\n\
                 spec: {{parentRefs: [{}], rules: [{}]{hosts}}}\n",
                parents.join(", "),
                rules.join(", ")
            )
        })
}

fn service() -> impl Strategy<Value = String> {
    let ports = select(vec![
        "[{port: 80}]",
        "[{name: x, port: 80}, {name: y, port: 53, protocol: UDP}]",
        "[{port: 53, protocol: UDP}]",
        "[]",
    ]);
    (name(), namespace(), ports, field("type", vec!["ExternalName", "ClusterIP"])).prop_map(
        |(name, namespace, ports, type_)| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
                 spec: {{ports: {ports}{type_}}}\n"
            )
        },
    )
}

fn slice() -> impl Strategy<Value = String> {
    let address = select(vec!["10.0.0.1", "10.0.0.2", "10.0.0.3", "0.0.0.0", "x"]);
    let endpoint = (
        address,
        field(
            "conditions",
            vec!["{ready: false}", "{ready: false, serving: true, terminating: true}"],
        ),
    )
        .prop_map(|(address, conditions)| format!("{{addresses: [{address}]{conditions}}}"));
    let ports = select(vec![
        "[{port: 8080}]",
        "[{name: x, port: 8080}, {name: y, port: 5353, protocol: UDP}]",
        "[{port: 70000}]",
        "[]",
    ]);
    (
        (name(), namespace(), field("labels", vec!["{kubernetes.io/service-name: a}", "{kubernetes.io/service-name: b}"])),
        select(vec!["IPv4", "IPv4", "IPv4", "IPv6"]),
        ports,
        vec(endpoint, 0..4),
    )
        .prop_map(|((name, namespace, labels), family, ports, endpoints)| {
            format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {{name: {name}, namespace: {namespace}{labels}}}\naddressType: {family}\n\
                 ports: {ports}\nendpoints: [{}]\n",
                endpoints.join(", ")
            )
        })
}

fn grant() -> impl Strategy<Value = String> {
    (name(), namespace(), namespace()).prop_map(|(name, to, from)| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\n\
             metadata: {{name: {name}, namespace: {to}}}\n\
             spec: {{from: [{{group: gateway.networking.k8s.io, kind: TCPRoute, namespace: {from}}}], \
             to: [{{group: '', kind: Service}}]}}\n"
        )
    })
}

/// A set of objects: some classes, and many of the rest; of one name only the first.
fn objects() -> impl Strategy<Value = Vec<String>> {
    let class = |name: &str, controller: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: {name}}}\n\
             spec: {{controllerName: {controller}}}\n"
        )
    };
    let classes =
        vec![class("penstock", "penstock.dev/gateway-controller"), class("other", "example.com/x")];
    let any = prop_oneof![
        4 => gateway(), 6 => route(), 3 => service(), 4 => slice(), 1 => grant(), 3 => listener_set(),
        1 => pool(), 1 => policy(),
    ];
    vec(any, 0..24).prop_map(move |mut texts| {
        texts.extend(classes.clone());
        let mut seen = Vec::new();
        texts.retain(|text| {
            let head: Vec<_> = text.lines().skip(1).take(2).collect();
            // kind, name and namespace, without what follows
            let key = head.join(" ").split(", ").take(2).collect::<String>().replace('}', "");
            let new = !seen.contains(&key);
            seen.push(key);
            new
        });
        texts
    })
}

fn translation(objects: &Objects) -> Translation {
    let translation = translate(objects);
    assert_eq!(translation.state.check(), [], "a data plane would refuse the state");
    sound(objects, &translation);
    is_kept(objects, &translation);
    let (now, previous) = (Time(Timestamp::UNIX_EPOCH), Statuses::new());
    let stamp = Stamp { now: &now, previous: &previous };
    for progress in [
        Progress::default(),
        Progress {
            acknowledged: Some(translation.state.clone()),
            l7: Some(translation.l7.clone()),
            ..Progress::default()
        },
    ] {
        let statuses = status::conclude(objects, &translation, &progress, &stamp);
        for object in statuses.values() {
            round_trip(object);
        }
    }
    translation
}

/// What holds of any translation: a place has one owner, and every answer is of an object that is there.
fn sound(objects: &Objects, translation: &Translation) {
    let forwarded: Vec<_> = translation
        .state
        .listeners
        .iter()
        .map(|(_, l)| (l.vip, l.protocol, l.ports.first()))
        .collect();
    for place in translation.l7.places.keys() {
        let both = forwarded.contains(&(place.ip(), Protocol::Tcp, place.port()));
        assert!(!both, "{place} is the data plane's and the L7 tier's");
    }
    let answered =
        translation.gateways.iter().map(|(name, gateway)| (name, gateway.listeners.len()));
    for (name, listeners) in answered {
        assert_eq!(objects.gateways[name].spec.listeners.len(), listeners, "{name}");
    }
}

/// What a Gateway has stays its own, whoever comes.
fn is_kept(objects: &Objects, first: &Translation) {
    let known = Known { held: Some(&first.addresses), ..Known::default() };
    let second = translate_with(objects, known);
    assert_eq!(first.addresses, second.addresses);
    assert_eq!(first.state, second.state);
}

/// A status file reads as the object it was written from.
fn round_trip(object: &Object) {
    let text = serde_saphyr::to_string(object).unwrap();
    let contents = manifest::read("status.yaml", &text);
    assert_eq!(contents.findings, [], "{text}");
    assert_eq!(&contents.manifests[0].object, object, "{text}");
}

/// Enough for every run; `PROPTEST_CASES` asks for more, up to what takes a few minutes, since a case
/// translates three times and reads every status back.
fn cases() -> ProptestConfig {
    let asked =
        std::env::var_os("PROPTEST_CASES").map(|_| ProptestConfig::default().cases.min(2000));
    ProptestConfig::with_cases(asked.unwrap_or(64))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_order_of_objects_and_files_means_nothing(
        texts in objects(), order in vec(any::<Index>(), 24), files in 1_usize..5
    ) {
        let whole = manifest::read("all.yaml", &texts.join("---\n"));
        prop_assert!(whole.findings.iter().all(|f| !f.message.contains("given twice")));
        let straight = translation(&whole.manifests.into_iter().map(|m| m.object).collect());

        let mut shuffled = texts;
        for (at, other) in order.iter().enumerate().take(shuffled.len()) {
            let other = other.index(shuffled.len());
            shuffled.swap(at, other);
        }
        let mut split = vec![String::new(); files];
        for (at, text) in shuffled.iter().enumerate() {
            split[at % files].push_str(&format!("{text}---\n"));
        }
        let mut objects = Objects::default();
        for text in &split {
            for found in manifest::read("part.yaml", text).manifests {
                objects.insert(found.object);
            }
        }
        prop_assert_eq!(straight, translation(&objects));
    }

    #[test]
    fn what_is_saved_is_what_is_loaded(texts in objects()) {
        let now = Time(Timestamp::UNIX_EPOCH);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("objects.json");
        let mut store = Store::default();
        store.update(Texts::from([("all.yaml".to_owned(), Ok(texts.join("---\n")))]));
        let before = store.in_force(&now);
        store.save(&file).unwrap();
        let after = Store::load(&file).unwrap().in_force(&now);
        prop_assert_eq!(before.objects, after.objects);
        prop_assert_eq!(before.origins, after.origins);
    }

    #[test]
    fn no_text_can_do_harm(
        promise in any::<Index>(), cut in any::<Index>(), until in any::<Index>(), noise in "[\\PC\n]{0,12}"
    ) {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let mut promises: Vec<_> = std::fs::read_dir(golden).unwrap().map(|e| e.unwrap().path()).collect();
        promises.sort();
        let mut text = std::fs::read_to_string(promise.get(&promises).join("in.yaml")).unwrap();
        let (a, b) = (cut.index(text.len()), until.index(text.len()));
        let (from, to) = (a.min(b), a.max(b).min(a.min(b) + 40));
        if text.is_char_boundary(from) && text.is_char_boundary(to) {
            text.replace_range(from..to, &noise);
        }
        let contents = manifest::read("in.yaml", &text);
        translation(&contents.manifests.into_iter().map(|m| m.object).collect());
    }
}
