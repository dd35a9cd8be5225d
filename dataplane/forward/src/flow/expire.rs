//! The bounded sweep that removes flows after their idle timeout, and the list of those that live.

use std::net::SocketAddr;

use super::cut::{self, Cuts};
use super::memory::{Flow, FlowRecord};
use super::state::{Direction, FlowState};
use super::table::FlowTable;
use crate::counters::{Counters, WorkerColumn};
use crate::snapshot::Snapshot;
use crate::{BackendId, ListenerSlot, Protocol, Tick};

/// The most records one call looks at.
const STEP: u64 = 64;
/// The time of one round over all records.
const ROUND_MS: u64 = 1000;

/// The pace of the sweep: as many records as the time since the last call has earned.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    last: Tick,
    /// Records due, times [`ROUND_MS`].
    due: u64,
}

impl Sweep {
    /// Looks at no more than 64 records; about one round a second if called often enough.
    /// Returns how many flows it removed.
    pub(crate) fn step(
        &mut self,
        flows: &mut FlowTable,
        cuts: &mut Cuts,
        snapshot: &Snapshot,
        counters: &Counters,
        now: Tick,
    ) -> usize {
        let used = u64::from(flows.memory.header.used());
        self.due += u64::from(now.since(self.last)) * used;
        self.due = self.due.min(used * ROUND_MS);
        self.last = now;
        let steps = (self.due / ROUND_MS).min(STEP);
        self.due -= steps * ROUND_MS;
        let mut removed = 0;
        for _ in 0..steps {
            let record = next(flows);
            removed += usize::from(remove_silent(flows, record, snapshot, now));
            if cut::concern(snapshot.removals(), flows.memory.flow(record)) {
                cuts.look_at(flows, record, snapshot, counters, now);
            }
        }
        counters.worker(WorkerColumn::FlowsExpired, removed as u64);
        removed
    }
}

/// Moves the sweep's hand on, to the record that is looked at next.
fn next(flows: &mut FlowTable) -> usize {
    let header = &mut *flows.memory.header;
    header.sweep = header.after(header.sweep);
    header.sweep as usize
}

/// Frees a record whose flow is out of the table or was silent for too long; whether that was a flow.
fn remove_silent(flows: &mut FlowTable, record: usize, snapshot: &Snapshot, now: Tick) -> bool {
    let flow = &flows.memory.records[record];
    match flow.state() {
        Some(FlowState::Unlinked) => flows.remove(record),
        Some(state) if is_silent(flow, state, snapshot, now) => {
            flows.remove(record);
            return state.is_shown();
        }
        _ => {}
    }
    false
}

fn is_silent(flow: &FlowRecord, state: FlowState, snapshot: &Snapshot, now: Tick) -> bool {
    now.since(Tick(flow.last_seen)) >= snapshot.timeouts_of(flow.listener()).of(state)
}

/// A flow, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowInfo {
    /// The client.
    pub client: SocketAddr,
    /// The VIP and L4 port it asked.
    pub vip: SocketAddr,
    /// The backend that serves it.
    pub backend: SocketAddr,
    /// What the backend sees as source: a SNAT address, or with DNAT the client.
    pub outside: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// What it has lived through.
    pub state: FlowState,
    /// Its listener.
    pub listener: ListenerSlot,
    /// Its backend's stable number.
    pub backend_id: BackendId,
    /// When its last packet came.
    pub last_seen: Tick,
}

impl FlowInfo {
    pub(crate) fn of(flow: Flow) -> Option<Self> {
        let state = flow.state().filter(|state| state.is_shown())?;
        let (forward, reply) = (flow.key(Direction::Forward), flow.key(Direction::Reply));
        Some(Self {
            client: forward.source(),
            vip: forward.destination(),
            backend: reply.source(),
            outside: reply.destination(),
            protocol: forward.protocol()?,
            state,
            listener: flow.listener(),
            backend_id: BackendId(flow.backend),
            last_seen: Tick(flow.last_seen),
        })
    }
}

/// The flows among the next [`STEP`] records, and where to go on.
pub(crate) fn page(flows: &FlowTable, from: u32, page: &mut Vec<FlowInfo>) -> Option<u32> {
    let memory = &flows.memory;
    let mut next = memory.header.used_from(from.max(1));
    for _ in 0..STEP {
        let record = next?;
        page.extend(FlowInfo::of(memory.flow(record as usize)));
        next = memory.header.used_from(record + 1);
    }
    next
}

/// The flows of a table, in no order that means anything.
pub(crate) fn list<'t>(flows: &'t FlowTable) -> impl Iterator<Item = FlowInfo> + 't {
    let memory = &flows.memory;
    let used = |from| memory.header.used_from(from);
    std::iter::successors(used(1), move |record| used(record + 1))
        .filter_map(|record| FlowInfo::of(memory.flow(record as usize)))
}
