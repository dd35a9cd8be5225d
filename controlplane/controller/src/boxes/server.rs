//! Where boxes come in: a port, and a thread of its own for all that happens behind it.
//!
//! A handshake costs a signature and a stranger costs nothing: so many may be at the door (`door.rs`) at once, each
//! for so long, and who proves nothing is turned away with a counter and, once a second at most, a log line.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use super::admission::Admission;
use super::door::{Door, Place};
use super::fleet::FleetEvent;
use super::greeting::{self, Greeted};
use super::session;
use crate::lease::Leads;
use crate::link::Bundle;
use crate::link::message::{Hello, Report};
use crate::pki::keeper::{Keeper, Record};
use crate::pki::{Authority, Identity, Unusable, tls};

/// So many links there may be.
const MOST_LINKS: usize = 4096;
/// How often one reason is logged.
const QUIET: Duration = Duration::from_secs(1);
/// When accepting fails, for want of descriptors for instance, it is tried again after this.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Which link of all that there ever were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What happens on links.
#[derive(Debug)]
pub enum LinkEvent {
    /// A box is there.
    Connected {
        /// Its link.
        link: LinkId,
        /// Who it is.
        identity: Identity,
        /// What it said first.
        hello: Hello,
        /// Where it is told what to do. Dropping it ends the link.
        wanted: watch::Sender<Option<Arc<Bundle>>>,
    },
    /// A box said what it does.
    Reported {
        /// Its link.
        link: LinkId,
        /// Its name.
        name: String,
        /// What it said.
        report: Report,
    },
    /// A link ended.
    Closed {
        /// Which.
        link: LinkId,
        /// Whose it was.
        name: String,
        /// Why, in words.
        reason: String,
        /// For how long the box had said nothing, if that is why.
        silence: Duration,
    },
}

/// How boxes are let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How long a box's certificate is good for.
    pub certificate_lifetime: Duration,
    /// Who we are, for people.
    pub controller: String,
}

/// Everything that the tasks of links share.
pub(super) struct Shared {
    pub(super) policy: Policy,
    pub(super) keeper: Keeper,
    pub(super) authority: Arc<Authority>,
    pub(super) leads: watch::Receiver<Leads>,
    pub(super) admission: watch::Receiver<Admission>,
    pub(super) events: mpsc::Sender<FleetEvent>,
    pub(super) counts: Arc<Counts>,
    next_link: Mutex<u64>,
}

impl Shared {
    pub(super) fn new_link(&self) -> LinkId {
        let mut next = self.next_link.lock().unwrap_or_else(PoisonError::into_inner);
        *next += 1;
        LinkId(*next)
    }
}

/// What was counted at the door and on links.
#[derive(Debug, Default)]
pub struct Counts {
    inner: Mutex<Counted>,
}

/// The numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counted {
    /// Boxes that joined.
    pub joined: u64,
    /// Certificates that were renewed.
    pub renewed: u64,
    /// Bundles that were made, each with another digest than the last.
    pub bundles_built: u64,
    /// Bundles that were sent.
    pub bundles_sent: u64,
    /// Their bytes, packed.
    pub bundle_bytes_sent: u64,
    /// Who was turned away, or whose link was cut, by why.
    pub refused: BTreeMap<&'static str, u64>,
    #[serde(skip)]
    logged: BTreeMap<&'static str, Instant>,
}

impl Counts {
    /// The numbers now.
    #[must_use]
    pub fn now(&self) -> Counted {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counted)) {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts someone who is turned away. Logged once a second for each reason: a flood is no flood of lines.
    pub(super) fn refuse(&self, reason: &'static str, from: &str, message: &str) {
        let mut is_news = false;
        let mut total = 0;
        self.count(|counted| {
            let count = counted.refused.entry(reason).or_default();
            *count += 1;
            total = *count;
            let now = Instant::now();
            let last = counted.logged.insert(reason, now);
            is_news = last.is_none_or(|last| now.duration_since(last) >= QUIET);
            if !is_news {
                counted.logged.extend(last.map(|last| (reason, last)));
            }
        });
        if is_news {
            warn!(reason, from, message, total, "refused at the boxes' port");
        }
    }
}

