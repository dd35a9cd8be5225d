//! What the mirror shows: the kernel's state, cut down to what decides where a packet goes.
//!
//! A [`KernelView`] is a handful of shared, sorted lists. A list that did not change is the same
//! allocation as before ([`Arc::ptr_eq`]), so whoever built something of the routes need not build
//! it again because a neighbour came.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rpds::RedBlackTreeSetSync;

use super::nexthops;
use super::routes::{Hop, RouteEntry, RouteKey};
use super::tables::{self, Tables, Touched};
use super::{Ifindex, MacAddr, PortIdx};

/// The addresses that [`super::Addresses`] put on the box: address, interface, prefix length. A copy
/// shares what has not changed.
pub type OurAddresses = RedBlackTreeSetSync<(IpAddr, Ifindex, u8)>;

/// The kernel's state at one moment. Cloning it costs six reference counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelView {
    /// The companions that exist, by index.
    pub links: Arc<[Link]>,
    /// Every address that others gave the box, on companions or not, by interface.
    pub addresses: Arc<[Address]>,
    /// Those that are ours.
    pub ours: OurAddresses,
    /// The routes that count, one per table and prefix: those of table local, then those of main,
    /// each sorted as [`Prefix`] is: IPv4 first, by address, then by length. Without those by which
    /// the kernel answers for an address of ours.
    ///
    /// As the kernel does, look a destination up in [`Table::Local`] first, and in [`Table::Main`]
    /// only if nothing there matches, however specific main would be.
    pub routes: Arc<[Route]>,
    /// The router of every next hop of table main, by a companion or not, up or down, sorted.
    pub routers: Arc<[IpAddr]>,
    /// The neighbours on companions, by port and address.
    pub neighbours: Arc<[Neighbour]>,
}

/// A companion interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The DPDK port it stands for.
    pub port: PortIdx,
    /// The kernel's number of it.
    pub index: Ifindex,
    /// Its name.
    pub name: String,
    /// Its MAC address.
    pub mac: Option<MacAddr>,
    /// Its MTU.
    pub mtu_bytes: u32,
    /// Whether the administrator switched it on.
    pub up: bool,
}

/// An address of the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The interface it is on.
    pub index: Ifindex,
    /// The port of that interface, if it is a companion.
    pub port: Option<PortIdx>,
    /// The address.
    pub address: IpAddr,
    /// The length of its subnet's prefix.
    pub prefix_len: u8,
}

/// A destination prefix; `address` has no bits beyond `len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// Its first address.
    pub address: IpAddr,
    /// Its length in bits.
    pub len: u8,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// A routing table that we mirror. Others (VRFs, policy routing) are not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// 255: what the box itself answers for, kept by the kernel.
    Local,
    /// 254: what the administrator and the routing protocols say.
    Main,
}

/// A route: the best of its prefix, by metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it stands.
    pub table: Table,
    /// What it matches.
    pub prefix: Prefix,
    /// What becomes of a packet that it matches.
    pub kind: RouteKind,
    /// For [`RouteKind::Unicast`], at least one, sorted, since a dump and an event list the same
    /// ones in different order; else none. Next hops of a multipath route that do not leave by a
    /// companion are left out.
    pub next_hops: Vec<NextHop>,
    /// The MTU of the route, where it has one.
    pub mtu_bytes: Option<u32>,
}

/// What becomes of a packet that a route matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// It leaves by one of the next hops.
    Unicast,
    /// It would leave, but by no companion: by a management interface, or in a tunnel of the
    /// kernel's.
    Elsewhere,
    /// It is for the box.
    Local,
    /// It is a broadcast on one of the box's subnets.
    Broadcast,
    /// It is for a group.
    Multicast,
    /// It vanishes.
    Blackhole,
    /// Its sender is told that the destination is unreachable.
    Unreachable,
    /// Its sender is told that the administrator forbids it.
    Prohibit,
}

/// One way on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The port to leave by.
    pub port: PortIdx,
    /// That port's companion.
    pub index: Ifindex,
    /// The router to give it to, of either family; none: the destination is a neighbour itself.
    pub gateway: Option<IpAddr>,
    /// Its share among the next hops of the route, at least 1.
    pub weight: u32,
}

/// What the kernel knows of a host on a companion's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The port it is reached by.
    pub port: PortIdx,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address: good to send to, even while the kernel checks whether it still answers.
    pub mac: Option<MacAddr>,
    /// Whether the kernel gave up asking for it. It stays so until someone asks again.
    pub failed: bool,
}

/// The companions that exist at the moment.
pub(super) type CompanionPorts = BTreeMap<Ifindex, PortIdx>;

impl KernelView {
    /// The companion of `port`, if it exists.
    pub fn companion(&self, port: PortIdx) -> Option<Ifindex> {
        self.links.iter().find(|link| link.port == port).map(|link| link.index)
    }

    /// Whether an address of ours is on the box.
    pub fn keeps(&self, address: IpAddr) -> bool {
        tables::is_there(&self.ours, address)
    }

