//! The immutable configuration a worker reads, one for a whole burst, replaced whole.
//!
//! A builder begins empty or from an older snapshot; what it does not touch is shared with that.
//! Nothing in a worker points into a snapshot from one burst to the next: flows name listeners and
//! backends by their stable numbers.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::fib::Fib;
use crate::flow::{FlowKey, Timeouts};
use crate::group::{Affinity, Group, Pick, source_key};
use crate::removal::Removals;
use crate::{ListenerSlot, MacAddr, Mode, OnExhaustion, OnUnknown, PortIdx, Protocol};

/// What a worker must know of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// The address that hosts on the link see.
    pub mac: MacAddr,
    /// The VLAN of every frame in and out, or untagged (a priority tag is let in).
    pub vlan: Option<u16>,
    /// The largest IP packet out.
    pub mtu: u16,
}

/// An inclusive range of L4 ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct L4Ports {
    /// The first.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
}

impl L4Ports {
    /// A range of one.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// VIP, protocol and L4 ports, and what becomes of packets to them.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its stable number.
    pub slot: ListenerSlot,
    /// The address it answers for.
    pub vip: IpAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its L4 ports.
    pub ports: L4Ports,
    /// How its packets are changed.
    pub mode: Mode,
    /// By what of a packet its backend is chosen.
    pub affinity: Affinity,
    /// How clients are answered for whom no SNAT address or port is free.
    pub on_exhaustion: OnExhaustion,
    /// How a segment of a connection that nobody knows is answered. With DSR it goes to a backend.
    pub on_unknown: OnUnknown,
    /// Who serves. A backend's own L4 port is used, whatever port of the range was asked; but with DSR that port
    /// stays, and the backend serves on it.
    pub group: Arc<Group>,
    /// Addresses that full NAT, and the outer headers of tunnels, may take as source. Unused by DNAT and L2 DSR.
    pub snat: Arc<[IpAddr]>,
}

impl Listener {
    /// The backend of a flow that is not pinned yet; `key` is the client's packet.
    #[inline]
    pub(crate) fn pick(&self, key: &FlowKey) -> Pick<'_> {
        match self.affinity {
            Affinity::Tuple => self.group.pick(key),
            Affinity::Source { bits } => self.group.pick(&source_key(key, bits)),
        }
    }
}

/// Echo requests to VIPs that a worker answers a second, if nothing else is said.
pub const ECHO_PER_SECOND: u32 = 1000;

/// Why a snapshot cannot be what the builder was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Two listeners want the same packets.
    #[error(
        "listener {new:?} wants {vip} {protocol:?} L4 ports {first}..={last}, of which listener {held:?} has some"
    )]
    Overlap {
        /// The listener refused.
        new: ListenerSlot,
        /// The one that was there.
        held: ListenerSlot,
        /// Its address.
        vip: IpAddr,
        /// Its protocol.
        protocol: Protocol,
        /// Its first L4 port.
        first: u16,
        /// Its last L4 port.
        last: u16,
    },
    /// An empty range of ports.
    #[error(
        "listener {slot:?}: L4 ports {first}..={last} are no range; the first must be 1 or more and not above the last"
    )]
    Ports {
        /// The listener refused.
        slot: ListenerSlot,
        /// Its first L4 port.
        first: u16,
        /// Its last L4 port.
        last: u16,
    },
    /// A backend or SNAT address of the other family, in a mode that is no tunnel.
    #[error("listener {slot:?} on {vip}: {address} is of the other address family")]
    Family {
        /// The listener refused.
        slot: ListenerSlot,
        /// Its address.
        vip: IpAddr,
        /// The address that does not fit.
        address: IpAddr,
    },
    /// A listener on an address whose L4 ports belong to SNAT.
    #[error("{address} is both a VIP and a SNAT address: use another address for one of them")]
    VipIsSnatAddress {
        /// The address.
        address: IpAddr,
    },
}

type Map<K, V> = HashMap<K, V, FixedState>;
type Set<K> = HashSet<K, FixedState>;

/// Listeners by what packets to them look like.
#[derive(Clone, Debug, Default)]
struct Listeners {
    exact: Map<(IpAddr, Protocol, u16), Arc<Listener>>,
    ranges: Map<(IpAddr, Protocol), Vec<Arc<Listener>>>,
    by_slot: Map<ListenerSlot, Arc<Listener>>,
    vips: Map<IpAddr, usize>,
}

