//! `controlplane.json` in the run directory: what the control process is doing, for `penstock status`. When
//! it was modified last is the process's last sign of life.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use penstock_gateway_types::Time;
use serde::Serialize;

use crate::boxes::server::Counted;
use crate::finding::{Finding, Severity};
use crate::whole_file;

/// The most findings that are told one by one; the rest is counted.
pub const MOST_TOLD: usize = 100;

/// What the control process is doing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Our process id.
    pub pid: u32,
    /// Our version.
    pub version: &'static str,
    /// When we started.
    pub started: Time,
    /// The folder we read; empty if objects come from an API server.
    pub config_dir: PathBuf,
    /// The API server we watch, if objects come from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server: Option<ApiServer>,
    /// The generation that was published last; 0 before the first.
    pub generation: u64,
    /// The generation that the data plane acknowledged last; 0 before the first.
    pub acknowledged: u64,
    /// The digest of the published state, in hexadecimal.
    pub digest: String,
    /// Whether the data plane is connected.
    pub connected: bool,
    /// Why it is not, or why it did not take the last state.
    pub trouble: Option<String>,
    /// How we stand with the L7 tier.
    pub l7: L7Tier,
    /// How we stand with boxes elsewhere, if we serve them instead of a data plane here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boxes: Option<Boxes>,
    /// How we stand with the controller that says what to do, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// What came of health checks.
    pub health: Health,
    /// How many objects are in force.
    pub objects: usize,
    /// How many things are refused, or not served as written.
    pub errors: usize,
    /// How many look wrong.
    pub warnings: usize,
    /// The first hundred of them, errors first.
    pub refused: Vec<Refused>,
    /// How often the data plane was told something, by how much: `nothing`, `delta`, `snapshot`.
    pub publishes: BTreeMap<&'static str, u64>,
}

/// How we stand with the L7 tier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct L7Tier {
    /// Whether it is connected.
    pub connected: bool,
    /// The generation that it was told last; 0 before the first.
    pub generation: u64,
    /// The generation that it acknowledged last; 0 before the first.
    pub acknowledged: u64,
    /// Why it is not connected, or why it did not take the last state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// How we stand with boxes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Boxes {
    /// Where we serve them.
    pub address: String,
    /// How many there are.
    pub boxes: usize,
    /// How many are connected.
    pub connected: usize,
    /// How many of those have what they should, by the word of every consumer.
    pub in_sync: usize,
    /// The version that stays in force until it is released.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned: Option<String>,
    /// What was counted.
    #[serde(flatten)]
    pub counted: Counted,
}

/// How we stand with the controller of this box.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Agent {
    /// Which Box this is.
    pub name: String,
    /// Whether there is a link: what is in force stays in force without one.
    pub connected: bool,
    /// Who the controller is, and where.
    pub controller: String,
    /// The number of what is in force.
    pub version: u64,
    /// The digest of that; empty before the first.
    pub digest: String,
    /// The highest epoch that we were told of.
    pub epoch: u64,
    /// Why there is no link, or why the last bundle was not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What came of health checks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// How many backends are asked, by each check.
    pub backends: usize,
    /// How many of them are not well.
    pub unhealthy: usize,
    /// Where so many are not well that all serve, as `Service shop/web 80/tcp`.
    pub fail_open: Vec<String>,
    /// The first hundred that are not well, each with its check.
    pub down: Vec<String>,
    /// Answers since we started, good and bad.
    pub answers: u64,
    /// The bad ones.
    pub bad_answers: u64,
    /// How often a backend went from well to not, or back.
    pub changes: u64,
}

/// How we stand with the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ApiServer {
    /// Where it is.
    pub url: String,
    /// Whether it answers: what was last good is in force all the same.
    pub connected: bool,
    /// Whether we are the ones who write statuses.
    pub leader: bool,
    /// How many status writes changed something, since we started.
    pub status_writes: u64,
    /// Why a status could not be written yet, if one could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_trouble: Option<String>,
}

/// Something that is refused or looks wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Refused {
    /// The file, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The object, as `Gateway default/web`, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// `error` or `warning`.
    pub severity: Severity,
    /// What is wrong, and the next move.
    pub reason: String,
}

impl Report {
    /// Takes in everything that is wrong now: `findings`, and so many errors that are not among them.
    pub fn tell(&mut self, findings: &[Finding], untold: usize) {
        let of = |severity| findings.iter().filter(move |finding| finding.severity == severity);
        self.errors = of(Severity::Error).count() + untold;
        self.warnings = of(Severity::Warning).count();
        let errors_first = of(Severity::Error).chain(of(Severity::Warning));
        self.refused = errors_first.take(MOST_TOLD).map(Into::into).collect();
    }
}

impl From<&Finding> for Refused {
    fn from(finding: &Finding) -> Self {
        Self {
            file: Some(finding.file.clone()).filter(|file| !file.is_empty()),
            line: finding.place.map(|place| place.line),
            column: finding.place.map(|place| place.column),
            object: finding.object.as_ref().map(ToString::to_string),
            severity: finding.severity,
            reason: finding.message.clone(),
        }
    }
}

/// The file, written when the report changes.
#[derive(Debug)]
pub struct ReportFile {
    path: PathBuf,
    written: Option<Report>,
}

impl ReportFile {
    /// The file in `run_dir`.
    #[must_use]
    pub fn open(run_dir: &Path) -> Self {
        Self { path: run_dir.join("controlplane.json"), written: None }
    }

    /// Marks the file as modified now. Costs one system call or two, and moves no data; a failure is left
    /// to the next [`Self::write`] to tell.
    pub fn beat(&self) {
        let _ = File::open(&self.path).and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Writes `report`, unless it says what the file says.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn write(&mut self, report: &Report) -> io::Result<()> {
        if self.written.as_ref() == Some(report) {
            return Ok(());
        }
        let mut text = serde_json::to_vec_pretty(report).map_err(io::Error::other)?;
        text.push(b'\n');
        whole_file::write(&self.path, &text)?;
        self.written = Some(report.clone());
        Ok(())
    }
}
