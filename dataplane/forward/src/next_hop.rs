//! Rewritten packets to the port and MAC addresses they leave by.

use std::net::IpAddr;

use crate::burst::Packet;
use crate::counters::{BackendColumn, Counters, ListenerColumn};
use crate::fib::{Adjacency, AdjacencyIdx, Fib, Hop};
use crate::flow::{Direction, FlowKey, FlowRecord, FlowTable, NO_HOP};
use crate::journey::{Headers, Walk};
use crate::maglev::flow_hash;
use crate::snapshot::Snapshot;
use crate::wire::ethernet::{self, EthernetView};
use crate::{BackendId, Burst, DropReason, Exit, ListenerSlot, NextHopKey};

/// The room: every pinned packet takes its exit, and is counted with its listener and backend.
pub(crate) fn next_hop(
    burst: &mut Burst,
    walk: &Walk,
    flows: &mut FlowTable,
    snapshot: &Snapshot,
    counters: &Counters,
) {
    for at in walk.pinned.iter() {
        let entry = walk.entries[at];
        let (packet, headers) = (&mut burst.packets[at], &walk.headers[at]);
        let flow = flows.record_mut(entry);
        let hop = flow_hop(flow, entry.direction(), snapshot.fib());
        packet.exit = leave_by(packet, headers, hop, snapshot);
        if !matches!(packet.exit, Exit::Drop(_)) {
            count(flow, entry.direction(), u64::from(packet.len), counters);
        }
    }
}

/// The next hop of a flow's direction: cached, or looked up once a version of the FIB.
#[inline]
fn flow_hop(flow: &mut FlowRecord, direction: Direction, fib: &Fib) -> Hop {
    let cached = flow.hops[direction as usize];
    if flow.fib_version == fib.version() && cached != NO_HOP {
        return Hop::Ready(AdjacencyIdx(cached));
    }
    look_up_anew(flow, direction, fib)
}

#[cold]
fn look_up_anew(flow: &mut FlowRecord, direction: Direction, fib: &Fib) -> Hop {
    if flow.fib_version != fib.version() {
        flow.fib_version = fib.version();
        flow.hops = [NO_HOP; 2];
    }
    let other = if direction == Direction::Forward { Direction::Reply } else { Direction::Forward };
    let leaving = flow.key(other).mirror();
    let hop = route(&leaving, fib);
    if let Hop::Ready(AdjacencyIdx(index)) = hop {
        flow.hops[direction as usize] = index;
    }
    hop
}

/// The next hop of a packet as it leaves.
pub(crate) fn route(leaving: &FlowKey, fib: &Fib) -> Hop {
    let destination: IpAddr = leaving.destination().ip();
    fib.look_up(destination, flow_hash(leaving))
}

#[inline]
fn leave_by(packet: &mut Packet, headers: &Headers, hop: Hop, snapshot: &Snapshot) -> Exit {
    match hop {
        Hop::Ready(index) => match snapshot.fib().adjacency(index) {
            Some(adjacency) => send(packet, headers, adjacency),
            None => Exit::Drop(DropReason::NoRoute),
        },
        Hop::Unresolved(key) => hold(packet, headers, key, snapshot),
        Hop::Unreachable => Exit::Drop(DropReason::NoRoute),
    }
}

#[inline]
fn send(packet: &mut Packet, headers: &Headers, adjacency: &Adjacency) -> Exit {
    if headers.ip_len > adjacency.mtu {
        return Exit::Drop(DropReason::MtuExceeded);
    }
    let plain = usize::from(headers.l3) == ethernet::HEADER_LEN && adjacency.vlan.is_none();
    if !plain && let Err(reason) = retag(packet, adjacency.vlan) {
        return Exit::Drop(reason);
    }
    if let Some(macs) = packet.frame.first_chunk_mut() {
        *macs = adjacency.macs;
    }
    Exit::Send(adjacency.port)
}

/// The frame waits with the tag of the port it will leave by, so that resolving needs no room.
#[cold]
fn hold(packet: &mut Packet, headers: &Headers, key: NextHopKey, snapshot: &Snapshot) -> Exit {
    let Some(port) = snapshot.port(key.port) else { return Exit::Drop(DropReason::NoRoute) };
    if headers.ip_len > port.mtu {
        return Exit::Drop(DropReason::MtuExceeded);
    }
    match retag(packet, port.vlan) {
        Ok(()) => Exit::Hold(key),
        Err(reason) => Exit::Drop(reason),
    }
}

/// Gives the frame the tag of its egress port: another VLAN id in the same tag, or the tag taken out.
fn retag(packet: &mut Packet, vlan: Option<u16>) -> Result<(), DropReason> {
    let tagged = EthernetView::new(packet.frame).is_ok_and(|frame| frame.vlan().is_some());
    match (tagged, vlan) {
        (true, Some(vlan)) => {
            if let Some([high, low]) =
                packet.frame.get_mut(14..).and_then(|tag| tag.first_chunk_mut::<2>())
            {
                let [vlan_high, vlan_low] = vlan.to_be_bytes();
                (*high, *low) = (*high & 0xf0 | vlan_high & 0x0f, vlan_low); // priority stays
            }
        }
        (true, None) => {
            let end = usize::from(packet.len);
            packet.frame.copy_within(ethernet::HEADER_LEN + 2..end, ethernet::HEADER_LEN - 2);
            packet.len -= ethernet::TAG_LEN as u16;
        }
        (false, Some(_)) => return Err(DropReason::VlanEgress),
        (false, None) => {}
    }
    Ok(())
}

#[inline]
fn count(flow: &FlowRecord, direction: Direction, bytes: u64, counters: &Counters) {
    let (listener, backend) = match direction {
        Direction::Forward => (ListenerColumn::PacketsIn, BackendColumn::PacketsTo),
        Direction::Reply => (ListenerColumn::PacketsOut, BackendColumn::PacketsFrom),
    };
    counters.listener_traffic(ListenerSlot(flow.listener), listener, bytes);
    counters.backend_traffic(BackendId(flow.backend), backend, bytes);
}

/// A held frame whose next hop may be known by now; `leaving` is its tuple.
pub(crate) fn resume(frame: &mut [u8], leaving: &FlowKey, fib: &Fib) -> Exit {
    match route(leaving, fib) {
        Hop::Unresolved(key) => Exit::Hold(key),
        Hop::Unreachable => Exit::Drop(DropReason::NoRoute),
        Hop::Ready(index) => {
            let Some(adjacency) = fib.adjacency(index) else {
                return Exit::Drop(DropReason::NoRoute);
            };
            if EthernetView::new(frame).is_ok_and(|view| view.vlan() != adjacency.vlan) {
                return Exit::Drop(DropReason::VlanEgress); // the route moved to a port of another VLAN
            }
            let Some(macs) = frame.first_chunk_mut() else {
                return Exit::Drop(DropReason::Truncated);
            };
            *macs = adjacency.macs;
            Exit::Send(adjacency.port)
        }
    }
}
