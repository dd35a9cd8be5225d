//! The outer headers of tunnels: IPIP, IP6IP6 and both mixtures, and GUE.
//!
//! ```text
//!  IPIP           | link | outer IP | inner IP …
//!  GUE variant 1  | link | outer IP | UDP to 6080 | inner IP …
//!  GUE variant 0  | link | outer IP | UDP to 6080 | GUE, 4 bytes | inner IP …
//! ```
//! What backends spread packets over their queues by is varied by the flow: the source address, as far as the
//! pool has several; the flow label (RFC 6438); GUE's source port. DSCP and ECN are the inner header's (RFC 6040
//! §4.1, normal mode). The outer IPv4 header does not fragment and needs no id (RFC 6864 §4.1), and the UDP
//! checksum is none, in IPv6 too (RFC 6935 §5): the inner packet has its own.

use std::net::{IpAddr, SocketAddr};

use crate::burst::Slot;
use crate::flow::{Direction, Flow, FlowKey, FlowRecord, V6};
use crate::journey::{Headers, Kind};
use crate::wire::{checksum, ethernet, icmp, ipv4, ipv6, udp};
use crate::{DropReason, Mode, Protocol};

/// The UDP port of GUE (IANA).
const GUE_PORT: u16 = 6080;
/// Bytes of a GUE variant 0 header without options.
const GUE_LEN: usize = 4;
/// Hops that the outer packet may go.
const TTL: u8 = 64;
/// The byte of flags in an IPv4 header.
const DO_NOT_FRAGMENT: u8 = 0x40;
/// Where ephemeral ports begin (RFC 6335 §6).
const FIRST_SOURCE_PORT: u16 = 0xc000;
/// Protocol numbers of an inner packet.
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;

/// The mirror image of what leaves for the backend: a source address of the backend's family, and a source port,
/// by the flow's hash. In the pool IPv4 addresses come first.
///
/// # Errors
/// [`DropReason::NoSnatAddress`] if the pool has none of that family.
pub(crate) fn reply_key(
    pool: &[IpAddr],
    hash: u64,
    backend: SocketAddr,
    protocol: Protocol,
) -> Result<FlowKey, DropReason> {
    let (v4, v6) = pool.split_at(pool.partition_point(IpAddr::is_ipv4));
    let sources = if backend.is_ipv4() { v4 } else { v6 };
    let pick = (u128::from(hash) * sources.len() as u128) >> 64;
    let source = sources.get(pick as usize).ok_or(DropReason::NoSnatAddress)?;
    let port = FIRST_SOURCE_PORT | (hash >> 32) as u16;
    FlowKey::new(backend, SocketAddr::new(*source, port), protocol).ok_or(DropReason::NoSnatAddress)
}

/// The bytes that a mode adds to a packet for a backend of this family.
#[inline]
pub(super) fn overhead(mode: Mode, outer_family: u8) -> usize {
    let ip = if outer_family == V6 { ipv6::HEADER_LEN } else { ipv4::MIN_HEADER_LEN };
    match mode {
        Mode::Ipip => ip,
        Mode::Gue => ip + udp::HEADER_LEN,
        Mode::GueVariant0 => ip + udp::HEADER_LEN + GUE_LEN,
        Mode::FullNat | Mode::Dnat | Mode::L2Dsr => 0,
    }
}

/// What the outer headers take from the inner one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner {
    /// Whether it is IPv6.
    pub(super) is_v6: bool,
    /// Type of service or traffic class.
    pub(super) traffic_class: u8,
    /// Bytes of the packet.
    pub(super) len: u16,
}

impl Inner {
    /// Its protocol number.
    #[inline(always)]
    fn number(self) -> u8 {
        if self.is_v6 { IPV6_INSIDE } else { IPV4_INSIDE }
    }
}

/// Writes the headers before an inner packet, from outer source to backend, into the [`overhead`] bytes given;
/// nothing if outer and inner together are more than a packet can be.
#[inline(always)]
pub(super) fn write(headers: &mut [u8], flow: Flow, inner: Inner) -> Option<()> {
    match flow.family_of(Direction::Reply) {
        V6 => write_in_v6(headers, flow, inner),
        _ => write_in_v4(headers, &flow, inner),
    }
}

#[inline(always)]
fn write_in_v6(headers: &mut [u8], flow: Flow, inner: Inner) -> Option<()> {
    let len = u16::try_from(headers.len() + usize::from(inner.len)).ok()?;
    let (ip, udp) = headers.split_first_chunk_mut::<{ ipv6::HEADER_LEN }>()?;
    let payload_len = len - ipv6::HEADER_LEN as u16;
    let next = protocol(!udp.is_empty(), inner);
    write_v6(ip, flow, inner, payload_len, next);
    write_udp(udp, &flow, inner, payload_len);
    Some(())
}

