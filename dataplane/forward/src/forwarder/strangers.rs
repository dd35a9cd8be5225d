//! Packets without a flow, in three turns: whose they are, what flows they would begin; then those flows begin.
//!
//! What a turn will read is asked for before it, for all packets at once and in a loop of nothing else: a CPU has
//! several misses under way if it comes to the next before it waits for the first, page walks among them.

use arrayvec::ArrayVec;

use crate::classify::{Class, classify};
use crate::exit::ShortExit;
use crate::flow::FlowKey;
use crate::flow::table::Rooms;
use crate::group::{Member, Pick};
use crate::journey::{Kind, PacketSet};
use crate::pin::{Pinning, Proposal};
use crate::snapshot::{Listener, Snapshot};
use crate::wire::tcp::SYN;
use crate::{BURST, Burst, CameBy, DropReason, Forwarder, Tick, WorkerIdx};

/// What the first turns find of a burst.
struct Found<'s> {
    /// Of packets that open no flow.
    classes: [Class<'s>; BURST],
    /// Where packets go next that do not end their journey here.
    nexts: [Option<WorkerIdx>; BURST],
    /// Packets that open a flow, in order.
    openers: ArrayVec<Opener<'s>, BURST>,
}

/// A packet that opens a flow.
#[derive(Clone, Copy)]
struct Opener<'s> {
    at: usize,
    listener: &'s Listener,
    /// Where in the Maglev table its backend stands.
    slot: usize,
    /// Who that is.
    pick: Pick<'s>,
}

impl Found<'_> {
    fn nothing() -> Self {
        let classes = [Class::Leave(ShortExit::default()); BURST];
        Self { classes, nexts: [None; BURST], openers: ArrayVec::new_const() }
    }
}

impl<'m> Forwarder<'m> {
    /// Packets without a flow: classified, handed to their owner, pinned or gone.
    pub(super) fn receive_strangers(&mut self, burst: &mut Burst, snapshot: &Snapshot, now: Tick) {
        let mut found = Found::nothing();
        self.classify_strangers(&mut found, burst.came_by(), snapshot, now);
        let proposed = self.propose_flows(&found, snapshot, now);
        let Found { classes, nexts, openers } = &found;
        let mut openers = openers.iter().peekable();
        for at in self.walk.strangers.iter() {
            if let Some(Opener { listener, pick, .. }) = openers.next_if(|opener| opener.at == at) {
                let member = match pick {
                    Pick::Backend(member) if proposed.contains(at) => Some(*member),
                    _ => None,
                };
                self.pin(at, listener, member, burst, snapshot, now);
                continue;
            }
            match self.walk.headers[at].kind {
                Kind::IcmpError => self.receive_icmp_error(at, burst, snapshot, now),
                Kind::Echo => self.receive_echo(at, classes[at], burst, snapshot, now),
                Kind::Fragment => self.receive_piece(at, burst, snapshot, now),
                Kind::Tuple | Kind::Other => {
                    self.receive_stranger(at, classes[at], nexts[at], burst, snapshot, now);
                }
            }
        }
    }

    /// The first turn, at whose end the Maglev tables are read: of one of 128 KiB, which a burst's other lines push out,
    /// little is at hand.
    fn classify_strangers<'s>(
        &mut self,
        Found { classes, nexts, openers, .. }: &mut Found<'s>,
        came_by: CameBy,
        snapshot: &'s Snapshot,
        now: Tick,
    ) {
        let Self { ownership, placed, flows, walks, counters, walk, .. } = self;
        let pinning = Pinning { ownership, flows, walks, counters, snapshot, now };
        let mut last: Option<(&FlowKey, &Listener)> = None;
        for at in walk.strangers.iter() {
            let (headers, key) = (&walk.headers[at], &walk.keys[at]);
            let class = match last.filter(|(last, _)| key.goes_where(last)) {
                Some((_, listener)) if headers.kind == Kind::Tuple => Class::Listener(listener),
                _ => classify(headers, key, snapshot),
            };
            if headers.kind == Kind::Tuple {
                if let Some(owners) = ownership.owners(&pinning.flows.hash, &class, key, snapshot) {
                    nexts[at] = owners.next(ownership.me, came_by == CameBy::Handed);
                    if let CameBy::Rss(hashed) = came_by
                        && hashed.has(key)
                    {
                        placed.count(&owners, ownership.me, headers);
                    }
                }
                if let Class::Listener(listener) = class {
                    last = Some((key, listener)); // many packets of a burst go to the same
                    if nexts[at].is_none()
                        && !pinning.flows.is_cut(walk.entries[at])
                        && pinning.may_open(headers, key, listener)
                    {
                        let (slot, pick) = (listener.slot_of(key), Pick::Refused);
                        openers.push(Opener { at, listener, slot, pick });
                        continue;
                    }
                }
            }
            classes[at] = class;
        }
        for Opener { listener, slot, pick, .. } in openers.iter_mut() {
            *pick = listener.group.pick_by(*slot);
        }
    }

    /// The second turn, at whose end the lines that new flows are written into are there: which packets it has proposed
    /// a flow for.
    fn propose_flows(&mut self, found: &Found, snapshot: &Snapshot, now: Tick) -> PacketSet {
        let Self { ownership, flows, walks, counters, walk, .. } = self;
        let mut pinning = Pinning { ownership, flows, walks, counters, snapshot, now };
        let (mut proposed, mut heard) = (PacketSet::default(), PacketSet::default());
        for &Opener { at, listener, pick, .. } in &found.openers {
            let Pick::Backend(member) = pick else { continue };
            let reply = pinning.propose(&walk.keys[at], walk.hashes[at], listener, member);
            let Some(reply) = reply else { continue };
            walk.reply_hashes[at] = pinning.reply_hash(&reply, listener);
            walk.replies[at] = reply;
            proposed.insert(at);
            if !listener.mode.is_dsr() {
                heard.insert(at);
            }
        }
        let mut rooms = Rooms::new_const();
        for (others, at) in proposed.iter().enumerate() {
            let reply = heard.contains(at).then_some(walk.reply_hashes[at]);
            pinning.flows.ask_for_room(reply, walk.keys[at].protocol, others, &mut rooms);
        }
        pinning.flows.wait_for_rooms(&rooms);
        proposed
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
        member: Option<&Member>,
        burst: &mut Burst,
        snapshot: &Snapshot,
        now: Tick,
    ) {
        let Self { ownership, flows, walks, counters, walk, .. } = self;
        let (headers, key, hash) = (&walk.headers[at], &walk.keys[at], walk.hashes[at]);
        let mut pinning = Pinning { ownership, flows, walks, counters, snapshot, now };
        let (reply, reply_hash) = (&walk.replies[at], walk.reply_hashes[at]);
        let proposed = member.map(|member| Proposal { member, reply, reply_hash });
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
