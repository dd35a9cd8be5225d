//! EAL's pinned threads, to run a closure on.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use penstock_dpdk_sys as c;

use crate::eal::Live;
use crate::errno::Errno;

/// A worker lcore with nothing to do: a thread that EAL made and pinned.
///
/// On an lcore a mempool is used through the lcore's own cache, elsewhere through its shared ring.
#[derive(Debug)]
pub struct Lcore {
    id: u32,
    live: Arc<Live>,
}

/// An lcore at work. Dropped without [`join`](Self::join), the work goes on and the lcore is lost.
#[derive(Debug)]
pub struct Running {
    lcore: Lcore,
    outcome: Arc<Outcome>,
}

/// The closure did not start.
#[derive(Debug, thiserror::Error)]
#[error("lcore {lcore}: rte_eal_remote_launch: {errno}")]
pub struct LaunchError {
    /// Which one.
    pub lcore: u32,
    /// Why.
    pub errno: Errno,
}

/// The closure panicked. The lcore itself is unharmed, and is lost with this.
#[derive(Debug, thiserror::Error)]
#[error("lcore {lcore} panicked: {message}")]
pub struct Panicked {
    /// Which one.
    pub lcore: u32,
    /// What it said.
    pub message: String,
}

type Work = Box<dyn FnOnce() + Send>;

/// What crosses to the lcore: one allocation, freed there.
struct Launch {
    work: Work,
    outcome: Arc<Outcome>,
    _live: Arc<Live>, // EAL's memory stays while the work uses it, even if nobody waits for it
}

impl Lcore {
    pub(crate) fn new(id: u32, live: Arc<Live>) -> Self {
        Self { id, live }
    }

    /// EAL's number for it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The CPUs it is pinned to, in ascending order: usually one.
    #[must_use]
    pub fn cpus(&self) -> Vec<u32> {
        let runs_on = |cpu: &u32| {
            // SAFETY: EAL runs, the id came from EAL, and `cpu` is below the size of a CPU set.
            unsafe { c::penstock_lcore_runs_on(self.id, *cpu) != 0 }
        };
        (0..c::PENSTOCK_CPU_SETSIZE).filter(runs_on).collect()
    }

    /// Runs `work` on the lcore. A panic in it ends the work, not the process (unless built with
    /// `panic = "abort"`), and is told by [`Running::join`].
    ///
    /// # Errors
    /// [`LaunchError`] if EAL does not take it; `work` is then dropped.
    pub fn launch(self, work: impl FnOnce() + Send + 'static) -> Result<Running, LaunchError> {
        let outcome = Arc::new(Outcome::default());
        let launch = Launch {
            work: Box::new(work),
            outcome: Arc::clone(&outcome),
            _live: Arc::clone(&self.live),
        };
        let argument = Box::into_raw(Box::new(launch));
        // SAFETY: the id came from EAL, and owning the `Lcore` means that nothing runs on it; `run`
        // takes the box exactly once, on that thread.
        let code = unsafe { c::rte_eal_remote_launch(Some(run), argument.cast(), self.id) };
        if code != 0 {
            // SAFETY: refused, so `run` will never be called and the box is still ours.
            drop(unsafe { Box::from_raw(argument) });
            return Err(LaunchError { lcore: self.id, errno: Errno::returned(code) });
        }
        Ok(Running { lcore: self, outcome })
    }
}

impl Running {
    /// EAL's number of the lcore.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.lcore.id
    }

    /// Whether the work has ended, well or by a panic.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.outcome.lock().is_some()
    }

    /// Waits, without spinning, until the work has ended, and gives the lcore back.
    ///
    /// # Errors
    /// [`Panicked`] with the message of the panic.
    pub fn join(self) -> Result<Lcore, Panicked> {
        let ended = self.outcome.wait();
        // SAFETY: the id came from EAL; `run` is past its last statement, so this returns at once
        // with the lcore ready for other work.
        unsafe { c::rte_eal_wait_lcore(self.lcore.id) };
        ended.map_err(|message| Panicked { lcore: self.lcore.id, message })?;
        Ok(self.lcore)
    }
}

/// Entered by EAL on the lcore.
///
/// # Safety
/// `argument` is a `Box<Launch>` made raw, and nobody else takes it back.
unsafe extern "C" fn run(argument: *mut c_void) -> c_int {
    // SAFETY: as above.
    let launch = unsafe { Box::from_raw(argument.cast::<Launch>()) };
    let Launch { work, outcome, _live } = *launch;
    // What `work` owned is gone before the outcome is told, even if its drop panics; nothing of it
    // is seen again after a panic, so that unwind safety is no question.
    let ended = catch_unwind(AssertUnwindSafe(work));
    outcome.tell(ended.map_err(|panic| message(panic.as_ref())));
    0
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// How the work ended, once it has.
#[derive(Default)]
struct Outcome {
    ended: Mutex<Option<Result<(), String>>>,
    told: Condvar,
}

impl Outcome {
    fn lock(&self) -> MutexGuard<'_, Option<Result<(), String>>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, ended: Result<(), String>) {
        *self.lock() = Some(ended);
        self.told.notify_all();
    }

    fn wait(&self) -> Result<(), String> {
        let mut ended = self.lock();
        loop {
            match ended.take() {
                Some(ended) => return ended,
                None => ended = self.told.wait(ended).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome").finish_non_exhaustive()
    }
}
