//! Where a packet would go and why, without one: the rooms' answers for a 5-tuple, from the live snapshot and
//! this worker's flows. Nothing is changed or counted, and no flow is made.

use std::net::SocketAddr;

use crate::classify::{Class, classify};
use crate::fib::Hop;
use crate::flow::{Direction, FlowInfo, FlowKey};
use crate::group::Pick;
use crate::journey::Headers;
use crate::next_hop::route;
use crate::pin::is_nobodys;
use crate::snapshot::{Listener, Snapshot};
use crate::{
    BackendId, DropReason, Exit, Forwarder, ListenerSlot, NextHopKey, PortIdx, PuntClass, Tick,
    WorkerIdx,
};

/// What would become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Explanation {
    /// It belongs to a flow of this worker.
    Flow {
        /// The flow.
        flow: FlowInfo,
        /// Which way the packet goes.
        direction: Direction,
        /// Where it leaves.
        next_hop: NextHop,
        /// When the flow ends, since nobody serves it any more.
        ends: Option<Tick>,
    },
    /// It has no flow; if it may begin one (TCP: a SYN), that is pinned to this backend.
    New {
        /// The listener it is for.
        listener: ListenerSlot,
        /// The backend by Maglev.
        backend: BackendId,
        /// Where that serves.
        address: SocketAddr,
        /// Where the packet leaves.
        next_hop: NextHop,
    },
    /// It has no flow, and would get none: it falls in the share to refuse, or nobody is there to take it.
    Refused {
        /// The listener it is for.
        listener: ListenerSlot,
    },
    /// It has no flow, and its client is in none of the listener's source ranges: it is lost.
    ShutOut {
        /// The listener it is for.
        listener: ListenerSlot,
    },
    /// Another worker's flow, or one it would have: ask that worker.
    Elsewhere(WorkerIdx),
    /// It has no flow, and the kernel gets it.
    Punted(PuntClass),
    /// It has no flow, and is lost.
    Dropped(DropReason),
}

/// The next hop of a packet, as the FIB has it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// It is sent on this port, to this MAC address.
    Ready {
        /// The port.
        port: PortIdx,
        /// The destination MAC address.
        mac: crate::MacAddr,
    },
    /// It is held until the kernel has resolved this neighbour.
    Unresolved(NextHopKey),
    /// It is dropped: no route leads there.
    Unreachable,
}

impl Forwarder<'_> {
    /// What would become of a whole packet with this 5-tuple, `handed` over by another worker or not. Costs about
    /// as much as to forward one.
    #[must_use]
    pub fn explain(&self, key: &FlowKey, snapshot: &Snapshot, handed: bool) -> Explanation {
        if let Some((flow, direction, leaving)) = self.flow_of(key) {
            let (next_hop, ends) = (next_hop(&leaving, snapshot), self.end_of(key, snapshot));
            return Explanation::Flow { flow, direction, next_hop, ends };
        }
        let class = classify(&Headers::default(), key, snapshot);
        if let Some(next) = self.next_worker(&class, key, snapshot, handed) {
            return Explanation::Elsewhere(next);
        }
        match class {
            Class::Listener(_) if is_nobodys(key, snapshot) => {
                Explanation::Dropped(DropReason::Martian)
            }
            Class::Listener(listener) if !listener.admits(key) => {
                Explanation::ShutOut { listener: listener.slot }
            }
            Class::Listener(listener) => new_flow(key, listener, snapshot),
            Class::FullNatReply => Explanation::Dropped(DropReason::NoFlow),
            Class::Departed(exit) | Class::DnatReply(exit) | Class::Leave(exit) => {
                match exit.long() {
                    Some(Exit::Punt(class)) => Explanation::Punted(class),
                    Some(Exit::Drop(reason)) => Explanation::Dropped(reason),
                    // What has no flow is neither sent nor held.
                    _ => Explanation::Dropped(DropReason::NoFlow),
                }
            }
        }
    }
}

fn new_flow(key: &FlowKey, listener: &Listener, snapshot: &Snapshot) -> Explanation {
    let Pick::Backend(member) = listener.pick(key) else {
        return Explanation::Refused { listener: listener.slot };
    };
    // The source may yet be replaced; of several next hops that decides which.
    let leaving = key.protocol().and_then(|protocol| {
        let to_backend = |source| FlowKey::new(source, member.address, protocol);
        to_backend(key.source()).or_else(|| to_backend(member.address)) // a tunnel of the other family
    });
    let next_hop = leaving.map_or(NextHop::Unreachable, |leaving| next_hop(&leaving, snapshot));
    Explanation::New {
        listener: listener.slot,
        backend: member.id,
        address: member.address,
        next_hop,
    }
}

fn next_hop(leaving: &FlowKey, snapshot: &Snapshot) -> NextHop {
    match route(leaving, snapshot.fib()) {
        Hop::Ready(index) => match snapshot.fib().adjacency(index) {
            Some(adjacency) => {
                let [a, b, c, d, e, f, ..] = adjacency.macs;
                NextHop::Ready { port: adjacency.port, mac: crate::MacAddr([a, b, c, d, e, f]) }
            }
            None => NextHop::Unreachable,
        },
        Hop::Unresolved(key) if snapshot.is_local(key.address) => NextHop::Unreachable,
        Hop::Unresolved(key) => NextHop::Unresolved(key),
        Hop::Unreachable => NextHop::Unreachable,
    }
}
