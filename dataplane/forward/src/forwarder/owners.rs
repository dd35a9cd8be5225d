//! Packets on their way to the worker that owns their flow.

use crate::classify::{Class, classify};
use crate::exit::ShortExit;
use crate::flow::FlowKey;
use crate::journey::{Headers, Kind};
use crate::owner::Owners;
use crate::snapshot::Snapshot;
use crate::wire::{ethernet, ipv4, ipv6};
use crate::{Burst, Forwarder, WorkerIdx};

/// Whether packets came to the worker that the box's spread computes, of those for which that was computed:
/// packets without a flow here. None of them is fragmented, has a priority tag,
/// or options that a NIC may stumble over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// They came where they should.
    pub as_computed: u32,
    /// They did not: the NIC does otherwise than it says.
    pub elsewhere: u32,
}

impl Placed {
    /// Counts a packet that RSS brought to `me` by its L4 ports, if its owners are told by what RSS hashes.
    pub(super) fn count(&mut self, owners: &Owners, me: WorkerIdx, headers: &Headers) {
        if owners.owner.by_rss && is_plain(headers) {
            let at_home = owners.owner.worker == me;
            self.as_computed += u32::from(at_home);
            self.elsewhere += u32::from(!at_home);
        }
    }
}

impl Forwarder<'_> {
    /// The room for packets of a port that does not bring them to their owners: those of others leave before
    /// anything is looked up, since what has a flow here is not theirs.
    #[cold]
    pub(super) fn spread(&mut self, burst: &mut Burst, snapshot: &Snapshot) {
        let (me, hash) = (self.ownership.me, &self.flows.hash);
        for at in self.walk.tuples.iter() {
            let (headers, key) = (&self.walk.headers[at], &self.walk.keys[at]);
            let class = classify(headers, key, snapshot);
            let Some(owners) = self.ownership.owners(hash, &class, key, snapshot) else { continue };
            if let Some(next) = owners.next(me, false).filter(|_| !owners.are(me)) {
                burst.leave(at, ShortExit::hand_over(next));
                self.walk.others.insert(at);
            }
        }
        self.walk.tuples = self.walk.tuples.without(self.walk.others);
        self.walk.wide = self.walk.wide.without(self.walk.others);
    }

    /// The worker to which a packet goes that has no flow here; none if its journey ends here.
    ///
    /// `handed`: it was handed over to this worker. It has been with whoever comes before the owner then.
    pub(crate) fn next_worker(
        &self,
        class: &Class,
        key: &FlowKey,
        snapshot: &Snapshot,
        handed: bool,
    ) -> Option<WorkerIdx> {
        let owners = self.ownership.owners(&self.flows.hash, class, key, snapshot)?;
        owners.next(self.ownership.me, handed)
    }

    /// How packets came in since the last call, of bursts that came by [`CameBy::Rss`](crate::CameBy::Rss).
    pub fn take_placed(&mut self) -> Placed {
        std::mem::take(&mut self.placed)
    }
}

/// Whether every NIC reads a packet as we do: no tag, no options, no extension headers.
fn is_plain(headers: &Headers) -> bool {
    let header_len = usize::from(headers.l4 - headers.l3);
    headers.kind == Kind::Tuple
        && usize::from(headers.l3) == ethernet::HEADER_LEN
        && [ipv4::MIN_HEADER_LEN, ipv6::HEADER_LEN].contains(&header_len)
}
