//! The two ends of a running port that packets move through.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use penstock_dpdk_sys as c;

use super::device::Device;
use crate::burst::MbufBurst;

/// Where packets come in. One of its kind, moved to the thread that polls it.
#[derive(Debug)]
pub struct RxQueue {
    port: u16,
    index: u16,
    device: Arc<Device>,
    one_thread: PhantomData<Cell<()>>, // Send, not Sync
}

/// Where packets go out. One of its kind, moved to the thread that fills it.
#[derive(Debug)]
pub struct TxQueue {
    port: u16,
    index: u16,
    /// Whether packets ask the NIC for something, and it may want them made ready for that.
    prepare: bool,
    device: Arc<Device>,
    one_thread: PhantomData<Cell<()>>, // Send, not Sync
}

impl RxQueue {
    pub(super) fn new(device: Arc<Device>, index: u16) -> Self {
        Self { port: device.id(), index, device, one_thread: PhantomData }
    }

    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Its number within the port.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Its port's number.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Adds the packets that have come in to `burst`, as many as it has room for, and says how many.
    ///
    /// Never waits. Give it an empty burst: vectorised PMDs receive nothing into room for less than
    /// four.
    #[inline]
    pub fn receive(&mut self, burst: &mut MbufBurst) -> usize {
        let (port, queue) = (self.port, self.index);
        let poll = |room: &mut [std::mem::MaybeUninit<crate::Mbuf>]| {
            // SAFETY: a `RxQueue` is made by `ConfiguredPort::start` and keeps its `Device` open, so
            // the port runs and the queue is set up; there is one per queue and `&mut self` keeps
            // other threads off it. `Mbuf` is a pointer to an `rte_mbuf`, and `room` has places for
            // as many as we offer, at most `BURST`.
            let count = unsafe {
                c::penstock_eth_rx_burst(port, queue, room.as_mut_ptr().cast(), room.len() as u16)
            };
            usize::from(count)
        };
        // SAFETY: the PMD wrote `count` packets to the front of `room`, owned by us alone from now
        // on; their pool lives as long as EAL.
        unsafe { burst.fill(poll) }
    }
}

impl TxQueue {
    pub(super) fn new(device: Arc<Device>, index: u16, prepare: bool) -> Self {
        Self { port: device.id(), index, prepare, device, one_thread: PhantomData }
    }

    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Its number within the port.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Its port's number.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends packets from the front of `burst`, as many as the ring has room for, and says how many.
    /// The rest stays in `burst`, in order: if the ring has room, its first cannot be sent.
    ///
    /// Never waits. An mbuf goes back to its pool some time after its packet has left.
    #[inline]
    pub fn send(&mut self, burst: &mut MbufBurst) -> usize {
        let (port, queue, prepare) = (self.port, self.index, self.prepare);
        let hand_over = |mbufs: &mut [crate::Mbuf]| {
            let mut count = mbufs.len() as u16;
            if prepare {
                // SAFETY: as below; it may put another mbuf in a packet's place, which is ours then.
                count = unsafe {
                    c::penstock_eth_tx_prepare(port, queue, mbufs.as_mut_ptr().cast(), count)
                };
            }
            // SAFETY: as in `RxQueue::receive` for port and queue; `mbufs` are packets of ours, at
            // most `BURST`, and the PMD owns those it says it took.
            let count =
                unsafe { c::penstock_eth_tx_burst(port, queue, mbufs.as_mut_ptr().cast(), count) };
            usize::from(count)
        };
        // SAFETY: what the PMD took is its own to free.
        unsafe { burst.take_front(hand_over) }
    }
}
