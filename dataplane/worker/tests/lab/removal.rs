//! Connections whose backend or listener is removed end as the Gateway says, at both ends, and no others do.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::network::{Lab, Running, answering, wait_for};
use crate::site::{Endpoint::Ready, Site};
use crate::{BACKENDS, DNAT_VIP, FULL_NAT_VIP};

const HELD: &str = "100";
const GRACE: Duration = Duration::from_secs(4);
/// The sweep comes round once a second; the rest is this machine's.
const PROMPTLY: Duration = Duration::from_secs(3);
/// A VIP for each policy and mode.
const GATEWAYS: [(&str, &str, &str, &str); 6] = [
    ("reset-nat", FULL_NAT_VIP, "full-nat", "action: reset"),
    ("reset-dnat", DNAT_VIP, "dnat", "action: reset"),
    ("expire-nat", "10.10.0.102", "full-nat", "action: expire, grace: 4s"),
    ("expire-dnat", "10.10.0.103", "dnat", "action: expire, grace: 4s"),
    ("keep-nat", "10.10.0.104", "full-nat", "action: keep"),
    ("keep-dnat", "10.10.0.105", "dnat", "action: keep"),
];

fn put(site: &Site, backends: &[&'static str]) {
    for (name, vip, mode, policy) in GATEWAYS {
        let policy = format!("mode: {mode}, onRemoval: {{{policy}}}");
        site.governed(name, vip, &policy, &[("http", "TCP", 80)]);
        site.route("TCP", (name, "http"), 80, &[("web", 1)]);
    }
    let backends: Vec<_> = backends.iter().map(|address| Ready(address)).collect();
    site.service("web", "TCP", 80, &backends);
}

/// Connections of a host's TCP that are established, by `ss`.
fn established(lab: &Lab, host: &str, which: &str) -> usize {
    let filter = format!("ss --no-header --numeric --tcp state established '{which}' | wc -l");
    lab.on(host, &["bash", "-c", &filter]).trim().parse().expect("a number")
}

/// Connections that a host's TCP saw end by RST: RFC 4022, tcpEstabResets.
fn resets_seen(lab: &Lab, host: &str) -> u64 {
    let table = lab.on(host, &["grep", "^Tcp:", "/proc/net/snmp"]);
    let [names, values] = table.lines().collect::<Vec<_>>()[..] else { panic!("{table}") };
    let mut columns = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = columns.find(|(name, _)| *name == "EstabResets").expect("its column");
    value.parse().expect("a number")
}

/// How many of the connections are alive, and how many were reset; none may have ended otherwise.
fn alive_and_reset(report: &Value) -> (u64, u64) {
    let count = |key: &str| report[key].as_u64().expect("a number");
    let (alive, resets) = (count("alive"), count("resets"));
    assert_eq!((alive + resets).to_string(), HELD, "{report}");
    assert_eq!(count("moved"), 0, "{report}");
    (alive, resets)
}

fn hold(lab: &Lab, vip: &str) -> Running {
    let mut held = lab.start_peer("client1", &["hold", &format!("{vip}:80"), "--count", HELD]);
    assert_eq!(held.report()["opened"].to_string(), HELD);
    held
}

/// Downloads, of which some are from `backend1` and some are not, and how many are. They are data on its way in great
/// numbers: no RST is at the right number at first.
fn download_from_both(lab: &Lab, vip: &str) -> (Vec<Running>, usize) {
    let to = format!("{vip}:80");
    let at_backend1 = || established(lab, "backend1", "sport = :80");
    let (before, mut downloads) = (at_backend1(), Vec::new());
    loop {
        downloads.push(lab.start_peer("client2", &["download", &to, "--path", "/slow-pattern"]));
        wait_for("the download begins", PROMPTLY, || {
            let begun = established(lab, "client2", &format!("dst {vip}"));
            (begun == downloads.len()).then_some(())
        });
        let doomed = at_backend1() - before;
        if doomed > 0 && doomed < downloads.len() {
            thread::sleep(Duration::from_secs(1));
            return (downloads, doomed);
        }
    }
}

/// How many downloads were reset; the others must be under way still.
fn stop_and_count_resets(downloads: Vec<Running>) -> usize {
    let reset = downloads.into_iter().filter_map(|download| {
        let report = download.stop();
        eprintln!("  download: {report}");
        assert!(report["reset"] == true || report["failure"] == "told to stop", "{report}");
        (report["reset"] == true).then_some(())
    });
    reset.count()
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn connections_of_a_removed_backend_end_as_their_gateway_says() {
    let site = Site::new();
    put(&site, &BACKENDS[..2]);
    let lab = Lab::up(&site, &["--workers", "2", "--wrong-queue"]);
    let held = GATEWAYS.map(|(name, vip, ..)| (name, vip, hold(&lab, vip)));
    let to = |vip: &str| established(&lab, "client1", &format!("dst {vip}"));
    let (downloads, doomed) = download_from_both(&lab, FULL_NAT_VIP);
    let before = resets_seen(&lab, "backend1");

    lab.change("backend1 is removed", || put(&site, &BACKENDS[1..2]));
    let changed = Instant::now();
    for (name, vip, ..) in &GATEWAYS[..2] {
        wait_for(&format!("{name}: its client knows"), PROMPTLY, || (to(vip) < 100).then_some(()));
    }
    eprintln!("  the clients of `reset` knew within {:?}", changed.elapsed());
    for (name, vip, ..) in &GATEWAYS[2..] {
        if changed.elapsed() < GRACE {
            assert_eq!(to(vip).to_string(), HELD, "{name}: not before its time");
        }
    }
    for (name, vip, ..) in &GATEWAYS[2..4] {
        let limit = (GRACE + PROMPTLY).saturating_sub(changed.elapsed());
        wait_for(&format!("{name}: its time is over"), limit, || (to(vip) < 100).then_some(()));
    }
    thread::sleep(PROMPTLY);
    assert_eq!(stop_and_count_resets(downloads), doomed);
    let mut ended = doomed as u64;
    for (name, vip, held) in held {
        let report = held.stop();
        let (alive, resets) = alive_and_reset(&report);
        eprintln!("  {name}: {alive} alive, {resets} reset");
        if name.starts_with("keep") {
            assert_eq!(resets, 0, "{name} on {vip}: {report}");
        } else {
            assert!(alive > 20 && resets > 20, "{name} on {vip}: {report}");
        }
        ended += resets;
        let counted = lab.counted("listeners", &format!("default/{name}/http"), "flows_reset");
        assert!(counted >= resets, "{name}: {counted} counted");
    }
    let seen = resets_seen(&lab, "backend1") - before;
    assert!(seen >= ended, "backend1 was told of {seen} connections, the clients of {ended}");
    let report = lab.peer("client2", &["connect", &format!("{FULL_NAT_VIP}:80"), "--count", "100"]);
    assert_eq!((&report["ok"], answering(&report)), (&100.into(), vec!["backend2".into()]));
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn connections_of_a_removed_listener_end_as_their_gateway_says() {
    let site = Site::new();
    put(&site, &BACKENDS[..2]);
    let lab = Lab::up(&site, &["--workers", "2"]);
    let held = GATEWAYS.map(|(name, vip, ..)| (name, vip, hold(&lab, vip)));
    lab.change("the Gateways are removed", || {
        GATEWAYS.iter().for_each(|(name, ..)| site.remove(name));
    });
    thread::sleep(GRACE + PROMPTLY);
    for (name, _, held) in held {
        let report = held.stop();
        let (alive, resets) = alive_and_reset(&report);
        let kept = name.starts_with("keep");
        assert_eq!((alive == 0, resets == 0), (!kept, kept), "{name}: {report}");
    }
}

/// With DSR the client is told when it sends next, and tells its backend when that sends.
#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn clients_of_dsr_are_told_when_they_send_next() {
    const VIP: &str = "10.10.0.111";
    let site = Site::new();
    let put = |backends: &[&'static str]| {
        let policy = "mode: l2-dsr, onRemoval: {action: reset}";
        site.governed("dsr", VIP, policy, &[("http", "TCP", 80)]);
        site.route("TCP", ("dsr", "http"), 80, &[("web", 1)]);
        let backends: Vec<_> = backends.iter().map(|address| Ready(address)).collect();
        site.service("web", "TCP", 80, &backends);
    };
    put(&BACKENDS[..2]);
    let lab = Lab::up(&site, &["--workers", "2", "--wrong-queue"]);
    for host in ["backend1", "backend2"] {
        lab.on(host, &["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1"]);
        lab.on(host, &["sysctl", "-qw", "net.ipv4.conf.all.arp_announce=2"]);
        lab.on(host, &["ip", "address", "add", &format!("{VIP}/32"), "dev", "lo"]);
        lab.on(host, &["ip", "route", "replace", "default", "via", "10.10.0.1"]);
    }
    let held = hold(&lab, VIP);
    let (downloads, doomed) = download_from_both(&lab, VIP);
    let before = resets_seen(&lab, "backend1");
    lab.change("backend1 is removed", || put(&BACKENDS[1..2]));
    thread::sleep(PROMPTLY);
    assert_eq!(stop_and_count_resets(downloads), doomed);
    let told = (resets_seen(&lab, "backend1") - before) as usize;
    assert!(
        told >= doomed,
        "backend1 was told of {told} connections, of {doomed} on which it sends"
    );
    let report = held.stop();
    let (alive, resets) = alive_and_reset(&report);
    eprintln!("  {alive} alive, {resets} reset");
    assert!(alive > 20 && resets > 20, "{report}");
}
