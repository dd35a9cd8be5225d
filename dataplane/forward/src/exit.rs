//! Where a packet's journey ends.

use std::net::IpAddr;

use crate::fragment::DatagramIdx;
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
    /// A piece of a datagram whose first piece, which has the L4 ports, has not come: keep it, unchanged,
    /// until [`Forwarder::settled`](crate::Forwarder::settled) names the datagram.
    Await(DatagramIdx),
    /// Lost for this reason, and counted.
    Drop(DropReason),
}

/// An [`Exit`] in one register: rooms pass exits around by the packet, and a whole one is as large as
/// an address. That of a held packet leaves its key with the burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShortExit(u32);

const PUNT: u32 = 0; // the default: a packet nobody decided about is the kernel's
const SEND: u32 = 1;
const HAND_OVER: u32 = 2;
const HOLD: u32 = 3;
const DROP: u32 = 4;
const AWAIT: u32 = 5;
/// Kinds of exit.
pub(crate) const KINDS: usize = 6;

impl ShortExit {
    pub(crate) const HOLD: Self = Self(HOLD);

    #[inline]
    pub(crate) const fn send(port: PortIdx) -> Self {
        Self(SEND | (port.0 as u32) << 8)
    }

    pub(crate) const fn punt(class: PuntClass) -> Self {
        let lower = PuntClass::Other as u32 - class as u32; // so that all zero is Other
        Self(PUNT | lower << 8)
    }

    pub(crate) const fn hand_over(worker: WorkerIdx) -> Self {
        Self(HAND_OVER | (worker.0 as u32) << 8)
    }

    pub(crate) const fn wait(datagram: DatagramIdx) -> Self {
        Self(AWAIT | datagram.0 << 8)
    }

    pub(crate) const fn drop(reason: DropReason) -> Self {
        Self(DROP | (reason as u32) << 8)
    }

    /// The port of a packet that is sent.
    #[inline]
    pub(crate) const fn sent_on(self) -> Option<PortIdx> {
        if self.0 & 0xff == SEND { Some(PortIdx((self.0 >> 8) as u16)) } else { None }
    }

    /// Which of the kinds it is, `0..KINDS`.
    #[inline]
    pub(crate) const fn kind(self) -> usize {
        (self.0 & 0xff) as usize
    }

    /// The reason of a drop.
    #[inline]
    pub(crate) fn reason(self) -> Option<DropReason> {
        if self.0 & 0xff == DROP {
            DropReason::ALL.get((self.0 >> 8) as usize).copied()
        } else {
            None
        }
    }

    /// The whole exit; nothing for a held packet, whose key is with the burst.
    #[inline]
    pub(crate) fn long(self) -> Option<Exit> {
        let payload = self.0 >> 8;
        match self.0 & 0xff {
            SEND => self.sent_on().map(Exit::Send),
            HAND_OVER => Some(Exit::HandOver(WorkerIdx(payload as u8))),
            AWAIT => Some(Exit::Await(DatagramIdx(payload))),
            DROP => self.reason().map(Exit::Drop),
            HOLD => None,
            _ => PuntClass::ALL.iter().rev().nth(payload as usize).copied().map(Exit::Punt),
        }
    }
}

impl From<DropReason> for ShortExit {
    fn from(reason: DropReason) -> Self {
        Self::drop(reason)
    }
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
    /// Routing protocols, spoken to the box's own addresses and their groups: BGP, BFD, OSPF, VRRP.
    Control,
    /// SSH with the box's own addresses.
    Management,
    /// TCP to a VIP of the L7 tier: anyone may send there, and the tier lives on it.
    L7,
    /// The rest: ICMP, multicast, whatever else is for an address of the box, and all else that is for
    /// a VIP or a SNAT address, to which anyone may send.
    Other,
}

impl PuntClass {
    /// Every class, in order of priority; the order of the rows in the counter table.
    pub const ALL: [PuntClass; 5] = [
        PuntClass::Neighbour,
        PuntClass::Control,
        PuntClass::Management,
        PuntClass::L7,
        PuntClass::Other,
    ];

    /// The metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Neighbour => "neighbour",
            Self::Control => "control",
            Self::Management => "management",
            Self::L7 => "l7",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_exit_says_the_same_as_the_long_one() {
        let rows = [
            (ShortExit::send(PortIdx(65535)), Exit::Send(PortIdx(65535))),
            (ShortExit::hand_over(WorkerIdx(255)), Exit::HandOver(WorkerIdx(255))),
            (ShortExit::wait(DatagramIdx(0xff_ffff)), Exit::Await(DatagramIdx(0xff_ffff))),
            (ShortExit::default(), Exit::Punt(PuntClass::Other)),
        ];
        let punts = PuntClass::ALL.map(|class| (ShortExit::punt(class), Exit::Punt(class)));
        let drops =
            DropReason::ALL.iter().map(|reason| (ShortExit::drop(*reason), Exit::Drop(*reason)));
        for (short, long) in rows.into_iter().chain(punts).chain(drops) {
            assert_eq!(short.long(), Some(long));
            assert!(short.kind() < KINDS);
        }
        assert_eq!(ShortExit::HOLD.long(), None);
    }
}
