//! From what the control plane wants and what the kernel knows to what a worker reads.
//!
//! Groups and the FIB are built anew only if what they are made of has changed; listeners and
//! backends keep their numbers ([`Slots`]) for as long as a flow may name them. An object that
//! cannot be served is left out alone, with an error that goes back to the control plane.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use penstock_feed::{self as feed, Name, ObjectError, ObjectId, ObjectKind, State};
use penstock_forward::{
    BackendId, Group, L4Ports, Listener, ListenerSlot, Member, Mode, PortConfig, Protocol,
    Snapshot, SnapshotBuilder, SnapshotError, Timeouts, maglev,
};

use crate::{
    fib,
    kernel::KernelView,
    slots::Slots,
    statistics::{BACKEND_ROWS, LISTENER_ROWS, Statistics},
};

/// A backend by what makes it one and the same: its group and its address.
type BackendKey = (Name, SocketAddr);

/// A snapshot, and what could not be taken into it.
pub struct Translation {
    /// What the workers shall do.
    pub snapshot: Snapshot,
    /// Objects that cannot be served, each with the reason.
    pub errors: Vec<ObjectError>,
}

/// Keeps numbers, groups and FIB from one translation to the next.
pub struct Translator {
    ports: Arc<[PortConfig]>,
    box_snat: BTreeSet<IpAddr>,
    timeouts: Timeouts,
    workers: usize,
    version: u32,
    listeners: Slots<Name>,
    backends: Slots<BackendKey>,
    groups: HashMap<Name, (Arc<feed::Group>, Arc<Group>)>,
    dnat: BTreeSet<(u32, SocketAddr, Protocol)>,
    fib: fib::Builder,
    state: Arc<State>,
}

impl Translator {
    /// Nothing is numbered yet.
    pub fn new(
        ports: Vec<PortConfig>,
        box_snat: BTreeSet<IpAddr>,
        timeouts: Timeouts,
        workers: usize,
    ) -> Self {
        let ports: Arc<[PortConfig]> = ports.into();
        Self {
            fib: fib::Builder::new(Arc::clone(&ports)),
            ports,
            box_snat,
            timeouts,
            workers,
            version: 0,
            listeners: Slots::new(LISTENER_ROWS),
            backends: Slots::new(BACKEND_ROWS),
            groups: HashMap::new(),
            dnat: BTreeSet::new(),
            state: Arc::default(),
        }
    }

