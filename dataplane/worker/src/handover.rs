//! Packets that landed on a worker that does not own their flow travel to the owner here.
//!
//! One wait-free ring for each ordered pair of workers, so that none has two writers or two
//! readers. A packet carries nothing but itself and the port it came in by: the owner starts from
//! its bytes, with its own snapshot. Full rings drop, by name; they never wait.

use penstock_dpdk::Mbuf;
use penstock_forward::PortIdx;
use rtrb::{Consumer, Producer, RingBuffer, chunks::ChunkError};

/// Packets a ring holds: eight bursts.
const RING_PACKETS: usize = 256;

/// A packet on its way to its owner.
#[derive(Debug)]
pub struct Handed {
    /// The frame as it was received.
    pub mbuf: Mbuf,
    /// The port it was received on.
    pub ingress: PortIdx,
}

/// One worker's ends of the rings: an outbox to, and an inbox from, every other worker.
#[derive(Debug, Default)]
pub struct HandOver {
    outboxes: Vec<Option<Producer<Handed>>>,
    inboxes: Vec<Consumer<Handed>>,
}

impl HandOver {
    /// The ends for each of `workers` workers, in order.
    pub fn between(workers: usize) -> Vec<Self> {
        let mut all: Vec<Self> = (0..workers).map(|_| Self::default()).collect();
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
    pub fn give(&mut self, owner: usize, packet: Handed) -> Result<(), Handed> {
        match self.outboxes.get_mut(owner) {
            Some(Some(outbox)) => outbox.push(packet).map_err(|rtrb::PushError::Full(packet)| packet),
            _ => Err(packet),
        }
    }

    /// Takes at most `room` packets that others handed to this worker.
    pub fn take(&mut self, mut room: usize, mut each: impl FnMut(Handed)) {
        for inbox in &mut self.inboxes {
            let ready = inbox.slots().min(room);
            match inbox.read_chunk(ready) {
                Ok(chunk) => chunk.into_iter().for_each(&mut each),
                Err(ChunkError::TooFewSlots(_)) => continue,
            }
            room -= ready;
        }
    }
}
