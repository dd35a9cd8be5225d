//! What a round took, and what many rounds say.

use std::fmt::{self, Display, Formatter};

#[cfg(target_arch = "x86_64")]
const UNIT: &str = "TSC cycles/packet";
#[cfg(not(target_arch = "x86_64"))]
const UNIT: &str = "ns/packet";

/// The time stamp counter.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "no safe way to read the TSC, and the budget is in its cycles")]
pub(crate) fn clock() -> u64 {
    // SAFETY: the instruction exists on every x86-64 CPU, and Linux lets user space execute it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn clock() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let start = START.get_or_init(std::time::Instant::now);
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Numbers drawn uniformly, the same in each run (xorshift64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((u128::from(self.0) * bound as u128) >> 64).unwrap_or(0)
    }
}

/// The median of the rounds, and their least and most.
pub(crate) struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// Of what each of the rounds took for `packets` packets.
    pub(crate) fn of(rounds: impl Iterator<Item = u64>, packets: usize) -> Self {
        let mut rounds: Vec<f64> = rounds.map(|took| took as f64 / packets as f64).collect();
        rounds.sort_by(f64::total_cmp);
        let at = |at: usize| rounds.get(at).copied().unwrap_or(f64::NAN);
        Self { median: at(rounds.len() / 2), least: at(0), most: at(rounds.len().wrapping_sub(1)) }
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let Self { median, least, most } = self;
        write!(f, "{median:7.1}  ({least:.1}-{most:.1})  {UNIT}")
    }
}
