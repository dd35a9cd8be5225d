//! The least that a NAT of flows can do: parse, look up with prefetch, note state, rewrite. What Penstock's packet
//! path costs beside it pays for VIPs, TCP states, timeouts, replies, next hops and counters.

use std::io::{Error, Result};

use memmap2::{Advice, MmapMut};
use penstock_forward::BURST;
use penstock_forward::testing::Family;
use penstock_forward::wire::checksum;
use penstock_forward::wire::tcp::{ACK, SYN};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::packets::{PACKETS, Packets, client_key};
use crate::timing::{Random, Spread, clock};
use crate::{MILLION, ROUNDS};

/// Four keys of 13 bytes, and above each of them the number of its state.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
struct Bucket([u128; 4]);

const KEY_BITS: u32 = 13 * 8;
const KEY: u128 = (1 << KEY_BITS) - 1;

/// A connection, and where its packets go.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
struct State {
    destination: [u8; 4],
    port: [u8; 2],
    ip_delta: u16,
    l4_delta: u16,
    flags: u16,
    last_seen: u32,
    packets: u64,
    bytes: u64,
    spare: [u64; 4],
}

/// Packets of `flows` connections, drawn uniformly.
pub(crate) fn established(flows: usize) -> Result<Spread> {
    let count = flows.next_power_of_two();
    let (mut buckets, mut states) = (map::<Bucket>(count / 2)?, map::<State>(count + 1)?);
    let mut table = Table { buckets: cast(&mut buckets)?, states: cast(&mut states)? };
    let mut packets = Packets::new(Family::V4)?;
    for n in 0..flows {
        packets.write(0, &client_key(Family::V4, n), ACK);
        let key = packets.frames().next().and_then(|frame| key(frame)).unwrap_or_default();
        table.insert(key, n + 1);
    }
    let mut random = Random::new();
    let rounds = (0..ROUNDS).map(|_| {
        for at in 0..PACKETS {
            packets.write(at, &client_key(Family::V4, random.below(flows)), ACK);
        }
        let mut frames: Vec<&mut [u8]> = packets.frames().collect();
        let begin = clock();
        let rewritten: usize = frames.chunks_mut(BURST).map(|burst| table.forward(burst)).sum();
        let took = clock() - begin;
        assert_eq!(rewritten, PACKETS, "every packet is rewritten");
        took
    });
    Ok(Spread::of(rounds, PACKETS))
}

/// Packets of `rounds` × [`PACKETS`] connections that are not in a table of a million, which is half full: each is noted
/// by both keys, as a NAT must, and rewritten. No backend is chosen, no port looked for, no quota kept, nothing counted.
pub(crate) fn new_flows() -> Result<Spread> {
    let (mut buckets, mut states) = (map::<Bucket>(MILLION)?, map::<State>(MILLION + 1)?);
    let mut table = Table { buckets: cast(&mut buckets)?, states: cast(&mut states)? };
    let mut packets = Packets::new(Family::V4)?;
    let mut next = 1;
    let mut clients = (0..MILLION).map(|n| client_key(Family::V4, n));
    let unmeasured = MILLION / 2 / PACKETS;
    let rounds = (0..unmeasured + ROUNDS).map(|_| {
        for (at, key) in (0..PACKETS).zip(&mut clients) {
            packets.write(at, &key, SYN);
        }
        let mut frames: Vec<&mut [u8]> = packets.frames().collect();
        let begin = clock();
        let mut opened = 0;
        for burst in frames.chunks_mut(BURST) {
            opened += table.open(burst, next);
            next += burst.len();
        }
        let took = clock() - begin;
        assert_eq!(opened, PACKETS, "every connection is opened");
        took
    });
    Ok(Spread::of(rounds.skip(unmeasured), PACKETS))
}

struct Table<'m> {
    buckets: &'m mut [Bucket],
    states: &'m mut [State],
}

