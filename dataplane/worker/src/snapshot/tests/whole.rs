//! The translation of a whole state, which looks at every object each time: slow, and what the one that
//! looks at what was touched has to agree with.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use penstock_forward::{Removal, Removals};

use super::groups::BackendKey;
use super::*;

type Built = HashMap<Name, (Arc<feed::Group>, Arc<Group>)>;

/// Numbers, the lowest first.
#[derive(Default)]
pub(super) struct Numbers<K>(pub(super) BTreeMap<u32, K>);

impl<K: PartialEq + Clone> Numbers<K> {
    pub(super) fn number(&self, key: &K) -> Option<u32> {
        self.0.iter().find(|(_, held)| *held == key).map(|(number, _)| *number)
    }

    fn of(&mut self, key: &K, capacity: u32) -> Option<u32> {
        let number = self
            .number(key)
            .or_else(|| (0..capacity).find(|number| !self.0.contains_key(number)))?;
        self.0.insert(number, key.clone());
        Some(number)
    }
}

/// See the module.
pub(super) struct Whole {
    box_snat: BTreeSet<IpAddr>,
    capacities: [u32; 2],
    pub(super) listeners: Numbers<ListenerKey>,
    pub(super) backends: Numbers<BackendKey>,
    groups: Built,
    served: BTreeMap<Name, Served>,
    departed: HashMap<u32, Served>,
    served_backends: HashSet<u32>,
    /// Those, and those that were so and have kept their number.
    backends_ever: HashSet<u32>,
    /// By listener: its group, none if it has gone, and since when.
    groups_since: HashMap<u32, (Option<Name>, Tick)>,
    /// By listener: whom it lets in, and since when.
    ranges_since: HashMap<u32, (Option<feed::SourceRanges>, Tick)>,
    /// By backend: since when it is in no group.
    left: HashMap<u32, Tick>,
    dnat: BTreeSet<(u32, SocketAddr, Protocol)>,
    occupied: Occupied,
    refused_vips: BTreeMap<IpAddr, Occupant>,
    state: Option<Arc<State>>,
    builder: SnapshotBuilder,
    errors: Vec<ObjectError>,
    addresses: BTreeSet<IpAddr>,
    /// VIPs of the L7 tier that are kept.
    kept: BTreeSet<IpAddr>,
    own: Vec<IpAddr>,
}

/// What a state has come to so far.
struct Taking<'s> {
    state: &'s State,
    view: &'s KernelView,
    pools: BTreeMap<Name, BTreeSet<IpAddr>>,
    all_snat: BTreeSet<IpAddr>,
    served_vips: BTreeSet<IpAddr>,
    hosts: BTreeMap<IpAddr, String>,
    groups: Built,
}

impl Whole {
    pub(super) fn new(box_snat: BTreeSet<IpAddr>, capacities: [u32; 2]) -> Self {
        Self {
            box_snat,
            capacities,
            listeners: Numbers(BTreeMap::new()),
            backends: Numbers(BTreeMap::new()),
            groups: HashMap::new(),
            served: BTreeMap::new(),
            departed: HashMap::new(),
            served_backends: HashSet::new(),
            backends_ever: HashSet::new(),
            groups_since: HashMap::new(),
            ranges_since: HashMap::new(),
            left: HashMap::new(),
            dnat: BTreeSet::new(),
            occupied: Occupied::default(),
            refused_vips: BTreeMap::new(),
            state: None,
            builder: SnapshotBuilder::new(),
            errors: Vec::new(),
            addresses: BTreeSet::new(),
            kept: BTreeSet::new(),
            own: Vec::new(),
        }
    }

