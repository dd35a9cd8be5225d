//! The way to the data plane, and to the L7 tier: a thread each that holds the connection and blocks in its stead.
//!
//! ```text
//!   want(state) ──► [newest only] ──► publish ──► the ring ──► data plane
//!   events      ◄── acknowledged, connected, … ◄──────────────────┘
//! ```
//!
//! Only the newest state counts: what was wanted while the thread was busy is never sent. What was touched since is
//! kept instead, so that a difference is found, and hashed, at the cost of that and not of the whole. After a lost
//! connection it tries again, at most [`LONGEST_PAUSE`] apart, so that a data plane that restarts has its
//! snapshot well within a second of its socket's return.
//!
//! Generations rise with every new state and survive restarts of both ends: the thread goes on from the higher
//! of what it saved and what the data plane's hello says, and takes that generation as it is if the digest is
//! the same, so that nothing is sent at all.

mod generation;
mod l7;
mod session;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use penstock_feed::{Digest, ObjectError, PublishedKind, State, StateFile, Touched};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::mpsc::UnboundedSender;

pub use l7::{L7Feed, l7_state};

/// The longest pause between two attempts to connect.
pub const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// What happened on the way to the data plane.
#[derive(Clone, Debug)]
pub enum Event {
    /// The data plane let us in, and holds this.
    Connected {
        /// Its generation; 0 if it holds nothing.
        generation: u64,
        /// The digest of what it holds.
        digest: Digest,
        /// The number of the connection.
        epoch: u64,
    },
    /// There is no connection any more, or none yet; for every new reason.
    Disconnected {
        /// Why, in words.
        reason: String,
    },
    /// The data plane has been told the wanted state.
    Published {
        /// Its generation.
        generation: u64,
        /// Its digest.
        digest: Digest,
        /// The state.
        state: Arc<State>,
        /// How much had to be said.
        kind: PublishedKind,
        /// In how many records.
        records: usize,
    },
    /// The wanted state was not published, or the data plane did not commit it.
    Refused {
        /// Why, in words.
        reason: String,
        /// The objects that are to blame, as far as that is known.
        errors: Vec<ObjectError>,
    },
    /// Every worker forwards by this state.
    Acknowledged {
        /// Its generation.
        generation: u64,
        /// Its digest.
        digest: Digest,
        /// The state.
        state: Arc<State>,
        /// The objects of it that are not served.
        errors: Vec<ObjectError>,
    },
}

impl Event {
    /// Whether this says nothing against the data plane holding what it was told by an earlier process.
    #[must_use]
    pub fn is_about_what_it_holds(&self) -> bool {
        matches!(
            self,
            Self::Connected { .. } | Self::Published { kind: PublishedKind::Nothing, .. }
        )
    }
}

/// Where the data plane is, and where we remember what it was told.
#[derive(Debug)]
pub struct Target {
    /// The thread's name.
    pub name: &'static str,
    /// The data plane's socket, or the L7 tier's.
    pub socket: PathBuf,
    /// The state that was published last; `None` if it cannot be kept.
    pub memory: Option<StateFile>,
}

/// The thread. Dropping it stops it.
pub struct Publisher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    wanted: Mutex<Wanted>,
    doorbell: OwnedFd,
}

#[derive(Default)]
struct Wanted {
    /// The newest state, until the thread takes it, and what may differ from the one that it took before.
    newest: Option<(Arc<State>, Touched)>,
    stop: bool,
}

impl Publisher {
    /// Starts the thread. It publishes nothing until [`Self::want`] said what.
    ///
    /// # Errors
    /// The kernel's, if there is no descriptor or thread to be had.
    pub fn start(target: Target, events: UnboundedSender<Event>) -> io::Result<Self> {
        let doorbell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { wanted: Mutex::default(), doorbell });
        let thread = std::thread::Builder::new().name(target.name.into()).spawn({
            let shared = Arc::clone(&shared);
            move || session::run(&shared, target, &events)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Wants the data plane to forward by `state`, which differs from what was wanted before in nothing but what
    /// was `touched`.
    pub fn want(&self, state: Arc<State>, touched: Touched) {
        self.shared.change(|wanted| match &mut wanted.newest {
            Some((newest, since)) => {
                *newest = state;
                since.and(touched);
            }
            none => *none = Some((state, touched)),
        });
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.change(|wanted| wanted.stop = true);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        // A full counter means that the thread has been rung already.
        let _ = rustix::io::write(&self.doorbell, &1_u64.to_ne_bytes());
    }

    /// The newest state, if it was not taken yet, and whether the thread is to stop.
    fn take(&self) -> (Option<(Arc<State>, Touched)>, bool) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        (wanted.newest.take(), wanted.stop)
    }

    /// Waits for the doorbell, or for `other` to become readable, at most `longest`.
    fn wait(&self, other: Option<&dyn AsFd>, longest: Option<Duration>) {
        let mut fds = vec![PollFd::new(&self.doorbell, PollFlags::IN)];
        fds.extend(other.map(|other| PollFd::from_borrowed_fd(other.as_fd(), PollFlags::IN)));
        let longest = longest.and_then(|longest| Timespec::try_from(longest).ok());
        // An interrupted wait is a short one, and every caller looks at everything afterwards.
        let _ = poll(&mut fds, longest.as_ref());
        let _ = rustix::io::read(&self.doorbell, &mut [0; 8]);
    }
}
