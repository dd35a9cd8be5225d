//! The way of packets through a worker: from a queue, another worker or the kernel, through the forwarder, and out.

mod arrivals;
mod departures;
mod ways;

use arrayvec::ArrayVec;
use penstock_dpdk::{Mbuf, MbufBurst, Mempool, RxQueue, TxQueue};
use penstock_forward::{
    BURST, Burst, CameBy, DropReason, Exit, Forwarder, Learned, NextHopKey, Placed, PortIdx,
    RST_FRAME, Settled, Tick,
};
use rtrb::{Consumer, Producer};

use crate::{
    edge::Edge,
    exception::PuntOutbox,
    handover::HandOver,
    hold::Hold,
    inspect::Tracer,
    pieces::Pieces,
    published::Published,
    receive::Reception,
    statistics::{Activity, Arrived, Drops, PortArrivals, WorkerActivity},
};
use arrivals::Arrivals;
use departures::{Departures, Place};
use ways::Ways;

/// Where packets come from and go to.
pub struct Path {
    /// Ports by `PortIdx`.
    pub ports: Vec<WorkerPort>,
    /// Rings to and from the other workers.
    pub handover: HandOver<Passed>,
    /// Packets that wait for a MAC.
    pub hold: Hold<Mbuf>,
    /// Pieces of datagrams that wait for the first.
    pub pieces: Pieces<Handed>,
    /// Next hops for which the main lcore shall ask the kernel.
    pub unresolved: Producer<NextHopKey>,
    /// Buffers for packets of our own.
    pub mempool: Mempool,
    /// Packets that an operator watches.
    pub tracer: Tracer,
    /// Losses outside the forwarder.
    pub drops: Drops,
    /// What the worker has been doing.
    pub activity: WorkerActivity,
}

/// One port as one worker sees it: its queues of it, and what is to be sent.
pub struct WorkerPort {
    /// Only this worker receives here; it may have no queue of the port.
    pub rx: Option<RxQueue>,
    /// The way out.
    pub tx: Transmit,
    /// Packets of this turn, sent in one burst at its end.
    pub sending: MbufBurst,
    /// What frames are behind it.
    pub edge: Edge,
    /// The way to the kernel.
    pub punt: PuntOutbox,
    /// Frames of ours and of the kernel to be sent, in this order: one worker's alone.
    pub to_send: Vec<Consumer<Mbuf>>,
    /// How its packets come to the workers.
    pub reception: Reception,
    /// What is counted of them.
    pub arrivals: PortArrivals,
}

/// How a worker sends by a port.
pub enum Transmit {
    /// By a queue that is its own.
    Queue(TxQueue),
    /// It has none: this worker sends for it.
    Through(usize),
}

/// A packet on its way to another worker.
#[derive(Debug)]
pub enum Passed {
    /// To the owner of its flow.
    ToOwner(Handed),
    /// Ready, and to be sent by a port of which the first has no transmit queue.
    ToSend(Mbuf, PortIdx),
}

/// A packet on its way to its owner: the frame as it was received, by which port, and what is known of it if it is
/// a piece of a datagram.
#[derive(Debug)]
pub struct Handed {
    mbuf: Mbuf,
    ingress: PortIdx,
    learned: Option<Learned>,
}

impl Path {
    /// A turn's packets, from wherever they come, up to where they wait to be sent; how many moved.
    pub fn take_packets(
        &mut self,
        forwarder: &mut Forwarder<'_>,
        published: &Published,
        now: Tick,
    ) -> usize {
        let received = self.forward_received(forwarder, published, now);
        let handed = self.forward_all_handed(forwarder, published, now);
        self.forward_known_pieces(forwarder, published, now);
        received + handed + self.send_from_kernel()
    }

    fn forward_received(
        &mut self,
        forwarder: &mut Forwarder<'_>,
        published: &Published,
        now: Tick,
    ) -> usize {
        let mut packets = 0;
        for at in 0..self.ports.len() {
            let Some(rx) = &mut self.ports[at].rx else { continue };
            let mut arrivals = Arrivals::from(PortIdx(at as u16));
            let received = rx.receive(&mut arrivals.mbufs);
            if received > 0 {
                self.activity.add(Activity::Received, received as u64);
                self.take_in(PortIdx(at as u16), &mut arrivals.mbufs, now);
                let came_by = self.ports[at].reception.came_by();
                let handed_over = self.forward(arrivals, came_by, forwarder, published, now);
                self.ports[at].arrivals.add(Arrived::HandedOver, handed_over);
                if matches!(came_by, CameBy::Rss(_)) {
                    self.count_placed(at, forwarder.take_placed());
                }
                packets += received;
            }
        }
        packets
    }

