//! Saves away from the main loop: a sync takes as long as the disk likes.
//!
//! A save writes the whole state, whatever has changed: some 12 MB for 100 000 members. So that a
//! stream of small changes keeps neither a CPU nor a disk busy, the thread rests after each save nine
//! times as long as it took, a second at most; what is committed meanwhile is written together. The
//! first change after a silence is written at once. What could not be saved is tried again each second.

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
pub struct Saver {
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

    /// Waits for what to save next; nothing when all is done and no more will come.
    fn next(&self) -> Option<(u64, Arc<State>)> {
        let idle = |order: &mut Order| order.newest.is_none() && !order.stop;
        let waited = self.changed.wait_while(self.order(), idle);
        waited.unwrap_or_else(PoisonError::into_inner).newest.take()
    }

    /// What could not be saved is next again, unless there is something newer, or no time. Whether there is time.
    fn put_back(&self, generation: u64, state: Arc<State>) -> bool {
        let mut order = self.order();
        if !order.stop {
            order.newest.get_or_insert((generation, state));
        }
        !order.stop
    }

    fn rest(&self, time: Duration) {
        let resting = |order: &mut Order| !order.stop;
        drop(self.changed.wait_timeout_while(self.order(), time, resting));
    }
}

impl Saver {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel's, if there is no thread to be had.
    pub fn start(file: StateFile) -> std::io::Result<Self> {
        let desk = Arc::new(Desk::default());
        let theirs = Arc::clone(&desk);
        let builder = std::thread::Builder::new().name("feed-state".into());
        let thread = builder.spawn(move || save_until_stopped(&theirs, &file))?;
        Ok(Self { desk, thread: Some(thread) })
    }

    /// Hands over what to save next; never waits for the disk.
    pub fn save(&self, generation: u64, state: Arc<State>) {
        self.desk.order().newest = Some((generation, state));
        self.desk.changed.notify_one();
    }
}

fn save_until_stopped(desk: &Desk, file: &StateFile) {
    let mut failing = false;
    while let Some((generation, state)) = desk.next() {
        let begin = Instant::now();
        let rest = match file.save(generation, &state) {
            Ok(()) => {
                if std::mem::take(&mut failing) {
                    tracing::info!(generation, "state saved again");
                }
                drop(state); // what it alone holds is freed here
                rest_after(begin.elapsed())
            }
            Err(error) => {
                let again = desk.put_back(generation, state);
                if !again {
                    tracing::warn!(generation, %error, "state not saved before the end: a restart serves an older one");
                } else if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(generation, %error, "state not saved: until it is, tried each second, a restart would serve an older one");
                }
                LONGEST_REST
            }
        };
        desk.rest(rest);
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

    #[test]
    fn what_is_put_back_is_next_unless_there_is_something_newer_or_no_time() {
        let (desk, state) = (Desk::default(), Arc::<State>::default);
        assert!(desk.put_back(7, state()));
        assert_eq!(desk.next(), Some((7, state())));
        desk.order().newest = Some((8, state()));
        assert!(desk.put_back(7, state()));
        assert_eq!(desk.next(), Some((8, state())));
        desk.order().stop = true;
        assert!(!desk.put_back(8, state()), "it will not be tried again, and that is said");
        assert_eq!(desk.next(), None);
    }

    #[test]
    fn what_could_not_be_saved_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("late");
        std::fs::create_dir(&folder).unwrap();
        let file = StateFile::open(folder.join("state")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let saver = Saver::start(file.clone()).unwrap();
        saver.save(7, Arc::default());
        let tried = |order: &Order| order.newest.is_some(); // put back
        let begin = Instant::now();
        std::thread::sleep(Duration::from_millis(50));
        while !tried(&saver.desk.order()) && begin.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::fs::create_dir(&folder).unwrap();
        while file.load().unwrap().is_none() && begin.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(file.load().unwrap(), Some((7, Arc::default())));

        std::fs::remove_dir_all(&folder).unwrap();
        saver.save(8, Arc::default());
        drop(saver); // ends all the same
    }
}
