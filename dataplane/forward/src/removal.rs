//! What becomes of flows that nobody serves any more: their backend left its group, their listener was given another
//! group, or was removed; or it lets their client in no more.
//!
//! They are kept, unless their listener says otherwise: then they end when their grace is over, each TCP connection by
//! a RST to both ends (`flow::cut`). The sweep finds them as it passes, within about a second, and asks once a
//! flow and change of the configuration whether it is one; as long as no listener says so, a snapshot has no
//! [`Removals`] and there is nothing to ask. Backends that drain, or have no weight, are members of their groups,
//! and a backend is the same by whichever group's name it serves. Datagrams do not wait for any of this: the client's
//! next one is pinned anew.

use std::net::SocketAddr;

use crate::flow::{Direction, Flow, FlowKey, FlowRecord};
use crate::shared::SharedMap;
use crate::snapshot::{Listener, Snapshot};
use crate::{BackendId, ListenerSlot, Tick};

/// What a listener says of its flows that nobody serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// When it was given its group, or was removed.
    pub since: Tick,
    /// When it was given its source ranges.
    pub ranges_since: Tick,
    /// How long flows may go on, in milliseconds; at most 24 days.
    pub grace_ms: u32,
}

/// The listeners that end flows nobody serves, served or removed themselves, and when backends left. A copy
/// shares what does not change in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removals {
    /// The version of the first snapshot that has them.
    version: u32,
    listeners: SharedMap<ListenerSlot, Removal>,
    left: SharedMap<BackendId, Tick>,
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
        let (listeners, left) = (listeners.into_iter().collect(), left.into_iter().collect());
        Self { version: 0, listeners, left }.from_version(version)
    }

    /// Says that a listener ends flows, or `None` that it keeps them.
    pub fn set_listener(&mut self, slot: ListenerSlot, removal: Option<Removal>) {
        match removal {
            Some(removal) => _ = self.listeners.insert(slot, removal),
            None => _ = self.listeners.remove(&slot),
        }
    }

    /// Says when a backend left, or `None` that it did not.
    pub fn set_left(&mut self, id: BackendId, left: Option<Tick>) {
        match left {
            Some(left) => _ = self.left.insert(id, left),
            None => _ = self.left.remove(&id),
        }
    }

    /// A copy for snapshot `version` and all after it until others come; nothing if no listener ends flows.
    #[must_use]
    pub fn from_version(&self, version: u32) -> Option<Self> {
        (!self.listeners.is_empty()).then(|| Self { version, ..self.clone() })
    }

    /// Whether a flow may be one that ends: its listener says so, and its backend was not seen to serve since.
    pub(crate) fn concern(&self, flow: &FlowRecord) -> bool {
        let seen_before = flow.link.wrapping_sub(self.version) > u32::MAX / 2;
        seen_before && self.listeners.contains(&flow.listener())
    }

    /// When flows of a listener to a backend end, if nobody serves them: their grace begins with the last change that
    /// concerns them. Nothing if they are kept.
    #[must_use]
    pub fn end(&self, listener: ListenerSlot, backend: BackendId) -> Option<Tick> {
        let Removal { since, grace_ms, .. } = *self.listeners.get(&listener)?;
        let left = self.left.get(&backend).copied().unwrap_or(since);
        Some(later(left, since).plus_ms(grace_ms))
    }

    /// The same of flows of a client that is let in no more.
    #[must_use]
    pub fn end_of_shut_out(&self, listener: ListenerSlot) -> Option<Tick> {
        let Removal { since, ranges_since, grace_ms } = *self.listeners.get(&listener)?;
        Some(later(ranges_since, since).plus_ms(grace_ms))
    }
}

fn later(one: Tick, other: Tick) -> Tick {
    if one.since(other) > 0 { one } else { other }
}

impl Snapshot {
    /// Whether packets of a client may go to a backend: it is a member of the group that serves their destination,
    /// draining or not, and the client is let in.
    pub(crate) fn serves(&self, client: &FlowKey, backend: SocketAddr) -> bool {
        let listener = self.listener_for(client);
        listener.is_some_and(|listener| listener.group.has(backend) && listener.admits(client))
    }

    fn listener_for(&self, client: &FlowKey) -> Option<&Listener> {
        self.listener_of(client.destination(), client.protocol()?)
    }

    /// When a flow ends, because nobody serves it; nothing if somebody does, or it is kept.
    pub(crate) fn end_of(&self, flow: Flow) -> Option<Tick> {
        let removals = self.removals()?;
        let (client, backend) = (flow.key(Direction::Forward), flow.key(Direction::Reply).source());
        let listener = self.listener_for(&client);
        match listener.filter(|listener| listener.group.has(backend)) {
            None => removals.end(flow.listener(), BackendId(flow.backend)),
            Some(listener) if listener.admits(&client) => None,
            Some(_) => removals.end_of_shut_out(flow.listener()),
        }
    }
}
