//! Numbers for things that live long: a listener's or a backend's row in the counter tables.
//!
//! A number stays with its key for as long as the key is configured *or a flow still names it*, so
//! that counters and flows of one backend never show up under another. Order plays no part.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// Numbers below a capacity, given to keys.
#[derive(Debug)]
pub struct Slots<K> {
    given: HashMap<K, u32>,
    /// The keys by number; none where the number is free.
    keys: Vec<Option<K>>,
    free: Vec<u32>,
    /// Numbers that are given and that the configuration does not hold, and whether that was told.
    idle: BTreeMap<u32, bool>,
    capacity: u32,
}

impl<K: Eq + Hash + Clone> Slots<K> {
    /// No key has a number yet; `capacity` numbers can be given.
    pub fn new(capacity: u32) -> Self {
        let (given, idle) = (HashMap::new(), BTreeMap::new());
        Self { given, keys: Vec::new(), free: Vec::new(), idle, capacity }
    }

    /// How many numbers there are.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The number of `key`, given now if it has none; `None` if all are taken. One that is new is not
    /// held: see [`Self::hold`].
    pub fn of(&mut self, key: &K) -> Option<u32> {
        if let Some(slot) = self.given.get(key) {
            return Some(*slot);
        }
        let slot = self.free.pop().or_else(|| {
            let next = u32::try_from(self.keys.len()).ok().filter(|next| *next < self.capacity)?;
            self.keys.push(None);
            Some(next)
        })?;
        self.keys[slot as usize] = Some(key.clone());
        self.given.insert(key.clone(), slot);
        self.idle.insert(slot, false);
        Some(slot)
    }

    /// What has a number.
    #[cfg(test)]
    pub fn key(&self, slot: u32) -> Option<&K> {
        self.keys.get(slot as usize)?.as_ref()
    }

    /// The configuration holds a number: it is not given back.
    pub fn hold(&mut self, slot: u32) {
        self.idle.remove(&slot);
    }

    /// The configuration holds a number no more; flows may.
    pub fn let_go(&mut self, slot: u32) {
        self.idle.insert(slot, false);
    }

    /// The numbers that were let go since the last call, and are so still, with their keys.
    pub fn take_let_go(&mut self) -> Vec<(u32, K)> {
        let keys = &self.keys;
        let new = self.idle.iter_mut().filter_map(|(slot, told)| {
            let new = !std::mem::replace(told, true);
            Some((*slot, keys[*slot as usize].clone().filter(|_| new)?))
        });
        new.collect()
    }

    /// Takes back the numbers that are neither held nor in use, and tells which. Costs a question for
    /// each that is not held.
    pub fn release(&mut self, in_use: impl Fn(u32) -> bool) -> Vec<u32> {
        let released: Vec<u32> = self.idle.keys().copied().filter(|slot| !in_use(*slot)).collect();
        for slot in &released {
            self.idle.remove(slot);
            if let Some(key) = self.keys[*slot as usize].take() {
                self.given.remove(&key);
            }
        }
        self.free.extend(&released);
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_number_while_a_flow_names_it() {
        let mut slots = Slots::new(2);
        let (a, b) = (slots.of(&"a").unwrap(), slots.of(&"b").unwrap());
        slots.hold(a);
        slots.hold(b);
        assert_eq!(slots.of(&"c"), None, "all numbers are taken");
        assert!(slots.release(|_| false).is_empty(), "both are configured");
        slots.let_go(a);
        assert_eq!(slots.take_let_go(), [(a, "a")]);
        assert_eq!(slots.take_let_go(), [], "it is told once");
        assert!(slots.release(|_| true).is_empty(), "a flow names a");
        assert_eq!(slots.of(&"a"), Some(a), "and when a returns it is the same");
        assert_eq!(slots.release(|slot| slot == b), [a]);
        assert_eq!(slots.of(&"c"), Some(a), "now another may have the number");
        assert_eq!(slots.of(&"b"), Some(b));
        assert_eq!(slots.release(|_| false), [a], "one that was never held goes too");
    }
}
