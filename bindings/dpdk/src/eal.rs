//! DPDK's environment (EAL): memory, devices and lcores, initialised once a process.
//!
//! `rte_eal_init` pins the thread that calls it, and every thread made later inherits that mask. So
//! it runs on a thread of its own here, and the caller keeps the CPUs it had.
//!
//! The `Eal` value is the proof that others need ([`Mempool::new`](crate::Mempool::new)). Values
//! made from it share the hold on EAL, so [`Eal::cleanup`] unmaps memory only when none is left.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use penstock_dpdk_sys as c;

use crate::errno::Errno;
use crate::lcore::Lcore;
use crate::mempool::Pool;
use crate::port::UnconfiguredPort;

/// EAL cannot be initialised twice, not even after a failure.
static CALLED: AtomicBool = AtomicBool::new(false);

/// Proof that EAL runs. One a process; kept by the program for its whole life.
///
/// Dropped without [`cleanup`](Self::cleanup), EAL simply runs on until the process ends.
#[derive(Debug)]
pub struct Eal {
    live: Arc<Live>,
    given_lcores: bool,
    given_ports: BTreeSet<u16>,
}

/// What every value made from EAL holds on to.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pools: Mutex<Vec<Pool>>,
}

impl Live {
    /// A pool lives as long as EAL: an mbuf is one pointer and must find its pool at any time.
    pub(crate) fn keep(&self, pool: Pool) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
    }
}

/// Why EAL did not start.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// One initialisation a process, failed ones included.
    #[error(
        "EAL was initialised before in this process: it can be done once, so start a new process"
    )]
    Again,
    /// C cannot take the argument.
    #[error("EAL argument {0:?} holds a NUL byte: remove it")]
    Nul(String),
    /// The thread for it did not start.
    #[error("no thread to initialise EAL on: {0}")]
    Thread(io::Error),
    /// EAL itself refused.
    #[error("EAL refused to start with {arguments:?}: {errno}; its own lines above name the cause")]
    Refused {
        /// The arguments it was given.
        arguments: Vec<String>,
        /// Its reason.
        errno: Errno,
    },
}

/// Why [`Eal::cleanup`] left EAL's memory mapped. Nothing is lost by it: the process ending frees all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CleanupError {
    /// Values made from EAL still exist, or work goes on on an lcore.
    #[error("EAL is held by {0} values (ports, queues, mempools, lcores): drop or join them first")]
    InUse(usize),
    /// Somebody still holds packets.
    #[error("mempool {pool}: {mbufs} mbufs are still out, drop them first")]
    MbufsOut {
        /// The mempool's name.
        pool: String,
        /// How many of its mbufs have an owner.
        mbufs: u32,
    },
    /// EAL itself failed.
    #[error("rte_eal_cleanup: {0}")]
    Refused(Errno),
}

impl Eal {
    /// Initialises EAL with `arguments`, which do not include the program's name. Logs go to stderr.
    ///
    /// Takes 0.1 to 0.3 s with the drivers as plugins, most of it loading them. `--help` and
    /// `--version` among the arguments end the process: EAL does that itself.
    ///
    /// # Errors
    /// [`EalError`]: called before, or refused, for instance without free hugepages.
    pub fn init(arguments: &[impl AsRef<str>]) -> Result<Self, EalError> {
        let arguments: Vec<String> = arguments.iter().map(|a| a.as_ref().to_owned()).collect();
        let argv = to_argv(&arguments)?;
        if CALLED.swap(true, Ordering::SeqCst) {
            return Err(EalError::Again);
        }
        let started =
            thread::Builder::new().name("eal-init".to_owned()).spawn(move || rte_eal_init(argv));
        let outcome = started.map_err(EalError::Thread)?.join();
        match outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            Ok(()) => {
                Ok(Self { live: Arc::default(), given_lcores: false, given_ports: BTreeSet::new() })
            }
            Err(errno) => Err(EalError::Refused { arguments, errno }),
        }
    }

    /// The worker lcores, that is all but the main one, in ascending order. Each is given out once:
    /// a second call returns none.
    ///
    /// The main lcore's number belongs to EAL's own thread; the caller's threads are none of EAL's.
    pub fn lcores(&mut self) -> Vec<Lcore> {
        if std::mem::replace(&mut self.given_lcores, true) {
            return Vec::new();
        }
        worker_ids().map(|id| Lcore::new(id, Arc::clone(&self.live))).collect()
    }

    /// The ports that no other port owns (a bond owns its members), in the order of their ids. Each
    /// is given out once.
    pub fn ports(&mut self) -> Vec<UnconfiguredPort> {
        let fresh: Vec<u16> = port_ids().filter(|id| self.given_ports.insert(*id)).collect();
        fresh.into_iter().map(|id| UnconfiguredPort::new(id, Arc::clone(&self.live))).collect()
    }

    /// TSC ticks a second, as EAL measured or read them at start. See [`cycles`].
    #[must_use]
    pub fn tsc_hz(&self) -> u64 {
        // SAFETY: reads a variable that `rte_eal_init` set; `self` proves that it ran.
        unsafe { c::rte_get_tsc_hz() }
    }

    /// Gives devices and memory back.
    ///
    /// # Errors
    /// [`CleanupError`] while anything made from EAL is still alive; EAL then stays as it is.
    pub fn cleanup(self) -> Result<(), CleanupError> {
        let holders = Arc::strong_count(&self.live) - 1;
        let live = Arc::into_inner(self.live).ok_or(CleanupError::InUse(holders))?;
        let pools = live.pools.into_inner().unwrap_or_else(PoisonError::into_inner);
        for pool in &pools {
            if pool.in_use() > 0 {
                return Err(CleanupError::MbufsOut {
                    pool: pool.name().to_owned(),
                    mbufs: pool.in_use(),
                });
            }
        }
        pools.into_iter().for_each(Pool::free);
        // SAFETY: EAL was initialised; ports, queues, pools and lcores all held `Live`, which was
        // ours alone above, so none of them is left, and no mbuf was out. Nobody touches its memory.
        match unsafe { c::rte_eal_cleanup() } {
            0 => Ok(()),
            code => Err(CleanupError::Refused(Errno::returned(code))),
        }
    }

    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }
}

