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
use std::collections::BinaryHeap;
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

/// A slot that no member owns; only in a table of nobody.
const EMPTY: u16 = u16::MAX;

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

/// Fills `slots` so that `slots[hash % slots.len()]` is the index in `members` of a flow's backend.
///
/// * `slots`: M entries, M prime, at least 100 × the members, so that equal shares differ by
///   about 1 %.
/// * `members`: in canonical order (sorted by address; the refused share last). Equal input gives an
///   equal table on every box, which is what lets a router's ECMP move a flow from one of us to
///   another.
/// * Runs on a control thread, O(M log N) and about M × ln M probes; a worker only reads the result.
///
/// # Errors
/// No weight above zero, M not prime, or more members than M or 65 535. Then `slots` is untouched.
pub fn build(slots: &mut [u16], members: &[Weighted]) -> Result<(), MaglevError> {
    let size = slots.len();
    if !is_prime(size) {
        return Err(MaglevError::SizeNotPrime { size });
    }
    if members.len() > size.min(usize::from(EMPTY)) {
        return Err(MaglevError::TooManyMembers { members: members.len(), size });
    }
    let shares =
        shares(size, members).ok_or(MaglevError::NobodyHasWeight { members: members.len() })?;
    slots.fill(EMPTY);
    let mut walks: Vec<Walk> = members.iter().map(|member| Walk::new(member, size)).collect();
    let mut claims: BinaryHeap<Reverse<Claim>> = (0_u16..)
        .zip(members)
        .filter(|(member, _)| shares[usize::from(*member)] > 0)
        .map(|(member, weighted)| Reverse(Claim { number: 1, weight: weighted.weight, member }))
        .collect();
    while let Some(Reverse(claim)) = claims.pop() {
        let slot = walks[usize::from(claim.member)].next_free(slots);
        slots[slot] = claim.member;
        if claim.number < shares[usize::from(claim.member)] {
            claims.push(Reverse(Claim { number: claim.number + 1, ..claim }));
        }
    }
    Ok(())
}

/// The `number`-th claim of a member, at time `number / weight`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Claim {
    number: usize,
    weight: u32,
    member: u16,
}

impl Ord for Claim {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (ours, theirs) = (
            self.number as u64 * u64::from(other.weight),
            other.number as u64 * u64::from(self.weight),
        );
        ours.cmp(&theirs).then(self.member.cmp(&other.member))
    }
}

impl PartialOrd for Claim {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A member's way through its permutation: offset, offset + skip, … modulo M.
struct Walk {
    at: usize,
    skip: usize,
}

impl Walk {
    fn new(member: &Weighted, size: usize) -> Self {
        let at = (member.offset % size as u64) as usize;
        let skip = if size > 1 { (member.skip % (size as u64 - 1)) as usize + 1 } else { 1 };
        Self { at, skip }
    }

    /// The next slot of the permutation that is free. There is one: claims add up to M.
    fn next_free(&mut self, slots: &[u16]) -> usize {
        loop {
            let slot = self.at;
            self.at = (self.at + self.skip) % slots.len();
            if slots[slot] == EMPTY {
                return slot;
            }
        }
    }
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

/// The hash by which a flow picks its slot: a fixed function of the 5-tuple, the same on every box.
#[must_use]
pub fn flow_hash(key: &FlowKey) -> u64 {
    let mut bytes = [0; 38];
    let [protocol, family, rest @ ..] = &mut bytes;
    (*protocol, *family) = (key.protocol, key.family);
    rest[..4].copy_from_slice(&key.ports.to_ne_bytes());
    if key.family == V6 {
        rest[4..].copy_from_slice(&key.wide);
        return xxh3_64_with_seed(&bytes, FLOW_SEED);
    }
    rest[4..12].copy_from_slice(&key.addresses.to_ne_bytes());
    xxh3_64_with_seed(&bytes[..14], FLOW_SEED)
}

#[cfg(test)]
mod tests;
