//! The keyed hash of 5-tuples and clients.
//!
//! An attacker who could predict buckets could fill one and slow every flow in it, so the hash is
//! keyed by a secret of the box. Where the CPU has AES rounds, a tuple costs four of them: four
//! rounds bound every differential characteristic by 2⁻¹⁵⁰ (25 active S-boxes, Daemen and Rijmen,
//! *The Design of Rijndael*, §9.5), far below what a table of 2³² tuples could show. Elsewhere it is
//! SipHash-1-3. The two give different numbers and the same table.
//!
//! Hashing is a room of its own, so the choice is made once a burst and nothing else is built twice.

use std::hash::Hasher as _;
use std::net::{IpAddr, SocketAddr};

use siphasher::sip::SipHasher13;

use super::key::{FlowKey, V6};

/// What is hashed: one block for an IPv4 tuple, three for an IPv6 tuple, two for a client.
struct Blocks {
    words: [(u64, u64); 3],
    count: usize,
}

/// Marks the hash of a client so that it tells nothing of the hash of a tuple.
const CLIENT: u64 = 1 << 56;

/// What a hash takes of a tuple beside its addresses.
#[inline(always)]
pub(crate) fn tail(ports: u32, protocol: u8, family: u8) -> u64 {
    u64::from(ports) | u64::from(protocol) << 32 | u64::from(family) << 40
}

fn tuple_tail(key: &FlowKey) -> u64 {
    tail(key.ports, key.protocol, key.family)
}

impl Blocks {
    fn of_tuple(key: &FlowKey) -> Self {
        if key.family == V6 {
            let word = |at: usize| {
                key.wide
                    .get(at..)
                    .and_then(|w| w.first_chunk())
                    .map_or(0, |w| u64::from_ne_bytes(*w))
            };
            let words = [(word(0), word(8)), (word(16), word(24)), (0, tuple_tail(key))];
            return Self { words, count: 3 };
        }
        Self { words: [(key.addresses, tuple_tail(key)), (0, 0), (0, 0)], count: 1 }
    }

    fn of_client(client: SocketAddr) -> Self {
        let address = match client.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let halves = ((address >> 64) as u64, address as u64);
        Self { words: [halves, (u64::from(client.port()), CLIENT), (0, 0)], count: 2 }
    }
}

/// The hash of one box: its secret, and the way this CPU computes it.
#[derive(Clone)]
pub(crate) enum FlowHash {
    #[cfg(target_arch = "x86_64")]
    Aes(aes::Keys),
    Sip(SipHasher13),
}

