//! The MSS option of SYNs (RFC 9293 §3.7.1): neither end of a connection is told to send more than fits its way.
//!
//! An end offers what its own link takes. Of the links beyond us it knows nothing, and learns by "packet too big", if
//! nothing on the way swallows that. We see both ways of a connection, so each SYN leaves with no more than fits either:
//! the MTU of the route, less 40 bytes of IPv4 and TCP header or 60 of IPv6, whatever options there may be (RFC 6691
//! §2). It is never raised, and not put in where it is absent: that means 536 or 1220, which the least packet that every
//! host must take has room for. SYNs alone pay for it: a packet of an established flow is not asked.

use crate::Burst;
use crate::counters::{Counters, WorkerColumn};
use crate::fib::Fib;
use crate::flow::{Direction, Flow, FlowKey, FlowTable, V6};
use crate::journey::{Headers, Walk};
use crate::maglev::flow_hash;
use crate::policy::MssClamp;
use crate::rewrite::update_tcp;
use crate::snapshot::Snapshot;
use crate::wire::{checksum, ipv4, ipv6, tcp};

/// The room: SYNs of connections whose packets pass both ways, as they came but for what they offer. What is written by
/// increments may be written before or after this, so that plain ones still leave as steady packets do.
#[inline(never)]
pub(crate) fn clamp(
    burst: &mut Burst,
    walk: &Walk,
    flows: &FlowTable,
    snapshot: &Snapshot,
    counters: &Counters,
) {
    for at in walk.syns.without(walk.pieces).iter() {
        let (headers, entry) = (&walk.headers[at], walk.entries[at]);
        let (flow, direction) = (flows.flow(entry), entry.direction());
        let lowered = clamp_one(burst.frame_mut(at), headers, flow, direction, snapshot);
        counters.worker(WorkerColumn::MssClamped, u64::from(lowered.is_some()));
    }
}

/// Lowers what a SYN offers, if it is more than fits.
fn clamp_one(
    frame: &mut [u8],
    headers: &Headers,
    flow: Flow,
    direction: Direction,
    snapshot: &Snapshot,
) -> Option<()> {
    let (l3, l4) = (usize::from(headers.l3), usize::from(headers.l4));
    let segment = frame.get_mut(l4..l3 + usize::from(headers.ip_len))?;
    let header_len = usize::from(segment.get(12)? >> 4) * 4;
    let header = segment.get_mut(..header_len)?;
    let (mut at, mut offered) = next_offer(header, tcp::MIN_HEADER_LEN)?;
    let wanted = wanted(flow, snapshot)?;
    let fits_all = wanted.min(fits(snapshot.fib().least_mtu(), flow));
    while offered <= fits_all {
        (at, offered) = next_offer(header, at + 2)?; // most SYNs need no route for that
    }
    let most = wanted.min(fits(narrower(headers, flow, direction, snapshot.fib())?, flow));
    let mut lowered = None;
    loop {
        if offered > most && most > 0 {
            lowered = replace(header, at, most);
        }
        match next_offer(header, at + 2) {
            Some(next) => (at, offered) = next, // somebody is up to something: one is enough
            None => return lowered,
        }
    }
}

/// Where the first MSS lies among the options from `at` on, and what it says; nothing behind options that make no sense.
fn next_offer(header: &[u8], mut at: usize) -> Option<(usize, u16)> {
    loop {
        match *header.get(at..)? {
            [tcp::END_OF_OPTIONS, ..] => return None,
            [tcp::NO_OPERATION, ..] => at += 1,
            [tcp::MSS, 4, high, low, ..] => return Some((at + 2, u16::from_be_bytes([high, low]))),
            [_, len, ..] if len >= 2 => at += usize::from(len),
            _ => return None,
        }
    }
}

/// The most that the listener lets be offered, whatever fits; nothing if that is not our business. A listener that is
/// gone, of a connection that is not, wants what all do unless told.
fn wanted(flow: Flow, snapshot: &Snapshot) -> Option<u16> {
    match snapshot.mss_clamp(flow.listener()) {
        _ if flow.is_dsr() => None,
        MssClamp::Off => None,
        MssClamp::Auto => Some(u16::MAX),
        MssClamp::Most(bytes) => Some(bytes),
    }
}

/// The payload of a segment without options in an IP packet of this length.
fn fits(ip_len: u16, flow: Flow) -> u16 {
    let ip_header = if flow.family() == V6 { ipv6::HEADER_LEN } else { ipv4::MIN_HEADER_LEN };
    ip_len.saturating_sub((ip_header + tcp::MIN_HEADER_LEN) as u16)
}

/// The MTU of the narrower of both ways of the connection; nothing if the packet itself does not fit its own: it is
/// answered as it came.
fn narrower(headers: &Headers, flow: Flow, direction: Direction, fib: &Fib) -> Option<u16> {
    let leaving = |direction: Direction| flow.key(direction.opposite()).mirror();
    let there = mtu(fib, &leaving(direction)).filter(|there| headers.ip_len <= *there)?;
    let back = mtu(fib, &leaving(direction.opposite())).unwrap_or(there);
    Some(there.min(back))
}

fn mtu(fib: &Fib, leaving: &FlowKey) -> Option<u16> {
    fib.mtu(leaving.destination().ip(), || flow_hash(leaving))
}

/// Writes another MSS, and what that is to the checksum. At an odd place its bytes are of two words, and what they add
/// to a sum is what they would add at an even one, with its bytes swapped (RFC 1071 §2 (B)).
fn replace(header: &mut [u8], at: usize, mss: u16) -> Option<()> {
    let field: &mut [u8; 2] = header.get_mut(at..)?.first_chunk_mut()?;
    let (before, after) = (u16::from_ne_bytes(*field), u16::from_ne_bytes(mss.to_be_bytes()));
    *field = mss.to_be_bytes();
    let delta = checksum::delta(before, after);
    update_tcp(header, if at.is_multiple_of(2) { delta } else { delta.swap_bytes() });
    Some(())
}
