//! The way of nearly every packet: plain, of an established flow, to a next hop whose MAC address is known.
//!
//! Three turns, so that cache misses overlap: headers to buckets, buckets to records, and, with the record at hand,
//! the rest of the way in one turn. Whatever leaves a question open stays as it came, and takes the corridor of rooms.
//! Each question here is a room's, asked at fixed offsets; property tests hold the two to one answer.
//!
//! ```text
//!  first part    hash │ find │ send │
//!  second             │ hash │ find │ send
//!  third                     │ hash │ find │ …
//! ```
//! A burst goes in parts, so that one is worked on while the lines of the next are on their way: at a million flows a
//! packet takes 93 TSC cycles in parts of 8, 99 in parts of 16.

mod cpu;

use crate::burst::{Arrival, Slot};
use crate::counters::Traffic;
use crate::exit::ShortExit;
use crate::fib::Ready;
use crate::flow::look_up::prefetch;
use crate::flow::{Entry, Flow, FlowRecord, FlowTable, track};
use crate::journey::{PacketSet, Walk};
use crate::next_hop::{self, BackendHops};
use crate::parse::plain::{Expected, Head, HeadV4, HeadV6};
use crate::rewrite::{self, dsr};
use crate::snapshot::Snapshot;
use crate::wire::checksum;
use crate::{BackendId, Burst, Protocol, Tick};

use cpu::Cpu;
pub(crate) use cpu::Lane;

/// Packets that take a turn together.
const PART: usize = 8;
const TCP: u8 = Protocol::Tcp.number();
const UDP: u8 = Protocol::Udp.number();

/// What the turns share of a worker and its snapshot.
pub(crate) struct Way<'w, 'm> {
    pub(crate) flows: &'w mut FlowTable<'m>,
    pub(crate) snapshot: &'w Snapshot,
    pub(crate) now: Tick,
}

/// The packets that have left this way. Of the others that are plain, `walk` then has the hashes and entries.
#[inline(always)]
fn express<C: Cpu>(cpu: C, burst: &mut Burst, walk: &mut Walk, way: Way) -> PacketSet {
    let Way { flows, snapshot, now } = way;
    let Some(mut arriving) = Arriving::first_of(burst, snapshot) else {
        return PacketSet::default();
    };
    let terms = Terms::of(snapshot, flows, now);
    let parts = burst.len().div_ceil(PART);
    let mut sent = PacketSet::default();
    for turn in 0..parts + 2 {
        if turn < parts {
            hash(turn * PART, cpu, burst, walk, &mut arriving, flows);
        }
        if (1..=parts).contains(&turn) {
            find(walk.plain.among((turn - 1) * PART, PART), cpu, walk, flows);
        }
        if turn >= 2 {
            let part = walk.plain.among((turn - 2) * PART, PART);
            sent = sent.or(send_part(part, burst, walk, flows, &terms));
        }
    }
    sent
}

/// How packets arrive, which nearly all of a burst do alike, and what is expected of those that are plain.
struct Arriving<'s> {
    arrival: Arrival,
    expected: Expected,
    snapshot: &'s Snapshot,
}

impl<'s> Arriving<'s> {
    fn first_of(burst: &Burst, snapshot: &'s Snapshot) -> Option<Self> {
        let arrival = burst.slots.first()?.arrival;
        Some(Self { arrival, expected: Self::expected(arrival, snapshot), snapshot })
    }

    fn expected(arrival: Arrival, snapshot: &Snapshot) -> Expected {
        Expected::by(arrival, snapshot.port(arrival.ingress()))
    }

    /// What is expected of this packet.
    #[inline(always)]
    fn of(&mut self, slot: &Slot) -> &Expected {
        if slot.arrival != self.arrival {
            self.arrival = slot.arrival;
            self.expected = Self::expected(slot.arrival, self.snapshot);
        }
        &self.expected
    }
}

/// The first turn: which packets of the part that begins at `from` are plain, their hashes, and their buckets asked
/// for.
#[inline(always)]
fn hash<C: Cpu>(
    from: usize,
    cpu: C,
    burst: &Burst,
    walk: &mut Walk,
    arriving: &mut Arriving,
    flows: &FlowTable,
) {
    let (slots, hashes) = (burst.slots.get(from..), walk.hashes.get_mut(from..));
    let (Some(slots), Some(hashes)) = (slots, hashes) else { return };
    let mut plain = PacketSet::default();
    for ((at, slot), its_hash) in (0..PART).zip(slots).zip(hashes) {
        if let Some(head) = HeadV4::of_plain(slot, arriving.of(slot)) {
            *its_hash = cpu.hash_v4(head);
            flows.ask_for_bucket(*its_hash);
            plain.insert(at);
        }
    }
    let others = PacketSet::first(slots.len().min(PART)).without(plain);
    walk.plain = walk.plain.or(plain.moved_by(from));
    if !others.is_empty() {
        hash_v6(others.moved_by(from), cpu, burst, walk, arriving, flows);
    }
}

