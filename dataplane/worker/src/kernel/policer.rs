//! How much of one class of traffic may pass: a token bucket over packets and over bytes.
//!
//! Each class of punted packets (neighbours, routing protocols, SSH, the rest) has one of these before
//! the kernel, so that a flood of one class cannot starve another.
//!
//! Tokens are counted in billionths: a nanosecond at rate r brings exactly r of them, so a refill
//! after any time loses nothing, however slow the rate and however often it is asked. Time is an
//! argument: a [`Duration`] since whenever, which does not wrap; one that goes back brings nothing.

use std::time::Duration;

/// What a [`Policer`] lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Packets a second, in the long run.
    pub packets_per_second: u32,
    /// Packets at once, after a rest. 0 lets nothing through.
    pub burst_packets: u32,
    /// Bytes of frames a second, in the long run.
    pub bytes_per_second: u32,
    /// Bytes at once, after a rest; at least the longest frame, or that one never passes.
    pub burst_bytes: u32,
}

impl Rate {
    /// A rate that counts packets only.
    pub const fn of_packets(packets_per_second: u32, burst_packets: u32) -> Rate {
        Rate {
            packets_per_second,
            burst_packets,
            bytes_per_second: u32::MAX,
            burst_bytes: u32::MAX,
        }
    }
}

/// Two token buckets, both of which must hold what a packet takes.
#[derive(Clone, Debug)]
pub struct Policer {
    packets: Bucket,
    bytes: Bucket,
    refilled: Duration,
}

impl Policer {
    /// A policer at `rate`, full.
    pub fn new(rate: Rate) -> Policer {
        Policer {
            packets: Bucket::full(rate.packets_per_second, rate.burst_packets),
            bytes: Bucket::full(rate.bytes_per_second, rate.burst_bytes),
            refilled: Duration::ZERO,
        }
    }

    /// Whether a frame of `frame_bytes` passes at `now`; if not, it takes no tokens.
    pub fn admit(&mut self, now: Duration, frame_bytes: usize) -> bool {
        let elapsed = now.saturating_sub(self.refilled);
        self.refilled = self.refilled.max(now);
        let elapsed_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.packets.refill(elapsed_ns);
        self.bytes.refill(elapsed_ns);
        let frame_bytes = u32::try_from(frame_bytes).unwrap_or(u32::MAX);
        let admitted = self.packets.holds(1) && self.bytes.holds(frame_bytes);
        if admitted {
            self.packets.take(1);
            self.bytes.take(frame_bytes);
        }
        admitted
    }
}

const BILLION: u64 = 1_000_000_000;

/// Tokens in billionths; the largest burst of 2³² tokens fits 64 bits.
#[derive(Clone, Debug)]
struct Bucket {
    billionths: u64,
    capacity: u64,
    per_ns: u64,
}

impl Bucket {
    fn full(per_second: u32, burst: u32) -> Bucket {
        let capacity = u64::from(burst) * BILLION;
        Bucket { billionths: capacity, capacity, per_ns: u64::from(per_second) }
    }

    fn refill(&mut self, elapsed_ns: u64) {
        let more = elapsed_ns.saturating_mul(self.per_ns);
        self.billionths = self.billionths.saturating_add(more).min(self.capacity);
    }

    fn holds(&self, tokens: u32) -> bool {
        self.billionths >= u64::from(tokens) * BILLION
    }

    /// Only after [`Bucket::holds`] said yes.
    fn take(&mut self, tokens: u32) {
        self.billionths -= u64::from(tokens) * BILLION;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// How many frames of `frame_bytes` pass at `now`, of at most 1000 tried.
    fn passing(policer: &mut Policer, now: Duration, frame_bytes: usize) -> usize {
        (0..1000).take_while(|_| policer.admit(now, frame_bytes)).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut policer = Policer::new(Rate::of_packets(1000, 20));
        let start = MS * 5000;
        assert_eq!(passing(&mut policer, start, 60), 20, "the burst");
        assert_eq!(passing(&mut policer, start, 60), 0, "and nothing more at that time");
        assert_eq!(passing(&mut policer, start + MS, 60), 1, "one a millisecond");
        assert_eq!(passing(&mut policer, start + MS * 11, 60), 10, "none of a longer wait is lost");
        assert_eq!(passing(&mut policer, start + MS * 86_400_000, 60), 20, "a rest fills it once");
    }

    #[test]
    fn bytes_are_counted_beside_packets() {
        let rate = Rate {
            packets_per_second: 1000,
            burst_packets: 100,
            bytes_per_second: 15_000,
            burst_bytes: 3000,
        };
        let mut policer = Policer::new(rate);
        assert_eq!(passing(&mut policer, MS, 1500), 2, "two long frames are the burst of bytes");
        assert_eq!(passing(&mut policer, MS * 101, 1500), 1, "and one comes back in 100 ms");
        assert_eq!(passing(&mut policer, MS * 101, 3001), 0, "longer than the burst never passes");
        assert_eq!(passing(&mut policer, MS * 101, usize::MAX), 0, "however long");
    }

    #[test]
    fn a_slow_rate_asked_often_loses_nothing() {
        let mut policer = Policer::new(Rate::of_packets(1, 1));
        assert!(policer.admit(Duration::ZERO, 60));
        let admitted = (1..=10_000_000u64).step_by(1_000).filter(|us| {
            policer.admit(Duration::from_micros(*us), 60) // ten seconds, asked each millisecond
        });
        assert_eq!(admitted.count(), 9, "one a second: the tenth is due 1 µs after the last");
    }

    #[test]
    fn no_time_breaks_it() {
        let mut policer = Policer::new(Rate::of_packets(u32::MAX, u32::MAX));
        assert!(policer.admit(Duration::MAX, 60));
        assert!(policer.admit(Duration::ZERO, 60), "a clock that goes back takes nothing away");
        let mut shut = Policer::new(Rate::of_packets(1000, 0));
        assert!(!shut.admit(Duration::MAX, 0), "a burst of none is none");
    }
}
