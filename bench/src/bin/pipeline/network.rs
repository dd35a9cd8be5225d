//! The configuration that the packets meet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use penstock_forward::fib::{Neighbour, Prefix, Route, RouteHop};
use penstock_forward::testing::Family;
use penstock_forward::{
    Affinity, BACKEND_COLUMNS, BackendId, Counters, DropReason, Fib, Group, L4Ports,
    LISTENER_COLUMNS, Listener, ListenerSlot, MacAddr, Member, Mode, MssClamp, OnExhaustion,
    OnUnknown, PortConfig, PortIdx, Protocol, Snapshot, SnapshotBuilder, WORKER_COLUMNS,
};

const BACKENDS: u8 = 16;
const SNAT_ADDRESSES: u8 = 64;
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Our port.
pub(crate) const BOX: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// What clients ask, at port 80.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

/// The counters of one worker.
pub(crate) struct Cells {
    drops: Vec<AtomicU64>,
    listeners: Vec<AtomicU64>,
    backends: Vec<AtomicU64>,
    worker: Vec<AtomicU64>,
}

impl Cells {
    pub(crate) fn new() -> Self {
        let cells = |n: usize| (0..n).map(|_| AtomicU64::new(0)).collect();
        Self {
            drops: cells(DropReason::ALL.len()),
            listeners: cells(LISTENER_COLUMNS.len()),
            backends: cells(usize::from(BACKENDS) * BACKEND_COLUMNS.len()),
            worker: cells(WORKER_COLUMNS.len()),
        }
    }

    pub(crate) fn counters(&self) -> Counters<'_> {
        Counters {
            drops: &self.drops,
            listeners: &self.listeners,
            backends: &self.backends,
            worker: &self.worker,
        }
    }
}

/// One VIP, 16 backends, 64 SNAT addresses, a router.
pub(crate) fn snapshot(family: Family, mode: Mode) -> Snapshot {
    let backend = |n: u8| family.of([10, 0, 0, n + 1].into());
    let members = (0..BACKENDS).map(|n| Member {
        id: BackendId(n.into()),
        address: SocketAddr::new(backend(n), 8080),
        weight: 1,
        draining: false,
    });
    let snat: Arc<[IpAddr]> =
        (0..SNAT_ADDRESSES).map(|n| family.of([10, 0, 1, n + 1].into())).collect();
    // A large table: the least friendly to the caches, and that of earlier figures.
    let group = Group::new(members.collect(), 0, Some(65_537)).map(Arc::new);
    let listener = Listener {
        slot: ListenerSlot(0),
        vip: family.of(VIP),
        protocol: Protocol::Tcp,
        ports: L4Ports::one(80),
        mode,
        affinity: Affinity::Tuple,
        on_exhaustion: OnExhaustion::Reset,
        on_unknown: OnUnknown::Drop,
        mss_clamp: MssClamp::Auto,
        source_ranges: None,
        group: group.unwrap_or_else(|error| panic!("sixteen backends make a table: {error}")),
        snat: snat.clone(),
    };
    let mut builder = SnapshotBuilder::new();
    let ports = [PortConfig { mac: BOX, mtu: 1500 }];
    let fib = fib(family, &ports, (0..BACKENDS).map(backend));
    builder.ports(ports).fib(Arc::new(fib));
    snat.iter().for_each(|address| _ = builder.add_snat_address(*address));
    builder
        .listener(listener)
        .and_then(|builder| builder.build(1))
        .unwrap_or_else(|error| panic!("one listener makes a snapshot: {error}"))
}

fn fib(family: Family, ports: &[PortConfig], backends: impl Iterator<Item = IpAddr>) -> Fib {
    let embedded = if family == Family::V6 { 96 } else { 0 };
    let route = |address: [u8; 4], len: u8, gateway| Route {
        prefix: Prefix { address: family.of(address.into()), len: embedded + len },
        next_hops: vec![RouteHop { port: PortIdx(0), gateway, weight: 1 }],
        mtu: None,
    };
    let router = family.of(ROUTER);
    let routes = [route([0; 4], 0, Some(router)), route([10, 0, 0, 0], 8, None)];
    let neighbours: Vec<Neighbour> = backends
        .chain([router])
        .zip(1..)
        .map(|(address, n)| {
            let mac = MacAddr([2, 1, 0, 0, 0, n]);
            Neighbour { port: PortIdx(0), address, mac }
        })
        .collect();
    Fib::build(1, ports, &routes, &neighbours)
}
