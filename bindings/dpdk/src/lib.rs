//! DPDK as Rust would have it: whoever holds a value may use it, and letting go gives it back.
//!
//! A program goes through these in order, each made from the one before:
//!
//! 1. [`Eal`] ([`eal`]): DPDK is initialised, once a process, on a thread of its own.
//! 2. [`Mempool`] ([`mempool`]): the buffers that packets live in, all allocated at start.
//! 3. [`UnconfiguredPort`] → [`ConfiguredPort`] → [`Port`] ([`port`]): a NIC found, configured,
//!    started. Only a started port has queues, and each queue exists once.
//! 4. [`RxQueue`] and [`TxQueue`]: `&mut self` methods, so that one thread at a time polls a queue,
//!    which is what DPDK asks of us and never checks.
//! 5. [`MbufBurst`] ([`burst`]) and [`Mbuf`] ([`mbuf`]): up to [`BURST`] packets, and one. A packet
//!    has one owner; dropped, it goes back to its mempool.
//! 6. [`Lcore`] ([`lcore`]): a pinned thread of EAL's, to run a closure on.
//!
//! What a value needs stays as long as the value: a queue keeps its port open, a port keeps its
//! pool, all of them keep EAL. Nothing is closed under a thread that may still use it.
//!
//! ```no_run
//! use penstock_dpdk::{Eal, Mempool, MempoolConfig, MbufBurst, PortConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut eal = Eal::init(&["--no-pci", "--vdev=net_tap0,iface=lan0"])?;
//! let pool = Mempool::new(&eal, "mbufs", &MempoolConfig::default())?;
//! let port = eal.ports().remove(0).configure(&PortConfig::default(), &pool)?;
//! println!("{}: {:?}", port.name(), port.granted());
//! let (port, mut rx, mut tx) = port.start()?;
//! let mut burst = MbufBurst::new();
//! rx[0].receive(&mut burst);
//! tx[0].send(&mut burst); // what did not fit stays in the burst
//! burst.clear(); // and is dropped here
//! port.stop(rx, tx)?;
//! # Ok(())
//! # }
//! ```
//!
//! Cost: a burst is one call into the C shim, about 3 TSC cycles over the inlined form; packet
//! lengths, flags and bytes are read in place. No call on a queue, a burst or an mbuf allocates.

#![expect(
    unsafe_code,
    reason = "every safe call of this crate ends in a call of libdpdk, or in memory that libdpdk lent"
)]

pub mod burst;
pub mod eal;
pub mod errno;
pub mod lcore;
pub mod mbuf;
pub mod mempool;
pub mod port;

pub use burst::{BURST, MbufBurst};
pub use eal::{CleanupError, Eal, EalError, cycles};
pub use errno::Errno;
pub use lcore::{LaunchError, Lcore, Panicked, Running};
pub use mbuf::{Mbuf, MbufError, RxChecksum, RxChecksums, VlanTcis};
pub use mempool::{Mempool, MempoolConfig, MempoolError};
pub use port::{
    Capabilities, ConfiguredPort, Granted, Hashed, Link, Port, PortConfig, PortError, PortStats,
    Rss, RssConfig, RssHash, RxQueue, Steering, TxQueue, UnconfiguredPort, VlanTags, softrss,
};
