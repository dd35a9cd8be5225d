//! What is written for people: status files, the report, and the log of what is newly wrong.
//!
//! Whatever happens, files are written at once after a rest and then ever so often: what changed meanwhile is
//! written together, so that a stream of changes costs no more files than people can read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::Paths;
use super::round::now;
use crate::finding::{Finding, Severity};
use crate::metrics::Metrics;
use crate::object::{Kind, ObjectKey};
use crate::report::{ApiServer, Health, L7Tier, MOST_TOLD, Report, ReportFile};
use crate::status::files::StatusFiles;
use crate::status::{self, Statuses};
use crate::store::InForce;
use crate::translate::{Notes, service};

/// Between two writings it is at least this long, and at least as long as [`REST`] times the first took.
const PAUSE: Duration = Duration::from_millis(50);
const REST: u32 = 9;
/// New findings that are logged one by one at a time; the rest is counted.
const MOST_LOGGED: usize = 20;

/// What there is to tell.
#[derive(Clone, Copy)]
pub(super) struct News<'a> {
    /// What is wrong with the source itself.
    pub(super) source_troubles: &'a [Finding],
    /// How many objects the source cannot read, of each kind, whether they are among the troubles or not.
    pub(super) unreadable: &'a BTreeMap<Kind, usize>,
    /// The objects, and what is wrong with where they come from.
    pub(super) in_force: &'a InForce,
    /// Every object of ours with its status.
    pub(super) statuses: &'a Statuses,
    /// What no status says.
    pub(super) notes: &'a Notes,
}

/// What was told, and what was not yet.
pub(super) struct Telling {
    status_files: StatusFiles,
    /// Objects whose files do not say what their statuses do.
    unwritten: BTreeSet<ObjectKey>,
    /// Whether every file is to be looked at: at the start, and after one could not be written.
    looks_at_all: bool,
    /// What is wrong with each object that has a fault, by its status.
    faults: BTreeMap<ObjectKey, Vec<String>>,
    /// Everything that is refused or doubtful, as it was last said, and whether that may be something else now.
    findings: Vec<Finding>,
    has_findings: bool,
    /// How many objects that cannot be read were not told one by one, when that was said last.
    untold: usize,
    pub(super) report: Report,
    report_file: ReportFile,
    /// The next writing is not before, and whether one is due.
    next: Instant,
    is_due: bool,
    metrics: Arc<Metrics>,
}

impl Telling {
    /// Writes as `paths` says. `api_server`: where objects come from, if not from a folder. Returns the statuses that an
    /// earlier process left, too.
    pub(super) fn new(
        paths: &Paths,
        api_server: Option<ApiServer>,
        metrics: Arc<Metrics>,
    ) -> (Self, Statuses) {
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
            health: Health::default(),
            publishes: BTreeMap::from([("delta", 0), ("nothing", 0), ("snapshot", 0)]),
        };
        let (status_files, left) = StatusFiles::open(&paths.run_dir);
        let telling = Self {
            status_files,
            unwritten: BTreeSet::new(),
            looks_at_all: true,
            faults: BTreeMap::new(),
            findings: Vec::new(),
            has_findings: true,
            untold: 0,
            report,
            report_file: ReportFile::open(&paths.run_dir),
            next: Instant::now(),
            is_due: false,
            metrics,
        };
        (telling, left)
    }

    /// Takes note that the status of an object is another one now, or no more.
    pub(super) fn note(&mut self, key: &ObjectKey, statuses: &Statuses) {
        self.unwritten.insert(key.clone());
        let faults = statuses.get(key).map(status::faults).filter(|faults| !faults.is_empty());
        if self.faults.get(key) != faults.as_ref() {
            self.has_findings = true;
            match faults {
                Some(faults) => _ = self.faults.insert(key.clone(), faults),
                None => _ = self.faults.remove(key),
            }
        }
    }

    /// Takes note that something else may be wrong now than what statuses say.
    pub(super) fn note_findings(&mut self) {
        self.has_findings = true;
    }

    /// When something waits to be written.
    pub(super) fn due(&self) -> Option<Instant> {
        self.is_due.then_some(self.next)
    }

    /// Writes what changed, or lets it wait for its like. `with_statuses`: until then what an earlier process wrote
    /// is as good as what we know.
    pub(super) fn tell(&mut self, news: News<'_>, with_statuses: bool) {
        let begin = Instant::now();
        self.is_due = begin < self.next;
        if self.is_due {
            return;
        }
        if with_statuses {
            self.write_statuses(news.statuses);
        }
        if std::mem::take(&mut self.has_findings) {
            self.tell_findings(news);
        }
        self.report.objects = news.in_force.origins.len();
        self.write_report();
        self.next = Instant::now() + (begin.elapsed() * REST).max(PAUSE);
    }

    /// Writes the report, if it changed.
    pub(super) fn write_report(&mut self) {
        if let Err(error) = self.report_file.write(&self.report) {
            error!(%error, "report not written: free or repair the run directory");
        }
    }

    fn write_statuses(&mut self, statuses: &Statuses) {
        let written = match std::mem::take(&mut self.looks_at_all) {
            true => self.status_files.write(statuses),
            false => self.status_files.write_some(&self.unwritten, statuses),
        };
        self.unwritten.clear();
        match written {
            Ok(written) => debug!(written.files, written.removed, "status written"),
            Err(error) => {
                self.looks_at_all = true;
                error!(%error, "status not written: free or repair the run directory");
            }
        }
    }

    /// Shows that we are alive, to whoever looks at the report.
    pub(super) fn beat(&self) {
        self.report_file.beat();
    }

    /// Logs what is newly wrong, as far as anyone can read it, and puts it into the report.
    fn tell_findings(&mut self, news: News<'_>) {
        let findings = self.look_for_findings(news);
        let unreadable: usize = news.unreadable.values().sum();
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
        self.count_findings(&findings, news.unreadable);
        (self.findings, self.untold) = (findings, untold);
    }

    fn count_findings(&self, findings: &[Finding], unreadable: &BTreeMap<Kind, usize>) {
        self.metrics.findings(self.report.errors, self.report.warnings);
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
        let objects: BTreeSet<&ObjectKey> =
            errors.filter_map(|finding| finding.object.as_ref()).collect();
        for kind in Kind::ALL {
            let told = objects.iter().filter(|object| object.kind == kind).count();
            let unreadable = unreadable.get(&kind).copied().unwrap_or_default();
            self.metrics.refused(kind.as_str(), told.max(unreadable));
        }
    }

    /// What is wrong with the source, the files, and objects.
    fn look_for_findings(&self, news: News<'_>) -> Vec<Finding> {
        let about = |object: &ObjectKey, severity, message| Finding {
            file: news.in_force.origins.get(object).cloned().unwrap_or_default(),
            place: None,
            severity,
            object: Some(object.clone()),
            message,
        };
        let files = news.source_troubles.iter().chain(&news.in_force.findings).cloned();
        let faults = self.faults.iter().flat_map(|(key, faults)| {
            let faults = faults.iter().cloned();
            faults.map(move |fault| about(key, Severity::Error, fault))
        });
        let notes = news.notes.iter();
        let notes = notes.map(|note| {
            about(&service::subject(&note.object), Severity::Warning, note.message.clone())
        });
        files.chain(faults).chain(notes).collect()
    }
}
