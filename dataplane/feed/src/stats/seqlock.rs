//! One writer, any readers, and no reader ever sees half a change.
//!
//! The protocol is Boehm's ("Can seqlocks get along with programming language memory models?", MSPC
//! 2012): the data are atomics read and written `Relaxed`, the sequence is odd while they change, and
//! fences order the two. Readers use relaxed loads and fences only, which Rust promises to work on
//! read-only memory.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A reader gives up after this many turns: the writer may have died inside a change.
const TURNS: usize = 10_000;

/// Runs `change` as one step for every reader of `sequence`. One thread at a time may call this.
pub(super) fn write<R>(sequence: &AtomicU64, change: impl FnOnce() -> R) -> R {
    let before = sequence.load(Ordering::Relaxed) & !1;
    sequence.store(before.wrapping_add(1), Ordering::Relaxed);
    fence(Ordering::Release);
    let result = change();
    sequence.store(before.wrapping_add(2), Ordering::Release);
    result
}

/// What `look` saw between two changes. `None` if the writer stayed inside a change.
///
/// `look` may run several times and may see a mixture, which is then thrown away: it must bear any
/// bytes.
pub(super) fn read<R>(sequence: &AtomicU64, mut look: impl FnMut() -> R) -> Option<R> {
    for turn in 0..TURNS {
        let before = sequence.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if before & 1 == 0 {
            let seen = look();
            fence(Ordering::Acquire);
            if sequence.load(Ordering::Relaxed) == before {
                return Some(seen);
            }
        }
        if turn % 64 == 63 {
            std::thread::yield_now(); // the writer may need this very core to finish
        } else {
            std::hint::spin_loop();
        }
    }
    None
}
