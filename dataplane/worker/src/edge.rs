//! The edge of a port: where its frames become what everything behind it sees, one segment without tags, and where
//! they get the port's tags again.
//!
//! ```text
//!  NIC ─▶ chains made one ─▶ tags off ─▶ forwarder, other workers, held, companion, traces
//!  NIC ◀─ tags on (by us, or asked of the NIC) ◀─ frames to send, whoever made them
//! ```
//! A mbuf remembers the priorities of the tags it came with, and leaves with them. Whether there are tags is asked once
//! a burst; a port without any pays nothing else.

use penstock_dpdk::{Granted, Mbuf, MbufBurst, VlanTags, VlanTcis};
use penstock_forward::{ByNic, DropReason, Tags, Tcis};

/// What is done with the frames of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    tagging: Option<Tagging>,
}

/// The tags of a port, and who takes them off and puts them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tagging {
    tags: Tags,
    strip_by_nic: bool,
    insert_by_nic: bool,
}

/// The tags as a NIC is told them.
pub fn for_nic(tags: Tags) -> VlanTags {
    match tags.outer() {
        None => VlanTags::One { vlan: tags.inner().vlan },
        Some(outer) => VlanTags::Two { outer_type: outer.ether_type },
    }
}

impl Edge {
    /// Of a port with these tags, whose NIC was granted some of the work.
    pub fn new(tags: Option<Tags>, granted: &Granted) -> Self {
        let tagging = |tags| Tagging {
            tags,
            strip_by_nic: granted.vlan_strip,
            insert_by_nic: granted.vlan_insert,
        };
        Self { tagging: tags.map(tagging) }
    }

    /// Makes frames that were just received what the forwarder takes; how many had to be put together. Those that cannot
    /// be that, or are of other VLANs, go to `lost`, as they are.
    #[inline]
    pub fn take_in(
        self,
        received: &mut MbufBurst,
        mut lost: impl FnMut(&Mbuf, DropReason),
    ) -> usize {
        let chained = received.iter().any(|mbuf| !mbuf.is_contiguous());
        let put_together = if chained { put_together(received, &mut lost) } else { 0 };
        if let Some(tagging) = self.tagging {
            received.retain(|mbuf| match tagging.take_off(mbuf) {
                Ok(()) => true,
                Err(reason) => {
                    lost(mbuf, reason);
                    false
                }
            });
        }
        put_together
    }

    /// Makes frames what the port sends; how many could not be that, and are gone: they had no headroom left.
    #[inline]
    pub fn let_out(self, sending: &mut MbufBurst) -> usize {
        let Some(tagging) = self.tagging else { return 0 };
        let before = sending.len();
        sending.retain(|mbuf| tagging.put_on(mbuf).is_some());
        before - sending.len()
    }
}

#[cold]
fn put_together(received: &mut MbufBurst, lost: &mut impl FnMut(&Mbuf, DropReason)) -> usize {
    let mut put_together = 0;
    received.retain(|mbuf| {
        let (was_whole, is_whole) = (mbuf.is_contiguous(), mbuf.make_contiguous().is_ok());
        if !is_whole {
            lost(mbuf, DropReason::Oversized);
        }
        put_together += usize::from(is_whole && !was_whole);
        is_whole
    });
    put_together
}

impl Tagging {
    #[inline]
    fn take_off(&self, mbuf: &mut Mbuf) -> Result<(), DropReason> {
        let by_nic = match mbuf.stripped().filter(|_| self.strip_by_nic) {
            None => ByNic::None,
            Some(VlanTcis::One(tci)) => ByNic::One(tci),
            Some(VlanTcis::Two { outer, inner }) => ByNic::Both(Tcis { outer, inner }),
        };
        let taken = self.tags.take_off(mbuf.data_mut(), by_nic)?;
        mbuf.trim_front(taken.bytes as u16).map_err(|_| DropReason::Truncated)?;
        let Tcis { outer, inner } = taken.tcis;
        mbuf.set_stripped(outer, inner);
        Ok(())
    }

    /// Nothing is done if there is no room.
    #[inline]
    fn put_on(&self, mbuf: &mut Mbuf) -> Option<()> {
        let remembered = match mbuf.stripped() {
            Some(VlanTcis::Two { outer, inner }) => Tcis { outer, inner },
            Some(VlanTcis::One(tci)) => Tcis { outer: tci, inner: tci },
            None => Tcis::default(),
        };
        if self.insert_by_nic {
            let Tcis { outer, inner } = self.tags.with_priorities_of(remembered);
            match self.tags.outer() {
                None => mbuf.insert_tag(inner),
                Some(_) => mbuf.insert_tags(outer, inner),
            }
            return Some(());
        }
        mbuf.prepend(self.tags.bytes() as u16).ok()?;
        self.tags.put_on(mbuf.data_mut(), remembered).ok()
    }
}
