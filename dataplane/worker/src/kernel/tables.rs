//! What the mirror holds: the kernel's objects by their keys, and how a message changes them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Ifindex;
use super::addresses::{self, AddressKey};
use super::link::LinkFacts;
use super::neighbours::{self, NeighbourFacts, NeighbourKey};
use super::netlink::Message;
use super::nexthops::{self, NextHopObjects};
use super::routes::{self, RouteEntry, RouteKey, Routes};
use super::view::OurAddresses;

/// The kernel's state as far as we look.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    pub(super) links: BTreeMap<Ifindex, LinkFacts>,
    /// By interface, address and prefix length; those that are not ours.
    pub(super) addresses: BTreeSet<AddressKey>,
    pub(super) ours: OurAddresses,
    /// Those of ours that came or went since somebody asked.
    pub(super) ours_changed: BTreeSet<IpAddr>,
    pub(super) objects: NextHopObjects,
    pub(super) routes: Routes,
    pub(super) neighbours: BTreeMap<NeighbourKey, NeighbourFacts>,
}

/// What a message, or several, may have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) links: bool,
    pub(super) addresses: bool,
    pub(super) ours: bool,
    pub(super) routes: bool,
    pub(super) neighbours: bool,
    /// IPv4 routes may have gone or come back without a word.
    pub(super) routes_in_doubt: bool,
}

impl Touched {
    /// Everything, after a dump.
    pub(super) const ALL: Touched = Touched {
        links: true,
        addresses: true,
        ours: true,
        routes: true,
        neighbours: true,
        routes_in_doubt: false,
    };

    pub(super) fn and(self, other: Touched) -> Touched {
        Touched {
            links: self.links || other.links,
            addresses: self.addresses || other.addresses,
            ours: self.ours || other.ours,
            routes: self.routes || other.routes,
            neighbours: self.neighbours || other.neighbours,
            routes_in_doubt: self.routes_in_doubt || other.routes_in_doubt,
        }
    }
}

impl Tables {
    /// Applies one message: an event, or with `listed` a line of a dump.
    pub(super) fn apply(&mut self, message: Message<'_>, listed: bool) -> Touched {
        let message_type = message.header.message_type;
        if matches!(message_type, nexthops::RTM_NEWNEXTHOP | nexthops::RTM_DELNEXTHOP) {
            return self.apply_object(message);
        }
        match message.decode() {
            Ok(decoded) => self.apply_decoded(&decoded, message.header.flags, listed),
            Err(error) => {
                tracing::warn!(message_type, %error, "a netlink message that cannot be read");
                Touched::default()
            }
        }
    }

    fn apply_decoded(
        &mut self,
        message: &RouteNetlinkMessage,
        flags: u16,
        listed: bool,
    ) -> Touched {
        use RouteNetlinkMessage as M;
        match message {
            // Of another family: what a bridge says of its ports, by the same message types.
            M::NewLink(link) | M::DelLink(link)
                if link.header.interface_family != AddressFamily::Unspec =>
            {
                Touched::default()
            }
            M::NewLink(link) => self.link(LinkFacts::of(link)),
            M::DelLink(link) => self.link_gone(Ifindex(link.header.index)),
            M::NewAddress(address) => self.address(address, true),
            M::DelAddress(address) => self.address(address, false),
            M::NewNeighbour(neighbour) => self.neighbour(neighbour, true),
            M::DelNeighbour(neighbour) => self.neighbour(neighbour, false),
            M::NewRoute(route) if listed => self.route(route, Routes::add_listed),
            M::NewRoute(route) => {
                self.route(route, |routes, key, entry| routes.add(key, entry, flags))
            }
            M::DelRoute(route) => {
                self.route(route, |routes, key, entry| routes.remove(key, &entry))
            }
            _ => Touched::default(),
        }
    }

    fn route(
        &mut self,
        message: &RouteMessage,
        change: impl FnOnce(&mut Routes, RouteKey, RouteEntry) -> bool,
    ) -> Touched {
        let Some((key, entry)) = routes::decode(message) else { return Touched::default() };
        let changed = change(&mut self.routes, key, entry);
        Touched { routes: changed && !self.is_of_ours(&key), ..Touched::default() }
    }

    /// Whether a route is the one by which the kernel answers for an address of ours: it comes and
    /// goes with that, and nobody is shown it.
    pub(super) fn is_of_ours(&self, key: &RouteKey) -> bool {
        let address = key.prefix.address;
        *key == RouteKey::of_own(address) && is_there(&self.ours, address)
    }

    fn link(&mut self, facts: LinkFacts) -> Touched {
        let before = self.links.get(&facts.index);
        let state = |facts: &LinkFacts| (facts.up, facts.carrier);
        let touched = Touched {
            links: before != Some(&facts),
            routes_in_doubt: before.is_some_and(|before| state(before) != state(&facts)),
            ..Touched::default()
        };
        self.links.insert(facts.index, facts);
        touched
    }

