//! The control plane's end: what to send, and what came back.
//!
//! A [`Producer`] is one connection. It decides by itself how little to send: nothing if the
//! consumer already holds the generation and the digest, the difference from what it knows the
//! consumer to hold, or everything. Who knows the difference says it by [`Producer::publish_changes`],
//! and nothing else is looked at. It blocks at most until the deadline given, in poll(2).

mod error;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};

use crate::ack::{Ack, AckAssembly};
use crate::decode::decode;
use crate::digest::Digest;
use crate::encode::encode;
use crate::model::{Change, State, Touched};
use crate::record::{Begin, Commit, FEED_VERSION, Record};
use crate::ring::{Geometry, MapError, Reader, RingMemory, SharedRings, Writer};
use crate::session::{FromConsumer, Hello, Received, connect_message, receive_from_consumer};
use crate::tracked::Tracked;

pub use error::{ConnectError, Disconnected, PublishError};

/// What it took to publish a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// How it was told.
    pub kind: PublishedKind,
    /// Records sent between begin and commit.
    pub records: usize,
}

/// How a state was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishedKind {
    /// Not at all: generation and digest are what the data plane holds.
    Nothing,
    /// As a difference.
    Delta,
    /// As a whole.
    Snapshot,
}

/// A connection to one data plane. Dropping it hangs up.
#[derive(Debug)]
pub struct Producer {
    socket: OwnedFd,
    doorbell: OwnedFd,
    feed: Writer<RingMemory>,
    acks: Reader<RingMemory>,
    hello: Hello,
    held: Option<(u64, Digest)>, // what the peer has or was sent; None after a refusal
    known: Option<Tracked>,      // the state of that digest, if we have it
    assembly: AckAssembly,
    arrived: VecDeque<Ack>,
    buffer: Vec<u8>,
}

