//! A load balancer in a table.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::network::{COUNTER_ROWS, neighbours, network, parse_listeners, ports, routes};
use super::packet::{ANY_PORT, TestPacket, mac_towards};
use crate::fib::Neighbour;
use crate::wire::ethernet::is_tagged;
use crate::wire::ipv6::Ipv6View;
use crate::{
    BACKEND_COLUMNS, BURST, BackendId, Burst, CacheLine, CameBy, Counters, DatagramIdx, DropReason,
    Exit, Explanation, Fib, FlowInfo, FlowKey, FlowMemory, Forwarder, HEADROOM, LISTENER_COLUMNS,
    Learned, Listener, ListenerSlot, MacAddr, NextHopKey, PortIdx, Protocol, PuntClass, RST_FRAME,
    Removal, Removals, RxChecks, Settled, Snapshot, SnapshotBuilder, Spread, Tick, Timeouts,
    WORKER_COLUMNS, WorkerIdx,
};

/// What must become of a packet.
#[derive(Clone, Debug)]
pub enum Leaves {
    /// It is sent, and looks so. Where its source or destination port is [`ANY_PORT`], any will do,
    /// and is meant by [`ANY_PORT`] in the rows that follow.
    Tx(Vec<u8>),
    /// It goes to the kernel, unchanged.
    Punted(PuntClass),
    /// It goes to another worker, unchanged.
    Handed(WorkerIdx),
    /// It waits for this next hop.
    Held(NextHopKey),
    /// It is lost.
    Dropped(DropReason),
}

pub use Leaves::{Dropped, Handed, Held, Punted};

/// A packet that is sent and looks so.
#[expect(non_snake_case, reason = "reads like the variants beside it in a table")]
#[must_use]
pub fn Tx(packet: TestPacket) -> Leaves {
    Leaves::Tx(packet.into())
}

/// A promise: its sentence, the packet in, what leaves, what is counted and nothing else.
pub type Row<'r> = (&'r str, Vec<u8>, Leaves, &'r [&'r str]);

/// Counter tables of one worker, large enough for any test.
struct Cells {
    drops: Vec<AtomicU64>,
    listeners: Vec<AtomicU64>,
    backends: Vec<AtomicU64>,
    worker: Vec<AtomicU64>,
}

impl Cells {
    fn new() -> Self {
        let cells = |n: usize| (0..n).map(|_| AtomicU64::new(0)).collect();
        Self {
            drops: cells(DropReason::ALL.len()),
            listeners: cells(COUNTER_ROWS * LISTENER_COLUMNS.len()),
            backends: cells(COUNTER_ROWS * BACKEND_COLUMNS.len()),
            worker: cells(WORKER_COLUMNS.len()),
        }
    }

    /// Every counter by name, summed over listeners and backends; without gauges, bytes, and the
    /// counts of bursts and packets, which say nothing about one packet, and of the lane it took.
    fn totals(&self) -> Vec<(String, u64)> {
        let mut totals = Vec::new();
        let columns =
            |prefix: &str, columns: &[(&str, &str)], cells: &[AtomicU64], totals: &mut Vec<_>| {
                for (at, (name, _)) in columns.iter().enumerate() {
                    let quiet = name.contains("bytes")
                        || ["flows", "flows_unproven", "bursts", "packets", "express"]
                            .contains(name);
                    if !quiet {
                        let sum = cells
                            .iter()
                            .skip(at)
                            .step_by(columns.len())
                            .map(|cell| cell.load(Relaxed))
                            .sum();
                        totals.push((format!("{prefix}{name}"), sum));
                    }
                }
            };
        columns("", WORKER_COLUMNS, &self.worker, &mut totals);
        columns("listener_", LISTENER_COLUMNS, &self.listeners, &mut totals);
        columns("backend_", BACKEND_COLUMNS, &self.backends, &mut totals);
        for (reason, cell) in DropReason::ALL.iter().zip(&self.drops) {
            totals.push((format!("drop_{}", reason.name()), cell.load(Relaxed)));
        }
        totals
    }
}

