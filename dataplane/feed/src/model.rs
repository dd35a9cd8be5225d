//! What a data plane must know to forward, and nothing about where it came from.
//!
//! A [`State`] is the whole of it: listeners, backend groups, SNAT pools and next-hop hints. Every
//! object has a [`Name`] that outlives restarts of the control plane, so a change of one object is
//! told as that object alone ([`State::diff`]). Values are checked where they are made
//! ([`Name::new`], [`PortRange::new`]), and what only the whole can show, such as a listener whose
//! group does not exist or two listeners on one L4 port, by [`State::check`]. Both ends call it:
//! the producer before it sends, the consumer before it commits.
//!
//! The types hold IPv4 and IPv6 alike. What a data plane can do with them is its own matter; it
//! answers with an [`ObjectError`] for an object that it cannot serve.

mod change;
mod check;
pub(crate) mod faults;
mod join;
mod l7;
mod name;
mod policy;
mod source_ranges;
mod timeouts;
mod touched;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

pub use change::Change;
pub use join::join;
pub use l7::{
    BadHostname, ClientMode, Clients, Hostname, L7, L7Listener, Pem, PemId, Secret, Speaks, Tier,
    Tls,
};
pub use name::{BadName, Name};
pub use policy::{MssClamp, OnExhaustion, OnRemoval, OnUnknown, Policies};
pub use source_ranges::{Prefix, SourceRanges, TooManyRanges};
pub use timeouts::{Silence, Timeouts};
pub use touched::Touched;

/// How many objects of each kind a state may hold: what bounds a data plane's memory.
pub mod limits {
    /// Listeners in a state. Each has [`SourceRanges::MOST`](super::SourceRanges::MOST) source ranges at most, and all of
    /// them together some 75 MB.
    pub const LISTENERS: usize = 16_384;
    /// Backend groups in a state.
    pub const GROUPS: usize = 16_384;
    /// Members of all groups together.
    pub const MEMBERS: usize = 131_072;
    /// SNAT pools in a state.
    pub const SNAT_POOLS: usize = 1024;
    /// Addresses of all SNAT pools together.
    pub const SNAT_ADDRESSES: usize = 16_384;
    /// Next-hop hints in a state.
    pub const NEXT_HOPS: usize = 65_536;
    /// VIPs of the L7 tier in a state.
    pub const VIPS: usize = 16_384;
    /// Listeners of the L7 tier in a state.
    pub const L7_LISTENERS: usize = 16_384;
    /// Certificates of a listener of the L7 tier: as many as Gateway API lets it name.
    pub const CERTIFICATES: usize = 64;
    /// Certificates and authorities in a state.
    pub const PEMS: usize = 16_384;
    /// Parts of all of them together: some 96 MiB.
    pub const PEM_PARTS: usize = 65_536;
}

/// An ordered map that shares with its copies what has changed in neither. A copy costs a reference
/// count; a look-up and a change cost the logarithm of what is in it.
pub type Map<K, V> = RedBlackTreeMapSync<K, V>;

/// Everything a data plane needs to know. Two equal states have equal digests, on every box.
///
/// Cloning costs nothing worth counting, and what changes in the clone is all that it does not share.
/// A consumer keeps the `Arc` of a group that a commit did not touch, so that [`Arc::ptr_eq`] says
/// whether a Maglev table must be built anew.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct State {
    /// What we answer for.
    pub listeners: Map<Name, Listener>,
    /// Where it goes.
    pub groups: Map<Name, Arc<Group>>,
    /// Source addresses for full NAT.
    pub snat_pools: Map<Name, SnatPool>,
    /// Backend addresses that are reached by a gateway the kernel's routes do not know.
    pub next_hops: Map<IpAddr, NextHop>,
    /// VIPs that the data plane keeps on a companion for the L7 tier, whether or not it has a listener there.
    pub vips: Map<IpAddr, ()>,
    /// What the L7 tier must know; a state for a data plane has none of it, and one for the L7 tier nothing else.
    pub l7: L7,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listeners, groups, snat_pools, next_hops, vips, l7 } = self; // the maps themselves would show their nodes
        f.debug_struct("State")
            .field("listeners", &listeners.iter().collect::<BTreeMap<_, _>>())
            .field("groups", &groups.iter().collect::<BTreeMap<_, _>>())
            .field("snat_pools", &snat_pools.iter().collect::<BTreeMap<_, _>>())
            .field("next_hops", &next_hops.iter().collect::<BTreeMap<_, _>>())
            .field("vips", &vips.keys().collect::<BTreeSet<_>>())
            .field("l7", l7)
            .finish()
    }
}

