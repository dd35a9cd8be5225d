//! What listeners say of other objects and of places, kept up with the state, so that a change is
//! checked at the cost of what it touches.
//!
//! It answers [`State::check`]'s question, whether anything is wrong, and not what: who has to say that
//! looks at the whole. A property test compares the two.

use std::net::IpAddr;

use crate::model::{Listener, Map, Name, PortRange, Protocol, State, Touched, faults};

/// Where a listener listens, in an order in which those that share an L4 port have neighbours that do.
type Place = (IpAddr, Protocol, PortRange, Name);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Relations {
    /// How many listeners name a group.
    of_groups: Map<Name, usize>,
    /// How many name a SNAT pool.
    of_pools: Map<Name, usize>,
    places: Map<Place, ()>,
}

impl Relations {
    pub(crate) fn add(&mut self, name: &Name, listener: &Listener) {
        count(&mut self.of_groups, &listener.group);
        listener.snat_pool.iter().for_each(|pool| count(&mut self.of_pools, pool));
        self.places.insert_mut(place(name, listener), ());
    }

    /// Takes out what was added.
    pub(crate) fn remove(&mut self, name: &Name, listener: &Listener) {
        uncount(&mut self.of_groups, &listener.group);
        listener.snat_pool.iter().for_each(|pool| uncount(&mut self.of_pools, pool));
        self.places.remove_mut(&place(name, listener));
    }

    /// Whether `state`, whose listeners these are, passes [`State::check`], if it did before the
    /// objects `touched` were.
    pub(crate) fn hold_in(&self, state: &State, touched: &Touched) -> bool {
        let listener =
            |name| state.listeners.get(name).is_none_or(|at| self.holds(state, name, at));
        let group = |name| match state.groups.get(name) {
            Some(group) => group.members.keys().all(|member| faults::of_member(*member).is_none()),
            None => !self.of_groups.contains_key(name),
        };
        let pool = |name| match state.snat_pools.get(name) {
            Some(pool) => pool.addresses.iter().all(|address| faults::of(*address).is_none()),
            None => !self.of_pools.contains_key(name),
        };
        let hint = |to: &IpAddr| {
            let via = state.next_hops.get(to);
            via.is_none_or(|hint| faults::of(*to).or_else(|| faults::of(hint.via)).is_none())
        };
        let vip = |at: &IpAddr| !state.vips.contains_key(at) || faults::of(*at).is_none();
        // Few, and told seldom: all of them are looked at.
        let l7 =
            || (touched.l7_listeners.is_empty() && touched.pems.is_empty()) || state.l7.is_sound();
        touched.listeners.iter().all(listener)
            && touched.groups.iter().all(group)
            && touched.snat_pools.iter().all(pool)
            && touched.next_hops.iter().all(hint)
            && touched.vips.iter().all(vip)
            && l7()
    }

    fn holds(&self, state: &State, name: &Name, listener: &Listener) -> bool {
        let (pool, ranges) = (listener.snat_pool.as_ref(), listener.source_ranges.as_ref());
        state.groups.contains_key(&listener.group)
            && pool.is_none_or(|pool| state.snat_pools.contains_key(pool))
            && faults::of(listener.vip).is_none()
            && ranges.is_none_or(|ranges| ranges.foreign_to(listener.vip).is_none())
            && !self.shares_a_port(name, listener)
    }

    /// Whether another listener has an L4 port of this one. If any two share one, two neighbours do:
    /// whoever stands between begins within the first.
    fn shares_a_port(&self, name: &Name, listener: &Listener) -> bool {
        let place = place(name, listener);
        let before = self.places.range::<Place, _>(..&place).next_back();
        let after = self.places.range::<Place, _>(&place..).nth(1);
        let neighbours = before.into_iter().chain(after).map(|(neighbour, ())| neighbour);
        let mut beside =
            neighbours.filter(|(vip, protocol, ..)| (vip, protocol) == (&place.0, &place.1));
        beside.any(|(_, _, ports, _)| ports.overlaps(listener.ports))
    }
}

fn place(name: &Name, listener: &Listener) -> Place {
    (listener.vip, listener.protocol, listener.ports, name.clone())
}

fn count(map: &mut Map<Name, usize>, name: &Name) {
    let before = map.get(name).copied().unwrap_or(0);
    map.insert_mut(name.clone(), before + 1);
}

fn uncount(map: &mut Map<Name, usize>, name: &Name) {
    match map.get(name).copied() {
        Some(before) if before > 1 => map.insert_mut(name.clone(), before - 1),
        Some(_) => _ = map.remove_mut(name),
        None => {}
    }
}
