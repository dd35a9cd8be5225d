//! Every interleaving of a worker with the main lcore, and with another worker: the code of `published` and
//! `handover`, over parts that loom can see through. The parts' own promises, those of arc-swap and rtrb, are taken
//! for granted; what is ours is when the old is freed, and what is counted as lost.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p penstock-dataplane --release --test loom_workers`
#![cfg(loom)]

#[expect(unreachable_pub, reason = "a module of the worker, which is a library")]
#[path = "../src/handover.rs"]
mod handover;
#[expect(unreachable_pub, dead_code, reason = "the same, of which a model asks less")]
#[path = "../src/published.rs"]
mod published;

use loom::thread;

use handover::HandOver;
use published::Publisher;
use shared::Snapshot;

/// What the two modules share memory by.
mod shared {
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::AtomicU64;

    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use loom::sync::Mutex;
    use loom::thread::{self, ThreadId};

    /// A root pointer that is read and replaced in one step.
    #[derive(Debug)]
    pub(crate) struct ArcSwap<T>(Mutex<Arc<T>>);

    impl<T> ArcSwap<T> {
        pub(crate) fn from_pointee(first: T) -> Self {
            Self(Mutex::new(Arc::new(first)))
        }

        pub(crate) fn load(&self) -> Arc<T> {
            self.0.lock().unwrap().clone()
        }

        pub(crate) fn swap(&self, next: Arc<T>) -> Arc<T> {
            std::mem::replace(&mut *self.0.lock().unwrap(), next)
        }
    }

    /// A configuration that knows whose it is to free.
    #[derive(Debug)]
    pub(crate) struct Snapshot {
        of: ThreadId,
        freed: std::sync::Arc<AtomicUsize>,
    }

    impl Snapshot {
        /// One of this thread, which counts when it is freed.
        pub(crate) fn new(freed: &std::sync::Arc<AtomicUsize>) -> Self {
            Self { of: thread::current().id(), freed: freed.clone() }
        }
    }

    impl Drop for Snapshot {
        fn drop(&mut self) {
            assert_eq!(thread::current().id(), self.of, "freed on the packet path");
            self.freed.fetch_add(1, Relaxed);
        }
    }

    /// A ring of two packets, whatever is asked.
    pub(crate) struct RingBuffer;
    pub(crate) const RING: usize = 2;

    type Ring<P> = Arc<Mutex<VecDeque<P>>>;

    #[derive(Debug)]
    pub(crate) struct Producer<P>(Ring<P>);
    #[derive(Debug)]
    pub(crate) struct Consumer<P>(Ring<P>);
    /// Packets that go into the ring together.
    pub(crate) struct Room<P>(Ring<P>, usize);

    impl RingBuffer {
        #[expect(clippy::new_ret_no_self, reason = "as rtrb's")]
        pub(crate) fn new<P>(_: usize) -> (Producer<P>, Consumer<P>) {
            let ring = Arc::new(Mutex::new(VecDeque::new()));
            (Producer(ring.clone()), Consumer(ring))
        }
    }

    impl<P> Producer<P> {
        pub(crate) fn slots(&self) -> usize {
            RING - self.0.lock().unwrap().len()
        }

        pub(crate) fn write_chunk_uninit(&mut self, count: usize) -> Result<Room<P>, ()> {
            if count <= self.slots() { Ok(Room(self.0.clone(), count)) } else { Err(()) }
        }
    }

    impl<P> Room<P> {
        pub(crate) fn fill_from_iter(self, packets: impl IntoIterator<Item = P>) {
            let packets: Vec<P> = packets.into_iter().take(self.1).collect();
            self.0.lock().unwrap().extend(packets);
        }
    }

    impl<P> Consumer<P> {
        pub(crate) fn slots(&self) -> usize {
            self.0.lock().unwrap().len()
        }

        pub(crate) fn read_chunk(&mut self, count: usize) -> Result<std::vec::IntoIter<P>, ()> {
            let mut ring = self.0.lock().unwrap();
            if count > ring.len() {
                return Err(());
            }
            Ok(ring.drain(..count).collect::<Vec<_>>().into_iter())
        }
    }
}

/// Two configurations follow the first while a worker takes three turns, as `lcore` does.
#[test]
fn the_main_lcore_frees_what_no_worker_reads() {
    loom::model(|| {
        let freed = std::sync::Arc::default();
        let mut publisher = Publisher::new(Snapshot::new(&freed), 1);
        let (root, passed) = (publisher.root(), publisher.progress(0));
        let worker = thread::spawn(move || {
            let mut read = root.load();
            let mut serial = 0;
            for _ in 0..3 {
                let root = root.load();
                if root.serial != read.serial {
                    read = root; // the cache lets go of the old one
                }
                assert!(read.serial >= serial, "never back");
                if read.serial != serial {
                    serial = read.serial;
                    passed.store(serial, std::sync::atomic::Ordering::Release);
                }
            }
            read
        });
        for serial in 2..=3 {
            assert_eq!(publisher.publish(Snapshot::new(&freed)), serial);
            publisher.reclaim();
        }
        let read = worker.join().unwrap();
        assert!(publisher.passed() <= read.serial);
        publisher.reclaim();
        let count = || freed.load(std::sync::atomic::Ordering::Relaxed);
        assert!(count() as u64 >= publisher.passed().saturating_sub(1), "what is passed is free");
        drop(read);
        drop(publisher);
        assert_eq!(count(), 3, "each once");
    });
}

/// One worker gives packets in two turns while the other takes: those that are not lost come once, in order.
#[test]
fn what_a_worker_hands_over_comes_once_or_is_counted() {
    loom::model(|| {
        let mut workers = HandOver::between(2);
        let mut to = workers.pop().expect("the second");
        let mut from = workers.pop().expect("the first");
        let giving = thread::spawn(move || {
            let mut lost = 0;
            for packets in [0..2, 2..4] {
                lost += packets.map(|packet| from.give(1, packet)).sum::<usize>();
                lost += from.flush();
            }
            (from, lost)
        });
        let mut taken = Vec::new();
        for _ in 0..2 {
            to.take(8, |packet| taken.push(packet));
        }
        let (_from, lost) = giving.join().unwrap();
        to.take(8, |packet| taken.push(packet));
        assert_eq!(taken.len() + lost, 4, "{taken:?} and {lost} lost");
        assert!(taken.is_sorted_by(|before, after| before < after), "{taken:?}");
        assert!(taken.starts_with(&[0, 1]), "there was room for the first two: {taken:?}");
    });
}
