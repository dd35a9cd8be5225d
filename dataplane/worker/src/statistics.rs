//! What the data plane counts, and where: the tables of the statistics segment.
//!
//! Each thread that counts has a block of its own in every table it writes, so that a counter costs
//! one load and one store on a line that nobody else writes. The forwarder's tables are laid out by
//! the forwarder; here are those of the worker around it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use penstock_dpdk::{Mempool, Port};
use penstock_feed::{
    Listener, Member, Name,
    model::{SourceRanges, limits},
    stats::{Column, ProcessInfo, StatsError, StatsWriter, TableSpec},
};
use penstock_forward::{
    BACKEND_COLUMNS, Counters, DropReason, Group, LISTENER_COLUMNS, PuntClass, WORKER_COLUMNS,
    counters::{BackendColumn, ListenerColumn},
};
use tracing::warn;

use crate::{companions::Announced, config::Config};

/// Listeners that can be counted at once: twice what a state may hold, since those that have gone are
/// counted while flows name them.
pub const LISTENER_ROWS: u32 = 2 * limits::LISTENERS as u32;
const _: () = assert!(LISTENER_ROWS - 1 <= penstock_forward::ListenerSlot::MAX.0);
/// Backends that can be counted at once.
pub const BACKEND_ROWS: u32 = 2 * limits::MEMBERS as u32;

/// What a worker has been doing; columns of the table `workers` behind those of the forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Packets received from its queues.
    Received,
    /// Packets that its transmit queues took.
    Transmitted,
    /// Packets taken from other workers.
    HandedIn,
    /// Packets sent for workers that have no transmit queue of the port.
    SentForOthers,
    /// Turns of its loop.
    Polls,
    /// Turns that moved a packet: received, taken from another worker, or the kernel's or ours to send.
    BusyPolls,
    /// Those packets.
    BusyPackets,
    /// TSC cycles of those turns.
    BusyCycles,
    /// TSC cycles in all.
    Cycles,
    /// Packets received in several segments, and put together.
    Linearized,
}

const ACTIVITY_COLUMNS: [Column; 10] = [
    Column::counter("received", "packets"),
    Column::counter("transmitted", "packets"),
    Column::counter("handed_in", "packets"),
    Column::counter("sent_for_others", "packets"),
    Column::counter("polls", ""),
    Column::counter("busy_polls", ""),
    Column::counter("busy_packets", "packets"),
    Column::counter("busy_cycles", "cycles"),
    Column::counter("cycles", "cycles"),
    Column::counter("rx_linearized", "packets"),
];

/// What a worker counts of the packets that it receives from a port; columns of the table `ports` behind those of
/// the port itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// Packets of other workers' flows.
    HandedOver,
    /// Packets without a flow that came to the worker that RSS should bring them to.
    RssMatch,
    /// Packets without a flow that came to another.
    RssMismatch,
}

const ARRIVED_COLUMNS: [Column; 3] = [
    Column::counter("handed_over", "packets"),
    Column::counter("rss_match", "packets"),
    Column::counter("rss_mismatch", "packets"),
];

/// Columns of the table `ports`.
const PORT_ROW: usize = PORT_COLUMNS.len() + ARRIVED_COLUMNS.len();

const PORT_COLUMNS: [Column; 14] = [
    Column::gauge("link_up", ""),
    Column::counter("received_packets", "packets"),
    Column::counter("received_bytes", "bytes"),
    Column::counter("sent_packets", "packets"),
    Column::counter("sent_bytes", "bytes"),
    Column::counter("missed", "packets"),
    Column::counter("receive_errors", "packets"),
    Column::counter("transmit_errors", "packets"),
    Column::counter("no_mbuf", "packets"),
    Column::gauge("mbufs_free", ""),
    Column::gauge("mbufs_in_use", ""),
    Column::counter("announced_arp", "packets"),
    Column::counter("announced_nd", "packets"),
    Column::gauge("announcing", "addresses"),
];

/// What `link_up` says if nobody knows: neither 0 for down nor 1 for up.
const LINK_UNKNOWN: u64 = 2;

/// Whether a port's link is up, as far as its driver can know.
pub fn known_link(port: &Port) -> Option<bool> {
    believed(port.driver(), port.link().ok().map(|link| link.up))
}

/// The TAP PMD looks for its interface in our network namespace, and takes one that was moved to another for
/// down.
fn believed(driver: &str, up: Option<bool>) -> Option<bool> {
    up.filter(|up| *up || driver != "net_tap")
}

