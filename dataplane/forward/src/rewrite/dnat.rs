//! DNAT: only the VIP is replaced, and the backend sees the client.
//!
//! Replies carry nothing of the VIP, so two VIPs with one backend and one client port would look
//! alike. The second such flow gets another client port, one that the same worker owns.

use std::net::SocketAddr;

use crate::flow::{FlowKey, FlowTable};
use crate::owner::{FIRST_PORT, Ownership, PORTS};
use crate::rewrite::port_walk::PortWalks;
use crate::{DropReason, Protocol};

/// The most other ports tried; with N workers one in N is the worker's own.
const PROBES: u32 = 256;

/// What the backend's replies will look like: to the client, at its own port if that is free.
///
/// # Errors
/// [`DropReason::DnatPortsExhausted`]; [`DropReason::NoBackend`] if the families differ.
pub(crate) fn reply_key(
    flows: &FlowTable,
    walks: &mut PortWalks,
    ownership: &Ownership,
    client: SocketAddr,
    backend: SocketAddr,
    protocol: Protocol,
) -> Result<FlowKey, DropReason> {
    let free = |seen_as: SocketAddr| {
        let key = FlowKey::new(backend, seen_as, protocol)?;
        (!flows.find(&key, flows.hash.tuple(&key)).is_some()).then_some(key)
    };
    if backend.is_ipv4() != client.is_ipv4() {
        return Err(DropReason::NoBackend);
    }
    if let Some(key) = free(client) {
        return Ok(key);
    }
    let with_port = |port| SocketAddr::new(client.ip(), port);
    let replies = FlowKey::new(backend, with_port(0), protocol).ok_or(DropReason::NoBackend)?;
    let mut walk = walks.of(&flows.hash, &replies, PORTS);
    (0..PROBES)
        .map(|_| with_port(FIRST_PORT + walk.go(1)))
        .filter(|seen_as| ownership.of_client(&flows.hash, *seen_as) == ownership.me)
        .find_map(free)
        .ok_or(DropReason::DnatPortsExhausted)
}
