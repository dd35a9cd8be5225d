//! How soon an object's status may be written again.
//!
//! A thousand routes made one after the other change the count of one listener a thousand times. The first change
//! is written at once; while changes follow each other, pauses double up to `LONGEST`, so that the last count is
//! there half a second after it is known and few were written before it.

use std::time::Duration;

use tokio::time::Instant;

/// The pause after the first write.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
pub(super) const LONGEST: Duration = Duration::from_millis(500);

/// The writes of one object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pause: Duration,
    next: Instant,
}

impl Pace {
    /// After the first write.
    pub(super) fn begin(now: Instant) -> Self {
        Self { pause: FIRST, next: now + FIRST }
    }

    /// After another one.
    pub(super) fn step(&mut self, now: Instant) {
        let quiet = now > self.next + self.pause;
        self.pause = if quiet { FIRST } else { (self.pause * 2).min(LONGEST) };
        self.next = now + self.pause;
    }

    /// When it may be written again.
    pub(super) fn next(&self) -> Instant {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_follow_each_other_are_written_ever_more_seldom() {
        let start = Instant::now();
        let mut pace = Pace::begin(start);
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            now = pace.next(); // the next change waits already
            pace.step(now);
            pauses.push(pace.next().duration_since(now).as_millis());
        }
        assert_eq!(pauses, [100, 200, 400, 500, 500, 500]);
        now += Duration::from_secs(5);
        pace.step(now);
        assert_eq!(pace.next().duration_since(now), FIRST, "after a rest, at once");
    }
}
