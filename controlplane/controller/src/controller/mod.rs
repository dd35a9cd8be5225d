//! The control process: one event loop on one thread, and the publisher's thread beside it.
//!
//! ```text
//!  folder: changes, SIGHUP, a look now and then ─► read ─► store ─┐
//!  cluster: what its watches saw ─────────────────────► mirror ───┴► translate ─► publisher
//!  acknowledgements, connections ─► progress ─────────────────────────┴─► status files, API server, report
//! ```
//!
//! Every arrow is level-triggered: whatever is read, lost or repeated, the next round compares the whole and
//! acts on what differs.

mod cluster;
mod folder;
mod round;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use penstock_feed::StateFile;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Interval, MissedTickBehavior};
use tracing::warn;

pub use cluster::Cluster;

use crate::metrics::{Address, Metrics, serve};
use crate::publish::{Event, Publisher, Target};
use round::Round;

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
    /// The L7 tier's.
    pub l7_socket: PathBuf,
    /// Where metrics are served, if they are.
    pub metrics: Option<Address>,
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
    /// Metrics cannot be served where they were asked for.
    #[error("--metrics {address}: {source}: name an address of this host and a port that is free")]
    Metrics {
        /// Where.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has no thread, descriptor or signal for us.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Runs on a folder until SIGTERM or SIGINT. SIGHUP reads every file anew.
///
/// # Errors
/// [`StartError`]. Once it runs, nothing ends it but a signal.
pub async fn run(paths: Paths) -> Result<(), StartError> {
    let desk = Desk::open(&paths)?;
    folder::run(&paths, desk).await
}

/// Runs on the API server of a cluster until SIGTERM or SIGINT. `paths.config_dir` is not read.
///
/// # Errors
/// [`StartError`]. Once it runs, nothing ends it but a signal.
pub async fn run_on_cluster(paths: Paths, cluster: Cluster) -> Result<(), StartError> {
    let desk = Desk::open(&paths)?;
    cluster::run(&paths, cluster, desk).await
}

/// What both sources need to begin.
struct Desk {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    publishers: Publishers,
    metrics: Arc<Metrics>,
    events: UnboundedReceiver<Event>,
    l7_events: UnboundedReceiver<Event>,
}

/// The ways to who is told what to do.
struct Publishers {
    dataplane: Publisher,
    l7: Publisher,
}

impl Desk {
    fn open(paths: &Paths) -> Result<Self, StartError> {
        usable(&paths.run_dir, "--run-dir")?;
        usable(&paths.state_dir, "--state-dir")?;
        let metrics = metrics(paths.metrics.as_ref())?;
        let (events_in, events) = unbounded_channel();
        let (l7_events_in, l7_events) = unbounded_channel();
        let target = |name, socket: &PathBuf, file| {
            let memory = memory(&paths.state_dir.join(file));
            Target { name, socket: socket.clone(), memory }
        };
        let dataplane = target("publish", &paths.dataplane_socket, "published");
        let l7 = target("publish-l7", &paths.l7_socket, "published-l7");
        let publishers = Publishers {
            dataplane: Publisher::start(dataplane, events_in)?,
            l7: Publisher::start(l7, l7_events_in)?,
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            publishers,
            metrics,
            events,
            l7_events,
        })
    }
}

/// A clock that ticks as often as the report shows that we live.
fn beat() -> Interval {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

/// Takes every event that waits, by `hear`, then writes once.
fn take(
    first: Event,
    more: &mut UnboundedReceiver<Event>,
    round: &mut Round,
    hear: fn(&mut Round, Event),
) {
    hear(round, first);
    while let Ok(event) = more.try_recv() {
        hear(round, event);
    }
    round.conclude();
}

fn usable(path: &Path, flag: &'static str) -> Result<(), StartError> {
    let fail = |source| StartError::Directory { path: path.to_owned(), flag, source };
    std::fs::create_dir_all(path).map_err(fail)?;
    let probe = path.join(".penstock-controlplane.probe");
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(fail)
}

/// The numbers, served if it was asked for.
fn metrics(address: Option<&Address>) -> Result<Arc<Metrics>, StartError> {
    let metrics = Arc::new(Metrics::default());
    metrics.beat();
    if let Some(address) = address {
        serve::start(address, Arc::clone(&metrics))
            .map_err(|source| StartError::Metrics { address: address.clone(), source })?;
    }
    Ok(metrics)
}

fn memory(file: &Path) -> Option<StateFile> {
    let opened = StateFile::open(file);
    opened.inspect_err(|error| warn!(%error, "published states are not kept")).ok()
}
