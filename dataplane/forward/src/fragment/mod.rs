//! Pieces of a datagram, carried without being joined (RFC 4963 tells what joining costs; RFC 7588 §3.4 and
//! RFC 6146 §3.4 ask a translator to forward them all the same).
//!
//! ```text
//!  piece ──▶ owner of the datagram (a hash of its addresses and id)
//!              first piece: L4 ports learned, a new id chosen; pieces that waited for it follow
//!              another:     the same ports and id, or it waits for the first
//!        ──▶ owner of the flow, with what was learned: to the flow's backend or client, with the new id
//! ```
//! The [`datagrams`] of one worker are a bounded table. What overlaps an earlier piece is lost, so that
//! whoever joins the pieces sees the bytes that came first and no others. The id is new because two datagrams
//! with the same id may get the same addresses: clients behind one SNAT address, backends behind one VIP.

pub(crate) mod datagrams;
mod id;
mod ranges;

use crate::exit::ShortExit;
use crate::flow::{Direction, Flow, FlowKey, V6};
use crate::journey::Headers;
use crate::snapshot::Snapshot;
use crate::wire::ipv4::Ipv4View;
use crate::wire::ipv6::{self, Ipv6View};
use crate::wire::tcp::TcpView;
use crate::wire::{Fragment, checksum, tcp, udp};
use crate::{DropReason, Protocol};

pub use datagrams::{DatagramIdx, Settled, WAITING};

/// What the first piece of a datagram tells of the others; it travels with them, beside the frame, to whoever
/// owns their flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    ports: u32,
    protocol: u8,
    /// The id with which the pieces leave.
    id: u32,
}

impl Learned {
    /// The tuple of a piece between these addresses.
    pub(crate) fn key(&self, addresses: &FlowKey) -> FlowKey {
        FlowKey { ports: self.ports, protocol: self.protocol, ..*addresses }
    }
}

/// One piece, as it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The datagram it is of: addresses, protocol, and the id instead of L4 ports.
    datagram: FlowKey,
    offset: usize,
    len: usize,
    more: bool,
    first: Option<First>,
}

/// What only a first piece has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct First {
    ports: u32,
    protocol: u8,
    tcp_flags: u8,
    numbers: [u8; 8],
}

/// The most bytes of a datagram.
const DATAGRAM_LEN: usize = 65_535;

impl Piece {
    /// What the headers say of a piece between `addresses`, as `parse` left them.
    ///
    /// # Errors
    /// Why no datagram can have such a piece.
    pub(crate) fn read(
        frame: &[u8],
        headers: &Headers,
        addresses: &FlowKey,
    ) -> Result<Self, DropReason> {
        let l3 = usize::from(headers.l3);
        let packet = frame.get(l3..l3 + usize::from(headers.ip_len));
        let packet = packet.ok_or(DropReason::Truncated)?;
        let (fragment, l4) =
            headers_of(packet, addresses.family).ok_or(DropReason::FragmentLength)?;
        let Fragment { id, data_at, offset, more, .. } = fragment;
        let len = packet.len().saturating_sub(data_at);
        let uneven = more && !len.is_multiple_of(8);
        // RFC 791 §3.1 limits the packet, RFC 8200 §4.5 what follows the IPv6 header in it.
        let headers_len = match addresses.family {
            V6 => data_at - ipv6::HEADER_LEN - ipv6::FRAGMENT_HEADER_LEN,
            _ => data_at,
        };
        if len == 0 || uneven || headers_len + offset + len > DATAGRAM_LEN {
            return Err(DropReason::FragmentLength);
        }
        let first = (offset == 0).then(|| First::read(l4, addresses)).transpose()?;
        if (1..header_len(addresses.protocol)).contains(&offset) {
            return Err(DropReason::FragmentTiny);
        }
        // The pieces of an IPv6 packet may name different next headers, and only the first's counts.
        let protocol = if addresses.family == V6 { ipv6::FRAGMENT } else { addresses.protocol };
        let datagram = FlowKey { ports: id, protocol, ..*addresses };
        Ok(Self { datagram, offset, len, more, first })
    }

    /// The datagram it is of, as a key to hash.
    pub(crate) fn datagram(&self) -> &FlowKey {
        &self.datagram
    }

    /// The id that it shares with the others, as a number.
    pub(crate) fn id(&self) -> u32 {
        self.datagram.ports
    }

    /// Whether it has the L4 header.
    pub(crate) fn is_first(&self) -> bool {
        self.first.is_some()
    }

    /// What the rooms after `parse` are to know of it.
    pub(crate) fn headers(&self, headers: Headers) -> Headers {
        let kind = crate::journey::Kind::Tuple;
        match self.first {
            Some(First { tcp_flags, numbers, .. }) => {
                Headers { kind, tcp_flags, numbers, ..headers }
            }
            None => Headers { kind, ..headers },
        }
    }
}

