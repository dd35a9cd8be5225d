//! UDP headers: RFC 768.

use super::Malformed;

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// Where the checksum lies.
pub const CHECKSUM_AT: usize = 6;

/// A UDP datagram seen in place.
#[derive(Clone, Copy, Debug)]
pub struct UdpView<'a> {
    head: &'a [u8; HEADER_LEN],
}

impl<'a> UdpView<'a> {
    /// # Errors
    /// [`Malformed::Truncated`] if the header is not all there or its length is beyond the packet,
    /// [`Malformed::TotalLen`] if its length does not even cover the header.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let head = bytes.first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        let len = usize::from(u16::from_be_bytes([head[4], head[5]]));
        if len < HEADER_LEN {
            return Err(Malformed::TotalLen);
        }
        if len > bytes.len() {
            return Err(Malformed::Truncated);
        }
        Ok(Self { head })
    }

    /// Source and destination L4 port as they lie in the header.
    #[inline]
    #[must_use]
    pub fn ports(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = *self.head;
        [a, b, c, d]
    }

    /// Whether the sender computed a checksum; over IPv6 it must (RFC 8200 §8.1).
    #[must_use]
    pub fn has_checksum(&self) -> bool {
        let [.., high, low] = *self.head;
        [high, low] != [0, 0]
    }
}
