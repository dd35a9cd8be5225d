//! One number for a whole state, kept up to date at the cost of what changed.
//!
//! Each object and each member has a hash of its own: XXH3-128 over the body of its record, seeded
//! with the record's kind. A [`Digest`] is their sum modulo 2¹²⁸, so order does not matter and an
//! object is added or taken out without looking at the rest. Both ends keep it, and a transaction
//! commits only if they agree.
//!
//! It finds accidents (a lost record, a bug in a diff, a damaged file), not forgeries: XXH3 is not
//! keyed. A peer that may write to the feed can say what it wants without forging anything.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::record::Kind;

/// The digest of a [`crate::State`]; that of the empty state is [`Digest::EMPTY`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u128);

impl Digest {
    /// The digest of a state without objects.
    pub const EMPTY: Digest = Digest(0);

    /// The digest with this number, as one end told the other.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The number.
    pub const fn to_bits(self) -> u128 {
        self.0
    }

    /// Takes one object in.
    pub(crate) fn add(&mut self, kind: Kind, body: &[u8]) {
        self.0 = self.0.wrapping_add(object_hash(kind, body));
    }

    /// Takes one object out that was in.
    pub(crate) fn subtract(&mut self, kind: Kind, body: &[u8]) {
        self.0 = self.0.wrapping_sub(object_hash(kind, body));
    }
}

fn object_hash(kind: Kind, body: &[u8]) -> u128 {
    xxh3_128_with_seed(body, u64::from(kind as u8))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}
