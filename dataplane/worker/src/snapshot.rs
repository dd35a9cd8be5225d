//! From what the control plane wants and what the kernel knows to what a worker reads.
//!
//! Groups and the FIB are built anew only if what they are made of has changed; listeners and
//! backends keep their numbers ([`Slots`]) for as long as a flow may name them. An object that
//! cannot be served is refused alone, with an error that goes back to the control plane, and what
//! was served under its name before goes on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use penstock_feed::{self as feed, Name, ObjectError, ObjectId, ObjectKind, State};
use penstock_forward::{
    Affinity, BackendId, Group, L4Ports, Listener, ListenerSlot, Member, Mode, OnExhaustion,
    OnUnknown, PortConfig, Protocol, Snapshot, SnapshotBuilder, SnapshotError, Tick, Timeouts,
    maglev,
};
use tracing::warn;

use crate::{
    config::{Icmp, Snat},
    fib,
    kernel::KernelView,
    occupied::{Occupant, Occupied},
    orphans::{Known, Orphans},
    slots::Slots,
    statistics::{BACKEND_ROWS, LISTENER_ROWS, Statistics},
};

/// A backend by what makes it one and the same: its group and its address.
type BackendKey = (Name, SocketAddr);

/// Groups by name, with what each was built of.
type Groups = HashMap<Name, (Arc<feed::Group>, Arc<Group>)>;

/// A listener by what its flows look like. One that changes in this becomes another, so that what
/// old flows still need is known, and given up when the last of them ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ListenerKey {
    name: Name,
    vip: IpAddr,
    protocol: Protocol,
    ports: L4Ports,
    snat: Arc<[IpAddr]>,
    /// Whether it is in DNAT, whose flows have other owners.
    is_dnat: bool,
}

/// A listener as the workers have it, and as the control plane wrote it.
#[derive(Clone)]
struct Served {
    listener: Listener,
    source: feed::Listener,
}

/// A snapshot, and what could not be taken into it.
pub struct Translation {
    /// What the workers shall do.
    pub snapshot: Snapshot,
    /// Objects that cannot be served, each with the reason.
    pub errors: Vec<ObjectError>,
    /// Every VIP and SNAT address that is served or that a flow still needs.
    pub addresses: Arc<BTreeSet<IpAddr>>,
}

/// Keeps numbers, groups and FIB from one translation to the next.
pub struct Translator {
    ports: Arc<[PortConfig]>,
    box_snat: Snat,
    echo_per_second: u32,
    timeouts: Timeouts,
    workers: usize,
    version: u32,
    listeners: Slots<ListenerKey>,
    backends: Slots<BackendKey>,
    groups: Groups,
    served: BTreeMap<Name, Served>,
    /// Listeners that are served no longer, by number, while flows name them.
    departed: HashMap<u32, Served>,
    orphans: Orphans,
    served_backends: HashSet<u32>,
    dnat: BTreeSet<(u32, SocketAddr, Protocol)>,
    fib: fib::Builder,
    occupied: Occupied,
    /// The VIPs that were refused for what the kernel knows them as.
    refused_vips: BTreeMap<IpAddr, Occupant>,
    /// The VIPs that became so while they were served, of which the operator has been told.
    overtaken: BTreeMap<IpAddr, Occupant>,
    state: Option<Arc<State>>,
    builder: SnapshotBuilder,
    errors: Vec<ObjectError>,
    addresses: Arc<BTreeSet<IpAddr>>,
}

impl Translator {
    /// Nothing is numbered yet.
    pub fn new(
        ports: Vec<PortConfig>,
        box_snat: Snat,
        icmp: Icmp,
        timeouts: Timeouts,
        workers: usize,
    ) -> Self {
        let ports: Arc<[PortConfig]> = ports.into();
        Self {
            fib: fib::Builder::new(Arc::clone(&ports)),
            ports,
            box_snat,
            echo_per_second: icmp.echo_per_second,
            timeouts,
            workers,
            version: 0,
            listeners: Slots::new(LISTENER_ROWS),
            backends: Slots::new(BACKEND_ROWS),
            groups: HashMap::new(),
            served: BTreeMap::new(),
            departed: HashMap::new(),
            orphans: Orphans::default(),
            served_backends: HashSet::new(),
            dnat: BTreeSet::new(),
            occupied: Occupied::default(),
            refused_vips: BTreeMap::new(),
            overtaken: BTreeMap::new(),
            state: None,
            builder: SnapshotBuilder::new(),
            errors: Vec::new(),
            addresses: Arc::default(),
        }
    }

