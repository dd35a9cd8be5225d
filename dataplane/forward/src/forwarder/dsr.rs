//! Packets of DSR flows outside the corridor, and those that are too large for where they must go.

use crate::counters::WorkerColumn;
use crate::flow::{Direction, Flow};
use crate::rewrite::dsr::{self, Stuck};
use crate::snapshot::Snapshot;
use crate::{Burst, DropReason, Forwarder, Tick, next_hop, rewrite, too_big};

impl Forwarder<'_> {
    /// A packet that goes where those of a flow would, and leaves no trace in it: a client's when the table is
    /// full, or an ICMP error about what a backend answered.
    #[cold]
    pub(super) fn carry_alone(
        &mut self,
        at: usize,
        burst: &mut Burst,
        flow: Flow,
        snapshot: &Snapshot,
    ) {
        let leaving = flow.key(Direction::Reply).mirror();
        let hop = next_hop::route(&leaving, snapshot.fib());
        match dsr::carry(burst, at, &self.walk.headers[at], flow, hop, snapshot) {
            Ok(()) => {
                let bytes = burst.slips[at].len.into();
                next_hop::count(flow, Direction::Forward, bytes, &self.counters);
            }
            Err(Stuck::TooBig) => burst.leave(at, DropReason::MtuExceeded.into()),
            Err(Stuck::Lost(reason)) => burst.leave(at, reason.into()),
        }
    }

    /// Tells the senders of packets that were too large what would have fitted, as often as allowed.
    #[cold]
    pub(super) fn answer_too_big(&mut self, burst: &mut Burst, snapshot: &Snapshot, now: Tick) {
        for at in self.walk.too_big.iter() {
            burst.leave(at, DropReason::MtuExceeded.into());
            if self.answer_one(at, burst, snapshot, now).is_some() {
                self.counters.worker(WorkerColumn::TooBig, 1);
            }
        }
    }

    fn answer_one(
        &mut self,
        at: usize,
        burst: &mut Burst,
        snapshot: &Snapshot,
        now: Tick,
    ) -> Option<()> {
        let (entry, headers) = (self.walk.entries[at], &self.walk.headers[at]);
        let (flow, direction) = (self.flows.flow(entry), entry.direction());
        let leaving = flow.key(direction.opposite()).mirror();
        let hop = next_hop::route(&leaving, snapshot.fib());
        let mtu = match flow.is_dsr() {
            true => dsr::most(flow, hop, snapshot)?,
            false => next_hop::mtu(hop, snapshot)?,
        };
        let (frame, slip) = (&mut *burst.frames[at], &mut burst.slips[at]);
        let is_rewritten = !flow.is_dsr();
        let has_new_id = is_rewritten && self.walk.pieces.contains(at);
        if has_new_id
            || !too_big::wants_one(frame, headers, flow.family)
            || !self.allowance.take(now)
        {
            return None;
        }
        if is_rewritten {
            rewrite::undo(frame, headers, flow, direction)?;
        }
        too_big::answer(frame, slip, headers, &flow.key(direction), mtu)
    }
}
