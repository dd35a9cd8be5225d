//! The control process on a cluster: what its watches saw, and when that is translated.
//!
//! The first change after a rest is translated at once. What follows waits a moment for its like, as long as the
//! last translation took and never less than [`BATCH`]: so a burst is translated in few rounds, and rounds never
//! take more than half of the time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::round::Round;
use super::saving::Saving;
use super::{
    Consumers, Desk, Paths, ServeBoxes, StartError, beat, elsewhere, here, take, take_boxes,
};
use crate::finding::{Finding, Severity};
use crate::infrastructure::{self, Keeper, Wanted};
use crate::lease::{self, Candidate, Identity, Leads};
use crate::metrics::Metrics;
use crate::object::{Kind, NamespacedName, ObjectKey};
use crate::pki::keeper;
use crate::report::ApiServer;
use crate::source::cluster::{self, Happening, MOST_WAITING, Seen};
use crate::status::cluster::{Message, StatusWriter};
use crate::store::mirror::{self, Mirror};

/// What follows a change waits at least this long.
const BATCH: Duration = Duration::from_millis(1);
/// Changed objects are saved this long after the first change.
const SAVE_AFTER: Duration = Duration::from_secs(5);

/// Statuses that wait for the data plane are looked at this often, beside when it speaks.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// The cluster to run on.
pub struct Cluster {
    /// The client of its API server.
    pub client: Client,
    /// Where that is, for people.
    pub url: String,
    /// The namespace of the Lease by which one of several processes writes statuses.
    pub lease_namespace: String,
}

/// Runs until a signal ends it.
pub(super) async fn run(
    paths: &Paths,
    cluster: Cluster,
    mut desk: Desk,
    boxes: Option<ServeBoxes>,
) -> Result<(), StartError> {
    let identity = Identity::open(&paths.state_dir)?;
    let (lead, leads) = watch::channel(Leads::default());
    let (consumers, mut words) = match boxes {
        None => here(paths, &desk.metrics)?,
        Some(boxes) => {
            let keeper = keeper::Keeper::secret(cluster.client.clone(), &cluster.lease_namespace);
            let name = identity.name();
            match elsewhere(paths, &boxes, keeper, leads.clone(), name, &mut desk).await? {
                Some(started) => started,
                None => return Ok(()),
            }
        }
    };
    let Desk { mut terminate, mut interrupt, mut hang_up, metrics } = desk;
    let mut watches = cluster::watch_all(&cluster.client, &metrics);
    let mut work = Work::new(paths, &cluster, &identity, (lead, leads), consumers, &metrics);
    info!(api_server = %cluster.url, identity = identity.name(), "control process started");
    work.begin();
    let mut beat = beat();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {
                info!("SIGHUP: everything is listed anew");
                watches = cluster::watch_all(&cluster.client, &metrics);
            }
            Some(event) = words.dataplane.recv() => {
                take(event, &mut words.dataplane, &mut work.round, Round::hear);
                work.wish();
            }
            Some(event) = words.l7.recv() => {
                take(event, &mut words.l7, &mut work.round, Round::hear_l7);
                work.wish();
            }
            Some(event) = words.fleet.recv() => {
                take_boxes(event, &mut words.fleet, &mut work.round);
                work.wish();
            }
            Some(happening) = watches.happenings.recv() => {
                work.see(happening, &mut watches.happenings);
            }
            Some(observed) = words.observations.recv() => {
                work.round.observe(observed);
                work.is_stale |= work.round.has_translated();
            }
            () = sleep_until(work.next_round), if work.is_stale => work.translate(),
            () = sleep_until(work.wish_again.unwrap_or(work.next_round)), if work.wish_again.is_some() => {
                work.round.conclude();
                work.wish();
            }
            () = work.round.overdue() => {
                work.round.time_passed();
                work.wish();
            }
            _ = beat.tick() => work.beat(),
        }
    }
    work.save_now().await;
    lease::release(cluster.client, &cluster.lease_namespace, identity.name()).await;
    info!("control process ends; the data plane goes on with what it has");
    Ok(())
}

/// Everything between the watches and what we write.
struct Work {
    round: Round,
    metrics: Arc<Metrics>,
    mirror: Mirror,
    writer: StatusWriter,
    keeper: Keeper,
    /// The Services that it was told to keep, by the Gateway, and whether it was told yet.
    kept: BTreeMap<NamespacedName, Wanted>,
    has_kept: bool,
    /// What was told of them.
    keeper_troubles: infrastructure::Troubles,
    leads: watch::Receiver<Leads>,
    _candidate: JoinSet<()>,
    troubles: BTreeMap<Kind, (Severity, String, Instant)>,
    /// Whether they changed since they were told.
    has_news: bool,
    url: String,
    /// Whether an object changed since the last translation.
    is_stale: bool,
    /// When to ask again whether statuses may be told.
    wish_again: Option<Instant>,
    /// The next translation is not before.
    next_round: Instant,
    file: PathBuf,
    /// Since when an object in force is not saved.
    unsaved: Option<Instant>,
    saving: Saving,
}

