//! Either process may be killed at any moment.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::network::{Lab, wait_for};
use crate::site::{Endpoint::Ready, Site};
use crate::{BACKENDS, DNAT_VIP, FULL_NAT_VIP};

const KILLS: u32 = 20;
const LIMIT: Duration = Duration::from_secs(20);

fn site() -> Site {
    let site = Site::new();
    site.gateway("web", FULL_NAT_VIP, "full-nat", &[("http", "TCP", 80)]);
    site.route("TCP", ("web", "http"), 80, &[("web", 1)]);
    site.service("web", "TCP", 80, &BACKENDS.map(Ready));
    site
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn killing_the_control_process_disturbs_nothing_and_sends_nothing() {
    let site = site();
    let lab = Lab::up(&site, &["--workers", "2"]);
    let to = format!("{FULL_NAT_VIP}:80");
    let before = settled(&lab);

    let mut held = lab.start_peer("client1", &["hold", &to, "--count", "100"]);
    assert_eq!(held.report()["opened"], 100);
    let arguments = ["connect", &to, "--count", "2000", "--rate", "200"];
    let mut connecting = lab.start_peer("client2", &arguments);
    for kill in 0..KILLS {
        let pid = lab.kill("penstock-controlplane");
        wait_for("it runs again", LIMIT, || {
            lab.pid("penstock-controlplane").filter(|&new| new != pid)
        });
        // Every other one is killed again while it still reads, connects or compares.
        if kill % 2 == 0 {
            sent_nothing(&settled(&lab), &before);
        } else {
            thread::sleep(Duration::from_millis(u64::from(kill) * 5));
        }
    }
    sent_nothing(&settled(&lab), &before);

    let report = connecting.report();
    assert_eq!(report["ok"], 2000, "{report}");
    let report = held.stop();
    assert_eq!((&report["alive"], &report["resets"]), (&100.into(), &0.into()), "{report}");
    assert_eq!(report["moved"], 0, "{report}");
}

fn settled(lab: &Lab) -> Value {
    wait_for("the control process is connected", LIMIT, || lab.settled_report())
}

/// The same generation and digest as before, and no record on the ring to get there.
fn sent_nothing(now: &Value, before: &Value) {
    for same in ["generation", "digest"] {
        assert_eq!(now[same], before[same], "{same}");
    }
    assert_eq!(now["publishes"]["snapshot"], 0, "{now}");
    assert_eq!(now["publishes"]["delta"], 0, "{now}");
}

/// By default they hear nothing, and wait.
#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn clients_of_a_killed_data_plane_are_told_to_begin_anew_if_asked_to() {
    let site = site();
    for (name, vip, mode) in [("nat", FULL_NAT_VIP, "full-nat"), ("direct", DNAT_VIP, "dnat")] {
        let policy = format!("mode: {mode}, onUnknown: reset");
        site.governed(name, vip, &policy, &[("http", "TCP", 80)]);
        site.route("TCP", (name, "http"), 80, &[("web", 1)]);
    }
    site.remove("web");
    site.remove("route-web-http");
    let lab = Lab::up(&site, &["--workers", "2", "--wrong-queue"]);
    let mut held = [FULL_NAT_VIP, DNAT_VIP].map(|vip| {
        let to = format!("{vip}:80");
        lab.start_peer("client1", &["hold", &to, "--count", "200", "--timeout-ms", "10000"])
    });
    for held in &mut held {
        assert_eq!(held.report()["opened"], 200);
    }
    let killed_pid = lab.kill("penstock-dataplane");
    wait_for("it runs again", LIMIT, || {
        lab.pid("penstock-dataplane").filter(|&new| new != killed_pid)
    });
    settled(&lab);
    thread::sleep(Duration::from_secs(5)); // each connection asks again, or repeats what it asked
    for held in held {
        let report = held.stop();
        eprintln!("  {} reset of 200, {} timed out", report["resets"], report["timeouts"]);
        assert_eq!((&report["resets"], &report["alive"]), (&200.into(), &0.into()), "{report}");
    }
    assert!(lab.counted("workers", "", "unknown_reset") >= 400);
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn a_killed_data_plane_serves_new_connections_within_three_seconds() {
    let site = site();
    let lab = Lab::up(&site, &[]);
    let to = format!("{FULL_NAT_VIP}:80");
    let before = settled(&lab);
    lab.kill("penstock-dataplane");
    let killed = Instant::now();
    let ask = ["connect", &to, "--count", "1", "--timeout-ms", "200"];
    wait_for("a new connection is served", LIMIT, || {
        (lab.peer("client1", &ask)["ok"] == 1).then_some(())
    });
    let away = killed.elapsed();
    eprintln!("  new connections {away:?} after kill -9 of the data plane");
    assert!(away < Duration::from_secs(3), "{away:?}");
    assert_eq!(settled(&lab)["generation"], before["generation"]);
    let report = lab.peer("client1", &["connect", &to, "--count", "500"]);
    assert_eq!(report["ok"], 500, "{report}");
}
