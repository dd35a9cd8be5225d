//! Which flow a packet belongs to, and what it does to it: time, state, and whether it may go on.

use super::memory::FlowRecord;
use super::state::{Direction, FlowState};
use super::table::{Entry, FlowTable};
use crate::journey::{Headers, Walk};
use crate::parse::plain::Head;
use crate::snapshot::Snapshot;
use crate::wire::tcp::{ACK, FIN, RST, SYN};
use crate::{Burst, DropReason, Protocol, Tick};

/// The room: each packet that has a flow, by its full tuple, follows it or leaves; one without, or
/// whose flow is over, becomes a stranger.
pub(crate) fn track(
    burst: &mut Burst,
    walk: &mut Walk,
    flows: &mut FlowTable,
    snapshot: &Snapshot,
    now: Tick,
) {
    for at in walk.tuples.iter() {
        let headers = &walk.headers[at];
        let entry = flows.confirm(walk.entries[at], &walk.keys[at], walk.hashes[at]);
        walk.entries[at] = entry;
        if !entry.is_some() {
            walk.strangers.insert(at);
        } else if headers.ttl <= 1 {
            burst.leave(at, DropReason::TtlExpired.into());
            walk.expired.insert(at);
        } else if follow(entry, headers, flows, snapshot, now) {
            walk.pinned.insert(at);
            if headers.tcp_flags & SYN != 0 {
                walk.syns.insert(at);
            }
        } else {
            walk.strangers.insert(at);
        }
    }
}

/// Whether a plain segment leaves its flow as it is, but for the time and what it acknowledges.
#[inline(always)]
pub(crate) fn is_steady_tcp<H: Head>(flow: &FlowRecord, head: &H) -> bool {
    flow.kind.is_rewritten(Protocol::Tcp, H::FAMILY, FlowState::Established)
        && head.l4().flags() & (SYN | RST | FIN | ACK) == ACK
        && head.has_tcp()
}

/// Whether a plain datagram leaves its flow as it is, but for the time: its backend serves for all that this snapshot
/// says.
#[inline(always)]
pub(crate) fn is_steady_udp<H: Head>(
    flow: &FlowRecord,
    head: &H,
    way: usize,
    snapshot_version: u32,
) -> bool {
    if !head.has_udp() {
        return false;
    }
    let replied = flow.kind.is_rewritten(Protocol::Udp, H::FAMILY, FlowState::UdpReplied);
    if way == Direction::Reply as usize {
        return replied;
    }
    let one_way = || flow.kind.is_rewritten(Protocol::Udp, H::FAMILY, FlowState::UdpOneWay);
    (replied || one_way()) && flow.link == snapshot_version
}

/// Whether a plain packet of a DSR flow's client leaves it, which is one of those, as it is, but for the time and how
/// far the client is.
#[inline(always)]
pub(crate) fn is_steady_dsr<H: Head>(flow: &FlowRecord, head: &H, snapshot_version: u32) -> bool {
    if flow.kind.is_any(Protocol::Tcp, H::FAMILY, FlowState::Established) {
        return head.protocol() == Protocol::Tcp.number()
            && head.l4().flags() & (SYN | RST | FIN | ACK) == ACK
            && head.has_tcp();
    }
    flow.kind.is_any(Protocol::Udp, H::FAMILY, FlowState::UdpOneWay)
        && head.protocol() == Protocol::Udp.number()
        && head.has_udp()
        && flow.link == snapshot_version
}

/// Notes how far a DSR flow's client is, by a segment that leaves the flow as it is.
#[inline(always)]
pub(crate) fn advance_steady_dsr(flow: &mut FlowRecord, sequence: u32) {
    if flow.protocol() == Protocol::Tcp.number() {
        advance(flow, sequence);
    }
}

