//! The packet that nearly every packet is: untagged, to us, IPv4 without options or IPv6 without
//! extension headers, whole, TCP or UDP, and nothing wrong with it.
//!
//! The rest of `parse` asks the same questions of any packet, one by one; here they are asked at
//! fixed offsets, and whatever is not plain is looked at closely. A property test holds the two to one answer.
//!
//! ```text
//!  0       6       12    14  15  16     18  20     22   23    24   26     30     34    36    38
//!  | dst   | src   | 0800| 45|tos| len  | id| frag | ttl|proto| sum| source|dest | sport|dport| …
//!  | dst   | src   | 86dd| 6 class, flow| len | next| hops | source | destination | sport|dport| …
//!  0       6       12    14             18    20    21     22       38            54     56
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{TCP, UDP};
use crate::burst::{Arrival, Checked, HEADROOM, RxChecks, Slot};
use crate::flow::{FlowKey, V4, V6};
use crate::journey::{Headers, Kind};
use crate::snapshot::PortConfig;
use crate::wire::{checksum, ethernet, ipv4, ipv6, tcp, udp};

const L3: usize = ethernet::HEADER_LEN;
const L4: usize = L3 + ipv4::MIN_HEADER_LEN;
const L4_V6: usize = L3 + ipv6::HEADER_LEN;
/// EtherType IPv6, version 6; neither traffic class nor flow label matters.
const PLAIN_V6: u32 = u32::from_ne_bytes([0x86, 0xdd, 0x60, 0]);
const PLAIN_V6_MASK: u32 = u32::from_ne_bytes([0xff, 0xff, 0xf0, 0]);

/// The headers of a plain IPv4 packet, as far as all of them have them. A UDP datagram of less than twelve bytes whose
/// frame is not padded to the least Ethernet frame is not seen as plain.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct HeadV4 {
    pub(crate) link: [u8; L3],
    pub(crate) ip: [u8; ipv4::MIN_HEADER_LEN],
    pub(crate) l4: [u8; tcp::MIN_HEADER_LEN],
}

impl HeadV4 {
    /// The head of the frame in a buffer, which has one if it is long enough.
    #[inline(always)]
    pub(crate) fn of(buffer: &[u8]) -> Option<&Self> {
        let whole = buffer.first_chunk::<{ HEADROOM + size_of::<Self>() }>()?;
        Self::ref_from_bytes(whole.get(HEADROOM..)?).ok()
    }

    #[inline(always)]
    pub(crate) fn of_mut(buffer: &mut [u8]) -> Option<&mut Self> {
        let whole = buffer.first_chunk_mut::<{ HEADROOM + size_of::<Self>() }>()?;
        Self::mut_from_bytes(whole.get_mut(HEADROOM..)?).ok()
    }

    /// Bytes of the IP packet.
    #[inline(always)]
    pub(crate) fn ip_len(&self) -> u16 {
        u16::from_be_bytes([self.ip[2], self.ip[3]])
    }

    #[inline(always)]
    pub(crate) fn ttl(&self) -> u8 {
        self.ip[8]
    }

    #[inline(always)]
    pub(crate) fn protocol(&self) -> u8 {
        self.ip[9]
    }

    /// Addresses and L4 ports, then four bytes of L4 header.
    #[inline(always)]
    pub(crate) fn ends(&self) -> [u8; 16] {
        field(self.as_bytes(), L3 + 12)
    }

    /// Source and destination address, as in [`FlowKey`].
    #[inline(always)]
    pub(crate) fn addresses(&self) -> u64 {
        u64::from_ne_bytes(field(&self.ip, 12))
    }

    /// Source and destination L4 port, as in [`FlowKey`].
    #[inline(always)]
    pub(crate) fn ports(&self) -> u32 {
        u32::from_ne_bytes(field(&self.l4, 0))
    }

    /// The control bits of a TCP segment.
    #[inline(always)]
    pub(crate) fn tcp_flags(&self) -> u8 {
        self.l4[13]
    }

    /// The sequence number of a TCP segment.
    #[inline(always)]
    pub(crate) fn sequence(&self) -> u32 {
        u32::from_be_bytes(field(&self.l4, 4))
    }

    /// Sequence and acknowledgement number of a TCP segment.
    #[inline(always)]
    pub(crate) fn numbers(&self) -> [u8; 8] {
        field(&self.l4, 4)
    }

    /// Its tuple.
    pub(crate) fn key(&self) -> FlowKey {
        FlowKey {
            addresses: self.addresses(),
            ports: self.ports(),
            protocol: self.protocol(),
            family: V4,
            ..FlowKey::default()
        }
    }

    /// What the rooms want to know.
    pub(crate) fn headers(&self) -> Headers {
        let is_tcp = self.protocol() == TCP;
        let (tcp_flags, numbers) =
            if is_tcp { (self.tcp_flags(), self.numbers()) } else { (0, [0; 8]) };
        let (l3, l4, ip_len, ttl) = (L3 as u16, L4 as u16, self.ip_len(), self.ttl());
        Headers { kind: Kind::Tuple, l3, l4, ip_len, ttl, tcp_flags, numbers }
    }

    /// Whether it is of TCP or UDP, and that header is there and within the packet.
    pub(crate) fn has_l4(&self) -> bool {
        match self.protocol() {
            TCP => self.has_tcp(),
            UDP => self.has_udp(),
            _ => false,
        }
    }

    #[inline(always)]
    pub(crate) fn has_tcp(&self) -> bool {
        let header_len = u32::from(self.l4[12] & 0xf0) / 4;
        header_len >= tcp::MIN_HEADER_LEN as u32 && self.has_behind_ip(header_len)
    }

