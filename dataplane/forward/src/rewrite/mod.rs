//! Addresses, L4 ports, TTL or hop limit, and checksums of a packet on its way out.
//!
//! A packet leaves as the mirror image of what its connection's other direction looks like on
//! arrival. So one rewrite serves both modes and both directions; the modes differ only in the
//! reply's tuple, chosen once when the flow is pinned: [`full_nat`] takes a SNAT address and port,
//! [`dnat`] keeps the client's; [`port_walk`] says which port is tried first. With [`dsr`] nothing is rewritten.

pub(crate) mod dnat;
pub(crate) mod dsr;
pub(crate) mod full_nat;
pub(crate) mod mss;
pub(crate) mod port_walk;
pub(crate) mod reset;
pub(crate) mod tunnel;

use crate::Burst;
use crate::Protocol;
use crate::flow::{Direction, Flow, FlowTable, V6};
use crate::fragment;
use crate::journey::{Headers, Walk};
use crate::wire::{checksum, ipv4, ipv6, tcp, udp};

/// The room: every pinned packet gets its new headers, but those of DSR flows, which are only found.
pub(crate) fn rewrite(burst: &mut Burst, walk: &mut Walk, flows: &FlowTable) {
    let whole = walk.pinned.without(walk.gone).without(walk.pieces);
    for at in whole.without(walk.wide).iter() {
        let entry = walk.entries[at];
        let (flow, direction) = (flows.flow(entry), entry.direction());
        if flow.is_dsr() {
            walk.dsr.insert(at);
            continue;
        }
        let rewritten = rewrite_v4(burst.frame_mut(at), &walk.headers[at], flow, direction);
        debug_assert!(rewritten.is_some(), "parse saw both headers");
    }
    for at in whole.and(walk.wide).iter() {
        let entry = walk.entries[at];
        let (flow, direction) = (flows.flow(entry), entry.direction());
        if flow.is_dsr() {
            walk.dsr.insert(at);
            continue;
        }
        let rewritten = rewrite_v6(burst.frame_mut(at), &walk.headers[at], flow, direction);
        debug_assert!(rewritten.is_some(), "parse saw both headers");
    }
    for at in walk.pinned.and(walk.pieces).iter() {
        let Some(learned) = burst.learned(at) else { continue };
        let entry = walk.entries[at];
        let (flow, direction) = (flows.flow(entry), entry.direction());
        if flow.is_dsr() {
            walk.dsr.insert(at);
            continue;
        }
        let frame = burst.frame_mut(at);
        let rewritten = fragment::rewrite(frame, &walk.headers[at], flow, direction, &learned);
        debug_assert!(rewritten.is_some(), "the piece was read before");
    }
}

/// A packet as it arrived: what [`rewrite`] did to it is taken back, to its L4 header too if it has one.
#[cold]
pub(crate) fn undo(
    frame: &mut [u8],
    headers: &Headers,
    flow: Flow,
    direction: Direction,
    has_l4: bool,
) -> Option<()> {
    let arrived = flow.key(direction);
    let (ip, l4) = frame.split_at_mut_checked(usize::from(headers.l4))?;
    let ip = ip.get_mut(usize::from(headers.l3)..)?;
    if arrived.family == V6 {
        *ip.get_mut(7)? += 1;
        *ip.get_mut(8..)?.first_chunk_mut()? = arrived.wide;
    } else {
        *ip.get_mut(8)? += 1;
        *ip.get_mut(12..)?.first_chunk_mut()? = arrived.addresses.to_ne_bytes();
        *ip.get_mut(10..)?.first_chunk_mut()? = [0; 2];
        let checksum = !checksum::sum(ip);
        *ip.get_mut(10..)?.first_chunk_mut()? = checksum.to_ne_bytes();
    }
    if has_l4 {
        rewrite_l4(l4, arrived.ports, flow, direction.opposite());
    }
    Some(())
}