    /// The snapshot of a state under a view of the kernel. If only the view has changed, listeners
    /// and groups are those of last time, unless a VIP that was refused for what the kernel knew it
    /// as is that no more. `now` is by the workers' clock.
    pub fn translate(
        &mut self,
        state: &Arc<State>,
        view: &KernelView,
        statistics: &mut Statistics,
        now: Tick,
    ) -> Translation {
        self.version = self.version.wrapping_add(1).max(1);
        let occupied = self.occupied.follow(view);
        let known = self.state.as_ref().is_some_and(|known| Arc::ptr_eq(known, state));
        let mut refused = self.refused_vips.iter();
        let freed = occupied && refused.any(|(vip, was)| self.occupied.occupant(*vip) != Some(was));
        if !known || freed {
            self.take(state, statistics, now);
            self.state = Some(Arc::clone(state));
        }
        if !known || occupied {
            self.tell_of_overtaken();
        }
        self.builder.fib(self.fib.build(view, state));
        let of_kernel = view.addresses.iter().map(|own| own.address);
        self.builder.local_addresses(of_kernel.chain(self.addresses.iter().copied()));
        self.builder.own_addresses(self.own_addresses(state, view));
        self.builder.broadcasts(self.occupied.broadcasts());
        Translation {
            snapshot: build(&self.builder, self.version),
            errors: self.errors.clone(),
            addresses: Arc::clone(&self.addresses),
        }
    }

    /// The kernel may give an address that is a VIP already to another: connections that flow are not
    /// cut for that, but somebody must look at it.
    fn tell_of_overtaken(&mut self) {
        let vips = self.served.values().map(|served| served.listener.vip);
        let overtaken: BTreeMap<IpAddr, Occupant> =
            vips.filter_map(|vip| Some((vip, self.occupied.occupant(vip)?.clone()))).collect();
        for (vip, occupant) in &overtaken {
            if self.overtaken.get(vip) != Some(occupant) {
                warn!(%vip, "the VIP has become {occupant}, and is served all the same; use another address for one of them");
            }
        }
        self.overtaken = overtaken;
    }

    /// The box's addresses that strangers have no business with: no VIP, refused ones included unless
    /// that was the reason, and no SNAT address.
    fn own_addresses(&self, state: &State, view: &KernelView) -> Vec<IpAddr> {
        let vips: BTreeSet<IpAddr> =
            state.listeners.values().map(|listener| listener.vip).collect();
        let not_ours = view.addresses.iter().filter(|own| !own.ours).map(|own| own.address);
        not_ours
            .filter(|address| !vips.contains(address) || self.occupied.is_own(*address))
            .filter(|address| !self.addresses.contains(address))
            .collect()
    }

