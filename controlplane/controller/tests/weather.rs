//! The control process on an API server that is broken, lies, or is full of nonsense: nothing stops forwarding.

mod api_server;
mod appliance;
mod data_plane;
mod scene;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use api_server::{ApiServer, Rights, Seen};
use appliance::Appliance;
use data_plane::DataPlane;
use penstock_controlplane::controller::{self, Cluster, ServeBoxes};
use penstock_controlplane::metrics::Address;
use penstock_controlplane::pki::keeper::Keeper;
use scene::{class, cluster, gateway, programmed, route, until};
use serde_json::{Value, json};

/// Watches of Gateways that were opened.
fn watches(server: &ApiServer) -> usize {
    server.asked("gateways").iter().filter(|seen| seen.query.contains("watch=true")).count()
}

fn lists(server: &ApiServer) -> usize {
    let asked = server.asked("gateways");
    asked.iter().filter(|seen| seen.query.contains("sendInitialEvents=true")).count()
}

fn ports(number: usize) -> Vec<Value> {
    (0..number).map(|port| json!(80 + port)).collect()
}

#[tokio::test]
async fn watches_that_are_closed_at_once_are_not_opened_in_haste() {
    let (appliance, server) = (Appliance::new(), cluster());
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("served", || plane.listeners() == 1 && programmed(&server, "web")).await;
            server.is_hasty(true);
            let before = watches(&server);
            tokio::time::sleep(Duration::from_secs(5)).await;
            let opened = watches(&server) - before;
            assert!((1..=9).contains(&opened), "{opened} watches in 5 s");
            server.put("gateways", gateway("web", &ports(2)));
            until("a change arrives", || plane.listeners() == 2 && programmed(&server, "web"))
                .await;
        })
        .await;
}

#[tokio::test]
async fn a_server_that_asks_for_a_pause_has_it_and_is_a_warning() {
    let (appliance, server) = (Appliance::new(), cluster());
    server.retry_after(2);
    server.fail("gateways", &[429, 429]);
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("it is told", || appliance.tells("429 told to say 429")).await;
            let report = appliance.report();
            assert_eq!((&report["errors"], &report["warnings"]), (&json!(0), &json!(1)));
            until("then it serves", || plane.listeners() == 1 && programmed(&server, "web")).await;
            let at: Vec<_> = server.asked("gateways").iter().map(|seen| seen.at).collect();
            for pair in at[..3].windows(2) {
                assert!(
                    pair[1] - pair[0] >= Duration::from_millis(1900),
                    "{:?}",
                    pair[1] - pair[0]
                );
            }
            until("and it is over", || appliance.report()["warnings"] == 0).await;
        })
        .await;
}

#[tokio::test]
async fn whoever_writes_waits_as_he_is_asked() {
    let (appliance, server) = (Appliance::new(), cluster());
    server.retry_after(2);
    server.fail_patches("gateways", &[429]);
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("served", || plane.listeners() == 1 && programmed(&server, "web")).await;
            let of_status = |seen: &Seen| seen.method == "PATCH" && seen.path.ends_with("/status");
            let statuses = ["gatewayclasses", "gateways", "tcproutes"]
                .iter()
                .flat_map(|plural| server.asked(plural))
                .filter(of_status);
            let mut at: Vec<_> = statuses.map(|seen| (seen.at, seen.path)).collect();
            at.sort();
            let refused = at.iter().position(|(_, path)| path.contains("gateways/")).unwrap();
            // Others may have been under way with it.
            let longest = at[refused..].windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap();
            assert!(longest >= Duration::from_millis(1900), "{at:?}");
        })
        .await;
}

