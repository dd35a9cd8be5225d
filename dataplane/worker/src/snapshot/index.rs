//! Who names what in a state, so that what is touched leads to all that it concerns.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use penstock_feed::{Name, State, Touched};

use crate::hosts::Hosts;

/// Names by what they have in common.
#[derive(Debug)]
pub(super) struct NamesBy<K>(BTreeMap<K, BTreeSet<Name>>);

impl<K> Default for NamesBy<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> NamesBy<K> {
    fn add(&mut self, key: &K, name: &Name) {
        self.0.entry(key.clone()).or_default().insert(name.clone());
    }

    fn remove(&mut self, key: &K, name: &Name) {
        if let Some(names) = self.0.get_mut(key) {
            names.remove(name);
            if names.is_empty() {
                self.0.remove(key);
            }
        }
    }

    /// Those of a key, in order.
    pub(super) fn of(&self, key: &K) -> impl Iterator<Item = &Name> {
        self.0.get(key).into_iter().flatten()
    }

    /// Whether there are any.
    pub(super) fn any(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Listeners by their group.
    pub(super) of_group: NamesBy<Name>,
    /// Listeners by their SNAT pool.
    pub(super) of_pool: NamesBy<Name>,
    /// Listeners by their VIP.
    pub(super) at: NamesBy<IpAddr>,
    /// SNAT pools by their addresses.
    pub(super) pools: NamesBy<IpAddr>,
    /// Where packets are sent.
    pub(super) hosts: Hosts,
}

/// What a state has that the one before had not, or the other way round.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Addresses that a listener has come to or left.
    pub(super) vips: BTreeSet<IpAddr>,
    /// Hosts that came.
    pub(super) hosts: BTreeSet<IpAddr>,
}

impl Index {
    /// Goes over from one state to the next, which differ in what is `touched`.
    pub(super) fn follow(&mut self, before: &State, now: &State, touched: &Touched) -> Moved {
        let mut moved =
            Moved { hosts: self.hosts.follow(before, now, touched), ..Moved::default() };
        for name in &touched.listeners {
            if let Some(listener) = before.listeners.get(name) {
                self.of_group.remove(&listener.group, name);
                listener.snat_pool.iter().for_each(|pool| self.of_pool.remove(pool, name));
                self.at.remove(&listener.vip, name);
                moved.vips.insert(listener.vip);
            }
            if let Some(listener) = now.listeners.get(name) {
                self.of_group.add(&listener.group, name);
                listener.snat_pool.iter().for_each(|pool| self.of_pool.add(pool, name));
                self.at.add(&listener.vip, name);
                moved.vips.insert(listener.vip);
            }
        }
        for name in &touched.snat_pools {
            let of = |state: &State| {
                state.snat_pools.get(name).map(|pool| pool.addresses.clone()).unwrap_or_default()
            };
            let (before, now) = (of(before), of(now));
            before.difference(&now).for_each(|address| self.pools.remove(address, name));
            now.difference(&before).for_each(|address| self.pools.add(address, name));
        }
        moved
    }
}