    /// Snapshot, errors in order, addresses.
    pub(super) fn translate(
        &mut self,
        state: &Arc<State>,
        view: &KernelView,
        now: Tick,
    ) -> (Snapshot, Vec<ObjectError>, BTreeSet<IpAddr>) {
        let occupied = self.occupied.follow(view);
        let known = self.state.as_ref().is_some_and(|known| Arc::ptr_eq(known, state));
        let mut refused = self.refused_vips.iter();
        let freed = occupied && refused.any(|(vip, was)| self.occupied.occupant(*vip) != Some(was));
        if !known || freed {
            self.take(state, view, now);
            self.state = Some(Arc::clone(state));
        }
        self.builder.local_addresses(view.addresses.iter().map(|own| own.address));
        self.builder.broadcasts(self.occupied.broadcasts());
        let own = self.own_addresses(state, view);
        let gone = std::mem::replace(&mut self.own, own);
        gone.iter().for_each(|address| _ = self.builder.remove_own_address(*address));
        self.own.iter().for_each(|address| _ = self.builder.add_own_address(*address));
        let mut errors = self.errors.clone();
        errors.sort_by_key(|error| (error.object.clone(), error.message.clone()));
        (build(&self.builder, 1), errors, self.addresses.clone())
    }

    fn own_addresses(&self, state: &State, view: &KernelView) -> Vec<IpAddr> {
        let vips = wanted_vips(state);
        let others = view.addresses.iter().map(|own| own.address);
        others
            .filter(|address| !vips.contains(address) || self.occupied.is_own(*address))
            .filter(|address| !self.addresses.contains(address))
            .collect()
    }

    fn take(&mut self, state: &Arc<State>, view: &KernelView, now: Tick) {
        self.errors.clear();
        self.builder = SnapshotBuilder::new();
        self.own.clear();
        self.kept.retain(|vip| state.vips.contains_key(vip));
        let pools = self.pools(state);
        let all_snat = self.all_snat(&pools);
        let served_vips = self.known_vips();
        let (hosts, groups) = (hosts(state), HashMap::new());
        let mut taking = Taking { state, view, pools, all_snat, served_vips, hosts, groups };
        self.refused_vips.clear();
        let (mut served, mut refused) = (BTreeMap::new(), Vec::new());
        for (name, source) in &state.listeners {
            let listener = self.listener(name, source, &mut taking);
            let added = listener.and_then(|listener| {
                let added = self.builder.listener(listener.clone());
                added.map_err(|error| super::refused(ObjectKind::Listener, name, &error))?;
                Ok(listener)
            });
            match added {
                Ok(listener) => {
                    served.insert(name.clone(), Served { listener, source: source.clone() });
                }
                Err(error) => {
                    self.report(error);
                    refused.push(name);
                }
            }
        }
        for name in refused {
            if let Some(last) = self.served.get(name).cloned()
                && let Some(last) = self.keep(last, &mut taking)
            {
                served.insert(name.clone(), last);
            }
        }
        self.keep_vips(&taking);
        let Taking { all_snat, mut groups, .. } = taking;
        self.groups.retain(|name, _| state.groups.contains_key(name) && !groups.contains_key(name));
        groups.extend(self.groups.drain());
        self.groups = groups;
        self.replace_served(served);
        all_snat.iter().for_each(|address| _ = self.builder.add_snat_address(*address));
        self.note_what_flows_need(&all_snat);
        let removals = self.removals(now);
        self.builder.removals(removals);
        for known in self.served.values().chain(self.departed.values()) {
            let own = own_timeouts(&Timeouts::default(), known.source.policies.timeouts);
            self.builder.listener_timeouts(known.listener.slot, own);
        }
    }

    fn known_vips(&self) -> BTreeSet<IpAddr> {
        let of_listeners = self.known_listeners().map(|listener| listener.vip);
        of_listeners.chain(self.kept.iter().copied()).collect()
    }

    fn keep_vips(&mut self, taking: &Taking<'_>) {
        for vip in taking.state.vips.keys() {
            match self.check_vip(*vip, taking) {
                Ok(()) => _ = self.kept.insert(*vip),
                Err(message) => {
                    let name = Name::new(&vip.to_string()).unwrap();
                    self.report(super::refused(ObjectKind::Vip, &name, &message));
                }
            }
        }
        self.kept.iter().for_each(|vip| _ = self.builder.add_kept_vip(*vip));
    }

