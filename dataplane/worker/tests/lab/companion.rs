//! What becomes of the service when somebody lays hands on the companion interface, or on a route by
//! one of our addresses.

use std::fs;
use std::time::Duration;

use crate::network::{Lab, wait_for};
use crate::site::{Endpoint::Ready, Site};
use crate::{BACKENDS, FULL_NAT_VIP};

/// Full NAT over one worker.
fn lab() -> (Site, Lab) {
    let site = Site::new();
    site.gateway("web", FULL_NAT_VIP, "full-nat", &[("http", "TCP", 80)]);
    site.service("web", "TCP", 80, &BACKENDS.map(Ready));
    site.route("TCP", ("web", "http"), 80, &[("web", 1)]);
    let lab = Lab::up(&site, &[]);
    (site, lab)
}

/// The data plane's log from its line `first` on, those with `WARN` or worse.
fn warnings(lab: &Lab, first: usize) -> Vec<String> {
    let log = log(lab);
    let bad =
        log.lines().skip(first).filter(|line| line.contains("WARN") || line.contains("ERROR"));
    bad.map(str::to_owned).collect()
}

fn log(lab: &Lab) -> String {
    let path = lab.directory().join("log/penstock-dataplane.log");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// New connections, none of which may fail.
fn serves(lab: &Lab, when: &str) {
    let report = lab.peer("client1", &["connect", &format!("{FULL_NAT_VIP}:80"), "--count", "200"]);
    assert_eq!(report["ok"], 200, "{when}: {report}");
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn a_renamed_companion_serves_on() {
    let (_site, lab) = lab();
    serves(&lab, "before");
    let lines = log(&lab).lines().count();
    lab.on("box", &["ip", "link", "set", "pst0", "name", "foo0"]);
    serves(&lab, "under its new name");
    lab.on("box", &["ip", "neighbour", "flush", "dev", "foo0"]);
    serves(&lab, "and when nobody is known");
    let told = warnings(&lab, lines);
    assert!(told.len() == 1 && told[0].contains("pst0") && told[0].contains("foo0"), "{told:#?}");
    lab.on("box", &["ip", "link", "set", "foo0", "name", "pst0"]);
    serves(&lab, "and back");
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn a_deleted_companion_is_told_of_once_and_comes_again() {
    let (_site, lab) = lab();
    let lines = log(&lab).lines().count();
    lab.on("box", &["ip", "link", "delete", "pst0"]);
    wait_for("the companion is opened anew", Duration::from_secs(10), || {
        log(&lab)
            .lines()
            .skip(lines)
            .any(|line| line.contains("companion opened anew"))
            .then_some(())
    });
    lab.on("box", &["ip", "address", "replace", "10.10.0.2/24", "dev", "pst0"]);
    lab.on("box", &["ip", "route", "replace", "10.10.1.0/24", "via", "10.10.0.1"]);
    wait_for("the VIP is there again", Duration::from_secs(10), || {
        let addresses = lab.on("box", &["ip", "-brief", "address", "show", "pst0"]);
        addresses.contains(FULL_NAT_VIP).then_some(())
    });
    serves(&lab, "again");
    let told = warnings(&lab, lines);
    assert!(told.len() == 1 && told[0].contains("companion lost"), "{told:#?}");
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn a_vip_that_becomes_a_router_serves_on_and_after_a_restart() {
    let (_site, lab) = lab();
    let lines = log(&lab).lines().count();
    lab.on("box", &["ip", "route", "add", "10.77.0.0/24", "via", FULL_NAT_VIP, "dev", "pst0"]);
    wait_for("the operator is told", Duration::from_secs(5), || {
        (!warnings(&lab, lines).is_empty()).then_some(())
    });
    serves(&lab, "with a route by it");
    let killed = lab.kill("penstock-dataplane");
    wait_for("another process serves", Duration::from_secs(10), || {
        lab.pid("penstock-dataplane").filter(|pid| *pid != killed)?;
        let report =
            lab.peer("client1", &["connect", &format!("{FULL_NAT_VIP}:80"), "--count", "1"]);
        (report["ok"] == 1).then_some(())
    });
    serves(&lab, "after a restart");
    let told = warnings(&lab, lines);
    let of_the_vip = told.iter().filter(|line| line.contains("has become the router of a route"));
    assert_eq!(of_the_vip.count(), 2, "once by each process: {told:#?}");
}