impl Work {
    fn new(
        paths: &Paths,
        cluster: &Cluster,
        identity: &Identity,
        (lead, leads): (watch::Sender<Leads>, watch::Receiver<Leads>),
        consumers: Consumers,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let candidate =
            Candidate::new(cluster.client.clone(), &cluster.lease_namespace, identity.name());
        let mut tasks = JoinSet::new();
        tasks.spawn(candidate.run(lead));
        let told = ApiServer { url: cluster.url.clone(), ..ApiServer::default() };
        Self {
            round: Round::new(paths, Some(told), consumers, Arc::clone(metrics)),
            metrics: Arc::clone(metrics),
            mirror: Mirror::default(),
            writer: StatusWriter::start(&cluster.client, leads.clone(), Arc::clone(metrics)),
            keeper: Keeper::start(&cluster.client, leads.clone(), Arc::clone(metrics)),
            kept: BTreeMap::new(),
            has_kept: false,
            keeper_troubles: infrastructure::Troubles::default(),
            leads,
            _candidate: tasks,
            troubles: BTreeMap::new(),
            has_news: false,
            url: cluster.url.clone(),
            is_stale: false,
            wish_again: None,
            next_round: Instant::now(),
            file: paths.state_dir.join("cluster.json"),
            unsaved: None,
            saving: Saving::new(SAVE_AFTER),
        }
    }

    /// Serves what was in force when we ran last, until the API server is heard.
    fn begin(&mut self) {
        match mirror::load(&self.file) {
            Ok(in_force) => {
                self.round.changed.extend(in_force.objects.keys());
                self.round.in_force = in_force;
            }
            Err(error) => warn!(%error, "the last good objects are lost"),
        }
        if !self.round.in_force.objects.is_empty() {
            self.round.translate();
        }
        self.conclude();
    }

    /// Takes in everything that waits, then translates, now or in a moment.
    fn see(&mut self, first: Happening, more: &mut Receiver<Happening>) {
        self.metrics.events_waiting.set(i64::try_from(more.len()).unwrap_or(i64::MAX));
        self.take(first);
        for _ in 0..MOST_WAITING {
            let Ok(next) = more.try_recv() else { break };
            self.take(next);
        }
        let complete = self.mirror.is_complete();
        // What is heard for the first time may be empty, and is wanted all the same.
        self.is_stale |= complete && !self.round.has_translated();
        if complete && self.is_stale && self.next_round <= Instant::now() {
            self.translate();
        } else if self.mirror.has_news() | std::mem::take(&mut self.has_news) {
            self.tell_troubles();
        }
    }

    fn take(&mut self, happening: Happening) {
        match &happening {
            Happening::Trouble { kind, severity, reason, lasts } => {
                let until = Instant::now() + *lasts;
                self.troubles.insert(*kind, (*severity, reason.clone(), until));
                self.has_news = true;
            }
            Happening::Seen(seen) => self.is_well(seen.key.kind),
            Happening::Listed(kind) | Happening::Absent(kind) => self.is_well(*kind),
            Happening::Listing(_)
            | Happening::Gone(_)
            | Happening::Bundle(_)
            | Happening::BundleUnknown(_) => {}
        }
        let changed = self.mirror.take(&happening, &mut self.round.in_force);
        self.is_stale |= self.round.know_bundle(self.mirror.bundle_version());
        if !changed.is_empty() {
            self.is_stale = true;
            self.unsaved.get_or_insert_with(Instant::now);
            self.round.changed.extend(changed.iter().cloned());
        }
        if let Happening::Seen(seen) = happening {
            self.tell_seen(*seen);
            return;
        }
        for key in changed {
            if key.kind == Kind::Service {
                let service = NamespacedName::new(&key.namespace, &key.name);
                self.keeper.tell(infrastructure::Message::Gone(service));
            }
            self.writer.tell(Message::Gone(key));
        }
    }

    /// Tells those who write about an object as it is now.
    fn tell_seen(&mut self, seen: Seen) {
        let Seen { key, observed, made, listed, .. } = seen;
        if key.kind == Kind::Service {
            let service = NamespacedName::new(&key.namespace, &key.name);
            self.keeper.tell(match made {
                Some(made) => infrastructure::Message::Seen { service, made, listed },
                None => infrastructure::Message::Gone(service),
            });
        }
        if let Some(observed) = observed {
            self.writer.tell(Message::Observed { key, observed, listed });
        }
    }

