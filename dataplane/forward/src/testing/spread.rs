//! A spread with a key that nobody has seen.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use crate::spread::{Hashed, KEY_LEN, Key, Spread};

/// A spread over `workers` by this table, with a secret key that follows from `seed`.
///
/// # Panics
/// If the table cannot be one.
#[must_use]
pub fn spread(seed: u64, table: &[u8], workers: u8) -> Spread {
    let draw = |at: u64| {
        let mut sip = SipHasher13::new_with_keys(seed, at);
        sip.write_u64(at);
        sip.finish().to_be_bytes()
    };
    let keys = (0_u64..).map(|round| -> [u8; KEY_LEN] {
        let words: Vec<u8> = (0..5).flat_map(|word| draw(round * 5 + word)).collect();
        words.try_into().expect("40 bytes")
    });
    let mut spreads =
        keys.take(64).map(|key| Spread::new(&key, Key::Secret, table, workers, Hashed::ALL));
    spreads.find_map(Result::ok).unwrap_or_else(|| panic!("{table:?} for {workers} workers"))
}
