//! Where a search for a free L4 port begins: xorshift64*, seeded from the secret (Vigna, *An
//! experimental exploration of Marsaglia's xorshift generators*, 2016). Not for keys.

/// One worker's stream of numbers.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1) // zero would stay zero
    }

    /// A number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        u32::try_from((drawn * u64::from(bound)) >> 32).unwrap_or(0)
    }
}
