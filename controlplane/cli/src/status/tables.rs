//! The tables of a statistics segment as ports, workers, listeners with their backends, drops and punts.
//!
//! Labels and columns are taken as the segment has them. Only their use is known here: that a backend's
//! `group` is its listener's, and which columns a worker's ratios are made of.

use penstock_feed::stats::{Row, StatsReader, Table};

use super::report::{ByThread, Counted, Counters, Item, Labels, Listener, Worker};

/// Everything that the segment counts.
pub(super) fn read(reader: &StatsReader) -> Counted {
    let mut counted = Counted::default();
    let mut backends = Vec::new();
    for table in reader.tables() {
        let rows = reader.rows(table);
        let items = || rows.iter().map(|row| item(table, row));
        match table.name.as_str() {
            "ports" => counted.ports = items().collect(),
            "workers" => counted.workers = workers(table, &rows),
            "listeners" => {
                counted.listeners =
                    items().map(|item| Listener { item, backends: Vec::new() }).collect();
            }
            "backends" => backends = items().collect(),
            "drops" => counted.drops = rows.iter().map(|row| by_thread(table, row)).collect(),
            "punts" => counted.punts = items().collect(),
            other => {
                counted.other_tables.insert(other.to_owned(), items().collect());
            }
        }
    }
    let order = |listener: &Listener| {
        let label = |key| listener.item.labels.get(key).to_owned();
        (label("name"), label("departed"))
    };
    counted.listeners.sort_by_cached_key(order);
    give_backends(&mut counted, backends);
    counted
}

/// Each backend to the listeners of its group.
fn give_backends(counted: &mut Counted, mut backends: Vec<Item>) {
    backends.sort_by(|a, b| address_key(a).cmp(&address_key(b)));
    for backend in backends {
        let group = backend.labels.get("group");
        let mut taken = false;
        for listener in &mut counted.listeners {
            if !group.is_empty() && listener.item.labels.get("group") == group {
                listener.backends.push(backend.clone());
                taken = true;
            }
        }
        if !taken {
            counted.other_backends.push(backend);
        }
    }
}

/// Addresses in their own order, `10.0.0.9` before `10.0.0.10`; what is no address comes last, as text.
fn address_key(backend: &Item) -> (bool, Option<std::net::SocketAddr>, &str) {
    let text = backend.labels.get("address");
    let address = text.parse().ok();
    (address.is_none(), address, text)
}

fn item(table: &Table, row: &Row) -> Item {
    Item { labels: Labels(row.labels.clone()), counters: counters(table, &row.total) }
}

fn counters(table: &Table, values: &[u64]) -> Counters {
    Counters(
        table
            .columns
            .iter()
            .map(|column| column.name.clone())
            .zip(values.iter().copied())
            .collect(),
    )
}

fn by_thread(table: &Table, row: &Row) -> ByThread {
    let by_thread = row.blocks.iter().filter_map(|block| block.first().copied()).collect();
    ByThread { item: item(table, row), by_thread }
}

/// The workers: the blocks of the table's one row, or its rows where the table has one block.
fn workers(table: &Table, rows: &[Row]) -> Vec<Worker> {
    let all: Vec<&[u64]> = match rows {
        [only] if table.blocks > 1 => blocks_of_workers(only),
        rows => rows.iter().map(|row| row.total.as_slice()).collect(),
    };
    all.into_iter().enumerate().map(|(at, values)| worker(at, counters(table, values))).collect()
}

/// As many blocks as the label `count` says. Without it, all but those at the end in which nothing was ever
/// counted: other threads count in other tables, in blocks behind the workers'.
fn blocks_of_workers(row: &Row) -> Vec<&[u64]> {
    let counted = row.blocks.iter().rposition(|block| block.iter().any(|&value| value != 0));
    let workers = row.label("count").and_then(|count| count.parse().ok());
    let workers = workers.unwrap_or_else(|| counted.map_or(1, |last| last + 1));
    row.blocks.iter().take(workers).map(Vec::as_slice).collect()
}

fn worker(worker: usize, counters: Counters) -> Worker {
    let ratio = |part: &str, whole: &str| {
        let (part, whole) = (counters.get(part)?, counters.get(whole)?);
        (whole > 0).then(|| rounded(part as f64 / whole as f64))
    };
    Worker {
        worker,
        busy_ratio: ratio("busy_cycles", "cycles"),
        cycles_per_packet: ratio("busy_cycles", "busy_packets"),
        counters,
    }
}

/// To four digits behind the point: more would be noise.
fn rounded(ratio: f64) -> f64 {
    (ratio * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(group: &str, address: &str) -> Item {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let labels = Labels(vec![label("group", group), label("address", address)]);
        Item { labels, counters: Counters::default() }
    }

    #[test]
    fn backends_stand_under_every_listener_of_their_group_in_order() {
        let listener = |group: &str| Listener { item: backend(group, ""), backends: Vec::new() };
        let mut counted = Counted {
            listeners: vec![listener("a"), listener("b"), listener("a"), listener("")],
            ..Counted::default()
        };
        let backends = [
            ("a", "10.0.0.10:80"),
            ("a", "10.0.0.9:80"),
            ("a", "?"),
            ("c", "10.0.0.1:80"),
            ("", "x"),
        ];
        give_backends(
            &mut counted,
            backends.iter().map(|(group, at)| backend(group, at)).collect(),
        );
        let addresses = |items: &[Item]| -> Vec<String> {
            items.iter().map(|item| item.labels.get("address").to_owned()).collect()
        };
        for (listener, expected) in counted.listeners.iter().zip([
            &["10.0.0.9:80", "10.0.0.10:80", "?"][..],
            &[],
            &["10.0.0.9:80", "10.0.0.10:80", "?"],
            &[],
        ]) {
            assert_eq!(addresses(&listener.backends), expected);
        }
        assert_eq!(addresses(&counted.other_backends), ["10.0.0.1:80", "x"]);
    }

    #[test]
    fn workers_are_told_from_other_threads() {
        let row = |label: &[(&str, &str)], blocks: &[[u64; 1]]| Row {
            index: 0,
            labels: label.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            total: vec![0],
            blocks: blocks.iter().map(|block| block.to_vec()).collect(),
        };
        let rows = [
            ("the label says", row(&[("count", "2")], &[[0], [0], [7]]), 2),
            ("an idle worker before a busy one counts", row(&[], &[[0], [1], [0]]), 2),
            ("all idle: one there must be", row(&[], &[[0], [0]]), 1),
            ("a label of nonsense is no label", row(&[("count", "x")], &[[1], [1]]), 2),
            ("never more than there are", row(&[("count", "9")], &[[1], [1]]), 2),
        ];
        for (promise, row, expected) in rows {
            assert_eq!(blocks_of_workers(&row).len(), expected, "{promise}");
        }
    }

    #[test]
    fn ratios_need_their_columns_and_some_cycles() {
        let counters = |values: &[(&str, u64)]| {
            Counters(values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
        };
        let rows = [
            (
                &[("busy_cycles", 1), ("cycles", 3), ("busy_packets", 8), ("packets", 2)][..],
                Some(0.3333),
                Some(0.125),
            ),
            (&[("busy_cycles", 0), ("cycles", 0), ("busy_packets", 0)], None, None),
            (&[("busy_packets", 5)], None, None),
            (&[("busy_cycles", 1), ("packets", 5)], None, None),
        ];
        for (values, busy, cycles) in rows {
            let worker = worker(0, counters(values));
            assert_eq!((worker.busy_ratio, worker.cycles_per_packet), (busy, cycles));
        }
    }
}
