//! A state with its digest, its counts and its relations, which change with it.
//!
//! Both ends hold one. It is where a [`Change`] is applied, where limits are kept, and why neither
//! end ever computes a digest from nothing but at its start, or checks more than was touched. Copying
//! it costs a few reference counts.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::digest::Digest;
use crate::encode;
use crate::model::{
    Change, Group, L7Listener, Listener, Map, Member, Name, NextHop, ObjectError, Pem, PemId,
    Secret, SnatPool, State, Touched, limits,
};
use crate::record::Kind;
use crate::relations::Relations;

/// A [`State`], its digest, what its listeners refer to, and what it counts towards the limits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracked {
    state: Arc<State>, // its four maps are copied at the first change if someone else still holds it
    digest: Digest,
    relations: Relations,
    members: usize,
    snat_addresses: usize,
    pem_parts: usize,
    scratch: Zeroizing<Vec<u8>>, // one record's body, kept to save an allocation a record
}

/// Why a change cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("more than {limit} {objects}: split the configuration over more boxes")]
    TooMany { objects: &'static str, limit: usize },
    #[error("a member for group {group}, which does not exist")]
    NoGroup { group: Name },
    #[error("an address for SNAT pool {pool}, which does not exist")]
    NoPool { pool: Name },
    #[error("part {index} of pem {:032x}, which is not there or does not end before it", pem.to_bits())]
    NoPem { pem: PemId, index: u16 },
}

impl Tracked {
    /// Computes digest, relations and counts from nothing. Limits are not looked at.
    pub(crate) fn of(state: Arc<State>) -> Self {
        let mut tracked = Self {
            members: state.groups.values().map(|group| group.members.len()).sum(),
            snat_addresses: state.snat_pools.values().map(|pool| pool.addresses.len()).sum(),
            pem_parts: state.l7.pems.values().map(|pem| pem.parts().len()).sum(),
            ..Self::default()
        };
        for (name, listener) in &state.listeners {
            tracked.add(|out| encode::listener_body(name, listener, out));
            tracked.relations.add(name, listener);
        }
        for (name, group) in &state.groups {
            tracked.add_group(name, group);
        }
        for (name, pool) in &state.snat_pools {
            tracked.add(|out| encode::snat_pool_body(name, out));
            for address in &pool.addresses {
                tracked.add(|out| encode::snat_address_body(name, *address, out));
            }
        }
        for (address, next_hop) in &state.next_hops {
            tracked.add(|out| encode::next_hop_body(*address, *next_hop, out));
        }
        for address in state.vips.keys() {
            tracked.add(|out| encode::vip_body(*address, out));
        }
        for (name, listener) in &state.l7.listeners {
            tracked.add(|out| encode::l7_listener_body(name, listener, out));
        }
        for (id, pem) in &state.l7.pems {
            tracked.add(|out| encode::pem_body(*id, out));
            for (index, part) in (0..).zip(pem.parts()) {
                tracked.add(|out| encode::pem_part_body(*id, index, part, out));
            }
        }
        tracked.state = state;
        tracked
    }