/// Listeners that have gone: their L4 ports, and how their packets were changed.
type Departed = Map<(IpAddr, Protocol), Vec<(L4Ports, Mode)>>;

/// See the module.
#[derive(Clone, Debug)]
pub struct Snapshot {
    version: u32,
    ports: Arc<[PortConfig]>,
    local: Arc<Set<IpAddr>>,
    own: Arc<Set<IpAddr>>,
    snat: Arc<Set<IpAddr>>,
    broadcasts: Arc<Set<IpAddr>>,
    listeners: Arc<Listeners>,
    departed: Arc<Departed>,
    dnat_backends: Arc<Map<IpAddr, Vec<(Protocol, u16)>>>,
    fib: Arc<Fib>,
    timeouts: Timeouts,
    snat_on_unknown: OnUnknown,
    echo_per_second: u32,
    removals: Option<Arc<Removals>>,
}

impl Snapshot {
    /// The number the builder gave it.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// A port, if configured.
    #[must_use]
    pub fn port(&self, port: PortIdx) -> Option<&PortConfig> {
        self.ports.get(usize::from(port.0))
    }

    /// The routes and neighbours.
    #[must_use]
    pub fn fib(&self) -> &Fib {
        &self.fib
    }

    /// How long flows may be silent.
    #[must_use]
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// What becomes of flows that nobody serves, if not all are kept.
    #[must_use]
    #[inline]
    pub fn removals(&self) -> Option<&Removals> {
        self.removals.as_deref()
    }

    /// How a segment to a SNAT address is answered that is of a connection nobody knows.
    #[must_use]
    pub fn snat_on_unknown(&self) -> OnUnknown {
        self.snat_on_unknown
    }

    /// How many echo requests to VIPs each worker answers a second.
    pub(crate) fn echo_per_second(&self) -> u32 {
        self.echo_per_second
    }

    /// The listener that owns packets to `destination`: an exact L4 port first, then a range.
    #[must_use]
    pub fn listener_of(&self, destination: SocketAddr, protocol: Protocol) -> Option<&Listener> {
        let (ip, port) = (destination.ip(), destination.port());
        if let Some(listener) = self.listeners.exact.get(&(ip, protocol, port)) {
            return Some(listener);
        }
        let ranges = self.listeners.ranges.get(&(ip, protocol))?;
        ranges.iter().find(|listener| listener.ports.contains(port)).map(|listener| &**listener)
    }

    /// How many listeners there are.
    pub(crate) fn listener_count(&self) -> usize {
        self.listeners.by_slot.len()
    }

    /// Whether a listener that has gone owned packets to `destination`, and flows of it may live.
    #[must_use]
    pub fn is_departed(&self, destination: SocketAddr, protocol: Protocol) -> bool {
        self.departed_modes(destination, protocol).next().is_some()
    }

    /// The modes of the listeners that have gone, owned packets to `destination`, and may have flows.
    pub(crate) fn departed_modes(
        &self,
        destination: SocketAddr,
        protocol: Protocol,
    ) -> impl Iterator<Item = Mode> {
        let some = !self.departed.is_empty();
        let gone = some.then(|| self.departed.get(&(destination.ip(), protocol))).flatten();
        let here = move |(ports, _): &&(L4Ports, Mode)| ports.contains(destination.port());
        gone.into_iter().flatten().filter(here).map(|(_, mode)| *mode)
    }

    /// Whether a listener that has gone answered on this address, and flows of it may live.
    #[must_use]
    pub fn is_departed_vip(&self, address: IpAddr) -> bool {
        [Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .any(|protocol| self.departed.contains_key(&(address, protocol)))
    }

    /// Whether any listener answers on this address.
    #[must_use]
    pub fn is_vip(&self, address: IpAddr) -> bool {
        self.listeners.vips.contains_key(&address)
    }

    /// Whether full NAT uses this address as source.
    #[must_use]
    pub fn is_snat(&self, address: IpAddr) -> bool {
        self.snat.contains(&address)
    }

    /// Whether this address is the broadcast of a subnet that the box is in.
    #[must_use]
    pub fn is_broadcast(&self, address: IpAddr) -> bool {
        self.broadcasts.contains(&address)
    }

    /// Whether the kernel answers for this address.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.local.contains(&address)
    }

