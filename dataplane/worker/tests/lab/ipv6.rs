//! IPv6 is served as IPv4 is, beside it: VIPs, SNAT addresses, backends and next hops.

use crate::network::{Lab, answering};
use crate::site::{Endpoint::Ready, Site};
use crate::{BACKENDS, BACKENDS6, DNAT_VIP6, FULL_NAT_VIP, FULL_NAT_VIP6};

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn one_worker_serves_ipv6_beside_ipv4() {
    serves(&["--workers", "1"]);
}

/// Every packet of the wire is handed over to the other worker.
#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn two_workers_serve_ipv6_whichever_gets_the_packets() {
    serves(&["--workers", "2", "--wrong-queue"]);
}

fn serves(options: &[&str]) {
    let lab = Lab::up(&site(), options);
    curl_gets_an_answer(&lab);
    connections_and_datagrams_are_answered(&lab);
    backends_see_whom_they_should(&lab);
    refused(&lab);
}

fn site() -> Site {
    let site = Site::new();
    let listeners = [("http", "TCP", 80), ("empty", "TCP", 81), ("echo", "UDP", 5300)];
    site.gateway("web", FULL_NAT_VIP6, "full-nat", &listeners);
    site.gateway("direct", DNAT_VIP6, "dnat", &[("http", "TCP", 80), ("echo", "UDP", 5300)]);
    site.gateway("old", FULL_NAT_VIP, "full-nat", &[("http", "TCP", 80)]);
    let all = BACKENDS6.map(Ready);
    site.service("pages", "TCP", 80, &all);
    site.service("first", "TCP", 80, &all[..1]);
    site.service("echo", "UDP", 5300, &all);
    site.service("nobody", "TCP", 80, &[]);
    site.service("old-pages", "TCP", 80, &BACKENDS.map(Ready));
    site.route("TCP", ("web", "http"), 80, &[("pages", 1)]);
    site.route("TCP", ("web", "empty"), 80, &[("nobody", 1)]);
    site.route("UDP", ("web", "echo"), 5300, &[("echo", 1)]);
    site.route("TCP", ("direct", "http"), 80, &[("first", 1)]);
    site.route("UDP", ("direct", "echo"), 5300, &[("echo", 1)]);
    site.route("TCP", ("old", "http"), 80, &[("old-pages", 1)]);
    site
}

fn curl_gets_an_answer(lab: &Lab) {
    for client in ["client1", "client2"] {
        for vip in [format!("[{FULL_NAT_VIP6}]"), format!("[{DNAT_VIP6}]"), FULL_NAT_VIP.to_owned()]
        {
            let url = format!("http://{vip}/");
            let said =
                lab.on(client, &["curl", "--silent", "--show-error", "--max-time", "5", &url]);
            assert!(said.starts_with("backend"), "{vip}: {said:?}");
        }
    }
}

fn connections_and_datagrams_are_answered(lab: &Lab) {
    for vip in [FULL_NAT_VIP6, DNAT_VIP6] {
        let report = lab.peer("client1", &["connect", &format!("[{vip}]:80"), "--count", "1000"]);
        assert_eq!(report["ok"], 1000, "{vip}: {report}");
        let report = lab.peer("client2", &["udp-ask", &format!("[{vip}]:5300"), "--count", "200"]);
        assert_eq!(report["ok"], 200, "{vip}: {report}");
        assert_eq!(answering(&report).len(), 4, "{vip}: {report}");
    }
}

fn backends_see_whom_they_should(lab: &Lab) {
    let (snat, client) = ("[2001:db8:10::200]:", "[2001:db8:11::11]:");
    for (vip, seen, unseen) in [(FULL_NAT_VIP6, snat, client), (DNAT_VIP6, client, snat)] {
        let to = format!("[{vip}]:80");
        let mut held = lab.start_peer("client1", &["hold", &to, "--count", "20"]);
        assert_eq!(held.report()["opened"], 20);
        let peers = lab.on("backend1", &["ss", "-Hnt", "state", "established", "sport = :80"]);
        let report = held.stop();
        assert_eq!(report["alive"], 20, "{report}");
        assert!(peers.contains(seen) && !peers.contains(unseen), "{vip}: {peers}");
    }
}

fn refused(lab: &Lab) {
    let before = lab.counted("listeners", "default/web/empty", "refused");
    let to = format!("[{FULL_NAT_VIP6}]:81");
    let report = lab.peer("client1", &["connect", &to, "--count", "20"]);
    assert_eq!(report["refused"], 20, "{report}");
    let after = lab.counted("listeners", "default/web/empty", "refused");
    assert_eq!(after - before, 20, "counted");
}
