//! The first cache line of `struct rte_mbuf`, as far as PMDs and programs both write it.
//!
//! Vector PMDs store these fields with wide moves at fixed offsets, which is why they have not moved
//! since DPDK 17.05; the asserts below end the build on the release that moves one.

use core::ffi::c_void;
use core::mem::{align_of, offset_of, size_of};

use crate::declarations as c;

/// The head of an `rte_mbuf`: valid for any pointer to one, since it is a prefix of it.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct MbufHead {
    /// Start of the buffer; the packet begins [`data_off`](Self::data_off) bytes later.
    pub buf_addr: *mut c_void,
    /// Its address on the bus.
    pub buf_iova: u64,
    /// Bytes between the start of the buffer and the packet: the headroom left.
    pub data_off: u16,
    /// Owners of the buffer.
    pub refcnt: u16,
    /// Segments of the packet, of which this is the first.
    pub nb_segs: u16,
    /// The port it came in by.
    pub port: u16,
    /// `RTE_MBUF_F_*`.
    pub ol_flags: u64,
    /// `RTE_PTYPE_*`.
    pub packet_type: u32,
    /// Bytes of the packet, all segments.
    pub pkt_len: u32,
    /// Bytes of the packet in this segment.
    pub data_len: u16,
    /// The 802.1Q tag that the NIC stripped, in host order.
    pub vlan_tci: u16,
    /// The RSS hash, and what shares its place.
    pub hash: [u32; 2],
    /// The outer tag of QinQ.
    pub vlan_tci_outer: u16,
    /// Bytes of the buffer, headroom included.
    pub buf_len: u16,
    /// The mempool it goes back to.
    pub pool: *mut c::rte_mempool,
}

const _: () = {
    assert!(size_of::<MbufHead>() == 64 && size_of::<MbufHead>() <= c::PENSTOCK_MBUF_SIZE);
    assert!(align_of::<MbufHead>() == c::PENSTOCK_MBUF_ALIGN);
    assert!(offset_of!(MbufHead, buf_addr) == c::PENSTOCK_MBUF_BUF_ADDR);
    assert!(offset_of!(MbufHead, data_off) == c::PENSTOCK_MBUF_DATA_OFF);
    assert!(offset_of!(MbufHead, refcnt) == c::PENSTOCK_MBUF_REFCNT);
    assert!(offset_of!(MbufHead, nb_segs) == c::PENSTOCK_MBUF_NB_SEGS);
    assert!(offset_of!(MbufHead, port) == c::PENSTOCK_MBUF_PORT);
    assert!(offset_of!(MbufHead, ol_flags) == c::PENSTOCK_MBUF_OL_FLAGS);
    assert!(offset_of!(MbufHead, packet_type) == c::PENSTOCK_MBUF_PACKET_TYPE);
    assert!(offset_of!(MbufHead, pkt_len) == c::PENSTOCK_MBUF_PKT_LEN);
    assert!(offset_of!(MbufHead, data_len) == c::PENSTOCK_MBUF_DATA_LEN);
    assert!(offset_of!(MbufHead, vlan_tci) == c::PENSTOCK_MBUF_VLAN_TCI);
    assert!(offset_of!(MbufHead, hash) == c::PENSTOCK_MBUF_HASH_RSS);
    assert!(offset_of!(MbufHead, vlan_tci_outer) == c::PENSTOCK_MBUF_VLAN_TCI_OUTER);
    assert!(offset_of!(MbufHead, buf_len) == c::PENSTOCK_MBUF_BUF_LEN);
};
