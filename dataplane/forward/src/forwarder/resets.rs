//! RSTs of our own: to the ends of connections that nobody serves any more.

use crate::flow::FlowKey;
use crate::rewrite::reset;
use crate::snapshot::Snapshot;
use crate::{Burst, DropReason, Forwarder, Tick, next_hop};

pub use crate::rewrite::reset::FRAME as RST_FRAME;

impl Forwarder<'_> {
    /// RSTs that wait to be sent. They wait as long as it takes, and no connection is cut while there are many.
    #[must_use]
    #[inline]
    pub fn resets_due(&self) -> usize {
        self.cuts.len()
    }

    /// Writes a RST into each frame of `burst`, which has no more of them than are due; each has [`RST_FRAME`]
    /// bytes, whatever they are, and then its [`Exit`](crate::Exit).
    pub fn write_resets(&mut self, burst: &mut Burst, snapshot: &Snapshot) {
        for at in 0..burst.len() {
            if let Err(reason) = self.write_reset(at, burst, snapshot) {
                self.counters.drop(reason);
                burst.leave(at, reason.into());
            }
        }
    }

    fn write_reset(
        &mut self,
        at: usize,
        burst: &mut Burst,
        snapshot: &Snapshot,
    ) -> Result<(), DropReason> {
        let rst = self.cuts.next().ok_or(DropReason::Truncated)?;
        let slot = &mut burst.slots[at];
        let (len, ip_len) = reset::write(slot.frame_mut(), &rst).ok_or(DropReason::Truncated)?;
        slot.len = len;
        let hop = next_hop::route(&rst.leaving, snapshot.fib());
        next_hop::leave_by(hop, burst, at, ip_len, snapshot)
    }

    /// When the flow of packets with this key ends, if nobody serves it any more.
    pub(crate) fn end_of(&self, key: &FlowKey, snapshot: &Snapshot) -> Option<Tick> {
        let entry = self.flows.find_live(key, self.flows.hash.tuple(key));
        entry.is_some().then(|| snapshot.end_of(self.flows.flow(entry)))?
    }

    /// Whether a packet without a flow came to one that was cut.
    #[inline]
    pub(super) fn is_cut(&self, at: usize) -> bool {
        self.walk.tuples.contains(at) && self.flows.is_cut(self.walk.entries[at])
    }

    /// Its sender is told, until it believes it.
    #[cold]
    pub(super) fn answer_cut(&mut self, at: usize, burst: &mut Burst, now: Tick) {
        burst.leave(at, DropReason::NoFlow.into());
        self.reset_segment(at, burst, now);
    }
}
