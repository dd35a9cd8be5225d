//! One step from a state to the next, and the list of them that leads from one to another.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::{Group, Listener, Member, Name, NextHop, SnatPool, State};

/// One change of a [`State`], the size of what changed: a member of a group of a thousand is told
/// alone. Each is one record of the encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the model's own, by the same names")]
pub enum Change {
    /// Adds or replaces a listener.
    PutListener { name: Name, listener: Listener },
    /// Removes a listener; nothing happens if there is none.
    RemoveListener { name: Name },
    /// Adds a group without members, or changes an existing one and keeps its members.
    PutGroup { name: Name, refused_weight: u32 },
    /// Removes a group with all its members.
    RemoveGroup { name: Name },
    /// Adds or replaces a member of a group that exists.
    PutMember { group: Name, address: SocketAddr, member: Member },
    /// Removes a member.
    RemoveMember { group: Name, address: SocketAddr },
    /// Adds a pool without addresses, or leaves an existing one as it is.
    PutSnatPool { name: Name },
    /// Removes a pool with all its addresses.
    RemoveSnatPool { name: Name },
    /// Adds an address to a pool that exists.
    PutSnatAddress { pool: Name, address: IpAddr },
    /// Removes an address from a pool.
    RemoveSnatAddress { pool: Name, address: IpAddr },
    /// Adds or replaces the hint for a backend address.
    PutNextHop { address: IpAddr, next_hop: NextHop },
    /// Removes the hint for a backend address.
    RemoveNextHop { address: IpAddr },
}

pub(super) fn diff(old: &State, new: &State) -> Vec<Change> {
    let mut changes = Vec::new();
    removals(old, new, &mut changes);
    additions(old, new, &mut changes);
    changes
}

fn removals(old: &State, new: &State, changes: &mut Vec<Change>) {
    for name in gone(&old.listeners, &new.listeners) {
        changes.push(Change::RemoveListener { name: name.clone() });
    }
    for (name, group) in &old.groups {
        match new.groups.get(name) {
            None => changes.push(Change::RemoveGroup { name: name.clone() }),
            Some(next) => {
                for address in gone(&group.members, &next.members) {
                    changes.push(Change::RemoveMember { group: name.clone(), address: *address });
                }
            }
        }
    }
    for (name, pool) in &old.snat_pools {
        match new.snat_pools.get(name) {
            None => changes.push(Change::RemoveSnatPool { name: name.clone() }),
            Some(next) => {
                for address in pool.addresses.difference(&next.addresses) {
                    changes
                        .push(Change::RemoveSnatAddress { pool: name.clone(), address: *address });
                }
            }
        }
    }
    for address in gone(&old.next_hops, &new.next_hops) {
        changes.push(Change::RemoveNextHop { address: *address });
    }
}

/// The keys of `old` that `new` lacks.
fn gone<'a, K: Ord, V>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    old.keys().filter(|key| !new.contains_key(*key))
}

fn additions(old: &State, new: &State, changes: &mut Vec<Change>) {
    for (name, group) in &new.groups {
        group_additions(name, old.groups.get(name).map(AsRef::as_ref), group, changes);
    }
    for (name, pool) in &new.snat_pools {
        pool_additions(name, old.snat_pools.get(name), pool, changes);
    }
    for (name, listener) in &new.listeners {
        if old.listeners.get(name) != Some(listener) {
            changes.push(Change::PutListener { name: name.clone(), listener: listener.clone() });
        }
    }
    for (address, next_hop) in &new.next_hops {
        if old.next_hops.get(address) != Some(next_hop) {
            changes.push(Change::PutNextHop { address: *address, next_hop: *next_hop });
        }
    }
}

fn group_additions(name: &Name, old: Option<&Group>, new: &Group, changes: &mut Vec<Change>) {
    if old.is_some_and(|old| std::ptr::eq(old, new)) {
        return; // shared with the old state, so nothing in it changed
    }
    if old.map(|old| old.refused_weight) != Some(new.refused_weight) {
        changes.push(Change::PutGroup { name: name.clone(), refused_weight: new.refused_weight });
    }
    for (address, member) in &new.members {
        if old.and_then(|old| old.members.get(address)) != Some(member) {
            changes.push(Change::PutMember {
                group: name.clone(),
                address: *address,
                member: *member,
            });
        }
    }
}

fn pool_additions(name: &Name, old: Option<&SnatPool>, new: &SnatPool, changes: &mut Vec<Change>) {
    if old.is_none() {
        changes.push(Change::PutSnatPool { name: name.clone() });
    }
    for address in &new.addresses {
        if !old.is_some_and(|old| old.addresses.contains(address)) {
            changes.push(Change::PutSnatAddress { pool: name.clone(), address: *address });
        }
    }
}
