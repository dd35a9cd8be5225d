//! The control process: one event loop on one thread, and the publisher's thread beside it.
//!
//! ```text
//!  folder: changes, SIGHUP, a look now and then ─► read ─► store ─┐
//!  cluster: what its watches saw ─────────────────────► mirror ───┤
//!  agent: the bundle that a controller wants ─────────────────────┴► translate ─► publisher, or boxes elsewhere
//!  observer: who is not well, what names come to ─► observed ─────┘
//!  acknowledgements, connections ─► progress ─────────────────────────┴─► status files, API server, report
//! ```
//!
//! Every arrow carries what changed, by name, and what is found under that name then counts: whatever is read twice
//! or overtaken does no harm. Every few minutes, off that path, the whole is compared, so that what got lost is found.

mod agent;
mod cluster;
mod folder;
mod round;
mod saving;
mod telling;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use penstock_feed::StateFile;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, channel, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, sleep};
use tracing::warn;

pub use agent::run_as_agent;
pub use cluster::Cluster;

use crate::boxes::server::{Policy, ServeError};
use crate::boxes::{Fleet, FleetEvent};
use crate::lease::Leads;
use crate::metrics::{Address, Metrics, serve};
use crate::observed::Observed;
use crate::observer::Observer;
use crate::pki::keeper::Keeper;
use crate::publish::{Event, Publisher, Target};
use round::Round;

/// The report is touched this often, so that a process that hangs can be told from one with nothing to do.
const BEAT: Duration = Duration::from_secs(1);

/// The authority of boxes is asked for so often until it is known.
const ASK_AGAIN: Duration = Duration::from_secs(2);

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
    /// Boxes cannot be served.
    #[error("{0}")]
    Boxes(#[from] ServeError),
    /// We are to run on a box that has not joined.
    #[error("{}: this box has not joined: make a token with `penstock token`, and run `penstock join` here", .0.display())]
    NotJoined(PathBuf),
}

/// How boxes are served, instead of a data plane here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeBoxes {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How long a box's certificate is good for: it is renewed before two thirds of that.
    pub certificate_lifetime: Duration,
}

/// Runs on a folder until SIGTERM or SIGINT. SIGHUP reads every file anew.
///
/// # Errors
/// [`StartError`]. Once it runs, nothing ends it but a signal.
pub async fn run(paths: Paths) -> Result<(), StartError> {
    let desk = Desk::open(&paths)?;
    folder::run(&paths, desk, None).await
}

/// The same, and serves boxes elsewhere instead of a data plane here: on a cluster, or on a folder if there is none.
///
/// # Errors
/// [`StartError`]. Once it runs, nothing ends it but a signal.
pub async fn run_serving(
    paths: Paths,
    cluster: Option<Cluster>,
    boxes: ServeBoxes,
) -> Result<(), StartError> {
    let desk = Desk::open(&paths)?;
    match cluster {
        Some(cluster) => cluster::run(&paths, cluster, desk, Some(boxes)).await,
        None => folder::run(&paths, desk, Some(boxes)).await,
    }
}

/// Runs on the API server of a cluster until SIGTERM or SIGINT. `paths.config_dir` is not read.
///
/// # Errors
/// [`StartError`]. Once it runs, nothing ends it but a signal.
pub async fn run_on_cluster(paths: Paths, cluster: Cluster) -> Result<(), StartError> {
    let desk = Desk::open(&paths)?;
    cluster::run(&paths, cluster, desk, None).await
}

/// What every source needs to begin.
struct Desk {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    metrics: Arc<Metrics>,
}

/// The ways to who is told what to do here.
struct Publishers {
    dataplane: Publisher,
    l7: Publisher,
    observer: Observer,
}

/// Who is told what to do.
enum Consumers {
    /// The data plane and the L7 tier of this box.
    Here(Publishers),
    /// Boxes elsewhere.
    Boxes(Box<Fleet>),
}

/// What those who are told say, and what the box finds out by itself. Of who is not there nothing ever comes.
struct Words {
    dataplane: UnboundedReceiver<Event>,
    l7: UnboundedReceiver<Event>,
    observations: UnboundedReceiver<Arc<Observed>>,
    fleet: Receiver<FleetEvent>,
}

impl Desk {
    fn open(paths: &Paths) -> Result<Self, StartError> {
        usable(&paths.run_dir, "--run-dir")?;
        usable(&paths.state_dir, "--state-dir")?;
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            metrics: metrics(paths.metrics.as_ref())?,
        })
    }

    /// Waits until we are to end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The data plane and the L7 tier of this box.
fn here(paths: &Paths, metrics: &Metrics) -> Result<(Consumers, Words), StartError> {
    let (events_in, dataplane) = unbounded_channel();
    let (l7_events_in, l7) = unbounded_channel();
    let (observed_in, observations) = unbounded_channel();
    let target = |name, socket: &PathBuf, file| {
        let memory = memory(&paths.state_dir.join(file));
        Target { name, socket: socket.clone(), memory }
    };
    let told = target("publish", &paths.dataplane_socket, "published");
    let told_l7 = target("publish-l7", &paths.l7_socket, "published-l7");
    let publishers = Publishers {
        dataplane: Publisher::start(told, events_in)?,
        l7: Publisher::start(told_l7, l7_events_in)?,
        observer: Observer::start(observed(paths), metrics.checks.clone(), observed_in)?,
    };
    let words = Words { dataplane, l7, observations, fleet: channel(1).1 };
    Ok((Consumers::Here(publishers), words))
}

/// Boxes elsewhere. Waits until the authority is known: without the API server, nothing can be told to anyone.
/// `None` if a signal ends that.
async fn elsewhere(
    paths: &Paths,
    boxes: &ServeBoxes,
    keeper: Keeper,
    leads: watch::Receiver<Leads>,
    controller: &str,
    desk: &mut Desk,
) -> Result<Option<(Consumers, Words)>, StartError> {
    let record = loop {
        let fault = tokio::select! {
            opened = keeper.open() => match opened {
                Ok(record) => break record,
                Err(fault) => fault,
            },
            () = desk.end() => return Ok(None),
        };
        warn!(%fault, "the authority of boxes cannot be had: tried again");
        tokio::select! {
            () = sleep(ASK_AGAIN) => {}
            () = desk.end() => return Ok(None),
        }
    };
    let policy = Policy {
        listen: boxes.listen,
        certificate_lifetime: boxes.certificate_lifetime,
        controller: controller.to_owned(),
    };
    let (fleet, events) =
        Fleet::start(&policy, keeper, &record, leads, &paths.state_dir, &paths.run_dir)?;
    let words = Words {
        dataplane: unbounded_channel().1,
        l7: unbounded_channel().1,
        observations: unbounded_channel().1,
        fleet: events,
    };
    Ok(Some((Consumers::Boxes(Box::new(fleet)), words)))
}

/// The file of what the box found out by itself.
fn observed_file(paths: &Paths) -> PathBuf {
    paths.state_dir.join("observed.json")
}

/// What it found out before.
fn observed(paths: &Paths) -> Observed {
    Observed::load(&observed_file(paths)).unwrap_or_else(|error| {
        warn!(%error, "who was not well, and what names came to, is lost");
        Observed::default()
    })
}

/// A clock that ticks as often as the report shows that we live.
fn beat() -> Interval {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

/// Takes everything of boxes that waits, then writes once.
fn take_boxes(first: FleetEvent, more: &mut Receiver<FleetEvent>, round: &mut Round) {
    round.hear_boxes(first);
    while let Ok(event) = more.try_recv() {
        round.hear_boxes(event);
    }
    round.conclude();
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
