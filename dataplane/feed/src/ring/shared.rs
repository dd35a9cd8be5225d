//! The memory of one connection: a sealed memfd with the two rings in it, mapped by both ends.
//!
//! ```text
//!   word 0                        the feed ring, producer to consumer
//!   word words_for(feed)          the ack ring, consumer to producer
//! ```
//! The consumer creates it and seals its size, so that no peer can take pages away under the other
//! (a read past the end of a shrunk file is SIGBUS). The producer checks the seals before it maps.
//! This file and the statistics segment hold the crate's only `unsafe`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};

use super::{Memory, words_for};
use crate::record::MAX_RECORD_BYTES;

/// The sizes of the two rings, in words of data; told in the hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) feed_words: u32,
    pub(crate) ack_words: u32,
}

impl Geometry {
    /// 256 KiB for the feed, some four thousand members at a time, and 64 KiB for what comes back.
    pub(crate) const DEFAULT: Geometry = Geometry { feed_words: 1 << 15, ack_words: 1 << 13 };

    const MIN_WORDS: u32 = (MAX_RECORD_BYTES / 8) as u32;
    const MAX_WORDS: u32 = 1 << 24;

    fn check(self) -> Result<(), MapError> {
        for words in [self.feed_words, self.ack_words] {
            if !words.is_power_of_two() || !(Self::MIN_WORDS..=Self::MAX_WORDS).contains(&words) {
                return Err(MapError::Size { words });
            }
        }
        Ok(())
    }

    fn ack_base(self) -> usize {
        words_for(self.feed_words as usize)
    }

    fn words(self) -> usize {
        self.ack_base() + words_for(self.ack_words as usize)
    }

    fn bytes(self) -> usize {
        self.words() * size_of::<u64>()
    }
}

/// Why the memory of a connection cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MapError {
    #[error("the memory of the connection: {0}")]
    Io(#[from] io::Error),
    #[error(
        "a ring of {words} words: a power of two from {} to {} is needed",
        Geometry::MIN_WORDS,
        Geometry::MAX_WORDS
    )]
    Size { words: u32 },
    #[error("the memory of the connection has {have} bytes, the hello says {need}")]
    Length { have: u64, need: usize },
    #[error("the memory of the connection is not sealed: its owner could take it away")]
    Unsealed,
}

impl From<rustix::io::Errno> for MapError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// The size can never change again, and neither can that.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Both rings of a connection, mapped.
#[derive(Debug)]
pub(crate) struct SharedRings {
    mapping: Arc<Mapping>,
    geometry: Geometry,
}

impl SharedRings {
    /// New memory, all zero and sealed, and the descriptor to hand over.
    pub(crate) fn create(geometry: Geometry) -> Result<(OwnedFd, Self), MapError> {
        geometry.check()?;
        let memfd = memfd_create("penstock-feed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&memfd, geometry.bytes() as u64)?;
        fcntl_add_seals(&memfd, SEALS)?;
        let rings = Self::map(&memfd, geometry)?;
        Ok((memfd, rings))
    }

    /// Memory that came over the socket: mapped only if its size is what was said and stays so.
    pub(crate) fn open(memfd: &OwnedFd, geometry: Geometry) -> Result<Self, MapError> {
        geometry.check()?;
        if !fcntl_get_seals(memfd)?.contains(SEALS) {
            return Err(MapError::Unsealed);
        }
        let have = fstat(memfd)?.st_size.unsigned_abs();
        let need = geometry.bytes();
        if have != need as u64 {
            return Err(MapError::Length { have, need });
        }
        Self::map(memfd, geometry)
    }

    fn map(memfd: impl AsFd, geometry: Geometry) -> Result<Self, MapError> {
        let mapping = Arc::new(Mapping::new(memfd, geometry.words())?);
        Ok(Self { mapping, geometry })
    }

    /// The feed ring and its capacity in words.
    pub(crate) fn feed(&self) -> (RingMemory, usize) {
        self.ring(0, self.geometry.feed_words as usize)
    }

    /// The ack ring and its capacity in words.
    pub(crate) fn ack(&self) -> (RingMemory, usize) {
        self.ring(self.geometry.ack_base(), self.geometry.ack_words as usize)
    }

    fn ring(&self, base: usize, capacity: usize) -> (RingMemory, usize) {
        let memory =
            RingMemory { mapping: Arc::clone(&self.mapping), base, words: words_for(capacity) };
        (memory, capacity)
    }
}

/// The words of one of the two rings.
#[derive(Debug)]
pub(crate) struct RingMemory {
    mapping: Arc<Mapping>,
    base: usize,
    words: usize,
}

impl RingMemory {
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words, "word {index} of a ring of {}", self.words);
        self.mapping.word(self.base + index)
    }
}

