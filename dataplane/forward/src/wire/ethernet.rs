//! Ethernet II frames with at most one 802.1Q tag.
//!
//! ```text
//!  0            6            12      14              18
//!  | destination | source    | type  | payload …                   untagged: IEEE 802.3 §3.2
//!  | destination | source    | 8100  | tag   | type  | payload …   tagged: IEEE 802.1Q §9.6
//! ```

use super::Malformed;
use crate::MacAddr;

/// Bytes of an untagged header.
pub const HEADER_LEN: usize = 14;
/// Bytes of an 802.1Q tag.
pub const TAG_LEN: usize = 4;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad service tag.
pub const SERVICE_VLAN: u16 = 0x88a8;

/// Whether a frame says that a group sent it.
pub(crate) fn is_from_group(frame: &[u8]) -> bool {
    let source = frame.get(6..).and_then(|rest| rest.first_chunk());
    source.is_some_and(|mac| MacAddr(*mac).is_multicast())
}

/// Makes a frame that came go back by the way it came. `None` if its source is a group, which sends nothing (IEEE
/// 802-2014 §8.2.2): an answer would go to all of it.
pub(crate) fn turn_round(frame: &mut [u8]) -> Option<()> {
    if is_from_group(frame) {
        return None;
    }
    frame.first_chunk_mut::<12>()?.rotate_left(6);
    Some(())
}

/// A frame seen in place.
#[derive(Clone, Copy, Debug)]
pub struct EthernetView<'a> {
    bytes: &'a [u8],
    head: &'a [u8; HEADER_LEN],
    tag: Option<[u8; TAG_LEN]>,
}

impl<'a> EthernetView<'a> {
    /// # Errors
    /// [`Malformed::Truncated`] if the header, or the tag it announces, is not all there.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let head = bytes.first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        let mut view = Self { bytes, head, tag: None };
        if view.outer_type() == VLAN {
            let tag = bytes.get(HEADER_LEN..).and_then(|rest| rest.first_chunk::<TAG_LEN>());
            view.tag = Some(*tag.ok_or(Malformed::Truncated)?);
        }
        Ok(view)
    }

    fn outer_type(&self) -> u16 {
        u16::from_be_bytes([self.head[12], self.head[13]])
    }

    /// Destination MAC.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> MacAddr {
        let [a, b, c, d, e, f, ..] = *self.head;
        MacAddr([a, b, c, d, e, f])
    }

    /// VLAN id of the tag, if there is one; 0 means priority only.
    #[inline]
    #[must_use]
    pub fn vlan(&self) -> Option<u16> {
        self.tag.map(|[high, low, ..]| u16::from_be_bytes([high, low]) & 0x0fff)
    }

    /// EtherType of the payload, behind the tag.
    #[inline]
    #[must_use]
    pub fn ether_type(&self) -> u16 {
        self.tag.map_or(self.outer_type(), |[.., high, low]| u16::from_be_bytes([high, low]))
    }

    /// Where the payload begins.
    #[inline]
    #[must_use]
    pub fn payload_offset(&self) -> usize {
        if self.tag.is_some() { HEADER_LEN + TAG_LEN } else { HEADER_LEN }
    }

    /// What follows the header, Ethernet padding included.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.payload_offset()..).unwrap_or_default()
    }
}

/// Whether a frame carries an 802.1Q tag.
#[inline]
#[must_use]
pub fn is_tagged(frame: &[u8]) -> bool {
    frame.get(HEADER_LEN - 2..HEADER_LEN) == Some(&VLAN.to_be_bytes())
}