impl Producer {
    /// Connects to the data plane whose socket is at `path` and waits for its hello, at most
    /// `timeout`. An older connection of anybody's ends by it.
    ///
    /// # Errors
    /// [`ConnectError`], each variant with the socket and the next move.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, ConnectError> {
        let deadline = Instant::now() + timeout;
        let socket = open_socket(path, deadline)?;
        // A refusal may have come before our first message could be sent; it is read below.
        let _ = send(&socket, &connect_message(FEED_VERSION.into()), SendFlags::NOSIGNAL);
        let (hello, geometry, descriptors) = wait_for_hello(&socket, path, deadline)?;
        let broken = |reason: String| ConnectError::Broken { path: path.into(), reason };
        let [memfd, doorbell] = <[OwnedFd; 2]>::try_from(descriptors)
            .map_err(|got| broken(format!("its hello has {} descriptors of 2", got.len())))?;
        let rings = SharedRings::open(&memfd, geometry)
            .map_err(|error: MapError| broken(error.to_string()))?;
        let ((feed, feed_words), (acks, ack_words)) = (rings.feed(), rings.ack());
        Ok(Self {
            socket,
            doorbell,
            feed: Writer::new(feed, feed_words),
            acks: Reader::new(acks, ack_words),
            hello,
            held: Some((hello.generation, hello.digest)),
            known: (hello.digest == Digest::EMPTY).then(Tracked::default),
            assembly: AckAssembly::default(),
            arrived: VecDeque::new(),
            buffer: Vec::new(),
        })
    }

    /// What the data plane said when it let us in.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Offers a state that the data plane may hold, such as the last one published before a
    /// restart. If the digests agree, it passes [`State::check`], as the data plane's does, and the next
    /// [`Self::publish`] can send a difference to it.
    pub fn adopt(&mut self, state: &Arc<State>) -> bool {
        let tracked = Tracked::of(Arc::clone(state));
        let agrees = self.held.is_some_and(|(_, digest)| digest == tracked.digest());
        if agrees {
            self.known = Some(tracked);
        }
        agrees
    }

    /// Brings the data plane to `next`, under `generation`, with as few records as it knows how.
    /// It has been sent when this returns; that it is in force, an [`Ack`] says.
    ///
    /// `generation` rises with every new state. Repeating a call is safe at any time and sends
    /// nothing if nothing is missing; after an [`Ack`] with `wants_snapshot` it sends everything.
    /// Costs a comparison of each object that is not shared with the last state published, and hashes
    /// and checks of what changed.
    ///
    /// # Errors
    /// [`PublishError`]; the data plane then goes on with what it had.
    pub fn publish(
        &mut self,
        generation: u64,
        next: &Arc<State>,
        deadline: Instant,
    ) -> Result<Published, PublishError> {
        self.listen()?;
        let plan = match (&self.known, self.held) {
            (Some(known), Some(base)) => Plan::delta(base, known, known.state().diff(next))?,
            (_, held) => Plan::snapshot(held, next)?,
        };
        let mut plan = self.within_generations(generation, plan)?;
        plan.next.hold(next);
        self.send(generation, plan, deadline)
    }

    /// Brings the data plane from the state of the last call to that with `changes`, in order, made
    /// to it. As [`Self::publish`] does with the two states, but at the cost of the changes, however
    /// many other objects there are.
    ///
    /// # Errors
    /// [`PublishError`]; the data plane then goes on with what it had.
    /// [`PublishError::StateUnknown`] before the first call, unless a state was adopted, and after an
    /// [`Ack`] with a refusal: [`Self::publish`] the whole.
    pub fn publish_changes(
        &mut self,
        generation: u64,
        changes: Vec<Change>,
        deadline: Instant,
    ) -> Result<Published, PublishError> {
        self.listen()?;
        let (Some(known), Some(base)) = (&self.known, self.held) else {
            return Err(PublishError::StateUnknown);
        };
        let plan = self.within_generations(generation, Plan::delta(base, known, changes)?)?;
        self.send(generation, plan, deadline)
    }

    /// Brings the data plane to `next`, which differs from the state of the last call ([`Self::state`]) in nothing
    /// but what was `touched`, at the cost of that. `give` is asked for the generation once the digest is known.
    /// Returns both with what was sent.
    ///
    /// # Errors
    /// Those of [`Self::publish_changes`]; [`Self::publish`] the whole after any.
    pub fn publish_touched(
        &mut self,
        next: &Arc<State>,
        touched: &Touched,
        give: impl FnOnce(Digest) -> u64,
        deadline: Instant,
    ) -> Result<(u64, Digest, Published), PublishError> {
        self.listen()?;
        let (Some(known), Some(base)) = (&self.known, self.held) else {
            return Err(PublishError::StateUnknown);
        };
        let plan = Plan::delta(base, known, known.state().diff_of(next, touched))?;
        let digest = plan.next.digest();
        let generation = give(digest);
        let mut plan = self.within_generations(generation, plan)?;
        plan.next.hold(next);
        Ok((generation, digest, self.send(generation, plan, deadline)?))
    }

    /// The state that the last call led to, or that was adopted; `None` if that is not known.
    pub fn state(&self) -> Option<&Arc<State>> {
        self.known.as_ref().map(Tracked::state)
    }

    fn send(
        &mut self,
        generation: u64,
        plan: Plan,
        deadline: Instant,
    ) -> Result<Published, PublishError> {
        let published = Published { kind: plan.kind, records: plan.changes.len() };
        if plan.kind != PublishedKind::Nothing {
            self.send_transaction(generation, &plan, deadline)?;
        }
        self.held = Some((generation, plan.next.digest()));
        self.known = Some(plan.next);
        Ok(published)
    }

    fn within_generations(&self, generation: u64, plan: Plan) -> Result<Plan, PublishError> {
        let Some((held, digest)) = self.held else { return Ok(plan) };
        if digest == plan.next.digest() && held == generation {
            return Ok(Plan { kind: PublishedKind::Nothing, changes: Vec::new(), ..plan });
        }
        if generation <= held {
            return Err(PublishError::GenerationNotRaised { given: generation, held });
        }
        Ok(plan)
    }

    fn send_transaction(
        &mut self,
        generation: u64,
        plan: &Plan,
        deadline: Instant,
    ) -> Result<(), PublishError> {
        let begin = Begin { epoch: self.hello.epoch, generation, base: plan.base };
        let commit =
            Commit { generation, digest: plan.next.digest(), changes: plan.changes.len() as u64 };
        let changes = plan.changes.iter().cloned().map(Record::Change);
        let records = [Record::Begin(begin)].into_iter().chain(changes);
        for (sent, record) in records.chain([Record::Commit(commit)]).enumerate() {
            if !self.send_record(&record, deadline)? {
                return Err(PublishError::Deadline { sent, records: plan.changes.len() + 2 });
            }
        }
        self.ring();
        Ok(())
    }

    /// `false` if there was no room until the deadline.
    fn send_record(&mut self, record: &Record, deadline: Instant) -> Result<bool, Disconnected> {
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.clear();
        encode(record, &mut bytes);
        let pushed = loop {
            match self.feed.push(&bytes) {
                Ok(true) => break Ok(true),
                Ok(false) if Instant::now() >= deadline => break Ok(false),
                Ok(false) => {
                    self.ring();
                    if let Err(gone) = self.wait_readable(deadline).and_then(|()| self.listen()) {
                        break Err(gone);
                    }
                }
                Err(error) => break Err(Disconnected::Broken { reason: error.to_string() }),
            }
        };
        self.buffer = bytes;
        pushed
    }

    fn ring(&self) {
        // A counter at its top means that the consumer was rung and has not looked yet.
        let _ = rustix::io::write(&self.doorbell, &1_u64.to_ne_bytes());
    }

    /// Waits for acknowledgements, at most `timeout`; empty if none came. To wait for something
    /// else besides, poll the descriptor ([`AsFd`]) and call this with a timeout of zero.
    ///
    /// # Errors
    /// [`Disconnected`], once all that arrived before it has been returned.
    pub fn wait(&mut self, timeout: Duration) -> Result<Vec<Ack>, Disconnected> {
        let deadline = Instant::now() + timeout;
        loop {
            let listened = self.listen();
            if !self.arrived.is_empty() {
                return Ok(self.arrived.drain(..).collect());
            }
            listened?;
            if Instant::now() >= deadline {
                return Ok(Vec::new());
            }
            self.wait_readable(deadline)?;
        }
    }

    /// Takes what the consumer said since the last time, without waiting.
    fn listen(&mut self) -> Result<(), Disconnected> {
        let said = self.empty_socket();
        self.take_acks()?; // those that came before the end too
        said
    }

    fn empty_socket(&self) -> Result<(), Disconnected> {
        loop {
            match receive_from_consumer(&self.socket) {
                Received::Nothing => return Ok(()),
                Received::HungUp => return Err(Disconnected::HungUp),
                Received::Message((Some(FromConsumer::Doorbell), _)) => {}
                Received::Message((Some(FromConsumer::Ended(reason)), _)) => {
                    return Err(Disconnected::Ended { reason });
                }
                Received::Message((other, _)) => {
                    return Err(Disconnected::Broken { reason: format!("it said {other:?}") });
                }
            }
        }
    }

    fn take_acks(&mut self) -> Result<(), Disconnected> {
        let broken = |reason: String| Disconnected::Broken { reason };
        let mut bytes = std::mem::take(&mut self.buffer);
        while self.acks.pop(&mut bytes).map_err(|error| broken(error.to_string()))? {
            let (record, _) = decode(&bytes).map_err(|error| broken(error.to_string()))?;
            let Some(ack) = self.assembly.take(record).map_err(broken)? else { continue };
            if ack.refused.is_some() || ack.wants_snapshot {
                self.held = None; // so that the next one is a snapshot
                self.known = None;
            }
            self.arrived.push_back(ack);
        }
        self.buffer = bytes;
        Ok(())
    }

    fn wait_readable(&self, deadline: Instant) -> Result<(), Disconnected> {
        wait_readable(&self.socket, deadline)
            .map_err(|error| Disconnected::Broken { reason: format!("poll: {error}") })
    }
}

