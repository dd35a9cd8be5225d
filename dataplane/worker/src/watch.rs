//! Whether the workers still turn. One that hangs loses its share of the packets for as long as it
//! does, and keeps every later snapshot from being freed.
//!
//! An idle worker turns too: its longest sleep is 10 ms. A turn is bounded, so seconds without one
//! are a fault, and the way out is a new process: it has the last configuration on disk.

use std::time::{Duration, Instant};

use tracing::{error, info};

/// Without a turn for so long, a worker is said to hang.
pub const HANGS_AFTER: Duration = Duration::from_secs(2);
/// Without a turn for so long, it is given up.
pub const GIVEN_UP_AFTER: Duration = Duration::from_secs(5);
/// What the time between two looks counts at most: if we were stopped ourselves, so were the
/// workers, and they must be seen to stand still before they are blamed.
const LOOK_COUNTS_AT_MOST: Duration = Duration::from_millis(500);

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    /// All turn.
    Turning,
    /// One hangs, and may come back.
    Hanging,
    /// One has hung for too long.
    Lost,
}

/// Every worker as it was seen last.
#[derive(Debug, Default)]
pub struct Watch {
    workers: Vec<Seen>,
    looked: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    turns: u64,
    still: Duration,
}

impl Seen {
    fn found(self) -> Found {
        match self.still {
            still if still >= GIVEN_UP_AFTER => Found::Lost,
            still if still >= HANGS_AFTER => Found::Hanging,
            _ => Found::Turning,
        }
    }
}

impl Watch {
    /// Looks at the turns that each worker has made so far, and tells the worst. A change is logged
    /// once. To be called some times a second.
    pub fn look(&mut self, turns: impl IntoIterator<Item = u64>, now: Instant) -> Found {
        let looked = self.looked.replace(now).unwrap_or(now);
        let passed = now.saturating_duration_since(looked).min(LOOK_COUNTS_AT_MOST);
        let mut worst = Found::Turning;
        for (worker, turns) in turns.into_iter().enumerate() {
            if worker == self.workers.len() {
                self.workers.push(Seen { turns, still: Duration::ZERO });
            }
            let seen = &mut self.workers[worker];
            let before = seen.found();
            let still = if turns == seen.turns { seen.still + passed } else { Duration::ZERO };
            *seen = Seen { turns, still };
            tell(worker, before, seen.found());
            worst = worst.max(seen.found());
        }
        worst
    }
}

fn tell(worker: usize, before: Found, now: Found) {
    match now {
        _ if now == before => {}
        Found::Turning => info!(worker, "the worker turns again"),
        Found::Hanging => {
            error!(worker, "the worker has made no turn for {HANGS_AFTER:?}: its packets are lost");
        }
        Found::Lost => {
            error!(worker, "the worker has made no turn for {GIVEN_UP_AFTER:?}: starting anew");
        }
    }
}

#[cfg(test)]
mod tests {
    use Found::{Hanging, Lost, Turning};

    use super::*;

    #[test]
    fn a_worker_that_stands_still_is_told_of_and_then_given_up() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        // promise, at so many ms, turns of both workers, what is found
        let rows = [
            ("all turn at first", 0, [7, 7], Turning),
            ("one stands still", 500, [8, 7], Turning),
            ("for less than two seconds", 1000, [9, 7], Turning),
            ("still", 1400, [10, 7], Turning),
            ("even at 1.9 s", 1900, [11, 7], Turning),
            ("two seconds", 2000, [12, 7], Hanging),
            ("it turns again", 2200, [13, 8], Turning),
            ("and hangs again, two seconds from then", 2700, [14, 8], Turning),
            ("less", 3200, [15, 8], Turning),
            ("less", 3700, [16, 8], Turning),
            ("two", 4200, [17, 8], Hanging),
            ("while we were stopped, so was it", 60_000, [18, 8], Hanging),
            ("three", 60_500, [19, 8], Hanging),
            ("3.5", 61_000, [20, 8], Hanging),
            ("four", 61_500, [21, 8], Hanging),
            ("4.5", 62_000, [22, 8], Hanging),
            ("five", 62_500, [23, 8], Lost),
        ];
        for (promise, at_ms, turns, expected) in rows {
            let now = start + Duration::from_millis(at_ms);
            assert_eq!(watch.look(turns, now), expected, "{promise}, at {at_ms} ms");
        }
    }

    #[test]
    fn the_worst_counts_and_none_is_well() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        assert_eq!(Watch::default().look([], start), Turning);
        for (step, turns) in (0..=10).enumerate() {
            let found = watch.look([0, turns, turns], start + LOOK_COUNTS_AT_MOST * step as u32);
            assert_eq!(
                found,
                [Turning, Hanging, Lost][usize::from(step >= 4) + usize::from(step >= 10)]
            );
        }
    }
}
