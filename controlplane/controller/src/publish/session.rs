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
        let mut publishing = Self {
            events,
            memory,
            generations: Generations::default(),
            last: None,
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
            let wanted = shared.wanted();
            if wanted.stop {
                return None;
            }
            let told = round.told.as_ref();
            let new =
                wanted.state.filter(|state| !told.is_some_and(|told| Arc::ptr_eq(told, state)));
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
        let digest = state.digest();
        let generation = self.generations.give(digest);
        self.in_flight.retain(|(known, _)| *known != digest);
        self.in_flight.push_back((digest, Arc::clone(state)));
        let surplus = self.in_flight.len().saturating_sub(MOST_IN_FLIGHT);
        self.in_flight.drain(..surplus);
        match producer.publish(generation, state, Instant::now() + READING) {
            Ok(published) => {
                let (kind, records) = (published.kind, published.records);
                self.tell(Event::Published { generation, digest, kind, records });
                if kind != PublishedKind::Nothing || self.last.is_none() {
                    self.remember(generation, state);
                }
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
        let wants_snapshot = ack.wants_snapshot;
        let known = self.in_flight.iter().position(|(digest, _)| *digest == ack.digest);
        if ack.generation == 0 {
            // It forwards by nothing yet.
        } else if let Some(at) = known {
            self.in_flight.drain(..at); // older ones will not be acknowledged any more
            let state = Arc::clone(&self.in_flight[0].1);
            let (generation, errors) = (ack.generation, ack.errors);
            self.tell(Event::Acknowledged { generation, state, errors });
        } else {
            self.early = Some(ack);
        }
        wants_snapshot
    }
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
