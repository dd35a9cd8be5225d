//! Neighbours: reading what the kernel knows of them, and making it ask.
//!
//! The kernel speaks ARP and ND; we never do. But it does not see the traffic that we forward, so
//! it would neither ask for a neighbour nor keep one alive. RTM_NEWNEIGH with `NTF_USE` tells it
//! "as if a packet had just been sent there": an unknown neighbour is asked for at once, a stale one
//! is probed (after `delay_first_probe_time`, 5 s, and by unicast), and the rest of its state
//! machine (RFC 4861 §7.3, used for ARP as well) takes its course, with our mirror listening.
//!
//! For IPv6 the kernel asks from the companion's link-local address, and keeps silent without one.
//! By default it makes that address itself, usable a second or two after the interface first came
//! up (DAD); an interface with `addr_gen_mode` 1 needs one by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::Channel;
use super::policer::{Policer, Rate};
use super::{Ifindex, KernelError, MacAddr};

/// Where a neighbour is: interface and address.
pub(super) type NeighbourKey = (Ifindex, IpAddr);

/// What the kernel says of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NeighbourFacts {
    pub(super) mac: Option<MacAddr>,
    pub(super) state: NeighbourState,
}

impl NeighbourFacts {
    /// The MAC to send to: the kernel's own rule (`NUD_VALID`) of when it would.
    pub(super) fn usable_mac(&self) -> Option<MacAddr> {
        use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
        match self.state {
            Permanent | Noarp | Reachable | Probe | Stale | Delay => self.mac,
            _ => None,
        }
    }

    pub(super) fn failed(&self) -> bool {
        self.state == NeighbourState::Failed
    }
}

/// Reads a neighbour; `None` for proxies, bridges, and groups, which the kernel lists as well.
pub(super) fn decode(message: &NeighbourMessage) -> Option<(NeighbourKey, NeighbourFacts)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(MacAddr);
            }
            _ => {}
        }
    }
    let address = address.filter(|address| !address.is_multicast())?;
    let key = (Ifindex(message.header.ifindex), address);
    Some((key, NeighbourFacts { mac, state: message.header.state }))
}

/// What became of the wish that the kernel ask for a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The kernel has been told.
    Now,
    /// It was told less than a second ago; it repeats its question by itself.
    Lately,
    /// Nothing to ask: the neighbour is known and fresh, or set by hand.
    Known,
    /// Too many are asked for at once; try again later.
    TooMany,
    /// The port has no companion interface at the moment.
    NoCompanion,
}

/// How long the kernel is left to itself with a neighbour that is missing: it asks three times, a
/// second apart, before it gives up.
const MISSING_EVERY: Duration = Duration::from_secs(1);
/// The same for one that is merely stale: five seconds of grace, three probes a second apart.
const STALE_EVERY: Duration = Duration::from_secs(10);
/// In-use neighbours asked for a second. A thousand go stale at most every 15 s
/// (`base_reachable_time` 30 s).
const IN_USE_RATE: Rate = Rate::of_packets(1000, 200);
/// Strangers asked for a second: whoever forges sources in a subnet of ours makes them up. The
/// kernel keeps one for three seconds while it asks, and 1024 neighbours in all (`gc_thresh3`).
const STRANGERS_RATE: Rate = Rate::of_packets(100, 50);
/// Neighbours whose last question each of the two remembers: more than its rate makes in
/// [`STALE_EVERY`], after which they may be forgotten.
const IN_USE_REMEMBERED: usize = 16_384;
const STRANGERS_REMEMBERED: usize = 2048;

/// Why the kernel would be asked for a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A packet waits for it.
    Packet,
    /// The configuration names it, and no packet shall have to wait.
    InUse,
}

/// When the kernel was last asked for whom, so that we do not nag. Those that the configuration
/// needs are asked for from a budget of their own, which strangers cannot empty.
#[derive(Debug)]
pub(super) struct Asking {
    keys_in_use: BTreeSet<NeighbourKey>,
    in_use: Budget,
    strangers: Budget,
}

impl Asking {
    pub(super) fn new() -> Asking {
        Asking {
            keys_in_use: BTreeSet::new(),
            in_use: Budget::new(IN_USE_RATE, IN_USE_REMEMBERED),
            strangers: Budget::new(STRANGERS_RATE, STRANGERS_REMEMBERED),
        }
    }

    /// Says whom the configuration needs; all others are strangers.
    pub(super) fn set_in_use(&mut self, keys: BTreeSet<NeighbourKey>) {
        self.keys_in_use = keys;
    }

    /// Says whom it has come to need besides.
    pub(super) fn add_in_use(&mut self, keys: impl IntoIterator<Item = NeighbourKey>) {
        self.keys_in_use.extend(keys);
    }

    /// Whether to ask the kernel for `key` at `now`, given what is known of it.
    pub(super) fn decide(
        &mut self,
        key: NeighbourKey,
        facts: Option<&NeighbourFacts>,
        reason: Reason,
        now: Duration,
    ) -> Asked {
        let in_use = self.keys_in_use.contains(&key);
        let budget = if in_use { &mut self.in_use } else { &mut self.strangers };
        budget.decide(key, facts, reason, now)
    }
}

/// What may be asked for, in rate and in memory.
#[derive(Debug)]
struct Budget {
    last: BTreeMap<NeighbourKey, Duration>,
    policer: Policer,
    remembered: usize,
}