#[inline(always)]
fn write_in_v4(headers: &mut [u8], flow: &FlowRecord, inner: Inner) -> Option<()> {
    let len = u16::try_from(headers.len() + usize::from(inner.len)).ok()?;
    let (ip, udp) = headers.split_first_chunk_mut::<{ ipv4::MIN_HEADER_LEN }>()?;
    write_v4(ip, flow, inner, len, protocol(!udp.is_empty(), inner));
    write_udp(udp, flow, inner, len - ipv4::MIN_HEADER_LEN as u16);
    Some(())
}

/// What follows the outer IP header.
#[inline(always)]
fn protocol(in_udp: bool, inner: Inner) -> u8 {
    if in_udp { Protocol::Udp.number() } else { inner.number() }
}

/// The UDP header and that of GUE variant 0, as far as the mode has them.
#[inline(always)]
fn write_udp(headers: &mut [u8], flow: &FlowRecord, inner: Inner, len: u16) {
    let Some((udp, gue)) = headers.split_first_chunk_mut::<{ udp::HEADER_LEN }>() else { return };
    let ([source_high, source_low], [high, low]) = (source_port(flow), len.to_be_bytes());
    let [port_high, port_low] = GUE_PORT.to_be_bytes();
    *udp = [source_high, source_low, port_high, port_low, high, low, 0, 0];
    if let Some(gue) = gue.first_chunk_mut() {
        *gue = [0, inner.number(), 0, 0]; // no control message, no optional fields
    }
}

/// What varies from flow to flow, as it lies in a UDP header.
#[inline(always)]
fn source_port(flow: &FlowRecord) -> [u8; 2] {
    let (_, ports) = flow.rewritten_v4(Direction::Forward as usize);
    let [high, low, ..] = ports.to_ne_bytes();
    [high, low]
}

#[inline(always)]
fn write_v4(
    ip: &mut [u8; ipv4::MIN_HEADER_LEN],
    flow: &FlowRecord,
    inner: Inner,
    len: u16,
    protocol: u8,
) {
    let (addresses, _) = flow.rewritten_v4(Direction::Forward as usize);
    let (class, [len_high, len_low]) = (inner.traffic_class, len.to_be_bytes());
    let sum = checksum::add(flow.constant_sum(), u16::from_ne_bytes([0, class]));
    let sum = checksum::add(sum, u16::from_ne_bytes([len_high, len_low]));
    let [sum_first, sum_last] = (!sum).to_ne_bytes();
    let (front, rest) = ip.split_at_mut(8);
    front.copy_from_slice(&[0x45, class, len_high, len_low, 0, 0, DO_NOT_FRAGMENT, 0]);
    let (hops, ends) = rest.split_at_mut(4);
    hops.copy_from_slice(&[TTL, protocol, sum_first, sum_last]);
    ends.copy_from_slice(&addresses.to_ne_bytes());
}

/// The sum of all that does not vary in the IPv4 headers of one flow: all but length and type of service. Whose packets
/// leave has the ends of `reply`, the other way round.
pub(crate) fn constant_sum(mode: Mode, inner_family: u8, reply: &FlowKey) -> u16 {
    let inner = Inner { is_v6: inner_family == V6, traffic_class: 0, len: 0 };
    let protocol = protocol(mode != Mode::Ipip, inner);
    let constant = [0x45, 0, DO_NOT_FRAGMENT, 0, TTL, protocol, 0, 0];
    checksum::sum_of_words([u64::from_ne_bytes(constant), reply.addresses])
}

#[inline(always)]
fn write_v6(ip: &mut [u8; ipv6::HEADER_LEN], flow: Flow, inner: Inner, payload_len: u16, next: u8) {
    let [label_high, label_low] = source_port(&flow);
    let ([len_high, len_low], class) = (payload_len.to_be_bytes(), inner.traffic_class);
    let (front, ends) = ip.split_at_mut(8);
    let version = [0x60 | class >> 4, class << 4, label_high, label_low];
    front[..4].copy_from_slice(&version);
    front[4..].copy_from_slice(&[len_high, len_low, next, TTL]);
    ends.copy_from_slice(&flow.rewritten_v6(Direction::Forward as usize).0);
}

/// A packet in a tunnel of ours, as an ICMP error quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quoted {
    /// Its outer source and destination.
    ends: [IpAddr; 2],
    /// Where the packet within begins in the message, how long it is in whole, and of which family.
    inner_at: usize,
    inner_len: u16,
    inner_is_v6: bool,
    /// What would have fitted on the way to the backend, if the message says so.
    mtu: Option<u16>,
}

