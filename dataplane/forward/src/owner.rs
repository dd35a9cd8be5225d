//! Which worker owns a flow: a function of the packet, so that any worker can tell.
//!
//! ```text
//!                           without RSS                                   with it
//!  client ──▶ VIP           a keyed hash of the client's address          the Toeplitz hash of the tuple, if its
//!                           and L4 port                                   key is a secret; DNAT: as without
//!  backend ──▶ SNAT address the destination L4 port: each worker          the Toeplitz hash of the tuple; the
//!                           has a share of 1024..=65535                   port was chosen so
//!  backend ──▶ client       (DNAT) a keyed hash of the client's address and L4 port, as above
//!  a piece of a datagram    a keyed hash of its addresses and id, until its L4 ports are known; then as above
//! ```
//! A reply in DNAT says nothing of the VIP, so what is known of both directions is the client. *With RSS* means
//! that the box has a [`Spread`]; correctness needs no NIC that agrees with it.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::classify::Class;
use crate::flow::FlowKey;
use crate::flow::hash::FlowHash;
use crate::snapshot::Snapshot;
use crate::spread::{PortsTo, Spread};
use crate::{Mode, WorkerIdx};

/// The first L4 port that SNAT uses: those below are for servers (RFC 6335 §6).
pub(crate) const FIRST_PORT: u16 = 1024;
/// How many it uses.
pub(crate) const PORTS: u32 = 65536 - FIRST_PORT as u32;

/// The SNAT ports of a worker where the box has no spread: contiguous, disjoint from the other workers', and
/// together all from 1024 on. With more than 0 workers no share is empty.
#[must_use]
pub fn snat_ports(worker: WorkerIdx, workers: u8) -> RangeInclusive<u16> {
    let first =
        |worker: u32| u32::from(FIRST_PORT) + (worker * PORTS).div_ceil(u32::from(workers.max(1)));
    let (begin, end) = (first(u32::from(worker.0)), first(u32::from(worker.0) + 1) - 1);
    let port = |port: u32| u16::try_from(port).unwrap_or(u16::MAX);
    port(begin)..=port(end)
}

/// The worker in whose share an L4 port is; none below 1024.
#[must_use]
pub fn owner_of_snat_port(port: u16, workers: u8) -> Option<WorkerIdx> {
    let index = u32::from(port.checked_sub(FIRST_PORT)?);
    u8::try_from(index * u32::from(workers) / PORTS).ok().map(WorkerIdx)
}

/// Who owns what, as a worker knows it: the same for all workers, but for who it is itself.
#[derive(Clone, Debug)]
pub(crate) struct Ownership {
    pub(crate) me: WorkerIdx,
    workers: u8,
    /// This worker's SNAT ports without RSS.
    share: RangeInclusive<u16>,
    pub(crate) spread: Option<Arc<Spread>>,
}

/// An owner, and by what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) worker: WorkerIdx,
    /// By what RSS hashes: an honest NIC brings the packet there.
    pub(crate) by_rss: bool,
}

/// The workers that may know a flow: its owner; and before it another, while flows live of a listener that
/// changed from or to DNAT, whose owner is told by something else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owners {
    earlier: WorkerIdx,
    pub(crate) owner: Owner,
}

impl Owners {
    fn alone(owner: Owner) -> Self {
        Self { earlier: owner.worker, owner }
    }

    /// Whether `me` is one of them.
    pub(crate) fn are(&self, me: WorkerIdx) -> bool {
        me == self.earlier || me == self.owner.worker
    }

    /// Where a packet goes that has no flow with `me`; none if its journey ends here.
    ///
    /// `handed`: it was handed over to this worker, and so has been with the earlier one.
    pub(crate) fn next(&self, me: WorkerIdx, handed: bool) -> Option<WorkerIdx> {
        match (me == self.earlier, me == self.owner.worker) {
            (true, true) => None,
            (true, false) => Some(self.owner.worker),
            (false, true) => (!handed).then_some(self.earlier),
            (false, false) => Some(self.earlier),
        }
    }
}

impl Ownership {
    pub(crate) fn new(me: WorkerIdx, workers: u8) -> Self {
        Self { me, workers, share: snat_ports(me, workers), spread: None }
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.workers <= 1
    }

    /// Who owns the flow that a packet of this class has or would have; none if it can have none, or we are alone.
    #[inline]
    pub(crate) fn owners(
        &self,
        hash: &FlowHash,
        class: &Class,
        key: &FlowKey,
        snapshot: &Snapshot,
    ) -> Option<Owners> {
        if self.is_alone() { None } else { self.owners_among_many(hash, class, key, snapshot) }
    }