    /// The snapshot of a state under a view of the kernel.
    pub fn translate(
        &mut self,
        state: &Arc<State>,
        view: &KernelView,
        statistics: &mut Statistics,
    ) -> Translation {
        self.version = self.version.wrapping_add(1).max(1);
        self.state = Arc::clone(state);
        let mut errors = Vec::new();
        let snat = self.snat_addresses(state);
        let mut builder = SnapshotBuilder::new();
        builder.ports(Arc::clone(&self.ports)).timeouts(self.timeouts);
        builder.fib(self.fib.build(view, state));
        builder.snat_addresses(snat.iter().copied());
        let mut groups = HashMap::new();
        for (name, listener) in &state.listeners {
            match self.listener(name, listener, &snat, &mut groups, statistics) {
                Ok(listener) => {
                    if let Err(error) = builder.listener(listener) {
                        errors.push(refused(ObjectKind::Listener, name, &error));
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        self.groups = groups;
        builder.dnat_backends(self.dnat.iter().map(|(_, address, protocol)| (*address, *protocol)));
        let vips: BTreeSet<IpAddr> =
            state.listeners.values().map(|listener| listener.vip).collect();
        let not_ours = view.addresses.iter().filter(|address| !address.ours);
        builder.own_addresses(
            not_ours
                .map(|address| address.address)
                .filter(|address| !vips.contains(address) && !snat.contains(address)),
        );
        builder
            .local_addresses(view.addresses.iter().map(|own| own.address).chain(vips).chain(snat));
        Translation { snapshot: build(&builder, self.version), errors }
    }

    fn snat_addresses(&self, state: &State) -> BTreeSet<IpAddr> {
        let pools = state.snat_pools.values().flat_map(|pool| pool.addresses.iter().copied());
        self.box_snat.iter().copied().chain(pools).collect()
    }

    fn listener(
        &mut self,
        name: &Name,
        listener: &feed::Listener,
        all_snat: &BTreeSet<IpAddr>,
        groups: &mut HashMap<Name, (Arc<feed::Group>, Arc<Group>)>,
        statistics: &mut Statistics,
    ) -> Result<Listener, ObjectError> {
        let refuse = |message: String| refused(ObjectKind::Listener, name, &message);
        let vip = listener.vip;
        if vip.is_ipv6() {
            return Err(refuse(format!("{vip}: IPv6 is not forwarded yet; use an IPv4 VIP")));
        }
        if all_snat.contains(&vip) {
            return Err(refuse(format!(
                "{vip} is a SNAT address of this box; use another address for one of them"
            )));
        }
        let snat = match &listener.snat_pool {
            Some(pool) => self
                .state
                .snat_pools
                .get(pool)
                .map(|pool| pool.addresses.clone())
                .unwrap_or_default(),
            None => self.box_snat.clone(),
        };
        let snat: Arc<[IpAddr]> =
            snat.into_iter().filter(|address| address.is_ipv4() == vip.is_ipv4()).collect();
        if listener.mode == feed::Mode::FullNat && snat.is_empty() {
            return Err(refuse(format!(
                "{vip}: full NAT needs a SNAT address of its family; give snat.addresses in the data plane's configuration"
            )));
        }
        let group = self.group(&listener.group, groups, statistics)?;
        let slot = self.listeners.of(name).ok_or_else(|| {
            refuse(format!("{LISTENER_ROWS} listeners are counted already; remove one"))
        })?;
        let protocol = protocol(listener.protocol);
        if listener.mode == feed::Mode::Dnat {
            self.dnat.extend(
                group.members().iter().map(|member| (member.id.0, member.address, protocol)),
            );
        }
        statistics.label_listener(slot, name, listener);
        Ok(Listener {
            slot: ListenerSlot(slot),
            vip,
            protocol,
            ports: L4Ports { first: listener.ports.first(), last: listener.ports.last() },
            mode: match listener.mode {
                feed::Mode::FullNat => Mode::FullNat,
                feed::Mode::Dnat => Mode::Dnat,
            },
            group,
            snat,
        })
    }

    /// A group's Maglev table: the one of last time if its members are the same.
    fn group(
        &mut self,
        name: &Name,
        groups: &mut HashMap<Name, (Arc<feed::Group>, Arc<Group>)>,
        statistics: &mut Statistics,
    ) -> Result<Arc<Group>, ObjectError> {
        if let Some((_, group)) = groups.get(name) {
            return Ok(Arc::clone(group));
        }
        let refuse = |message: String| refused(ObjectKind::Group, name, &message);
        let Some(source) = self.state.groups.get(name).cloned() else {
            return Err(refuse("no such group".into()));
        };
        let last = self.groups.get(name);
        if let Some((known, group)) = last
            && (Arc::ptr_eq(known, &source) || known == &source)
        {
            groups.insert(name.clone(), (source, Arc::clone(group)));
            return Ok(Arc::clone(group));
        }
        let table_size = last.map(|(_, group)| group.table_size()).filter(|size| *size > 0);
        let mut members = Vec::with_capacity(source.members.len());
        for (address, member) in &source.members {
            let key = (name.clone(), *address);
            let Some(id) = self.backends.of(&key) else {
                return Err(refuse(format!(
                    "{BACKEND_ROWS} backends are counted already; remove some"
                )));
            };
            statistics.label_backend(id, name, *address, member);
            members.push(Member {
                id: BackendId(id),
                address: *address,
                weight: member.weight,
                draining: member.draining,
            });
        }
        let shares = members.len() + usize::from(source.refused_weight > 0);
        let size = maglev::size_for(shares, table_size);
        let group = Group::new(members, source.refused_weight, Some(size))
            .map_err(|error| refuse(error.to_string()))?;
        let group = Arc::new(group);
        groups.insert(name.clone(), (source, Arc::clone(&group)));
        Ok(group)
    }

    /// Gives numbers back that neither the configuration nor a flow names. To be called when every
    /// worker has gone over to the last translation.
    pub fn release_unused(&mut self, statistics: &mut Statistics) {
        let state = Arc::clone(&self.state);
        let wanted = |(group, address): &BackendKey| {
            state.groups.get(group).is_some_and(|group| group.members.contains_key(address))
        };
        let gone: Vec<(BackendKey, u32)> = self
            .backends
            .iter()
            .filter(|(key, _)| !wanted(key))
            .map(|(key, id)| (key.clone(), id))
            .collect();
        for ((group, address), id) in &gone {
            statistics.label_backend(
                *id,
                group,
                *address,
                &feed::Member { weight: 0, draining: true },
            );
        }
        let workers = self.workers;
        let released =
            self.backends.release(wanted, |id| statistics.backend_flows(workers, id) > 0);
        self.dnat.retain(|(id, ..)| !released.contains(id));
        for id in released {
            statistics.forget("backends", id);
        }
        let wanted = |name: &Name| state.listeners.contains_key(name);
        for slot in
            self.listeners.release(wanted, |slot| statistics.listener_flows(workers, slot) > 0)
        {
            statistics.forget("listeners", slot);
        }
    }
}

fn build(builder: &SnapshotBuilder, version: u32) -> Snapshot {
    match builder.build(version) {
        Ok(snapshot) => snapshot,
        Err(error @ SnapshotError::VipIsSnatAddress { .. }) => {
            unreachable!("checked for every listener: {error}")
        }
        Err(error) => unreachable!("refused when it was added: {error}"),
    }
}

fn protocol(protocol: feed::Protocol) -> Protocol {
    match protocol {
        feed::Protocol::Tcp => Protocol::Tcp,
        feed::Protocol::Udp => Protocol::Udp,
    }
}

fn refused(kind: ObjectKind, name: &Name, message: &impl ToString) -> ObjectError {
    ObjectError { object: ObjectId { kind, name: name.clone() }, message: message.to_string() }
}

#[cfg(test)]
mod tests;