impl State {
    /// The digest of the whole, computed from nothing: one hash an object and a member.
    ///
    /// [`crate::Producer`] and [`crate::Server`] keep theirs incrementally.
    pub fn digest(&self) -> Digest {
        crate::tracked::Tracked::of(Arc::new(self.clone())).digest()
    }

    /// The changes that lead from `self` to `next`: removals first, so that limits hold at every
    /// step, and a group before its members. Empty if both are equal. Costs a pass over each map
    /// that the two do not share, and over each such group.
    pub fn diff(&self, next: &State) -> Vec<Change> {
        change::diff(self, next)
    }

    /// The same, looking at nothing but what was `touched` since: at the cost of that, however much else there is.
    pub fn diff_of(&self, next: &State, touched: &Touched) -> Vec<Change> {
        change::diff_of(self, next, touched)
    }

    /// What is wrong with the whole, each fault at the object that can be refused for it. Empty
    /// means that a data plane may commit it.
    pub fn check(&self) -> Vec<ObjectError> {
        check::check(self)
    }
}

/// The transport protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// How a listener's packets are rewritten on their way to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Source and destination are rewritten: replies come back by themselves, and the backend
    /// sees one of our SNAT addresses.
    FullNat,
    /// Only the destination is rewritten: the backend sees the client's address and must route
    /// its replies through us.
    Dnat,
    /// Only MAC addresses are rewritten: the backend, on a link of ours, has the VIP too and answers
    /// the client itself.
    L2Dsr,
    /// The packet travels in another IP header, of either family; the backend has the VIP too and
    /// answers the client itself.
    Ipip,
    /// The same in UDP, GUE variant 1.
    Gue,
    /// The same in UDP, GUE variant 0.
    GueVariant0,
}

impl Mode {
    /// Every mode, in the order in which they are offered to people.
    pub const ALL: [Mode; 6] =
        [Self::FullNat, Self::Dnat, Self::L2Dsr, Self::Ipip, Self::Gue, Self::GueVariant0];

    /// The name by which people choose it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FullNat => "full-nat",
            Self::Dnat => "dnat",
            Self::L2Dsr => "l2-dsr",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::GueVariant0 => "gue-variant-0",
        }
    }

    /// Whether the backend keeps the L4 port that the client asked.
    #[must_use]
    pub const fn is_dsr(self) -> bool {
        !matches!(self, Self::FullNat | Self::Dnat)
    }

    /// Whether packets travel to the backend within others, of a family of their own.
    #[must_use]
    pub const fn is_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue | Self::GueVariant0)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// By what of a client's packet its backend is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Affinity {
    /// The 5-tuple: each flow for itself.
    #[default]
    Tuple,
    /// So many leading bits of the source address, 1 to the length of the VIP's family.
    Source {
        /// The prefix length.
        bits: u8,
    },
}

impl Affinity {
    /// By the leading `bits` of the source, where an address like `vip` has so many, and not none.
    #[must_use]
    pub fn source(bits: u8, vip: IpAddr) -> Option<Self> {
        let most = if vip.is_ipv4() { 32 } else { 128 };
        (1..=most).contains(&bits).then_some(Self::Source { bits })
    }
}