impl Memory for RingMemory {
    fn load(&self, index: usize, order: Ordering) -> u64 {
        self.word(index).load(order)
    }

    fn store(&self, index: usize, value: u64, order: Ordering) {
        self.word(index).store(value, order);
    }
}

/// A shared mapping, seen as atomic words only.
#[derive(Debug)]
struct Mapping {
    map: MmapRaw,
    words: usize,
}

impl Mapping {
    fn new(file: impl AsFd, words: usize) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        let raw = file.as_fd().as_raw_fd();
        let map = MmapOptions::new().len(words * size_of::<u64>()).map_raw(raw)?;
        Ok(Self { map, words })
    }

    #[expect(
        unsafe_code,
        reason = "memory shared with another process can only be seen by pointer"
    )]
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words, "word {index} of a mapping of {}", self.words);
        // SAFETY: `map` is at least `words` words long and `index` is below that, so the sum stays
        // inside the one mapping.
        let pointer = unsafe { self.map.as_mut_ptr().cast::<u64>().add(index) };
        // SAFETY: the mapping is page-aligned, so the word is aligned; it is readable and writable
        // and lives as long as `self`, to which the result is bound; its size is sealed, so the
        // page stays; any bits are a u64. In this process it is only ever seen as an atomic, and
        // what another process does with it is for the hardware to order, as between threads.
        unsafe { AtomicU64::from_ptr(pointer) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_see_the_same_words() {
        let (memfd, ours) = SharedRings::create(Geometry::DEFAULT).unwrap();
        let theirs = SharedRings::open(&memfd, Geometry::DEFAULT).unwrap();
        ours.feed().0.store(0, 7, Ordering::Relaxed);
        ours.ack().0.store(0, 8, Ordering::Relaxed);
        assert_eq!(theirs.feed().0.load(0, Ordering::Relaxed), 7);
        assert_eq!(theirs.ack().0.load(0, Ordering::Relaxed), 8);
    }

    #[test]
    fn the_memory_can_neither_shrink_nor_grow() {
        let (memfd, _rings) = SharedRings::create(Geometry::DEFAULT).unwrap();
        for bytes in [0, 4096, 1 << 30] {
            assert_eq!(ftruncate(&memfd, bytes), Err(rustix::io::Errno::PERM));
        }
    }

    #[test]
    fn memory_that_could_be_taken_away_is_not_mapped() {
        let geometry = Geometry::DEFAULT;
        let memfd = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&memfd, geometry.bytes() as u64).unwrap();
        assert!(matches!(SharedRings::open(&memfd, geometry), Err(MapError::Unsealed)));
        fcntl_add_seals(&memfd, SEALS).unwrap();
        let other = Geometry { ack_words: 1 << 14, ..geometry };
        assert!(matches!(SharedRings::open(&memfd, other), Err(MapError::Length { .. })));
        let odd = Geometry { ack_words: 1000, ..geometry };
        assert!(matches!(SharedRings::open(&memfd, odd), Err(MapError::Size { words: 1000 })));
        assert!(SharedRings::open(&memfd, geometry).is_ok());
    }
}