/// Versions that a server should not name, each with what is watched afterwards.
#[tokio::test]
async fn versions_that_go_back_or_repeat_lose_nothing() {
    let (appliance, server) = (Appliance::new(), cluster());
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("served", || plane.listeners() == 1 && programmed(&server, "web")).await;
            server.put_as("gateways", gateway("web", &ports(2)), 900);
            until("far ahead", || plane.listeners() == 2).await;
            server.put_as("gateways", gateway("web", &ports(3)), 900);
            until("the same again", || plane.listeners() == 3).await;
            let before = lists(&server);
            server.put_as("gateways", gateway("web", &ports(4)), 7);
            until("back", || plane.listeners() == 4).await;
            until("then everything is listed anew", || lists(&server) > before).await;
            server.put("gateways", gateway("web", &ports(5)));
            until("and goes on", || plane.listeners() == 5 && programmed(&server, "web")).await;
        })
        .await;
}

#[tokio::test]
async fn objects_of_a_megabyte_are_objects() {
    let (appliance, server) = (Appliance::new(), cluster());
    let big = "x".repeat(1 << 20);
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big", "namespace": "default"},
        "data": {"a": big}});
    server.put("configmaps", config);
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("served", || plane.listeners() == 1).await;
            let mut web = gateway("web", &ports(2));
            web["metadata"]["annotations"] = json!({"example.com/a": big, "penstock.dev/b": big});
            server.put("gateways", web);
            until("a Gateway", || plane.listeners() == 2 && programmed(&server, "web")).await;
            let mut one = gateway("names", &[]);
            one["spec"]["listeners"] = (0..64)
                .map(|at| {
                    json!({"name": format!("l{at}"), "protocol": "TCP", "port": at + 1,
                "hostname": "x".repeat(16 << 10)})
                })
                .collect();
            server.put("gateways", one);
            server.put("gateways", gateway("web", &ports(3)));
            until("and one that is refused", || plane.listeners() == 3).await;
        })
        .await;
}

#[tokio::test]
async fn ten_thousand_services_with_wrong_ports_are_counted_and_a_hundred_are_told() {
    let (appliance, server) = (Appliance::new(), cluster());
    let service = |at: usize| {
        let port = if at.is_multiple_of(2) { json!(70000 + at) } else { json!("x") };
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{at}"), "namespace": "default"},
            "spec": {"ports": [{"port": port}]}})
    };
    (0..10_000).for_each(|at| server.put("services", service(at)));
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("served", || plane.listeners() == 1 && programmed(&server, "web")).await;
            until("all are counted", || appliance.report()["errors"] == 10_000).await;
            assert_eq!(appliance.report()["refused"].as_array().map(Vec::len), Some(100));
            let start = Instant::now();
            for number in 2..12 {
                server.put("gateways", gateway("web", &ports(number)));
                until("a change is not slower for them", || plane.listeners() == number).await;
            }
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
            let good = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s0", "namespace": "default"},
                "spec": {"ports": [{"port": 80}]}});
            server.put("services", good);
            server.delete("services", "default", "s1");
            until("what is mended is not counted", || appliance.report()["errors"] == 9_998).await;
        })
        .await;
}

