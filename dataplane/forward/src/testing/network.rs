//! The small network around a [`TestLb`](super::TestLb), and the spec that says what it balances.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use super::family::Family;
use super::packet::{BOX_MAC, ROUTER, mac_towards};
use crate::fib::{Neighbour, Prefix, Route, RouteHop};
use crate::{
    Affinity, BackendId, Fib, Group, L4Ports, Listener, ListenerSlot, Member, Mode, MssClamp,
    NextHopKey, OnExhaustion, OnUnknown, PortConfig, PortIdx, Protocol, SnapshotBuilder,
    SourceRanges,
};

/// Rows of the listener and backend counter tables: more than any test has.
pub(super) const COUNTER_ROWS: usize = 64;

/// The stable number of a test backend: its last octet.
fn id_of(address: SocketAddr) -> BackendId {
    match address.ip() {
        IpAddr::V4(v4) => BackendId(u32::from(v4.octets()[3]) % COUNTER_ROWS as u32),
        IpAddr::V6(v6) => BackendId(u32::from(v6.octets()[15]) % COUNTER_ROWS as u32),
    }
}

pub(super) fn parse_listeners(spec: &str) -> Vec<Listener> {
    let lines = spec.lines().map(str::trim).filter(|line| !line.is_empty());
    (0..).zip(lines).map(|(slot, line)| parse_listener(ListenerSlot(slot), line)).collect()
}

fn parse_listener(slot: ListenerSlot, line: &str) -> Listener {
    let mut words = line.split_whitespace();
    let (address, protocol) =
        words.next().and_then(|word| word.split_once('/')).expect("VIP:PORT/PROTOCOL");
    let (vip, ports) = address.rsplit_once(':').expect("VIP:PORT");
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (mut mode, mut members, mut snat, mut refused) = (Mode::FullNat, vec![], vec![], 0);
    let mut affinity = Affinity::Tuple;
    let (mut on_exhaustion, mut on_unknown) = (OnExhaustion::Reset, OnUnknown::Drop);
    let mut mss_clamp = MssClamp::Auto;
    let mut sources: Option<Vec<Prefix>> = None;
    for word in words {
        match word.split_once('=').expect("KEY=VALUE") {
            ("mode", "dnat") => mode = Mode::Dnat,
            ("mode", "full-nat") => mode = Mode::FullNat,
            ("mode", "l2-dsr") => mode = Mode::L2Dsr,
            ("mode", "ipip") => mode = Mode::Ipip,
            ("mode", "gue") => mode = Mode::Gue,
            ("mode", "gue-variant-0") => mode = Mode::GueVariant0,
            ("affinity", bits) => {
                affinity = Affinity::Source { bits: bits.parse().expect("a prefix length") };
            }
            ("backend", backend) => members.push(parse_member(backend)),
            ("snat", address) => {
                snat.push(address.trim_matches(['[', ']']).parse().expect("a SNAT address"));
            }
            ("on-exhaustion", "reset") => on_exhaustion = OnExhaustion::Reset,
            ("on-exhaustion", "icmp") => on_exhaustion = OnExhaustion::Icmp,
            ("on-exhaustion", "drop") => on_exhaustion = OnExhaustion::Drop,
            ("on-unknown", "drop") => on_unknown = OnUnknown::Drop,
            ("on-unknown", "reset") => on_unknown = OnUnknown::Reset,
            ("mss-clamp", "off") => mss_clamp = MssClamp::Off,
            ("mss-clamp", bytes) => mss_clamp = MssClamp::Most(bytes.parse().expect("bytes")),
            ("source", "none") => sources = Some(Vec::new()),
            ("source", prefix) => sources.get_or_insert_default().push(parse_prefix(prefix)),
            ("refused", weight) => refused = weight.parse().expect("a weight"),
            other => panic!("{other:?} in {line}"),
        }
    }
    let group = Group::new(members, refused, Some(251)).expect("a group for the test");
    Listener {
        slot,
        vip: vip.trim_matches(['[', ']']).parse().expect("a VIP"),
        protocol: if protocol == "tcp" { Protocol::Tcp } else { Protocol::Udp },
        ports: L4Ports {
            first: first.parse().expect("a port"),
            last: last.parse().expect("a port"),
        },
        mode,
        affinity,
        on_exhaustion,
        on_unknown,
        mss_clamp,
        source_ranges: sources.map(|sources| Arc::new(SourceRanges::new(&sources))),
        group: Arc::new(group),
        snat: snat.into(),
    }
}

