//! What is to be looked at, and when: each thing once.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

/// Things by the time at which they are to be looked at. Every operation is O(log n).
#[derive(Debug)]
pub struct Agenda<K> {
    due: BTreeSet<(Instant, K)>,
    when: BTreeMap<K, Instant>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Self { due: BTreeSet::new(), when: BTreeMap::new() }
    }
}

impl<K: Clone + Ord> Agenda<K> {
    /// Looks at `key` at that time, and at none that was said before.
    pub fn put(&mut self, key: K, at: Instant) {
        if let Some(before) = self.when.insert(key.clone(), at) {
            self.due.remove(&(before, key.clone()));
        }
        self.due.insert((at, key));
    }

    /// Does not look at `key` after all.
    pub fn remove(&mut self, key: &K) {
        if let Some(at) = self.when.remove(key) {
            self.due.remove(&(at, key.clone()));
        }
    }

    /// When something is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Something that is due `now`.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        self.next().filter(|at| *at <= now)?;
        let (_, key) = self.due.pop_first()?;
        self.when.remove(&key);
        Some(key)
    }

    /// How many things wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thing_is_looked_at_once_at_the_time_that_was_said_last() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut agenda = Agenda::default();
        agenda.put("a", now);
        agenda.put("a", later);
        agenda.put("b", now);
        agenda.put("c", now);
        agenda.remove(&"c");
        assert_eq!(agenda.len(), 2);
        assert_eq!((agenda.pop(now), agenda.pop(now)), (Some("b"), None));
        assert_eq!(agenda.next(), Some(later));
        assert_eq!((agenda.pop(later), agenda.is_empty()), (Some("a"), true));
    }
}
