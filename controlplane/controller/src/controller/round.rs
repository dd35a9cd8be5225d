//! One round: from what was read, or heard, to what is wanted, and what is written.
//!
//! What a round costs is what changed: the objects that changed, those whose answers did, and the Gateways and
//! ListenerSets that wait for an acknowledgement. Boxes elsewhere are told the whole, beside the loop.

mod boxed;

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use penstock_feed::{Digest, Name, ObjectError, PublishedKind, State};
use penstock_gateway_types::Time;
use penstock_gateway_types::k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::telling::{News, Telling};
use super::{Consumers, Paths};
use crate::boxes::{Fleet, FleetEvent};
use crate::finding::Finding;
use crate::infrastructure::Wanted;
use crate::metrics::{Consumer, Metrics};
use crate::object::{Kind, NamespacedName, Object, ObjectKey};
use crate::observed::Observed;
use crate::observer::Questions;
use crate::publish::{Event, L7Feed};
use crate::report::{ApiServer, Health, MOST_TOLD};
use crate::status::cluster::Wish;
use crate::status::{Ledger, Progress, RefusedState, Statuses};
use crate::store::InForce;
use crate::translate::{Known, Translation, Translator, Update, owner_of, service};

/// How long the data plane may be away before `Programmed` is doubted: longer than a restart takes.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// How long a new process waits for the data plane's word before it writes the first status: what an earlier
/// process wrote is probably still true.
const FIRST_WORD: Duration = Duration::from_secs(2);
/// How long a status may wait for the data plane's word on the state it is about.
const PATIENCE: Duration = Duration::from_millis(200);
/// The same of boxes, which are further away.
const BOXES_PATIENCE: Duration = Duration::from_secs(1);

/// In so many beats every object is looked at again.
const ROUND_OF_REPAIR: usize = 300;

/// Everything between the sources and the files we write.
pub(super) struct Round {
    consumers: Consumers,
    /// The listeners to serve, if somebody else decided: no others.
    pub(super) only: Option<Arc<BTreeSet<String>>>,
    /// What the box found out by itself, and where that is kept.
    observed: Arc<Observed>,
    observed_file: PathBuf,
    /// Whether what came of health checks may be something else than what the report says.
    health_is_news: bool,
    /// The objects in force, as the source has them.
    pub(super) in_force: InForce,
    /// Those that came, changed or went since they were translated.
    pub(super) changed: BTreeSet<ObjectKey>,
    translator: Translator,
    /// What the L7 tier is told of that.
    l7_feed: L7Feed,
    /// Since when the L7 tier is away; `None` also while nobody needs it.
    l7_away_since: Option<Instant>,
    /// Until then the publisher wants nothing: an empty state in ignorance would end every connection.
    translated: bool,
    progress: Progress,
    dataplane: Word,
    l7: Word,
    /// Since when the data plane owes its word on a state.
    unsettled_since: Option<Instant>,
    away_since: Option<Instant>,
    /// Until then no status is written; `None` once the data plane's word is known.
    silent_until: Option<Instant>,
    /// What is wrong with the source itself.
    pub(super) source_troubles: Vec<Finding>,
    /// How many objects the source cannot read, of each kind, whether they are among the troubles or not.
    pub(super) unreadable: BTreeMap<Kind, usize>,
    /// Of which release the installed CRDs are, if objects come from a cluster that says so.
    bundle_version: Option<String>,
    /// Gateways whose Services may be others since that was asked last; none if there is no API server.
    remade: Option<BTreeSet<NamespacedName>>,
    ledger: Ledger,
    /// Objects whose status changed since it was wished for last; none if there is no API server to wish of.
    unwished: Option<BTreeSet<ObjectKey>>,
    telling: Telling,
    /// Objects that are not looked at again yet, and how many are at a time.
    unrepaired: Vec<ObjectKey>,
    repair_step: usize,
    metrics: Arc<Metrics>,
}

/// What one consumer said, beside what [`Progress`] has of it.
#[derive(Default)]
struct Word {
    /// The digest of the state that it acknowledged last.
    acknowledged: Option<Digest>,
    /// Gateways and ListenerSets with listeners that it has not acknowledged as they are wanted.
    waiting: BTreeSet<ObjectKey>,
    /// Whether what it says next may have nothing to do with what it said before.
    is_new: bool,
}

