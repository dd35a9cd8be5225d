//! The flow table: two keys a connection, one record.
//!
//! A key has a primary and an alternate bucket. It lives in the primary if that has room; if not,
//! in the alternate, and the primary's `overflow` says so; if neither has, another key of the primary moves to its
//! own alternate (cuckoo hashing, Pagh and Rodler 2004, one step deep). Look-up is a compare of eight tags at
//! once, then of the full tuple: a tag alone never decides (VPP's load balancer compares hashes
//! only, and at ten million flows expects twelve thousand that share a backend by accident).

use arrayvec::ArrayVec;

use super::hash::FlowHash;
use super::key::FlowKey;
use super::look_up::prefetch_at;
pub(crate) use super::memory::Bucket;
use super::memory::{BUCKET_ENTRIES, Flow, FlowMemory, FlowRecord, NO_WIDE, NewFlow, Wide};
use super::shares::{self, Shares};
use super::state::{Direction, FlowState};
use super::unproven::ring_of;
use crate::counters::{BackendColumn, Counters, ListenerColumn, Traffic, WorkerColumn};
use crate::{BURST, BackendId, ListenerSlot, Mode, Tick};

/// Records looked at, one after the other, when a full table needs one.
const EVICTION_REACH: usize = 16;

/// A record and the direction in which a key matches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(u32);

const REPLY_BIT: u32 = 1 << 31;

impl Entry {
    /// No entry.
    pub(crate) const NONE: Self = Self(0);

    fn new(record: u32, direction: Direction) -> Self {
        Self(record | if direction == Direction::Reply { REPLY_BIT } else { 0 })
    }

    #[inline]
    pub(crate) fn is_some(self) -> bool {
        self.0 != 0
    }

    #[inline]
    pub(crate) fn direction(self) -> Direction {
        if self.0 & REPLY_BIT == 0 { Direction::Forward } else { Direction::Reply }
    }

    /// The direction as an index into the pairs of a record.
    #[inline(always)]
    pub(crate) fn way(self) -> usize {
        (self.0 >> REPLY_BIT.trailing_zeros()) as usize
    }

    #[inline]
    pub(crate) fn record(self) -> usize {
        (self.0 & !REPLY_BIT) as usize
    }
}

/// Nothing in reach may give way to a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The table has no room.
    Table,
    /// What room it has is for listeners that have less.
    Share,
}

/// The hashes of keys whose primary buckets a burst of new flows needs: of each, that of its replies, and both of a
/// flow that gives way.
pub(crate) type Rooms = ArrayVec<u64, { 3 * BURST }>;

/// For whom others are to give way.
struct Claim {
    listener: ListenerSlot,
    has_its_share: bool,
    now: Tick,
}

/// One worker's flows.
pub(crate) struct FlowTable<'m> {
    pub(crate) memory: FlowMemory<'m>,
    pub(crate) hash: FlowHash,
    counters: Counters<'m>,
    shares: Shares,
    mask: u32,
}

/// Where a hash belongs: its tag, its primary bucket, its alternate.
#[derive(Clone, Copy)]
struct Home {
    tag: u16,
    primary: usize,
    alternate: usize,
}

impl<'m> FlowTable<'m> {
    pub(crate) fn new(memory: FlowMemory<'m>, hash: FlowHash, counters: Counters<'m>) -> Self {
        let mask = u32::try_from(memory.buckets.len() - 1).unwrap_or(u32::MAX);
        Self { memory, hash, counters, shares: Shares::default(), mask }
    }

    pub(crate) fn live(&self) -> usize {
        self.memory.header.live() as usize
    }