/// One IPv4 packet, by increments (RFC 1624): what was wrong stays wrong, and the payload is not read.
#[inline]
fn rewrite_v4(frame: &mut [u8], headers: &Headers, flow: Flow, direction: Direction) -> Option<()> {
    let (addresses, ports) = flow.rewritten_v4(direction as usize);
    let (ip, l4) = split_headers::<{ ipv4::MIN_HEADER_LEN }>(frame, headers)?;
    ipv4::replace_addresses(ip, addresses, flow.ip_deltas[direction as usize]);
    rewrite_l4(l4, ports, flow, direction);
    Some(())
}

/// One IPv6 packet: the same, but that its header has no checksum. Extension headers, which lie
/// between the two, stay as they are.
#[inline]
fn rewrite_v6(frame: &mut [u8], headers: &Headers, flow: Flow, direction: Direction) -> Option<()> {
    let (addresses, ports) = flow.rewritten_v6(direction as usize);
    let (ip, l4) = split_headers::<{ ipv6::HEADER_LEN }>(frame, headers)?;
    ipv6::replace_addresses(ip, &addresses);
    rewrite_l4(l4, ports, flow, direction);
    Some(())
}

/// The headers of a piece of a datagram: what is not the first has none of L4.
pub(crate) fn piece(
    frame: &mut [u8],
    headers: &Headers,
    flow: Flow,
    direction: Direction,
    is_first: bool,
) -> Option<()> {
    let is_v6 = flow.family() == V6;
    if is_first {
        let whole = if is_v6 { rewrite_v6 } else { rewrite_v4 };
        return whole(frame, headers, flow, direction);
    }
    let ip = frame.get_mut(usize::from(headers.l3)..)?;
    if is_v6 {
        ipv6::replace_addresses(ip.first_chunk_mut()?, &flow.rewritten_v6(direction as usize).0);
    } else {
        let delta = flow.ip_deltas[direction as usize];
        ipv4::replace_addresses(
            ip.first_chunk_mut()?,
            flow.rewritten_v4(direction as usize).0,
            delta,
        );
    }
    Some(())
}

#[inline]
fn rewrite_l4(l4: &mut [u8], ports: u32, flow: Flow, direction: Direction) {
    if let Some(field) = l4.first_chunk_mut() {
        *field = ports.to_ne_bytes();
    }
    let delta = checksum::in_direction(flow.l4_delta, direction as usize);
    if flow.protocol() == Protocol::Tcp.number() {
        update_tcp(l4, delta);
    } else {
        update_udp(l4, delta);
    }
}

#[inline]
fn split_headers<'f, const IP: usize>(
    frame: &'f mut [u8],
    headers: &Headers,
) -> Option<(&'f mut [u8; IP], &'f mut [u8])> {
    let (head, l4) = frame.split_at_mut_checked(usize::from(headers.l4))?;
    let ip = head.get_mut(usize::from(headers.l3)..)?.first_chunk_mut()?;
    Some((ip, l4))
}

#[inline(always)]
pub(crate) fn update_tcp(l4: &mut [u8], delta: u16) {
    if let Some(field) = l4.get_mut(tcp::CHECKSUM_AT..).and_then(|rest| rest.first_chunk_mut::<2>())
    {
        *field = checksum::update(u16::from_ne_bytes(*field), delta).to_ne_bytes();
    }
}

/// Zero means that the sender computed none (RFC 768) and stays so; a sum that comes out as zero is
/// sent as its other form, 0xffff.
#[inline(always)]
pub(crate) fn update_udp(l4: &mut [u8], delta: u16) {
    if let Some(field) = l4.get_mut(udp::CHECKSUM_AT..).and_then(|rest| rest.first_chunk_mut::<2>())
    {
        let before = u16::from_ne_bytes(*field);
        if before != 0 {
            let after = checksum::update(before, delta);
            *field = if after == 0 { [0xff; 2] } else { after.to_ne_bytes() };
        }
    }
}
