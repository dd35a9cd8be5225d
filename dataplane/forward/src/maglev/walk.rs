//! Members take slots one claim after the other, each walking through its permutation.
//!
//! A walk sees M / free slots, and no CPU can predict where it ends. So it looks at a few places at once and
//! chooses among them without a branch: 0.54 instead of 0.69 ms for 65 537 slots and a thousand members.
//!
//! A place is a fraction of M in 64 bits, so that going on is an addition, and modulo M is what overflows.
//! Which slots are taken is kept by the leading bits of these fractions, in *cells*.

use std::hint::select_unpredictable;

use super::Permutation;
use super::claims::Claims;

/// No member's index: a free slot.
const NOBODY: u16 = u16::MAX;

/// Serves so many claims of slots that are all free, and returns those that stay so.
pub(super) fn claim(
    slots: &mut [u16],
    members: &[Permutation],
    claims: &mut Claims<'_>,
    count: usize,
) -> Vec<u32> {
    slots.fill(NOBODY);
    if slots.len() <= 1 << 17 {
        Walks::<2048>::new(slots.len(), members).claim(slots, claims, count);
    } else {
        Walks::<16384>::new(slots.len(), members).claim(slots, claims, count);
    }
    free(slots)
}

/// The free slots, without a branch for each, which would be guessed wrong for each.
fn free(slots: &[u16]) -> Vec<u32> {
    let mut free = Vec::new();
    for (block, begin) in slots.chunks(32).zip((0..).step_by(32)) {
        let many = block.iter().fold(0, |many, member| many + u16::from(*member == NOBODY));
        if many > 0 {
            let (mut found, mut count) = ([0_u32; 32], 0);
            for (slot, member) in (begin..).zip(block) {
                found[count % 32] = slot;
                count += usize::from(*member == NOBODY);
            }
            free.extend_from_slice(&found[..count]);
        }
    }
    free
}

/// Claims between two looks at how much is free.
const CLAIMS: usize = 256;

/// All members on their way. There are 64 × `WORDS` cells, at least as many as slots and at most 2²⁰, so that
/// a cell has one slot at most: 16 KiB for 65 537, which stay in the first cache.
struct Walks<const WORDS: usize> {
    taken: Box<[u64; WORDS]>,
    members: Vec<Walk>,
}

/// Where a member looks next, and its stride, as fractions of M in units of 2⁻⁶⁴.
///
/// A stride is rounded up by less than one unit, so that after M strides a place is off by less than 2²⁰. That
/// is not enough to leave its cell: the distance to the next is a multiple of 1 / M of a cell, 2²⁴ units.
struct Walk {
    at: u64,
    stride: u64,
}

impl<const WORDS: usize> Walks<WORDS> {
    const CELL_BITS: u32 = WORDS.ilog2() + u64::BITS.ilog2();

    fn new(size: usize, members: &[Permutation]) -> Self {
        let fraction = |slots: u32| super::fraction(slots, size as u32);
        let walk = |member: &Permutation| Walk {
            at: fraction(member.offset),
            stride: fraction(member.skip),
        };
        Self { taken: Box::new([0; WORDS]), members: members.iter().map(walk).collect() }
    }

    /// How many places to look at is what was measured to be best, on Zen 4: less than is needed for most
    /// claims, for a wrong guess costs as much as ten places; and one when a guess is wrong in any case.
    fn claim(&mut self, slots: &mut [u16], claims: &mut Claims<'_>, count: usize) {
        let mut served = 0;
        while served < count {
            let claims = claims.next(CLAIMS.min(count - served));
            match (slots.len() - served) * 100 / slots.len() {
                92.. => self.look_at::<1>(slots, claims),
                73.. => self.look_at::<2>(slots, claims),
                55.. => self.look_at::<3>(slots, claims),
                40.. => self.look_at::<4>(slots, claims),
                18.. => self.look_at::<6>(slots, claims),
                _ => self.look_at::<1>(slots, claims),
            }
            served += claims.len();
        }
    }

    #[inline(never)] // each has the registers it needs
    fn look_at<const PLACES: usize>(&mut self, slots: &mut [u16], claims: &[u16]) {
        let size = slots.len() as u128;
        for member in claims {
            let Walk { mut at, stride } = self.members[usize::from(*member)];
            loop {
                let end = at.wrapping_add(stride.wrapping_mul(PLACES as u64));
                (at, _) = (0..PLACES).fold((end, end), |(found, place), _| {
                    let place = place.wrapping_sub(stride);
                    (select_unpredictable(self.is_taken(place), found, place), place)
                });
                if at != end {
                    break;
                }
            }
            self.take(at);
            slots[((u128::from(at) * size) >> 64) as usize] = *member;
            self.members[usize::from(*member)].at = at.wrapping_add(stride);
        }
    }

    #[inline]
    fn is_taken(&self, place: u64) -> bool {
        let cell = place >> (64 - Self::CELL_BITS);
        self.taken[(cell / 64) as usize % WORDS] >> (cell % 64) & 1 != 0
    }

    #[inline]
    fn take(&mut self, place: u64) {
        let cell = place >> (64 - Self::CELL_BITS);
        self.taken[(cell / 64) as usize % WORDS] |= 1 << (cell % 64);
    }
}
