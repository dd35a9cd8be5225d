//! What the rooms did with one packet of the burst that has just been forwarded: read from what they left
//! behind, so that a burst nobody watches costs nothing for it.

use crate::classify::{Class, classify};
use crate::flow::{FlowInfo, FlowKey};
use crate::parse;
use crate::snapshot::Snapshot;
use crate::{Forwarder, ListenerSlot};

/// How far a packet came, by the last room that said something of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traced {
    /// `parse` saw it out, or it is no IP packet.
    Parsed,
    /// It belongs to this flow.
    Hit(FlowInfo),
    /// It is for a listener, and began this flow.
    New(FlowInfo),
    /// It is for a listener, and has no flow.
    ForListener(ListenerSlot),
    /// It is a backend's reply or of a listener that has gone, and its flow is not here.
    FlowElsewhere,
    /// It is an echo request to a VIP.
    Echo,
    /// It is the kernel's, or nobody's.
    Unclaimed,
}

/// The tuple of a frame, as far as it has one: L4 ports are 0 where there are none. For filters, not for
/// forwarding: nothing is checked beyond what it takes to read it.
#[must_use]
pub fn tuple_of(frame: &[u8]) -> Option<FlowKey> {
    parse::parse_leaving(frame).map(|(key, _)| key)
}

impl Forwarder<'_> {
    /// What was done with packet `at` of the burst that [`Forwarder::forward`] saw last. `snapshot` is that
    /// burst's.
    #[must_use]
    pub fn traced(&self, at: usize, snapshot: &Snapshot) -> Traced {
        let walk = self.walk();
        let (pinned, stranger) =
            (walk.pinned.contains(at), walk.strangers.or(walk.others).contains(at));
        let flow = pinned.then(|| self.flow_at(walk.entries[at])).flatten();
        match (flow, stranger) {
            (Some(flow), false) => Traced::Hit(flow),
            (Some(flow), true) => Traced::New(flow),
            (None, false) => Traced::Parsed,
            (None, true) => match classify(&walk.headers[at], &walk.keys[at], snapshot) {
                Class::Listener(listener) => Traced::ForListener(listener.slot),
                Class::FullNatReply | Class::Departed(_) | Class::DnatReply(_) => {
                    Traced::FlowElsewhere
                }
                Class::Leave(_) if walk.is_echo_to_vip(at, snapshot) => Traced::Echo,
                Class::Leave(_) => Traced::Unclaimed,
            },
        }
    }
}
