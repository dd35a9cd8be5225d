//! Who has another's MAC for an address of ours is told better: when we take a VIP over from another box, when the
//! data plane starts, and when its companion comes up again. Nobody has to ask, and nobody does here: the
//! router believes what it knows for an hour.

use std::thread;
use std::time::{Duration, Instant};

use crate::network::{Lab, wait_for};
use crate::site::{Endpoint::Ready, Site};
use crate::{BACKENDS, BACKENDS6, FULL_NAT_VIP};

/// Those that move, and the SNAT addresses, which backends have in their caches.
const VIPS: [&str; 2] = ["10.10.0.150", "2001:db8:10::150"];
const SNAT: [&str; 2] = ["10.10.0.200", "2001:db8:10::200"];
/// That of our port, of the box that had the VIPs before, and of nobody.
const OUR_MAC: &str = "02:00:00:00:00:01";
const NOBODYS_MAC: &str = "02:00:00:00:00:99";
const OTHER_BOX: &str = "backend4";
/// A turn of the main thread, and what the router needs to read a frame.
const AT_ONCE: Duration = Duration::from_millis(500);
/// The second announcement comes 2 s after the first.
const REPEATED: Duration = Duration::from_secs(6);

fn site() -> Site {
    let site = Site::new();
    site.gateway("web", FULL_NAT_VIP, "full-nat", &[("http", "TCP", 80)]);
    site.route("TCP", ("web", "http"), 80, &[("pages", 1)]);
    site.service("pages", "TCP", 80, &BACKENDS[..1].iter().copied().map(Ready).collect::<Vec<_>>());
    site.service(
        "pages6",
        "TCP",
        80,
        &BACKENDS6[..1].iter().copied().map(Ready).collect::<Vec<_>>(),
    );
    site
}

/// What was learned is held for an hour, so only an announcement tells otherwise.
fn believes_for_an_hour(lab: &Lab, host: &str, interface: &str) {
    for family in ["ipv4", "ipv6"] {
        let believed = format!("net.{family}.neigh.{interface}.base_reachable_time_ms=3600000");
        lab.on(host, &["sysctl", "-qw", &believed]);
    }
}

/// The MAC that a host sends to for an address, and for how good it takes that.
fn known(lab: &Lab, (host, interface): (&str, &str), address: &str) -> String {
    lab.on(host, &["ip", "neighbour", "show", "to", address, "dev", interface])
}

fn make_believe(lab: &Lab, (host, interface): (&str, &str), address: &str, mac: &str) {
    let to = ["to", address, "lladdr", mac, "nud", "reachable", "dev", interface];
    lab.on(host, &[&["ip", "neighbour", "replace"], &to[..]].concat());
}

fn curl(lab: &Lab, vip: &str, limit: &str) -> Option<String> {
    let url = if vip.contains(':') { format!("http://[{vip}]/") } else { format!("http://{vip}/") };
    lab.try_on("client1", &["curl", "--silent", "--max-time", limit, &url])
}

