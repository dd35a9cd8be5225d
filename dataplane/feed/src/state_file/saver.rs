//! Saves away from the main loop: a sync takes as long as the disk likes.
//!
//! A save writes the whole state, whatever has changed: some 12 MB for 100 000 members. So that a
//! stream of small changes keeps neither a CPU nor a disk busy, the thread rests after each save nine
//! times as long as it took, a second at most; what is committed meanwhile is written together. The
//! first change after a silence is written at once.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::StateFile;
use crate::model::State;

/// The longest that a committed state waits to be written.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// A thread that saves the newest state it was given. One that was overtaken is never written.
/// Dropping it waits for the save that is under way and writes what is left, without a rest.
#[derive(Debug)]
pub(crate) struct Saver {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Desk {
    order: Mutex<Order>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Order {
    newest: Option<(u64, Arc<State>)>,
    stop: bool,
}

impl Desk {
    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Saver {
    pub(crate) fn start(file: StateFile) -> std::io::Result<Self> {
        let desk = Arc::new(Desk::default());
        let theirs = Arc::clone(&desk);
        let builder = std::thread::Builder::new().name("feed-state".into());
        let thread = builder.spawn(move || save_until_stopped(&theirs, &file))?;
        Ok(Self { desk, thread: Some(thread) })
    }

    /// Hands over what to save next; never waits for the disk.
    pub(crate) fn save(&self, generation: u64, state: Arc<State>) {
        self.desk.order().newest = Some((generation, state));
        self.desk.changed.notify_one();
    }
}

fn save_until_stopped(desk: &Desk, file: &StateFile) {
    loop {
        let idle = |order: &mut Order| order.newest.is_none() && !order.stop;
        let waited = desk.changed.wait_while(desk.order(), idle);
        let mut order = waited.unwrap_or_else(PoisonError::into_inner);
        let Some((generation, state)) = order.newest.take() else { return };
        drop(order);
        let begin = Instant::now();
        if let Err(error) = file.save(generation, &state) {
            tracing::warn!(generation, %error, "state not saved: a restart would serve an older one");
        }
        drop(state); // what it alone holds is freed here
        let rest = rest_after(begin.elapsed());
        let resting = |order: &mut Order| !order.stop;
        drop(desk.changed.wait_timeout_while(desk.order(), rest, resting));
    }
}

fn rest_after(save: Duration) -> Duration {
    save.saturating_mul(9).min(LONGEST_REST)
}

impl Drop for Saver {
    fn drop(&mut self) {
        self.desk.order().stop = true;
        self.desk.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saver_rests_and_writes_what_is_left_at_the_end() {
        let ms = Duration::from_millis;
        for (save, rest) in [(0, 0), (1, 9), (50, 450), (200, 1000), (60_000, 1000)] {
            assert_eq!(rest_after(ms(save)), ms(rest), "after {save} ms");
        }
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::open(directory.path().join("state")).unwrap();
        let saver = Saver::start(file.clone()).unwrap();
        for generation in 1..=1000 {
            saver.save(generation, Arc::default());
        }
        drop(saver);
        assert_eq!(file.load().unwrap(), Some((1000, Arc::default())));
    }
}
