//! Packets that wait for their next hop's MAC while the kernel asks for it.
//!
//! They are rewritten already and carry no pointer into a snapshot: when the neighbours have
//! changed, each is looked up again by its destination. Bounded three ways: [`PACKETS`] in all,
//! [`PACKETS_PER_NEXT_HOP`] for one next hop, so that a host that is down cannot take the room of
//! the others, and [`PATIENCE_MS`] in time.

use penstock_forward::{NextHopKey, Tick};

/// Packets one worker holds.
pub const PACKETS: usize = 128;
/// Packets one worker holds for one next hop.
pub const PACKETS_PER_NEXT_HOP: usize = 8;
/// How long a packet waits, in milliseconds: the kernel asks three times, a second apart, but a
/// client's first retransmission comes after one second anyway (RFC 6298 §2).
pub const PATIENCE_MS: u32 = 1000;

/// A packet that waits, complete but for its Ethernet addresses.
#[derive(Debug)]
struct Waiting<P> {
    packet: P,
    next_hop: NextHopKey,
    since: Tick,
}

/// The waiting room of one worker.
#[derive(Debug)]
pub struct Hold<P> {
    waiting: Vec<Waiting<P>>,
}

impl<P> Hold<P> {
    /// An empty room; the only allocation it ever makes.
    #[expect(clippy::new_without_default, reason = "a default would hide that it allocates")]
    pub fn new() -> Self {
        Self { waiting: Vec::with_capacity(PACKETS) }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets a packet wait for `next_hop`.
    ///
    /// # Errors
    /// The packet back if the room, or the next hop's share of it, is full.
    pub fn admit(&mut self, packet: P, next_hop: NextHopKey, now: Tick) -> Result<(), P> {
        let for_this = self.waiting.iter().filter(|waiting| waiting.next_hop == next_hop).count();
        if self.waiting.len() == PACKETS || for_this >= PACKETS_PER_NEXT_HOP {
            return Err(packet);
        }
        self.waiting.push(Waiting { packet, next_hop, since: now });
        Ok(())
    }

    /// Offers every packet, with the next hop it waits for, to `try_again`, in the order of arrival; what it
    /// gives back waits on, for the next hop it gives with it.
    pub fn retry(&mut self, mut try_again: impl FnMut(P, NextHopKey) -> Option<(P, NextHopKey)>) {
        for _ in 0..self.waiting.len() {
            let Waiting { packet, since, next_hop } = self.waiting.remove(0); // at most PACKETS, and rare
            if let Some((packet, next_hop)) = try_again(packet, next_hop) {
                self.waiting.push(Waiting { packet, next_hop, since });
            }
        }
    }

    /// Takes out a packet whose patience is over, if there is one.
    pub fn expired(&mut self, now: Tick) -> Option<P> {
        let oldest = self.waiting.first()?;
        (now.since(oldest.since) >= PATIENCE_MS).then(|| self.waiting.remove(0).packet)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use penstock_forward::PortIdx;

    use super::*;

    fn host(last: u8) -> NextHopKey {
        NextHopKey { port: PortIdx(0), address: Ipv4Addr::new(10, 0, 0, last).into() }
    }

    #[test]
    fn a_host_that_is_down_cannot_take_the_room_of_the_others() {
        let mut hold = Hold::new();
        for packet in 0..PACKETS_PER_NEXT_HOP {
            assert_eq!(hold.admit(packet, host(1), Tick(0)), Ok(()));
        }
        assert_eq!(hold.admit(99, host(1), Tick(0)), Err(99));
        assert_eq!(hold.admit(99, host(2), Tick(0)), Ok(()));
    }

    #[test]
    fn the_room_is_bounded_in_all() {
        let mut hold = Hold::new();
        for packet in 0..PACKETS {
            assert_eq!(hold.admit(packet, host((packet / 4) as u8), Tick(0)), Ok(()));
        }
        assert_eq!(hold.admit(0, host(200), Tick(0)), Err(0));
    }

    #[test]
    fn what_can_go_goes_and_the_rest_waits_in_order() {
        let mut hold = Hold::new();
        for packet in 0..6 {
            assert_eq!(hold.admit(packet, host(1), Tick(0)), Ok(()));
        }
        let mut offered = Vec::new();
        hold.retry(|packet, _| {
            offered.push(packet);
            (packet % 2 == 0).then_some((packet, host(1)))
        });
        assert_eq!(offered, [0, 1, 2, 3, 4, 5]);
        offered.clear();
        hold.retry(|packet, _| {
            offered.push(packet);
            None
        });
        assert_eq!(offered, [0, 2, 4]);
        assert!(hold.is_empty());
    }

    #[test]
    fn patience_ends_oldest_first_and_across_the_wrap() {
        let mut hold = Hold::new();
        let start = Tick(u32::MAX - 10);
        assert_eq!(hold.admit('a', host(1), start), Ok(()));
        assert_eq!(hold.admit('b', host(1), start.plus_ms(500)), Ok(()));
        assert_eq!(hold.expired(start.plus_ms(PATIENCE_MS - 1)), None);
        assert_eq!(hold.expired(start.plus_ms(PATIENCE_MS)), Some('a'));
        assert_eq!(hold.expired(start.plus_ms(PATIENCE_MS)), None);
    }
}
