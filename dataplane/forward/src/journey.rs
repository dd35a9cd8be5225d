//! What the rooms know of the packets that walk through them.

use crate::BURST;
use crate::flow::{Entry, FlowKey};

/// What `parse` found in one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) kind: Kind,
    /// Where the IP header begins.
    pub(crate) l3: u16,
    /// Where the TCP or UDP header begins.
    pub(crate) l4: u16,
    /// Bytes of the IP packet.
    pub(crate) ip_len: u16,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    /// 0 for UDP, and so what follows.
    pub(crate) tcp_flags: u8,
    /// Sequence and acknowledgement number as they lie in a TCP header.
    pub(crate) numbers: [u8; 8],
}

/// What kind of packet it is, and so how much of its key means anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// TCP or UDP: the key is whole.
    #[default]
    Tuple,
    /// A piece of a datagram: addresses and protocol.
    Fragment,
    /// An ICMP error: its own addresses and protocol.
    IcmpError,
    /// An ICMP echo request: addresses and protocol.
    Echo,
    /// Another protocol: addresses and protocol.
    Other,
}

/// The packets of a burst between parse and exit. One a forwarder, used again for each burst.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) headers: [Headers; BURST],
    pub(crate) keys: [FlowKey; BURST],
    pub(crate) hashes: [u64; BURST],
    pub(crate) entries: [Entry; BURST],
    /// Of packets that would open a flow: what its replies will look like, and their hashes.
    pub(crate) replies: [FlowKey; BURST],
    pub(crate) reply_hashes: [u64; BURST],
    /// Packets that are plainly IPv4.
    pub(crate) plain: PacketSet,
    /// Packets whose key may be a flow's.
    pub(crate) tuples: PacketSet,
    /// Those of them that are IPv6. Rooms take them in turns of their own: one that asks each packet for
    /// its family costs three TSC cycles a packet more (bench `l4_full_nat_ipv6/78B/64_flows`).
    pub(crate) wide: PacketSet,
    /// Pieces of datagrams whose L4 ports are known; only the first piece has an L4 header.
    pub(crate) pieces: PacketSet,
    /// The ids with which they arrived.
    pub(crate) ids: [u32; BURST],
    /// Packets of DSR flows, which leave as they are, or within another packet.
    pub(crate) dsr: PacketSet,
    /// Packets that left as steady ones do, and are whole on their way.
    pub(crate) gone: PacketSet,
    /// SYNs of flows, their answers among them.
    pub(crate) syns: PacketSet,
    /// Packets that are too large for the way they must take.
    pub(crate) too_big: PacketSet,
    /// Packets that left for their owners before they were looked up.
    pub(crate) others: PacketSet,
    /// Packets of flows that had no hop left.
    pub(crate) expired: PacketSet,
    /// Packets whose entry is their flow.
    pub(crate) pinned: PacketSet,
    /// Packets without a flow, to be classified.
    pub(crate) strangers: PacketSet,
}

impl Default for Walk {
    fn default() -> Self {
        Self {
            headers: [Headers::default(); BURST],
            keys: [FlowKey::default(); BURST],
            hashes: [0; BURST],
            entries: [Entry::NONE; BURST],
            replies: [FlowKey::default(); BURST],
            reply_hashes: [0; BURST],
            plain: PacketSet::default(),
            tuples: PacketSet::default(),
            wide: PacketSet::default(),
            pieces: PacketSet::default(),
            ids: [0; BURST],
            dsr: PacketSet::default(),
            gone: PacketSet::default(),
            syns: PacketSet::default(),
            too_big: PacketSet::default(),
            others: PacketSet::default(),
            expired: PacketSet::default(),
            pinned: PacketSet::default(),
            strangers: PacketSet::default(),
        }
    }
}

impl Walk {
    /// Forgets the last burst; its packets' keys, headers, hashes and entries mean nothing without a set that has
    /// them.
    #[inline]
    pub(crate) fn begin(&mut self) {
        (self.plain, self.tuples, self.wide) = Default::default();
        (self.pieces, self.dsr, self.too_big) = Default::default();
        (self.pinned, self.strangers) = Default::default();
        (self.gone, self.others) = Default::default();
        (self.syns, self.expired) = Default::default();
    }
}

/// A set of packets of a burst, by their place: one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PacketSet(u64);
const _: () = assert!(BURST <= u64::BITS as usize);

impl PacketSet {
    /// The first `count` packets, at most [`BURST`].
    #[inline]
    pub(crate) fn first(count: usize) -> Self {
        Self(u64::MAX.checked_shr(BURST.saturating_sub(count) as u32).unwrap_or(0))
    }

    #[inline]
    pub(crate) fn insert(&mut self, at: usize) {
        self.0 |= 1 << (at % BURST);
    }

    #[inline]
    pub(crate) fn remove(&mut self, at: usize) {
        self.0 &= !(1 << (at % BURST));
    }

    /// Whether it has the packet at a place.
    #[inline]
    pub(crate) fn contains(self, at: usize) -> bool {
        self.0 >> (at % BURST) & 1 == 1
    }

    /// Packets in both sets.
    #[inline]
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those of `count` places from `from` on.
    #[inline]
    pub(crate) fn among(self, from: usize, count: usize) -> Self {
        let places = Self::first(count).0.checked_shl(from as u32);
        Self(self.0 & places.unwrap_or(0))
    }

    /// The packets that are so many places behind these.
    #[inline]
    pub(crate) fn moved_by(self, places: usize) -> Self {
        Self(self.0.checked_shl(places as u32).unwrap_or(0))
    }

    /// Packets in either set.
    #[inline]
    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Packets in this set and not in the other.
    #[inline]
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The places in order, at most [`BURST`] - 1 each.
    #[inline]
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let at = left.trailing_zeros() as usize;
            left &= left - 1;
            Some(at % BURST)
        })
    }
}
