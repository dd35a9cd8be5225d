//! The ring: records from one producer to one consumer through memory that both can write.
//!
//! ```text
//!   word 0      tail: where the writer will write next, in words since the start; the writer's
//!   word 16     head: where the reader will read next; the reader's (two cache lines further)
//!   word 32     the data, a power of two of 8-byte words; a record may wrap around the end
//! ```
//! Neither end trusts the other. Each keeps its own position for itself and only publishes it; the
//! other's position is checked against what it can be, and a lie ends the connection. A reader
//! copies a record out word by word, the header once, before anything looks at it, so a peer that
//! keeps writing can spoil its own record but not change one that was checked. The words are
//! atomics, so even that race is defined.
//!
//! A writer stores the words of a record, then the tail with release; the reader loads the tail
//! with acquire, then the words; the head travels back the same way before words are used again.
//! `tests/loom_ring.rs` runs every interleaving of it. Nothing here blocks, allocates for long, or
//! calls the kernel; who sleeps is woken by a doorbell of `session`.

mod shared;

use std::sync::atomic::Ordering;

use crate::decode::{DecodeError, record_bytes};

pub(crate) use shared::{Geometry, MapError, RingMemory, SharedRings};

const TAIL_WORD: usize = 0;
const HEAD_WORD: usize = 16; // 128 bytes away: CPUs prefetch cache lines in pairs
const DATA_WORD: usize = 32;

/// The words of a ring, wherever they are: in a memfd, or in a model or a fuzzer's buffer.
///
/// An index is always below the [`words_for`] of the ring's capacity.
pub trait Memory {
    /// Reads the word at `index`.
    fn load(&self, index: usize, order: Ordering) -> u64;
    /// Writes the word at `index`.
    fn store(&self, index: usize, value: u64, order: Ordering);
}

/// The words that a ring with `capacity` words of data takes.
pub const fn words_for(capacity: usize) -> usize {
    DATA_WORD + capacity
}

/// What the other end did that no honest one does. The connection is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// Its position lies where it cannot be.
    #[error(
        "the peer's position {theirs} in the ring cannot be: ours is {ours}, the ring holds {capacity} words"
    )]
    Position {
        /// What it published.
        theirs: u64,
        /// Our own position.
        ours: u64,
        /// The size of the data in words.
        capacity: u64,
    },
    /// It published a record in part.
    #[error("a record of {need} words was published with {have} words in the ring")]
    Partial {
        /// The words its header claims.
        need: u64,
        /// The words published.
        have: u64,
    },
    /// A header that is none.
    #[error(transparent)]
    Header(#[from] DecodeError),
}

/// Where data words are: the arithmetic that both ends share.
#[derive(Clone, Copy, Debug)]
struct Positions {
    capacity: u64, // a power of two
}

impl Positions {
    fn new(capacity: usize) -> Self {
        assert!(capacity.is_power_of_two(), "a ring of {capacity} words: a power of two is needed");
        Self { capacity: capacity as u64 }
    }

    fn word(self, position: u64) -> usize {
        DATA_WORD + (position & (self.capacity - 1)) as usize
    }
}

/// The writing end.
#[derive(Debug)]
pub struct Writer<M> {
    memory: M,
    positions: Positions,
    tail: u64,
    head: u64, // the reader's, as last seen
}

impl<M: Memory> Writer<M> {
    /// The only writer of a ring that nothing was written to yet.
    pub fn new(memory: M, capacity: usize) -> Self {
        Self { memory, positions: Positions::new(capacity), tail: 0, head: 0 }
    }

    /// Publishes `record`, whole 8-byte words with the header first. `false` if there is no room
    /// now; nothing was written then.
    ///
    /// # Errors
    /// [`RingError::Position`] if the reader claims to have read what was not there.
    pub fn push(&mut self, record: &[u8]) -> Result<bool, RingError> {
        let words = record.len().div_ceil(8) as u64;
        if self.positions.capacity - (self.tail - self.head) < words {
            self.look_at_head()?;
            if self.positions.capacity - (self.tail - self.head) < words {
                return Ok(false);
            }
        }
        for (position, chunk) in (self.tail..).zip(record.chunks(8)) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let index = self.positions.word(position);
            self.memory.store(index, u64::from_ne_bytes(word), Ordering::Relaxed);
        }
        self.tail += words;
        self.memory.store(TAIL_WORD, self.tail, Ordering::Release);
        Ok(true)
    }

    fn look_at_head(&mut self) -> Result<(), RingError> {
        // Acquire: the reader's loads of the words it freed come before our stores to them.
        let head = self.memory.load(HEAD_WORD, Ordering::Acquire);
        if head < self.head || head > self.tail {
            let capacity = self.positions.capacity;
            return Err(RingError::Position { theirs: head, ours: self.tail, capacity });
        }
        self.head = head;
        Ok(())
    }
}

