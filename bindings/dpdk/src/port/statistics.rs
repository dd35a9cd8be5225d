//! What a port says of itself while it runs.

use std::ffi::{CStr, c_uint};

use penstock_dpdk_sys as c;

use super::device::Description;
use super::error::{PortError, check};

/// Counters of a port, all queues together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub ipackets: u64,
    /// Packets sent.
    pub opackets: u64,
    /// Bytes received, FCS not counted.
    pub ibytes: u64,
    /// Bytes sent, FCS not counted.
    pub obytes: u64,
    /// Packets the NIC dropped because an RX ring was full: we polled too late.
    pub imissed: u64,
    /// Packets that arrived damaged.
    pub ierrors: u64,
    /// Packets that could not be sent.
    pub oerrors: u64,
    /// Times an RX ring could not be refilled because the mempool was empty.
    pub rx_nombuf: u64,
}

/// A port's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether there is one.
    pub up: bool,
    /// Its speed, if the PMD knows.
    pub speed_mbps: Option<u32>,
    /// Whether both ends may send at a time.
    pub full_duplex: bool,
}

pub(super) fn stats(port: &Description) -> Result<PortStats, PortError> {
    let mut stats = c::rte_eth_stats::default();
    // SAFETY: the port exists, and there is room for the answer.
    let code = unsafe { c::rte_eth_stats_get(port.id, &raw mut stats) };
    check(&port.name, "rte_eth_stats_get", code)?;
    Ok(PortStats {
        ipackets: stats.ipackets,
        opackets: stats.opackets,
        ibytes: stats.ibytes,
        obytes: stats.obytes,
        imissed: stats.imissed,
        ierrors: stats.ierrors,
        oerrors: stats.oerrors,
        rx_nombuf: stats.rx_nombuf,
    })
}

pub(super) fn link(port: &Description) -> Result<Link, PortError> {
    let mut link = c::penstock_link::default();
    // SAFETY: the port exists, and there is room for the answer.
    let code = unsafe { c::penstock_eth_link_get_nowait(port.id, &raw mut link) };
    check(&port.name, "rte_eth_link_get_nowait", code)?;
    let known = link.up != 0 && link.speed_mbps != c::PENSTOCK_SPEED_UNKNOWN;
    Ok(Link {
        up: link.up != 0,
        speed_mbps: known.then_some(link.speed_mbps),
        full_duplex: link.full_duplex != 0,
    })
}

pub(super) fn xstats(port: &Description) -> Result<Vec<(String, u64)>, PortError> {
    let names = xstats_names(port)?;
    let mut values = vec![c::rte_eth_xstat::default(); names.len()];
    // SAFETY: the port exists, and there is room for as many answers as we say.
    let code =
        unsafe { c::rte_eth_xstats_get(port.id, values.as_mut_ptr(), values.len() as c_uint) };
    let count = check(&port.name, "rte_eth_xstats_get", code)?;
    values.truncate(count as usize);
    let named = |value: &c::rte_eth_xstat| {
        let name = names.get(usize::try_from(value.id).ok()?)?;
        Some((name.clone(), value.value))
    };
    Ok(values.iter().filter_map(named).collect())
}

fn xstats_names(port: &Description) -> Result<Vec<String>, PortError> {
    // SAFETY: no room at all only asks how many there are.
    let code = unsafe { c::rte_eth_xstats_get_names(port.id, std::ptr::null_mut(), 0) };
    let count = check(&port.name, "rte_eth_xstats_get_names", code)?;
    let mut names = vec![c::rte_eth_xstat_name::default(); count as usize];
    // SAFETY: the port exists, and there is room for as many answers as we say.
    let code = unsafe { c::rte_eth_xstats_get_names(port.id, names.as_mut_ptr(), count) };
    let count = check(&port.name, "rte_eth_xstats_get_names", code)?;
    names.truncate(count as usize);
    let text = |name: &c::rte_eth_xstat_name| {
        // SAFETY: ethdev terminates each name within its array.
        let name = unsafe { CStr::from_ptr(name.name.as_ptr()) };
        name.to_string_lossy().into_owned()
    };
    Ok(names.iter().map(text).collect())
}
