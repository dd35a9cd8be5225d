//! What holds for every packet that is sent, whatever came: it fits the port, its IPv4 header
//! checksum is right, and so are its TCP, UDP or ICMP checksum if those of what came were, in
//! tunnels and in what errors quote too. Sums are computed by etherparse.

use etherparse::checksum::Sum16BitWords;

/// Bytes of the link header.
pub const LINK: usize = 14;
/// The MTU of the test network's one port.
pub const MTU: usize = 1500;
const ICMP: u8 = 1;
const IPIP: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6: u8 = 41;
const ICMPV6: u8 = 58;
const GUE_PORT: u16 = 6080;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// An IP packet, read anew: by nothing of the crate that is looked at.
struct Ip<'p> {
    /// Both addresses, as a pseudo-header has them.
    addresses: &'p [u8],
    is_v6: bool,
    /// The header checksum, which IPv6 has none of.
    header_is_right: bool,
    protocol: u8,
    /// Where in its datagram a piece lies, in bytes, and whether more follows.
    piece: Option<(u16, bool)>,
    /// What follows the IP headers.
    payload: &'p [u8],
}

impl<'p> Ip<'p> {
    fn read(packet: &'p [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::read_v4(packet),
            6 => Self::read_v6(packet),
            _ => None,
        }
    }

    fn read_v4(packet: &'p [u8]) -> Option<Self> {
        let header = packet.get(..usize::from(packet[0] & 0x0f) * 4)?;
        let end = u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]);
        let field = u16::from_be_bytes([*header.get(6)?, *header.get(7)?]);
        let piece = (field & 0x3fff > 0).then_some((field << 3, field & 0x2000 > 0));
        Some(Self {
            addresses: header.get(12..20)?,
            is_v6: false,
            header_is_right: Sum16BitWords::new().add_slice(header).ones_complement() == 0,
            protocol: header[9],
            piece,
            payload: packet.get(header.len()..end.into())?,
        })
    }

    fn read_v6(packet: &'p [u8]) -> Option<Self> {
        let len = u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]);
        let mut payload = packet.get(40..40 + usize::from(len))?;
        let (mut protocol, mut piece) = (packet[6], None);
        loop {
            let units = usize::from(*payload.get(1).unwrap_or(&0));
            let len = match protocol {
                HOP_BY_HOP | ROUTING | DESTINATION => 8 + units * 8,
                AUTHENTICATION => 8 + units * 4,
                FRAGMENT => 8,
                _ => break,
            };
            if protocol == FRAGMENT {
                let field = u16::from_be_bytes([*payload.get(2)?, *payload.get(3)?]);
                piece = (field & 0xfff9 > 0).then_some((field & 0xfff8, field & 1 > 0));
            }
            let header;
            (header, payload) = payload.split_at_checked(len)?;
            protocol = header[0];
            if piece.is_some_and(|(offset, _)| offset > 0) {
                break; // data, whatever it looks like
            }
        }
        let addresses = packet.get(8..40)?;
        Some(Self { addresses, is_v6: true, header_is_right: true, protocol, piece, payload })
    }

    /// What follows the IP headers, of a packet that is no piece.
    fn whole_payload(&self) -> Option<&'p [u8]> {
        self.piece.is_none().then_some(self.payload)
    }

    /// Whether the checksum of TCP, UDP or ICMP is right; nothing where there is none to be right.
    fn l4_is_right(&self) -> Option<bool> {
        let (protocol, mut payload) = (self.protocol, self.whole_payload()?);
        let mut sum = Sum16BitWords::new();
        match (protocol, self.is_v6) {
            (ICMP, false) => return Some(sum.add_slice(payload).ones_complement() == 0),
            (TCP, _) | (ICMPV6, true) => {}
            (UDP, _) => {
                let [.., high, low, a, b] = *payload.first_chunk::<8>()?;
                if [a, b] == [0, 0] {
                    return None; // the sender computed none
                }
                payload = payload.get(..u16::from_be_bytes([high, low]).into())?;
            }
            _ => return None,
        }
        let len = u32::try_from(payload.len()).ok()?;
        sum = sum.add_slice(self.addresses).add_4bytes(len.to_be_bytes());
        Some(sum.add_2bytes([0, protocol]).add_slice(payload).ones_complement() == 0)
    }

    /// The packet in a tunnel of ours.
    fn inner(&self) -> Option<&'p [u8]> {
        let payload = self.whole_payload()?;
        match self.protocol {
            IPIP | IPV6 => Some(payload),
            UDP if payload.get(2..4)? == GUE_PORT.to_be_bytes() => match payload.get(8)? >> 4 {
                0 => payload.get(12..), // variant 0: draft-ietf-intarea-gue-09 section 3
                _ => payload.get(8..),
            },
            _ => None,
        }
    }

    /// The packet that an ICMP error quotes.
    fn quoted(&self) -> Option<&'p [u8]> {
        let payload = self.whole_payload()?;
        let is_error = match (self.protocol, payload.first()?) {
            (ICMP, kind) => [3, 11, 12].contains(kind),
            (ICMPV6, kind) => (1..=4).contains(kind),
            _ => false,
        };
        payload.get(8..).filter(|_| is_error)
    }
}

