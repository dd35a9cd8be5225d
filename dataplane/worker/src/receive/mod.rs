//! How the packets of each port come to the workers.
//!
//! ```text
//!  rss        a queue a worker; the NIC computes the owner of most packets by the box's key and RETA
//!  queues     a queue a worker, chosen by what we do not know: a TAP's kernel, a memif's other end
//!  software   fewer queues than workers: who receives hands over to the owner, before it looks anything up
//!  disproved  said to be `rss`, and packets came elsewhere: as `software`, by as many as it has queues
//! ```
//! In every case a packet that meets another worker than its owner is handed over: what is decided here is how
//! many are. [`queues`](Queues::of): how many a port gets; [`rss`](Drawn): the one key and RETA that all NICs are
//! asked to take, and what they took; [`steer`](steer::replies): rte_flow, where that is all there is;
//! [`watch`](Watch): whether a NIC does what it says.

mod queues;
mod rss;
pub mod steer;
mod watch;

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use penstock_forward::{CameBy, spread::Hashed};

pub use queues::Queues;
pub use rss::{Drawn, Found, Taken, find};
pub use watch::Watch;

/// How the packets of a port come to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Manner {
    /// There is one worker.
    Alone,
    /// RSS brings them to their owners.
    Rss,
    /// Each worker has a queue.
    Queues,
    /// Not every worker has one.
    Software,
    /// RSS was said to bring them to their owners, and does not.
    Disproved,
}

impl Manner {
    const ALL: [Self; 5] = [Self::Alone, Self::Rss, Self::Queues, Self::Software, Self::Disproved];

    /// As operators see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alone => "one worker",
            Self::Rss => "rss",
            Self::Queues => "queues",
            Self::Software => "software",
            Self::Disproved => "rss disproved",
        }
    }
}

/// A port's manner: told by the main thread, read by the workers.
#[derive(Clone, Debug)]
pub struct Reception {
    manner: Arc<AtomicU8>,
    hashed: Hashed,
}

impl Reception {
    /// It begins so.
    pub fn new(manner: Manner) -> Self {
        Self { manner: Arc::new(AtomicU8::new(manner as u8)), hashed: Hashed::default() }
    }

    /// By RSS, whose hash has the L4 ports of these packets.
    pub fn by_rss(hashed: Hashed) -> Self {
        Self { hashed, ..Self::new(Manner::Rss) }
    }

    /// How it is now.
    pub fn manner(&self) -> Manner {
        Manner::ALL[usize::from(self.manner.load(Ordering::Relaxed)) % Manner::ALL.len()]
    }

    /// What the forwarder is told of a burst from the port.
    pub fn came_by(&self) -> CameBy {
        match self.manner() {
            Manner::Alone | Manner::Queues => CameBy::Queue,
            Manner::Rss => CameBy::Rss(self.hashed),
            Manner::Software | Manner::Disproved => CameBy::Unspread,
        }
    }

    /// RSS is trusted no longer.
    fn disprove(&self) {
        self.manner.store(Manner::Disproved as u8, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reception_says_the_manner_it_was_given() {
        for manner in Manner::ALL {
            assert_eq!(Reception::new(manner).manner(), manner);
        }
        let reception = Reception::by_rss(Hashed::ALL);
        assert_eq!(reception.came_by(), CameBy::Rss(Hashed::ALL));
        let of_a_worker = reception.clone();
        reception.disprove();
        assert_eq!(of_a_worker.came_by(), CameBy::Unspread);
    }
}
