//! The datagrams in pieces that one worker has under way.
//!
//! Sets of eight, like a cache: a datagram lives in the set of its hash, and where that is full the oldest
//! there gives way. An honest datagram is complete within milliseconds, so in a flood that is nearly always
//! one of the flood's. A source has a share of the table, and of the pieces that wait.

use super::id::Ids;
use super::ranges::{Ranges, Refused};
use super::{Learned, Piece};
use crate::flow::hash::FlowHash;
use crate::flow::{FlowKey, V6};
use crate::{DropReason, Tick, WorkerIdx};

/// Sets in the table.
const SETS: usize = 512;
/// Datagrams in a set.
const WAYS: usize = 8;
/// How long a datagram has from its first seen piece on. RFC 791 §3.2 lets a host give up after 15 s, RFC 8200
/// §4.5 after 60 s; but pieces travel together, and what waits here takes up buffers.
const PATIENCE_MS: u32 = 5_000;
/// Sources by their hash; those that share a number share its limits.
const SOURCES: usize = 4096;
/// Datagrams under way of one source.
const DATAGRAMS_PER_SOURCE: u16 = 256;
/// Pieces of one source that wait: a datagram of 64 KiB that comes last piece first, over Ethernet.
const WAITING_PER_SOURCE: u16 = 48;
/// Pieces that one worker's caller has to keep at most, until their first has come.
pub const WAITING: usize = 256;
/// Bits of a [`DatagramIdx`] that are the place in the table.
const PLACE_BITS: u32 = (SETS * WAYS).trailing_zeros();
/// Datagrams that may settle before the caller asks: all of a burst, and as many that gave way to them.
const SETTLED: usize = 2 * crate::BURST + WAYS;

/// A datagram whose first piece has not come, by its place and how often that was used: a name for pieces that
/// wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatagramIdx(pub(crate) u32);

#[cfg(any(test, feature = "test-support"))]
impl DatagramIdx {
    /// One of no table.
    #[must_use]
    pub fn for_test(number: u32) -> Self {
        Self(number)
    }
}

/// What became of a datagram for which pieces wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Its first piece has come: forward the others, with this.
    Known(Learned),
    /// Drop them.
    Lost(DropReason),
}

/// What becomes of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on, with what the first has told.
    Go(Learned),
    /// It waits for the first.
    Wait(DatagramIdx),
}

#[derive(Clone, Copy, Debug)]
struct Datagram {
    key: FlowKey,
    born: Tick,
    uses: u16,
    source: u16,
    waiting: u8,
    state: State,
    ranges: Ranges,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// The first piece has not come.
    Open,
    /// It has.
    Known(Learned),
    /// Pieces contradicted each other: no more of them go on.
    Contradictory,
}

/// What the datagrams of one source take up.
#[derive(Clone, Copy, Debug, Default)]
struct Source {
    datagrams: u16,
    waiting: u16,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Datagrams {
    table: Box<[Datagram]>,
    sources: Box<[Source]>,
    settled: Vec<(DatagramIdx, Settled)>,
    ids: Ids,
    live: usize,
    waiting: usize,
    hand: usize,
    swept: Tick,
}

impl Datagrams {
    pub(crate) fn new(me: WorkerIdx, workers: u8, hash: &FlowHash) -> Self {
        let free = Datagram {
            key: FlowKey::default(),
            born: Tick(0),
            uses: 0,
            source: 0,
            waiting: 0,
            state: State::Free,
            ranges: Ranges::default(),
        };
        let secret = hash.tuple(&FlowKey { ports: me.0.into(), ..FlowKey::default() });
        Self {
            table: vec![free; SETS * WAYS].into(),
            sources: vec![Source::default(); SOURCES].into(),
            settled: Vec::with_capacity(SETTLED),
            ids: Ids::new(me.0, workers, secret),
            live: 0,
            waiting: 0,
            hand: 0,
            swept: Tick(0),
        }
    }

    /// What becomes of a piece.
    ///
    /// # Errors
    /// Why it is lost.
    pub(crate) fn receive(
        &mut self,
        piece: &Piece,
        hash: &FlowHash,
        now: Tick,
    ) -> Result<Fate, DropReason> {
        let at = self.find_or_add(piece, hash, now)?;
        if self.table[at].state == State::Contradictory {
            return Err(DropReason::FragmentOverlap);
        }
        match self.table[at].ranges.add(piece.offset, piece.len, piece.more) {
            Ok(()) => {}
            Err(Refused::Seen) => return Err(DropReason::FragmentOverlap),
            Err(Refused::Gaps) => return Err(DropReason::FragmentLimit),
            Err(Refused::Contradicts) => {
                self.settle(at, Settled::Lost(DropReason::FragmentOverlap));
                self.table[at].state = State::Contradictory;
                return Err(DropReason::FragmentOverlap);
            }
        }
        if let Some(first) = piece.first {
            let id = self.ids.next(if piece.datagram.family == V6 { 32 } else { 16 });
            let learned = Learned { ports: first.ports, protocol: first.protocol, id };
            self.settle(at, Settled::Known(learned));
            self.table[at].state = State::Known(learned);
        }
        let State::Known(learned) = self.table[at].state else { return self.wait(at) };
        if self.table[at].ranges.is_complete() {
            self.free(at);
        }
        Ok(Fate::Go(learned))
    }

