//! The last free slots, where a member's next one is computed and not walked to.
//!
//! A walk sees M / free slots; to see where in a permutation each free slot stands is as many steps as are
//! free. All slots before a member's last are taken, so that the first free one of all is its next.

use super::claims::Claims;
use super::{Cpu, Permutation, fraction};

/// How many are the last: about where walk and scan cost the same, 512 of 65 537 and 1618 of 655 373.
pub(super) fn count(size: usize) -> usize {
    (2 * size.isqrt()).min(size)
}

/// Serves the claims of all slots that are free.
pub(super) fn claim(
    cpu: Cpu,
    slots: &mut [u16],
    mut free: Vec<u32>,
    members: &[Permutation],
    claims: &mut Claims<'_>,
) {
    let size = slots.len() as u32;
    let mut order = Vec::with_capacity(free.len());
    while order.len() < free.len() {
        order.extend_from_slice(claims.next(free.len() - order.len()));
    }
    for (at, slot) in free.iter().enumerate() {
        slots[*slot as usize] = at as u16; // a free slot holds its place among the free
    }
    let skips: Vec<u32> = order.iter().map(|member| members[usize::from(*member)].skip).collect();
    for (member, inverse) in order.iter().zip(inverses(&skips, size)) {
        let Permutation { offset, skip } = members[usize::from(*member)];
        let place = first_place_by(cpu, &free, size - offset, fraction(inverse, size));
        let place = ((u128::from(place) * u128::from(size)) >> 64) as u64;
        let slot = (u64::from(offset) + place * u64::from(skip)) % u64::from(size);
        let at = std::mem::replace(&mut slots[slot as usize], *member);
        free.swap_remove(usize::from(at));
        if let Some(moved) = free.get(usize::from(at)) {
            slots[*moved as usize] = at;
        }
    }
}

/// Proof that the CPU has AVX-512 F and DQ, which is eight multiplications of 64 bits at once.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let detected = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq");
        detected.then_some(Self(()))
    }
}

#[cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "a call across CPU features; without, 65537 slots of 1000 members cost 0.05 ms more"
    )
)]
fn first_place_by(cpu: Cpu, free: &[u32], past_offset: u32, stride: u64) -> u64 {
    match cpu {
        // SAFETY: the callee needs AVX-512 F and DQ, and an `Avx512` exists only where they were detected.
        #[cfg(target_arch = "x86_64")]
        Cpu { avx512: Some(_), .. } => unsafe { first_place_avx512(free, past_offset, stride) },
        _ => first_place(free, past_offset, stride),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn first_place_avx512(free: &[u32], past_offset: u32, stride: u64) -> u64 {
    first_place(free, past_offset, stride)
}

/// The least place of a free slot in a permutation, as a fraction of M in 64 bits.
///
/// Slot s stands at place (s - offset) / skip modulo M, and M is prime: `stride` is the fraction of 1 / skip.
/// Rounded up, by too little to exchange two places, a fraction takes one multiplication.
#[inline(always)]
fn first_place(free: &[u32], past_offset: u32, stride: u64) -> u64 {
    let place = |slot: &u32| u64::from(slot + past_offset).wrapping_mul(stride);
    free.iter().map(place).fold(u64::MAX, u64::min)
}

/// What each of `numbers` is to be multiplied by to give 1, modulo `prime`: one division for all
/// (Montgomery, *Speeding the Pollard and elliptic curve methods of factorization*, 1987, §10.3.1).
fn inverses(numbers: &[u32], prime: u32) -> Vec<u32> {
    let times =
        |one: u32, other: u32| (u64::from(one) * u64::from(other) % u64::from(prime)) as u32;
    let mut product = 1;
    let mut inverses: Vec<u32> = Vec::with_capacity(numbers.len());
    for number in numbers {
        inverses.push(product); // of those before
        product = times(product, *number);
    }
    let mut rest = inverse(product, prime);
    for (inverse, number) in inverses.iter_mut().zip(numbers).rev() {
        *inverse = times(*inverse, rest);
        rest = times(rest, *number);
    }
    inverses
}

/// Euclid's algorithm, extended.
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
