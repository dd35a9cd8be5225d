//! The control process: one event loop on one thread, and the publisher's thread beside it.
//!
//! ```text
//!  folder changes, SIGHUP, a look now and then ─► read ─► store ─► translate ─► publisher
//!  acknowledgements, connections ─► progress ──────────────────────────┴─► status files, report
//! ```
//!
//! Every arrow is level-triggered: whatever is read, lost or repeated, the next round compares the whole and
//! acts on what differs.

mod round;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use penstock_feed::StateFile;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::publish::{Event, Publisher, Target};
use crate::source::folder::{self, Change, Settle, Watch};
use crate::store::Store;
use round::Round;

/// Without a change, the folder is looked at this often: events may get lost.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// While the folder cannot be watched or read, it is tried this often.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// The report is touched this often, so that a process that hangs can be told from one with nothing to do.
const BEAT: Duration = Duration::from_secs(1);

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The folder of objects.
    pub config_dir: PathBuf,
    /// Where status and report go.
    pub run_dir: PathBuf,
    /// Where the last good objects are kept.
    pub state_dir: PathBuf,
    /// The data plane's socket.
    pub dataplane_socket: PathBuf,
}

/// Why the control process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A directory that we write to cannot be used.
    #[error("{}: {source}: create it for our user, or name another with {flag}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The flag that names another.
        flag: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has no thread, descriptor or signal for us.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Runs until SIGTERM or SIGINT. SIGHUP reads every file anew.
///
/// # Errors
/// [`StartError`]. Once it runs, nothing ends it but a signal.
pub async fn run(paths: Paths) -> Result<(), StartError> {
    usable(&paths.run_dir, "--run-dir")?;
    usable(&paths.state_dir, "--state-dir")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;

    let (events_in, mut events) = unbounded_channel();
    let socket = paths.dataplane_socket.clone();
    let publisher =
        Publisher::start(Target { socket, memory: memory(&paths.state_dir) }, events_in)?;
    let mut reading = Reading::new(&paths.config_dir);
    let mut round = Round::new(paths.clone(), load(&paths.state_dir), publisher);
    info!(config_dir = %paths.config_dir.display(), "control process started");
    reading.look(&mut round);
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let wake = tokio::time::Instant::from_std(reading.next_look());
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {
                info!("SIGHUP: every file is read anew");
                round.forget_texts();
                reading.look(&mut round);
            }
            Some(event) = events.recv() => take(event, &mut events, &mut round),
            Some(change) = reading.changes.recv() => reading.note(change),
            () = tokio::time::sleep_until(wake) => reading.look(&mut round),
            () = round.overdue() => round.time_passed(),
            _ = beat.tick() => round.beat(),
        }
    }
    info!("control process ends; the data plane goes on with what it has");
    Ok(())
}

/// Takes every event that waits, then writes once.
fn take(first: Event, more: &mut UnboundedReceiver<Event>, round: &mut Round) {
    round.hear(first);
    while let Ok(event) = more.try_recv() {
        round.hear(event);
    }
    round.conclude();
}

fn usable(path: &Path, flag: &'static str) -> Result<(), StartError> {
    let fail = |source| StartError::Directory { path: path.to_owned(), flag, source };
    std::fs::create_dir_all(path).map_err(fail)?;
    let probe = path.join(".penstock-controlplane.probe");
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(fail)
}

fn memory(state_dir: &Path) -> Option<StateFile> {
    let opened = StateFile::open(state_dir.join("published"));
    opened.inspect_err(|error| warn!(%error, "published states are not kept")).ok()
}

/// The file of the last good objects.
fn objects_file(state_dir: &Path) -> PathBuf {
    state_dir.join("objects.json")
}

fn load(state_dir: &Path) -> Store {
    Store::load(&objects_file(state_dir)).unwrap_or_else(|error| {
        warn!(%error, "the last good objects are lost");
        Store::default()
    })
}

/// When the folder is read.
struct Reading {
    folder: PathBuf,
    watch: Option<Watch>,
    /// Device and inode of the folder that is watched: another may have taken its name.
    watched: Option<(u64, u64)>,
    changes: UnboundedReceiver<Change>,
    settle: Settle,
    looked: Instant,
    readable: bool,
}

impl Reading {
    fn new(folder: &Path) -> Self {
        let (_, changes) = unbounded_channel();
        let (settle, looked) = (Settle::default(), Instant::now());
        Self {
            folder: folder.to_owned(),
            watch: None,
            watched: None,
            changes,
            settle,
            looked,
            readable: true,
        }
    }

    fn note(&mut self, change: Change) {
        self.settle.note(change, Instant::now());
    }

    fn next_look(&self) -> Instant {
        let well = self.readable && self.watch.is_some();
        let regular = self.looked + if well { LOOK_AGAIN } else { TRY_AGAIN };
        self.settle.due().map_or(regular, |due| due.min(regular))
    }

    /// Watches first, then reads, so that no change falls in between.
    fn look(&mut self, round: &mut Round) {
        self.settle.clear();
        self.looked = Instant::now();
        self.ensure_watch();
        match folder::read(&self.folder) {
            Ok(texts) => {
                self.readable = true;
                round.read(texts);
            }
            Err(error) => {
                self.readable = false;
                self.watch = None; // it may watch a folder that was replaced
                round.unreadable(&error);
            }
        }
    }

    fn ensure_watch(&mut self) {
        let now = std::fs::metadata(&self.folder).ok().map(|folder| (folder.dev(), folder.ino()));
        if self.watch.is_some() && now == self.watched {
            return;
        }
        let (changes_in, changes) = unbounded_channel();
        match Watch::start(&self.folder, changes_in) {
            Ok(watch) => (self.watch, self.watched, self.changes) = (Some(watch), now, changes),
            Err(error) if self.readable => {
                warn!(folder = %self.folder.display(), %error, "not watched: read every second instead");
            }
            Err(_) => {}
        }
    }
}
