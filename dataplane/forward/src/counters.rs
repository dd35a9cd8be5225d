//! Counters that a worker alone writes and anyone may read.
//!
//! Flat, row-major tables of `AtomicU64` in memory of the caller (the statistics segment). There is
//! one writer each, so an addition is a load and a store, both relaxed, and no locked instruction:
//! the atomics are there for the readers, who must never see half a number.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{BackendId, DropReason, ListenerSlot};

macro_rules! columns {
    ($(#[$meta:meta])* $table:ident $names:ident { $( $column:ident $name:literal $help:literal )* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $table { $( #[doc = $help] $column, )* }

        #[doc = concat!("The columns of [`", stringify!($table), "`] in order: metric name and help.")]
        pub const $names: &[(&str, &str)] = &[$( ($name, $help), )*];
    };
}

columns! {
    /// A column of the listener table; a row is a [`ListenerSlot`].
    ListenerColumn LISTENER_COLUMNS {
        Flows "flows" "Gauge: flows that name this listener now."
        FlowsNew "flows_new" "Connections pinned to a backend."
        PacketsIn "packets_in" "Packets from clients that were forwarded."
        BytesIn "bytes_in" "Bytes of those, from the Ethernet header on, without FCS."
        PacketsOut "packets_out" "Packets to clients that were forwarded."
        BytesOut "bytes_out" "Bytes of those, from the Ethernet header on, without FCS."
        Refused "refused" "Connections and datagrams that got no flow: no backend was to take them, no SNAT port was free, the flow table had no room, or the client was in none of its source ranges."
        FlowsReset "flows_reset" "Flows ended because nobody serves them any more: TCP by RST to both ends."
    }
}

// A row is a cache line, found by a shift: ten columns cost each packet a TSC cycle.
const _: () = assert!(LISTENER_COLUMNS.len() == 8);

columns! {
    /// A column of the backend table; a row is a [`BackendId`].
    BackendColumn BACKEND_COLUMNS {
        Flows "flows" "Gauge: flows that name this backend now."
        FlowsNew "flows_new" "Connections pinned to it."
        PacketsTo "packets_to" "Packets forwarded to it."
        BytesTo "bytes_to" "Bytes of those, from the Ethernet header on, without FCS."
        PacketsFrom "packets_from" "Packets of it forwarded to clients."
        BytesFrom "bytes_from" "Bytes of those, from the Ethernet header on, without FCS."
    }
}

columns! {
    /// A cell of the worker's own row.
    WorkerColumn WORKER_COLUMNS {
        Bursts "bursts" "Bursts that had a packet in them."
        Packets "packets" "Packets that began the journey."
        Sent "sent" "Packets rewritten and ready to transmit."
        Punted "punted" "Packets for the kernel."
        HandedOver "handed_over" "Packets of flows that another worker owns."
        Held "held" "Packets that wait for a next hop to be resolved."
        Awaiting "awaiting" "Fragments that wait for the first of their datagram."
        Dropped "dropped" "Packets lost on the journey; the drop table says why."
        Express "express" "Packets of established flows that took the express lane."
        FlowHits "flow_hits" "Packets whose flow was found."
        FlowMisses "flow_misses" "Packets with a 5-tuple that no flow had."
        Flows "flows" "Gauge: flows in the table now."
        FlowsUnproven "flows_unproven" "Gauge: flows of those that anyone could have begun: TCP half-open, UDP not answered."
        FlowsNew "flows_new" "Flows created."
        FlowsExpired "flows_expired" "Flows removed after their idle timeout."
        FlowsEvicted "flows_evicted" "Flows that gave way to newer ones: unproven, or over."
        FlowsReset "flows_reset" "Flows ended because nobody serves them any more: TCP by RST to both ends."
        Refused "refused" "Connections refused by RST."
        TooBig "too_big" "Packets answered by ICMP, too large for the way to their backend or client."
        Exhausted "exhausted" "New connections and datagrams for which no SNAT address, or no port towards their backend, was free."
        UnknownReset "unknown_reset" "Segments of no flow, or of one that was ended so, answered by RST."
        Echoed "echoed" "ICMP echo requests to a VIP that were answered."
        TimeExceeded "time_exceeded" "Packets answered by ICMP: they had no hop left."
        MssClamped "mss_clamped" "SYNs whose MSS option was lowered to what fits the way of their connection."
        Unreachable "unreachable" "Packets answered by ICMP: nobody could take a new connection or a datagram."
    }
}

/// The tables of one worker. A table too short for a row loses that row's counts and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Counters<'m> {
    /// One cell a [`DropReason`], in the order of [`DropReason::ALL`].
    pub drops: &'m [AtomicU64],
    /// A row a listener slot, [`LISTENER_COLUMNS`] wide.
    pub listeners: &'m [AtomicU64],
    /// A row a backend id, [`BACKEND_COLUMNS`] wide.
    pub backends: &'m [AtomicU64],
    /// One row, [`WORKER_COLUMNS`] wide.
    pub worker: &'m [AtomicU64],
}