/// What objects say that makes no sense, each with the words by which someone is told.
#[tokio::test]
async fn nonsense_is_answered_and_nothing_stops() {
    let gw = |name: &str, listener: Value, more: Value| {
        let mut object = gateway(name, &[]);
        object["spec"]["listeners"] = json!([listener]);
        object["spec"]["addresses"] = json!([{"value": "192.0.2.77"}]);
        for (field, value) in more.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        object
    };
    let tcp = |port: i32| json!({"name": "a", "protocol": "TCP", "port": port});
    let https = json!({"name": "a", "protocol": "HTTPS", "port": 443, "tls": {"certificateRefs": [{"name": "nothing"}]}});
    let set = |name: &str, kind: &str, parent: &str| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "ListenerSet",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"parentRef": {"group": "gateway.networking.k8s.io", "kind": kind, "name": parent},
                "listeners": [tcp(7000)]}})
    };
    let to = |name: &str, kind: &str, parent: &str, backend: &str| {
        let mut object = route(parent);
        object["metadata"]["name"] = json!(name);
        object["spec"]["parentRefs"][0]["kind"] = json!(kind);
        object["spec"]["rules"][0]["backendRefs"][0]["name"] = json!(backend);
        object
    };
    let core = |kind: &str, spec: Value| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "odd", "namespace": "default"}, "spec": spec});
    let from = |from: &str| {
        let mut listener = tcp(7001);
        listener["allowedRoutes"] = json!({"namespaces": {"from": from}});
        listener
    };
    let rows: Vec<(&str, &str, Value, &str)> = vec![
        (
            "a protocol of the future",
            "gateways",
            gw("quic", json!({"name": "a", "protocol": "QUIC", "port": 1}), json!({})),
            "QUIC",
        ),
        (
            "routes from a place of the future",
            "gateways",
            gw("galaxy", from("Galaxy"), json!({})),
            "Galaxy",
        ),
        (
            "an address of the future",
            "gateways",
            gw("asn", tcp(2), json!({"addresses": [{"type": "Example", "value": "x"}]})),
            "Example",
        ),
        (
            "a TLS mode of the future",
            "gateways",
            gw(
                "tls",
                json!({"name": "a", "protocol": "TLS", "port": 3, "tls": {"mode": "Quantum"}}),
                json!({}),
            ),
            "Quantum",
        ),
        (
            "a Service of a type of the future",
            "services",
            core("Service", json!({"type": "Quantum", "ports": [{"port": 80}]})),
            "",
        ),
        (
            "a field of the future",
            "gateways",
            gw("field", tcp(4), json!({"future": {"a": [1, null]}})),
            "",
        ),
        (
            "a class that is not there",
            "gateways",
            gw("classless", tcp(5), json!({"gatewayClassName": "nothing"})),
            "GatewayClass nothing does not exist",
        ),
        (
            "a certificate that is not there",
            "gateways",
            gw("certificate", https, json!({})),
            "nothing",
        ),
        (
            "parameters that are not there",
            "gateways",
            gw(
                "parameters",
                tcp(6),
                json!({"infrastructure": {"parametersRef": {"group": "example.com", "kind": "Size", "name": "nothing"}}}),
            ),
            "Size nothing",
        ),
        (
            "a parent that is not there",
            "tcproutes",
            to("orphan", "Gateway", "nothing", "s"),
            "its parent Gateway default/nothing does not exist",
        ),
        (
            "a backend that is not there",
            "tcproutes",
            to("lost", "Gateway", "web", "nothing"),
            "default/nothing",
        ),
        ("a set that is its own parent", "listenersets", set("self", "ListenerSet", "self"), ""),
        ("two sets that are each other's", "listenersets", set("one", "ListenerSet", "two"), ""),
        ("and the other", "listenersets", set("two", "ListenerSet", "one"), ""),
        ("a route on such a set", "tcproutes", to("circle", "ListenerSet", "self", "s"), ""),
        (
            "a set of a Gateway that is not there",
            "listenersets",
            set("orphan", "Gateway", "nothing"),
            "its Gateway default/nothing does not exist",
        ),
        ("a route that is its own parent", "tcproutes", to("own", "TCPRoute", "own", "s"), ""),
    ];
    let (appliance, server) = (Appliance::new(), cluster());
    let plane = DataPlane::start(&appliance.paths);
    // A circle, and what the future may add to an object, are no fault of ours to tell: no words.
    let listens = |port: u16| {
        let commits = plane.commits();
        let last = commits.last().map(|(_, state)| std::sync::Arc::clone(state));
        last.is_some_and(|state| state.listeners.values().any(|l| l.ports.first() == port))
    };
    appliance
        .while_running(&server, async {
            until("served", || listens(80) && programmed(&server, "web")).await;
            for (row, (promise, plural, object, told)) in rows.into_iter().enumerate() {
                server.put(plural, object);
                let port = 8000 + u16::try_from(row).unwrap();
                server.put("gateways", gateway("web", &[json!(80), json!(port)]));
                until(promise, || listens(80) && listens(port) && programmed(&server, "web")).await;
                until(promise, || told.is_empty() || appliance.tells(told)).await;
            }
            assert!(listens(4), "what else is written of an object is served");
            assert!(!listens(7000), "and a set in a circle is not");
        })
        .await;
}