    fn count_placed(&mut self, at: usize, placed: Placed) {
        let arrivals = self.ports[at].arrivals;
        arrivals.add(Arrived::RssMatch, placed.as_computed.into());
        arrivals.add(Arrived::RssMismatch, placed.elsewhere.into());
    }

    /// Makes frames of a port what the forwarder takes. What is not for it is lost here.
    #[inline]
    fn take_in(&mut self, port: PortIdx, received: &mut MbufBurst, now: Tick) {
        let (edge, drops, tracer) =
            (self.ports[usize::from(port.0)].edge, self.drops, &mut self.tracer);
        let put_together = edge.take_in(received, |mbuf, reason| {
            drops.count(reason);
            if tracer.is_watching() {
                tracer.refused(mbuf.data(), port, reason, penstock_dpdk::cycles(), now);
            }
        });
        if put_together > 0 {
            self.activity.add(Activity::Linearized, put_together as u64);
        }
    }

    /// As many bursts as may have been received in a turn: what others hand over arrives by all ports.
    fn forward_all_handed(
        &mut self,
        forwarder: &mut Forwarder<'_>,
        published: &Published,
        now: Tick,
    ) -> usize {
        let mut packets = 0;
        for _ in 0..=self.ports.len() {
            match self.forward_handed(forwarder, published, now) {
                0 => break,
                taken => packets += taken,
            }
        }
        packets
    }

    fn forward_handed(
        &mut self,
        forwarder: &mut Forwarder<'_>,
        published: &Published,
        now: Tick,
    ) -> usize {
        let mut arrivals = Arrivals::from(PortIdx(0));
        let mut to_send = ArrayVec::<_, BURST>::new_const();
        self.handover.take(BURST, |passed| match passed {
            Passed::ToOwner(handed) => arrivals.push(handed),
            Passed::ToSend(mbuf, port) => to_send.push((mbuf, port)),
        });
        let (handed, ready) = (arrivals.mbufs.len(), to_send.len());
        if ready > 0 {
            self.activity.add(Activity::SentForOthers, ready as u64);
            to_send.into_iter().for_each(|(mbuf, port)| self.send(port, mbuf));
        }
        if handed > 0 {
            self.activity.add(Activity::HandedIn, handed as u64);
            self.forward(arrivals, CameBy::Handed, forwarder, published, now);
        }
        handed + ready
    }

    /// Pieces of datagrams that waited and do no more, after the first.
    fn forward_known_pieces(
        &mut self,
        forwarder: &mut Forwarder<'_>,
        published: &Published,
        now: Tick,
    ) {
        self.settle_pieces(forwarder); // a sweep may have given some up
        loop {
            let mut arrivals = Arrivals::from(PortIdx(0));
            self.pieces.take_known(BURST).for_each(|piece| arrivals.push(piece));
            if arrivals.mbufs.is_empty() {
                break;
            }
            self.forward(arrivals, CameBy::Queue, forwarder, published, now);
        }
    }

    #[inline]
    fn settle_pieces(&mut self, forwarder: &mut Forwarder<'_>) {
        while let Some((datagram, settled)) = forwarder.settled() {
            match settled {
                Settled::Known(learned) => {
                    self.pieces.release(datagram, |piece| piece.learned = Some(learned));
                }
                Settled::Lost(reason) => {
                    self.drops.count_many(reason, self.pieces.discard(datagram) as u64);
                }
            }
        }
    }