impl Quoted {
    /// The packet that an ICMP message quotes, and the tuple of that within, if it is one in a tunnel.
    pub(crate) fn of(message: &[u8]) -> Option<(Self, FlowKey)> {
        let packet = message.get(icmp::QUOTE_AT..)?;
        let is_v6 = packet.first()? >> 4 == 6;
        let (ends, next, outer_len) = if is_v6 { outer_v6(packet)? } else { outer_v4(packet)? };
        let in_udp = next == Protocol::Udp.number();
        let overhead = outer_len + if in_udp { gue_len(packet.get(outer_len..)?)? } else { 0 };
        let inner = packet.get(overhead..)?;
        let inner_is_v6 = inner.first()? >> 4 == 6;
        if !in_udp && next != (if inner_is_v6 { IPV6_INSIDE } else { IPV4_INSIDE }) {
            return None;
        }
        let inner_len = if inner_is_v6 {
            u16::from_be_bytes(*inner.get(4..)?.first_chunk()?)
                .checked_add(ipv6::HEADER_LEN as u16)?
        } else {
            u16::from_be_bytes(*inner.get(2..)?.first_chunk()?)
        };
        let key = icmp::quote(inner)?.key;
        let inner_at = icmp::QUOTE_AT + overhead;
        let mtu = icmp::next_mtu(message, is_v6);
        Some((Self { ends, inner_at, inner_len, inner_is_v6, mtu }, key))
    }

    /// The largest packet of the client that fits the tunnel of its flow.
    ///
    /// # Errors
    /// [`DropReason::IcmpNoFlow`] if the packet was none of that flow; [`DropReason::IcmpTunnel`] if no MTU is said, or
    /// one that no sender goes down to (RFC 791 §3.1, RFC 8200 §5).
    pub(crate) fn fits_inside(&self, flow: Flow) -> Result<u16, DropReason> {
        let leaving = flow.key(Direction::Reply).mirror();
        let overhead = overhead(flow.mode(), flow.family_of(Direction::Reply));
        if overhead == 0 || self.ends != [leaving.source().ip(), leaving.destination().ip()] {
            return Err(DropReason::IcmpNoFlow);
        }
        let least = if self.inner_is_v6 { 1280 } else { 68 };
        let most = self.mtu.and_then(|mtu| mtu.checked_sub(overhead as u16));
        most.filter(|most| *most >= least).ok_or(DropReason::IcmpTunnel)
    }

    /// Leaves of an error's frame the packet within the tunnel, as far as it was quoted, and its link header; what its
    /// headers are.
    pub(crate) fn bare(&self, slot: &mut Slot, error: &Headers) -> Option<Headers> {
        let l3 = usize::from(error.l3);
        let end = l3 + usize::from(error.ip_len);
        let frame = slot.frame_mut();
        let inner_at = usize::from(error.l4) + self.inner_at;
        let quoted = end.checked_sub(inner_at)?;
        if end > frame.len() {
            return None;
        }
        frame.copy_within(inner_at..end, l3);
        let family = if self.inner_is_v6 { ethernet::IPV6 } else { ethernet::IPV4 };
        *frame.get_mut(..l3)?.last_chunk_mut()? = family.to_be_bytes();
        slot.len = u16::try_from(l3 + quoted).ok()?;
        Some(Headers { kind: Kind::Tuple, ip_len: self.inner_len, ..*error })
    }
}

/// Ends, protocol and length of an outer IPv4 header as we write them: without options.
fn outer_v4(packet: &[u8]) -> Option<([IpAddr; 2], u8, usize)> {
    let ip: &[u8; ipv4::MIN_HEADER_LEN] = packet.first_chunk()?;
    let [.., a, b, c, d, e, f, g, h] = *ip;
    let ends = [[a, b, c, d], [e, f, g, h]].map(IpAddr::from);
    (ip[0] == 0x45).then_some((ends, ip[9], ip.len()))
}

/// The same of IPv6: without extension headers.
fn outer_v6(packet: &[u8]) -> Option<([IpAddr; 2], u8, usize)> {
    let ip: &[u8; ipv6::HEADER_LEN] = packet.first_chunk()?;
    let [source, destination]: [[u8; 16]; 2] = zerocopy::transmute!(*ip.last_chunk::<32>()?);
    Some(([source, destination].map(IpAddr::from), ip[6], ip.len()))
}

/// Bytes of a UDP header to GUE's port, and of GUE's own if it has one.
fn gue_len(udp: &[u8]) -> Option<usize> {
    let (udp, gue) = udp.split_first_chunk::<{ udp::HEADER_LEN }>()?;
    let to_gue = udp[2..4] == GUE_PORT.to_be_bytes();
    let of_gue = if gue.first()? >> 4 == 0 { GUE_LEN } else { 0 };
    to_gue.then_some(udp::HEADER_LEN + of_gue)
}
