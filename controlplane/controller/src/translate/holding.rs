//! What is granted to listeners, as the feed's state and the L7 tier's work, changed in place.
//!
//! A group is in the state for as long as a listener there uses it, and a VIP for as long as the L7 tier has a
//! place on it. What a change of a few listeners costs does not depend on how many others there are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use penstock_feed::model::{Group, Listener, Name, State, Touched, limits};

use super::l7::{L7, L7Listener};

/// What is granted, and what of that the state does not say yet.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    groups: BTreeMap<Name, Held>,
    pub(super) sizes: Sizes,
    /// What becomes of listeners: nothing, for those that are no more.
    listeners: BTreeMap<Name, Option<Listener>>,
    l7: BTreeMap<(SocketAddr, Name), Option<L7Listener>>,
    changed_groups: BTreeSet<Name>,
    /// The listeners that are to be served, if somebody else decided: what others are granted is not written.
    only: Option<Arc<BTreeSet<String>>>,
}

/// A group, and how many listeners use it.
#[derive(Debug)]
struct Held {
    uses: usize,
    group: Arc<Group>,
}

/// How much there is, or may be, of what is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Listeners of the data plane.
    pub listeners: usize,
    /// Its groups.
    pub groups: usize,
    /// The members of all groups together.
    pub members: usize,
    /// Listeners of the L7 tier, at all places together.
    pub l7_listeners: usize,
}

impl Sizes {
    /// What the data plane and the L7 tier take.
    pub const LIMITS: Self = Self {
        listeners: limits::LISTENERS,
        groups: limits::GROUPS,
        members: limits::MEMBERS,
        l7_listeners: limits::L7_LISTENERS,
    };

    /// Whether nothing of this is more than there may be.
    pub(super) fn fit(&self, most: &Self) -> bool {
        self.listeners <= most.listeners
            && self.groups <= most.groups
            && self.members <= most.members
            && self.l7_listeners <= most.l7_listeners
    }
}

impl Holdings {
    /// Grants a listener, and its group.
    pub(super) fn hold(&mut self, name: &Name, listener: &Listener, group: &Arc<Group>) {
        self.sizes.listeners += 1;
        self.listeners.insert(name.clone(), Some(listener.clone()));
        self.changed_groups.insert(listener.group.clone());
        let new = || Held { uses: 0, group: Arc::default() };
        let held = self.groups.entry(listener.group.clone()).or_insert_with(new);
        held.uses += 1;
        self.sizes.groups += usize::from(held.uses == 1);
        if held.group != *group {
            self.sizes.members += group.members.len();
            self.sizes.members -= held.group.members.len();
            held.group = Arc::clone(group);
        }
    }

    /// Takes back what [`Self::hold`] granted.
    pub(super) fn release(&mut self, name: &Name, listener: &Listener) {
        self.sizes.listeners -= 1;
        self.listeners.insert(name.clone(), None);
        self.changed_groups.insert(listener.group.clone());
        let Some(held) = self.groups.get_mut(&listener.group) else { return };
        held.uses -= 1;
        if held.uses == 0 {
            self.sizes.groups -= 1;
            self.sizes.members -= held.group.members.len();
            self.groups.remove(&listener.group);
        }
    }

    /// Grants a listener of the L7 tier.
    pub(super) fn hold_l7(&mut self, place: SocketAddr, name: &Name, listener: &L7Listener) {
        self.sizes.l7_listeners += 1;
        self.l7.insert((place, name.clone()), Some(listener.clone()));
    }

    /// Takes back what [`Self::hold_l7`] granted.
    pub(super) fn release_l7(&mut self, place: SocketAddr, name: &Name) {
        self.sizes.l7_listeners -= 1;
        self.l7.insert((place, name.clone()), None);
    }

    /// Serves only these from now on. Returns whether that is something else than before; then every listener is to be
    /// said again.
    pub(super) fn serve_only(&mut self, only: Option<Arc<BTreeSet<String>>>) -> bool {
        let before = std::mem::replace(&mut self.only, only);
        before != self.only
    }

    /// Says again that a listener is granted.
    pub(super) fn say_again(&mut self, name: &Name, listener: &Listener) {
        self.listeners.insert(name.clone(), Some(listener.clone()));
    }

    /// Says again that a listener of the L7 tier is granted.
    pub(super) fn say_l7_again(&mut self, place: SocketAddr, name: &Name, listener: &L7Listener) {
        self.l7.insert((place, name.clone()), Some(listener.clone()));
    }

    fn is_served(&self, name: &Name) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(name.as_str()))
    }

    /// Whether a group is used.
    pub(super) fn has_group(&self, name: &Name) -> bool {
        self.groups.contains_key(name)
    }

    /// Makes `state` and `l7` say what is granted. Returns what that touched, and which places of the L7 tier; an
    /// `Arc` that nothing touched is the same as before.
    pub(super) fn write(
        &mut self,
        state: &mut Arc<State>,
        l7: &mut Arc<L7>,
    ) -> (Touched, BTreeSet<SocketAddr>) {
        let mut touched = Touched::default();
        for (name, listener) in std::mem::take(&mut self.listeners) {
            let listener = listener.filter(|_| self.is_served(&name));
            if state.listeners.get(&name) == listener.as_ref() {
                continue;
            }
            let listeners = &mut Arc::make_mut(state).listeners;
            match listener {
                Some(listener) => listeners.insert_mut(name.clone(), listener),
                None => _ = listeners.remove_mut(&name),
            }
            touched.listeners.insert(name);
        }
        for name in std::mem::take(&mut self.changed_groups) {
            let held = self.groups.get(&name).map(|held| &held.group);
            if state.groups.get(&name) == held {
                continue;
            }
            let groups = &mut Arc::make_mut(state).groups;
            match held {
                Some(group) => groups.insert_mut(name.clone(), Arc::clone(group)),
                None => _ = groups.remove_mut(&name),
            }
            touched.groups.insert(name);
        }
        let places = self.write_l7(l7);
        for vip in places.iter().map(SocketAddr::ip) {
            if state.vips.contains_key(&vip) == l7.has_place_on(vip) {
                continue;
            }
            let vips = &mut Arc::make_mut(state).vips;
            match l7.has_place_on(vip) {
                true => vips.insert_mut(vip, ()),
                false => _ = vips.remove_mut(&vip),
            }
            touched.vips.insert(vip);
        }
        (touched, places)
    }

    /// The same of the L7 tier. Returns the places that this touched.
    fn write_l7(&mut self, l7: &mut Arc<L7>) -> BTreeSet<SocketAddr> {
        let mut touched = BTreeSet::new();
        for ((place, name), listener) in std::mem::take(&mut self.l7) {
            let listener = listener.filter(|_| self.is_served(&name));
            if l7.get(&place, &name) == listener.as_ref() {
                continue;
            }
            let places = &mut Arc::make_mut(l7).places;
            let mut at = places.get(&place).cloned().unwrap_or_default();
            match listener {
                Some(listener) => _ = at.insert(name, listener),
                None => _ = at.remove(&name),
            }
            match at.is_empty() {
                true => _ = places.remove_mut(&place),
                false => places.insert_mut(place, at),
            }
            touched.insert(place);
        }
        touched
    }
}
