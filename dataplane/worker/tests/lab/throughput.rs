//! Long TCP streams stay whole, also when every reply arrives at a worker that does not own it.
//!
//! Rates are printed, not judged: the same path routed by the kernel, without offloads, is printed
//! beside them. `PENSTOCK_LONG=1` makes a row a minute long.

use std::env;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::network::Lab;
use crate::site::{Endpoint::Ready, Site};
use crate::{BACKENDS, DNAT_VIP, FULL_NAT_VIP};

const WRONG_QUEUE: &[&str] = &["--workers", "2", "--wrong-queue"];

/// One stream from client1 to backend1, which must end without an error.
struct Stream {
    gbit_per_s: f64,
    retransmits: u64,
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn long_streams_stay_whole_in_every_mode() {
    let by_kernel = {
        let lab = Lab::routed_by_kernel();
        stream(&lab, BACKENDS[0])
    };
    show("routed by the kernel", &by_kernel);
    let site = site();
    for (promise, options) in [
        ("1 worker", &["--workers", "1"][..]),
        ("2 workers", &["--workers", "2"]),
        ("2 workers, replies on the wrong queue", WRONG_QUEUE),
    ] {
        let lab = Lab::up(&site, options);
        for (mode, vip) in [("full NAT", FULL_NAT_VIP), ("DNAT", DNAT_VIP)] {
            let before = lab.counted("workers", "", "handed_over");
            show(&format!("{mode}, {promise}"), &stream(&lab, vip));
            let handed_over = lab.counted("workers", "", "handed_over") - before;
            eprintln!("  {:<48} {handed_over} packets handed over", "");
            if options == WRONG_QUEUE {
                assert!(handed_over > 0, "{mode}: nothing came to the wrong worker");
            }
        }
    }
}

fn site() -> Site {
    let site = Site::new();
    for (name, vip, mode) in [("nat", FULL_NAT_VIP, "full-nat"), ("direct", DNAT_VIP, "dnat")] {
        site.gateway(name, vip, mode, &[("iperf", "TCP", 5201)]);
        site.route("TCP", (name, "iperf"), 5201, &[("iperf", 1)]);
    }
    site.service("iperf", "TCP", 5201, &[Ready(BACKENDS[0])]);
    site
}

fn stream(lab: &Lab, to: &str) -> Stream {
    let seconds = if env::var_os("PENSTOCK_LONG").is_some() { "60" } else { "5" };
    let before = ["client1", "backend1"].map(|host| checksum_errors(lab, host));
    let said = lab.on("client1", &["iperf3", "--client", to, "--time", seconds, "--json"]);
    let report: Value =
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert!(report["error"].is_null(), "{}", report["error"]);
    let after = ["client1", "backend1"].map(|host| checksum_errors(lab, host));
    assert_eq!(after, before, "TcpInCsumErrors at client1 and backend1");
    // The server takes one client at a time and needs a moment to notice that this one has gone.
    thread::sleep(Duration::from_millis(300));
    let received = report["end"]["sum_received"]["bits_per_second"].as_f64();
    let retransmits = report["end"]["sum_sent"]["retransmits"].as_u64();
    Stream {
        gbit_per_s: received.unwrap_or_else(|| panic!("no rate in {said}")) / 1e9,
        retransmits: retransmits.unwrap_or_default(),
    }
}

/// TcpInCsumErrors of a host since it began.
fn checksum_errors(lab: &Lab, host: &str) -> u64 {
    let snmp = lab.on(host, &["cat", "/proc/net/snmp"]);
    let mut tcp = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (Some(names), Some(values)) = (tcp.next(), tcp.next()) else {
        panic!("no Tcp lines in {snmp}");
    };
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "InCsumErrors");
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or_else(|| panic!("none in {names}"))
}

fn show(what: &str, stream: &Stream) {
    eprintln!(
        "  {what:<48} {:.2} Gbit/s TCP payload, {} segments sent again",
        stream.gbit_per_s, stream.retransmits
    );
}