/// The processor's time stamp counter; [`Eal::tsc_hz`] says how fast it counts. Works without EAL.
#[inline]
#[must_use]
pub fn cycles() -> u64 {
    // SAFETY: reads a register.
    unsafe { c::penstock_tsc_cycles() }
}

/// The release of libdpdk in use, for instance `DPDK 22.11.11`.
#[must_use]
pub fn version() -> String {
    // SAFETY: returns a static string, with or without EAL.
    let version = unsafe { c::rte_version() };
    // SAFETY: never null, and terminated.
    unsafe { CStr::from_ptr(version) }.to_string_lossy().into_owned()
}

/// `argv` as C wants it: the program's name first, a null last.
///
/// Kept for ever on purpose, once a process: EAL reorders the array and keeps pointers into it.
struct Argv(&'static mut [*mut c_char]);

// SAFETY: the strings and the array belong to nobody else; they move to the thread that uses them.
unsafe impl Send for Argv {}

fn to_argv(arguments: &[String]) -> Result<Argv, EalError> {
    let name = std::env::args().next().unwrap_or_else(|| "penstock".to_owned());
    let strings: Result<Vec<CString>, EalError> = std::iter::once(&name)
        .chain(arguments)
        .map(|argument| {
            CString::new(argument.as_str()).map_err(|_| EalError::Nul(argument.clone()))
        })
        .collect();
    let mut argv: Vec<*mut c_char> = strings?.into_iter().map(CString::into_raw).collect();
    argv.push(std::ptr::null_mut());
    Ok(Argv(argv.leak()))
}

#[expect(clippy::needless_pass_by_value, reason = "EAL keeps the array, so the caller must not")]
fn rte_eal_init(argv: Argv) -> Result<(), Errno> {
    let argc = c_int::try_from(argv.0.len() - 1).unwrap_or(c_int::MAX);
    // SAFETY: may be called before `rte_eal_init`; it hands `stderr` to the log.
    unsafe { c::penstock_log_to_stderr() };
    // SAFETY: `CALLED` lets one thread through, once; `argv` holds `argc` writable, terminated
    // strings that live for ever, and a null after them.
    if unsafe { c::rte_eal_init(argc, argv.0.as_mut_ptr()) } < 0 {
        Err(Errno::last())
    } else {
        Ok(())
    }
}

fn worker_ids() -> impl Iterator<Item = u32> {
    let next = |after: u32| {
        // SAFETY: EAL runs; any number is a valid start, `u32::MAX` the one before the first.
        let id = unsafe { c::rte_get_next_lcore(after, 1, 0) };
        (id < c::PENSTOCK_MAX_LCORE).then_some(id)
    };
    std::iter::successors(next(u32::MAX), move |id| next(*id))
}

fn port_ids() -> impl Iterator<Item = u16> {
    let next = |from: u16| {
        // SAFETY: EAL runs; any number is a valid start.
        let id = unsafe { c::rte_eth_find_next_owned_by(from, c::PENSTOCK_ETH_NO_OWNER) };
        u16::try_from(id).ok().filter(|id| u32::from(*id) < c::PENSTOCK_MAX_ETHPORTS)
    };
    std::iter::successors(next(0), move |id| next(*id + 1))
}
