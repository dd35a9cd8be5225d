//! IPv6 headers: RFC 8200 §3. Extension headers are left unopened.

use super::Malformed;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Next header: ICMPv6.
pub const ICMPV6: u8 = 58;

/// An IPv6 packet seen in place.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6View<'a> {
    head: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Ipv6View<'a> {
    /// # Errors
    /// [`Malformed::Truncated`] if fewer bytes arrived than the header needs or claims,
    /// [`Malformed::Version`] if it is another protocol's.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (head, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        if head[0] >> 4 != 6 {
            return Err(Malformed::Version);
        }
        let payload_len = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let payload = rest.get(..payload_len).ok_or(Malformed::Truncated)?;
        Ok(Self { head, payload })
    }

    /// IANA number of what follows the fixed header.
    #[must_use]
    pub fn next_header(&self) -> u8 {
        self.head[6]
    }

    /// Source and destination as they lie in the header.
    #[must_use]
    pub fn addresses(&self) -> [u8; 32] {
        self.head.last_chunk().copied().unwrap_or([0; 32])
    }

    /// Whom it is for.
    #[must_use]
    pub fn destination(&self) -> [u8; 16] {
        self.head.last_chunk().copied().unwrap_or([0; 16])
    }

    /// What follows the fixed header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Whether this is neighbour or router discovery (RFC 4861 §4): by its hop limit, no router has
    /// passed it on.
    #[must_use]
    pub fn is_neighbour_discovery(&self) -> bool {
        self.next_header() == ICMPV6
            && self.head[7] == 255
            && matches!(self.payload.first(), Some(133..=137))
    }
}
