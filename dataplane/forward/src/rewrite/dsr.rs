//! DSR: the packet reaches its backend as the client sent it, one hop older, and the backend answers the client
//! itself. On a link of ours its MAC address says whose it is; elsewhere it travels in a [`tunnel`].

use super::tunnel::{self, Inner};
use crate::burst::Slot;
use crate::counters::Counters;
use crate::fib::Hop;
use crate::flow::{Direction, Flow, FlowKey, FlowTable, V6};
use crate::journey::{Headers, Walk};
use crate::next_hop;
use crate::snapshot::Snapshot;
use crate::wire::{checksum, ethernet};
use crate::{Burst, DropReason, HEADROOM, Mode};

/// Why a packet does not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stuck {
    /// It is too large for the way to its backend, and so for its sender to send it smaller.
    TooBig,
    /// It is lost.
    Lost(DropReason),
}

impl From<DropReason> for Stuck {
    fn from(reason: DropReason) -> Self {
        Self::Lost(reason)
    }
}

/// The largest packet of the client that fits where its flow leaves, outer headers and all.
pub(crate) fn most(flow: Flow, hop: Hop, snapshot: &Snapshot) -> Option<u16> {
    let overhead = tunnel::overhead(flow.mode(), flow.family_of(Direction::Reply)) as u16;
    next_hop::mtu(hop, snapshot).map(|mtu| mtu.saturating_sub(overhead))
}

/// One packet of a DSR flow: on its way to the backend by `hop`, where that is and the packet fits.
///
/// # Errors
/// Why it does not leave; it is then as it was.
pub(crate) fn carry(
    burst: &mut Burst,
    at: usize,
    headers: &Headers,
    flow: Flow,
    hop: Hop,
    snapshot: &Snapshot,
) -> Result<(), Stuck> {
    if headers.ip_len > most(flow, hop, snapshot).ok_or(DropReason::NoRoute)? {
        return Err(Stuck::TooBig);
    }
    let overhead = tunnel::overhead(flow.mode(), flow.family_of(Direction::Reply));
    let is_v6 = flow.family() == V6;
    let traffic_class = age(burst.frame_mut(at), headers, is_v6).ok_or(DropReason::Truncated)?;
    if overhead > 0 {
        let leaving = flow.key(Direction::Reply).mirror();
        let inner = Inner { is_v6, traffic_class, len: headers.ip_len };
        encapsulate(burst, at, headers, flow.mode(), &leaving, inner)
            .ok_or(DropReason::MtuExceeded)?;
    }
    let ip_len = headers.ip_len + overhead as u16;
    Ok(next_hop::leave_by(hop, burst, at, ip_len, snapshot)?)
}

/// One hop less; the packet's type of service or traffic class.
fn age(frame: &mut [u8], headers: &Headers, is_v6: bool) -> Option<u8> {
    let ip = frame.get_mut(usize::from(headers.l3)..)?.first_chunk_mut::<12>()?;
    if is_v6 {
        ip[7] = ip[7].checked_sub(1)?;
        return Some(ip[0] << 4 | ip[1] >> 4);
    }
    ip[8] = ip[8].checked_sub(1)?;
    let checksum = checksum::update(u16::from_ne_bytes([ip[10], ip[11]]), checksum::ONE_HOP);
    [ip[10], ip[11]] = checksum.to_ne_bytes();
    Some(ip[1])
}

/// The packet within another; Ethernet padding is cut off.
fn encapsulate(
    burst: &mut Burst,
    at: usize,
    headers: &Headers,
    mode: Mode,
    leaving: &FlowKey,
    inner: Inner,
) -> Option<()> {
    const UNTAGGED: usize = ethernet::HEADER_LEN;
    const TAGGED: usize = UNTAGGED + ethernet::TAG_LEN;
    let wrap = match (usize::from(headers.l3), tunnel::overhead(mode, leaving.family)) {
        (UNTAGGED, 20) => wrap::<UNTAGGED, 20>,
        (UNTAGGED, 28) => wrap::<UNTAGGED, 28>,
        (UNTAGGED, 32) => wrap::<UNTAGGED, 32>,
        (UNTAGGED, 40) => wrap::<UNTAGGED, 40>,
        (UNTAGGED, 48) => wrap::<UNTAGGED, 48>,
        (UNTAGGED, 52) => wrap::<UNTAGGED, 52>,
        (TAGGED, 20) => wrap::<TAGGED, 20>,
        (TAGGED, 28) => wrap::<TAGGED, 28>,
        (TAGGED, 32) => wrap::<TAGGED, 32>,
        (TAGGED, 40) => wrap::<TAGGED, 40>,
        (TAGGED, 48) => wrap::<TAGGED, 48>,
        (TAGGED, 52) => wrap::<TAGGED, 52>,
        _ => return None,
    };
    wrap(&mut burst.slots[at], mode, leaving, inner)
}

/// The link header moves to the front, and outer headers come behind it: all of a length known beforehand, since
/// copies of any length cost thirty TSC cycles more (bench `l4_ipip/64B/64_flows`).
fn wrap<const LINK: usize, const OUTER: usize>(
    slot: &mut Slot,
    mode: Mode,
    leaving: &FlowKey,
    inner: Inner,
) -> Option<()> {
    let (headroom, frame) = slot.buffer.split_first_chunk_mut::<HEADROOM>()?;
    let mut link: [u8; LINK] = *frame.first_chunk()?;
    let family = if leaving.family == V6 { ethernet::IPV6 } else { ethernet::IPV4 };
    *link.last_chunk_mut()? = family.to_be_bytes();
    let mut outer = [0; OUTER];
    tunnel::write(&mut outer, mode, leaving, inner)?;
    let (in_headroom, over_link) = outer.split_at_checked(OUTER - LINK)?;
    frame.first_chunk_mut::<LINK>()?.copy_from_slice(over_link);
    let front = headroom.last_chunk_mut::<OUTER>()?;
    front.first_chunk_mut::<LINK>()?.copy_from_slice(&link);
    front.get_mut(LINK..)?.copy_from_slice(in_headroom);
    slot.start = (HEADROOM - OUTER) as u16;
    slot.len = inner.len.checked_add((LINK + OUTER) as u16)?;
    Some(())
}

/// The room: every packet of a DSR flow takes its exit, or is found too large.
pub(crate) fn carry_all(
    burst: &mut Burst,
    walk: &mut Walk,
    flows: &mut FlowTable,
    snapshot: &Snapshot,
    counters: &Counters,
) {
    for at in walk.dsr.iter() {
        let entry = walk.entries[at];
        let hop = next_hop::flow_hop(flows, entry, snapshot.fib());
        let flow = flows.flow(entry);
        match carry(burst, at, &walk.headers[at], flow, hop, snapshot) {
            Ok(()) => {
                let bytes = burst.slots[at].len.into();
                next_hop::count(flow, Direction::Forward, bytes, counters);
            }
            Err(Stuck::Lost(reason)) => burst.leave(at, reason.into()),
            Err(Stuck::TooBig) => walk.too_big.insert(at),
        }
    }
}
