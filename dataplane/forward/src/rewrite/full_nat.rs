//! Full NAT: client and VIP are both replaced, the client by one of our SNAT addresses and L4 ports.
//!
//! A port is taken per backend, not per address: two flows may share SNAT address and port as long
//! as their backends differ (RFC 4787 REQ-1 asks more of a NAT that hosts must traverse; ours is
//! seen by backends only).

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use crate::flow::{FlowKey, FlowTable};
use crate::rewrite::port_walk::PortWalks;
use crate::{DropReason, Protocol};

/// The most ports tried. At half of a share in use, one search in 2⁶⁴ fails.
const PROBES: u32 = 64;
/// After so many that are taken, the search takes longer steps: connections that were opened one
/// after the other and stay open are a run of ports, and may be half of a share.
const SAME_STEP: u32 = 4;

/// What the backend's replies will look like: a SNAT address by the flow's hash, and a port of this
/// worker's share, the next on the walk that no flow to this backend uses.
///
/// # Errors
/// [`DropReason::NoSnatAddress`], [`DropReason::SnatPortsExhausted`].
pub(crate) fn reply_key(
    flows: &FlowTable,
    walks: &mut PortWalks,
    pool: &[IpAddr],
    share: RangeInclusive<u16>,
    hash: u64,
    backend: SocketAddr,
    protocol: Protocol,
) -> Result<FlowKey, DropReason> {
    let pick = usize::try_from(hash % pool.len().max(1) as u64).unwrap_or(0);
    let address = *pool.get(pick).ok_or(DropReason::NoSnatAddress)?;
    let ports = u32::from(*share.end()) - u32::from(*share.start()) + 1;
    let replies = |port| {
        let outside = SocketAddr::new(address, port);
        FlowKey::new(backend, outside, protocol).ok_or(DropReason::NoSnatAddress)
    };
    let mut walk = walks.of(&flows.hash, &replies(0)?, ports);
    for probe in 0..PROBES {
        let key = replies(share.start() + walk.go(1 << (probe / SAME_STEP)))?;
        if !flows.find(&key, flows.hash.tuple(&key)).is_some() {
            return Ok(key);
        }
    }
    Err(DropReason::SnatPortsExhausted)
}