impl Word {
    /// Whoever has these listeners, by their names in the feed, waits for an acknowledgement.
    fn wait_for<'n>(&mut self, listeners: impl Iterator<Item = &'n Name>) {
        let owners = listeners.filter_map(owner_of);
        self.waiting.extend(owners.map(|owner| service::subject(&owner)));
    }
}

/// The time to the second, as the API has it.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// What Gateways had, by their last status.
fn held(statuses: &Statuses) -> BTreeMap<NamespacedName, Vec<IpAddr>> {
    let mut held = BTreeMap::new();
    for object in statuses.values() {
        match object {
            Object::Gateway(gateway) => {
                let said = gateway.status.iter().flat_map(|status| &status.addresses);
                let addresses = said.filter_map(|address| address.value.parse().ok()).collect();
                held.insert(NamespacedName::of(&gateway.metadata), addresses);
            }
            Object::Service(service) => {
                let addresses = service.status.iter().flat_map(service::addresses).collect();
                let stand_in = service::stand_in_of(&NamespacedName::of(&service.metadata));
                held.insert(stand_in, addresses);
            }
            _ => {}
        }
    }
    held
}

impl Round {
    /// Writes as `paths` says. `api_server`: where objects come from, if not from a folder.
    pub(super) fn new(
        paths: &Paths,
        api_server: Option<ApiServer>,
        consumers: Consumers,
        metrics: Arc<Metrics>,
    ) -> Self {
        let unwished = api_server.as_ref().map(|_| BTreeSet::new());
        let remade = api_server.as_ref().map(|_| BTreeSet::new());
        let (mut telling, statuses) = Telling::new(paths, api_server, Arc::clone(&metrics));
        statuses.keys().for_each(|key| telling.note(key, &statuses));
        let observed = Arc::new(super::observed(paths));
        let held = held(&statuses);
        let known = Known { held: Some(&held), observed: Some(&observed), ..Known::default() };
        let translator = Translator::new(known);
        Self {
            consumers,
            only: None,
            observed,
            observed_file: super::observed_file(paths),
            health_is_news: true,
            in_force: InForce::default(),
            changed: BTreeSet::new(),
            translator,
            l7_feed: L7Feed::default(),
            l7_away_since: Some(Instant::now()),
            translated: false,
            progress: Progress::default(),
            dataplane: Word::default(),
            l7: Word::default(),
            unsettled_since: None,
            away_since: Some(Instant::now()),
            silent_until: Some(Instant::now() + FIRST_WORD),
            source_troubles: Vec::new(),
            unreadable: BTreeMap::new(),
            bundle_version: None,
            remade,
            ledger: Ledger::of(statuses),
            unwished,
            telling,
            unrepaired: Vec::new(),
            repair_step: 0,
            metrics,
        }
    }

    fn translation(&self) -> &Translation {
        self.translator.translation()
    }

    /// Whether anything is wanted of the data plane yet.
    pub(super) fn has_translated(&self) -> bool {
        self.translated
    }

    /// Whether what an earlier process wrote is probably still true.
    fn is_silent(&self) -> bool {
        match &self.consumers {
            Consumers::Here(_) => self.silent_until.is_some(),
            Consumers::Boxes(fleet) => fleet.is_gathering(),
        }
    }

    /// Puts `in_force` in force in the place of all that was. Costs a look at every object.
    pub(super) fn replace(&mut self, in_force: InForce) {
        self.changed.extend(self.in_force.objects.differing(&in_force.objects));
        self.in_force = in_force;
    }

    /// Wants what the objects in force mean.
    pub(super) fn translate(&mut self) {
        let is_first = !std::mem::replace(&mut self.translated, true);
        let changed = take(&mut self.changed);
        let update = self.update(&changed);
        self.want(update, changed, is_first);
    }

    /// What the objects that changed mean now.
    fn update(&mut self, changed: &BTreeSet<ObjectKey>) -> Update {
        let start = Instant::now();
        self.translator.serve_only(self.only.clone());
        let update = self.translator.update(&self.in_force.objects, changed);
        self.metrics.translation_seconds.observe(start.elapsed().as_secs_f64());
        update
    }

