//! What goes through, in which shares, and what is refused and counted.

use std::ops::Range;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::network::{Lab, answering, wait_for};
use crate::site::{Endpoint::Ready, Site};
use crate::{BACKENDS, DNAT_VIP, FULL_NAT_VIP};

/// So many that five points are six standard deviations of a fair spread.
const REQUESTS: u64 = 4000;

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn one_worker_forwards_refuses_and_counts_as_promised() {
    keeps_every_promise("1");
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn two_workers_forward_refuse_and_count_as_promised() {
    keeps_every_promise("2");
}

/// What one promise is tried by.
type Check = fn(&Lab, &Site);

fn keeps_every_promise(workers: &str) {
    let site = site();
    let lab = Lab::up(&site, &["--workers", workers]);
    let promises: &[(&str, Check)] = &[
        ("curl gets an answer from a backend", |lab, _| curl_gets_an_answer(lab)),
        ("new connections are spread by weight", |lab, _| spread_by_weight(lab)),
        ("each UDP backend answers", |lab, _| udp_is_answered(lab)),
        ("full NAT hides the client, DNAT shows it", |lab, _| backends_see_whom_they_should(lab)),
        ("a ping to a VIP is answered, in pieces too", |lab, _| pinged(lab)),
        ("a listener without endpoints refuses TCP by RST", |lab, _| refused(lab, "empty", 81)),
        ("a listener whose weights are all zero does too", |lab, _| refused(lab, "zero", 82)),
        ("a listener without endpoints drops UDP", |lab, _| dropped(lab)),
        ("or tells its sender by ICMP, if asked to", |lab, _| told(lab)),
        ("Programmed is true of what is served", |lab, _| programmed(lab)),
        ("flows and explain tell what happens", |lab, _| flows_and_explain(lab)),
        ("trace shows both ways of a connection, and what is lost", |lab, _| traced(lab)),
        ("a wrong object is refused alone", refused_alone),
        ("a VIP that is something else already is refused alone", occupied_refused_alone),
    ];
    for (promise, check) in promises {
        eprintln!("  {workers} worker(s): {promise}");
        check(&lab, &site);
    }
}

/// Blue has two backends and three quarters of the weight, green two and a quarter.
fn site() -> Site {
    let site = Site::new();
    let listeners = [
        ("http", "TCP", 80),
        ("empty", "TCP", 81),
        ("zero", "TCP", 82),
        ("echo", "UDP", 5300),
        ("silent", "UDP", 5399),
    ];
    site.gateway("web", FULL_NAT_VIP, "full-nat", &listeners);
    let icmp = "mode: dnat, onExhaustion: icmp";
    site.governed("direct", DNAT_VIP, icmp, &[("http", "TCP", 80), ("told", "UDP", 5399)]);
    let all = BACKENDS.map(Ready);
    site.service("blue", "TCP", 80, &all[..2]);
    site.service("green", "TCP", 80, &all[2..]);
    site.service("nobody", "TCP", 80, &[]);
    site.service("echo", "UDP", 5300, &all);
    site.service("no-echo", "UDP", 5300, &[]);
    site.route("TCP", ("web", "http"), 80, &[("blue", 75), ("green", 25)]);
    site.route("TCP", ("web", "empty"), 80, &[("nobody", 1)]);
    site.route("TCP", ("web", "zero"), 80, &[("blue", 0), ("green", 0)]);
    site.route("UDP", ("web", "echo"), 5300, &[("echo", 1)]);
    site.route("UDP", ("web", "silent"), 5300, &[("no-echo", 1)]);
    site.route("TCP", ("direct", "http"), 80, &[("blue", 1)]);
    site.route("UDP", ("direct", "told"), 5300, &[("no-echo", 1)]);
    site
}

fn curl_gets_an_answer(lab: &Lab) {
    for client in ["client1", "client2"] {
        for vip in [FULL_NAT_VIP, DNAT_VIP] {
            let said =
                lab.on(client, &["curl", "--silent", "--show-error", "--max-time", "5", vip]);
            assert!(said.starts_with("backend"), "{said:?}");
        }
    }
}

fn spread_by_weight(lab: &Lab) {
    let (vip, count) = (format!("{FULL_NAT_VIP}:80"), REQUESTS.to_string());
    let report = lab.peer("client1", &["connect", &vip, "--count", &count]);
    assert_eq!(report["ok"], REQUESTS, "{report}");
    let expected = [("backend1", 37.5), ("backend2", 37.5), ("backend3", 12.5), ("backend4", 12.5)];
    for (backend, percent) in expected {
        let answers = report["backends"][backend].as_u64().unwrap_or(0);
        let found = answers as f64 * 100.0 / REQUESTS as f64;
        assert!((found - percent).abs() <= 5.0, "{backend}: {found} % of {percent} %: {report}");
    }
}

fn udp_is_answered(lab: &Lab) {
    let vip = format!("{FULL_NAT_VIP}:5300");
    let report = lab.peer("client1", &["udp-ask", &vip, "--count", "200"]);
    assert_eq!(report["ok"], 200, "{report}");
    assert_eq!(answering(&report).len(), 4, "{report}");
    let one = lab.peer("client2", &["udp-ask", &vip, "--count", "50", "--one-flow"]);
    assert_eq!(one["ok"], 50, "{one}");
    assert_eq!(answering(&one).len(), 1, "pinned: {one}");
}

fn backends_see_whom_they_should(lab: &Lab) {
    for (vip, seen, unseen) in
        [(FULL_NAT_VIP, "10.10.0.200:", "10.10.1."), (DNAT_VIP, "10.10.1.11:", "10.10.0.200:")]
    {
        let to = format!("{vip}:80");
        let mut held = lab.start_peer("client1", &["hold", &to, "--count", "20"]);
        assert_eq!(held.report()["opened"], 20);
        let show = ["ss", "-Hnt", "state", "established", "sport = :80"];
        let peers = lab.on("backend1", &show);
        let report = held.stop();
        assert_eq!(report["alive"], 20, "{report}");
        assert!(peers.contains(seen) && !peers.contains(unseen), "{vip}: {peers}");
    }
}

fn refused(lab: &Lab, listener: &str, port: u16) {
    let before = lab.counted("listeners", &format!("default/web/{listener}"), "refused");
    let to = format!("{FULL_NAT_VIP}:{port}");
    let report = lab.peer("client1", &["connect", &to, "--count", "20"]);
    assert_eq!(report["refused"], 20, "{report}");
    let after = lab.counted("listeners", &format!("default/web/{listener}"), "refused");
    assert_eq!(after - before, 20, "counted");
}

fn dropped(lab: &Lab) {
    let before = lab.counted("listeners", "default/web/silent", "refused");
    let to = format!("{FULL_NAT_VIP}:5399");
    let report = lab.peer("client1", &["udp-ask", &to, "--count", "5", "--timeout-ms", "100"]);
    assert_eq!(report["timeouts"], 5, "{report}");
    let after = lab.counted("listeners", "default/web/silent", "refused");
    assert_eq!(after - before, 5, "counted");
}

fn pinged(lab: &Lab) {
    for (bytes, by_worker) in [("56", 5), ("1400", 5), ("4000", 0)] {
        let before = lab.counted("workers", "", "echoed");
        let ping = ["ping", "-q", "-c", "5", "-i", "0.1", "-W", "2", "-s", bytes, FULL_NAT_VIP];
        let said = lab.on("client1", &ping);
        assert!(said.contains("5 received"), "{bytes} bytes: {said}");
        let answered = lab.counted("workers", "", "echoed") - before;
        assert_eq!(answered, by_worker, "{bytes} bytes: those in pieces are the kernel's");
    }
}

fn told(lab: &Lab) {
    let to = format!("{DNAT_VIP}:5399");
    let report = lab.peer("client1", &["udp-ask", &to, "--count", "5", "--timeout-ms", "1000"]);
    assert_eq!(report["refused"], 5, "{report}");
    assert!(lab.counted("workers", "", "unreachable") >= 5, "counted");
}

fn programmed(lab: &Lab) {
    let run = lab.directory().join("run");
    let status = run.join("status/Gateway/default/web.yaml");
    let yaml =
        std::fs::read_to_string(&status).unwrap_or_else(|error| panic!("{status:?}: {error}"));
    assert!(yaml.contains("Programmed"), "{yaml}");
    let status = lab.ask(&["status"]);
    assert!(status["listeners"].to_string().contains("default/web/http"), "{status:#}");
}

fn flows_and_explain(lab: &Lab) {
    let to = format!("{FULL_NAT_VIP}:80");
    let mut held = lab.start_peer("client1", &["hold", &to, "--count", "20"]);
    assert_eq!(held.report()["opened"], 20);
    let established = ["flows", "--client", "10.10.1.11", "--vip", &to, "--state", "established"];
    let told = lab.ask(&established);
    assert_eq!(told["matched"], 20, "{told:#}");
    for flow in told["flows"].as_array().expect("a list") {
        assert_eq!(flow["listener_name"], "default/web/http");
        let end = |name: &str| flow[name].as_str().expect("an end").to_owned();
        // The client's side and the backend's side are of one flow, whichever worker is asked first.
        for (src, dst, to_backend) in
            [(end("client"), end("vip"), true), (end("backend"), end("outside"), false)]
        {
            let explained = lab.ask(&["explain", "--src", &src, "--dst", &dst]);
            let fate = &explained["fate"]["flow"];
            assert_eq!(fate["flow"]["client"], flow["client"], "{explained:#}");
            assert_eq!(fate["to_backend"], to_backend, "{explained:#}");
            assert!(fate["next_hop"]["ready"]["mac"].is_string(), "{explained:#}");
        }
    }
    let report = held.stop();
    assert_eq!(report["alive"], 20, "{report}");
    let ssh = lab.ask(&["explain", "--src", "10.10.1.11:4000", "--dst", "10.10.0.2:22"]);
    assert_eq!(ssh["fate"]["punted"]["class"], "management", "{ssh:#}");
}

fn traced(lab: &Lab) {
    let to = format!("{FULL_NAT_VIP}:80");
    let connect = || lab.peer("client1", &["connect", &to, "--count", "1"]);
    let told = trace_while(lab, &["--host", FULL_NAT_VIP, "--count", "50"], connect);
    let exits = |kind: &str| told.iter().filter(|packet| !packet["exit"][kind].is_null()).count();
    assert!(exits("sent") >= 10, "{told:#?}");
    assert_eq!(exits("sent") + exits("handed_over"), told.len(), "{told:#?}");
    // L4 ports of an untagged IPv4 frame without options, two digits a byte.
    let (source, destination) = (68..72, 72..76);
    let leave_with_80 = |place: &Range<usize>| {
        let left = told.iter().filter_map(|packet| packet["left"]["bytes"].as_str());
        left.filter(|left| &left[place.clone()] == "0050").count()
    };
    assert!(leave_with_80(&destination) >= 3, "towards the backend: {told:#?}");
    assert!(leave_with_80(&source) >= 3, "and back: {told:#?}");
    for packet in told.iter().filter(|packet| !packet["exit"]["sent"].is_null()) {
        let new_or_hit = packet["came"].as_object().expect("how far it came");
        let flow = new_or_hit.values().next().expect("a flow");
        assert_eq!(flow["vip"], to, "{packet:#}");
        assert_eq!(packet["left"]["len"], packet["arrived"]["len"], "{packet:#}");
    }
    let silent = format!("{FULL_NAT_VIP}:5399");
    let ask = || lab.peer("client1", &["udp-ask", &silent, "--count", "1", "--timeout-ms", "50"]);
    let lost = trace_while(lab, &["--dst", &silent, "--dropped", "--count", "2"], ask);
    assert!(lost.iter().all(|packet| packet["exit"]["dropped"] == "no_backend"), "{lost:#?}");
}

/// What `penstock trace` shows while `traffic` is made again and again.
fn trace_while(lab: &Lab, options: &[&str], traffic: impl Fn() -> Value) -> Vec<Value> {
    let run = lab.directory().join("run");
    let run = run.to_str().expect("a path of plain characters");
    let command = ["penstock", "trace", "--json", "--seconds", "30", "--run-dir", run];
    let said = thread::scope(|scope| {
        let trace = scope.spawn(|| lab.on("box", &[&command, options].concat()));
        while !trace.is_finished() {
            traffic();
        }
        trace.join().expect("it ends well")
    });
    said.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// A syntax error, a Service that does not exist, and a second Gateway on a VIP and L4 port in use.
fn refused_alone(lab: &Lab, site: &Site) {
    site.write("broken", "kind: Gateway\n  metadata: [\n");
    lab.change("a route to a Service that does not exist is acknowledged", || {
        site.gateway(
            "second",
            FULL_NAT_VIP,
            "full-nat",
            &[("http", "TCP", 80), ("other", "TCP", 83)],
        );
        site.route("TCP", ("second", "other"), 80, &[("missing", 1)]);
    });
    wait_for("the broken file is named", Duration::from_secs(10), || {
        let report = lab.control_report()?;
        report["refused"].to_string().contains("broken.yaml").then_some(())
    });
    let to = format!("{FULL_NAT_VIP}:80");
    let report = lab.peer("client1", &["connect", &to, "--count", "200"]);
    assert_eq!(report["ok"], 200, "the others serve: {report}");
    refused_listener(lab, 83);
    lab.change("the objects are gone again", || {
        for name in ["broken", "second", "route-second-other"] {
            site.remove(name);
        }
    });
}

/// The box, its router, a backend, both ends of the subnet, and a SNAT address stay what they are.
fn occupied_refused_alone(lab: &Lab, site: &Site) {
    let occupied = [
        ("10.10.0.2", "10.10.0.2 is the box's own address on pst0"),
        ("10.10.0.1", "10.10.0.1 is the router of a route of this box"),
        ("10.10.0.11", "10.10.0.11 is the address of backend 10.10.0.11:"),
        ("10.10.0.0", "10.10.0.0 is the network address of the subnet 10.10.0.0/24"),
        ("10.10.0.255", "10.10.0.255 is the broadcast address of the subnet 10.10.0.0/24"),
        ("10.10.0.200", "10.10.0.200 is a SNAT address of this box"),
    ];
    let name = |at: usize| format!("occupied-{at}");
    lab.change("Gateways on addresses that are taken are acknowledged", || {
        for (at, (vip, _)) in occupied.iter().enumerate() {
            site.gateway(&name(at), vip, "full-nat", &[("http", "TCP", 80)]);
            site.route("TCP", (&name(at), "http"), 80, &[("blue", 1)]);
        }
    });
    for (at, (vip, expected)) in occupied.iter().enumerate() {
        let status = lab.directory().join(format!("run/status/Gateway/default/{}.yaml", name(at)));
        wait_for(&format!("{vip} is refused with a reason"), Duration::from_secs(10), || {
            std::fs::read_to_string(&status).ok().filter(|yaml| yaml.contains(expected))
        });
        let mine = lab.on("box", &["ip", "-oneline", "address", "show", "to", vip]);
        assert_eq!(mine.lines().count(), usize::from(["10.10.0.2", "10.10.0.200"].contains(vip)));
    }
    for vip in [FULL_NAT_VIP, DNAT_VIP] {
        let report = lab.peer("client1", &["connect", &format!("{vip}:80"), "--count", "100"]);
        assert_eq!(report["ok"], 100, "the others serve: {report}");
    }
    lab.change("the objects are gone again", || {
        for at in 0..occupied.len() {
            site.remove(&name(at));
            site.remove(&format!("route-{}-http", name(at)));
        }
    });
}

/// An invalid backendRef gets its share of connections refused; here that is all of them.
fn refused_listener(lab: &Lab, port: u16) {
    let to = format!("{FULL_NAT_VIP}:{port}");
    let report = lab.peer("client1", &["connect", &to, "--count", "10"]);
    assert_eq!(report["refused"], 10, "{report}");
}
