//! The thread's life: connect, publish, listen, and again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_feed::state_file::Saver;
use penstock_feed::{
    Ack, Digest, Producer, PublishError, Published, PublishedKind, State, StateFile, Touched,
};
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use super::generation::Generations;
use super::{Event, LONGEST_PAUSE, Shared, Target};

/// How long the data plane may take to say hello.
const HELLO: Duration = Duration::from_secs(2);
/// How long it may take to read a state.
const READING: Duration = Duration::from_secs(5);
/// The shortest pause between two attempts to connect.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// The pause before a state that was not committed is sent again.
const RETRY: Duration = Duration::from_secs(1);
/// How many states may wait for their acknowledgement; older ones are forgotten.
const MOST_IN_FLIGHT: usize = 64;

/// Runs until told to stop.
pub(super) fn run(shared: &Shared, target: Target, events: &UnboundedSender<Event>) {
    let mut publishing = Publishing::new(target.memory, events);
    let mut pause = SHORTEST_PAUSE;
    let mut last_reason = String::new();
    while !publishing.look(shared) {
        let reason = match Producer::connect(&target.socket, HELLO) {
            Ok(producer) => {
                pause = SHORTEST_PAUSE;
                last_reason.clear();
                match publishing.session(producer, shared) {
                    Some(reason) => reason,
                    None => return,
                }
            }
            Err(error) => error.to_string(),
        };
        if reason != last_reason {
            publishing.tell(Event::Disconnected { reason: reason.clone() });
            last_reason = reason;
        }
        shared.wait(None, Some(pause));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What outlives a connection.
struct Publishing<'a> {
    events: &'a UnboundedSender<Event>,
    saver: Option<Saver>,
    generations: Generations,
    /// What is wanted now.
    wanted: Option<Arc<State>>,
    /// The last state we published, if we remember it.
    last: Option<Arc<State>>,
    /// What may differ between that and what is wanted; `None` if nobody knows.
    untold: Option<Touched>,
    /// States by digest that may yet be acknowledged, the newest last.
    in_flight: VecDeque<(Digest, Arc<State>)>,
    /// An acknowledgement of a state that we do not know yet: the data plane speaks first, and what it holds
    /// may be what will be wanted.
    early: Option<Ack>,
}

impl<'a> Publishing<'a> {
    fn new(memory: Option<StateFile>, events: &'a UnboundedSender<Event>) -> Self {
        let loaded = memory.as_ref().map(StateFile::load);
        let loaded = loaded.and_then(|loaded| {
            loaded.unwrap_or_else(|error| {
                warn!(%error, "the last published state is lost: the next one is sent whole");
                None
            })
        });
        let saver = memory.and_then(|memory| {
            let started = Saver::start(memory);
            started.inspect_err(|error| warn!(%error, "published states are not kept")).ok()
        });
        let mut publishing = Self {
            events,
            saver,
            generations: Generations::default(),
            wanted: None,
            last: None,
            untold: None,
            in_flight: VecDeque::new(),
            early: None,
        };
        if let Some((generation, state)) = loaded {
            let digest = state.digest();
            publishing.generations.meet(generation, digest);
            publishing.in_flight.push_back((digest, Arc::clone(&state)));
            publishing.last = Some(state);
        }
        publishing
    }

    /// Takes in what is wanted. Returns whether we are to stop.
    fn look(&mut self, shared: &Shared) -> bool {
        let (newest, stop) = shared.take();
        if let Some((state, touched)) = newest {
            self.wanted = Some(state);
            if let Some(untold) = &mut self.untold {
                untold.and(touched);
            }
        }
        stop
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more: the process ends, and we are told to stop.
        let _ = self.events.send(event);
    }

    /// Serves one connection. Returns why it ended; `None` if we are to stop.
    fn session(&mut self, mut producer: Producer, shared: &Shared) -> Option<String> {
        let hello = *producer.hello();
        self.early = None;
        self.generations.meet(hello.generation, hello.digest);
        if let Some(last) = &self.last {
            producer.adopt(last);
        }
        let (generation, digest, epoch) = (hello.generation, hello.digest, hello.epoch);
        self.tell(Event::Connected { generation, digest, epoch });
        let mut round = Round { told: None, retry_at: None };
        loop {
            if self.look(shared) {
                return None;
            }
            let is_told = |state: &&Arc<State>| {
                round.told.as_ref().is_some_and(|told| Arc::ptr_eq(told, state))
            };
            let new = self.wanted.as_ref().filter(|state| !is_told(state)).cloned();
            let ended = match new.filter(|_| round.retry_at.is_none_or(|at| at <= Instant::now())) {
                Some(state) => self.tell_it(&mut producer, state, &mut round),
                None => Ok(()),
            };
            if let Err(reason) = ended.and_then(|()| self.listen(&mut producer, &mut round)) {
                return Some(reason);
            }
            let longest = round.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
            shared.wait(Some(&producer), longest);
        }
    }

    /// Publishes a state. An error is why the connection ended.
    fn tell_it(
        &mut self,
        producer: &mut Producer,
        state: Arc<State>,
        round: &mut Round,
    ) -> Result<(), String> {
        round.retry_at = None;
        match self.publish(producer, &state) {
            Ok(()) | Err(Failure::Never) => round.told = Some(state),
            Err(Failure::Later) => round.retry_at = Some(Instant::now() + RETRY),
            Err(Failure::Gone(reason)) => return Err(reason),
        }
        Ok(())
    }

    /// Takes what the data plane said. An error is why the connection ended.
    fn listen(&mut self, producer: &mut Producer, round: &mut Round) -> Result<(), String> {
        let acks = producer.wait(Duration::ZERO).map_err(|gone| gone.to_string())?;
        for ack in acks {
            if self.acknowledged(ack) {
                *round = Round { told: None, retry_at: Some(Instant::now() + RETRY) };
            }
        }
        Ok(())
    }

    fn publish(&mut self, producer: &mut Producer, state: &Arc<State>) -> Result<(), Failure> {
        match self.send(producer, state) {
            Ok((generation, digest, Published { kind, records })) => {
                let published = Arc::clone(state);
                self.tell(Event::Published { generation, digest, state: published, kind, records });
                if kind != PublishedKind::Nothing || self.last.is_none() {
                    self.remember(generation, state);
                }
                self.last = Some(Arc::clone(state));
                self.untold = Some(Touched::default());
                if let Some(ack) = self.early.take_if(|ack| ack.digest == digest) {
                    self.acknowledged(ack);
                }
                Ok(())
            }
            Err(PublishError::Disconnected(gone)) => Err(Failure::Gone(gone.to_string())),
            Err(error) => {
                let reason = error.to_string();
                let (failure, errors) = match error {
                    PublishError::Invalid(errors) => (Failure::Never, errors),
                    PublishError::Unfit(_) => (Failure::Never, Vec::new()),
                    _ => (Failure::Later, Vec::new()),
                };
                self.tell(Event::Refused { reason, errors });
                Err(failure)
            }
        }
    }

    /// Sends what is to be told of a state: at the cost of what was touched since the last one, if that is known
    /// and the data plane holds that.
    fn send(
        &mut self,
        producer: &mut Producer,
        state: &Arc<State>,
    ) -> Result<(u64, Digest, Published), PublishError> {
        let deadline = Instant::now() + READING;
        let same =
            |held: &Arc<State>| self.last.as_ref().is_some_and(|last| Arc::ptr_eq(held, last));
        if let Some(untold) = self.untold.take().filter(|_| producer.state().is_some_and(same)) {
            let give = |digest| {
                expect(&mut self.in_flight, digest, state);
                self.generations.give(digest)
            };
            let sent = producer.publish_touched(state, &untold, give, deadline);
            self.untold = Some(untold);
            return sent;
        }
        let digest = state.digest();
        let generation = self.generations.give(digest);
        expect(&mut self.in_flight, digest, state);
        let published = producer.publish(generation, state, deadline)?;
        Ok((generation, digest, published))
    }

    /// Keeps the state for the next start. It has been sent already, and the disk delays nothing.
    fn remember(&mut self, generation: u64, state: &Arc<State>) {
        if let Some(saver) = &self.saver {
            saver.save(generation, Arc::clone(state));
        }
    }

    /// Tells of an acknowledgement. Returns whether the state is to be sent again.
    fn acknowledged(&mut self, ack: Ack) -> bool {
        if let Some(refused) = ack.refused {
            let reason = format!("generation {}: {}", refused.generation, refused.reason);
            self.tell(Event::Refused { reason, errors: ack.errors });
            return ack.wants_snapshot;
        }
        let wants_snapshot = ack.wants_snapshot;
        let known = self.in_flight.iter().position(|(digest, _)| *digest == ack.digest);
        if ack.generation == 0 {
            // It forwards by nothing yet.
        } else if let Some(at) = known {
            self.in_flight.drain(..at); // older ones will not be acknowledged any more
            let state = Arc::clone(&self.in_flight[0].1);
            let Ack { generation, digest, errors, .. } = ack;
            self.tell(Event::Acknowledged { generation, digest, state, errors });
        } else {
            self.early = Some(ack);
        }
        wants_snapshot
    }
}

/// Takes note that a state may be acknowledged by its digest.
fn expect(in_flight: &mut VecDeque<(Digest, Arc<State>)>, digest: Digest, state: &Arc<State>) {
    in_flight.retain(|(known, _)| *known != digest);
    in_flight.push_back((digest, Arc::clone(state)));
    let surplus = in_flight.len().saturating_sub(MOST_IN_FLIGHT);
    in_flight.drain(..surplus);
}

/// How far one connection is.
struct Round {
    /// The state that was told on it.
    told: Option<Arc<State>>,
    /// When to try again what failed.
    retry_at: Option<Instant>,
}

/// Why a state was not published.
enum Failure {
    /// The connection is gone.
    Gone(String),
    /// It may go better the next time.
    Later,
    /// This state never will.
    Never,
}
