//! One round: from what was read, or heard, to what is wanted, and what is written.

mod boxed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use penstock_feed::{PublishedKind, State};
use penstock_gateway_types::Time;
use penstock_gateway_types::k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::{Consumers, Paths};
use crate::boxes::{Fleet, FleetEvent};
use crate::finding::{Finding, Severity};
use crate::infrastructure::Wanted;
use crate::metrics::{Consumer, Metrics};
use crate::object::{Kind, NamespacedName, Object, ObjectKey};
use crate::publish::{Event, l7_state};
use crate::report::{ApiServer, L7Tier, MOST_TOLD, Report, ReportFile};
use crate::status::files::StatusFiles;
use crate::status::{self, Progress, RefusedState, Stamp, Statuses};
use crate::store::InForce;
use crate::translate::{Known, Translation, service, translate_with};

/// How long the data plane may be away before `Programmed` is doubted: longer than a restart takes.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// How long a new process waits for the data plane's word before it writes the first status: what an earlier
/// process wrote is probably still true.
const FIRST_WORD: Duration = Duration::from_secs(2);
/// New findings that are logged one by one in a round; the rest is counted.
const MOST_LOGGED: usize = 20;
/// How long a status may wait for the data plane's word on the state it is about.
const PATIENCE: Duration = Duration::from_millis(200);
/// The same of boxes, which are further away.
const BOXES_PATIENCE: Duration = Duration::from_secs(1);

/// Everything between the sources and the files we write.
pub(super) struct Round {
    consumers: Consumers,
    /// The listeners to serve, if somebody else decided: no others.
    pub(super) only: Option<Arc<BTreeSet<String>>>,
    /// The objects in force, as the source has them.
    pub(super) in_force: InForce,
    translation: Translation,
    /// What the L7 tier is told of that, and whether it was.
    l7_wanted: Arc<State>,
    l7_told: bool,
    /// Since when the L7 tier is away; `None` also while nobody needs it.
    l7_away_since: Option<Instant>,
    /// What each Gateway has: it stays its own.
    held: BTreeMap<NamespacedName, Vec<IpAddr>>,
    /// Of which release the installed CRDs are, if objects come from a cluster that says so.
    bundle_version: Option<String>,
    /// Until then the publisher wants nothing: an empty state in ignorance would end every connection.
    translated: bool,
    progress: Progress,
    /// Since when the data plane owes its word on a state.
    unsettled_since: Option<Instant>,
    away_since: Option<Instant>,
    /// Until then no status is written; `None` once the data plane's word is known.
    silent_until: Option<Instant>,
    /// What is wrong with the source itself.
    pub(super) source_troubles: Vec<Finding>,
    /// How many objects the source cannot read, of each kind, whether they are among the troubles or not.
    pub(super) unreadable: BTreeMap<Kind, usize>,
    /// How many of them were not told one by one, when that was said last.
    untold: usize,
    /// Everything that is refused or doubtful, as it was last said.
    findings: Vec<Finding>,
    statuses: Arc<Statuses>,
    status_files: StatusFiles,
    report: Report,
    report_file: ReportFile,
    metrics: Arc<Metrics>,
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

/// By how much a consumer was told something.
fn kind_name(kind: PublishedKind) -> &'static str {
    match kind {
        PublishedKind::Nothing => "nothing",
        PublishedKind::Delta => "delta",
        PublishedKind::Snapshot => "snapshot",
    }
}

impl Round {
    /// Writes as `paths` says. `api_server`: where objects come from, if not from a folder.
    pub(super) fn new(
        paths: &Paths,
        api_server: Option<ApiServer>,
        consumers: Consumers,
        metrics: Arc<Metrics>,
    ) -> Self {
        let report = Report {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
            started: now(),
            config_dir: match &api_server {
                Some(_) => std::path::PathBuf::new(),
                None => paths.config_dir.clone(),
            },
            api_server,
            generation: 0,
            acknowledged: 0,
            digest: String::new(),
            connected: false,
            trouble: None,
            l7: L7Tier::default(),
            boxes: None,
            agent: None,
            objects: 0,
            errors: 0,
            warnings: 0,
            refused: Vec::new(),
            publishes: BTreeMap::from([("delta", 0), ("nothing", 0), ("snapshot", 0)]),
        };
        let status_files = StatusFiles::open(&paths.run_dir);
        let statuses = status_files.statuses();
        Self {
            consumers,
            only: None,
            in_force: InForce::default(),
            translation: Translation::default(),
            l7_wanted: Arc::default(),
            l7_told: false,
            l7_away_since: Some(Instant::now()),
            bundle_version: None,
            translated: false,
            progress: Progress::default(),
            unsettled_since: None,
            away_since: Some(Instant::now()),
            silent_until: Some(Instant::now() + FIRST_WORD),
            source_troubles: Vec::new(),
            unreadable: BTreeMap::new(),
            untold: 0,
            findings: Vec::new(),
            held: held(&statuses),
            statuses: Arc::new(statuses),
            status_files,
            report,
            report_file: ReportFile::open(&paths.run_dir),
            metrics,
        }
    }

