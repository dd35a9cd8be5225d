//! IPv4 headers: RFC 791 §3.1.

use super::{Fragment, Malformed, checksum};

/// Bytes of a header without options.
pub const MIN_HEADER_LEN: usize = 20;
/// Where the identification lies.
const ID_AT: usize = 4;

/// One hop less, which there must be.
#[inline(always)]
pub(crate) fn age(header: &mut [u8; MIN_HEADER_LEN]) {
    header[8] -= 1;
    update_checksum(header, checksum::ONE_HOP);
}

/// Other addresses, source and destination as they lie there, and one hop less, which there must be; `delta` is what
/// both add to the checksum.
#[inline(always)]
pub(crate) fn replace_addresses(header: &mut [u8; MIN_HEADER_LEN], addresses: u64, delta: u16) {
    header[8] -= 1;
    update_checksum(header, delta);
    header[12..].copy_from_slice(&addresses.to_ne_bytes());
}

#[inline(always)]
fn update_checksum(header: &mut [u8; MIN_HEADER_LEN], delta: u16) {
    let checksum = checksum::update(u16::from_ne_bytes([header[10], header[11]]), delta);
    [header[10], header[11]] = checksum.to_ne_bytes();
}

/// An IPv4 datagram seen in place: a borrowed slice and accessors, nothing copied.
///
/// [`Ipv4View::new`] makes the checks of RFC 1812 §5.2.2 except the header checksum, which `parse`
/// takes from the NIC or computes; after it succeeds no accessor panics.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4View<'a> {
    bytes: &'a [u8], // exactly `total_len` bytes: Ethernet padding is already cut off
    head: &'a [u8; MIN_HEADER_LEN],
    header_len: usize,
}

impl<'a> Ipv4View<'a> {
    /// # Errors
    /// [`Malformed::Truncated`] if fewer bytes arrived than the header needs or claims, otherwise
    /// the first RFC 1812 §5.2.2 check that failed.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let head = bytes.first_chunk::<MIN_HEADER_LEN>().ok_or(Malformed::Truncated)?;
        let header_len = usize::from(head[0] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        match head[0] >> 4 {
            4 if header_len < MIN_HEADER_LEN => Err(Malformed::HeaderLen),
            4 if total_len < header_len => Err(Malformed::TotalLen),
            4 => {
                let bytes = bytes.get(..total_len).ok_or(Malformed::Truncated)?;
                Ok(Self { bytes, head, header_len })
            }
            _ => Err(Malformed::Version),
        }
    }

    /// Whether the header checksum is right.
    #[inline]
    #[must_use]
    pub fn checksum_is_right(&self) -> bool {
        if self.header_len == MIN_HEADER_LEN {
            return checksum::header_is_right(self.head);
        }
        checksum::sum(self.bytes.get(..self.header_len).unwrap_or_default()) == 0xffff
    }

    /// Header and payload together.
    #[inline]
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the header, options included.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Hops left.
    #[inline]
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.head[8]
    }

    /// IANA number of the payload's protocol.
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.head[9]
    }

    /// Whether this is a piece of a larger datagram: an offset, or more to come.
    #[inline]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        u16::from_be_bytes([self.head[6], self.head[7]]) & 0x3fff != 0
    }

    /// What it says of the piece that this is.
    #[must_use]
    pub fn fragment(&self) -> Option<Fragment> {
        let field = u16::from_be_bytes([self.head[6], self.head[7]]);
        self.is_fragment().then(|| Fragment {
            id: u16::from_be_bytes([self.head[ID_AT], self.head[ID_AT + 1]]).into(),
            id_at: ID_AT,
            data_at: self.header_len,
            offset: usize::from(field & 0x1fff) * 8,
            more: field & 0x2000 != 0,
        })
    }

    /// Source and destination as they lie in the header.
    #[inline]
    #[must_use]
    pub fn addresses(&self) -> [u8; 8] {
        let [.., a, b, c, d, e, f, g, h] = *self.head;
        [a, b, c, d, e, f, g, h]
    }

    /// Whom it is for.
    #[must_use]
    pub fn destination(&self) -> [u8; 4] {
        let [.., a, b, c, d] = *self.head;
        [a, b, c, d]
    }

    /// What the datagram carries.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.header_len..).unwrap_or_default()
    }
}