    /// Listeners, groups and addresses of a state.
    fn take(&mut self, state: &Arc<State>, statistics: &mut Statistics, now: Tick) {
        self.errors.clear();
        self.builder = SnapshotBuilder::new();
        self.builder.ports(Arc::clone(&self.ports)).timeouts(self.timeouts);
        self.builder.snat_on_unknown(self.box_snat.on_unknown);
        self.builder.echo_per_second(self.echo_per_second);
        let pools = self.pools(state);
        let all_snat = self.all_snat(&pools);
        let served_vips = self.known_listeners().map(|listener| listener.vip).collect();
        let hosts = hosts(state);
        let mut taking =
            Taking { state, pools, all_snat, served_vips, hosts, groups: HashMap::new() };
        self.refused_vips.clear();
        let (mut served, mut refused) = (BTreeMap::new(), Vec::new());
        for (name, source) in &state.listeners {
            let listener = self.listener(name, source, &mut taking, statistics);
            match listener.and_then(|listener| self.add(name, listener)) {
                Ok(listener) => {
                    let source = source.clone();
                    served.insert(name.clone(), Served { listener, source });
                }
                Err(error) => {
                    self.report(error);
                    refused.push(name);
                }
            }
        }
        for name in refused {
            if let Some(last) = self.served.get(name).cloned()
                && let Some(last) = self.keep(last, &mut taking, statistics)
            {
                served.insert(name.clone(), last);
            }
        }
        let Taking { all_snat, mut groups, .. } = taking;
        self.groups.retain(|name, _| state.groups.contains_key(name) && !groups.contains_key(name));
        groups.extend(self.groups.drain());
        self.groups = groups;
        self.replace_served(served, statistics);
        self.builder.snat_addresses(all_snat.iter().copied());
        self.note_what_flows_need(all_snat);
        self.note_what_nobody_serves(now);
    }

    /// Adds a listener to the snapshot that is being made.
    fn add(&mut self, name: &Name, listener: Listener) -> Result<Listener, ObjectError> {
        match self.builder.listener(listener.clone()) {
            Ok(_) => Ok(listener),
            Err(error) => Err(refused(ObjectKind::Listener, name, &error)),
        }
    }

    /// What was served before a listener was refused, with its group as it is now, if that is
    /// possible beside those that are served now.
    fn keep(
        &mut self,
        last: Served,
        taking: &mut Taking<'_>,
        statistics: &mut Statistics,
    ) -> Option<Served> {
        let Served { listener, source } = last;
        let group = self.group(&source.group, taking, statistics);
        let renewed = group.map(|group| Listener { group, ..listener.clone() });
        [renewed.ok(), Some(listener)]
            .into_iter()
            .flatten()
            .find(|listener| self.builder.listener(listener.clone()).is_ok())
            .map(|listener| Served { listener, source })
    }

    fn replace_served(&mut self, served: BTreeMap<Name, Served>, statistics: &mut Statistics) {
        let slots: HashSet<u32> = served.values().map(|served| served.listener.slot.0).collect();
        for (name, before) in std::mem::replace(&mut self.served, served) {
            let slot = before.listener.slot.0;
            if !slots.contains(&slot) {
                let group = &before.listener.group;
                statistics.label_listener(slot, &name, &before.source, group, true);
                self.departed.insert(slot, before);
            }
        }
        self.departed.retain(|slot, _| !slots.contains(slot));
        for (name, Served { listener, source }) in &self.served {
            statistics.label_listener(listener.slot.0, name, source, &listener.group, false);
        }
        let members = self.groups.values().flat_map(|(_, group)| group.members());
        self.served_backends = members.map(|member| member.id.0).collect();
        for served in self.served.values().map(|served| &served.listener) {
            if served.mode == Mode::Dnat {
                let members = served.group.members().iter();
                self.dnat
                    .extend(members.map(|member| (member.id.0, member.address, served.protocol)));
            }
        }
    }

    /// What is not served any more but must be known for as long as flows live.
    fn note_what_flows_need(&mut self, all_snat: BTreeSet<IpAddr>) {
        let departed = self.departed.values().map(|gone| &gone.listener);
        self.builder.departed_listeners(
            departed.map(|gone| (gone.vip, gone.protocol, gone.ports, gone.mode)),
        );
        self.builder
            .dnat_backends(self.dnat.iter().map(|(_, address, protocol)| (*address, *protocol)));
        let vips = self.known_listeners().map(|listener| listener.vip);
        let addresses: BTreeSet<IpAddr> = vips.chain(all_snat).collect();
        if *self.addresses != addresses {
            self.addresses = Arc::new(addresses);
        }
    }

