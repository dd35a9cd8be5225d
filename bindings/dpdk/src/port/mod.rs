//! A NIC, from found to started to closed.
//!
//! ```text
//! Eal::ports ─► UnconfiguredPort ─configure─► ConfiguredPort ─start─► Port + RxQueues + TxQueues
//!                                                                        └──── stop ────┘ closed
//! ```
//!
//! Each arrow consumes what it starts from, so a queue is set up once, before start, and no queue is
//! polled before the port runs. A port is stopped and closed when its [`Port`] and all its queues are
//! gone, by [`Port::stop`] or by dropping them: never under a thread that still polls.
//!
//! A queue cannot be used after its port was stopped:
//! ```compile_fail,E0382
//! # use penstock_dpdk::{MbufBurst, Port, PortError, RxQueue, TxQueue};
//! fn poll_after_stop(port: Port, mut rx: Vec<RxQueue>, tx: Vec<TxQueue>) -> Result<(), PortError> {
//!     port.stop(rx, tx)?;
//!     rx[0].receive(&mut MbufBurst::new()); // `rx` was moved into `stop`
//!     Ok(())
//! }
//! ```
//! It cannot be polled by two threads:
//! ```compile_fail,E0277
//! # use penstock_dpdk::{MbufBurst, RxQueue};
//! fn share<T: Sync>(_: T) {}
//! fn poll_twice(rx: RxQueue) {
//!     share(rx);
//! }
//! ```
//! And there is one of each:
//! ```compile_fail,E0599
//! # use penstock_dpdk::TxQueue;
//! fn twice(tx: &TxQueue) -> TxQueue {
//!     TxQueue::clone(tx)
//! }
//! ```

mod config;
mod device;
mod error;
mod queue;
mod rss;
mod statistics;
mod steering;
mod vlan;

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

pub use config::{Capabilities, Granted, PortConfig, RssConfig, RssHash};
pub use error::PortError;
pub use queue::{RxQueue, TxQueue};
pub use rss::{Hashed, Rss, softrss};
pub use statistics::{Link, PortStats};
pub use steering::Steering;
pub use vlan::VlanTags;

use crate::eal::Live;
use crate::mempool::Mempool;
use device::{Description, Device};
use steering::Rules;

/// A port that EAL found and nobody configured yet. Dropped, it stays as it is.
#[derive(Debug)]
pub struct UnconfiguredPort {
    description: Description,
    live: Arc<Live>,
}

impl UnconfiguredPort {
    pub(crate) fn new(id: u16, live: Arc<Live>) -> Self {
        Self { description: Description::of(id), live }
    }

    /// DPDK's number for it, as found in an mbuf; it may change from start to start.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.description.id
    }

    /// Its name: `0000:3b:02.0` for a PCI device, `net_tap0` for a virtual one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// The name of the device behind it, equal for the ports of one device.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.description.device
    }

    /// The PMD that drives it, for instance `net_tap`.
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.description.driver
    }

    /// The NUMA socket it is attached to, if there is a nearest one.
    #[must_use]
    pub fn socket(&self) -> Option<u32> {
        self.description.socket()
    }

    /// Its MAC.
    ///
    /// # Errors
    /// [`PortError::Call`] if the device is gone.
    pub fn mac(&self) -> Result<[u8; 6], PortError> {
        self.description.mac()
    }

    /// What it can do.
    ///
    /// # Errors
    /// [`PortError::Call`] if the device is gone.
    pub fn capabilities(&self) -> Result<Capabilities, PortError> {
        self.description.limits().map(|limits| Capabilities::from(&limits))
    }

    /// Configures it and sets its queues up, with buffers from `pool`.
    ///
    /// What the device cannot do at all is an error if a program would not work without it (queues,
    /// descriptors, MTU), and otherwise missing from [`ConfiguredPort::granted`] (offloads, RSS).
    ///
    /// # Errors
    /// [`PortError`], with what was asked and what the PMD allows. The port is closed then.
    pub fn configure(
        self,
        config: &PortConfig,
        pool: &Mempool,
    ) -> Result<ConfiguredPort, PortError> {
        let limits = self.description.limits()?;
        let granted = config::negotiate(config, &limits, pool)?;
        let mut device = Device::new(self.description, pool.clone(), config.rss_key(), self.live);
        let granted = device.configure(granted)?;
        Ok(ConfiguredPort { device, granted })
    }
}

/// A port with all its queues set up, not yet running. Dropped, it is closed.
#[derive(Debug)]
pub struct ConfiguredPort {
    device: Device,
    granted: Granted,
}

impl ConfiguredPort {
    /// What the device agreed to.
    #[must_use]
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// As [`UnconfiguredPort::name`].
    #[must_use]
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// Starts it: packets come in from now on.
    ///
    /// The queues are in order; position and [`RxQueue::index`] are the same.
    ///
    /// # Errors
    /// [`PortError::Call`] if the PMD refuses. The port is closed then.
    pub fn start(self) -> Result<(Port, Vec<RxQueue>, Vec<TxQueue>), PortError> {
        self.device.start(&self.granted)?;
        let device = Arc::new(self.device);
        let rx = (0..self.granted.rx_queues).map(|index| RxQueue::new(Arc::clone(&device), index));
        let tx = (0..self.granted.tx_queues)
            .map(|index| TxQueue::new(Arc::clone(&device), index, self.granted.vlan_insert));
        let (rx, tx) = (rx.collect(), tx.collect());
        let rules = Rules::none(device.id());
        Ok((Port { rules, device, granted: self.granted, one_thread: PhantomData }, rx, tx))
    }
}

