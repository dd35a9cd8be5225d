//! RSTs: that with which a connection is refused, written over the segment that asked for it, and those that end one.

use crate::Protocol;
use crate::burst::Slot;
use crate::exit::ShortExit;
use crate::flow::{FlowKey, V6};
use crate::journey::Headers;
use crate::wire::tcp::{self, ACK, RST, TcpView};
use crate::wire::{checksum, ethernet, ipv4, ipv6};

/// The least frame on the wire without FCS; the rest is padding.
const MIN_FRAME: usize = 60;
/// Hops that our answers may go.
pub(crate) const TTL: u8 = 64;
const TCP: u8 = Protocol::Tcp.number();
const TCP_LEN: u16 = tcp::MIN_HEADER_LEN as u16;

/// Bytes of the longest RST with its link header, untagged.
pub const FRAME: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + tcp::MIN_HEADER_LEN;

/// A RST that nobody's segment asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rst {
    /// From whom to whom.
    pub(crate) leaving: FlowKey,
    /// What its receiver expects next.
    pub(crate) sequence: u32,
    /// What the other end expects next: a receiver whose SYN is not acknowledged yet asks for it.
    pub(crate) acknowledgement: u32,
}

/// Writes a RST as an untagged frame, but for its MAC addresses; the bytes of the frame, and of its IP packet.
pub(crate) fn write(frame: &mut [u8], rst: &Rst) -> Option<(u16, u16)> {
    let Rst { leaving, sequence, acknowledgement } = rst;
    let is_v6 = leaving.family == V6;
    let family = if is_v6 { ethernet::IPV6 } else { ethernet::IPV4 };
    let link = frame.first_chunk_mut::<{ ethernet::HEADER_LEN }>()?;
    *link = [0; ethernet::HEADER_LEN];
    *link.last_chunk_mut()? = family.to_be_bytes();
    let tcp = header(leaving.ports.to_ne_bytes(), *sequence, *acknowledgement, RST | ACK);
    let ip_len = write_packet(frame.get_mut(ethernet::HEADER_LEN..)?, leaving, tcp)?;
    let len = (ethernet::HEADER_LEN + ip_len).max(MIN_FRAME);
    Some((u16::try_from(len).ok()?, u16::try_from(ip_len).ok()?))
}

/// Turns a client's segment into the answer of a closed port: RFC 9293 §3.10.7.1. The frame goes
/// back by the way it came, with its tag; IP options, extension headers and TCP options are dropped,
/// and its length with them.
pub(crate) fn answer(slot: &mut Slot, headers: &Headers, key: &FlowKey) -> Option<()> {
    let frame = slot.frame_mut();
    let l3 = usize::from(headers.l3);
    let ip_end = l3 + usize::from(headers.ip_len);
    let segment = TcpView::new(frame.get(usize::from(headers.l4)..ip_end)?).ok()?;
    let tcp = closed_port_says(&segment);
    ethernet::turn_round(frame)?;
    let ip_len = write_packet(frame.get_mut(l3..)?, &key.mirror(), tcp)?;
    let len = (l3 + ip_len).max(MIN_FRAME.min(frame.len()));
    slot.len = u16::try_from(len).ok()?;
    slot.exit = ShortExit::send(slot.arrival.ingress());
    Some(())
}

/// Writes an IP packet with a TCP header and nothing else, and zeros behind it as far as a frame is padded; its
/// length.
fn write_packet(
    bytes: &mut [u8],
    leaving: &FlowKey,
    tcp: [u8; tcp::MIN_HEADER_LEN],
) -> Option<usize> {
    let header_len = if leaving.family == V6 { ipv6::HEADER_LEN } else { ipv4::MIN_HEADER_LEN };
    let (ip, rest) = bytes.split_at_mut_checked(header_len)?;
    let (l4, padding) = rest.split_first_chunk_mut::<{ tcp::MIN_HEADER_LEN }>()?;
    *l4 = tcp;
    let checksum = if leaving.family == V6 {
        write_v6(ip.first_chunk_mut()?, leaving, TCP, TCP_LEN);
        checksum::l4(&leaving.wide, TCP, &l4[..])
    } else {
        write_v4(ip.first_chunk_mut()?, leaving, TCP, TCP_LEN);
        checksum::l4(&leaving.addresses.to_ne_bytes(), TCP, &l4[..])
    };
    l4[tcp::CHECKSUM_AT..][..2].copy_from_slice(&checksum.to_ne_bytes());
    let padded = padding.len().min(MIN_FRAME);
    padding[..padded].fill(0);
    Some(header_len + tcp::MIN_HEADER_LEN)
}

/// "If the ACK bit is off, sequence number zero is used, `<SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>`.
/// If the ACK bit is on, `<SEQ=SEG.ACK><CTL=RST>`."
fn closed_port_says(segment: &TcpView) -> [u8; tcp::MIN_HEADER_LEN] {
    let (sequence, acknowledgement, flags) = if segment.flags() & ACK == 0 {
        (0, segment.sequence().wrapping_add(segment.sequence_len()), RST | ACK)
    } else {
        (segment.acknowledgement(), 0, RST)
    };
    let [source_high, source_low, destination_high, destination_low] = segment.ports();
    let ports = [destination_high, destination_low, source_high, source_low];
    header(ports, sequence, acknowledgement, flags)
}

fn header(
    ports: [u8; 4],
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
) -> [u8; tcp::MIN_HEADER_LEN] {
    let mut tcp = [0; tcp::MIN_HEADER_LEN];
    tcp[..4].copy_from_slice(&ports);
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[8..12].copy_from_slice(&acknowledgement.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = flags;
    tcp
}

/// The IPv4 header of an answer.
pub(crate) fn write_v4(
    ip: &mut [u8; ipv4::MIN_HEADER_LEN],
    back: &FlowKey,
    protocol: u8,
    payload_len: u16,
) {
    *ip = [0; ipv4::MIN_HEADER_LEN];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(ipv4::MIN_HEADER_LEN as u16 + payload_len).to_be_bytes());
    ip[6] = 0x40; // do not fragment; so the identification may be zero (RFC 6864 §4.1)
    (ip[8], ip[9]) = (TTL, protocol);
    ip[12..20].copy_from_slice(&back.addresses.to_ne_bytes());
    let checksum = !checksum::sum(ip);
    ip[10..12].copy_from_slice(&checksum.to_ne_bytes());
}

/// The IPv6 header of an answer.
pub(crate) fn write_v6(
    ip: &mut [u8; ipv6::HEADER_LEN],
    back: &FlowKey,
    next: u8,
    payload_len: u16,
) {
    *ip = [0; ipv6::HEADER_LEN];
    ip[0] = 0x60;
    ip[4..6].copy_from_slice(&payload_len.to_be_bytes());
    (ip[6], ip[7]) = (next, TTL);
    ip[8..40].copy_from_slice(&back.wide);
}
