//! Ten thousand connections leave nothing behind.

use std::time::Duration;

use crate::network::{Lab, wait_for};
use crate::site::{Endpoint::Ready, Site};
use crate::{BACKENDS, DNAT_VIP, FULL_NAT_VIP};

const CONNECTIONS: u64 = 10_000;
/// Longer than any of the lab's short timeouts.
const EMPTY_AFTER: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn ten_thousand_connections_leave_no_flow_and_no_mbuf_behind() {
    let site = Site::new();
    for (name, vip, mode) in [("nat", FULL_NAT_VIP, "full-nat"), ("direct", DNAT_VIP, "dnat")] {
        site.gateway(name, vip, mode, &[("http", "TCP", 80)]);
        site.route("TCP", (name, "http"), 80, &[("web", 1)]);
    }
    site.service("web", "TCP", 80, &BACKENDS.map(Ready));
    let lab = Lab::up(&site, &["--workers", "2", "--short-timeouts"]);
    // First a little of everything, so that what is allocated once has been.
    connect(&lab, "client1", FULL_NAT_VIP, 100);
    connect(&lab, "client2", DNAT_VIP, 100);
    let before = quiet_mbufs(&lab);
    connect(&lab, "client1", FULL_NAT_VIP, CONNECTIONS);
    connect(&lab, "client2", DNAT_VIP, CONNECTIONS);
    let after = quiet_mbufs(&lab);
    assert_eq!(after, before, "mbufs in use while nothing is under way");
}

fn connect(lab: &Lab, client: &str, vip: &str, count: u64) {
    let (to, number) = (format!("{vip}:80"), count.to_string());
    let arguments = ["connect", &to, "--count", &number, "--concurrency", "20"];
    let report = lab.peer(client, &arguments);
    assert_eq!(report["ok"], count, "{report}");
    let [p50, p99, most] =
        ["p50_ms", "p99_ms", "max_ms"].map(|name| report[name].as_f64().unwrap_or(f64::NAN));
    eprintln!(
        "  {count} connections to {vip}: p50 {p50:.1} ms, p99 {p99:.1} ms, at most {most:.1} ms"
    );
}

/// Waits until no worker has a flow left; then the mbufs in use are those in descriptors.
fn quiet_mbufs(lab: &Lab) -> u64 {
    wait_for("the flow tables are empty", EMPTY_AFTER, || {
        (lab.counted("workers", "", "flows") == 0).then_some(())
    });
    // The count is taken once a second or so: two equal ones in a row are settled.
    let mut last = lab.counted("ports", "", "mbufs_in_use");
    wait_for("the mbuf count is steady", EMPTY_AFTER, || {
        std::thread::sleep(Duration::from_millis(1500));
        let now = lab.counted("ports", "", "mbufs_in_use");
        let steady = now == last;
        last = now;
        steady.then_some(now)
    })
}
