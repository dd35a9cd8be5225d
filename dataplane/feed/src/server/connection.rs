//! One producer that was let in: its rings, its doorbell, its socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::lobby::Waiting;
use super::outbox::Outbox;
use super::{CONNECTION, DOORBELL, Peer, watch};
use crate::ack::Ack;
use crate::decode::{DecodeError, decode};
use crate::record::Record;
use crate::ring::{Geometry, MapError, Reader, RingError, RingMemory, SharedRings};
use crate::session::{Hello, ring_by_socket, send_ended, send_hello};

#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    doorbell: OwnedFd,
    peer: Peer,
    feed: Reader<RingMemory>,
    outbox: Outbox,
    record: Vec<u8>,
    consumed: bool, // since the producer was last woken
    hung_up: bool,
    broken: Option<RingError>, // found while answering; the next read reports it
}

/// Why a producer that may come in cannot.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Map(#[from] MapError),
    #[error("{0}")]
    Kernel(#[from] Errno),
}

/// What a producer did that no honest one does.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl Connection {
    /// Makes new memory and a new doorbell and hands them over with the hello. A producer that
    /// cannot be let in is told why.
    pub(super) fn open(
        waiting: Waiting,
        hello: &Hello,
        epoll: &OwnedFd,
    ) -> Result<Self, OpenError> {
        let (rings, doorbell) = hand_over(&waiting, hello, epoll).inspect_err(|error| {
            waiting.refuse(&format!("this end cannot let anyone in now: {error}"));
        })?;
        let ((feed, feed_words), (acks, ack_words)) = (rings.feed(), rings.ack());
        Ok(Self {
            peer: waiting.peer(),
            socket: waiting.into_socket(),
            doorbell,
            feed: Reader::new(feed, feed_words),
            outbox: Outbox::new(acks, ack_words),
            record: Vec::new(),
            consumed: false,
            hung_up: false,
            broken: None,
        })
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Copies one record out of the ring and decodes it; `None` if there is none.
    pub(super) fn receive(&mut self) -> Result<Option<Record>, ReceiveError> {
        if let Some(error) = self.broken.take() {
            return Err(error.into());
        }
        if !self.feed.pop(&mut self.record)? {
            return Ok(None);
        }
        self.consumed = true;
        let (record, _) = decode(&self.record)?;
        Ok(Some(record))
    }

    /// Puts an acknowledgement on its way; [`Self::answer`] sends it.
    pub(super) fn post(&mut self, ack: Ack) {
        if !self.hung_up {
            self.outbox.post(ack);
        }
    }

    /// Writes the acknowledgements that there is room for, and wakes the producer if it has
    /// something to read or room to write.
    pub(super) fn answer(&mut self) {
        if self.hung_up {
            return;
        }
        match self.outbox.flush() {
            Ok(written) if written || self.consumed => ring_by_socket(&self.socket),
            Ok(_) => {}
            Err(error) => self.broken = Some(error),
        }
        self.consumed = false;
    }

    /// The producer is gone. What it published until now can still be read.
    pub(super) fn hang_up(&mut self) -> Result<(), RingError> {
        self.hung_up = true;
        self.feed.seal()
    }

    pub(super) fn is_hung_up(&self) -> bool {
        self.hung_up
    }

    /// Says why and hangs up. Nothing that the producer writes from now on is seen by anybody.
    pub(super) fn end(self, reason: &str, epoll: &OwnedFd) {
        if !self.hung_up {
            send_ended(&self.socket, reason);
        }
        self.unwatch(epoll);
    }

    /// Makes the epoll report the doorbell once more, since records were left in the ring.
    pub(super) fn ring_again(&self, epoll: &OwnedFd) {
        let doorbell = EventData::new_u64(DOORBELL);
        let _ = epoll::modify(epoll, &self.doorbell, doorbell, EventFlags::IN | EventFlags::ET);
    }

    /// Must be called before the descriptors are closed: an epoll watches the open file, which in
    /// the doorbell's case the producer keeps open for as long as it likes.
    fn unwatch(&self, epoll: &OwnedFd) {
        let _ = epoll::delete(epoll, &self.socket);
        let _ = epoll::delete(epoll, &self.doorbell);
    }
}

fn hand_over(
    waiting: &Waiting,
    hello: &Hello,
    epoll: &OwnedFd,
) -> Result<(SharedRings, OwnedFd), OpenError> {
    let (memfd, rings) = SharedRings::create(Geometry::DEFAULT)?;
    let doorbell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let socket = waiting.socket();
    epoll::modify(epoll, socket, EventData::new_u64(CONNECTION), EventFlags::IN)?;
    watch(epoll, &doorbell, DOORBELL, EventFlags::IN | EventFlags::ET)?;
    if let Err(errno) =
        send_hello(socket, hello, Geometry::DEFAULT, [memfd.as_fd(), doorbell.as_fd()])
    {
        let _ = epoll::delete(epoll, &doorbell); // the message may have been seen all the same
        return Err(errno.into());
    }
    Ok((rings, doorbell))
}
