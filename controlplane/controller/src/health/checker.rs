//! Asks every backend that is to be asked, each by a task of its own, and tells who is not well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::{Asked, Standing, probe};
use crate::backoff::jitter;

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

/// The tasks.
pub(crate) struct Checker {
    tasks: JoinSet<()>,
    running: BTreeMap<Asked, (u64, AbortHandle)>,
    /// How many tasks there were.
    started: u64,
    permits: Arc<Semaphore>,
    counters: Counters,
    changes: UnboundedSender<Change>,
}

impl Checker {
    pub(crate) fn new(counters: Counters, changes: UnboundedSender<Change>) -> Self {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let (tasks, running, started) = (JoinSet::new(), BTreeMap::new(), 0);
        Self { tasks, running, started, permits, counters, changes }
    }

    /// Asks these from now on, and no others. Those of `unhealthy` begin so. Costs what changes, and a pass over both.
    pub(crate) fn want(&mut self, wanted: &BTreeSet<Asked>, unhealthy: &BTreeSet<Asked>) {
        self.running.retain(|asked, (_, task)| {
            let stays = wanted.contains(asked);
            if !stays {
                task.abort();
            }
            stays
        });
        for asked in wanted {
            if !self.running.contains_key(asked) {
                let check = &asked.check;
                let standing = Standing::new(check.rise, check.fall, !unhealthy.contains(asked));
                self.started += 1;
                let task = self.task(asked.clone(), standing);
                self.running.insert(asked.clone(), (self.started, self.tasks.spawn(task)));
            }
        }
        while self.tasks.try_join_next().is_some() {} // what was aborted
    }

    /// Whether a change is of who is asked now.
    pub(crate) fn knows(&self, change: &Change) -> bool {
        self.running.get(&change.asked).is_some_and(|(task, _)| *task == change.task)
    }

    fn task(&self, asked: Asked, mut standing: Standing) -> impl Future<Output = ()> + use<> {
        let (permits, counters) = (Arc::clone(&self.permits), self.counters.clone());
        let (changes, task) = (self.changes.clone(), self.started);
        async move {
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
    }
}