/// Moves the flow on. False if the flow was over, or its backend is gone: it is then out of the
/// table, and the packet begins anew; or it was cut, and the packet is to be answered.
#[inline]
pub(crate) fn follow(
    entry: Entry,
    headers: &Headers,
    flows: &mut FlowTable,
    snapshot: &Snapshot,
    now: Tick,
) -> bool {
    let flow = flows.record_mut(entry);
    // Nearly every packet: data or an acknowledgement of an established connection, either way.
    if flow.is_established() && headers.tcp_flags & (SYN | RST | FIN) == 0 {
        flow.last_seen = now.0;
        acknowledge(flow, entry.direction(), headers);
        return true;
    }
    match next_state(entry, headers, flows, snapshot) {
        Some(state) => {
            if !state.is_unproven() && flows.record(entry).is_unproven() {
                flows.count_proven(entry.record());
            }
            let flow = flows.record_mut(entry);
            if flow.is_dsr() && flow.is_unproven() {
                flow.acknowledged[Direction::Reply as usize] = sequence(headers).to_be_bytes();
            }
            flow.set_state(state);
            flow.last_seen = now.0;
            if state == FlowState::SynAcked {
                expect_proof(flow, entry.direction(), headers);
            } else if headers.tcp_flags & (ACK | RST) == ACK {
                acknowledge(flow, entry.direction(), headers);
            }
            true
        }
        None => false,
    }
}

/// The flow's state after a packet; `None` if the packet does not belong to it any more.
#[inline(never)]
fn next_state(
    entry: Entry,
    headers: &Headers,
    flows: &mut FlowTable,
    snapshot: &Snapshot,
) -> Option<FlowState> {
    let (flow, direction) = (flows.record(entry), entry.direction());
    let state = flow.state()?;
    if !state.is_live() {
        return after_end(entry, state, headers, flows);
    }
    let from_client = direction == Direction::Forward;
    if flow.protocol() == Protocol::Udp.number() {
        let asks = from_client && flow.link != snapshot.version();
        let stays = !asks || still_serves(entry, flows, snapshot);
        return stays.then(|| state.after_udp(direction));
    }
    if flow.is_dsr() {
        let is_next = is_next(flow, sequence(headers));
        if headers.tcp_flags & (RST | FIN) != 0 && !state.is_half_open() && !is_next {
            return Some(state);
        }
        let opens = headers.tcp_flags & (SYN | ACK | RST) == SYN;
        let stays = !opens || syn_may_stay(entry, state, flows, snapshot);
        return stays.then(|| state.after_tcp_alone(headers.tcp_flags));
    }
    let opens = from_client && headers.tcp_flags & (SYN | ACK | RST) == SYN;
    if headers.tcp_flags & RST != 0 && is_blind(flow, direction, state, headers) {
        return Some(state);
    }
    let proves = headers.tcp_flags & RST != 0 || is_proof(flow, headers);
    if state == FlowState::SynAcked && from_client && !proves {
        return Some(state);
    }
    let stays = !opens || syn_may_stay(entry, state, flows, snapshot);
    stays.then(|| state.after_tcp(headers.tcp_flags, direction))
}

/// The state of a flow to which packets belong no more: an earlier one of this burst may have unlinked it. One that was
/// cut lets RSTs through, and a SYN of the client begins anew.
#[cold]
fn after_end(
    entry: Entry,
    state: FlowState,
    headers: &Headers,
    flows: &mut FlowTable,
) -> Option<FlowState> {
    if state != FlowState::Cut {
        return None;
    }
    if headers.tcp_flags & RST != 0 {
        return Some(state);
    }
    if entry.direction() == Direction::Forward && headers.tcp_flags & (SYN | ACK) == SYN {
        flows.unlink(entry.record());
    }
    None
}

/// Notes where the client's acknowledgements will begin if it is where it says: at the backend's SYN.
fn expect_proof(flow: &mut FlowRecord, direction: Direction, headers: &Headers) {
    if direction == Direction::Reply && headers.tcp_flags & (SYN | ACK | RST) == SYN | ACK {
        flow.acknowledged[Direction::Forward as usize] = sequence(headers).to_be_bytes();
        acknowledge(flow, direction, headers);
    }
}

