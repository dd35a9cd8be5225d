//! What the forwarder says, in the words of [`inspect`](penstock_feed::inspect).

use std::time::SystemTime;

use penstock_feed as feed;
use penstock_feed::inspect::{Came, Fate, Flow, Frame, NextHop, Packet, PacketExit};
use penstock_forward::{
    self as forward, Direction, Exit, Explanation, FlowInfo, Protocol, Tick, Traced, WorkerIdx,
};

use super::tracer::{Kept, Sighting};
use crate::clock::Clock;
use crate::kernel::MacAddr;

/// A packet that a worker met.
pub(super) fn packet(sighting: &Sighting, worker: usize, clock: Clock) -> Packet {
    let Sighting { cycles, now, ingress, arrived, left, traced, exit, .. } = sighting;
    let met = SystemTime::now() - clock.ago(*cycles);
    let since = met.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let frame = |kept: &Kept| Frame { len: kept.len, bytes: kept.bytes().to_vec() };
    Packet {
        worker,
        time_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
        ingress: ingress.0.into(),
        arrived: frame(arrived),
        left: (left.len > 0).then(|| frame(left)),
        came: match traced {
            Traced::Parsed => Came::Parsed,
            Traced::Hit(flow) => Came::Hit(self::flow(flow, worker, *now)),
            Traced::New(flow) => Came::New(self::flow(flow, worker, *now)),
            Traced::ForListener(listener) => Came::ForListener(listener.0),
            Traced::FlowElsewhere => Came::FlowElsewhere,
            Traced::Echo => Came::Echo,
            Traced::Unclaimed => Came::Unclaimed,
        },
        exit: match exit {
            Exit::Send(port) => PacketExit::Sent(port.0.into()),
            Exit::Punt(class) => PacketExit::Punted(class.name().to_owned()),
            Exit::HandOver(owner) => PacketExit::HandedOver(owner.0.into()),
            Exit::Hold(next_hop) => PacketExit::Held(next_hop.address),
            Exit::Await(_) => PacketExit::Awaits,
            Exit::Drop(reason) => PacketExit::Dropped(reason.name().to_owned()),
        },
    }
}

/// A flow of a worker, as it is `now`.
pub(super) fn flow(flow: &FlowInfo, worker: usize, now: Tick) -> Flow {
    Flow {
        protocol: match flow.protocol {
            Protocol::Tcp => feed::Protocol::Tcp,
            Protocol::Udp => feed::Protocol::Udp,
        },
        client: flow.client,
        vip: flow.vip,
        outside: flow.outside,
        backend: flow.backend,
        state: flow.state.name().to_owned(),
        idle_ms: now.since(flow.last_seen),
        worker,
        listener: flow.listener.0,
        backend_row: flow.backend_id.0,
    }
}

/// What a worker said, or the worker to be asked instead.
pub(super) fn fate(explanation: &Explanation, worker: usize, now: Tick) -> Result<Fate, WorkerIdx> {
    Ok(match *explanation {
        Explanation::Flow { flow, direction, next_hop, ends } => Fate::Flow {
            flow: self::flow(&flow, worker, now),
            to_backend: direction == Direction::Forward,
            next_hop: leaves(next_hop),
            ends_in_ms: ends.map(|end| end.since(now)),
        },
        Explanation::New { listener, address, next_hop, .. } => {
            Fate::New { listener: listener.0, backend: address, next_hop: leaves(next_hop) }
        }
        Explanation::Refused { listener } => Fate::NoBackend { listener: listener.0 },
        Explanation::ShutOut { listener } => Fate::ShutOut { listener: listener.0 },
        Explanation::Punted(class) => Fate::Punted { class: class.name().to_owned() },
        Explanation::Dropped(reason) => Fate::Dropped { reason: reason.name().to_owned() },
        Explanation::Elsewhere(owner) => return Err(owner),
    })
}

fn leaves(next_hop: forward::NextHop) -> NextHop {
    match next_hop {
        forward::NextHop::Ready { port, mac } => {
            NextHop::Ready { port: u32::from(port.0), mac: MacAddr(mac.0).to_string() }
        }
        forward::NextHop::Unresolved(key) => {
            NextHop::Unresolved { port: u32::from(key.port.0), address: key.address }
        }
        forward::NextHop::Unreachable => NextHop::Unreachable,
    }
}
