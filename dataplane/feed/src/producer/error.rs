//! What can go wrong at the producer's end, each with what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::model::ObjectError;
#[cfg(doc)]
use crate::model::State;

/// Who listens at a socket, by its name: `dataplane.sock` is `penstock-dataplane`'s, `l7.sock` is `penstock-l7`'s.
fn program(socket: &Path) -> String {
    let name = socket.file_stem().and_then(|stem| stem.to_str());
    format!("penstock-{}", name.unwrap_or("dataplane"))
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody answers at the socket.
    #[error("{} at {}: {source}: is it running?", program(path), path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The data plane does not want us, and says why.
    #[error("{} at {}: {reason}", program(path), path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Its words.
        reason: String,
    },
    /// It did not answer in time.
    #[error("{} at {}: no hello in time: is its main loop running?", program(path), path.display())]
    Timeout {
        /// The socket.
        path: PathBuf,
    },
    /// It hung up, or what answers is no data plane, or its memory cannot be used.
    #[error("{} at {}: {reason}", program(path), path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

/// The connection is gone. Connect anew; the hello tells what the data plane holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Disconnected {
    /// The data plane hung up: it ended or restarts.
    #[error("the other end hung up")]
    HungUp,
    /// The data plane ended the connection, and says why; a newer producer's for instance.
    #[error("the other end ended the connection: {reason}")]
    Ended {
        /// Its words.
        reason: String,
    },
    /// The data plane did what no honest one does.
    #[error("the other end broke the protocol: {reason}")]
    Broken {
        /// What it did.
        reason: String,
    },
}

/// Why a state was not published. The connection is still good, unless it is
/// [`PublishError::Disconnected`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The state is wrong in itself ([`State::check`]); nothing was sent.
    #[error("{} objects cannot be served together: the first is {}", .0.len(), first(.0))]
    Invalid(Vec<ObjectError>),
    /// The state is larger than a data plane takes ([`crate::model::limits`]), or a change names a
    /// group or pool that is not there; nothing was sent.
    #[error("{0}")]
    Unfit(String),
    /// Changes were given, and it is not known to which state; nothing was sent.
    #[error("changes to a state that is not known: publish the whole state first")]
    StateUnknown,
    /// The data plane is already at that generation with another state, or beyond it; nothing was
    /// sent.
    #[error(
        "generation {given} of a new state is not above {held}, which the data plane holds: raise it"
    )]
    GenerationNotRaised {
        /// The generation given.
        given: u64,
        /// The generation that the data plane holds.
        held: u64,
    },
    /// The data plane did not make room in time. It drops the part that was sent, and the next
    /// call starts over.
    #[error("the data plane took {sent} of {records} records in time: is its main loop running?")]
    Deadline {
        /// Records sent.
        sent: usize,
        /// Records to send.
        records: usize,
    },
    /// The connection is gone.
    #[error(transparent)]
    Disconnected(#[from] Disconnected),
}

fn first(errors: &[ObjectError]) -> String {
    errors.first().map(ToString::to_string).unwrap_or_default()
}