/// An hour passes in the time that its timers take.
#[tokio::test]
async fn an_hour_without_an_api_server_costs_nothing_but_staleness() {
    let (mut appliance, server) = (Appliance::new(), cluster());
    let socket = appliance.paths.run_dir.join("metrics.sock");
    appliance.paths.metrics = Some(Address::Unix(socket.clone()));
    let plane = DataPlane::start(&appliance.paths);
    let waits = |name: &str| number(&socket, &format!("penstock_controlplane_{name}"));
    appliance
        .while_running_long(&server, async {
            until("served", || plane.listeners() == 1 && programmed(&server, "web")).await;
            until("it leads", || appliance.report()["api_server"]["leader"] == true).await;
            let (writes, commits) = (server.writes("gateways").len(), plane.commits().len());
            server.is_gone(true);
            let before = server.requests_seen();
            tokio::time::pause();
            tokio::time::sleep(Duration::from_secs(3600)).await;
            tokio::time::resume();
            let asked = server.requests_seen() - before;
            // 16 kinds and the CRD every 2.5 to 5 s, and the Lease every 1 to 2 s.
            assert!((10_000..30_000).contains(&asked), "{asked} requests in an hour");
            assert_eq!(waits("events_waiting"), 0.0);
            assert!(waits("statuses_waiting") <= 2.0, "{}", waits("statuses_waiting"));
            assert_eq!(waits("lease_held"), 0.0);
            assert_eq!(waits("api_server_connected"), 0.0);
            assert_eq!(server.writes("gateways").len(), writes, "who does not lead writes nothing");
            assert_eq!(plane.commits().len(), commits, "and the data plane is told nothing");
            server.is_gone(false);
            server.put("gateways", gateway("web", &ports(2)));
            until("it catches up", || plane.listeners() == 2 && programmed(&server, "web")).await;
        })
        .await;
}

