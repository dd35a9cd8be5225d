//! ICMP errors and what they quote: RFC 792 and RFC 4443 §2.4 (c), with RFC 1812 §4.3.2.3 and RFC 4443 §3 on
//! how much.
//!
//! ```text
//!  0      1      2          4                 8
//!  | type | code | checksum | MTU, pointer, … | the packet that caused it: IP header, L4 header, …
//! ```
//! The quoted packet is as it left us, and mostly cut off: nothing of it but its headers is asked for.

use std::net::{IpAddr, SocketAddr};

use super::{checksum, ipv4, ipv6};
use crate::Protocol;
use crate::flow::{FlowKey, V4, V6};

/// IANA protocol number of ICMP for IPv4.
pub const ICMP: u8 = 1;
/// Where a message's quote begins.
pub const QUOTE_AT: usize = 8;
/// Bytes of the L4 header that an error has to quote (RFC 792).
pub const LEAST_L4: usize = 8;

const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// Whether an ICMP or ICMPv6 message, by the IANA number of its protocol, is an error about a packet: one that
/// could not go on, or was too big. Redirects are for neighbours only, and source quench is no more (RFC 6633).
#[must_use]
pub fn is_error(protocol: u8, kind: u8) -> bool {
    match protocol {
        ICMP => matches!(kind, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM),
        // Unreachable, packet too big, time exceeded, parameter problem: RFC 4443 §3.
        ipv6::ICMPV6 => (1..=4).contains(&kind),
        _ => false,
    }
}

/// The type of an echo request, by the IANA number of its protocol, and that of the reply (RFC 792, RFC 4443 §4).
#[must_use]
pub fn echo(protocol: u8) -> Option<[u8; 2]> {
    match protocol {
        ICMP => Some([8, 0]),
        ipv6::ICMPV6 => Some([128, 129]),
        _ => None,
    }
}

/// The MTU of the next hop, if the message is that a packet was too big and says for what (RFC 1191 §4, RFC 4443 §3.2);
/// more than a packet can be is as much as that.
#[must_use]
pub(crate) fn next_mtu(message: &[u8], is_v6: bool) -> Option<u16> {
    const FRAGMENTATION_NEEDED: u8 = 4;
    const PACKET_TOO_BIG: u8 = 2;
    let [kind, code, _, _, a, b, c, d] = *message.first_chunk()?;
    let mtu = match (is_v6, kind, code) {
        (false, UNREACHABLE, FRAGMENTATION_NEEDED) => u32::from(u16::from_be_bytes([c, d])),
        (true, PACKET_TOO_BIG, _) => u32::from_be_bytes([a, b, c, d]),
        _ => return None,
    };
    Some(u16::try_from(mtu).unwrap_or(u16::MAX)).filter(|mtu| *mtu > 0)
}

/// Whether the checksum of a message is right, whose packet has these addresses.
#[must_use]
pub(crate) fn checksum_is_right(message: &[u8], packet: &FlowKey) -> bool {
    if packet.protocol == ICMP {
        return checksum::sum(message) == 0xffff;
    }
    checksum::l4(&packet.wide, ipv6::ICMPV6, message) == 0
}

/// The headers of a quoted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Its tuple, as it left.
    pub key: FlowKey,
    /// Where its L4 header begins, from where its IP header does.
    pub l4_at: usize,
}

/// Reads a quoted packet; nothing if it is no TCP or UDP packet whose ports are there.
#[must_use]
pub fn quote(packet: &[u8]) -> Option<Quote> {
    match packet.first()? >> 4 {
        4 => quote_v4(packet),
        6 => quote_v6(packet),
        _ => None,
    }
}

fn quote_v4(packet: &[u8]) -> Option<Quote> {
    let head: &[u8; ipv4::MIN_HEADER_LEN] = packet.first_chunk()?;
    let l4_at = usize::from(head[0] & 0x0f) * 4;
    let offset = u16::from_be_bytes([head[6], head[7]]) & 0x1fff;
    if l4_at < ipv4::MIN_HEADER_LEN || offset > 0 {
        return None; // a piece without ports
    }
    let [.., a, b, c, d, e, f, g, h] = *head;
    let addresses = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    let key = FlowKey { addresses, family: V4, ..l4_key(head[9], packet, l4_at)? };
    Some(Quote { key, l4_at })
}

fn quote_v6(packet: &[u8]) -> Option<Quote> {
    let (head, payload) = packet.split_first_chunk::<{ ipv6::HEADER_LEN }>()?;
    let upper = ipv6::walk(head[6], payload).ok()?;
    if upper.fragment.is_some_and(|piece| piece.offset > 0) {
        return None; // a piece without ports
    }
    let l4_at = ipv6::HEADER_LEN + upper.extensions_len;
    let wide = head.last_chunk().copied()?;
    let key = FlowKey { wide, family: V6, ..l4_key(upper.protocol, packet, l4_at)? };
    Some(Quote { key, l4_at })
}

/// Protocol and ports.
fn l4_key(protocol: u8, packet: &[u8], l4_at: usize) -> Option<FlowKey> {
    Protocol::from_number(protocol)?;
    let [a, b, c, d, ..] = *packet.get(l4_at..)?.first_chunk::<LEAST_L4>()?;
    Some(FlowKey { protocol, ports: u32::from_ne_bytes([a, b, c, d]), ..FlowKey::default() })
}

/// An address's bytes where they go in a header of its family.
pub(crate) fn octets(end: SocketAddr, into: &mut [u8]) -> Option<()> {
    match end.ip() {
        IpAddr::V4(v4) => into.first_chunk_mut::<4>().map(|field| *field = v4.octets()),
        IpAddr::V6(v6) => into.first_chunk_mut::<16>().map(|field| *field = v6.octets()),
    }
}