/// Workers of one box in a small network, on one port.
///
/// ```text
///  clients ── router 192.0.2.1 ──┬── box: VIPs, local 192.0.2.2 and 10.0.0.2
///                                └── backends, on-link in 10.0.0.0/8, .1 to .40 resolved
/// ```
/// and the same hosts by IPv6, at the addresses of [`Family::V6`](super::Family).
pub struct TestLb<'m> {
    workers: Vec<Forwarder<'m>>,
    cells: Vec<&'m Cells>,
    /// The configuration; replace it to change it.
    pub snapshot: Snapshot,
    /// The clock.
    pub now: Tick,
    /// What [`ANY_PORT`] stands for.
    pub port: u16,
    listeners: Vec<Listener>,
    kept: Vec<(WorkerIdx, DatagramIdx, Vec<u8>)>,
    ended: Vec<(Exit, Vec<u8>)>,
}

/// What the workers of a [`TestLb`] live in.
pub struct TestMemory {
    capacity: usize,
    tables: Vec<Vec<CacheLine>>,
    cells: Vec<Cells>,
}

impl TestMemory {
    /// Room for `capacity` flows on each of `workers`.
    #[must_use]
    pub fn new(workers: u8, capacity: usize) -> Self {
        let table = vec![CacheLine::ZERO; FlowMemory::lines_for(capacity)];
        let cells = (0..workers).map(|_| Cells::new()).collect();
        Self { capacity, tables: vec![table; usize::from(workers)], cells }
    }
}

impl TestLb<'static> {
    /// One worker with the listeners of `spec`, one a line:
    /// `192.0.2.10:80/tcp mode=full-nat backend=10.0.0.3:8080 backend=10.0.0.4:80*2 snat=10.0.0.200 refused=1`
    /// (`*2` is a weight, `*drain` drains; ports may be a range `80-90`; policies are words such as
    /// `on-unknown=reset`).
    #[must_use]
    pub fn with(spec: &str) -> Self {
        Self::with_workers(1, spec)
    }

    /// As [`Self::with`], with more workers.
    #[must_use]
    pub fn with_workers(workers: u8, spec: &str) -> Self {
        Self::sized(workers, 1024, spec)
    }

    /// As [`Self::with_workers`], with room for `capacity` flows a worker.
    #[must_use]
    pub fn sized(workers: u8, capacity: usize, spec: &str) -> Self {
        let TestMemory { capacity, tables, cells } = TestMemory::new(workers, capacity);
        let tables = tables.into_iter().map(Vec::leak);
        let cells = cells.into_iter().map(|cells| &*Box::leak(Box::new(cells)));
        Self::assemble(capacity, tables, cells.collect(), spec)
    }
}

impl<'m> TestLb<'m> {
    /// As [`TestLb::with`], in memory that the test gives and gets back.
    #[must_use]
    pub fn in_memory(memory: &'m mut TestMemory, spec: &str) -> Self {
        let TestMemory { capacity, tables, cells } = memory;
        let tables = tables.iter_mut().map(Vec::as_mut_slice);
        Self::assemble(*capacity, tables, cells.iter().collect(), spec)
    }

