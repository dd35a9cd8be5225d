//! `pipeline [FILTER]`: what the packet path itself costs, without a NIC.
//!
//! A line a bench: name, median, spread (least to most), unit. The packets lie ready in memory, as a
//! NIC would leave them; each round writes them anew for flows drawn uniformly at random, half of
//! them clients' packets and half replies (with DSR, where replies take another way, all of them
//! clients'), and then times the forwarder over 16 bursts of 32.
//! Filling the burst and reading the exits are timed too; writing the packets is not.
//!
//! The header checksum is verified in software, as with a NIC that offers no help.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use memmap2::{Advice, MmapMut};
use penstock_forward::fib::{Neighbour, Prefix, Route, RouteHop};
use penstock_forward::flow::FlowKey;
use penstock_forward::testing::{Family, TestPacket};
use penstock_forward::wire::tcp::{ACK, SYN};
use penstock_forward::{
    Affinity, BACKEND_COLUMNS, BURST, BackendId, Burst, CacheLine, Counters, DropReason, Exit, Fib,
    FlowMemory, Forwarder, Group, HEADROOM, L4Ports, LISTENER_COLUMNS, Listener, ListenerSlot,
    MacAddr, Member, Mode, PortConfig, PortIdx, Protocol, RxChecks, Snapshot, SnapshotBuilder,
    Tick, WORKER_COLUMNS, WorkerIdx,
};
use zerocopy::FromBytes as _;

/// Rounds of a bench.
const ROUNDS: usize = 301;
/// Packets a round: 16 bursts, so that reading the clock costs nothing per packet.
const PACKETS: usize = 16 * BURST;
/// Bytes from one packet to the next, as in a mempool.
const STRIDE: usize = 2176;
/// The least TCP frame of each family without its FCS: 64 bytes with it, and 78.
const FRAME: [usize; 2] = [60, 74];

const BACKENDS: u8 = 16;
const SNAT_ADDRESSES: u8 = 8;
const BOX: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

fn main() -> std::io::Result<()> {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let mut out = std::io::stdout();
    for (family, mode, bench) in [
        (Family::V4, Mode::FullNat, "l4_full_nat/64B"),
        (Family::V6, Mode::FullNat, "l4_full_nat_ipv6/78B"),
        (Family::V4, Mode::L2Dsr, "l4_l2_dsr/64B"),
        (Family::V4, Mode::Ipip, "l4_ipip/64B"),
        (Family::V6, Mode::Ipip, "l4_ip6ip6/78B"),
        (Family::V4, Mode::Gue, "l4_gue/64B"),
    ] {
        for (name, flows) in [("64_flows", 64), ("1M_flows", 1 << 20)] {
            let name = format!("{bench}/{name}");
            if !name.contains(&filter) {
                continue;
            }
            let Spread { median, least, most } = established(family, mode, flows)?;
            writeln!(out, "{name:30} {median:7.1}  ({least:.1}-{most:.1})  {UNIT}")?;
        }
    }
    Ok(())
}

/// The median of the rounds, and their least and most.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

/// Packets of established connections.
fn established(family: Family, mode: Mode, flows: usize) -> std::io::Result<Spread> {
    let mut memory = MmapMut::map_anon(FlowMemory::bytes_for(flows))?;
    memory.advise(Advice::HugePage)?;
    let lines = <[CacheLine]>::mut_from_bytes(&mut memory)
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    let memory = FlowMemory::new(lines, flows).map_err(std::io::Error::other)?;
    let cells = Cells::new();
    let mut forwarder = Forwarder::new(WorkerIdx(0), 1, [7; 32], memory, cells.counters());
    let snapshot = snapshot(family, mode);
    let mut packets = Packets::new(family)?;
    let clients = (0..flows).map(|n| client_key(family, n)).collect();
    let keys = open_connections(&mut forwarder, &snapshot, &mut packets, clients, mode);

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            for at in 0..PACKETS {
                packets.write(at, &keys[random.below(keys.len())], ACK);
            }
            packets.forward(&mut forwarder, &snapshot) as f64 / PACKETS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    Ok(Spread { median: rounds[ROUNDS / 2], least: rounds[0], most: rounds[ROUNDS - 1] })
}

/// Opens connections, and returns the keys of packets that arrive for them: the clients', and but with DSR the
/// backends'.
fn open_connections(
    forwarder: &mut Forwarder,
    snapshot: &Snapshot,
    packets: &mut Packets,
    clients: Vec<FlowKey>,
    mode: Mode,
) -> Vec<FlowKey> {
    for some in clients.chunks(PACKETS) {
        send(forwarder, snapshot, packets, some, SYN);
    }
    let replies: Vec<FlowKey> = forwarder
        .flows()
        .filter_map(|flow| FlowKey::new(flow.backend, flow.outside, flow.protocol))
        .collect();
    assert_eq!(replies.len(), clients.len(), "every connection was opened");
    if !mode.is_dsr() {
        for some in replies.chunks(PACKETS) {
            send(forwarder, snapshot, packets, some, SYN | ACK);
        }
    }
    for some in clients.chunks(PACKETS) {
        send(forwarder, snapshot, packets, some, ACK);
    }
    if mode.is_dsr() { clients } else { [clients, replies].concat() }
}

fn send(
    forwarder: &mut Forwarder,
    snapshot: &Snapshot,
    packets: &mut Packets,
    keys: &[FlowKey],
    flags: u8,
) {
    for at in 0..PACKETS {
        packets.write(at, &keys[at % keys.len()], flags);
    }
    packets.forward(forwarder, snapshot);
}

