//! How long to wait before the next try: longer each time, and never as long as one's neighbour.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Pauses that double from `first` to `most`, each shortened at random by up to half, so that many who lost the
/// same server do not come back at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins with `first` and ends with `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = jitter(self.next);
        self.next = (self.next * 2).min(self.most);
        pause
    }

    /// It went well: the next pause is a short one.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// `whole`, shortened at random by up to half.
#[must_use]
pub fn jitter(whole: Duration) -> Duration {
    // Every RandomState is keyed at random: enough to spread retries, and no crate.
    let random = RandomState::new().build_hasher().finish();
    let share = (random % 1024) as u32;
    whole / 2 + whole / 2 * share / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_most_and_are_shortened_by_half_at_most() {
        let (first, most) = (Duration::from_millis(200), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, most);
        for whole in [200, 400, 800, 1000, 1000] {
            let pause = backoff.pause();
            let whole = Duration::from_millis(whole);
            assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= first);
        let pauses: std::collections::BTreeSet<_> = (0..64).map(|_| jitter(most)).collect();
        assert!(pauses.len() > 32, "they spread");
    }
}
