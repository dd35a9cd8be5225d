//! The FIB: destination address to next hop, as the kernel's routes and neighbours say.
//!
//! Built whole on the control thread and never changed. Prefixes, which nest, are flattened into
//! disjoint intervals, so that a look-up is one binary search; the answer is an index into a table
//! of adjacencies, each with the two MAC addresses ready to be written. A flow caches that index
//! with the version of the FIB, so the search runs once a flow and version.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use foldhash::fast::FixedState;

use crate::flow::NO_HOP;
use crate::wire::ethernet;
use crate::{HEADROOM, MacAddr, NextHopKey, PortConfig, PortIdx};

/// A prefix: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Any address of the prefix; bits beyond `len` are ignored.
    pub address: IpAddr,
    /// 0..=32 for IPv4, 0..=128 for IPv6; more is taken as the most.
    pub len: u8,
}

impl Prefix {
    /// Its first and its last address, as numbers.
    pub(crate) fn span(self) -> (u128, u128) {
        let (address, width) = bits(self.address);
        let host_bits = width - u32::from(self.len).min(width);
        let host_mask = if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 };
        (address & !host_mask, address | host_mask)
    }
}

/// One of a route's next hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteHop {
    /// The port it is on.
    pub port: PortIdx,
    /// The router there; none if the destinations are on-link.
    pub gateway: Option<IpAddr>,
    /// Its share among the route's next hops; 0 counts as 1.
    pub weight: u16,
}

/// A route. Without next hops, its destinations are unreachable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destinations.
    pub prefix: Prefix,
    /// Where they are reached, shared out by the hash of the flow.
    pub next_hops: Vec<RouteHop>,
    /// The largest IP packet, where it is below the port's.
    pub mtu: Option<u16>,
}

/// A neighbour whose MAC address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The port it is on.
    pub port: PortIdx,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: MacAddr,
}

/// The index of an adjacency, valid for one version of the FIB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdjacencyIdx(pub(crate) u32);

/// A resolved next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjacency {
    /// Destination MAC then source MAC, as they begin the frame.
    pub macs: [u8; 12],
    /// The port to send on.
    pub port: PortIdx,
    /// The largest IP packet.
    pub mtu: u16,
    /// The neighbour's IP address.
    pub address: IpAddr,
}

impl Adjacency {
    fn ready(&self) -> Ready {
        let most = u16::MAX - HEADROOM as u16; // and with all that may come before it a frame still has a length
        Ready { macs: self.macs, port: self.port, mtu: self.mtu.min(most) }
    }
}

/// What a packet of a flow that has cached its next hop needs of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// Destination MAC then source MAC, as they begin the frame.
    pub(crate) macs: [u8; 12],
    /// The port to send on.
    pub(crate) port: PortIdx,
    /// The largest IP packet.
    pub(crate) mtu: u16,
}

impl Ready {
    /// Whether an untagged frame of this length may go, its padding too.
    #[inline(always)]
    pub(crate) fn takes(&self, frame_len: u16) -> bool {
        usize::from(frame_len) <= ethernet::HEADER_LEN + usize::from(self.mtu)
    }
}

/// The answer of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Resolved.
    Ready(AdjacencyIdx),
    /// The next hop is known, its MAC address is not.
    Unresolved(NextHopKey),
    /// No route, or one that says unreachable.
    Unreachable,
}

/// What a route's next hops came to, with the upper end of each one's share.
#[derive(Clone, Debug)]
struct Share {
    up_to: u32,
    mtu: u16,
    hop: SharedHop,
}

#[derive(Clone, Copy, Debug)]
enum SharedHop {
    Gateway(Hop),
    OnLink(PortIdx),
}

/// See the module. The default is empty: everything is unreachable.
#[derive(Clone, Debug, Default)]
pub struct Fib {
    version: u32,
    v4: Intervals<u32>,
    v6: Intervals<u128>,
    routes: Vec<Vec<Share>>,
    adjacencies: Vec<Adjacency>,
    /// The same, as far as a flow can cache them.
    ready: Box<[Ready]>,
    on_link: OnLink,
    least_mtu: u16,
}

/// Neighbours by port, address and MTU, with their adjacencies. Those with IPv4 addresses have a map of their own,
/// whose keys are one word: each new connection asks for its backend's.
#[derive(Clone, Debug, Default)]
struct OnLink {
    v4: HashMap<u64, u32, FixedState>,
    v6: HashMap<(PortIdx, u128, u16), u32, FixedState>,
}

impl OnLink {
    fn key_v4(port: PortIdx, address: Ipv4Addr, mtu: u16) -> u64 {
        u64::from(address.to_bits()) << 32 | u64::from(port.0) << 16 | u64::from(mtu)
    }

