//! Backends that no Service knows, and whether they are well: asked by the box, and by nobody else.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::network::{Lab, answering, wait_for};
use crate::site::Site;
use crate::{BACKENDS, FULL_NAT_VIP};

const HELD: &str = "200";
/// A few questions at 200 ms, and what this machine adds.
const PROMPTLY: Duration = Duration::from_secs(10);

/// Three backends by their addresses, asked by TCP and by UDP. Connections of a backend that left would be reset, so that
/// those of one that is not well show that it has not.
fn site() -> Site {
    let site = Site::new();
    let listeners = [("http", "TCP", 80), ("echo", "UDP", 5300)];
    site.governed("web", FULL_NAT_VIP, "onRemoval: {action: reset}", &listeners);
    let check = "interval: 200ms, timeout: 150ms, rise: 2, fall: 2, failOpenAbovePercent: 60";
    for (name, kind, listener, port, question) in [
        ("web", "TCPRoute", "http", 80, "tcp: {}"),
        ("echo", "UDPRoute", "echo", 5300, "udp: {send: hello, expect: backend}"),
    ] {
        let endpoints = BACKENDS[..3].iter().map(|address| format!("  - {{address: {address}}}\n"));
        site.write(
            &format!("backend-{name}"),
            &format!(
                "apiVersion: penstock.dev/v1alpha1\nkind: Backend\nmetadata: {{name: {name}}}\nspec:\n  \
                 endpoints:\n{}---\n\
                 apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  \
                 parentRefs: [{{name: web, sectionName: {listener}}}]\n  rules:\n  - backendRefs:\n    \
                 - {{group: penstock.dev, kind: Backend, name: {name}, port: {port}}}\n---\n\
                 apiVersion: penstock.dev/v1alpha1\nkind: L4Policy\nmetadata: {{name: check-{name}}}\nspec:\n  \
                 targetRefs: [{{group: penstock.dev, kind: Backend, name: {name}}}]\n  \
                 backend: {{healthCheck: {{{question}, {check}}}}}\n",
                endpoints.collect::<String>()
            ),
        );
    }
    site
}

/// What the control process said of itself last, whether or not it runs now.
fn control(lab: &Lab) -> Value {
    let file = lab.directory().join("run/controlplane.json");
    let said = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_slice(&said).expect("a report is whole")
}

fn health(lab: &Lab) -> Value {
    control(lab)["health"].take()
}

fn wait_for_unhealthy(lab: &Lab, what: &str, count: u64) {
    wait_for(what, PROMPTLY, || (health(lab)["unhealthy"] == count).then_some(()));
    // The change is on its way as soon as it is known.
    wait_for("it is acknowledged", PROMPTLY, || {
        let control = control(lab);
        (control["generation"] == control["acknowledged"]).then_some(())
    });
}

/// Takes no new connections from now on; those that it has go on.
fn stop(lab: &Lab, host: &str) {
    let rules = "add table inet stop
        add chain inet stop input { type filter hook input priority 0; }
        add rule inet stop input tcp dport 80 tcp flags & (syn | ack) == syn reject with tcp reset";
    lab.on(host, &["nft", rules]);
}

fn start_again(lab: &Lab, host: &str) {
    lab.on(host, &["nft", "delete table inet stop"]);
}

/// Who answers new connections, none of which may fail.
fn new_connections(lab: &Lab) -> Vec<String> {
    let to = format!("{FULL_NAT_VIP}:80");
    let report = lab.peer("client2", &["connect", &to, "--count", "300"]);
    assert_eq!(report["ok"], 300, "{report}");
    answering(&report)
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn a_backend_that_is_not_well_keeps_its_connections_and_gets_no_new_ones() {
    let site = site();
    let lab = Lab::up(&site, &["--workers", "2"]);
    // Before the box had its routes, none was well. What was asked since is answered well.
    let before = health(&lab)["answers"].as_u64().expect("a number");
    wait_for("all six are asked and well", PROMPTLY, || {
        let health = health(&lab);
        let answers = health["answers"].as_u64().expect("a number") - before;
        (health["backends"] == 6 && health["unhealthy"] == 0 && answers > 24).then_some(())
    });
    wait_for_unhealthy(&lab, "all are in force", 0);
    assert_eq!(new_connections(&lab), ["backend1", "backend2", "backend3"]);
    let mut held =
        lab.start_peer("client1", &["hold", &format!("{FULL_NAT_VIP}:80"), "--count", HELD]);
    assert_eq!(held.report()["opened"].to_string(), HELD);

    stop(&lab, "backend1");
    wait_for_unhealthy(&lab, "backend1 is found out", 1);
    assert_eq!(new_connections(&lab), ["backend2", "backend3"], "none to the one that is stopped");
    for (kind, name) in [("L4Policy", "check-web"), ("Backend", "web")] {
        let file = format!("status/{kind}/default/{name}.yaml");
        let status = std::fs::read_to_string(lab.directory().join("run").join(file)).expect("read");
        assert!(status.contains("unhealthy: 1") && status.contains("10.10.0.11:80"), "{status}");
    }

    // A process of ours that comes back knows it, and tells the data plane nothing.
    let killed = lab.kill("penstock-controlplane");
    wait_for("it is back and asks", PROMPTLY, || {
        let control = control(&lab);
        let health = &control["health"];
        let asks = health["answers"].as_u64() > Some(0) && health["unhealthy"] == 1;
        (control["pid"] != killed && asks).then_some(())
    });
    thread::sleep(Duration::from_secs(1));
    let control = control(&lab);
    assert_eq!(
        (&control["publishes"]["delta"], &control["publishes"]["snapshot"]),
        (&0.into(), &0.into())
    );
    assert_eq!(new_connections(&lab), ["backend2", "backend3"]);

    // Two of three are more than 60 of 100: then all serve, and it shows.
    stop(&lab, "backend2");
    wait_for_unhealthy(&lab, "backend2 is found out", 2);
    assert_eq!(health(&lab)["fail_open"], serde_json::json!(["Backend default/web 80/tcp"]));

    start_again(&lab, "backend1");
    start_again(&lab, "backend2");
    wait_for_unhealthy(&lab, "both are back", 0);
    assert_eq!(new_connections(&lab), ["backend1", "backend2", "backend3"]);
    let report = held.stop();
    assert_eq!(report["alive"].to_string(), HELD, "{report}");
    assert_eq!((&report["resets"], &report["moved"]), (&0.into(), &0.into()), "{report}");
    eprintln!("  {}", health(&lab));
}
