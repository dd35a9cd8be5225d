//! Backend groups as the workers have them: Maglev tables, and the numbers of backends.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use penstock_feed::{self as feed, Name, ObjectError, ObjectKind, State};
use penstock_forward::{BackendId, Group, Member, maglev};

use super::addresses::Addresses;
use super::errors::{Errors, refused};
use crate::{slots::Slots, statistics::Statistics};

/// A backend by what makes it one and the same: its group and its address.
pub(super) type BackendKey = (Name, SocketAddr);

/// A group, and what it was built of.
#[derive(Debug)]
struct Built {
    source: Arc<feed::Group>,
    group: Arc<Group>,
}

/// See the module. A group is *held* by its name, as the one built last, and by each listener that it
/// serves.
#[derive(Debug)]
pub(super) struct Groups {
    built: HashMap<Name, Built>,
    /// Those that could not be built as they are, when they were last asked for.
    failed: BTreeMap<Name, ObjectError>,
    numbers: Slots<BackendKey>,
    /// By the address in memory of a group: how many hold it.
    holders: HashMap<usize, usize>,
    /// By the number of a backend: how many groups that are held have it.
    groups_with: HashMap<u32, usize>,
    /// Backends that left their last group, or came to one, since somebody asked; whether they left.
    moved: BTreeMap<u32, bool>,
}

impl Groups {
    /// None is built yet, and no backend has a number; `capacity` of them can be given.
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            built: HashMap::new(),
            failed: BTreeMap::new(),
            numbers: Slots::new(capacity),
            holders: HashMap::new(),
            groups_with: HashMap::new(),
            moved: BTreeMap::new(),
        }
    }

    /// What has a number.
    #[cfg(test)]
    pub(super) fn key(&self, id: u32) -> Option<&BackendKey> {
        self.numbers.key(id)
    }

    /// Begins a round, in which a group that failed is tried once more; which those are.
    pub(super) fn begin(&mut self, errors: &mut Errors) -> Vec<Name> {
        let failed = std::mem::take(&mut self.failed).into_keys();
        failed.inspect(|name| errors.clear(ObjectKind::Group, name)).collect()
    }

    /// A group's Maglev table: the one of last time if its members are the same, or cannot be served.
    pub(super) fn get(
        &mut self,
        name: &Name,
        state: &State,
        addresses: &Addresses,
        errors: &mut Errors,
        statistics: &mut Statistics,
    ) -> Result<Arc<Group>, ObjectError> {
        let Some(source) = state.groups.get(name) else {
            return Err(refused(ObjectKind::Group, name, &"no such group"));
        };
        let last = self.built.get(name);
        if let Some(last) = last.filter(|last| last.source == *source) {
            return Ok(Arc::clone(&last.group));
        }
        let last = last.map(|last| Arc::clone(&last.group));
        let built = match self.failed.get(name) {
            Some(error) => Err(error.clone()),
            None => self.build(name, source, last.as_ref(), addresses, statistics),
        };
        match (built, last) {
            (Ok(group), _) => {
                self.hold(&group);
                let built = Built { source: Arc::clone(source), group: Arc::clone(&group) };
                if let Some(before) = self.built.insert(name.clone(), built) {
                    self.let_go(&before.group);
                }
                Ok(group)
            }
            (Err(error), last) => {
                self.failed.insert(name.clone(), error.clone());
                let last = last.ok_or_else(|| error.clone())?;
                errors.report(error);
                Ok(last)
            }
        }
    }

    fn build(
        &mut self,
        name: &Name,
        source: &feed::Group,
        last: Option<&Arc<Group>>,
        addresses: &Addresses,
        statistics: &mut Statistics,
    ) -> Result<Arc<Group>, ObjectError> {
        let refuse = |message: String| refused(ObjectKind::Group, name, &message);
        let mut backends = source.members.keys();
        if let Some(address) = backends.find(|backend| addresses.is_vip(backend.ip())) {
            return Err(refuse(format!(
                "backend {address} has the address of a VIP that this box serves, and its packets would come back; use another address for one of them"
            )));
        }
        let mut members = Vec::with_capacity(source.members.len());
        for (address, member) in &source.members {
            let id = self.numbers.of(&(name.clone(), *address)).ok_or_else(|| {
                let all = self.numbers.capacity();
                refuse(format!("{all} backends are counted already; remove some"))
            })?;
            statistics.reserve("backends", id).map_err(|error| refuse(error.to_string()))?;
            members.push(Member {
                id: BackendId(id),
                address: *address,
                weight: member.weight,
                draining: member.draining,
            });
        }
        let shares = members.len() + usize::from(source.refused_weight > 0);
        let table_size = last.map(|group| group.table_size()).filter(|size| *size > 0);
        let size = maglev::size_for(shares, table_size);
        let group = Group::new(members, source.refused_weight, Some(size))
            .map_err(|error| refuse(error.to_string()))?;
        for (member, written) in group.members().iter().zip(source.members.values()) {
            statistics.label_backend(member.id.0, name, member.address, written);
        }
        Ok(Arc::new(group))
    }

    /// A listener is served by a group from now on.
    pub(super) fn hold(&mut self, group: &Arc<Group>) {
        let holders = self.holders.entry(Arc::as_ptr(group).addr()).or_default();
        *holders += 1;
        if *holders > 1 {
            return;
        }
        for member in group.members() {
            let groups = self.groups_with.entry(member.id.0).or_default();
            *groups += 1;
            if *groups == 1 {
                self.numbers.hold(member.id.0);
                self.moved.insert(member.id.0, false);
            }
        }
    }

    /// One that was is so no more.
    pub(super) fn let_go(&mut self, group: &Arc<Group>) {
        let place = Arc::as_ptr(group).addr();
        let Some(holders) = self.holders.get_mut(&place) else { return };
        *holders -= 1;
        if *holders > 0 {
            return;
        }
        self.holders.remove(&place);
        for member in group.members() {
            let Some(groups) = self.groups_with.get_mut(&member.id.0) else { continue };
            *groups -= 1;
            if *groups == 0 {
                self.groups_with.remove(&member.id.0);
                self.numbers.let_go(member.id.0);
                self.moved.insert(member.id.0, true);
            }
        }
    }

    /// Forgets a group that is configured no more.
    pub(super) fn forget(&mut self, name: &Name) {
        if let Some(built) = self.built.remove(name) {
            self.let_go(&built.group);
        }
    }

    /// The backends that are in no group that is held any more, `true`, or have come to one, since the last
    /// call.
    pub(super) fn take_moved(&mut self) -> BTreeMap<u32, bool> {
        std::mem::take(&mut self.moved)
    }

    /// Gives numbers back that neither a group nor a flow names; which.
    pub(super) fn release_unused(
        &mut self,
        statistics: &mut Statistics,
        workers: usize,
    ) -> Vec<u32> {
        for (id, (group, address)) in self.numbers.take_let_go() {
            let gone = feed::Member { weight: 0, draining: true };
            statistics.label_backend(id, &group, address, &gone);
        }
        let released = self.numbers.release(|id| statistics.backend_flows(workers, id) > 0);
        released.iter().for_each(|id| statistics.forget("backends", *id));
        released
    }
}
