//! The exception path: frames between the workers and the kernel, by the companion interfaces.
//!
//! A thread of its own, off the lcores and off the thread that builds Maglev tables. Towards the
//! kernel each class of packet has its own rings and its own policer, so that a flood of pings can
//! not starve ARP or BGP, nor a flood of SYNs to SSH; higher classes go first. From the kernel every
//! frame goes to the first worker, which transmits it. Both ways are bounded per turn, and what does
//! not fit is counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use penstock_dpdk::{Mbuf, Mempool};
use penstock_forward::{DropReason, PuntClass};
use rtrb::{Consumer, Producer, RingBuffer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    kernel::{Attachment, Policer, Rate, Written},
    statistics::{Drops, PuntCells},
};

/// Packets of one class and one worker on their way to the kernel.
const RING_PACKETS: usize = 128;
/// Frames taken from one ring, or from one companion, in a turn.
const TURN_FRAMES: usize = 64;
/// How long the thread waits for the kernel before it looks at the workers' rings again: what a
/// punted packet may be late.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000 };

const CLASSES: usize = PuntClass::ALL.len();

/// What each class of [`PuntClass::ALL`] may bring to the kernel. ARP and ND are small but many when
/// a subnet wakes up; BGP is long flows; SSH is keystrokes and now and then a file; the L7 tier's TCP is
/// all of its clients'; the rest is ping and noise, which a kernel socket is not there to absorb.
const RATES: [Rate; CLASSES] =
    [rate(20_000, 20), rate(100_000, 250), rate(50_000, 75), rate(300_000, 400), rate(50_000, 75)];

/// So many packets and so many MB a second, and a tenth of it at once.
const fn rate(packets_per_second: u32, megabytes_per_second: u32) -> Rate {
    let bytes_per_second = megabytes_per_second * 1_000_000;
    Rate {
        packets_per_second,
        burst_packets: packets_per_second / 10,
        bytes_per_second,
        burst_bytes: bytes_per_second / 10,
    }
}

/// A worker's end for one port: a ring a class.
#[derive(Debug)]
pub struct PuntOutbox {
    classes: [Producer<Mbuf>; CLASSES],
}

impl PuntOutbox {
    /// An outbox, and the other ends of its rings, a class each.
    pub fn new() -> (Self, Vec<Consumer<Mbuf>>) {
        let mut inbox = Vec::with_capacity(CLASSES);
        let classes = std::array::from_fn(|_| {
            let (outbox, ring) = RingBuffer::new(RING_PACKETS);
            inbox.push(ring);
            outbox
        });
        (Self { classes }, inbox)
    }

    /// Gives a packet to the kernel.
    ///
    /// # Errors
    /// The packet back if the ring of its class is full.
    pub fn give(&mut self, class: PuntClass, mbuf: Mbuf) -> Result<(), Mbuf> {
        self.classes[class as usize].push(mbuf).map_err(|rtrb::PushError::Full(mbuf)| mbuf)
    }
}

/// One port's companion with the rings to and from the workers.
pub struct Companion {
    attachment: Attachment,
    inboxes: Vec<Vec<Consumer<Mbuf>>>,
    to_port: Producer<Mbuf>,
    policers: [Policer; CLASSES],
}

impl Companion {
    /// A companion, the workers' outboxes in order, and the first worker's inbox of kernel frames.
    pub fn new(attachment: Attachment, workers: usize) -> (Self, Vec<PuntOutbox>, Consumer<Mbuf>) {
        let (outboxes, inboxes) = (0..workers).map(|_| PuntOutbox::new()).unzip();
        let (to_port, from_kernel) = RingBuffer::new(RING_PACKETS);
        let policers = RATES.map(Policer::new);
        (Self { attachment, inboxes, to_port, policers }, outboxes, from_kernel)
    }
}

/// The thread and what it serves.
pub struct ExceptionPath {
    /// One a port, in order.
    pub companions: Vec<Companion>,
    /// Where frames of the kernel get their mbufs.
    pub mempool: Mempool,
    /// Losses on the way.
    pub drops: Drops,
    /// Packets and bytes by class.
    pub punts: PuntCells,
}

impl ExceptionPath {
    /// Serves until `stop`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(mut self, stop: Arc<AtomicBool>) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new().name("exception".into()).spawn(move || {
            let started = Instant::now();
            let frame_bytes = |companion: &Companion| companion.attachment.frame_bytes();
            let longest = self.companions.iter().map(frame_bytes).max();
            let mut buffer = vec![0; longest.unwrap_or_default()];
            let mut busy = false;
            while !stop.load(Ordering::Relaxed) {
                self.wait(busy);
                let now = started.elapsed();
                busy = self.turn(now, &mut buffer);
            }
        })
    }

    fn wait(&self, busy: bool) {
        let mut fds: Vec<PollFd<'_>> = self
            .companions
            .iter()
            .filter_map(|companion| companion.attachment.fd())
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let wait = if busy { Timespec { tv_sec: 0, tv_nsec: 0 } } else { WAIT };
        if poll(&mut fds, Some(&wait)).is_err() {
            thread::sleep(Duration::from_micros(500)); // interrupted: look at the rings all the same
        }
    }

    /// One bounded turn over all companions; whether there was anything to do.
    fn turn(&mut self, now: Duration, buffer: &mut [u8]) -> bool {
        let mut frames = 0;
        for companion in &mut self.companions {
            companion.attachment.keep(now);
            frames += companion.punt(now, self.drops, self.punts);
            frames += companion.take_from_kernel(now, &self.mempool, self.drops, buffer);
        }
        frames > 0
    }
}

impl Companion {
    fn punt(&mut self, now: Duration, drops: Drops, punts: PuntCells) -> usize {
        let mut frames = 0;
        for (at, class) in PuntClass::ALL.into_iter().enumerate() {
            for inbox in &mut self.inboxes {
                for _ in 0..TURN_FRAMES {
                    let Ok(mbuf) = inbox[at].pop() else { break };
                    frames += 1;
                    let frame = mbuf.data();
                    if !self.policers[at].admit(now, frame.len()) {
                        drops.count(DropReason::PuntPoliced);
                        continue;
                    }
                    match self.attachment.write_frame(frame, now) {
                        Written::Taken => punts.count(class, frame.len()),
                        Written::Refused => drops.count(DropReason::PuntFull),
                        Written::Lost => drops.count(DropReason::CompanionLost),
                    }
                }
            }
        }
        frames
    }

    fn take_from_kernel(
        &mut self,
        now: Duration,
        mempool: &Mempool,
        drops: Drops,
        buffer: &mut [u8],
    ) -> usize {
        for frames in 0..TURN_FRAMES {
            let Some(len) = self.attachment.read_frame(buffer, now) else { return frames };
            let Some(mut mbuf) = mempool.alloc() else {
                drops.count(DropReason::NoMbuf);
                continue;
            };
            if mbuf.append(&buffer[..len]).is_err() {
                drops.count(DropReason::Oversized);
            } else if self.to_port.push(mbuf).is_err() {
                drops.count(DropReason::TransmitFull);
            }
        }
        TURN_FRAMES
    }
}
