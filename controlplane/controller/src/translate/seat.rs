//! The routes at each listener, oldest first.

use std::collections::{BTreeMap, BTreeSet};

use super::gateway::Age;
use crate::object::{Kind, ObjectKey};

/// A listener: whose, and which in the order of the spec.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seat {
    /// The Gateway, or the ListenerSet.
    pub(super) owner: ObjectKey,
    pub(super) listener: usize,
}

/// When a route's turn comes: the oldest first, of one age by name and kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub(super) age: Age,
    pub(super) kind: Kind,
}

impl Turn {
    /// Whose turn it is.
    pub(super) fn route(&self) -> ObjectKey {
        ObjectKey::of(self.kind, &self.age.name)
    }
}

/// Who sits where.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: BTreeMap<Seat, BTreeSet<Turn>>,
    /// Of seats that somebody took or left since [`Self::moves`]: who came first, and how many there were.
    before: BTreeMap<Seat, (Option<Turn>, usize)>,
}

/// What changed at a seat.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) seat: Seat,
    /// Whether another route is the oldest now.
    pub(super) of_oldest: bool,
    /// Whether there are more routes, or fewer.
    pub(super) of_count: bool,
}

impl Seats {
    /// Attaches a route to a listener; once, however often it asks.
    pub(super) fn take(&mut self, seat: &Seat, turn: &Turn) {
        self.note(seat);
        self.taken.entry(seat.clone()).or_default().insert(turn.clone());
    }

    /// Takes a route away from a listener.
    pub(super) fn leave(&mut self, seat: &Seat, turn: &Turn) {
        self.note(seat);
        if let Some(turns) = self.taken.get_mut(seat) {
            turns.remove(turn);
            if turns.is_empty() {
                self.taken.remove(seat);
            }
        }
    }

    fn note(&mut self, seat: &Seat) {
        if !self.before.contains_key(seat) {
            let now = (self.oldest(seat).cloned(), self.count(seat));
            self.before.insert(seat.clone(), now);
        }
    }

    /// The oldest route of a listener.
    pub(super) fn oldest(&self, seat: &Seat) -> Option<&Turn> {
        self.taken.get(seat)?.first()
    }

    /// How many routes a listener has.
    pub(super) fn count(&self, seat: &Seat) -> usize {
        self.taken.get(seat).map_or(0, BTreeSet::len)
    }

    /// All of them.
    pub(super) fn turns(&self, seat: &Seat) -> impl Iterator<Item = &Turn> {
        self.taken.get(seat).into_iter().flatten()
    }

    /// The seats where something changed since this was called last.
    pub(super) fn moves(&mut self) -> Vec<Move> {
        let before = std::mem::take(&mut self.before);
        let moved = before.into_iter().map(|(seat, (oldest, count))| {
            let of_oldest = self.oldest(&seat) != oldest.as_ref();
            let of_count = self.count(&seat) != count;
            Move { seat, of_oldest, of_count }
        });
        moved.filter(|moved| moved.of_oldest || moved.of_count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::NamespacedName;

    #[test]
    fn what_changed_is_told_once_and_what_was_undone_is_not() {
        let name = |name: &str| NamespacedName::new("default", name);
        let seat = Seat { owner: ObjectKey::of(Kind::Gateway, &name("web")), listener: 0 };
        let turn = |text: &str| Turn { age: Age::of(None, &name(text)), kind: Kind::TcpRoute };
        let mut seats = Seats::default();
        let moved = |of_oldest, of_count| vec![Move { seat: seat.clone(), of_oldest, of_count }];
        seats.take(&seat, &turn("b"));
        seats.take(&seat, &turn("b"));
        assert_eq!(seats.moves(), moved(true, true), "the first");
        assert_eq!(seats.moves(), [], "and nothing since");
        seats.take(&seat, &turn("c"));
        assert_eq!(seats.moves(), moved(false, true), "a younger one");
        seats.leave(&seat, &turn("b"));
        seats.take(&seat, &turn("a"));
        assert_eq!(seats.moves(), moved(true, false), "another in the oldest's stead");
        seats.leave(&seat, &turn("a"));
        seats.take(&seat, &turn("a"));
        assert_eq!(seats.moves(), [], "gone and back");
        let found: Vec<_> = seats.turns(&seat).map(|turn| turn.age.name.name.as_str()).collect();
        assert_eq!((found.as_slice(), seats.count(&seat)), (&["a", "c"][..], 2));
        seats.leave(&seat, &turn("a"));
        seats.leave(&seat, &turn("c"));
        assert_eq!(seats.moves(), moved(true, true));
        assert!(seats.taken.is_empty(), "nothing is left over");
    }
}