    /// This view with the lists that `touched` names made anew from `tables`; one that turns out as
    /// it was stays the same allocation.
    pub(super) fn renewed(
        &self,
        tables: &Tables,
        ports: &CompanionPorts,
        touched: Touched,
    ) -> KernelView {
        let mut view = self.clone();
        if touched.links {
            renew(&mut view.links, links(tables, ports));
        }
        if touched.addresses {
            renew(&mut view.addresses, addresses(tables, ports));
        }
        if touched.ours {
            view.ours = tables.ours.clone();
        }
        if touched.routes {
            renew(&mut view.routes, routes(tables, ports));
            renew(&mut view.routers, routers(tables));
        }
        if touched.neighbours {
            renew(&mut view.neighbours, neighbours(tables, ports));
        }
        view
    }

    /// Whether `other` is this very view, by its allocations.
    pub(super) fn is(&self, other: &KernelView) -> bool {
        Arc::ptr_eq(&self.links, &other.links)
            && Arc::ptr_eq(&self.addresses, &other.addresses)
            && self.ours.ptr_eq(&other.ours)
            && Arc::ptr_eq(&self.routes, &other.routes)
            && Arc::ptr_eq(&self.routers, &other.routers)
            && Arc::ptr_eq(&self.neighbours, &other.neighbours)
    }
}

fn renew<T: PartialEq>(list: &mut Arc<[T]>, now: Vec<T>) {
    if list[..] != now[..] {
        *list = now.into();
    }
}

fn links(tables: &Tables, ports: &CompanionPorts) -> Vec<Link> {
    let link = |(index, port): (&Ifindex, &PortIdx)| {
        let facts = tables.links.get(index)?;
        Some(Link {
            port: *port,
            index: *index,
            name: facts.name.clone(),
            mac: facts.mac,
            mtu_bytes: facts.mtu_bytes,
            up: facts.up,
        })
    };
    ports.iter().filter_map(link).collect()
}

fn addresses(tables: &Tables, ports: &CompanionPorts) -> Vec<Address> {
    let address = |&(index, address, prefix_len): &(Ifindex, IpAddr, u8)| Address {
        index,
        port: ports.get(&index).copied(),
        address,
        prefix_len,
    };
    tables.addresses.iter().map(address).collect()
}

fn neighbours(tables: &Tables, ports: &CompanionPorts) -> Vec<Neighbour> {
    let mut neighbours = Vec::new();
    for (&(index, address), facts) in &tables.neighbours {
        if let Some(&port) = ports.get(&index) {
            let (mac, failed) = (facts.usable_mac(), facts.failed());
            neighbours.push(Neighbour { port, address, mac, failed });
        }
    }
    neighbours.sort_unstable();
    neighbours
}

/// The route that counts for each table and prefix: the first, by metric, that leads anywhere.
fn routes(tables: &Tables, ports: &CompanionPorts) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for (key, entries) in tables.routes.iter().filter(|(key, _)| !tables.is_of_ours(key)) {
        if routes.last().is_some_and(|last| (last.table, last.prefix) == (key.table, key.prefix)) {
            continue; // a better metric was there
        }
        let alive = entries.iter().find_map(|entry| route(tables, ports, key, entry));
        routes.extend(alive);
    }
    routes
}

fn routers(tables: &Tables) -> Vec<IpAddr> {
    let mut routers = BTreeSet::new();
    for (_, entries) in tables.routes.iter().filter(|(key, _)| key.table == Table::Main) {
        for entry in entries {
            let object = entry.object.and_then(|id| nexthops::resolve(&tables.objects, id));
            let hops = object.as_ref().unwrap_or(&entry.hops);
            routers.extend(hops.iter().filter_map(|hop| hop.gateway));
        }
    }
    routers.into_iter().collect()
}

/// `None`: it has next hops, but the kernel would use none of them now.
fn route(
    tables: &Tables,
    ports: &CompanionPorts,
    key: &RouteKey,
    entry: &RouteEntry,
) -> Option<Route> {
    let mut route = Route {
        table: key.table,
        prefix: key.prefix,
        kind: entry.kind,
        next_hops: Vec::new(),
        mtu_bytes: entry.mtu_bytes,
    };
    if entry.kind != RouteKind::Unicast {
        return Some(route);
    }
    let object = entry.object.and_then(|id| nexthops::resolve(&tables.objects, id));
    if object.as_ref().is_some_and(Vec::is_empty) {
        route.kind = RouteKind::Blackhole;
        return Some(route);
    }
    let hops = object.as_ref().unwrap_or(&entry.hops);
    if hops.iter().all(|hop| hop.dead) {
        return None;
    }
    route.next_hops.extend(hops.iter().filter_map(|hop| next_hop(ports, hop)));
    route.next_hops.sort_unstable();
    if route.next_hops.is_empty() {
        route.kind = RouteKind::Elsewhere;
    }
    Some(route)
}

fn next_hop(ports: &CompanionPorts, hop: &Hop) -> Option<NextHop> {
    let port = *ports.get(&hop.index)?;
    let usable = !hop.dead && !hop.encapsulated;
    usable.then_some(NextHop { port, index: hop.index, gateway: hop.gateway, weight: hop.weight })
}
