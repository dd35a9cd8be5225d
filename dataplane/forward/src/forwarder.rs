//! One worker's forwarder: its flows, and the corridor that a burst walks.

mod dsr;
mod echo;
mod icmp_error;
mod owners;
mod pieces;
mod refusal;
mod resets;
mod strangers;

use std::sync::Arc;

use crate::answer::{self, Allowance};
use crate::counters::{Counters, WorkerColumn};
use crate::exit;
use crate::express::{self, Lane};
use crate::flow::cut::Cuts;
use crate::flow::expire::{self, Sweep};
use crate::flow::hash::FlowHash;
use crate::flow::{Direction, Entry, FlowInfo, FlowKey, FlowMemory, FlowTable, look_up, track};
use crate::fragment::datagrams::Datagrams;
use crate::fragment::{DatagramIdx, Settled};
use crate::journey::{PacketSet, Walk};
use crate::next_hop::{self, BackendHops};
use crate::owner::Ownership;
use crate::parse::{self, parse};
use crate::rewrite::port_walk::PortWalks;
use crate::rewrite::{self, mss};
use crate::snapshot::Snapshot;
use crate::spread::Spread;
use crate::{Burst, CameBy, DropReason, Exit, NextHopKey, Tick, WorkerIdx};

pub use owners::Placed;
#[cfg(test)]
pub(crate) use refusal::RSTS;
pub use resets::RST_FRAME;

/// One worker's state between bursts.
pub struct Forwarder<'m> {
    ownership: Ownership,
    placed: Placed,
    flows: FlowTable<'m>,
    counters: Counters<'m>,
    walks: PortWalks,
    sweep: Sweep,
    cuts: Cuts,
    datagrams: Datagrams,
    icmp_allowances: answer::Allowances,
    echo_allowance: Allowance,
    rst_allowance: Allowance,
    backend_hops: BackendHops,
    walk: Box<Walk>,
    lane: Lane,
}

impl<'m> Forwarder<'m> {
    /// A forwarder with no flows.
    ///
    /// * `me` is below `workers`, and `workers` the same for all workers of the box.
    /// * `secret` keys the hashes, and is the same for all workers: owners depend on it.
    #[must_use]
    pub fn new(
        me: WorkerIdx,
        workers: u8,
        secret: [u8; 32],
        memory: FlowMemory<'m>,
        counters: Counters<'m>,
    ) -> Self {
        assert!(me.0 < workers, "worker {} of {workers}", me.0);
        let hash = FlowHash::new(&secret);
        let lane = Lane::available(&hash).pop().unwrap_or(Lane::Portable);
        Self {
            ownership: Ownership::new(me, workers),
            placed: Placed::default(),
            datagrams: Datagrams::new(me, workers, &hash),
            icmp_allowances: answer::Allowances::default(),
            echo_allowance: Allowance::default(),
            rst_allowance: Allowance::default(),
            flows: FlowTable::new(memory, hash, counters),
            counters,
            walks: PortWalks::new(),
            sweep: Sweep::default(),
            cuts: Cuts::new(),
            backend_hops: BackendHops::new(),
            walk: Box::default(),
            lane,
        }
    }

    /// Owners are told by what the box's NICs hash, too. The same for all workers, from the first packet on.
    #[must_use]
    pub fn with_spread(mut self, spread: Option<Arc<Spread>>) -> Self {
        self.ownership.spread = spread.filter(|_| !self.ownership.is_alone());
        self
    }

    /// The journey of a burst. Each line is a room, and each room the module of that name.
    ///
    /// A room sees all packets before the next begins, so that their cache misses overlap. Afterwards
    /// every packet has its [`Exit`]. Allocates nothing, takes no lock, logs nothing; no bytes on
    /// the wire make it panic.
    pub fn forward(&mut self, burst: &mut Burst, snapshot: &Snapshot, now: Tick) {
        self.walk.begin();
        let way = express::Way { flows: &mut self.flows, snapshot, now };
        let gone = match burst.came_by() {
            CameBy::Unspread => PacketSet::default(), // most have their flow elsewhere
            _ => self.lane.run(burst, &mut self.walk, way),
        };
        let rest = PacketSet::first(burst.len()).without(gone);
        if !rest.is_empty() {
            self.forward_rest(rest, burst, snapshot, now);
        }
        self.walk.pinned = self.walk.pinned.or(gone);
        self.count(gone, burst);
    }

