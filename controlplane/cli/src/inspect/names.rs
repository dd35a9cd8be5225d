//! What the rows of the statistics are called, of which answers speak by number.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use penstock_feed::Mode;
use penstock_feed::stats::StatsReader;

/// Names of rows. A row without one is shown by its number.
#[derive(Debug, Default)]
pub(super) struct Names {
    listeners: BTreeMap<u32, String>,
    /// What a listener's row says of how it serves: mode and policies.
    ways: BTreeMap<(u32, String), String>,
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
        let ways = |row: &penstock_feed::stats::Row| {
            let index = row.index as u32;
            let is_way = |(key, _): &(String, String)| key == "mode" || key.starts_with("on_");
            let ways = row.labels.clone().into_iter().filter(is_way);
            ways.map(move |(key, value)| ((index, key), value)).collect::<Vec<_>>()
        };
        let help = |row: &penstock_feed::stats::Row| {
            Some((row.label("reason")?.to_owned(), row.label("help")?.to_owned()))
        };
        Self {
            listeners: named("listeners"),
            ways: rows("listeners").iter().flat_map(ways).collect(),
            ports: named("ports"),
            drops: rows("drops").iter().filter_map(help).collect(),
        }
    }

    pub(super) fn listener(&self, row: u32) -> String {
        self.listeners.get(&row).cloned().unwrap_or_else(|| format!("listener {row}"))
    }

    /// What a listener does where it cannot do what is asked: `on_removal` and its kin; empty if nobody says.
    pub(super) fn policy(&self, row: u32, policy: &str) -> &str {
        self.ways.get(&(row, policy.to_owned())).map_or("", String::as_str)
    }

    /// Whether a listener's backends answer clients themselves.
    pub(super) fn is_dsr(&self, row: u32) -> bool {
        let mode = self.policy(row, "mode");
        Mode::ALL.into_iter().any(|known| known.name() == mode && known.is_dsr())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_says_how_it_serves() {
        let ways = [(0, "mode", "gue"), (1, "mode", "dnat"), (1, "on_unknown", "reset")];
        let ways = ways.map(|(row, key, value)| ((row, key.to_owned()), value.to_owned()));
        let names = Names { ways: ways.into(), ..Names::default() };
        assert_eq!([0, 1, 2].map(|row| names.is_dsr(row)), [true, false, false]);
        assert_eq!([0, 1].map(|row| names.policy(row, "on_unknown")), ["", "reset"]);
    }
}
