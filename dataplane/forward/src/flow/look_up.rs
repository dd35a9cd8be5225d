//! A burst's packets to their flows.
//!
//! Each step goes over the whole burst before the next begins, so that the cache misses of the
//! packets overlap: first the buckets are asked for, then, bucket in hand, the records; only when
//! those are under way for all does `track` compare tuples.

use super::hash::FlowHash;
use super::table::FlowTable;
use crate::journey::Walk;

/// The room: finds the entry that every tuple probably has, and asks for its record.
pub(crate) fn look_up(walk: &mut Walk, count: usize, flows: &FlowTable) {
    hash_burst(&flows.hash, walk, count);
    for at in walk.tuples.iter() {
        prefetch(flows.bucket(walk.hashes[at]));
    }
    for at in walk.tuples.iter() {
        let candidate = flows.candidate(walk.hashes[at]);
        prefetch(flows.record(candidate));
        walk.entries[at] = candidate;
    }
    for at in walk.wide.iter() {
        prefetch(flows.flow(walk.entries[at]).wide());
    }
}

fn hash_burst(hash: &FlowHash, walk: &mut Walk, count: usize) {
    hash.tuples(&walk.keys[..count], &mut walk.hashes[..count]);
}

/// Asks for a cache line that will be read soon.
#[inline]
#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "no safe prefetch exists; without it a packet costs 200 TSC cycles at 1 Mi flows, not 128"
)]
pub(super) fn prefetch<T>(line: &T) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch is a hint: it reads nothing the program can see and never faults; the
    // address is that of a live reference besides.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast()) }
}

/// Other CPUs fetch when they read.
#[inline]
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn prefetch<T>(_line: &T) {}
