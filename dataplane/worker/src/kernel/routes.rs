//! The routes of tables local and main as the kernel holds them, kept up by its notifications.
//!
//! Several routes may share table, prefix and metric, and the two families differ in what they then
//! mean. IPv4 keeps a list of which the first counts (`ip route append` adds behind it). IPv6 joins
//! those with gateways into one multipath route, and says only which next hop left when one does.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_APPEND, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RouteType, RouteVia,
};

use super::Ifindex;
use super::view::{Prefix, RouteKind, Table};

const RT_TABLE_LOCAL: u32 = 255;
const RT_TABLE_MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// What routes are told apart by, in the order in which they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RouteKey {
    pub(super) table: Table,
    pub(super) prefix: Prefix,
    pub(super) metric: u32,
}

impl RouteKey {
    /// Of the route by which the box answers for an address of its own.
    pub(super) fn of_own(address: IpAddr) -> RouteKey {
        let len = if address.is_ipv4() { 32 } else { 128 };
        RouteKey { table: Table::Local, prefix: Prefix { address, len }, metric: 0 }
    }
}

/// A route's say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteEntry {
    pub(super) kind: RouteKind,
    pub(super) hops: Vec<Hop>,
    pub(super) object: Option<u32>,
    pub(super) mtu_bytes: Option<u32>,
    /// The address that the box's own packets take as source.
    pub(super) source: Option<IpAddr>,
}

/// A next hop, wherever it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) gateway: Option<IpAddr>,
    pub(super) index: Ifindex,
    pub(super) weight: u32,
    /// The kernel itself would not use it now.
    pub(super) dead: bool,
    /// The packet would get another header (MPLS, SRv6, IPIP): not ours to add.
    pub(super) encapsulated: bool,
}

impl Hop {
    pub(super) fn by(index: Ifindex) -> Hop {
        Hop { gateway: None, index, weight: 1, dead: false, encapsulated: false }
    }

    fn is(&self, other: &Hop) -> bool {
        self.gateway == other.gateway && self.index == other.index
    }
}

impl RouteEntry {
    /// By which the box answers for an address on an interface.
    pub(super) fn of_own(index: Ifindex) -> RouteEntry {
        let (kind, hops) = (RouteKind::Local, vec![Hop::by(index)]);
        RouteEntry { kind, hops, object: None, mtu_bytes: None, source: None }
    }

    /// Whether both name the same way, whatever its weight and health.
    fn is(&self, other: &RouteEntry) -> bool {
        self.kind == other.kind
            && self.object == other.object
            && self.hops.len() == other.hops.len()
            && self.hops.iter().zip(&other.hops).all(|(one, another)| one.is(another))
    }

    fn shares_a_hop(&self, other: &RouteEntry) -> bool {
        self.is(other) || self.hops.iter().any(|one| other.hops.iter().any(|hop| hop.is(one)))
    }
}

/// All routes that we mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routes {
    entries: BTreeMap<RouteKey, Vec<RouteEntry>>,
    /// How many routes of table main name a source.
    sources: HashMap<IpAddr, usize>,
}

impl Routes {
    /// Every metric of every prefix, best first within a prefix.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&RouteKey, &[RouteEntry])> {
        self.entries.iter().map(|(key, entries)| (key, entries.as_slice()))
    }

    /// Whether there is a route to this very prefix and metric.
    pub(super) fn has(&self, key: &RouteKey) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether a route of table main has this source: the kernel removes it with the address.
    pub(super) fn has_source(&self, address: IpAddr) -> bool {
        self.sources.contains_key(&address)
    }

    /// Applies RTM_NEWROUTE; `flags` are those of its netlink header. Saying it twice says it once.
    /// Whether it says anything new.
    pub(super) fn add(&mut self, key: RouteKey, entry: RouteEntry, flags: u16) -> bool {
        let replaces = flags & NLM_F_REPLACE != 0;
        self.change(key, |entries| match key.prefix.address {
            IpAddr::V4(_) => {
                if replaces && !entries.is_empty() {
                    entries.remove(0);
                }
                entries.retain(|other| !other.is(&entry));
                let at = if flags & NLM_F_APPEND == 0 { 0 } else { entries.len() };
                entries.insert(at, entry);
            }
            IpAddr::V6(_) => {
                entries.retain(|other| !replaces && !other.shares_a_hop(&entry));
                entries.push(entry);
            }
        })
    }

    /// Adds what a dump lists: behind what it listed before.
    pub(super) fn add_listed(&mut self, key: RouteKey, entry: RouteEntry) -> bool {
        self.add(key, entry, NLM_F_APPEND)
    }

    /// Applies RTM_DELROUTE. Not to have it is no surprise: a dump may have been quicker. Whether it
    /// was there.
    pub(super) fn remove(&mut self, key: RouteKey, gone: &RouteEntry) -> bool {
        self.change(key, |entries| match entries.iter().position(|entry| entry.is(gone)) {
            Some(at) => drop(entries.remove(at)),
            None if key.prefix.address.is_ipv6() => {
                for entry in entries.iter_mut() {
                    entry.hops.retain(|hop| !gone.hops.iter().any(|other| other.is(hop)));
                }
                entries.retain(|entry| entry.object.is_some() || !entry.hops.is_empty());
            }
            None => {}
        })
    }

    /// Changes what there is of a key; whether that is another now.
    fn change(&mut self, key: RouteKey, change: impl FnOnce(&mut Vec<RouteEntry>)) -> bool {
        let before = self.entries.remove(&key).unwrap_or_default();
        let mut entries = before.clone();
        change(&mut entries);
        let changed = entries != before;
        if changed && key.table == Table::Main {
            before.iter().filter_map(|entry| entry.source).for_each(|source| {
                match self.sources.get_mut(&source) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => _ = self.sources.remove(&source),
                }
            });
            for source in entries.iter().filter_map(|entry| entry.source) {
                *self.sources.entry(source).or_default() += 1;
            }
        }
        if !entries.is_empty() {
            self.entries.insert(key, entries);
        }
        changed
    }
}

