//! IPv6 headers: RFC 8200 §3, and the extension headers that may follow: §4.
//!
//! ```text
//!  0          4              6      7      8                24               40
//!  | 6 …      | payload len  | next | hops | source         | destination    | payload …
//!                                                                            ╰▶ | next | len | … |
//! ```

use super::{Fragment, Malformed};

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Next header: ICMPv6.
pub const ICMPV6: u8 = 58;
/// Next header: options for every hop.
pub const HOP_BY_HOP: u8 = 0;
/// Next header: routing.
pub const ROUTING: u8 = 43;
/// Next header: fragment.
pub const FRAGMENT: u8 = 44;
/// Length of that header.
pub const FRAGMENT_HEADER_LEN: usize = 8;
/// Next header: options for the destination.
pub const DESTINATION: u8 = 60;
/// The most extension headers that are walked. A host may set such limits (RFC 8504 §5.3); what
/// honest senders use are one or two.
pub const MAX_EXTENSIONS: usize = 8;
/// The most bytes of them together.
pub const MAX_EXTENSIONS_LEN: usize = 256;

/// Other addresses, source and destination as they lie there, and one hop less, which there must be.
#[inline(always)]
pub(crate) fn replace_addresses(header: &mut [u8; HEADER_LEN], addresses: &[u8; 32]) {
    header[7] -= 1;
    header[8..].copy_from_slice(addresses);
}

/// An IPv6 packet seen in place.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6View<'a> {
    head: &'a [u8; HEADER_LEN],
    payload: &'a [u8], // exactly the payload's length: Ethernet padding is already cut off
}

/// What the extension headers lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper<'a> {
    /// IANA number of what comes next: no extension header that we walk.
    pub protocol: u8,
    /// Bytes of the extension headers.
    pub extensions_len: usize,
    /// What follows them, or what this fragment has of it.
    pub payload: &'a [u8],
    /// What makes this a piece of a larger packet: an offset, or more to come. An atomic fragment,
    /// which is all there, is none (RFC 6946 §4).
    pub fragment: Option<Fragment>,
}

/// Why extension headers lead nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Astray {
    /// A header is not all there.
    Truncated,
    /// More headers than [`MAX_EXTENSIONS`], or more bytes than [`MAX_EXTENSIONS_LEN`].
    TooMany,
    /// Options for every hop that are not the first header (RFC 8200 §4.1).
    Misplaced,
    /// A routing header of type 0, or one with a way to go.
    Routed,
}

impl<'a> Ipv6View<'a> {
    /// # Errors
    /// [`Malformed::Truncated`] if fewer bytes arrived than the header needs or claims,
    /// [`Malformed::Version`] if it is another protocol's, [`Malformed::TotalLen`] if the length is
    /// in an option: no frame holds a jumbogram (RFC 2675 §3).
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (head, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        if head[0] >> 4 != 6 {
            return Err(Malformed::Version);
        }
        let payload_len = usize::from(u16::from_be_bytes([head[4], head[5]]));
        if payload_len == 0 && head[6] == HOP_BY_HOP {
            return Err(Malformed::TotalLen);
        }
        let payload = rest.get(..payload_len).ok_or(Malformed::Truncated)?;
        Ok(Self { head, payload })
    }

    /// Header and payload together.
    #[must_use]
    pub fn total_len(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }

    /// IANA number of what follows the fixed header.
    #[must_use]
    pub fn next_header(&self) -> u8 {
        self.head[6]
    }

    /// Hops left.
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.head[7]
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

    /// Walks hop-by-hop and destination options, routing and fragment headers, in any order (RFC
    /// 8200 §4.1). Whatever else comes is the upper layer's: ESP, which nobody can look into, and
    /// AH, which covers the addresses and so outlives no NAT.
    ///
    /// # Errors
    /// [`Astray`].
    pub fn upper(&self) -> Result<Upper<'a>, Astray> {
        walk(self.next_header(), self.payload)
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

/// The walk of [`Ipv6View::upper`], over what follows a fixed header that names `protocol` as next.
///
/// It ends at a fragment header, but for that of the first piece, which has to hold every header there is
/// (RFC 7112 §5): one that does not is given with what it has.
pub(super) fn walk(mut protocol: u8, after_head: &[u8]) -> Result<Upper<'_>, Astray> {
    let (mut payload, mut walked, mut fragment) = (after_head, 0, None);
    while matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
        let header = match Extension::read(protocol, payload) {
            Err(Astray::Truncated) if fragment.is_some() => break,
            header => header?,
        };
        match protocol {
            _ if walked == MAX_EXTENSIONS => return Err(Astray::TooMany),
            HOP_BY_HOP if walked > 0 => return Err(Astray::Misplaced),
            FRAGMENT if fragment.is_some() => return Err(Astray::Misplaced),
            _ => {}
        }
        payload = header.rest;
        let extensions_len = after_head.len() - payload.len();
        if extensions_len > MAX_EXTENSIONS_LEN {
            return Err(Astray::TooMany);
        }
        protocol = header.next;
        if let Some(piece) = header.fragment {
            let data_at = HEADER_LEN + extensions_len;
            fragment = Some(Fragment { id_at: data_at - 4, data_at, ..piece });
            if piece.offset > 0 {
                break;
            }
        }
        walked += 1;
    }
    let extensions_len = after_head.len() - payload.len();
    Ok(Upper { protocol, extensions_len, payload, fragment })
}

/// One extension header.
struct Extension<'a> {
    next: u8,
    rest: &'a [u8],
    /// What a fragment header says, but for where it lies; nothing if it is an atomic fragment's.
    fragment: Option<Fragment>,
}

impl<'a> Extension<'a> {
    fn read(protocol: u8, bytes: &'a [u8]) -> Result<Self, Astray> {
        let [next, len, third, fourth, id @ ..] =
            *bytes.first_chunk::<8>().ok_or(Astray::Truncated)?;
        if protocol == ROUTING && (third == 0 || fourth > 0) {
            return Err(Astray::Routed);
        }
        let header_len =
            if protocol == FRAGMENT { FRAGMENT_HEADER_LEN } else { 8 + usize::from(len) * 8 };
        let rest = bytes.get(header_len..).ok_or(Astray::Truncated)?;
        let field = u16::from_be_bytes([third, fourth]);
        let fragment = (protocol == FRAGMENT && field & 0xfff9 != 0).then_some(Fragment {
            id: u32::from_be_bytes(id),
            id_at: 0,
            data_at: 0,
            offset: usize::from(field & 0xfff8),
            more: field & 1 != 0,
        });
        Ok(Self { next, rest, fragment })
    }
}