    /// Wants what was updated, and takes note of what is to be concluded of it.
    fn want(&mut self, update: Update, changed: BTreeSet<ObjectKey>, is_first: bool) {
        let Update { answers, touched, l7_places, infrastructure, has_notes, has_questions } =
            update;
        self.health_is_news |= has_questions;
        if has_notes {
            self.telling.note_findings();
        }
        if let Some(remade) = &mut self.remade {
            let gateways = changed.iter().filter(|key| key.kind == Kind::Gateway);
            remade.extend(gateways.map(ObjectKey::namespaced).chain(infrastructure));
        }
        if is_first || !touched.is_empty() {
            let (objects, answers) = (self.in_force.origins.len(), answers.len());
            let listeners = self.translation().state.listeners.size();
            info!(objects, listeners, answers, "translated");
        }
        self.ledger.note(answers.iter().map(service::subject));
        self.ledger.note(changed);
        let translation = self.translator.translation();
        match &mut self.consumers {
            Consumers::Here(publishers) => {
                let places = l7_places.iter().filter_map(|place| translation.l7.places.get(place));
                let on_vips = places.flat_map(|listeners| listeners.keys());
                self.dataplane.wait_for(touched.listeners.iter().chain(on_vips));
                if is_first || !touched.is_empty() {
                    publishers.dataplane.want(Arc::clone(&translation.state), touched);
                }
                let touched = self.l7_feed.update(&translation.l7, &l7_places);
                self.l7.wait_for(touched.l7_listeners.iter());
                if is_first || !touched.is_empty() {
                    publishers.l7.want(Arc::clone(self.l7_feed.state()), touched);
                }
                if is_first || has_questions {
                    publishers.observer.want(Questions::of(translation));
                }
            }
            Consumers::Boxes(fleet) => fleet.want(&self.in_force.objects, translation),
        }
        self.count();
    }

    /// Takes in what the box found out by itself; it counts from the next translation on.
    pub(super) fn observe(&mut self, observed: Arc<Observed>) {
        if let Err(error) = observed.save(&self.observed_file) {
            warn!(%error, "who is not well, and what names come to, is not kept");
        }
        self.translator.observe(&observed);
        self.observed = observed;
        self.health_is_news = true;
    }

    /// The same, and wants at once what it means, if anything was wanted before.
    pub(super) fn observe_at_once(&mut self, observed: Arc<Observed>) {
        self.observe(observed);
        if self.translated {
            self.translate();
            self.conclude();
        }
    }

    /// Counts who owes his word on what is wanted.
    fn count(&self) {
        match &self.consumers {
            Consumers::Here(_) => {
                self.metrics.owes(Consumer::DataPlane, !self.is_forwarded());
                self.metrics.owes(Consumer::L7, !self.is_read());
            }
            Consumers::Boxes(_) => self.metrics.told_elsewhere(),
        }
    }

    /// Whether the data plane acknowledged what we want.
    fn is_forwarded(&self) -> bool {
        let known = self.progress.acknowledged.as_ref();
        known.is_some_and(|known| Arc::ptr_eq(known, &self.translation().state))
    }

    /// Whether the L7 tier acknowledged what we want, or nothing is wanted of it.
    fn is_read(&self) -> bool {
        self.l7.waiting.is_empty() || self.translation().l7.is_empty()
    }

    /// Whether the L7 tier owes no word.
    fn l7_is_settled(&self) -> bool {
        self.l7_away_since.is_some() || self.is_read()
    }

    /// Whether the data plane owes no word on what we want, or owes it for too long.
    fn is_settled(&self) -> bool {
        if let Consumers::Boxes(fleet) = &self.consumers {
            let since = self.unsettled_since;
            return fleet.is_settled() || since.is_some_and(|it| it.elapsed() > BOXES_PATIENCE);
        }
        let forwarded =
            self.progress.refused.is_some() || self.away_since.is_some() || self.is_forwarded();
        (forwarded && self.l7_is_settled())
            || self.unsettled_since.is_some_and(|since| since.elapsed() > PATIENCE)
    }

    /// What changed of the statuses since they were wished for last, and the classes that Gateways use, once the data
    /// plane's word on them is known: one write says what took effect, not one that it may and one that it did.
    /// `is_fresh`: whether everything that was seen has been translated.
    pub(super) fn wish(&mut self, is_fresh: bool) -> Option<Wish> {
        if self.is_silent() || !self.is_settled() {
            self.unsettled_since.get_or_insert_with(Instant::now);
            return None;
        }
        self.unsettled_since = None;
        let keys = self.unwished.as_mut().map(take).unwrap_or_default();
        let status = |key: ObjectKey| {
            let status = self.ledger.statuses().get(&key).cloned();
            (key, status)
        };
        let changed = keys.into_iter().map(status).collect();
        let classes_in_use = self.translator.classes_in_use().map(str::to_owned).collect();
        Some(Wish { changed, classes_in_use, is_fresh })
    }