const DROP_COLUMNS: [Column; 1] = [Column::counter("packets", "packets")];
const PUNT_COLUMNS: [Column; 2] =
    [Column::counter("packets", "packets"), Column::counter("bytes", "bytes")];

fn add(cell: &AtomicU64, more: u64) {
    cell.store(cell.load(Ordering::Relaxed) + more, Ordering::Relaxed); // one writer: no RMW
}

/// One thread's block of drops, for the reasons that are found outside the forwarder.
#[derive(Clone, Copy)]
pub struct Drops(&'static [AtomicU64]);

impl Drops {
    /// One packet was lost.
    pub fn count(self, reason: DropReason) {
        self.count_many(reason, 1);
    }

    /// So many packets were lost.
    pub fn count_many(self, reason: DropReason, packets: u64) {
        if packets == 0 {
            return; // a turn without losses touches no counter
        }
        add(&self.0[reason as usize], packets);
    }
}

/// One worker's row of what it has been doing.
#[derive(Clone, Copy)]
pub struct WorkerActivity(&'static [AtomicU64]);

impl WorkerActivity {
    /// Counts more of a kind.
    pub fn add(self, what: Activity, more: u64) {
        add(&self.0[WORKER_COLUMNS.len() + what as usize], more);
    }

    /// Counts a turn of the loop that took `cycles` and moved `packets`.
    pub fn turn(self, packets: usize, cycles: u64) {
        self.add(Activity::Polls, 1);
        self.add(Activity::Cycles, cycles);
        if packets > 0 {
            self.add(Activity::BusyPolls, 1);
            self.add(Activity::BusyPackets, packets as u64);
            self.add(Activity::BusyCycles, cycles);
        }
    }
}

/// One worker's counts of what comes in by one port.
#[derive(Clone, Copy)]
pub struct PortArrivals(&'static [AtomicU64]);

impl PortArrivals {
    /// Counts more of a kind.
    pub fn add(self, what: Arrived, more: u64) {
        if more > 0 {
            add(&self.0[what as usize], more);
        }
    }
}

/// Packets and bytes given to the kernel, by class.
#[derive(Clone, Copy)]
pub struct PuntCells(&'static [AtomicU64]);

impl PuntCells {
    /// One packet went to the kernel.
    pub fn count(self, class: PuntClass, bytes: usize) {
        let row = class as usize * PUNT_COLUMNS.len();
        add(&self.0[row], 1);
        add(&self.0[row + 1], bytes as u64);
    }
}

/// The segment with its tables.
pub struct Statistics {
    /// Generation and heartbeat.
    pub writer: StatsWriter,
    labels: HashMap<(&'static str, u32), String>,
}

impl Statistics {
    /// Makes the segment at `path`. The exception path counts in a block behind the workers'.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn create(path: &Path, config: &Config) -> Result<Self, StatsError> {
        let process = ProcessInfo {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            started: SystemTime::now(),
        };
        let worker_columns = [columns_of(WORKER_COLUMNS), ACTIVITY_COLUMNS.to_vec()].concat();
        let port_columns = [PORT_COLUMNS.to_vec(), ARRIVED_COLUMNS.to_vec()].concat();
        let table = |name, columns: Vec<Column>, rows, per_worker| TableSpec {
            name,
            columns: Vec::leak(columns),
            rows,
            per_worker,
        };
        let tables = [
            table("ports", port_columns, config.ports.len(), true),
            table("workers", worker_columns, 1, true),
            table("listeners", columns_of(LISTENER_COLUMNS), LISTENER_ROWS as usize, true),
            table("backends", columns_of(BACKEND_COLUMNS), BACKEND_ROWS as usize, true),
            table("drops", DROP_COLUMNS.to_vec(), DropReason::ALL.len(), true),
            table("punts", PUNT_COLUMNS.to_vec(), PuntClass::ALL.len(), false),
        ];
        let blocks = config.workers.count + 1;
        let writer = StatsWriter::create(path, &process, blocks, &tables)?;
        let mut statistics = Self { writer, labels: HashMap::new() };
        statistics.label_fixed_rows(config.workers.count)?;
        Ok(statistics)
    }

    fn label_fixed_rows(&mut self, workers: usize) -> Result<(), StatsError> {
        self.writer.set_label("workers", 0, &[("count", &workers.to_string())])?;
        for (row, reason) in DropReason::ALL.iter().enumerate() {
            let label = [("reason", reason.name()), ("help", reason.help())];
            self.writer.set_label("drops", row, &label)?;
        }
        for (row, class) in PuntClass::ALL.iter().enumerate() {
            self.writer.set_label("punts", row, &[("class", class.name())])?;
        }
        Ok(())
    }

    /// The forwarder's tables for one worker.
    pub fn counters(&self, worker: usize) -> Counters<'static> {
        Counters {
            drops: self.block("drops", worker),
            listeners: self.block("listeners", worker),
            backends: self.block("backends", worker),
            worker: self.block("workers", worker),
        }
    }

    /// One thread's drops; the exception path's block is the one behind the workers'.
    pub fn drops(&self, thread: usize) -> Drops {
        Drops(self.block("drops", thread))
    }

    /// One worker's row of activity.
    pub fn activity(&self, worker: usize) -> WorkerActivity {
        WorkerActivity(self.block("workers", worker))
    }

    /// One worker's counts of what comes in by a port.
    pub fn arrivals(&self, worker: usize, port: usize) -> PortArrivals {
        PortArrivals(&self.block("ports", worker)[port * PORT_ROW + PORT_COLUMNS.len()..])
    }

    /// What all workers have counted so of a port.
    pub fn arrived(&self, workers: usize, port: usize, what: Arrived) -> u64 {
        let cell = port * PORT_ROW + PORT_COLUMNS.len() + what as usize;
        self.gauge("ports", workers, cell)
    }

    /// Turns that a worker's loop has made.
    pub fn turns(&self, worker: usize) -> u64 {
        let cells = self.writer.cells("workers", worker);
        cells[WORKER_COLUMNS.len() + Activity::Polls as usize].load(Ordering::Relaxed)
    }

    /// The punts; only the exception path writes them.
    pub fn punts(&self) -> PuntCells {
        PuntCells(self.block("punts", 0))
    }

    /// The blocks live as long as the process, and so may what counts in them.
    fn block(&self, table: &str, thread: usize) -> &'static [AtomicU64] {
        Box::leak(Box::new(self.writer.cells(table, thread)))
    }

    /// Puts down what a port says of itself, what its link was told of our addresses, and how full the pool is
    /// that feeds it: in the block behind the workers'.
    pub fn set_port(
        &self,
        workers: usize,
        at: usize,
        port: &Port,
        link_up: Option<bool>,
        announced: Announced,
        mempool: &Mempool,
    ) {
        let stats = port.stats().unwrap_or_default();
        let values: [u64; PORT_COLUMNS.len()] = [
            link_up.map_or(LINK_UNKNOWN, u64::from),
            stats.ipackets,
            stats.ibytes,
            stats.opackets,
            stats.obytes,
            stats.imissed,
            stats.ierrors,
            stats.oerrors,
            stats.rx_nombuf,
            u64::from(mempool.available()),
            u64::from(mempool.in_use()),
            announced.arp,
            announced.nd,
            announced.announcing,
        ];
        let row = self.writer.cells("ports", workers);
        for (cell, value) in row[at * PORT_ROW..].iter().zip(values) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Says what a port is, and how its packets come to the workers.
    pub fn label_port(&mut self, at: usize, label: &[(&str, &str)]) {
        self.label("ports", at as u32, label);
    }

    /// Sees that workers can count in a row; to be called before they are told of it.
    ///
    /// # Errors
    /// If there is no room for it in the segment's file system.
    pub fn reserve(&mut self, table: &str, row: u32) -> Result<(), StatsError> {
        self.writer.reserve(table, row as usize)
    }

    /// Says whose numbers a listener's row holds, and by which Maglev table it picks backends: two boxes with
    /// one configuration have one digest. A listener that is `departed` takes no new flows.
    pub fn label_listener(
        &mut self,
        slot: u32,
        name: &Name,
        listener: &Listener,
        group: &Group,
        departed: bool,
    ) {
        let ranges = listener.source_ranges.as_ref().map(SourceRanges::iter);
        let source_ranges =
            ranges.map_or_else(|| "all".to_owned(), |ranges| ranges.len().to_string());
        let label = [
            ("name", name.as_str()),
            ("vip", &listener.vip.to_string()),
            ("protocol", &listener.protocol.to_string()),
            ("ports", &listener.ports.to_string()),
            ("mode", &listener.mode.to_string()),
            ("on_removal", &listener.policies.on_removal.to_string()),
            ("on_exhaustion", listener.policies.on_exhaustion.name()),
            ("on_unknown", listener.policies.on_unknown.name()),
            ("mss_clamp", &listener.policies.mss_clamp.to_string()),
            ("timeouts", &listener.policies.timeouts.to_string()),
            ("source_ranges", &source_ranges),
            ("group", listener.group.as_str()),
            ("maglev_slots", &group.table_size().to_string()),
            ("maglev_digest", &format!("{:016x}", group.digest())),
            ("departed", if departed { "true" } else { "false" }),
        ];
        self.label("listeners", slot, &label);
    }

    /// Says whose numbers a backend's row holds.
    pub fn label_backend(&mut self, id: u32, group: &Name, address: SocketAddr, member: &Member) {
        let label = [
            ("group", group.as_str()),
            ("address", &address.to_string()),
            ("weight", &member.weight.to_string()),
            ("draining", &member.draining.to_string()),
        ];
        self.label("backends", id, &label);
    }

    fn label(&mut self, table: &'static str, row: u32, label: &[(&str, &str)]) {
        let text: String = label.iter().flat_map(|(key, value)| [key, "=", value, "\n"]).collect();
        if self.labels.get(&(table, row)) == Some(&text) {
            return;
        }
        match self.writer.set_label(table, row as usize, label) {
            Ok(()) => _ = self.labels.insert((table, row), text),
            Err(error) => warn!(%error, "label"),
        }
    }

    /// Empties a row whose object has gone. No worker counts there any more.
    pub fn forget(&mut self, table: &'static str, row: u32) {
        let cleared = self.writer.clear_label(table, row as usize);
        if let Err(error) = cleared.and_then(|()| self.writer.zero_row(table, row as usize)) {
            warn!(%error, "label");
        }
        self.labels.remove(&(table, row));
    }

    /// Flows that name a backend now, over all workers.
    pub fn backend_flows(&self, workers: usize, id: u32) -> u64 {
        self.gauge(
            "backends",
            workers,
            id as usize * BACKEND_COLUMNS.len() + BackendColumn::Flows as usize,
        )
    }

    /// Flows that name a listener now, over all workers.
    pub fn listener_flows(&self, workers: usize, slot: u32) -> u64 {
        self.gauge(
            "listeners",
            workers,
            slot as usize * LISTENER_COLUMNS.len() + ListenerColumn::Flows as usize,
        )
    }

    fn gauge(&self, table: &str, workers: usize, cell: usize) -> u64 {
        (0..workers)
            .map(|worker| self.writer.cells(table, worker)[cell].load(Ordering::Relaxed))
            .sum()
    }
}

/// The forwarder's columns with kind and unit: gauges say so in their help, bytes in their name.
fn columns_of(columns: &'static [(&'static str, &'static str)]) -> Vec<Column> {
    let column = |(name, help): &(&'static str, &'static str)| {
        let unit = if name.starts_with("bytes") { "bytes" } else { "" };
        if help.starts_with("Gauge") {
            Column::gauge(name, unit)
        } else {
            Column::counter(name, unit)
        }
    };
    columns.iter().map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_down_only_if_its_driver_can_know() {
        for (driver, up, expected) in [
            ("net_ixgbe", Some(true), Some(true)),
            ("net_ixgbe", Some(false), Some(false)),
            ("net_ixgbe", None, None),
            ("net_tap", Some(true), Some(true)),
            ("net_tap", Some(false), None),
        ] {
            assert_eq!(believed(driver, up), expected, "{driver} says {up:?}");
        }
    }

    #[test]
    fn a_turn_counts_its_cycles_and_if_it_moved_packets_both_as_busy() {
        let columns = WORKER_COLUMNS.len() + ACTIVITY_COLUMNS.len();
        let cells: &'static [AtomicU64] =
            (0..columns).map(|_| AtomicU64::new(0)).collect::<Vec<_>>().leak();
        let activity = WorkerActivity(cells);
        for (packets, cycles) in [(0, 1000), (3, 300), (0, 50_000), (1, 200)] {
            activity.turn(packets, cycles);
        }
        let counted: Vec<_> = ACTIVITY_COLUMNS
            .iter()
            .zip(&cells[WORKER_COLUMNS.len()..])
            .map(|(column, cell)| (column.name, cell.load(Ordering::Relaxed)))
            .filter(|(_, value)| *value > 0)
            .collect();
        let expected = [
            ("polls", 4),
            ("busy_polls", 2),
            ("busy_packets", 4),
            ("busy_cycles", 500),
            ("cycles", 51_500),
        ];
        assert_eq!(counted, expected);
    }
}
