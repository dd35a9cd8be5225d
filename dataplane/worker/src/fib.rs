//! The forwarder's FIB from the kernel's routes and neighbours, and the feed's next-hop hints.

use std::{net::IpAddr, sync::Arc};

use penstock_feed::{Map, NextHop, State};
use penstock_forward::{Fib, MacAddr, PortConfig, PortIdx, fib};

use crate::kernel::{KernelView, Neighbour, Route, RouteKind, Table};

/// What a FIB was made of.
struct Sources {
    routes: Arc<[Route]>,
    neighbours: Arc<[Neighbour]>,
    hints: Map<IpAddr, NextHop>,
}

/// Builds the FIB, and again only when what it is made of has changed.
pub struct Builder {
    ports: Arc<[PortConfig]>,
    version: u32,
    last: Option<(Sources, Arc<Fib>)>,
}

impl Builder {
    /// Nothing is built yet.
    pub fn new(ports: Arc<[PortConfig]>) -> Self {
        Self { ports, version: 0, last: None }
    }

    /// The FIB of a view; O(routes × log routes) if it changed or a hint did, and nothing if not:
    /// hints that the last state shares are compared at a glance.
    pub fn build(&mut self, view: &KernelView, state: &State) -> Arc<Fib> {
        let hints = &state.next_hops;
        if let Some((sources, fib)) = &self.last
            && Arc::ptr_eq(&sources.routes, &view.routes)
            && Arc::ptr_eq(&sources.neighbours, &view.neighbours)
            && sources.hints == *hints
        {
            return Arc::clone(fib);
        }
        self.version = self.version.wrapping_add(1).max(1);
        let routes = routes(view, hints);
        let fib = Arc::new(Fib::build(self.version, &self.ports, &routes, &neighbours(view)));
        let sources = Sources {
            routes: Arc::clone(&view.routes),
            neighbours: Arc::clone(&view.neighbours),
            hints: hints.clone(),
        };
        self.last = Some((sources, Arc::clone(&fib)));
        fib
    }
}

/// Later routes win over earlier ones of the same prefix: main, then hints, then the box's own
/// addresses, to which nothing is ever sent out. VIPs and SNAT addresses are not among these: no flow is
/// made to or from them, and they come and go with listeners.
fn routes(view: &KernelView, hints: &Map<IpAddr, NextHop>) -> Vec<fib::Route> {
    let main = view.routes.iter().filter(|route| route.table == Table::Main);
    let local = view
        .routes
        .iter()
        .filter(|route| route.table == Table::Local && route.kind == RouteKind::Local);
    let hinted = hints.iter().filter_map(|(address, hint)| hinted(view, *address, hint.via));
    main.map(of_kernel).chain(hinted).chain(local.map(of_kernel)).collect()
}

fn of_kernel(route: &Route) -> fib::Route {
    let hop = |hop: &crate::kernel::NextHop| fib::RouteHop {
        port: PortIdx(hop.port),
        gateway: hop.gateway,
        weight: hop.weight.min(u32::from(u16::MAX)) as u16,
    };
    let forwards = route.kind == RouteKind::Unicast;
    fib::Route {
        prefix: fib::Prefix { address: route.prefix.address, len: route.prefix.len },
        next_hops: if forwards { route.next_hops.iter().map(hop).collect() } else { Vec::new() },
        mtu: route.mtu_bytes.map(|mtu| mtu.min(u32::from(u16::MAX)) as u16),
    }
}

/// A host route by a gateway, on the port whose subnet the gateway is in; none if it is in none.
fn hinted(view: &KernelView, address: IpAddr, via: IpAddr) -> Option<fib::Route> {
    let on_link = view.routes.iter().filter(|route| {
        route.kind == RouteKind::Unicast && route.next_hops.iter().all(|hop| hop.gateway.is_none())
    });
    let subnet = on_link
        .filter(|route| in_prefix(route.prefix.address, route.prefix.len, via))
        .max_by_key(|route| route.prefix.len)?;
    let port = PortIdx(subnet.next_hops.first()?.port);
    let len = if address.is_ipv4() { 32 } else { 128 };
    Some(fib::Route {
        prefix: fib::Prefix { address, len },
        next_hops: vec![fib::RouteHop { port, gateway: Some(via), weight: 1 }],
        mtu: None,
    })
}