    /// Takes in of which release the installed CRDs are. Returns whether that is news.
    pub(super) fn know_bundle(&mut self, version: Option<&str>) -> bool {
        let is_news = self.bundle_version.as_deref() != version;
        if is_news {
            self.bundle_version = version.map(str::to_owned);
            self.translator.know_bundle(version);
            let classes = self.in_force.objects.gateway_classes.keys();
            let classes = classes.map(|name| ObjectKey::cluster(Kind::GatewayClass, name));
            self.changed.extend(classes);
        }
        is_news
    }

    /// The Services that Gateways want that may want others than when this was asked last.
    pub(super) fn infrastructure(&mut self) -> Vec<(NamespacedName, Option<Wanted>)> {
        let mut remade = self.remade.as_mut().map(take).unwrap_or_default();
        remade.retain(|name| !service::is_stand_in(&name.name)); // a Service of our class is there already
        let wanted = |name: &NamespacedName| {
            let infrastructure = self.translation().infrastructure.get(name)?;
            let gateway = self.in_force.objects.gateways.get(name)?;
            let uid = gateway.metadata.uid.as_deref().unwrap_or_default();
            let class = gateway.spec.gateway_class_name.as_str();
            Some(Wanted::from((name, uid, class, infrastructure)))
        };
        let wanted = |name| {
            let wanted = wanted(&name);
            (name, wanted)
        };
        remade.into_iter().map(wanted).collect()
    }

    /// What was told of the API server.
    pub(super) fn api_server(&self) -> Option<&ApiServer> {
        self.telling.report.api_server.as_ref()
    }

    /// What is told of the API server.
    pub(super) fn report_api_server(&mut self, api_server: ApiServer) {
        self.telling.report.api_server = Some(api_server);
    }

    /// Takes in that what is wrong with the source, or with files, may be something else now.
    pub(super) fn note_findings(&mut self) {
        self.telling.note_findings();
    }

    /// Takes in what happened on the way to the data plane.
    pub(super) fn hear(&mut self, event: Event) {
        // After these it is known whether what an earlier process wrote still holds.
        let same = event.is_about_what_it_holds();
        self.silent_until = self.silent_until.filter(|_| same);
        let report = &mut self.telling.report;
        match event {
            Event::Connected { generation, digest, epoch } => {
                info!(generation, %digest, epoch, "data plane connected");
                (report.connected, report.trouble) = (true, None);
                self.metrics.connected(Consumer::DataPlane, true);
                self.away_since = None;
                self.dataplane.is_new = true;
                self.ledger.note_all(take(&mut self.progress.lost));
            }
            Event::Disconnected { reason } => {
                warn!(%reason, "data plane not connected");
                (report.connected, report.trouble) = (false, Some(reason));
                self.metrics.connected(Consumer::DataPlane, false);
                self.away_since.get_or_insert_with(Instant::now);
            }
            Event::Published { generation, digest, kind, records, state } => {
                *report.publishes.entry(kind_name(kind)).or_default() += 1;
                self.metrics.published(Consumer::DataPlane, generation, kind_name(kind));
                (report.generation, report.digest) = (generation, digest.to_string());
                self.ledger.note_all(self.progress.refused.take().is_some());
                match kind {
                    PublishedKind::Nothing => debug!(generation, %digest, "nothing to publish"),
                    _ => info!(generation, %digest, ?kind, records, "published"),
                }
                if self.dataplane.acknowledged == Some(digest) {
                    let errors = self.progress.errors.clone(); // it has nothing to add
                    self.acknowledged(state, errors);
                }
            }
            Event::Refused { reason, errors } => {
                error!(%reason, objects = errors.len(), "the data plane did not take the state");
                report.trouble = Some(reason.clone());
                let refused = Some(RefusedState { reason, errors });
                self.ledger.note_all(self.progress.refused != refused);
                self.progress.refused = refused;
            }
            Event::Acknowledged { generation, digest, state, errors } => {
                info!(generation, refused = errors.len(), "acknowledged");
                (report.acknowledged, report.trouble) = (generation, None);
                self.dataplane.acknowledged = Some(digest);
                self.ledger.note_all(take(&mut self.progress.lost));
                self.ledger.note_all(self.progress.refused.take().is_some());
                self.metrics.acknowledged(Consumer::DataPlane, generation);
                self.acknowledged(state, errors);
            }
        }
    }