    fn keep(&mut self, last: Served, taking: &mut Taking<'_>) -> Option<Served> {
        let Served { listener, source } = last;
        let group = self.group(&source.group, taking);
        let renewed = group.map(|group| Listener { group, ..listener.clone() });
        [renewed.ok(), Some(listener)]
            .into_iter()
            .flatten()
            .find(|listener| self.builder.listener(listener.clone()).is_ok())
            .map(|listener| Served { listener, source })
    }

    fn replace_served(&mut self, served: BTreeMap<Name, Served>) {
        let slots: HashSet<u32> = served.values().map(|served| served.listener.slot.0).collect();
        for before in std::mem::replace(&mut self.served, served).into_values() {
            let slot = before.listener.slot.0;
            if !slots.contains(&slot) {
                self.departed.insert(slot, before);
            }
        }
        self.departed.retain(|slot, _| !slots.contains(slot));
        let of_listeners = self.served.values().map(|served| &served.listener.group);
        let groups = self.groups.values().map(|(_, group)| group).chain(of_listeners);
        self.served_backends =
            groups.flat_map(|group| group.members()).map(|member| member.id.0).collect();
        self.backends_ever.extend(&self.served_backends);
        for served in self.served.values().map(|served| &served.listener) {
            if served.mode == Mode::Dnat {
                let members = served.group.members().iter();
                self.dnat
                    .extend(members.map(|member| (member.id.0, member.address, served.protocol)));
            }
        }
    }

    fn note_what_flows_need(&mut self, all_snat: &BTreeSet<IpAddr>) {
        for gone in self.departed.values().map(|gone| &gone.listener) {
            self.builder.add_departed(gone.vip, gone.protocol, gone.ports, gone.mode);
        }
        for (_, address, protocol) in &self.dnat {
            self.builder.add_dnat_backend(*address, *protocol);
        }
        let vips = self.known_listeners().map(|listener| listener.vip);
        let kept = self.kept.iter().chain(all_snat).copied();
        self.addresses = vips.chain(kept).collect();
    }

