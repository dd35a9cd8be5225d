//! A data plane, or an L7 tier, that only says yes or no, at the other end of a real ring.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use penstock_controlplane::controller::Paths;
use penstock_feed::{ObjectError, ObjectId, ObjectKind, Server, State, StateFile, Step, Tier};

/// A generation and its state.
pub type Commit = (u64, Arc<State>);

/// A consumer of the feed that acknowledges what it commits, if it is allowed to.
pub struct DataPlane {
    stop: Arc<AtomicBool>,
    pub willing: Arc<AtomicBool>,
    committed: Arc<Mutex<Vec<Commit>>>,
    thread: Option<JoinHandle<()>>,
}

impl DataPlane {
    pub fn start(paths: &Paths) -> Self {
        Self::start_refusing(paths, &[])
    }

    /// Acknowledges everything except `refused`, the names of listeners.
    pub fn start_refusing(paths: &Paths, refused: &[&str]) -> Self {
        Self::start_tier(Tier::L4, paths, ObjectKind::Listener, refused)
    }

    /// An L7 tier that acknowledges everything except `refused`.
    pub fn start_l7(paths: &Paths, refused: &[&str]) -> Self {
        Self::start_tier(Tier::L7, paths, ObjectKind::L7Listener, refused)
    }

    fn start_tier(tier: Tier, paths: &Paths, kind: ObjectKind, refused: &[&str]) -> Self {
        let uid = fs::metadata(&paths.run_dir).unwrap().uid();
        let (socket, store) = match tier {
            Tier::L4 => (&paths.dataplane_socket, "dataplane.state"),
            Tier::L7 => (&paths.l7_socket, "l7.state"),
        };
        let store = StateFile::open(paths.run_dir.join(store)).unwrap();
        let mut server = Server::bind_tier(tier, socket, &[uid], store).unwrap();
        let error = |name: &&str| ObjectError {
            object: ObjectId { kind, name: (*name).try_into().unwrap() },
            message: "no port has this VIP".into(),
        };
        let errors: Vec<_> = refused.iter().map(error).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let willing = Arc::new(AtomicBool::new(true));
        let committed = Arc::new(Mutex::new(Vec::new()));
        let (stopped, agrees, commits) =
            (Arc::clone(&stop), Arc::clone(&willing), Arc::clone(&committed));
        let thread = std::thread::spawn(move || {
            let mut acknowledged = None;
            while !stopped.load(Ordering::Relaxed) {
                match server.step(1000) {
                    Step::Committed => {
                        let now = (server.generation(), Arc::clone(server.state()));
                        commits.lock().unwrap().push(now);
                    }
                    Step::More => {}
                    Step::Idle => std::thread::sleep(Duration::from_millis(1)),
                }
                let generation = server.generation();
                if agrees.load(Ordering::Relaxed) && acknowledged != Some(generation) {
                    server.acknowledge(generation, &errors);
                    acknowledged = Some(generation);
                }
            }
        });
        Self { stop, willing, committed, thread: Some(thread) }
    }

    pub fn commits(&self) -> Vec<Commit> {
        self.committed.lock().unwrap().clone()
    }

    pub fn listeners(&self) -> usize {
        self.commits().last().map_or(0, |(_, state)| state.listeners.size())
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}