    /// One burst through the forwarder; each packet leaves exactly once: sent, punted, handed over,
    /// held, or dropped and counted. Returns how many were to be handed over.
    #[inline]
    fn forward(
        &mut self,
        mut arrivals: Arrivals,
        came_by: CameBy,
        forwarder: &mut Forwarder<'_>,
        published: &Published,
        now: Tick,
    ) -> u64 {
        let traced = self.tracer.is_watching();
        if traced {
            self.trace_arrivals(&arrivals, now);
        }
        let departures = arrivals.walk(came_by, |burst| {
            forwarder.forward(burst, &published.snapshot, now);
            if traced {
                self.trace_burst(burst, forwarder, published);
            }
        });
        let handed_over = departures.handed_over();
        match departures.all_by() {
            Some(port) if !traced => {
                let lost = departures.place_all(&mut arrivals.mbufs);
                self.drops.count_many(DropReason::Oversized, lost as u64);
                self.ways().send_all(port, &mut arrivals.mbufs);
            }
            _ => self.dispatch_each(arrivals, &departures, now),
        }
        self.settle_pieces(forwarder);
        handed_over
    }

    #[cold]
    fn trace_arrivals(&mut self, arrivals: &Arrivals, now: Tick) {
        let cycles = penstock_dpdk::cycles();
        for (at, (mbuf, ingress)) in arrivals.mbufs.iter().zip(arrivals.ingress).enumerate() {
            self.tracer.arrived(at, mbuf.data(), ingress, cycles, now);
        }
    }

    #[cold]
    fn trace_burst(&mut self, burst: &Burst, forwarder: &Forwarder<'_>, published: &Published) {
        for (at, packet) in burst.iter().enumerate() {
            let traced = || forwarder.traced(at, &published.snapshot);
            self.tracer.forwarded(at, packet.frame(), packet.exit(), traced);
        }
    }
}

/// Where packets leave.
impl Path {
    /// Gives each packet of a burst to where it goes.
    fn dispatch_each(&mut self, mut arrivals: Arrivals, departures: &Departures, now: Tick) {
        let (traced, ingress) = (self.tracer.is_watching(), arrivals.ingress);
        for (at, (mbuf, (exit, place, learned))) in
            arrivals.mbufs.drain().zip(departures.each()).enumerate()
        {
            let packet = Handed { mbuf, ingress: ingress[at], learned };
            let lost = self.dispatch(packet, exit, place, now);
            if traced {
                self.tracer.dispatched(at, lost);
            }
        }
    }

    /// Gives the packet to where it goes. The reason if it is lost on the way; what only waits there may
    /// be lost later.
    fn dispatch(
        &mut self,
        packet: Handed,
        exit: Exit,
        place: Place,
        now: Tick,
    ) -> Option<DropReason> {
        let Handed { mut mbuf, ingress, learned } = packet;
        let fits = |mbuf: &mut Mbuf| place.apply(mbuf).is_ok();
        let lost = match exit {
            Exit::Send(port) if fits(&mut mbuf) => {
                self.send(port, mbuf);
                return None;
            }
            Exit::Hold(next_hop) if fits(&mut mbuf) => self.hold(mbuf, next_hop, now).err()?,
            Exit::Send(_) | Exit::Hold(_) => DropReason::Oversized,
            Exit::Punt(class) => {
                let punted = self.ports[usize::from(ingress.0)].punt.give(class, mbuf);
                punted.is_err().then_some(DropReason::PuntFull)?
            }
            Exit::HandOver(owner) => {
                let packet = Handed { mbuf, ingress, learned };
                let lost = self.handover.give(usize::from(owner.0), Passed::ToOwner(packet));
                self.drops.count_many(DropReason::HandOverFull, lost as u64);
                return None; // those lost are of a whole burst
            }
            Exit::Await(datagram) => {
                let piece = Handed { mbuf, ingress, learned };
                self.pieces.admit(datagram, piece).is_err().then_some(DropReason::FragmentLimit)?
            }
            Exit::Drop(_) => return None, // counted where the reason was found; the mbuf is freed here
        };
        self.drops.count(lost);
        Some(lost)
    }

    /// Tells the ends of connections that were cut, as many as a burst holds; the rest next turn, and all that find
    /// no buffer.
    #[cold]
    pub fn send_resets(&mut self, forwarder: &mut Forwarder<'_>, published: &Published, now: Tick) {
        let mut arrivals = Arrivals::from(PortIdx(0));
        for _ in 0..forwarder.resets_due().min(BURST) {
            let Some(mut mbuf) = self.mempool.alloc() else { break };
            let sized = mbuf.set_len(RST_FRAME as u16);
            debug_assert!(sized.is_ok(), "every pool has room for the shortest frames");
            arrivals.push(Handed { mbuf, ingress: PortIdx(0), learned: None });
        }
        let departures = arrivals.walk(CameBy::Queue, |burst| {
            forwarder.write_resets(burst, &published.snapshot);
        });
        self.dispatch_each(arrivals, &departures, now);
    }

