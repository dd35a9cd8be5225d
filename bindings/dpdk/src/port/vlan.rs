//! What a NIC does with the VLAN tags of a port's frames.
//!
//! It takes them off, and each mbuf says what it took ([`Mbuf::stripped`](crate::Mbuf::stripped)); it puts them on
//! where an mbuf asks for it; and it drops what is of another VLAN, where a virtual function would else get nothing
//! at all. With two tags it must take our outer type first, since not all NICs mean the same one.

use penstock_dpdk_sys as c;

use super::config::{Granted, Limits};
use super::device::Description;
use super::error::{PortError, check};

/// The tags of a port's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VlanTags {
    /// One of 802.1Q.
    One {
        /// Its VLAN id.
        vlan: u16,
    },
    /// One of 802.1Q within another.
    Two {
        /// The EtherType that announces the outer (TPID).
        outer_type: u16,
    },
}

impl VlanTags {
    fn rx_offloads(self) -> u64 {
        match self {
            Self::One { .. } => c::PENSTOCK_RX_OFFLOAD_VLAN_STRIP,
            Self::Two { .. } => {
                c::PENSTOCK_RX_OFFLOAD_VLAN_STRIP
                    | c::PENSTOCK_RX_OFFLOAD_QINQ_STRIP
                    | c::PENSTOCK_RX_OFFLOAD_VLAN_EXTEND
            }
        }
    }

    fn tx_offloads(self) -> u64 {
        match self {
            Self::One { .. } => c::PENSTOCK_TX_OFFLOAD_VLAN_INSERT,
            Self::Two { .. } => {
                c::PENSTOCK_TX_OFFLOAD_VLAN_INSERT | c::PENSTOCK_TX_OFFLOAD_QINQ_INSERT
            }
        }
    }
}

/// What of its tags a NIC deals with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) strip: bool,
    pub(super) insert: bool,
    pub(super) filter: bool,
}

impl Offered {
    pub(super) fn by(limits: &Limits, tags: Option<VlanTags>) -> Self {
        let Some(tags) = tags else { return Self::default() };
        let (rx, tx) = (tags.rx_offloads(), tags.tx_offloads());
        let filter = c::PENSTOCK_RX_OFFLOAD_VLAN_FILTER;
        Self {
            strip: limits.rx_offloads & rx == rx,
            insert: limits.tx_offloads & tx == tx,
            filter: matches!(tags, VlanTags::One { .. }) && limits.rx_offloads & filter != 0,
        }
    }
}

/// As bits of `rte_eth_rxmode` and `rte_eth_txmode`.
pub(super) fn offloads(granted: &Granted) -> (u64, u64) {
    let Some(tags) = granted.vlan_tags else { return (0, 0) };
    let bits = |on, bits| if on { bits } else { 0 };
    let rx = bits(granted.vlan_strip, tags.rx_offloads())
        | bits(granted.vlan_filter, c::PENSTOCK_RX_OFFLOAD_VLAN_FILTER);
    (rx, bits(granted.vlan_insert, tags.tx_offloads()))
}

/// Tells a configured NIC the type of the outer tag. One that does not take it is not to put tags on.
pub(super) fn set_outer_type(port: &Description, granted: &mut Granted) {
    let Some(VlanTags::Two { outer_type }) = granted.vlan_tags else { return };
    if !(granted.vlan_strip || granted.vlan_insert) {
        return;
    }
    // SAFETY: the port is configured, and this thread is the only one to control it.
    let code = unsafe {
        c::rte_eth_dev_set_vlan_ether_type(port.id, c::PENSTOCK_VLAN_TYPE_OUTER, outer_type)
    };
    granted.vlan_insert &= code == 0;
}

/// Has a running NIC take in the port's VLAN.
pub(super) fn take_in(port: &Description, granted: &Granted) -> Result<(), PortError> {
    let Some(VlanTags::One { vlan }) = granted.vlan_tags.filter(|_| granted.vlan_filter) else {
        return Ok(());
    };
    // SAFETY: the port runs, and this thread is the only one to control it.
    let code = unsafe { c::rte_eth_dev_vlan_filter(port.id, vlan, 1) };
    check(&port.name, "rte_eth_dev_vlan_filter", code).map(drop)
}
