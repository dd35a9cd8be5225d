//! A port with one queue, and two workers: the one that receives hands over what is the other's, and sends for it.

use std::time::Duration;

use serde_json::Value;

use crate::network::{Lab, answering, wait_for};
use crate::site::{Endpoint::Ready, Site};
use crate::{BACKENDS, BACKENDS6, DNAT_VIP, DNAT_VIP6, FULL_NAT_VIP, FULL_NAT_VIP6};

const PATTERN_BYTES: &str = "67108864";

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn a_port_with_one_queue_feeds_two_workers() {
    let lab = Lab::up(&site(), &["--workers", "2", "--receive", "software"]);
    for vip in [FULL_NAT_VIP, DNAT_VIP, FULL_NAT_VIP6, DNAT_VIP6] {
        let vip = if vip.contains(':') { format!("[{vip}]") } else { vip.to_owned() };
        eprintln!("  {vip}");
        connections_and_datagrams_are_answered(&lab, &vip);
        downloads_and_uploads_complete(&lab, &vip);
    }
    both_workers_have_work(&lab);
    status_says_so(&lab);
}

/// A TAP says that it has RSS, and tells neither key nor table; its kernel chooses queues.
#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn a_port_whose_rss_cannot_be_known_is_not_taken_for_one_that_has_it() {
    let lab = Lab::up(&site(), &["--workers", "2"]);
    let port = lab.ask(&["status"])["ports"][0].clone();
    assert_eq!(port["receive"], "queues", "{port:#}");
    let to = format!("{FULL_NAT_VIP}:80");
    let report = lab.peer("client1", &["connect", &to, "--count", "500"]);
    assert_eq!(report["ok"], 500, "{report}");
    assert_eq!(lab.counted("ports", "lan", "rss_match"), 0, "nothing is compared");
}

fn site() -> Site {
    let site = Site::new();
    for (family, vips, backends) in
        [("v4", [FULL_NAT_VIP, DNAT_VIP], BACKENDS), ("v6", [FULL_NAT_VIP6, DNAT_VIP6], BACKENDS6)]
    {
        let named = |what: &str| format!("{what}-{family}");
        site.service(&named("pages"), "TCP", 80, &backends.map(Ready));
        site.service(&named("echo"), "UDP", 5300, &backends.map(Ready));
        for (mode, vip) in ["full-nat", "dnat"].into_iter().zip(vips) {
            let gateway = named(mode);
            site.gateway(&gateway, vip, mode, &[("http", "TCP", 80), ("echo", "UDP", 5300)]);
            site.route("TCP", (&gateway, "http"), 80, &[(&named("pages"), 1)]);
            site.route("UDP", (&gateway, "echo"), 5300, &[(&named("echo"), 1)]);
        }
    }
    site
}

fn connections_and_datagrams_are_answered(lab: &Lab, vip: &str) {
    let report = lab.peer("client1", &["connect", &format!("{vip}:80"), "--count", "1000"]);
    assert_eq!(report["ok"], 1000, "{vip}: {report}");
    assert_eq!(answering(&report).len(), 4, "{vip}: {report}");
    // In pieces, which come to one worker, and wait and go on at another.
    let ask = ["udp-ask", &format!("{vip}:5300"), "--count", "100", "--bytes", "4000"];
    let report = lab.peer("client2", &ask);
    assert_eq!(report["ok"], 100, "{vip}: {report}");
}

fn downloads_and_uploads_complete(lab: &Lab, vip: &str) {
    let url = format!("http://{vip}/pattern");
    let curl = ["curl", "-s", "-S", "-o", "/dev/null", "-m", "60", "-w", "%{size_download}", &url];
    for client in ["client1", "client2"] {
        assert_eq!(lab.on(client, &curl), PATTERN_BYTES, "{vip}: download");
        lab.upload(client, &format!("http://{vip}/"));
    }
}

fn both_workers_have_work(lab: &Lab) {
    let counted = |status: &Value, worker: usize, column: &str| {
        status["workers"][worker]["counters"][column].as_u64().expect("a number")
    };
    let status = lab.ask(&["status"]);
    assert_eq!(counted(&status, 1, "received"), 0, "it has no queue");
    assert_eq!(counted(&status, 1, "transmitted"), 0, "of either kind");
    let [first, second] = [0, 1].map(|worker| counted(&status, worker, "flows_new"));
    eprintln!("  new flows: {first} and {second}");
    assert!(first.abs_diff(second) * 5 < first + second, "new flows: {first} and {second}");
    // The last packets are on their way still. A ring may be full where workers share CPUs with others.
    wait_for("what one has ready, the other sends", Duration::from_secs(5), || {
        let status = lab.ask(&["status"]);
        let ready = counted(&status, 1, "sent") + counted(&status, 1, "held");
        let sent = counted(&status, 0, "sent_for_others");
        let lost = status["drops"].as_array()?.iter().find(|row| row["reason"] == "hand_over_full");
        let lost = lost.map_or(0, |row| row["by_thread"][1].as_u64().expect("a number"));
        eprintln!("  {ready} ready at the second worker, {sent} sent by the first, {lost} lost");
        (sent > 10_000 && ready == sent + lost).then_some(())
    });
}

fn status_says_so(lab: &Lab) {
    let status = lab.ask(&["status"]);
    let (port, first) = (&status["ports"][0], &status["workers"][0]["counters"]);
    assert_eq!(port["receive"], "software", "{port:#}");
    assert_eq!(port["counters"]["handed_over"], first["handed_over"], "{port:#}");
    assert!(port["counters"]["handed_over"].as_u64() > Some(10_000), "{port:#}");
}
