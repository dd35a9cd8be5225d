//! Which object is looked at next.
//!
//! What routes attach to goes before the routes: a burst of them has a status each, and a count that waited
//! behind all of those would be seconds late.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use crate::object::{Kind, ObjectKey};

/// Objects to look at, each once, by time.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Those that routes attach to, and all others.
    queues: [BTreeSet<(Instant, ObjectKey)>; 2],
    when: BTreeMap<ObjectKey, Instant>,
}

impl Due {
    /// Looks at an object at that time, and no more when it was to be looked at before.
    pub(super) fn set(&mut self, key: ObjectKey, at: Instant) {
        self.remove(&key);
        self.when.insert(key.clone(), at);
        self.queues[queue(key.kind)].insert((at, key));
    }

    /// Does not look at it.
    pub(super) fn remove(&mut self, key: &ObjectKey) {
        if let Some(at) = self.when.remove(key) {
            self.queues[queue(key.kind)].remove(&(at, key.clone()));
        }
    }

    /// When the next is to be looked at.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queues.iter().filter_map(|queue| queue.first()).map(|(at, _)| *at).min()
    }

    /// Takes the next one whose time has come.
    pub(super) fn take(&mut self, now: Instant) -> Option<ObjectKey> {
        let queue = self.queues.iter_mut().find(|q| q.first().is_some_and(|(at, _)| *at <= now))?;
        let (_, key) = queue.pop_first()?;
        self.when.remove(&key);
        Some(key)
    }
}

fn queue(kind: Kind) -> usize {
    usize::from(!matches!(kind, Kind::GatewayClass | Kind::Gateway | Kind::ListenerSet))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::object::NamespacedName;

    #[test]
    fn a_count_goes_before_the_routes_that_it_counts() {
        let key = |kind, name| ObjectKey::of(kind, &NamespacedName::new("default", name));
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut due = Due::default();
        assert_eq!((due.next(), due.take(start)), (None, None));
        due.set(key(Kind::TcpRoute, "b"), after(2));
        due.set(key(Kind::TcpRoute, "a"), after(1));
        due.set(key(Kind::Gateway, "gateway"), after(9));
        due.set(key(Kind::Gateway, "gateway"), after(5));
        due.set(key(Kind::ListenerSet, "gone"), after(0));
        due.remove(&key(Kind::ListenerSet, "gone"));
        assert_eq!((due.next(), due.take(start)), (Some(after(1)), None), "nobody's time has come");
        for (now, name) in [(4, "a"), (6, "gateway"), (6, "b")] {
            assert_eq!(due.take(after(now)).map(|key| key.name), Some(name.to_owned()));
        }
        assert_eq!((due.next(), due.take(after(99))), (None, None));
    }
}
