//! What a control plane tells a data plane, and how it gets there.
//!
//! A control plane may die in the middle of a word, be of another version, or be taken over; the data
//! plane goes on forwarding by the last state that somebody committed whole. Everything here serves
//! that sentence. The journey of a change:
//!
//! ```text
//!   control plane                                               data plane (main lcore)
//!   model        a State: listeners, groups, SNAT pools, next hops
//!   producer     what is the least to send? nothing, the difference, or all of it
//!   encode       changes as records ----- ring: sealed memfd ---->  ring: copied out, then looked at
//!                                                                   decode: checked, field by field
//!                doorbell: eventfd  ============================>   transaction: applied aside, and
//!                                                                     committed if the digests agree
//!                                                                   state_file: kept for a restart
//!   producer     wait() <------ ack ring: generation, errors -----  server: acknowledge()
//! ```
//!
//! * [`model`]: what can be said. Values are checked when they are made, the whole by
//!   [`State::check`], on both ends. [`Change`] is the difference of two states, a record each, and
//!   [`Touched`] the names in it, for who builds of the state.
//!   A state is for one [`Tier`]: the data plane and the L7 tier each have a socket, a ring and a file of
//!   their own, carried by the same code, and neither takes the other's objects.
//! * `record`, `encode`, `decode`: the bytes, and a decoder that takes any. `digest`: 128 bits for a whole
//!   state, kept up at the cost of what changed, as `relations` are, by which a change is checked.
//!   `tracked`: a state with both and its limits.
//! * [`ring`]: one writer, one reader, no locks, no trust. `session`: the Unix socket beside it, which
//!   hands over memory and doorbell after a look at the peer's user, refuses another version in
//!   words, and tells each end when the other is gone.
//! * [`transaction`]: begin, changes, commit. All or nothing, and pure.
//! * [`Server`] is the consumer: [`Server::step`] from a main loop that never blocks, the state of
//!   [`Server::state`], and [`Server::acknowledge`] when it is in force. [`Producer`] is the other end,
//!   for a thread that may block.
//! * [`state_file`]: the same records on disk, for a start with nobody to ask.
//! * [`stats`]: the other direction, numbers for anyone to read; it shares nothing with the rest.
//! * [`inspect`]: what an operator asks of a running data plane, and its answers.
//!
//! **Trust.** The data plane trusts nobody. A connection's memory is new, sealed against a change of
//! size, and forgotten when the connection ends; positions are private and only published; a record is
//! copied before it is checked; a doorbell can be rung but not used to block. The worst that a producer
//! can do with any bytes is to lose its connection, or to commit a state that passes every check: who
//! may do that is decided by user id. A producer checks no less, but trusts the data plane not to
//! waste its time beyond the deadlines it gives.
//!
//! **Generations.** A number that the control plane raises with every new state and never uses twice.
//! With the digest it answers the only question at a reconnect: do both ends hold the same? An
//! *epoch* is the number of a connection; the newest one is the only one.
//!
//! **Tests.** `cargo test -p penstock-feed` plays both ends over the real ring, with producers killed
//! after any record and every lie we could think of. Every interleaving of the ring is run by
//! `RUSTFLAGS="--cfg loom" cargo test -p penstock-feed --release --test loom_ring` (give it a target
//! directory of its own: the flag rebuilds everything). Fuzz targets, from this folder:
//! `cargo +nightly fuzz run decode`, `changes`, `ring`, `state_file`, each with `-- -max_total_time=300`.
//! `README.md` says why it is a ring.

mod ack;
mod decode;
mod digest;
mod encode;
pub mod inspect;
pub mod model;
mod producer;
mod record;
mod relations;
pub mod ring;
mod server;
mod session;
pub mod state_file;
pub mod stats;
mod tracked;
pub mod transaction;
mod user;

pub use ack::{Ack, MAX_ACK_ERRORS, Refused};
pub use decode::{DecodeError, decode, record_bytes};
pub use digest::Digest;
pub use encode::encode;
pub use model::{
    Affinity, BadName, BadPortRange, Change, Group, L7, L7Listener, Listener, Map, Member, Mode,
    MssClamp, Name, NextHop, ObjectError, ObjectId, ObjectKind, OnExhaustion, OnRemoval, OnUnknown,
    Policies, PortRange, Prefix, Protocol, Silence, SnatPool, SourceRanges, State, Tier, Timeouts,
    TooManyRanges, Touched,
};
pub use producer::{ConnectError, Disconnected, Producer, PublishError, Published, PublishedKind};
pub use record::{
    AckRecord, Begin, Commit, FEED_VERSION, MAX_MESSAGE_BYTES, MAX_RECORD_BYTES, Record,
};
pub use server::{BindError, Peer, Server, Step};
pub use session::Hello;
pub use state_file::{StateFile, StateFileError};
pub use user::user_id;