impl Table<'_> {
    /// A connection by one key.
    fn insert(&mut self, key: u128, state: usize) {
        self.note(key, hash(key), state);
        self.begin(state);
    }

    /// Connections of a burst by both keys, their states from `first` on, and their packets rewritten; how many. In
    /// three passes: keys, then the buckets of all of them, then the rest.
    fn open(&mut self, frames: &mut [&mut [u8]], first: usize) -> usize {
        let mask = self.buckets.len() - 1;
        let mut keys = [[(0, 0); 2]; BURST];
        for ((frame, keys), state) in frames.iter().zip(&mut keys).zip(first..) {
            let key = self::key(frame).unwrap_or_default();
            *keys = [key, reply(state)].map(|key| (key, hash(key)));
            prefetch(&self.states[state]);
        }
        let homes = keys[..frames.len()].iter().flatten();
        // Loads, not prefetches: a CPU drops those beyond what it can have under way.
        let seen = homes.fold(0, |seen, (_, home)| seen ^ self.buckets[home & mask].0[0]);
        std::hint::black_box(seen);
        let mut rewritten = 0;
        for ((frame, keys), state) in frames.iter_mut().zip(keys).zip(first..) {
            for (key, home) in keys {
                self.note(key, home, state);
            }
            self.begin(state);
            rewritten += usize::from(rewrite(frame, &mut self.states[state]).is_some());
        }
        rewritten
    }

    /// Into the first bucket with room, from the hash's own on.
    #[inline(always)]
    fn note(&mut self, key: u128, home: usize, state: usize) {
        let mask = self.buckets.len() - 1;
        for at in home.. {
            if let Some(free) = self.buckets[at & mask].0.iter_mut().find(|entry| **entry == 0) {
                *free = key | (state as u128) << KEY_BITS;
                break;
            }
        }
    }

    #[inline(always)]
    fn begin(&mut self, state: usize) {
        let backend = [10, 0, 0, state as u8];
        self.states[state] = State {
            destination: backend,
            port: 8080_u16.to_be_bytes(),
            ip_delta: checksum::sum(&backend),
            l4_delta: checksum::sum(&backend),
            flags: 0,
            last_seen: 0,
            packets: 0,
            bytes: 0,
            spare: [0; 4],
        };
    }

    /// A burst in three passes; how many packets were rewritten.
    fn forward(&mut self, frames: &mut [&mut [u8]]) -> usize {
        #[cfg(target_arch = "x86_64")]
        if x86::is_detected() {
            return x86::forward(self, frames);
        }
        self.forward_by(frames, |bucket, key| {
            bucket.0.iter().fold(0, |found, entry| {
                found | if entry & KEY == key { (entry >> KEY_BITS) as usize } else { 0 }
            })
        })
    }

    #[inline(always)]
    fn forward_by(
        &mut self,
        frames: &mut [&mut [u8]],
        compare: impl Fn(&Bucket, u128) -> usize,
    ) -> usize {
        let mask = self.buckets.len() - 1;
        let (mut keys, mut homes, mut found) = ([0; BURST], [0; BURST], [0; BURST]);
        for ((frame, key), home) in frames.iter().zip(&mut keys).zip(&mut homes) {
            *key = self::key(frame).unwrap_or_default();
            *home = hash(*key) & mask;
            prefetch(&self.buckets[*home]);
        }
        for ((key, home), found) in keys.iter().zip(homes).zip(&mut found).take(frames.len()) {
            *found = self.find(*key, home, &compare);
            prefetch(&self.states[*found]);
        }
        let rewrites = frames.iter_mut().zip(found);
        rewrites.filter_map(|(frame, at)| rewrite(frame, &mut self.states[at])).count()
    }

    /// The state of a key; 0 for none.
    #[inline(always)]
    fn find(&self, key: u128, home: usize, compare: impl Fn(&Bucket, u128) -> usize) -> usize {
        for at in home.. {
            let bucket = &self.buckets[at & (self.buckets.len() - 1)];
            let found = compare(bucket, key);
            if found != 0 || bucket.0.contains(&0) {
                return found;
            }
        }
        0
    }
}

/// The 5-tuple of a TCP packet without IPv4 options.
#[inline(always)]
fn key(frame: &[u8]) -> Option<u128> {
    let head: &[u8; 48] = frame.first_chunk()?;
    if head[12..15] != [8, 0, 0x45] {
        return None;
    }
    let addresses = u64::from_ne_bytes(*head[26..].first_chunk()?);
    let ports = u32::from_ne_bytes(*head[34..].first_chunk()?);
    Some(u128::from(addresses) | u128::from(ports) << 64 | u128::from(head[23]) << 96)
}