/// The same of what is not plainly IPv4: in a turn of its own, so that IPv4 does not pay for IPv6.
#[inline(never)]
fn hash_v6<C: Cpu>(
    packets: PacketSet,
    cpu: C,
    burst: &Burst,
    walk: &mut Walk,
    arriving: &mut Arriving,
    flows: &FlowTable,
) {
    for at in packets.iter() {
        let slot = &burst.slots[at];
        let Some(head) = HeadV6::of_plain(slot, arriving.of(slot)) else { continue };
        let hash = cpu.hash_v6(head);
        flows.ask_for_bucket(hash);
        walk.hashes[at] = hash;
        walk.plain.insert(at);
        walk.wide.insert(at);
    }
}

/// The second turn: the entries that packets probably have, and their records asked for.
#[inline(always)]
fn find<C: Cpu>(part: PacketSet, cpu: C, walk: &mut Walk, flows: &FlowTable) {
    for at in part.iter() {
        let entry = flows.candidate_by(walk.hashes[at], |bucket, tag| cpu.tagged(bucket, tag));
        flows.ask_for_record(entry);
        walk.entries[at] = entry;
    }
    for at in part.and(walk.wide).iter() {
        prefetch(flows.flow(walk.entries[at]).wide());
    }
}

/// What packets are forwarded by, once a burst.
struct Terms<'t, 'm> {
    version: u32,
    fib_version: u32,
    hops: &'t [Ready],
    traffic: Traffic<'m>,
    now: Tick,
}

impl<'t, 'm> Terms<'t, 'm> {
    #[inline(always)]
    fn of(snapshot: &'t Snapshot, flows: &FlowTable<'m>, now: Tick) -> Self {
        let fib = snapshot.fib();
        Self {
            version: snapshot.version(),
            fib_version: fib.version(),
            hops: fib.ready(),
            traffic: flows.traffic(),
            now,
        }
    }

    /// A packet that is as it leaves takes its exit, and is counted.
    #[inline(always)]
    fn send(&self, slot: &mut Slot, record: &FlowRecord, way: usize, hop: &Ready) {
        slot.exit = ShortExit::send(hop.port);
        self.traffic.add(record.listener(), BackendId(record.backend), way, slot.len);
    }
}

/// The third turn: packets of established flows, rewritten and sent; which they are.
#[inline(always)]
fn send_part(
    part: PacketSet,
    burst: &mut Burst,
    walk: &Walk,
    flows: &mut FlowTable,
    terms: &Terms,
) -> PacketSet {
    wait_for_records(part, walk, flows);
    let sent = send::<HeadV4>(part.without(walk.wide), burst, walk, flows, terms);
    let wide = part.and(walk.wide);
    if wide.is_empty() { sent } else { sent.or(send_v6(wide, burst, walk, flows, terms)) }
}

#[inline(never)]
fn send_v6(
    packets: PacketSet,
    burst: &mut Burst,
    walk: &Walk,
    flows: &mut FlowTable,
    terms: &Terms,
) -> PacketSet {
    send::<HeadV6>(packets, burst, walk, flows, terms)
}

#[inline(always)]
fn send<H: Head>(
    packets: PacketSet,
    burst: &mut Burst,
    walk: &Walk,
    flows: &mut FlowTable,
    terms: &Terms,
) -> PacketSet {
    let mut sent = packets;
    for at in packets.iter() {
        if !send_one::<H>(&mut burst.slots[at], walk.entries[at], flows, terms) {
            sent.remove(at);
        }
    }
    sent
}

