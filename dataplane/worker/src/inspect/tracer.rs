//! Packets that an operator watches: copied as they arrive and as they leave, with what became of them.
//!
//! ```text
//!  worker   arrived ─▶ (forwarder) ─▶ forwarded ─▶ (dispatch) ─▶ dispatched ─▶ sightings ─▶ the asker
//!               ▲ free ◀────────────────────────────────────────────────────────────────────────┘
//! ```
//! The boxes go round and are made once. Nobody watching, a burst costs one look at an `Option`. A
//! packet that finds no free box is counted as missed, if the filter means it as it came.

use penstock_feed::inspect::{MOST_FRAME_BYTES, PacketFilter};
use penstock_forward::{BURST, DropReason, Exit, PortIdx, Tick, Traced, tuple_of};
use rtrb::{Consumer, Producer, RingBuffer};

/// Sightings of one worker that may be under way.
const SIGHTINGS: usize = 4 * BURST;

/// What is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) filter: PacketFilter,
    /// So many more.
    pub(super) left: u64,
    /// At most so many bytes of a frame.
    pub(super) frame_bytes: usize,
}

/// The beginning of a frame.
#[derive(Debug)]
pub(super) struct Kept {
    bytes: [u8; MOST_FRAME_BYTES],
    kept: usize,
    /// Bytes of the whole frame.
    pub(super) len: usize,
}

impl Kept {
    const NONE: Self = Self { bytes: [0; MOST_FRAME_BYTES], kept: 0, len: 0 };

    fn keep(&mut self, frame: &[u8], most: usize) {
        self.len = frame.len();
        self.kept = frame.len().min(most).min(MOST_FRAME_BYTES);
        self.bytes[..self.kept].copy_from_slice(&frame[..self.kept]);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.kept]
    }
}

/// A packet as it was met.
#[derive(Debug)]
pub(super) struct Sighting {
    pub(super) cycles: u64,
    pub(super) now: Tick,
    pub(super) ingress: PortIdx,
    pub(super) arrived: Kept,
    pub(super) left: Kept,
    pub(super) traced: Traced,
    pub(super) exit: Exit,
    /// Whether the filter means it, as it came or as it left.
    meant: bool,
}

/// The worker's side.
#[derive(Debug)]
pub struct Tracer {
    watch: Option<Watch>,
    /// The sightings of the burst under way, by the packet's place.
    chosen: [Option<Box<Sighting>>; BURST],
    free: Consumer<Box<Sighting>>,
    /// Chosen, and then not lost: chosen again first. Never more than all there are.
    spare: Vec<Box<Sighting>>,
    sightings: Producer<Box<Sighting>>,
    missed: u64,
}

/// The asker's side.
#[derive(Debug)]
pub(super) struct Sightings {
    free: Producer<Box<Sighting>>,
    sightings: Consumer<Box<Sighting>>,
}

/// The two sides of one worker.
pub(super) fn tracer_and_sightings() -> (Tracer, Sightings) {
    let (mut recycle, free) = RingBuffer::new(SIGHTINGS);
    let (push, sightings) = RingBuffer::new(SIGHTINGS);
    for _ in 0..SIGHTINGS {
        let blank = Sighting {
            cycles: 0,
            now: Tick(0),
            ingress: PortIdx(0),
            arrived: Kept::NONE,
            left: Kept::NONE,
            traced: Traced::Parsed,
            exit: Exit::Drop(DropReason::Truncated),
            meant: false,
        };
        let pushed = recycle.push(Box::new(blank));
        debug_assert!(pushed.is_ok(), "the ring holds as many");
    }
    let tracer = Tracer {
        watch: None,
        chosen: std::array::from_fn(|_| None),
        free,
        spare: Vec::with_capacity(SIGHTINGS),
        sightings: push,
        missed: 0,
    };
    (tracer, Sightings { free: recycle, sightings })
}

impl Sightings {
    /// Shows the next sighting to `each`, if there is one.
    pub(super) fn next<T>(&mut self, each: impl FnOnce(&Sighting) -> T) -> Option<T> {
        let sighting = self.sightings.pop().ok()?;
        let seen = each(&sighting);
        let freed = self.free.push(sighting);
        debug_assert!(freed.is_ok(), "there are no more than the ring holds");
        Some(seen)
    }
}

impl Tracer {
    /// Watches what `watch` says from now on; returns how many were missed of what was watched before.
    pub(super) fn watch(&mut self, watch: Option<Watch>) -> u64 {
        self.watch = watch;
        std::mem::take(&mut self.missed)
    }

    /// Whether anything is watched: if not, the other methods need not be called.
    #[inline]
    pub fn is_watching(&self) -> bool {
        self.watch.is_some()
    }

    /// A packet has come, not yet forwarded. Whether it is meant is not known before it has left.
    #[cold]
    pub fn arrived(&mut self, at: usize, frame: &[u8], ingress: PortIdx, cycles: u64, now: Tick) {
        let Some(watch) = self.watch.filter(|watch| watch.left > 0) else { return };
        let Some(mut sighting) = self.spare.pop().or_else(|| self.free.pop().ok()) else {
            self.missed += u64::from(is_meant(&watch, frame));
            return;
        };
        (sighting.cycles, sighting.now, sighting.ingress) = (cycles, now, ingress);
        sighting.meant = is_meant(&watch, frame);
        sighting.arrived.keep(frame, watch.frame_bytes);
        self.chosen[at % BURST] = Some(sighting);
    }

    /// A packet has come, and was lost before the forwarder saw it.
    #[cold]
    pub fn refused(
        &mut self,
        frame: &[u8],
        ingress: PortIdx,
        reason: DropReason,
        cycles: u64,
        now: Tick,
    ) {
        self.arrived(0, frame, ingress, cycles, now);
        self.forwarded(0, frame, Exit::Drop(reason), || Traced::Parsed);
        self.dispatched(0, None);
    }

    /// The forwarder has decided; `frame` is what it made of it.
    #[cold]
    pub fn forwarded(
        &mut self,
        at: usize,
        frame: &[u8],
        exit: Exit,
        traced: impl FnOnce() -> Traced,
    ) {
        let (Some(sighting), Some(watch)) = (&mut self.chosen[at % BURST], &self.watch) else {
            return;
        };
        let leaves = matches!(exit, Exit::Send(_) | Exit::Hold(_));
        sighting.meant |= leaves && is_meant(watch, frame);
        if sighting.meant {
            (sighting.exit, sighting.traced) = (exit, traced());
            sighting.left.keep(if leaves { frame } else { &[] }, watch.frame_bytes);
        }
    }

    /// The packet has left by its exit, or was `lost` there.
    #[cold]
    pub fn dispatched(&mut self, at: usize, lost: Option<DropReason>) {
        let (Some(mut sighting), Some(watch)) = (self.chosen[at % BURST].take(), &mut self.watch)
        else {
            return;
        };
        if let Some(reason) = lost {
            sighting.exit = Exit::Drop(reason);
        }
        let is_lost = matches!(sighting.exit, Exit::Drop(_));
        if !sighting.meant || (watch.filter.dropped && !is_lost) || watch.left == 0 {
            self.spare.push(sighting);
            return;
        }
        watch.left -= 1;
        let pushed = self.sightings.push(sighting);
        debug_assert!(pushed.is_ok(), "there are no more than the ring holds");
    }
}

/// Whether the filter means a frame by its tuple.
fn is_meant(watch: &Watch, frame: &[u8]) -> bool {
    let tuple = tuple_of(frame).map(|key| (key.source(), key.destination(), key.number()));
    watch.filter.matches(tuple)
}
