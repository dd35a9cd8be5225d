//! `pipeline [FILTER]`: what the packet path itself costs, without a NIC.
//!
//! A line a bench: name, median, spread (least to most), unit. The packets lie ready in memory, as a
//! NIC would leave them; each round writes them anew for flows drawn uniformly at random, half of
//! them clients' packets and half replies (with DSR, where replies take another way, all of them
//! clients'), and then times the forwarder over 16 bursts of 64.
//! Filling the burst and reading the exits are timed too; writing the packets is not.
//!
//! * `l4_…/N_flows`: packets of established connections; the header checksum is verified in software, as with a
//!   NIC that offers no help
//! * `l4_…/N_flows/LANE`: the same by an express lane built for another CPU (`avx2`, `portable`), or by none (`closed`:
//!   every packet takes the corridor)
//! * `l4_…/new_flow`: SYNs of connections that are not in a table half full of a million
//! * `l4_…/flood`: the same when the quota of half-open flows is used up, so that for each another gives way
//! * `reference/N_flows`: a small loop that parses, looks up, notes state and rewrites, and does nothing else
//! * `reference/new_flow`: one that parses, notes a connection by both its keys and rewrites, and does nothing else
//! * `flow_memory/…`: what 20 million connections take

mod flow_memory;
mod network;
mod packets;
mod reference;
mod timing;

use std::io::{Result, Write as _};

use memmap2::{Advice, MmapMut};
use penstock_forward::flow::FlowKey;
use penstock_forward::testing::Family;
use penstock_forward::wire::tcp::{ACK, SYN};
use penstock_forward::{CacheLine, FlowCapacity, FlowMemory, Forwarder, Mode, Snapshot, WorkerIdx};
use zerocopy::FromBytes as _;

use network::Cells;
use packets::{PACKETS, Packets, client_key};
use timing::{Random, Spread};

/// Rounds of a bench.
const ROUNDS: usize = 301;
const MILLION: usize = 1 << 20;
/// Flows in the table of a bench.
const SIZES: [(&str, usize); 3] =
    [("64_flows", 64), ("1M_flows", MILLION), ("8M_flows", 8 * MILLION)];

fn main() -> Result<()> {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let mut out = std::io::stdout();
    let mut report = |name: String, bench: &dyn Fn() -> Result<Spread>| {
        if !name.contains(&filter) {
            return Ok(());
        }
        writeln!(out, "{name:32} {}", bench()?)
    };
    for (size, flows) in SIZES {
        report(format!("reference/64B/{size}"), &|| reference::established(flows))?;
    }
    report("reference/64B/new_flow".to_owned(), &reference::new_flows)?;
    for (family, mode, bench) in [
        (Family::V4, Mode::FullNat, "l4_full_nat/64B"),
        (Family::V6, Mode::FullNat, "l4_full_nat_ipv6/78B"),
        (Family::V4, Mode::L2Dsr, "l4_l2_dsr/64B"),
        (Family::V4, Mode::Ipip, "l4_ipip/64B"),
        (Family::V6, Mode::Ipip, "l4_ip6ip6/78B"),
        (Family::V4, Mode::Gue, "l4_gue/64B"),
    ] {
        for (size, flows) in SIZES {
            report(format!("{bench}/{size}"), &|| established(family, mode, flows, None))?;
        }
        report(format!("{bench}/new_flow"), &|| new_flows(family, mode, 0))?;
        report(format!("{bench}/flood"), &|| new_flows(family, mode, MILLION / 4))?;
    }
    for lane in other_lanes()? {
        for (size, flows) in SIZES {
            let name = format!("l4_full_nat/64B/{size}/{lane}");
            report(name, &|| established(Family::V4, Mode::FullNat, flows, Some(lane)))?;
        }
    }
    flow_memory::report(&filter, &mut out)
}

/// Lanes that this CPU can take beside the best, and none.
fn other_lanes() -> Result<Vec<&'static str>> {
    let (mut memory, cells) = (map(1)?, Cells::new());
    let mut forwarder = forwarder(&mut memory, 1, &cells)?;
    let best = forwarder.lane();
    let lanes = ["avx2", "portable", "closed"].into_iter();
    Ok(lanes.filter(|lane| *lane != best && forwarder.take_lane(lane)).collect())
}

/// Packets of established connections; by the best lane, if none is named.
fn established(family: Family, mode: Mode, flows: usize, lane: Option<&str>) -> Result<Spread> {
    let (mut memory, cells) = (map(flows)?, Cells::new());
    let mut forwarder = forwarder(&mut memory, flows, &cells)?;
    assert!(lane.is_none_or(|lane| forwarder.take_lane(lane)), "the CPU takes it");
    let snapshot = network::snapshot(family, mode);
    let mut packets = Packets::new(family)?;
    let clients = (0..flows).map(|n| client_key(family, n)).collect();
    let keys = open_connections(&mut forwarder, &snapshot, &mut packets, clients, mode);
    let mut random = Random::new();
    let rounds = (0..ROUNDS).map(|_| {
        for at in 0..PACKETS {
            packets.write(at, &keys[random.below(keys.len())], ACK);
        }
        packets.forward(&mut forwarder, &snapshot)
    });
    Ok(Spread::of(rounds, PACKETS))
}

/// SYNs of new connections, after `before` of them.
fn new_flows(family: Family, mode: Mode, before: usize) -> Result<Spread> {
    let (mut memory, cells) = (map(MILLION)?, Cells::new());
    let mut forwarder = forwarder(&mut memory, MILLION, &cells)?;
    let snapshot = network::snapshot(family, mode);
    let mut packets = Packets::new(family)?;
    let clients = (0..MILLION / 2).map(|n| client_key(family, n)).collect();
    open_connections(&mut forwarder, &snapshot, &mut packets, clients, mode);
    let mut clients = (MILLION / 2..).map(|n| client_key(family, n));
    let unmeasured = before / PACKETS;
    let rounds = (0..unmeasured + ROUNDS).map(|_| {
        for (at, key) in (0..PACKETS).zip(&mut clients) {
            packets.write(at, &key, SYN);
        }
        packets.wait();
        packets.forward(&mut forwarder, &snapshot)
    });
    Ok(Spread::of(rounds.skip(unmeasured), PACKETS))
}

/// Memory for a flow table, at hand and zeroed, on large pages where the kernel has them.
fn map(capacity: impl Into<FlowCapacity>) -> Result<MmapMut> {
    let memory = MmapMut::map_anon(FlowMemory::bytes_for(capacity))?;
    memory.advise(Advice::HugePage)?;
    memory.advise(Advice::PopulateWrite)?;
    Ok(memory)
}

fn forwarder<'m>(
    memory: &'m mut MmapMut,
    capacity: impl Into<FlowCapacity>,
    cells: &'m Cells,
) -> Result<Forwarder<'m>> {
    let lines = <[CacheLine]>::mut_from_bytes(memory)
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    let memory = FlowMemory::new(lines, capacity).map_err(std::io::Error::other)?;
    Ok(Forwarder::new(WorkerIdx(0), 1, [7; 32], memory, cells.counters()))
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
