//! Every interleaving of the ring's two ends, in the memory model that the code is written for.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p penstock-feed --release --test loom_ring`
#![cfg(loom)]

use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;
use penstock_feed::FEED_VERSION;
use penstock_feed::ring::{Memory, Reader, Writer, words_for};

const CAPACITY: usize = 4;

/// Only the words that such a ring touches: loom pays for each.
#[derive(Clone)]
struct Words(Arc<Shared>);

struct Shared {
    tail: AtomicU64,
    head: AtomicU64,
    data: Vec<(Watch, AtomicU64)>,
}

/// Tells loom that a word is read or written here, so that it finds a write that is not ordered
/// after the last read. The relaxed atomic alone would hide it: loom runs no load ahead of its
/// turn, and so never shows a reader the word that a writer put there too early.
struct Watch(UnsafeCell<()>);

#[expect(unsafe_code, reason = "loom's cell is not Sync, since most are for data")]
// SAFETY: the cell holds nothing, its pointer is never used, and loom runs one thread at a time.
unsafe impl Sync for Watch {}

impl Words {
    fn new() -> Self {
        let word = |_| (Watch(UnsafeCell::new(())), AtomicU64::new(0));
        let data = (0..CAPACITY).map(word).collect();
        Self(Arc::new(Shared { tail: AtomicU64::new(0), head: AtomicU64::new(0), data }))
    }

    fn data(&self, index: usize) -> &(Watch, AtomicU64) {
        &self.0.data[index - words_for(0)]
    }
}

impl Memory for Words {
    fn load(&self, index: usize, order: Ordering) -> u64 {
        match index {
            0 => self.0.tail.load(order),
            16 => self.0.head.load(order),
            _ => {
                let (watch, word) = self.data(index);
                watch.0.with(|_| word.load(order))
            }
        }
    }

    fn store(&self, index: usize, value: u64, order: Ordering) {
        match index {
            0 => self.0.tail.store(value, order),
            16 => self.0.head.store(value, order),
            _ => {
                let (watch, word) = self.data(index);
                watch.0.with_mut(|_| word.store(value, order));
            }
        }
    }
}

/// A record of `words` words, whose body says which it is.
fn record(words: usize, number: u8) -> Vec<u8> {
    let mut bytes = vec![number; words * 8];
    bytes[..8].copy_from_slice(&[FEED_VERSION, number, 0, 0, (words as u8 - 1) * 8, 0, 0, 0]);
    bytes
}

/// Sends `sizes` from one thread to another, and checks what arrives.
fn pass(sizes: &'static [usize]) {
    loom::model(move || {
        let words = Words::new();
        let mut writer = Writer::new(words.clone(), CAPACITY);
        let sending = thread::spawn(move || {
            for (number, size) in (1..).zip(sizes) {
                while !writer.push(&record(*size, number)).unwrap() {
                    thread::yield_now();
                }
            }
        });
        let mut reader = Reader::new(words, CAPACITY);
        let mut bytes = Vec::new();
        for (number, size) in (1..).zip(sizes) {
            while !reader.pop(&mut bytes).unwrap() {
                thread::yield_now();
            }
            assert_eq!(bytes, record(*size, number));
        }
        assert!(reader.is_empty().unwrap());
        sending.join().unwrap();
    });
}

#[test]
fn records_arrive_whole_and_in_order() {
    pass(&[1, 2]);
}

#[test]
fn words_are_used_again_only_after_they_were_read() {
    pass(&[3, 2, 2]); // the second waits for room and wraps around the end
}

#[test]
fn a_full_ring_gives_way_word_by_word() {
    pass(&[4, 4]);
}

#[test]
fn a_sealed_reader_sees_a_whole_number_of_records() {
    loom::model(|| {
        let words = Words::new();
        let mut writer = Writer::new(words.clone(), CAPACITY);
        let sending = thread::spawn(move || {
            assert!(writer.push(&record(2, 1)).unwrap());
            assert!(writer.push(&record(2, 2)).unwrap());
        });
        let mut reader = Reader::new(words, CAPACITY);
        reader.seal().unwrap();
        let mut bytes = Vec::new();
        let mut number = 1;
        while reader.pop(&mut bytes).unwrap() {
            assert_eq!(bytes, record(2, number));
            number += 1;
        }
        sending.join().unwrap();
    });
}
