//! How an exchange ended, and how many ended so.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::Serialize;

/// The ways in which an exchange fails, told apart because a load balancer is to blame for each in
/// another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// An RST on an open connection.
    Reset,
    /// An RST in answer to the SYN, or an ICMP port unreachable.
    Refused,
    /// A FIN before the answer was complete.
    Closed,
    /// Nothing, for as long as the caller was ready to wait.
    Timeout,
    /// An answer, but not the one that was due.
    Wrong(String),
    /// Anything else the kernel says.
    Other(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            // After an RST has come in, Linux reports the next write as a broken pipe.
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Self::Reset,
            Kind::ConnectionRefused => Self::Refused,
            Kind::UnexpectedEof => Self::Closed,
            Kind::TimedOut | Kind::WouldBlock => Self::Timeout,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset => write!(out, "reset"),
            Self::Refused => write!(out, "refused"),
            Self::Closed => write!(out, "closed before the answer was complete"),
            Self::Timeout => write!(out, "no answer in time"),
            Self::Wrong(what) => write!(out, "wrong answer: {what}"),
            Self::Other(what) => write!(out, "{what}"),
        }
    }
}

/// As many different failures are quoted in full as a person reads.
const QUOTED: usize = 5;

/// What was counted: answers by the backend that gave them, failures by kind.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Tally {
    pub(crate) ok: u64,
    pub(crate) resets: u64,
    pub(crate) refused: u64,
    pub(crate) closed: u64,
    pub(crate) timeouts: u64,
    pub(crate) wrong: u64,
    pub(crate) other: u64,
    /// The name in each good answer, and how often it came.
    pub(crate) backends: BTreeMap<String, u64>,
    /// The first failures, with the time since the start at which they were seen.
    pub(crate) quoted: Vec<String>,
}

impl Tally {
    pub(crate) fn answer(&mut self, backend: &str) {
        self.ok += 1;
        *self.backends.entry(backend.to_owned()).or_default() += 1;
    }

    pub(crate) fn failure(&mut self, failure: &Failure, context: &str) {
        let counter = match failure {
            Failure::Reset => &mut self.resets,
            Failure::Refused => &mut self.refused,
            Failure::Closed => &mut self.closed,
            Failure::Timeout => &mut self.timeouts,
            Failure::Wrong(_) => &mut self.wrong,
            Failure::Other(_) => &mut self.other,
        };
        *counter += 1;
        if self.quoted.len() < QUOTED {
            self.quoted.push(format!("{context}: {failure}"));
        }
    }

    /// Adds what another thread counted.
    pub(crate) fn merge(&mut self, other: Self) {
        self.ok += other.ok;
        self.resets += other.resets;
        self.refused += other.refused;
        self.closed += other.closed;
        self.timeouts += other.timeouts;
        self.wrong += other.wrong;
        self.other += other.other;
        for (backend, count) in other.backends {
            *self.backends.entry(backend).or_default() += count;
        }
        let room = QUOTED.saturating_sub(self.quoted.len());
        self.quoted.extend(other.quoted.into_iter().take(room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each error of the kernel is counted as what it says about the connection.
    #[test]
    fn a_failure_is_named_for_what_the_peer_did() {
        for (kind, failure) in [
            (io::ErrorKind::ConnectionReset, Failure::Reset),
            (io::ErrorKind::BrokenPipe, Failure::Reset),
            (io::ErrorKind::ConnectionRefused, Failure::Refused),
            (io::ErrorKind::UnexpectedEof, Failure::Closed),
            (io::ErrorKind::TimedOut, Failure::Timeout),
            (io::ErrorKind::WouldBlock, Failure::Timeout),
        ] {
            assert_eq!(Failure::from(io::Error::from(kind)), failure, "{kind:?}");
        }
    }

    #[test]
    fn tallies_of_several_threads_add_up() {
        let mut total = Tally::default();
        for name in ["backend1", "backend2", "backend1"] {
            let mut one = Tally::default();
            one.answer(name);
            one.failure(&Failure::Reset, "connection 7");
            total.merge(one);
        }
        assert_eq!((total.ok, total.resets), (3, 3));
        assert_eq!(total.backends["backend1"], 2);
        assert_eq!(total.quoted.len(), 3);
    }
}
