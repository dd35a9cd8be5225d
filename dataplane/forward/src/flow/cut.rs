//! Flows that end because nobody serves them any more ([`removal`](crate::removal)), and the RSTs that say so.
//!
//! A RST is believed at the very number that its receiver expects next (RFC 5961 §3.2), which is what it acknowledged
//! last. That it has acknowledged everything by now is likely and no more: acknowledgements are delayed, and some are
//! on their way. So the flow stays, cut: it lets nothing through but RSTs, and its ends, which go on to send or repeat
//! what is not acknowledged, are each answered by a RST at the number that they say they expect (RFC 9293
//! §3.10.7.1). With DSR, where we do not hear what the client expects, that is all: it is told when it sends next, and
//! then tells its backend, whose data it refuses.
//!
//! A handshake without an answer, and a UDP flow, are forgotten: the client's next packet finds another backend.
//!
//! Bounded: so many connections a second and worker ([`CONNECTIONS`]), [`QUEUE`] RSTs under way; those who are not in time are
//! found again in the next round of the sweep.

use std::collections::VecDeque;

use super::memory::Flow;
use super::state::{Direction, FlowState};
use super::table::FlowTable;
use crate::Tick;
use crate::answer::{Allowance, Limit};
use crate::counters::{Counters, ListenerColumn, WorkerColumn};
use crate::removal::Removals;
use crate::rewrite::reset::Rst;
use crate::snapshot::Snapshot;

/// RSTs that wait to be sent.
const QUEUE: usize = 64;
/// Connections that are cut.
const CONNECTIONS: Limit = Limit { at_once: 32, per_second: 16_000 };

/// The RSTs of connections that were cut.
#[derive(Debug)]
pub(crate) struct Cuts {
    queue: VecDeque<Rst>,
    allowance: Allowance,
}

impl Cuts {
    pub(crate) fn new() -> Self {
        Self { queue: VecDeque::with_capacity(QUEUE), allowance: Allowance::default() }
    }

    /// How many wait.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The one that has waited for longest.
    pub(crate) fn next(&mut self) -> Option<Rst> {
        self.queue.pop_front()
    }

    /// Ends the flow of a record, if its time has come and there is room for its RSTs.
    #[inline(never)]
    pub(crate) fn look_at(
        &mut self,
        flows: &mut FlowTable,
        record: usize,
        snapshot: &Snapshot,
        counters: &Counters,
        now: Tick,
    ) {
        let flow = flows.memory.flow(record);
        let Some(state) = flow.state().filter(|state| !state.is_over() && state.is_live()) else {
            return;
        };
        let Some(end) = snapshot.end_of(flow) else {
            flows.memory.records[record].link = snapshot.version(); // it serves: not to be asked again
            return;
        };
        if end.since(now) > 0 {
            return;
        }
        let listener = flow.listener();
        let is_connection = !state.is_udp() && state != FlowState::SynSent;
        if is_connection {
            let rsts = rsts(flow, state);
            if self.queue.len() + rsts.len() > QUEUE || !self.allowance.take(CONNECTIONS, now) {
                return;
            }
            self.queue.extend(rsts.into_iter().flatten());
            flows.cut(record, now);
        } else {
            flows.remove(record);
        }
        counters.listener(listener, ListenerColumn::FlowsReset, 1);
        counters.worker(WorkerColumn::FlowsReset, 1);
        flows.count();
    }
}

/// Whether the sweep is to look closer at a flow.
#[inline]
pub(crate) fn concern(removals: Option<&Removals>, flow: Flow) -> bool {
    removals.is_some_and(|removals| removals.concern(&flow))
}

/// A RST to each end, at the number that it acknowledged last.
fn rsts(flow: Flow, state: FlowState) -> [Option<Rst>; 2] {
    if flow.is_dsr() {
        return [None; 2];
    }
    // Of a handshake that is not complete we keep the number of the backend's SYN itself.
    let syn = u32::from(state == FlowState::SynAcked);
    let [by_client, by_backend] = flow.acknowledged.map(u32::from_be_bytes);
    let expected = [by_client.wrapping_add(syn), by_backend];
    [Direction::Forward, Direction::Reply].map(|by| {
        let (leaving, at) = (flow.key(by).mirror(), by as usize);
        Some(Rst { leaving, sequence: expected[at], acknowledgement: expected[1 - at] })
    })
}
