//! ICMP errors about packets of a flow: to the end that sent the packet, and about the packet as it sent it.
//!
//! ```text
//!  full NAT   client ──▶ VIP │ SNAT ──▶ backend ✗ router: "SNAT ──▶ backend is too big", to SNAT
//!             client ◀── VIP: "client ──▶ VIP is too big"
//! ```
//! The quote, turned round, is the tuple of packets that come the error's way; their flow says whom it is
//! for. Its sender stays who it is, unless that direction of the flow changes the source: then it is the
//! one the receiver talks to, so that filters let it through. Without a flow, an error is for the kernel or
//! for nobody. It makes no flow, moves none on and keeps none alive: anyone can send one.

use crate::classify::{Class, classify, outside_flows};
use crate::exit::ShortExit;
use crate::flow::{Direction, FlowKey, V6};
use crate::journey::{Headers, Kind};
use crate::rewrite::tunnel::Quoted;
use crate::snapshot::Snapshot;
use crate::wire::icmp::{self, QUOTE_AT, Quote, octets, quote};
use crate::wire::{checksum, tcp, udp};
use crate::{DropReason, Protocol};

/// Where the checksum lies in an ICMP message.
const CHECKSUM_AT: usize = 2;

/// An ICMP error, as it arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IcmpError {
    pub(crate) about: About,
    /// A tuple of the flow: that of packets that come the error's way, or of the packet in the tunnel.
    pub(crate) key: FlowKey,
}

/// What an error quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About {
    /// A packet of a flow.
    Packet(Quote),
    /// One in a tunnel of ours.
    Tunnelled(Quoted),
}

/// What an ICMP error quotes, once its checksum is right.
///
/// # Errors
/// How the packet leaves instead.
pub(crate) fn read(
    frame: &[u8],
    headers: &Headers,
    outer: &FlowKey,
    snapshot: &Snapshot,
) -> Result<IcmpError, ShortExit> {
    let to = outer.destination().ip();
    let end = usize::from(headers.l3) + usize::from(headers.ip_len);
    let message = frame.get(usize::from(headers.l4)..end).ok_or(DropReason::Truncated)?;
    if !icmp::checksum_is_right(message, outer) {
        return Err(DropReason::L4Checksum.into());
    }
    if let Some((packet, key)) = Quoted::of(message).filter(|_| snapshot.is_snat(to)) {
        return Ok(IcmpError { about: About::Tunnelled(packet), key });
    }
    let quote = message.get(QUOTE_AT..).and_then(quote);
    let quote = quote.filter(|quote| quote.key.family == outer.family);
    let quote = quote.ok_or_else(|| unclaimed(outer, snapshot, DropReason::IcmpQuote))?;
    Ok(IcmpError { about: About::Packet(quote), key: quote.key.mirror() })
}

/// Whose flow an error may be about, and how it leaves if nobody has it.
pub(crate) fn class<'s>(error: &IcmpError, snapshot: &'s Snapshot) -> Class<'s> {
    let whole = Headers { kind: Kind::Tuple, ..Headers::default() };
    classify(&whole, &error.key, snapshot)
}

/// How an error about no flow of ours leaves: what is about the box itself is the kernel's.
pub(crate) fn unclaimed(outer: &FlowKey, snapshot: &Snapshot, reason: DropReason) -> ShortExit {
    let to = outer.destination().ip();
    if snapshot.is_snat(to) || snapshot.is_vip(to) {
        return reason.into();
    }
    outside_flows(outer, snapshot)
}

/// The new ends of an error that goes `direction`: the arriving tuples of its flow, by direction, say which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// The tuple of the flow's packets that come the error's way, as they leave.
    leaving: FlowKey,
    /// The quoted packet as its sender sent it.
    quoted: FlowKey,
    keeps_source: bool,
}

impl Ends {
    pub(crate) fn of(forward: FlowKey, reply: FlowKey, direction: Direction) -> Self {
        let (arriving, quoted) = match direction {
            Direction::Forward => (forward, reply),
            Direction::Reply => (reply, forward),
        };
        let leaving = quoted.mirror();
        let keeps_source = arriving.source().ip() == leaving.source().ip();
        Self { leaving, quoted, keeps_source }
    }

