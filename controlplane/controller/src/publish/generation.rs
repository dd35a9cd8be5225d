//! Which generation a state gets.

use penstock_feed::Digest;

/// The highest generation that is known to be given, and the digest it was given to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Generations {
    pub(super) highest: u64,
    pub(super) digest: Digest,
}

impl Generations {
    /// Takes in what a data plane holds. It may be ahead of what we saved: then its word counts.
    pub(super) fn meet(&mut self, generation: u64, digest: Digest) {
        if generation >= self.highest {
            *self = Self { highest: generation, digest };
        }
    }

    /// The generation of the state with `digest`: a new one only if the state is new.
    pub(super) fn give(&mut self, digest: Digest) -> u64 {
        if digest != self.digest {
            *self = Self { highest: self.highest + 1, digest };
        }
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_raised_by_a_new_state_only() {
        let digest = |n: u128| Digest::from_bits(n);
        let mut generations = Generations { highest: 7, digest: digest(1) };
        assert_eq!(generations.give(digest(1)), 7, "the state of before the restart");
        assert_eq!(generations.give(digest(2)), 8, "a new state");
        assert_eq!(generations.give(digest(1)), 9, "an old state that comes back is new");
        generations.meet(3, digest(5));
        assert_eq!(generations.give(digest(1)), 9, "a data plane that lags behind");
        generations.meet(20, digest(6));
        assert_eq!(generations.give(digest(6)), 20, "a data plane that is ahead, with our state");
        assert_eq!(generations.give(digest(1)), 21, "and with another");
    }
}
