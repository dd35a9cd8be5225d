//! A flow's hash to a backend, for flows not yet pinned.
//!
//! Maglev hashing: Eisenbud et al., NSDI 2016, §3.4. It earns its build cost with two promises, each
//! a test below: every member owns its weight's share of the slots, and when one leaves, nearly all
//! flows of the others stay where they were.
//!
//! A weighted member claims its k-th slot at time k / weight, and claims are served in order of
//! time. With equal weights that is the paper's round robin, claim by claim; with any weights, a
//! member stops at exactly its share (largest remainder), so (100, 1) is 99.01 % and 0.99 %.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::flow::{FlowKey, V6};

/// Table sizes: primes, about a factor of two apart, with the paper's two, 65 537 and 655 373.
pub const SIZES: [usize; 11] =
    [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65537, 131_071, 655_373];
/// The size that serves up to 655 members within 1 % of their shares: 128 KiB.
pub const DEFAULT_SIZE: usize = 65537;

/// Seeds of the two hashes that make a member's permutation, and of a flow's. Fixed for ever: they
/// are what lets two boxes with one configuration agree.
const OFFSET_SEED: u64 = 0x7065_6e73_746f_636b;
const SKIP_SEED: u64 = 0x6d61_676c_6576_2e31;
const FLOW_SEED: u64 = 0x666c_6f77_2e76_0001;

/// The most members a table can tell apart.
const MOST_MEMBERS: usize = u16::MAX as usize;

/// One who owns a share of the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighted {
    /// Where its permutation begins, modulo the table size.
    pub offset: u64,
    /// Its stride less one, modulo the table size less one.
    pub skip: u64,
    /// Its share, in proportion to the sum of all. 0: none.
    pub weight: u32,
}

impl Weighted {
    /// A member known by its address: equal addresses have equal permutations on every box.
    #[must_use]
    pub fn backend(address: SocketAddr, weight: u32) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let mut identity = [0; 18];
        identity[..16].copy_from_slice(&ip);
        identity[16..].copy_from_slice(&address.port().to_be_bytes());
        Self::identified(&identity, weight)
    }

    /// The member that stands for the share of flows to refuse.
    #[must_use]
    pub fn refused(weight: u32) -> Self {
        Self::identified(b"refused", weight)
    }

    fn identified(identity: &[u8], weight: u32) -> Self {
        let offset = xxh3_64_with_seed(identity, OFFSET_SEED);
        let skip = xxh3_64_with_seed(identity, SKIP_SEED);
        Self { offset, skip, weight }
    }
}

/// Why a table cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaglevError {
    /// No weight is above zero.
    #[error("none of {members} members has a weight above zero")]
    NobodyHasWeight {
        /// Members given.
        members: usize,
    },
    /// The permutations cover the table only if its size is prime.
    #[error("Maglev table size {size} is not prime: choose one of {SIZES:?}")]
    SizeNotPrime {
        /// Slots given.
        size: usize,
    },
    /// Members with weight, at most one a slot and 65 535 in all.
    #[error("{members} members in {size} slots: at most one member a slot, and 65535 in all")]
    TooManyMembers {
        /// Members given.
        members: usize,
        /// Slots given.
        size: usize,
    },
}

/// Fills `slots` so that `slots[`[`slot_of`]`(hash, slots.len())]` is the index in `members` of a flow's backend.
///
/// * `slots`: M entries, M prime, at least 100 × the members, so that equal shares differ by
///   about 1 %.
/// * `members`: in canonical order (sorted by address; the refused share last). Equal input gives an
///   equal table on every box, which is what lets a router's ECMP move a flow from one of us to
///   another.
/// * Runs on a control thread, about M × ln (M / 512) steps; a worker only reads the result.
///
/// # Errors
/// No weight above zero, M not prime, or more members than M or 65 535. Then `slots` is untouched.
pub fn build(slots: &mut [u16], members: &[Weighted]) -> Result<(), MaglevError> {
    let size = slots.len();
    if !is_prime(size) {
        return Err(MaglevError::SizeNotPrime { size });
    }
    if members.len() > size.min(MOST_MEMBERS) {
        return Err(MaglevError::TooManyMembers { members: members.len(), size });
    }
    let shares =
        shares(size, members).ok_or(MaglevError::NobodyHasWeight { members: members.len() })?;
    let order = claims(&shares, members);
    let mut walks: Vec<Walk> = members.iter().map(|member| Walk::new(member, size)).collect();
    let (at_once, at_last) = order.split_at(size.saturating_sub(LAST_FREE));
    let mut free = Free::all(size);
    for member in at_once {
        let slot = walks[usize::from(*member)].next_free(&free);
        free.take(slot);
        slots[slot] = *member;
    }
    let mut last = Last::of(&free, size);
    for member in at_last {
        slots[last.take_first(&walks[usize::from(*member)])] = *member;
    }
    Ok(())
}

