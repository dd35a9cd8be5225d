//! A data plane in a thread, and a producer that can be stopped at any record.

mod raw;
mod states;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use penstock_feed::{ObjectError, Producer, Server, StateFile, Step};

pub(crate) use raw::{RawProducer, connect_message, heard, say};
pub(crate) use states::{a_state, any_state, name};

/// Long enough for anything here on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A deadline that nothing here should reach.
pub(crate) fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// The user that runs the tests.
pub(crate) fn my_uid() -> u32 {
    std::fs::metadata("/proc/self").unwrap().uid()
}

/// Where a data plane lives; it outlives a restart.
pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("dataplane.sock")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub(crate) fn server(&self) -> Server {
        let store = StateFile::open(self.state()).unwrap();
        Server::bind(&self.socket(), &[my_uid()], store).unwrap()
    }

    pub(crate) fn connect(&self) -> Producer {
        Producer::connect(&self.socket(), PATIENCE).unwrap()
    }

    /// Steps the server in a thread, and acknowledges each commit with `errors`.
    pub(crate) fn serve(&self, errors: &[ObjectError]) -> Served {
        let server = Arc::new(Mutex::new(self.server()));
        let (stop, paused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (server, stop, paused) =
                (Arc::clone(&server), Arc::clone(&stop), Arc::clone(&paused));
            let errors = errors.to_vec();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let idle = paused.load(Ordering::Relaxed) || {
                        let mut server = server.lock().unwrap();
                        let step = server.step(64);
                        if step == Step::Committed {
                            let generation = server.generation();
                            server.acknowledge(generation, &errors);
                        }
                        step == Step::Idle
                    };
                    if idle {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                }
            })
        };
        Served { server, stop, paused, thread: Some(thread) }
    }
}

/// A data plane whose main loop runs. Dropping it ends it.
pub(crate) struct Served {
    server: Arc<Mutex<Server>>,
    stop: Arc<AtomicBool>,
    paused: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub(crate) fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap()
    }

    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
        drop(self.server()); // a step that was under way is over
    }

    pub(crate) fn resume(&self) {
        self.paused.store(false, Ordering::Relaxed);
    }

    pub(crate) fn wait_until(&self, promise: &str, condition: impl Fn(&Server) -> bool) {
        let deadline = soon();
        while !condition(&self.server()) {
            assert!(Instant::now() < deadline, "{promise}: not so in {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