/// The reading end.
#[derive(Debug)]
pub struct Reader<M> {
    memory: M,
    positions: Positions,
    head: u64,
    tail: u64, // the writer's, as last seen
    sealed: bool,
}

impl<M: Memory> Reader<M> {
    /// The only reader of a ring that nothing was read from yet.
    pub fn new(memory: M, capacity: usize) -> Self {
        let positions = Positions::new(capacity);
        Self { memory, positions, head: 0, tail: 0, sealed: false }
    }

    /// Copies the next record into `record`, which is cleared first. `false` if there is none.
    ///
    /// # Errors
    /// [`RingError`] if the writer did what no honest writer does; the reader has not moved.
    pub fn pop(&mut self, record: &mut Vec<u8>) -> Result<bool, RingError> {
        record.clear();
        if self.is_empty()? {
            return Ok(false);
        }
        let header = self.word(self.head); // read once: what is checked is what is used
        let words = record_bytes(header)?.div_ceil(8) as u64;
        let have = self.tail - self.head;
        if words > have {
            return Err(RingError::Partial { need: words, have });
        }
        record.extend_from_slice(&header);
        for position in self.head + 1..self.head + words {
            record.extend_from_slice(&self.word(position));
        }
        self.head += words;
        // Release: our loads above come before the writer's next stores to these words.
        self.memory.store(HEAD_WORD, self.head, Ordering::Release);
        Ok(true)
    }

    /// Whether nothing waits to be read.
    ///
    /// # Errors
    /// [`RingError::Position`] if the writer claims what it cannot have written.
    pub fn is_empty(&mut self) -> Result<bool, RingError> {
        if self.head == self.tail && !self.sealed {
            // Acquire: the words up to the tail were stored before it.
            let tail = self.memory.load(TAIL_WORD, Ordering::Acquire);
            let capacity = self.positions.capacity;
            if tail < self.head || tail - self.head > capacity {
                return Err(RingError::Position { theirs: tail, ours: self.head, capacity });
            }
            self.tail = tail;
        }
        Ok(self.head == self.tail)
    }

    /// Reads what is published now and nothing after: for a writer that is gone, whose memory
    /// someone else may still hold.
    ///
    /// # Errors
    /// [`RingError::Position`] as above.
    pub fn seal(&mut self) -> Result<(), RingError> {
        if !self.sealed {
            let tail = self.memory.load(TAIL_WORD, Ordering::Acquire);
            let capacity = self.positions.capacity;
            if tail < self.tail || tail - self.head > capacity {
                return Err(RingError::Position { theirs: tail, ours: self.head, capacity });
            }
            self.tail = tail;
            self.sealed = true;
        }
        Ok(())
    }

