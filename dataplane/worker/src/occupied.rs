//! Addresses that are something else already, and so can be no VIP: whoever answered for one of
//! them would cut off the box itself, its router, or the hosts of a subnet.
//!
//! An address of the box that stands alone (/32, /128) on another interface than a companion is none
//! of them: so a VIP is put on `lo` by hand or by a routing daemon.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use crate::kernel::{Address, KernelView, Link, Prefix};

/// What an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occupant {
    /// The box's own, on the interface of that name or number.
    Own(String),
    /// A router that a route of the box goes by.
    Router,
    /// The address of a connected subnet itself, which old hosts take for its broadcast.
    Network(Prefix),
    /// The broadcast of a connected subnet.
    Broadcast(Prefix),
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(interface) => write!(f, "the box's own address on {interface}"),
            Self::Router => write!(f, "the router of a route of this box"),
            Self::Network(subnet) => write!(f, "the network address of the subnet {subnet}"),
            Self::Broadcast(subnet) => write!(f, "the broadcast address of the subnet {subnet}"),
        }
    }
}

/// What the addresses were found in.
type Sources = (Arc<[Address]>, Arc<[Link]>, Arc<[IpAddr]>);

/// The occupied addresses, as the kernel says.
#[derive(Debug, Default)]
pub struct Occupied {
    found_in: Option<Sources>,
    by: BTreeMap<IpAddr, Occupant>,
}

impl Occupied {
    /// Goes over to another view of the kernel; whether that says anything else. Costs nothing while
    /// companions, routers and the addresses that others gave the box are the same, and a pass over
    /// them if not.
    pub fn follow(&mut self, view: &KernelView) -> bool {
        let unchanged = |(addresses, links, routers): &Sources| {
            Arc::ptr_eq(addresses, &view.addresses)
                && Arc::ptr_eq(links, &view.links)
                && Arc::ptr_eq(routers, &view.routers)
        };
        if self.found_in.as_ref().is_some_and(unchanged) {
            return false;
        }
        let addresses = Arc::clone(&view.addresses);
        self.found_in = Some((addresses, Arc::clone(&view.links), Arc::clone(&view.routers)));
        let by = find(view);
        let changed = self.by != by;
        self.by = by;
        changed
    }

    /// What `address` is, if that keeps it from being a VIP.
    pub fn occupant(&self, address: IpAddr) -> Option<&Occupant> {
        self.by.get(&address)
    }

    /// Every address that is something, and what.
    pub fn iter(&self) -> impl Iterator<Item = (&IpAddr, &Occupant)> {
        self.by.iter()
    }

    /// The broadcasts of the connected subnets, from which no packet comes.
    pub fn broadcasts(&self) -> impl Iterator<Item = IpAddr> {
        let broadcasts = self.by.iter();
        broadcasts.filter_map(|(at, is)| matches!(is, Occupant::Broadcast(_)).then_some(*at))
    }

    /// Whether `address` is the box's own.
    pub fn is_own(&self, address: IpAddr) -> bool {
        matches!(self.occupant(address), Some(Occupant::Own(_)))
    }
}

/// An address that is several of them is what is said last here.
fn find(view: &KernelView) -> BTreeMap<IpAddr, Occupant> {
    let edges = view.addresses.iter().filter_map(edges).flatten();
    let routers = view.routers.iter().map(|router| (*router, Occupant::Router));
    let own = view.addresses.iter();
    let for_itself = own.filter(|address| address.port.is_some() || !stands_alone(address));
    let for_itself =
        for_itself.map(|own| (own.address, Occupant::Own(interface_of(own, &view.links))));
    edges.chain(routers).chain(for_itself).collect()
}

fn stands_alone(address: &Address) -> bool {
    address.prefix_len == if address.address.is_ipv4() { 32 } else { 128 }
}

fn interface_of(address: &Address, links: &[Link]) -> String {
    let link = links.iter().find(|link| link.index == address.index);
    link.map_or_else(|| format!("interface {}", address.index), |link| link.name.clone())
}

