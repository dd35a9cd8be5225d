//! Saves away from the main loop: a sync takes as long as the disk likes.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::StateFile;
use crate::model::State;

/// A thread that saves the newest state it was given. One that was overtaken is never written.
/// Dropping it waits for the save that is under way and writes what is left.
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
        if let Err(error) = file.save(generation, &state) {
            tracing::warn!(generation, %error, "state not saved: a restart would serve an older one");
        }
    }
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