    fn known_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.served.values().chain(self.departed.values()).map(|known| &known.listener)
    }

    /// Since when listeners have their groups and backends have none, counted from when some listener first
    /// did not keep its flows.
    fn removals(&mut self, now: Tick) -> Option<Removals> {
        let of = |known: &Served| {
            let ranges = known.source.source_ranges.clone();
            (known.listener.slot.0, known.source.policies.on_removal, ranges)
        };
        let served =
            self.served.values().map(|known| (of(known), Some(known.source.group.clone())));
        let departed = self.departed.values().map(|known| (of(known), None));
        let known: Vec<_> = served.chain(departed).collect();
        let grace_ms = |on_removal| match on_removal {
            feed::OnRemoval::Keep => None,
            feed::OnRemoval::Reset => Some(0),
            feed::OnRemoval::Expire { grace_ms } => Some(grace_ms),
        };
        let ends = known.iter().any(|((_, on_removal, _), _)| grace_ms(*on_removal).is_some());
        let (groups, left) =
            (std::mem::take(&mut self.groups_since), std::mem::take(&mut self.left));
        let ranges_before = std::mem::take(&mut self.ranges_since);
        if !ends {
            return None;
        }
        for ((slot, _, ranges), group) in &known {
            let same = groups.get(slot).filter(|(before, _)| before == group);
            let since = same.map_or(now, |(_, since)| *since);
            self.groups_since.insert(*slot, (group.clone(), since));
            let same = ranges_before.get(slot).filter(|(before, _)| before == ranges);
            let since = same.map_or(now, |(_, since)| *since);
            self.ranges_since.insert(*slot, (ranges.clone(), since));
        }
        let gone = self.backends_ever.difference(&self.served_backends);
        self.left = gone.map(|id| (*id, left.get(id).copied().unwrap_or(now))).collect();
        let listeners = known.iter().filter_map(|((slot, on_removal, _), _)| {
            let ((_, since), (_, ranges_since)) =
                (self.groups_since.get(slot)?, self.ranges_since.get(slot)?);
            let (since, ranges_since) = (*since, *ranges_since);
            let removal = Removal { since, ranges_since, grace_ms: grace_ms(*on_removal)? };
            Some((ListenerSlot(*slot), removal))
        });
        Removals::new(1, listeners, self.left.iter().map(|(id, since)| (BackendId(*id), *since)))
    }

    fn pools(&mut self, state: &State) -> BTreeMap<Name, BTreeSet<IpAddr>> {
        let snat_before: BTreeSet<IpAddr> =
            self.known_listeners().flat_map(|listener| listener.snat.iter().copied()).collect();
        let vips = &self.known_vips() | &wanted_vips(state);
        let is_vip = |address: &IpAddr| vips.contains(address) && !snat_before.contains(address);
        let mut pools = BTreeMap::new();
        for (name, pool) in &state.snat_pools {
            let (bad, good): (BTreeSet<_>, BTreeSet<_>) =
                pool.addresses.iter().copied().partition(is_vip);
            for address in bad {
                self.errors.push(super::refused(
                    ObjectKind::SnatPool,
                    name,
                    &format!("{address} is a VIP of this box and left out; use another address"),
                ));
            }
            pools.insert(name.clone(), good);
        }
        pools
    }

    fn all_snat(&self, pools: &BTreeMap<Name, BTreeSet<IpAddr>>) -> BTreeSet<IpAddr> {
        let in_use = self.known_listeners().flat_map(|listener| listener.snat.iter());
        self.box_snat.iter().chain(pools.values().flatten()).chain(in_use).copied().collect()
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
    ) -> Result<Listener, ObjectError> {
        let refuse = |message: String| super::refused(ObjectKind::Listener, name, &message);
        let vip = listener.vip;
        self.check_vip(vip, taking).map_err(refuse)?;
        let snat = self.snat_of(listener, taking);
        if listener.mode == feed::Mode::FullNat && snat.is_empty() {
            return Err(refuse(format!(
                "{vip}: full NAT needs a SNAT address of its family, {}; give snat.addresses in the data plane's configuration",
                family(vip)
            )));
        }
        let group = self.group(&listener.group, taking)?;
        if let Some(address) = lacks_source(listener.mode, &group, &snat) {
            return Err(refuse(format!(
                "{vip}: a tunnel to {address} needs a SNAT address of its family as source, {}; give snat.addresses in the data plane's configuration",
                family(address)
            )));
        }
        let protocol = protocol(listener.protocol);
        let ports = L4Ports { first: listener.ports.first(), last: listener.ports.last() };
        let is_dnat = listener.mode == feed::Mode::Dnat;
        let (name, snat_key) = (name.clone(), Arc::clone(&snat));
        let key = ListenerKey { name, vip, protocol, ports, snat: snat_key, is_dnat };
        let slot = self.listeners.of(&key, self.capacities[0]).ok_or_else(|| {
            refuse(format!("{} listeners are counted already; remove one", self.capacities[0]))
        })?;
        Ok(Listener {
            slot: ListenerSlot(slot),
            vip,
            protocol,
            ports,
            mode: mode(listener.mode),
            affinity: affinity(listener.affinity),
            on_exhaustion: on_exhaustion(listener.policies.on_exhaustion),
            on_unknown: on_unknown(listener.policies.on_unknown),
            mss_clamp: mss_clamp(listener.policies.mss_clamp),
            source_ranges: listener.source_ranges.as_ref().map(source_ranges),
            group,
            snat,
        })
    }

    fn check_vip(&mut self, vip: IpAddr, taking: &Taking<'_>) -> Result<(), String> {
        if lives_on_one_link(vip) {
            return Err(format!(
                "{vip} is link-local, and nothing is forwarded from or to it; use another VIP"
            ));
        }
        if taking.all_snat.contains(&vip) {
            return Err(format!(
                "{vip} is a SNAT address of this box, or flows still use it as one; use another address for one of them"
            ));
        }
        if let Some(host) = taking.hosts.get(&vip) {
            return Err(format!(
                "{vip} is {host}, which packets would not reach any more; use another address as VIP"
            ));
        }
        if let Some(occupant) = self.occupied.occupant(vip)
            && !(taking.served_vips.contains(&vip) || taking.view.keeps(vip))
        {
            self.refused_vips.insert(vip, occupant.clone());
            return Err(format!("{vip} is {occupant}; use another address as VIP"));
        }
        Ok(())
    }

    fn snat_of(&self, listener: &feed::Listener, taking: &Taking<'_>) -> Arc<[IpAddr]> {
        if matches!(listener.mode, feed::Mode::Dnat | feed::Mode::L2Dsr) {
            return Arc::new([]);
        }
        let pool = match &listener.snat_pool {
            Some(pool) => taking.pools.get(pool),
            None => Some(&self.box_snat),
        };
        let pool = pool.into_iter().flatten().copied();
        let any_family = listener.mode.is_tunnel();
        pool.filter(|address| any_family || address.is_ipv4() == listener.vip.is_ipv4()).collect()
    }

    fn group(&mut self, name: &Name, taking: &mut Taking<'_>) -> Result<Arc<Group>, ObjectError> {
        if let Some((_, group)) = taking.groups.get(name) {
            return Ok(Arc::clone(group));
        }
        let Some(source) = taking.state.groups.get(name) else {
            return Err(super::refused(ObjectKind::Group, name, &"no such group"));
        };
        let last = self.groups.get(name).cloned();
        let built = match &last {
            Some((known, group)) if known == source => Ok(Arc::clone(group)),
            _ => {
                let last = last.as_ref().map(|(_, group)| group);
                self.build_group(name, source, last, taking)
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
    ) -> Result<Arc<Group>, ObjectError> {
        let refuse = |message: String| super::refused(ObjectKind::Group, name, &message);
        let mut addresses = source.members.keys();
        if let Some(address) = addresses.find(|at| taking.served_vips.contains(&at.ip())) {
            return Err(refuse(format!(
                "backend {address} has the address of a VIP that this box serves, and its packets would come back; use another address for one of them"
            )));
        }
        let mut members = Vec::with_capacity(source.members.len());
        for (address, member) in &source.members {
            let key = (name.clone(), *address);
            let id = self.backends.of(&key, self.capacities[1]).ok_or_else(|| {
                refuse(format!("{} backends are counted already; remove some", self.capacities[1]))
            })?;
            let (weight, draining) = (member.weight, member.draining);
            members.push(Member { id: BackendId(id), address: *address, weight, draining });
        }
        let shares = members.len() + usize::from(source.refused_weight > 0);
        let table_size = last.map(|group| group.table_size()).filter(|size| *size > 0);
        let size = maglev::size_for(shares, table_size);
        let group = Group::new(members, source.refused_weight, Some(size));
        group.map(Arc::new).map_err(|error| refuse(error.to_string()))
    }

    /// Gives numbers back that neither the configuration nor a flow names.
    pub(super) fn release_unused(
        &mut self,
        has_flows: impl Fn(&ListenerKey) -> bool,
        backend_has_flows: impl Fn(&BackendKey) -> bool,
    ) -> bool {
        let served = &self.served_backends;
        self.backends.0.retain(|id, key| served.contains(id) || backend_has_flows(key));
        self.backends_ever.retain(|id| self.backends.0.contains_key(id));
        let dnat_before = self.dnat.len();
        self.dnat.retain(|(id, ..)| self.backends.0.contains_key(id));
        let served: HashSet<u32> =
            self.served.values().map(|served| served.listener.slot.0).collect();
        self.listeners.0.retain(|slot, key| served.contains(slot) || has_flows(key));
        let departed_before = self.departed.len();
        self.departed.retain(|slot, _| self.listeners.0.contains_key(slot));
        let less = (self.dnat.len(), self.departed.len()) != (dnat_before, departed_before);
        if less {
            self.state = None; // to be taken again
        }
        less
    }
}

/// The VIPs of a state that are hosts which the same state sends to, and what they are to it.
fn hosts(state: &State) -> BTreeMap<IpAddr, String> {
    let vips = wanted_vips(state);
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

/// Where listeners of the state answer, or the L7 tier.
fn wanted_vips(state: &State) -> BTreeSet<IpAddr> {
    let of_listeners = state.listeners.values().map(|listener| listener.vip);
    of_listeners.chain(state.vips.keys().copied()).collect()
}
