//! One step from a state to the next, and the list of them that leads from one to another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{
    Group, L7Listener, Listener, Map, Member, Name, NextHop, Pem, PemId, Secret, SnatPool, State,
    Tier, Touched, join,
};

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
    /// Adds a VIP of the L7 tier, or leaves it as it is.
    PutVip { address: IpAddr },
    /// Removes a VIP of the L7 tier.
    RemoveVip { address: IpAddr },
    /// Adds or replaces a listener of the L7 tier.
    PutL7Listener { name: Name, listener: L7Listener },
    /// Removes a listener of the L7 tier.
    RemoveL7Listener { name: Name },
    /// Adds a pem without parts, or leaves an existing one as it is.
    PutPem { pem: PemId },
    /// Appends the part number `index` to a pem that exists and has as many.
    PutPemPart { pem: PemId, index: u16, part: Secret },
    /// Removes a pem with all its parts.
    RemovePem { pem: PemId },
}

impl Change {
    /// Whose it is.
    #[must_use]
    pub const fn tier(&self) -> Tier {
        match self {
            Self::PutL7Listener { .. }
            | Self::RemoveL7Listener { .. }
            | Self::PutPem { .. }
            | Self::PutPemPart { .. }
            | Self::RemovePem { .. } => Tier::L7,
            _ => Tier::L4,
        }
    }
}

pub(super) fn diff(old: &State, new: &State) -> Vec<Change> {
    Differing::between(old, new).changes()
}

pub(super) fn diff_of(old: &State, new: &State, touched: &Touched) -> Vec<Change> {
    Differing::among(old, new, touched).changes()
}

/// A key, and its values in the old and in the new state.
type Pair<'m, K, V> = (&'m K, Option<&'m V>, Option<&'m V>);

/// What may differ between two states.
struct Differing<'m> {
    listeners: Vec<Pair<'m, Name, Listener>>,
    groups: Vec<Pair<'m, Name, Group>>,
    snat_pools: Vec<Pair<'m, Name, SnatPool>>,
    next_hops: Vec<Pair<'m, IpAddr, NextHop>>,
    vips: Vec<Pair<'m, IpAddr, ()>>,
    l7_listeners: Vec<Pair<'m, Name, L7Listener>>,
    pems: Vec<Pair<'m, PemId, Arc<Pem>>>,
}

impl<'m> Differing<'m> {
    fn between(old: &'m State, new: &'m State) -> Self {
        Self {
            listeners: unequal(changed(&old.listeners, &new.listeners)),
            groups: unequal(changed_groups(old, new)),
            snat_pools: unequal(changed(&old.snat_pools, &new.snat_pools)),
            next_hops: unequal(changed(&old.next_hops, &new.next_hops)),
            vips: unequal(changed(&old.vips, &new.vips)),
            l7_listeners: unequal(changed(&old.l7.listeners, &new.l7.listeners)),
            pems: unequal(changed(&old.l7.pems, &new.l7.pems)),
        }
    }

    fn among(old: &'m State, new: &'m State, touched: &'m Touched) -> Self {
        let groups = found(&touched.groups, &old.groups, &new.groups);
        let groups =
            groups.map(|(name, old, new)| (name, old.map(AsRef::as_ref), new.map(AsRef::as_ref)));
        Self {
            listeners: unequal(found(&touched.listeners, &old.listeners, &new.listeners)),
            groups: unequal(groups),
            snat_pools: unequal(found(&touched.snat_pools, &old.snat_pools, &new.snat_pools)),
            next_hops: unequal(found(&touched.next_hops, &old.next_hops, &new.next_hops)),
            vips: unequal(found(&touched.vips, &old.vips, &new.vips)),
            l7_listeners: unequal(found(
                &touched.l7_listeners,
                &old.l7.listeners,
                &new.l7.listeners,
            )),
            pems: unequal(found(&touched.pems, &old.l7.pems, &new.l7.pems)),
        }
    }

    fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        self.removals(&mut changes);
        self.additions(&mut changes);
        changes
    }
}

/// The keys that were touched, with both values.
fn found<'m, K: Ord, V>(
    keys: &'m BTreeSet<K>,
    old: &'m Map<K, V>,
    new: &'m Map<K, V>,
) -> impl Iterator<Item = Pair<'m, K, V>> {
    keys.iter().map(|key| (key, old.get(key), new.get(key)))
}

fn unequal<'m, K, V: PartialEq>(
    pairs: impl Iterator<Item = Pair<'m, K, V>>,
) -> Vec<Pair<'m, K, V>> {
    pairs.filter(|(_, old, new)| old != new).collect()
}

