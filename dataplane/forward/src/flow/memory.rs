//! The memory of a flow table: plain bytes, so that a file can hold it and a later process adopt it.
//!
//! ```text
//!  | header, 128 B| buckets, 64 B each            | records, 64 B each | wide, 64 B each        | unproven, 8 B each |
//!  |              | 8 tags │ 8 entries │ overflow | IPv4, complete     | IPv6 addresses of      | TCP, then UDP      |
//!  |              |        │           │          |                    | the record as numbered |                    |
//! ```
//! Two keys a connection, so `flows` connections want `2 * flows` entries. There is a bucket for each two
//! connections or more, which keeps the mean at four entries of eight or below; a key whose two buckets are both
//! full makes one of the other entries move to its own alternate. Everything is an index, nothing a pointer, and
//! all-zero bytes are an empty table.

use std::ops::Deref;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::key::{FlowKey, V4, V6, mirror_addresses, mirror_ports, mirror_wide};
use super::look_up::prefetch;
use super::shares::Shares;
use super::state::{Direction, FlowState};
use super::unproven::{self, Ring, Slot, ring_of};
use crate::rewrite::tunnel;
use crate::wire::checksum;
use crate::{BackendId, ListenerSlot, Mode, Protocol, Tick};

/// Entries in a bucket.
pub(crate) const BUCKET_ENTRIES: usize = 8;
/// The most flows one table can hold: an entry has 31 bits for the record.
pub const MAX_CAPACITY: usize = 1 << 28;

const MAGIC: u64 = u64::from_le_bytes(*b"pnstkflw");
const LAYOUT_VERSION: u32 = 5;

/// 64 bytes that begin where a cache line does; the unit in which memory is given to a table.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct CacheLine([u8; 64]);

impl CacheLine {
    /// Sixty-four zeros.
    pub const ZERO: Self = Self([0; 64]);
}

/// What the memory says of itself.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub(crate) struct Header {
    magic: u64,
    version: u32,
    /// Records with a wide line, which either family can use, and those without.
    pub(crate) pools: [Pool; 2],
    /// The record that the sweep looked at last.
    pub(crate) sweep: u32,
    /// The record that the search for one to give way looked at last.
    pub(crate) hand: u32,
    /// The place in each ring of unproven flows.
    next_unproven: [u32; 2],
    /// Flows that are unproven now.
    pub(crate) unproven: u32,
    spare: [u32; 14],
}

/// Records of one kind: numbers from `first` on.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct Pool {
    first: u32,
    /// One beyond the last.
    end: u32,
    /// Records below this have been used at least once; those from it on never were.
    fresh: u32,
    /// The first of the free list, 0 for none.
    free: u32,
    /// Records in use.
    live: u32,
}

impl Pool {
    fn new(first: usize, end: usize) -> Self {
        let first = first as u32; // both at most MAX_CAPACITY + 1
        Self { first, end: end as u32, fresh: first, free: 0, live: 0 }
    }

    /// A record that is not in use.
    fn take(&mut self, records: &[FlowRecord]) -> Option<u32> {
        let record = if self.free != 0 {
            let record = self.free;
            self.free = records[record as usize].link;
            prefetch(&records[self.free as usize]); // the next to be taken
            record
        } else if self.fresh < self.end {
            self.fresh += 1;
            self.fresh - 1
        } else {
            return None;
        };
        self.live += 1;
        Some(record)
    }

    fn size(&self) -> u32 {
        self.end - self.first
    }

    fn has_free(&self) -> bool {
        self.free != 0 || self.fresh < self.end
    }

    fn used(&self) -> u32 {
        self.fresh - self.first
    }

    /// The first record from `from` on that was ever used.
    fn used_from(&self, from: u32) -> Option<u32> {
        let record = from.max(self.first);
        (record < self.fresh).then_some(record)
    }
}

impl Header {
    /// Records in use.
    pub(crate) fn live(&self) -> u32 {
        self.pools.iter().map(|pool| pool.live).sum()
    }

    /// How many records were ever used.
    pub(crate) fn used(&self) -> u32 {
        self.pools.iter().map(Pool::used).sum()
    }

    /// The first record from `from` on that was ever used.
    pub(crate) fn used_from(&self, from: u32) -> Option<u32> {
        self.pools.iter().find_map(|pool| pool.used_from(from))
    }

