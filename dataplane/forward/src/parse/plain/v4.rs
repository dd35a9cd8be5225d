//! Plain IPv4: a header of five words.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Expected, Head, L4Head, LINK_LEN, field};
use crate::flow::{Entry, Flow, FlowKey, FlowRecord, FlowTable, V4, Wide};
use crate::wire::{checksum, ipv4};

/// The EtherType, and version 4 with a header of five words; the type of service does not matter.
const KIND: u32 = u32::from_ne_bytes([0x08, 0x00, 0x45, 0]);
const KIND_MASK: u32 = u32::from_ne_bytes([0xff, 0xff, 0xff, 0]);
/// More fragments, and the fragment offset.
const PIECE: u16 = u16::from_ne_bytes([0x3f, 0xff]);

/// See [`Head`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct HeadV4 {
    link: [u8; LINK_LEN],
    ip: [u8; ipv4::MIN_HEADER_LEN],
    l4: L4Head,
}

impl HeadV4 {
    /// Addresses and L4 ports, then four bytes of L4 header.
    #[inline(always)]
    pub(crate) fn ends(&self) -> [u8; 16] {
        field(self.as_bytes(), LINK_LEN + 12)
    }

    /// Source and destination address, as in [`FlowKey`].
    #[inline(always)]
    pub(crate) fn addresses(&self) -> u64 {
        u64::from_ne_bytes(field(&self.ip, 12))
    }
}

impl Head for HeadV4 {
    const FAMILY: u8 = V4;
    const IP_HEADER_LEN: usize = ipv4::MIN_HEADER_LEN;

    #[inline(always)]
    fn is_plain(&self, expected: &Expected, frame_len: u16) -> bool {
        let bytes = self.as_bytes();
        expected.is_ours(bytes)
            && u32::from_ne_bytes(field(bytes, 12)) & KIND_MASK == KIND
            && u16::from_ne_bytes(field(bytes, 20)) & PIECE == 0
            && LINK_LEN + usize::from(self.ip_len()) <= usize::from(frame_len)
            && (!expected.to_verify || checksum::header_is_right(&self.ip))
    }

    #[inline(always)]
    fn link_mut(&mut self) -> &mut [u8; LINK_LEN] {
        &mut self.link
    }

    #[inline(always)]
    fn l4(&self) -> &L4Head {
        &self.l4
    }

    #[inline(always)]
    fn l4_mut(&mut self) -> &mut L4Head {
        &mut self.l4
    }

    #[inline(always)]
    fn ip_len(&self) -> u16 {
        u16::from_be_bytes([self.ip[2], self.ip[3]])
    }

    #[inline(always)]
    fn hops_left(&self) -> u8 {
        self.ip[8]
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.ip[9]
    }

    #[inline(always)]
    fn traffic_class(&self) -> u8 {
        self.ip[1]
    }

    fn key(&self) -> FlowKey {
        FlowKey {
            addresses: self.addresses(),
            ports: self.l4.ports(),
            protocol: self.protocol(),
            family: V4,
            ..FlowKey::default()
        }
    }

    #[inline(always)]
    fn flow_mut<'f>(flows: &'f mut FlowTable<'_>, entry: Entry) -> (&'f mut FlowRecord, &'f Wide) {
        flows.narrow_flow_mut(entry)
    }

    #[inline(always)]
    fn is_of(&self, flow: Flow, way: usize) -> bool {
        (flow.addresses[way] ^ self.addresses()) | u64::from(flow.ports[way] ^ self.l4.ports()) == 0
    }

    #[inline(always)]
    fn age(&mut self) {
        ipv4::age(&mut self.ip);
    }

    #[inline(always)]
    fn replace_ends(&mut self, flow: Flow, way: usize) {
        let (addresses, ports) = flow.rewritten_v4(way);
        ipv4::replace_addresses(&mut self.ip, addresses, flow.ip_deltas[way]);
        self.l4.set_ports(ports);
    }
}
