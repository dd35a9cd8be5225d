//! Boxes elsewhere: what each must know, how it is told, and what it says.
//!
//! ```text
//!  translate ─► fleet: which Box carries what (carries, needs) ─► build, a thread beside: a bundle a selection
//!                 │ the newest bundle of each                  ▲ numbers, versions: what was in force before
//!                 ▼                                            │
//!  server: a port, a thread ─► greeting: TLS, who is it (admission), which version ─► session: bundles out, reports in
//!                                                                                        │
//!  status: `Programmed` over boxes, conditions of Boxes ◄── member: what a report means ◄┘
//!  desk: tokens, rollback; for operators
//! ```
//!
//! Only the controller that leads serves boxes; others send them on. A box obeys no lower epoch than it has seen, so of
//! two that believe to lead, the later wins, and the earlier is refused by every box that heard of the later.

pub mod admission;
mod build;
pub mod carries;
pub mod desk;
mod door;
pub mod fleet;
mod greeting;
mod member;
pub mod needs;
mod numbers;
pub mod server;
mod session;
pub mod versions;

pub use fleet::{Fleet, FleetEvent};
