//! The data plane's end: one socket, one producer at a time, and the state that was last committed.
//!
//! [`Server::step`] is called from the main loop and never blocks: every system call is told not
//! to wait, every loop has a bound, and the disk is written by a thread of its own. Between steps
//! the loop sleeps on [`Server::poll_fds`]. Whatever a producer does, the worst it gets is the end
//! of its connection; the state stays the last committed one.

mod connection;
mod lobby;
mod outbox;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::ack::{Ack, Refused};
use crate::digest::Digest;
use crate::model::{ObjectError, State, Tier, Touched};
use crate::record::FEED_VERSION;
use crate::session::{Hello, Received, receive_from_producer};
use crate::state_file::{Saver, StateFile, StateFileError};
use crate::transaction::{Outcome, Refusal, Transactions};

use connection::Connection;
use lobby::{Lobby, Waiting};

/// Commits that wait for their acknowledgement; of older ones the generation is forgotten.
const MAX_UNACKNOWLEDGED: usize = 1024;

const LISTENER: u64 = 0;
const LOBBY: u64 = 1;
const CONNECTION: u64 = 2;
const DOORBELL: u64 = 3;

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another data plane answers there.
    #[error("{}: another data plane listens there: stop it, or give this one another run directory", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket has the name.
    #[error("{}: is there and is no socket: remove it, or give another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The kernel refused something.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What we were about to do.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The state file cannot be read. A damaged one is no error: it is set aside.
    #[error(transparent)]
    State(StateFileError),
}

/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing waits.
    Idle,
    /// The budget is spent and there may be more.
    More,
    /// [`Server::state`] is a new one. There may be more.
    Committed,
}

/// The process at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process id when it connected; 0 if it lives in a PID namespace that we cannot see.
    pub pid: i32,
    /// Its user when it connected.
    pub uid: u32,
}

/// The consumer of the feed. Dropping it hangs up, removes the socket, and waits for the disk.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    listener: OwnedFd,
    epoll: OwnedFd,
    lobby: Lobby,
    connection: Option<Connection>,
    epoch: u64,
    transactions: Transactions,
    unacknowledged: VecDeque<(u64, Digest)>,
    acknowledged: Option<Ack>,
    saver: Saver,
}

impl Server {
    /// Loads the last state from `store` and listens at `path` (mode 0660) for producers whose
    /// user is one of `allowed_uids`. A socket that nobody answers at is removed first. A damaged
    /// state file is set aside with a warning, and the state is empty then.
    ///
    /// # Errors
    /// [`BindError`], each variant with the path and the next move.
    pub fn bind(path: &Path, allowed_uids: &[u32], store: StateFile) -> Result<Self, BindError> {
        Self::bind_tier(Tier::L4, path, allowed_uids, store)
    }

