//! The VLAN tags of a packet that are not among its bytes: taken off by a NIC, or to be put on by one. They are TCIs
//! (IEEE 802.1Q §9.6), in two fields of the mbuf and some flags that say what the fields mean.

use penstock_dpdk_sys as c;

use super::Mbuf;

const STRIPPED: u64 = c::PENSTOCK_MBUF_RX_VLAN_STRIPPED | c::PENSTOCK_MBUF_RX_QINQ_STRIPPED;

/// The TCIs of two tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcis {
    /// Of the outer tag.
    pub outer: u16,
    /// Of the inner.
    pub inner: u16,
}

/// Tags that are not among the packet's bytes any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stripped {
    /// One. Which, if the packet had two, is the NIC's to choose.
    One(u16),
    /// Two.
    Two(Tcis),
}

impl Mbuf {
    /// The tags that the NIC took off, if it did, or whoever called [`Self::set_stripped`].
    #[inline]
    #[must_use]
    pub fn stripped(&self) -> Option<Stripped> {
        let head = self.head();
        match head.ol_flags & STRIPPED {
            0 => None,
            STRIPPED => {
                Some(Stripped::Two(Tcis { outer: head.vlan_tci_outer, inner: head.vlan_tci }))
            }
            c::PENSTOCK_MBUF_RX_QINQ_STRIPPED => Some(Stripped::One(head.vlan_tci_outer)),
            _ => Some(Stripped::One(head.vlan_tci)),
        }
    }

    /// Says that the packet had two tags, which are not among its bytes.
    #[inline]
    pub fn set_stripped(&mut self, tcis: Tcis) {
        const FLAGS: u64 = STRIPPED | c::PENSTOCK_MBUF_RX_VLAN | c::PENSTOCK_MBUF_RX_QINQ;
        let head = self.head_mut();
        (head.vlan_tci_outer, head.vlan_tci) = (tcis.outer, tcis.inner);
        head.ol_flags |= FLAGS;
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
    pub fn insert_tags(&mut self, tcis: Tcis) {
        let head = self.head_mut();
        (head.vlan_tci_outer, head.vlan_tci) = (tcis.outer, tcis.inner);
        head.ol_flags |= c::PENSTOCK_MBUF_TX_QINQ | c::PENSTOCK_MBUF_TX_VLAN;
    }
}