/// Whether `address` lies in the prefix of `len` bits that `of` begins.
pub fn in_prefix(of: IpAddr, len: u8, address: IpAddr) -> bool {
    let (of, address, width) = match (of, address) {
        (IpAddr::V4(of), IpAddr::V4(address)) => {
            (u128::from(of.to_bits()), u128::from(address.to_bits()), 32)
        }
        (IpAddr::V6(of), IpAddr::V6(address)) => (of.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    let host_bits = width - u32::from(len).min(width);
    (of ^ address).checked_shr(host_bits).unwrap_or(0) == 0
}

fn neighbours(view: &KernelView) -> Vec<fib::Neighbour> {
    let known = |neighbour: &Neighbour| {
        let mac = neighbour.mac?;
        Some(fib::Neighbour {
            port: PortIdx(neighbour.port),
            address: neighbour.address,
            mac: MacAddr(mac.0),
        })
    };
    view.neighbours.iter().filter_map(known).collect()
}

#[cfg(test)]
mod tests {
    use penstock_forward::fib::Hop;

    use super::*;
    use crate::kernel::{self, Ifindex, Prefix};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn route(
        table: Table,
        kind: RouteKind,
        (address, len): (&str, u8),
        gateway: Option<&str>,
    ) -> Route {
        let gateway = gateway.map(ip);
        let hop = kernel::NextHop { port: 0, index: Ifindex(7), gateway, weight: 1 };
        Route {
            table,
            prefix: Prefix { address: ip(address), len },
            kind,
            next_hops: if kind == RouteKind::Unicast { vec![hop] } else { Vec::new() },
            mtu_bytes: None,
        }
    }

    fn view() -> KernelView {
        let routes = [
            route(Table::Local, RouteKind::Local, ("10.0.0.2", 32), None),
            route(Table::Main, RouteKind::Unicast, ("0.0.0.0", 0), Some("10.0.0.1")),
            route(Table::Main, RouteKind::Unicast, ("10.0.0.0", 24), None),
            route(Table::Main, RouteKind::Blackhole, ("198.51.100.0", 24), None),
            route(Table::Main, RouteKind::Elsewhere, ("172.16.0.0", 12), None),
            route(Table::Local, RouteKind::Local, ("2001:db8::2", 128), None),
            route(Table::Main, RouteKind::Unicast, ("::", 0), Some("fe80::1")),
            route(Table::Main, RouteKind::Unicast, ("2001:db8::", 64), None),
            route(Table::Main, RouteKind::Blackhole, ("2001:db8:bad::", 48), None),
        ];
        let known = |address: &str| Neighbour {
            port: 0,
            address: ip(address),
            mac: Some(kernel::MacAddr([2, 0, 0, 0, 0, 9])),
            failed: false,
        };
        let neighbours = [known("10.0.0.1"), known("fe80::1")];
        KernelView { routes: routes.into(), neighbours: neighbours.into(), ..KernelView::default() }
    }

    fn builder() -> Builder {
        let port = PortConfig { mac: MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1500 };
        Builder::new([port].into())
    }

    #[test]
    fn packets_go_where_the_kernel_would_send_them_and_nowhere_else() {
        let mut state = State::default();
        state.next_hops.insert_mut(ip("203.0.113.5"), NextHop { via: ip("10.0.0.7") });
        state.next_hops.insert_mut(ip("2001:db8:5::5"), NextHop { via: ip("2001:db8::7") });
        state.next_hops.insert_mut(ip("203.0.113.6"), NextHop { via: ip("192.168.9.9") });
        let fib = builder().build(&view(), &state);
        let rows = [
            ("the gateway's MAC is known", "192.0.2.9", "ready"),
            ("a neighbour's is not", "10.0.0.11", "10.0.0.11"),
            ("the box itself is no next hop", "10.0.0.2", "unreachable"),
            ("a blackhole swallows", "198.51.100.1", "unreachable"),
            ("a management interface is not ours to send by", "172.16.3.4", "unreachable"),
            ("a hint beats the default route", "203.0.113.5", "10.0.0.7"),
            ("a hint to a gateway on no link of ours is none", "203.0.113.6", "ready"),
            ("IPv6 by a router's link-local address", "2001:db8:7::9", "ready"),
            ("an IPv6 neighbour's is not known", "2001:db8::11", "2001:db8::11"),
            ("the box itself by IPv6", "2001:db8::2", "unreachable"),
            ("an IPv6 blackhole", "2001:db8:bad::1", "unreachable"),
            ("an IPv6 hint", "2001:db8:5::5", "2001:db8::7"),
        ];
        for (promise, destination, expected) in rows {
            let found = match fib.look_up(ip(destination), || 0) {
                Hop::Ready(_) => "ready".to_owned(),
                Hop::Unresolved(next_hop) => next_hop.address.to_string(),
                Hop::Unreachable => "unreachable".to_owned(),
            };
            assert_eq!(found, expected, "{promise}");
        }
    }

    #[test]
    fn what_did_not_change_is_not_built_anew() {
        let (mut builder, view, state) = (builder(), view(), State::default());
        let first = builder.build(&view, &state);
        assert!(Arc::ptr_eq(&first, &builder.build(&view, &state)));
        let fewer = KernelView { neighbours: [].into(), ..view };
        assert_ne!(builder.build(&fewer, &state).version(), first.version());
    }
}
