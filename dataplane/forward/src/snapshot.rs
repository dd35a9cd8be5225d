//! The immutable configuration a worker reads, one for a whole burst, replaced whole.
//!
//! A [`SnapshotBuilder`] is kept from one snapshot to the next: each shares with the one before what
//! was not touched between them, so that a change costs what it changes, and freeing the older one
//! frees that much. Nothing in a worker points into a snapshot from one burst to the next: flows name
//! listeners and backends by their stable numbers.

mod builder;
mod key;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::fib::Fib;
use crate::flow::{FlowKey, OwnTimeouts, Timeouts};
use crate::group::{Affinity, Group, Pick, source_key};
use crate::removal::Removals;
use crate::shared::SharedMap;
use crate::{
    ListenerSlot, MacAddr, Mode, MssClamp, OnExhaustion, OnUnknown, PortIdx, Protocol, SourceRanges,
};

pub use builder::SnapshotBuilder;
use key::Key;

/// What a worker must know of a port. The [tags](crate::vlan) of its frames are not the forwarder's business: there are
/// none when they come to it, but that a priority tag is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// The address that hosts on the link see.
    pub mac: MacAddr,
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
    /// How far the MSS option of SYNs is lowered.
    pub mss_clamp: MssClamp,
    /// The clients that are let in, by their addresses; all if there is no list.
    pub source_ranges: Option<Arc<SourceRanges>>,
    /// Who serves. A backend's own L4 port is used, whatever port of the range was asked; but with DSR that port
    /// stays, and the backend serves on it.
    pub group: Arc<Group>,
    /// Addresses that full NAT, and the outer headers of tunnels, may take as source, those of IPv4 first. Unused by DNAT and
    /// L2 DSR.
    pub snat: Arc<[IpAddr]>,
}