    /// The same for the objects of `tier`. A producer that sends others loses its connection.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_tier(
        tier: Tier,
        path: &Path,
        allowed_uids: &[u32],
        store: StateFile,
    ) -> Result<Self, BindError> {
        let (generation, state) = load(&store)?;
        let io_error =
            |action| move |source: io::Error| BindError::Io { path: path.into(), action, source };
        let listener = listen_at(path)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|errno| io_error("make an epoll")(errno.into()))?;
        watch(&epoll, &listener, LISTENER, epoll::EventFlags::IN)
            .map_err(|errno| io_error("watch it")(errno.into()))?;
        let saver =
            Saver::start(store).map_err(io_error("start the thread that saves the state"))?;
        let transactions = Transactions::new(generation, state).of_tier(tier);
        let unacknowledged = VecDeque::from([(generation, transactions.digest())]);
        Ok(Self {
            path: path.into(),
            listener,
            epoll,
            lobby: Lobby::new(allowed_uids),
            connection: None,
            epoch: 0,
            transactions,
            unacknowledged,
            acknowledged: None,
            saver,
        })
    }

    /// Does what there is to do, at most `budget_records` records of it. Never blocks. Returns at
    /// each commit, so that none is missed; a caller that wants only the newest calls again before
    /// it builds.
    pub fn step(&mut self, budget_records: usize) -> Step {
        self.look_at_sockets();
        let step = self.read(budget_records);
        if let Some(connection) = &mut self.connection {
            connection.answer();
            if step != Step::Idle {
                connection.ring_again(&self.epoll);
            }
        }
        step
    }

    /// The last committed state.
    pub fn state(&self) -> &Arc<State> {
        self.transactions.state()
    }

    /// What commits touched since the last call; since nothing was there, at the first.
    pub fn take_touched(&mut self) -> Touched {
        self.transactions.take_touched()
    }

    /// The generation of the last committed state; 0 if there never was one.
    pub fn generation(&self) -> u64 {
        self.transactions.generation()
    }

    /// The digest of the last committed state.
    pub fn digest(&self) -> Digest {
        self.transactions.digest()
    }

    /// The number of producers let in since this process started; the last one's connection.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The producer at the other end, if there is one.
    pub fn connected_peer(&self) -> Option<Peer> {
        self.connection.as_ref().map(Connection::peer)
    }

    /// Says that every worker forwards by `generation`, except for the objects in `errors`. Told
    /// to the producer now or, if there is none, to the next one. A generation that was not
    /// committed, or is older than the last one acknowledged, is ignored.
    pub fn acknowledge(&mut self, generation: u64, errors: &[ObjectError]) {
        let known = self.unacknowledged.iter().position(|(known, _)| *known == generation);
        let digest = match (known, &self.acknowledged) {
            (Some(at), _) => {
                let (_, digest) = self.unacknowledged[at];
                self.unacknowledged.drain(..=at);
                digest
            }
            (None, Some(last)) if last.generation == generation => last.digest,
            _ => return,
        };
        let errors = errors.to_vec();
        let ack = Ack { generation, digest, errors, wants_snapshot: false, refused: None };
        self.acknowledged = Some(ack.clone());
        if let Some(connection) = &mut self.connection {
            connection.post(ack);
            connection.answer();
        }
    }

    /// What to wait on for reading between steps: readable when there is something to do, also
    /// what an earlier step left for want of budget. The same descriptor for the life of the server.
    pub fn poll_fds(&self) -> [BorrowedFd<'_>; 1] {
        [self.epoll.as_fd()]
    }

    fn look_at_sockets(&mut self) {
        let mut events = Vec::with_capacity(8);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Also what clears the doorbell: it is watched edge-triggered and never read.
        if epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&now)).is_err() {
            return; // a signal; whatever it was is still there in the next step
        }
        for event in events {
            match event.data.u64() {
                LISTENER => self.lobby.accept(&self.listener, &self.epoll),
                LOBBY => {
                    for waiting in self.lobby.ready() {
                        self.admit(waiting);
                    }
                }
                CONNECTION => self.look_at_connection(),
                _ => {} // the doorbell: the ring is looked at anyway
            }
        }
    }

    /// Lets a producer in that is allowed and speaks our version; an older one ends.
    fn admit(&mut self, waiting: Waiting) {
        let peer = waiting.peer();
        let epoch = self.epoch + 1;
        let reason = format!(
            "a newer producer connected: pid {} of uid {}, epoch {epoch}",
            peer.pid, peer.uid
        );
        self.end(&reason);
        let hello = Hello {
            protocol_version: FEED_VERSION.into(),
            epoch,
            generation: self.generation(),
            digest: self.digest(),
        };
        self.epoch = epoch;
        match Connection::open(waiting, &hello, &self.epoll) {
            Ok(mut connection) => {
                tracing::info!(pid = peer.pid, uid = peer.uid, epoch, "producer connected");
                if let Some(ack) = &self.acknowledged {
                    connection.post(ack.clone());
                    connection.answer();
                }
                self.connection = Some(connection);
            }
            Err(error) => {
                tracing::warn!(pid = peer.pid, uid = peer.uid, %error, "producer not let in");
            }
        }
    }

    fn look_at_connection(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        match receive_from_producer(connection.socket()) {
            Received::Nothing => {}
            // It may have committed before it went: what is in the ring is read, and nothing later.
            Received::HungUp => {
                if let Err(error) = connection.hang_up() {
                    self.end(&error.to_string());
                }
            }
            Received::Message(_) => self.end("it spoke on the socket after the hand-shake"),
        }
    }

    fn read(&mut self, budget_records: usize) -> Step {
        for _ in 0..budget_records {
            let Some(connection) = &mut self.connection else { return Step::Idle };
            let taken = match connection.receive() {
                Ok(Some(record)) => self.transactions.take(record, self.epoch),
                Ok(None) if connection.is_hung_up() => {
                    self.end("it hung up");
                    return Step::Idle;
                }
                Ok(None) => return Step::Idle,
                Err(error) => {
                    self.end(&error.to_string());
                    return Step::Idle;
                }
            };
            match taken {
                Ok(Outcome::Open) => {}
                Ok(Outcome::Committed) => {
                    self.committed();
                    return Step::Committed;
                }
                Ok(Outcome::Unchanged) => self.answer_again(),
                Ok(Outcome::Refused(refusal)) => self.refuse(refusal),
                Err(error) => {
                    self.end(&error.to_string());
                    return Step::Idle;
                }
            }
        }
        Step::More
    }

    fn committed(&mut self) {
        let (generation, digest) = (self.generation(), self.digest());
        tracing::info!(generation, %digest, "state committed");
        self.saver.save(generation, Arc::clone(self.state()));
        if self.unacknowledged.len() == MAX_UNACKNOWLEDGED {
            self.unacknowledged.pop_front();
        }
        self.unacknowledged.push_back((generation, digest));
    }

    /// The producer sent what is there already; if that is in force, it is told so once more.
    fn answer_again(&mut self) {
        let generation = self.generation();
        let in_force = self.acknowledged.clone().filter(|ack| ack.generation == generation);
        if let (Some(ack), Some(connection)) = (in_force, &mut self.connection) {
            connection.post(ack);
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        let Refusal { generation, reason, errors, wants_snapshot } = refusal;
        tracing::warn!(generation, reason, "transaction refused");
        let in_force = self.acknowledged.as_ref().map(|ack| (ack.generation, ack.digest));
        let (acknowledged, digest) = in_force.unwrap_or_default();
        if let Some(connection) = &mut self.connection {
            connection.post(Ack {
                generation: acknowledged,
                digest,
                errors,
                wants_snapshot,
                refused: Some(Refused { generation, reason }),
            });
        }
    }

    /// Ends the connection, if there is one, and forgets its open transaction.
    fn end(&mut self, reason: &str) {
        self.transactions.abandon();
        if let Some(connection) = self.connection.take() {
            let Peer { pid, uid } = connection.peer();
            tracing::info!(pid, uid, reason, "producer disconnected");
            connection.end(reason, &self.epoll);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end("this end is ending");
        let _ = fs::remove_file(&self.path); // if someone was faster, it is gone, as it should be
    }
}

fn load(store: &StateFile) -> Result<(u64, Arc<State>), BindError> {
    match store.load() {
        Ok(Some(loaded)) => Ok(loaded),
        Ok(None) => Ok((0, Arc::default())),
        Err(error @ StateFileError::Damaged { .. }) => {
            tracing::warn!(%error, "starting without a state");
            Ok((0, Arc::default()))
        }
        Err(error) => Err(BindError::State(error)),
    }
}

fn listen_at(path: &Path) -> Result<OwnedFd, BindError> {
    let io_error =
        |action| move |source: io::Error| BindError::Io { path: path.into(), action, source };
    let errno = |action| move |errno: Errno| io_error(action)(errno.into());
    remove_stale(path)?;
    let address = SocketAddrUnix::new(path).map_err(errno("use it as the name of a socket"))?;
    let socket = seqpacket().map_err(errno("make a socket"))?;
    bind(&socket, &address).map_err(errno("bind a socket to it"))?;
    // Before `listen`: nobody gets in while the mode is still that of the umask.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .map_err(io_error("set its mode"))?;
    listen(&socket, 8).map_err(errno("listen"))?;
    Ok(socket)
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let io_error =
        |action| move |source: io::Error| BindError::Io { path: path.into(), action, source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("look at it")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.into() });
        }
        Ok(_) => {}
    }
    let answered = seqpacket().and_then(|probe| connect(&probe, &SocketAddrUnix::new(path)?));
    match answered {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(io_error("remove it")),
        Err(Errno::PROTOTYPE) | Ok(()) | Err(Errno::AGAIN) => {
            Err(BindError::InUse { path: path.into() })
        }
        Err(errno) => Err(io_error("see whether anyone listens there")(errno.into())),
    }
}

fn seqpacket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

fn watch(
    epoll: &OwnedFd,
    source: impl AsFd,
    token: u64,
    flags: epoll::EventFlags,
) -> Result<(), Errno> {
    epoll::add(epoll, source, epoll::EventData::new_u64(token), flags)
}