    /// Whether what an earlier process wrote is probably still true.
    fn is_silent(&self) -> bool {
        match &self.consumers {
            Consumers::Here(_) => self.silent_until.is_some(),
            Consumers::Boxes(fleet) => fleet.is_gathering(),
        }
    }

    /// Whether anything is wanted of the data plane yet.
    pub(super) fn has_translated(&self) -> bool {
        self.translated
    }

    /// Wants what the objects in force mean.
    pub(super) fn translate(&mut self) {
        self.translated = true;
        let start = Instant::now();
        let bundle_version = self.bundle_version.as_deref();
        let known = Known { held: Some(&self.held), bundle_version, most: None };
        self.translation = translate_with(&self.in_force.objects, known);
        self.held.clone_from(&self.translation.addresses);
        let (objects, listeners) =
            (self.in_force.objects.len(), self.translation.state.listeners.size());
        info!(objects, listeners, "translated");
        self.metrics.translation_seconds.observe(start.elapsed().as_secs_f64());
        if let Some(only) = &self.only {
            boxed::restrict(&mut self.translation, only);
        }
        match &mut self.consumers {
            Consumers::Here(publishers) => {
                publishers.dataplane.want(Arc::clone(&self.translation.state));
                self.want_l7();
            }
            Consumers::Boxes(fleet) => fleet.want(&self.in_force.objects, &self.translation),
        }
        self.count();
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
        let wanted = &self.translation.state;
        let known = self.progress.acknowledged.as_ref();
        known.is_some_and(|known| Arc::ptr_eq(known, wanted) || known == wanted)
    }

    /// Whether the L7 tier acknowledged what we want, or nothing is wanted of it.
    fn is_read(&self) -> bool {
        let read = self.progress.l7.as_ref().is_some_and(|read| **read == *self.translation.l7);
        read || self.translation.l7.is_empty()
    }

