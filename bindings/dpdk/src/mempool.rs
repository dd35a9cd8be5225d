//! The buffers that packets live in: a fixed number, allocated once, in EAL's memory.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use penstock_dpdk_sys as c;

use crate::eal::{Eal, Live};
use crate::errno::Errno;
use crate::mbuf::Mbuf;

/// A handle to a mempool of mbufs. Clones are handles to the same pool.
///
/// The pool itself lives until [`Eal::cleanup`]; dropping handles frees no memory.
#[derive(Clone, Debug)]
pub struct Mempool {
    pool: Pool,
    data_room: u16,
    _live: Arc<Live>, // keeps the pool's memory
}

/// What a mempool is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MempoolConfig {
    /// How many mbufs. DPDK's memory is used best by a power of two minus one.
    pub mbufs: u32,
    /// How many of them each lcore may keep at hand, at most 512 and two thirds of `mbufs`.
    pub cache: u32,
    /// Bytes of packet an mbuf holds; 128 bytes of headroom come on top. Many NICs use whole KiB only.
    pub data_room: u16,
    /// The NUMA socket to take memory from; `None` for any.
    pub socket: Option<u32>,
}

impl Default for MempoolConfig {
    /// 8191 mbufs of 2048 bytes, 256 cached per lcore: about 19 MiB.
    fn default() -> Self {
        Self { mbufs: 8191, cache: 256, data_room: 2048, socket: None }
    }
}

/// Why there is no mempool.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MempoolError {
    /// C cannot take the name.
    #[error("mempool name {0:?} holds a NUL byte: remove it")]
    Nul(String),
    /// The cache is out of bounds.
    #[error("mempool {name}: a cache of {cache} asked, {mbufs} mbufs allow 0..={most}")]
    Cache {
        /// The pool's name.
        name: String,
        /// What was asked.
        cache: u32,
        /// Of how many mbufs.
        mbufs: u32,
        /// What would do.
        most: u32,
    },
    /// Headroom and data room together do not fit 16 bits.
    #[error(
        "mempool {name}: a data room of {data_room} bytes asked, at most {most} fit beside the headroom"
    )]
    DataRoom {
        /// The pool's name.
        name: String,
        /// What was asked.
        data_room: u16,
        /// What would do.
        most: u16,
    },
    /// DPDK refused, mostly for lack of memory.
    #[error(
        "mempool {name}: {mbufs} mbufs of {bytes} bytes: {errno}; if memory is short, give EAL more (-m) or ask for fewer mbufs"
    )]
    Refused {
        /// The pool's name.
        name: String,
        /// How many mbufs were asked.
        mbufs: u32,
        /// The bytes of each, headroom included.
        bytes: u16,
        /// Its reason.
        errno: Errno,
    },
}

impl Mempool {
    /// Makes a pool called `name`, which must be new to this process and at most 25 bytes.
    ///
    /// # Errors
    /// [`MempoolError`], with what was asked and what would do.
    pub fn new(eal: &Eal, name: &str, config: &MempoolConfig) -> Result<Self, MempoolError> {
        let c_name = CString::new(name).map_err(|_| MempoolError::Nul(name.to_owned()))?;
        let bytes = check(name, config)?;
        let socket = config.socket.map_or(c::PENSTOCK_SOCKET_ID_ANY, u32::cast_signed);
        // SAFETY: EAL runs, `eal` proves it; the name is terminated and copied by the callee.
        let pool = unsafe {
            c::rte_pktmbuf_pool_create(
                c_name.as_ptr(),
                config.mbufs,
                config.cache,
                0,
                bytes,
                socket,
            )
        };
        let Some(pool) = NonNull::new(pool) else {
            let errno = Errno::last();
            return Err(MempoolError::Refused {
                name: name.to_owned(),
                mbufs: config.mbufs,
                bytes,
                errno,
            });
        };
        let live = eal.live();
        let pool = Pool { pool, name: name.into() };
        live.keep(pool.clone());
        Ok(Self { pool, data_room: config.data_room, _live: live })
    }

    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.pool.name()
    }

    /// Bytes of packet an mbuf of this pool holds, headroom not counted.
    #[must_use]
    pub fn data_room(&self) -> u16 {
        self.data_room
    }

    /// Mbufs free now, those in the lcores' caches included. Walks all caches: for statistics.
    #[must_use]
    pub fn available(&self) -> u32 {
        // SAFETY: the pool lives until `Eal::cleanup`, which `_live` keeps off; the count is a
        // racy read that the callee allows from any thread.
        unsafe { c::rte_mempool_avail_count(self.pool.as_ptr()) }
    }

    /// Mbufs that somebody owns now: programs, RX descriptors, TX descriptors not yet reaped.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.pool.in_use()
    }

    /// An empty mbuf with its full headroom, or `None` if the pool is empty. From any thread: on an
    /// lcore by its cache, elsewhere by the shared ring.
    #[inline]
    #[must_use]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives (see `available`). Threads without an lcore id use no cache, and
        // the ring behind it is made for many producers and consumers.
        let mbuf = unsafe { c::penstock_pktmbuf_alloc(self.pool.as_ptr()) };
        // SAFETY: an mbuf fresh from its pool has one reference, and we are its only holder.
        NonNull::new(mbuf).map(|mbuf| unsafe { Mbuf::from_raw(mbuf) })
    }

    pub(crate) fn as_ptr(&self) -> *mut c::rte_mempool {
        self.pool.as_ptr()
    }
}

fn check(name: &str, config: &MempoolConfig) -> Result<u16, MempoolError> {
    let most = c::PENSTOCK_MEMPOOL_CACHE_MAX.min(config.mbufs / 3 * 2);
    if config.cache > most {
        return Err(MempoolError::Cache {
            name: name.to_owned(),
            cache: config.cache,
            mbufs: config.mbufs,
            most,
        });
    }
    config.data_room.checked_add(c::PENSTOCK_MBUF_HEADROOM).ok_or_else(|| MempoolError::DataRoom {
        name: name.to_owned(),
        data_room: config.data_room,
        most: u16::MAX - c::PENSTOCK_MBUF_HEADROOM,
    })
}

/// The pool itself. Its memory is valid until [`Pool::free`], which only [`Eal::cleanup`] calls.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pool: NonNull<c::rte_mempool>,
    name: Arc<str>,
}

// SAFETY: what we call on a pool is safe from any thread at the same time (ops `ring_mp_mc`; caches
// belong to one lcore each).
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    fn as_ptr(&self) -> *mut c::rte_mempool {
        self.pool.as_ptr()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn in_use(&self) -> u32 {
        // SAFETY: not freed yet; a racy read that is allowed from any thread.
        unsafe { c::rte_mempool_in_use_count(self.as_ptr()) }
    }

    /// Called by [`Eal::cleanup`] when no handle and no mbuf is left.
    pub(crate) fn free(self) {
        // SAFETY: the caller saw to it that nobody has a handle, an mbuf or a port using it.
        unsafe { c::rte_mempool_free(self.as_ptr()) }
    }
}
