//! What a worker does while its queues are empty, so that a lab of two cores, and an edge box at
//! night, do not burn.

use std::{thread, time::Duration};

use crate::config::Idle;

/// Polls without a packet before a sleeping worker first sleeps: a short silence inside a burst of
/// traffic must not cost a wake-up.
const EMPTY_POLLS_BEFORE_SLEEP: u32 = 64;

/// Counts empty polls and rests by the operator's setting.
#[derive(Debug)]
pub struct Rest {
    idle: Idle,
    empty_polls: u32,
}

impl Rest {
    /// A worker that has just been busy.
    pub fn new(idle: Idle) -> Self {
        Self { idle, empty_polls: 0 }
    }

    /// To be called once per poll with the packets it brought. The longest stay is the `sleep`
    /// of the setting (plus the kernel's timer slack, 50 µs by default).
    pub fn after(&mut self, packets: usize) {
        if packets > 0 {
            self.empty_polls = 0;
            return;
        }
        self.empty_polls = self.empty_polls.saturating_add(1);
        match self.idle {
            Idle::Spin => {}
            Idle::Pause => std::hint::spin_loop(),
            Idle::Sleep(at_most) if self.empty_polls > EMPTY_POLLS_BEFORE_SLEEP => {
                thread::sleep(at_most.min(Duration::from_millis(10)));
            }
            Idle::Sleep(_) => std::hint::spin_loop(),
        }
    }
}
