//! What a packet does to the flow it belongs to: time, state, and whether the flow may go on.

use super::state::{Direction, FlowState};
use super::table::{Entry, FlowTable};
use crate::journey::{Headers, Walk};
use crate::snapshot::Snapshot;
use crate::wire::tcp::{ACK, RST, SYN};
use crate::{BackendId, Burst, DropReason, ListenerSlot, Protocol, Tick};

/// The room: each packet with an entry follows its flow, leaves, or becomes a stranger because its
/// flow is over.
pub(crate) fn track(
    burst: &mut Burst,
    walk: &mut Walk,
    flows: &mut FlowTable,
    snapshot: &Snapshot,
    now: Tick,
) {
    for at in walk.tuples.iter() {
        let entry = walk.entries[at];
        if !entry.is_some() {
            walk.strangers.insert(at);
            continue;
        }
        let headers = &walk.headers[at];
        if headers.ttl <= 1 {
            burst.leave(at, DropReason::TtlExpired.into());
            continue;
        }
        if follow(entry, headers, flows, snapshot, now) {
            walk.pinned.insert(at);
        } else {
            walk.strangers.insert(at);
        }
    }
}

/// Moves the flow on. False if the flow was over, or its backend is gone: it is then out of the
/// table, and the packet begins anew.
#[inline]
pub(crate) fn follow(
    entry: Entry,
    headers: &Headers,
    flows: &mut FlowTable,
    snapshot: &Snapshot,
    now: Tick,
) -> bool {
    let direction = entry.direction();
    let flow = flows.record_mut(entry);
    // An earlier packet of this burst may have unlinked it.
    let Some(state) = flow.state().filter(|state| *state != FlowState::Unlinked) else {
        return false;
    };
    let flags = headers.tcp_flags;
    let next = if flow.protocol == Protocol::Udp.number() {
        if direction == Direction::Forward
            && flow.link != snapshot.version()
            && !still_serves(entry, flows, snapshot)
        {
            return false;
        }
        state.after_udp(direction)
    } else if state == FlowState::Established && flags & (SYN | RST | 1) == 0 {
        state
    } else {
        if flags & (SYN | ACK | RST) == SYN
            && direction == Direction::Forward
            && !syn_may_stay(entry, state, flows, snapshot)
        {
            return false;
        }
        state.after_tcp(flags, direction)
    };
    let flow = flows.record_mut(entry);
    flow.state = next as u8;
    flow.last_seen = now.0;
    true
}

/// Whether a SYN of the client belongs to the flow as it is. If not, the flow is unlinked.
#[cold]
fn syn_may_stay(
    entry: Entry,
    state: FlowState,
    flows: &mut FlowTable,
    snapshot: &Snapshot,
) -> bool {
    if state.is_over() {
        flows.unlink(entry.record());
        return false;
    }
    state != FlowState::SynSent || still_serves(entry, flows, snapshot)
}

/// Whether the flow's backend is still a member of its listener's group; asked once a flow and
/// snapshot. If not, the flow is unlinked.
///
/// For datagrams and for a handshake that never got an answer: they lose nothing by another backend,
/// and would be lost with this one. An established connection stays where it is.
#[cold]
fn still_serves(entry: Entry, flows: &mut FlowTable, snapshot: &Snapshot) -> bool {
    let flow = flows.record_mut(entry);
    let (slot, backend) = (ListenerSlot(flow.listener), BackendId(flow.backend));
    let serves = snapshot.listener(slot).is_some_and(|listener| listener.group.has(backend));
    if serves {
        flow.link = snapshot.version();
    } else {
        flows.unlink(entry.record());
    }
    serves
}
