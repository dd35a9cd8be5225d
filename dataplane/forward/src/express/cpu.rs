//! What the turns ask of a CPU: the hash of an IPv4 tuple, and which entries of a bucket have a tag.
//!
//! The lane is built once for each kind of CPU, all of it, so that its inner functions are inlined and use what
//! that kind has; a worker chooses once, at start.

use super::{Way, express};
use crate::Burst;
use crate::flow::V4;
use crate::flow::hash::{FlowHash, tail};
use crate::flow::table::{self, Bucket};
use crate::journey::{PacketSet, Walk};
use crate::parse::plain::{Head, HeadV4, HeadV6};

/// A kind of CPU.
pub(super) trait Cpu: Copy {
    /// The hash of a packet's tuple.
    fn hash_v4(self, head: &HeadV4) -> u64;

    /// The hash of a packet's tuple.
    fn hash_v6(self, head: &HeadV6) -> u64;

    /// A bit for each entry of `bucket` with `tag`.
    fn tagged(self, bucket: &Bucket, tag: u16) -> u32;
}

/// Any CPU.
#[derive(Clone, Copy)]
struct Portable<'h>(&'h FlowHash);

impl Cpu for Portable<'_> {
    #[inline(always)]
    fn hash_v4(self, head: &HeadV4) -> u64 {
        self.0.narrow(head.addresses(), tail(head.l4().ports(), head.protocol(), V4))
    }

    #[inline(always)]
    fn hash_v6(self, head: &HeadV6) -> u64 {
        self.0.tuple(&head.key())
    }

    #[inline(always)]
    fn tagged(self, bucket: &Bucket, tag: u16) -> u32 {
        table::tag_matches(bucket, tag)
    }
}

/// The lane built for the best kind of CPU that this one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// None: every packet takes the corridor.
    #[cfg(any(test, feature = "test-support"))]
    Closed,
    /// For any CPU.
    Portable,
    /// AVX2, and AES rounds.
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    /// AVX-512, and AES rounds.
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
}

impl Lane {
    /// The lanes that this CPU can take, the best last.
    pub(crate) fn available(hash: &FlowHash) -> Vec<Self> {
        let mut lanes = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        if let Some(keys) = hash.aes() {
            lanes.extend(x86::Avx2::detect(*keys).map(Self::Avx2));
            lanes.extend(x86::Avx512::detect(*keys).map(Self::Avx512));
        }
        lanes
    }

