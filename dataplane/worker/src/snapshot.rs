//! From what the control plane wants and what the kernel knows to what a worker reads.
//!
//! A translation looks at what was touched since the last, at what that concerns, and at what could not
//! be served then; whatever else there is stays as it is in the snapshot. Listeners and backends keep
//! their numbers ([`Slots`]) for as long as a flow may name them. An object that cannot be served is
//! refused alone, with an error that goes back to the control plane, and what was served under its name
//! before goes on.
//!
//! | module      | what it keeps                                                                  |
//! |-------------|--------------------------------------------------------------------------------|
//! | `index`     | who names what in the state, so that what is touched leads to what it concerns   |
//! | `pools`     | the SNAT addresses that can be used                                              |
//! | `addresses` | VIPs and SNAT addresses, with those that flows still need                        |
//! | `groups`    | Maglev tables, and the numbers of backends                                       |
//! | `own`       | the box's own addresses                                                          |
//! | `errors`    | what cannot be served                                                            |
//!
//! The translation of the whole, with which this one has to agree whatever happens, is in its tests.

mod addresses;
mod errors;
mod groups;
mod index;
mod own;
mod pools;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use penstock_feed::{self as feed, Name, ObjectError, ObjectId, ObjectKind, State, Touched};
use penstock_forward::{
    Affinity, Group, L4Ports, Listener, ListenerSlot, Mode, MssClamp, OnExhaustion, OnUnknown,
    PortConfig, Protocol, Snapshot, SnapshotBuilder, SnapshotError, SourceRanges, Tick, Timeouts,
};
use tracing::warn;

pub use self::addresses::AddressSet;
use self::{
    addresses::Addresses,
    errors::{Errors, refused},
    groups::Groups,
    index::Index,
    own::Own,
    pools::{Pool, Pools},
};
use crate::{
    config::{Icmp, Snat},
    fib,
    hosts::Hosts,
    kernel::KernelView,
    occupied::{Occupant, Occupied},
    orphans::Orphans,
    slots::Slots,
    statistics::{BACKEND_ROWS, LISTENER_ROWS, Statistics},
};

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

/// A listener that is served no longer, while flows name it.
struct Departed {
    vip: IpAddr,
    protocol: Protocol,
    ports: L4Ports,
    mode: Mode,
    snat: Arc<[IpAddr]>,
}

/// A snapshot, and what could not be taken into it.
pub struct Translation {
    /// What the workers shall do.
    pub snapshot: Snapshot,
    /// Objects that cannot be served, each with the reason.
    pub errors: Vec<ObjectError>,
    /// Every VIP and SNAT address that is served or that a flow still needs, and the L7 tier's VIPs.
    pub addresses: AddressSet,
    /// Those that came to `addresses` or left it since the last translation.
    pub addresses_changed: BTreeSet<IpAddr>,
}

