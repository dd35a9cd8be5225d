//! The next hops that the configuration needs: gateways of routes and hints, and backends that are
//! neighbours themselves. The kernel is asked for them before a packet waits, and before it is asked
//! for strangers, whom anyone can make up by forged sources.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use penstock_forward::{Fib, fib::Hop};

use crate::{
    hosts::Hosts,
    kernel::{KernelView, PortIdx, Route},
};

/// A next hop: port and address.
pub type NextHop = (PortIdx, IpAddr);

/// Finds them; remembers the gateways, since routes are many and change rarely.
#[derive(Debug, Default)]
pub struct InUse {
    gateways: Option<(Arc<[Route]>, BTreeSet<NextHop>)>,
}

impl InUse {
    /// All next hops in use, known to the kernel or not. `fib` says by which port a backend that is
    /// not known would be reached. Costs a look-up a backend, and a pass over the routes when they
    /// have changed.
    pub fn next_hops(&mut self, hosts: &Hosts, view: &KernelView, fib: &Fib) -> BTreeSet<NextHop> {
        let missing = hosts.iter().filter_map(|host| match fib.look_up(host, || 0) {
            Hop::Unresolved(next_hop) => Some((next_hop.port.0, next_hop.address)),
            Hop::Ready(_) | Hop::Unreachable => None,
        });
        let known = view
            .neighbours
            .iter()
            .filter(|neighbour| neighbour.mac.is_some() && hosts.has(neighbour.address))
            .map(|neighbour| (neighbour.port, neighbour.address));
        let mut next_hops = self.gateways(&view.routes).clone();
        next_hops.extend(missing.chain(known));
        next_hops
    }

    /// Those of some hosts alone. Costs a look-up each.
    pub fn of_hosts(hosts: impl IntoIterator<Item = IpAddr>, fib: &Fib) -> BTreeSet<NextHop> {
        let next_hop = |host| match fib.look_up(host, || 0) {
            Hop::Unresolved(next_hop) => Some((next_hop.port.0, next_hop.address)),
            Hop::Ready(index) => fib.adjacency(index).map(|known| (known.port.0, known.address)),
            Hop::Unreachable => None,
        };
        hosts.into_iter().filter_map(next_hop).collect()
    }

    fn gateways(&mut self, routes: &Arc<[Route]>) -> &BTreeSet<NextHop> {
        let kept = self.gateways.take().filter(|(of, _)| Arc::ptr_eq(of, routes));
        let found = kept.unwrap_or_else(|| {
            let hops = routes.iter().flat_map(|route| &route.next_hops);
            let gateways = hops.filter_map(|hop| Some((hop.port, hop.gateway?))).collect();
            (Arc::clone(routes), gateways)
        });
        &self.gateways.insert(found).1
    }
}

#[cfg(test)]
mod tests {
    use penstock_feed::{self as feed, State, Touched};
    use penstock_forward::{MacAddr, PortConfig};

    use super::*;
    use crate::kernel::{self, Ifindex, Neighbour, Prefix, RouteKind, Table};

    fn route(prefix: &str, len: u8, gateway: Option<&str>) -> Route {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        Route {
            table: Table::Main,
            prefix: Prefix { address: prefix.parse().unwrap(), len },
            kind: RouteKind::Unicast,
            next_hops: vec![kernel::NextHop { port: 0, index: Ifindex(7), gateway, weight: 1 }],
            mtu_bytes: None,
        }
    }

    fn neighbour(address: &str, known: bool) -> Neighbour {
        let mac = known.then_some(kernel::MacAddr([2, 0, 0, 0, 0, 9]));
        Neighbour { port: 0, address: address.parse().unwrap(), mac, failed: !known }
    }

    fn hosts(state: &State) -> Hosts {
        let (mut hosts, empty) = (Hosts::default(), State::default());
        hosts.follow(&empty, state, &Touched::between(&empty, state));
        hosts
    }

    #[test]
    fn who_is_in_use() {
        let mut state = State::default();
        let members = ["10.0.0.3:80", "10.0.0.4:80", "10.0.0.5:80", "172.16.0.9:80"];
        let member = feed::Member { weight: 1, draining: false };
        let group = feed::Group {
            members: members.iter().map(|address| (address.parse().unwrap(), member)).collect(),
            refused_weight: 0,
        };
        state.groups.insert_mut("web".try_into().unwrap(), Arc::new(group));
        let hint = feed::NextHop { via: "10.0.0.8".parse().unwrap() };
        state.next_hops.insert_mut("203.0.113.5".parse().unwrap(), hint);
        let routes = [route("0.0.0.0", 0, Some("10.0.0.1")), route("10.0.0.0", 24, None)];
        let view = KernelView {
            routes: routes.into(),
            neighbours: [
                neighbour("10.0.0.4", true),
                neighbour("10.0.0.5", false),
                neighbour("10.0.0.66", true),
                neighbour("10.0.0.67", false),
            ]
            .into(),
            ..KernelView::default()
        };
        let port = PortConfig { mac: MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1500 };
        let fib = crate::fib::Builder::new([port].into()).build(&view, &state);
        let hosts = hosts(&state);
        let in_use = InUse::default().next_hops(&hosts, &view, &fib);
        let of_hosts = InUse::of_hosts(hosts.iter(), &fib);
        let rows = [
            ("a gateway nobody knows", "10.0.0.1", true),
            ("a backend nobody knows", "10.0.0.3", true),
            ("a backend that is known", "10.0.0.4", true),
            ("a backend that did not answer", "10.0.0.5", true),
            ("a hint's gateway", "10.0.0.8", true),
            ("a stranger that is known", "10.0.0.66", false),
            ("a stranger that did not answer", "10.0.0.67", false),
            ("a backend behind the gateway", "172.16.0.9", false),
        ];
        for (promise, address, expected) in rows {
            let next_hop = (0, address.parse().unwrap());
            assert_eq!(in_use.contains(&next_hop), expected, "{promise}");
            let gateway = address == "10.0.0.1"; // of the backend behind it
            assert_eq!(of_hosts.contains(&next_hop), expected || gateway, "{promise}, by itself");
        }
    }

    #[test]
    fn gateways_follow_the_routes() {
        let mut in_use = InUse::default();
        let (hosts, fib) = (Hosts::default(), Fib::default());
        for gateway in ["10.0.0.1", "10.0.0.2"] {
            let routes = [route("0.0.0.0", 0, Some(gateway))].into();
            let view = KernelView { routes, ..KernelView::default() };
            let expected = BTreeSet::from([(0, gateway.parse().unwrap())]);
            assert_eq!(in_use.next_hops(&hosts, &view, &fib), expected);
            assert_eq!(in_use.next_hops(&hosts, &view, &fib), expected, "and again");
        }
    }
}