fn ask(socket: &std::path::Path, path: &str) -> String {
    let Ok(mut stream) = UnixStream::connect(socket) else { return String::new() };
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The value of a series; -1 if there is none.
fn number(socket: &std::path::Path, series: &str) -> f64 {
    let text = ask(socket, "/metrics");
    let value =
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or(-1.0)
}

#[tokio::test]
async fn what_is_done_is_counted() {
    let (mut appliance, server) = (Appliance::new(), cluster());
    let socket = appliance.paths.run_dir.join("metrics.sock");
    appliance.paths.metrics = Some(Address::Unix(socket.clone()));
    let of = |name: &str| number(&socket, &format!("penstock_controlplane_{name}"));
    server.put("gateways", gateway("bad", &[json!("x")]));
    server.fail_patches("gateways", &[409, 500]);
    appliance
        .while_running(&server, async {
            until("it is alive", || ask(&socket, "/healthz").starts_with("HTTP/1.1 200")).await;
            until("not ready without a data plane", || {
                ask(&socket, "/readyz").contains("the data plane is not connected")
            })
            .await;
            until("it owes its word", || of("consumer_lag_seconds{consumer=\"dataplane\"}") > 0.0)
                .await;
            let plane = DataPlane::start(&appliance.paths);
            until("served", || plane.listeners() == 1 && programmed(&server, "web")).await;
            until("ready", || ask(&socket, "/readyz").starts_with("HTTP/1.1 200")).await;
            server.close_watches();
            until("watches are opened again", || {
                of("watch_restarts_total{kind=\"Gateway\"}") >= 1.0
            })
            .await;
            server.fail("gateways", &[500]);
            server.close_watches();
            until("and fail", || of("watch_failures_total{kind=\"Gateway\"}") == 1.0).await;
            until("the beat has come", || of("lease_held") == 1.0).await;
            for (series, value) in [
                ("objects{kind=\"Gateway\"}", 1.0),
                ("objects{kind=\"GatewayClass\"}", 1.0),
                ("objects_refused{kind=\"Gateway\"}", 1.0),
                ("consumer_connected{consumer=\"dataplane\"}", 1.0),
                ("consumer_connected{consumer=\"l7\"}", 0.0),
                ("consumer_lag_seconds{consumer=\"dataplane\"}", 0.0),
                ("consumer_lag_seconds{consumer=\"l7\"}", 0.0),
                ("lease_changes_total", 1.0),
                ("status_writes_total{kind=\"Gateway\",result=\"conflict\"}", 1.0),
                ("status_writes_total{kind=\"Gateway\",result=\"failed\"}", 1.0),
                ("service_writes_total{result=\"written\"}", 1.0),
                ("statuses_failing", 0.0),
            ] {
                assert_eq!(of(series), value, "{series}\n{}", ask(&socket, "/metrics"));
            }
            assert!(of("status_writes_total{kind=\"Gateway\",result=\"written\"}") >= 1.0);
            assert!(of("translation_seconds_count") >= 1.0);
            let told = of("consumer_published_generation{consumer=\"dataplane\"}");
            assert_eq!(of("consumer_acknowledged_generation{consumer=\"dataplane\"}"), told);
            server.is_gone(true);
            until("the API server is gone", || of("api_server_connected") == 0.0).await;
            assert!(
                ask(&socket, "/readyz").starts_with("HTTP/1.1 200"),
                "it forwards all the same"
            );
        })
        .await;
}

/// What every kind says that we write a status of, and everything that they refer to.
fn everything(server: &ApiServer) {
    let object = |kind: &str, name: &str, spec: Value| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
            "metadata": {"name": name, "namespace": "default"}, "spec": spec})
    };
    let mut web = gateway("web", &ports(1));
    web["spec"]["allowedListeners"] = json!({"namespaces": {"from": "Same"}});
    let listeners = web["spec"]["listeners"].as_array_mut().unwrap();
    listeners.push(json!({"name": "udp", "protocol": "UDP", "port": 53}));
    listeners.push(json!({"name": "http", "protocol": "HTTP", "port": 8080}));
    server.put("gateways", web);
    let parent = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "web"}]);
    let backends = json!([{"name": "s", "port": 80}]);
    let rules = json!([{"backendRefs": backends}]);
    let routes = [
        ("TCPRoute", "tcproutes"),
        ("UDPRoute", "udproutes"),
        ("TLSRoute", "tlsroutes"),
        ("HTTPRoute", "httproutes"),
        ("GRPCRoute", "grpcroutes"),
    ];
    for (kind, plural) in routes {
        let mut spec = json!({"parentRefs": parent, "rules": rules});
        if kind == "TLSRoute" {
            spec["hostnames"] = json!(["a.example"]);
        }
        server.put(plural, object(kind, "r", spec));
    }
    let listener = json!({"name": "a", "protocol": "TCP", "port": 7000});
    server.put(
        "listenersets",
        object("ListenerSet", "set", json!({"parentRef": parent[0], "listeners": [listener]})),
    );
    let policy = json!({"targetRefs": [{"group": "", "kind": "Service", "name": "s"}],
        "validation": {"hostname": "a.example", "wellKnownCACertificates": "System"}});
    server.put("backendtlspolicies", object("BackendTLSPolicy", "p", policy));
    let own = |kind: &str, spec: Value| {
        json!({"apiVersion": "penstock.dev/v1alpha1", "kind": kind,
            "metadata": {"name": "own", "namespace": "default"}, "spec": spec})
    };
    let target = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "web"});
    let policy = json!({"targetRefs": [target], "listener": {"mode": "dnat"}});
    server.put("l4policies", own("L4Policy", policy));
    server.put(
        "backends",
        own("Backend", json!({"endpoints": [{"address": "10.0.0.1", "port": 80}]})),
    );
    let service = json!({"type": "LoadBalancer", "loadBalancerClass": "penstock.dev/l4",
        "loadBalancerIP": "192.0.2.11", "ports": [{"port": 80}]});
    server.put("services", json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"}, "spec": service}));
}

