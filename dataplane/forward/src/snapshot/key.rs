//! What the tables of a snapshot are looked up by.

use std::net::IpAddr;
use std::num::NonZeroU32;

use crate::shared::{MapKey, fold};
use crate::{BackendId, ListenerSlot, Protocol};

/// An address, alone, with a protocol, or with a protocol and an L4 port, in numbers that are quick to
/// hash and to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    high: u64,
    low: u64,
    /// Family, protocol and port.
    rest: NonZeroU32,
}

const V4: NonZeroU32 = NonZeroU32::new(4 << 24).unwrap();
const V6: NonZeroU32 = NonZeroU32::new(6 << 24).unwrap();

impl Key {
    /// An address and a protocol.
    #[inline]
    pub(super) fn of(address: IpAddr, protocol: Protocol) -> Self {
        Self::at(address, protocol, 0) // no packet is to port 0 of a listener: it has none
    }

    /// An address, a protocol and an L4 port.
    #[inline]
    pub(super) fn at(address: IpAddr, protocol: Protocol, port: u16) -> Self {
        let key = Self::from(address);
        let rest = u32::from(protocol.number()) << 16 | u32::from(port);
        Self { rest: key.rest | rest, ..key }
    }
}

impl From<IpAddr> for Key {
    #[inline]
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self { high: 0, low: v4.to_bits().into(), rest: V4 },
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                Self { high: (bits >> 64) as u64, low: bits as u64, rest: V6 }
            }
        }
    }
}

impl MapKey for Key {
    #[inline]
    fn hash(&self) -> u64 {
        fold(self.low ^ u64::from(self.rest.get()) << 32, self.high) // an IPv4 address is 32 bits of `low`
    }
}

impl MapKey for ListenerSlot {
    #[inline]
    fn hash(&self) -> u64 {
        fold(self.0.into(), 0)
    }
}

impl MapKey for BackendId {
    #[inline]
    fn hash(&self) -> u64 {
        fold(self.0.into(), 0)
    }
}
