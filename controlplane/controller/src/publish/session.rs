//! The thread's life: connect, publish, listen, and again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_feed::{Ack, Digest, Producer, PublishError, PublishedKind, State, StateFile};
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use super::generation::Generations;
use super::{Event, LONGEST_PAUSE, Shared, Target};

/// How long the data plane may take to say hello.
const HELLO: Duration = Duration::from_secs(2);
/// How long it may take to read a state.
const READING: Duration = Duration::from_secs(10);
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
    while !shared.wanted().stop {
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
    memory: Option<StateFile>,
    generations: Generations,
    /// The last state we published, if we remember it.
    last: Option<Arc<State>>,
    /// States by digest that may yet be acknowledged, the newest last.
    in_flight: VecDeque<(Digest, Arc<State>)>,
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
        let mut publishing = Self {
            events,
            memory,
            generations: Generations::default(),
            last: None,
            in_flight: VecDeque::new(),
        };
        if let Some((generation, state)) = loaded {
            let digest = state.digest();
            publishing.generations.meet(generation, digest);
            publishing.in_flight.push_back((digest, Arc::clone(&state)));
            publishing.last = Some(state);
        }
        publishing
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more: the process ends, and we are told to stop.
        let _ = self.events.send(event);
    }

    /// Serves one connection. Returns why it ended; `None` if we are to stop.
    fn session(&mut self, mut producer: Producer, shared: &Shared) -> Option<String> {
        let hello = *producer.hello();
        self.generations.meet(hello.generation, hello.digest);
        if let Some(last) = &self.last {
            producer.adopt(last);
        }
        let (generation, digest, epoch) = (hello.generation, hello.digest, hello.epoch);
        self.tell(Event::Connected { generation, digest, epoch });
        let mut told: Option<Arc<State>> = None; // on this connection
        let mut not_before = Instant::now();
        loop {
            let wanted = shared.wanted();
            if wanted.stop {
                return None;
            }
            let new = wanted
                .state
                .filter(|state| !told.as_ref().is_some_and(|told| Arc::ptr_eq(told, state)));
            if let Some(state) = new.filter(|_| Instant::now() >= not_before) {
                match self.publish(&mut producer, &state) {
                    Ok(()) => told = Some(state),
                    Err(Failure::Gone(reason)) => return Some(reason),
                    Err(Failure::Later) => not_before = Instant::now() + RETRY,
                    Err(Failure::Never) => told = Some(state),
                }
            }
            match producer.wait(Duration::ZERO) {
                Ok(acks) => {
                    for ack in acks {
                        if self.acknowledged(ack) {
                            told = None;
                            not_before = Instant::now() + RETRY;
                        }
                    }
                }
                Err(error) => return Some(error.to_string()),
            }
            let pending =
                told.is_none().then(|| not_before.saturating_duration_since(Instant::now()));
            let pending = pending.filter(|left| !left.is_zero());
            shared.wait(Some(&producer), pending);
        }
    }

    fn publish(&mut self, producer: &mut Producer, state: &Arc<State>) -> Result<(), Failure> {
        let digest = state.digest();
        let generation = self.generations.give(digest);
        if !self.in_flight.iter().any(|(known, _)| *known == digest) {
            self.in_flight.push_back((digest, Arc::clone(state)));
            let surplus = self.in_flight.len().saturating_sub(MOST_IN_FLIGHT);
            self.in_flight.drain(..surplus);
        }
        match producer.publish(generation, state, Instant::now() + READING) {
            Ok(published) => {
                let (kind, records) = (published.kind, published.records);
                self.tell(Event::Published { generation, digest, kind, records });
                if kind != PublishedKind::Nothing || self.last.is_none() {
                    self.remember(generation, state);
                }
                Ok(())
            }
            Err(PublishError::Disconnected(gone)) => Err(Failure::Gone(gone.to_string())),
            Err(error) => {
                let reason = error.to_string();
                let (failure, errors) = match error {
                    PublishError::Invalid(errors) => (Failure::Never, errors),
                    PublishError::TooLarge(_) => (Failure::Never, Vec::new()),
                    _ => (Failure::Later, Vec::new()),
                };
                self.tell(Event::Refused { reason, errors });
                Err(failure)
            }
        }
    }

    /// Keeps the state for the next start. It has been sent already, so the disk delays no packet.
    fn remember(&mut self, generation: u64, state: &Arc<State>) {
        self.last = Some(Arc::clone(state));
        let saved = self.memory.as_ref().map(|memory| memory.save(generation, state));
        if let Some(Err(error)) = saved {
            warn!(%error, "after a restart the next state is sent whole");
        }
    }

    /// Tells of an acknowledgement. Returns whether the state is to be sent again.
    fn acknowledged(&mut self, ack: Ack) -> bool {
        if let Some(refused) = ack.refused {
            let reason = format!("generation {}: {}", refused.generation, refused.reason);
            self.tell(Event::Refused { reason, errors: ack.errors });
            return ack.wants_snapshot;
        }
        let known = self.in_flight.iter().position(|(digest, _)| *digest == ack.digest);
        if let Some(at) = known.filter(|_| ack.generation > 0) {
            self.in_flight.drain(..at); // older ones will not be acknowledged any more
            let state = Arc::clone(&self.in_flight[0].1);
            let (generation, errors) = (ack.generation, ack.errors);
            self.tell(Event::Acknowledged { generation, state, errors });
        }
        ack.wants_snapshot
    }
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