impl FlowHash {
    /// The fastest hash that this CPU has. Detection runs once.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(keys) = aes::Keys::new(secret) {
            return Self::Aes(keys);
        }
        Self::portable(secret)
    }

    /// The hash for CPUs without AES rounds.
    pub(crate) fn portable(secret: &[u8; 32]) -> Self {
        let mut sip = SipHasher13::new_with_key(secret.first_chunk().unwrap_or(&[0; 16]));
        sip.write(secret.get(16..).unwrap_or_default());
        Self::Sip(sip)
    }

    /// The keys of the hash, where it is by AES rounds.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn aes(&self) -> Option<&aes::Keys> {
        if let Self::Aes(keys) = self { Some(keys) } else { None }
    }

    /// The hash of one tuple.
    #[inline]
    pub(crate) fn tuple(&self, key: &FlowKey) -> u64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Aes(aes) if key.family != V6 => aes.block(key.addresses, tuple_tail(key)),
            _ => self.blocks(&Blocks::of_tuple(key)),
        }
    }

    /// The hash of a client's address and L4 port, which names the owner of its flows.
    pub(crate) fn client(&self, client: SocketAddr) -> u64 {
        self.blocks(&Blocks::of_client(client))
    }

    /// The hash of an IPv4 tuple, whose words are at hand.
    #[inline]
    pub(crate) fn narrow(&self, addresses: u64, tail: u64) -> u64 {
        self.blocks(&Blocks { words: [(addresses, tail), (0, 0), (0, 0)], count: 1 })
    }

    fn blocks(&self, blocks: &Blocks) -> u64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Aes(aes) => aes.blocks(blocks),
            Self::Sip(sip) => {
                let mut sip = *sip;
                for (low, high) in blocks.words.iter().take(blocks.count) {
                    sip.write_u64(*low);
                    sip.write_u64(*high);
                }
                sip.finish()
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod aes {
    use core::arch::x86_64::{
        __m128i, _mm_aesenc_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_setzero_si128,
        _mm_xor_si128,
    };
    use std::hash::Hasher as _;

    use siphasher::sip::SipHasher13;

    use super::Blocks;

    /// Five round keys. That a value exists proves that the CPU has AES rounds.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Keys([(u64, u64); 5]);

    impl Keys {
        /// Round keys drawn from the secret, or nothing where the CPU has no AES rounds.
        pub(super) fn new(secret: &[u8; 32]) -> Option<Self> {
            if !is_x86_feature_detected!("aes") {
                return None;
            }
            let mut drawn = 0_u64;
            let mut draw = || {
                drawn += 1;
                let mut sip = SipHasher13::new_with_key(secret.first_chunk()?);
                sip.write(secret.get(16..)?);
                sip.write_u64(drawn);
                Some(sip.finish())
            };
            let mut keys = [(0, 0); 5];
            for key in &mut keys {
                *key = (draw()?, draw()?);
            }
            Some(Self(keys))
        }

        /// The hash of one block: an IPv4 tuple's.
        #[inline]
        #[expect(unsafe_code, reason = "a call across CPU features; as below")]
        pub(super) fn block(&self, low: u64, high: u64) -> u64 {
            // SAFETY: the callee needs AES rounds, and a `Keys` exists only where they were detected.
            unsafe { block(self, low, high) }
        }

        #[expect(
            unsafe_code,
            reason = "a call across CPU features; SipHash costs 25 TSC cycles a packet more"
        )]
        pub(super) fn blocks(&self, blocks: &Blocks) -> u64 {
            // SAFETY: the callee needs AES rounds, and a `Keys` exists only where they were detected.
            unsafe { digest(self, blocks) }
        }
    }

    /// The hash of a tuple's blocks: one of IPv4, three of IPv6.
    #[target_feature(enable = "aes")]
    #[inline]
    pub(crate) fn blocks<const N: usize>(aes: &Keys, blocks: [__m128i; N]) -> u64 {
        let mut state = _mm_setzero_si128();
        for block in blocks {
            state = absorb(aes, state, block);
        }
        finish(state)
    }

    #[target_feature(enable = "aes")]
    fn block(aes: &Keys, low: u64, high: u64) -> u64 {
        blocks(aes, [register((low, high))])
    }

    #[target_feature(enable = "aes")]
    fn digest(aes: &Keys, blocks: &Blocks) -> u64 {
        let mut state = _mm_setzero_si128();
        for words in blocks.words.iter().take(blocks.count) {
            state = absorb(aes, state, register(*words));
        }
        finish(state)
    }

    /// Four rounds over one block, chained as in CBC-MAC.
    #[target_feature(enable = "aes")]
    #[inline]
    fn absorb(aes: &Keys, state: __m128i, block: __m128i) -> __m128i {
        let [whitening, rounds @ ..] = aes.0.map(|words| register(words));
        let mut state = _mm_xor_si128(_mm_xor_si128(state, block), whitening);
        for key in rounds {
            state = _mm_aesenc_si128(state, key);
        }
        state
    }

    #[target_feature(enable = "aes")]
    #[inline]
    fn register((low, high): (u64, u64)) -> __m128i {
        _mm_set_epi64x(high.cast_signed(), low.cast_signed())
    }

    #[target_feature(enable = "aes")]
    #[inline]
    fn finish(state: __m128i) -> u64 {
        _mm_cvtsi128_si64(state).cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use crate::testing::Family;

    fn key(family: Family, n: u32) -> FlowKey {
        let [_, a, b, c] = n.to_be_bytes();
        let source = SocketAddr::new(family.of([10, a, b, c].into()), 4000);
        let vip = family.text("192.0.2.1:80").parse().unwrap();
        FlowKey::new(source, vip, Protocol::Tcp).unwrap()
    }

    #[test]
    fn both_hashes_spread_neighbouring_tuples_evenly_and_depend_on_the_secret() {
        let kinds = [FlowHash::new, FlowHash::portable];
        for (make, family) in
            kinds.iter().flat_map(|make| Family::BOTH.map(|family| (make, family)))
        {
            let (one, other) = (make(&[1; 32]), make(&[2; 32]));
            let mut low = [0_u32; 64];
            let mut high = [0_u32; 64];
            for n in 0..64 * 1024 {
                let hash = one.tuple(&key(family, n));
                assert_ne!(hash, other.tuple(&key(family, n)));
                low[(hash & 63) as usize] += 1;
                high[(hash >> 58) as usize] += 1;
            }
            for count in low.iter().chain(&high) {
                assert!((850..1200).contains(count), "1024 tuples a bin expected, {count} found");
            }
        }
    }

    #[test]
    fn a_tuple_whose_words_are_at_hand_hashes_as_any() {
        for hash in [FlowHash::new(&[7; 32]), FlowHash::portable(&[7; 32])] {
            for key in (0..16).map(|n| key(Family::V4, n)) {
                let tail = tail(key.ports, key.protocol, key.family);
                assert_eq!(hash.tuple(&key), hash.narrow(key.addresses, tail));
            }
        }
    }
}
