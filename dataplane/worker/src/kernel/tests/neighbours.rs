//! What the mirror promises of neighbours, with a test that plays the hosts on the other side of
//! the companion.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::frames::{REPLY, REQUEST, arp_frame, arp_request_for, solicits};
use super::namespace::{
    COMPANION, MAC, box_with_management, discard_frames, frame, in_namespace, ip, mirror, sysctl,
    until, until_is,
};
use crate::kernel::{Asked, MacAddr, Mirror, Neighbour, announcement};

const US: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 2);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 11);
const HOST_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x77]);
const OTHER_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x78]);
const BROADCAST: MacAddr = MacAddr([0xff; 6]);

fn neighbour(mirror: &Mirror, address: IpAddr) -> Option<Neighbour> {
    mirror.view().neighbours.iter().find(|neighbour| neighbour.address == address).copied()
}

fn mac(mirror: &Mirror, address: IpAddr) -> Option<MacAddr> {
    neighbour(mirror, address)?.mac
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_neighbour_is_asked_for_and_comes_and_goes() {
    in_namespace("a_neighbour_is_asked_for_and_comes_and_goes", || {
        let tap = box_with_management();
        let mut mirror = mirror();
        assert_eq!(neighbour(&mirror, HOST.into()), None);
        assert_eq!(mirror.resolve(0, HOST.into(), seconds(1)).unwrap(), Asked::Now);
        assert_eq!(mirror.resolve(0, HOST.into(), seconds(1)).unwrap(), Asked::Lately);
        assert_eq!(mirror.resolve(7, HOST.into(), seconds(1)).unwrap(), Asked::NoCompanion);

        let request = frame(&tap, "the kernel asks", |frame| arp_request_for(frame, HOST));
        assert_eq!((request.to, request.sender), (BROADCAST, (MAC, US)), "as the box");
        tap.write_frame(&arp_frame(REPLY, (HOST_MAC, HOST), request.sender)).unwrap();
        until(&mut mirror, "who answers is there", |mirror| {
            mac(mirror, HOST.into()) == Some(HOST_MAC)
        });
        assert_eq!(mirror.resolve(0, HOST.into(), seconds(60)).unwrap(), Asked::Known);

        let moved = announcement(HOST.into(), OTHER_MAC);
        ip("neigh change 10.10.0.11 dev pst0 lladdr 02:00:00:00:00:77 nud stale");
        tap.write_frame(&moved).unwrap();
        until(&mut mirror, "who moves is seen by its gratuitous ARP", |mirror| {
            mac(mirror, HOST.into()) == Some(OTHER_MAC)
        });
        ip("neigh del 10.10.0.11 dev pst0");
        until(&mut mirror, "who is deleted goes", |mirror| mac(mirror, HOST.into()).is_none());
    });
}

#[test]
fn who_does_not_answer_is_shown_as_failed_until_asked_for_again() {
    in_namespace("who_does_not_answer_is_shown_as_failed_until_asked_for_again", || {
        let tap = box_with_management();
        sysctl(&format!("net/ipv4/neigh/{COMPANION}/retrans_time_ms"), "50");
        let mut mirror = mirror();
        mirror.resolve(0, HOST.into(), seconds(1)).unwrap();
        until(&mut mirror, "the kernel gives up", |mirror| {
            neighbour(mirror, HOST.into()).is_some_and(|host| host.failed && host.mac.is_none())
        });
        discard_frames(&tap);
        assert_eq!(mirror.resolve(0, HOST.into(), seconds(3)).unwrap(), Asked::Now);
        frame(&tap, "it asks again", |frame| arp_request_for(frame, HOST));
    });
}

#[test]
fn a_stale_neighbour_in_use_is_probed_and_one_not_in_use_is_left_alone() {
    in_namespace("a_stale_neighbour_in_use_is_probed_and_one_not_in_use_is_left_alone", || {
        let tap = box_with_management();
        sysctl(&format!("net/ipv4/neigh/{COMPANION}/delay_first_probe_time"), "1");
        ip("neigh add 10.10.0.11 dev pst0 lladdr 02:00:00:00:00:77 nud stale");
        ip("neigh add 10.10.0.12 dev pst0 lladdr 02:00:00:00:00:78 nud stale");
        ip("neigh add 10.10.0.13 dev pst0 lladdr 02:00:00:00:00:79 nud permanent");
        let mut mirror = mirror();
        assert_eq!(mac(&mirror, HOST.into()), Some(HOST_MAC), "a stale one is good to send to");
        discard_frames(&tap);

        let in_use = [(0, HOST.into()), (0, Ipv4Addr::new(10, 10, 0, 13).into())];
        assert_eq!(mirror.keep_fresh(in_use, seconds(1)).unwrap(), 1, "one is stale");
        assert_eq!(mirror.keep_fresh(in_use, seconds(2)).unwrap(), 0, "and was told of");
        let other = Ipv4Addr::new(10, 10, 0, 12);
        let probe = frame(&tap, "a probe by unicast", |frame| {
            assert_eq!(arp_request_for(frame, other), None, "for no other");
            arp_request_for(frame, HOST)
        });
        assert_eq!(probe.to, HOST_MAC);
        tap.write_frame(&arp_frame(REPLY, (HOST_MAC, HOST), probe.sender)).unwrap();
        until(&mut mirror, "it is fresh again", |mirror| mac(mirror, HOST.into()).is_some());
        while mirror.resolve(0, HOST.into(), seconds(60)).unwrap() != Asked::Known {
            std::thread::sleep(Duration::from_millis(20));
            mirror.step().unwrap();
        }
        let gateway = Ipv4Addr::new(10, 10, 0, 1);
        assert_eq!(mirror.keep_fresh([(0, gateway.into())], seconds(61)).unwrap(), 1);
        frame(&tap, "one in use that is missing is asked for", |frame| {
            arp_request_for(frame, gateway)
        });
    });
}

#[test]
fn ipv6_neighbours_are_asked_for_and_told_by_advertisements() {
    in_namespace("ipv6_neighbours_are_asked_for_and_told_by_advertisements", || {
        let tap = box_with_management();
        ip("address add fe80::2/64 dev pst0 nodad"); // the kernel asks from a link-local address
        let host: IpAddr = "2001:db8::11".parse().unwrap();
        let mut mirror = mirror();
        assert_eq!(mirror.resolve(0, host, seconds(1)).unwrap(), Asked::Now);
        frame(&tap, "the kernel solicits", |frame| solicits(frame, host));
        // The kernel takes our own unsolicited advertisement for an answer, so it is well made.
        tap.write_frame(&announcement(host, HOST_MAC)).unwrap();
        until(&mut mirror, "who answers is there", |mirror| mac(mirror, host) == Some(HOST_MAC));
        tap.write_frame(&announcement(host, OTHER_MAC)).unwrap();
        until(&mut mirror, "who moves says so", |mirror| mac(mirror, host) == Some(OTHER_MAC));
    });
}

#[test]
fn a_host_that_asks_for_us_becomes_a_neighbour_and_others_do_not_show() {
    in_namespace("a_host_that_asks_for_us_becomes_a_neighbour_and_others_do_not_show", || {
        let tap = box_with_management();
        let mut mirror = mirror();
        tap.write_frame(&arp_frame(REQUEST, (HOST_MAC, HOST), (BROADCAST, US))).unwrap();
        until(&mut mirror, "by its own question", |mirror| {
            mac(mirror, HOST.into()) == Some(HOST_MAC)
        });
        let routes = mirror.view().routes.clone();
        ip("neigh add 192.168.7.9 dev mgmt0 lladdr 02:00:00:00:00:79 nud permanent");
        ip("neigh add 10.10.0.13 dev pst0 lladdr 02:00:00:00:00:79 nud permanent");
        let shown = |mirror: &Mirror| {
            let neighbours = mirror.view().neighbours.iter();
            neighbours.map(|neighbour| neighbour.address.to_string()).collect::<Vec<_>>()
        };
        until_is(&mut mirror, "its own only", shown, &vec!["10.10.0.11", "10.10.0.13"]);
        assert_eq!(routes, mirror.view().routes);
        assert!(Arc::ptr_eq(&routes, &mirror.view().routes), "routes are as they were");

        let neighbours = mirror.view().neighbours.clone();
        ip("neigh change 10.10.0.11 dev pst0 lladdr 02:00:00:00:00:77 nud reachable");
        mirror.resync().unwrap();
        let changed = std::iter::from_fn(|| (!mirror.is_current()).then(|| mirror.step().unwrap()));
        assert!(!changed.into_iter().any(|changed| changed), "fresh or stale, it is the same MAC");
        assert!(Arc::ptr_eq(&neighbours, &mirror.view().neighbours), "and the same list");
    });
}