    fn link_gone(&mut self, index: Ifindex) -> Touched {
        let known = self.links.remove(&index).is_some();
        Touched { links: known, routes_in_doubt: known, ..Touched::default() }
    }

    fn address(&mut self, message: &AddressMessage, is_there: bool) -> Touched {
        let Some(key) = addresses::key(message) else { return Touched::default() };
        let (_, address, _) = key;
        if is_there && addresses::is_ours(message) {
            let other = self.addresses.remove(&key);
            let new = self.put_ours(key);
            let own_route = new && self.routes.has(&RouteKey::of_own(address)); // shown until now
            return Touched {
                addresses: other,
                ours: new,
                routes: own_route,
                ..Touched::default()
            };
        }
        let ours = self.take_ours(key);
        let gone = !is_there;
        let others = if gone { self.addresses.remove(&key) } else { self.addresses.insert(key) };
        if gone && ours {
            // The kernel removes it next, and will say so.
            self.routes.remove(RouteKey::of_own(address), &RouteEntry::of_own(key.0));
        }
        // IPv4 routes whose preferred source it was go with it; older kernels do not say so (6.18
        // does).
        let source = others || self.routes.has_source(address);
        Touched {
            addresses: others,
            ours,
            routes: ours && is_there,
            routes_in_doubt: gone && (others || ours) && source && address.is_ipv4(),
            ..Touched::default()
        }
    }

    /// Whether it was not there.
    fn put_ours(&mut self, (index, address, prefix_len): AddressKey) -> bool {
        let key = (address, index, prefix_len);
        let new = !self.ours.contains(&key);
        if new {
            self.ours.insert_mut(key);
            self.ours_changed.insert(address);
        }
        new
    }

    /// Whether it was there.
    fn take_ours(&mut self, (index, address, prefix_len): AddressKey) -> bool {
        let key = (address, index, prefix_len);
        let there = self.ours.contains(&key);
        if there {
            self.ours.remove_mut(&key);
            self.ours_changed.insert(address);
        }
        there
    }

    /// Takes over the tables of a dump; what is as it was stays the same allocation.
    pub(super) fn adopt(&mut self, fresh: Tables) {
        let before = std::mem::replace(self, fresh);
        self.ours_changed = before.ours_changed;
        if self.ours == before.ours {
            self.ours = before.ours;
            return;
        }
        let gone = before.ours.iter().filter(|key| !self.ours.contains(*key));
        let new = self.ours.iter().filter(|key| !before.ours.contains(*key));
        self.ours_changed.extend(gone.chain(new).map(|(address, ..)| *address));
    }

    fn neighbour(&mut self, message: &NeighbourMessage, is_there: bool) -> Touched {
        let Some((key, facts)) = neighbours::decode(message) else { return Touched::default() };
        if is_there {
            self.neighbours.insert(key, facts);
        } else {
            self.neighbours.remove(&key);
        }
        Touched { neighbours: true, ..Touched::default() }
    }

    fn apply_object(&mut self, message: Message<'_>) -> Touched {
        let Some((id, object)) = nexthops::decode(message.body) else { return Touched::default() };
        let is_there = message.header.message_type == nexthops::RTM_NEWNEXTHOP;
        match object.filter(|_| is_there) {
            Some(object) => drop(self.objects.insert(id, object)),
            None => drop(self.objects.remove(&id)),
        }
        // The routes that named it go with it, unannounced.
        Touched { routes: true, routes_in_doubt: !is_there, ..Touched::default() }
    }
}

/// Whether an address of ours is on any interface.
pub(super) fn is_there(ours: &OurAddresses, address: IpAddr) -> bool {
    let mut from = ours.range((address, Ifindex(0), 0)..);
    from.next().is_some_and(|(first, ..)| *first == address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::link::LinkMessage;

    #[test]
    fn what_a_bridge_says_of_a_port_does_not_end_the_interface() {
        let mut tables = Tables::default();
        let mut link = LinkMessage::default();
        link.header.index = 7;
        let touched = tables.apply_decoded(&RouteNetlinkMessage::NewLink(link.clone()), 0, false);
        assert!(touched.links);
        let mut left = link.clone();
        left.header.interface_family = AddressFamily::Bridge;
        let touched = tables.apply_decoded(&RouteNetlinkMessage::DelLink(left), 0, false);
        assert_eq!(touched, Touched::default());
        assert!(tables.links.contains_key(&Ifindex(7)));
        let touched = tables.apply_decoded(&RouteNetlinkMessage::DelLink(link), 0, false);
        assert!(touched.links && touched.routes_in_doubt);
        assert!(tables.links.is_empty());
    }
}
