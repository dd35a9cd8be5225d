//! A listener with source ranges serves the clients in them, and nobody else hears of it; one with timeouts of its own
//! forgets what is silent by them.

use std::time::Duration;

use serde_json::Value;

use crate::network::{Lab, wait_for};
use crate::site::{Endpoint::Ready, Site};
use crate::{BACKENDS, DNAT_VIP, DNAT_VIP6, FULL_NAT_VIP, FULL_NAT_VIP6};

const CLIENT1: &str = "10.10.1.11/32, \"2001:db8:11::11/128\"";
const CLIENT2: &str = "10.10.1.12/32, \"2001:db8:11::12/128\"";
const LISTENERS: [(&str, &str, u16); 2] = [("http", "TCP", 80), ("echo", "UDP", 5300)];
const BACKENDS6: [&str; 2] = ["2001:db8:10::11", "2001:db8:10::12"];
/// Name, VIP and mode.
const GATEWAYS: [(&str, &str, &str); 4] = [
    ("nat", FULL_NAT_VIP, "full-nat"),
    ("direct", DNAT_VIP, "dnat"),
    ("nat6", FULL_NAT_VIP6, "full-nat"),
    ("direct6", DNAT_VIP6, "dnat"),
];

fn put(site: &Site, ranges: &str) {
    for (name, vip, mode) in GATEWAYS {
        let timeouts = if name == "nat" { "{udp-replied: 2s}" } else { "{}" };
        let policy = format!("mode: {mode}, sourceRanges: [{ranges}], timeouts: {timeouts}");
        site.governed(name, vip, &policy, &LISTENERS);
        let family = if vip.contains(':') { "6" } else { "" };
        site.route("TCP", (name, "http"), 80, &[(&format!("web{family}"), 1)]);
        site.route("UDP", (name, "echo"), 5300, &[(&format!("echo{family}"), 1)]);
    }
    let backends = [("", [BACKENDS[0], BACKENDS[1]]), ("6", BACKENDS6)];
    for (family, addresses) in backends {
        let endpoints = addresses.map(Ready);
        site.service(&format!("web{family}"), "TCP", 80, &endpoints);
        site.service(&format!("echo{family}"), "UDP", 5300, &endpoints);
    }
}

fn at(vip: &str, port: u16) -> String {
    if vip.contains(':') { format!("[{vip}]:{port}") } else { format!("{vip}:{port}") }
}

/// What becomes of ten connections and ten datagrams.
fn tried(lab: &Lab, client: &str, vip: &str) -> [Value; 2] {
    let [web, echo] = [at(vip, 80), at(vip, 5300)];
    let brief = ["--count", "10", "--timeout-ms", "400"];
    let connect = [&["connect", &*web][..], &brief].concat();
    let ask = [&["udp-ask", &*echo][..], &brief].concat();
    [lab.peer(client, &connect), lab.peer(client, &ask)]
}

fn are_served(lab: &Lab, client: &str) {
    for (name, vip, _) in GATEWAYS {
        for report in tried(lab, client, vip) {
            assert_eq!(report["ok"], 10, "{client}, {name}: {report}");
        }
    }
}

/// Silence: neither RST nor ICMP.
fn are_shut_out(lab: &Lab, client: &str) {
    for (name, vip, _) in GATEWAYS {
        let before = lab.counted("drops", "source_range", "packets");
        let refused = || {
            ["http", "echo"]
                .map(|it| lab.counted("listeners", &format!("default/{name}/{it}"), "refused"))
        };
        let refused_before = refused();
        for report in tried(lab, client, vip) {
            assert_eq!(report["timeouts"], 10, "{client}, {name}: {report}");
        }
        let dropped = lab.counted("drops", "source_range", "packets") - before;
        assert!(dropped >= 20, "{client}, {name}: {dropped} counted");
        for (before, after) in refused_before.into_iter().zip(refused()) {
            assert!(after - before >= 10, "{client}, {name}: {before}, then {after}");
        }
    }
}

/// How many flows of UDP a VIP has.
fn exchanges(lab: &Lab, vip: &str) -> u64 {
    let told = lab.ask(&["flows", "--vip", &at(vip, 5300), "--protocol", "udp"]);
    told["matched"].as_u64().unwrap_or_else(|| panic!("{told:#}"))
}

/// Who asks is told so, by the exit code too.
fn explained(lab: &Lab) {
    let (to, run) = (at(FULL_NAT_VIP, 80), lab.directory().join("run"));
    let explain = format!(
        "penstock explain --src 10.10.1.12:4000 --dst {to} --run-dir {}; test $? = 3",
        run.display()
    );
    let told = lab.on("box", &["bash", "-c", &explain]);
    assert!(told.contains("It is dropped: source_range."), "{told}");
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn clients_outside_the_source_ranges_hear_nothing_and_connections_outlive_a_change() {
    let site = Site::new();
    put(&site, CLIENT1);
    let lab = Lab::up(&site, &["--workers", "2", "--wrong-queue"]);
    are_served(&lab, "client1");
    wait_for("exchanges are forgotten after two seconds", Duration::from_secs(20), || {
        (exchanges(&lab, FULL_NAT_VIP) == 0).then_some(())
    });
    assert!(exchanges(&lab, DNAT_VIP) >= 10, "the other listener remembers them");
    are_shut_out(&lab, "client2");
    explained(&lab);

    let mut held = GATEWAYS.map(|(name, vip, _)| {
        (name, lab.start_peer("client1", &["hold", &at(vip, 80), "--count", "20"]))
    });
    for (name, held) in &mut held {
        assert_eq!(held.report()["opened"], 20, "{name}");
    }
    lab.change("the other client is let in, and no more the first", || put(&site, CLIENT2));
    are_served(&lab, "client2");
    are_shut_out(&lab, "client1");
    for (name, held) in held {
        let report = held.stop();
        assert_eq!(report["alive"], 20, "{name}: {report}");
    }
}
