//! Look-ups against a search that cannot be wrong, and the kinds of answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{Fib, Hop, Neighbour, Prefix, Route, RouteHop};
use crate::{MacAddr, NextHopKey, PortConfig, PortIdx};

const PORTS: [PortConfig; 2] = [
    PortConfig { mac: MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1500 },
    PortConfig { mac: MacAddr([2, 0, 0, 0, 0, 2]), mtu: 9000 },
];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn hop(port: u16, gateway: &str) -> RouteHop {
    let gateway = (!gateway.is_empty()).then(|| address(gateway));
    RouteHop { port: PortIdx(port), gateway, weight: 1 }
}

fn route(prefix: &str, next_hops: Vec<RouteHop>) -> Route {
    let (base, len) = prefix.split_once('/').unwrap();
    Route {
        prefix: Prefix { address: address(base), len: len.parse().unwrap() },
        next_hops,
        mtu: None,
    }
}

fn neighbour(port: u16, ip: &str, last: u8) -> Neighbour {
    Neighbour { port: PortIdx(port), address: address(ip), mac: MacAddr([2, 0, 0, 0, 1, last]) }
}

/// The last byte of the destination MAC, the port and the MTU of the answer.
fn resolved(fib: &Fib, destination: &str, hash: u64) -> Option<(u8, u16, u16)> {
    match fib.look_up(address(destination), || hash) {
        Hop::Ready(index) => {
            fib.adjacency(index).map(|found| (found.macs[5], found.port.0, found.mtu))
        }
        _ => None,
    }
}

#[test]
fn the_longest_prefix_decides_and_its_next_hop_answers() {
    let routes = [
        route("0.0.0.0/0", vec![hop(0, "192.0.2.1")]),
        route("10.0.0.0/8", vec![hop(1, "")]),
        route("10.1.0.0/16", vec![hop(0, "192.0.2.9")]),
        route("10.1.2.0/24", vec![]),
        route("2001:db8::/32", vec![hop(1, "")]),
        Route { mtu: Some(1200), ..route("203.0.113.0/24", vec![hop(1, "10.0.0.1")]) },
        Route { mtu: Some(9999), ..route("203.0.113.8/29", vec![hop(0, "192.0.2.1")]) },
        route("198.51.100.0/24", vec![hop(9, "192.0.2.1")]),
    ];
    let neighbours = [
        neighbour(0, "192.0.2.1", 1),
        neighbour(1, "10.0.0.1", 2),
        neighbour(1, "10.1.2.3", 3),
        neighbour(1, "2001:db8::5", 4),
        neighbour(0, "10.0.0.1", 5),
    ];
    let fib = Fib::build(1, &PORTS, &routes, &neighbours);
    let key = |port: u16, ip: &str| {
        Hop::Unresolved(NextHopKey { port: PortIdx(port), address: address(ip) })
    };
    assert_eq!(resolved(&fib, "8.8.8.8", 0), Some((1, 0, 1500)), "the default route");
    assert_eq!(resolved(&fib, "10.0.0.1", 0), Some((2, 1, 9000)), "on-link, by the route's port");
    assert_eq!(fib.look_up(address("10.0.0.9"), || 0), key(1, "10.0.0.9"), "on-link, not resolved");
    assert_eq!(
        fib.look_up(address("10.1.0.9"), || 0),
        key(0, "192.0.2.9"),
        "by a gateway, not resolved"
    );
    assert_eq!(
        fib.look_up(address("10.1.2.3"), || 0),
        Hop::Unreachable,
        "an unreachable route hides the wider"
    );
    assert_eq!(resolved(&fib, "2001:db8::5", 0), Some((4, 1, 9000)), "IPv6 on-link");
    assert_eq!(
        fib.look_up(address("2001:db9::5"), || 0),
        Hop::Unreachable,
        "no IPv6 default route"
    );
    assert_eq!(resolved(&fib, "203.0.113.1", 0), Some((2, 1, 1200)), "the route's MTU");
    assert_eq!(resolved(&fib, "203.0.113.9", 0), Some((1, 0, 1500)), "but never above the port's");
    assert_eq!(
        fib.look_up(address("198.51.100.1"), || 0),
        Hop::Unreachable,
        "a port we do not have"
    );
    assert_eq!(Fib::default().look_up(address("10.0.0.1"), || 0), Hop::Unreachable);
}