    /// The one after `record`; after the last, the first.
    pub(crate) fn after(&self, record: u32) -> u32 {
        self.used_from(record + 1).or_else(|| self.used_from(1)).unwrap_or(0)
    }
}

/// Eight tagged entries. Tag 0 is an empty entry.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub(crate) struct Bucket {
    pub(crate) tags: [u16; BUCKET_ENTRIES],
    pub(crate) entries: [u32; BUCKET_ENTRIES],
    /// Keys that belong here and live in their alternate bucket: while it is zero, none is searched there.
    pub(crate) overflow: u32,
    spare: [u32; 3],
}

/// One connection. Pairs are indexed by [`Direction`]: what its packets look like on arrival.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub(crate) struct FlowRecord {
    pub(crate) addresses: [u64; 2],
    pub(crate) ports: [u32; 2],
    pub(crate) kind: FlowKind,
    pub(crate) last_seen: u32,
    pub(crate) backend: u32,
    /// The FIB version that `hops` belong to; 0 for none.
    pub(crate) fib_version: u32,
    /// What packets of each direction acknowledged last, as it lies in a TCP header.
    pub(crate) acknowledged: [[u8; 4]; 2],
    /// Adjacencies by direction, [`NO_HOP`] where not looked up yet, or beyond what 16 bits hold.
    pub(crate) hops: [u16; 2],
    /// What a rewrite adds to the IPv4 header checksum by direction, for the addresses and for one hop less. Of flows
    /// in a tunnel: the sum of what does not vary in its IPv4 header.
    pub(crate) ip_deltas: [u16; 2],
    /// What a rewrite of the client's packets adds to the L4 checksum. The other way it is the same taken away: see
    /// [`checksum::in_direction`].
    pub(crate) l4_delta: u16,
    listener: u16,
    /// In use: the snapshot in which the backend was last seen to serve. Free: the next free record.
    pub(crate) link: u32,
}

/// IPv6 source and destination by [`Direction`]: a cache line that IPv4 packets never read.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub(crate) struct Wide([[u8; 32]; 2]);

/// That of records which have none.
pub(super) static NO_WIDE: Wide = Wide([[0; 32]; 2]);

/// In the mode's byte: the backend's family is IPv6.
const BACKEND_V6: u8 = 0x80;

/// No next hop is cached.
pub(crate) const NO_HOP: u16 = u16::MAX;

const _: () = assert!(size_of::<Header>() == 2 * 64);
const _: () = assert!(size_of::<Bucket>() == 64);
const _: () = assert!(size_of::<FlowRecord>() == 64);
const _: () = assert!(size_of::<Wide>() == 64);

/// What a new flow is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewFlow {
    /// The client's packets on arrival, and the backend's; of DSR flows, whose backends' packets do not arrive,
    /// the mirror image of what leaves for the backend, outer header and all.
    pub(crate) keys: [FlowKey; 2],
    /// Their hashes; of DSR flows only the first means anything.
    pub(crate) hashes: [u64; 2],
    pub(crate) mode: Mode,
    pub(crate) state: FlowState,
    pub(crate) listener: ListenerSlot,
    pub(crate) backend: BackendId,
    pub(crate) snapshot_version: u32,
}

impl NewFlow {
    /// Whether its record needs a wide line.
    pub(crate) fn is_wide(&self) -> bool {
        self.keys.iter().any(|key| key.family == V6)
    }

    /// Its wide line.
    pub(crate) fn wide(&self) -> Wide {
        Wide(self.keys.each_ref().map(|key| key.wide))
    }

    /// Its record as it begins.
    #[inline(always)] // else it is written twice, and read before the first writing is done
    pub(crate) fn record(&self, now: Tick) -> FlowRecord {
        let [forward, reply] = &self.keys;
        let (ip_deltas, l4_delta) = match self.mode.is_dsr() {
            true => ([tunnel::constant_sum(self.mode, forward.family, reply), 0], 0),
            false => checksum::deltas(forward, reply),
        };
        FlowRecord {
            addresses: [forward.addresses, reply.addresses],
            ports: [forward.ports, reply.ports],
            kind: FlowKind::new(
                forward.protocol,
                forward.family,
                self.state,
                self.mode,
                reply.family,
            ),
            last_seen: now.0,
            listener: self.listener.0.try_into().unwrap_or(u16::MAX),
            backend: self.backend.0,
            fib_version: 0,
            acknowledged: [[0; 4]; 2],
            hops: [NO_HOP; 2],
            ip_deltas,
            l4_delta,
            link: self.snapshot_version,
        }
    }
}