    fn word(&self, position: u64) -> [u8; 8] {
        self.memory.load(self.positions.word(position), Ordering::Relaxed).to_ne_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::record::FEED_VERSION;

    const CAPACITY: usize = 8;

    struct Words(Vec<AtomicU64>);

    impl Words {
        fn new() -> Self {
            Self((0..words_for(CAPACITY)).map(|_| AtomicU64::new(0)).collect())
        }
    }

    impl Memory for &Words {
        fn load(&self, index: usize, order: Ordering) -> u64 {
            self.0[index].load(order)
        }

        fn store(&self, index: usize, value: u64, order: Ordering) {
            self.0[index].store(value, order);
        }
    }

    /// A record of `words` words in all, its body filled with `fill`.
    fn record(words: usize, fill: u8) -> Vec<u8> {
        let mut bytes = vec![fill; words * 8];
        bytes[..8].copy_from_slice(&[FEED_VERSION, 0, 0, 0, ((words - 1) * 8) as u8, 0, 0, 0]);
        bytes
    }

    #[test]
    fn records_come_out_whole_and_in_order_over_many_turns_of_the_ring() {
        let words = Words::new();
        let (mut writer, mut reader) =
            (Writer::new(&words, CAPACITY), Reader::new(&words, CAPACITY));
        let mut out = Vec::new();
        for turn in 0..100_u8 {
            let sent = [record(1 + usize::from(turn % 4), turn), record(3, turn)];
            for bytes in &sent {
                assert!(writer.push(bytes).unwrap());
            }
            for bytes in &sent {
                assert!(reader.pop(&mut out).unwrap());
                assert_eq!(&out, bytes);
            }
            assert!(!reader.pop(&mut out).unwrap());
        }
    }

    #[test]
    fn a_full_ring_takes_nothing_and_loses_nothing() {
        let words = Words::new();
        let (mut writer, mut reader) =
            (Writer::new(&words, CAPACITY), Reader::new(&words, CAPACITY));
        let mut out = Vec::new();
        assert!(writer.push(&record(8, 1)).unwrap());
        assert!(!writer.push(&record(1, 2)).unwrap());
        assert!(reader.pop(&mut out).unwrap());
        assert!(writer.push(&record(1, 2)).unwrap());
        assert!(reader.pop(&mut out).unwrap());
        assert_eq!(out, record(1, 2));
    }

    #[test]
    fn a_sealed_reader_reads_what_was_there_and_nothing_later() {
        let words = Words::new();
        let (mut writer, mut reader) =
            (Writer::new(&words, CAPACITY), Reader::new(&words, CAPACITY));
        let mut out = Vec::new();
        writer.push(&record(2, 1)).unwrap();
        reader.seal().unwrap();
        writer.push(&record(2, 2)).unwrap();
        assert!(reader.pop(&mut out).unwrap());
        assert!(!reader.pop(&mut out).unwrap());
    }

    /// What a lying peer gets, a row each.
    #[test]
    fn a_lie_in_shared_memory_is_an_error_and_nothing_else() {
        let long = u64::from_ne_bytes([FEED_VERSION, 0, 0, 0, 0xff, 0xff, 0, 0]);
        let three_words = u64::from_ne_bytes([FEED_VERSION, 0, 0, 0, 16, 0, 0, 0]);
        let version = u64::from_ne_bytes([FEED_VERSION + 1, 0, 0, 0, 0, 0, 0, 0]);
        for (promise, tail, first, expected) in [
            (
                "a tail beyond the ring",
                9,
                0,
                RingError::Position { theirs: 9, ours: 0, capacity: 8 },
            ),
            (
                "a tail far away",
                u64::MAX,
                0,
                RingError::Position { theirs: u64::MAX, ours: 0, capacity: 8 },
            ),
            ("half a record", 2, three_words, RingError::Partial { need: 3, have: 2 }),
            ("a record too long", 8, long, DecodeError::TooLong { length: 0xffff }.into()),
            (
                "another version",
                1,
                version,
                DecodeError::Version { found: FEED_VERSION + 1 }.into(),
            ),
        ] {
            let words = Words::new();
            (&words).store(TAIL_WORD, tail, Ordering::Relaxed);
            (&words).store(DATA_WORD, first, Ordering::Relaxed);
            let popped = Reader::new(&words, CAPACITY).pop(&mut Vec::new());
            assert_eq!(popped, Err(expected), "{promise}");
        }
    }

    #[test]
    fn a_reader_that_claims_what_was_never_written_is_found_out() {
        let words = Words::new();
        let mut writer = Writer::new(&words, CAPACITY);
        assert!(writer.push(&record(8, 1)).unwrap());
        (&words).store(HEAD_WORD, 9, Ordering::Relaxed);
        let expected = RingError::Position { theirs: 9, ours: 8, capacity: 8 };
        assert_eq!(writer.push(&record(1, 1)), Err(expected));
    }

    #[test]
    fn a_writer_that_goes_back_is_found_out() {
        let words = Words::new();
        let (mut writer, mut reader) =
            (Writer::new(&words, CAPACITY), Reader::new(&words, CAPACITY));
        writer.push(&record(2, 1)).unwrap();
        reader.pop(&mut Vec::new()).unwrap();
        (&words).store(TAIL_WORD, 1, Ordering::Relaxed);
        let expected = RingError::Position { theirs: 1, ours: 2, capacity: 8 };
        assert_eq!(reader.is_empty(), Err(expected));
    }
}