/// The members in the order of their claims. Members of one weight claim in turns, so that turns are sorted
/// and not claims: of a thousand equal members there are 66, and of unequal ones as many as slots.
fn claims(shares: &[usize], members: &[Weighted]) -> Vec<u16> {
    let mut by_weight: BTreeMap<u32, Vec<u16>> = BTreeMap::new();
    for (member, weighted) in (0_u16..).zip(members).filter(|(_, weighted)| weighted.weight > 0) {
        by_weight.entry(weighted.weight).or_default().push(member);
    }
    let by_weight: Vec<(u32, Vec<u16>)> = by_weight.into_iter().collect();
    let share = |member: &u16| shares[usize::from(*member)];
    let turns_of = |(group, (weight, members)): (usize, &(u32, Vec<u16>))| {
        let (weight, last) = (*weight, members.iter().map(share).max().unwrap_or(0));
        (1..=last).map(move |number| Turn::new(number, weight, group))
    };
    let mut turns: Vec<Turn> = by_weight.iter().enumerate().flat_map(turns_of).collect();
    turns.sort_unstable_by_key(|turn| turn.time);
    let mut order = Vec::with_capacity(shares.iter().sum());
    for at_once in turns.chunk_by(|one, other| one.time == other.time) {
        let begin = order.len();
        for turn in at_once {
            let (_, members) = &by_weight[turn.group];
            order.extend(members.iter().filter(|member| share(member) >= turn.number));
        }
        if at_once.len() > 1 {
            order[begin..].sort(); // runs in order, which this sort merges
        }
    }
    order
}

/// The `number`-th claim of all members of a weight.
struct Turn {
    /// The bits of `number / weight`, which for positive numbers are in their order. Equal quotients round
    /// alike on every box (IEEE 754 §4.3); of two that differ only beyond 53 bits, the order is of members.
    time: u64,
    number: usize,
    /// Which members: those of the `group`-th weight.
    group: usize,
}

impl Turn {
    fn new(number: usize, weight: u32, group: usize) -> Self {
        Self { time: (number as f64 / f64::from(weight)).to_bits(), number, group }
    }
}

/// A member's way through its permutation: offset, offset + skip, … modulo M.
#[derive(Clone, Copy, Debug)]
struct Walk {
    offset: u32,
    skip: u32,
    at: u32,
}

impl Walk {
    fn new(member: &Weighted, size: usize) -> Self {
        let offset = (member.offset % size as u64) as u32;
        let skip = if size > 1 { (member.skip % (size as u64 - 1)) as u32 + 1 } else { 1 };
        Self { offset, skip, at: offset }
    }

    /// The next slot of the permutation that is free. There is one: claims add up to M.
    #[inline]
    fn next_free(&mut self, free: &Free) -> usize {
        loop {
            let slot = self.at;
            let next = slot + self.skip; // both are below M, which is far from 2³¹
            self.at = next - if next >= free.size { free.size } else { 0 };
            if free.has(slot) {
                return slot as usize;
            }
        }
    }
}

/// The free slots, a bit each: 8 KiB for 65 537, which stay in the first cache.
struct Free {
    size: u32,
    bits: Vec<u64>,
}

impl Free {
    fn all(size: usize) -> Self {
        let mut bits = vec![u64::MAX; size / 64 + 1];
        bits[size / 64] = (1 << (size % 64)) - 1;
        Self { size: size as u32, bits }
    }

    #[inline]
    fn has(&self, slot: u32) -> bool {
        self.bits[(slot / 64) as usize] >> (slot % 64) & 1 == 1
    }

    #[inline]
    fn take(&mut self, slot: usize) {
        self.bits[slot / 64] &= !(1 << (slot % 64));
    }
}

/// When so few slots are free, a member's next one is computed instead of walked to: a walk takes M / free
/// steps, to see where in the permutation each free slot stands takes as many as are free.
const LAST_FREE: usize = 512;

/// The last free slots.
struct Last {
    size: u32,
    slots: Vec<u32>,
}

impl Last {
    fn of(free: &Free, size: usize) -> Self {
        let slots = (0..size as u32).filter(|slot| free.has(*slot)).collect();
        Self { size: size as u32, slots }
    }

