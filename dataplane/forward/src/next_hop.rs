//! Rewritten packets to the port and MAC addresses they leave by.

use std::net::IpAddr;

use crate::burst::Slot;
use crate::counters::{BackendColumn, Counters, ListenerColumn};
use crate::exit::ShortExit;
use crate::fib::{Adjacency, AdjacencyIdx, Fib, Hop};
use crate::flow::{Direction, Entry, Flow, FlowKey, FlowTable, NO_HOP};
use crate::journey::Walk;
use crate::maglev::flow_hash;
use crate::snapshot::Snapshot;
use crate::wire::ethernet;
use crate::{BackendId, Burst, DropReason, Exit, Mode, NextHopKey};

/// The room: every rewritten packet takes its exit, and is counted with its listener and backend.
pub(crate) fn next_hop(
    burst: &mut Burst,
    walk: &mut Walk,
    flows: &mut FlowTable,
    known: &mut BackendHops,
    snapshot: &Snapshot,
    counters: &Counters,
) {
    for at in walk.pinned.without(walk.gone).without(walk.dsr).iter() {
        let (entry, ip_len) = (walk.entries[at], walk.headers[at].ip_len);
        let hop = flow_hop(flows, entry, snapshot.fib(), known);
        match leave_by(hop, burst, at, ip_len, snapshot) {
            Ok(()) => {
                count(flows.flow(entry), entry.direction(), burst.slots[at].len.into(), counters);
            }
            Err(DropReason::MtuExceeded) => walk.too_big.insert(at),
            Err(reason) => burst.leave(at, reason.into()),
        }
    }
}

/// The largest packet that can leave by a next hop.
pub(crate) fn mtu(hop: Hop, snapshot: &Snapshot) -> Option<u16> {
    match hop {
        Hop::Ready(index) => snapshot.fib().adjacency(index).map(|adjacency| adjacency.mtu),
        Hop::Unresolved(key) => snapshot.port(key.port).map(|port| port.mtu),
        Hop::Unreachable => None,
    }
}

/// A packet without a flow of its own, already rewritten: routed by the tuple it leaves with.
pub(crate) fn send_on(
    burst: &mut Burst,
    at: usize,
    ip_len: u16,
    leaving: &FlowKey,
    snapshot: &Snapshot,
) {
    if let Err(reason) = leave_by(route(leaving, snapshot.fib()), burst, at, ip_len, snapshot) {
        burst.leave(at, reason.into());
    }
}

/// Sends or holds a packet.
#[inline]
pub(crate) fn leave_by(
    hop: Hop,
    burst: &mut Burst,
    at: usize,
    ip_len: u16,
    snapshot: &Snapshot,
) -> Result<(), DropReason> {
    match hop {
        Hop::Ready(index) => match snapshot.fib().adjacency(index) {
            Some(adjacency) => send(burst, at, ip_len, adjacency),
            None => Err(DropReason::NoRoute),
        },
        Hop::Unresolved(key) => hold(burst, at, ip_len, key, snapshot),
        Hop::Unreachable => Err(DropReason::NoRoute),
    }
}

/// The next hop of a flow's direction: cached, or looked up once a version of the FIB.
#[inline]
pub(crate) fn flow_hop(
    flows: &mut FlowTable,
    entry: Entry,
    fib: &Fib,
    known: &mut BackendHops,
) -> Hop {
    let flow = flows.record(entry);
    let cached = flow.hops[entry.direction() as usize];
    if flow.fib_version == fib.version() && cached != NO_HOP {
        return Hop::Ready(AdjacencyIdx(cached.into()));
    }
    look_up_anew(flows, entry, fib, known)
}

/// The next hops to backends, as far as there is no choice: what new flows ask for. One worker's; a backend that
/// shares its place with another asks the FIB more often.
#[derive(Debug)]
pub(crate) struct BackendHops(Box<[BackendHop; BACKENDS]>);

const BACKENDS: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct BackendHop {
    backend: u32,
    fib_version: u32,
    hop: u32,
}

impl BackendHops {
    pub(crate) fn new() -> Self {
        Self(Box::new([BackendHop { backend: 0, fib_version: 0, hop: 0 }; BACKENDS]))
    }

    /// The next hop of a flow's packets to its backend, which is no L2 DSR's.
    #[inline]
    fn hop(&mut self, flow: Flow, fib: &Fib) -> Hop {
        let known = &mut self.0[flow.backend as usize % BACKENDS];
        if (known.backend, known.fib_version) == (flow.backend, fib.version()) {
            return Hop::Ready(AdjacencyIdx(known.hop));
        }
        let destination = flow.key(Direction::Reply).source().ip();
        let Some(hop) = fib.look_up_only(destination) else {
            return flow_route(flow, Direction::Forward, fib);
        };
        if let Hop::Ready(AdjacencyIdx(hop)) = hop {
            *known = BackendHop { backend: flow.backend, fib_version: fib.version(), hop };
        }
        hop
    }
}