impl Budget {
    fn new(rate: Rate, remembered: usize) -> Budget {
        Budget { last: BTreeMap::new(), policer: Policer::new(rate), remembered }
    }

    fn decide(
        &mut self,
        key: NeighbourKey,
        facts: Option<&NeighbourFacts>,
        reason: Reason,
        now: Duration,
    ) -> Asked {
        let stale = facts.is_some_and(|facts| facts.state == NeighbourState::Stale);
        if !stale && facts.is_some_and(|facts| facts.usable_mac().is_some()) {
            return Asked::Known;
        }
        // Many that are down must not take the budget of the others while nobody waits for them.
        let patient = stale || reason == Reason::InUse;
        let every = if patient { STALE_EVERY } else { MISSING_EVERY };
        if self.last.get(&key).is_some_and(|last| now.saturating_sub(*last) < every) {
            return Asked::Lately;
        }
        if self.last.len() >= self.remembered {
            self.last.retain(|_, last| now.saturating_sub(*last) < STALE_EVERY);
        }
        if self.last.len() >= self.remembered || !self.policer.admit(now, 0) {
            return Asked::TooMany;
        }
        self.last.insert(key, now);
        Asked::Now
    }
}

/// Tells the kernel that a neighbour is in use.
pub(super) fn use_neighbour(channel: &mut Channel, key: NeighbourKey) -> Result<(), KernelError> {
    let (index, address) = key;
    let mut message = NeighbourMessage::default();
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = index.0;
    message.header.flags = NeighbourFlags::Use;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    let what = format!("neighbour {address} on interface {index}: asking the kernel to resolve it");
    let message = RouteNetlinkMessage::NewNeighbour(message);
    channel.ask(&what, message, NLM_F_CREATE | NLM_F_REPLACE).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: NeighbourKey = (Ifindex(7), IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));
    const MAC: Option<MacAddr> = Some(MacAddr([2, 0, 0, 0, 0, 1]));

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn who_is_asked_for() {
        let known = |state, mac| Some(NeighbourFacts { mac, state });
        // promise, what is known, asked first, half a second later, 2 s later, 11 s later
        let rows = [
            ("an unknown one, every second", None, [Asked::Now, Asked::Lately, Asked::Now]),
            (
                "a failed one, every second",
                known(NeighbourState::Failed, None),
                [Asked::Now, Asked::Lately, Asked::Now],
            ),
            (
                "a stale one, every ten",
                known(NeighbourState::Stale, MAC),
                [Asked::Now, Asked::Lately, Asked::Lately],
            ),
            (
                "a fresh one, never",
                known(NeighbourState::Reachable, MAC),
                [Asked::Known, Asked::Known, Asked::Known],
            ),
            (
                "one set by hand, never: asking would undo it",
                known(NeighbourState::Permanent, MAC),
                [Asked::Known, Asked::Known, Asked::Known],
            ),
        ];
        for (promise, facts, answers) in rows {
            let mut asking = Asking::new();
            let times = [seconds(100), seconds(100) + seconds(1) / 2, seconds(102)];
            let got = times.map(|now| asking.decide(KEY, facts.as_ref(), Reason::Packet, now));
            assert_eq!(got, answers, "{promise}");
        }
    }

    #[test]
    fn one_in_use_that_nobody_waits_for_is_asked_for_every_ten_seconds() {
        let mut asking = Asking::new();
        asking.set_in_use([KEY].into());
        // when, why, what becomes of it
        let rows = [
            (100, Reason::InUse, Asked::Now),
            (109, Reason::InUse, Asked::Lately),
            (110, Reason::InUse, Asked::Now),
            (111, Reason::Packet, Asked::Now),
        ];
        for (at, reason, expected) in rows {
            assert_eq!(asking.decide(KEY, None, reason, seconds(at)), expected, "at {at} s");
        }
    }

    fn host(number: u32) -> NeighbourKey {
        (Ifindex(7), IpAddr::V4((0x0a00_0000 + number).into()))
    }

    #[test]
    fn a_scan_of_addresses_is_bounded_in_rate_and_memory_and_starves_none_in_use() {
        let backends: BTreeSet<_> = (0..1000).map(|number| host(0x10_0000 + number)).collect();
        let mut asking = Asking::new();
        asking.set_in_use(backends.clone());
        let mut asked = 0;
        for second in 1..=20 {
            let start = Duration::from_secs(second);
            for number in 0..20_000 {
                let now = start + Duration::from_micros(u64::from(number) * 50);
                let stranger = host(number + second as u32 * 20_000);
                let answer = asking.decide(stranger, None, Reason::Packet, now);
                asked += usize::from(answer == Asked::Now);
            }
            assert!(asking.strangers.last.len() <= STRANGERS_REMEMBERED);
        }
        assert!((2040..=2051).contains(&asked), "the burst and 20 seconds of the rate: {asked}");
        for (at, backend) in backends.into_iter().enumerate() {
            let now = seconds(21) + Duration::from_millis(at as u64);
            let answer = asking.decide(backend, None, Reason::Packet, now);
            assert_eq!(answer, Asked::Now, "a backend, {at} ms later");
        }
        let later = asking.decide(KEY, None, Reason::Packet, seconds(60));
        assert_eq!(later, Asked::Now, "and strangers are asked for again soon after");
    }
}
