//! Milliseconds for the packet path, from the TSC: no system call.

use std::time::Duration;

use penstock_forward::Tick;

/// Milliseconds since the clock was made; wraps after 49 days, as [`Tick`] expects.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: u64,
    cycles_per_ms: u64,
}

impl Clock {
    /// A clock that starts at zero, of a TSC that runs at `tsc_hz`.
    pub fn new(tsc_hz: u64) -> Self {
        Self { start: penstock_dpdk::cycles(), cycles_per_ms: (tsc_hz / 1000).max(1) }
    }

    /// The TSC now.
    pub fn cycles(self) -> u64 {
        penstock_dpdk::cycles()
    }

    /// The moment of a reading of the TSC.
    pub fn tick(self, cycles: u64) -> Tick {
        Tick((cycles.wrapping_sub(self.start) / self.cycles_per_ms) as u32)
    }

    /// How long a reading of the TSC is ago; nothing for one that is yet to come.
    pub fn ago(self, cycles: u64) -> Duration {
        let passed = u128::from(self.cycles().saturating_sub(cycles));
        let ns = passed * 1_000_000 / u128::from(self.cycles_per_ms);
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// Now.
    pub fn now(self) -> Tick {
        self.tick(self.cycles())
    }
}