    fn is_well(&mut self, kind: Kind) {
        self.has_news |= self.troubles.remove(&kind).is_some();
    }

    fn translate(&mut self) {
        if !self.mirror.is_complete() {
            // After a restart: what is in force is served already, and what is missing may follow.
            self.next_round = Instant::now() + BATCH;
            return;
        }
        let start = Instant::now();
        self.is_stale = false;
        self.round.translate();
        self.keep();
        self.conclude();
        let took = start.elapsed();
        self.next_round = Instant::now() + took.max(BATCH);
    }

    /// Tells which Services Gateways want, where that changed.
    fn keep(&mut self) {
        let mut changed = false;
        for (gateway, wanted) in self.round.infrastructure() {
            changed |= match wanted {
                Some(wanted) => {
                    let before = self.kept.insert(gateway, wanted.clone());
                    before.as_ref() != Some(&wanted)
                }
                None => self.kept.remove(&gateway).is_some(),
            };
        }
        if changed || !std::mem::replace(&mut self.has_kept, true) {
            let all = self.kept.values().cloned().collect();
            self.keeper.tell(infrastructure::Message::Want(all));
        }
    }

    /// Concludes the statuses that changed, and tells of what did.
    fn conclude(&mut self) {
        if self.mirror.has_news() | std::mem::take(&mut self.has_news) {
            self.tell_troubles();
        } else {
            self.round.conclude();
        }
        self.wish();
    }

    fn wish(&mut self) {
        if !self.mirror.is_complete() {
            return;
        }
        self.wish_again = Some(Instant::now() + ASK_AGAIN);
        if let Some(wish) = self.round.wish(!self.is_stale) {
            self.wish_again = None;
            self.writer.tell(Message::Want(wish));
        }
    }

    /// What is wrong with the API server and with objects of it.
    fn tell_troubles(&mut self) {
        let mut by_reason: BTreeMap<(Severity, &str), Vec<&str>> = BTreeMap::new();
        for (kind, (severity, reason, _)) in &self.troubles {
            by_reason.entry((*severity, reason)).or_default().push(kind.as_str());
        }
        let mut findings = self.mirror.findings(&self.round.in_force);
        findings.extend(by_reason.into_iter().map(|((severity, reason), kinds)| Finding {
            file: self.url.clone(),
            place: None,
            severity,
            object: None,
            message: format!(
                "{} cannot be watched: {reason}; what was last good stays in force",
                kinds.join(", ")
            ),
        }));
        self.keeper_troubles = self.keeper.told();
        let of_services = self.keeper_troubles.iter().map(|(gateway, reason)| Finding {
            file: String::new(),
            place: None,
            severity: Severity::Warning,
            object: Some(ObjectKey::of(Kind::Gateway, gateway)),
            message: reason.clone(),
        });
        findings.extend(of_services);
        self.round.source_troubles = findings;
        self.round.unreadable.clone_from(self.mirror.refused_of());
        self.round.note_findings();
        self.round.report_api_server(self.told());
        self.round.conclude();
    }

    fn told(&self) -> ApiServer {
        let written = self.writer.told();
        ApiServer {
            url: self.url.clone(),
            connected: self.troubles.is_empty() && self.mirror.is_complete(),
            leader: self.leads.borrow().now(),
            status_writes: written.writes,
            status_trouble: written.trouble,
        }
    }

    fn beat(&mut self) {
        let now = Instant::now();
        let before = self.troubles.len();
        self.troubles.retain(|_, (.., until)| *until > now);
        let has_news = self.troubles.len() != before
            || !Arc::ptr_eq(&self.keeper_troubles, &self.keeper.told());
        if has_news || self.round.api_server() != Some(&self.told()) {
            self.tell_troubles();
        }
        let due = self.unsaved.is_some_and(|since| since + SAVE_AFTER <= now);
        if self.saving.may_begin() && due {
            self.save();
        }
        self.count();
        let again = self.round.beat();
        self.writer.tell(Message::LookAgain(again));
    }

    fn count(&self) {
        let leads = i64::from(self.leads.borrow().now());
        if self.metrics.lease_held.set(leads) != leads {
            self.metrics.lease_changes.inc();
        }
        let connected = self.round.api_server().is_some_and(|told| told.connected);
        self.metrics.api_server_connected.set(i64::from(connected));
    }

    /// Saves the objects in force.
    fn save(&mut self) {
        self.unsaved = None;
        let objects = self.round.in_force.objects.clone();
        let file = self.file.clone();
        self.saving.begin(move || {
            if let Err(error) = mirror::save(&objects, &file) {
                warn!(%error, "the last good objects are not kept");
            }
        });
    }

    async fn save_now(&mut self) {
        self.saving.finish().await;
        if self.unsaved.is_some() {
            self.save();
            self.saving.finish().await;
        }
    }
}
