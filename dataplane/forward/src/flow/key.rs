//! The 5-tuple of a flow, in the shape in which it is hashed and compared.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Protocol;

/// The family byte of an IPv4 key.
pub(crate) const V4: u8 = 4;
/// The family byte of an IPv6 key.
pub(crate) const V6: u8 = 6;

/// A 5-tuple: source, destination and protocol of one direction.
///
/// IPv4 addresses and L4 ports stay in network byte order, packed into one word of eight bytes and
/// one of four, just as they lie in the packet: two loads build the key (field by field costs nine
/// TSC cycles a packet more, by failed store forwarding) and its mirror image is a rotation.
#[derive(Clone, Copy, Debug)]
pub struct FlowKey {
    /// IPv4 source and destination, in the order of the bytes in memory; zero for IPv6.
    pub(crate) addresses: u64,
    /// Source and destination L4 port, in the order of the bytes in memory.
    pub(crate) ports: u32,
    pub(crate) protocol: u8,
    pub(crate) family: u8,
    /// IPv6 source and destination; meaningless for IPv4.
    pub(crate) wide: [u8; 32],
}

impl Default for FlowKey {
    fn default() -> Self {
        Self { addresses: 0, ports: 0, protocol: 0, family: V4, wide: [0; 32] }
    }
}

impl PartialEq for FlowKey {
    fn eq(&self, other: &Self) -> bool {
        self.addresses == other.addresses
            && self.ports == other.ports
            && self.protocol == other.protocol
            && self.family == other.family
            && (self.family == V4 || self.wide == other.wide)
    }
}

impl Eq for FlowKey {}

impl FlowKey {
    /// The key of packets from `source` to `destination`, or nothing if their families differ.
    #[inline]
    #[must_use]
    pub fn new(source: SocketAddr, destination: SocketAddr, protocol: Protocol) -> Option<Self> {
        let ports = pack_ports(source.port(), destination.port());
        let mut key = Self { ports, protocol: protocol.number(), ..Self::default() };
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                key.addresses = pack_v4(source, destination);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                key.family = V6;
                key.wide[..16].copy_from_slice(&source.octets());
                key.wide[16..].copy_from_slice(&destination.octets());
            }
            _ => return None,
        }
        Some(key)
    }

    /// The same to another L4 port.
    #[inline]
    pub(crate) fn to_port(self, port: u16) -> Self {
        let [a, b, ..] = self.ports.to_ne_bytes();
        let [high, low] = port.to_be_bytes();
        Self { ports: u32::from_ne_bytes([a, b, high, low]), ..self }
    }

    /// The key of packets the other way round.
    #[must_use]
    pub fn mirror(&self) -> Self {
        Self {
            addresses: mirror_addresses(self.addresses),
            ports: mirror_ports(self.ports),
            wide: mirror_wide(self.wide),
            ..*self
        }
    }

    /// Whether packets with this key and the other's go to the same address and L4 port, by the same protocol.
    #[inline]
    pub(crate) fn goes_where(&self, other: &Self) -> bool {
        const ADDRESS: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        const PORT: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
        let differs = ((self.addresses ^ other.addresses) & ADDRESS)
            | u64::from((self.ports ^ other.ports) & PORT)
            | u64::from(self.protocol ^ other.protocol)
            | u64::from(self.family ^ other.family);
        differs == 0 && (self.family == V4 || self.wide[16..] == other.wide[16..])
    }

    /// Source address and L4 port.
    #[must_use]
    pub fn source(&self) -> SocketAddr {
        let (source, _) = self.ip_pair();
        let [high, low, ..] = self.ports.to_ne_bytes();
        SocketAddr::new(source, u16::from_be_bytes([high, low]))
    }

    /// Destination address and L4 port.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        let (_, destination) = self.ip_pair();
        let [.., high, low] = self.ports.to_ne_bytes();
        SocketAddr::new(destination, u16::from_be_bytes([high, low]))
    }

    /// The IANA number of the protocol.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.protocol
    }

    /// The protocol, if it is one we balance; every key of the flow table has one.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        Protocol::from_number(self.protocol)
    }

    fn ip_pair(&self) -> (IpAddr, IpAddr) {
        if self.family == V6 {
            let (source, destination) = self.wide.split_at(16);
            let v6 = |bytes: &[u8]| {
                IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap_or_default()))
            };
            return (v6(source), v6(destination));
        }
        let [a, b, c, d, e, f, g, h] = self.addresses.to_ne_bytes();
        (IpAddr::V4(Ipv4Addr::new(a, b, c, d)), IpAddr::V4(Ipv4Addr::new(e, f, g, h)))
    }
}

/// Two IPv4 addresses as the eight bytes at offset 12 of an IPv4 header.
fn pack_v4(source: Ipv4Addr, destination: Ipv4Addr) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (source.octets(), destination.octets());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// Two L4 ports as the first four bytes of a TCP or UDP header.
fn pack_ports(source: u16, destination: u16) -> u32 {
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// Source and destination exchanged.
#[inline]
pub(crate) fn mirror_addresses(addresses: u64) -> u64 {
    addresses.rotate_left(32)
}

/// Source and destination exchanged.
#[inline]
pub(crate) fn mirror_wide(wide: [u8; 32]) -> [u8; 32] {
    let [source, destination]: [[u8; 16]; 2] = zerocopy::transmute!(wide);
    zerocopy::transmute!([destination, source])
}

/// Source and destination exchanged.
#[inline]
pub(crate) fn mirror_ports(ports: u32) -> u32 {
    ports.rotate_left(16)
}