/// The other box serves the VIPs, and the router knows them by its MAC.
fn another_box_serves(lab: &Lab) -> String {
    for (vip, via) in
        VIPS.iter().zip([("10.10.1.0/24", "10.10.0.1"), ("2001:db8:11::/64", "2001:db8:10::1")])
    {
        lab.on(OTHER_BOX, &["ip", "route", "replace", via.0, "via", via.1]);
        lab.on(OTHER_BOX, &["ip", "address", "add", vip, "dev", "eth0", "nodad"]);
        assert_eq!(curl(lab, vip, "5").as_deref(), Some("backend4\n"), "{vip}");
    }
    let mac = lab.on(OTHER_BOX, &["cat", "/sys/class/net/eth0/address"]).trim().to_owned();
    for vip in VIPS {
        let known = known(lab, ("router", "lan"), vip);
        assert!(known.contains(&mac) && known.contains("REACHABLE"), "{vip}: {known}");
    }
    mac
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn a_vip_that_another_box_had_is_ours_with_the_neighbours_next_packet() {
    let site = site();
    let lab = Lab::up(&site, &[]);
    believes_for_an_hour(&lab, "router", "lan");
    let its_mac = another_box_serves(&lab);

    for vip in VIPS {
        lab.on(OTHER_BOX, &["ip", "address", "del", vip, "dev", "eth0"]);
    }
    for (vip, name) in VIPS.into_iter().zip(["moved", "moved6"]) {
        assert_eq!(curl(&lab, vip, "1"), None, "{vip}: nobody has it");
        let service = if vip.contains(':') { "pages6" } else { "pages" };
        site.route("TCP", (name, "http"), 80, &[(service, 1)]);
        let listeners = [("http", "TCP", 80)];
        lab.change("the VIP moves here", || site.gateway(name, vip, "full-nat", &listeners));
        thread::sleep(Duration::from_millis(20)); // what was sent by now is there by now
        let moved = Instant::now();
        let said = curl(&lab, vip, "0.8");
        let known = known(&lab, ("router", "lan"), vip);
        assert_eq!(said.as_deref(), Some("backend1\n"), "{vip}, which the router knows as {known}");
        assert!(known.contains(OUR_MAC) && !known.contains(&its_mac), "{vip}: {known}");
        eprintln!("  {vip}: served {:?} after it was taken over", moved.elapsed());
    }
    each_is_told_thrice(&lab);
}

/// The VIPs of three Gateways and the SNAT addresses: three of IPv4 and two of IPv6.
fn each_is_told_thrice(lab: &Lab) {
    wait_for("nothing remains to be told", Duration::from_secs(60), || {
        (lab.counted("ports", "lan", "announcing") == 0).then_some(())
    });
    let told = ["announced_arp", "announced_nd"].map(|told| lab.counted("ports", "lan", told));
    assert_eq!(told, [9, 6]);
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn a_start_and_a_companion_that_is_up_again_tell_of_all_addresses() {
    let site = site();
    site.gateway("web6", VIPS[1], "full-nat", &[("http", "TCP", 80)]);
    site.route("TCP", ("web6", "http"), 80, &[("pages6", 1)]);
    let lab = Lab::up(&site, &[]);
    let (router, backend) = (("router", "lan"), ("backend1", "eth0"));
    let places =
        [(router, FULL_NAT_VIP), (router, VIPS[1]), (backend, SNAT[0]), (backend, SNAT[1])];
    for (host, interface) in [router, backend] {
        believes_for_an_hour(&lab, host, interface);
    }
    let all_know_better = |when: &str| {
        let asked = Instant::now();
        wait_for(when, REPEATED, || {
            let knows = |(at, address): &(_, &str)| known(&lab, *at, address).contains(OUR_MAC);
            places.iter().all(knows).then_some(())
        });
        eprintln!("  {when}: {:?}", asked.elapsed());
        for vip in [FULL_NAT_VIP, VIPS[1]] {
            assert_eq!(curl(&lab, vip, "5").as_deref(), Some("backend1\n"), "{when}: {vip}");
        }
    };
    let nobody_does = || {
        for (at, address) in places {
            make_believe(&lab, at, address, NOBODYS_MAC);
        }
    };

    // Its port is plugged in by the lab a moment after its first announcements, which nobody hears.
    let killed = lab.kill("penstock-dataplane");
    nobody_does();
    wait_for("it runs again", Duration::from_secs(10), || {
        lab.pid("penstock-dataplane").filter(|pid| *pid != killed)
    });
    all_know_better("after a start");

    lab.on("box", &["ip", "link", "set", "pst0", "down"]);
    nobody_does();
    thread::sleep(AT_ONCE);
    assert!(known(&lab, router, FULL_NAT_VIP).contains(NOBODYS_MAC), "it is down: nothing is told");
    lab.on("box", &["ip", "link", "set", "pst0", "up"]);
    // What the kernel forgot with the interface is the administrator's to bring back.
    lab.on("box", &["ip", "address", "replace", "2001:db8:10::2/64", "dev", "pst0", "nodad"]);
    lab.on("box", &["ip", "route", "replace", "10.10.1.0/24", "via", "10.10.0.1"]);
    lab.on("box", &["ip", "route", "replace", "2001:db8:11::/64", "via", "2001:db8:10::1"]);
    all_know_better("after the companion came up");
    let addresses = lab.on("box", &["ip", "-6", "address", "show", "pst0"]);
    let vip = addresses.lines().find(|line| line.contains(VIPS[1])).expect("it is there again");
    assert!(!vip.contains("tentative"), "{vip}");
}