/// Whether an IPv4 header at the front of some bytes is right; nothing if none is there whole.
fn header_is_right(packet: &[u8]) -> Option<bool> {
    let head = packet.get(..usize::from(packet.first()? & 0x0f) * 4)?;
    let is_v4 = packet[0] >> 4 == 4 && head.len() >= 20;
    is_v4.then(|| Sum16BitWords::new().add_slice(head).ones_complement() == 0)
}

/// Whether a frame has these bytes somewhere, as a router's quote of a tunnel has the header of what was in it.
fn has(frame: &[u8], bytes: Option<&[u8]>) -> bool {
    bytes.is_some_and(|bytes| frame.windows(bytes.len()).any(|window| window == bytes))
}

/// Whether TCP, UDP or ICMP of a frame are wrong.
fn lies(frame: &[u8]) -> bool {
    let ip = frame.get(LINK..).and_then(Ip::read);
    ip.and_then(|ip| ip.l4_is_right()) == Some(false)
}

/// Checks one frame that was sent for one that `came`; none did where we speak of ourselves.
///
/// # Panics
/// If a promise is broken.
pub fn holds(came: Option<&[u8]>, sent: &[u8]) {
    let ip = Ip::read(&sent[LINK..]).unwrap_or_else(|| panic!("no IP: {sent:02x?}"));
    assert!(ip.header_is_right, "header checksum of {sent:02x?}");
    assert!(sent.len() <= LINK + MTU, "{} bytes: {sent:02x?}", sent.len());
    let came_wrong = came.is_some_and(lies);
    let right = |ip: &Ip, what| match ip.l4_is_right() {
        Some(false) => assert!(came_wrong, "{what} checksum of {sent:02x?} for {came:02x?}"),
        Some(true) | None => {}
    };
    right(&ip, "L4");
    if let Some(inner) = ip.inner().and_then(Ip::read) {
        assert!(inner.header_is_right, "inner header checksum of {sent:02x?}");
        right(&inner, "inner L4");
    }
    if let Some(false) = ip.quoted().and_then(header_is_right) {
        let quoted = came.and_then(|came| Ip::read(came.get(LINK..)?)?.quoted());
        let was_wrong = quoted.and_then(header_is_right) == Some(false);
        let came_so = came.is_some_and(|came| has(came, ip.quoted().and_then(|it| it.get(..20))));
        assert!(was_wrong || came_so, "quoted header checksum of {sent:02x?} for {came:02x?}");
    }
}

/// Whether a packet is a piece of a datagram behind the first.
#[must_use]
pub fn is_later_piece(frame: &[u8]) -> bool {
    piece(frame).is_some_and(|(offset, _)| offset > 0)
}

/// Where a piece of a datagram lies in it, and what it carries.
#[must_use]
pub fn piece(frame: &[u8]) -> Option<(u16, Vec<u8>)> {
    let ip = Ip::read(frame.get(LINK..)?)?;
    Some((ip.piece?.0, ip.payload.to_vec()))
}