#[inline]
fn look_up_anew(flows: &mut FlowTable, entry: Entry, fib: &Fib, known: &mut BackendHops) -> Hop {
    let (direction, flow) = (entry.direction(), flows.flow(entry));
    let hop = match direction {
        Direction::Forward if flow.mode() != Mode::L2Dsr => known.hop(flow, fib),
        _ => flow_route(flow, direction, fib),
    };
    let flow = flows.record_mut(entry);
    if flow.fib_version != fib.version() {
        flow.fib_version = fib.version();
        flow.hops = [NO_HOP; 2];
    }
    if let Hop::Ready(AdjacencyIdx(index)) = hop {
        flow.hops[direction as usize] = u16::try_from(index).unwrap_or(NO_HOP);
    }
    hop
}

/// The next hop of a flow's direction. With L2 DSR there is none but the backend itself: a router would send a
/// packet for the VIP back to us.
#[inline(never)]
pub(crate) fn flow_route(flow: Flow, direction: Direction, fib: &Fib) -> Hop {
    let leaving = flow.key(direction.opposite()).mirror();
    let hop = route(&leaving, fib);
    let neighbour = match hop {
        _ if flow.mode() != Mode::L2Dsr => return hop,
        Hop::Ready(index) => fib.adjacency(index).map(|adjacency| adjacency.address),
        Hop::Unresolved(next) => Some(next.address),
        Hop::Unreachable => None,
    };
    if neighbour == Some(leaving.destination().ip()) { hop } else { Hop::Unreachable }
}

/// The next hop of a packet as it leaves.
pub(crate) fn route(leaving: &FlowKey, fib: &Fib) -> Hop {
    let destination: IpAddr = leaving.destination().ip();
    fib.look_up(destination, || flow_hash(leaving))
}

#[inline]
fn send(
    burst: &mut Burst,
    at: usize,
    ip_len: u16,
    adjacency: &Adjacency,
) -> Result<(), DropReason> {
    let slot = &mut burst.slots[at];
    fit(slot, ip_len, adjacency.mtu)?;
    slot.exit = ShortExit::send(adjacency.port);
    if let Some(macs) = slot.front_mut().first_chunk_mut() {
        *macs = adjacency.macs;
    }
    Ok(())
}

/// Makes a frame whose IP packet fits an MTU an untagged one that fits it, padding and all.
#[inline]
fn fit(slot: &mut Slot, ip_len: u16, mtu: u16) -> Result<(), DropReason> {
    if ip_len > mtu {
        return Err(DropReason::MtuExceeded);
    }
    if ethernet::is_tagged(slot.front_mut()) {
        untag(slot)?;
    }
    slot.cut_to(mtu);
    Ok(())
}

/// Takes the priority tag off a frame whose MAC addresses are yet to be written.
#[cold]
fn untag(slot: &mut Slot) -> Result<(), DropReason> {
    slot.shrink(ethernet::TAG_LEN).ok_or(DropReason::Truncated)
}

#[cold]
fn hold(
    burst: &mut Burst,
    at: usize,
    ip_len: u16,
    key: NextHopKey,
    snapshot: &Snapshot,
) -> Result<(), DropReason> {
    let port = snapshot.port(key.port).ok_or(DropReason::NoRoute)?;
    if snapshot.is_local(key.address) {
        return Err(DropReason::NoRoute); // nobody but the kernel answers for it
    }
    fit(&mut burst.slots[at], ip_len, port.mtu)?;
    burst.hold(at, key);
    Ok(())
}

#[inline]
pub(crate) fn count(flow: Flow, direction: Direction, bytes: u64, counters: &Counters) {
    let (listener, backend) = match direction {
        Direction::Forward => (ListenerColumn::PacketsIn, BackendColumn::PacketsTo),
        Direction::Reply => (ListenerColumn::PacketsOut, BackendColumn::PacketsFrom),
    };
    counters.listener_traffic(flow.listener(), listener, bytes);
    counters.backend_traffic(BackendId(flow.backend), backend, bytes);
}

/// A held frame whose next hop may be known by now; `leaving` is its tuple, `ip_len` its datagram's. One for a
/// VIP is on its way to a backend that has the VIP too: it goes where it was to go.
pub(crate) fn resume(
    frame: &mut [u8],
    leaving: &FlowKey,
    ip_len: u16,
    next_hop: NextHopKey,
    snapshot: &Snapshot,
) -> Exit {
    let fib = snapshot.fib();
    let destination = leaving.destination().ip();
    let hop = if snapshot.is_vip(destination) || snapshot.is_departed_vip(destination) {
        fib.look_up(next_hop.address, || flow_hash(leaving))
    } else {
        route(leaving, fib)
    };
    match hop {
        Hop::Unresolved(key) => Exit::Hold(key),
        Hop::Unreachable => Exit::Drop(DropReason::NoRoute),
        Hop::Ready(index) => {
            let Some(adjacency) = fib.adjacency(index) else {
                return Exit::Drop(DropReason::NoRoute);
            };
            if ip_len > adjacency.mtu {
                return Exit::Drop(DropReason::MtuExceeded); // only the port's was known before
            }
            let Some(macs) = frame.first_chunk_mut() else {
                return Exit::Drop(DropReason::Truncated);
            };
            *macs = adjacency.macs;
            Exit::Send(adjacency.port)
        }
    }
}
