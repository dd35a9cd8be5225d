//! A narrow link in the middle of the path: what its router says of packets that do not fit reaches the
//! backend that sent them. Where our own routes say it, SYNs do.

use crate::network::Lab;
use crate::site::{Endpoint::Ready, Site};
use crate::{DNAT_VIP, DNAT_VIP6, FULL_NAT_VIP, FULL_NAT_VIP6};

/// The file that every backend has.
const FILE_BYTES: &str = "67108864";

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn a_download_and_an_upload_over_a_narrow_link_complete() {
    carries(&["--workers", "1"]);
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn they_complete_whichever_worker_gets_the_routers_word() {
    carries(&["--workers", "2", "--wrong-queue"]);
}

fn carries(options: &[&str]) {
    let lab = Lab::up(&site(), options);
    lab.on("router", &["ip", "link", "set", "clients", "mtu", "1280"]);
    for (vip, family) in vips() {
        let learnt = transfer(&lab, &vip, family);
        assert!(learnt.contains("mtu 1280"), "{vip}: the backend was told: {learnt:?}");
    }
}

/// Nothing on the way says that it is narrow, and nothing needs to.
#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn nobody_sends_more_than_fits_a_route_of_ours() {
    let lab = Lab::up(&site(), &["--workers", "1"]);
    for (family, clients, router) in
        [("-4", "10.10.1.0/24", "10.10.0.1"), ("-6", "2001:db8:11::/64", "2001:db8:10::1")]
    {
        let route = ["ip", family, "route", "replace", clients, "via", router, "mtu", "1300"];
        lab.on("box", &[&route[..], &["dev", "pst0"]].concat());
    }
    for (vip, family) in vips() {
        let learnt = transfer(&lab, &vip, family);
        assert!(!learnt.contains("mtu"), "{vip}: the backend was told: {learnt:?}");
    }
    assert_eq!(lab.counted("workers", "", "too_big"), 0);
    let lowered = lab.counted("workers", "", "mss_clamped");
    assert!(lowered >= 16, "{lowered}: both SYNs of eight connections, some twice");
}

/// Listeners of [`site`], in URLs, and how `ip` calls their family.
pub(crate) fn vips() -> [(String, &'static str); 4] {
    [
        (FULL_NAT_VIP.to_owned(), "-4"),
        (DNAT_VIP.to_owned(), "-4"),
        (format!("[{FULL_NAT_VIP6}]"), "-6"),
        (format!("[{DNAT_VIP6}]"), "-6"),
    ]
}

/// A download and an upload, whole; what the backend has learnt by them of ways.
pub(crate) fn transfer(lab: &Lab, vip: &str, family: &str) -> String {
    lab.on("backend1", &["ip", family, "route", "flush", "cache"]);
    let url = format!("http://{vip}/pattern");
    let fetch = ["curl", "-s", "-S", "-o", "/dev/null", "-w", "%{size_download}", "-m", "60", &url];
    assert_eq!(lab.on("client1", &fetch), FILE_BYTES, "{vip}");
    lab.upload("client1", &format!("http://{vip}/"));
    lab.on("backend1", &["ip", family, "route", "show", "cache"])
}

pub(crate) fn site() -> Site {
    let site = Site::new();
    for (name, vip, mode, backend) in [
        ("full", FULL_NAT_VIP, "full-nat", "10.10.0.11"),
        ("direct", DNAT_VIP, "dnat", "10.10.0.11"),
        ("full6", FULL_NAT_VIP6, "full-nat", "2001:db8:10::11"),
        ("direct6", DNAT_VIP6, "dnat", "2001:db8:10::11"),
    ] {
        let service = format!("{name}-pages");
        site.gateway(name, vip, mode, &[("http", "TCP", 80)]);
        site.service(&service, "TCP", 80, &[Ready(backend)]);
        site.route("TCP", (name, "http"), 80, &[(&service, 1)]);
    }
    site
}