    /// The name shown to people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            #[cfg(any(test, feature = "test-support"))]
            Self::Closed => "closed",
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }

    #[inline]
    pub(crate) fn run(self, burst: &mut Burst, walk: &mut Walk, way: Way) -> PacketSet {
        match self {
            #[cfg(any(test, feature = "test-support"))]
            Self::Closed => PacketSet::default(),
            Self::Portable => {
                let hash = way.flows.hash.clone();
                express(Portable(&hash), burst, walk, way)
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(cpu) => cpu.run(burst, walk, way),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(cpu) => cpu.run(burst, walk, way),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_cmpeq_epi16, _mm_cmpeq_epi16_mask, _mm_insert_epi8,
        _mm_movemask_epi8, _mm_or_si128, _mm_packs_epi16, _mm_set_epi32, _mm_set_epi64x,
        _mm_set1_epi16, _mm_setzero_si128,
    };

    use super::{Cpu, Way, express};
    use crate::Burst;
    use crate::flow::hash::aes::{self, Keys};
    use crate::flow::hash::tail;
    use crate::flow::table::Bucket;
    use crate::flow::{V4, V6};
    use crate::journey::{PacketSet, Walk};
    use crate::parse::plain::{Head, HeadV4, HeadV6};

    macro_rules! cpu {
        ($(#[$doc:meta])* $name:ident { $($feature:tt)* } tagged by $tagged:ident) => {
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub(crate) struct $name(Keys);

            impl $name {
                pub(super) fn detect(keys: Keys) -> Option<Self> {
                    ($(is_x86_feature_detected!($feature))&&*).then_some(Self(keys))
                }

                #[inline]
                #[expect(unsafe_code, reason = "a call across CPU features: the portable lane takes a fifth more")]
                pub(super) fn run(self, burst: &mut Burst, walk: &mut Walk, way: Way) -> PacketSet {
                    #[target_feature($(enable = $feature),*)]
                    fn run(cpu: $name, burst: &mut Burst, walk: &mut Walk, way: Way) -> PacketSet {
                        express(cpu, burst, walk, way)
                    }
                    // SAFETY: a value exists only where `detect` found every one of these features.
                    unsafe { run(self, burst, walk, way) }
                }
            }

            impl Cpu for $name {
                #[inline(always)]
                #[expect(unsafe_code, reason = "as above, and inlined there")]
                fn hash_v4(self, head: &HeadV4) -> u64 {
                    // SAFETY: as above.
                    unsafe { aes::blocks(&self.0, [tuple_v4(head)]) }
                }

                #[inline(always)]
                #[expect(unsafe_code, reason = "as above, and inlined there")]
                fn hash_v6(self, head: &HeadV6) -> u64 {
                    // SAFETY: as above.
                    unsafe { aes::blocks(&self.0, tuple_v6(head)) }
                }

                #[inline(always)]
                #[expect(unsafe_code, reason = "as above, and inlined there")]
                fn tagged(self, bucket: &Bucket, tag: u16) -> u32 {
                    // SAFETY: as above.
                    unsafe { $tagged(bucket, tag) }
                }
            }
        };
    }

    cpu! {
        /// Proof of AVX2 and what comes with it, and of AES rounds.
        Avx2 { "avx2" "bmi1" "bmi2" "lzcnt" "popcnt" "movbe" "aes" } tagged by tagged_avx2
    }

    cpu! {
        /// Proof of AVX-512 for short vectors of bytes and words, and of all that [`Avx2`] proves.
        Avx512 {
            "avx512f" "avx512bw" "avx512vl" "avx2" "bmi1" "bmi2" "lzcnt" "popcnt" "movbe" "aes"
        } tagged by tagged_avx512
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn tagged_avx2(bucket: &Bucket, tag: u16) -> u32 {
        let equal = _mm_cmpeq_epi16(tags(bucket), _mm_set1_epi16(tag.cast_signed()));
        _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())).cast_unsigned()
    }

    #[inline]
    #[target_feature(enable = "avx512bw,avx512vl")]
    fn tagged_avx512(bucket: &Bucket, tag: u16) -> u32 {
        _mm_cmpeq_epi16_mask(tags(bucket), _mm_set1_epi16(tag.cast_signed())).into()
    }

    /// A tuple as a hash takes it: where it lies in the packet, but for the protocol and family behind it.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn tuple_v4(head: &HeadV4) -> __m128i {
        let [low, high]: [u64; 2] = zerocopy::transmute!(head.ends());
        let ends = _mm_set_epi64x(high.cast_signed(), low.cast_signed());
        let ends = _mm_and_si128(ends, _mm_set_epi32(0, -1, -1, -1));
        let family = _mm_set_epi32(i32::from(V4) << 8, 0, 0, 0);
        _mm_insert_epi8::<12>(_mm_or_si128(ends, family), head.protocol().into())
    }

    /// The same: source, destination, and the rest.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn tuple_v6(head: &HeadV6) -> [__m128i; 3] {
        let [a, b, c, d]: [u64; 4] = zerocopy::transmute!(head.addresses());
        let tail = tail(head.l4().ports(), head.protocol(), V6);
        [(a, b), (c, d), (0, tail)]
            .map(|(low, high)| _mm_set_epi64x(high.cast_signed(), low.cast_signed()))
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn tags(bucket: &Bucket) -> __m128i {
        let [low, high]: [u64; 2] = zerocopy::transmute!(bucket.tags);
        _mm_set_epi64x(high.cast_signed(), low.cast_signed())
    }
}
