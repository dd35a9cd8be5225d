//! What becomes of flows that nobody serves any more: their backend left its group, their listener was given another
//! group, or was removed.
//!
//! They are kept, unless their listener says otherwise: then they end when their grace is over, each TCP connection by
//! a RST to both ends (`flow::cut`). The sweep finds them as it passes, within about a second, and asks once a
//! flow and change of the configuration whether it is one; as long as no listener says so, a snapshot has no
//! [`Removals`] and there is nothing to ask. Backends that drain, or have no weight, are members of their groups,
//! and a backend is the same by whichever group's name it serves. Datagrams do not wait for any of this: the client's
//! next one is pinned anew.

use std::collections::HashMap;
use std::net::SocketAddr;

use foldhash::fast::FixedState;

use crate::flow::{Direction, Flow, FlowKey, FlowRecord};
use crate::snapshot::Snapshot;
use crate::{BackendId, ListenerSlot, Tick};

/// What a listener says of its flows that nobody serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// When it was given its group, or was removed.
    pub since: Tick,
    /// How long flows may go on, in milliseconds; at most 24 days.
    pub grace_ms: u32,
}

/// The listeners that end flows nobody serves, served or removed themselves, and when backends left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removals {
    /// The version of the first snapshot that has them.
    version: u32,
    /// By slot.
    listeners: Box<[Option<Removal>]>,
    left: HashMap<BackendId, Tick, FixedState>,
}

impl Removals {
    /// Those of snapshot `version` and all after it until others come; nothing if `listeners` are none. A backend
    /// that is in no group any more, and about which `left` says nothing, left with its listener's last change.
    #[must_use]
    pub fn new(
        version: u32,
        listeners: impl IntoIterator<Item = (ListenerSlot, Removal)>,
        left: impl IntoIterator<Item = (BackendId, Tick)>,
    ) -> Option<Self> {
        let mut by_slot = Vec::new();
        for (slot, removal) in listeners {
            let at = slot.0 as usize;
            by_slot.resize(by_slot.len().max(at + 1), None);
            by_slot[at] = Some(removal);
        }
        let removals =
            Self { version, listeners: by_slot.into(), left: left.into_iter().collect() };
        (!removals.listeners.is_empty()).then_some(removals)
    }

    /// Whether a flow may be one that ends: its listener says so, and its backend was not seen to serve since.
    pub(crate) fn concern(&self, flow: &FlowRecord) -> bool {
        let seen_before = flow.link.wrapping_sub(self.version) > u32::MAX / 2;
        seen_before && self.of(flow).is_some()
    }

    fn of(&self, flow: &FlowRecord) -> Option<&Removal> {
        self.listeners.get(flow.listener().0 as usize)?.as_ref()
    }

    /// When a flow ends that nobody serves: its grace begins with the last change that concerns it.
    fn end_of(&self, flow: &FlowRecord) -> Option<Tick> {
        let Removal { since, grace_ms } = *self.of(flow)?;
        let left = self.left.get(&BackendId(flow.backend)).copied().unwrap_or(since);
        let last = if left.since(since) > 0 { left } else { since };
        Some(last.plus_ms(grace_ms))
    }
}

impl Snapshot {
    /// Whether packets of a client may go to a backend: it is a member of the group that serves their destination,
    /// draining or not.
    pub(crate) fn serves(&self, client: &FlowKey, backend: SocketAddr) -> bool {
        let listener =
            client.protocol().and_then(|protocol| self.listener_of(client.destination(), protocol));
        listener.is_some_and(|listener| listener.group.has(backend))
    }

    /// When a flow ends, because nobody serves it; nothing if somebody does, or it is kept.
    pub(crate) fn end_of(&self, flow: Flow) -> Option<Tick> {
        let end = self.removals()?.end_of(&flow)?;
        let (client, backend) = (flow.key(Direction::Forward), flow.key(Direction::Reply).source());
        (!self.serves(&client, backend)).then_some(end)
    }
}
