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

mod v4;
mod v6;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{TCP, UDP};
use crate::burst::{Arrival, Checked, HEADROOM, RxChecks, Slot};
use crate::flow::{Entry, Flow, FlowKey, FlowRecord, FlowTable, Wide};
use crate::journey::{Headers, Kind};
use crate::snapshot::PortConfig;
use crate::wire::{ethernet, tcp, udp};

pub(crate) use v4::HeadV4;
pub(crate) use v6::HeadV6;

/// Bytes of the link header.
pub(crate) const LINK_LEN: usize = ethernet::HEADER_LEN;

/// The headers of a plain packet, as far as all of them have them. A UDP datagram of less than twelve bytes whose frame
/// is not padded is not seen as plain.
pub(crate) trait Head: Sized + FromBytes + IntoBytes + KnownLayout + Immutable {
    const FAMILY: u8;
    const IP_HEADER_LEN: usize;

    /// Whether it begins as a plain packet that comes so, as far as IP goes: whether [there is more](Self::has_l4) is
    /// asked when it is known who wants it.
    fn is_plain(&self, expected: &Expected, frame_len: u16) -> bool;

    fn link_mut(&mut self) -> &mut [u8; LINK_LEN];
    fn l4(&self) -> &L4Head;
    fn l4_mut(&mut self) -> &mut L4Head;
    /// Bytes of the IP packet.
    fn ip_len(&self) -> u16;
    fn hops_left(&self) -> u8;
    fn protocol(&self) -> u8;
    /// Type of service or traffic class.
    fn traffic_class(&self) -> u8;
    /// Its tuple.
    fn key(&self) -> FlowKey;
    /// A flow that may be its own, with what is compared of that: the record alone, or the wide line too.
    fn flow_mut<'f>(flows: &'f mut FlowTable<'_>, entry: Entry) -> (&'f mut FlowRecord, &'f Wide);
    /// Whether its ends are those of a flow's packets that go this way.
    fn is_of(&self, flow: Flow, way: usize) -> bool;
    /// One hop less.
    fn age(&mut self);
    /// The ends with which a flow's packets that go this way leave, and one hop less; the L4 checksum stays.
    fn replace_ends(&mut self, flow: Flow, way: usize);

    /// The head of the frame in a buffer, which has one if it is long enough.
    #[inline(always)]
    fn of(buffer: &[u8]) -> Option<&Self> {
        Self::ref_from_bytes(buffer.get(HEADROOM..HEADROOM + size_of::<Self>())?).ok()
    }

    #[inline(always)]
    fn of_mut(buffer: &mut [u8]) -> Option<&mut Self> {
        Self::mut_from_bytes(buffer.get_mut(HEADROOM..HEADROOM + size_of::<Self>())?).ok()
    }

    /// The head of a packet, if it is plainly of this family.
    #[inline(always)]
    fn of_plain<'s>(slot: &'s Slot, expected: &Expected) -> Option<&'s Self> {
        Self::of(slot.buffer).filter(|head| head.is_plain(expected, slot.len))
    }

    /// What the rooms want to know.
    fn headers(&self) -> Headers {
        let l4 = self.l4();
        let is_tcp = self.protocol() == TCP;
        let (tcp_flags, numbers) = if is_tcp { (l4.flags(), l4.numbers()) } else { (0, [0; 8]) };
        let (l3, l4) = (LINK_LEN as u16, (LINK_LEN + Self::IP_HEADER_LEN) as u16);
        let (ip_len, ttl) = (self.ip_len(), self.hops_left());
        Headers { kind: Kind::Tuple, l3, l4, ip_len, ttl, tcp_flags, numbers }
    }

    /// Whether it is of TCP or UDP, and that header is there and within the packet.
    fn has_l4(&self) -> bool {
        match self.protocol() {
            TCP => self.has_tcp(),
            UDP => self.has_udp(),
            _ => false,
        }
    }

    #[inline(always)]
    fn has_tcp(&self) -> bool {
        let header_len = u32::from(self.l4().0[12] & 0xf0) / 4;
        header_len >= tcp::MIN_HEADER_LEN as u32 && self.has_behind_ip(header_len)
    }

    #[inline(always)]
    fn has_udp(&self) -> bool {
        let claimed = u32::from(u16::from_be_bytes(field(&self.l4().0, 4)));
        claimed >= udp::HEADER_LEN as u32 && self.has_behind_ip(claimed)
    }

    /// Whether so many bytes lie behind the IP header.
    #[inline(always)]
    fn has_behind_ip(&self, len: u32) -> bool {
        Self::IP_HEADER_LEN as u32 + len <= u32::from(self.ip_len())
    }
}

/// The first bytes behind the IP header: a TCP header without options, or a UDP header and some of what it carries.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct L4Head(pub(crate) [u8; tcp::MIN_HEADER_LEN]);

impl L4Head {
    /// Source and destination L4 port, as in [`FlowKey`].
    #[inline(always)]
    pub(crate) fn ports(&self) -> u32 {
        u32::from_ne_bytes(field(&self.0, 0))
    }

    #[inline(always)]
    pub(crate) fn set_ports(&mut self, ports: u32) {
        if let Some(field) = self.0.first_chunk_mut() {
            *field = ports.to_ne_bytes();
        }
    }

    /// The control bits of a TCP segment.
    #[inline(always)]
    pub(crate) fn flags(&self) -> u8 {
        self.0[13]
    }

    /// The sequence number of a TCP segment.
    #[inline(always)]
    pub(crate) fn sequence(&self) -> u32 {
        u32::from_be_bytes(field(&self.0, 4))
    }

    /// What a TCP segment acknowledges, as it lies there.
    #[inline(always)]
    pub(crate) fn acknowledged(&self) -> [u8; 4] {
        field(&self.0, 8)
    }

    /// Sequence and acknowledgement number of a TCP segment.
    fn numbers(&self) -> [u8; 8] {
        field(&self.0, 4)
    }
}

/// What is expected of plain packets that come so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// The MAC address, as the first word of a frame has it.
    destination: u64,
    /// Whether the header checksum is yet to be verified.
    to_verify: bool,
}

impl Expected {
    /// The six bytes of a frame's first word that are the MAC address.
    const DESTINATION: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);

    /// Nothing fits if the port is not there, or the NIC found a checksum wrong.
    #[inline(never)]
    pub(crate) fn by(arrival: Arrival, port: Option<&PortConfig>) -> Self {
        let RxChecks { ip, l4 } = arrival.checks();
        let port = port.filter(|_| ip != Checked::Bad && l4 != Checked::Bad);
        let destination = port.map_or(u64::MAX, |port| {
            let [a, b, c, d, e, f] = port.mac.0;
            u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
        });
        Self { destination, to_verify: ip != Checked::Good }
    }

    #[inline(always)]
    fn is_ours(&self, frame: &[u8]) -> bool {
        u64::from_ne_bytes(field(frame, 0)) & Self::DESTINATION == self.destination
    }
}

/// `LEN` bytes at a fixed offset; the compiler sees that they are there.
#[inline(always)]
fn field<const LEN: usize>(head: &[u8], at: usize) -> [u8; LEN] {
    head.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; LEN])
}