/// The keys whose values may differ, with both; nothing of two maps that are one.
pub(crate) fn changed<'m, K: Ord, V>(
    old: &'m Map<K, V>,
    new: &'m Map<K, V>,
) -> impl Iterator<Item = (&'m K, Option<&'m V>, Option<&'m V>)> {
    let shared = old.ptr_eq(new);
    (!shared).then(|| join(old, new)).into_iter().flatten()
}

/// The same of groups, less those that both states share.
pub(crate) fn changed_groups<'m>(
    old: &'m State,
    new: &'m State,
) -> impl Iterator<Item = (&'m Name, Option<&'m Group>, Option<&'m Group>)> {
    let groups = changed(&old.groups, &new.groups)
        .map(|(name, old, new)| (name, old.map(AsRef::as_ref), new.map(AsRef::as_ref)));
    groups.filter(|(_, old, new)| match (old, new) {
        (Some(old), Some(new)) => !std::ptr::eq::<Group>(*old, *new),
        _ => true,
    })
}

impl Differing<'_> {
    fn removals(&self, changes: &mut Vec<Change>) {
        for (name, _, after) in &self.listeners {
            if after.is_none() {
                changes.push(Change::RemoveListener { name: (*name).clone() });
            }
        }
        for (name, before, after) in &self.groups {
            match (before, after) {
                (_, None) => changes.push(Change::RemoveGroup { name: (*name).clone() }),
                (None, _) => {}
                (Some(before), Some(after)) => {
                    for (address, _, after) in join(&before.members, &after.members) {
                        if after.is_none() {
                            let group = (*name).clone();
                            changes.push(Change::RemoveMember { group, address: *address });
                        }
                    }
                }
            }
        }
        for (name, before, after) in &self.snat_pools {
            let Some(after) = after else {
                changes.push(Change::RemoveSnatPool { name: (*name).clone() });
                continue;
            };
            for address in
                before.iter().flat_map(|pool| pool.addresses.difference(&after.addresses))
            {
                let pool = (*name).clone();
                changes.push(Change::RemoveSnatAddress { pool, address: *address });
            }
        }
        for (address, _, after) in &self.next_hops {
            if after.is_none() {
                changes.push(Change::RemoveNextHop { address: **address });
            }
        }
        for (address, _, after) in &self.vips {
            if after.is_none() {
                changes.push(Change::RemoveVip { address: **address });
            }
        }
        self.l7_removals(changes);
    }

    fn l7_removals(&self, changes: &mut Vec<Change>) {
        for (name, _, after) in &self.l7_listeners {
            if after.is_none() {
                changes.push(Change::RemoveL7Listener { name: (*name).clone() });
            }
        }
        for (pem, before, _) in &self.pems {
            if before.is_some() {
                changes.push(Change::RemovePem { pem: **pem });
            }
        }
    }

    fn additions(&self, changes: &mut Vec<Change>) {
        for (name, before, after) in &self.groups {
            after.iter().for_each(|after| group_additions(name, *before, after, changes));
        }
        for (name, before, after) in &self.snat_pools {
            after.iter().for_each(|after| pool_additions(name, *before, after, changes));
        }
        for (name, _, after) in &self.listeners {
            if let Some(listener) = after {
                let (name, listener) = ((*name).clone(), (*listener).clone());
                changes.push(Change::PutListener { name, listener });
            }
        }
        for (address, _, after) in &self.next_hops {
            if let Some(next_hop) = after {
                changes.push(Change::PutNextHop { address: **address, next_hop: **next_hop });
            }
        }
        for (address, _, after) in &self.vips {
            if after.is_some() {
                changes.push(Change::PutVip { address: **address });
            }
        }
        self.l7_additions(changes);
    }

    fn l7_additions(&self, changes: &mut Vec<Change>) {
        for (pem, _, after) in &self.pems {
            if let Some(after) = after {
                pem_additions(**pem, after, changes);
            }
        }
        for (name, _, after) in &self.l7_listeners {
            if let Some(listener) = after {
                let (name, listener) = ((*name).clone(), (*listener).clone());
                changes.push(Change::PutL7Listener { name, listener });
            }
        }
    }
}

fn pem_additions(pem: PemId, new: &Pem, changes: &mut Vec<Change>) {
    changes.push(Change::PutPem { pem });
    for (index, part) in (0..).zip(new.parts()) {
        changes.push(Change::PutPemPart { pem, index, part: part.clone() });
    }
}

fn group_additions(name: &Name, old: Option<&Group>, new: &Group, changes: &mut Vec<Change>) {
    if old.map(|old| old.refused_weight) != Some(new.refused_weight) {
        changes.push(Change::PutGroup { name: name.clone(), refused_weight: new.refused_weight });
    }
    let none = BTreeMap::new();
    for (address, before, after) in join(old.map_or(&none, |old| &old.members), &new.members) {
        if let Some(member) = after.filter(|_| before != after) {
            let group = name.clone();
            changes.push(Change::PutMember { group, address: *address, member: *member });
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
