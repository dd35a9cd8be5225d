//! Timeouts of listeners that want others than the box's.
//!
//! Only the sweep asks, of each record that it passes; a packet never does. Where no listener has its own there is nothing
//! to ask. Where some have, it is a bit a listener, 2 KiB for all that there may be, so that flows of those that say nothing
//! cost no line of memory each.

use super::state::Timeouts;
use crate::ListenerSlot;
use crate::shared::SharedMap;

/// See the module. A copy shares what does not change in it, but for the bits.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnTimeouts {
    /// The listeners that have their own, a bit each.
    have: Vec<u64>,
    own: SharedMap<ListenerSlot, Timeouts>,
}

impl OwnTimeouts {
    /// Those of a listener, if it has its own.
    #[inline]
    pub(crate) fn of(&self, slot: ListenerSlot) -> Option<&Timeouts> {
        let (at, bit) = place(slot);
        let has = self.have.get(at).is_some_and(|bits| bits & bit != 0);
        has.then(|| self.own.get(&slot)).flatten()
    }

    /// Gives a listener its own, or takes them.
    pub(crate) fn set(&mut self, slot: ListenerSlot, timeouts: Option<Timeouts>) {
        let (at, bit) = place(slot);
        if let Some(timeouts) = timeouts {
            let words = self.have.len().max(at + 1);
            self.have.resize(words, 0);
            self.have[at] |= bit;
            self.own.insert(slot, timeouts);
        } else if self.own.remove(&slot).is_some() {
            self.have[at] &= !bit;
        }
    }

    /// Whether no listener has its own.
    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_empty()
    }
}

/// Which word, and which bit of it.
fn place(slot: ListenerSlot) -> (usize, u64) {
    (slot.0 as usize / 64, 1 << (slot.0 % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeouts(seconds: u32) -> Timeouts {
        Timeouts { tcp_established_ms: seconds * 1000, ..Timeouts::default() }
    }

    #[test]
    fn each_listener_has_its_own_or_none() {
        let mut own = OwnTimeouts::default();
        let slots = [0, 3, 63, 64, 300, 16_383].map(ListenerSlot);
        assert!(own.is_empty() && slots.iter().all(|slot| own.of(*slot).is_none()));
        own.set(ListenerSlot(300), None);
        for (seconds, slot) in (1..).zip(slots) {
            own.set(slot, Some(timeouts(9)));
            own.set(slot, Some(timeouts(seconds)));
        }
        own.set(slots[1], None);
        let found = slots.map(|slot| own.of(slot).map(|own| own.tcp_established_ms / 1000));
        assert_eq!(found, [Some(1), None, Some(3), Some(4), Some(5), Some(6)]);
        let has = |slot| own.of(ListenerSlot(slot)).is_some();
        assert_eq!((0..70_000).filter(|slot| has(*slot)).count(), 5);
        for slot in slots {
            own.set(slot, None);
        }
        assert!(own.is_empty() && slots.iter().all(|slot| own.of(*slot).is_none()));
    }
}