    fn wait(&mut self, at: usize) -> Result<Fate, DropReason> {
        let source = &mut self.sources[usize::from(self.table[at].source)];
        if self.waiting == WAITING || source.waiting == WAITING_PER_SOURCE {
            return Err(DropReason::FragmentLimit);
        }
        source.waiting += 1;
        self.waiting += 1;
        self.table[at].waiting += 1;
        Ok(Fate::Wait(self.index(at)))
    }

    fn index(&self, at: usize) -> DatagramIdx {
        let uses = u32::from(self.table[at].uses) << PLACE_BITS;
        DatagramIdx((uses | at as u32) & 0x00ff_ffff) // what an exit has room for
    }

    /// The share of a source is for what may have to wait: a first piece takes a place, if need be the oldest's,
    /// so that one who speaks in a source's name does not silence it.
    fn find_or_add(
        &mut self,
        piece: &Piece,
        hash: &FlowHash,
        now: Tick,
    ) -> Result<usize, DropReason> {
        let key = &piece.datagram;
        let set = hash.tuple(key) as usize % SETS * WAYS;
        let ways = set..set + WAYS;
        let held = |at: &usize| self.table[*at].state != State::Free && self.table[*at].key == *key;
        if let Some(at) = ways.clone().find(held) {
            return Ok(at);
        }
        let source = hash.tuple(&source_of(key)) as usize % SOURCES;
        if self.sources[source].datagrams >= DATAGRAMS_PER_SOURCE && !piece.is_first() {
            return Err(DropReason::FragmentLimit);
        }
        let free = ways.clone().find(|at| self.table[*at].state == State::Free);
        let at = match free {
            Some(at) => at,
            None => {
                let age = |at: &usize| now.since(self.table[*at].born);
                let oldest = ways.max_by_key(age).unwrap_or(set);
                self.give_up(oldest, DropReason::FragmentLimit);
                oldest
            }
        };
        self.live += 1;
        self.sources[source].datagrams += 1;
        let datagram = &mut self.table[at];
        *datagram = Datagram {
            key: *key,
            born: now,
            uses: datagram.uses.wrapping_add(1),
            source: source as u16,
            waiting: 0,
            state: State::Open,
            ranges: Ranges::default(),
        };
        Ok(at)
    }

    /// Tells whoever keeps pieces of a datagram what became of it.
    fn settle(&mut self, at: usize, settled: Settled) {
        let index = self.index(at);
        let waited = std::mem::take(&mut self.table[at].waiting);
        if waited > 0 {
            debug_assert!(self.settled.len() < SETTLED, "asked for after each burst");
            self.settled.push((index, settled));
            self.waiting -= usize::from(waited);
            self.sources[usize::from(self.table[at].source)].waiting -= u16::from(waited);
        }
    }

    fn give_up(&mut self, at: usize, reason: DropReason) {
        self.settle(at, Settled::Lost(reason));
        self.free(at);
    }

    fn free(&mut self, at: usize) {
        self.table[at].state = State::Free;
        self.sources[usize::from(self.table[at].source)].datagrams -= 1;
        self.live -= 1;
    }

    /// The next datagram that settled.
    pub(crate) fn settled(&mut self) -> Option<(DatagramIdx, Settled)> {
        self.settled.pop()
    }

    /// Gives up those of one set whose time is over, at most once a millisecond: a round takes half a second.
    #[inline]
    pub(crate) fn expire_some(&mut self, now: Tick) {
        if self.live > 0 && self.swept != now {
            self.expire_set(now);
        }
    }

    #[cold]
    fn expire_set(&mut self, now: Tick) {
        self.swept = now;
        let set = self.hand * WAYS;
        self.hand = (self.hand + 1) % SETS;
        for at in set..set + WAYS {
            let Datagram { state, born, .. } = self.table[at];
            if state != State::Free && now.since(born) >= PATIENCE_MS {
                self.give_up(at, DropReason::FragmentTimeout);
            }
        }
    }
}

/// What the datagrams of one source have in common: its address, or in IPv6 its /64, since that is what one host
/// can have as many addresses of as it likes.
fn source_of(key: &FlowKey) -> FlowKey {
    let [source, _]: [u32; 2] = zerocopy::transmute!(key.addresses);
    let addresses = zerocopy::transmute!([source, 0_u32]);
    let mut wide = key.wide;
    wide[8..].fill(0);
    FlowKey { addresses, wide, ports: 0, protocol: 0, family: key.family }
}