impl First {
    fn read(l4: &[u8], addresses: &FlowKey) -> Result<Self, DropReason> {
        let tiny = |_| DropReason::FragmentTiny;
        let protocol = addresses.protocol;
        match Protocol::from_number(protocol) {
            Some(Protocol::Tcp) => {
                let tcp = TcpView::new(l4).map_err(tiny)?;
                Ok(Self {
                    ports: u32::from_ne_bytes(tcp.ports()),
                    protocol,
                    tcp_flags: tcp.flags(),
                    numbers: tcp.numbers(),
                })
            }
            _ => {
                let udp =
                    l4.first_chunk::<{ udp::HEADER_LEN }>().ok_or(DropReason::FragmentTiny)?;
                if addresses.family == V6 && udp[udp::CHECKSUM_AT..] == [0; 2] {
                    return Err(DropReason::L4Checksum);
                }
                let [a, b, c, d, ..] = *udp;
                let ports = u32::from_ne_bytes([a, b, c, d]);
                Ok(Self { ports, protocol, tcp_flags: 0, numbers: [0; 8] })
            }
        }
    }
}

/// What an IP packet's headers say of the piece it is, and what follows them.
fn headers_of(packet: &[u8], family: u8) -> Option<(Fragment, &[u8])> {
    if family == V6 {
        let upper = Ipv6View::new(packet).ok()?.upper().ok()?;
        return Some((upper.fragment?, upper.payload));
    }
    let ip = Ipv4View::new(packet).ok()?;
    Some((ip.fragment()?, ip.payload()))
}

/// Bytes at the start of a datagram in which no later piece may begin.
fn header_len(protocol: u8) -> usize {
    match Protocol::from_number(protocol) {
        Some(Protocol::Tcp) => tcp::MIN_HEADER_LEN,
        _ => udp::HEADER_LEN,
    }
}

/// Where a piece goes that can be of no flow.
pub(crate) fn outside(addresses: &FlowKey, snapshot: &Snapshot) -> Option<ShortExit> {
    let (source, destination) = (addresses.source().ip(), addresses.destination().ip());
    // Behind an IPv6 fragment header, other headers may come before TCP or UDP.
    let balanced = addresses.family == V6 || addresses.protocol().is_some();
    let ours = snapshot.is_snat(destination)
        || snapshot.is_vip(destination)
        || snapshot.is_departed_vip(destination)
        || snapshot.is_dnat_address(source);
    (!balanced || !ours).then(|| crate::classify::outside_flows(addresses, snapshot))
}

/// A piece on its way out: addresses, hop limit, the datagram's new id and, in the first piece, L4 ports and
/// checksum. The L4 checksum is over the whole datagram, so the same increment is right for it.
#[cold]
pub(crate) fn rewrite(
    frame: &mut [u8],
    headers: &Headers,
    flow: Flow,
    direction: Direction,
    learned: &Learned,
) -> Option<()> {
    let l3 = usize::from(headers.l3);
    let packet = frame.get_mut(l3..l3 + usize::from(headers.ip_len))?;
    let is_first = replace_id(packet, flow.family(), learned.id)?;
    crate::rewrite::piece(frame, headers, flow, direction, is_first)
}

/// A piece as it arrived, with the id it had: what [`rewrite`] did to it is taken back.
#[cold]
pub(crate) fn undo(
    frame: &mut [u8],
    headers: &Headers,
    flow: Flow,
    direction: Direction,
    id: u32,
) -> Option<()> {
    let packet = frame.get_mut(usize::from(headers.l3)..)?;
    let is_first = replace_id(packet, flow.family(), id)?;
    crate::rewrite::undo(frame, headers, flow, direction, is_first)
}

/// Gives a piece another id; whether it is the first.
fn replace_id(packet: &mut [u8], family: u8, id: u32) -> Option<bool> {
    let (fragment, _) = headers_of(packet, family)?;
    if family == V6 {
        *packet.get_mut(fragment.id_at..)?.first_chunk_mut()? = id.to_be_bytes();
    } else {
        let field = packet.get_mut(fragment.id_at..)?.first_chunk_mut::<2>()?;
        let before = u16::from_ne_bytes(*field);
        *field = (id as u16).to_be_bytes();
        let delta = checksum::delta(before, u16::from_ne_bytes(*field));
        let field = packet.get_mut(10..)?.first_chunk_mut::<2>()?;
        *field = checksum::update(u16::from_ne_bytes(*field), delta).to_ne_bytes();
    }
    Some(fragment.offset == 0)
}
