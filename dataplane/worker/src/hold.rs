//! Packets that wait for their next hop's MAC while the kernel asks for it.
//!
//! They are rewritten already and carry no pointer into a snapshot: when the neighbours have
//! changed, each is looked up again by its destination. Bounded three ways: [`PACKETS`] in all,
//! [`PACKETS_PER_NEXT_HOP`] for one next hop, so that a host that is down cannot take the room of
//! the others, and [`PATIENCE_MS`] in time.

use penstock_dpdk::Mbuf;
use penstock_forward::{NextHopKey, Tick};

/// Packets one worker holds.
pub const PACKETS: usize = 128;
/// Packets one worker holds for one next hop.
pub const PACKETS_PER_NEXT_HOP: usize = 8;
/// How long a packet waits, in milliseconds: the kernel asks three times, a second apart, but a
/// client's first retransmission comes after one second anyway (RFC 6298 §2).
pub const PATIENCE_MS: u32 = 1000;

/// A packet that waits.
#[derive(Debug)]
pub struct Waiting {
    /// The frame, complete but for its Ethernet addresses.
    pub mbuf: Mbuf,
    next_hop: NextHopKey,
    since: Tick,
}

/// The waiting room of one worker.
#[derive(Debug)]
pub struct Hold {
    waiting: Vec<Waiting>,
}

impl Hold {
    /// An empty room; the only allocation it ever makes.
    pub fn new() -> Self {
        Self { waiting: Vec::with_capacity(PACKETS) }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets a packet wait for `next_hop`.
    ///
    /// # Errors
    /// The packet back if the room, or the next hop's share of it, is full.
    pub fn admit(&mut self, mbuf: Mbuf, next_hop: NextHopKey, now: Tick) -> Result<(), Mbuf> {
        let for_this = self.waiting.iter().filter(|waiting| waiting.next_hop == next_hop).count();
        if self.waiting.len() == PACKETS || for_this >= PACKETS_PER_NEXT_HOP {
            return Err(mbuf);
        }
        self.waiting.push(Waiting { mbuf, next_hop, since: now });
        Ok(())
    }

    /// Offers every packet to `try_again`, in the order of arrival; what it gives back waits on.
    pub fn retry(&mut self, mut try_again: impl FnMut(Mbuf) -> Option<Mbuf>) {
        for _ in 0..self.waiting.len() {
            let Waiting { mbuf, next_hop, since } = self.waiting.remove(0); // at most PACKETS, and rare
            if let Some(mbuf) = try_again(mbuf) {
                self.waiting.push(Waiting { mbuf, next_hop, since });
            }
        }
    }

    /// Takes out a packet whose patience is over, if there is one.
    pub fn expired(&mut self, now: Tick) -> Option<Mbuf> {
        let oldest = self.waiting.first()?;
        (now.since(oldest.since) >= PATIENCE_MS).then(|| self.waiting.remove(0).mbuf)
    }
}
