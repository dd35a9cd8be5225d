//! ICMP errors of our own: what the sender of a packet is told that goes nowhere.
//!
//! * "Packet too big" (RFC 4443 §3.2), and of IPv4 "fragmentation needed and DF set" with the MTU in it (RFC 1191
//!   §4): it does not fit the way it must take.
//! * "Port unreachable" (RFC 1122 §3.2.2.1, RFC 4443 §3.1 code 4): nobody can take a new connection, or a datagram.
//!   To its client the VIP is a host, and this is what a host says of one port; sockets give up at once. "Host
//!   unreachable", which RFC 6888 REQ-8 asks of a NAT before its clients, speaks of every port of the VIP, and
//!   "prohibited" (RFC 1812 §5.2.7.1) of a filter on the way.
//! * "Time exceeded" (RFC 1812 §5.3.1, RFC 4443 §3.3): no hop is left. We take a hop as a router does, and so we say
//!   it: `traceroute` shows us, and a loop between routers is seen.
//!
//! From whom the sender talks to, so that filters let it through; about the packet as it was sent, which stays
//! where it lies: the error's headers are written before it.

use crate::burst::Slot;
use crate::exit::ShortExit;
use crate::flow::{FlowKey, V6};
use crate::journey::Headers;
use crate::rewrite::reset;
use crate::wire::icmp::{ICMP, QUOTE_AT as HEADER_LEN};
use crate::wire::{checksum, ethernet, ipv4, ipv6};
use crate::{HEADROOM, Tick};

/// "Destination unreachable", and two of its codes: RFC 792.
const UNREACHABLE: u8 = 3;
const PORT_UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const TIME_EXCEEDED: u8 = 11;
/// The same of ICMPv6: RFC 4443 §3.1 to §3.3.
const UNREACHABLE_V6: u8 = 1;
const PORT_UNREACHABLE_V6: u8 = 4;
const PACKET_TOO_BIG: u8 = 2;
const TIME_EXCEEDED_V6: u8 = 3;
/// The most bytes of an error: RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c).
const MOST_V4: usize = 576;
const MOST_V6: usize = 1280;
/// ICMP errors of one kind that one worker sends.
pub(crate) const ERRORS: Limit = Limit { at_once: 100, per_second: 1000 };
/// The longest link header.
const MOST_LINK: usize = ethernet::HEADER_LEN + ethernet::TAG_LEN;

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// What would have fitted.
    TooBig {
        /// Bytes of an IP packet.
        mtu: u16,
    },
    /// Nobody takes it.
    PortUnreachable,
    /// It had no hop left.
    TimeExceeded,
}

impl Answer {
    /// The ICMP header, without its checksum.
    fn header(self, is_v6: bool) -> [u8; HEADER_LEN] {
        let (kind, code, mtu) = match (self, is_v6) {
            (Self::TooBig { mtu }, false) => (UNREACHABLE, FRAGMENTATION_NEEDED, mtu),
            (Self::TooBig { mtu }, true) => (PACKET_TOO_BIG, 0, mtu),
            (Self::PortUnreachable, false) => (UNREACHABLE, PORT_UNREACHABLE, 0),
            (Self::PortUnreachable, true) => (UNREACHABLE_V6, PORT_UNREACHABLE_V6, 0),
            (Self::TimeExceeded, false) => (TIME_EXCEEDED, 0, 0),
            (Self::TimeExceeded, true) => (TIME_EXCEEDED_V6, 0, 0),
        };
        let [high, low] = mtu.to_be_bytes();
        [kind, code, 0, 0, 0, 0, high, low]
    }
}

/// Makes the answer of a packet that lies as it arrived, if it [`wants_one`].
pub(crate) fn answer(
    slot: &mut Slot,
    headers: &Headers,
    arrived: &FlowKey,
    what: Answer,
) -> Option<()> {
    let (is_v6, l3) = (arrived.family == V6, usize::from(headers.l3));
    let (ip_len, most) = match is_v6 {
        true => (ipv6::HEADER_LEN, MOST_V6),
        false => (ipv4::MIN_HEADER_LEN, MOST_V4),
    };
    let grown = ip_len + HEADER_LEN;
    if usize::from(slot.start) != HEADROOM {
        return None;
    }
    let room = usize::from(slot.len).checked_sub(l3)?;
    let frame = slot.frame_mut();
    let mut head = [0; MOST_LINK + ipv6::HEADER_LEN];
    let head = head.get_mut(..l3 + ip_len)?;
    let (link, ip) = head.split_at_mut_checked(l3)?;
    link.copy_from_slice(frame.get(..l3)?);
    ethernet::turn_round(link)?;
    let quote = usize::from(headers.ip_len).min(most - grown).min(room);
    let message = frame.get_mut(l3 - HEADER_LEN..l3 + quote)?;
    *message.first_chunk_mut()? = what.header(is_v6);
    let (back, message_len) = (arrived.mirror(), u16::try_from(message.len()).ok()?);
    let checksum = if is_v6 {
        reset::write_v6(ip.first_chunk_mut()?, &back, ipv6::ICMPV6, message_len);
        checksum::l4(&back.wide, ipv6::ICMPV6, message)
    } else {
        reset::write_v4(ip.first_chunk_mut()?, &back, ICMP, message_len);
        !checksum::sum(message)
    };
    message.get_mut(2..4)?.copy_from_slice(&checksum.to_ne_bytes());
    slot.grow(grown)?;
    slot.front_mut().get_mut(..head.len())?.copy_from_slice(head);
    slot.len = u16::try_from(l3 + grown + quote).ok()?;
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

/// How many answers of one kind a worker may send: RFC 4443 §2.4 (f) and RFC 1812 §4.3.2.8 ask for a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) at_once: u32,
    pub(crate) per_second: u32,
}

/// What is left of a [`Limit`]: one worker's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowance {
    /// Thousandths of an answer that are not left.
    spent: u64,
    since: Tick,
}

/// What is left of the ICMP errors of each kind: who provokes one silences no other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowances {
    too_big: Allowance,
    unreachable: Allowance,
    time_exceeded: Allowance,
}

impl Allowances {
    pub(crate) fn of(&mut self, what: Answer) -> &mut Allowance {
        match what {
            Answer::TooBig { .. } => &mut self.too_big,
            Answer::PortUnreachable => &mut self.unreachable,
            Answer::TimeExceeded => &mut self.time_exceeded,
        }
    }
}

impl Allowance {
    /// Takes one, if one is left.
    pub(crate) fn take(&mut self, limit: Limit, now: Tick) -> bool {
        let earned = u64::from(now.since(self.since)) * u64::from(limit.per_second);
        self.since = now;
        let spent = self.spent.saturating_sub(earned);
        let has_one = spent + 1000 <= u64::from(limit.at_once) * 1000;
        self.spent = if has_one { spent + 1000 } else { spent };
        has_one
    }
}