/// Whether a client's segment acknowledges the SYN of its backend, and perhaps some data. Who sends from an address
/// where it does not hear the answer has to guess one of 2¹⁴ windows.
fn is_proof(flow: &FlowRecord, headers: &Headers) -> bool {
    let [.., a, b, c, d] = headers.numbers;
    let expected = u32::from_be_bytes(flow.acknowledged[Direction::Forward as usize]);
    u32::from_be_bytes([a, b, c, d]).wrapping_sub(expected) < WINDOW
}

fn sequence(headers: &Headers) -> u32 {
    let [a, b, c, d, ..] = headers.numbers;
    u32::from_be_bytes([a, b, c, d])
}

/// How far beyond what is expected a number may lie, for data in flight.
const WINDOW: u32 = 1 << 18;

/// Whether a RST was probably sent by somebody who does not see the connection: its number is not about what
/// the other end expects next. The ends ask for the very number (RFC 5961 §3.2) and decide; this only decides
/// whether our flow is over. Whoever does not see a connection does not see what its other end acknowledges,
/// and has to guess one of 2¹⁴ windows. Half-open flows believe every RST: they have acknowledged nothing.
#[cold]
fn is_blind(flow: &FlowRecord, direction: Direction, state: FlowState, headers: &Headers) -> bool {
    let expected = u32::from_be_bytes(flow.acknowledged[direction.opposite() as usize]);
    !state.is_half_open() && sequence(headers).wrapping_sub(expected) >= WINDOW
}

/// Notes what a segment acknowledges; of DSR flows, whose backends are not heard, how far the client is.
#[inline]
fn acknowledge(flow: &mut FlowRecord, direction: Direction, headers: &Headers) {
    if flow.is_dsr() {
        return advance(flow, sequence(headers));
    }
    let [.., a, b, c, d] = headers.numbers;
    flow.acknowledged[direction as usize] = [a, b, c, d];
}

/// Of DSR flows: notes the number of the client's segment, if it follows the last.
#[inline]
fn advance(flow: &mut FlowRecord, sequence: u32) {
    if is_next(flow, sequence) {
        flow.acknowledged[Direction::Reply as usize] = sequence.to_be_bytes();
    }
}

/// Whether a segment of a DSR flow's client follows the last, as far as that is known: a backend's packets, which
/// would tell what comes next, take another way.
#[inline]
fn is_next(flow: &FlowRecord, sequence: u32) -> bool {
    let last = u32::from_be_bytes(flow.acknowledged[Direction::Reply as usize]);
    sequence.wrapping_sub(last) < WINDOW
}

/// Whether a SYN of the client belongs to the flow as it is. If not, the flow is out of its way.
#[cold]
fn syn_may_stay(
    entry: Entry,
    state: FlowState,
    flows: &mut FlowTable,
    snapshot: &Snapshot,
) -> bool {
    if state.is_over() {
        flows.retire(entry.record());
        return false;
    }
    state != FlowState::SynSent || still_serves(entry, flows, snapshot)
}

/// Whether the flow's backend is still a member of the group that serves its destination; asked once a flow and
/// snapshot. If not, the flow is unlinked.
///
/// For datagrams and for a handshake that never got an answer: they lose nothing by another backend,
/// and would be lost with this one. An established connection stays where it is.
#[cold]
fn still_serves(entry: Entry, flows: &mut FlowTable, snapshot: &Snapshot) -> bool {
    let flow = flows.flow(entry);
    let (client, backend) = (flow.key(Direction::Forward), flow.key(Direction::Reply).source());
    let serves = snapshot.serves(&client, backend);
    if serves {
        flows.record_mut(entry).link = snapshot.version();
    } else {
        flows.unlink(entry.record());
    }
    serves
}