/// A flow to read: its record and its wide line, which is not looked at unless there are IPv6 addresses in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow<'m> {
    record: &'m FlowRecord,
    wide: &'m Wide,
}

impl Deref for Flow<'_> {
    type Target = FlowRecord;

    #[inline]
    fn deref(&self) -> &FlowRecord {
        self.record
    }
}

impl<'m> Flow<'m> {
    pub(crate) fn new(record: &'m FlowRecord, wide: &'m Wide) -> Self {
        Self { record, wide }
    }

    /// Whether packets with `key` are this flow's in this direction. The full tuple is compared.
    #[inline]
    pub(crate) fn matches(&self, key: &FlowKey, direction: Direction) -> bool {
        let at = direction as usize;
        let differs = (self.addresses[at] ^ key.addresses)
            | u64::from(self.ports[at] ^ key.ports)
            | u64::from(self.protocol() ^ key.protocol)
            | u64::from(self.family() ^ key.family);
        differs == 0 && (key.family != V6 || self.wide.0[at] == key.wide)
    }

    /// The packets of one direction, as they arrive.
    pub(crate) fn key(&self, direction: Direction) -> FlowKey {
        let (at, family) = (direction as usize, self.family_of(direction));
        FlowKey {
            addresses: self.addresses[at],
            ports: self.ports[at],
            protocol: self.protocol(),
            family,
            wide: if family == V6 { self.wide.0[at] } else { [0; 32] }, // a line that IPv4 does without
        }
    }

    /// IPv6 addresses and L4 ports of packets of one direction, as they leave: the mirror image of
    /// what arrives the other way.
    #[inline]
    pub(crate) fn rewritten_v6(&self, way: usize) -> ([u8; 32], u32) {
        let other = way ^ 1;
        (mirror_wide(self.wide.0[other]), mirror_ports(self.ports[other]))
    }

    /// Whether its IPv6 packets that go this way have these addresses.
    #[inline(always)]
    pub(crate) fn has_wide(&self, addresses: &[u8; 32], way: usize) -> bool {
        self.wide.0[way] == *addresses
    }

    /// Its two lines, for who has to let go of the table.
    pub(crate) fn copied(self) -> (FlowRecord, Wide) {
        (*self.record, *self.wide)
    }

    /// What may be prefetched before a packet with IPv6 addresses is compared.
    #[inline]
    pub(crate) fn wide(&self) -> &'m Wide {
        self.wide
    }
}

/// Protocol, family of the client's packets, [`FlowState`], and [`Mode`], of which from [`BACKEND_V6`] on whether the
/// backend's family is IPv6: in tunnels it may differ. Four bytes that a steady packet compares as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct FlowKind([u8; 4]);

impl FlowKind {
    /// That of a record that is no flow's.
    const FREE: Self = Self([0; 4]);

    fn new(protocol: u8, family: u8, state: FlowState, mode: Mode, backend_family: u8) -> Self {
        let backend_v6 = if backend_family == V6 { BACKEND_V6 } else { 0 };
        Self([protocol, family, state as u8, mode as u8 | backend_v6])
    }

    /// Whether it is that of flows in this state, whatever their mode.
    #[inline(always)]
    pub(crate) fn is_any(self, protocol: Protocol, family: u8, state: FlowState) -> bool {
        const ANY_MODE: u32 = u32::from_ne_bytes([0xff, 0xff, 0xff, 0]);
        let wanted = u32::from_ne_bytes([protocol.number(), family, state as u8, 0]);
        u32::from_ne_bytes(self.0) & ANY_MODE == wanted
    }

    /// Whether it is that of flows in this state whose packets are rewritten.
    #[inline(always)]
    pub(crate) fn is_rewritten(self, protocol: Protocol, family: u8, state: FlowState) -> bool {
        // DNAT is taken as full NAT: they differ in nothing that a packet sees. Both ends are of one family.
        const ANY_NAT: u32 =
            u32::from_ne_bytes([0xff, 0xff, 0xff, !BACKEND_V6 & !(Mode::Dnat as u8)]);
        let wanted =
            u32::from_ne_bytes([protocol.number(), family, state as u8, Mode::FullNat as u8]);
        u32::from_ne_bytes(self.0) & ANY_NAT == wanted
    }
}

