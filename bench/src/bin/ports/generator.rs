//! The other end of the wire: sends frames over memif and counts what comes back.
//!
//! It never has more than [`WINDOW`] frames out, which is less than a ring holds. So nothing can be lost
//! for want of room, whoever is preempted; what is lost was dropped on purpose. The forwarder is the
//! bottleneck as long as the generator has to wait for it, and the share of that time is told.

use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use penstock_dpdk::{
    BURST, Eal, Lcore, MbufBurst, Mempool, MempoolConfig, Port, PortConfig, RxQueue, TxQueue,
    cycles,
};

use crate::frames::{Frames, LEN, Tuple, is_ours};

/// Frames on their way at a time: half of memif's ring of 1024.
const WINDOW: usize = 512;
/// A frame that has not come back for so long will not come any more.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// A run is looked at in slices. The median of their rates is the run's, so that a preemption on a machine
/// with other work costs a slice and not the run.
const SLICE: Duration = Duration::from_millis(10);

/// How long frames are sent.
#[derive(Clone, Copy)]
pub(crate) enum Amount {
    /// Each once.
    Once,
    /// Round and round.
    For(Duration),
}

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// Frames that the ring took.
    pub(crate) sent: u64,
    /// Those that came back, whatever had become of them.
    pub(crate) returned: u64,
    /// The median of the slices' rates, in frames a second.
    pub(crate) rate: f64,
    /// The share of its time that the generator had nothing to do but wait.
    pub(crate) waited: f64,
    /// The tuples of answers to what came back, if they were asked for.
    pub(crate) answers: Vec<Tuple>,
}

struct Order {
    frames: Arc<Frames>,
    amount: Amount,
    answers: bool,
}

/// A memif port and a pinned thread that sends by it.
pub(crate) struct Generator {
    port: Port,
    orders: Sender<Order>,
    runs: Receiver<Run>,
    _eal: Eal,
}

impl Generator {
    /// Listens on `socket` and polls on `cpu`.
    pub(crate) fn start(socket: &str, cpu: usize) -> Result<Self, Box<dyn Error>> {
        let lcores = format!("0@{cpu},1@{cpu}");
        let vdev = format!("net_memif0,role=server,id=0,socket={socket},socket-abstract=no");
        let arguments = [
            ["--file-prefix", "penstock-ports"],
            ["--log-level", "error"],
            ["--lcores", &lcores],
            ["--vdev", &vdev],
            ["-m", "64"],
        ];
        let flags = ["--in-memory", "--no-pci", "--no-telemetry"];
        let mut eal = Eal::init(&[&flags, arguments.as_flattened()].concat())?;
        let pool = Mempool::new(&eal, "frames", &MempoolConfig::default())?;
        let port = eal.ports().pop().ok_or("EAL made no memif port: is its PMD installed?")?;
        let (port, rx, tx) = port.configure(&PortConfig::default(), &pool)?.start()?;
        let lcore = eal.lcores().pop().ok_or("EAL made no lcore")?;
        let (Some(rx), Some(tx)) = (rx.into_iter().next(), tx.into_iter().next()) else {
            return Err("the port has no queue".into());
        };
        let wire = Wire { rx, tx, pool, tsc_hz: eal.tsc_hz() };
        let (orders, runs) = wire.serve(lcore)?;
        Ok(Self { port, orders, runs, _eal: eal })
    }

    /// Whether somebody is at the other end.
    pub(crate) fn is_connected(&self) -> bool {
        self.port.link().is_ok_and(|link| link.up)
    }

    /// Sends and waits until all has come back. Keeps the tuples of answers if told to.
    ///
    /// # Errors
    /// If anything did not come back.
    pub(crate) fn run(
        &self,
        frames: Frames,
        amount: Amount,
        answers: bool,
    ) -> Result<Run, Box<dyn Error>> {
        self.orders.send(Order { frames: Arc::new(frames), amount, answers })?;
        let run = self.runs.recv()?;
        if run.sent == run.returned {
            Ok(run)
        } else {
            Err(format!("{} frames sent, {} came back", run.sent, run.returned).into())
        }
    }
}

