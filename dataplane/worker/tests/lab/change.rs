//! A change of backends concerns new connections only.

use std::time::Duration;

use crate::network::{Lab, answering, wait_for};
use crate::site::{Endpoint, Endpoint::Draining, Endpoint::Ready, Site};
use crate::{BACKENDS, DNAT_VIP, FULL_NAT_VIP};

const HELD: &str = "200";

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn draining_and_adding_backends_disturbs_no_connection() {
    for (mode, vip, workers) in [("full-nat", FULL_NAT_VIP, "1"), ("dnat", DNAT_VIP, "2")] {
        eprintln!("  {mode} with {workers} worker(s)");
        changes_under_load(mode, vip, workers);
    }
}

fn backends(site: &Site, endpoints: &[Endpoint]) {
    site.service("web", "TCP", 80, endpoints);
}

fn changes_under_load(mode: &str, vip: &str, workers: &str) {
    let [one, two, three, four] = BACKENDS;
    let site = Site::new();
    site.gateway("web", vip, mode, &[("http", "TCP", 80)]);
    site.route("TCP", ("web", "http"), 80, &[("web", 1)]);
    backends(&site, &[Ready(one), Ready(two), Ready(three)]);
    let lab = Lab::up(&site, &["--workers", workers]);
    let to = format!("{vip}:80");

    let mut held = lab.start_peer("client1", &["hold", &to, "--count", HELD]);
    assert_eq!(held.report()["opened"].to_string(), HELD);
    // 64 MiB at 4 MB/s: longer than all that follows.
    let mut download = lab.start_peer("client2", &["download", &to, "--path", "/slow-pattern"]);

    lab.change("backend1 drains", || backends(&site, &[Draining(one), Ready(two), Ready(three)]));
    assert_eq!(new_connections(&lab, &to), ["backend2", "backend3"], "none to the draining one");
    lab.change("backend4 is added", || {
        backends(&site, &[Draining(one), Ready(two), Ready(three), Ready(four)]);
    });
    assert_eq!(new_connections(&lab, &to), ["backend2", "backend3", "backend4"]);
    lab.change("backend1 is back", || backends(&site, &BACKENDS.map(Ready)));
    assert_eq!(new_connections(&lab, &to).len(), 4);

    let report = download.report();
    assert_eq!((&report["complete"], &report["reset"]), (&true.into(), &false.into()), "{report}");
    let report = held.stop();
    assert_eq!(report["alive"].to_string(), HELD, "{report}");
    assert_eq!(
        (report["resets"].as_u64(), report["moved"].as_u64()),
        (Some(0), Some(0)),
        "{report}"
    );
    assert!(report["backends"]["backend1"].as_u64() > Some(0), "the drained one kept its own");
}

/// Who answers new connections, none of which may fail.
fn new_connections(lab: &Lab, to: &str) -> Vec<String> {
    let report = lab.peer("client2", &["connect", to, "--count", "300"]);
    assert_eq!(report["ok"], 300, "{report}");
    answering(&report)
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn listeners_that_go_keep_their_connections_and_then_their_addresses_go() {
    let site = Site::new();
    let gateways = [("nat", FULL_NAT_VIP, "full-nat"), ("direct", DNAT_VIP, "dnat")];
    for (name, vip, mode) in gateways {
        site.gateway(name, vip, mode, &[("http", "TCP", 80)]);
        site.route("TCP", (name, "http"), 80, &[("web", 1)]);
    }
    backends(&site, &BACKENDS.map(Ready));
    let lab = Lab::up(&site, &["--workers", "2", "--wrong-queue", "--short-timeouts"]);
    let mut held = gateways.map(|(_, vip, _)| {
        lab.start_peer("client1", &["hold", &format!("{vip}:80"), "--count", HELD])
    });
    for held in &mut held {
        assert_eq!(held.report()["opened"].to_string(), HELD);
    }
    lab.change("both Gateways are removed", || {
        gateways.iter().for_each(|(name, ..)| site.remove(name));
    });
    std::thread::sleep(Duration::from_secs(5)); // each connection asks again, several times
    for (_, vip, _) in gateways {
        let report = lab.peer("client2", &["connect", &format!("{vip}:80"), "--count", "20"]);
        assert_eq!(report["ok"], 0, "{vip} takes no new ones: {report}");
        assert!(addresses(&lab).contains(vip), "{vip} is still needed");
    }
    for held in held {
        let report = held.stop();
        assert_eq!(report["alive"].to_string(), HELD, "{report}");
        assert_eq!(report["resets"], 0, "{report}");
    }
    wait_for("the VIPs are the box's no more", Duration::from_secs(60), || {
        let addresses = addresses(&lab);
        gateways.iter().all(|(_, vip, _)| !addresses.contains(vip)).then_some(())
    });
}

fn addresses(lab: &Lab) -> String {
    lab.on("box", &["ip", "-brief", "address", "show", "pst0"])
}
