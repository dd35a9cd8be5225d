//! Which object is looked at next.
//!
//! What routes attach to goes before the routes: a burst of them has a status each, and a count that waited
//! behind all of those would be seconds late.

use tokio::time::Instant;

use crate::agenda::Agenda;
use crate::object::{Kind, ObjectKey};

/// Objects to look at, each once, by time: those that routes attach to, and all others.
#[derive(Debug, Default)]
pub(super) struct Due([Agenda<ObjectKey>; 2]);

impl Due {
    /// Looks at an object at that time, and at none that was said before.
    pub(super) fn put(&mut self, key: ObjectKey, at: Instant) {
        self.0[queue(key.kind)].put(key, at);
    }

    /// Does not look at it after all.
    pub(super) fn remove(&mut self, key: &ObjectKey) {
        self.0[queue(key.kind)].remove(key);
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().filter_map(Agenda::next).min()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Agenda::len).sum()
    }

    /// The next one that is due `now`.
    pub(super) fn pop(&mut self, now: Instant) -> Option<ObjectKey> {
        self.0.iter_mut().find_map(|agenda| agenda.pop(now))
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
        assert_eq!((due.next(), due.pop(start)), (None, None));
        due.put(key(Kind::TcpRoute, "b"), after(2));
        due.put(key(Kind::TcpRoute, "a"), after(1));
        due.put(key(Kind::Gateway, "gateway"), after(9));
        due.put(key(Kind::Gateway, "gateway"), after(5));
        due.put(key(Kind::ListenerSet, "gone"), after(0));
        due.remove(&key(Kind::ListenerSet, "gone"));
        assert_eq!((due.next(), due.pop(start)), (Some(after(1)), None), "nobody's time has come");
        for (now, name) in [(4, "a"), (6, "gateway"), (6, "b")] {
            assert_eq!(due.pop(after(now)).map(|key| key.name), Some(name.to_owned()));
        }
        assert_eq!((due.next(), due.pop(after(99))), (None, None));
    }
}
