//! The calls of ethdev that configure, start and close a port, in the order it wants them.

use std::ffi::{CStr, c_char, c_int};
use std::sync::Arc;

use penstock_dpdk_sys as c;

use super::config::{Granted, Limits};
use super::error::{PortError, check};
use super::vlan;
use crate::eal::Live;
use crate::errno::Errno;
use crate::mempool::Mempool;

/// Which port, and what never changes about it.
#[derive(Clone, Debug)]
pub(super) struct Description {
    pub(super) id: u16,
    pub(super) name: String,
    pub(super) device: String,
    pub(super) driver: String,
}

impl Description {
    /// `id` came from EAL. What EAL cannot tell stays empty.
    pub(super) fn of(id: u16) -> Self {
        let mut name = [0 as c_char; c::PENSTOCK_ETH_NAME_MAX_LEN as usize];
        // SAFETY: a port id from EAL, and room for the longest name there is.
        let named = unsafe { c::rte_eth_dev_get_name_by_port(id, name.as_mut_ptr()) };
        let name = if named == 0 { text(name.as_ptr()) } else { format!("{id}") };
        let Ok(info) = info(id, &name) else {
            return Self { id, name, device: String::new(), driver: String::new() };
        };
        // SAFETY: the device behind a port that exists.
        let device = text(unsafe { c::rte_dev_name(info.device) });
        Self { id, name, device, driver: text(info.driver_name) }
    }

    pub(super) fn limits(&self) -> Result<Limits, PortError> {
        let info = info(self.id, &self.name)?;
        Ok(Limits {
            port: self.name.clone(),
            max_rx_queues: info.max_rx_queues,
            max_tx_queues: info.max_tx_queues,
            rx_descriptors: (info.rx_desc_lim.nb_min, info.rx_desc_lim.nb_max),
            tx_descriptors: (info.tx_desc_lim.nb_min, info.tx_desc_lim.nb_max),
            mtu_bytes: (info.min_mtu, info.max_mtu),
            mtu_now: self.mtu()?,
            rx_offloads: info.rx_offload_capa,
            tx_offloads: info.tx_offload_capa,
            rss_hash: info.flow_type_rss_offloads,
            rss_key_bytes: info.hash_key_size,
            rss_table_len: info.reta_size,
        })
    }

    pub(super) fn mac(&self) -> Result<[u8; 6], PortError> {
        let mut mac = c::rte_ether_addr::default();
        // SAFETY: a port id from EAL, and room for the answer.
        let code = unsafe { c::rte_eth_macaddr_get(self.id, &raw mut mac) };
        check(&self.name, "rte_eth_macaddr_get", code)?;
        Ok(mac.addr_bytes)
    }

    pub(super) fn mtu(&self) -> Result<u16, PortError> {
        let mut mtu = 0;
        // SAFETY: a port id from EAL, and room for the answer.
        let code = unsafe { c::rte_eth_dev_get_mtu(self.id, &raw mut mtu) };
        check(&self.name, "rte_eth_dev_get_mtu", code)?;
        Ok(mtu)
    }

    pub(super) fn socket(&self) -> Option<u32> {
        // SAFETY: takes any number.
        u32::try_from(unsafe { c::rte_eth_dev_socket_id(self.id) }).ok()
    }
}

fn info(id: u16, name: &str) -> Result<c::rte_eth_dev_info, PortError> {
    let mut info = c::rte_eth_dev_info::default();
    // SAFETY: a port id from EAL, and room for the answer.
    let code = unsafe { c::rte_eth_dev_info_get(id, &raw mut info) };
    check(name, "rte_eth_dev_info_get", code)?;
    Ok(info)
}

/// A string of DPDK's that is null or terminated, and stays for the call.
fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the callers got it terminated from DPDK.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// A port of ours from configuration on. Dropped, it is stopped and closed.
#[derive(Debug)]
pub(super) struct Device {
    description: Description,
    closed: bool,
    rss_key: Option<Box<[u8]>>, // ethdev keeps a pointer to it until the port is closed
    pool: Mempool,              // RX rings are refilled from it
    _live: Arc<Live>,
}

impl Device {
    pub(super) fn new(
        description: Description,
        pool: Mempool,
        rss_key: Option<Box<[u8]>>,
        live: Arc<Live>,
    ) -> Self {
        Self { description, closed: false, rss_key, pool, _live: live }
    }

    pub(super) fn description(&self) -> &Description {
        &self.description
    }

    pub(super) fn id(&self) -> u16 {
        self.description.id
    }

    pub(super) fn name(&self) -> &str {
        &self.description.name
    }

    fn check(&self, call: &'static str, code: c_int) -> Result<(), PortError> {
        check(self.name(), call, code).map(drop)
    }

