//! A flow's hash to a backend, for flows not yet pinned.
//!
//! Maglev hashing: Eisenbud et al., NSDI 2016, §3.4. It earns its build cost with two promises, each
//! a test below: every member owns its weight's share of the slots, and when one leaves, nearly all
//! flows of the others stay where they were.
//!
//! A weighted member claims its k-th slot at time k / weight, and claims are served in order of
//! time. With equal weights that is the paper's round robin, claim by claim; with any weights, a
//! member stops at exactly its share (largest remainder), so (100, 1) is 99.01 % and 0.99 %.

#[cfg(target_arch = "x86_64")]
mod ahead;
mod claims;
mod last;
mod turns;
mod walk;

use std::net::{IpAddr, SocketAddr};

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use self::claims::Claims;
use crate::flow::{FlowKey, V6};

/// Table sizes: primes, about a factor of two apart, with the paper's two, 65 537 and 655 373.
pub const SIZES: [usize; 11] =
    [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65537, 131_071, 655_373];
/// The least size for more than one member: it serves up to 81 within 1 % of their shares. 16 KiB, so
/// that the tables of 10 000 groups take 160 MB and are built in a second or two; with the paper's 65 537
/// they would take 1.3 GB.
pub const LEAST_SIZE: usize = 8191;

/// Seeds of the two hashes that make a member's permutation, and of a flow's. Fixed for ever: they
/// are what lets two boxes with one configuration agree.
const OFFSET_SEED: u64 = 0x7065_6e73_746f_636b;
const SKIP_SEED: u64 = 0x6d61_676c_6576_2e31;
const FLOW_SEED: u64 = 0x666c_6f77_2e76_0001;

/// The most slots: what is computed of slots and weights fits in 64 bits.
const MOST_SLOTS: usize = 1 << 20;
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
    /// The permutations cover the table only if its size is prime, and we compute in 64 bits.
    #[error("Maglev table size {size} is not a prime below 2^20: choose one of {SIZES:?}")]
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
/// * Runs on a control thread, about M × ln √M steps; a worker only reads the result.
///
/// # Errors
/// No weight above zero, M not prime, or more members than M or 65 535. Then `slots` is untouched.
pub fn build(slots: &mut [u16], members: &[Weighted]) -> Result<(), MaglevError> {
    build_with(Cpu::detect(), slots, members)
}

/// What makes a build faster, where the CPU has it: the table is the same.
#[derive(Clone, Copy, Debug, Default)]
struct Cpu {
    #[cfg(target_arch = "x86_64")]
    avx2: Option<ahead::Avx2>,
    #[cfg(target_arch = "x86_64")]
    avx512: Option<last::Avx512>,
}

impl Cpu {
    fn detect() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            avx2: ahead::Avx2::detect(),
            #[cfg(target_arch = "x86_64")]
            avx512: last::Avx512::detect(),
        }
    }
}

fn build_with(cpu: Cpu, slots: &mut [u16], members: &[Weighted]) -> Result<(), MaglevError> {
    let size = slots.len();
    if size > MOST_SLOTS || !is_prime(size) {
        return Err(MaglevError::SizeNotPrime { size });
    }
    if members.len() > size.min(MOST_MEMBERS) {
        return Err(MaglevError::TooManyMembers { members: members.len(), size });
    }
    let shares = claims::shares(size, members)
        .ok_or(MaglevError::NobodyHasWeight { members: members.len() })?;
    let sorted = claims::by_weight(members);
    let mut claims = Claims::new(&sorted, members, &shares);
    let round = shares.iter().max().map_or(0, |most| size / *most as usize);
    let members: Vec<Permutation> =
        members.iter().map(|member| Permutation::new(member, size)).collect();
    let count = size - last::count(size);
    let free = match cpu {
        #[cfg(target_arch = "x86_64")]
        Cpu { avx2: Some(avx2), .. } if round >= AHEAD => {
            avx2.claim(slots, &members, &mut claims, count, round)
        }
        _ => walk::claim(slots, &members, &mut claims, count),
    };
    last::claim(cpu, slots, free, &members, &mut claims);
    Ok(())
}

/// To look ahead pays where in so many claims nobody claims twice, on average.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 64;

/// The order in which a member likes slots best: offset, offset + skip, … modulo M.
#[derive(Clone, Copy, Debug)]
struct Permutation {
    offset: u32,
    /// At least 1, less than M.
    skip: u32,
}

impl Permutation {
    fn new(member: &Weighted, size: usize) -> Self {
        let offset = (member.offset % size as u64) as u32;
        let skip = (member.skip % (size as u64 - 1)) as u32 + 1;
        Self { offset, skip }
    }
}

/// `slots` / `size`, in units of 2⁻⁶⁴ and rounded up, of less slots than the size.
fn fraction(slots: u32, size: u32) -> u64 {
    let (slots, size) = (u64::from(slots), u64::from(size));
    let (unit, rest) = (u64::MAX / size, u64::MAX % size + 1); // 2⁶⁴ / size; a prime does not divide it
    slots * unit + slots * rest / size + 1
}

fn is_prime(n: usize) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

/// The table size for a number of members: the least that leaves each a hundred slots, but not less
/// than [`LEAST_SIZE`], except where one member needs no table to speak of.
///
/// `current` is the size in use, if any. A change of size moves most flows that are not pinned, so
/// a table grows only when it must and shrinks only when half its members would still be too few.
#[must_use]
pub fn size_for(members: usize, current: Option<usize>) -> usize {
    let least = |members: usize| {
        let wanted = SIZES.iter().copied().find(|size| *size >= members.saturating_mul(100));
        wanted.unwrap_or(SIZES[SIZES.len() - 1]).max(LEAST_SIZE)
    };
    match current {
        _ if members <= 1 => SIZES[0],
        Some(current) if current >= LEAST_SIZE && least(members) < current => {
            if least(members.saturating_mul(2)) < current { least(members) } else { current }
        }
        _ => least(members),
    }
}

/// A digest of a table, equal on every box that built it from the same members: XXH3 of its slots, two bytes
/// each, the lower first. Costs 10 µs for 65 537 slots.
#[must_use]
pub fn digest(slots: &[u16]) -> u64 {
    let mut hash = Xxh3::new();
    let mut bytes = [0; 2048];
    for slots in slots.chunks(bytes.len() / 2) {
        let (pairs, _) = bytes.as_chunks_mut();
        for (pair, slot) in pairs.iter_mut().zip(slots) {
            *pair = slot.to_le_bytes();
        }
        hash.update(&bytes[..2 * slots.len()]);
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