    /// Every worker forwards by `state`.
    fn acknowledged(&mut self, state: Arc<State>, errors: Vec<ObjectError>) {
        let is_first = self.progress.acknowledged.is_none() || take(&mut self.dataplane.is_new);
        self.ledger.note_all(is_first || self.progress.errors != errors);
        self.ledger.note(self.dataplane.waiting.iter().cloned());
        if Arc::ptr_eq(&state, &self.translation().state) {
            self.dataplane.waiting.clear();
        }
        self.progress.acknowledged = Some(state);
        self.progress.errors = errors;
        self.metrics.owes(Consumer::DataPlane, !self.is_forwarded());
    }

    /// Takes in what happened on the way to the L7 tier. A box may have none: then nobody is alarmed unless a
    /// listener needs it.
    pub(super) fn hear_l7(&mut self, event: Event) {
        let is_needed = !self.translation().l7.is_empty();
        let report = &mut self.telling.report.l7;
        match event {
            Event::Connected { generation, digest, epoch } => {
                info!(generation, %digest, epoch, "L7 tier connected");
                (report.connected, report.trouble) = (true, None);
                self.metrics.connected(Consumer::L7, true);
                self.l7_away_since = None;
                self.l7.is_new = true;
                self.ledger.note_all(take(&mut self.progress.l7_lost));
            }
            Event::Disconnected { reason } => {
                if is_needed {
                    warn!(%reason, "L7 tier not connected");
                } else {
                    debug!(%reason, "L7 tier not connected, and nothing needs it");
                }
                (report.connected, report.trouble) = (false, Some(reason));
                self.metrics.connected(Consumer::L7, false);
                self.l7_away_since.get_or_insert_with(Instant::now);
            }
            Event::Published { generation, digest, kind, records, state } => {
                report.generation = generation;
                self.metrics.published(Consumer::L7, generation, kind_name(kind));
                if kind != PublishedKind::Nothing {
                    info!(generation, ?kind, records, "published to the L7 tier");
                }
                if self.l7.acknowledged == Some(digest) {
                    let errors = self.progress.l7_errors.clone();
                    self.acknowledged_by_l7(&state, errors);
                }
            }
            Event::Refused { reason, errors } => {
                error!(%reason, objects = errors.len(), "the L7 tier did not take the state");
                report.trouble = Some(reason);
            }
            Event::Acknowledged { generation, digest, state, errors } => {
                info!(generation, refused = errors.len(), "acknowledged by the L7 tier");
                (report.acknowledged, report.trouble) = (generation, None);
                self.l7.acknowledged = Some(digest);
                self.metrics.acknowledged(Consumer::L7, generation);
                self.acknowledged_by_l7(&state, errors);
            }
        }
    }

    fn acknowledged_by_l7(&mut self, state: &Arc<State>, errors: Vec<ObjectError>) {
        if !Arc::ptr_eq(state, self.l7_feed.state()) {
            return; // it is overtaken by the one to come
        }
        let is_first = self.progress.l7.is_none() || take(&mut self.l7.is_new);
        self.ledger.note_all(is_first || self.progress.l7_errors != errors);
        self.ledger.note(take(&mut self.l7.waiting));
        self.progress.l7 = Some(Arc::clone(&self.translation().l7));
        self.progress.l7_errors = errors;
        self.metrics.owes(Consumer::L7, !self.is_read());
    }

    /// Waits until time itself changes a status, or what waits is to be written; for ever if there is neither.
    pub(super) async fn overdue(&self) {
        let lost = self.away_since.filter(|_| !self.progress.lost).map(|since| since + LOST_AFTER);
        let l7_away = self.l7_away_since.filter(|_| !self.progress.l7_lost);
        let l7_lost = l7_away.map(|since| since + LOST_AFTER);
        let boxes = match &self.consumers {
            Consumers::Here(_) => None,
            Consumers::Boxes(fleet) => fleet.overdue(),
        };
        let all = [lost, l7_lost, self.silent_until, boxes, self.telling.due()];
        match all.into_iter().flatten().min() {
            Some(when) => tokio::time::sleep_until(when).await,
            None => std::future::pending().await,
        }
    }

    /// Does what [`Self::overdue`] waited for.
    pub(super) fn time_passed(&mut self) {
        let now = Instant::now();
        let passed = |since: Option<Instant>| since.is_some_and(|since| since + LOST_AFTER <= now);
        let lost = self.progress.lost || passed(self.away_since);
        let l7_lost = self.progress.l7_lost || passed(self.l7_away_since);
        self.ledger.note_all((lost, l7_lost) != (self.progress.lost, self.progress.l7_lost));
        (self.progress.lost, self.progress.l7_lost) = (lost, l7_lost);
        self.silent_until = self.silent_until.filter(|until| *until > now);
        self.conclude();
    }