    #[inline(always)]
    pub(crate) fn has_udp(&self) -> bool {
        let claimed = u32::from(u16::from_be_bytes(field(&self.l4, 4)));
        claimed >= udp::HEADER_LEN as u32 && self.has_behind_ip(claimed)
    }

    /// Whether so many bytes lie behind the IP header.
    #[inline(always)]
    fn has_behind_ip(&self, len: u32) -> bool {
        ipv4::MIN_HEADER_LEN as u32 + len <= u32::from(self.ip_len())
    }
}

/// What is expected of plain IPv4 frames that come so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpectedV4 {
    /// The MAC address, as the first word of a frame has it.
    destination: u64,
    /// Whether the header checksum is yet to be verified.
    to_verify: bool,
}

impl ExpectedV4 {
    const DESTINATION: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    /// The EtherType, and version 4 with a header of five words; the type of service does not matter.
    const KIND: u32 = u32::from_ne_bytes([0x08, 0x00, 0x45, 0]);
    const KIND_MASK: u32 = u32::from_ne_bytes([0xff, 0xff, 0xff, 0]);
    /// More fragments, and the fragment offset.
    const PIECE: u16 = u16::from_ne_bytes([0x3f, 0xff]);

    /// Nothing fits if the port is not there, or tags its frames, or the NIC found a checksum wrong.
    #[inline(never)]
    pub(crate) fn by(arrival: Arrival, port: Option<&PortConfig>) -> Self {
        let RxChecks { ip, l4 } = arrival.checks();
        let port = port.filter(|port| port.vlan.is_none());
        let port = port.filter(|_| ip != Checked::Bad && l4 != Checked::Bad);
        let destination = port.map_or(u64::MAX, |port| {
            let [a, b, c, d, e, f] = port.mac.0;
            u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
        });
        Self { destination, to_verify: ip != Checked::Good }
    }

    #[inline(always)]
    fn fits(self, head: &HeadV4) -> bool {
        let bytes = head.as_bytes();
        u64::from_ne_bytes(field(bytes, 0)) & Self::DESTINATION == self.destination
            && u32::from_ne_bytes(field(bytes, 12)) & Self::KIND_MASK == Self::KIND
            && u16::from_ne_bytes(field(bytes, 20)) & Self::PIECE == 0
    }
}

/// The headers of a packet that is plainly IPv4, as far as IP goes: whether there [is more](HeadV4::has_l4) is asked
/// when it is known who wants it.
#[inline(always)]
pub(crate) fn head_v4<'s>(slot: &'s Slot, expected: ExpectedV4) -> Option<&'s HeadV4> {
    let head = HeadV4::of(slot.buffer)?;
    let plain = expected.fits(head)
        && L3 + usize::from(head.ip_len()) <= usize::from(slot.len)
        && (!expected.to_verify || checksum::header_is_right(&head.ip));
    plain.then_some(head)
}

/// Fills in key and headers if the packet is plainly IPv6; if not, they mean nothing. The same questions at other
/// offsets, but those for what IPv6 does without: options, fragments and a checksum in the header. A UDP checksum it
/// cannot do without.
#[inline]
pub(super) fn parse_v6(
    frame: &[u8],
    port: &PortConfig,
    checks: RxChecks,
    key: &mut FlowKey,
    headers: &mut Headers,
) -> Option<()> {
    let head = frame.first_chunk::<{ L4_V6 + udp::HEADER_LEN }>()?;
    let l4_len = usize::from(u16::from_be_bytes(field(head, 18)));
    let plain = field::<6>(head, 0) == port.mac.0
        && u32::from_ne_bytes(field(head, 12)) & PLAIN_V6_MASK == PLAIN_V6
        && L4_V6 + l4_len <= frame.len()
        && port.vlan.is_none()
        && checks.l4 != Checked::Bad
        && (head[20] != UDP || field(head, L4_V6 + udp::CHECKSUM_AT) != [0, 0]);
    if !plain {
        return None;
    }
    parse_l4(frame.get(L4_V6..)?, head[20], l4_len, headers)?;
    headers.kind = Kind::Tuple;
    (headers.l3, headers.l4) = (L3 as u16, L4_V6 as u16);
    headers.ip_len = u16::try_from(ipv6::HEADER_LEN + l4_len).ok()?;
    headers.ttl = head[21];
    (key.addresses, key.wide) = (0, field(head, 22));
    key.ports = u32::from_ne_bytes(field(head, 54));
    (key.protocol, key.family) = (head[20], V6);
    Some(())
}

/// The numbers and control bits of a TCP segment, zeros for a UDP datagram; nothing if it is neither, or not
/// whole. `l4` begins with at least a UDP header, and `len` bytes of it are the IP packet's.
#[inline]
fn parse_l4(l4: &[u8], protocol: u8, len: usize, headers: &mut Headers) -> Option<()> {
    match protocol {
        TCP => {
            let segment = l4.first_chunk::<{ tcp::MIN_HEADER_LEN }>()?;
            let [offset, flags] = field(segment, 12);
            let header_len = usize::from(offset >> 4) * 4;
            headers.tcp_flags = flags;
            headers.numbers = field(segment, 4);
            (tcp::MIN_HEADER_LEN..=len).contains(&header_len).then_some(())
        }
        UDP => {
            let claimed = u16::from_be_bytes(field(l4.first_chunk::<{ udp::HEADER_LEN }>()?, 4));
            (headers.tcp_flags, headers.numbers) = (0, [0; 8]);
            (udp::HEADER_LEN..=len).contains(&usize::from(claimed)).then_some(())
        }
        _ => None,
    }
}

/// `LEN` bytes at a fixed offset; the compiler sees that they are there.
#[inline(always)]
fn field<const LEN: usize>(head: &[u8], at: usize) -> [u8; LEN] {
    head.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; LEN])
}
