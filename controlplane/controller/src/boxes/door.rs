//! Who is at the door: connections that have not said yet who they are.
//!
//! There are [`MOST`] places. Anyone can take one, so nobody may keep it: when all are taken, the connection that
//! has been at the door longest makes room, among those of the source that has the most. So whoever connects and says
//! nothing is in his own way; a box needs a few round trips, which is far less than it takes others to come
//! [`MOST`] times. A source is an IPv4 address, or an IPv6 /64, of which one host may have all.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// So many may be at the door at once.
pub(super) const MOST: usize = 64;

/// The door.
#[derive(Debug, Default)]
pub(super) struct Door {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Those who are there, the longest first.
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    source: IpAddr,
    /// Dropping it says that the place is another's.
    _stay: oneshot::Sender<()>,
}

/// A place at the door; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    door: Arc<Door>,
    number: u64,
    stay: oneshot::Receiver<()>,
}

impl Door {
    /// Takes a place. If none is free, someone loses his.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Place {
        let (own, stay) = oneshot::channel();
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        inner.waiting.insert(number, Waiting { source: source(from), _stay: own });
        if inner.waiting.len() > MOST {
            inner.make_room();
        }
        Place { door: Arc::clone(self), number, stay }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Looks at all, who are few.
    fn make_room(&mut self) {
        let mut of: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
        for (number, waiting) in self.waiting.iter().rev() {
            let (count, longest) = of.entry(waiting.source).or_default();
            (*count, *longest) = (*count + 1, *number);
        }
        // Of sources that have the same, the one that has been there longest.
        let gives_way =
            of.into_values().max_by_key(|(count, longest)| (*count, u64::MAX - longest));
        if let Some((_, longest)) = gives_way {
            self.waiting.remove(&longest);
        }
    }
}

impl Place {
    /// Waits until the place is another's.
    pub(super) async fn lost(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.stay).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.lock().waiting.remove(&self.number);
    }
}

/// Who counts as one.
fn source(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_lost(place: &mut Place) -> bool {
        place.stay.try_recv() != Err(oneshot::error::TryRecvError::Empty)
    }

    #[test]
    fn who_has_the_most_places_gives_way_first() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let many = |from: &str, count: usize| vec![from.to_owned(); count];
        let each = |count: usize| (0..count).map(|n| format!("192.0.2.{n}")).collect::<Vec<_>>();
        for (promise, there, comes, expected) in [
            ("there is room", many("192.0.2.1", MOST - 1), "192.0.2.9", None),
            ("the longest of one who has all", many("192.0.2.1", MOST), "192.0.2.9", Some(0)),
            ("he himself, too", many("192.0.2.1", MOST), "192.0.2.1", Some(0)),
            (
                "one who has few keeps his place, though he was there first",
                [many("192.0.2.9", 2), many("192.0.2.1", MOST - 2)].concat(),
                "192.0.2.9",
                Some(2),
            ),
            ("the longest of all, if each has one", each(MOST), "198.51.100.1", Some(0)),
            (
                "a /64 is one source",
                [each(1), (1..MOST).map(|n| format!("2001:db8::{n:x}")).collect()].concat(),
                "2001:db8:0:1::1",
                Some(1),
            ),
            (
                "an IPv4 address in IPv6 is that address",
                [each(1), many("::ffff:192.0.2.200", 32), many("192.0.2.200", MOST - 33)].concat(),
                "192.0.2.3",
                Some(1),
            ),
        ] {
            let door = Arc::new(Door::default());
            let mut places: Vec<_> = there.iter().map(|from| door.enter(address(from))).collect();
            places.push(door.enter(address(comes)));
            let lost = places.iter_mut().position(is_lost);
            assert_eq!(lost, expected, "{promise}");
            drop(places);
            assert!(door.lock().waiting.is_empty(), "{promise}: places are given back");
        }
    }
}