    fn assemble(
        capacity: usize,
        tables: impl Iterator<Item = &'m mut [CacheLine]>,
        cells: Vec<&'m Cells>,
        spec: &str,
    ) -> Self {
        let workers = u8::try_from(cells.len()).expect("255 workers at most");
        let forwarder = |(worker, (lines, cells)): (u8, (&'m mut [CacheLine], &&'m Cells))| {
            let memory = FlowMemory::new(lines, capacity).expect("memory for the test");
            let counters = Counters {
                drops: &cells.drops,
                listeners: &cells.listeners,
                backends: &cells.backends,
                worker: &cells.worker,
            };
            Forwarder::new(WorkerIdx(worker), workers, [42; 32], memory, counters)
        };
        let workers = (0..).zip(tables.zip(&cells)).map(forwarder).collect();
        let listeners = parse_listeners(spec);
        let snapshot = network(&listeners).build(1).expect("a snapshot for the test");
        Self {
            workers,
            cells,
            snapshot,
            now: Tick(1000),
            port: ANY_PORT,
            listeners,
            kept: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Tells owners by what a NIC hashes. To be called before the first packet.
    #[must_use]
    pub fn with_spread(mut self, spread: Spread) -> Self {
        let spread = Some(Arc::new(spread));
        let told = |worker: Forwarder<'m>| worker.with_spread(spread.clone());
        self.workers = self.workers.into_iter().map(told).collect();
        self
    }

    /// Checks the rows in order, each a promise. A packet for another worker is not taken there.
    ///
    /// # Panics
    /// When a promise is broken, with its sentence.
    pub fn check(&mut self, rows: &[Row]) {
        for (promise, frame, leaves, counted) in rows {
            let before = self.cells[0].totals();
            let mut frame = frame.clone();
            self.fill_in_port(&mut frame);
            let arrived = frame.clone();
            let (exit, left) = self.send_to(WorkerIdx(0), frame);
            self.compare(promise, &arrived, exit, &left, leaves);
            let mut rose: Vec<String> = before
                .iter()
                .zip(self.cells[0].totals())
                .flat_map(|((name, before), (_, after))| {
                    std::iter::repeat_n(name.clone(), usize::try_from(after - before).unwrap_or(0))
                })
                .collect();
            let mut expected: Vec<String> = counted.iter().map(|name| (*name).to_owned()).collect();
            rose.sort();
            expected.sort();
            assert_eq!(rose, expected, "{promise}: what is counted");
        }
    }

    fn compare(&mut self, promise: &str, arrived: &[u8], exit: Exit, left: &[u8], leaves: &Leaves) {
        match leaves {
            Leaves::Tx(expected) => {
                assert_eq!(exit, Exit::Send(PortIdx(0)), "{promise}");
                let mut expected = expected.clone();
                self.learn_port(&expected, left);
                self.fill_in_port(&mut expected);
                assert_eq!(left, expected, "{promise}: bytes that leave, then bytes expected");
            }
            Leaves::Punted(class) => assert_eq!(exit, Exit::Punt(*class), "{promise}"),
            Leaves::Handed(worker) => assert_eq!(exit, Exit::HandOver(*worker), "{promise}"),
            Leaves::Held(key) => assert_eq!(exit, Exit::Hold(*key), "{promise}"),
            Leaves::Dropped(reason) => assert_eq!(exit, Exit::Drop(*reason), "{promise}"),
        }
        if let Leaves::Punted(_) | Leaves::Handed(_) = leaves {
            assert_eq!(left, arrived, "{promise}: unchanged");
        }
    }

    /// Sends one frame to a worker; how it leaves, and its bytes then.
    ///
    /// # Panics
    /// Never: one packet goes in, and one comes out.
    pub fn send_to(&mut self, worker: WorkerIdx, frame: Vec<u8>) -> (Exit, Vec<u8>) {
        self.send_as(CameBy::Queue, worker, frame)
    }

    /// As [`Self::send_to`], of a frame that comes in so.
    ///
    /// # Panics
    /// Never: one packet goes in, and one comes out.
    pub fn send_as(
        &mut self,
        came_by: CameBy,
        worker: WorkerIdx,
        frame: Vec<u8>,
    ) -> (Exit, Vec<u8>) {
        self.send_burst_as(came_by, worker, vec![frame]).pop().expect("the packet pushed")
    }

    /// What a worker says would become of a packet.
    #[must_use]
    pub fn explain(&self, worker: WorkerIdx, key: &FlowKey) -> Explanation {
        self.explain_as(worker, key, false)
    }

    /// What a worker says would become of a packet that another has `handed` to it, or not.
    #[must_use]
    pub fn explain_as(&self, worker: WorkerIdx, key: &FlowKey, handed: bool) -> Explanation {
        self.workers[usize::from(worker.0)].explain(key, &self.snapshot, handed)
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> u8 {
        self.workers.len() as u8
    }

    /// Sends frames to a worker as one burst; how each leaves, and its bytes then.
    pub fn send_burst(&mut self, worker: WorkerIdx, frames: Vec<Vec<u8>>) -> Vec<(Exit, Vec<u8>)> {
        self.send_burst_as(CameBy::Queue, worker, frames)
    }

    /// As [`Self::send_burst`], of frames that come in so.
    pub fn send_burst_as(
        &mut self,
        came_by: CameBy,
        worker: WorkerIdx,
        frames: Vec<Vec<u8>>,
    ) -> Vec<(Exit, Vec<u8>)> {
        let mut buffers: Vec<_> = frames.into_iter().map(|frame| buffer_of(&frame)).collect();
        let mut burst = Burst::that_came_by(came_by);
        for buffer in &mut buffers {
            assert!(burst.push(buffer, PortIdx(0), RxChecks::default()), "a burst at most");
        }
        self.workers[usize::from(worker.0)].forward(&mut burst, &self.snapshot, self.now);
        let left = burst.iter().map(|packet| (packet.exit(), packet.frame().to_vec())).collect();
        self.settle(worker);
        left
    }

    /// Sends a frame to a worker and does what a caller of the forwarder does: follows hand-overs, keeps pieces
    /// of datagrams that wait, forwards them when they are known. Every packet that ended by it, in order.
    pub fn carry(&mut self, worker: WorkerIdx, frame: impl Into<Vec<u8>>) -> Vec<(Exit, Vec<u8>)> {
        self.carry_with(CameBy::Queue, worker, &frame.into(), None);
        std::mem::take(&mut self.ended)
    }

    fn carry_with(
        &mut self,
        came_by: CameBy,
        worker: WorkerIdx,
        frame: &[u8],
        learned: Option<Learned>,
    ) {
        let mut buffer = buffer_of(frame);
        let mut burst = Burst::that_came_by(came_by);
        burst.push(&mut buffer, PortIdx(0), RxChecks::default());
        if let Some(learned) = learned {
            burst.learn(0, learned);
        }
        self.workers[usize::from(worker.0)].forward(&mut burst, &self.snapshot, self.now);
        let packet = burst.iter().next().expect("the packet pushed");
        let (exit, learned, frame) = (packet.exit(), packet.learned(), packet.frame().to_vec());
        match exit {
            Exit::HandOver(owner) => {
                assert_ne!(owner, worker, "to another worker");
                self.carry_with(CameBy::Handed, owner, &frame, learned);
            }
            Exit::Await(datagram) => self.kept.push((worker, datagram, frame)),
            exit => self.ended.push((exit, frame)),
        }
        self.settle(worker);
    }

    /// Lets go the pieces whose datagrams settled.
    fn settle(&mut self, worker: WorkerIdx) {
        while let Some((datagram, settled)) = self.workers[usize::from(worker.0)].settled() {
            let kept = std::mem::take(&mut self.kept);
            let (free, kept) =
                kept.into_iter().partition(|kept| (kept.0, kept.1) == (worker, datagram));
            self.kept = kept;
            for (_, _, frame) in free {
                match settled {
                    Settled::Known(learned) => {
                        self.carry_with(CameBy::Queue, worker, &frame, Some(learned));
                    }
                    Settled::Lost(reason) => self.ended.push((Exit::Drop(reason), frame)),
                }
            }
        }
    }

    /// Pieces of datagrams that are kept now.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Packets that ended while time passed.
    pub fn take_ended(&mut self) -> Vec<(Exit, Vec<u8>)> {
        std::mem::take(&mut self.ended)
    }

    /// Sends a frame to a worker and follows it when it is handed over; the worker where it ended, how, its bytes.
    ///
    /// # Panics
    /// If it does not end.
    pub fn send_and_follow(
        &mut self,
        worker: WorkerIdx,
        frame: Vec<u8>,
    ) -> (WorkerIdx, Exit, Vec<u8>) {
        self.follow(CameBy::Queue, worker, frame)
    }

    /// As [`Self::send_and_follow`], of a frame that comes in so.
    ///
    /// # Panics
    /// If it does not end.
    pub fn follow(
        &mut self,
        mut came_by: CameBy,
        mut worker: WorkerIdx,
        mut frame: Vec<u8>,
    ) -> (WorkerIdx, Exit, Vec<u8>) {
        for _ in 0..4 {
            match self.send_as(came_by, worker, frame) {
                (Exit::HandOver(owner), same) => {
                    assert_ne!(owner, worker, "to another worker");
                    (came_by, worker, frame) = (CameBy::Handed, owner, same);
                }
                (exit, frame) => return (worker, exit, frame),
            }
        }
        panic!("handed over again and again");
    }

    /// Lets time pass, sweeping as often as a worker would.
    pub fn wait_ms(&mut self, ms: u32) {
        for _ in 0..ms {
            self.now = self.now.plus_ms(1);
            for worker in &mut self.workers {
                worker.expire_some(&self.snapshot, self.now);
            }
            for worker in 0..self.workers.len() {
                self.settle(WorkerIdx(worker as u8));
            }
        }
    }

    /// Lets time pass with nobody awake, then sweeps a whole round.
    pub fn sleep_ms(&mut self, ms: u32) {
        self.now = self.now.plus_ms(ms);
        for worker in &mut self.workers {
            for _ in 0..worker.live_flows() + 2 {
                worker.expire_some(&self.snapshot, self.now);
            }
        }
        for worker in 0..self.workers.len() {
            self.settle(WorkerIdx(worker as u8));
        }
    }

    /// A worker.
    #[must_use]
    pub fn worker(&self, worker: WorkerIdx) -> &Forwarder<'m> {
        &self.workers[usize::from(worker.0)]
    }

    /// A worker, to be worked with.
    pub fn worker_mut(&mut self, worker: WorkerIdx) -> &mut Forwarder<'m> {
        &mut self.workers[usize::from(worker.0)]
    }

    /// The flows of all workers.
    pub fn flows(&self) -> Vec<FlowInfo> {
        self.workers.iter().flat_map(Forwarder::flows).collect()
    }

    /// A cell of a worker's own row, by its name among [`WORKER_COLUMNS`].
    #[must_use]
    pub fn worker_counter(&self, worker: WorkerIdx, name: &str) -> u64 {
        let column = WORKER_COLUMNS.iter().position(|column| column.0 == name);
        let cells = &self.cells[usize::from(worker.0)].worker;
        cells[column.expect("a column of that name")].load(Relaxed)
    }

    /// Every counter of a worker that [`Self::check`] looks at, by name.
    #[must_use]
    pub fn counted(&self, worker: WorkerIdx) -> Vec<(String, u64)> {
        self.cells[usize::from(worker.0)].totals()
    }

    /// The sum of a counter over workers, by its name in [`Self::check`], or of a gauge or byte count.
    #[must_use]
    pub fn backend_gauge(&self, id: BackendId, column: usize) -> u64 {
        let at = id.0 as usize * BACKEND_COLUMNS.len() + column;
        self.cells.iter().fold(0, |sum, cells| sum.wrapping_add(cells.backends[at].load(Relaxed)))
    }

    /// Listeners as the spec of [`Self::with`] says from now on; ids go by address, so that a backend
    /// keeps its own.
    pub fn reconfigure(&mut self, spec: &str) {
        self.listeners = parse_listeners(spec);
        let builder = network(&self.listeners);
        self.install(&builder);
    }

    /// From now on flows end that nobody serves, those of every listener after the same grace.
    pub fn end_unserved(&mut self, grace_ms: u32) {
        let removal = Removal { since: self.now, ranges_since: self.now, grace_ms };
        let listeners = (0..COUNTER_ROWS as u32).map(|slot| (ListenerSlot(slot), removal));
        let mut builder = self.builder();
        builder.removals(Removals::new(self.snapshot.version() + 1, listeners, []));
        self.install(&builder);
    }

    /// The RSTs of connections that a worker has cut, as they leave.
    pub fn take_resets(&mut self, worker: WorkerIdx) -> Vec<(Exit, Vec<u8>)> {
        let forwarder = &mut self.workers[usize::from(worker.0)];
        let mut left = Vec::new();
        while forwarder.resets_due() > 0 {
            let frames = forwarder.resets_due().min(BURST);
            let mut buffers = vec![buffer_of(&[0xa5; RST_FRAME]); frames];
            let mut burst = Burst::new();
            for buffer in &mut buffers {
                burst.push(buffer, PortIdx(0), RxChecks::default());
            }
            forwarder.write_resets(&mut burst, &self.snapshot);
            left.extend(burst.iter().map(|packet| (packet.exit(), packet.frame().to_vec())));
        }
        left
    }

    /// The builder of the configuration as it is, to be changed and given to [`Self::install`].
    #[must_use]
    pub fn builder(&self) -> SnapshotBuilder {
        SnapshotBuilder::from_snapshot(&self.snapshot)
    }

    /// The next version of the configuration.
    ///
    /// # Panics
    /// If the builder refuses.
    pub fn install(&mut self, builder: &SnapshotBuilder) {
        let version = self.snapshot.version() + 1;
        self.snapshot = builder.build(version).expect("a snapshot for the test");
    }

    /// The test network with one more neighbour.
    pub fn resolve(&mut self, address: IpAddr) {
        self.move_neighbour(address, mac_towards(address));
    }

    /// The test network with a neighbour at another MAC address.
    pub fn move_neighbour(&mut self, address: IpAddr, mac: MacAddr) {
        let version = self.snapshot.fib().version() + 1;
        let mut neighbours = neighbours();
        neighbours.push(Neighbour { port: PortIdx(0), address, mac });
        let mut builder = self.builder();
        builder.fib(Arc::new(Fib::build(version, &ports(), &routes(), &neighbours)));
        self.install(&builder);
    }

    /// Other timeouts.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        let mut builder = self.builder();
        builder.timeouts(timeouts);
        self.install(&builder);
    }