/// Keeps everything from one translation to the next.
pub struct Translator {
    workers: usize,
    /// The box's, for listeners that say nothing.
    timeouts: Timeouts,
    version: u32,
    state: Arc<State>,
    index: Index,
    pools: Pools,
    addresses: Addresses,
    groups: Groups,
    listeners: Slots<ListenerKey>,
    served: BTreeMap<Name, Served>,
    /// By number.
    departed: BTreeMap<u32, Departed>,
    orphans: Orphans,
    /// Backends of DNAT listeners, and those that left while flows name them.
    dnat: BTreeSet<(u32, SocketAddr, Protocol)>,
    /// Listeners that are not served as the state has them.
    refused: BTreeSet<Name>,
    /// VIPs of the L7 tier that the state has and that something is wrong with.
    refused_l7: BTreeSet<IpAddr>,
    errors: Errors,
    /// A flow has ended that something waited for.
    is_due: bool,
    fib: fib::Builder,
    occupied: Occupied,
    own: Own,
    /// The VIPs that were refused for what the kernel knows them as.
    refused_vips: BTreeMap<IpAddr, Occupant>,
    /// The VIPs that became so while they were served, of which the operator has been told.
    overtaken: BTreeMap<IpAddr, Occupant>,
    builder: SnapshotBuilder,
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
        let (mut builder, mut addresses) = (SnapshotBuilder::new(), Addresses::default());
        builder.ports(Arc::clone(&ports)).timeouts(timeouts).snat_on_unknown(box_snat.on_unknown);
        builder.echo_per_second(icmp.echo_per_second);
        let box_snat = box_snat.addresses;
        box_snat.iter().for_each(|address| addresses.configure(*address, &mut builder));
        Self {
            workers,
            timeouts,
            version: 0,
            state: Arc::default(),
            index: Index::default(),
            pools: Pools::new(box_snat),
            addresses,
            groups: Groups::new(BACKEND_ROWS),
            listeners: Slots::new(LISTENER_ROWS),
            served: BTreeMap::new(),
            departed: BTreeMap::new(),
            orphans: Orphans::default(),
            dnat: BTreeSet::new(),
            refused: BTreeSet::new(),
            refused_l7: BTreeSet::new(),
            errors: Errors::default(),
            is_due: false,
            fib: fib::Builder::new(ports),
            occupied: Occupied::default(),
            own: Own::default(),
            refused_vips: BTreeMap::new(),
            overtaken: BTreeMap::new(),
            builder,
        }
    }

    /// The snapshot of a state under a view of the kernel. `touched` is what differs from the state of
    /// the last translation, which was empty at first. If only the view has changed, listeners and
    /// groups are those of last time, unless a VIP that was refused for what the kernel knew it as is
    /// that no more. `now` is by the workers' clock.
    ///
    /// Costs what was touched, the listeners and pools that this concerns, what could not be served
    /// last time, and the errors.
    pub fn translate(
        &mut self,
        state: &Arc<State>,
        touched: &Touched,
        view: &KernelView,
        statistics: &mut Statistics,
        now: Tick,
    ) -> Translation {
        self.version = self.version.wrapping_add(1).max(1);
        self.orphans.turn(now);
        let occupied = self.occupied.follow(view);
        let mut unsettled = self.own.follow(view, &mut self.builder);
        if occupied {
            unsettled.extend(self.own.others());
            self.builder.broadcasts(self.occupied.broadcasts());
        }
        let mut refused = self.refused_vips.iter();
        let freed = occupied && refused.any(|(vip, was)| self.occupied.occupant(*vip) != Some(was));
        let due = std::mem::take(&mut self.is_due);
        let take = due || freed || !Arc::ptr_eq(&self.state, state);
        if take {
            unsettled.extend(self.take(state, touched, view, statistics));
        }
        if take || occupied {
            self.tell_of_overtaken();
        }
        let addresses_changed = std::mem::take(&mut self.addresses.changed);
        for address in unsettled.iter().chain(&addresses_changed) {
            let wanted = self.index.at.any(address) || self.state.vips.contains_key(address);
            let wanted = wanted && !self.occupied.is_own(*address);
            let alone = !wanted && !self.addresses.all().contains(address);
            self.own.settle(*address, alone, &mut self.builder);
        }
        self.builder.fib(self.fib.build(view, state));
        Translation {
            snapshot: build(&self.builder, self.version),
            errors: self.errors.list(),
            addresses: self.addresses.all().clone(),
            addresses_changed,
        }
    }

    /// Where the configuration sends packets.
    pub fn hosts(&mut self) -> &mut Hosts {
        &mut self.index.hosts
    }

    /// The listeners, SNAT pools and VIPs of the state that have an address.
    pub fn objects_with(&self, address: &IpAddr) -> impl Iterator<Item = ObjectId> {
        let object = |kind| move |name: &Name| ObjectId { kind, name: name.clone() };
        let listeners = self.index.at.of(address).map(object(ObjectKind::Listener));
        let vip = self.state.vips.contains_key(address);
        let vip = vip.then(|| ObjectId { kind: ObjectKind::Vip, name: name_of(*address) });
        listeners.chain(self.index.pools.of(address).map(object(ObjectKind::SnatPool))).chain(vip)
    }

    /// The kernel may give an address that is a VIP already to another: connections that flow are not
    /// cut for that, but somebody must look at it.
    fn tell_of_overtaken(&mut self) {
        let is_served = |vip: IpAddr| self.builder.is_vip(vip) || self.addresses.is_of_l7(vip);
        let overtaken: BTreeMap<IpAddr, Occupant> = self
            .occupied
            .iter()
            .filter(|(vip, _)| is_served(**vip))
            .map(|(vip, occupant)| (*vip, occupant.clone()))
            .collect();
        for (vip, occupant) in &overtaken {
            if self.overtaken.get(vip) != Some(occupant) {
                warn!(%vip, "the VIP has become {occupant}, and is served all the same; use another address for one of them");
            }
        }
        self.overtaken = overtaken;
    }

    /// Goes over to another state. Returns the addresses that listeners came to or left.
    fn take(
        &mut self,
        state: &Arc<State>,
        touched: &Touched,
        view: &KernelView,
        statistics: &mut Statistics,
    ) -> BTreeSet<IpAddr> {
        debug_assert!(covers(touched, &self.state, state), "more differs than {touched:?}");
        let mut concerned = &self.refused | &touched.listeners;
        let moved = self.index.follow(&self.state, state, touched);
        for address in &moved.hosts {
            concerned.extend(self.index.at.of(address).cloned());
        }
        let vips = &(&self.refused_l7 | &touched.vips) | &moved.hosts;
        for gone in vips.iter().filter(|vip| !state.vips.contains_key(*vip)) {
            self.addresses.of_l7(*gone, false, &mut self.builder);
            self.errors.clear(ObjectKind::Vip, &name_of(*gone));
        }
        self.addresses.moved.extend(moved.vips.iter().chain(&touched.vips));
        self.divide_pools(state, touched, &mut concerned);
        for name in self.groups.begin(&mut self.errors).iter().chain(&touched.groups) {
            self.errors.clear(ObjectKind::Group, name);
            concerned.extend(self.index.of_group.of(name).cloned());
        }
        let served = self.serve(state, &concerned, view, statistics);
        self.keep_vips(state, &vips, view);
        for (name, served) in served {
            self.replace(name, served, statistics);
        }
        for name in touched.groups.iter().filter(|name| !state.groups.contains_key(*name)) {
            self.groups.forget(name);
        }
        for (id, has_left) in self.groups.take_moved() {
            self.orphans.note_backend(id, has_left);
        }
        self.builder.removals(self.orphans.removals(self.version));
        self.state = Arc::clone(state);
        &moved.vips | &touched.vips
    }

    /// Has the kernel answer for the VIPs of the L7 tier among `vips` that can be such. One that is and could
    /// become so no more stays, with an error.
    fn keep_vips(&mut self, state: &State, vips: &BTreeSet<IpAddr>, view: &KernelView) {
        self.refused_l7.clear();
        for vip in vips.iter().filter(|vip| state.vips.contains_key(*vip)) {
            let name = name_of(*vip);
            self.errors.clear(ObjectKind::Vip, &name);
            match self.check_vip(*vip, view) {
                Ok(()) => self.addresses.of_l7(*vip, true, &mut self.builder),
                Err(message) => {
                    self.refused_l7.insert(*vip);
                    self.errors.report(refused(ObjectKind::Vip, &name, &message));
                }
            }
        }
    }

    /// Says anew what can be used of the pools that were touched, or of whose addresses something else is
    /// known now, and adds the listeners that this concerns. An address that is a VIP is left out, unless
    /// it was for SNAT first: then the listener is refused.
    fn divide_pools(&mut self, state: &State, touched: &Touched, concerned: &mut BTreeSet<Name>) {
        let moved = std::mem::take(&mut self.addresses.moved);
        let with_moved = moved.iter().flat_map(|address| self.index.pools.of(address)).cloned();
        let names: BTreeSet<Name> = with_moved.chain(touched.snat_pools.iter().cloned()).collect();
        for name in names {
            self.errors.clear(ObjectKind::SnatPool, &name);
            let pool = state.snat_pools.get(&name).map(|pool| self.divide(&name, pool, state));
            let (now, before) = (pool.clone(), self.pools.set(&name, pool));
            let [now, before] = [now, before].map(|pool| pool.unwrap_or_default().addresses);
            if now == before {
                continue;
            }
            now.difference(&before).for_each(|at| self.addresses.configure(*at, &mut self.builder));
            before.difference(&now).for_each(|at| self.addresses.withdraw(*at, &mut self.builder));
            concerned.extend(self.index.of_pool.of(&name).cloned());
        }
    }

    fn divide(&mut self, name: &Name, pool: &feed::SnatPool, state: &State) -> Pool {
        let is_vip = |address: &IpAddr| {
            let vip = self.addresses.is_vip(*address)
                || self.index.at.any(address)
                || state.vips.contains_key(address);
            vip && !self.addresses.is_used(*address)
        };
        let (bad, good): (BTreeSet<_>, BTreeSet<_>) =
            pool.addresses.iter().copied().partition(is_vip);
        for address in bad {
            self.errors.report(refused(
                ObjectKind::SnatPool,
                name,
                &format!("{address} is a VIP of this box and left out; use another address"),
            ));
        }
        Pool::of(good)
    }

    /// What becomes of the listeners that are `concerned`: those that can be served are, and of the others
    /// what was served before, if it does not stand in their way. All of them are out of the snapshot at
    /// first, so that they may change places.
    fn serve(
        &mut self,
        state: &State,
        concerned: &BTreeSet<Name>,
        view: &KernelView,
        statistics: &mut Statistics,
    ) -> BTreeMap<Name, Option<Served>> {
        for served in concerned.iter().filter_map(|name| self.served.get(name)) {
            self.builder.remove_listener(served.listener.slot);
        }
        self.refused_vips.clear();
        let (mut served, mut refused) = (BTreeMap::new(), BTreeSet::new());
        for name in concerned {
            self.errors.clear(ObjectKind::Listener, name);
            let Some(source) = state.listeners.get(name) else {
                served.insert(name.clone(), None);
                continue;
            };
            let listener = self.listener(name, source, state, view, statistics);
            match listener.and_then(|listener| self.add(name, listener)) {
                Ok(listener) => {
                    let source = source.clone();
                    served.insert(name.clone(), Some(Served { listener, source }));
                }
                Err(error) => {
                    self.errors.report(error);
                    refused.insert(name.clone());
                }
            }
        }
        for name in &refused {
            let last = self.served.get(name).cloned();
            served.insert(name.clone(), last.and_then(|last| self.keep(last, state, statistics)));
        }
        self.refused = refused;
        served
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
    fn keep(&mut self, last: Served, state: &State, statistics: &mut Statistics) -> Option<Served> {
        let Served { listener, source } = last;
        let group = self.group(&source.group, state, statistics);
        let renewed = group.map(|group| Listener { group, ..listener.clone() });
        [renewed.ok(), Some(listener)]
            .into_iter()
            .flatten()
            .find(|listener| self.builder.listener(listener.clone()).is_ok())
            .map(|listener| Served { listener, source })
    }

    /// Notes what is served under a name now. What was served before and is so no more has departed.
    fn replace(&mut self, name: Name, now: Option<Served>, statistics: &mut Statistics) {
        let before = self.served.remove(&name);
        let slot = |served: &Option<Served>| served.as_ref().map(|served| served.listener.slot.0);
        let stays = slot(&before) == slot(&now);
        if let Some(Served { listener, source }) = &now {
            statistics.label_listener(listener.slot.0, &name, source, &listener.group, false);
            self.groups.hold(&listener.group);
            let on_removal = source.policies.on_removal;
            let ranges = source.source_ranges.as_ref();
            self.orphans.note(listener.slot.0, Some(&source.group), ranges, on_removal);
            self.note_dnat(listener);
            let own = source.policies.timeouts;
            self.builder.listener_timeouts(listener.slot, own_timeouts(&self.timeouts, own));
            if !stays {
                self.listeners.hold(listener.slot.0);
                self.addresses.know(listener.vip, &listener.snat, &mut self.builder);
                self.forget_departed(listener.slot.0);
            }
        }
        if let Some(Served { listener, source }) = before {
            self.groups.let_go(&listener.group);
            if !stays {
                let Listener { slot, vip, protocol, ports, mode, snat, group, .. } = listener;
                statistics.label_listener(slot.0, &name, &source, &group, true);
                self.listeners.let_go(slot.0);
                let ranges = source.source_ranges.as_ref();
                self.orphans.note(slot.0, None, ranges, source.policies.on_removal);
                self.builder.add_departed(vip, protocol, ports, mode);
                self.departed.insert(slot.0, Departed { vip, protocol, ports, mode, snat });
            }
        }
        now.map(|now| self.served.insert(name, now));
    }

    fn note_dnat(&mut self, listener: &Listener) {
        if listener.mode == Mode::Dnat {
            for member in listener.group.members() {
                if self.dnat.insert((member.id.0, member.address, listener.protocol)) {
                    self.builder.add_dnat_backend(member.address, listener.protocol);
                }
            }
        }
    }

    /// Whether there was one of that number.
    fn forget_departed(&mut self, slot: u32) -> bool {
        let Some(Departed { vip, protocol, ports, mode, snat }) = self.departed.remove(&slot)
        else {
            return false;
        };
        self.builder.remove_departed(vip, protocol, ports, mode);
        self.addresses.forget(vip, &snat, &mut self.builder);
        true
    }

    fn listener(
        &mut self,
        name: &Name,
        listener: &feed::Listener,
        state: &State,
        view: &KernelView,
        statistics: &mut Statistics,
    ) -> Result<Listener, ObjectError> {
        let refuse = |message: String| refused(ObjectKind::Listener, name, &message);
        let vip = listener.vip;
        self.check_vip(vip, view).map_err(refuse)?;
        let snat = self.pools.snat_of(listener);
        if listener.mode == feed::Mode::FullNat && snat.is_empty() {
            return Err(refuse(format!(
                "{vip}: full NAT needs a SNAT address of its family, {}; give snat.addresses in the data plane's configuration",
                family(vip)
            )));
        }
        let group = self.group(&listener.group, state, statistics)?;
        if let Some(address) = lacks_source(listener.mode, &group, &snat) {
            return Err(refuse(format!(
                "{vip}: a tunnel to {address} needs a SNAT address of its family as source, {}; give snat.addresses in the data plane's configuration",
                family(address)
            )));
        }
        let protocol = protocol(listener.protocol);
        let ports = L4Ports { first: listener.ports.first(), last: listener.ports.last() };
        let is_dnat = listener.mode == feed::Mode::Dnat;
        let source_ranges = self.source_ranges(name, listener);
        let (name, snat_key) = (name.clone(), Arc::clone(&snat));
        let key = ListenerKey { name, vip, protocol, ports, snat: snat_key, is_dnat };
        let slot = self.listeners.of(&key).ok_or_else(|| {
            let all = self.listeners.capacity();
            refuse(format!("{all} listeners are counted already; remove one"))
        })?;
        statistics.reserve("listeners", slot).map_err(|error| refuse(error.to_string()))?;
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
            source_ranges,
            group,
            snat,
        })
    }

    /// The clients that a listener lets in, as workers look for them; those of before if they are the same.
    fn source_ranges(&self, name: &Name, listener: &feed::Listener) -> Option<Arc<SourceRanges>> {
        let wanted = listener.source_ranges.as_ref()?;
        let before =
            self.served.get(name).filter(|it| it.source.source_ranges.as_ref() == Some(wanted));
        let built = before.and_then(|before| before.listener.source_ranges.clone());
        built.or_else(|| Some(source_ranges(wanted)))
    }

    /// Why an address can be no VIP.
    fn check_vip(&mut self, vip: IpAddr, view: &KernelView) -> Result<(), String> {
        if lives_on_one_link(vip) {
            return Err(format!(
                "{vip} is link-local, and nothing is forwarded from or to it; use another VIP"
            ));
        }
        if self.addresses.is_snat(vip) {
            return Err(format!(
                "{vip} is a SNAT address of this box, or flows still use it as one; use another address for one of them"
            ));
        }
        if let Some(host) = self.index.hosts.role(vip) {
            return Err(format!(
                "{vip} is {host}, which packets would not reach any more; use another address as VIP"
            ));
        }
        if let Some(occupant) = self.occupied.occupant(vip)
            && !(self.addresses.is_vip(vip) || view.keeps(vip))
        {
            self.refused_vips.insert(vip, occupant.clone());
            return Err(format!("{vip} is {occupant}; use another address as VIP"));
        }
        Ok(())
    }

    fn group(
        &mut self,
        name: &Name,
        state: &State,
        statistics: &mut Statistics,
    ) -> Result<Arc<Group>, ObjectError> {
        self.groups.get(name, state, &self.addresses, &mut self.errors, statistics)
    }

    /// Gives numbers back that neither the configuration nor a flow names. To be called when every
    /// worker has gone over to the last translation. Whether the next one will say less by that. Costs
    /// a question for each number that is not configured.
    pub fn release_unused(&mut self, statistics: &mut Statistics, now: Tick) -> bool {
        self.orphans.turn(now);
        let mut less = false;
        for id in self.groups.release_unused(statistics, self.workers) {
            self.orphans.note_backend(id, false);
            let any = SocketAddr::new(IpAddr::from([0; 4]), 0);
            let of_id = self.dnat.range((id, any, Protocol::Tcp)..);
            let of_id: Vec<_> = of_id.take_while(|(other, ..)| *other == id).copied().collect();
            for entry @ (_, address, protocol) in of_id {
                self.dnat.remove(&entry);
                self.builder.remove_dnat_backend(address, protocol);
                less = true;
            }
        }
        let workers = self.workers;
        for slot in self.listeners.release(|slot| statistics.listener_flows(workers, slot) > 0) {
            statistics.forget("listeners", slot);
            self.orphans.forget(slot);
            self.builder.listener_timeouts(ListenerSlot(slot), None);
            less |= self.forget_departed(slot);
        }
        self.is_due |= less;
        less
    }
}

