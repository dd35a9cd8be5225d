//! Datagrams that do not fit a packet: in fragments to the backend, and the answer in fragments back.

use crate::network::{Lab, answering};
use crate::site::{Endpoint::Ready, Site};
use crate::{BACKENDS, BACKENDS6, DNAT_VIP, DNAT_VIP6, FULL_NAT_VIP, FULL_NAT_VIP6};

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn datagrams_in_fragments_are_answered() {
    answers(&["--workers", "1"]);
}

/// The two workers share the fragments of a datagram, and each gets those of the other's.
#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn they_are_answered_whichever_worker_gets_which_fragment() {
    answers(&["--workers", "2", "--wrong-queue"]);
}

fn answers(options: &[&str]) {
    let lab = Lab::up(&site(), options);
    for mtu in ["1500", "1280"] {
        lab.on("router", &["ip", "link", "set", "clients", "mtu", mtu]);
        for vip in [FULL_NAT_VIP, DNAT_VIP, FULL_NAT_VIP6, DNAT_VIP6] {
            let vip =
                if vip.contains(':') { format!("[{vip}]:5300") } else { format!("{vip}:5300") };
            for bytes in ["4000", "60000"] {
                // The first question over a narrow link is what teaches its MTU.
                let ask = ["udp-ask", &vip, "--count", "50", "--bytes", bytes, "--retries", "2"];
                let report = lab.peer("client1", &ask);
                assert_eq!(report["ok"], 50, "{vip}, {bytes} bytes, MTU {mtu}: {report}");
                assert_eq!(answering(&report).len(), 4, "{vip}: {report}");
            }
        }
    }
}

fn site() -> Site {
    let site = Site::new();
    for (name, vip, mode, backends) in [
        ("full", FULL_NAT_VIP, "full-nat", BACKENDS),
        ("direct", DNAT_VIP, "dnat", BACKENDS),
        ("full6", FULL_NAT_VIP6, "full-nat", BACKENDS6),
        ("direct6", DNAT_VIP6, "dnat", BACKENDS6),
    ] {
        let service = format!("{name}-echo");
        site.gateway(name, vip, mode, &[("echo", "UDP", 5300)]);
        site.service(&service, "UDP", 5300, &backends.map(Ready));
        site.route("UDP", (name, "echo"), 5300, &[(&service, 1)]);
    }
    site
}