fn client_key(family: Family, n: usize) -> FlowKey {
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) + n / 1024);
    let port = u16::try_from(20_000 + n % 1024).unwrap_or(u16::MAX);
    let client = SocketAddr::new(family.of(address), port);
    FlowKey::new(client, SocketAddr::new(family.of(VIP), 80), Protocol::Tcp).unwrap_or_default()
}

/// Packet buffers that lie as a mempool's do.
struct Packets {
    family: Family,
    memory: MmapMut,
    template: Vec<u8>,
}

impl Packets {
    fn new(family: Family) -> std::io::Result<Self> {
        let memory = MmapMut::map_anon(PACKETS * STRIDE)?;
        memory.advise(Advice::HugePage)?;
        let any = SocketAddr::new(family.of(VIP), 80);
        let template = TestPacket::between(any, any, Protocol::Tcp).to_mac(BOX);
        Ok(Self { family, memory, template: template.padded_to(FRAME[family as usize]).bytes() })
    }

    /// Writes a packet of `key` with a right header checksum. The TCP checksum stays the template's:
    /// it is updated, not read.
    fn write(&mut self, at: usize, key: &FlowKey, flags: u8) {
        let frame = &mut self.memory[at * STRIDE + HEADROOM..][..self.template.len()];
        frame.copy_from_slice(&self.template);
        let l4 = self.family.l4();
        for (nth, end) in [key.source(), key.destination()].into_iter().enumerate() {
            match end.ip() {
                IpAddr::V4(v4) => frame[26 + 4 * nth..][..4].copy_from_slice(&v4.octets()),
                IpAddr::V6(v6) => frame[22 + 16 * nth..][..16].copy_from_slice(&v6.octets()),
            }
            frame[l4 + 2 * nth..][..2].copy_from_slice(&end.port().to_be_bytes());
        }
        frame[l4 + 13] = flags;
        if self.family == Family::V4 {
            frame[24..26].copy_from_slice(&[0, 0]);
            let sum = !penstock_forward::wire::checksum::sum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_ne_bytes());
        }
    }

    /// Forwards all packets in bursts of 32, and returns the time it took.
    fn forward(&mut self, forwarder: &mut Forwarder, snapshot: &Snapshot) -> u64 {
        let len = HEADROOM + self.template.len();
        let mut frames = self.memory.chunks_exact_mut(STRIDE);
        let mut sent = 0;
        let begin = clock();
        for _ in 0..PACKETS / BURST {
            let mut burst = Burst::new();
            for buffer in frames.by_ref().take(BURST) {
                burst.push(&mut buffer[..len], PortIdx(0), RxChecks::default());
            }
            forwarder.forward(&mut burst, snapshot, Tick(1));
            sent += burst.iter().filter(|packet| matches!(packet.exit(), Exit::Send(_))).count();
        }
        let took = clock() - begin;
        assert_eq!(sent, PACKETS, "every packet is sent");
        took
    }
}

#[cfg(target_arch = "x86_64")]
const UNIT: &str = "TSC cycles/packet";
#[cfg(not(target_arch = "x86_64"))]
const UNIT: &str = "ns/packet";

/// The time stamp counter.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "no safe way to read the TSC, and the budget is in its cycles")]
fn clock() -> u64 {
    // SAFETY: the instruction exists on every x86-64 CPU, and Linux lets user space execute it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn clock() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let start = START.get_or_init(std::time::Instant::now);
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((u128::from(self.0) * bound as u128) >> 64).unwrap_or(0)
    }
}

/// The counters of one worker.
struct Cells {
    drops: Vec<AtomicU64>,
    listeners: Vec<AtomicU64>,
    backends: Vec<AtomicU64>,
    worker: Vec<AtomicU64>,
}

impl Cells {
    fn new() -> Self {
        let cells = |n: usize| (0..n).map(|_| AtomicU64::new(0)).collect();
        Self {
            drops: cells(DropReason::ALL.len()),
            listeners: cells(LISTENER_COLUMNS.len()),
            backends: cells(usize::from(BACKENDS) * BACKEND_COLUMNS.len()),
            worker: cells(WORKER_COLUMNS.len()),
        }
    }

    fn counters(&self) -> Counters<'_> {
        Counters {
            drops: &self.drops,
            listeners: &self.listeners,
            backends: &self.backends,
            worker: &self.worker,
        }
    }
}

/// One VIP, 16 backends, 8 SNAT addresses, a router.
fn snapshot(family: Family, mode: Mode) -> Snapshot {
    let backend = |n: u8| family.of([10, 0, 0, n + 1].into());
    let members = (0..BACKENDS).map(|n| Member {
        id: BackendId(n.into()),
        address: SocketAddr::new(backend(n), 8080),
        weight: 1,
        draining: false,
    });
    let snat: Arc<[IpAddr]> =
        (0..SNAT_ADDRESSES).map(|n| family.of([10, 0, 1, n + 1].into())).collect();
    let group = Group::new(members.collect(), 0, None).map(Arc::new);
    let listener = Listener {
        slot: ListenerSlot(0),
        vip: family.of(VIP),
        protocol: Protocol::Tcp,
        ports: L4Ports::one(80),
        mode,
        affinity: Affinity::Tuple,
        group: group.unwrap_or_else(|error| panic!("sixteen backends make a table: {error}")),
        snat: snat.clone(),
    };
    let mut builder = SnapshotBuilder::new();
    let ports = [PortConfig { mac: BOX, vlan: None, mtu: 1500 }];
    let fib = fib(family, &ports, (0..BACKENDS).map(backend));
    builder.ports(ports).fib(Arc::new(fib)).snat_addresses(snat.iter().copied());
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
