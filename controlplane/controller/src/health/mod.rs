//! Whether backends are well that nobody else asks: endpoints from files, and Backends.
//!
//! ```text
//!  translate    who is to be asked, by which check ───────────────┐
//!  checker      a task a backend and check, on a thread of its own ▼
//!    probe      one question: TCP, HTTP(S), UDP
//!    standing   rise and fall, pure
//!  observed     who is not well now ─► translate: no new flows for it, unless too many are not (fails_open)
//! ```
//!
//! A backend counts as well until its answers speak against it, and one that was not well when we ran last counts so until
//! they speak for it: a restart of ours changes nothing.

mod check;
pub(crate) mod checker;
mod probe;
mod standing;

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use check::{Check, Question};
pub use checker::Counters;
pub use standing::{Standing, fails_open};

/// A backend, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub struct Asked {
    /// Where it serves.
    pub backend: SocketAddr,
    /// How it is asked.
    pub check: Arc<Check>,
}

/// [`Asked`] as it is kept in a file.
#[derive(Serialize, Deserialize)]
struct Kept {
    backend: SocketAddr,
    check: Check,
}

impl From<Kept> for Asked {
    fn from(Kept { backend, check }: Kept) -> Self {
        Self { backend, check: Arc::new(check) }
    }
}

impl From<Asked> for Kept {
    fn from(Asked { backend, check }: Asked) -> Self {
        Self { backend, check: Arc::unwrap_or_clone(check) }
    }
}

impl Asked {
    /// Where the question goes: to the port that serves, unless the check says another.
    #[must_use]
    pub fn place(&self) -> SocketAddr {
        let port = self.check.port.unwrap_or(self.backend.port());
        SocketAddr::new(self.backend.ip(), port)
    }
}