    fn hold(&mut self, mbuf: Mbuf, next_hop: NextHopKey, now: Tick) -> Result<(), DropReason> {
        // A full ring means that the main lcore has enough to ask already; the next packet asks again.
        let _ = self.unresolved.push(next_hop);
        self.hold.admit(mbuf, next_hop, now).map_err(|_| DropReason::HoldFull)
    }

    /// Looks again at the packets that wait for a MAC.
    pub fn retry_held(&mut self, forwarder: &mut Forwarder<'_>, published: &Published, now: Tick) {
        while self.hold.expired(now).is_some() {
            self.drops.count(DropReason::HoldTimeout);
        }
        let Self { hold, ports, handover, drops, activity, unresolved, .. } = self;
        let mut ways = Ways { ports, handover, drops: *drops, activity: *activity };
        let snapshot = &published.snapshot;
        hold.retry(|mut mbuf, held_for| {
            match forwarder.resume(mbuf.data_mut(), held_for, snapshot) {
                Exit::Send(port) => {
                    ways.send(port, mbuf);
                    None
                }
                Exit::Hold(next_hop) => {
                    let _ = unresolved.push(next_hop); // its route may have moved, or the question got lost
                    Some((mbuf, next_hop))
                }
                Exit::Drop(reason) => {
                    ways.drops.count(reason);
                    None
                }
                // A rewritten frame is for none of these.
                Exit::Punt(_) | Exit::HandOver(_) | Exit::Await(_) => None,
            }
        });
    }

    fn ways(&mut self) -> Ways<'_> {
        let Self { ports, handover, drops, activity, .. } = self;
        Ways { ports, handover, drops: *drops, activity: *activity }
    }

    fn send(&mut self, port: PortIdx, mbuf: Mbuf) {
        self.ways().send(port, mbuf);
    }

    /// Sends and hands over what this turn has collected.
    pub fn flush(&mut self) {
        for at in 0..self.ports.len() {
            self.ways().flush(at);
        }
        self.drops.count_many(DropReason::HandOverFull, self.handover.flush() as u64);
    }

    fn send_from_kernel(&mut self) -> usize {
        let mut frames = 0;
        for at in 0..self.ports.len() {
            let mut rings = std::mem::take(&mut self.ports[at].to_send); // while the port is written to
            frames += take_burst(&mut rings, |mbuf| self.send(PortIdx(at as u16), mbuf));
            self.ports[at].to_send = rings;
        }
        frames
    }
}

/// Takes a burst at most from one port's rings, the first ring first; returns how many it took.
fn take_burst<T>(rings: &mut [Consumer<T>], mut take: impl FnMut(T)) -> usize {
    let mut taken = 0;
    for ring in rings {
        while taken < BURST
            && let Ok(frame) = ring.pop()
        {
            taken += 1;
            take(frame);
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use rtrb::RingBuffer;

    use super::*;

    fn ring(frames: std::ops::Range<usize>) -> Consumer<usize> {
        let (mut producer, consumer) = RingBuffer::new(4 * BURST);
        frames.for_each(|frame| producer.push(frame).unwrap());
        consumer
    }

    #[test]
    fn every_port_has_a_burst_a_turn_and_announcements_go_first() {
        let mut ports = [0..0, 0..20].map(|ours| [ring(ours), ring(100..100 + 3 * BURST)]);
        let mut turn = || {
            ports.each_mut().map(|rings| {
                let mut sent = Vec::new();
                assert_eq!(take_burst(rings, |frame| sent.push(frame)), sent.len());
                sent
            })
        };
        let (kernel, ours): (Vec<_>, Vec<_>) = ((100..100 + BURST).collect(), (0..20).collect());
        let [first, second] = turn();
        assert_eq!(first, kernel, "a burst of the kernel's");
        assert_eq!(
            second,
            [&ours, &kernel[..BURST - 20]].concat(),
            "the other port's ours, then as many"
        );
        assert_eq!(
            turn()[1],
            (0..BURST).map(|at| 80 + BURST + at).collect::<Vec<_>>(),
            "and then the kernel's alone"
        );
    }
}
