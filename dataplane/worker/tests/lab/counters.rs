//! What the programs say about themselves: the statistics segment and the control process's report.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use penstock_feed::stats::StatsReader;
use serde_json::Value;

use crate::network::{Lab, wait_for};

impl Lab {
    /// The sum of a column of the data plane's statistics over the rows whose labels contain `row`
    /// (all of them if it is empty).
    ///
    /// # Panics
    /// If there is no such table or column.
    pub(crate) fn counted(&self, table: &str, row: &str, column: &str) -> u64 {
        self.counted_on("box", table, row, column)
    }

    /// The same of one of several boxes.
    pub(crate) fn counted_on(&self, host: &str, table: &str, row: &str, column: &str) -> u64 {
        let stats = self.stats(host);
        let table = stats.table(table).unwrap_or_else(|| panic!("no table {table}"));
        let column = table.column(column).unwrap_or_else(|| panic!("no column {column}"));
        let named = |labels: &[(String, String)]| labels.iter().any(|(_, value)| value == row);
        let rows = stats.rows(table);
        rows.iter()
            .filter(|found| row.is_empty() || named(&found.labels))
            .map(|found| found.total[column])
            .sum()
    }

    /// The statistics segment of the data plane on a box.
    pub(crate) fn stats(&self, host: &str) -> StatsReader {
        let path = self.files(host).join("run/dataplane.stats");
        StatsReader::open(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
    }

    /// Where the files of a box are, of those of several in a folder of its own. The controller's are beside them.
    pub(crate) fn files(&self, host: &str) -> PathBuf {
        let several = host.starts_with("box") && host != "box";
        self.directory().join(if several { host } else { "" })
    }

    /// The control process's report, once it is there and whole.
    pub(crate) fn control_report(&self) -> Option<Value> {
        self.control_report_on("box")
    }

    /// The same of the agent on one of several boxes, or of their controller.
    pub(crate) fn control_report_on(&self, host: &str) -> Option<Value> {
        let text = fs::read_to_string(self.files(host).join("run/controlplane.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// The status in an object's status file, such as `Gateway/default/web`; null if there is none yet.
    pub(crate) fn status(&self, object: &str) -> Value {
        let path = self.directory().join(format!("run/status/{object}.yaml"));
        let text = fs::read_to_string(path).unwrap_or_default();
        let object: Value = serde_saphyr::from_str(&text).unwrap_or_default();
        object["status"].clone()
    }

    /// A condition of an object: `status/reason`, and what it says.
    pub(crate) fn condition(&self, object: &str, type_: &str) -> (String, String) {
        let status = self.status(object);
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        let found = conditions.find(|condition| condition["type"] == type_);
        let found = found.cloned().unwrap_or_default();
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        (format!("{}/{}", text("status"), text("reason")), text("message"))
    }

    /// The report of a control process that is connected and whose generation is acknowledged.
    pub(crate) fn settled_report(&self) -> Option<Value> {
        let report = self.control_report()?;
        let pid = report["pid"].as_i64();
        let settled = report["connected"] == true
            && report["generation"] == report["acknowledged"]
            && pid == self.pid("penstock-controlplane").map(i64::from);
        settled.then_some(report)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.control_report().and_then(|report| report["generation"].as_u64()).unwrap_or(0)
    }

    /// Makes a change that concerns the data plane, and waits until that serves it.
    pub(crate) fn change(&self, what: &str, change: impl FnOnce()) {
        let before = self.generation();
        change();
        wait_for(what, Duration::from_secs(15), || {
            self.settled_report().filter(|report| report["generation"].as_u64() > Some(before))
        });
    }
}
