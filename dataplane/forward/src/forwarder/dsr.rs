//! Packets of DSR flows outside the corridor, and those that are too large for where they must go, or have no hop left.

use crate::answer::{self, Answer};
use crate::counters::WorkerColumn;
use crate::flow::{Direction, Flow, FlowKey, NewFlow};
use crate::journey::Kind;
use crate::rewrite::dsr::{self, Stuck};
use crate::snapshot::Snapshot;
use crate::{Burst, DropReason, Forwarder, Tick, fragment, next_hop, rewrite};

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
        now: Tick,
    ) {
        let hop = next_hop::flow_route(flow, Direction::Forward, snapshot.fib());
        match dsr::carry(burst, at, &self.walk.headers[at], flow, hop, snapshot) {
            Ok(()) => {
                let bytes = burst.slots[at].len.into();
                next_hop::count(flow, Direction::Forward, bytes, &self.counters);
            }
            Err(Stuck::TooBig) => {
                burst.leave(at, DropReason::MtuExceeded.into());
                if self.walk.headers[at].kind != Kind::IcmpError
                    && let Some(mtu) = dsr::most(flow, hop, snapshot)
                {
                    let arrived = flow.key(Direction::Forward);
                    self.tell(at, burst, &arrived, Answer::TooBig { mtu }, now);
                }
            }
            Err(Stuck::Lost(reason)) => burst.leave(at, reason.into()),
        }
    }

    /// The same of a flow that is in no table.
    #[cold]
    pub(super) fn carry_stateless(
        &mut self,
        at: usize,
        burst: &mut Burst,
        flow: &NewFlow,
        snapshot: &Snapshot,
        now: Tick,
    ) {
        let (record, wide) = (flow.record(now), flow.wide());
        self.carry_alone(at, burst, Flow::new(&record, &wide), snapshot, now);
    }

    /// Tells the senders of packets that were too large what would have fitted, as often as allowed.
    #[cold]
    pub(super) fn answer_too_big(&mut self, burst: &mut Burst, snapshot: &Snapshot, now: Tick) {
        for at in self.walk.too_big.iter() {
            burst.leave(at, DropReason::MtuExceeded.into());
            self.answer_one(at, burst, snapshot, now);
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
        let hop = next_hop::flow_route(flow, direction, snapshot.fib());
        let mtu = match flow.is_dsr() {
            true => dsr::most(flow, hop, snapshot)?,
            false => next_hop::mtu(hop, snapshot)?,
        };
        let frame = burst.frame_mut(at);
        match self.walk.pieces.contains(at) {
            _ if flow.is_dsr() => {} // it is as it was
            true => fragment::undo(frame, headers, flow, direction, self.walk.ids[at])?,
            false => rewrite::undo(frame, headers, flow, direction, true)?,
        }
        let arrived = flow.key(direction);
        self.tell(at, burst, &arrived, Answer::TooBig { mtu }, now)
    }

    /// Tells the senders of packets that had no hop left, as often as allowed.
    #[cold]
    pub(super) fn answer_expired(&mut self, burst: &mut Burst, now: Tick) {
        for at in self.walk.expired.iter() {
            let arrived = self.walk.keys[at];
            self.tell(at, burst, &arrived, Answer::TimeExceeded, now);
        }
    }

    /// Answers a packet, which is as it arrived, by an ICMP error, if another may be sent.
    pub(super) fn tell(
        &mut self,
        at: usize,
        burst: &mut Burst,
        arrived: &FlowKey,
        what: Answer,
        now: Tick,
    ) -> Option<()> {
        let (headers, slot) = (&self.walk.headers[at], &mut burst.slots[at]);
        let wanted = answer::wants_one(slot.frame(), headers, arrived.family);
        if !wanted || !self.icmp_allowances.of(what).take(answer::ERRORS, now) {
            return None;
        }
        answer::answer(slot, headers, arrived, what)?;
        let column = match what {
            Answer::TooBig { .. } => WorkerColumn::TooBig,
            Answer::PortUnreachable => WorkerColumn::Unreachable,
            Answer::TimeExceeded => WorkerColumn::TimeExceeded,
        };
        self.counters.worker(column, 1);
        Some(())
    }
}
