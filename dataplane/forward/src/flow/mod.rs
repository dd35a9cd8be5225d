//! 5-tuple to the backend this connection is pinned to, so that a change of backends does not move it.
//!
//! Bounded: `capacity` flows, allocated at start, 96 to 128 bytes each, 64 more if IPv6. Of clients that
//! anyone could be, a quota: the oldest gives way to the newest. Full: one that is over or unproven gives way, an
//! established one never does. No listener keeps another from its share. Not shared by workers: every flow has one
//! owner, so there is nothing to lock.
//!
//! * [`key`](FlowKey): the tuple; `hash`: its keyed hash
//! * [`memory`](FlowMemory): the bytes; `table`: what is done with them
//! * [`state`](FlowState): what a flow lived through, and its timeouts; `own_timeouts`: those of listeners
//! * `look_up`: a burst's packets to their flows, prefetched; `track`: what a packet does to its flow
//! * `expire`: the bounded sweep; `unproven`, `shares`: who gives way to whom; `cut`: those that end since nobody serves them

pub(crate) mod cut;
pub(crate) mod expire;
pub(crate) mod hash;
mod key;
pub(crate) mod look_up;
mod memory;
mod own_timeouts;
mod shares;
pub(crate) mod state;
pub(crate) mod table;
pub(crate) mod track;
mod unproven;

pub use expire::FlowInfo;
pub use key::FlowKey;
pub(crate) use key::{V4, V6};
pub use memory::{CacheLine, FlowCapacity, FlowMemory, FlowMemoryError, MAX_CAPACITY};
pub(crate) use memory::{Flow, FlowRecord, NO_HOP, NewFlow, Wide};
pub(crate) use own_timeouts::OwnTimeouts;
pub use state::{Direction, FlowState, Timeouts};
pub(crate) use table::{Entry, FlowTable, Full};
