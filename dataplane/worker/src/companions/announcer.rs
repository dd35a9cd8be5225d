//! When the link of a port is told that an address is ours, and how often.
//!
//! ```text
//!   ours now ──▶ told ── 2 s ──▶ told ── 32 s ──▶ told, and that is all
//!                 ▲                        link or companion up again: all from the beginning
//! ```
//! Three times, since nobody acknowledges a broadcast, and RFC 4861 §7.2.6 allows no more of ND. Two seconds after
//! the first is what RFC 5227 §2.3 says of ARP, and more than the RetransTimer that ND asks for. The third
//! comes when a switch has let the port in that just came up, if it does spanning tree: twice a forward
//! delay of 15 s (IEEE 802.1D). A neighbour that has missed all three finds out by itself, if its packets are
//! not answered: Linux within a minute or so.
//!
//! [`PACE`] bounds what a port sends of this, so that a thousand VIPs that move at once are no burst that
//! switches police and hosts have to bear: those that were never told go first, and are within 2 s.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::kernel::{Policer, Rate};

/// From one announcement of an address to the next.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(32)];
/// Announcements of a port: a second, and at once.
const PACE: Rate = Rate::of_packets(500, 16);

/// What a port's link was told, and has yet to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Gratuitous ARP requests, one for an IPv4 address.
    pub arp: u64,
    /// Unsolicited neighbour advertisements, one for an IPv6 address.
    pub nd: u64,
    /// Addresses that will be announced again.
    pub announcing: u64,
}

/// How often an address was told, and when it shall be again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    told: usize,
    at: Duration,
}

/// Announces the addresses of one port. Time is an argument: since whenever, as long as it is the same.
#[derive(Debug)]
pub(super) struct Announcer {
    /// Every address of ours on the companion; those of which nothing remains to be told have nothing due.
    addresses: BTreeMap<IpAddr, Option<Due>>,
    /// What is due, the least told first.
    queue: BTreeSet<(Due, IpAddr)>,
    pace: Policer,
    /// Of the port; none if its driver cannot know.
    link_up: Option<bool>,
    companion_up: bool,
    arp: u64,
    nd: u64,
}

impl Announcer {
    pub(super) fn new() -> Self {
        Self {
            addresses: BTreeMap::new(),
            queue: BTreeSet::new(),
            pace: Policer::new(PACE),
            link_up: None,
            companion_up: true,
            arp: 0,
            nd: 0,
        }
    }

    /// The address is ours from now on, or somebody has to be told anew.
    pub(super) fn begin(&mut self, address: IpAddr, now: Duration) {
        self.forget(address);
        self.schedule(address, Due { told: 0, at: now });
    }

    /// The address is ours no more.
    pub(super) fn forget(&mut self, address: IpAddr) {
        if let Some(Some(due)) = self.addresses.remove(&address) {
            self.queue.remove(&(due, address));
        }
    }

    /// None of them is.
    pub(super) fn forget_all(&mut self) {
        self.addresses.clear();
        self.queue.clear();
    }

    /// What is known of the port's link. How many addresses are announced anew, because it is up again.
    pub(super) fn link_is(&mut self, up: Option<bool>, now: Duration) -> usize {
        let could = self.can_tell();
        self.link_up = up;
        self.begin_all_if(!could && self.can_tell(), now)
    }

    /// The same of the companion: the kernel answers for nothing while that is down.
    pub(super) fn companion_is(&mut self, up: bool, now: Duration) -> usize {
        let could = self.can_tell();
        self.companion_up = up;
        self.begin_all_if(!could && self.can_tell(), now)
    }

    fn can_tell(&self) -> bool {
        self.companion_up && self.link_up != Some(false)
    }

    fn begin_all_if(&mut self, anew: bool, now: Duration) -> usize {
        if !anew {
            return 0;
        }
        let all: Vec<_> = self.addresses.keys().copied().collect();
        all.iter().for_each(|address| self.begin(*address, now));
        all.len()
    }

    /// Tells what is due at `now`, as far as the pace allows and as long as `send` says that it had
    /// room. Costs O(log n) an address told.
    pub(super) fn tell(&mut self, now: Duration, mut send: impl FnMut(IpAddr) -> bool) {
        if !self.can_tell() {
            return;
        }
        while let Some((due, address)) = self.next_due(now) {
            // The pace is of packets alone, whatever they are long.
            if !self.pace.admit(now, 0) || !send(address) {
                return;
            }
            *(if address.is_ipv4() { &mut self.arp } else { &mut self.nd }) += 1;
            self.forget(address);
            match PAUSES.get(due.told) {
                Some(pause) => {
                    self.schedule(address, Due { told: due.told + 1, at: now + *pause });
                }
                None => _ = self.addresses.insert(address, None),
            }
        }
    }

    fn next_due(&self, now: Duration) -> Option<(Due, IpAddr)> {
        let lowest = IpAddr::from([0; 4]); // IPv4 sorts before IPv6
        (0..=PAUSES.len()).find_map(|told| {
            let first = self.queue.range((Due { told, at: Duration::ZERO }, lowest)..).next()?;
            (first.0.told == told && first.0.at <= now).then_some(*first)
        })
    }

    fn schedule(&mut self, address: IpAddr, due: Due) {
        self.addresses.insert(address, Some(due));
        self.queue.insert((due, address));
    }

