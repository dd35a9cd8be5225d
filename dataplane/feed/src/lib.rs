//! What a control plane tells a data plane.

mod digest;
mod encode;
pub mod model;
mod record;
mod tracked;

pub use digest::Digest;
pub use encode::{DecodeError, decode, encode, record_bytes};
pub use model::{
    BadName, BadPortRange, Change, Group, Listener, Member, Mode, Name, NextHop, ObjectError,
    ObjectId, ObjectKind, PortRange, Protocol, SnatPool, State,
};
pub use record::{
    AckRecord, Begin, Commit, FEED_VERSION, MAX_MESSAGE_BYTES, MAX_RECORD_BYTES, Record,
};