impl FlowRecord {
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u8 {
        self.kind.0[0]
    }

    /// The family of the client's packets.
    #[inline(always)]
    pub(crate) fn family(&self) -> u8 {
        self.kind.0[1]
    }

    fn mode_byte(&self) -> u8 {
        self.kind.0[3]
    }

    /// The state, unless the record is free.
    #[inline]
    pub(crate) fn state(&self) -> Option<FlowState> {
        FlowState::from_byte(self.kind.0[2])
    }

    #[inline]
    pub(crate) fn is_established(&self) -> bool {
        self.kind.0[2] == FlowState::Established as u8
    }

    #[inline]
    pub(crate) fn set_state(&mut self, state: FlowState) {
        self.kind.0[2] = state as u8;
    }

    #[inline(always)]
    pub(crate) fn listener(&self) -> ListenerSlot {
        ListenerSlot(self.listener.into())
    }

    /// The family of packets of one direction: in tunnels the outer one's of what leaves for the backend.
    #[inline]
    pub(crate) fn family_of(&self, direction: Direction) -> u8 {
        match direction {
            Direction::Forward => self.family(),
            Direction::Reply if self.mode_byte() & BACKEND_V6 != 0 => V6,
            Direction::Reply => V4,
        }
    }

    /// How the flow's packets are changed.
    #[inline]
    pub(crate) fn mode(&self) -> Mode {
        Mode::from_byte(self.mode_byte() & !BACKEND_V6)
    }

    /// The sum of what does not vary in the IPv4 header of its tunnel.
    #[inline]
    pub(crate) fn constant_sum(&self) -> u16 {
        self.ip_deltas[0]
    }

    /// Whether the backend answers the client itself.
    #[inline]
    pub(crate) fn is_dsr(&self) -> bool {
        self.mode_byte() & !BACKEND_V6 >= Mode::L2Dsr as u8
    }

    /// IPv4 addresses and L4 ports of packets of one direction, as they leave.
    #[inline(always)]
    pub(crate) fn rewritten_v4(&self, way: usize) -> (u64, u32) {
        let other = way ^ 1;
        (mirror_addresses(self.addresses[other]), mirror_ports(self.ports[other]))
    }

    pub(crate) fn is_unproven(&self) -> bool {
        self.state().is_some_and(FlowState::is_unproven)
    }
}

/// The memory of one flow table, cut into its parts.
#[derive(Debug)]
pub struct FlowMemory<'m> {
    pub(crate) header: &'m mut Header,
    pub(crate) buckets: &'m mut [Bucket],
    pub(crate) records: &'m mut [FlowRecord],
    /// Of records by number, as far as they have one.
    wide: &'m mut [Wide],
    unproven: [&'m mut [Slot]; 2],
}

/// How many flows a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowCapacity {
    /// Of either family.
    pub flows: usize,
    /// How many of those may have IPv6 addresses, at one end at least.
    pub ipv6: usize,
    /// How many TCP handshakes may be incomplete; then the oldest gives way to the newest.
    pub half_open: usize,
    /// The same of UDP flows whose backend has not answered.
    pub one_way: usize,
}

impl FlowCapacity {
    /// No share larger than the whole, and none of nothing.
    fn within_bounds(self) -> Self {
        let quota = |quota: usize| quota.clamp(1, self.flows.max(1));
        let (half_open, one_way) = (quota(self.half_open), quota(self.one_way));
        Self { flows: self.flows, ipv6: self.ipv6.min(self.flows), half_open, one_way }
    }
}

impl From<usize> for FlowCapacity {
    /// All of them may be IPv6, a quarter half-open, and a quarter one-way.
    fn from(flows: usize) -> Self {
        let quarter = flows.div_ceil(4);
        Self { flows, ipv6: flows, half_open: quarter, one_way: quarter }
    }
}

/// Why memory cannot become a flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowMemoryError {
    /// The capacity makes no table.
    #[error("flow capacity {capacity}: must be 1..={MAX_CAPACITY}")]
    Capacity {
        /// What was asked.
        capacity: usize,
    },
    /// Fewer bytes than the capacity needs.
    #[error("flow memory of {given} bytes: a capacity of {capacity} flows needs {needed}")]
    TooSmall {
        /// Bytes given.
        given: usize,
        /// Bytes needed.
        needed: usize,
        /// Flows asked for.
        capacity: usize,
    },
    /// The memory holds something already.
    #[error("flow memory is not empty (first word {found:#018x}): zero it before use")]
    NotEmpty {
        /// The first eight bytes.
        found: u64,
    },
}

