//! Any words in a ring, which change while they are read: an end of the connection, or
//! transactions, and the committed state is always one that its own digest and check agree with, and
//! that differs from the last in nothing but what is said to be touched.
#![no_main]

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use libfuzzer_sys::fuzz_target;
use penstock_feed::ring::{Memory, Reader, words_for};
use penstock_feed::transaction::{Outcome, Transactions};
use penstock_feed::{FEED_VERSION, Touched, decode};

const CAPACITY: usize = 512;
const EPOCH: u64 = 1;

/// The first words of the input fill the ring; each two of the rest are written, one by one, as
/// the reader reads: another process does not wait until we are done.
struct Hostile<'a> {
    words: RefCell<Vec<u64>>,
    later: &'a [[u8; 10]],
    turn: Cell<usize>,
}

impl Memory for &Hostile<'_> {
    fn load(&self, index: usize, _: Ordering) -> u64 {
        let turn = self.turn.get();
        self.turn.set(turn + 1);
        if let Some([low, high, word @ ..]) = self.later.get(turn / 4).filter(|_| turn % 4 == 0) {
            let at = usize::from(u16::from_le_bytes([*low, *high])) % words_for(CAPACITY);
            self.words.borrow_mut()[at] = u64::from_le_bytes(*word);
        }
        self.words.borrow()[index]
    }

    fn store(&self, index: usize, value: u64, _: Ordering) {
        self.words.borrow_mut()[index] = value;
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&[tail, share], bytes)) = bytes.split_first_chunk::<2>() else { return };
    let (first, later) = bytes.split_at(bytes.len() * usize::from(share) / 255);
    let mut words = vec![0; words_for(CAPACITY)];
    words[0] = u64::from(tail) * 2;
    for (word, bytes) in words[words_for(0)..].iter_mut().zip(first.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().unwrap());
    }
    let (later, _) = later.as_chunks::<10>();
    let memory = Hostile { words: RefCell::new(words), later, turn: Cell::new(0) };
    run(&memory);
});

fn run(memory: &Hostile<'_>) {
    let mut reader = Reader::new(memory, CAPACITY);
    let mut transactions = Transactions::new(0, Arc::default());
    let mut record = Vec::new();
    for _ in 0..4 * CAPACITY {
        if !matches!(reader.pop(&mut record), Ok(true)) {
            return;
        }
        assert_eq!(record[0], FEED_VERSION);
        let Ok((decoded, rest)) = decode(&record) else { return };
        assert!(rest.is_empty());
        let before = (Arc::clone(transactions.state()), transactions.generation());
        match transactions.take(decoded, EPOCH) {
            Ok(Outcome::Committed) => {
                assert!(transactions.generation() > before.1);
                assert!(transactions.state().check().is_empty());
                assert_eq!(transactions.state().digest(), transactions.digest());
                let touched = transactions.take_touched();
                let differing = Touched::between(&before.0, transactions.state());
                assert!(differing.listeners.is_subset(&touched.listeners));
                assert!(differing.groups.is_subset(&touched.groups));
                assert!(differing.snat_pools.is_subset(&touched.snat_pools));
                assert!(differing.next_hops.is_subset(&touched.next_hops));
            }
            Ok(_) => {
                assert_eq!((transactions.state(), transactions.generation()), (&before.0, before.1))
            }
            Err(_) => return,
        }
    }
}
