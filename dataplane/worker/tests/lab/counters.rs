//! What the programs say about themselves: the statistics segment and the control process's report.

use std::fs;
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
        let path = self.directory().join("run/dataplane.stats");
        let stats = StatsReader::open(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let table = stats.table(table).unwrap_or_else(|| panic!("no table {table}"));
        let column = table.column(column).unwrap_or_else(|| panic!("no column {column}"));
        let named = |labels: &[(String, String)]| labels.iter().any(|(_, value)| value == row);
        let rows = stats.rows(table);
        rows.iter()
            .filter(|found| row.is_empty() || named(&found.labels))
            .map(|found| found.total[column])
            .sum()
    }

    /// The control process's report, once it is there and whole.
    pub(crate) fn control_report(&self) -> Option<Value> {
        let text = fs::read_to_string(self.directory().join("run/controlplane.json")).ok()?;
        serde_json::from_str(&text).ok()
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