/// Reads a route. `None`: one of another table or family, a cached exception, or one that asks for
/// more than the destination (TOS, source prefix), which a lookup by destination must not follow.
pub(super) fn decode(message: &RouteMessage) -> Option<(RouteKey, RouteEntry)> {
    let header = &message.header;
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    if header.tos != 0
        || header.source_prefix_length != 0
        || header.flags.contains(RouteFlags::Cloned)
    {
        return None;
    }
    let mut table = u32::from(header.table);
    let prefix = Prefix { address: unspecified, len: header.destination_prefix_length };
    let mut key = RouteKey { table: Table::Main, prefix, metric: 0 };
    let kind = kind(header.kind)?;
    let mut entry = RouteEntry { kind, hops: vec![], object: None, mtu_bytes: None, source: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => key.prefix.address = ip(address)?,
            RouteAttribute::Priority(metric) => key.metric = *metric,
            RouteAttribute::NhId(id) => entry.object = Some(*id),
            RouteAttribute::Metrics(metrics) => entry.mtu_bytes = mtu(metrics),
            RouteAttribute::PrefSource(address) => entry.source = ip(address),
            _ => {}
        }
    }
    key.table = match table {
        RT_TABLE_LOCAL => Table::Local,
        RT_TABLE_MAIN => Table::Main,
        _ => return None,
    };
    entry.hops = hops(message);
    Some((key, entry))
}

fn kind(kind: RouteType) -> Option<RouteKind> {
    Some(match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local | RouteType::Anycast => RouteKind::Local,
        RouteType::Broadcast => RouteKind::Broadcast,
        RouteType::Multicast => RouteKind::Multicast,
        RouteType::BlackHole => RouteKind::Blackhole,
        // "throw" ends the search in this table, and after main there is none that we mirror.
        RouteType::Unreachable | RouteType::Throw => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        _ => return None,
    })
}

fn mtu(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu_bytes) if *mtu_bytes > 0 => Some(*mtu_bytes),
        _ => None,
    })
}

fn hops(message: &RouteMessage) -> Vec<Hop> {
    for attribute in &message.attributes {
        if let RouteAttribute::MultiPath(next_hops) = attribute {
            return next_hops.iter().map(multipath_hop).collect();
        }
    }
    let mut hop = hop_of(&message.attributes, Ifindex(0));
    hop.dead = message.header.flags.contains(RouteFlags::Dead);
    if hop.index == Ifindex(0) { Vec::new() } else { vec![hop] }
}

fn multipath_hop(next_hop: &RouteNextHop) -> Hop {
    Hop {
        weight: u32::from(next_hop.hops) + 1,
        dead: next_hop.flags.contains(RouteNextHopFlags::Dead),
        ..hop_of(&next_hop.attributes, Ifindex(next_hop.interface_index))
    }
}

fn hop_of(attributes: &[RouteAttribute], index: Ifindex) -> Hop {
    let mut hop = Hop::by(index);
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => hop.index = Ifindex(*index),
            RouteAttribute::Gateway(address) => hop.gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => hop.gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => hop.gateway = Some((*address).into()),
            RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => hop.encapsulated = true,
            _ => {}
        }
    }
    hop
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message that `change` made something else of than a plain unicast route of table main.
    fn message(change: impl FnOnce(&mut RouteMessage)) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 24;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        let prefix = RouteAddress::Inet([10, 1, 0, 0].into());
        message.attributes = vec![RouteAttribute::Destination(prefix), RouteAttribute::Oif(7)];
        change(&mut message);
        message
    }

    #[test]
    fn what_is_a_route_by_its_destination() {
        type Change = fn(&mut RouteMessage);
        let rows: [(&str, bool, Change); 8] = [
            ("a plain one", true, |_| {}),
            ("one of table local", true, |route| route.header.table = 255),
            ("of a table numbered beyond a byte", false, |route| {
                route.attributes.push(RouteAttribute::Table(1000));
            }),
            ("a cached exception to one", false, |route| {
                route.header.flags = RouteFlags::Cloned;
            }),
            ("one for a TOS", false, |route| route.header.tos = 16),
            ("one for a source prefix", false, |route| route.header.source_prefix_length = 64),
            ("one of multicast routing", false, |route| {
                route.header.address_family = AddressFamily::Other(128);
            }),
            ("one of a kind nobody knows", false, |route| {
                route.header.kind = RouteType::Other(99);
            }),
        ];
        for (what, taken, change) in rows {
            assert_eq!(decode(&message(change)).is_some(), taken, "{what}");
        }
    }

    #[test]
    fn a_route_said_twice_is_one() {
        let (key, entry) = decode(&message(|_| {})).unwrap();
        let mut routes = Routes::default();
        for flags in [0, NLM_F_APPEND, NLM_F_REPLACE] {
            assert_eq!(routes.add(key, entry.clone(), flags), flags == 0, "it is new once");
            assert_eq!(routes.iter().map(|(_, entries)| entries.len()).sum::<usize>(), 1);
        }
        assert!(routes.remove(key, &entry) && !routes.remove(key, &entry));
        assert_eq!(routes, Routes::default());
    }
}
