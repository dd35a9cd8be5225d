//! The Services that stand for Gateways in a cluster: made, kept as wanted, and removed.
//!
//! A Gateway needs none to be served; others find by it what belongs to a Gateway (`service` says what it is).
//! Only the leader writes. A Service is applied when a field of ours differs, so fields that others gave it stay; it
//! has its Gateway as owner, so that it goes with it, and is removed by us when the Gateway stays and is not ours any
//! more. A Service that someone else made under the name is left alone, and told of.

mod request;
mod service;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::agenda::Agenda;
use crate::backoff::Backoff;
use crate::lease::Leads;
use crate::metrics::Metrics;
use crate::object::NamespacedName;
use crate::source::cluster::Courtesy;
use crate::source::cluster::raw::{Made, is_as_new};
use crate::writer::{Work, Writer};
use request::Outcome;
pub use service::Wanted;

/// Requests under way at once.
const MOST_REQUESTS: usize = 4;
/// The pauses of a Service that cannot be written, or that someone else keeps changing.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Who has rested for so long is written at once.
const REST: Duration = Duration::from_secs(60);

/// What the keeper is told.
#[derive(Debug)]
pub enum Message {
    /// These are wanted, in place of all before.
    Want(Vec<Wanted>),
    /// A Service of ours is so.
    Seen {
        /// Its name.
        service: NamespacedName,
        /// What it is.
        made: Made,
        /// Whether a list said so: it is right even if its resourceVersion is lower.
        listed: bool,
    },
    /// A Service is gone, or not ours.
    Gone(NamespacedName),
}

/// What is wrong, by the Gateway whose Service it is.
pub type Troubles = Arc<BTreeMap<NamespacedName, String>>;

/// The task that keeps the Services.
pub type Keeper = Writer<Message, Troubles>;

impl Keeper {
    /// Starts it.
    #[must_use]
    pub fn start(client: &Client, leads: watch::Receiver<Leads>, metrics: Arc<Metrics>) -> Self {
        let client = Courtesy::new("Service", &metrics).client(client);
        Self::run(leads, |tell| Desk::new(client, tell, metrics))
    }
}

/// Everything the keeper knows.
struct Desk {
    client: Client,
    tell: watch::Sender<Troubles>,
    leading: bool,
    wanted: BTreeMap<NamespacedName, Wanted>,
    /// Until then nothing is known to be unwanted.
    was_told: bool,
    made: BTreeMap<NamespacedName, Made>,
    due: Agenda<NamespacedName>,
    /// Of what was written, or could not be: how long it rests.
    pauses: BTreeMap<NamespacedName, (Backoff, Instant)>,
    /// Names under which someone else's Service is, and what failed last.
    troubles: BTreeMap<NamespacedName, String>,
    /// Services with a request under way, and whether they were seen to go meanwhile.
    busy: BTreeMap<NamespacedName, bool>,
    metrics: Arc<Metrics>,
}

impl Work for Desk {
    type Message = Message;
    type Done = (NamespacedName, Outcome);

    fn hear(&mut self, message: Message) {
        match message {
            Message::Want(wanted) => self.want(wanted),
            Message::Seen { service, made, listed } => {
                if listed || self.is_newer(&service, &made) {
                    self.made.insert(service.clone(), made);
                    self.look_at(service);
                }
            }
            Message::Gone(service) => {
                let was_ours = self.made.remove(&service).is_some();
                if let Some(gone) = self.busy.get_mut(&service) {
                    *gone = true;
                }
                if was_ours || self.wanted.contains_key(&service) {
                    self.look_at(service);
                }
            }
        }
    }

    /// Whoever begins to lead looks at everything. Until it is known what is wanted, nothing is.
    fn lead(&mut self, requests: &mut JoinSet<Self::Done>) -> Option<Instant> {
        if !self.was_told {
            return None;
        }
        if !std::mem::replace(&mut self.leading, true) {
            let all: Vec<_> = self.wanted.keys().chain(self.made.keys()).cloned().collect();
            all.into_iter().for_each(|name| self.look_at(name));
        }
        self.send_due(requests);
        self.due.next().filter(|_| requests.len() < MOST_REQUESTS)
    }

    fn follow(&mut self) {
        self.leading = false;
        self.busy.clear();
    }

