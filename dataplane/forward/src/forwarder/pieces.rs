//! Pieces of datagrams on their journey.

use crate::classify::{Class, classify};
use crate::exit::ShortExit;
use crate::flow::{Entry, track};
use crate::fragment::datagrams::Fate;
use crate::fragment::{self, Learned, Piece};
use crate::snapshot::Snapshot;
use crate::{Burst, CameBy, DropReason, FlowState, Forwarder, Tick};

impl Forwarder<'_> {
    /// A piece: to whoever knows its L4 ports, then to its flow, which only the first piece can begin.
    #[cold]
    pub(super) fn receive_piece(
        &mut self,
        at: usize,
        burst: &mut Burst,
        snapshot: &Snapshot,
        now: Tick,
    ) {
        let addresses = self.walk.keys[at];
        if let Some(exit) = fragment::outside(&addresses, snapshot) {
            return burst.leave(at, exit);
        }
        // One that was handed over for its L4 ports to be learnt here begins its way to its owner here.
        let handed = burst.came_by() == CameBy::Handed && burst.learned(at).is_some();
        let read = Piece::read(burst.frame_mut(at), &self.walk.headers[at], &addresses);
        let learned = read.map_err(ShortExit::from).and_then(|piece| {
            let learned = burst.learned(at).map_or_else(|| self.learn(&piece, now), Ok)?;
            Ok((piece, learned))
        });
        match learned {
            Ok((piece, learned)) => {
                burst.learn(at, learned);
                self.walk.keys[at] = learned.key(&addresses);
                self.walk.headers[at] = piece.headers(self.walk.headers[at]);
                self.walk.hashes[at] = self.flows.hash.tuple(&self.walk.keys[at]);
                self.walk.pieces.insert(at);
                self.walk.ids[at] = piece.id();
                self.receive_known_piece(at, piece.is_first(), handed, burst, snapshot, now);
            }
            Err(exit) => burst.leave(at, exit),
        }
    }

    /// What the first piece of a datagram tells of this one.
    fn learn(&mut self, piece: &Piece, now: Tick) -> Result<Learned, ShortExit> {
        let owner = self.ownership.of_datagram(&self.flows.hash, piece.datagram());
        if owner != self.ownership.me {
            return Err(ShortExit::hand_over(owner));
        }
        match self.datagrams.receive(piece, &self.flows.hash, now)? {
            Fate::Go(learned) => Ok(learned),
            Fate::Wait(datagram) => Err(ShortExit::wait(datagram)),
        }
    }

    /// A piece whose tuple is known.
    fn receive_known_piece(
        &mut self,
        at: usize,
        is_first: bool,
        handed: bool,
        burst: &mut Burst,
        snapshot: &Snapshot,
        now: Tick,
    ) {
        let (key, headers) = (self.walk.keys[at], self.walk.headers[at]);
        let entry = self.flows.find(&key, self.walk.hashes[at]);
        if entry.is_some() && headers.ttl <= 1 {
            self.walk.expired.insert(at);
            return burst.leave(at, DropReason::TtlExpired.into());
        }
        let goes_on = entry.is_some()
            && if is_first {
                track::follow(entry, &headers, &mut self.flows, snapshot, now)
            } else {
                self.keep_alive(entry, now)
            };
        if goes_on {
            self.walk.entries[at] = entry;
            self.walk.pinned.insert(at);
            return;
        }
        let class = classify(&headers, &key, snapshot);
        let next = self.next_worker(&class, &key, snapshot, handed);
        // With DSR each finds its backend by Maglev, even when there is no room for their flow.
        if let Class::Listener(listener) = class
            && !(is_first || listener.mode.is_dsr() || next.is_some())
        {
            let reason = listener.shuts_out(&key, snapshot).unwrap_or(DropReason::NoFlow);
            return burst.leave(at, reason.into());
        }
        self.receive_stranger(at, class, next, burst, snapshot, now);
    }

    /// A piece without an L4 header says nothing but that its flow is in use.
    fn keep_alive(&mut self, entry: Entry, now: Tick) -> bool {
        let flow = self.flows.record_mut(entry);
        let lives = flow.state().is_some_and(FlowState::is_live);
        if lives {
            flow.last_seen = now.0;
        }
        lives
    }
}