    #[inline]
    fn get(&self, port: PortIdx, address: IpAddr, mtu: u16) -> Option<u32> {
        match address {
            IpAddr::V4(v4) => self.v4.get(&Self::key_v4(port, v4, mtu)),
            IpAddr::V6(v6) => self.v6.get(&(port, v6.to_bits(), mtu)),
        }
        .copied()
    }

    fn insert(&mut self, port: PortIdx, address: IpAddr, mtu: u16, adjacency: u32) {
        match address {
            IpAddr::V4(v4) => self.v4.insert(Self::key_v4(port, v4, mtu), adjacency),
            IpAddr::V6(v6) => self.v6.insert((port, v6.to_bits(), mtu), adjacency),
        };
    }
}

impl Fib {
    /// Builds the FIB, O(n log n).
    ///
    /// Of two routes to one prefix the later is taken: give the better metric last. A next hop on a
    /// port that `ports` does not have is left out; a route that loses all is unreachable.
    /// `version` must differ from those still in use, and not be 0.
    #[must_use]
    pub fn build(
        version: u32,
        ports: &[PortConfig],
        routes: &[Route],
        neighbours: &[Neighbour],
    ) -> Self {
        let mut fib = Self { version, ..Self::default() };
        let known: HashMap<(PortIdx, IpAddr), MacAddr, FixedState> =
            neighbours.iter().map(|n| ((n.port, n.address), n.mac)).collect();
        let mut spans = [Vec::new(), Vec::new()];
        for (index, route) in (0_u32..).zip(routes) {
            let shares = fib.shares(ports, route, &known);
            fib.routes.push(shares);
            let (first, last) = route.prefix.span();
            spans[usize::from(route.prefix.address.is_ipv6())].push(Span {
                first,
                last,
                route: index,
            });
        }
        fib.ready = fib.adjacencies.iter().take(NO_HOP.into()).map(Adjacency::ready).collect();
        fib.least_mtu =
            fib.routes.iter().flatten().map(|share| share.mtu).min().unwrap_or(u16::MAX);
        let [v4, v6] = spans;
        let narrow = |start: u128| start as u32;
        fib.v4 = Intervals::new(flatten(v4, u128::from(u32::MAX)), narrow);
        fib.v6 = Intervals::new(flatten(v6, u128::MAX), |start| start);
        fib
    }

    /// The number it was built with.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The next hop towards `destination`; `flow_hash` chooses where there are several, and is asked for only there.
    #[must_use]
    pub fn look_up(&self, destination: IpAddr, flow_hash: impl FnOnce() -> u64) -> Hop {
        let Some(share) = self.share(destination, flow_hash) else { return Hop::Unreachable };
        match share.hop {
            SharedHop::Gateway(hop) => hop,
            SharedHop::OnLink(port) => match self.on_link.get(port, destination, share.mtu) {
                Some(adjacency) => Hop::Ready(AdjacencyIdx(adjacency)),
                None => Hop::Unresolved(NextHopKey { port, address: destination }),
            },
        }
    }

    /// The largest IP packet towards `destination`, whether its next hop is resolved or not; nothing where it is
    /// unreachable.
    #[must_use]
    pub(crate) fn mtu(&self, destination: IpAddr, flow_hash: impl FnOnce() -> u64) -> Option<u16> {
        self.share(destination, flow_hash).map(|share| share.mtu)
    }

    /// The least [MTU](Self::mtu) there is.
    #[inline]
    #[must_use]
    pub(crate) fn least_mtu(&self) -> u16 {
        self.least_mtu
    }

