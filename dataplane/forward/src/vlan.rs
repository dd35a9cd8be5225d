//! The VLAN tags of a port: taken off its frames as they come in, put on again as they go out. In between nobody sees
//! them: not the forwarder, not the kernel, no capture.
//!
//! ```text
//!  0             6        12     14     16     18     20     22
//!  | destination | source | type | payload …                              untagged
//!  | destination | source | 8100 | TCI  | type | payload …                one tag: IEEE 802.1Q §9.3
//!  | destination | source | 88a8 | TCI  | 8100 | TCI  | type | payload …  two, "QinQ": IEEE 802.1ad
//! ```
//! A TCI is a priority (PCP and DEI, four bits) and a VLAN id. The priority is the packet's own and leaves with it; the
//! id is the port's. Twelve bytes of MAC addresses move, and nothing else.

use std::fmt;
use std::ops::RangeInclusive;

use crate::DropReason;
use crate::wire::ethernet::{self, TAG_LEN};

/// Bytes of the MAC addresses.
const MACS: usize = 12;
/// Bytes of two tags.
const TWO: usize = 2 * TAG_LEN;
/// The bits of a TCI that are the VLAN id.
const ID: u16 = 0x0fff;

/// One tag, without a priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The EtherType that announces it (TPID).
    pub ether_type: u16,
    /// The VLAN id.
    pub vlan: u16,
}

impl Tag {
    /// The TCI of the tag that lies at `at`, if it is this one.
    #[inline]
    fn read(self, frame: &[u8], at: usize) -> Result<u16, DropReason> {
        let [a, b, c, d] = *chunk(frame, at)?;
        if u16::from_be_bytes([a, b]) != self.ether_type {
            return Err(DropReason::VlanMismatch);
        }
        self.accept(u16::from_be_bytes([c, d]))
    }

    /// A TCI, if its VLAN id is this one.
    #[inline]
    fn accept(self, tci: u16) -> Result<u16, DropReason> {
        if tci & ID == self.vlan { Ok(tci) } else { Err(DropReason::VlanMismatch) }
    }

    /// The TCI with the priority of another.
    #[inline]
    fn with_priority_of(self, tci: u16) -> u16 {
        tci & !ID | self.vlan
    }

    #[inline]
    fn bytes(self, tci: u16) -> [u8; TAG_LEN] {
        let ([a, b], [c, d]) = (self.ether_type.to_be_bytes(), tci.to_be_bytes());
        [a, b, c, d]
    }
}

/// The tags of every frame of a port: one, or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags {
    outer: Option<Tag>,
    inner: Tag,
}

/// Tags that a NIC has taken off a frame, as TCIs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ByNic {
    /// None.
    #[default]
    None,
    /// One. Which, if there are two, is not the same with all NICs.
    One(u16),
    /// Both.
    Both(Tcis),
}

/// The TCIs of a packet's tags. Where it had one, they are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcis {
    /// Of the outer tag.
    pub outer: u16,
    /// Of the inner.
    pub inner: u16,
}

/// A frame whose tags are off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenOff {
    /// It begins so many bytes later.
    pub bytes: usize,
    /// What they were.
    pub tcis: Tcis,
}

impl Tags {
    /// VLAN ids that a tag of a port may have: 0 means priority only, 4095 is reserved (IEEE 802.1Q §9.6).
    pub const VLANS: RangeInclusive<u16> = 1..=4094;

    /// One 802.1Q tag.
    #[must_use]
    pub const fn one(vlan: u16) -> Self {
        Self { outer: None, inner: Tag { ether_type: ethernet::VLAN, vlan } }
    }

    /// An 802.1Q tag for `inner` behind an outer tag.
    #[must_use]
    pub const fn two(outer: Tag, inner: u16) -> Self {
        Self { outer: Some(outer), ..Self::one(inner) }
    }

    /// The outer tag, if there are two.
    #[must_use]
    pub fn outer(&self) -> Option<Tag> {
        self.outer
    }

    /// The inner tag, or the only one.
    #[must_use]
    pub fn inner(&self) -> Tag {
        self.inner
    }

