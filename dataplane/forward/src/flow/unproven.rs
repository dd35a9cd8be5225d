//! Who gives way to whom: flows of clients that have not shown that they are where they say, in the order they came.
//!
//! Anyone can send a SYN, or a datagram, from any address. Such flows have a quota each, and one that is as old as
//! the quota is large gives way to the newest; so a flood of them takes its quota of the table and no more, and
//! shortens the time others have for their handshake to quota ÷ rate. A flow that was proven meanwhile, or has gone,
//! leaves an entry that means nothing.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::look_up::prefetch;
use super::memory::FlowRecord;
use crate::{BURST, Protocol, Tick};

/// Entries passed over in one search, because their flows were seen this very tick.
const REACH: usize = 16;

/// How many entries ahead a record is asked for: when a burst of new flows comes, those of all that give way to it are
/// there.
const AHEAD: usize = 2 * BURST;

/// A flow that was unproven when it came. Zero is none.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct Slot {
    record: u32,
    sign: u32,
}

/// Entries in a circle; `next` is the oldest, and the next to be written.
pub(crate) struct Ring<'r> {
    slots: &'r mut [Slot],
    next: &'r mut u32,
}

/// The ring of a flow's protocol: TCP has one, and UDP.
pub(crate) fn ring_of(protocol: u8) -> usize {
    usize::from(protocol == Protocol::Udp.number())
}

impl<'r> Ring<'r> {
    pub(crate) fn new(slots: &'r mut [Slot], next: &'r mut u32) -> Self {
        Self { slots, next }
    }

    /// The flow whose place a new one takes, if the oldest entry's is unproven still. Those that are spared are passed
    /// over, as if they were the newest, as long as another is in reach.
    ///
    /// Flows seen at `now`, which a packet of this burst may hold, are as new as any and passed over; where all in
    /// reach are, the new one takes the place of an entry and leaves the flow: within a tick the quota may be
    /// exceeded.
    pub(crate) fn make_way(
        &mut self,
        records: &[FlowRecord],
        is_spared: impl Fn(&FlowRecord) -> bool,
        now: Tick,
    ) -> Option<u32> {
        let reach = REACH.min(self.slots.len());
        for passed in 1..=reach {
            let record = self.slots[*self.next as usize].unproven(records)?;
            let flow = &records[record as usize];
            let is_new = now.since(Tick(flow.last_seen)) == 0;
            if !is_new && (passed == reach || !is_spared(flow)) {
                return Some(record);
            }
            self.turn();
        }
        None
    }

    /// Writes a new flow over the oldest entry.
    pub(crate) fn push(&mut self, record: u32, records: &[FlowRecord]) {
        let sign = sign(&records[record as usize]);
        self.slots[*self.next as usize] = Slot { record, sign };
        self.turn();
        if let Some(record) = records.get(self.ahead(AHEAD).record as usize) {
            prefetch(record);
        }
        if let Some(slot) = self.slots.get(self.place_ahead(2 * AHEAD)) {
            prefetch(slot);
        }
    }

    /// The flow that will give way after `others`, if it is unproven still.
    #[inline]
    pub(crate) fn gives_way_after(&self, others: usize, records: &[FlowRecord]) -> Option<u32> {
        self.ahead(others).unproven(records)
    }

    /// The entry so many after the oldest.
    #[inline]
    fn ahead(&self, count: usize) -> Slot {
        self.slots.get(self.place_ahead(count)).copied().unwrap_or(Slot { record: 0, sign: 0 })
    }

    #[inline]
    fn place_ahead(&self, count: usize) -> usize {
        let (at, len) = (*self.next as usize + count, self.slots.len());
        if at < len { at } else { at - len } // a circle smaller than that has no use for it
    }

    fn turn(&mut self) {
        *self.next = if *self.next as usize + 1 < self.slots.len() { *self.next + 1 } else { 0 };
    }
}

/// The flows of a circle's oldest entries that are unproven still.
pub(crate) fn oldest(
    slots: &[Slot],
    next: u32,
    records: &[FlowRecord],
) -> impl Iterator<Item = u32> {
    let (newer, older) = slots.split_at(next as usize);
    older.iter().chain(newer).take(REACH).filter_map(|slot| slot.unproven(records))
}

impl Slot {
    /// Its flow, if that is unproven still.
    fn unproven(self, records: &[FlowRecord]) -> Option<u32> {
        let record = records.get(self.record as usize)?;
        let same = record.is_unproven() && sign(record) == self.sign;
        same.then_some(self.record)
    }
}

/// Tells apart flows that had the same record one after the other; rarely not, and then a younger flow gives way.
fn sign(record: &FlowRecord) -> u32 {
    let addresses = record.addresses[0];
    record.ports[0] ^ addresses as u32 ^ (addresses >> 32) as u32
}