impl AsFd for Producer {
    /// Readable when acknowledgements arrive, when room was made, and at a hang-up.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What will be sent, and the state it leads to.
struct Plan {
    kind: PublishedKind,
    base: Option<(u64, Digest)>,
    changes: Vec<Change>,
    next: Tracked,
}

impl Plan {
    fn delta(
        base: (u64, Digest),
        known: &Tracked,
        changes: Vec<Change>,
    ) -> Result<Self, PublishError> {
        let from_nothing = base == (0, Digest::EMPTY);
        let kind = if from_nothing { PublishedKind::Snapshot } else { PublishedKind::Delta };
        let next = apply(known.clone(), &changes)?;
        Ok(Self { kind, base: (!from_nothing).then_some(base), changes, next })
    }

    /// Everything; or, if the peer holds that very state under an older generation, nothing but
    /// the new generation.
    fn snapshot(held: Option<(u64, Digest)>, next: &State) -> Result<Self, PublishError> {
        let changes = State::default().diff(next);
        let next = apply(Tracked::default(), &changes)?;
        match held {
            Some(base) if base.1 == next.digest() => {
                Ok(Self { kind: PublishedKind::Delta, base: Some(base), changes: Vec::new(), next })
            }
            _ => Ok(Self { kind: PublishedKind::Snapshot, base: None, changes, next }),
        }
    }
}

/// Applies what the consumer will, so that both have the same digest and meet the same limits and
/// checks.
fn apply(mut tracked: Tracked, changes: &[Change]) -> Result<Tracked, PublishError> {
    let mut touched = Touched::default();
    for change in changes {
        touched.note(change);
        tracked.apply(change.clone()).map_err(|error| PublishError::Unfit(error.to_string()))?;
    }
    let errors = tracked.check(&touched);
    if errors.is_empty() { Ok(tracked) } else { Err(PublishError::Invalid(errors)) }
}

fn open_socket(path: &Path, deadline: Instant) -> Result<OwnedFd, ConnectError> {
    let unreachable =
        |errno: Errno| ConnectError::Unreachable { path: path.into(), source: errno.into() };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(unreachable)?;
    let address = SocketAddrUnix::new(path).map_err(unreachable)?;
    loop {
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            // The queue of the listening socket is full; there is nothing to poll for that.
            Err(Errno::AGAIN) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(unreachable(errno)),
        }
    }
}