    /// The counters of what is forwarded.
    #[inline(always)]
    pub(crate) fn traffic(&self) -> Traffic<'m> {
        self.counters.traffic()
    }

    /// Sets the gauges of the table.
    pub(crate) fn count(&self) {
        let header = &*self.memory.header;
        self.counters.set_worker(WorkerColumn::Flows, header.live().into());
        self.counters.set_worker(WorkerColumn::FlowsUnproven, header.unproven.into());
    }

    #[inline]
    fn home(&self, hash: u64) -> Home {
        let tag = tag_of(hash);
        let primary = self.primary(hash);
        // An odd multiple of the tag: never zero under a mask of at least one, so never the primary
        // itself, and the alternate's alternate is the primary.
        let step = (u32::from(tag).wrapping_mul(0x9e37_79b1) | 1) & self.mask;
        Home { tag, primary: primary as usize, alternate: (primary ^ step) as usize }
    }

    #[inline]
    fn primary(&self, hash: u64) -> u32 {
        (hash >> 32) as u32 & self.mask
    }

    /// The primary bucket of a hash.
    #[inline]
    fn bucket(&self, hash: u64) -> &Bucket {
        &self.memory.buckets[self.primary(hash) as usize]
    }

    /// Asks for the primary bucket of a hash.
    #[inline(always)]
    pub(crate) fn ask_for_bucket(&self, hash: u64) {
        let buckets = self.memory.buckets.as_ptr();
        prefetch_at(buckets.wrapping_add(self.primary(hash) as usize));
    }

    /// Asks for the record of a new unproven flow of a protocol, and notes the buckets that it is written into, and those
    /// of the flow that gives way to it, after `others` that are added before. `reply` is the hash of its replies, if
    /// they come to us.
    #[inline]
    pub(crate) fn ask_for_room(
        &mut self,
        reply: Option<u64>,
        protocol: u8,
        others: usize,
        rooms: &mut Rooms,
    ) {
        rooms.extend(reply);
        match self.memory.gives_way_after(others, protocol) {
            Some(oldest) => self.note_buckets_of(oldest as usize, rooms),
            None => self.memory.ask_for_free(others),
        }
    }

    /// Notes the buckets that a flow is in.
    fn note_buckets_of(&self, record: usize, rooms: &mut Rooms) {
        let flow = self.memory.flow(record);
        rooms.push(self.hash.tuple(&flow.key(Direction::Forward)));
        if !flow.is_dsr() {
            rooms.push(self.hash.tuple(&flow.key(Direction::Reply)));
        }
    }

    /// Reads a word of each bucket: a CPU drops prefetches beyond what it can have under way, and these loads wait for
    /// all together.
    #[inline]
    pub(crate) fn wait_for_rooms(&self, rooms: &Rooms) {
        let seen = rooms.iter().fold(0, |seen, hash| seen ^ self.bucket(*hash).overflow);
        std::hint::black_box(seen);
    }

    /// The first entry of the primary bucket whose tag fits: right nearly always, to be confirmed.
    #[inline]
    pub(crate) fn candidate(&self, hash: u64) -> Entry {
        self.candidate_by(hash, tag_matches)
    }

    /// The same, by another way to compare tags.
    #[inline(always)]
    pub(crate) fn candidate_by(&self, hash: u64, tagged: impl Fn(&Bucket, u16) -> u32) -> Entry {
        let bucket = self.bucket(hash);
        let tagged = tagged(bucket, tag_of(hash));
        if tagged == 0 {
            return Entry::NONE;
        }
        Entry(bucket.entries[tagged.trailing_zeros() as usize % BUCKET_ENTRIES])
    }

    /// Asks for a flow's record.
    #[inline(always)]
    pub(crate) fn ask_for_record(&self, entry: Entry) {
        prefetch_at(self.memory.records.as_ptr().wrapping_add(entry.record()));
    }

    /// What IPv4 packets need of a flow.
    #[inline]
    pub(crate) fn record(&self, entry: Entry) -> &FlowRecord {
        &self.memory.records[entry.record()]
    }

    #[inline]
    pub(crate) fn flow(&self, entry: Entry) -> Flow<'_> {
        self.memory.flow(entry.record())
    }

    /// A flow whose record is to be written, and its wide line.
    #[inline(always)]
    pub(crate) fn flow_mut(&mut self, entry: Entry) -> (&mut FlowRecord, &Wide) {
        self.memory.flow_mut(entry.record())
    }

    /// The same where nobody asks for the wide line.
    #[inline(always)]
    pub(crate) fn narrow_flow_mut(&mut self, entry: Entry) -> (&mut FlowRecord, &Wide) {
        (self.record_mut(entry), &NO_WIDE)
    }

    #[inline(always)]
    pub(crate) fn record_mut(&mut self, entry: Entry) -> &mut FlowRecord {
        &mut self.memory.records[entry.record()]
    }

    /// The entry of `key`, given a [`Self::candidate`] to try first.
    #[inline(always)]
    pub(crate) fn confirm(&self, candidate: Entry, key: &FlowKey, hash: u64) -> Entry {
        if candidate.is_some() {
            if self.flow(candidate).matches(key, candidate.direction()) {
                return candidate;
            }
        } else if self.bucket(hash).overflow == 0 {
            return Entry::NONE;
        }
        self.find(key, hash)
    }

    /// The entry of `key`, or [`Entry::NONE`].
    pub(crate) fn find(&self, key: &FlowKey, hash: u64) -> Entry {
        let home = self.home(hash);
        let found = self.find_in(home.primary, home.tag, key);
        if found.is_some() || self.memory.buckets[home.primary].overflow == 0 {
            return found;
        }
        self.find_in(home.alternate, home.tag, key)
    }

    /// The entry of `key` if packets belong to its flow still, or [`Entry::NONE`].
    pub(crate) fn find_live(&self, key: &FlowKey, hash: u64) -> Entry {
        let entry = self.find(key, hash);
        let lives = entry.is_some() && self.record(entry).state().is_some_and(FlowState::is_live);
        if lives { entry } else { Entry::NONE }
    }

    fn find_in(&self, bucket: usize, tag: u16, key: &FlowKey) -> Entry {
        let bucket = &self.memory.buckets[bucket];
        let mut tagged = tag_matches(bucket, tag);
        while tagged != 0 {
            let entry = Entry(bucket.entries[tagged.trailing_zeros() as usize % BUCKET_ENTRIES]);
            if self.flow(entry).matches(key, entry.direction()) {
                return entry;
            }
            tagged &= tagged - 1;
        }
        Entry::NONE
    }

    /// Whether an entry is that of a flow that was [cut](Self::cut).
    #[inline]
    pub(crate) fn is_cut(&self, entry: Entry) -> bool {
        entry.is_some() && self.record(entry).state() == Some(FlowState::Cut)
    }

    /// Whether no other flow's replies look like those of this one.
    #[inline]
    pub(crate) fn has_no_reply_of(&self, flow: &NewFlow) -> bool {
        flow.mode.is_dsr() || !self.find_new(&flow.keys[1], flow.hashes[1]).is_some()
    }

    /// As [`Self::find`], of a key that nearly never is there.
    #[inline(always)]
    pub(crate) fn find_new(&self, key: &FlowKey, hash: u64) -> Entry {
        self.confirm(self.candidate(hash), key, hash)
    }

    /// Adds a flow whose keys, two or of DSR flows one, are not in the table, and returns its forward entry.
    ///
    /// An unproven flow whose quota is used up takes the place of the oldest. When there is no room, or none for one
    /// more of this of so many `listeners`, a flow that is over or else the oldest unproven one in reach gives way.
    /// An established flow never does, nor one that was seen at `now`, since a packet of this burst may hold it.
    pub(crate) fn insert(
        &mut self,
        flow: &NewFlow,
        listeners: usize,
        now: Tick,
    ) -> Result<Entry, Full> {
        let hashes = flow.hashes;
        let (size, live) = self.memory.room(flow);
        let has_its_share = self.shares.has_its_share(flow.listener, size, listeners);
        let claim = Claim { listener: flow.listener, has_its_share, now };
        if flow.state.is_unproven()
            && let Some(oldest) = self.memory.make_way(flow, &self.shares, now)
        {
            self.evict(oldest as usize);
        } else if has_its_share && live < size && shares::is_scarce(size, live) {
            self.evict_for(flow, &claim).map_err(|_| Full::Share)?;
        }
        let record = match self.memory.allocate(flow, now) {
            Some(record) => record,
            None => {
                self.evict_for(flow, &claim)?;
                self.memory.allocate(flow, now).ok_or(Full::Table)?
            }
        };
        let [forward, reply] =
            [Direction::Forward, Direction::Reply].map(|d| Entry::new(record, d));
        let placed = self.place_or_evict(hashes[0], forward, &claim).and_then(|()| {
            if flow.mode.is_dsr() {
                return Ok(()); // no reply will ask for it
            }
            self.place_or_evict(hashes[1], reply, &claim)
                .inspect_err(|_| self.displace(hashes[0], forward))
        });
        if let Err(full) = placed {
            self.memory.release(record);
            return Err(full);
        }
        if flow.state.is_unproven() {
            self.memory.note_unproven(record);
            self.memory.header.unproven += 1;
            self.shares.begin_unproven(flow.listener, ring_of(flow.keys[0].protocol));
        }
        self.shares.begin(flow.listener);
        self.counters.worker(WorkerColumn::FlowsNew, 1);
        self.counters.backend(flow.backend, BackendColumn::Flows, 1);
        self.counters.listener(flow.listener, ListenerColumn::Flows, 1);
        Ok(forward)
    }

    /// Takes a flow out of the table. Its record stays readable until the sweep frees it, because a
    /// packet earlier in the burst may hold it.
    pub(crate) fn unlink(&mut self, record: usize) {
        if self.memory.records[record].state() != Some(FlowState::Quarantine) {
            self.displace_key(record, Direction::Forward);
            self.count_gone(record);
        }
        if !self.memory.records[record].is_dsr() {
            self.displace_key(record, Direction::Reply);
        }
        self.memory.records[record].set_state(FlowState::Unlinked);
    }

    /// Makes way for a new connection of the same client. In full NAT the SNAT port of one that was closing stays
    /// taken for as long as it would have been: a backend that closed first keeps it in TIME-WAIT.
    pub(crate) fn retire(&mut self, record: usize) {
        let flow = &mut self.memory.records[record];
        if flow.state() != Some(FlowState::Closing) || flow.mode() != Mode::FullNat {
            return self.unlink(record);
        }
        flow.set_state(FlowState::Quarantine);
        self.displace_key(record, Direction::Forward);
        self.count_gone(record);
    }

    /// Ends a connection that nobody serves: from now on it takes no packet, until it is forgotten.
    pub(crate) fn cut(&mut self, record: usize, now: Tick) {
        if self.memory.records[record].is_unproven() {
            self.count_proven(record);
        }
        let flow = &mut self.memory.records[record];
        flow.set_state(FlowState::Cut);
        flow.last_seen = now.0;
    }

    /// Takes one of a flow's keys out of the table.
    fn displace_key(&mut self, record: usize, direction: Direction) {
        let hash = self.hash.tuple(&self.memory.flow(record).key(direction));
        self.displace(hash, Entry::new(record as u32, direction));
    }

    /// Counts that a flow is gone, whose record says still what it was.
    fn count_gone(&mut self, record: usize) {
        let backend = BackendId(self.memory.records[record].backend);
        let listener = self.memory.records[record].listener();
        self.counters.backend(backend, BackendColumn::Flows, u64::MAX); // minus one, wrapping
        self.counters.listener(listener, ListenerColumn::Flows, u64::MAX);
        self.shares.end(listener);
        if self.memory.records[record].is_unproven() {
            self.count_proven(record);
        }
    }

    /// Notes that an unproven flow is none any more.
    pub(crate) fn count_proven(&mut self, record: usize) {
        let flow = &self.memory.records[record];
        self.shares.prove(flow.listener(), ring_of(flow.protocol()));
        self.memory.header.unproven -= 1;
    }

    /// Takes a flow out and frees its record at once. No packet on its journey may hold it.
    pub(crate) fn remove(&mut self, record: usize) {
        if self.memory.records[record].state() != Some(FlowState::Unlinked) {
            self.unlink(record);
        }
        self.memory.release(record as u32);
    }

    #[inline(always)]
    fn place_or_evict(&mut self, hash: u64, entry: Entry, claim: &Claim) -> Result<(), Full> {
        let home = self.home(hash);
        if self.put(home.primary, home, entry) {
            return Ok(()); // nearly always
        }
        self.place_elsewhere(hash, entry, claim)
    }

    /// Places an entry whose primary bucket is full.
    #[cold]
    fn place_elsewhere(&mut self, hash: u64, entry: Entry, claim: &Claim) -> Result<(), Full> {
        if self.place(hash, entry) {
            return Ok(());
        }
        self.evict_neighbour(hash, claim)?;
        if self.place(hash, entry) { Ok(()) } else { Err(Full::Table) }
    }

    /// Writes an entry into the primary bucket or else the alternate; whether one had room, or could be made to.
    fn place(&mut self, hash: u64, entry: Entry) -> bool {
        let home = self.home(hash);
        self.put(home.primary, home, entry)
            || self.put(home.alternate, home, entry)
            || (self.make_room(home.primary) && self.put(home.primary, home, entry))
    }

    /// Writes an entry into one of its buckets, if that has room.
    #[inline]
    fn put(&mut self, bucket: usize, home: Home, entry: Entry) -> bool {
        let slots = &mut self.memory.buckets[bucket];
        let free = tag_matches(slots, 0).trailing_zeros() as usize;
        if free >= BUCKET_ENTRIES {
            return false;
        }
        slots.tags[free] = home.tag;
        slots.entries[free] = entry.0;
        if bucket == home.alternate {
            self.memory.buckets[home.primary].overflow += 1;
        }
        true
    }

    /// Moves an entry of a full bucket to its other bucket, if any of them has room there.
    #[cold]
    fn make_room(&mut self, bucket: usize) -> bool {
        for at in 0..BUCKET_ENTRIES {
            let entry = Entry(self.memory.buckets[bucket].entries[at]);
            let hash = self.hash.tuple(&self.flow(entry).key(entry.direction()));
            let home = self.home(hash);
            let other = if home.primary == bucket { home.alternate } else { home.primary };
            if self.put(other, home, entry) {
                let slots = &mut self.memory.buckets[bucket];
                (slots.tags[at], slots.entries[at]) = (0, 0);
                if bucket == home.alternate {
                    self.memory.buckets[home.primary].overflow -= 1;
                }
                return true;
            }
        }
        false
    }

    /// Clears an entry from whichever of its two buckets it is in.
    fn displace(&mut self, hash: u64, entry: Entry) {
        let home = self.home(hash);
        for bucket in [home.primary, home.alternate] {
            let slots = &mut self.memory.buckets[bucket];
            let held = slots.tags.iter().zip(&slots.entries);
            let Some(at) =
                held.map(|(tag, held)| (*tag, *held)).position(|held| held == (home.tag, entry.0))
            else {
                continue;
            };
            slots.tags[at] = 0;
            slots.entries[at] = 0;
            if bucket == home.alternate {
                self.memory.buckets[home.primary].overflow -= 1;
            }
            return;
        }
        debug_assert!(false, "an entry in neither of its buckets");
    }

    /// Removes a flow whose record suits `flow`, among those that have been unproven for longest, the entries of the
    /// keys' buckets, and some records that are looked at in turn.
    fn evict_for(&mut self, flow: &NewFlow, claim: &Claim) -> Result<(), Full> {
        let mut hand = self.memory.header.hand;
        let in_turn = std::iter::repeat_with(|| {
            hand = self.memory.header.after(hand);
            hand as usize
        });
        let records = (self.memory.oldest_unproven().map(|record| record as usize))
            .chain(self.neighbours(&flow.hashes))
            .chain(in_turn.take(EVICTION_REACH))
            .filter(|record| self.memory.suits(*record as u32, flow));
        let found = self.first_to_yield(records, claim);
        self.memory.header.hand = hand;
        found.map(|record| self.evict(record)).ok_or(Full::Table)
    }

    /// Removes a flow among the entries of a key's buckets.
    fn evict_neighbour(&mut self, hash: u64, claim: &Claim) -> Result<(), Full> {
        let found = self.first_to_yield(self.neighbours(&[hash]), claim);
        found.map(|record| self.evict(record)).ok_or(Full::Table)
    }

    /// Takes a flow that is over out of the table, whose SNAT port another gets.
    pub(crate) fn give_way(&mut self, entry: Entry) {
        self.unlink(entry.record());
        self.counters.worker(WorkerColumn::FlowsEvicted, 1);
    }

    fn evict(&mut self, record: usize) {
        self.remove(record);
        self.counters.worker(WorkerColumn::FlowsEvicted, 1);
    }

    /// The one that gives way before the others: what is over, then what is unproven, then of DSR, where Maglev
    /// knows the backend and no handshake proves anything, and of UDP, where an answer does not prove the client; the
    /// longest silent first. To a listener that has its share only its own give way, and what is over.
    fn first_to_yield(&self, records: impl Iterator<Item = usize>, claim: &Claim) -> Option<usize> {
        let may_yield = records.filter_map(|record| {
            let flow = &self.memory.records[record];
            let (state, age) = (flow.state()?, claim.now.since(Tick(flow.last_seen)));
            let rank = match state {
                _ if state.is_over() => 2,
                _ if claim.has_its_share && flow.listener() != claim.listener => return None,
                _ if state.is_unproven() => 1,
                FlowState::UdpReplied => 0,
                _ if flow.is_dsr() => 0,
                _ => return None,
            };
            (age > 0).then_some(((rank, age), record))
        });
        may_yield.max().map(|(_, record)| record)
    }

    /// The records of the entries in the keys' buckets.
    fn neighbours(&self, hashes: &[u64]) -> impl Iterator<Item = usize> {
        hashes.iter().flat_map(|hash| {
            let home = self.home(*hash);
            [home.primary, home.alternate].into_iter().flat_map(|bucket| {
                self.memory.buckets[bucket].entries.map(|entry| Entry(entry).record())
            })
        })
    }
}