/// Runs through everything that it does in a cluster where it may do what the manifest says.
async fn within_its_rights(streaming: bool) -> Rights {
    let (appliance, server) = (Appliance::new(), cluster());
    server.permit(Rights::of(include_str!("../../../deploy/kubernetes/rbac.yaml")));
    everything(&server);
    if !streaming {
        server.no_streaming();
    }
    let answered = [
        ("gatewayclasses", "", "penstock"),
        ("gateways", "default", "web"),
        ("listenersets", "default", "set"),
        ("tcproutes", "default", "r"),
        ("udproutes", "default", "r"),
        ("tlsroutes", "default", "r"),
        ("httproutes", "default", "r"),
        ("grpcroutes", "default", "r"),
        ("backendtlspolicies", "default", "p"),
        ("services", "default", "s"),
        ("l4policies", "default", "own"),
        ("backends", "default", "own"),
    ];
    answered.iter().for_each(|(plural, ..)| server.fail_patches(plural, &[409]));
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("served", || plane.listeners() == 4).await;
            for (plural, namespace, name) in answered {
                until(plural, || {
                    let object = server.get(plural, namespace, name).unwrap();
                    object["status"].to_string().contains("conditions")
                })
                .await;
            }
            until("the class is kept", || {
                let class = server.get("gatewayclasses", "", "penstock").unwrap();
                class["metadata"]["finalizers"].is_array()
            })
            .await;
            let service = || server.get("services", "default", "web-penstock");
            until("its Service is there", || service().is_some()).await;
            server.put("gatewayclasses", {
                let mut other = class();
                other["metadata"]["name"] = json!("other");
                other["spec"]["controllerName"] = json!("example.com/other");
                other
            });
            let mut web = server.get("gateways", "default", "web").unwrap();
            web["spec"]["gatewayClassName"] = json!("other");
            server.put("gateways", web);
            until("and goes when its Gateway is another's", || service().is_none()).await;
            let renewals = || server.requests("leases", &http::Method::PUT).len();
            until("the Lease is renewed", || renewals() > 0).await;
        })
        .await;
    server.rights()
}

/// The same of one that serves boxes.
async fn within_its_rights_with_boxes() -> Rights {
    let (appliance, server) = (Appliance::new(), cluster());
    server.permit(Rights::of(include_str!("../../../deploy/kubernetes/rbac.yaml")));
    server.put(
        "boxes",
        json!({"apiVersion": "penstock.dev/v1alpha1", "kind": "Box",
        "metadata": {"name": "edge-1"}, "spec": {}}),
    );
    server.fail_patches("boxes", &[409]);
    let namespace = "penstock-system";
    let cluster = Cluster {
        client: server.client(),
        url: "https://api".into(),
        lease_namespace: namespace.into(),
    };
    let listen = "127.0.0.1:0".parse().unwrap();
    let boxes = ServeBoxes { listen, certificate_lifetime: Duration::from_secs(3600) };
    let scenario = async {
        until("boxes are served", || !appliance.report()["boxes"]["address"].is_null()).await;
        // As a token that is used, or a rollback.
        Keeper::secret(server.client(), namespace).pin(Some("v".into())).await.unwrap();
        until("the Box is answered", || {
            server.get("boxes", "", "edge-1").unwrap()["status"].to_string().contains("NeverSeen")
        })
        .await;
    };
    tokio::select! {
        ended = controller::run_serving(appliance.paths.clone(), Some(cluster), boxes) => panic!("it ended: {ended:?}"),
        done = tokio::time::timeout(Duration::from_secs(40), scenario) => done.expect("in time"),
    }
    server.rights()
}

/// A verb less in the manifest and something is refused; a verb more and it is not used.
#[tokio::test]
async fn the_rights_of_the_manifest_are_those_that_are_used() {
    let streamed = within_its_rights(true).await;
    let rights = within_its_rights(false).await.and_used(&streamed);
    let with_boxes = within_its_rights_with_boxes().await;
    assert_eq!(with_boxes.refused, std::collections::BTreeSet::new());
    let rights = rights.and_used(&with_boxes);
    assert_eq!(rights.refused, std::collections::BTreeSet::new());
    assert_eq!(rights.unused(), Vec::<&_>::new());
}