    /// Shows that we are alive, to whoever looks at the report, and what was counted since. Returns the objects that
    /// were looked at again.
    pub(super) fn beat(&mut self) -> Vec<ObjectKey> {
        if let Consumers::Boxes(fleet) = &mut self.consumers {
            fleet.beat();
            self.tell_of_boxes();
            self.tell_report();
        }
        self.telling.beat();
        self.count_objects();
        self.metrics.beat();
        self.tell_health();
        self.repair()
    }

    /// Tells what came of health checks. O(backends that are asked).
    fn tell_health(&mut self) {
        let health = self.health();
        self.metrics.backends(health.backends, health.unhealthy);
        self.telling.report.health = health;
        self.health_is_news = false;
    }

    fn health(&self) -> Health {
        let checkups = &self.translation().checkups;
        let counters = &self.metrics.checks;
        let unhealthy = checkups.asked().filter(|asked| self.observed.unhealthy.contains(*asked));
        let open = checkups.iter().filter(|check| check.fail_open).map(ToString::to_string);
        let open: BTreeSet<_> = open.collect();
        let told = unhealthy.clone().take(MOST_TOLD);
        let told = told.map(|asked| format!("{} ({})", asked.backend, asked.check));
        Health {
            backends: checkups.asked().len(),
            unhealthy: unhealthy.count(),
            fail_open: open.into_iter().collect(),
            down: told.collect(),
            answers: counters.answers.get(),
            bad_answers: counters.bad_answers.get(),
            changes: counters.changes.get(),
        }
    }

    /// Writes the report, if it changed.
    pub(super) fn tell_report(&mut self) {
        self.telling.write_report();
    }

    /// Counts what is in force, of each kind: those that someone wrote. O(objects), once a second.
    fn count_objects(&self) {
        let mut numbers: BTreeMap<Kind, usize> = Kind::ALL.map(|kind| (kind, 0)).into();
        for key in self.in_force.origins.keys() {
            *numbers.entry(key.kind).or_default() += 1;
        }
        for (kind, number) in numbers {
            self.metrics.objects(kind.as_str(), number);
        }
    }

    /// Takes some objects as if they had changed, in turn, so that all were after [`ROUND_OF_REPAIR`]: whatever was
    /// missed is found then. Returns them.
    fn repair(&mut self) -> Vec<ObjectKey> {
        if !self.translated || !self.changed.is_empty() {
            return Vec::new();
        }
        if self.unrepaired.is_empty() {
            self.unrepaired = self.in_force.objects.keys().collect();
            self.repair_step = self.unrepaired.len() / ROUND_OF_REPAIR + 1;
        }
        let rest = self.unrepaired.len().saturating_sub(self.repair_step);
        let some = self.unrepaired.split_off(rest);
        let keys = some.iter().cloned().collect();
        let update = self.update(&keys);
        if update != Update::default() {
            warn!("what the objects mean was not what was kept of it: repaired");
            self.want(update, keys, false);
        } else {
            self.ledger.note(keys);
        }
        self.conclude();
        some
    }

    /// Concludes the statuses that may have changed, and tells of what did.
    pub(super) fn conclude(&mut self) {
        self.look_at_boxes();
        let speaks = !self.is_silent();
        if speaks {
            self.conclude_statuses();
        }
        if self.health_is_news {
            self.tell_health();
        }
        let news = News {
            source_troubles: &self.source_troubles,
            unreadable: &self.unreadable,
            in_force: &self.in_force,
            statuses: self.ledger.statuses(),
            notes: &self.translator.translation().notes,
        };
        self.telling.tell(news, speaks);
    }

    fn conclude_statuses(&mut self) {
        let (objects, translation) = (&self.in_force.objects, self.translator.translation());
        for key in self.ledger.conclude(objects, translation, &self.progress, &now()) {
            self.telling.note(&key, self.ledger.statuses());
            if let Some(unwished) = &mut self.unwished {
                unwished.insert(key);
            }
        }
    }
}

/// By how much a consumer was told something.
fn kind_name(kind: PublishedKind) -> &'static str {
    match kind {
        PublishedKind::Nothing => "nothing",
        PublishedKind::Delta => "delta",
        PublishedKind::Snapshot => "snapshot",
    }
}