    /// The kind of CPU that its express lane is built for.
    #[must_use]
    pub fn lane(&self) -> &'static str {
        self.lane.name()
    }

    /// Takes a lane that is not the best, for benches and tests that compare them; whether this CPU has it. `closed`
    /// is none at all.
    #[cfg(any(test, feature = "test-support"))]
    pub fn take_lane(&mut self, name: &str) -> bool {
        let mut lanes = Lane::available(&self.flows.hash).into_iter().chain([Lane::Closed]);
        let lane = lanes.find(|lane| lane.name() == name);
        self.lane = lane.unwrap_or(self.lane);
        lane.is_some()
    }

    /// The corridor. Each line is a room, and each room the module of that name.
    fn forward_rest(&mut self, rest: PacketSet, burst: &mut Burst, snapshot: &Snapshot, now: Tick) {
        parse(rest, burst, &mut self.walk, snapshot);
        if burst.came_by() == CameBy::Unspread {
            self.spread(burst, snapshot);
        }
        look_up::look_up(&mut self.walk, &self.flows);
        track::track(burst, &mut self.walk, &mut self.flows, snapshot, now);
        self.count_look_ups();
        if !self.walk.strangers.is_empty() {
            self.receive_strangers(burst, snapshot, now);
        }
        let (walk, flows, counters) = (&mut *self.walk, &mut self.flows, &self.counters);
        if !walk.syns.is_empty() {
            mss::clamp(burst, walk, flows, snapshot, counters);
        }
        let known = &mut self.backend_hops;
        let plain = walk.pinned.and(walk.plain);
        walk.gone = express::leave(plain, burst, walk, flows, known, snapshot);
        rewrite::rewrite(burst, walk, flows);
        rewrite::dsr::carry_all(burst, walk, flows, known, snapshot, counters);
        next_hop::next_hop(burst, walk, flows, known, snapshot, counters);
        if !walk.too_big.is_empty() {
            self.answer_too_big(burst, snapshot, now);
        }
        if !self.walk.expired.is_empty() {
            self.answer_expired(burst, now);
        }
        self.count_exits(rest, burst);
    }

    /// A frame that was held for `next_hop`, rewritten but for its MAC addresses: looked up again.
    ///
    /// Never panics, whatever the frame holds.
    pub fn resume(&mut self, frame: &mut [u8], next_hop: NextHopKey, snapshot: &Snapshot) -> Exit {
        match parse::parse_leaving(frame) {
            Some((leaving, ip_len)) => {
                next_hop::resume(frame, &leaving, ip_len, next_hop, snapshot)
            }
            None => Exit::Drop(DropReason::Truncated),
        }
    }

    /// Removes flows whose idle timeout has passed, and returns how many. Ends those that nobody serves, where their
    /// listener says so: ask [`Self::resets_due`] afterwards.
    ///
    /// Looks at 64 records or fewer a call; called at least every 50 µs per million flows, it
    /// completes a round about each second. Call it between bursts.
    pub fn expire_some(&mut self, snapshot: &Snapshot, now: Tick) -> usize {
        self.datagrams.expire_some(now);
        let removed =
            self.sweep.step(&mut self.flows, &mut self.cuts, snapshot, &self.counters, now);
        if removed > 0 {
            self.flows.count();
        }
        removed
    }

    /// A datagram for which pieces were kept ([`Exit::Await`]), and what to do with them now. To be asked until
    /// there is none, after each burst and each [`Self::expire_some`]; known pieces are forwarded anew by
    /// [`Burst::learn`].
    #[inline]
    pub fn settled(&mut self) -> Option<(DatagramIdx, Settled)> {
        self.datagrams.settled()
    }

    /// What the rooms left behind of the last burst.
    pub(crate) fn walk(&self) -> &Walk {
        &self.walk
    }

    pub(crate) fn flow_at(&self, entry: Entry) -> Option<FlowInfo> {
        FlowInfo::of(self.flows.flow(entry))
    }

    /// The flow of packets with this key, which way they go, and their key as they leave.
    pub(crate) fn flow_of(&self, key: &FlowKey) -> Option<(FlowInfo, Direction, FlowKey)> {
        let entry = self.flows.find(key, self.flows.hash.tuple(key));
        let flow = entry.is_some().then(|| self.flows.flow(entry))?;
        let leaving = flow.key(entry.direction().opposite()).mirror();
        Some((FlowInfo::of(flow)?, entry.direction(), leaving))
    }

    /// Adds the flows among the next 64 records from `from` on to `page`, and says where to go on; `None`
    /// at the end. Bounded, so that a worker can do it between two bursts; allocates only if `page` has no
    /// room. A flow that comes or goes meanwhile may be missed, none is told twice.
    pub fn flow_page(&self, from: u32, page: &mut Vec<FlowInfo>) -> Option<u32> {
        expire::page(&self.flows, from, page)
    }

    /// The flows, in no particular order. Walks the whole memory: not for the fast path.
    pub fn flows(&self) -> impl Iterator<Item = FlowInfo> {
        expire::list(&self.flows)
    }

    /// Records in use; one whose connection was replaced counts until the sweep has passed it.
    #[must_use]
    pub fn live_flows(&self) -> usize {
        self.flows.live()
    }

    fn count_look_ups(&self) {
        let misses = self.walk.strangers.and(self.walk.tuples).len();
        self.counters.worker(WorkerColumn::FlowHits, u64::from(self.walk.pinned.len()));
        self.counters.worker(WorkerColumn::FlowMisses, u64::from(misses));
    }

    /// What became of packets that took the corridor.
    fn count_exits(&self, rest: PacketSet, burst: &Burst) {
        let mut exits = [0_u64; exit::KINDS];
        for at in rest.iter() {
            let exit = burst.slots[at].exit;
            exits[exit.kind() % exit::KINDS] += 1;
            if let Some(reason) = exit.reason() {
                self.counters.drop(reason);
            }
        }
        let columns = [
            WorkerColumn::Punted,
            WorkerColumn::Sent,
            WorkerColumn::HandedOver,
            WorkerColumn::Held,
            WorkerColumn::Dropped,
            WorkerColumn::Awaiting,
        ];
        for (column, count) in columns.into_iter().zip(exits) {
            self.counters.worker(column, count);
        }
    }

    /// What became of packets that took the express lane, and of the burst.
    #[inline]
    fn count(&self, gone: PacketSet, burst: &Burst) {
        let count = u64::from(gone.len());
        self.counters.worker(WorkerColumn::Express, count);
        self.counters.worker(WorkerColumn::FlowHits, count);
        self.counters.worker(WorkerColumn::Sent, count);
        self.counters.worker(WorkerColumn::Bursts, u64::from(!burst.is_empty()));
        self.counters.worker(WorkerColumn::Packets, burst.len() as u64);
        self.flows.count();
    }
}
