//! Three boxes, and a controller elsewhere that tells them over mTLS what to do. A router's ECMP shares clients among
//! them: clientN's way to the VIP is boxN.

mod kills;
mod strangers;

use std::collections::BTreeMap;
use std::env;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::BACKENDS;
use crate::network::{Lab, Running, answering, wait_for};
use crate::site::{Endpoint::Ready, Site};

const BOXES: [&str; 3] = ["box1", "box2", "box3"];
const CLIENTS: [&str; 3] = ["client1", "client2", "client3"];
/// Of those that are routed: nobody asks for it by ARP.
const VIP: &str = "10.10.4.100";
const TO: &str = "10.10.4.100:80";
const DSR_VIP: &str = "10.10.4.101";
const LIMIT: Duration = Duration::from_secs(15);

/// The Boxes, a Gateway `web` before three backends in two Services, one of them without weight, and a Gateway
/// `direct` whose backends answer clients themselves.
fn site() -> Site {
    let site = Site::new();
    let boxes = BOXES.map(|name| {
        format!("apiVersion: penstock.dev/v1alpha1\nkind: Box\nmetadata: {{name: {name}}}\nspec: {{}}\n---\n")
    });
    site.write("boxes", &boxes.concat());
    site.gateway("web", VIP, "full-nat", &[("http", "TCP", 80)]);
    site.route("TCP", ("web", "http"), 80, &[("web", 1), ("more", 0)]);
    site.gateway("direct", DSR_VIP, "l2-dsr", &[("http", "TCP", 80)]);
    site.route("TCP", ("direct", "http"), 80, &[("web", 1)]);
    site.service("web", "TCP", 80, &[Ready(BACKENDS[0]), Ready(BACKENDS[1])]);
    site.service("more", "TCP", 80, &[Ready(BACKENDS[2])]);
    site
}

fn up(site: &Site) -> Lab {
    let lab = Lab::up(site, &["--boxes", "3"]);
    wait_for("what is served is said", LIMIT, || is_all_well(&lab).then_some(()));
    lab
}

/// The Maglev digest of each listener that a box serves.
fn digests(lab: &Lab, host: &str) -> BTreeMap<String, String> {
    let stats = lab.stats(host);
    let rows = stats.rows(stats.table("listeners").expect("there is one"));
    let served = rows.iter().filter(|row| row.label("departed") == Some("false"));
    let label = |row: &penstock_feed::stats::Row, key| row.label(key).unwrap_or("").to_owned();
    served.map(|row| (label(row, "name"), label(row, "maglev_digest"))).collect()
}

/// The digests that all boxes have, if they have the same.
fn common_digests(lab: &Lab) -> Option<BTreeMap<String, String>> {
    let [first, second, third] = BOXES.map(|host| digests(lab, host));
    (first == second && second == third && !first.is_empty()).then_some(first)
}

/// What the controller that runs now says of boxes.
fn boxes(lab: &Lab) -> Option<Value> {
    let report = lab.control_report_on("controller")?;
    let is_its_own = report["pid"].as_i64() == lab.pid("penstock-controlplane").map(i64::from);
    is_its_own.then(|| report["boxes"].clone())
}

fn are_in_sync(lab: &Lab) -> bool {
    boxes(lab).is_some_and(|boxes| boxes["in_sync"] == BOXES.len())
}

/// Whether every status says that all boxes serve what is written, and they do.
fn is_all_well(lab: &Lab) -> bool {
    let (programmed, on) = lab.condition("Gateway/default/web", "Programmed");
    let digest = |host: &str| lab.status(&format!("Box/{host}"))["digest"].clone();
    let is_well = |host: &&str| {
        let of = |type_| lab.condition(&format!("Box/{host}"), type_).0;
        let agent = lab.control_report_on(host).unwrap_or_default()["agent"].clone();
        let serves = digest(host) == digest(BOXES[0]) && digest(host) == agent["digest"];
        serves && of("Connected") == "True/Connected" && of("InSync") == "True/InSync"
    };
    are_in_sync(lab)
        && programmed == "True/Programmed"
        && on.ends_with("on box1, box2, box3")
        && BOXES.iter().all(is_well)
}

/// Makes a change that moves slots of `web`, and waits until the boxes serve it alike and the statuses say so.
fn change(lab: &Lab, what: &str, change: impl FnOnce()) {
    let before = common_digests(lab).expect("they serve alike");
    change();
    wait_for(what, LIMIT, || (common_digests(lab)? != before && is_all_well(lab)).then_some(()));
}

/// Connections by way of each box, none of which may fail: who answers them.
fn connections(lab: &Lab) -> [Vec<String>; 3] {
    CLIENTS.map(|client| {
        let report = lab.peer(client, &["connect", TO, "--count", "60"]);
        assert_eq!(report["ok"], 60, "{client}: {report}");
        answering(&report)
    })
}

/// Connections by way of each box that stay.
fn hold(lab: &Lab, count: u32) -> Vec<Running> {
    let count = count.to_string();
    let arguments = ["hold", TO, "--count", &count, "--timeout-ms", "10000"];
    let mut held: Vec<_> =
        CLIENTS.iter().map(|client| lab.start_peer(client, &arguments)).collect();
    for held in &mut held {
        assert_eq!(held.report()["opened"].to_string(), count);
    }
    held
}

