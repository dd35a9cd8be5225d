//! Random objects, as an operator may write them: odd ones, and such as fit together.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

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
        "{namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}",
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
    let sets = vec![
        "{namespaces: {from: All}}",
        "{namespaces: {from: Same}}",
        "{namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}",
        "{namespaces: {from: Odd}}",
    ];
    let created = vec!["2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"];
    let parameters = vec![
        "{parametersRef: {group: penstock.dev, kind: GatewayParameters, name: a}}",
        "{parametersRef: {group: penstock.dev, kind: GatewayParameters, name: b}}",
    ];
    (
        (name(), namespace(), field("creationTimestamp", created)),
        select(vec!["penstock", "penstock", "penstock", "other", "nobody"]),
        vec(address, 0..3),
        vec(listener(), 0..4),
        field("allowedListeners", sets),
        field("infrastructure", parameters),
    )
        .prop_map(|((name, namespace, created), class, addresses, listeners, sets, parameters)| {
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
                 metadata: {{name: {name}, namespace: {namespace}{created}}}\n\
                 spec: {{gatewayClassName: {class}, addresses: [{}], listeners: [{}]{sets}{parameters}}}\n",
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
    let selectors =
        vec!["{matchLabels: {kubernetes.io/metadata.name: shop}}", "{matchLabels: {team: a}}"];
    (name(), vec(addresses, 1..3), field("gatewayNamespaces", selectors)).prop_map(
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

/// What listeners do, or what is done about backends; now and then something that cannot be done.
fn settings() -> impl Strategy<Value = &'static str> {
    select(vec![
        "listener: {mode: dnat}",
        "listener: {mode: ipip, onUnknown: reset}",
        "listener: {affinity: {by: source}}",
        "listener: {sourceRanges: [192.0.2.0/24]}",
        "listener: {timeouts: {tcp-established: 1h}}",
        "listener: {rateLimit: {}}",
        "listener: {mode: odd}",
        "backend: {healthCheck: {tcp: {}}}",
        "backend: {healthCheck: {http: {}}}",
        "backend: {proxyProtocol: v2}",
    ])
}

fn l4_policy() -> impl Strategy<Value = String> {
    let kinds = select(vec![
        "gateway.networking.k8s.io, kind: Gateway",
        "gateway.networking.k8s.io, kind: ListenerSet",
        "gateway.networking.k8s.io, kind: TCPRoute",
        "penstock.dev, kind: Backend",
        "'', kind: Service",
    ]);
    let section = field("sectionName", vec!["a", "b"]);
    let target = (kinds, name(), section)
        .prop_map(|(kind, name, section)| format!("{{group: {kind}, name: {name}{section}}}"));
    let created = vec!["2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"];
    (name(), namespace(), field("creationTimestamp", created), vec(target, 1..3), settings())
        .prop_map(|(name, namespace, created, targets, settings)| {
            format!(
                "apiVersion: penstock.dev/v1alpha1\nkind: L4Policy\n\
                 metadata: {{name: {name}, namespace: {namespace}{created}}}\n\
                 spec: {{targetRefs: [{}], {settings}}}\n",
                targets.join(", ")
            )
        })
}

fn parameters() -> impl Strategy<Value = String> {
    let pools = field("addressPools", vec!["[a]", "[b, a]"]);
    let sharing = field("addressSharingKey", vec!["x", "y"]);
    let all = (name(), namespace(), settings(), pools, sharing);
    all.prop_map(|(name, namespace, settings, pools, sharing)| {
        format!(
            "apiVersion: penstock.dev/v1alpha1\nkind: GatewayParameters\n\
             metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{settings}{pools}{sharing}}}\n"
        )
    })
}

fn own_backend() -> impl Strategy<Value = String> {
    let endpoint = select(vec![
        "{address: 10.0.0.1, port: 80}",
        "{address: 10.0.0.2}",
        "{address: 224.0.0.1, port: 1}",
        "{address: '2001:db8::1', draining: true}",
        "{hostname: db.example.com, port: 5432}",
        "{}",
    ]);
    (name(), namespace(), vec(endpoint, 0..4)).prop_map(|(name, namespace, endpoints)| {
        format!(
            "apiVersion: penstock.dev/v1alpha1\nkind: Backend\n\
             metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{endpoints: [{}]}}\n",
            endpoints.join(", ")
        )
    })
}

fn backend() -> impl Strategy<Value = String> {
    (
        name(),
        field("namespace", vec!["shop", "default"]),
        field("port", vec!["80", "80", "80", "53", "9"]),
        field("weight", vec!["0", "1", "3", "70", "1000000", "-1"]),
        field(
            "kind",
            vec![
                "Service",
                "Service",
                "Pod",
                "Backend, group: penstock.dev",
                "Backend, group: penstock.dev",
            ],
        ),
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
    let types = vec![
        "ExternalName",
        "ClusterIP",
        "LoadBalancer",
        "LoadBalancer, loadBalancerClass: penstock.dev/l4",
        "LoadBalancer, loadBalancerClass: penstock.dev/l4, loadBalancerIP: 192.0.2.1",
        "LoadBalancer, loadBalancerClass: penstock.dev/l4, loadBalancerSourceRanges: [10.0.0.0/8]",
    ];
    (name(), namespace(), ports, field("type", types)).prop_map(
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

fn class(name: &str, controller: &str, more: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: {name}}}\n\
         spec: {{controllerName: {controller}{more}}}\n"
    )
}

fn any_class() -> impl Strategy<Value = String> {
    let controllers = vec!["penstock.dev/gateway-controller", "example.com/x"];
    let parameters = field("parametersRef", vec!["{group: x, kind: Y, name: z}"]);
    let all = (select(vec!["penstock", "penstock", "other"]), select(controllers), parameters);
    all.prop_map(|(name, controller, parameters)| class(name, controller, &parameters))
}

fn a_namespace() -> impl Strategy<Value = String> {
    (select(vec!["default", "shop"]), field("labels", vec!["{team: a}", "{team: b}"])).prop_map(
        |(name, labels)| {
            format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}{labels}}}\n")
        },
    )
}

