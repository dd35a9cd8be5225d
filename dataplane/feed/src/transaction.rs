//! Transactions: what the consumer makes of the records it copied out.
//!
//! [`Begin`], changes, [`Commit`]. Changes are applied to a copy of
//! their own, which becomes the committed state only if everything agrees: the base it started
//! from, the number of changes, the digest, the limits, and [`State::check`]. Whatever happens in
//! between, the committed state is one that somebody committed. Pure: records in, outcomes out.
//! What a delta costs is what it changes, whatever else there is: copies share, and only what was
//! touched is checked.
//!
//! There are two ways to be wrong. A transaction that is well-formed but cannot be committed is
//! refused by an answer, and its remaining records are passed over. A record that no honest
//! producer sends there is a [`ProtocolError`], and the connection ends.

use std::sync::Arc;

use crate::digest::Digest;
use crate::model::{ObjectError, State, Tier, Touched, limits};
use crate::record::{Begin, Commit, Record};
use crate::tracked::{ApplyError, Tracked};

/// The most changes that a transaction may have: every object of a full state removed, and every
/// object of another one added.
pub const MAX_CHANGES: u64 = 2
    * (limits::LISTENERS
        + limits::GROUPS
        + limits::MEMBERS
        + limits::SNAT_POOLS
        + limits::SNAT_ADDRESSES
        + limits::NEXT_HOPS
        + limits::VIPS
        + limits::L7_LISTENERS
        + limits::PEMS
        + limits::PEM_PARTS) as u64;

/// What a record led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet: the transaction is still open.
    Open,
    /// The committed state is a new one.
    Committed,
    /// A transaction led to the state that was already there, under the same generation.
    Unchanged,
    /// The transaction is refused, and the committed state is as before.
    Refused(Refusal),
}

/// Why a transaction was not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The generation that it would have led to.
    pub generation: u64,
    /// Why, in words for the log of either end.
    pub reason: String,
    /// The objects at fault, if it is a matter of objects.
    pub errors: Vec<ObjectError>,
    /// Whether sending everything would help: the two ends disagree on where they are.
    pub wants_snapshot: bool,
}

/// A record that no honest producer sends at that place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A change or a commit with no transaction open.
    #[error("a {record} outside of a transaction")]
    NoTransaction {
        /// What it was.
        record: &'static str,
    },
    /// A record that only the other direction has.
    #[error("an acknowledgement from a producer")]
    WrongDirection,
    /// A change for another process.
    #[error("an object of the {theirs}, this is the {ours}: connect to the other socket")]
    Tier {
        /// Whose it is.
        theirs: Tier,
        /// Who got it.
        ours: Tier,
    },
    /// A transaction of another connection.
    #[error("a transaction of epoch {theirs}, this connection is epoch {ours}")]
    Epoch {
        /// The epoch of the transaction.
        theirs: u64,
        /// The epoch of the connection.
        ours: u64,
    },
}

/// The committed state and the transaction that may replace it.
#[derive(Debug)]
pub struct Transactions {
    tier: Tier,
    generation: u64,
    committed: Tracked,
    touched: Touched, // by commits since they were last asked for
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    None,
    Open(Box<Open>),
    /// Refused: its remaining records are passed over.
    Refused,
}

#[derive(Debug)]
struct Open {
    begin: Begin,
    next: Tracked,
    touched: Touched,
    changes: u64,
}

impl Transactions {
    /// Starts from `state`, committed under `generation`, which passes [`State::check`].
    pub fn new(generation: u64, state: Arc<State>) -> Self {
        let touched = Touched::between(&State::default(), &state);
        let (tier, committed) = (Tier::default(), Tracked::of(state));
        Self { tier, generation, committed, touched, progress: Progress::None }
    }

    /// The same for the objects of `tier`; without it they are the data plane's.
    #[must_use]
    pub fn of_tier(self, tier: Tier) -> Self {
        Self { tier, ..self }
    }

    /// The last committed state.
    pub fn state(&self) -> &Arc<State> {
        self.committed.state()
    }

    /// The generation of the last committed state.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The digest of the last committed state.
    pub fn digest(&self) -> Digest {
        self.committed.digest()
    }

    /// What commits touched since the last call; since nothing was there, at the first.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// Forgets the open transaction, if there is one.
    pub fn abandon(&mut self) {
        self.progress = Progress::None;
    }