#[test]
fn flows_are_shared_out_among_next_hops_by_weight() {
    let mut heavy = hop(0, "192.0.2.1");
    heavy.weight = 3;
    let routes = [route("0.0.0.0/0", vec![heavy, hop(0, "192.0.2.2")])];
    let neighbours = [neighbour(0, "192.0.2.1", 1), neighbour(0, "192.0.2.2", 2)];
    let fib = Fib::build(1, &PORTS, &routes, &neighbours);
    let mut counts = [0; 3];
    for n in 0..4000_u64 {
        let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        counts[usize::from(resolved(&fib, "8.8.8.8", hash).unwrap().0)] += 1;
    }
    assert!((2900..3100).contains(&counts[1]), "{counts:?}");
    assert_eq!(resolved(&fib, "8.8.8.8", u64::MAX).unwrap().0, 2);
}

fn masked(bits: u128, len: u8, width: u32) -> u128 {
    if len == 0 { 0 } else { bits >> (width - u32::from(len)) }
}

/// The longest matching prefix; of equal ones the last.
fn naive(prefixes: &[(u128, u8)], address: u128, width: u32) -> Option<usize> {
    let matching = prefixes
        .iter()
        .enumerate()
        .filter(|(_, (bits, len))| masked(*bits, *len, width) == masked(address, *len, width));
    matching.max_by_key(|(at, (_, len))| (*len, *at)).map(|(at, _)| at)
}

/// A gateway whose address names its route.
fn gateway(route: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(u32::try_from(route).unwrap()))
}

fn check(prefixes: &[(u128, u8)], probes: &[u128], width: u32) {
    let ip = |bits: u128| match u32::try_from(bits) {
        Ok(bits) if width == 32 => IpAddr::V4(Ipv4Addr::from(bits)),
        _ => IpAddr::V6(Ipv6Addr::from(bits)),
    };
    let routes: Vec<Route> = prefixes
        .iter()
        .enumerate()
        .map(|(at, (bits, len))| Route {
            prefix: Prefix { address: ip(*bits), len: *len },
            next_hops: vec![RouteHop { port: PortIdx(0), gateway: Some(gateway(at)), weight: 1 }],
            mtu: None,
        })
        .collect();
    let fib = Fib::build(1, &PORTS, &routes, &[]);
    let edges = prefixes.iter().flat_map(|(bits, len)| {
        let span = if *len == 0 { u128::MAX } else { (1_u128 << (width - u32::from(*len))) - 1 };
        let first = bits & !span;
        [first.wrapping_sub(1), first, first | span, (first | span).wrapping_add(1)]
    });
    let max = if width == 32 { u128::from(u32::MAX) } else { u128::MAX };
    for probe in probes.iter().copied().chain(edges).map(|probe| probe & max) {
        let expected = naive(prefixes, probe, width).map_or(Hop::Unreachable, |at| {
            Hop::Unresolved(NextHopKey { port: PortIdx(0), address: gateway(at) })
        });
        assert_eq!(fib.look_up(ip(probe), || 0), expected, "{}", ip(probe));
    }
}

proptest! {
    #[test]
    fn ipv4_look_ups_agree_with_a_naive_search(
        prefixes in prop::collection::vec((prop_oneof![any::<u32>(), 0..=255_u32, (u32::MAX - 255)..=u32::MAX], 0..=32_u8), 0..40),
        probes in prop::collection::vec(any::<u32>(), 40),
    ) {
        let prefixes: Vec<(u128, u8)> = prefixes.into_iter().map(|(bits, len)| (bits.into(), len)).collect();
        check(&prefixes, &probes.into_iter().map(u128::from).collect::<Vec<_>>(), 32);
    }

    #[test]
    fn ipv6_look_ups_agree_with_a_naive_search(
        prefixes in prop::collection::vec((any::<u128>(), 0..=128_u8), 0..40),
        probes in prop::collection::vec(any::<u128>(), 40),
    ) {
        check(&prefixes, &probes, 128);
    }
}