    fn add_group(&mut self, name: &Name, group: &Group) {
        self.add(|out| encode::group_body(name, group.refused_weight, out));
        for (address, member) in &group.members {
            self.add(|out| encode::member_body(name, *address, *member, out));
        }
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Holds `equal` instead of a copy that is equal to it, so that a later diff finds what it still
    /// shares with its successor at a glance.
    pub(crate) fn hold(&mut self, equal: &Arc<State>) {
        debug_assert_eq!(&self.state, equal);
        self.state = Arc::clone(equal);
    }

    /// Takes over the groups of `old` that are equal to ours, so that the next diff, and whoever
    /// compares `Arc`s, sees at a glance that they did not change.
    pub(crate) fn share_unchanged(&mut self, old: &State) {
        self.share_unchanged_pems(old);
        let groups = &mut self.state_mut().groups;
        let equal = |(name, group): (&Name, &Arc<Group>)| groups.get(name) == Some(group);
        let equal: Vec<_> =
            old.groups.iter().filter(|(name, group)| equal((*name, *group))).collect();
        for (name, group) in equal {
            groups.insert_mut(name.clone(), Arc::clone(group));
        }
    }

    fn share_unchanged_pems(&mut self, old: &State) {
        for (id, pem) in &old.l7.pems {
            if self.state.l7.pems.get(id) == Some(pem) {
                self.state_mut().l7.pems.insert_mut(*id, Arc::clone(pem));
            }
        }
    }

    /// What is wrong with the state, if nothing was before the objects `touched` were: what
    /// [`State::check`] says. If that is nothing, it costs a look at those objects.
    pub(crate) fn check(&self, touched: &Touched) -> Vec<ObjectError> {
        if self.relations.hold_in(&self.state, touched) { Vec::new() } else { self.state.check() }
    }

    /// Applies one change. After an error nothing has changed.
    pub(crate) fn apply(&mut self, change: Change) -> Result<(), ApplyError> {
        match change {
            Change::PutListener { name, listener } => self.put_listener(name, listener),
            Change::RemoveListener { name } => {
                self.remove_listener(&name);
                Ok(())
            }
            Change::PutGroup { name, refused_weight } => self.put_group(name, refused_weight),
            Change::RemoveGroup { name } => {
                self.remove_group(&name);
                Ok(())
            }
            Change::PutMember { group, address, member } => self.put_member(group, address, member),
            Change::RemoveMember { group, address } => {
                self.remove_member(&group, address);
                Ok(())
            }
            Change::PutSnatPool { name } => self.put_pool(name),
            Change::RemoveSnatPool { name } => {
                self.remove_pool(&name);
                Ok(())
            }
            Change::PutSnatAddress { pool, address } => self.put_snat_address(pool, address),
            Change::RemoveSnatAddress { pool, address } => {
                self.remove_snat_address(&pool, address);
                Ok(())
            }
            Change::PutNextHop { address, next_hop } => self.put_next_hop(address, next_hop),
            Change::RemoveNextHop { address } => {
                if let Some(old) = take(&mut self.state_mut().next_hops, &address) {
                    self.subtract(|out| encode::next_hop_body(address, old, out));
                }
                Ok(())
            }
            Change::PutVip { address } => self.put_vip(address),
            Change::RemoveVip { address } => {
                if take(&mut self.state_mut().vips, &address).is_some() {
                    self.subtract(|out| encode::vip_body(address, out));
                }
                Ok(())
            }
            Change::PutL7Listener { name, listener } => self.put_l7_listener(name, listener),
            Change::RemoveL7Listener { name } => {
                self.remove_l7_listener(&name);
                Ok(())
            }
            Change::PutPem { pem } => self.put_pem(pem),
            Change::PutPemPart { pem, index, part } => self.put_pem_part(pem, index, part),
            Change::RemovePem { pem } => {
                self.remove_pem(pem);
                Ok(())
            }
        }
    }

    fn put_vip(&mut self, address: IpAddr) -> Result<(), ApplyError> {
        room_for_key(&self.state.vips, &address, "VIPs of the L7 tier", limits::VIPS)?;
        if !self.state.vips.contains_key(&address) {
            self.add(|out| encode::vip_body(address, out));
            self.state_mut().vips.insert_mut(address, ());
        }
        Ok(())
    }

    fn put_l7_listener(&mut self, name: Name, listener: L7Listener) -> Result<(), ApplyError> {
        let listeners = &self.state.l7.listeners;
        room_for_key(listeners, &name, "L7 listeners", limits::L7_LISTENERS)?;
        self.remove_l7_listener(&name);
        self.add(|out| encode::l7_listener_body(&name, &listener, out));
        self.state_mut().l7.listeners.insert_mut(name, listener);
        Ok(())
    }

    fn remove_l7_listener(&mut self, name: &Name) {
        let Some(old) = take(&mut self.state_mut().l7.listeners, name) else { return };
        self.subtract(|out| encode::l7_listener_body(name, &old, out));
    }

    fn put_pem(&mut self, pem: PemId) -> Result<(), ApplyError> {
        room_for_key(&self.state.l7.pems, &pem, "certificates and authorities", limits::PEMS)?;
        if !self.state.l7.pems.contains_key(&pem) {
            self.add(|out| encode::pem_body(pem, out));
            self.state_mut().l7.pems.insert_mut(pem, Arc::default());
        }
        Ok(())
    }

    fn put_pem_part(&mut self, id: PemId, index: u16, part: Secret) -> Result<(), ApplyError> {
        if !self.state.l7.pems.get(&id).is_some_and(|pem| pem.takes(index, &part)) {
            return Err(ApplyError::NoPem { pem: id, index });
        }
        room_for(self.pem_parts + 1, "parts of certificates", limits::PEM_PARTS)?;
        self.pem_parts += 1;
        self.add(|out| encode::pem_part_body(id, index, &part, out));
        if let Some(pem) = self.state_mut().l7.pems.get_mut(&id) {
            Arc::make_mut(pem).push(part);
        }
        Ok(())
    }

    fn remove_pem(&mut self, id: PemId) {
        let Some(pem) = take(&mut self.state_mut().l7.pems, &id) else { return };
        self.pem_parts -= pem.parts().len();
        self.subtract(|out| encode::pem_body(id, out));
        for (index, part) in (0..).zip(Pem::parts(&pem)) {
            self.subtract(|out| encode::pem_part_body(id, index, part, out));
        }
    }

    fn put_listener(&mut self, name: Name, listener: Listener) -> Result<(), ApplyError> {
        room_for_key(&self.state.listeners, &name, "listeners", limits::LISTENERS)?;
        self.remove_listener(&name);
        self.add(|out| encode::listener_body(&name, &listener, out));
        self.relations.add(&name, &listener);
        self.state_mut().listeners.insert_mut(name, listener);
        Ok(())
    }

    fn remove_listener(&mut self, name: &Name) {
        let Some(old) = take(&mut self.state_mut().listeners, name) else { return };
        self.subtract(|out| encode::listener_body(name, &old, out));
        self.relations.remove(name, &old);
    }

    fn put_group(&mut self, name: Name, refused_weight: u32) -> Result<(), ApplyError> {
        room_for_key(&self.state.groups, &name, "groups", limits::GROUPS)?;
        self.add(|out| encode::group_body(&name, refused_weight, out));
        if self.state.groups.contains_key(&name) {
            let Some(group) = self.state_mut().groups.get_mut(&name) else { return Ok(()) };
            let old = std::mem::replace(&mut Arc::make_mut(group).refused_weight, refused_weight);
            self.subtract(|out| encode::group_body(&name, old, out));
        } else {
            let group = Arc::new(Group { refused_weight, ..Group::default() });
            self.state_mut().groups.insert_mut(name, group);
        }
        Ok(())
    }

    fn remove_group(&mut self, name: &Name) {
        let Some(group) = take(&mut self.state_mut().groups, name) else { return };
        self.members -= group.members.len();
        self.subtract(|out| encode::group_body(name, group.refused_weight, out));
        for (address, member) in &group.members {
            self.subtract(|out| encode::member_body(name, *address, *member, out));
        }
    }

    fn put_member(
        &mut self,
        name: Name,
        address: SocketAddr,
        member: Member,
    ) -> Result<(), ApplyError> {
        let Some(group) = self.state.groups.get(&name) else {
            return Err(ApplyError::NoGroup { group: name });
        };
        let old = group.members.get(&address).copied();
        let members = self.members + usize::from(old.is_none());
        room_for(members, "members of groups", limits::MEMBERS)?;
        self.members = members;
        self.add(|out| encode::member_body(&name, address, member, out));
        if let Some(old) = old {
            self.subtract(|out| encode::member_body(&name, address, old, out));
        }
        if let Some(group) = self.state_mut().groups.get_mut(&name) {
            Arc::make_mut(group).members.insert(address, member);
        }
        Ok(())
    }

    fn remove_member(&mut self, name: &Name, address: SocketAddr) {
        if !self.state.groups.get(name).is_some_and(|group| group.members.contains_key(&address)) {
            return; // and the group stays shared
        }
        let Some(group) = self.state_mut().groups.get_mut(name) else { return };
        if let Some(old) = Arc::make_mut(group).members.remove(&address) {
            self.members -= 1;
            self.subtract(|out| encode::member_body(name, address, old, out));
        }
    }

    fn put_pool(&mut self, name: Name) -> Result<(), ApplyError> {
        room_for_key(&self.state.snat_pools, &name, "SNAT pools", limits::SNAT_POOLS)?;
        if !self.state.snat_pools.contains_key(&name) {
            self.add(|out| encode::snat_pool_body(&name, out));
            self.state_mut().snat_pools.insert_mut(name, SnatPool::default());
        }
        Ok(())
    }

    fn remove_pool(&mut self, name: &Name) {
        let Some(pool) = take(&mut self.state_mut().snat_pools, name) else { return };
        self.snat_addresses -= pool.addresses.len();
        self.subtract(|out| encode::snat_pool_body(name, out));
        for address in &pool.addresses {
            self.subtract(|out| encode::snat_address_body(name, *address, out));
        }
    }

    fn put_snat_address(&mut self, name: Name, address: IpAddr) -> Result<(), ApplyError> {
        let Some(pool) = self.state.snat_pools.get(&name) else {
            return Err(ApplyError::NoPool { pool: name });
        };
        if pool.addresses.contains(&address) {
            return Ok(());
        }
        room_for(self.snat_addresses + 1, "addresses of SNAT pools", limits::SNAT_ADDRESSES)?;
        self.snat_addresses += 1;
        self.add(|out| encode::snat_address_body(&name, address, out));
        if let Some(pool) = self.state_mut().snat_pools.get_mut(&name) {
            pool.addresses.insert(address);
        }
        Ok(())
    }

    fn remove_snat_address(&mut self, name: &Name, address: IpAddr) {
        if !self.state.snat_pools.get(name).is_some_and(|pool| pool.addresses.contains(&address)) {
            return;
        }
        let Some(pool) = self.state_mut().snat_pools.get_mut(name) else { return };
        if pool.addresses.remove(&address) {
            self.snat_addresses -= 1;
            self.subtract(|out| encode::snat_address_body(name, address, out));
        }
    }

    fn put_next_hop(&mut self, address: IpAddr, next_hop: NextHop) -> Result<(), ApplyError> {
        room_for_key(&self.state.next_hops, &address, "next-hop hints", limits::NEXT_HOPS)?;
        self.add(|out| encode::next_hop_body(address, next_hop, out));
        if let Some(old) = self.state.next_hops.get(&address).copied() {
            self.subtract(|out| encode::next_hop_body(address, old, out));
        }
        self.state_mut().next_hops.insert_mut(address, next_hop);
        Ok(())
    }

    fn state_mut(&mut self) -> &mut State {
        Arc::make_mut(&mut self.state)
    }

    fn add(&mut self, body: impl FnOnce(&mut Vec<u8>) -> Kind) {
        self.scratch.clear();
        let kind = body(&mut self.scratch);
        self.digest.add(kind, &self.scratch);
    }

    fn subtract(&mut self, body: impl FnOnce(&mut Vec<u8>) -> Kind) {
        self.scratch.clear();
        let kind = body(&mut self.scratch);
        self.digest.subtract(kind, &self.scratch);
    }
}

/// Takes a value out. A key that is not there leaves the map as it was, and shared.
fn take<K: Ord + Clone, V: Clone>(map: &mut Map<K, V>, key: &K) -> Option<V> {
    let value = map.get(key).cloned()?;
    map.remove_mut(key);
    Some(value)
}

fn room_for_key<K: Ord, V>(
    map: &Map<K, V>,
    key: &K,
    objects: &'static str,
    limit: usize,
) -> Result<(), ApplyError> {
    if map.size() < limit || map.contains_key(key) {
        Ok(())
    } else {
        Err(ApplyError::TooMany { objects, limit })
    }
}

fn room_for(count: usize, objects: &'static str, limit: usize) -> Result<(), ApplyError> {
    if count <= limit { Ok(()) } else { Err(ApplyError::TooMany { objects, limit }) }
}
