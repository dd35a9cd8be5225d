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

/// What the headers say of a piece of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The number that all pieces of the datagram carry, of 16 bits in IPv4.
    pub id: u32,
    /// Where it lies, counted from the IP header on.
    pub id_at: usize,
    /// Where the piece's data begins, counted from the IP header on.
    pub data_at: usize,
    /// Where in the datagram the data belongs.
    pub offset: usize,
    /// Whether data follows after this piece's.
    pub more: bool,
}
