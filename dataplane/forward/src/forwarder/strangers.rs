//! Packets without a flow, in two turns: whose they are and what flows they would begin; then those flows begin.
//!
//! Between the turns the lines that new flows are written into are on their way, for all of them.

use arrayvec::ArrayVec;

use crate::classify::{Class, classify};
use crate::exit::ShortExit;
use crate::flow::{FlowKey, NewFlow};
use crate::journey::Kind;
use crate::pin::Pinning;
use crate::snapshot::{Listener, Snapshot};
use crate::wire::tcp::SYN;
use crate::{BURST, Burst, CameBy, DropReason, Forwarder, Tick, WorkerIdx};

/// What the first turn finds of a burst.
struct Found<'s> {
    classes: [Class<'s>; BURST],
    /// Where packets go next that do not end their journey here.
    nexts: [Option<WorkerIdx>; BURST],
    /// Flows that packets would begin, by their places, in order.
    proposed: ArrayVec<(usize, NewFlow), BURST>,
}

impl Found<'_> {
    fn nothing() -> Self {
        let classes = [Class::Leave(ShortExit::default()); BURST];
        Self { classes, nexts: [None; BURST], proposed: ArrayVec::new() }
    }
}

impl<'m> Forwarder<'m> {
    /// Packets without a flow: classified, handed to their owner, pinned or gone.
    pub(super) fn receive_strangers(&mut self, burst: &mut Burst, snapshot: &Snapshot, now: Tick) {
        let mut found = Found::nothing();
        self.classify_strangers(&mut found, burst.came_by(), snapshot, now);
        let Found { classes, nexts, proposed } = &found;
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
                    self.receive_stranger(at, class, nexts[at], burst, snapshot, now);
                }
            }
        }
    }

    /// The first turn.
    fn classify_strangers<'s>(
        &mut self,
        Found { classes, nexts, proposed }: &mut Found<'s>,
        came_by: CameBy,
        snapshot: &'s Snapshot,
        now: Tick,
    ) {
        let Self { ownership, placed, flows, walks, counters, walk, .. } = self;
        let mut pinning = Pinning { ownership, flows, walks, counters, snapshot, now };
        let mut last: Option<(&FlowKey, &Listener)> = None;
        for at in walk.strangers.iter() {
            let (headers, key) = (&walk.headers[at], &walk.keys[at]);
            classes[at] = match last.filter(|(last, _)| key.goes_where(last)) {
                Some((_, listener)) if headers.kind == Kind::Tuple => Class::Listener(listener),
                _ => classify(headers, key, snapshot),
            };
            if headers.kind != Kind::Tuple {
                continue;
            }
            if let Some(owners) = ownership.owners(&pinning.flows.hash, &classes[at], key, snapshot)
            {
                nexts[at] = owners.next(ownership.me, came_by == CameBy::Handed);
                if let CameBy::Rss(hashed) = came_by
                    && hashed.has(key)
                {
                    placed.count(&owners, ownership.me, headers);
                }
            }
            let Class::Listener(listener) = classes[at] else { continue };
            last = Some((key, listener)); // many packets of a burst go to the same
            if nexts[at].is_some() || pinning.flows.is_cut(walk.entries[at]) {
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
        next: Option<WorkerIdx>,
        burst: &mut Burst,
        snapshot: &Snapshot,
        now: Tick,
    ) {
        if self.is_cut(at) {
            return self.answer_cut(at, burst, now);
        }
        if let Some(next) = next {
            return burst.leave(at, ShortExit::hand_over(next));
        }
        match class {
            Class::Listener(listener) => self.pin(at, listener, None, burst, snapshot, now),
            Class::FullNatReply => {
                let (policy, exit) = (snapshot.snat_on_unknown(), DropReason::NoFlow.into());
                self.leave_unknown(at, burst, policy, exit, snapshot, now);
            }
            Class::Departed(exit) | Class::DnatReply(exit) | Class::Leave(exit) => {
                burst.leave(at, exit);
            }
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
        let Self { ownership, flows, walks, counters, walk, .. } = self;
        let (headers, key, hash) = (&walk.headers[at], &walk.keys[at], walk.hashes[at]);
        let mut pinning = Pinning { ownership, flows, walks, counters, snapshot, now };
        match pinning.pin(headers, key, hash, listener, proposed) {
            Ok(entry) => {
                walk.entries[at] = entry;
                walk.pinned.insert(at);
                if headers.tcp_flags & SYN != 0 {
                    walk.syns.insert(at);
                }
            }
            Err(refusal) => self.refuse(at, burst, refusal, listener, snapshot, now),
        }
    }

    pub(super) fn pinning<'p>(&'p mut self, snapshot: &'p Snapshot, now: Tick) -> Pinning<'p, 'm> {
        Pinning {
            ownership: &self.ownership,
            flows: &mut self.flows,
            walks: &mut self.walks,
            counters: &self.counters,
            snapshot,
            now,
        }
    }
}
