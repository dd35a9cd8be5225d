//! Packets without a flow, in two turns: whose they are and what flows they would begin; then those flows begin.
//!
//! Between the turns the lines that new flows are written into are on their way, for all of them.

use arrayvec::ArrayVec;

use crate::classify::{Class, classify};
use crate::exit::ShortExit;
use crate::flow::{FlowKey, NewFlow};
use crate::journey::Kind;
use crate::owner::{owner_of_client, owner_of_snat_port};
use crate::pin::Pinning;
use crate::snapshot::{Listener, Snapshot};
use crate::{BURST, Burst, DropReason, Forwarder, Tick, WorkerIdx};

/// Flows that packets of a burst would begin, by their places, in order.
type Proposed = ArrayVec<(usize, NewFlow), BURST>;

impl<'m> Forwarder<'m> {
    /// Packets without a flow: classified, handed to their owner, pinned or gone.
    pub(super) fn receive_strangers(&mut self, burst: &mut Burst, snapshot: &Snapshot, now: Tick) {
        let mut classes = [Class::Leave(ShortExit::default()); BURST];
        let mut proposed = Proposed::new();
        self.classify_strangers(&mut classes, &mut proposed, snapshot, now);
        let mut proposed = proposed.iter().peekable();
        for at in self.walk.strangers.iter() {
            let flow = proposed.next_if(|(proposed, _)| *proposed == at).map(|(_, flow)| flow);
            match (self.walk.headers[at].kind, classes[at], flow) {
                (_, Class::Listener(listener), Some(_)) => {
                    self.pin(at, listener, flow, burst, snapshot, now);
                }
                (Kind::IcmpError, ..) => self.receive_icmp_error(at, burst, snapshot, now),
                (Kind::Echo, class, _) => self.receive_echo(at, class, burst, snapshot, now),
                (Kind::Fragment, ..) => self.receive_piece(at, burst, snapshot, now),
                (Kind::Tuple | Kind::Other, class, _) => {
                    self.receive_stranger(at, class, burst, snapshot, now);
                }
            }
        }
    }

    /// The first turn.
    fn classify_strangers<'s>(
        &mut self,
        classes: &mut [Class<'s>; BURST],
        proposed: &mut Proposed,
        snapshot: &'s Snapshot,
        now: Tick,
    ) {
        let Self { me, workers, flows, walks, counters, walk, .. } = self;
        let (me, workers) = (*me, *workers);
        let mut pinning = Pinning { me, workers, flows, walks, counters, snapshot, now };
        let mut last: Option<(&FlowKey, &Listener)> = None;
        for at in walk.strangers.iter() {
            let (headers, key) = (&walk.headers[at], &walk.keys[at]);
            classes[at] = match last.filter(|(last, _)| key.goes_where(last)) {
                Some((_, listener)) if headers.kind == Kind::Tuple => Class::Listener(listener),
                _ => classify(headers, key, snapshot),
            };
            let Class::Listener(listener) = classes[at] else { continue };
            last = Some((key, listener)); // many packets of a burst go to the same
            let is_ours = owner_of_client(&pinning.flows.hash, key.source(), workers) == me;
            if headers.kind != Kind::Tuple || !is_ours || pinning.flows.is_cut(walk.entries[at]) {
                continue;
            }
            if let Some(flow) =
                pinning.propose(headers, key, walk.hashes[at], listener, proposed.len())
            {
                proposed.push((at, flow));
            }
        }
    }

    /// A packet whose flow is not in the table: it begins one here or with its owner, or leaves.
    #[inline]
    pub(super) fn receive_stranger(
        &mut self,
        at: usize,
        class: Class,
        burst: &mut Burst,
        snapshot: &Snapshot,
        now: Tick,
    ) {
        if self.is_cut(at) {
            return self.answer_cut(at, burst, now);
        }
        let owner = self.owner(&class, &self.walk.keys[at]);
        match (owner, class) {
            (Some(owner), _) if owner != self.me => burst.leave(at, ShortExit::hand_over(owner)),
            (_, Class::Listener(listener)) => self.pin(at, listener, None, burst, snapshot, now),
            (_, Class::FullNatReply) => {
                let (policy, exit) = (snapshot.snat_on_unknown(), DropReason::NoFlow.into());
                self.leave_unknown(at, burst, policy, exit, snapshot, now);
            }
            (_, Class::Departed(exit) | Class::DnatReply(exit) | Class::Leave(exit)) => {
                burst.leave(at, exit);
            }
        }
    }

    /// Who owns the flow that the packet has or would have, if it could have any.
    pub(crate) fn owner(&self, class: &Class, key: &FlowKey) -> Option<WorkerIdx> {
        match class {
            Class::Listener(_) | Class::Departed(_) => {
                Some(owner_of_client(&self.flows.hash, key.source(), self.workers))
            }
            Class::FullNatReply => owner_of_snat_port(key.destination().port(), self.workers),
            Class::DnatReply(_) => {
                Some(owner_of_client(&self.flows.hash, key.destination(), self.workers))
            }
            Class::Leave(_) => None,
        }
    }

    fn pin(
        &mut self,
        at: usize,
        listener: &Listener,
        proposed: Option<&NewFlow>,
        burst: &mut Burst,
        snapshot: &Snapshot,
        now: Tick,
    ) {
        let Self { me, workers, flows, walks, counters, walk, .. } = self;
        let (me, workers) = (*me, *workers);
        let (headers, key, hash) = (&walk.headers[at], &walk.keys[at], walk.hashes[at]);
        let mut pinning = Pinning { me, workers, flows, walks, counters, snapshot, now };
        match pinning.pin(headers, key, hash, listener, proposed) {
            Ok(entry) => {
                walk.entries[at] = entry;
                walk.pinned.insert(at);
            }
            Err(refusal) => self.refuse(at, burst, refusal, listener, snapshot, now),
        }
    }

    pub(super) fn pinning<'p>(&'p mut self, snapshot: &'p Snapshot, now: Tick) -> Pinning<'p, 'm> {
        Pinning {
            me: self.me,
            workers: self.workers,
            flows: &mut self.flows,
            walks: &mut self.walks,
            counters: &self.counters,
            snapshot,
            now,
        }
    }
}
