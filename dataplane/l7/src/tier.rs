//! The process: what the feed says is done, and what could not be done is said.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use penstock_feed::{BindError, ObjectError, Server, StateFile, StateFileError, Step, Tier};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::accept::{Shared, accept, bind_place};
use crate::counters::Counters;
use crate::place::{self, Place, Places};
use crate::report::Report;

const SECOND: Duration = Duration::from_secs(1);
const STEP_BUDGET_RECORDS: usize = 1024;
/// What open connections are given when the process ends.
const FAREWELL: Duration = Duration::from_secs(11);

/// How the process is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where `l7.sock` and `l7.json` are.
    pub run_dir: PathBuf,
    /// Where `l7.state` is, which holds keys: its mode is 0600.
    pub state_dir: PathBuf,
    /// Connections that may be open at once.
    pub max_connections: usize,
    /// The users who may feed us.
    pub allowed_uids: Vec<u32>,
}

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum TierError {
    /// The feed's socket.
    #[error(transparent)]
    Feed(#[from] BindError),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// The kernel.
    #[error("cannot {action}: {source}")]
    Io {
        /// What we were about to do.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A place that is served.
struct Serving {
    place: Arc<ArcSwap<Place>>,
    gone: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Serving {
    /// Its socket is closed when this returns; its open connections drain.
    fn close(self) {
        let _ = self.gone.send(true);
        let _ = Handle::current().block_on(self.accepting); // an accept that panicked has closed it too
    }
}

struct Running {
    started: String,
    settings: Settings,
    server: Server,
    shared: Shared,
    wanted: Places,
    unusable: Vec<ObjectError>,
    serving: BTreeMap<SocketAddr, Serving>,
    unbound: BTreeMap<SocketAddr, String>,
}

/// Serves until SIGTERM or SIGINT: by the state that was last saved, and by what the feed says. The calling
/// thread follows the feed; connections are on `runtime`'s.
///
/// # Errors
/// [`TierError`] if it cannot start.
pub fn run(settings: Settings, runtime: &Runtime) -> Result<(), TierError> {
    let _entered = runtime.enter(); // what is spawned below is spawned there
    let io_error = |action| move |source| TierError::Io { action, source };
    let end = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&end)).map_err(io_error("catch signals"))?;
    }
    let store = StateFile::open(settings.state_dir.join("l7.state"))?;
    let socket = settings.run_dir.join("l7.sock");
    let server = Server::bind_tier(Tier::L7, &socket, &settings.allowed_uids, store)?;
    let mut running = Running::new(settings, server);
    info!(generation = running.server.generation(), socket = %socket.display(), "L7 tier started");
    running.take_over();
    let mut next_second = Instant::now();
    while !end.load(Ordering::Relaxed) {
        running.wait_until(next_second).map_err(io_error("wait for the feed"))?;
        running.follow();
        if Instant::now() >= next_second {
            next_second = Instant::now() + SECOND;
            running.bind_again();
            running.report();
        }
    }
    runtime.block_on(running.end());
    Ok(())
}

impl Running {
    fn new(settings: Settings, server: Server) -> Self {
        let room = Arc::new(Semaphore::new(settings.max_connections));
        Self {
            started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            settings,
            server,
            shared: Shared { counters: Arc::new(Counters::default()), room },
            wanted: BTreeMap::new(),
            unusable: Vec::new(),
            serving: BTreeMap::new(),
            unbound: BTreeMap::new(),
        }
    }

    /// Sleeps until the feed has something, a signal came, or it is `due`.
    fn wait_until(&self, due: Instant) -> io::Result<()> {
        let left = due.saturating_duration_since(Instant::now()).min(SECOND);
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let [feed] = self.server.poll_fds();
        match poll(&mut [PollFd::from_borrowed_fd(feed, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Reads the feed to its end; of several commits only the last is worth anything.
    fn follow(&mut self) {
        let mut committed = false;
        loop {
            match self.server.step(STEP_BUDGET_RECORDS) {
                Step::Idle => break,
                Step::More => {}
                Step::Committed => committed = true,
            }
        }
        if committed {
            self.take_over();
        }
    }

    /// Serves what the committed state says, and acknowledges it.
    fn take_over(&mut self) {
        let state = Arc::clone(self.server.state());
        let _ = self.server.take_touched(); // every place is looked at anyway
        (self.wanted, self.unusable) = place::places(&state.l7, &self.wanted);
        let wanted = &self.wanted;
        let (kept, removed): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.serving)
            .into_iter()
            .partition(|(address, _)| wanted.contains_key(address));
        removed.into_values().for_each(Serving::close);
        self.serving = kept;
        for (address, serving) in &self.serving {
            if let Some(place) = wanted.get(address) {
                serving.place.store(Arc::clone(place));
            }
        }
        self.bind_missing();
        let errors = self.acknowledge();
        let (generation, places) = (self.server.generation(), self.serving.len());
        info!(generation, places, errors, "configuration in force");
    }

    fn bind_missing(&mut self) {
        self.unbound.clear();
        for (&address, place) in &self.wanted {
            if self.serving.contains_key(&address) {
                continue;
            }
            match bind_place(address) {
                Ok(listener) => {
                    let place = Arc::new(ArcSwap::new(Arc::clone(place)));
                    let (gone, was_told) = watch::channel(false);
                    let shared = self.shared.clone();
                    let accepting =
                        tokio::spawn(accept(listener, Arc::clone(&place), shared, was_told));
                    self.serving.insert(address, Serving { place, gone, accepting });
                }
                Err(fault) => {
                    let message = format!(
                        "{address}: cannot be listened on: {fault}: free the port; it is tried again each second"
                    );
                    self.unbound.insert(address, message);
                }
            }
        }
    }

    fn bind_again(&mut self) {
        if self.unbound.is_empty() {
            return;
        }
        let before = self.unbound.clone();
        self.bind_missing();
        if self.unbound != before {
            self.acknowledge();
        }
    }

    fn errors(&self) -> Vec<ObjectError> {
        let mut errors = self.unusable.clone();
        for (address, message) in &self.unbound {
            let listeners =
                self.wanted.get(address).into_iter().flat_map(|place| place.listeners());
            errors.extend(listeners.map(|served| place::error(&served.name, message.clone())));
        }
        errors
    }

    /// Acknowledges what is in force. Returns how many listeners are not.
    fn acknowledge(&mut self) -> usize {
        let errors = self.errors();
        for error in &errors {
            warn!("{error}");
        }
        self.server.acknowledge(self.server.generation(), &errors);
        errors.len()
    }

    fn report(&self) {
        let report = Report {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
            started: self.started.clone(),
            generation: self.server.generation(),
            digest: self.server.digest().to_string(),
            fed_by_pid: self.server.connected_peer().map(|peer| peer.pid),
            open_connections: self.open_connections(),
            max_connections: self.settings.max_connections,
            listening: self.serving.keys().map(ToString::to_string).collect(),
            errors: self.errors().iter().map(ToString::to_string).collect(),
            counters: self.shared.counters.list().into_iter().collect(),
        };
        let path = self.settings.run_dir.join("l7.json");
        if let Err(fault) = report.write(&path) {
            warn!("{}: cannot be written: {fault}", path.display());
        }
    }

    fn open_connections(&self) -> usize {
        self.settings.max_connections - self.shared.room.available_permits()
    }

    /// Stops accepting and lets open connections end what they are doing.
    async fn end(mut self) {
        info!(open_connections = self.open_connections(), "ending");
        self.serving.values().for_each(|serving| _ = serving.gone.send(true));
        self.serving.clear();
        let all = u32::try_from(self.settings.max_connections).unwrap_or(u32::MAX);
        let _ = timeout(FAREWELL, self.shared.room.acquire_many(all)).await;
        self.report();
    }
}
