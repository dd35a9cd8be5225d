//! Full NAT: client and VIP are both replaced, the client by one of our SNAT addresses and L4 ports.
//!
//! A port is taken per backend, not per address: two flows may share SNAT address and port as long
//! as their backends differ (RFC 4787 REQ-1 asks more of a NAT that hosts must traverse; ours is
//! seen by backends only).
//!
//! A port stays taken while its flow is closing ([`Timeouts`](crate::Timeouts)), and the [walk](super::port_walk) takes
//! the one freed longest ago: its backend may keep the old connection in TIME-WAIT. Where none is free, one of those
//! that are over goes to the new flow all the same, of those seen on the way the one that was silent for longest: a
//! backend that remembers it answers the SYN by an ACK of the old one, the client's RST ends that, and its next SYN
//! is heard (RFC 9293 §3.5.1, §3.10.7.4). To refuse would cost more.

use std::net::{IpAddr, SocketAddr};

use crate::flow::hash::FlowHash;
use crate::flow::{Entry, FlowKey, FlowTable};
use crate::owner::Ownership;
use crate::rewrite::port_walk::PortWalks;
use crate::{DropReason, FlowState, Protocol, Tick};

/// The most ports tried. At half of a share in use, one search in 2⁶⁴ fails.
const PROBES: u32 = 64;
/// After so many that are taken, the search takes longer steps: connections that were opened one
/// after the other and stay open are a run of ports, and may be half of a share.
const SAME_STEP: u32 = 4;

/// The addresses and L4 ports that a flow's packets may have as source.
#[derive(Clone, Debug)]
pub(crate) struct Sources<'s> {
    pub(crate) pool: &'s [IpAddr],
    /// By whose shares a port is taken.
    pub(crate) ownership: &'s Ownership,
}

impl Sources<'_> {
    /// The address of a flow, by its hash.
    #[inline]
    fn address(&self, hash: u64) -> Option<IpAddr> {
        let pick = (u128::from(hash) * self.pool.len() as u128) >> 64;
        self.pool.get(pick as usize).copied()
    }
}

/// What the backend's replies will look like if nobody has the next port on the walk.
#[inline]
pub(crate) fn first(
    hasher: &FlowHash,
    walks: &mut PortWalks,
    sources: &Sources,
    hash: u64,
    backend: SocketAddr,
    protocol: Protocol,
) -> Option<FlowKey> {
    let address = sources.address(hash)?;
    let without_port = FlowKey::new(backend, SocketAddr::new(address, 0), protocol)?;
    let ports = sources.ownership.snat_ports(&without_port);
    let port = ports.port(walks.of(hasher, &without_port, ports.count()).go(1))?;
    Some(without_port.to_port(port))
}

/// What the backend's replies will look like: a SNAT address by the flow's hash, and a port at
/// which replies are this worker's, the next on the walk that no flow to this backend uses.
///
/// # Errors
/// [`DropReason::NoSnatAddress`], [`DropReason::SnatPortsExhausted`].
pub(crate) fn reply_key(
    flows: &mut FlowTable,
    walks: &mut PortWalks,
    sources: &Sources,
    hash: u64,
    backend: SocketAddr,
    protocol: Protocol,
    now: Tick,
) -> Result<FlowKey, DropReason> {
    let address = sources.address(hash).ok_or(DropReason::NoSnatAddress)?;
    let replies = |port| {
        let outside = SocketAddr::new(address, port);
        FlowKey::new(backend, outside, protocol).ok_or(DropReason::NoSnatAddress)
    };
    let without_port = replies(0)?;
    let ports = sources.ownership.snat_ports(&without_port);
    let mut walk = walks.of(&flows.hash, &without_port, ports.count());
    let mut over: Option<(u32, FlowKey, Entry)> = None;
    for probe in 0..PROBES {
        let Some(port) = ports.port(walk.go(1 << (probe / SAME_STEP))) else { continue };
        let key = replies(port)?;
        let taken = flows.find(&key, flows.hash.tuple(&key));
        if !taken.is_some() {
            return Ok(key);
        }
        let silent_ms = silence_after_end(flows, taken, now);
        if silent_ms > over.as_ref().map_or(0, |(most, ..)| *most) {
            over = Some((silent_ms, key, taken));
        }
    }
    let (_, key, taken) = over.ok_or(DropReason::SnatPortsExhausted)?;
    flows.give_way(taken);
    Ok(key)
}

/// How long a flow that is over has been silent, in milliseconds; 0 if it is not over.
fn silence_after_end(flows: &FlowTable, entry: Entry, now: Tick) -> u32 {
    let flow = flows.record(entry);
    let is_over = flow.state().is_some_and(FlowState::is_over);
    if is_over { now.since(Tick(flow.last_seen)) } else { 0 }
}