/// What the thread owns.
struct Wire {
    rx: RxQueue,
    tx: TxQueue,
    pool: Mempool,
    tsc_hz: u64,
}

impl Wire {
    fn serve(mut self, lcore: Lcore) -> Result<(Sender<Order>, Receiver<Run>), Box<dyn Error>> {
        let (orders, ordered) = channel::<Order>();
        let (done, runs) = channel();
        lcore.launch(move || {
            for order in ordered {
                if done.send(self.run(&order)).is_err() {
                    break;
                }
            }
        })?;
        Ok((orders, runs))
    }

    fn run(&mut self, order: &Order) -> Run {
        let Order { frames, amount, answers } = order;
        let begin = cycles();
        let until = match amount {
            Amount::Once => None,
            Amount::For(time) => Some(begin + self.in_cycles(*time)),
        };
        let (lost_after, slice) = (self.in_cycles(LOST_AFTER), self.in_cycles(SLICE));
        let mut run = Run::default();
        let mut rates = Vec::with_capacity(4096);
        let mut burst = MbufBurst::new();
        let (mut next, mut last_return, mut waited) = (0, begin, 0);
        let (mut now, mut slice_begin, mut slice_returned) = (begin, begin, 0);
        loop {
            let more = until.map_or(next < frames.len(), |until| now < until);
            if !more && run.sent == run.returned || now - last_return > lost_after {
                break;
            }
            let received = self.rx.receive(&mut burst);
            run.returned += burst.iter().filter(|mbuf| is_ours(mbuf.data())).count() as u64;
            if *answers {
                let tuples = burst.iter().filter_map(|mbuf| Tuple::of_frame(mbuf.data()));
                run.answers.extend(tuples.map(Tuple::turned));
            }
            let room = WINDOW.saturating_sub((run.sent - run.returned) as usize).min(BURST);
            let room = match amount {
                Amount::Once => room.min(frames.len() - next),
                Amount::For(_) if more => room,
                Amount::For(_) => 0,
            };
            let sent = self.send(&mut burst, frames, &mut next, room);
            run.sent += sent as u64;
            burst.clear();

            let before = std::mem::replace(&mut now, cycles());
            if received > 0 {
                last_return = now;
            } else if sent == 0 {
                waited += now - before;
            }
            if more && now - slice_begin >= slice {
                let returned = run.returned - slice_returned;
                rates.push(returned as f64 * self.tsc_hz as f64 / (now - slice_begin) as f64);
                (slice_begin, slice_returned) = (now, run.returned);
            }
        }
        rates.sort_by(f64::total_cmp);
        run.rate = rates.get(rates.len() / 2).copied().unwrap_or_default();
        run.waited = waited as f64 / (now - begin).max(1) as f64;
        run
    }

    /// Sends the next `room` frames, in the buffers of `burst` and in new ones; returns how many were sent.
    #[inline]
    fn send(
        &mut self,
        burst: &mut MbufBurst,
        frames: &Frames,
        next: &mut usize,
        room: usize,
    ) -> usize {
        while burst.len() < room
            && let Some(mut mbuf) = self.pool.alloc()
            && mbuf.set_len(LEN as u16).is_ok()
            && burst.push(mbuf).is_ok()
        {}
        while burst.len() > room {
            drop(burst.pop());
        }
        let first = *next;
        for mbuf in burst.iter_mut() {
            *next = if *next < frames.len() { *next } else { 0 };
            if mbuf.set_len(LEN as u16).is_ok()
                && let Some(frame) = mbuf.data_mut().first_chunk_mut()
            {
                frames.write(*next, frame);
            }
            *next += 1;
        }
        let sent = self.tx.send(burst);
        if !burst.is_empty() {
            *next = (first + sent) % frames.len(); // those the ring did not take come again
        }
        sent
    }

    fn in_cycles(&self, time: Duration) -> u64 {
        (time.as_secs_f64() * self.tsc_hz as f64) as u64
    }
}
