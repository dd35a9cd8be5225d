//! The journey of a packet as pure code: byte slices in, byte slices and [`Exit`]s out.
//!
//! Nothing here knows DPDK, the feed or the kernel, so every promise about packets is tested on a
//! laptop. One [`Forwarder`] serves one worker and shares nothing with the others. A [`Burst`] of up
//! to 64 frames walks a straight corridor; each room sees all packets before the next begins:
//!
//! ```text
//!  express    plain packets of steady flows, in three turns, out at once; the rest walks on
//!  parse      bytes to headers and a 5-tuple; a malformed packet, another host's, ARP: leave
//!  look_up    5-tuple to the flow it probably has, with prefetch: buckets, then records
//!  track      the full tuple compared; what the packet does to its flow: TTL, TCP state, time
//!      ╲ no flow
//!       classify   its listener; a reply whose flow is elsewhere; the kernel's; nobody's
//!       owner      another worker's flow: hand over (of a port that does not spread, before look_up)
//!       admit      whether the client is in one of the listener's source ranges
//!       pin        Maglev to a backend, the mode to the reply's tuple; both keys into the table
//!      ╱
//!  mss        SYNs are made to offer what fits their connection, both ways
//!  express    what is plain leaves
//!  rewrite    of the rest: the mirror image of the connection's other direction, checksums by increments
//!  next_hop   the flow's cached adjacency, or the FIB; MAC addresses, MTU; send or hold
//! ```
//! A packet that has a flow is not classified again. A flow is in its owner's table only, so a hit
//! needs no hand-over; the configuration may change under an established connection without
//! touching it; and what remains per packet is one look-up.
//!
//! Modules, in the order of the journey:
//! * [`burst`](Burst), `parse`, [`wire`]: frames and views over their bytes
//! * `express`: the way of nearly every packet
//! * [`flow`]: the flow table, its memory, states, timeouts and sweep
//! * `classify`, [`snapshot`] of `shared` maps, [`owner`], [`spread`]: whose packet it is, and where RSS would bring it
//! * `admit`, `pin`, [`group`], [`maglev`]: a backend for a new flow; `policy`, [`removal`]: who gets none, and who has none any more
//! * `rewrite`: `full_nat`, `dnat`, their `port_walk`, the `mss` of a connection, and the `reset` that refuses or ends one
//! * `next_hop`, [`fib`]: where it leaves; `icmp`: errors about it, to the end that sent it; `answer`: errors of ours
//! * [`exit`](Exit), [`drop`](DropReason), [`counters`]: what became of it
//! * [`explain`](Explanation): what would become of one; [`traced`](Traced): how far one came
//!
//! Times are [`Tick`]s and randomness comes from the secret given at start, so the same packets with
//! the same arguments leave the same way.

mod admit;
mod answer;
mod burst;
mod classify;
pub mod counters;
mod drop;
mod exit;
mod explain;
mod express;
pub mod fib;
pub mod flow;
mod forwarder;
pub(crate) mod fragment;
pub mod group;
mod icmp;
mod ids;
mod journey;
pub mod maglev;
mod next_hop;
pub mod owner;
mod parse;
mod pin;
mod policy;
pub mod removal;
mod rewrite;
mod shared;
pub mod snapshot;
pub mod spread;
#[cfg(any(test, feature = "test-support"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod tick;
mod traced;
pub mod vlan;
pub mod wire;

pub use admit::SourceRanges;
pub use burst::{BURST, Burst, CameBy, Checked, HEADROOM, Packet, RxChecks};
pub use counters::{BACKEND_COLUMNS, Counters, LISTENER_COLUMNS, WORKER_COLUMNS};
pub use drop::{DropReason, RaisedBy};
pub use exit::{Exit, NextHopKey, PuntClass};
pub use explain::{Explanation, NextHop};
pub use fib::Fib;
pub use flow::{
    CacheLine, Direction, FlowCapacity, FlowInfo, FlowKey, FlowMemory, FlowMemoryError, FlowState,
    Timeouts,
};
pub use forwarder::{Forwarder, Placed, RST_FRAME};
pub use fragment::{DatagramIdx, Learned, Settled, WAITING};
pub use group::{Affinity, Group, Member};
pub use ids::{BackendId, ListenerSlot, MacAddr, Mode, PortIdx, Protocol, WorkerIdx};
pub use policy::{MssClamp, OnExhaustion, OnUnknown};
pub use removal::{Removal, Removals};
pub use snapshot::{
    ECHO_PER_SECOND, L4Ports, Listener, PortConfig, Snapshot, SnapshotBuilder, SnapshotError,
};
pub use spread::Spread;
pub use tick::Tick;
pub use traced::{Traced, tuple_of};
pub use vlan::{ByNic, Tag, Tags, TakenOff, Tcis};