    /// Wants of the L7 tier what is new; its certificates are looked at if something may be.
    fn want_l7(&mut self) {
        let wanted = l7_state(&self.translation.l7);
        if *wanted != *self.l7_wanted || !self.l7_told {
            self.l7_told = true;
            self.l7_wanted = wanted;
            if let Consumers::Here(publishers) = &self.consumers {
                publishers.l7.want(Arc::clone(&self.l7_wanted));
            }
        }
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

    /// The statuses and the classes that Gateways use, once the data plane's word on them is known: one write says
    /// what took effect, not one that it may and one that it did.
    pub(super) fn wish(&mut self) -> Option<(Arc<Statuses>, BTreeSet<String>)> {
        if self.is_silent() || !self.is_settled() {
            self.unsettled_since.get_or_insert_with(Instant::now);
            return None;
        }
        self.unsettled_since = None;
        let classes = self.in_force.objects.gateways.values();
        let classes = classes.map(|gateway| gateway.spec.gateway_class_name.clone());
        Some((Arc::clone(&self.statuses), classes.collect()))
    }

    /// Takes in of which release the installed CRDs are. Returns whether that is news.
    pub(super) fn know_bundle(&mut self, version: Option<&str>) -> bool {
        let is_news = self.bundle_version.as_deref() != version;
        if is_news {
            self.bundle_version = version.map(str::to_owned);
        }
        is_news
    }

    /// The Services that Gateways want, if they are not those of `before`.
    pub(super) fn infrastructure(&self, before: &[Wanted]) -> Option<Vec<Wanted>> {
        let gateways = &self.in_force.objects.gateways;
        let all = self.translation.infrastructure.iter();
        // A Service of our class is there already.
        let all = all.filter(|(name, _)| !service::is_stand_in(&name.name));
        let wanted = all.filter_map(|(name, infrastructure)| {
            let gateway = gateways.get(name)?;
            let uid = gateway.metadata.uid.as_deref().unwrap_or_default();
            Some((name, uid, gateway.spec.gateway_class_name.as_str(), infrastructure))
        });
        let is_same = wanted.clone().eq(before.iter().map(Wanted::parts));
        (!is_same).then(|| wanted.map(Wanted::from).collect())
    }

    /// What was told of the API server.
    pub(super) fn api_server(&self) -> Option<&ApiServer> {
        self.report.api_server.as_ref()
    }

    /// What is told of the API server.
    pub(super) fn report_api_server(&mut self, api_server: ApiServer) {
        self.report.api_server = Some(api_server);
    }

    /// Takes in what happened on the way to the data plane.
    pub(super) fn hear(&mut self, event: Event) {
        // After these it is known whether what an earlier process wrote still holds.
        let same = event.is_about_what_it_holds();
        self.silent_until = self.silent_until.filter(|_| same);
        match event {
            Event::Connected { generation, digest, epoch } => {
                info!(generation, %digest, epoch, "data plane connected");
                self.report.connected = true;
                self.metrics.connected(Consumer::DataPlane, true);
                self.report.trouble = None;
                self.away_since = None;
                self.progress.lost = false;
            }
            Event::Disconnected { reason } => {
                warn!(%reason, "data plane not connected");
                self.report.connected = false;
                self.metrics.connected(Consumer::DataPlane, false);
                self.report.trouble = Some(reason);
                self.away_since.get_or_insert_with(Instant::now);
            }
            Event::Published { generation, digest, kind, records } => {
                self.published(kind);
                self.metrics.published(Consumer::DataPlane, generation, kind_name(kind));
                self.progress.refused = None;
                self.report.generation = generation;
                self.report.digest = digest.to_string();
                match kind {
                    PublishedKind::Nothing => debug!(generation, %digest, "nothing to publish"),
                    _ => info!(generation, %digest, ?kind, records, "published"),
                }
            }
            Event::Refused { reason, errors } => {
                error!(%reason, objects = errors.len(), "the data plane did not take the state");
                self.report.trouble = Some(reason.clone());
                self.progress.refused = Some(RefusedState { reason, errors });
            }
            Event::Acknowledged { generation, state, errors } => {
                info!(generation, refused = errors.len(), "acknowledged");
                self.report.acknowledged = generation;
                self.report.trouble = None;
                let acknowledged = Some(state);
                let of_l7 = std::mem::take(&mut self.progress);
                self.progress =
                    Progress { acknowledged, errors, refused: None, lost: false, ..of_l7 };
                self.metrics.acknowledged(Consumer::DataPlane, generation);
                self.metrics.owes(Consumer::DataPlane, !self.is_forwarded());
            }
        }
    }

    /// Takes in what happened on the way to the L7 tier. A box may have none: then nobody is alarmed unless a
    /// listener needs it.
    pub(super) fn hear_l7(&mut self, event: Event) {
        let report = &mut self.report.l7;
        match event {
            Event::Connected { generation, digest, epoch } => {
                info!(generation, %digest, epoch, "L7 tier connected");
                (report.connected, report.trouble) = (true, None);
                self.metrics.connected(Consumer::L7, true);
                (self.l7_away_since, self.progress.l7_lost) = (None, false);
            }
            Event::Disconnected { reason } => {
                if self.translation.l7.is_empty() {
                    debug!(%reason, "L7 tier not connected, and nothing needs it");
                } else {
                    warn!(%reason, "L7 tier not connected");
                }
                (report.connected, report.trouble) = (false, Some(reason));
                self.metrics.connected(Consumer::L7, false);
                self.l7_away_since.get_or_insert_with(Instant::now);
            }
            Event::Published { generation, kind, records, .. } => {
                report.generation = generation;
                self.metrics.published(Consumer::L7, generation, kind_name(kind));
                if kind != PublishedKind::Nothing {
                    info!(generation, ?kind, records, "published to the L7 tier");
                }
            }
            Event::Refused { reason, errors } => {
                error!(%reason, objects = errors.len(), "the L7 tier did not take the state");
                report.trouble = Some(reason);
            }
            Event::Acknowledged { generation, state, errors } => {
                info!(generation, refused = errors.len(), "acknowledged by the L7 tier");
                (report.acknowledged, report.trouble) = (generation, None);
                // One of a state before that is overtaken by the one to come.
                if *state == *self.l7_wanted {
                    self.progress.l7 = Some(Arc::clone(&self.translation.l7));
                    self.progress.l7_errors = errors;
                }
                self.metrics.acknowledged(Consumer::L7, generation);
                self.metrics.owes(Consumer::L7, !self.is_read());
            }
        }
    }

    fn published(&mut self, kind: PublishedKind) {
        *self.report.publishes.entry(kind_name(kind)).or_default() += 1;
    }

    /// Waits until time itself changes a status; for ever if it does not.
    pub(super) async fn overdue(&self) {
        let lost = self.away_since.filter(|_| !self.progress.lost).map(|since| since + LOST_AFTER);
        let l7_away = self.l7_away_since.filter(|_| !self.progress.l7_lost);
        let l7_lost = l7_away.map(|since| since + LOST_AFTER);
        let boxes = match &self.consumers {
            Consumers::Here(_) => None,
            Consumers::Boxes(fleet) => fleet.overdue(),
        };
        match lost.into_iter().chain(l7_lost).chain(self.silent_until).chain(boxes).min() {
            Some(when) => tokio::time::sleep_until(when).await,
            None => std::future::pending().await,
        }
    }

    /// Does what [`Self::overdue`] waited for.
    pub(super) fn time_passed(&mut self) {
        let now = Instant::now();
        self.progress.lost |= self.away_since.is_some_and(|since| since + LOST_AFTER <= now);
        self.progress.l7_lost |= self.l7_away_since.is_some_and(|since| since + LOST_AFTER <= now);
        self.silent_until = self.silent_until.filter(|until| *until > now);
        self.conclude();
    }

    /// Shows that we are alive, to whoever looks at the report.
    pub(super) fn beat(&mut self) {
        if let Consumers::Boxes(fleet) = &mut self.consumers {
            fleet.beat();
            self.report.boxes = Some(boxed::told(fleet));
            self.tell_report();
        }
        self.report_file.beat();
        self.count_objects();
        self.metrics.beat();
    }

    /// Writes status and report, where they changed.
    pub(super) fn conclude(&mut self) {
        self.look_at_boxes();
        if !self.is_silent() {
            self.write_status();
        }
        self.tell_findings();
        self.report.objects = self.in_force.origins.len();
        self.tell_report();
    }

    /// Writes the report, if it changed.
    pub(super) fn tell_report(&mut self) {
        if let Err(error) = self.report_file.write(&self.report) {
            error!(%error, "report not written: free or repair the run directory");
        }
    }

    fn write_status(&mut self) {
        let now = now();
        let stamp = Stamp { now: &now, previous: &self.statuses };
        let (objects, translation) = (&self.in_force.objects, &self.translation);
        let statuses = status::conclude(objects, translation, &self.progress, &stamp);
        if *self.statuses != statuses {
            self.statuses = Arc::new(statuses);
        }
        match self.status_files.write(&self.statuses) {
            Ok(written) => debug!(written.files, written.removed, "status written"),
            Err(error) => error!(%error, "status not written: free or repair the run directory"),
        }
    }

    /// Logs what is newly wrong, as far as anyone can read it, and puts it into the report.
    fn tell_findings(&mut self) {
        let findings = self.look_for_findings();
        let unreadable: usize = self.unreadable.values().sum();
        let untold = unreadable.saturating_sub(MOST_TOLD);
        if findings == self.findings && untold == self.untold {
            return;
        }
        let known: BTreeSet<&Finding> = self.findings.iter().collect();
        let mut new = findings.iter().filter(|finding| !known.contains(finding));
        for finding in new.by_ref().take(MOST_LOGGED) {
            match finding.severity {
                Severity::Error => error!("{finding}"),
                Severity::Warning => warn!("{finding}"),
            }
        }
        let more = new.count() + untold.saturating_sub(self.untold);
        if more > 0 {
            warn!(
                more,
                "and more of this: controlplane.json has the first {MOST_TOLD}, and counts all"
            );
        }
        if findings.is_empty() && untold == 0 {
            info!("nothing is refused any more");
        }
        self.report.tell(&findings, untold);
        self.count_findings(&findings);
        (self.findings, self.untold) = (findings, untold);
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

    fn count_findings(&self, findings: &[Finding]) {
        self.metrics.findings(self.report.errors, self.report.warnings);
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
        let objects: BTreeSet<&ObjectKey> =
            errors.filter_map(|finding| finding.object.as_ref()).collect();
        for kind in Kind::ALL {
            let told = objects.iter().filter(|object| object.kind == kind).count();
            let unreadable = self.unreadable.get(&kind).copied().unwrap_or_default();
            self.metrics.refused(kind.as_str(), told.max(unreadable));
        }
    }

    /// What is wrong with the source, the files, and objects.
    fn look_for_findings(&self) -> Vec<Finding> {
        let about = |object: &ObjectKey, severity, message| Finding {
            file: self.in_force.origins.get(object).cloned().unwrap_or_default(),
            place: None,
            severity,
            object: Some(object.clone()),
            message,
        };
        let files = self.source_troubles.iter().chain(&self.in_force.findings).cloned();
        let faults = self.statuses.iter().flat_map(|(key, object)| {
            let faults = status::faults(object).into_iter();
            faults.map(move |fault| about(key, Severity::Error, fault))
        });
        let notes = self.translation.notes.iter();
        let notes = notes.map(|note| {
            about(&service::subject(&note.object), Severity::Warning, note.message.clone())
        });
        files.chain(faults).chain(notes).collect()
    }
}
