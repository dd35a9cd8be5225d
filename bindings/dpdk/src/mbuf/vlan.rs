//! The VLAN tags of a packet that are not among its bytes: taken off by a NIC, or to be put on by one. They are TCIs
//! (IEEE 802.1Q §9.6), in two fields of the mbuf and some flags that say what the fields mean.

use penstock_dpdk_sys as c;

use super::Mbuf;

const STRIPPED: u64 = c::PENSTOCK_MBUF_RX_VLAN_STRIPPED | c::PENSTOCK_MBUF_RX_QINQ_STRIPPED;

/// The TCIs of tags that are not among a packet's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VlanTcis {
    /// One. Which, if the packet had two, is the NIC's to choose.
    One(u16),
    /// Two.
    Two {
        /// The outer.
        outer: u16,
        /// The inner.
        inner: u16,
    },
}

impl Mbuf {
    /// The tags that the NIC took off, if it did, or whoever called [`Self::set_stripped`].
    #[inline]
    #[must_use]
    pub fn stripped(&self) -> Option<VlanTcis> {
        let head = self.head();
        match head.ol_flags & STRIPPED {
            0 => None,
            STRIPPED => Some(VlanTcis::Two { outer: head.vlan_tci_outer, inner: head.vlan_tci }),
            c::PENSTOCK_MBUF_RX_QINQ_STRIPPED => Some(VlanTcis::One(head.vlan_tci_outer)),
            _ => Some(VlanTcis::One(head.vlan_tci)),
        }
    }

    /// Says that the packet had two tags, which are not among its bytes.
    #[inline]
    pub fn set_stripped(&mut self, outer: u16, inner: u16) {
        const FLAGS: u64 = STRIPPED | c::PENSTOCK_MBUF_RX_VLAN | c::PENSTOCK_MBUF_RX_QINQ;
        let head = self.head_mut();
        (head.vlan_tci_outer, head.vlan_tci) = (outer, inner);
        head.ol_flags |= FLAGS;
    }

    /// The tags that the NIC is to put on.
    #[must_use]
    pub fn to_insert(&self) -> Option<VlanTcis> {
        let head = self.head();
        if head.ol_flags & c::PENSTOCK_MBUF_TX_QINQ != 0 {
            return Some(VlanTcis::Two { outer: head.vlan_tci_outer, inner: head.vlan_tci });
        }
        (head.ol_flags & c::PENSTOCK_MBUF_TX_VLAN != 0).then_some(VlanTcis::One(head.vlan_tci))
    }

    /// Has the NIC put a tag on as it sends the packet: for ports that were granted it.
    #[inline]
    pub fn insert_tag(&mut self, tci: u16) {
        let head = self.head_mut();
        head.vlan_tci = tci;
        head.ol_flags |= c::PENSTOCK_MBUF_TX_VLAN;
    }

    /// The same with two.
    #[inline]
    pub fn insert_tags(&mut self, outer: u16, inner: u16) {
        let head = self.head_mut();
        (head.vlan_tci_outer, head.vlan_tci) = (outer, inner);
        head.ol_flags |= c::PENSTOCK_MBUF_TX_QINQ | c::PENSTOCK_MBUF_TX_VLAN;
    }
}
