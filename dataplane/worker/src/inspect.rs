//! What an operator asks of the running data plane: flows, what would become of a packet, what becomes of
//! those that come.
//!
//! ```text
//!  penstock ── Unix socket ── a thread a question ── [`Desk`] a worker ── two rings ── [`Probe`] of the worker
//! ```
//! A worker answers between two bursts, one request a turn, and each is bounded: a page of records, or
//! the look-ups of one packet. It neither allocates nor frees, since every buffer comes with the request
//! and goes back with the answer. Nobody asking, a turn costs it one look at an empty ring.
//! Packets that are watched are copied by the worker's [`Tracer`].

mod answer;
mod desk;
mod probe;
mod tell;
mod tracer;

pub use answer::Inspector;
pub use desk::Desk;
pub use probe::{Probe, desk_and_probe};
pub use tracer::Tracer;