    /// The free slot that stands first in the permutation of `walk`, free no more.
    ///
    /// Slot s stands at place (s - offset) / skip modulo M, and M is prime. Before the member's last slot all
    /// are taken, so the first of all is the next. Places are compared as fractions of M in 64 bits, which
    /// takes one multiplication: rounded up, by too little to exchange two places.
    fn take_first(&mut self, walk: &Walk) -> usize {
        let (size, offset) = (u64::from(self.size), u64::from(walk.offset));
        let step = (u128::from(inverse(walk.skip, self.size)) << 64) / u128::from(size) + 1;
        let place = |slot: u32| (u64::from(slot) + size - offset).wrapping_mul(step as u64);
        let (mut first, mut least) = (0, u64::MAX);
        for (at, slot) in self.slots.iter().enumerate() {
            if place(*slot) < least {
                (first, least) = (at, place(*slot));
            }
        }
        self.slots.swap_remove(first) as usize
    }
}

/// What `number` is to be multiplied by to give 1, modulo `prime`: Euclid's algorithm, extended.
fn inverse(number: u32, prime: u32) -> u32 {
    let (mut rest, mut next) = (prime, number);
    let (mut factor, mut next_factor) = (0_i64, 1_i64);
    while next != 0 {
        let times = rest / next;
        (rest, next) = (next, rest - times * next);
        (factor, next_factor) = (next_factor, factor - i64::from(times) * next_factor);
    }
    factor.rem_euclid(prime.into()) as u32
}

/// How many slots each member gets: its exact share rounded down, and what is left over to the
/// largest remainders, the first in order where they are equal. `None` if all weights are zero.
fn shares(size: usize, members: &[Weighted]) -> Option<Vec<usize>> {
    let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    if total == 0 {
        return None;
    }
    let exact = members.iter().map(|member| size as u128 * u128::from(member.weight));
    let (mut shares, remainders): (Vec<usize>, Vec<u128>) = exact
        .map(|slots| {
            let whole = (slots / u128::from(total)) as usize;
            (whole, slots % u128::from(total))
        })
        .unzip();
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|member| Reverse(remainders[*member]));
    let left_over = size - shares.iter().sum::<usize>();
    for member in order.into_iter().take(left_over) {
        shares[member] += 1;
    }
    Some(shares)
}

fn is_prime(n: usize) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

/// The table size for a number of members: the least that leaves each a hundred slots, but not less
/// than [`DEFAULT_SIZE`], except where one member needs no table to speak of.
///
/// `current` is the size in use, if any. A change of size moves most flows that are not pinned, so
/// a table grows only when it must and shrinks only when half its members would still be too few.
#[must_use]
pub fn size_for(members: usize, current: Option<usize>) -> usize {
    let least = |members: usize| {
        let wanted = SIZES.iter().copied().find(|size| *size >= members.saturating_mul(100));
        wanted.unwrap_or(SIZES[SIZES.len() - 1]).max(DEFAULT_SIZE)
    };
    match current {
        _ if members <= 1 => SIZES[0],
        Some(current) if current >= DEFAULT_SIZE && least(members) < current => {
            if least(members.saturating_mul(2)) < current { least(members) } else { current }
        }
        _ => least(members),
    }
}

/// A digest of a table, equal on every box that built it from the same members.
#[must_use]
pub fn digest(slots: &[u16]) -> u64 {
    let mut hash = Xxh3::new();
    for slot in slots {
        hash.update(&slot.to_le_bytes());
    }
    hash.digest()
}

/// The slot of a flow's hash: as far into the table as the hash is into its range.
#[inline]
#[must_use]
pub fn slot_of(hash: u64, slots: usize) -> usize {
    ((u128::from(hash) * slots as u128) >> 64) as usize
}

/// The hash by which a flow picks its slot: a fixed function of the 5-tuple, the same on every box.
#[must_use]
pub fn flow_hash(key: &FlowKey) -> u64 {
    // Words of eight bytes, as they are read again.
    let ports = u32::from_le_bytes(key.ports.to_ne_bytes());
    let head = u64::from(ports) | u64::from(key.protocol) << 32 | u64::from(key.family) << 40;
    if key.family == V6 {
        let [a, b, c, d]: [[u8; 8]; 4] = zerocopy::transmute!(key.wide);
        let words = [head.to_le_bytes(), a, b, c, d];
        return xxh3_64_with_seed(words.as_flattened(), FLOW_SEED);
    }
    let words = [head.to_le_bytes(), key.addresses.to_ne_bytes()];
    xxh3_64_with_seed(words.as_flattened(), FLOW_SEED)
}

#[cfg(test)]
mod tests;
