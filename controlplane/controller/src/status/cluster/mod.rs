//! Statuses on their way to the API server.
//!
//! ```text
//!  what is wanted ──┐
//!  what is observed ┴─► difference ─► pace ─► at most 8 requests at once ─► API server
//!                          ▲                              │ what it answered
//!                          └──────────────────────────────┘
//! ```
//!
//! Only the newest wanted status of an object counts: what waits is the name of an object, never a status, and the
//! `difference` is looked for when its turn comes. So nothing is written that is there already, whoever wrote it,
//! and nothing queues up while the API server is away. Only the leader writes; when it no longer leads, requests
//! under way are given up.

mod difference;
mod due;
mod pace;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::Statuses;
use crate::backoff::Backoff;
use crate::lease::Leads;
use crate::metrics::Metrics;
use crate::object::{Kind, Object, ObjectKey};
use crate::source::cluster::raw::is_as_new;
use crate::source::cluster::{Courtesy, Observed};
use crate::writer::{Work, Writer};
use difference::Wanted;
pub(crate) use difference::is_covered;
use due::Due;
use pace::Pace;
use request::Outcome;

/// Requests under way at once.
const MOST_REQUESTS: usize = 8;
/// The pauses of an object whose status cannot be written.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The objects of which something else is wanted than before, with their status; without one those that are none
    /// of ours any more.
    pub changed: Vec<(ObjectKey, Option<Object>)>,
    /// The classes that Gateways use.
    pub classes_in_use: BTreeSet<String>,
    /// Whether everything that was told before has been judged.
    pub is_fresh: bool,
}

/// What the writer is told.
#[derive(Debug)]
pub enum Message {
    /// This is wanted now.
    Want(Wish),
    /// An object is now so.
    Observed {
        /// Which.
        key: ObjectKey,
        /// What the API server has.
        observed: Observed,
        /// Whether a list said so: it is right even if its resourceVersion is lower.
        listed: bool,
    },
    /// An object is gone.
    Gone(ObjectKey),
    /// What these have is to be compared with what is wanted, whether or not either changed.
    LookAgain(Vec<ObjectKey>),
}

/// What the writer has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Requests that changed something.
    pub writes: u64,
    /// Objects whose status could not be written yet.
    pub failing: usize,
    /// The last reason.
    pub trouble: Option<String>,
}

/// The task that writes statuses.
pub type StatusWriter = Writer<Message, Told>;

impl StatusWriter {
    /// Starts it.
    #[must_use]
    pub fn start(client: &Client, leads: watch::Receiver<Leads>, metrics: Arc<Metrics>) -> Self {
        let client = Courtesy::new("status", &metrics).client(client);
        Self::run(leads, |tell| Desk::new(client, tell, metrics))
    }
}

/// Everything the writer knows.
struct Desk {
    client: Client,
    tell: watch::Sender<Told>,
    leading: bool,
    /// Every object of ours with its status, once that is known.
    wanted: Option<Statuses>,
    classes_in_use: BTreeSet<String>,
    observed: BTreeMap<ObjectKey, Observed>,
    /// Observed since everything was judged.
    unjudged: BTreeSet<ObjectKey>,
    due: Due,
    paces: BTreeMap<ObjectKey, Pace>,
    failing: BTreeMap<ObjectKey, (Backoff, Instant)>,
    busy: BTreeSet<ObjectKey>,
    done: Told,
    metrics: Arc<Metrics>,
}

impl Work for Desk {
    type Message = Message;
    type Done = (ObjectKey, Outcome);

    fn hear(&mut self, message: Message) {
        match message {
            Message::Want(wish) => self.want(wish),
            Message::Observed { key, observed, listed } => {
                self.unjudged.insert(key.clone());
                if listed || self.is_newer(&key, &observed) {
                    self.observed.insert(key.clone(), observed);
                    self.look_at(key);
                }
            }
            Message::Gone(key) => self.forget(&key),
            Message::LookAgain(keys) => {
                let known: Vec<_> =
                    keys.into_iter().filter(|key| self.observed.contains_key(key)).collect();
                known.into_iter().for_each(|key| self.look_at(key));
            }
        }
    }

    /// Whoever begins to lead looks at everything: another wrote until now, or nobody.
    fn lead(&mut self, requests: &mut JoinSet<Self::Done>) -> Option<Instant> {
        if !std::mem::replace(&mut self.leading, true) {
            let keys: Vec<_> = self.observed.keys().cloned().collect();
            keys.into_iter().for_each(|key| self.look_at(key));
        }
        self.send_due(requests);
        self.count_waiting();
        self.due.next().filter(|_| requests.len() < MOST_REQUESTS)
    }

    fn follow(&mut self) {
        self.leading = false;
        self.busy.clear();
        self.count_waiting();
    }

    fn conclude(&mut self, (key, outcome): Self::Done) {
        self.busy.remove(&key);
        let now = Instant::now();
        self.metrics.status_write(key.kind.as_str(), outcome.as_str());
        match outcome {
            Outcome::Written(observed) => {
                debug!(object = %key, "status written");
                self.done.writes += 1;
                self.paces
                    .entry(key.clone())
                    .and_modify(|p| p.step(now))
                    .or_insert(Pace::begin(now));
                self.take_answer(&key, observed);
                self.api_server_answers(&key);
            }
            Outcome::Conflict(observed) => {
                self.take_answer(&key, observed);
                self.fail(&key, None);
            }
            Outcome::Gone => {
                self.forget(&key);
                return;
            }
            Outcome::Failed(reason) => self.fail(&key, Some(reason)),
        }
        self.look_at(key);
        self.publish();
    }
}

