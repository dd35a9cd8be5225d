//! The Internet checksum, in full (RFC 1071) and by increments (RFC 1624).
//!
//! One's complement addition does not care about byte order, as long as it is the same throughout
//! (RFC 1071 §2 (B)): all words here are 16 bits as they lie in memory.

use crate::flow::{FlowKey, V6};

/// What one hop less adds to a header checksum: the TTL is the high byte of its word.
pub(crate) const ONE_HOP: u16 = u16::from_ne_bytes([0xfe, 0xff]);

/// The one's complement sum of `bytes`, not complemented; an odd last byte counts as a high byte.
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    let (words, last) = bytes.as_chunks::<2>();
    let mut sum = 0_u64;
    for word in words {
        sum += u64::from(u16::from_ne_bytes(*word));
    }
    if let [last] = last {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    fold_wide(sum)
}

/// Whether the checksum of an IPv4 header without options is right.
///
/// The one's complement sum of 16-bit words is the number they make modulo 2¹⁶ - 1, since 2¹⁶ is 1
/// there, as are 2⁶⁴ and so every carry out of 64 bits. Right means a sum of 0xffff, which is 0.
#[inline]
#[must_use]
pub(crate) fn header_is_right(header: &[u8; 20]) -> bool {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t] = *header;
    let (sum, carry) = u64::from_ne_bytes([a, b, c, d, e, f, g, h])
        .overflowing_add(u64::from_ne_bytes([i, j, k, l, m, n, o, p]));
    let last = u64::from(u32::from_ne_bytes([q, r, s, t])) + u64::from(carry);
    let (sum, carry) = sum.overflowing_add(last);
    (sum + u64::from(carry)).is_multiple_of(0xffff)
}

#[inline]
const fn fold_wide(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum field after its data changed by `delta`: RFC 1624 equation 3, `~(~HC + ~m + m')`.
///
/// Unlike RFC 1141's it never turns a right checksum into a negative zero.
#[inline]
#[must_use]
pub const fn update(checksum: u16, delta: u16) -> u16 {
    !add(!checksum, delta)
}

/// The one's complement sum of two words.
#[inline(always)]
pub(crate) const fn add(one: u16, other: u16) -> u16 {
    let (sum, carry) = one.overflowing_add(other);
    sum + carry as u16 // a sum that carried is not the largest
}

/// `~m + m'` of two sums.
#[must_use]
pub(crate) const fn delta(before: u16, after: u16) -> u16 {
    fold_wide(!before as u64 + after as u64)
}

/// The sum of all words of some values.
#[inline]
pub(crate) fn sum_of_words<const COUNT: usize>(values: [u64; COUNT]) -> u16 {
    fold_wide(values.into_iter().map(words).sum())
}

/// The sum of the words of a value, not folded yet.
#[inline]
const fn words(value: u64) -> u64 {
    (value & 0xffff_ffff) + (value >> 32) // words of 32 bits are as good, as 2¹⁶ is 1 here
}

/// `~m + m'` over the words of two values, not folded yet.
#[inline]
const fn words_delta(before: u64, after: u64) -> u64 {
    words(!before) + words(after)
}

/// `~m + m'` over the addresses that a rewrite from `before` to `after` changes, not folded yet.
#[inline]
fn address_delta(before: &FlowKey, after: &FlowKey) -> u64 {
    if before.family == V6 {
        return u64::from(sum(&before.wide.map(|byte| !byte))) + u64::from(sum(&after.wide));
    }
    words_delta(before.addresses, after.addresses)
}

/// What the rewrite of `before` to `after` adds to an IPv4 header checksum: two addresses.
#[must_use]
pub(crate) fn header_delta(before: &FlowKey, after: &FlowKey) -> u16 {
    fold_wide(address_delta(before, after))
}

/// What the rewrites of a flow add, which arrives as `forward` and whose replies arrive as `reply`: to an IPv4 header
/// checksum by direction, the hop included, and to the L4 checksum of the client's packets.
#[inline]
pub(crate) fn deltas(forward: &FlowKey, reply: &FlowKey) -> ([u16; 2], u16) {
    // That what leaves is the mirror image of a reply does not change a sum.
    let addresses = address_delta(forward, reply);
    let ports = words_delta(u64::from(forward.ports), u64::from(reply.ports));
    let header = fold_wide(addresses);
    let headers = [add(header, ONE_HOP), add(in_direction(header, 1), ONE_HOP)];
    (headers, fold_wide(addresses + ports))
}

/// A delta of the client's packets, for packets that go `direction`: a reply is rewritten the other way, from
/// what the client's become to what they were, and in one's complement the negative is the complement.
#[inline(always)]
#[must_use]
pub(crate) const fn in_direction(delta: u16, way: usize) -> u16 {
    delta ^ (way as u16).wrapping_neg()
}

/// What the rewrite of `before` to `after` adds to a TCP or UDP checksum: the addresses of the
/// pseudo-header and the L4 ports.
#[must_use]
pub(crate) fn l4_delta(before: &FlowKey, after: &FlowKey) -> u16 {
    let ports = words_delta(u64::from(before.ports), u64::from(after.ports));
    fold_wide(address_delta(before, after) + ports)
}

/// The checksum of a TCP or UDP segment, computed in full; the checksum field must be zero. The
/// addresses are source and destination, and the pseudo-header's other words are the same for IPv4
/// (RFC 9293 §3.1) as for IPv6 (RFC 8200 §8.1), though not in the same order.
#[must_use]
pub fn l4(addresses: &[u8], protocol: u8, segment: &[u8]) -> u16 {
    let len = segment.len() as u16;
    let pseudo = u64::from(sum(addresses))
        + u64::from(u16::from_ne_bytes([0, protocol]))
        + u64::from(u16::from_ne_bytes(len.to_be_bytes()));
    !fold_wide(pseudo + u64::from(sum(segment)))
}