/// A running port, without its queues: addresses, link, counters.
///
/// One thread at a time uses it (DPDK's control calls of one port are not made for two); queues are
/// polled meanwhile.
#[derive(Debug)]
pub struct Port {
    rules: Rules, // ended before the device is closed
    device: Arc<Device>,
    granted: Granted,
    one_thread: PhantomData<Cell<()>>,
}

impl Port {
    /// As [`UnconfiguredPort::id`].
    #[must_use]
    pub fn id(&self) -> u16 {
        self.device.id()
    }

    /// As [`UnconfiguredPort::name`].
    #[must_use]
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// As [`UnconfiguredPort::driver`].
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.device.description().driver
    }

    /// As [`UnconfiguredPort::socket`].
    #[must_use]
    pub fn socket(&self) -> Option<u32> {
        self.device.description().socket()
    }

    /// What the device agreed to.
    #[must_use]
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// As [`UnconfiguredPort::mac`].
    ///
    /// # Errors
    /// [`PortError::Call`] if the device is gone.
    pub fn mac(&self) -> Result<[u8; 6], PortError> {
        self.device.description().mac()
    }

    /// The largest payload of an Ethernet frame, in bytes.
    ///
    /// # Errors
    /// [`PortError::Call`] if the device is gone.
    pub fn mtu(&self) -> Result<u16, PortError> {
        self.device.description().mtu()
    }

    /// Takes in frames for any destination MAC, or only its own.
    ///
    /// # Errors
    /// [`PortError::Call`] if the PMD cannot.
    pub fn set_promiscuous(&mut self, on: bool) -> Result<(), PortError> {
        self.device.set_promiscuous(on)
    }

    /// What its RSS does now: key, RETA, and what is hashed.
    ///
    /// # Errors
    /// [`PortError::Call`] if it has no RSS, or the PMD cannot tell.
    pub fn rss(&self) -> Result<Rss, PortError> {
        rss::read(self.device.description())
    }

    /// Gives RSS another key; hashed is what was asked at configuration.
    ///
    /// # Errors
    /// [`PortError::RssKey`] if it is of the wrong length, [`PortError::Call`] if the PMD cannot.
    pub fn set_rss_key(&mut self, key: &[u8]) -> Result<(), PortError> {
        rss::set_key(self.device.description(), key, self.granted.rss)
    }

    /// Gives RSS another RETA: the queue of each entry.
    ///
    /// # Errors
    /// [`PortError::RssTable`] if it is of the wrong length, [`PortError::NoSuchQueue`] if it names a queue
    /// that is not there, [`PortError::Call`] if the PMD cannot.
    pub fn set_rss_table(&mut self, table: &[u16]) -> Result<(), PortError> {
        rss::set_table(self.device.description(), table, self.granted.rx_queues)
    }

    /// Lets packets come in by a queue, whatever RSS says of them, until the port stops.
    ///
    /// # Errors
    /// [`PortError::Steering`] if the PMD does not take the rule, [`PortError::NoSuchQueue`] if it names a
    /// queue that is not there.
    pub fn steer(&mut self, steering: &Steering) -> Result<(), PortError> {
        self.rules.add(self.device.description(), steering, self.granted.rx_queues)
    }

    /// The link as the PMD last saw it; does not wait for one to come up.
    ///
    /// # Errors
    /// [`PortError::Call`] if the PMD cannot tell.
    pub fn link(&self) -> Result<Link, PortError> {
        statistics::link(self.device.description())
    }

    /// Counters since start. A VF's go on from where the last program left them.
    ///
    /// # Errors
    /// [`PortError::Call`] if the PMD cannot tell.
    pub fn stats(&self) -> Result<PortStats, PortError> {
        statistics::stats(self.device.description())
    }

    /// All counters the PMD has, by its names. Allocates; for people to read.
    ///
    /// # Errors
    /// [`PortError::Call`] if the PMD cannot tell.
    pub fn xstats(&self) -> Result<Vec<(String, u64)>, PortError> {
        statistics::xstats(self.device.description())
    }

    /// Stops and closes the port, which frees the packets in its rings. Takes the queues back: all
    /// of this port's, and none of another's.
    ///
    /// # Errors
    /// [`PortError::ForeignQueue`], [`PortError::QueuesOut`] (the port then closes when the last of
    /// them is dropped), [`PortError::Call`] if the PMD complains.
    pub fn stop(self, rx: Vec<RxQueue>, tx: Vec<TxQueue>) -> Result<(), PortError> {
        let devices = rx.iter().map(RxQueue::device).chain(tx.iter().map(TxQueue::device));
        for device in devices {
            if !Arc::ptr_eq(device, &self.device) {
                let (port, queue_of) = (self.name().to_owned(), device.name().to_owned());
                return Err(PortError::ForeignQueue { port, queue_of });
            }
        }
        drop((rx, tx));
        let (name, out) = (self.name().to_owned(), Arc::strong_count(&self.device) - 1);
        drop(self.rules);
        match Arc::into_inner(self.device) {
            Some(device) => device.close(),
            None => Err(PortError::QueuesOut { port: name, queues: out }),
        }
    }
}