/// The first and the last address of an IPv4 subnet; one of two hosts (RFC 3021) or of one has none
/// to spare.
fn edges(address: &Address) -> Option<[(IpAddr, Occupant); 2]> {
    let IpAddr::V4(within) = address.address else { return None };
    let len = address.prefix_len;
    let hosts = u32::MAX.checked_shr(len.into()).filter(|_| (1..=30).contains(&len))?;
    let network = Ipv4Addr::from_bits(within.to_bits() & !hosts);
    let broadcast = Ipv4Addr::from_bits(within.to_bits() | hosts);
    let subnet = Prefix { address: network.into(), len };
    Some([
        (network.into(), Occupant::Network(subnet)),
        (broadcast.into(), Occupant::Broadcast(subnet)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Ifindex, OurAddresses};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// An address on the companion (interface 7) or on another interface.
    fn address(index: u32, address: &str, prefix_len: u8) -> Address {
        let port = (index == 7).then_some(0);
        Address { index: Ifindex(index), port, address: ip(address), prefix_len }
    }

    fn view() -> KernelView {
        let companion = Link {
            port: 0,
            index: Ifindex(7),
            name: "pst0".into(),
            mac: None,
            mtu_bytes: 1500,
            up: true,
        };
        KernelView {
            links: [companion].into(),
            addresses: [
                address(1, "127.0.0.1", 8),
                address(1, "203.0.113.1", 32),
                address(2, "192.168.7.2", 24),
                address(7, "10.10.0.2", 24),
                address(7, "10.10.0.105", 32),
                address(7, "10.20.0.0", 31),
                address(7, "10.30.0.255", 23),
                address(7, "2001:db8::2", 64),
            ]
            .into(),
            ours: [(ip("10.10.0.100"), Ifindex(7), 32)].into_iter().collect(),
            routers: ["10.10.0.1", "192.168.7.1"].map(ip).into(),
            ..KernelView::default()
        }
    }

    #[test]
    fn what_an_address_is() {
        let mut occupied = Occupied::default();
        assert!(occupied.follow(&view()));
        let rows = [
            ("the companion's", "10.10.0.2", "the box's own address on pst0"),
            ("a VIP of ours", "10.10.0.100", ""),
            ("another's on the companion", "10.10.0.105", "the box's own address on pst0"),
            ("a VIP that another put on lo", "203.0.113.1", ""),
            ("lo's", "127.0.0.1", "the box's own address on interface 1"),
            ("a management interface's", "192.168.7.2", "the box's own address on interface 2"),
            ("its router", "192.168.7.1", "the router of a route of this box"),
            ("a router", "10.10.0.1", "the router of a route of this box"),
            ("a broadcast", "10.10.0.255", "the broadcast address of the subnet 10.10.0.0/24"),
            ("a network", "10.10.0.0", "the network address of the subnet 10.10.0.0/24"),
            ("own, in the midst of its subnet", "10.30.0.255", "the box's own address on pst0"),
            ("the end of that", "10.30.1.255", "the broadcast address of the subnet 10.30.0.0/23"),
            ("the other of two hosts", "10.20.0.1", ""),
            ("a free one", "10.10.0.101", ""),
            ("an IPv6 one", "2001:db8::2", "the box's own address on pst0"),
        ];
        for (promise, address, expected) in rows {
            let said = occupied.occupant(ip(address)).map(ToString::to_string);
            assert_eq!(said.unwrap_or_default(), expected, "{promise}");
        }
        assert!(view().keeps(ip("10.10.0.100")) && !view().keeps(ip("10.10.0.105")));
        let broadcasts: Vec<IpAddr> = occupied.broadcasts().collect();
        let expected = ["10.10.0.255", "10.30.1.255", "127.255.255.255", "192.168.7.255"];
        assert_eq!(broadcasts, expected.map(ip));
    }

    #[test]
    fn nothing_is_said_of_a_change_that_is_none() {
        let mut occupied = Occupied::default();
        let view = view();
        assert!(occupied.follow(&view));
        assert!(!occupied.follow(&view), "the same view");
        let another = KernelView { addresses: view.addresses.to_vec().into(), ..view.clone() };
        assert!(!occupied.follow(&another), "the same addresses");
        let another = KernelView { ours: OurAddresses::default(), ..view.clone() };
        assert!(!occupied.follow(&another), "ours are none of it");
        let another = KernelView { routers: [].into(), ..view };
        assert!(occupied.follow(&another));
        assert_eq!(occupied.occupant(ip("10.10.0.1")), None);
    }
}
