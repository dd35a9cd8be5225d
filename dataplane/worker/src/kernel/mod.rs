//! All that touches the Linux network stack.

mod error;
mod link;
mod netlink;
pub mod policer;
pub mod tap;

use std::fmt;

pub use error::KernelError;
pub use policer::{Policer, Rate};
pub use tap::Tap;

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
