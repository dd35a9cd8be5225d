//! `l7.json`: what an operator can know of this process, written each second.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

/// The file.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Our process.
    pub pid: u32,
    /// Our version.
    pub version: &'static str,
    /// When we started, as in RFC 3339.
    pub started: String,
    /// The generation in force.
    pub generation: u64,
    /// Its digest.
    pub digest: String,
    /// The process that feeds us, if one is connected.
    pub fed_by_pid: Option<i32>,
    /// Connections that are open.
    pub open_connections: usize,
    /// As many may be.
    pub max_connections: usize,
    /// Where we listen.
    pub listening: Vec<String>,
    /// Listeners that are not served, and why.
    pub errors: Vec<String>,
    /// See [`crate::counters::Counters`].
    pub counters: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Replaces the file at once: a reader sees the old one or the new one.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("json.new");
        fs::write(&beside, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&beside, path)
    }
}