/// An inclusive range of L4 ports, neither empty nor containing port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// # Errors
    /// [`BadPortRange`] if `first` is 0 or above `last`.
    pub fn new(first: u16, last: u16) -> Result<Self, BadPortRange> {
        if first == 0 || first > last {
            return Err(BadPortRange { first, last });
        }
        Ok(Self { first, last })
    }

    /// The range of one port.
    ///
    /// # Errors
    /// [`BadPortRange`] if `port` is 0.
    pub fn single(port: u16) -> Result<Self, BadPortRange> {
        Self::new(port, port)
    }

    /// The lowest port, at least 1.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port, at least [`Self::first`].
    pub fn last(self) -> u16 {
        self.last
    }

    /// Whether `port` lies in the range.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Whether a port lies in both ranges.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Two numbers that are no range of L4 ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ports {first}-{last}: a range starts at 1 or above and does not end before it starts")]
pub struct BadPortRange {
    /// The first port as given.
    pub first: u16,
    /// The last port as given.
    pub last: u16,
}

/// A VIP, a protocol and L4 ports that we answer for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address clients connect to.
    pub vip: IpAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The L4 ports; no other listener of the same VIP and protocol may share one.
    pub ports: PortRange,
    /// How packets are rewritten.
    pub mode: Mode,
    /// By what of a packet its backend is chosen.
    pub affinity: Affinity,
    /// What it does where it cannot do what is asked, and what SYNs may offer.
    pub policies: Policies,
    /// The clients that are let in, by their addresses; `None` lets all in.
    pub source_ranges: Option<SourceRanges>,
    /// The [`Group`] that serves; it must exist in the same state.
    pub group: Name,
    /// The [`SnatPool`] for full NAT; `None` means the box's own SNAT addresses.
    pub snat_pool: Option<Name>,
}

/// Backends that serve together, and the share of new flows that none of them gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The backends by address and L4 port.
    pub members: BTreeMap<SocketAddr, Member>,
    /// The share of new flows to refuse, on the scale of the members' weights: what Gateway API
    /// asks for a backendRef that is invalid or has no endpoints. With no weight above zero
    /// anywhere, every new flow is refused.
    pub refused_weight: u32,
}

/// One backend of a [`Group`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its share of new flows; 0 gives it none.
    pub weight: u32,
    /// It keeps its flows and gets no new ones, whatever its weight.
    pub draining: bool,
}

/// Source addresses that full NAT may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnatPool {
    /// The addresses, of one or both families.
    pub addresses: BTreeSet<IpAddr>,
}

/// A hint that a backend address is reached by a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The gateway, on a link of ours.
    pub via: IpAddr,
}

/// The kind of an object, as errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A [`Listener`].
    Listener,
    /// A [`Group`] or one of its members.
    Group,
    /// A [`SnatPool`].
    SnatPool,
    /// A [`NextHop`], named by its backend address.
    NextHop,
    /// A VIP of the L7 tier, named by its address.
    Vip,
    /// An [`L7Listener`].
    L7Listener,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ObjectKind::Listener => "listener",
            ObjectKind::Group => "group",
            ObjectKind::SnatPool => "SNAT pool",
            ObjectKind::NextHop => "next hop",
            ObjectKind::Vip => "VIP",
            ObjectKind::L7Listener => "L7 listener",
        })
    }
}

/// Which object of a state is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its name.
    pub name: Name,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Why one object cannot be served, in words for the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {message}")]
pub struct ObjectError {
    /// The object that is refused.
    pub object: ObjectId,
    /// The value, what is wrong with it, and the next move. On its way to the control plane it is
    /// cut to [`crate::MAX_MESSAGE_BYTES`].
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_range_starts_at_one_and_ends_after_it_starts() {
        for (first, last, good) in [
            (1, 1, true),
            (80, 90, true),
            (1, 65535, true),
            (0, 0, false),
            (0, 5, false),
            (9, 8, false),
        ] {
            assert_eq!(PortRange::new(first, last).is_ok(), good, "{first}-{last}");
        }
        let range = PortRange::new(80, 90).unwrap();
        assert!(
            range.contains(80) && range.contains(90) && !range.contains(79) && !range.contains(91)
        );
        assert_eq!(range.to_string(), "80-90");
        assert_eq!(PortRange::single(443).unwrap().to_string(), "443");
    }
}
