//! Asks every backend that is to be asked, each by a task of its own, and tells who is not well.

use std::collections::BTreeSet;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::{Asked, Standing, probe};
use crate::backoff::jitter;
use crate::tasks::Tasks;

/// So many questions are out at once; the others wait, which is no fault of who is to answer.
const AT_ONCE: usize = 256;

/// What the questions came to, since we started. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Answers, good and bad.
    pub answers: Counter,
    /// The bad ones.
    pub bad_answers: Counter,
    /// How often a backend went from well to not, or back.
    pub changes: Counter,
}

/// How a backend counts from now on.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) asked: Asked,
    pub(crate) healthy: bool,
    /// The task that says so: one before it may have been asked otherwise.
    task: u64,
}

/// The tasks, and what all of them have.
pub(crate) struct Checker {
    tasks: Tasks<Asked>,
    shared: Shared,
}

#[derive(Clone)]
struct Shared {
    permits: Arc<Semaphore>,
    counters: Counters,
    changes: UnboundedSender<Change>,
}

impl Checker {
    pub(crate) fn new(counters: Counters, changes: UnboundedSender<Change>) -> Self {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        Self { tasks: Tasks::new(), shared: Shared { permits, counters, changes } }
    }

    /// Asks these from now on, and no others. Those of `unhealthy` begin so. Costs what changes, and a pass over both.
    pub(crate) fn want(&mut self, wanted: &BTreeSet<Asked>, unhealthy: &BTreeSet<Asked>) {
        self.tasks.want(wanted, |asked, task| {
            let check = &asked.check;
            let standing = Standing::new(check.rise, check.fall, !unhealthy.contains(asked));
            follow(asked.clone(), task, standing, self.shared.clone())
        });
    }

    /// Whether a change is of who is asked now.
    pub(crate) fn knows(&self, change: &Change) -> bool {
        self.tasks.number(&change.asked) == Some(change.task)
    }
}

/// Asks one backend for as long as anybody listens.
async fn follow(asked: Asked, task: u64, mut standing: Standing, shared: Shared) {
    let Shared { permits, counters, changes } = shared;
    let interval = asked.check.interval;
    // The first questions are spread over half of the interval, and with them all that follow.
    let mut next = Instant::now() + interval.saturating_sub(jitter(interval));
    loop {
        sleep_until(next).await;
        let Ok(permit) = permits.acquire().await else { return };
        let answer = probe::ask(&asked).await;
        drop(permit);
        counters.answers.inc();
        counters.bad_answers.inc_by(answer.is_err().into());
        if let Some(healthy) = standing.take(answer.is_ok()) {
            counters.changes.inc();
            let (backend, check) = (asked.backend, &asked.check);
            match &answer {
                Ok(()) => info!(%backend, %check, "backend well again"),
                Err(why) => warn!(%backend, %check, %why, "backend not well"),
            }
            if changes.send(Change { asked: asked.clone(), healthy, task }).is_err() {
                return;
            }
        }
        next = (next + interval).max(Instant::now());
    }
}