/// Fifteen bits of the hash that bucket selection does not use, and never zero.
#[inline]
fn tag_of(hash: u64) -> u16 {
    hash as u16 | 1
}

/// A bit for each entry whose tag is `tag`, without a branch: one compare of 16 bytes.
#[inline]
#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "a call across CPU features; left to itself, the compiler compares entry by entry"
)]
pub(crate) fn tag_matches(bucket: &Bucket, tag: u16) -> u32 {
    // SAFETY: the callee needs SSE2, which every x86-64 CPU has.
    unsafe { tag_matches_sse2(bucket, tag) }
}

#[inline]
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn tag_matches_sse2(bucket: &Bucket, tag: u16) -> u32 {
    use core::arch::x86_64::{
        _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set_epi64x, _mm_set1_epi16,
        _mm_setzero_si128,
    };
    let [low, high]: [u64; 2] = zerocopy::transmute!(bucket.tags);
    let tags = _mm_set_epi64x(high.cast_signed(), low.cast_signed());
    let equal = _mm_cmpeq_epi16(tags, _mm_set1_epi16(tag.cast_signed()));
    _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())).cast_unsigned()
}

/// A bit for each entry whose tag is `tag`.
#[inline]
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn tag_matches(bucket: &Bucket, tag: u16) -> u32 {
    bucket
        .tags
        .iter()
        .enumerate()
        .fold(0, |found, (at, held)| found | u32::from(*held == tag) << at)
}

#[cfg(test)]
mod tests;
