//! Saves of all objects: one at a time, on a thread that may wait for the disk, with a rest after each.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Between two saves it is at least so many times as long as the first took: each writes all objects.
const REST: u32 = 20;

/// The save that is under way, and when the next one may be.
pub(super) struct Saving {
    under_way: Option<JoinHandle<()>>,
    begun: Instant,
    rest: Duration,
    least_rest: Duration,
}

impl Saving {
    /// None is under way, and one may begin.
    pub(super) fn new(least_rest: Duration) -> Self {
        Self { under_way: None, begun: Instant::now(), rest: Duration::ZERO, least_rest }
    }

    /// Whether one may begin. To be asked often: how long one took is known from when it was found to have ended.
    pub(super) fn may_begin(&mut self) -> bool {
        if self.under_way.take_if(|save| save.is_finished()).is_some() {
            self.rest = self.least_rest.max(self.begun.elapsed() * REST);
        }
        self.under_way.is_none() && self.begun.elapsed() >= self.rest
    }

    /// Begins one.
    pub(super) fn begin(&mut self, save: impl FnOnce() + Send + 'static) {
        self.begun = Instant::now();
        self.under_way = Some(tokio::task::spawn_blocking(save));
    }

    /// Waits for the one that is under way.
    pub(super) async fn finish(&mut self) {
        if let Some(save) = self.under_way.take() {
            let _ = save.await; // a panic of that thread has been printed
        }
    }
}
