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

use crate::flow::{FlowKey, V6};
use crate::wire::{checksum, ipv4, ipv6, udp};
use crate::{DropReason, Mode, Protocol};

/// The UDP port of GUE (IANA).
const GUE_PORT: u16 = 6080;
/// Bytes of a GUE variant 0 header without options.
const GUE_LEN: usize = 4;
/// Hops that the outer packet may go.
const TTL: u8 = 64;
/// Where ephemeral ports begin (RFC 6335 §6).
const FIRST_SOURCE_PORT: u16 = 0xc000;
/// Protocol numbers of an inner packet.
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;

/// The mirror image of what leaves for the backend: a source address of the backend's family, and a source port,
/// by the flow's hash.
///
/// # Errors
/// [`DropReason::NoSnatAddress`] if the pool has none of that family.
pub(crate) fn reply_key(
    pool: &[IpAddr],
    hash: u64,
    backend: SocketAddr,
    protocol: Protocol,
) -> Result<FlowKey, DropReason> {
    let fits = |address: &&IpAddr| address.is_ipv4() == backend.is_ipv4();
    let count = pool.iter().filter(fits).count();
    let pick = usize::try_from(hash % count.max(1) as u64).unwrap_or(0);
    let source = pool.iter().filter(fits).nth(pick).ok_or(DropReason::NoSnatAddress)?;
    let port = FIRST_SOURCE_PORT | (hash >> 32) as u16;
    FlowKey::new(backend, SocketAddr::new(*source, port), protocol).ok_or(DropReason::NoSnatAddress)
}

/// The bytes that a mode adds to a packet for a backend of this family.
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

/// Writes the headers before an inner packet, from outer source to backend, into the first [`overhead`] bytes;
/// nothing if outer and inner together are more than a packet can be.
pub(super) fn write(headers: &mut [u8], mode: Mode, leaving: &FlowKey, inner: Inner) -> Option<()> {
    let number = if inner.is_v6 { IPV6_INSIDE } else { IPV4_INSIDE };
    let len = u16::try_from(headers.len() + usize::from(inner.len)).ok()?;
    let ip_len = overhead(Mode::Ipip, leaving.family);
    let (ip, udp) = headers.split_at_mut_checked(ip_len)?;
    let protocol = if udp.is_empty() { number } else { Protocol::Udp.number() };
    if leaving.family == V6 {
        write_v6(ip.first_chunk_mut()?, leaving, inner, len - ipv6::HEADER_LEN as u16, protocol);
    } else {
        write_v4(ip.first_chunk_mut()?, leaving, inner, len, protocol);
    }
    if let Some((udp, gue)) = udp.split_first_chunk_mut::<{ udp::HEADER_LEN }>() {
        let [.., high, low] = (len - ip_len as u16).to_be_bytes();
        let [source_high, source_low, ..] = leaving.ports.to_ne_bytes();
        let [port_high, port_low] = GUE_PORT.to_be_bytes();
        *udp = [source_high, source_low, port_high, port_low, high, low, 0, 0];
        if mode == Mode::GueVariant0 {
            *gue.first_chunk_mut()? = [0, number, 0, 0]; // no control message, no optional fields
        }
    }
    Some(())
}

fn write_v4(
    ip: &mut [u8; ipv4::MIN_HEADER_LEN],
    leaving: &FlowKey,
    inner: Inner,
    len: u16,
    protocol: u8,
) {
    *ip = [0; ipv4::MIN_HEADER_LEN];
    (ip[0], ip[1]) = (0x45, inner.traffic_class);
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    ip[6] = 0x40; // do not fragment
    (ip[8], ip[9]) = (TTL, protocol);
    ip[12..20].copy_from_slice(&leaving.addresses.to_ne_bytes());
    let checksum = !checksum::sum(ip);
    ip[10..12].copy_from_slice(&checksum.to_ne_bytes());
}

fn write_v6(
    ip: &mut [u8; ipv6::HEADER_LEN],
    leaving: &FlowKey,
    inner: Inner,
    payload_len: u16,
    next: u8,
) {
    let [label_high, label_low, ..] = leaving.ports.to_ne_bytes();
    let class = inner.traffic_class;
    *ip = [0; ipv6::HEADER_LEN];
    [ip[0], ip[1], ip[2], ip[3]] = [0x60 | class >> 4, class << 4, label_high, label_low];
    ip[4..6].copy_from_slice(&payload_len.to_be_bytes());
    (ip[6], ip[7]) = (next, TTL);
    ip[8..40].copy_from_slice(&leaving.wide);
}