    /// Whether this address is the box's alone.
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// Whether replies of DNAT flows come from there.
    #[must_use]
    pub fn is_dnat_backend(&self, source: SocketAddr, protocol: Protocol) -> bool {
        let served = self.dnat_backends.get(&source.ip());
        served.is_some_and(|served| served.contains(&(protocol, source.port())))
    }

    /// Whether any DNAT backend has this address.
    #[must_use]
    pub fn is_dnat_address(&self, address: IpAddr) -> bool {
        self.dnat_backends.contains_key(&address)
    }
}

/// Makes a [`Snapshot`]; off the fast path, and free to allocate.
#[derive(Clone, Debug)]
pub struct SnapshotBuilder {
    snapshot: Snapshot,
}

impl Default for SnapshotBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl SnapshotBuilder {
    /// Begins with nothing: no ports, no routes, default timeouts.
    #[must_use]
    pub fn new() -> Self {
        let snapshot = Snapshot {
            version: 0,
            ports: Arc::new([]),
            local: Arc::default(),
            own: Arc::default(),
            snat: Arc::default(),
            broadcasts: Arc::default(),
            listeners: Arc::default(),
            departed: Arc::default(),
            dnat_backends: Arc::default(),
            fib: Arc::default(),
            timeouts: Timeouts::default(),
            snat_on_unknown: OnUnknown::default(),
            echo_per_second: ECHO_PER_SECOND,
            removals: None,
        };
        Self { snapshot }
    }

