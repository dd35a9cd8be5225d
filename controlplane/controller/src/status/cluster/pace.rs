//! How soon an object's status may be written again.
//!
//! A thousand routes made one after the other change the count of one listener a thousand times. The first change
//! is written at once. While changes follow each other the pauses between writes double up to `LONGEST`; when they
//! rest for a part of that, what is known by then is written. So few counts are written, and the last one soon.

use std::time::Duration;

use tokio::time::Instant;

/// The pause after the first write.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause; who rested for longer begins anew.
const LONGEST: Duration = Duration::from_secs(2);
/// The part of a pause, and the least, in which changes that follow each other come.
const QUIET_PART: u32 = 4;
const QUIET: Duration = Duration::from_millis(100);

/// The writes of one object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pause: Duration,
    last: Instant,
}

impl Pace {
    /// After the first write.
    pub(super) fn begin(now: Instant) -> Self {
        Self { pause: FIRST, last: now }
    }

    /// After another one.
    pub(super) fn step(&mut self, now: Instant) {
        let rested = now > self.last + LONGEST;
        self.pause = if rested { FIRST } else { (self.pause * 2).min(LONGEST) };
        self.last = now;
    }

    /// When a change that is known now may be written, if no other follows.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let quiet = now + QUIET.max(self.pause / QUIET_PART);
        quiet.min(now.max(self.last + self.pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changes that come so far apart, in milliseconds; when they are written.
    fn written(changes: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let start = Instant::now();
        let (mut pace, mut written, mut due, mut now) =
            (Pace::begin(start), Vec::new(), None, start);
        let mut write = |pace: &mut Pace, at: Instant| {
            pace.step(at);
            written.push(u64::try_from((at - start).as_millis()).unwrap());
        };
        for apart in changes {
            now += Duration::from_millis(apart);
            if let Some(at) = due.take_if(|at| *at <= now) {
                write(&mut pace, at);
            }
            due = Some(pace.next(now));
        }
        due.into_iter().for_each(|at| write(&mut pace, at));
        written
    }

    #[test]
    fn changes_that_follow_each_other_are_written_ever_more_seldom_and_the_last_one_soon() {
        for (promise, changes, expected) in [
            ("after a rest, at once", vec![3000, 3000], vec![3000, 6000]),
            (
                "sixty, which a busy API server makes slowly",
                vec![150; 60],
                vec![150, 300, 500, 700, 1500, 3100, 5100, 7100, 9100],
            ),
            ("the second waits a little", vec![10], vec![50]),
            (
                "a thousand in twenty seconds",
                vec![20; 1000],
                vec![
                    50, 150, 350, 750, 1550, 3150, 5150, 7150, 9150, 11150, 13150, 15150, 17150,
                    19150, 20500,
                ],
            ),
            ("a thousand in one second", vec![1; 1000], vec![50, 150, 350, 750, 1200]),
        ] {
            assert_eq!(written(changes), expected, "{promise}");
        }
    }
}