fn bucket_count(flows: usize) -> usize {
    flows.div_ceil(2).next_power_of_two().max(2)
}

impl<'m> FlowMemory<'m> {
    /// Cache lines that a table of this capacity takes; 64 bytes each.
    ///
    /// A flow takes 96 bytes where the capacity is a power of two and 128 where it is just above one; 64 more if it
    /// may be IPv6, and 8 more if it may be half-open or one-way.
    #[must_use]
    pub fn lines_for(capacity: impl Into<FlowCapacity>) -> usize {
        let FlowCapacity { flows, ipv6, half_open, one_way } = capacity.into().within_bounds();
        let unproven = (half_open + one_way).div_ceil(size_of::<CacheLine>() / size_of::<Slot>());
        // Record 0 is never used: 0 means none.
        2 + bucket_count(flows) + (flows + 1) + (ipv6 + 1) + unproven
    }

    /// Bytes that a table of this capacity takes.
    #[must_use]
    pub fn bytes_for(capacity: impl Into<FlowCapacity>) -> usize {
        Self::lines_for(capacity) * size_of::<CacheLine>()
    }

    /// Makes an empty table of zeroed memory. Lines beyond [`Self::lines_for`] are left alone.
    ///
    /// # Errors
    /// The capacity is 0 or too large, the memory too small, or its first word is not zero.
    pub fn new(
        lines: &'m mut [CacheLine],
        capacity: impl Into<FlowCapacity>,
    ) -> Result<Self, FlowMemoryError> {
        let capacity = capacity.into().within_bounds();
        let FlowCapacity { flows, ipv6, half_open, one_way } = capacity;
        if flows == 0 || flows > MAX_CAPACITY {
            return Err(FlowMemoryError::Capacity { capacity: flows });
        }
        let needed = Self::bytes_for(capacity);
        let given = size_of_val(lines);
        let too_small = FlowMemoryError::TooSmall { given, needed, capacity: flows };
        let bytes = lines.as_mut_bytes();
        let (header, rest) = Header::mut_from_prefix(bytes).map_err(|_| too_small)?;
        let (buckets, rest) = <[Bucket]>::mut_from_prefix_with_elems(rest, bucket_count(flows))
            .map_err(|_| too_small)?;
        let (records, rest) =
            <[FlowRecord]>::mut_from_prefix_with_elems(rest, flows + 1).map_err(|_| too_small)?;
        let (wide, rest) =
            <[Wide]>::mut_from_prefix_with_elems(rest, ipv6 + 1).map_err(|_| too_small)?;
        let (tcp, rest) =
            <[Slot]>::mut_from_prefix_with_elems(rest, half_open).map_err(|_| too_small)?;
        let (udp, _) =
            <[Slot]>::mut_from_prefix_with_elems(rest, one_way).map_err(|_| too_small)?;
        if header.magic != 0 {
            return Err(FlowMemoryError::NotEmpty { found: header.magic });
        }
        header.magic = MAGIC;
        header.version = LAYOUT_VERSION;
        header.pools = [Pool::new(1, ipv6 + 1), Pool::new(ipv6 + 1, flows + 1)];
        Ok(Self { header, buckets, records, wide, unproven: [tcp, udp] })
    }