    /// Configures the port and sets its queues up; says what the device made of `asked`.
    pub(super) fn configure(&mut self, asked: Granted) -> Result<Granted, PortError> {
        let mut granted = asked;
        let conf = self.eth_conf(&granted)?;
        // SAFETY: the port exists and does not run (a `Device` is made of an `UnconfiguredPort`);
        // `conf` is copied, and the key it points to lives in `self` until the port is closed.
        let code = unsafe {
            c::rte_eth_dev_configure(
                self.id(),
                granted.rx_queues,
                granted.tx_queues,
                &raw const conf,
            )
        };
        self.check("rte_eth_dev_configure", code)?;
        vlan::set_outer_type(&self.description, &mut granted);
        self.set_mtu(granted.mtu)?;
        granted.mtu = self.description.mtu()?;
        let (rx, tx) = (&raw mut granted.rx_descriptors, &raw mut granted.tx_descriptors);
        // SAFETY: the port is configured; both numbers are ours to be changed.
        let code = unsafe { c::rte_eth_dev_adjust_nb_rx_tx_desc(self.id(), rx, tx) };
        self.check("rte_eth_dev_adjust_nb_rx_tx_desc", code)?;
        self.set_queues_up(&granted)?;
        if granted.promiscuous {
            self.set_promiscuous(true)?;
        }
        granted.all_multicast = granted.all_multicast && self.take_all_multicast()?;
        Ok(granted)
    }

    fn eth_conf(&mut self, granted: &Granted) -> Result<c::rte_eth_conf, PortError> {
        let offered = self.description.limits()?.rss_hash;
        let mut conf = c::rte_eth_conf::default();
        conf.rxmode.offloads = granted.rx_offloads();
        conf.rxmode.mtu = granted.mtu.into();
        conf.txmode.offloads = granted.tx_offloads();
        let hash = granted.rss.bits() & offered;
        if hash != 0 {
            conf.rxmode.mq_mode = c::PENSTOCK_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = hash;
        }
        if let Some(key) = self.rss_key.as_mut().filter(|_| hash != 0) {
            conf.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
            conf.rx_adv_conf.rss_conf.rss_key_len = key.len() as u8; // as long as the PMD said, in a byte
        }
        Ok(conf)
    }

    /// `rte_eth_dev_configure` tells the NIC; a TAP's kernel side hears of it only here.
    fn set_mtu(&self, mtu: u16) -> Result<(), PortError> {
        // SAFETY: the port is configured.
        let code = unsafe { c::rte_eth_dev_set_mtu(self.id(), mtu) };
        if code != 0 && self.description.mtu()? == mtu {
            return Ok(()); // some PMDs cannot change it, and have it already
        }
        self.check("rte_eth_dev_set_mtu", code)
    }

    fn set_queues_up(&self, granted: &Granted) -> Result<(), PortError> {
        let socket = self.description.socket().unwrap_or(c::PENSTOCK_SOCKET_ID_ANY.cast_unsigned());
        for queue in 0..granted.rx_queues {
            let (descriptors, pool) = (granted.rx_descriptors, self.pool.as_ptr());
            // SAFETY: the port is configured with that many queues and does not run; the pool lives
            // until EAL's cleanup; no configuration means the PMD's own.
            let code = unsafe {
                c::rte_eth_rx_queue_setup(
                    self.id(),
                    queue,
                    descriptors,
                    socket,
                    std::ptr::null(),
                    pool,
                )
            };
            self.check("rte_eth_rx_queue_setup", code)?;
        }
        for queue in 0..granted.tx_queues {
            let descriptors = granted.tx_descriptors;
            // SAFETY: as above.
            let code = unsafe {
                c::rte_eth_tx_queue_setup(self.id(), queue, descriptors, socket, std::ptr::null())
            };
            self.check("rte_eth_tx_queue_setup", code)?;
        }
        Ok(())
    }

    pub(super) fn start(&self, granted: &Granted) -> Result<(), PortError> {
        // SAFETY: configured with all queues set up, else there were no `ConfiguredPort`.
        let code = unsafe { c::rte_eth_dev_start(self.id()) };
        self.check("rte_eth_dev_start", code)?;
        vlan::take_in(&self.description, granted)
    }

    pub(super) fn set_promiscuous(&self, on: bool) -> Result<(), PortError> {
        if on {
            // SAFETY: a configured port, and its control calls come from one thread.
            let code = unsafe { c::rte_eth_promiscuous_enable(self.id()) };
            self.check("rte_eth_promiscuous_enable", code)
        } else {
            // SAFETY: as above.
            let code = unsafe { c::rte_eth_promiscuous_disable(self.id()) };
            self.check("rte_eth_promiscuous_disable", code)
        }
    }

    /// Whether the PMD can.
    fn take_all_multicast(&self) -> Result<bool, PortError> {
        // SAFETY: a configured port, and its control calls come from one thread.
        let code = unsafe { c::rte_eth_allmulticast_enable(self.id()) };
        if Errno::returned(code) == Errno::NOT_SUPPORTED {
            return Ok(false);
        }
        self.check("rte_eth_allmulticast_enable", code).map(|()| true)
    }

    pub(super) fn close(mut self) -> Result<(), PortError> {
        self.stop_and_close()
    }

    fn stop_and_close(&mut self) -> Result<(), PortError> {
        self.closed = true;
        // SAFETY: queues share the `Device`, so that none is left to poll; stopping a port that does
        // not run is no error.
        let stopped = unsafe { c::rte_eth_dev_stop(self.id()) };
        // SAFETY: stopped; nobody uses the id after this.
        let closed = unsafe { c::rte_eth_dev_close(self.id()) };
        self.check("rte_eth_dev_stop", stopped)?;
        self.check("rte_eth_dev_close", closed)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if !self.closed {
            let _ = self.stop_and_close(); // nobody is left to tell, and the PMD has logged it
        }
    }
}
