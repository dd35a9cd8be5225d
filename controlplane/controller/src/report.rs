//! `controlplane.json` in the run directory: what the control process is doing, for `penstock status`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use penstock_gateway_types::Time;
use serde::Serialize;

use crate::whole_file;

/// What the control process is doing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Our process id.
    pub pid: u32,
    /// Our version.
    pub version: &'static str,
    /// When we started.
    pub started: Time,
    /// The folder we read.
    pub config_dir: PathBuf,
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
    /// How many objects are in force.
    pub objects: usize,
    /// What is refused or looks wrong.
    pub refused: Vec<Refused>,
    /// How often the data plane was told something, by how much: `nothing`, `delta`, `snapshot`.
    pub publishes: BTreeMap<&'static str, u64>,
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
    pub severity: crate::Severity,
    /// What is wrong, and the next move.
    pub reason: String,
}

impl From<&crate::Finding> for Refused {
    fn from(finding: &crate::Finding) -> Self {
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
