//! Views over the bytes of a packet: nothing is copied, and what is checked once is not checked again.

pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod udp;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Fewer bytes than the header needs or claims.
    Truncated,
    /// The version field is another protocol's.
    Version,
    /// A header length below the least, or beyond the packet.
    HeaderLen,
    /// A total length that contradicts the header or what surrounds it.
    TotalLen,
}
