//! What [`published`](crate::published) and [`handover`](crate::handover) share memory by. Their models in
//! `tests/loom_workers.rs` have modules of this name with parts that loom can see through.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::AtomicU64;

pub(crate) use arc_swap::ArcSwap;
pub(crate) use penstock_forward::Snapshot;
pub(crate) use rtrb::{Consumer, Producer, RingBuffer};
