//! Whose flows a table holds: no listener keeps another from having its share.
//!
//! A share is the whole divided by the listeners that have flows. As long as there is room, each takes what it
//! likes. The last eighth of the table is for those that have less than their share; one that has it takes the places
//! of its own flows. In the quota of unproven flows, those of a listener that has few give way after the others.

use crate::ListenerSlot;

/// Which part of the table is kept for listeners that have less than their share: one of so many.
const RESERVE: u32 = 8;

/// How many flows each listener has.
pub(crate) struct Shares {
    /// By slot.
    rows: Box<[Row]>,
    /// Listeners that have any.
    active: u32,
}

#[derive(Clone, Copy, Default)]
struct Row {
    flows: u32,
    /// Of those the unproven, by ring.
    unproven: [u32; 2],
}

impl Default for Shares {
    fn default() -> Self {
        let slots = ListenerSlot::MAX.0 as usize + 1;
        Self { rows: vec![Row::default(); slots].into(), active: 0 }
    }
}

/// Whether what is left of a pool of so many records is for listeners that have less than their share.
pub(crate) fn is_scarce(size: u32, live: u32) -> bool {
    size - live <= size / RESERVE
}

impl Shares {
    /// Whether a listener has as many of `size` records as are due to it, were it one of those that have any; of
    /// several `listeners` two at least count, so that one alone cannot fill the table before the next comes.
    pub(crate) fn has_its_share(
        &self,
        listener: ListenerSlot,
        size: u32,
        listeners: usize,
    ) -> bool {
        let row = self.row(listener);
        let active = self.active + u32::from(row.flows == 0);
        let sharers = active.max(if listeners > 1 { 2 } else { 1 });
        (u64::from(row.flows) + 1) * u64::from(sharers) > u64::from(size) // no division: each new flow asks
    }

    /// Whether a listener has less than its share of a quota.
    pub(crate) fn has_few_unproven(
        &self,
        listener: ListenerSlot,
        ring: usize,
        quota: usize,
    ) -> bool {
        let share = quota / self.active.max(1) as usize;
        (self.row(listener).unproven[ring] as usize) < share
    }

    pub(crate) fn begin(&mut self, listener: ListenerSlot) {
        let row = self.row_mut(listener);
        row.flows += 1;
        self.active += u32::from(row.flows == 1);
    }

    pub(crate) fn end(&mut self, listener: ListenerSlot) {
        let row = self.row_mut(listener);
        row.flows -= 1;
        self.active -= u32::from(row.flows == 0);
    }

    pub(crate) fn begin_unproven(&mut self, listener: ListenerSlot, ring: usize) {
        self.row_mut(listener).unproven[ring] += 1;
    }

    pub(crate) fn prove(&mut self, listener: ListenerSlot, ring: usize) {
        self.row_mut(listener).unproven[ring] -= 1;
    }

    fn row(&self, listener: ListenerSlot) -> &Row {
        &self.rows[at(listener)]
    }

    fn row_mut(&mut self, listener: ListenerSlot) -> &mut Row {
        &mut self.rows[at(listener)]
    }
}

fn at(listener: ListenerSlot) -> usize {
    listener.0.min(ListenerSlot::MAX.0) as usize
}

#[cfg(test)]
impl Shares {
    /// Flows, and the unproven of each ring.
    pub(crate) fn of(&self, listener: ListenerSlot) -> (u32, [u32; 2]) {
        (self.row(listener).flows, self.row(listener).unproven)
    }
}