    /// Those served, and those that have gone while flows live.
    fn known_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.served.values().chain(self.departed.values()).map(|known| &known.listener)
    }

    /// Flows whose backend or listener has gone, where they are not kept.
    fn note_what_nobody_serves(&mut self, now: Tick) {
        let known = |known: &'_ Served| (known.listener.slot.0, known.source.policies.on_removal);
        let served = self.served.values().map(|served| {
            let (slot, on_removal) = known(served);
            Known { slot, group: Some(&served.source.group), on_removal }
        });
        let departed = self.departed.values().map(|departed| {
            let (slot, on_removal) = known(departed);
            Known { slot, group: None, on_removal }
        });
        let ids = self.backends.iter().map(|(_, id)| id);
        let gone = ids.filter(|id| !self.served_backends.contains(id));
        let removals = self.orphans.follow(served.chain(departed), gone, self.version, now);
        self.builder.removals(removals);
    }

    /// The addresses of each pool. One that is a VIP is left out, unless it was for SNAT first: then
    /// the listener is refused.
    fn pools(&mut self, state: &State) -> BTreeMap<Name, BTreeSet<IpAddr>> {
        let snat_before: BTreeSet<IpAddr> =
            self.known_listeners().flat_map(|listener| listener.snat.iter().copied()).collect();
        let mut vips: BTreeSet<IpAddr> =
            self.known_listeners().map(|listener| listener.vip).collect();
        vips.extend(state.listeners.values().map(|listener| listener.vip));
        let is_vip = |address: &IpAddr| vips.contains(address) && !snat_before.contains(address);
        let mut pools = BTreeMap::new();
        for (name, pool) in &state.snat_pools {
            let (bad, good): (BTreeSet<_>, BTreeSet<_>) =
                pool.addresses.iter().copied().partition(is_vip);
            for address in bad {
                self.errors.push(refused(
                    ObjectKind::SnatPool,
                    name,
                    &format!("{address} is a VIP of this box and left out; use another address"),
                ));
            }
            pools.insert(name.clone(), good);
        }
        pools
    }

    /// Every SNAT address: the box's, those of the pools, and those that flows may use.
    fn all_snat(&self, pools: &BTreeMap<Name, BTreeSet<IpAddr>>) -> BTreeSet<IpAddr> {
        let in_use = self.known_listeners().flat_map(|listener| listener.snat.iter());
        self.box_snat
            .addresses
            .iter()
            .chain(pools.values().flatten())
            .chain(in_use)
            .copied()
            .collect()
    }

    fn report(&mut self, error: ObjectError) {
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    fn listener(
        &mut self,
        name: &Name,
        listener: &feed::Listener,
        taking: &mut Taking<'_>,
        statistics: &mut Statistics,
    ) -> Result<Listener, ObjectError> {
        let refuse = |message: String| refused(ObjectKind::Listener, name, &message);
        let vip = listener.vip;
        if lives_on_one_link(vip) {
            return Err(refuse(format!(
                "{vip} is link-local, and nothing is forwarded from or to it; use another VIP"
            )));
        }
        if taking.all_snat.contains(&vip) {
            return Err(refuse(format!(
                "{vip} is a SNAT address of this box, or flows still use it as one; use another address for one of them"
            )));
        }
        if let Some(host) = taking.hosts.get(&vip) {
            return Err(refuse(format!(
                "{vip} is {host}, which packets would not reach any more; use another address as VIP"
            )));
        }
        if let Some(occupant) = self.occupied.occupant(vip)
            && !(taking.served_vips.contains(&vip) || self.occupied.is_kept(vip))
        {
            self.refused_vips.insert(vip, occupant.clone());
            return Err(refuse(format!("{vip} is {occupant}; use another address as VIP")));
        }
        let snat = self.snat_of(listener, taking);
        if listener.mode == feed::Mode::FullNat && snat.is_empty() {
            return Err(refuse(format!(
                "{vip}: full NAT needs a SNAT address of its family, {}; give snat.addresses in the data plane's configuration",
                if vip.is_ipv4() { "IPv4" } else { "IPv6" }
            )));
        }
        let group = self.group(&listener.group, taking, statistics)?;
        if let Some(address) = lacks_source(listener.mode, &group, &snat) {
            return Err(refuse(format!(
                "{vip}: a tunnel to {address} needs a SNAT address of its family as source, {}; give snat.addresses in the data plane's configuration",
                if address.is_ipv4() { "IPv4" } else { "IPv6" }
            )));
        }
        let protocol = protocol(listener.protocol);
        let ports = L4Ports { first: listener.ports.first(), last: listener.ports.last() };
        let is_dnat = listener.mode == feed::Mode::Dnat;
        let (name, snat_key) = (name.clone(), Arc::clone(&snat));
        let key = ListenerKey { name, vip, protocol, ports, snat: snat_key, is_dnat };
        let slot = self.listeners.of(&key).ok_or_else(|| {
            refuse(format!("{LISTENER_ROWS} listeners are counted already; remove one"))
        })?;
        Ok(Listener {
            slot: ListenerSlot(slot),
            vip,
            protocol,
            ports,
            mode: match listener.mode {
                feed::Mode::FullNat => Mode::FullNat,
                feed::Mode::Dnat => Mode::Dnat,
                feed::Mode::L2Dsr => Mode::L2Dsr,
                feed::Mode::Ipip => Mode::Ipip,
                feed::Mode::Gue => Mode::Gue,
                feed::Mode::GueVariant0 => Mode::GueVariant0,
            },
            affinity: match listener.affinity {
                feed::Affinity::Tuple => Affinity::Tuple,
                feed::Affinity::Source { bits } => Affinity::Source { bits },
            },
            on_exhaustion: match listener.policies.on_exhaustion {
                feed::OnExhaustion::Reset => OnExhaustion::Reset,
                feed::OnExhaustion::Icmp => OnExhaustion::Icmp,
                feed::OnExhaustion::Drop => OnExhaustion::Drop,
            },
            on_unknown: match listener.policies.on_unknown {
                feed::OnUnknown::Drop => OnUnknown::Drop,
                feed::OnUnknown::Reset => OnUnknown::Reset,
            },
            group,
            snat,
        })
    }

    /// The addresses that full NAT and tunnels take for a listener; none for DNAT and L2 DSR.
    fn snat_of(&self, listener: &feed::Listener, taking: &Taking<'_>) -> Arc<[IpAddr]> {
        if matches!(listener.mode, feed::Mode::Dnat | feed::Mode::L2Dsr) {
            return Arc::new([]);
        }
        let pool = match &listener.snat_pool {
            Some(pool) => taking.pools.get(pool),
            None => Some(&self.box_snat.addresses),
        };
        let pool = pool.into_iter().flatten().copied();
        let any_family = listener.mode.is_tunnel();
        pool.filter(|address| any_family || address.is_ipv4() == listener.vip.is_ipv4()).collect()
    }

    /// A group's Maglev table: the one of last time if its members are the same, or cannot be served.
    fn group(
        &mut self,
        name: &Name,
        taking: &mut Taking<'_>,
        statistics: &mut Statistics,
    ) -> Result<Arc<Group>, ObjectError> {
        if let Some((_, group)) = taking.groups.get(name) {
            return Ok(Arc::clone(group));
        }
        let Some(source) = taking.state.groups.get(name) else {
            return Err(refused(ObjectKind::Group, name, &"no such group"));
        };
        let last = self.groups.get(name).cloned();
        let built = match &last {
            Some((known, group)) if known == source => Ok(Arc::clone(group)),
            _ => {
                let last = last.as_ref().map(|(_, group)| group);
                self.build_group(name, source, last, taking, statistics)
            }
        };
        let entry = match (built, last) {
            (Ok(group), _) => (Arc::clone(source), group),
            (Err(error), Some(last)) => {
                self.report(error);
                last
            }
            (Err(error), None) => return Err(error),
        };
        let group = Arc::clone(&entry.1);
        taking.groups.insert(name.clone(), entry);
        Ok(group)
    }

    fn build_group(
        &mut self,
        name: &Name,
        source: &feed::Group,
        last: Option<&Arc<Group>>,
        taking: &Taking<'_>,
        statistics: &mut Statistics,
    ) -> Result<Arc<Group>, ObjectError> {
        let refuse = |message: String| refused(ObjectKind::Group, name, &message);
        let mut addresses = source.members.keys();
        if let Some(address) = addresses.find(|at| taking.served_vips.contains(&at.ip())) {
            return Err(refuse(format!(
                "backend {address} has the address of a VIP that this box serves, and its packets would come back; use another address for one of them"
            )));
        }
        let mut members = Vec::with_capacity(source.members.len());
        for (address, member) in &source.members {
            let id = self.backends.of(&(name.clone(), *address)).ok_or_else(|| {
                refuse(format!("{BACKEND_ROWS} backends are counted already; remove some"))
            })?;
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

    /// Gives numbers back that neither the configuration nor a flow names. To be called when every
    /// worker has gone over to the last translation. Whether the next one will say less by that.
    pub fn release_unused(&mut self, statistics: &mut Statistics) -> bool {
        let served = &self.served_backends;
        for ((group, address), id) in self.backends.iter().filter(|(_, id)| !served.contains(id)) {
            let gone = feed::Member { weight: 0, draining: true };
            statistics.label_backend(id, group, *address, &gone);
        }
        let workers = self.workers;
        let released = self
            .backends
            .release(|id| served.contains(&id) || statistics.backend_flows(workers, id) > 0);
        let dnat_before = self.dnat.len();
        self.dnat.retain(|(id, ..)| !released.contains(id));
        for id in released {
            statistics.forget("backends", id);
        }
        let served: HashSet<u32> =
            self.served.values().map(|served| served.listener.slot.0).collect();
        let released = self
            .listeners
            .release(|slot| served.contains(&slot) || statistics.listener_flows(workers, slot) > 0);
        let departed_before = self.departed.len();
        for slot in released {
            self.departed.remove(&slot);
            statistics.forget("listeners", slot);
        }
        let less = (self.dnat.len(), self.departed.len()) != (dnat_before, departed_before);
        if less {
            self.state = None; // to be taken again
        }
        less
    }
}

/// What the translation of one state has found so far.
struct Taking<'s> {
    state: &'s State,
    pools: BTreeMap<Name, BTreeSet<IpAddr>>,
    all_snat: BTreeSet<IpAddr>,
    /// The VIPs that were served or departed before.
    served_vips: BTreeSet<IpAddr>,
    /// The VIPs wanted that are hosts which the state sends to.
    hosts: BTreeMap<IpAddr, String>,
    groups: Groups,
}

/// The VIPs of a state that are hosts which the same state sends to, and what they are to it.
fn hosts(state: &State) -> BTreeMap<IpAddr, String> {
    let vips: BTreeSet<IpAddr> = state.listeners.values().map(|listener| listener.vip).collect();
    let hints = state.next_hops.iter().filter(|(_, hint)| vips.contains(&hint.via));
    let mut hosts: BTreeMap<_, _> =
        hints.map(|(to, hint)| (hint.via, format!("the router of the next hop to {to}"))).collect();
    for (name, group) in &state.groups {
        for backend in group.members.keys().filter(|backend| vips.contains(&backend.ip())) {
            hosts.insert(backend.ip(), format!("the address of backend {backend} of {name}"));
        }
    }
    hosts
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

/// A backend to which a tunnel would have no source address.
fn lacks_source(mode: feed::Mode, group: &Group, snat: &[IpAddr]) -> Option<IpAddr> {
    let has_source =
        |backend: IpAddr| snat.iter().any(|address| address.is_ipv4() == backend.is_ipv4());
    let mut backends = group.members().iter().map(|member| member.address.ip());
    backends.find(|backend| mode.is_tunnel() && !has_source(*backend))
}

/// Whether packets from or to an address never leave its link (RFC 4291 §2.5.6).
pub(crate) fn lives_on_one_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn refused(kind: ObjectKind, name: &Name, message: &impl ToString) -> ObjectError {
    ObjectError { object: ObjectId { kind, name: name.clone() }, message: message.to_string() }
}

#[cfg(test)]
mod tests;