/// Whether the packet is of the flow, and that is so steady that it left.
#[inline(always)]
fn send_one<H: Head>(slot: &mut Slot, entry: Entry, flows: &mut FlowTable, terms: &Terms) -> bool {
    let Some(head) = H::of_mut(slot.buffer) else { return false };
    let ((record, wide), way) = (H::flow_mut(flows, entry), entry.way());
    let Some(hop) = terms.hops.get(usize::from(record.hops[way])) else { return false };
    let may_go = head.is_of(Flow::new(record, wide), way)
        && record.fib_version == terms.fib_version
        && hop.takes(slot.len)
        && head.hops_left() > 1;
    if !may_go {
        return false;
    }
    let delta = checksum::in_direction(record.l4_delta, way);
    match head.protocol() {
        TCP if track::is_steady_tcp(record, head) => {
            record.acknowledged[way] = head.l4().acknowledged();
            rewrite::update_tcp(&mut head.l4_mut().0, delta);
        }
        UDP if track::is_steady_udp(record, head, way, terms.version) => {
            rewrite::update_udp(&mut head.l4_mut().0, delta);
        }
        _ => return record.is_dsr() && send_dsr::<H>(slot, entry, hop, flows, terms),
    }
    record.last_seen = terms.now.0;
    head.replace_ends(Flow::new(record, wide), way);
    head.link_mut()[..12].copy_from_slice(&hop.macs);
    terms.send(slot, record, way, hop);
    true
}

/// Plain packets whose flows the corridor's first rooms found, moved on or began: they leave as those of steady flows
/// do. Which of them did; the others are as they were.
#[inline(never)]
pub(crate) fn leave(
    packets: PacketSet,
    burst: &mut Burst,
    walk: &Walk,
    flows: &mut FlowTable,
    known: &mut BackendHops,
    snapshot: &Snapshot,
) -> PacketSet {
    for at in packets.iter() {
        next_hop::flow_hop(flows, walk.entries[at], snapshot.fib(), known); // the flow has it from now on
    }
    let terms = Terms::of(snapshot, flows, Tick(0));
    let gone = leave_as::<HeadV4>(packets.without(walk.wide), burst, walk, flows, &terms);
    let wide = packets.and(walk.wide);
    if wide.is_empty() {
        return gone;
    }
    gone.or(leave_as::<HeadV6>(wide, burst, walk, flows, &terms))
}

#[inline(always)]
fn leave_as<H: Head>(
    packets: PacketSet,
    burst: &mut Burst,
    walk: &Walk,
    flows: &mut FlowTable,
    terms: &Terms,
) -> PacketSet {
    let mut gone = PacketSet::default();
    for at in packets.iter() {
        let (entry, slot) = (walk.entries[at], &mut burst.slots[at]);
        let (flow, way) = (flows.flow(entry), entry.way());
        let Some(hop) = terms.hops.get(usize::from(flow.hops[way])) else { continue };
        let has_left = match flow.is_dsr() {
            true => dsr::carry_plain::<H>(slot, flow, hop).is_some(),
            false => rewrite_plain::<H>(slot, flow, way, hop).is_some(),
        };
        if has_left {
            terms.send(slot, &flow, way, hop);
            gone.insert(at);
        }
    }
    gone
}

/// A plain packet as it leaves by `hop`, if it fits.
#[inline(always)]
fn rewrite_plain<H: Head>(slot: &mut Slot, flow: Flow, way: usize, hop: &Ready) -> Option<()> {
    let head = H::of_mut(slot.buffer).filter(|_| hop.takes(slot.len))?;
    let delta = checksum::in_direction(flow.l4_delta, way);
    match head.protocol() {
        TCP => rewrite::update_tcp(&mut head.l4_mut().0, delta),
        _ => rewrite::update_udp(&mut head.l4_mut().0, delta),
    }
    head.replace_ends(flow, way);
    head.link_mut()[..12].copy_from_slice(&hop.macs);
    Some(())
}

/// A packet of a DSR flow, on its way to the backend if the flow is steady; whether it is.
#[inline(never)]
fn send_dsr<H: Head>(
    slot: &mut Slot,
    entry: Entry,
    hop: &Ready,
    flows: &mut FlowTable,
    terms: &Terms,
) -> bool {
    let (Some(head), (record, wide)) = (H::of(slot.buffer), flows.flow_mut(entry)) else {
        return false;
    };
    if !track::is_steady_dsr(record, head, terms.version) {
        return false;
    }
    let sequence = head.l4().sequence();
    if dsr::carry_plain::<H>(slot, Flow::new(record, wide), hop).is_none() {
        return false;
    }
    track::advance_steady_dsr(record, sequence);
    record.last_seen = terms.now.0;
    terms.send(slot, record, 0, hop);
    true
}

/// Reads a word of each record. A CPU drops prefetches beyond what it can have under way, and whoever needs such a
/// line then waits for it alone; these loads wait for all together. At a million flows, without them a packet costs
/// twenty TSC cycles more.
#[inline(always)]
fn wait_for_records(part: PacketSet, walk: &Walk, flows: &FlowTable) {
    let mut seen = 0;
    for at in part.iter() {
        seen ^= flows.record(walk.entries[at]).last_seen;
    }
    std::hint::black_box(seen);
}
