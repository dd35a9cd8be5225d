//! Where a packet's journey ends.

use std::net::IpAddr;

use crate::{DropReason, PortIdx, WorkerIdx};

/// What becomes of a packet. Each packet gets exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Rewritten and ready: transmit it there.
    Send(PortIdx),
    /// The kernel's: write it, unchanged, to the companion interface of its ingress port.
    Punt(PuntClass),
    /// Another worker's flow: give it, unchanged, to that worker, who runs the whole journey.
    HandOver(WorkerIdx),
    /// Rewritten, but the link-layer address of its next hop is not known: ask the kernel to
    /// resolve it, and call [`Forwarder::resume`](crate::Forwarder::resume) when it is.
    Hold(NextHopKey),
    /// Lost for this reason, and counted.
    Drop(DropReason),
}

/// A next hop by name rather than by index, so that it outlives the snapshot it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHopKey {
    /// The port the next hop is on.
    pub port: PortIdx,
    /// Its address: the gateway's, or the destination's where that is on-link.
    pub address: IpAddr,
}

/// Which queue to the kernel a packet takes, so that a flood of one kind cannot starve another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PuntClass {
    /// ARP, and IPv6 neighbour and router discovery: without it nothing else flows.
    Neighbour,
    /// Routing protocols and management: BGP, BFD, OSPF, SSH.
    Control,
    /// The rest: ICMP, multicast, whatever else is for an address of the box.
    Other,
}

impl PuntClass {
    /// Every class, in order of priority; the order of the rows in the counter table.
    pub const ALL: [PuntClass; 3] = [PuntClass::Neighbour, PuntClass::Control, PuntClass::Other];

    /// The metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Neighbour => "neighbour",
            Self::Control => "control",
            Self::Other => "other",
        }
    }
}