    fn owners_among_many(
        &self,
        hash: &FlowHash,
        class: &Class,
        key: &FlowKey,
        snapshot: &Snapshot,
    ) -> Option<Owners> {
        match class {
            Class::Listener(listener) => {
                let owner = self.of_client_packet(hash, key, listener.mode);
                let departed = self.of_departed(hash, key, snapshot, !owner.by_rss);
                let earlier = departed.map_or(owner.worker, |departed| departed.worker);
                Some(Owners { earlier, owner })
            }
            Class::Departed(_) => {
                let [by_rss, by_client] =
                    [true, false].map(|by_rss| self.of_departed(hash, key, snapshot, by_rss));
                let owner = by_client.or(by_rss)?;
                Some(Owners { earlier: by_rss.unwrap_or(owner).worker, owner })
            }
            Class::FullNatReply => self.of_reply(key).map(Owners::alone),
            Class::DnatReply(_) => {
                let worker = self.of_client(hash, key.destination());
                Some(Owners::alone(Owner { worker, by_rss: false }))
            }
            Class::Leave(_) => None,
        }
    }

    /// The owner of flows of listeners that have gone, by what RSS hashes or not.
    fn of_departed(
        &self,
        hash: &FlowHash,
        key: &FlowKey,
        snapshot: &Snapshot,
        by_rss: bool,
    ) -> Option<Owner> {
        let modes = snapshot.departed_modes(key.destination(), key.protocol()?);
        let of = |mode| self.of_client_packet(hash, key, mode);
        modes.map(of).find(|owner| owner.by_rss == by_rss)
    }

    /// The owner of a flow to a listener of this mode; `key` is that of the client's packets.
    fn of_client_packet(&self, hash: &FlowHash, key: &FlowKey, mode: Mode) -> Owner {
        let spread = self.spread.as_ref().filter(|_| mode != Mode::Dnat);
        match spread.and_then(|spread| spread.worker_of_client(key)) {
            Some(worker) => Owner { worker, by_rss: true },
            None => Owner { worker: self.of_client(hash, key.source()), by_rss: false },
        }
    }

    /// The owner of a client's flows in DNAT, whichever of our addresses they go to.
    pub(crate) fn of_client(&self, hash: &FlowHash, client: SocketAddr) -> WorkerIdx {
        if self.is_alone() {
            return WorkerIdx(0);
        }
        share(hash.client(client), self.workers)
    }

    /// The owner of a flow in full NAT; `key` is that of the backend's packets. None if no flow can have it.
    fn of_reply(&self, key: &FlowKey) -> Option<Owner> {
        let port = key.destination().port();
        let by_rss = self.spread.as_ref().and_then(|spread| spread.worker_of(key));
        let worker = owner_of_snat_port(port, self.workers)?;
        Some(Owner { worker: by_rss.unwrap_or(worker), by_rss: by_rss.is_some() })
    }

    /// The worker that knows what has been seen of a datagram in pieces.
    pub(crate) fn of_datagram(&self, hash: &FlowHash, datagram: &FlowKey) -> WorkerIdx {
        share(hash.tuple(datagram), self.workers)
    }

    /// The SNAT ports of this worker's flows; `replies` is the key of the backend's packets, with port 0.
    #[inline]
    pub(crate) fn snat_ports(&self, replies: &FlowKey) -> SnatPorts<'_> {
        let spread = self.spread.as_ref();
        match spread.and_then(|spread| spread.ports_to(self.me, replies)) {
            Some(ports) => SnatPorts::ToMe(ports),
            None => SnatPorts::Share(&self.share),
        }
    }
}

/// SNAT ports in the order in which they are walked through.
#[derive(Clone, Debug)]
pub(crate) enum SnatPorts<'s> {
    /// A share of all ports, the same for every backend.
    Share(&'s RangeInclusive<u16>),
    /// Those at which this backend's replies come to this worker.
    ToMe(PortsTo<'s>),
}

impl SnatPorts<'_> {
    /// How many there are, at most 2¹⁶.
    #[inline]
    pub(crate) fn count(&self) -> u32 {
        match self {
            Self::Share(share) => u32::from(*share.end()) - u32::from(*share.start()) + 1,
            Self::ToMe(ports) => ports.count(),
        }
    }

    /// One of them, or none where SNAT may not use it; `at` is below the count.
    #[inline]
    pub(crate) fn port(&self, at: u16) -> Option<u16> {
        match self {
            Self::Share(share) => share.start().checked_add(at),
            Self::ToMe(ports) => ports.port(at),
        }
    }
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
            let ownership = Ownership::new(WorkerIdx(0), workers);
            let mut clients = [0_u32; 8];
            for port in 0..8192 {
                let owner = ownership.of_client(&hash, SocketAddr::from(([10, 0, 0, 1], port)));
                clients[usize::from(owner.0)] += 1;
            }
            let fair = 8192 / u32::from(workers);
            assert!(clients[..usize::from(workers)].iter().all(|n| n.abs_diff(fair) < fair / 5));
        }
    }
}
