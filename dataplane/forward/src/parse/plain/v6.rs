//! Plain IPv6: no extension headers. A UDP checksum it cannot do without.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Expected, Head, L4Head, LINK_LEN, field};
use crate::flow::{Entry, Flow, FlowKey, FlowRecord, FlowTable, V6, Wide};
use crate::parse::UDP;
use crate::wire::{ipv6, udp};

/// The EtherType, and version 6; neither traffic class nor flow label matters.
const KIND: u32 = u32::from_ne_bytes([0x86, 0xdd, 0x60, 0]);
const KIND_MASK: u32 = u32::from_ne_bytes([0xff, 0xff, 0xf0, 0]);

/// See [`Head`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct HeadV6 {
    link: [u8; LINK_LEN],
    ip: [u8; ipv6::HEADER_LEN],
    l4: L4Head,
}

impl HeadV6 {
    /// Source and destination address, as in [`FlowKey`].
    #[inline(always)]
    pub(crate) fn addresses(&self) -> [u8; 32] {
        field(&self.ip, 8)
    }

    /// Bytes behind the IP header.
    #[inline(always)]
    fn payload_len(&self) -> u16 {
        u16::from_be_bytes([self.ip[4], self.ip[5]])
    }
}

impl Head for HeadV6 {
    const FAMILY: u8 = V6;
    const IP_HEADER_LEN: usize = ipv6::HEADER_LEN;

    #[inline(always)]
    fn is_plain(&self, expected: &Expected, frame_len: u16) -> bool {
        const BEFORE: usize = LINK_LEN + ipv6::HEADER_LEN;
        let bytes = self.as_bytes();
        expected.is_ours(bytes)
            && u32::from_ne_bytes(field(bytes, 12)) & KIND_MASK == KIND
            && BEFORE + usize::from(self.payload_len()) <= usize::from(frame_len)
            && (self.protocol() != UDP || field(&self.l4.0, udp::CHECKSUM_AT) != [0, 0])
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
        self.payload_len().wrapping_add(ipv6::HEADER_LEN as u16) // a plain packet's frame has a length of 16 bits
    }

    #[inline(always)]
    fn hops_left(&self) -> u8 {
        self.ip[7]
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.ip[6]
    }

    #[inline(always)]
    fn traffic_class(&self) -> u8 {
        self.ip[0] << 4 | self.ip[1] >> 4
    }

    fn key(&self) -> FlowKey {
        FlowKey {
            addresses: 0,
            ports: self.l4.ports(),
            protocol: self.protocol(),
            family: V6,
            wide: self.addresses(),
        }
    }

    #[inline(always)]
    fn flow_mut<'f>(flows: &'f mut FlowTable<'_>, entry: Entry) -> (&'f mut FlowRecord, &'f Wide) {
        flows.flow_mut(entry)
    }

    #[inline(always)]
    fn is_of(&self, flow: Flow, way: usize) -> bool {
        flow.ports[way] == self.l4.ports() && flow.has_wide(&self.addresses(), way)
    }

    #[inline(always)]
    fn age(&mut self) {
        self.ip[7] -= 1; // nothing without two hops left gets this far
    }

    #[inline(always)]
    fn replace_ends(&mut self, flow: Flow, way: usize) {
        let (addresses, ports) = flow.rewritten_v6(way);
        ipv6::replace_addresses(&mut self.ip, &addresses);
        self.l4.set_ports(ports);
    }
}