    pub(super) fn announced(&self) -> Announced {
        Announced { arp: self.arp, nd: self.nd, announcing: self.queue.len() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u16) -> IpAddr {
        let [high, low] = n.to_be_bytes();
        [10, 0, high, low].into()
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Turns of the main thread, every 2 ms: what is told in the given time, and when, in milliseconds.
    fn told(announcer: &mut Announcer, from_ms: u64, to_ms: u64) -> Vec<(u64, IpAddr)> {
        let mut told = Vec::new();
        for now in (from_ms..to_ms).step_by(2) {
            announcer.tell(ms(now), |address| {
                told.push((now, address));
                true
            });
        }
        told
    }

    #[test]
    fn an_address_is_told_at_once_and_twice_more() {
        let mut announcer = Announcer::new();
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        announcer.begin(ip(1), ms(10));
        announcer.begin(v6, ms(10));
        let times = told(&mut announcer, 10, 120_000);
        let expected = [10, 2_010, 34_010].map(|at| [(at, ip(1)), (at, v6)]).concat();
        assert_eq!(times, expected);
        assert_eq!(announcer.announced(), Announced { arp: 3, nd: 3, announcing: 0 });
    }

    #[test]
    fn a_thousand_are_no_burst_and_each_is_told_once_before_one_is_twice() {
        let mut announcer = Announcer::new();
        (0..1_000).for_each(|n| announcer.begin(ip(n), ms(0)));
        let told = told(&mut announcer, 0, 60_000);
        assert_eq!(told.len(), 3_000);
        for (second, _) in told.iter().step_by(100) {
            let within = |at: &&(u64, IpAddr)| (*second..second + 1_000).contains(&at.0);
            let packets = told.iter().filter(within).count();
            assert!(packets <= 516, "{packets} in the second from {second} ms");
        }
        let at_once = told.iter().filter(|(at, _)| *at == 0).count();
        assert_eq!(at_once, 16);
        let firsts: BTreeSet<_> = told[..1_000].iter().map(|(_, address)| *address).collect();
        assert_eq!(firsts.len(), 1_000, "each once");
        assert!(told[999].0 <= 2_000, "the last at {} ms", told[999].0);
        assert!(told[1_999].0 <= 4_100, "and again, at {} ms", told[1_999].0);
    }

    #[test]
    fn what_comes_while_others_are_repeated_does_not_wait_for_them() {
        let mut announcer = Announcer::new();
        (0..1_000).for_each(|n| announcer.begin(ip(n), ms(0)));
        told(&mut announcer, 0, 3_000);
        announcer.begin(ip(5_000), ms(3_000));
        let told = told(&mut announcer, 3_000, 3_010);
        assert_eq!(told[0].1, ip(5_000));
    }

    #[derive(Clone, Copy)]
    enum Happens {
        Goes,
        AllGo,
        Again,
        Link(Option<bool>),
        Companion(bool),
    }

    /// What happens to an address that was told at 0 ms, and when it is told from then on.
    #[test]
    fn it_depends_on_what_happens_meanwhile() {
        use Happens::{Again, AllGo, Companion, Goes, Link};
        type Row = (&'static str, &'static [(u64, Happens)], &'static [u64]);
        #[rustfmt::skip]
        let rows: [Row; 8] = [
            ("nothing", &[], &[2_000, 34_000]),
            ("it goes", &[(1_000, Goes)], &[]),
            ("all go", &[(3_000, AllGo)], &[2_000]),
            ("it comes again", &[(1_000, Again)], &[1_000, 3_000, 35_000]),
            ("the link is found up, which is nothing new",
             &[(1_000, Link(Some(true))), (1_200, Link(Some(true)))], &[2_000, 34_000]),
            ("the link was away: whoever is there now was not there before",
             &[(50_000, Link(Some(false))), (90_000, Link(Some(true)))],
             &[2_000, 34_000, 90_000, 92_000, 124_000]),
            ("nobody is told while it is",
             &[(1_000, Link(Some(false))), (1_200, Link(Some(false))), (40_000, Link(None))],
             &[40_000, 42_000, 74_000]),
            ("the companion was away, and the link for longer",
             &[(1_000, Companion(false)), (1_500, Link(Some(false))),
               (3_000, Companion(true)), (5_000, Link(Some(true)))],
             &[5_000, 7_000, 39_000]),
        ];
        for (what, changes, expected) in rows {
            let mut announcer = Announcer::new();
            announcer.begin(ip(1), ms(0));
            assert_eq!(told(&mut announcer, 0, 2), [(0, ip(1))], "{what}");
            let (mut from, mut times) = (2, Vec::new());
            for (at, change) in changes {
                times.extend(told(&mut announcer, from, *at));
                match change {
                    Goes => announcer.forget(ip(1)),
                    AllGo => announcer.forget_all(),
                    Again => announcer.begin(ip(1), ms(*at)),
                    Link(up) => _ = announcer.link_is(*up, ms(*at)),
                    Companion(up) => _ = announcer.companion_is(*up, ms(*at)),
                }
                from = *at;
            }
            times.extend(told(&mut announcer, from, 200_000));
            let times: Vec<_> = times.into_iter().map(|(at, _)| at).collect();
            assert_eq!(times, expected, "{what}");
        }
    }

    #[test]
    fn what_finds_no_room_is_told_when_there_is_some() {
        let mut announcer = Announcer::new();
        announcer.begin(ip(1), ms(0));
        announcer.begin(ip(2), ms(0));
        let mut asked = Vec::new();
        announcer.tell(ms(0), |address| {
            asked.push(address);
            false
        });
        assert_eq!((asked, announcer.announced().arp), (vec![ip(1)], 0));
        assert_eq!(told(&mut announcer, 2, 4), [(2, ip(1)), (2, ip(2))]);
    }
}
