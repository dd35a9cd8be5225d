//! What a control plane tells a data plane.

mod ack;
mod digest;
mod encode;
pub mod model;
mod producer;
mod record;
pub mod ring;
mod server;
mod session;
pub mod state_file;
pub mod stats;
mod tracked;
pub mod transaction;

pub use ack::{Ack, MAX_ACK_ERRORS, Refused};
pub use digest::Digest;
pub use encode::{DecodeError, decode, encode, record_bytes};
pub use model::{
    BadName, BadPortRange, Change, Group, Listener, Member, Mode, Name, NextHop, ObjectError,
    ObjectId, ObjectKind, PortRange, Protocol, SnatPool, State,
};
pub use producer::{ConnectError, Disconnected, Producer, PublishError, Published, PublishedKind};
pub use record::{
    AckRecord, Begin, Commit, FEED_VERSION, MAX_MESSAGE_BYTES, MAX_RECORD_BYTES, Record,
};
pub use server::{BindError, Peer, Server, Step};
pub use session::Hello;
pub use state_file::{StateFile, StateFileError};