    #[inline]
    fn share(&self, destination: IpAddr, flow_hash: impl FnOnce() -> u64) -> Option<&Share> {
        let route = match destination {
            IpAddr::V4(v4) => self.v4.find(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.find(v6.to_bits()),
        }?;
        choose(self.routes.get(route as usize)?, flow_hash)
    }

    /// The next hop towards `destination`, if there is no choice.
    #[must_use]
    pub(crate) fn look_up_only(&self, destination: IpAddr) -> Option<Hop> {
        let mut is_chosen = false;
        let hop = self.look_up(destination, || {
            is_chosen = true;
            0
        });
        (!is_chosen).then_some(hop)
    }

    /// The adjacency of an index of this version.
    #[inline]
    #[must_use]
    pub fn adjacency(&self, index: AdjacencyIdx) -> Option<&Adjacency> {
        self.adjacencies.get(index.0 as usize)
    }

    /// The adjacencies by an index of this version that a flow has cached.
    #[inline(always)]
    pub(crate) fn ready(&self) -> &[Ready] {
        &self.ready
    }

    fn shares(
        &mut self,
        ports: &[PortConfig],
        route: &Route,
        known: &HashMap<(PortIdx, IpAddr), MacAddr, FixedState>,
    ) -> Vec<Share> {
        let mut shares = Vec::new();
        let mut up_to = 0;
        for hop in &route.next_hops {
            let Some(config) = ports.get(usize::from(hop.port.0)) else { continue };
            let mtu = route.mtu.unwrap_or(config.mtu).min(config.mtu);
            let shared = match hop.gateway {
                Some(gateway) => SharedHop::Gateway(match known.get(&(hop.port, gateway)) {
                    Some(mac) => Hop::Ready(AdjacencyIdx(
                        self.adjacency_of(hop.port, gateway, *mac, config, mtu),
                    )),
                    None => Hop::Unresolved(NextHopKey { port: hop.port, address: gateway }),
                }),
                None => {
                    for ((_, address), mac) in
                        known.iter().filter(|((port, _), _)| *port == hop.port)
                    {
                        if contains(route.prefix, *address) {
                            self.adjacency_of(hop.port, *address, *mac, config, mtu);
                        }
                    }
                    SharedHop::OnLink(hop.port)
                }
            };
            up_to += u32::from(hop.weight.max(1));
            shares.push(Share { up_to, mtu, hop: shared });
        }
        shares
    }

    /// The adjacency of a neighbour at an MTU, made if there is none yet.
    fn adjacency_of(
        &mut self,
        port: PortIdx,
        address: IpAddr,
        mac: MacAddr,
        config: &PortConfig,
        mtu: u16,
    ) -> u32 {
        if let Some(known) = self.on_link.get(port, address, mtu) {
            return known;
        }
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&mac.0);
        macs[6..].copy_from_slice(&config.mac.0);
        let index = u32::try_from(self.adjacencies.len()).unwrap_or(u32::MAX);
        self.adjacencies.push(Adjacency { macs, port, mtu, address });
        self.on_link.insert(port, address, mtu, index);
        index
    }
}

/// The next hop whose share of `0..total` the hash falls in.
#[inline]
fn choose(shares: &[Share], flow_hash: impl FnOnce() -> u64) -> Option<&Share> {
    if let [only] = shares {
        return Some(only);
    }
    let total = u64::from(shares.last()?.up_to);
    let point = ((u128::from(flow_hash()) * u128::from(total)) >> 64) as u64;
    shares.iter().find(|share| point < u64::from(share.up_to))
}

/// An inclusive range of addresses, IPv4 as 32-bit numbers.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u128,
    last: u128,
    route: u32,
}

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

fn contains(prefix: Prefix, address: IpAddr) -> bool {
    let (first, last) = prefix.span();
    prefix.address.is_ipv4() == address.is_ipv4() && (first..=last).contains(&bits(address).0)
}

/// Nested spans to disjoint intervals: where each begins, and the innermost route there.
fn flatten(mut spans: Vec<Span>, max: u128) -> Vec<(u128, Option<u32>)> {
    // The wider first where two begin together, so that the narrower covers it; the sort is stable,
    // so that of two equal ones the later covers the earlier.
    spans.sort_by(|a, b| a.first.cmp(&b.first).then(b.last.cmp(&a.last)));
    let mut starts: Vec<(u128, Option<u32>)> = vec![(0, None)];
    let mut begin = |at: u128, route: Option<u32>| {
        if starts.last().is_some_and(|(start, _)| *start == at) {
            starts.pop();
        }
        if starts.last().is_none_or(|(_, before)| *before != route) {
            starts.push((at, route));
        }
    };
    let mut open: Vec<Span> = Vec::new();
    for span in spans {
        while let Some(inner) = open.pop_if(|inner| inner.last < span.first) {
            begin(inner.last + 1, open.last().map(|outer| outer.route));
        }
        begin(span.first, Some(span.route));
        open.push(span);
    }
    while let Some(inner) = open.pop() {
        if inner.last < max {
            begin(inner.last + 1, open.last().map(|outer| outer.route));
        }
    }
    starts
}

/// Disjoint intervals that cover everything, searched by where they begin.
#[derive(Clone, Debug, Default)]
struct Intervals<A> {
    starts: Box<[A]>,
    routes: Box<[Option<u32>]>,
}

impl<A: Ord + Copy> Intervals<A> {
    fn new(intervals: Vec<(u128, Option<u32>)>, narrow: impl Fn(u128) -> A) -> Self {
        let (starts, routes): (Vec<u128>, Vec<_>) = intervals.into_iter().unzip();
        Self { starts: starts.into_iter().map(narrow).collect(), routes: routes.into() }
    }

    fn find(&self, address: A) -> Option<u32> {
        let after = self.starts.partition_point(|start| *start <= address);
        self.routes.get(after.checked_sub(1)?).copied().flatten()
    }
}

#[cfg(test)]
mod tests;
