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

use std::collections::BTreeMap;
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
/// Neighbours asked for a second, all together: an address scan through us must not become an ARP
/// storm. A thousand in-use neighbours go stale at most every 15 s (`base_reachable_time` 30 s).
const ASK_RATE: Rate = Rate::of_packets(1000, 200);
/// Neighbours whose last question we remember; beyond, those long ago are forgotten.
const REMEMBERED: usize = 8192;

/// When the kernel was last asked for whom, so that we do not nag.
#[derive(Debug)]
pub(super) struct Asking {
    last: BTreeMap<NeighbourKey, Duration>,
    policer: Policer,
}

impl Asking {
    pub(super) fn new() -> Asking {
        Asking { last: BTreeMap::new(), policer: Policer::new(ASK_RATE) }
    }

    /// Whether to ask the kernel for `key` at `now`, given what is known of it.
    pub(super) fn decide(
        &mut self,
        key: NeighbourKey,
        facts: Option<&NeighbourFacts>,
        now: Duration,
    ) -> Asked {
        let stale = facts.is_some_and(|facts| facts.state == NeighbourState::Stale);
        if !stale && facts.is_some_and(|facts| facts.usable_mac().is_some()) {
            return Asked::Known;
        }
        let every = if stale { STALE_EVERY } else { MISSING_EVERY };
        if self.last.get(&key).is_some_and(|last| now.saturating_sub(*last) < every) {
            return Asked::Lately;
        }
        if self.last.len() >= REMEMBERED {
            self.last.retain(|_, last| now.saturating_sub(*last) < STALE_EVERY);
        }
        if self.last.len() >= REMEMBERED || !self.policer.admit(now, 0) {
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
            let got = times.map(|now| asking.decide(KEY, facts.as_ref(), now));
            assert_eq!(got, answers, "{promise}");
        }
    }

    #[test]
    fn a_scan_of_addresses_is_bounded_in_rate_and_memory() {
        let mut asking = Asking::new();
        let mut asked = 0;
        for host in 0..100_000u32 {
            let now = seconds(1) + Duration::from_micros(u64::from(host) * 10); // one second of it
            let key = (Ifindex(7), IpAddr::V4((0x0a00_0000 + host).into()));
            asked += usize::from(asking.decide(key, None, now) == Asked::Now);
        }
        assert!((1190..=1201).contains(&asked), "the burst and a second of the rate: {asked}");
        assert!(asking.last.len() <= REMEMBERED);
        let later = asking.decide(KEY, None, seconds(60));
        assert_eq!(later, Asked::Now, "and others are asked for again soon after");
    }
}