    /// Bytes of a frame that they take.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> usize {
        if self.outer.is_some() { TWO } else { TAG_LEN }
    }

    /// Takes off a frame what the NIC has left of its tags.
    ///
    /// # Errors
    /// [`DropReason::VlanMismatch`] unless they are the port's, [`DropReason::VlanStacked`] if there are more,
    /// [`DropReason::Truncated`] if the frame ends among them. It is as it was then.
    #[inline]
    pub fn take_off(&self, frame: &mut [u8], by_nic: ByNic) -> Result<TakenOff, DropReason> {
        let taken = match self.outer {
            None => self.find_one(frame, by_nic),
            Some(outer) => self.find_two(outer, frame, by_nic),
        }?;
        let ether_type = u16::from_be_bytes(*chunk(frame, MACS + taken.bytes)?);
        if ether_type == ethernet::VLAN || ether_type == ethernet::SERVICE_VLAN {
            return Err(DropReason::VlanStacked);
        }
        match taken.bytes {
            0 => {}
            TAG_LEN => close::<TAG_LEN>(frame)?,
            _ => close::<TWO>(frame)?,
        }
        Ok(taken)
    }

    #[inline]
    fn find_one(&self, frame: &[u8], by_nic: ByNic) -> Result<TakenOff, DropReason> {
        let (bytes, tci) = match by_nic {
            ByNic::None => (TAG_LEN, self.inner.read(frame, MACS)?),
            ByNic::One(tci) => (0, self.inner.accept(tci)?),
            ByNic::Both(_) => return Err(DropReason::VlanStacked),
        };
        Ok(TakenOff { bytes, tcis: Tcis { outer: tci, inner: tci } })
    }

    #[inline]
    fn find_two(&self, tag: Tag, frame: &[u8], by_nic: ByNic) -> Result<TakenOff, DropReason> {
        let (bytes, outer, inner) = match by_nic {
            ByNic::None => {
                let outer = tag.read(frame, MACS)?;
                (TWO, outer, self.inner.read(frame, MACS + TAG_LEN)?)
            }
            ByNic::One(tci) => match (tag.accept(tci), self.inner.read(frame, MACS)) {
                (Ok(outer), Ok(inner)) => (TAG_LEN, outer, inner),
                _ => (TAG_LEN, tag.read(frame, MACS)?, self.inner.accept(tci)?),
            },
            ByNic::Both(tcis) => (0, tag.accept(tcis.outer)?, self.inner.accept(tcis.inner)?),
        };
        Ok(TakenOff { bytes, tcis: Tcis { outer, inner } })
    }

    /// Puts them on a frame that begins [`Self::bytes`] into `buffer`, and then at its front, with the priorities of
    /// `tcis`.
    ///
    /// # Errors
    /// [`DropReason::Truncated`] if the MAC addresses are not all there. Nothing is changed then.
    #[inline]
    pub fn put_on(&self, buffer: &mut [u8], tcis: Tcis) -> Result<(), DropReason> {
        let Tcis { outer, inner } = self.with_priorities_of(tcis);
        let inner = self.inner.bytes(inner);
        match self.outer {
            None => open(buffer, [inner]),
            Some(tag) => open(buffer, [tag.bytes(outer), inner]),
        }
    }

    /// The TCIs of a frame that leaves, for a NIC that puts the tags on itself.
    #[inline]
    #[must_use]
    pub fn with_priorities_of(&self, tcis: Tcis) -> Tcis {
        let inner = self.inner.with_priority_of(tcis.inner);
        let outer = self.outer.map_or(inner, |tag| tag.with_priority_of(tcis.outer));
        Tcis { outer, inner }
    }
}

/// `7`, or `100.7`.
impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(outer) = self.outer {
            write!(f, "{}.", outer.vlan)?;
        }
        write!(f, "{}", self.inner.vlan)
    }
}

/// Moves the MAC addresses `BY` bytes towards the payload.
#[inline]
fn close<const BY: usize>(frame: &mut [u8]) -> Result<(), DropReason> {
    let macs: [u8; MACS] = *chunk(frame, 0)?;
    *chunk_mut(frame, BY)? = macs;
    Ok(())
}

/// Moves the MAC addresses to the front of a buffer, and writes tags behind them.
#[inline]
fn open<const TAGS: usize>(
    buffer: &mut [u8],
    tags: [[u8; TAG_LEN]; TAGS],
) -> Result<(), DropReason> {
    let macs: [u8; MACS] = *chunk(buffer, TAGS * TAG_LEN)?;
    *chunk_mut(buffer, 0)? = macs;
    for (nth, tag) in tags.into_iter().enumerate() {
        *chunk_mut(buffer, MACS + nth * TAG_LEN)? = tag;
    }
    Ok(())
}

#[inline]
fn chunk<const LEN: usize>(bytes: &[u8], at: usize) -> Result<&[u8; LEN], DropReason> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(DropReason::Truncated)
}