impl Listener {
    /// The backend of a flow that is not pinned yet; `key` is the client's packet.
    #[inline]
    pub(crate) fn pick(&self, key: &FlowKey) -> Pick<'_> {
        self.group.pick_by(self.slot_of(key))
    }

    /// Where in its group's Maglev table that backend stands.
    #[inline]
    pub(crate) fn slot_of(&self, key: &FlowKey) -> usize {
        match self.affinity {
            Affinity::Tuple => self.group.slot_of(key),
            Affinity::Source { bits } => self.group.slot_of(&source_key(key, bits)),
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

type Set = SharedMap<Key, ()>;

/// How many there are of each: one is there as long as it is counted.
type Counts = SharedMap<Key, u32>;

/// Listeners by what packets to them look like.
#[derive(Clone, Debug, Default)]
struct Listeners {
    exact: SharedMap<Key, Arc<Listener>>,
    /// Those of more than one L4 port, by their first.
    ranges: SharedMap<Key, Arc<[Arc<Listener>]>>,
    by_slot: SharedMap<ListenerSlot, Arc<Listener>>,
    vips: Counts,
}

/// Listeners that have gone, with how their packets were changed.
#[derive(Clone, Debug, Default)]
struct Departed {
    exact: SharedMap<Key, Arc<[Mode]>>,
    ranges: SharedMap<Key, Arc<[(L4Ports, Mode)]>>,
    vips: Counts,
}

/// Where replies of DNAT flows come from.
#[derive(Clone, Debug, Default)]
struct DnatBackends {
    exact: Counts,
    addresses: Counts,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Snapshot {
    version: u32,
    ports: Arc<[PortConfig]>,
    local: Arc<Set>,
    own: Set,
    kept: Set,
    snat: Set,
    broadcasts: Arc<[IpAddr]>,
    no_sources: Counts,
    listeners: Listeners,
    departed: Departed,
    dnat_backends: DnatBackends,
    fib: Arc<Fib>,
    timeouts: Timeouts,
    own_timeouts: Option<Arc<OwnTimeouts>>,
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

    /// How long flows may be silent whose listener says nothing of it.
    #[must_use]
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// How long flows of a listener may be silent.
    #[must_use]
    #[inline]
    pub fn timeouts_of(&self, slot: ListenerSlot) -> &Timeouts {
        self.own_timeouts.as_ref().and_then(|own| own.of(slot)).unwrap_or(&self.timeouts)
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
        if let Some(listener) = self.listeners.exact.get(&Key::at(ip, protocol, port)) {
            return Some(listener);
        }
        let ranges = self.listeners.ranges.get(&Key::of(ip, protocol))?;
        let after = ranges.partition_point(|listener| listener.ports.first <= port);
        let listener = ranges.get(after.checked_sub(1)?)?;
        listener.ports.contains(port).then_some(listener)
    }

    /// How many listeners there are.
    pub(crate) fn listener_count(&self) -> usize {
        self.listeners.by_slot.len()
    }

    /// How far the MSS option of a listener's SYNs is lowered; as usual if it has gone.
    pub(crate) fn mss_clamp(&self, slot: ListenerSlot) -> MssClamp {
        self.listeners.by_slot.get(&slot).map_or(MssClamp::Auto, |listener| listener.mss_clamp)
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
        let (ip, port) = (destination.ip(), destination.port());
        let departed = (!self.departed.vips.is_empty()).then_some(&self.departed);
        let exact = departed.and_then(|gone| gone.exact.get(&Key::at(ip, protocol, port)));
        let ranges = departed.and_then(|gone| gone.ranges.get(&Key::of(ip, protocol)));
        let ranges = ranges.into_iter().flat_map(|ranges| &**ranges);
        let within = ranges.filter(move |(ports, _)| ports.contains(port)).map(|(_, mode)| *mode);
        exact.into_iter().flat_map(|modes| &**modes).copied().chain(within)
    }

    /// Whether a listener that has gone answered on this address, and flows of it may live.
    #[must_use]
    pub fn is_departed_vip(&self, address: IpAddr) -> bool {
        self.departed.vips.contains(&Key::from(address))
    }

    /// Whether any listener answers on this address.
    #[must_use]
    pub fn is_vip(&self, address: IpAddr) -> bool {
        self.listeners.vips.contains(&Key::from(address))
    }

    /// Whether full NAT uses this address as source.
    #[must_use]
    pub fn is_snat(&self, address: IpAddr) -> bool {
        self.snat.contains(&Key::from(address))
    }

    /// Whether no packet comes from this address: it is the broadcast of a subnet that the box is in, or
    /// a VIP or SNAT address of ours, and what was sent back there would come to us again.
    #[must_use]
    pub fn is_no_source(&self, address: IpAddr) -> bool {
        self.no_sources.contains(&Key::from(address))
    }

    /// Whether the kernel answers for this address: the box's own, or one that we keep on it.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.local.contains(&Key::from(address))
            || self.is_vip(address)
            || self.is_snat(address)
            || self.is_departed_vip(address)
            || self.is_kept(address)
    }

    /// Whether this is a VIP that another process of the box serves: its packets are the kernel's, whatever
    /// their L4 port, unless a listener has that.
    #[must_use]
    pub fn is_kept(&self, address: IpAddr) -> bool {
        self.kept.contains(&Key::from(address))
    }

    /// Whether this address is the box's alone.
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&Key::from(address))
    }

    /// Whether replies of DNAT flows come from there.
    #[must_use]
    pub fn is_dnat_backend(&self, source: SocketAddr, protocol: Protocol) -> bool {
        self.dnat_backends.exact.contains(&Key::at(source.ip(), protocol, source.port()))
    }

    /// Whether any DNAT backend has this address.
    #[must_use]
    pub fn is_dnat_address(&self, address: IpAddr) -> bool {
        self.dnat_backends.addresses.contains(&Key::from(address))
    }
}

#[cfg(test)]
mod tests;
