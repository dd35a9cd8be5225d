//! The ways out of a worker.

use penstock_dpdk::{Mbuf, MbufBurst};
use penstock_forward::{DropReason, PortIdx};

use super::{Passed, Transmit, WorkerPort};
use crate::{
    handover::HandOver,
    statistics::{Activity, Drops, WorkerActivity},
};

/// What sending takes of a [`Path`](super::Path).
pub(super) struct Ways<'w> {
    pub(super) ports: &'w mut [WorkerPort],
    pub(super) handover: &'w mut HandOver<Passed>,
    pub(super) drops: Drops,
    pub(super) activity: WorkerActivity,
}

impl Ways<'_> {
    /// Adds a packet to what is to be sent, after making room if there is none.
    #[inline]
    pub(super) fn send(&mut self, port: PortIdx, mbuf: Mbuf) {
        let at = usize::from(port.0);
        if self.ports[at].sending.is_full() {
            self.flush(at);
        }
        let pushed = self.ports[at].sending.push(mbuf);
        debug_assert!(pushed.is_ok(), "a flushed burst is empty");
    }

    /// As [`Self::send`], of a whole burst.
    #[inline]
    pub(super) fn send_all(&mut self, port: PortIdx, mbufs: &mut MbufBurst) {
        let at = usize::from(port.0);
        if !self.ports[at].sending.append(mbufs) {
            self.flush(at);
            let appended = self.ports[at].sending.append(mbufs);
            debug_assert!(appended, "a flushed burst is empty");
        }
    }

    /// Sends what a port has collected. What a full transmit queue does not take is dropped: to wait here would only
    /// move the queue to where nobody counts it.
    pub(super) fn flush(&mut self, at: usize) {
        let WorkerPort { tx, sending, edge, .. } = &mut self.ports[at];
        if sending.is_empty() {
            return;
        }
        match tx {
            Transmit::Queue(queue) => {
                self.drops.count_many(DropReason::Oversized, edge.let_out(sending) as u64);
                let sent = queue.send(sending);
                self.activity.add(Activity::Transmitted, sent as u64);
                self.drops.count_many(DropReason::TransmitFull, sending.len() as u64);
                sending.clear();
            }
            Transmit::Through(worker) => {
                for mbuf in sending.drain() {
                    let lost =
                        self.handover.give(*worker, Passed::ToSend(mbuf, PortIdx(at as u16)));
                    self.drops.count_many(DropReason::HandOverFull, lost as u64);
                }
            }
        }
    }
}
