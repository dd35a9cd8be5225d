//! DSR, on the link and in tunnels: backends have the VIP, and answer clients by way of the router.

use crate::network::{Lab, Running, answering};
use crate::site::{Endpoint::Ready, Site};
use crate::{BACKENDS, BACKENDS6};

/// A VIP a mode, in each family.
const MODES: [(&str, &str, &str); 4] = [
    ("l2-dsr", "10.10.0.111", "2001:db8:10::111"),
    ("ipip", "10.10.0.112", "2001:db8:10::112"),
    ("gue", "10.10.0.113", "2001:db8:10::113"),
    ("gue-variant-0", "10.10.0.114", "2001:db8:10::114"),
];
/// IPv4 in IPv6, and the other way round.
const CROSSED: [&str; 2] = ["10.10.0.115", "2001:db8:10::115"];
const HOSTS: [&str; 4] = ["backend1", "backend2", "backend3", "backend4"];
const PATTERN_BYTES: &str = "67108864";

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn backends_answer_clients_themselves_in_every_mode() {
    serves(&["--workers", "1"]);
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn they_do_whichever_worker_gets_the_packets() {
    serves(&["--workers", "2", "--wrong-queue"]);
}

fn serves(options: &[&str]) {
    let lab = Lab::up(&site(), options);
    let (decaps, _echoes): (Vec<_>, Vec<_>) =
        HOSTS.map(|host| backend(&lab, host)).into_iter().unzip();
    // The full MTU, which tunnels do not have; then a narrow link between router and clients.
    for mtu in ["1500", "1280"] {
        lab.on("router", &["ip", "link", "set", "clients", "mtu", mtu]);
        for vip in vips() {
            eprintln!("  MTU {mtu}: {vip}");
            forget_mtus(&lab);
            connections_and_datagrams_are_answered(&lab, &vip);
            downloads_and_uploads_complete(&lab, &vip);
        }
    }
    lab.on("router", &["ip", "link", "set", "clients", "mtu", "1500"]);
    lead_by_a_narrow_way(&lab);
    for vip in vips().skip(2) {
        eprintln!("  MTU 1332 to the backends: {vip}"); // L2 DSR has no router on the way
        forget_mtus(&lab);
        downloads_and_uploads_complete(&lab, &vip);
    }
    let reports: Vec<_> = decaps.into_iter().map(Running::stop).collect();
    for way in ["ipip", "gue", "gue_variant_0"] {
        assert!(reports.iter().all(|report| report[way].as_u64() > Some(100)), "{reports:?}");
    }
    assert!(reports.iter().all(|report| report["not_understood"] == 0), "{reports:?}");
}

fn vips() -> impl Iterator<Item = String> {
    let own = MODES.into_iter().flat_map(|(_, v4, v6)| [v4, v6]);
    let in_url = |vip: &str| if vip.contains(':') { format!("[{vip}]") } else { vip.to_owned() };
    own.chain(CROSSED).map(in_url)
}

fn site() -> Site {
    let site = Site::new();
    for (family, backends) in [("v4", BACKENDS), ("v6", BACKENDS6)] {
        site.service(&format!("pages-{family}"), "TCP", 80, &backends.map(Ready));
        site.service(&format!("echo-{family}"), "UDP", 5301, &backends.map(Ready));
    }
    for (mode, v4, v6) in MODES {
        gateway(&site, v4, mode, "v4");
        gateway(&site, v6, mode, "v6");
    }
    gateway(&site, CROSSED[0], "ipip", "v6");
    gateway(&site, CROSSED[1], "ipip", "v4");
    site
}

fn gateway(site: &Site, vip: &str, mode: &str, backends: &str) {
    let name = format!("dsr-{}", vip.replace([':', '.'], "-"));
    site.gateway(&name, vip, mode, &[("http", "TCP", 80), ("echo", "UDP", 5301)]);
    site.route("TCP", (&name, "http"), 80, &[(&format!("pages-{backends}"), 1)]);
    site.route("UDP", (&name, "echo"), 5301, &[(&format!("echo-{backends}"), 1)]);
}

/// The VIPs on the loopback interface, of which ARP neither answers nor tells; the router as the way to clients;
/// an end for tunnels, and a UDP server that answers as the VIP that was asked.
fn backend(lab: &Lab, host: &str) -> (Running, Running) {
    let quiet = ["net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2"];
    lab.on(host, &[&["sysctl", "-qw"], &quiet[..]].concat());
    for vip in vips() {
        let bare = vip.trim_matches(['[', ']']);
        lab.on(host, &["ip", "address", "add", bare, "dev", "lo", "nodad"]);
    }
    lab.on(host, &["ip", "-4", "route", "replace", "default", "via", "10.10.0.1"]);
    lab.on(host, &["ip", "-6", "route", "replace", "default", "via", "2001:db8:10::1"]);
    let mut decap = lab.start_peer(host, &["decap"]);
    assert_eq!(decap.report()["ready"], true);
    let listen: Vec<_> = vips().map(|vip| format!("--listen={vip}:5301")).collect();
    let arguments: Vec<_> =
        ["udp-echo", host].into_iter().chain(listen.iter().map(String::as_str)).collect();
    (decap, lab.start_peer(host, &arguments))
}

/// The way from the box to the backends is by the router, which knows one of an MTU in which IPv6 has just room in a
/// tunnel.
fn lead_by_a_narrow_way(lab: &Lab) {
    for name in ["all", "lan"] {
        lab.on("router", &["sysctl", "-qw", &format!("net.ipv4.conf.{name}.send_redirects=0")]);
    }
    let families = [("-4", "10.10.0.1", BACKENDS), ("-6", "2001:db8:10::1", BACKENDS6)];
    for (family, router, backends) in families {
        for backend in backends {
            let way = ["ip", family, "route", "replace", backend];
            lab.on("box", &[&way[..], &["via", router]].concat());
            lab.on("router", &[&way[..], &["dev", "lan", "mtu", "lock", "1332"]].concat());
        }
    }
}

/// What a kernel learnt for one VIP must not help the next.
fn forget_mtus(lab: &Lab) {
    for host in HOSTS.into_iter().chain(["client1", "client2"]) {
        for family in ["-4", "-6"] {
            lab.on(host, &["ip", family, "route", "flush", "cache"]);
        }
    }
}

fn connections_and_datagrams_are_answered(lab: &Lab, vip: &str) {
    let report = lab.peer("client1", &["connect", &format!("{vip}:80"), "--count", "200"]);
    assert_eq!(report["ok"], 200, "{vip}: {report}");
    assert_eq!(answering(&report).len(), 4, "{vip}: {report}");
    // The first question is too large for a tunnel, and its sender is told.
    let to = format!("{vip}:5301");
    let ask = ["udp-ask", &to, "--count", "20", "--bytes", "4000", "--retries", "3"];
    let report = lab.peer("client2", &ask);
    assert_eq!(report["ok"], 20, "{vip}: {report}");
}

fn downloads_and_uploads_complete(lab: &Lab, vip: &str) {
    let url = format!("http://{vip}/pattern");
    let curl = ["curl", "-s", "-S", "-o", "/dev/null", "-m", "60", "-w"];
    let fetch = [&curl[..], &["%{size_download}", &url]].concat();
    assert_eq!(lab.on("client1", &fetch), PATTERN_BYTES, "{vip}: download");
    lab.upload("client1", &format!("http://{vip}/"));
}
