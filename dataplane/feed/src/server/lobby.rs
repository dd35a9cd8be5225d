//! Producers that have connected and not yet said who they are.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::net::{SocketFlags, accept_with, sockopt::socket_peercred};

use super::{LOBBY, Peer, watch};
use crate::record::FEED_VERSION;
use crate::session::{FromProducer, Received, receive_from_producer, send_refused};

/// How many may wait. One more sends the longest-waiting away, so that silent ones block nobody.
const MAX_WAITING: usize = 4;

/// How many are accepted in a step.
const MAX_ACCEPTS: usize = 4;

#[derive(Debug)]
pub(super) struct Lobby {
    allowed_uids: Vec<u32>,
    waiting: VecDeque<Waiting>,
}

/// A producer whose user is allowed, before its first message.
#[derive(Debug)]
pub(super) struct Waiting {
    socket: OwnedFd,
    peer: Peer,
}

impl Waiting {
    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    pub(super) fn refuse(&self, reason: &str) {
        send_refused(&self.socket, reason);
    }
}

impl Lobby {
    pub(super) fn new(allowed_uids: &[u32]) -> Self {
        Self { allowed_uids: allowed_uids.to_vec(), waiting: VecDeque::new() }
    }

    /// Takes who has connected, and sends away whom it does not know.
    pub(super) fn accept(&mut self, listener: &OwnedFd, epoll: &OwnedFd) {
        for _ in 0..MAX_ACCEPTS {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok(socket) = accept_with(listener, flags) else { return }; // none, or out of descriptors
            let Ok(credentials) = socket_peercred(&socket) else { continue };
            let peer = Peer { pid: credentials.pid.as_raw_pid(), uid: credentials.uid.as_raw() };
            if !self.allowed_uids.contains(&peer.uid) {
                tracing::warn!(pid = peer.pid, uid = peer.uid, "a producer of a user that may not");
                let allowed = &self.allowed_uids;
                send_refused(
                    &socket,
                    &format!(
                        "uid {} may not feed this process, allowed are {allowed:?}: run the control plane as one of these",
                        peer.uid
                    ),
                );
                continue;
            }
            if watch(epoll, &socket, LOBBY, EventFlags::IN).is_err() {
                continue;
            }
            if self.waiting.len() == MAX_WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(Waiting { socket, peer });
        }
    }

    /// Those whose first message came and is right, in the order they connected.
    pub(super) fn ready(&mut self) -> Vec<Waiting> {
        let mut ready = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            match receive_from_producer(&waiting.socket) {
                Received::Nothing => self.waiting.push_back(waiting),
                Received::HungUp => {}
                Received::Message(FromProducer::Connect) => ready.push(waiting),
                Received::Message(FromProducer::OtherVersion(theirs)) => {
                    let reason = format!(
                        "this end speaks feed {FEED_VERSION}, the control process {theirs}: upgrade the older of the two"
                    );
                    tracing::warn!(pid = waiting.peer.pid, reason, "producer refused");
                    waiting.refuse(&reason);
                }
                Received::Message(FromProducer::Nonsense) => {
                    tracing::warn!(pid = waiting.peer.pid, "what connected is no producer");
                    waiting.refuse("this socket takes penstock's feed and nothing else");
                }
            }
        }
        ready
    }
}