    /// Writes the remembered port where a frame says [`ANY_PORT`], and mends the L4 checksum.
    fn fill_in_port(&self, frame: &mut [u8]) {
        for at in port_offsets(frame) {
            if frame[at..at + 2] == ANY_PORT.to_be_bytes() && self.port != ANY_PORT {
                frame[at..at + 2].copy_from_slice(&self.port.to_be_bytes());
                mend_checksum(frame, self.port);
            }
        }
    }

    fn learn_port(&mut self, expected: &[u8], left: &[u8]) {
        for at in port_offsets(expected) {
            if expected[at..at + 2] == ANY_PORT.to_be_bytes() && left.len() > at + 2 {
                self.port = u16::from_be_bytes([left[at], left[at + 1]]);
            }
        }
    }
}

/// A frame with the room before it that a forwarder wants.
#[must_use]
pub fn buffer_of(frame: &[u8]) -> Vec<u8> {
    [&[0xa5; HEADROOM], frame].concat()
}

/// Where the L4 ports of a TCP or UDP frame lie.
fn port_offsets(frame: &[u8]) -> Vec<usize> {
    match l4_of(frame) {
        Some((l4, _)) if frame.len() >= l4 + 8 => vec![l4, l4 + 2],
        _ => vec![],
    }
}

/// Where the TCP or UDP header begins, and which it is.
fn l4_of(frame: &[u8]) -> Option<(usize, Protocol)> {
    let l3 = if is_tagged(frame) { 18 } else { 14 };
    let (header_len, number) = if frame.get(l3)? >> 4 == 6 {
        let upper = Ipv6View::new(frame.get(l3..)?).ok()?.upper().ok()?;
        (40 + upper.extensions_len, upper.protocol)
    } else {
        (usize::from(frame[l3] & 0x0f) * 4, *frame.get(l3 + 9)?)
    };
    Some((l3 + header_len, Protocol::from_number(number)?))
}

/// Makes an L4 checksum that was right with a zero port right with `port`.
fn mend_checksum(frame: &mut [u8], port: u16) {
    let Some((l4, protocol)) = l4_of(frame) else { return };
    let at = l4 + if protocol == Protocol::Tcp { 16 } else { 6 };
    if frame.len() < at + 2 || frame[at..at + 2] == [0, 0] {
        return;
    }
    let sum = !u16::from_be_bytes([frame[at], frame[at + 1]]);
    let (sum, carry) = sum.overflowing_add(port);
    frame[at..at + 2].copy_from_slice(&(!(sum + u16::from(carry))).to_be_bytes());
}