/// What replies of the `n`th connection look like: one of 256 backends to one of our addresses, each L4 port in turn.
#[inline(always)]
fn reply(n: usize) -> u128 {
    let ([backend, port_low, port_high, ours, ..], port) =
        (n.to_le_bytes(), 8080_u16.to_be_bytes());
    let addresses = u64::from_ne_bytes([10, 0, 0, backend, 10, 0, 1, ours]);
    let ports = u32::from_ne_bytes([port[0], port[1], port_high, port_low]);
    u128::from(addresses) | u128::from(ports) << 64 | 6 << 96
}

#[inline(always)]
fn hash(key: u128) -> usize {
    let (low, high) =
        (key as u64 ^ 0x9e37_79b9_7f4a_7c15, (key >> 64) as u64 ^ 0xd1b5_4a32_d192_ed03);
    let product = u128::from(low) * u128::from(high);
    (product as u64 ^ (product >> 64) as u64) as usize
}

#[inline(always)]
fn rewrite(frame: &mut [u8], state: &mut State) -> Option<()> {
    let head: &mut [u8; 54] = frame.first_chunk_mut()?;
    state.flags |= u16::from(head[47]);
    state.last_seen = 1;
    state.packets += 1;
    state.bytes += u64::from(u16::from_be_bytes([head[16], head[17]]));
    head[22] = head[22].wrapping_sub(1);
    head[30..34].copy_from_slice(&state.destination);
    head[36..38].copy_from_slice(&state.port);
    for (at, delta) in [(24, state.ip_delta), (50, state.l4_delta)] {
        let before = u16::from_ne_bytes([head[at], head[at + 1]]);
        head[at..at + 2].copy_from_slice(&checksum::update(before, delta).to_ne_bytes());
    }
    Some(())
}

fn map<T>(count: usize) -> Result<MmapMut> {
    let memory = MmapMut::map_anon(count.max(1) * size_of::<T>())?;
    memory.advise(Advice::HugePage)?;
    Ok(memory)
}

fn cast<T: FromBytes + IntoBytes + KnownLayout>(memory: &mut MmapMut) -> Result<&mut [T]> {
    <[T]>::mut_from_bytes(memory).map_err(|error| Error::other(error.to_string()))
}

#[inline(always)]
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "no safe prefetch exists, and the packet path prefetches too")]
fn prefetch<T>(line: &T) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch is a hint: it reads nothing the program can see, and never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast()) }
}

#[inline]
#[cfg(not(target_arch = "x86_64"))]
fn prefetch<T>(_line: &T) {}

/// The same with a bucket compared at once, where the CPU can.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::{
        _mm_set_epi64x, _mm512_broadcast_i32x4, _mm512_set_epi64, _mm512_testn_epi64_mask,
        _mm512_xor_si512,
    };

    use super::{Bucket, KEY, KEY_BITS, Table};

    pub(super) fn is_detected() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("bmi2")
    }

    #[expect(unsafe_code, reason = "a call across CPU features, as the packet path's")]
    pub(super) fn forward(table: &mut Table, frames: &mut [&mut [u8]]) -> usize {
        // SAFETY: called where `is_detected` found both features.
        unsafe { forward_avx512(table, frames) }
    }

    #[target_feature(enable = "avx512f,bmi1,bmi2,lzcnt,popcnt,movbe")]
    fn forward_avx512(table: &mut Table, frames: &mut [&mut [u8]]) -> usize {
        // A closure has the features of the function it is in.
        table.forward_by(frames, |bucket, key| compare(bucket, key))
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn compare(bucket: &Bucket, key: u128) -> usize {
        let [a, b, c, d, e, f, g, h]: [i64; 8] = zerocopy::transmute!(bucket.0);
        let entries = _mm512_set_epi64(h, g, f, e, d, c, b, a);
        let halves = |number: u128| _mm_set_epi64x((number >> 64) as i64, number as i64);
        let differs = _mm512_xor_si512(entries, _mm512_broadcast_i32x4(halves(key)));
        let equal = _mm512_testn_epi64_mask(differs, _mm512_broadcast_i32x4(halves(KEY)));
        let both = u32::from(equal & equal >> 1 & 0b0101_0101);
        let at = both.trailing_zeros() as usize / 2;
        bucket.0.get(at).map_or(0, |entry| (entry >> KEY_BITS) as usize)
    }
}