/// Whether two states differ in nothing but what was touched.
fn covers(touched: &Touched, before: &State, now: &State) -> bool {
    let differing = Touched::between(before, now);
    differing.listeners.is_subset(&touched.listeners)
        && differing.groups.is_subset(&touched.groups)
        && differing.snat_pools.is_subset(&touched.snat_pools)
        && differing.next_hops.is_subset(&touched.next_hops)
        && differing.vips.is_subset(&touched.vips)
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

/// The name by which errors about an address go back.
fn name_of(address: IpAddr) -> Name {
    Name::new(&address.to_string()).unwrap_or_else(|_| unreachable!("an address is a good name"))
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn protocol(protocol: feed::Protocol) -> Protocol {
    match protocol {
        feed::Protocol::Tcp => Protocol::Tcp,
        feed::Protocol::Udp => Protocol::Udp,
    }
}

fn mode(mode: feed::Mode) -> Mode {
    match mode {
        feed::Mode::FullNat => Mode::FullNat,
        feed::Mode::Dnat => Mode::Dnat,
        feed::Mode::L2Dsr => Mode::L2Dsr,
        feed::Mode::Ipip => Mode::Ipip,
        feed::Mode::Gue => Mode::Gue,
        feed::Mode::GueVariant0 => Mode::GueVariant0,
    }
}

fn on_exhaustion(policy: feed::OnExhaustion) -> OnExhaustion {
    match policy {
        feed::OnExhaustion::Reset => OnExhaustion::Reset,
        feed::OnExhaustion::Icmp => OnExhaustion::Icmp,
        feed::OnExhaustion::Drop => OnExhaustion::Drop,
    }
}

fn on_unknown(policy: feed::OnUnknown) -> OnUnknown {
    match policy {
        feed::OnUnknown::Drop => OnUnknown::Drop,
        feed::OnUnknown::Reset => OnUnknown::Reset,
    }
}

fn mss_clamp(policy: feed::MssClamp) -> MssClamp {
    match policy {
        feed::MssClamp::Auto => MssClamp::Auto,
        feed::MssClamp::Off => MssClamp::Off,
        feed::MssClamp::Most { bytes } => MssClamp::Most(bytes),
    }
}

fn source_ranges(ranges: &feed::SourceRanges) -> Arc<SourceRanges> {
    let prefix = |it: feed::Prefix| penstock_forward::fib::Prefix {
        address: it.address(),
        len: it.length(),
    };
    Arc::new(SourceRanges::new(&ranges.iter().map(prefix).collect::<Vec<_>>()))
}

/// What a listener wants other than the box, and what it leaves to that.
fn own_timeouts(box_wide: &Timeouts, own: feed::Timeouts) -> Option<Timeouts> {
    use feed::Silence as S;
    let of = |silence, usual_ms: u32| own.get(silence).unwrap_or(usual_ms);
    (own != feed::Timeouts::default()).then(|| Timeouts {
        tcp_established_ms: of(S::TcpEstablished, box_wide.tcp_established_ms),
        tcp_half_open_ms: of(S::TcpHalfOpen, box_wide.tcp_half_open_ms),
        tcp_closing_ms: of(S::TcpClosing, box_wide.tcp_closing_ms),
        tcp_reset_ms: of(S::TcpReset, box_wide.tcp_reset_ms),
        udp_one_way_ms: of(S::UdpOneWay, box_wide.udp_one_way_ms),
        udp_replied_ms: of(S::UdpReplied, box_wide.udp_replied_ms),
    })
}

fn affinity(affinity: feed::Affinity) -> Affinity {
    match affinity {
        feed::Affinity::Tuple => Affinity::Tuple,
        feed::Affinity::Source { bits } => Affinity::Source { bits },
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

#[cfg(test)]
mod tests;