/// None of them was lost, and none has met another backend.
fn are_held(held: Vec<Running>) {
    for held in held {
        let report = held.stop();
        assert_eq!(report["alive"], report["connections"], "{report}");
        assert_eq!((&report["resets"], &report["moved"]), (&0.into(), &0.into()), "{report}");
    }
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn three_boxes_serve_alike_and_change_together_and_strangers_are_refused() {
    let site = site();
    let lab = up(&site);
    let served = common_digests(&lab).expect("equal input gives equal tables");
    assert!(served["default/web/http"].chars().any(|digit| digit != '0'), "{served:?}");
    let new = |host: &str| lab.counted_on(host, "listeners", "default/web/http", "flows_new");
    let before = BOXES.map(new);
    for answered in connections(&lab) {
        assert_eq!(answered, ["backend1", "backend2"]);
    }
    assert_eq!(BOXES.map(new), before.map(|flows| flows + 60), "each box had its client's");

    a_router_moves_connections(&lab);

    let held = hold(&lab, 50);
    change(&lab, "weights", || site.route("TCP", ("web", "http"), 80, &[("web", 1), ("more", 1)]));
    for answered in connections(&lab) {
        assert_eq!(answered, ["backend1", "backend2", "backend3"]);
    }
    change(&lab, "a backend is added", || {
        site.service("web", "TCP", 80, &[BACKENDS[0], BACKENDS[1], BACKENDS[3]].map(Ready));
    });
    for answered in connections(&lab) {
        assert_eq!(answered.len(), 4, "{answered:?}");
    }
    change(&lab, "the route leads elsewhere", || {
        site.route("TCP", ("web", "http"), 80, &[("web", 0), ("more", 1)]);
    });
    for answered in connections(&lab) {
        assert_eq!(answered, ["backend3"]);
    }
    strangers::are_refused(&lab);
    are_held(held);
}

/// A box that has never seen a DSR connection finds the backend that it began with.
fn a_router_moves_connections(lab: &Lab) {
    for host in ["backend1", "backend2"] {
        lab.on(host, &["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1"]);
        lab.on(host, &["ip", "address", "add", DSR_VIP, "dev", "lo"]);
        lab.on(host, &["ip", "route", "replace", "default", "via", "10.10.0.1"]);
    }
    let arguments = ["hold", &format!("{DSR_VIP}:80"), "--count", "100", "--interval-ms", "100"];
    let mut held = lab.start_peer("client1", &arguments);
    assert_eq!(held.report()["opened"], 100);
    for next in ["10.10.0.3", "10.10.0.4", "10.10.0.2"] {
        lab.on("router", &["ip", "route", "replace", "10.10.4.0/24", "via", next, "table", "101"]);
        thread::sleep(Duration::from_millis(500)); // each connection asks again, several times
    }
    let stateless = lab.counted_on("box3", "listeners", "default/direct/http", "packets_in");
    assert!(stateless >= 100, "{stateless} packets came by the third");
    are_held(vec![held]);
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn a_box_that_is_cut_off_serves_on_and_catches_up() {
    let site = site();
    let lab = up(&site);
    let held = hold(&lab, 50);
    let begin = ["connect", TO, "--count", "1000000", "--concurrency", "1", "--rate", "50"];
    let beginning = lab.start_peer("client2", &begin);
    let sent = boxes(&lab).expect("it runs")["bundles_sent"].as_u64();
    let before = digests(&lab, "box2");

    let cut = Instant::now();
    set_link(&lab, "box2", "down");
    let [one, two, _, four] = BACKENDS;
    site.service("web", "TCP", 80, &[one, two, four].map(Ready));
    wait_for("the others change", LIMIT, || {
        let [first, second, third] = BOXES.map(|host| digests(&lab, host));
        (first == third && first != before && second == before).then_some(())
    });
    wait_for("its Box says that it is away", LIMIT, || {
        (lab.condition("Box/box2", "Connected").0 == "False/Away").then_some(())
    });
    eprintln!("  away is said {:?} after the cut", cut.elapsed());
    assert_eq!(lab.condition("Box/box2", "InSync").0, "Unknown/Away");
    wait_for("nobody waits for it", Duration::from_secs(2), || {
        let (status, message) = lab.condition("Gateway/default/web", "Programmed");
        let names_it =
            message.contains("on box1, box3; out of reach") && message.ends_with(": box2");
        (status == "True/Programmed" && names_it).then_some(())
    });
    while cut.elapsed() < cut_for() {
        let [first, second, third] = connections(&lab);
        assert_eq!(first, ["backend1", "backend2", "backend4"]);
        assert_eq!((second, third), (vec!["backend1".into(), "backend2".into()], first));
        assert_eq!(digests(&lab, "box2"), before, "it goes on as it was");
    }

    set_link(&lab, "box2", "up");
    let back = Instant::now();
    wait_for("it catches up, and the statuses say so", LIMIT, || {
        (common_digests(&lab)? != before && is_all_well(&lab)).then_some(())
    });
    eprintln!("  in sync {:?} after the link is back", back.elapsed());
    let now_sent = boxes(&lab).expect("it runs")["bundles_sent"].as_u64();
    let one_each_and_one_lost = sent.map(|sent| sent + 4);
    assert_eq!(now_sent, one_each_and_one_lost, "the wire was cut without a word");
    assert!(connections(&lab).iter().all(|answered| answered.len() == 3));
    none_failed(&beginning.stop());
    are_held(held);
}

/// How long a box is cut off, if the controller has noticed by then: a minute if it may take long.
fn cut_for() -> Duration {
    Duration::from_secs(if env::var_os("PENSTOCK_LONG").is_some() { 60 } else { 1 })
}

/// Plugs the wire between a box and the controller, or pulls it: neither end is told.
fn set_link(lab: &Lab, host: &str, to: &str) {
    lab.on("controller", &["ip", "link", "set", host, to]);
}

/// Every connection that was begun was answered.
fn none_failed(report: &Value) {
    assert!(report["ok"].as_u64() > Some(0), "{report}");
    for way in ["resets", "refused", "closed", "timeouts", "wrong", "other"] {
        assert_eq!(report[way], 0, "{way}: {report}");
    }
}