    /// Takes one record of the connection `epoch`. A change costs itself, and the commit of a delta
    /// a look at what was touched; a snapshot is looked at as a whole.
    ///
    /// # Errors
    /// [`ProtocolError`] for a record that has no place there; the connection should end.
    pub fn take(&mut self, record: Record, epoch: u64) -> Result<Outcome, ProtocolError> {
        match record {
            Record::Begin(begin) if begin.epoch != epoch => {
                Err(ProtocolError::Epoch { theirs: begin.epoch, ours: epoch })
            }
            Record::Begin(begin) => Ok(self.begin(begin)),
            Record::AckError(_) | Record::Ack(_) => Err(ProtocolError::WrongDirection),
            Record::Change(change) if change.tier() != self.tier => {
                Err(ProtocolError::Tier { theirs: change.tier(), ours: self.tier })
            }
            Record::Change(change) => match &mut self.progress {
                Progress::None => Err(ProtocolError::NoTransaction { record: "change" }),
                Progress::Refused => Ok(Outcome::Open),
                Progress::Open(open) => {
                    open.changes += 1;
                    open.touched.note(&change);
                    let applied = if open.changes > MAX_CHANGES {
                        Err(ApplyError::TooMany {
                            objects: "changes in a transaction",
                            limit: MAX_CHANGES as usize,
                        })
                    } else {
                        open.next.apply(change)
                    };
                    let generation = open.begin.generation;
                    Ok(applied.map_or_else(
                        |error| self.refuse(generation, &error, false),
                        |()| Outcome::Open,
                    ))
                }
            },
            Record::Commit(commit) => match std::mem::replace(&mut self.progress, Progress::None) {
                Progress::None => Err(ProtocolError::NoTransaction { record: "commit" }),
                Progress::Refused => Ok(Outcome::Open),
                Progress::Open(open) => Ok(self.commit(*open, commit)),
            },
        }
    }

    fn begin(&mut self, begin: Begin) -> Outcome {
        let held = (self.generation, self.committed.digest());
        if begin.generation < self.generation {
            let reason = format!(
                "generation {} is behind {}, which is committed: raise it above that",
                begin.generation, self.generation
            );
            return self.refuse(begin.generation, &reason, false);
        }
        let next = match begin.base {
            None => Tracked::default(),
            Some(base) if base == held => self.committed.clone(),
            Some((generation, digest)) => {
                let reason = format!(
                    "a delta from generation {generation} ({digest}), this end is at {} ({}): send a snapshot",
                    held.0, held.1
                );
                return self.refuse(begin.generation, &reason, true);
            }
        };
        self.progress =
            Progress::Open(Box::new(Open { begin, next, touched: Touched::default(), changes: 0 }));
        Outcome::Open
    }

    /// The transaction is already closed; it is committed if all agrees.
    fn commit(&mut self, open: Open, commit: Commit) -> Outcome {
        let Open { begin, mut next, mut touched, changes } = open;
        let digest = next.digest();
        if (commit.generation, commit.changes, commit.digest) != (begin.generation, changes, digest)
        {
            let reason = format!(
                "the commit says generation {}, {} changes, digest {}; here it is generation {}, {changes} changes, \
                 digest {digest}: send a snapshot",
                commit.generation, commit.changes, commit.digest, begin.generation
            );
            return self
                .closed(Refusal { wants_snapshot: true, ..refusal(begin.generation, &reason) });
        }
        if begin.generation == self.generation {
            if digest == self.committed.digest() {
                return Outcome::Unchanged;
            }
            let reason =
                format!("generation {} is already another state: raise it", begin.generation);
            return self.closed(refusal(begin.generation, &reason));
        }
        let errors = next.check(&touched);
        if !errors.is_empty() {
            let reason = format!(
                "{} objects cannot be served together: the first is {}",
                errors.len(),
                errors[0]
            );
            return self.closed(Refusal { errors, ..refusal(begin.generation, &reason) });
        }
        if begin.base.is_none() {
            next.share_unchanged(self.committed.state());
            touched = Touched::between(self.committed.state(), next.state());
        }
        self.touched.and(touched);
        self.generation = begin.generation;
        self.committed = next;
        Outcome::Committed
    }

    fn refuse(&mut self, generation: u64, reason: &impl ToString, wants_snapshot: bool) -> Outcome {
        self.progress = Progress::Refused;
        Outcome::Refused(Refusal { wants_snapshot, ..refusal(generation, reason) })
    }

    /// A refusal at the commit: nothing of the transaction is to come.
    fn closed(&mut self, refusal: Refusal) -> Outcome {
        self.progress = Progress::None;
        Outcome::Refused(refusal)
    }
}

fn refusal(generation: u64, reason: &impl ToString) -> Refusal {
    Refusal { generation, reason: reason.to_string(), errors: Vec::new(), wants_snapshot: false }
}