/// What a Secret with a good certificate holds, as one of the golden tests has it.
fn certificate() -> &'static str {
    let golden = include_str!("../golden/a_certificate_in_another_namespace_needs_a_grant/in.yaml");
    let from = &golden[golden.find("stringData:").unwrap()..];
    &from[..from.find("\n---\n").unwrap() + 1]
}

fn secret() -> impl Strategy<Value = String> {
    let good = format!("kubernetes.io/tls\n{}", certificate());
    let odd = good.replace("tls.key: |", "tls.other: |");
    let rest = select(vec![good.clone(), good, odd, "Opaque\n".to_owned()]);
    (name(), namespace(), rest).prop_map(|(name, namespace, rest)| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             type: {rest}"
        )
    })
}

fn config_map() -> impl Strategy<Value = String> {
    let pem = certificate().split("  tls.key").next().unwrap().replace("tls.crt", "ca.crt");
    let good = pem.replace("stringData", "data");
    (name(), namespace(), select(vec![good, "data: {}\n".to_owned()])).prop_map(
        |(name, namespace, data)| {
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
                 {data}"
            )
        },
    )
}

/// One object of any kind that is read.
pub(crate) fn object() -> impl Strategy<Value = String> {
    prop_oneof![
        5 => gateway(), 8 => route(), 3 => service(), 4 => slice(), 2 => grant(), 4 => listener_set(),
        1 => pool(), 2 => policy(), 5 => l4_policy(), 2 => parameters(), 3 => own_backend(), 1 => any_class(), 1 => a_namespace(), 1 => secret(), 1 => config_map(),
    ]
}

/// A class of ours, and one of another's.
pub(crate) fn classes() -> Vec<String> {
    vec![
        class("penstock", "penstock.dev/gateway-controller", ""),
        class("other", "example.com/x", ""),
    ]
}

/// One object that is well-formed, and meant to meet others: what random ones seldom do.
pub(crate) fn fitting() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => fitting_gateway(), 3 => fitting_set(), 8 => fitting_route(), 3 => fitting_service(),
        6 => fitting_slice(), 2 => grant(), 2 => fitting_policy(), 1 => fitting_pool(), 1 => a_namespace(),
        1 => secret(), 1 => config_map(),
    ]
}

/// When an object was made: the order of names is not that of ages.
fn created() -> impl Strategy<Value = String> {
    field("creationTimestamp", vec!["2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"])
}

fn fitting_listeners() -> impl Strategy<Value = String> {
    let all = vec![
        "{name: a, protocol: TCP, port: 80, allowedRoutes: {namespaces: {from: All}}}",
        "{name: b, protocol: TCP, port: 81, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: \
         {team: a}}}}}",
        "{name: c, protocol: UDP, port: 80, allowedRoutes: {namespaces: {from: All}}}",
        "{name: d, protocol: HTTP, port: 82, hostname: a.example.com, allowedRoutes: {namespaces: {from: All}}}",
        "{name: e, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: a, namespace: default}]}}",
        "{name: f, protocol: HTTPS, port: 443, hostname: '*.example.com', tls: {certificateRefs: [{name: a}]}}",
        "{name: g, protocol: TCP, port: 82}",
    ];
    proptest::sample::subsequence(all, 1..5).prop_map(|listeners| listeners.join(", "))
}

fn fitting_gateway() -> impl Strategy<Value = String> {
    let addresses = vec!["", "{value: 192.0.2.1}", "{value: 192.0.2.1}, {}", "{value: 192.0.2.2}"];
    let sets = vec!["All", "All", "Same", "Selector, selector: {matchLabels: {team: a}}"];
    let modes =
        field("annotations", vec!["{penstock.dev/mode: l2-dsr}", "{penstock.dev/mode: ipip}"]);
    let names = (select(vec!["a", "a", "b"]), namespace(), created(), modes);
    (names, select(addresses), fitting_listeners(), select(sets)).prop_map(
        |((name, namespace, created, modes), addresses, listeners, sets)| {
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
                 metadata: {{name: {name}, namespace: {namespace}{created}{modes}}}\n\
                 spec: {{gatewayClassName: penstock, addresses: [{addresses}], listeners: [{listeners}], \
                 allowedListeners: {{namespaces: {{from: {sets}}}}}}}\n"
            )
        },
    )
}

