//! TCP headers: RFC 9293 §3.1.

use super::Malformed;

/// Bytes of a header without options.
pub const MIN_HEADER_LEN: usize = 20;
/// Where the checksum lies.
pub const CHECKSUM_AT: usize = 16;
/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// Reset the connection.
pub const RST: u8 = 0x04;
/// The acknowledgement field is significant.
pub const ACK: u8 = 0x10;
/// The option behind which there is none.
pub const END_OF_OPTIONS: u8 = 0;
/// The option that fills a byte.
pub const NO_OPERATION: u8 = 1;
/// The option of a SYN that says how much its sender takes in a segment.
pub const MSS: u8 = 2;

/// A TCP segment seen in place.
#[derive(Clone, Copy, Debug)]
pub struct TcpView<'a> {
    head: &'a [u8; MIN_HEADER_LEN],
    payload_len: usize,
}

impl<'a> TcpView<'a> {
    /// # Errors
    /// [`Malformed::Truncated`] if the fixed header is not all there, [`Malformed::HeaderLen`] if
    /// the data offset is below 5 or beyond the segment.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let head = bytes.first_chunk::<MIN_HEADER_LEN>().ok_or(Malformed::Truncated)?;
        let header_len = usize::from(head[12] >> 4) * 4;
        if header_len < MIN_HEADER_LEN {
            return Err(Malformed::HeaderLen);
        }
        let payload_len = bytes.len().checked_sub(header_len).ok_or(Malformed::HeaderLen)?;
        Ok(Self { head, payload_len })
    }

    /// Source and destination L4 port as they lie in the header.
    #[inline]
    #[must_use]
    pub fn ports(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = *self.head;
        [a, b, c, d]
    }

    /// Sequence and acknowledgement number as they lie in the header.
    #[inline]
    #[must_use]
    pub fn numbers(&self) -> [u8; 8] {
        let [_, _, _, _, a, b, c, d, e, f, g, h, ..] = *self.head;
        [a, b, c, d, e, f, g, h]
    }

    /// The control bits CWR to FIN.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.head[13]
    }

    /// Sequence number of the first octet.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        let [_, _, _, _, a, b, c, d, ..] = *self.head;
        u32::from_be_bytes([a, b, c, d])
    }

    /// The next sequence number the sender expects, if `ACK` is set.
    #[must_use]
    pub fn acknowledgement(&self) -> u32 {
        let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = *self.head;
        u32::from_be_bytes([a, b, c, d])
    }

    /// SEG.LEN of RFC 9293 §3.4: the data, and one each for SYN and FIN.
    #[must_use]
    pub fn sequence_len(&self) -> u32 {
        let flag = |bit: u8| u32::from(self.flags() & bit != 0);
        self.payload_len as u32 + flag(SYN) + flag(FIN)
    }
}
