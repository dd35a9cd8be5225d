//! All that touches the Linux network stack.
//!
//! The kernel does for us what it does well and seldom: it answers ARP and neighbour discovery and
//! asks for the MACs of others, it keeps addresses and routes and lets routing daemons change them,
//! and it ends the TCP connections of BGP, SSH and the L7 tier. It never sees the traffic that we
//! forward. Between the two stands, for each DPDK port, a *companion*: a TAP interface with the
//! port's MAC.
//!
//! ```text
//!            BGP, SSH, L7 ──── kernel: ARP/ND, addresses, routes, neighbours
//!                                 │ frames            ▲ │ netlink
//!                        [`tap`]  │       [`addresses`] │ ▼ [`mirror`]
//!   DPDK port ◀──▶ workers ◀──▶ companion          main lcore ──▶ FIB of the workers
//!                    [`policer`]
//! ```
//! * [`tap`]: the companion itself: persistent, so that addresses, routes and BGP sessions outlive
//!   our process, adopted by the next one under its name. Frames in, frames out.
//! * [`attachment`]: our hold on it, taken anew when somebody deletes the interface.
//! * [`mirror`]: links, addresses, routes (tables local and main, both families, multipath, nexthop
//!   objects) and neighbours, by netlink, dumped once and then followed; [`view`] is what it shows,
//!   cut down to what decides where a packet goes. It also makes the kernel ask for a neighbour
//!   that a packet waits for, and keeps those in use from going stale, since the kernel would think
//!   nobody talks to them.
//! * [`addresses`]: puts VIPs and SNAT addresses on the companion, so that the kernel answers for
//!   them, and takes away only what it put there. [`announce`] makes the frames that tell a network
//!   of an address that moved here.
//! * [`policer`]: how much of each class of punted packets may reach the kernel.
//!
//! Left to others: which packets to punt (the `forward` crate), queues and threads of the exception
//! path (`exception`), turning the view into the FIB (`snapshot`). Not looked at: policy routing
//! rules, VRFs, routes by TOS or source prefix, MPLS and other encapsulating routes (shown as
//! [`RouteKind::Elsewhere`]).
//!
//! Needs CAP_NET_ADMIN, and no sysctl: the kernel's defaults serve with a VIP on the companion or
//! on `lo`, and with `rp_filter` 0, 1 or 2. (`net.ipv6.conf.NAME.disable_ipv6=1` would keep IPv6
//! VIPs off, and `addr_gen_mode=1` the link-local address that the kernel asks for IPv6 neighbours
//! from; `ip_forward` is not needed, as the kernel forwards nothing of ours.) Everything acts on the
//! network namespace of the thread that opens it.

pub mod addresses;
pub mod announce;
pub mod attachment;
mod error;
mod link;
pub mod mirror;
mod neighbours;
mod netlink;
mod nexthops;
pub mod policer;
mod routes;
mod tables;
pub mod tap;
#[cfg(test)]
mod tests;
pub mod view;

use std::fmt;

pub use addresses::{Addresses, Reconciled};
pub use announce::announcement;
pub use attachment::{Attachment, Written};
pub use error::KernelError;
pub use mirror::Mirror;
pub use neighbours::Asked;
pub use policer::{Policer, Rate};
pub use tap::Tap;
pub use view::{
    Address, KernelView, Link, Neighbour, NextHop, OurAddresses, Prefix, Route, RouteKind, Table,
};

/// A DPDK port, by the number the worker gives it.
pub type PortIdx = u16;

/// The kernel's number of an interface: unique in a network namespace, and never used twice while
/// the interface exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ifindex(pub u32);

impl fmt::Display for Ifindex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Whether it can be the address of one interface: not zero, and not that of a group.
    pub fn is_unicast(self) -> bool {
        self.0 != [0; 6] && self.0[0] & 1 == 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