    /// Flows that fit.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.records.len() - 1
    }

    #[inline]
    pub(crate) fn flow(&self, record: usize) -> Flow<'_> {
        Flow::new(&self.records[record], self.wide.get(record).unwrap_or(&NO_WIDE))
    }

    /// A flow whose record is to be written, and its wide line.
    #[inline(always)]
    pub(crate) fn flow_mut(&mut self, record: usize) -> (&mut FlowRecord, &Wide) {
        (&mut self.records[record], self.wide.get(record).unwrap_or(&NO_WIDE))
    }

    /// Takes a record for a flow, if there is one: of those without a wide line first, where it needs none.
    pub(crate) fn allocate(&mut self, flow: &NewFlow, now: Tick) -> Option<u32> {
        let [wide, narrow] = &mut self.header.pools;
        let needs_wide = flow.is_wide();
        let record = match needs_wide {
            true => wide.take(self.records)?,
            false => narrow.take(self.records).or_else(|| wide.take(self.records))?,
        };
        self.records[record as usize] = flow.record(now);
        if needs_wide {
            self.wide[record as usize] = flow.wide();
        }
        Some(record)
    }

    /// Asks for the line of a record that will be taken soon, after `others` that are taken before; as far as it is
    /// known which that will be.
    #[inline]
    pub(crate) fn ask_for_free(&self, others: usize) {
        let [wide, narrow] = &self.header.pools;
        let pool = if narrow.has_free() { narrow } else { wide };
        let record = if pool.free == 0 { pool.fresh as usize + others } else { pool.free as usize };
        if let Some(record) = self.records.get(record) {
            prefetch(record);
        }
    }

    /// Records that a flow of this kind could be in, and how many of them are in use.
    pub(crate) fn room(&self, flow: &NewFlow) -> (u32, u32) {
        let [wide, narrow] = &self.header.pools;
        if flow.is_wide() {
            return (wide.size(), wide.live);
        }
        (wide.size() + narrow.size(), self.header.live())
    }

    /// The flow whose place a new unproven one takes, if the quota is used up.
    pub(crate) fn make_way(&mut self, flow: &NewFlow, shares: &Shares, now: Tick) -> Option<u32> {
        let at = ring_of(flow.keys[0].protocol);
        let quota = self.unproven[at].len();
        let (mut ring, records) = self.ring_and_records(at);
        let is_spared = |record: &FlowRecord| {
            record.listener() != flow.listener
                && shares.has_few_unproven(record.listener(), at, quota)
        };
        ring.make_way(records, is_spared, now)
    }

    /// The flow that gives way to a new unproven one, as things are, after `others`.
    #[inline]
    pub(crate) fn gives_way_after(&mut self, others: usize, protocol: u8) -> Option<u32> {
        let (ring, records) = self.ring_and_records(ring_of(protocol));
        ring.gives_way_after(others, records)
    }

    /// Notes that a flow is unproven, the newest of its protocol.
    pub(crate) fn note_unproven(&mut self, record: u32) {
        let protocol = self.records[record as usize].protocol();
        let (mut ring, records) = self.ring_and_records(ring_of(protocol));
        ring.push(record, records);
    }

    /// Those that have been unproven for longest.
    pub(crate) fn oldest_unproven(&self) -> impl Iterator<Item = u32> {
        let rings = self.unproven.iter().zip(self.header.next_unproven);
        rings.flat_map(|(slots, next)| unproven::oldest(slots, next, self.records))
    }

    fn ring_and_records(&mut self, at: usize) -> (Ring<'_>, &[FlowRecord]) {
        let ring = Ring::new(self.unproven[at], &mut self.header.next_unproven[at]);
        (ring, self.records)
    }

    /// Whether a record, once free, can be the flow's.
    pub(crate) fn suits(&self, record: u32, flow: &NewFlow) -> bool {
        !flow.is_wide() || (record as usize) < self.wide.len()
    }

    pub(crate) fn release(&mut self, record: u32) {
        let pool = usize::from(record as usize >= self.wide.len());
        let pool = &mut self.header.pools[pool];
        let freed = &mut self.records[record as usize];
        freed.kind = FlowKind::FREE;
        freed.link = pool.free;
        pool.free = record;
        pool.live -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_cannot_be_a_table_is_refused_with_the_figures() {
        let mut lines = vec![CacheLine::ZERO; FlowMemory::lines_for(100)];
        let short = lines.len() - 1;
        assert_eq!(
            FlowMemory::new(&mut lines[..short], 100).unwrap_err(),
            FlowMemoryError::TooSmall {
                given: short * 64,
                needed: (short + 1) * 64,
                capacity: 100
            }
        );
        assert_eq!(
            FlowMemory::new(&mut lines, 0).unwrap_err(),
            FlowMemoryError::Capacity { capacity: 0 }
        );
        let huge = usize::MAX / 2;
        assert_eq!(
            FlowMemory::new(&mut lines, huge).unwrap_err(),
            FlowMemoryError::Capacity { capacity: huge }
        );
        assert_eq!(FlowMemory::new(&mut lines, 100).unwrap().capacity(), 100);
        assert!(matches!(FlowMemory::new(&mut lines, 100), Err(FlowMemoryError::NotEmpty { .. })));
    }
}
