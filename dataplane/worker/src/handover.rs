//! Packets that landed on a worker that does not own their flow travel to the owner here.
//!
//! One wait-free ring for each ordered pair of workers, so that none has two writers or two
//! readers. A packet carries nothing but itself and the port it came in by: the owner starts from
//! its bytes, with its own snapshot. Full rings drop, by name; they never wait.

use rtrb::{Consumer, Producer, RingBuffer};

/// Packets a ring holds: eight bursts.
const RING_PACKETS: usize = 256;

/// One worker's ends of the rings: an outbox to, and an inbox from, every other worker.
#[derive(Debug)]
pub struct HandOver<P> {
    outboxes: Vec<Option<Producer<P>>>,
    inboxes: Vec<Consumer<P>>,
    first: usize, // the inbox to be served first: each in turn, so that none starves another
}

impl<P> HandOver<P> {
    /// The ends for each of `workers` workers, in order.
    pub fn between(workers: usize) -> Vec<Self> {
        let none = |_| Self { outboxes: Vec::new(), inboxes: Vec::new(), first: 0 };
        let mut all: Vec<Self> = (0..workers).map(none).collect();
        for from in 0..workers {
            for to in 0..workers {
                if from == to {
                    all[from].outboxes.push(None);
                    continue;
                }
                let (outbox, inbox) = RingBuffer::new(RING_PACKETS);
                all[from].outboxes.push(Some(outbox));
                all[to].inboxes.push(inbox);
            }
        }
        all
    }

    /// Gives a packet to `owner`.
    ///
    /// # Errors
    /// The packet back if the owner's ring is full, or there is no such other worker.
    pub fn give(&mut self, owner: usize, packet: P) -> Result<(), P> {
        match self.outboxes.get_mut(owner) {
            Some(Some(outbox)) => {
                outbox.push(packet).map_err(|rtrb::PushError::Full(packet)| packet)
            }
            _ => Err(packet),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_reaches_its_owner_and_nobody_else() {
        let mut workers = HandOver::between(3);
        assert_eq!(workers[0].give(2, "a"), Ok(()));
        assert_eq!(workers[1].give(2, "b"), Ok(()));
        assert_eq!(workers[2].give(2, "to itself"), Err("to itself"));
        assert_eq!(workers[2].give(7, "to nobody"), Err("to nobody"));
        for (worker, expected) in [(0, vec![]), (1, vec![]), (2, vec!["a", "b"])] {
            let mut taken = Vec::new();
            workers[worker].take(32, |packet| taken.push(packet));
            assert_eq!(taken, expected);
        }
    }

    #[test]
    fn a_full_ring_gives_the_packet_back() {
        let mut workers = HandOver::between(2);
        for packet in 0..RING_PACKETS {
            assert_eq!(workers[0].give(1, packet), Ok(()));
        }
        assert_eq!(workers[0].give(1, 999), Err(999));
    }

    #[test]
    fn a_flood_from_one_worker_does_not_starve_another() {
        let mut workers = HandOver::between(3);
        for packet in 0..64 {
            assert_eq!(workers[0].give(2, packet), Ok(()));
        }
        assert_eq!(workers[1].give(2, 1000), Ok(()));
        let mut taken = Vec::new();
        for _ in 0..2 {
            workers[2].take(32, |packet| taken.push(packet));
        }
        assert_eq!(taken.len(), 64);
        assert!(taken.contains(&1000), "{taken:?}");
    }
}