/// The thread. Dropping it cuts every link.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it counted.
    pub counts: Arc<Counts>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why boxes cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The authority cannot be had.
    #[error("boxes cannot be served: {0}")]
    Authority(#[from] Unusable),
    /// The port cannot be had.
    #[error("boxes cannot be served at {address}: {source}: give another to --serve-boxes")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// What is kept cannot be.
    #[error("boxes cannot be served: {0}: give another to --state-dir")]
    State(io::Error),
}

impl Server {
    /// Listens, and lets boxes in as `admission` says while `leads` says that we lead.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn start(
        policy: &Policy,
        keeper: Keeper,
        record: &Record,
        leads: watch::Receiver<Leads>,
        admission: watch::Receiver<Admission>,
        events: mpsc::Sender<FleetEvent>,
    ) -> Result<Self, ServeError> {
        let authority = Arc::new(Authority::open(&record.authority)?);
        let acceptor = TlsAcceptor::from(tls::server(Arc::clone(&authority))?);
        let fail = |source| ServeError::Listen { address: policy.listen, source };
        let listener = std::net::TcpListener::bind(policy.listen).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let counts = Arc::new(Counts::default());
        let shared = Arc::new(Shared {
            policy: policy.clone(),
            keeper,
            authority,
            leads,
            admission,
            events,
            counts: Arc::clone(&counts),
            next_link: Mutex::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
        let run = move || {
            // Its tasks stay on this thread, and end with it.
            let tasks = LocalSet::new();
            runtime.block_on(tasks.run_until(async {
                tokio::select! {
                    () = listen(listener, acceptor, &shared) => {}
                    _ = stopped => {}
                }
            }));
        };
        let thread = std::thread::Builder::new().name("boxes".into()).spawn(run).map_err(fail)?;
        info!(%address, "boxes are served");
        Ok(Self { address, counts, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}

async fn listen(listener: std::net::TcpListener, acceptor: TlsAcceptor, shared: &Arc<Shared>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "boxes are not served"),
    };
    let door = Arc::new(Door::default());
    let links = Arc::new(Semaphore::new(MOST_LINKS));
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                shared.counts.refuse("accept", "", &error.to_string());
                sleep(TRY_AGAIN).await;
                continue;
            }
        };
        let Ok(link) = Arc::clone(&links).try_acquire_owned() else {
            shared.counts.refuse("busy", &from.to_string(), "too many at once");
            continue; // dropping it closes it
        };
        prepare(&stream);
        let place = door.enter(from.ip());
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(shared));
        tokio::task::spawn_local(async move {
            serve(stream, from, &acceptor, &shared, place).await;
            drop(link);
        });
    }
}

/// Serves one connection to its end.
async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    acceptor: &TlsAcceptor,
    shared: &Arc<Shared>,
    mut place: Place,
) {
    let heard = tokio::select! {
        heard = greeting::hear(stream, from, acceptor, shared) => heard,
        () = place.lost() => {
            let message = "made room for others: too many at once have not said who they are";
            return shared.counts.refuse("crowded-out", &from.to_string(), message);
        }
    };
    let Some(caller) = heard else { return };
    // Whoever has a token is not sent away in the middle: it would be used up for nothing.
    match greeting::greet(caller, from, shared).await {
        Greeted::Member { stream, card, hello, epoch } => {
            drop(place);
            session::run(stream, from, card, hello, epoch, shared).await;
        }
        Greeted::Joined(stream, last) => greeting::dismiss(stream, &last).await,
        Greeted::Refused(stream, last) => tokio::select! {
            () = greeting::dismiss(stream, &last) => {}
            () = place.lost() => {}
        },
    }
}

/// Small messages go at once.
pub(crate) fn prepare(stream: &TcpStream) {
    // Without it, a report waits 40 ms; that is all.
    let _ = stream.set_nodelay(true);
}