/// Of IPv6, the length is that of the IPv4 prefix that it embeds.
fn parse_prefix(word: &str) -> Prefix {
    let (address, len) = word.split_once('/').expect("ADDRESS/LENGTH");
    let address: IpAddr = address.trim_matches(['[', ']']).parse().expect("an address");
    let len: u8 = len.parse().expect("a prefix length");
    Prefix { address, len: if address.is_ipv6() { 96 + len } else { len } }
}

fn parse_member(word: &str) -> Member {
    let (address, weight) = word.split_once('*').unwrap_or((word, "1"));
    let address = address.parse().unwrap_or_else(|error| panic!("{address}: {error}"));
    let draining = weight == "drain";
    let weight = if draining { 1 } else { weight.parse().expect("a weight") };
    Member { id: id_of(address), address, weight, draining }
}

/// For [`Forwarder::resume`](crate::Forwarder::resume), where what the frame was held for does not matter.
pub const NOWHERE: NextHopKey =
    NextHopKey { port: PortIdx(0), address: IpAddr::V4(Ipv4Addr::UNSPECIFIED) };

/// The ports of the test network.
pub(super) fn ports() -> [PortConfig; 1] {
    [PortConfig { mac: BOX_MAC, mtu: 1500 }]
}

/// The FIB of the test network.
static FIB: LazyLock<Arc<Fib>> = LazyLock::new(|| Arc::new(fib_of(&ports(), 1)));

/// Everything but the version.
pub(super) fn network(listeners: &[Listener]) -> SnapshotBuilder {
    let mut builder = SnapshotBuilder::new();
    let local = [Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(10, 0, 0, 2)];
    let local = Family::BOTH.into_iter().flat_map(|family| local.map(|v4| family.of(v4)));
    builder.ports(ports()).fib(FIB.clone()).local_addresses(local.clone());
    local.for_each(|address| _ = builder.add_own_address(address));
    for listener in listeners {
        builder.listener(listener.clone()).expect("a listener for the test");
        listener.snat.iter().for_each(|address| _ = builder.add_snat_address(*address));
        if listener.mode == Mode::Dnat {
            for member in listener.group.members() {
                builder.add_dnat_backend(member.address, listener.protocol);
            }
        }
    }
    builder
}

/// The routes and neighbours of the test network, for other ports.
#[must_use]
pub fn fib_of(ports: &[PortConfig], version: u32) -> Fib {
    Fib::build(version, ports, &routes(), &neighbours())
}

pub(super) fn routes() -> Vec<Route> {
    let hop = |gateway| vec![RouteHop { port: PortIdx(0), gateway, weight: 1 }];
    let of_family = |family: Family| {
        let route = |v4: [u8; 4], len, next_hops, mtu| {
            let len = if family == Family::V6 { 96 + len } else { len };
            let prefix = Prefix { address: family.of(v4.into()), len };
            Route { prefix, next_hops, mtu }
        };
        [
            route([0, 0, 0, 0], 0, hop(Some(family.of(ROUTER))), None),
            route([10, 0, 0, 0], 8, hop(None), None),
            route([10, 66, 0, 0], 16, vec![], None),
            route([10, 77, 0, 0], 16, hop(Some(family.of(ROUTER))), Some(1000)),
        ]
    };
    Family::BOTH.into_iter().flat_map(of_family).collect()
}

pub(super) fn neighbours() -> Vec<Neighbour> {
    let hosts = (1..=40).map(|host| Ipv4Addr::new(10, 0, 0, host)).chain([ROUTER]);
    hosts
        .flat_map(|host| Family::BOTH.map(|family| family.of(host)))
        .map(|address| Neighbour { port: PortIdx(0), address, mac: mac_towards(address) })
        .collect()
}
