//! Packets that no host sends: built by Scapy, a row each in `odd_packets.py`.

use std::path::Path;

use crate::network::Lab;
use crate::site::{Endpoint::Ready, Site};
use crate::{FULL_NAT_VIP, FULL_NAT_VIP6};

/// The address that the lab gives the data plane's port.
const BOX_MAC: &str = "02:00:00:00:00:01";

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn odd_packets_end_as_promised() {
    let lab = Lab::up(&site(), &[]);
    // Whoever sends them is behind the router, which says nothing of their answers.
    for (clients, router) in [("10.10.9.0/24", "10.10.0.1"), ("2001:db8:19::/64", "2001:db8:10::1")]
    {
        lab.on("router", &["ip", "route", "add", "blackhole", clients]);
        lab.on("box", &["ip", "route", "add", clients, "via", router]);
    }
    let router_mac = lab.on("router", &["cat", "/sys/class/net/lan/address"]);
    for url in [format!("http://{FULL_NAT_VIP}/"), format!("http://[{FULL_NAT_VIP6}]/")] {
        // From now on the box knows its neighbours.
        lab.on("client1", &["curl", "-s", "-S", "-o", "/dev/null", "-m", "10", &url]);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/odd_packets.py");
    let (script, run) = (script.display().to_string(), lab.directory().join("run"));
    let run = run.display().to_string();
    let said = lab.on("fabric", &[&script, "lan0", BOX_MAC, router_mac.trim(), &run]);
    eprintln!("  {}", said.trim());
}

fn site() -> Site {
    let site = Site::new();
    for (name, family, addresses) in
        [("v4", "10.10.0.", "10.10.0.11"), ("v6", "2001:db8:10::", "2001:db8:10::11")]
    {
        let full = format!("full-{name}");
        let listeners = [("http", "TCP", 80), ("nobody", "TCP", 81), ("echo", "UDP", 5300)];
        site.gateway(&full, &format!("{family}100"), "full-nat", &listeners);
        site.service(&format!("pages-{name}"), "TCP", 80, &[Ready(addresses)]);
        site.service(&format!("none-{name}"), "TCP", 81, &[]);
        site.service(&format!("echo-{name}"), "UDP", 5300, &[Ready(addresses)]);
        site.route("TCP", (&full, "http"), 80, &[(&format!("pages-{name}"), 1)]);
        site.route("TCP", (&full, "nobody"), 81, &[(&format!("none-{name}"), 1)]);
        site.route("UDP", (&full, "echo"), 5300, &[(&format!("echo-{name}"), 1)]);
        let tunnel = format!("tunnel-{name}");
        site.gateway(&tunnel, &format!("{family}112"), "ipip", &[("http", "TCP", 80)]);
        site.route("TCP", (&tunnel, "http"), 80, &[(&format!("pages-{name}"), 1)]);
    }
    site
}