/// Adds to a cell that only this worker writes.
#[inline]
fn add(cell: Option<&AtomicU64>, n: u64) {
    if let Some(cell) = cell {
        cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
    }
}

/// The rows of listeners and backends, for packets that are forwarded.
#[derive(Clone, Copy)]
pub(crate) struct Traffic<'m> {
    listeners: &'m [[AtomicU64; LISTENER_COLUMNS.len()]],
    backends: &'m [[AtomicU64; BACKEND_COLUMNS.len()]],
}

impl Traffic<'_> {
    /// Counts a packet of so many bytes: 0 is a client's, 1 a backend's.
    #[inline(always)]
    pub(crate) fn add(self, listener: ListenerSlot, backend: BackendId, way: usize, bytes: u16) {
        let columns = |first: usize| first + 2 * (way & 1);
        let rows = (self.listeners.get(listener.0 as usize), self.backends.get(backend.0 as usize));
        if let Some(row) = rows.0 {
            add_traffic(row, columns(ListenerColumn::PacketsIn as usize), bytes.into());
        }
        if let Some(row) = rows.1 {
            add_traffic(row, columns(BackendColumn::PacketsTo as usize), bytes.into());
        }
    }
}

impl<'m> Counters<'m> {
    #[inline(always)]
    pub(crate) fn traffic(&self) -> Traffic<'m> {
        Traffic { listeners: self.listeners.as_chunks().0, backends: self.backends.as_chunks().0 }
    }

    #[inline]
    pub(crate) fn drop(&self, reason: DropReason) {
        add(self.drops.get(reason as usize), 1);
    }

    #[inline]
    pub(crate) fn worker(&self, column: WorkerColumn, n: u64) {
        add(self.worker.get(column as usize), n);
    }

    #[inline]
    pub(crate) fn set_worker(&self, column: WorkerColumn, value: u64) {
        if let Some(cell) = self.worker.get(column as usize) {
            cell.store(value, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn listener(&self, slot: ListenerSlot, column: ListenerColumn, n: u64) {
        let row = slot.0 as usize * LISTENER_COLUMNS.len();
        add(self.listeners.get(row + column as usize), n);
    }

    /// Two columns side by side, `first` and the one after it: packets and bytes.
    #[inline]
    pub(crate) fn listener_traffic(&self, slot: ListenerSlot, first: ListenerColumn, bytes: u64) {
        let cell = slot.0 as usize * LISTENER_COLUMNS.len() + first as usize;
        add_traffic(self.listeners, cell, bytes);
    }

    #[inline]
    pub(crate) fn backend(&self, id: BackendId, column: BackendColumn, n: u64) {
        let row = id.0 as usize * BACKEND_COLUMNS.len();
        add(self.backends.get(row + column as usize), n);
    }

    /// Two columns side by side, `first` and the one after it: packets and bytes.
    #[inline]
    pub(crate) fn backend_traffic(&self, id: BackendId, first: BackendColumn, bytes: u64) {
        let cell = id.0 as usize * BACKEND_COLUMNS.len() + first as usize;
        add_traffic(self.backends, cell, bytes);
    }
}

#[inline(always)]
fn add_traffic(table: &[AtomicU64], cell: usize, bytes: u64) {
    if let Some([packets, octets]) = table.get(cell..).and_then(|cells| cells.first_chunk::<2>()) {
        add(Some(packets), 1);
        add(Some(octets), bytes);
    }
}
