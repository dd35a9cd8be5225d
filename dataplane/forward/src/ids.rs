//! Small names for large things: indexes are types, never loose integers.

use std::fmt;

/// A DPDK port, by its place in the configuration. A row of the port table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortIdx(pub u16);

/// A worker, `0..workers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerIdx(pub u8);

/// The stable number of a listener: its row in the counter table. Given by the caller, who does not
/// reuse it while a flow names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerSlot(pub u32);

impl ListenerSlot {
    /// The largest that a flow can name.
    pub const MAX: Self = Self(u16::MAX as u32);
}

/// The stable number of a backend of a group: its row in the counter table. Given by the caller,
/// who reuses it only once its gauge `flows` is zero on every worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(pub u32);

/// A MAC address, in the order it is written.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Whether the group bit is set; broadcast is a multicast address too (IEEE 802-2014 §8.2.2).
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The two protocols with L4 ports that we balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// RFC 9293.
    Tcp = 6,
    /// RFC 768.
    Udp = 17,
}

impl Protocol {
    /// The IANA protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The protocol of an IANA number, if it is one of ours.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// How a listener's packets are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Client and VIP are both replaced: the backend sees a SNAT address, so replies find us
    /// whatever the backend's routes are.
    FullNat,
    /// Only the VIP is replaced: the backend sees the client, and its route to the client must
    /// lead through us.
    Dnat,
    /// L2 DSR: only MAC addresses are replaced. The backend, on a link of ours, has the VIP too, and answers
    /// the client itself.
    L2Dsr,
    /// The whole packet in another IP header of the backend's family (RFC 2003, RFC 2473). The backend
    /// decapsulates, has the VIP too, and answers the client itself.
    Ipip,
    /// The same in UDP: GUE variant 1, in which the inner IP header follows directly
    /// (draft-ietf-intarea-gue-09 §4).
    Gue,
    /// The same with a GUE header: variant 0 (draft-ietf-intarea-gue-09 §3).
    GueVariant0,
}

impl Mode {
    /// Whether backends answer clients themselves, so that we see the client's packets only, unchanged.
    #[must_use]
    pub const fn is_dsr(self) -> bool {
        !matches!(self, Self::FullNat | Self::Dnat)
    }

    /// Whether packets travel to the backend within others.
    #[must_use]
    pub const fn is_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue | Self::GueVariant0)
    }

    /// The mode of a flow record's byte.
    pub(crate) const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Dnat,
            2 => Self::L2Dsr,
            3 => Self::Ipip,
            4 => Self::Gue,
            5 => Self::GueVariant0,
            _ => Self::FullNat,
        }
    }
}