impl Desk {
    fn new(client: Client, tell: watch::Sender<Told>, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            tell,
            leading: false,
            wanted: None,
            classes_in_use: BTreeSet::new(),
            observed: BTreeMap::new(),
            unjudged: BTreeSet::new(),
            due: Due::default(),
            paces: BTreeMap::new(),
            failing: BTreeMap::new(),
            busy: BTreeSet::new(),
            done: Told::default(),
            metrics,
        }
    }

    /// Watches lag behind the answers to our own writes.
    fn is_newer(&self, key: &ObjectKey, observed: &Observed) -> bool {
        let Some(known) = self.observed.get(key).filter(|known| known.uid == observed.uid) else {
            return true;
        };
        is_as_new(&observed.resource_version, &known.resource_version)
    }

    fn want(&mut self, wish: Wish) {
        let Wish { changed, classes_in_use, is_fresh } = wish;
        let mut keys = BTreeSet::new();
        let wanted = self.wanted.get_or_insert_default();
        for (key, status) in changed {
            match status {
                Some(status) => _ = wanted.insert(key.clone(), status),
                None => _ = wanted.remove(&key),
            }
            keys.insert(key);
        }
        let classes = self.classes_in_use.symmetric_difference(&classes_in_use);
        keys.extend(classes.map(|name| ObjectKey::cluster(Kind::GatewayClass, name)));
        self.classes_in_use = classes_in_use;
        if is_fresh {
            keys.extend(std::mem::take(&mut self.unjudged));
        }
        keys.into_iter().for_each(|key| self.look_at(key));
    }

    fn forget(&mut self, key: &ObjectKey) {
        self.observed.remove(key);
        self.unjudged.remove(key);
        self.paces.remove(key);
        self.failing.remove(key);
        self.due.remove(key);
        self.publish();
    }

    /// Looks at an object as soon as its pace, or its last failure, allows.
    fn look_at(&mut self, key: ObjectKey) {
        let now = Instant::now();
        let pace = self.paces.get(&key).map_or(now, |pace| pace.next(now));
        let failed = self.failing.get(&key).map_or(now, |(_, until)| *until);
        self.due.put(key, now.max(pace).max(failed));
    }

    fn send_due(&mut self, requests: &mut JoinSet<(ObjectKey, Outcome)>) {
        while requests.len() < MOST_REQUESTS {
            let Some(key) = self.due.pop(Instant::now()) else { return };
            // Of a busy object, the answer is looked at anyway.
            if self.busy.contains(&key) {
                continue;
            }
            let Some(write) = self.difference(&key) else {
                if self.failing.remove(&key).is_some() {
                    self.publish();
                }
                continue;
            };
            self.busy.insert(key.clone());
            let client = self.client.clone();
            requests.spawn(async move {
                let outcome = request::send(client, &key, &write).await;
                (key, outcome)
            });
        }
    }

    fn count_waiting(&self) {
        self.metrics.statuses_waiting.set(i64::try_from(self.due.len()).unwrap_or(i64::MAX));
    }

    fn difference(&self, key: &ObjectKey) -> Option<difference::Write> {
        let wanted = Wanted {
            object: self.wanted.as_ref()?.get(key),
            is_judged: !self.unjudged.contains(key),
            is_in_use: self.classes_in_use.contains(&key.name),
        };
        difference::next(key, wanted, self.observed.get(key)?)
    }

    fn take_answer(&mut self, key: &ObjectKey, observed: Observed) {
        if self.is_newer(key, &observed) {
            self.observed.insert(key.clone(), observed);
        }
    }

    fn fail(&mut self, key: &ObjectKey, reason: Option<String>) {
        let first = || (Backoff::new(FIRST_PAUSE, LONGEST_PAUSE), Instant::now());
        let (backoff, until) = self.failing.entry(key.clone()).or_insert_with(first);
        *until = Instant::now() + backoff.pause();
        if let Some(reason) = reason {
            let reason = format!("{key}: {reason}");
            if self.done.trouble.as_ref() != Some(&reason) {
                warn!(%reason, "status not written: it is tried again");
            }
            self.done.trouble = Some(reason);
        }
    }

    /// A write went well: whoever failed before need not wait any longer.
    fn api_server_answers(&mut self, key: &ObjectKey) {
        self.failing.remove(key);
        let waiting: Vec<_> = self.failing.keys().cloned().collect();
        for key in waiting {
            if let Some((_, until)) = self.failing.get_mut(&key) {
                *until = Instant::now().min(*until);
            }
            self.look_at(key);
        }
    }

    fn publish(&mut self) {
        self.done.failing = self.failing.len();
        let failing = i64::try_from(self.done.failing).unwrap_or(i64::MAX);
        self.metrics.statuses_failing.set(failing);
        if self.failing.is_empty() {
            self.done.trouble = None;
        }
        self.tell.send_if_modified(|told| {
            let changed = *told != self.done;
            told.clone_from(&self.done);
            changed
        });
    }
}