    fn conclude(&mut self, (service, outcome): Self::Done) {
        self.metrics.service_write(outcome.as_str());
        let is_overtaken = self.busy.remove(&service).unwrap_or_default();
        match outcome {
            Outcome::Written(_) | Outcome::Found(_) if is_overtaken => self.rest(&service),
            Outcome::Written(made) => {
                info!(%service, "the Service of a Gateway is written");
                self.made.insert(service.clone(), made);
                self.rest(&service);
                self.is_well(&service);
            }
            Outcome::Found(made) => {
                self.made.insert(service.clone(), made);
            }
            Outcome::Removed => {
                info!(%service, "the Service of a Gateway that is gone, or not ours any more, is removed");
                self.made.remove(&service);
                self.pauses.remove(&service);
                self.is_well(&service);
            }
            Outcome::Failed(reason) => {
                self.rest(&service);
                self.is_wrong(&service, reason);
            }
        }
        self.look_at(service);
    }
}

impl Desk {
    fn new(client: Client, tell: watch::Sender<Troubles>, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            tell,
            leading: false,
            wanted: BTreeMap::new(),
            was_told: false,
            made: BTreeMap::new(),
            due: Agenda::default(),
            pauses: BTreeMap::new(),
            troubles: BTreeMap::new(),
            busy: BTreeMap::new(),
            metrics,
        }
    }

    /// Watches lag behind the answers to our own requests.
    fn is_newer(&self, service: &NamespacedName, made: &Made) -> bool {
        let known = self.made.get(service).filter(|known| known.uid == made.uid);
        known.is_none_or(|known| is_as_new(&made.resource_version, &known.resource_version))
    }

    fn want(&mut self, all: Vec<Wanted>) {
        self.was_told = true;
        let mut wanted: BTreeMap<NamespacedName, Wanted> = BTreeMap::new();
        for one in all {
            let namespace = one.gateway.namespace.clone();
            let of = |name: &str| NamespacedName::new(&namespace, name);
            let is_taken = |name: &str| wanted.contains_key(&of(name));
            let name = service::name(&one.gateway.name, &one.class, is_taken);
            wanted.insert(of(&name), one);
        }
        let before = std::mem::replace(&mut self.wanted, wanted);
        let changed = self.wanted.iter().filter(|(name, one)| before.get(*name) != Some(*one));
        let gone = before.keys().filter(|name| !self.wanted.contains_key(*name));
        let names: Vec<_> = changed.map(|(name, _)| name).chain(gone).cloned().collect();
        names.into_iter().for_each(|name| self.look_at(name));
    }

    fn send_due(&mut self, requests: &mut JoinSet<(NamespacedName, Outcome)>) {
        while requests.len() < MOST_REQUESTS {
            let Some(service) = self.due.pop(Instant::now()) else { return };
            if self.busy.contains_key(&service) {
                continue; // its answer is looked at anyway
            }
            let (wanted, made) = (self.wanted.get(&service), self.made.get(&service));
            let step = service::next(&service, wanted, made);
            if step == service::Step::Nothing {
                self.is_well(&service);
                continue;
            }
            self.busy.insert(service.clone(), false);
            let client = self.client.clone();
            requests.spawn(async move {
                let outcome = request::send(client, &service, &step).await;
                (service, outcome)
            });
        }
    }

    fn look_at(&mut self, service: NamespacedName) {
        let now = Instant::now();
        let rested = self.pauses.get(&service).map_or(now, |(_, until)| *until);
        self.due.put(service, now.max(rested));
    }

    /// The next request for it is not at once.
    fn rest(&mut self, service: &NamespacedName) {
        let now = Instant::now();
        let first = || (Backoff::new(FIRST_PAUSE, LONGEST_PAUSE), now);
        let (backoff, until) = self.pauses.entry(service.clone()).or_insert_with(first);
        if now.duration_since(*until) > REST {
            backoff.reset();
        }
        *until = now + backoff.pause();
    }

    fn is_well(&mut self, service: &NamespacedName) {
        if self.troubles.remove(service).is_some() {
            self.publish();
        }
        if !self.wanted.contains_key(service) && !self.made.contains_key(service) {
            self.pauses.remove(service);
        }
    }

    fn is_wrong(&mut self, service: &NamespacedName, reason: String) {
        if self.troubles.get(service) != Some(&reason) {
            warn!(%service, %reason, "the Service of a Gateway is not as it should be: it is tried again");
            self.troubles.insert(service.clone(), reason);
            self.publish();
        }
    }

    fn publish(&self) {
        let of = |(service, reason): (&NamespacedName, &String)| {
            let gateway = self.wanted.get(service).map(|wanted| &wanted.gateway);
            (gateway.unwrap_or(service).clone(), format!("Service {}: {reason}", service.name))
        };
        self.tell.send_replace(Arc::new(self.troubles.iter().map(of).collect()));
    }
}