    /// Begins with what an older snapshot says, shared.
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot) -> Self {
        Self { snapshot: snapshot.clone() }
    }

    /// The ports, [`PortIdx`] being their place.
    pub fn ports(&mut self, ports: impl Into<Arc<[PortConfig]>>) -> &mut Self {
        self.snapshot.ports = ports.into();
        self
    }

    /// Every address the kernel answers for, VIPs included. Replaces the earlier set.
    pub fn local_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> &mut Self {
        self.snapshot.local = Arc::new(addresses.into_iter().collect());
        self
    }

    /// Those of them that are the box's alone, neither a VIP (served or not) nor a SNAT address:
    /// there it speaks routing protocols and SSH. Replaces the earlier set.
    pub fn own_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> &mut Self {
        self.snapshot.own = Arc::new(addresses.into_iter().collect());
        self
    }

    /// Every SNAT address of every pool. Keep an address that was taken out of the pools for as long
    /// as flows use it. Replaces the earlier set.
    pub fn snat_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> &mut Self {
        self.snapshot.snat = Arc::new(addresses.into_iter().collect());
        self
    }

    /// The broadcast address of every subnet that the box is in: no packet comes from there. Replaces
    /// the earlier set.
    pub fn broadcasts(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> &mut Self {
        self.snapshot.broadcasts = Arc::new(addresses.into_iter().collect());
        self
    }

    /// Listeners that have gone, or changed to or from DNAT, while flows still name them: packets to them are
    /// brought to their owner, and make no flow. Replaces the earlier set.
    pub fn departed_listeners(
        &mut self,
        departed: impl IntoIterator<Item = (IpAddr, Protocol, L4Ports, Mode)>,
    ) -> &mut Self {
        let mut map = Departed::default();
        for (vip, protocol, ports, mode) in departed {
            map.entry((vip, protocol)).or_default().push((ports, mode));
        }
        self.snapshot.departed = Arc::new(map);
        self
    }

    /// Where replies of DNAT flows come from: every member of the groups of DNAT listeners, and
    /// those that left as long as flows name them. Replaces the earlier set.
    pub fn dnat_backends(
        &mut self,
        backends: impl IntoIterator<Item = (SocketAddr, Protocol)>,
    ) -> &mut Self {
        let mut map: Map<IpAddr, Vec<(Protocol, u16)>> = Map::default();
        for (address, protocol) in backends {
            let served = map.entry(address.ip()).or_default();
            if !served.contains(&(protocol, address.port())) {
                served.push((protocol, address.port()));
            }
        }
        self.snapshot.dnat_backends = Arc::new(map);
        self
    }

    /// The routes and neighbours.
    pub fn fib(&mut self, fib: Arc<Fib>) -> &mut Self {
        self.snapshot.fib = fib;
        self
    }

    /// How long flows may be silent.
    pub fn timeouts(&mut self, timeouts: Timeouts) -> &mut Self {
        self.snapshot.timeouts = timeouts;
        self
    }

    /// How many echo requests to VIPs each worker answers a second; 0 for none.
    pub fn echo_per_second(&mut self, count: u32) -> &mut Self {
        self.snapshot.echo_per_second = count;
        self
    }

    /// How a segment to a SNAT address is answered that is of a connection nobody knows.
    pub fn snat_on_unknown(&mut self, policy: OnUnknown) -> &mut Self {
        self.snapshot.snat_on_unknown = policy;
        self
    }

    /// What becomes of flows that nobody serves. Without it they are kept.
    pub fn removals(&mut self, removals: Option<Removals>) -> &mut Self {
        self.snapshot.removals = removals.map(Arc::new);
        self
    }

    /// Adds a listener, or replaces the one of the same slot.
    ///
    /// # Errors
    /// See [`SnapshotError`]. The builder is then as it was before.
    pub fn listener(&mut self, listener: Listener) -> Result<&mut Self, SnapshotError> {
        self.check(&listener)?;
        self.remove_listener(listener.slot);
        let listener = Arc::new(listener);
        let table = Arc::make_mut(&mut self.snapshot.listeners);
        table.by_slot.insert(listener.slot, listener.clone());
        *table.vips.entry(listener.vip).or_default() += 1;
        let L4Ports { first, last } = listener.ports;
        if first == last {
            table.exact.insert((listener.vip, listener.protocol, first), listener);
        } else {
            table.ranges.entry((listener.vip, listener.protocol)).or_default().push(listener);
        }
        Ok(self)
    }

    /// Removes a listener; whether it was there.
    pub fn remove_listener(&mut self, slot: ListenerSlot) -> bool {
        if !self.snapshot.listeners.by_slot.contains_key(&slot) {
            return false;
        }
        let table = Arc::make_mut(&mut self.snapshot.listeners);
        let Some(old) = table.by_slot.remove(&slot) else { return false };
        let (vip, protocol, first) = (old.vip, old.protocol, old.ports.first);
        if first == old.ports.last {
            table.exact.remove(&(vip, protocol, first));
        } else if let Some(ranges) = table.ranges.get_mut(&(vip, protocol)) {
            ranges.retain(|listener| listener.slot != slot);
        }
        if let Some(count) = table.vips.get_mut(&old.vip) {
            *count -= 1;
            if *count == 0 {
                table.vips.remove(&old.vip);
            }
        }
        true
    }

    fn check(&self, listener: &Listener) -> Result<(), SnapshotError> {
        let Listener { slot, vip, protocol, ports: L4Ports { first, last }, .. } = *listener;
        if first == 0 || first > last {
            return Err(SnapshotError::Ports { slot, first, last });
        }
        let members = listener.group.members().iter().map(|member| member.address.ip());
        let mut addresses = members.chain(listener.snat.iter().copied());
        let stranger = addresses.find(|ip| ip.is_ipv4() != vip.is_ipv4());
        if let Some(address) = stranger.filter(|_| !listener.mode.is_tunnel()) {
            return Err(SnapshotError::Family { slot, vip, address });
        }
        // An exact port within another listener's range is no conflict: the exact one wins.
        let table = &self.snapshot.listeners;
        let held = if first == last {
            table.exact.get(&(vip, protocol, first)).filter(|held| held.slot != slot)
        } else {
            let mut ranges = table.ranges.get(&(vip, protocol)).into_iter().flatten();
            ranges.find(|held| held.slot != slot && held.ports.overlaps(listener.ports))
        };
        match held {
            Some(held) => Err(SnapshotError::Overlap {
                new: slot,
                held: held.slot,
                vip,
                protocol,
                first,
                last,
            }),
            None => Ok(()),
        }
    }

    /// The snapshot. `version` must differ from those still in use, and not be 0: a flow notes in
    /// which it last looked whether its backend serves.
    ///
    /// # Errors
    /// [`SnapshotError::VipIsSnatAddress`].
    pub fn build(&self, version: u32) -> Result<Snapshot, SnapshotError> {
        let vips = &self.snapshot.listeners.vips;
        if let Some(address) = self.snapshot.snat.iter().find(|address| vips.contains_key(*address))
        {
            return Err(SnapshotError::VipIsSnatAddress { address: *address });
        }
        Ok(Snapshot { version, ..self.snapshot.clone() })
    }
}

#[cfg(test)]
mod tests;
