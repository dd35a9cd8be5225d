//! Numbers for things that live long: a listener's or a backend's row in the counter tables.
//!
//! A number stays with its key for as long as the key is configured *or a flow still names it*, so
//! that counters and flows of one backend never show up under another. Order plays no part.

use std::{collections::HashMap, hash::Hash};

/// Numbers below a capacity, given to keys.
#[derive(Debug)]
pub struct Slots<K> {
    given: HashMap<K, u32>,
    free: Vec<u32>,
    next: u32,
    capacity: u32,
}

impl<K: Eq + Hash + Clone> Slots<K> {
    /// No key has a number yet; `capacity` numbers can be given.
    pub fn new(capacity: u32) -> Self {
        Self { given: HashMap::new(), free: Vec::new(), next: 0, capacity }
    }

    /// The number of `key`, given now if it has none; `None` if all are taken.
    pub fn of(&mut self, key: &K) -> Option<u32> {
        if let Some(slot) = self.given.get(key) {
            return Some(*slot);
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.next < self.capacity => {
                self.next += 1;
                self.next - 1
            }
            None => return None,
        };
        self.given.insert(key.clone(), slot);
        Some(slot)
    }

    /// Takes back the numbers that are not in use, and tells which.
    pub fn release(&mut self, in_use: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut released = Vec::new();
        self.given.retain(|_, slot| {
            let keep = in_use(*slot);
            if !keep {
                released.push(*slot);
            }
            keep
        });
        self.free.extend(&released);
        released
    }

    /// Every key with its number.
    pub fn iter(&self) -> impl Iterator<Item = (&K, u32)> {
        self.given.iter().map(|(key, slot)| (key, *slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_number_while_a_flow_names_it() {
        let mut slots = Slots::new(2);
        let (a, b) = (slots.of(&"a").unwrap(), slots.of(&"b").unwrap());
        assert_eq!(slots.of(&"c"), None, "all numbers are taken");
        assert!(slots.release(|_| true).is_empty(), "a flow names a");
        assert_eq!(slots.of(&"a"), Some(a), "and when a returns it is the same");
        assert_eq!(slots.release(|slot| slot == b), [a]);
        assert_eq!(slots.of(&"c"), Some(a), "now another may have the number");
        assert_eq!(slots.of(&"b"), Some(b));
    }
}