fn fitting_set() -> impl Strategy<Value = String> {
    let parents = vec!["a, namespace: default", "a, namespace: shop", "b, namespace: default"];
    ((name(), namespace(), created()), select(parents), fitting_listeners()).prop_map(
        |((name, namespace, created), parent, listeners)| {
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\n\
                 metadata: {{name: {name}, namespace: {namespace}{created}}}\n\
                 spec: {{parentRef: {{name: {parent}}}, listeners: [{listeners}]}}\n"
            )
        },
    )
}

fn fitting_route() -> impl Strategy<Value = String> {
    let parents = vec![
        "{name: a, namespace: default}",
        "{name: a, namespace: shop}",
        "{name: a, namespace: default, sectionName: a}",
        "{name: b, namespace: default, port: 81}",
        "{name: a, namespace: default, kind: ListenerSet}",
        "{name: b, namespace: shop, kind: ListenerSet}",
    ];
    let backends = vec![
        "{name: a, port: 80}",
        "{name: b, port: 80}",
        "{name: a, namespace: shop, port: 80}",
        "{name: b, namespace: default, port: 80}",
    ];
    let parents = proptest::sample::subsequence(parents, 1..3);
    let backends = proptest::sample::subsequence(backends, 1..3);
    let kinds = vec!["TCPRoute", "TCPRoute", "TCPRoute", "UDPRoute", "HTTPRoute"];
    (select(kinds), (name(), namespace(), created()), parents, backends).prop_map(
        |(kind, (name, namespace, created), parents, backends)| {
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
                 metadata: {{name: {name}, namespace: {namespace}{created}}}\n\
                 spec: {{parentRefs: [{}], rules: [{{backendRefs: [{}]}}]}}\n",
                parents.join(", "),
                backends.join(", ")
            )
        },
    )
}

fn fitting_service() -> impl Strategy<Value = String> {
    let ports = vec![
        "[{name: x, port: 80}, {name: y, port: 80, protocol: UDP}]",
        "[{name: x, port: 80}, {name: y, port: 80, protocol: UDP}]",
        "[{name: x, port: 80}]",
    ];
    (select(vec!["a", "b"]), namespace(), select(ports)).prop_map(|(name, namespace, ports)| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{ports: {ports}}}\n"
        )
    })
}

fn fitting_slice() -> impl Strategy<Value = String> {
    let v4 = vec!["[10.0.0.1]", "[10.0.0.2]", "[10.0.0.3], conditions: {ready: false}"];
    let v6 = vec!["['2001:db8::1']", "['2001:db8::2']"];
    let endpoints = prop_oneof![
        3 => proptest::sample::subsequence(v4, 0..4).prop_map(|found| ("IPv4", found)),
        1 => proptest::sample::subsequence(v6, 1..3).prop_map(|found| ("IPv6", found)),
    ];
    ((name(), namespace()), select(vec!["a", "b"]), endpoints).prop_map(
        |((name, namespace), service, (family, endpoints))| {
            let endpoints = endpoints.iter().map(|at| format!("{{addresses: {at}}}"));
            format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {{name: {name}, namespace: {namespace}, labels: \
                 {{kubernetes.io/service-name: {service}}}}}\naddressType: {family}\n\
                 ports: [{{name: x, port: 8080}}, {{name: y, port: 53, protocol: UDP}}]\nendpoints: [{}]\n",
                endpoints.collect::<Vec<_>>().join(", ")
            )
        },
    )
}

fn fitting_policy() -> impl Strategy<Value = String> {
    let sections = field("sectionName", vec!["x"]);
    let all = ((name(), namespace(), created()), select(vec!["a", "b"]), sections);
    all.prop_map(|((name, namespace, created), service, section)| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
             metadata: {{name: {name}, namespace: {namespace}{created}}}\n\
             spec: {{targetRefs: [{{group: '', kind: Service, name: {service}{section}}}], \
             validation: {{hostname: h, caCertificateRefs: [{{group: '', kind: ConfigMap, name: a}}]}}}}\n"
        )
    })
}

fn fitting_pool() -> impl Strategy<Value = String> {
    let selectors = field("gatewayNamespaces", vec!["{matchLabels: {team: a}}"]);
    (select(vec!["192.0.2.0/29", "192.0.2.2-192.0.2.3"]), selectors).prop_map(
        |(addresses, selector)| {
            format!(
                "apiVersion: penstock.dev/v1alpha1\nkind: AddressPool\nmetadata: {{name: a}}\n\
             spec: {{addresses: [{addresses}]{selector}}}\n"
            )
        },
    )
}
