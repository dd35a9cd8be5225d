//! Which worker owns a flow: a pure function of the packet, so that any worker can tell.
//!
//! ```text
//!  client ──▶ VIP            hash of the client's address and L4 port
//!  backend ──▶ SNAT address  the destination L4 port: each worker has a share of 1024..=65535
//!  backend ──▶ client (DNAT) hash of the client's address and L4 port, as above
//!  a piece of a datagram     hash of its addresses and id, until its L4 ports are known; then as above
//! ```
//! RSS may bring packets to their owner in the first place; correctness never needs it.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use crate::WorkerIdx;
use crate::flow::FlowKey;
use crate::flow::hash::FlowHash;

/// The first L4 port that SNAT uses: those below are for servers (RFC 6335 §6).
const FIRST_PORT: u32 = 1024;
/// How many it uses.
const PORTS: u32 = 65536 - FIRST_PORT;

/// The SNAT ports of a worker: contiguous, disjoint from the other workers', and together all from
/// 1024 on. With more than 0 workers no share is empty.
#[must_use]
pub fn snat_ports(worker: WorkerIdx, workers: u8) -> RangeInclusive<u16> {
    let first = |worker: u32| FIRST_PORT + (worker * PORTS).div_ceil(u32::from(workers.max(1)));
    let (begin, end) = (first(u32::from(worker.0)), first(u32::from(worker.0) + 1) - 1);
    let port = |port: u32| u16::try_from(port).unwrap_or(u16::MAX);
    port(begin)..=port(end)
}

/// The worker in whose share an L4 port is; none below 1024.
#[must_use]
pub fn owner_of_snat_port(port: u16, workers: u8) -> Option<WorkerIdx> {
    let index = u32::from(port).checked_sub(FIRST_PORT)?;
    u8::try_from(index * u32::from(workers) / PORTS).ok().map(WorkerIdx)
}

/// The owner of a client's flows, whichever of our addresses they go to.
pub(crate) fn owner_of_client(hash: &FlowHash, client: SocketAddr, workers: u8) -> WorkerIdx {
    if workers <= 1 {
        return WorkerIdx(0);
    }
    share(hash.client(client), workers)
}

/// The worker that knows what has been seen of a datagram in pieces.
pub(crate) fn owner_of_datagram(hash: &FlowHash, datagram: &FlowKey, workers: u8) -> WorkerIdx {
    share(hash.tuple(datagram), workers)
}

/// One of `workers`, all equally likely.
fn share(hash: u64, workers: u8) -> WorkerIdx {
    let share = ((hash >> 32) * u64::from(workers)) >> 32;
    WorkerIdx(u8::try_from(share).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snat_ports_are_shared_out_without_gap_or_overlap() {
        for workers in 1..=u8::MAX {
            let mut next = 1024_u32;
            for worker in (0..workers).map(WorkerIdx) {
                let share = snat_ports(worker, workers);
                assert_eq!(u32::from(*share.start()), next);
                next = u32::from(*share.end()) + 1;
                for port in [*share.start(), *share.end()] {
                    assert_eq!(owner_of_snat_port(port, workers), Some(worker));
                }
            }
            assert_eq!(next, 65536);
            assert_eq!(owner_of_snat_port(1023, workers), None);
        }
    }

    #[test]
    fn clients_are_shared_out_evenly() {
        let hash = FlowHash::new(&[3; 32]);
        for workers in 1..=8 {
            let mut clients = [0_u32; 8];
            for port in 0..8192 {
                let owner =
                    owner_of_client(&hash, SocketAddr::from(([10, 0, 0, 1], port)), workers);
                clients[usize::from(owner.0)] += 1;
            }
            let fair = 8192 / u32::from(workers);
            assert!(clients[..usize::from(workers)].iter().all(|n| n.abs_diff(fair) < fair / 5));
        }
    }
}
