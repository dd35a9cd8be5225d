//! What the rows of the statistics are called, of which answers speak by number.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use penstock_feed::stats::StatsReader;

/// Names of rows. A row without one is shown by its number.
#[derive(Debug, Default)]
pub(super) struct Names {
    listeners: BTreeMap<u32, String>,
    ports: BTreeMap<u32, String>,
    drops: BTreeMap<String, String>,
}

impl Names {
    /// Of the data plane in `run_dir`; none if its statistics cannot be read.
    pub(super) fn read(run_dir: &Path) -> Self {
        let Ok(reader) = StatsReader::open(&run_dir.join("dataplane.stats")) else {
            return Self::default();
        };
        let rows =
            |table: &str| reader.table(table).map(|table| reader.rows(table)).unwrap_or_default();
        let named = |table| {
            let rows = rows(table).into_iter();
            let named =
                rows.filter_map(|row| Some((row.index as u32, row.label("name")?.to_owned())));
            named.collect()
        };
        let help = |row: &penstock_feed::stats::Row| {
            Some((row.label("reason")?.to_owned(), row.label("help")?.to_owned()))
        };
        Self {
            listeners: named("listeners"),
            ports: named("ports"),
            drops: rows("drops").iter().filter_map(help).collect(),
        }
    }

    pub(super) fn listener(&self, row: u32) -> String {
        self.listeners.get(&row).cloned().unwrap_or_else(|| format!("listener {row}"))
    }

    pub(super) fn port(&self, row: u32) -> String {
        self.ports.get(&row).cloned().unwrap_or_else(|| format!("port {row}"))
    }

    /// What a drop reason means.
    pub(super) fn meaning(&self, reason: &str) -> &str {
        self.drops.get(reason).map_or("", String::as_str)
    }

    /// The rows of listeners called `name`: more than one while flows of an earlier one last.
    pub(super) fn listeners_called(&self, name: &str) -> Vec<u32> {
        let called = |(row, known): (&u32, &String)| (known == name).then_some(*row);
        self.listeners.iter().filter_map(called).collect()
    }

    /// The names of all listeners, each once.
    pub(super) fn listener_names(&self) -> BTreeSet<&str> {
        self.listeners.values().map(String::as_str).collect()
    }
}
