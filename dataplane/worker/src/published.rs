//! The one pointer by which the main lcore tells the workers what to do.
//!
//! A worker caches the `Arc` and compares the pointer once a turn. The main lcore keeps every
//! configuration that a worker might still read, so that the last reference is always dropped
//! here and never on the packet path. `tests/loom_workers.rs` runs every interleaving of it.

use std::sync::atomic::Ordering;

use crossbeam_utils::CachePadded;

use crate::shared::{Arc, ArcSwap, AtomicU64, Snapshot};

/// A configuration with its place in the order of publication.
#[derive(Debug)]
pub struct Published {
    /// From 1; a worker reports it when it has gone over.
    pub serial: u64,
    /// What to do with packets.
    pub snapshot: Snapshot,
}

/// The writer's side: the root pointer, the workers' progress, and what is not free yet.
pub struct Publisher {
    root: Arc<ArcSwap<Published>>,
    passed: Vec<Arc<CachePadded<AtomicU64>>>,
    retired: Vec<Arc<Published>>,
}

impl Publisher {
    /// A root that holds `first` for `workers` workers.
    pub fn new(first: Snapshot, workers: usize) -> Self {
        Self {
            root: Arc::new(ArcSwap::from_pointee(Published { serial: 1, snapshot: first })),
            passed: (0..workers).map(|_| Arc::default()).collect(),
            retired: Vec::new(),
        }
    }

    /// The root pointer, for a worker to cache.
    pub fn root(&self) -> Arc<ArcSwap<Published>> {
        Arc::clone(&self.root)
    }

    /// Where worker `at` reports the serial it has gone over to.
    pub fn progress(&self, at: usize) -> Arc<CachePadded<AtomicU64>> {
        Arc::clone(&self.passed[at])
    }

    /// Gives the workers another configuration, and tells its serial.
    pub fn publish(&mut self, snapshot: Snapshot) -> u64 {
        let serial = self.root.load().serial + 1;
        let old = self.root.swap(Arc::new(Published { serial, snapshot }));
        self.retired.push(old);
        serial
    }

    /// The youngest configuration that every worker has gone over to.
    pub fn passed(&self) -> u64 {
        self.passed.iter().map(|passed| passed.load(Ordering::Acquire)).min().unwrap_or(u64::MAX)
    }

    /// Whether every worker has gone over to the youngest configuration.
    pub fn all_passed(&self) -> bool {
        self.passed() == self.root.load().serial
    }

    /// Frees what no worker can still read.
    pub fn reclaim(&mut self) {
        let passed = self.passed();
        self.retired.retain(|old| old.serial >= passed || Arc::strong_count(old) > 1);
    }
}