fn wait_for_hello(
    socket: &OwnedFd,
    path: &Path,
    deadline: Instant,
) -> Result<(Hello, Geometry, Vec<OwnedFd>), ConnectError> {
    let broken = |reason: String| ConnectError::Broken { path: path.into(), reason };
    loop {
        match receive_from_consumer(socket) {
            Received::Message((Some(FromConsumer::Hello(hello, geometry)), descriptors)) => {
                return Ok((hello, geometry, descriptors));
            }
            Received::Message((Some(FromConsumer::Refused(reason)), _)) => {
                return Err(ConnectError::Refused { path: path.into(), reason });
            }
            Received::Message((other, _)) => {
                return Err(broken(format!("it answered {other:?} instead of a hello")));
            }
            Received::HungUp => return Err(broken("it hung up before its hello".into())),
            Received::Nothing if Instant::now() >= deadline => {
                return Err(ConnectError::Timeout { path: path.into() });
            }
            Received::Nothing => {
                wait_readable(socket, deadline).map_err(|error| broken(error.to_string()))?;
            }
        }
    }
}

/// Returns when the socket can be read, at the deadline, or at a signal.
fn wait_readable(socket: &OwnedFd, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
    match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;
    use crate::{Server, StateFile};

    fn a_state(group: &str) -> Arc<State> {
        let mut state = State::default();
        state.groups.insert_mut(Name::new(group).unwrap(), Arc::default());
        Arc::new(state)
    }

    /// A server stepped in a thread until the test is over.
    fn with_server(test: impl FnOnce(&Path)) {
        use std::os::unix::fs::MetadataExt;
        use std::sync::atomic::{AtomicBool, Ordering};
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let uid = std::fs::metadata(directory.path()).unwrap().uid();
        let store = StateFile::open(directory.path().join("state")).unwrap();
        let mut server = Server::bind(&path, &[uid], store).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    server.step(16);
                    server.acknowledge(server.generation(), &[]);
                    std::thread::sleep(Duration::from_micros(100));
                }
            });
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&path)));
            stop.store(true, Ordering::Relaxed);
            result.unwrap();
        });
    }

    #[test]
    fn a_producer_that_is_wrong_about_the_other_end_is_told_and_sends_everything() {
        const PATIENCE: Duration = Duration::from_secs(20);
        with_server(|path| {
            let soon = Instant::now() + PATIENCE;
            let mut producer = Producer::connect(path, PATIENCE).unwrap();
            producer.publish(1, &a_state("one"), soon).unwrap();
            producer.held = Some((1, Digest::from_bits(99))); // as if it had lost its way
            let delta = producer.publish(2, &a_state("two"), soon).unwrap();
            assert_eq!(delta.kind, PublishedKind::Delta);
            let refused = loop {
                let acks = producer.wait(PATIENCE).unwrap();
                if let Some(ack) = acks.into_iter().find(|ack| ack.refused.is_some()) {
                    break ack;
                }
            };
            assert!(refused.wants_snapshot, "{refused:?}");
            let again = producer.publish(2, &a_state("two"), soon).unwrap();
            assert_eq!(again.kind, PublishedKind::Snapshot);
            loop {
                let acks = producer.wait(PATIENCE).unwrap();
                assert!(!acks.is_empty() && acks.iter().all(|ack| ack.refused.is_none()));
                if acks.iter().any(|ack| ack.generation == 2) {
                    break;
                }
            }
        });
    }
}