#[inline]
fn chunk_mut<const LEN: usize>(bytes: &mut [u8], at: usize) -> Result<&mut [u8; LEN], DropReason> {
    bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()).ok_or(DropReason::Truncated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEVEN: Tags = Tags::one(7);
    /// 7 in the service VLAN 100.
    const STACKED: Tags = Tags::two(Tag { ether_type: 0x88a8, vlan: 100 }, 7);
    /// The same, as older equipment writes it.
    const OF_OLD: Tags = Tags::two(Tag { ether_type: 0x8100, vlan: 100 }, 7);

    const MAC_ADDRESSES: &[u8] = b"\x02\0\0\0\0\xbb\x02\x01\x0a\0\0\x03";

    /// A frame with these bytes between MAC addresses and payload.
    fn frame(between: &[u8]) -> Vec<u8> {
        [MAC_ADDRESSES, between, b"\x08\0payload"].concat()
    }

    fn tcis(outer: u16, inner: u16) -> Tcis {
        Tcis { outer, inner }
    }

    /// What the port has, what lies in the frame, what the NIC took: what the TCIs were.
    #[test]
    fn tags_are_taken_off() {
        let one: &[u8] = b"\x81\0\xa0\x07";
        let two: &[u8] = b"\x88\xa8\x60\x64\x81\0\xb0\x07";
        let both = ByNic::Both(tcis(0x6064, 0xb007));
        let rows: &[(&str, Tags, &[u8], ByNic, Tcis)] = &[
            ("one, with its priority", SEVEN, one, ByNic::None, tcis(0xa007, 0xa007)),
            ("by the NIC", SEVEN, b"", ByNic::One(0xa007), tcis(0xa007, 0xa007)),
            ("two", STACKED, two, ByNic::None, tcis(0x6064, 0xb007)),
            ("both by the NIC", STACKED, b"", both, tcis(0x6064, 0xb007)),
            ("the outer by the NIC", STACKED, &two[4..], ByNic::One(0x6064), tcis(0x6064, 0xb007)),
            ("the inner by the NIC", STACKED, &two[..4], ByNic::One(0xb007), tcis(0x6064, 0xb007)),
            ("two of a kind", OF_OLD, b"\x81\0\0\x64\x81\0\0\x07", ByNic::None, tcis(100, 7)),
            ("of those, the outer", OF_OLD, b"\x81\0\0\x07", ByNic::One(100), tcis(100, 7)),
            ("of those, the inner", OF_OLD, b"\x81\0\0\x64", ByNic::One(7), tcis(100, 7)),
        ];
        for (promise, tags, between, by_nic, expected) in rows {
            let mut frame_in = frame(between);
            let taken = tags.take_off(&mut frame_in, *by_nic);
            let bytes = between.len();
            assert_eq!(taken, Ok(TakenOff { bytes, tcis: *expected }), "{promise}");
            assert_eq!(&frame_in[bytes..], frame(b""), "{promise}");
        }
    }

    /// What the port has, what lies in the frame, what the NIC took: why it is refused, and it is as it was.
    #[test]
    fn a_frame_of_other_tags_is_refused() {
        use DropReason::{VlanMismatch, VlanStacked};
        let both = |outer, inner| ByNic::Both(tcis(outer, inner));
        let rows: &[(&str, Tags, &[u8], ByNic, DropReason)] = &[
            ("none", SEVEN, b"", ByNic::None, VlanMismatch),
            ("another VLAN", SEVEN, b"\x81\0\xa0\x08", ByNic::None, VlanMismatch),
            ("a priority only", SEVEN, b"\x81\0\xa0\0", ByNic::None, VlanMismatch),
            ("a service tag", SEVEN, b"\x88\xa8\0\x07", ByNic::None, VlanMismatch),
            ("another VLAN, by the NIC", SEVEN, b"", ByNic::One(8), VlanMismatch),
            ("one more", SEVEN, b"\x81\0\0\x07\x81\0\0\x07", ByNic::None, VlanStacked),
            ("a service tag more", SEVEN, b"\x81\0\0\x07\x88\xa8\0\x07", ByNic::None, VlanStacked),
            ("one more than the NIC took", SEVEN, b"\x81\0\0\x07", ByNic::One(7), VlanStacked),
            ("two by the NIC", SEVEN, b"", both(7, 7), VlanStacked),
            ("none of two", STACKED, b"", ByNic::None, VlanMismatch),
            ("the outer alone", STACKED, b"\x88\xa8\0\x64", ByNic::None, VlanMismatch),
            ("the inner alone", STACKED, b"\x81\0\0\x07", ByNic::None, VlanMismatch),
            ("another outer type", STACKED, b"\x81\0\0\x64\x81\0\0\x07", ByNic::None, VlanMismatch),
            ("another outer", STACKED, b"\x88\xa8\0\x65\x81\0\0\x07", ByNic::None, VlanMismatch),
            ("another inner", STACKED, b"\x88\xa8\0\x64\x81\0\0\x08", ByNic::None, VlanMismatch),
            ("the outer by the NIC, no more", STACKED, b"", ByNic::One(100), VlanMismatch),
            ("another by the NIC", STACKED, b"\x81\0\0\x07", ByNic::One(101), VlanMismatch),
            ("the same twice", STACKED, b"\x81\0\0\x07", ByNic::One(7), VlanMismatch),
            ("another outer by the NIC", STACKED, b"", both(101, 7), VlanMismatch),
            ("another inner by the NIC", STACKED, b"", both(100, 8), VlanMismatch),
            ("three", STACKED, b"\x88\xa8\0\x64\x81\0\0\x07\x81\0\0\x07", ByNic::None, VlanStacked),
        ];
        for (promise, tags, between, by_nic, expected) in rows {
            let mut frame_in = frame(between);
            assert_eq!(tags.take_off(&mut frame_in, *by_nic), Err(*expected), "{promise}");
            assert_eq!(frame_in, frame(between), "{promise}: as it was");
        }
    }

    #[test]
    fn a_frame_that_ends_among_its_tags_is_truncated() {
        let rows: &[(Tags, &[u8])] =
            &[(SEVEN, b"\x81\0\0\x07"), (STACKED, b"\x88\xa8\0\x64\x81\0\0\x07")];
        for (tags, between) in rows {
            for len in 0..MACS + between.len() + 2 {
                let mut frame = frame(between)[..len].to_vec();
                assert_eq!(
                    tags.take_off(&mut frame, ByNic::None),
                    Err(DropReason::Truncated),
                    "{len}"
                );
            }
            let mut short = vec![0; MACS + tags.bytes() - 1];
            assert_eq!(tags.put_on(&mut short, Tcis::default()), Err(DropReason::Truncated));
            assert_eq!(short, vec![0; MACS + tags.bytes() - 1], "as it was");
        }
    }

    /// What the port has, and the TCIs that the packet came with: what it leaves with.
    #[test]
    fn tags_are_put_on() {
        let rows: &[(&str, Tags, Tcis, &[u8])] = &[
            ("no priority", SEVEN, tcis(0, 0), b"\x81\0\0\x07"),
            ("the priority it came with", SEVEN, tcis(0xa007, 0xa007), b"\x81\0\xa0\x07"),
            ("and its DEI, from another VLAN", SEVEN, tcis(0x1fff, 0x1fff), b"\x81\0\x10\x07"),
            ("of two, the inner's", SEVEN, tcis(0x6064, 0xb007), b"\x81\0\xb0\x07"),
            ("two", STACKED, tcis(0x6064, 0xb007), b"\x88\xa8\x60\x64\x81\0\xb0\x07"),
            ("two of one", STACKED, tcis(0xa008, 0xa008), b"\x88\xa8\xa0\x64\x81\0\xa0\x07"),
            ("as older equipment wants", OF_OLD, tcis(0, 0), b"\x81\0\0\x64\x81\0\0\x07"),
        ];
        for (promise, tags, tcis, between) in rows {
            let mut buffer = [vec![0xee; tags.bytes()], frame(b"")].concat();
            assert_eq!(tags.put_on(&mut buffer, *tcis), Ok(()), "{promise}");
            assert_eq!(buffer, frame(between), "{promise}");
            let leaving = tags.with_priorities_of(*tcis);
            let taken = tags.take_off(&mut buffer, ByNic::None).unwrap();
            assert_eq!((taken.bytes, taken.tcis), (between.len(), leaving), "and off again");
        }
    }

    #[test]
    fn tags_are_written_as_people_write_them() {
        assert_eq!((SEVEN.to_string(), STACKED.to_string()), ("7".into(), "100.7".into()));
    }

    proptest! {
        /// No bytes and no word of a NIC make it panic, and what is not taken stays.
        #[test]
        fn any_bytes_are_taken_or_refused(
            frame in prop::collection::vec(prop::sample::select(vec![0_u8, 7, 100, 0x81, 0x88, 0xa8, 8]), 0..40),
            stacked in any::<bool>(),
            nic in prop_oneof![
                Just(ByNic::None),
                any::<u16>().prop_map(ByNic::One),
                any::<(u16, u16)>().prop_map(|(outer, inner)| ByNic::Both(tcis(outer, inner))),
            ],
        ) {
            let (tags, mut after) = (if stacked { STACKED } else { SEVEN }, frame.clone());
            match tags.take_off(&mut after, nic) {
                Err(_) => prop_assert_eq!(after, frame),
                Ok(taken) => {
                    prop_assert_eq!(&after[taken.bytes..][..MACS], &frame[..MACS]);
                    prop_assert_eq!(&after[taken.bytes + MACS..], &frame[taken.bytes + MACS..]);
                }
            }
        }
    }
}
