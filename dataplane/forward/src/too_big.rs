//! What the sender of a packet is told that does not fit the way it must take: ICMPv6 "packet too big" (RFC 4443
//! §3.2), and of IPv4 "fragmentation needed and DF set" with the MTU in it (RFC 1191 §4).
//!
//! From whom the sender talks to, so that filters let it through; about the packet as it was sent.

use crate::Tick;
use crate::burst::Slot;
use crate::exit::ShortExit;
use crate::flow::{FlowKey, V6};
use crate::journey::Headers;
use crate::rewrite::reset;
use crate::wire::icmp::{ICMP, QUOTE_AT as HEADER_LEN};
use crate::wire::{checksum, ipv4, ipv6};

/// "Fragmentation needed and DF set": RFC 792.
const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
/// RFC 4443 §3.2.
const PACKET_TOO_BIG: u8 = 2;
/// The most bytes of an error: RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c).
const MOST_V4: usize = 576;
const MOST_V6: usize = 1280;

/// Writes the answer over the packet that did not fit, if it [`wants_one`].
pub(crate) fn answer(
    slot: &mut Slot,
    headers: &Headers,
    arrived: &FlowKey,
    mtu: u16,
) -> Option<()> {
    let frame = slot.frame_mut();
    let (is_v6, l3) = (arrived.family == V6, usize::from(headers.l3));
    let (ip_len, most) = match is_v6 {
        true => (ipv6::HEADER_LEN, MOST_V6),
        false => (ipv4::MIN_HEADER_LEN, MOST_V4),
    };
    let message_at = l3 + ip_len;
    let quote_at = message_at + HEADER_LEN;
    let room = frame.len().checked_sub(quote_at)?;
    let quote = usize::from(headers.ip_len).min(most - ip_len - HEADER_LEN).min(room);
    frame.copy_within(l3..l3 + quote, quote_at);
    let message_len = HEADER_LEN + quote;
    let (ip, message) = frame.get_mut(l3..quote_at + quote)?.split_at_mut_checked(ip_len)?;
    let [high, low] = mtu.to_be_bytes();
    let back = arrived.mirror();
    let payload_len = u16::try_from(message_len).ok()?;
    if is_v6 {
        *message.first_chunk_mut()? = [PACKET_TOO_BIG, 0, 0, 0, 0, 0, high, low];
        let checksum = checksum::l4(&back.wide, ipv6::ICMPV6, message);
        message.get_mut(2..4)?.copy_from_slice(&checksum.to_ne_bytes());
        reset::write_v6(ip.first_chunk_mut()?, &back, ipv6::ICMPV6, payload_len);
    } else {
        *message.first_chunk_mut()? = [UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, 0, 0, high, low];
        let checksum = !checksum::sum(message);
        message.get_mut(2..4)?.copy_from_slice(&checksum.to_ne_bytes());
        reset::write_v4(ip.first_chunk_mut()?, &back, ICMP, payload_len);
    }
    frame.first_chunk_mut::<12>()?.rotate_left(6);
    slot.len = u16::try_from(quote_at + quote).ok()?;
    slot.exit = ShortExit::send(slot.arrival.ingress());
    Some(())
}

/// Whether the sender of a packet is to be told: not of a piece other than the first (RFC 1122 §3.2.2). One that lets
/// routers fragment IPv4 is told all the same, since we do not, and senders that hear it send less.
pub(crate) fn wants_one(frame: &[u8], headers: &Headers, family: u8) -> bool {
    let field = frame.get(usize::from(headers.l3) + 6..).and_then(|field| field.first_chunk());
    let field = field.map_or(0, |field| u16::from_be_bytes(*field));
    family == V6 || field & 0x1fff == 0
}

/// How many of these one worker may send: RFC 4443 §2.4 (f) and RFC 1812 §4.3.2.8 ask for a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    left: u32,
    since: Tick,
}

impl Allowance {
    /// As many at once; and one more each millisecond.
    pub(crate) const AT_ONCE: u32 = 100;

    pub(crate) fn new() -> Self {
        Self { left: Self::AT_ONCE, since: Tick(0) }
    }

    /// Takes one, if one is left.
    pub(crate) fn take(&mut self, now: Tick) -> bool {
        self.left = self.left.saturating_add(now.since(self.since)).min(Self::AT_ONCE);
        self.since = now;
        let some = self.left > 0;
        self.left -= u32::from(some);
        some
    }
}
