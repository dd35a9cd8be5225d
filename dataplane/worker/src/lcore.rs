//! A worker: one lcore, its queues, its flow table, and the loop they meet in.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, Cache};
use crossbeam_utils::CachePadded;
use penstock_forward::Forwarder;

use crate::{
    clock::Clock,
    idle::Rest,
    inspect::Probe,
    path::{Path, WorkerPort},
    published::Published,
};

/// How often waiting packets are looked at again although no configuration has changed.
const HOLD_CHECK_MS: u32 = 10;

/// Everything one worker owns, and the few things it shares.
pub struct Worker {
    /// The configuration, with a cached pointer: one compare a turn.
    pub published: Cache<Arc<ArcSwap<Published>>, Arc<Published>>,
    /// The serial of the configuration this worker has gone over to.
    pub passed: Arc<CachePadded<AtomicU64>>,
    /// Flow table and packet path.
    pub forwarder: Forwarder<'static>,
    /// Where packets come from and go to.
    pub path: Path,
    /// Milliseconds from the TSC.
    pub clock: Clock,
    /// What an operator asks.
    pub probe: Probe,
    /// What to do when there is nothing to do.
    pub rest: Rest,
}

impl Worker {
    /// Polls until told to stop: no locks, no allocation, no system call but those of a PMD and of
    /// the operator's idle setting. Gives its ends of the ports back.
    pub fn run(mut self, stop: &AtomicBool) -> Vec<WorkerPort> {
        let (mut serial, mut held_checked) = (0, self.clock.now());
        let (mut last_packets, mut last_cycles) = (0, self.clock.cycles());
        while !stop.load(Ordering::Relaxed) {
            let published = Arc::as_ref(self.published.load()); // one snapshot for the whole turn
            let cycles = self.clock.cycles(); // and one reading of the clock
            let now = self.clock.tick(cycles);
            self.path.activity.turn(last_packets, cycles.wrapping_sub(last_cycles));
            last_cycles = cycles;
            let packets = self.path.take_packets(&mut self.forwarder, published, now);
            let changed = published.serial != serial;
            if !self.path.hold.is_empty() && (changed || now.since(held_checked) >= HOLD_CHECK_MS) {
                self.path.retry_held(&mut self.forwarder, published, now);
                held_checked = now;
            }
            self.path.flush();
            self.forwarder.expire_some(&published.snapshot, now); // a bounded sweep
            if self.forwarder.resets_due() > 0 {
                self.path.send_resets(&mut self.forwarder, published, now);
            }
            let tracer = &mut self.path.tracer;
            self.probe.answer_one(&self.forwarder, &published.snapshot, tracer, now);
            if changed {
                serial = published.serial;
                self.passed.store(serial, Ordering::Release); // nothing of the old one is held any more
            }
            self.rest.after(packets);
            last_packets = packets;
        }
        self.path.flush();
        self.path.ports
    }
}
