//! DSR: the packet reaches its backend as the client sent it, one hop older, and the backend answers the client
//! itself. On a link of ours its MAC address says whose it is; elsewhere it travels in a [`tunnel`].

use super::tunnel::{self, Inner};
use crate::burst::Slot;
use crate::counters::Counters;
use crate::fib::{Hop, Ready};
use crate::flow::{Direction, Flow, FlowTable, V4, V6};
use crate::journey::{Headers, Walk};
use crate::next_hop::{self, BackendHops};
use crate::parse::plain::{Head, LINK_LEN};
use crate::snapshot::Snapshot;
use crate::wire::{ethernet, ipv4};
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
        let inner = Inner { is_v6, traffic_class, len: headers.ip_len };
        encapsulate(&mut burst.slots[at], headers.l3.into(), flow, inner)
            .ok_or(DropReason::MtuExceeded)?;
    }
    let ip_len = headers.ip_len + overhead as u16;
    Ok(next_hop::leave_by(hop, burst, at, ip_len, snapshot)?)
}

/// One hop less; the packet's type of service or traffic class.
fn age(frame: &mut [u8], headers: &Headers, is_v6: bool) -> Option<u8> {
    let ip = frame.get_mut(usize::from(headers.l3)..)?.first_chunk_mut()?; // IPv6 has more
    if is_v6 {
        ip[7] -= 1; // nothing without two hops left gets this far
        return Some(ip[0] << 4 | ip[1] >> 4);
    }
    ipv4::age(ip);
    Some(ip[1])
}

/// A plain packet of a steady DSR flow, on its way to the backend; whether it is: one that does not fit is left as it
/// was.
#[inline(always)]
pub(crate) fn carry_plain<H: Head>(slot: &mut Slot, flow: Flow, hop: &Ready) -> Option<()> {
    match (flow.mode(), flow.family_of(Direction::Reply)) {
        (Mode::L2Dsr, _) => carry_plain_in::<H, 0>(slot, flow, hop),
        (Mode::Ipip, V4) => carry_plain_in::<H, 20>(slot, flow, hop),
        (Mode::Gue, V4) => carry_plain_in::<H, 28>(slot, flow, hop),
        (Mode::GueVariant0, V4) => carry_plain_in::<H, 32>(slot, flow, hop),
        (Mode::Ipip, _) => carry_plain_in::<H, 40>(slot, flow, hop),
        (Mode::Gue, _) => carry_plain_in::<H, 48>(slot, flow, hop),
        (Mode::GueVariant0, _) => carry_plain_in::<H, 52>(slot, flow, hop),
        (Mode::FullNat | Mode::Dnat, _) => None,
    }
}

#[inline(always)]
fn carry_plain_in<H: Head, const OUTER: usize>(
    slot: &mut Slot,
    flow: Flow,
    hop: &Ready,
) -> Option<()> {
    let head = H::of_mut(slot.buffer)?;
    let fits = match OUTER {
        0 => hop.takes(slot.len),
        _ => usize::from(head.ip_len()) + OUTER <= usize::from(hop.mtu), // padding ends here
    };
    if !fits {
        return None;
    }
    let (is_v6, traffic_class, len) = (H::FAMILY == V6, head.traffic_class(), head.ip_len());
    head.age();
    let before_inner = slot.buffer.first_chunk_mut::<{ HEADROOM + LINK_LEN }>()?;
    if OUTER > 0 {
        let inner = Inner { is_v6, traffic_class, len };
        tunnel::write(before_inner.last_chunk_mut::<OUTER>()?, flow, inner)?;
        slot.start = (HEADROOM - OUTER) as u16;
        slot.len = len + (LINK_LEN + OUTER) as u16; // an MTU leaves room for that
    }
    let link = before_inner.get_mut(HEADROOM - OUTER..)?.first_chunk_mut::<LINK_LEN>()?;
    *link.first_chunk_mut()? = hop.macs;
    *link.last_chunk_mut()? = leaving_type(flow).to_be_bytes();
    Some(())
}

/// The EtherType of what leaves for the backend: in L2 DSR, of the client's packet, whose family the backend has.
#[inline(always)]
fn leaving_type(flow: Flow) -> u16 {
    let is_v6 = flow.family_of(Direction::Reply) == V6;
    if is_v6 { ethernet::IPV6 } else { ethernet::IPV4 }
}

/// The packet within another; Ethernet padding is cut off.
#[cold]
fn encapsulate(slot: &mut Slot, link: usize, flow: Flow, inner: Inner) -> Option<()> {
    const UNTAGGED: usize = ethernet::HEADER_LEN;
    const TAGGED: usize = UNTAGGED + ethernet::TAG_LEN;
    match (link, tunnel::overhead(flow.mode(), flow.family_of(Direction::Reply))) {
        (UNTAGGED, 20) => wrap::<UNTAGGED, 20>(slot, flow, inner),
        (UNTAGGED, 28) => wrap::<UNTAGGED, 28>(slot, flow, inner),
        (UNTAGGED, 32) => wrap::<UNTAGGED, 32>(slot, flow, inner),
        (UNTAGGED, 40) => wrap::<UNTAGGED, 40>(slot, flow, inner),
        (UNTAGGED, 48) => wrap::<UNTAGGED, 48>(slot, flow, inner),
        (UNTAGGED, 52) => wrap::<UNTAGGED, 52>(slot, flow, inner),
        (TAGGED, 20) => wrap::<TAGGED, 20>(slot, flow, inner),
        (TAGGED, 28) => wrap::<TAGGED, 28>(slot, flow, inner),
        (TAGGED, 32) => wrap::<TAGGED, 32>(slot, flow, inner),
        (TAGGED, 40) => wrap::<TAGGED, 40>(slot, flow, inner),
        (TAGGED, 48) => wrap::<TAGGED, 48>(slot, flow, inner),
        (TAGGED, 52) => wrap::<TAGGED, 52>(slot, flow, inner),
        _ => None,
    }
}

/// The link header moves to the front, and outer headers come behind it: all of a length known beforehand, since
/// copies of any length cost thirty TSC cycles more (bench `l4_ipip/64B/64_flows`).
fn wrap<const LINK: usize, const OUTER: usize>(
    slot: &mut Slot,
    flow: Flow,
    inner: Inner,
) -> Option<()> {
    let before_inner = slot.buffer.get_mut(..HEADROOM + LINK)?;
    let link: [u8; LINK] = *before_inner.last_chunk()?;
    tunnel::write(before_inner.last_chunk_mut::<OUTER>()?, flow, inner)?;
    let front = before_inner.get_mut(HEADROOM - OUTER..)?.first_chunk_mut::<LINK>()?;
    *front = link;
    *front.last_chunk_mut()? = leaving_type(flow).to_be_bytes();
    slot.start = (HEADROOM - OUTER) as u16;
    slot.len = inner.len.checked_add((LINK + OUTER) as u16)?;
    Some(())
}

/// The room: every packet of a DSR flow takes its exit, or is found too large.
pub(crate) fn carry_all(
    burst: &mut Burst,
    walk: &mut Walk,
    flows: &mut FlowTable,
    known: &mut BackendHops,
    snapshot: &Snapshot,
    counters: &Counters,
) {
    for at in walk.dsr.iter() {
        let entry = walk.entries[at];
        let hop = next_hop::flow_hop(flows, entry, snapshot.fib(), known);
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