    /// The tuple by which the error is routed.
    pub(crate) fn leaving(&self) -> &FlowKey {
        &self.leaving
    }
}

/// Writes the error as its receiver understands it: outer addresses, hop limit, the quoted tuple, and the
/// checksums over them, all by increments.
pub(crate) fn rewrite(
    frame: &mut [u8],
    headers: &Headers,
    quote: &Quote,
    ends: &Ends,
) -> Option<()> {
    let end = usize::from(headers.l3) + usize::from(headers.ip_len);
    let packet = frame.get_mut(usize::from(headers.l3)..end)?;
    let l4 = usize::from(headers.l4) - usize::from(headers.l3);
    let (ip, message) = packet.split_at_mut_checked(l4)?;
    let before = checksum::sum(message.get(QUOTE_AT..)?);
    rewrite_quote(message.get_mut(QUOTE_AT..)?, quote, &ends.quoted)?;
    let after = checksum::sum(message.get(QUOTE_AT..)?);
    let addresses = rewrite_outer(ip, ends)?;
    update(message.get_mut(CHECKSUM_AT..)?, checksum::delta(before, after))?;
    if ends.leaving.family == V6 {
        update(message.get_mut(CHECKSUM_AT..)?, addresses)?; // the pseudo-header's
    }
    Some(())
}

/// The quoted packet's addresses, ports, and whichever of its checksums were quoted.
fn rewrite_quote(packet: &mut [u8], quote: &Quote, now: &FlowKey) -> Option<()> {
    let Quote { key: before, l4_at } = quote;
    let (ip, l4) = packet.split_at_mut_checked(*l4_at)?;
    if now.family == V6 {
        *ip.get_mut(8..)?.first_chunk_mut()? = now.wide;
    } else {
        update(ip.get_mut(10..)?, checksum::header_delta(before, now))?;
        *ip.get_mut(12..)?.first_chunk_mut()? = now.addresses.to_ne_bytes();
    }
    *l4.first_chunk_mut()? = now.ports.to_ne_bytes();
    let delta = checksum::l4_delta(before, now);
    let is_tcp = now.protocol == Protocol::Tcp.number();
    let at = if is_tcp { tcp::CHECKSUM_AT } else { udp::CHECKSUM_AT };
    match l4.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) {
        Some([0, 0]) if !is_tcp => {} // the sender computed none
        Some(field) => update(field, delta)?,
        None => {} // not quoted
    }
    Some(())
}

/// The addresses of the error itself, one hop less, and the header checksum; what the addresses changed.
fn rewrite_outer(ip: &mut [u8], ends: &Ends) -> Option<u16> {
    let (addresses_at, len) = if ends.leaving.family == V6 { (8, 16) } else { (12, 4) };
    let before = checksum::sum(ip.get(addresses_at..addresses_at + 2 * len)?);
    if !ends.keeps_source {
        octets(ends.leaving.source(), ip.get_mut(addresses_at..)?)?;
    }
    octets(ends.leaving.destination(), ip.get_mut(addresses_at + len..)?)?;
    let delta =
        checksum::delta(before, checksum::sum(ip.get(addresses_at..addresses_at + 2 * len)?));
    if ends.leaving.family == V6 {
        ip[7] -= 1; // an error without a hop left came to its end before
    } else {
        ip[8] -= 1;
        let field = ip.get_mut(10..12)?;
        let delta = checksum::add(delta, checksum::ONE_HOP);
        let header = checksum::update(u16::from_ne_bytes([field[0], field[1]]), delta);
        field.copy_from_slice(&header.to_ne_bytes());
    }
    Some(delta)
}

/// A checksum in place.
fn update(field: &mut [u8], delta: u16) -> Option<()> {
    let field = field.first_chunk_mut::<2>()?;
    *field = checksum::update(u16::from_ne_bytes(*field), delta).to_ne_bytes();
    Some(())
}
