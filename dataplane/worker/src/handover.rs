//! Packets that landed on a worker that does not own their flow travel to the owner here, and those that are ready
//! to the worker that has a transmit queue.
//!
//! One wait-free ring for each ordered pair of workers, so that none has two writers or two
//! readers. A packet carries nothing but itself and the port it came in by: the owner starts from
//! its bytes, with its own snapshot. Full rings drop, by name; they never wait.

use penstock_forward::BURST;

use crate::shared::{Consumer, Producer, RingBuffer};

/// Packets a ring holds at least: four bursts.
const RING_PACKETS: usize = 256;
/// Packets all rings to a worker hold, where that is more: a worker that spreads for a whole port fills one of them,
/// and the other may wait for its CPU.
const INBOX_PACKETS: usize = 1024;

/// The way to one other worker: packets of this turn, and the ring they go into together, so that
/// the cache line between the two cores moves once a turn and not once a packet.
#[derive(Debug)]
struct Outbox<P> {
    ring: Producer<P>,
    staged: Vec<P>, // never more than BURST: no allocation after the first
}

impl<P> Outbox<P> {
    /// Puts what fits into the ring; how many were lost because it is full.
    fn flush(&mut self) -> usize {
        let room = self.ring.slots().min(self.staged.len());
        let lost = self.staged.len() - room;
        if let Ok(chunk) = self.ring.write_chunk_uninit(room) {
            chunk.fill_from_iter(self.staged.drain(..));
        }
        self.staged.clear();
        lost
    }
}

/// One worker's ends of the rings: an outbox to, and an inbox from, every other worker.
#[derive(Debug)]
pub struct HandOver<P> {
    outboxes: Vec<Option<Outbox<P>>>,
    inboxes: Vec<Consumer<P>>,
    first: usize, // the inbox to be served first: each in turn, so that none starves another
}

impl<P> HandOver<P> {
    /// The ends for each of `workers` workers, in order.
    pub fn between(workers: usize) -> Vec<Self> {
        let none = |_| Self { outboxes: Vec::new(), inboxes: Vec::new(), first: 0 };
        let mut all: Vec<Self> = (0..workers).map(none).collect();
        let packets = RING_PACKETS.max(INBOX_PACKETS / workers.saturating_sub(1).max(1));
        for from in 0..workers {
            for to in 0..workers {
                if from == to {
                    all[from].outboxes.push(None);
                    continue;
                }
                let (ring, inbox) = RingBuffer::new(packets);
                all[from].outboxes.push(Some(Outbox { ring, staged: Vec::with_capacity(BURST) }));
                all[to].inboxes.push(inbox);
            }
        }
        all
    }

    /// Gives a packet to `owner`, who sees it after [`HandOver::flush`]. Returns how many packets
    /// were lost: this one if there is no such other worker, some of a burst if its ring is full.
    pub fn give(&mut self, owner: usize, packet: P) -> usize {
        let Some(Some(outbox)) = self.outboxes.get_mut(owner) else { return 1 };
        let lost = if outbox.staged.len() == BURST { outbox.flush() } else { 0 };
        outbox.staged.push(packet);
        lost
    }

    /// Lets the owners see what this turn has given them; how many packets found a full ring.
    pub fn flush(&mut self) -> usize {
        let waiting = self.outboxes.iter_mut().flatten().filter(|outbox| !outbox.staged.is_empty());
        waiting.map(Outbox::flush).sum()
    }

    /// Takes at most `room` packets that others handed to this worker.
    pub fn take(&mut self, mut room: usize, mut each: impl FnMut(P)) {
        let (later, sooner) = self.inboxes.split_at_mut(self.first);
        for inbox in sooner.iter_mut().chain(later) {
            let ready = inbox.slots().min(room);
            if let Ok(chunk) = inbox.read_chunk(ready) {
                chunk.into_iter().for_each(&mut each);
                room -= ready;
            }
        }
        self.first = (self.first + 1) % self.inboxes.len().max(1);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn taken<P>(worker: &mut HandOver<P>, room: usize) -> Vec<P> {
        let mut taken = Vec::new();
        worker.take(room, |packet| taken.push(packet));
        taken
    }

    #[test]
    fn a_packet_reaches_its_owner_and_nobody_else() {
        let mut workers = HandOver::between(3);
        assert_eq!(workers[0].give(2, "a"), 0);
        assert_eq!(workers[1].give(2, "b"), 0);
        assert_eq!(workers[2].give(2, "to itself"), 1);
        assert_eq!(workers[2].give(7, "to nobody"), 1);
        assert!(taken(&mut workers[2], 32).is_empty(), "not before the turn ends");
        for worker in &mut workers {
            assert_eq!(worker.flush(), 0);
        }
        for (worker, expected) in [(0, vec![]), (1, vec![]), (2, vec!["a", "b"])] {
            let mut got = taken(&mut workers[worker], 32);
            got.sort_unstable(); // between two givers there is no order
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn what_a_full_ring_does_not_take_is_lost_and_counted() {
        let mut workers = HandOver::between(2);
        let given = INBOX_PACKETS + 3;
        let lost: usize = (0..given).map(|packet| workers[0].give(1, packet)).sum();
        assert_eq!(lost + workers[0].flush(), 3);
        let got = taken(&mut workers[1], usize::MAX);
        assert_eq!(got, (0..INBOX_PACKETS).collect::<Vec<_>>(), "in order, the first ones");
    }

    #[test]
    fn a_flood_from_one_worker_does_not_starve_another() {
        let mut workers = HandOver::between(3);
        for packet in 0..64 {
            assert_eq!(workers[0].give(2, packet), 0);
        }
        assert_eq!(workers[1].give(2, 1000), 0);
        assert_eq!(workers[0].flush() + workers[1].flush(), 0);
        let first = taken(&mut workers[2], 32);
        let second = taken(&mut workers[2], 32);
        assert!(first.contains(&1000) || second.contains(&1000), "{first:?} {second:?}");
    }
}
