//! What makes snapshots: kept, changed a little, and asked for the next one.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{
    Counts, Departed, DnatBackends, ECHO_PER_SECOND, Key, L4Ports, Listener, Listeners, PortConfig,
    Set, Snapshot, SnapshotError,
};
#[cfg(doc)]
use crate::PortIdx;
use crate::fib::Fib;
use crate::flow::Timeouts;
use crate::removal::Removals;
use crate::shared::{MapKey, SharedMap};
use crate::{ListenerSlot, Mode, OnUnknown, Protocol};

/// Makes a [`Snapshot`]; off the fast path, and free to allocate. A change of one entry costs that
/// entry and a handful of pointers, and so does building the snapshot with it.
#[derive(Clone, Debug)]
pub struct SnapshotBuilder {
    snapshot: Snapshot,
    /// Addresses that were a VIP and a SNAT address at once.
    clashes: BTreeSet<IpAddr>,
}

impl Default for SnapshotBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl SnapshotBuilder {
    /// Begins with nothing: no ports, no routes, default timeouts.
    #[must_use]
    pub fn new() -> Self {
        let snapshot = Snapshot {
            version: 0,
            ports: Arc::new([]),
            local: Arc::default(),
            own: Set::default(),
            kept: Set::default(),
            snat: Set::default(),
            broadcasts: Arc::new([]),
            no_sources: Counts::default(),
            listeners: Listeners::default(),
            departed: Departed::default(),
            dnat_backends: DnatBackends::default(),
            fib: Arc::default(),
            timeouts: Timeouts::default(),
            own_timeouts: None,
            snat_on_unknown: OnUnknown::default(),
            echo_per_second: ECHO_PER_SECOND,
            removals: None,
        };
        Self::from_snapshot(&snapshot)
    }

    /// Begins with what an older snapshot says, shared.
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot) -> Self {
        Self { snapshot: snapshot.clone(), clashes: BTreeSet::new() }
    }

    /// The ports, [`PortIdx`] being their place.
    pub fn ports(&mut self, ports: impl Into<Arc<[PortConfig]>>) -> &mut Self {
        self.snapshot.ports = ports.into();
        self
    }

    /// Every address that the kernel answers for by itself. VIPs and SNAT addresses need not be among
    /// them: that it answers for those is seen to. Replaces the earlier set.
    pub fn local_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> &mut Self {
        self.snapshot.local = Arc::new(set(addresses));
        self
    }

    /// The broadcast address of every subnet that the box is in: no packet comes from there. Replaces
    /// the earlier set.
    pub fn broadcasts(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> &mut Self {
        let Snapshot { broadcasts, no_sources, .. } = &mut self.snapshot;
        broadcasts.iter().for_each(|gone| _ = uncount(no_sources, &Key::from(*gone)));
        *broadcasts = addresses.into_iter().collect();
        broadcasts.iter().for_each(|address| _ = count(no_sources, Key::from(*address)));
        self
    }

    /// Adds an address that is the box's alone, neither a VIP (served or not) nor a SNAT address:
    /// there it speaks routing protocols and SSH.
    pub fn add_own_address(&mut self, address: IpAddr) -> &mut Self {
        self.snapshot.own.insert(address.into(), ());
        self
    }

    /// Takes such an address out.
    pub fn remove_own_address(&mut self, address: IpAddr) -> &mut Self {
        self.snapshot.own.remove(&address.into());
        self
    }

    /// Adds a VIP that another process of the box serves.
    pub fn add_kept_vip(&mut self, address: IpAddr) -> &mut Self {
        if self.snapshot.kept.insert(address.into(), ()).is_none() {
            count(&mut self.snapshot.no_sources, address.into());
        }
        self
    }

    /// Takes such a VIP out.
    pub fn remove_kept_vip(&mut self, address: IpAddr) -> &mut Self {
        if self.snapshot.kept.remove(&address.into()).is_some() {
            uncount(&mut self.snapshot.no_sources, &address.into());
        }
        self
    }

    /// Adds a SNAT address. Keep one that was taken out of the pools for as long as flows use it.
    pub fn add_snat_address(&mut self, address: IpAddr) -> &mut Self {
        if self.snapshot.snat.insert(address.into(), ()).is_none() {
            count(&mut self.snapshot.no_sources, address.into());
            self.note_clash(address);
        }
        self
    }

    /// Takes a SNAT address out.
    pub fn remove_snat_address(&mut self, address: IpAddr) -> &mut Self {
        if self.snapshot.snat.remove(&address.into()).is_some() {
            uncount(&mut self.snapshot.no_sources, &address.into());
        }
        self
    }

    /// Adds a listener that has gone, or changed to or from DNAT, while flows still name it: packets to it
    /// are brought to their owner, and make no flow. One that is added twice is there until it was removed
    /// twice.
    pub fn add_departed(
        &mut self,
        vip: IpAddr,
        protocol: Protocol,
        ports: L4Ports,
        mode: Mode,
    ) -> &mut Self {
        let Snapshot { departed, no_sources, .. } = &mut self.snapshot;
        if count(&mut departed.vips, vip.into()) {
            count(no_sources, vip.into());
        }
        if ports.first == ports.last {
            let key = Key::at(vip, protocol, ports.first);
            change(&mut departed.exact, key, |modes| modes.push(mode));
        } else {
            let key = Key::of(vip, protocol);
            change(&mut departed.ranges, key, |ranges| ranges.push((ports, mode)));
        }
        self
    }

    /// Takes out a listener that had gone, whose last flow has ended.
    pub fn remove_departed(
        &mut self,
        vip: IpAddr,
        protocol: Protocol,
        ports: L4Ports,
        mode: Mode,
    ) -> &mut Self {
        let Snapshot { departed, no_sources, .. } = &mut self.snapshot;
        let known = if ports.first == ports.last {
            take(&mut departed.exact, Key::at(vip, protocol, ports.first), &mode)
        } else {
            take(&mut departed.ranges, Key::of(vip, protocol), &(ports, mode))
        };
        if known && uncount(&mut departed.vips, &vip.into()) == Some(0) {
            uncount(no_sources, &vip.into());
        }
        self
    }

    /// Adds a place where replies of DNAT flows come from: a member of a DNAT listener's group, or one
    /// that left as long as flows name it. One that is added twice is there until it was removed twice.
    pub fn add_dnat_backend(&mut self, at: SocketAddr, protocol: Protocol) -> &mut Self {
        count(&mut self.snapshot.dnat_backends.exact, Key::at(at.ip(), protocol, at.port()));
        count(&mut self.snapshot.dnat_backends.addresses, at.ip().into());
        self
    }

    /// Takes such a place out.
    pub fn remove_dnat_backend(&mut self, at: SocketAddr, protocol: Protocol) -> &mut Self {
        let backends = &mut self.snapshot.dnat_backends;
        if uncount(&mut backends.exact, &Key::at(at.ip(), protocol, at.port())).is_some() {
            uncount(&mut backends.addresses, &at.ip().into());
        }
        self
    }

    /// The routes and neighbours.
    pub fn fib(&mut self, fib: Arc<Fib>) -> &mut Self {
        self.snapshot.fib = fib;
        self
    }

    /// How long flows may be silent.
    pub fn timeouts(&mut self, timeouts: Timeouts) -> &mut Self {
        self.snapshot.timeouts = timeouts;
        self
    }

    /// How long flows of a listener may be silent, served or gone, or `None` that it is as for others. A change copies a
    /// bit for each listener.
    pub fn listener_timeouts(&mut self, slot: ListenerSlot, own: Option<Timeouts>) -> &mut Self {
        let known = &mut self.snapshot.own_timeouts;
        if known.as_ref().and_then(|known| known.of(slot)) != own.as_ref() {
            let all = known.get_or_insert_default();
            Arc::make_mut(all).set(slot, own);
            if all.is_empty() {
                *known = None;
            }
        }
        self
    }

    /// How many echo requests to VIPs each worker answers a second; 0 for none.
    pub fn echo_per_second(&mut self, count: u32) -> &mut Self {
        self.snapshot.echo_per_second = count;
        self
    }

    /// How a segment to a SNAT address is answered that is of a connection nobody knows.
    pub fn snat_on_unknown(&mut self, policy: OnUnknown) -> &mut Self {
        self.snapshot.snat_on_unknown = policy;
        self
    }

    /// What becomes of flows that nobody serves. Without it they are kept.
    pub fn removals(&mut self, removals: Option<Removals>) -> &mut Self {
        self.snapshot.removals = removals.map(Arc::new);
        self
    }

    /// Adds a listener, or replaces the one of the same slot. One with a range of L4 ports costs as
    /// many pointers as its VIP and protocol have such listeners.
    ///
    /// # Errors
    /// See [`SnapshotError`]. The builder is then as it was before.
    pub fn listener(&mut self, listener: Listener) -> Result<&mut Self, SnapshotError> {
        debug_assert!(listener.snat.is_sorted_by_key(IpAddr::is_ipv6), "IPv4 first");
        self.check(&listener)?;
        self.remove_listener(listener.slot);
        let listener = Arc::new(listener);
        let Snapshot { listeners: table, no_sources, .. } = &mut self.snapshot;
        let (vip, protocol, first) = (listener.vip, listener.protocol, listener.ports.first);
        table.by_slot.insert(listener.slot, Arc::clone(&listener));
        if count(&mut table.vips, vip.into()) {
            count(no_sources, vip.into());
        }
        if first == listener.ports.last {
            table.exact.insert(Key::at(vip, protocol, first), listener);
        } else {
            change(&mut table.ranges, Key::of(vip, protocol), |ranges| {
                let at = ranges.partition_point(|other| other.ports.first < first);
                ranges.insert(at, listener);
            });
        }
        self.note_clash(vip);
        Ok(self)
    }

    /// Removes a listener; whether it was there.
    pub fn remove_listener(&mut self, slot: ListenerSlot) -> bool {
        let Snapshot { listeners: table, no_sources, .. } = &mut self.snapshot;
        let Some(old) = table.by_slot.remove(&slot) else { return false };
        let (vip, protocol, first) = (old.vip, old.protocol, old.ports.first);
        if first == old.ports.last {
            table.exact.remove(&Key::at(vip, protocol, first));
        } else {
            change(&mut table.ranges, Key::of(vip, protocol), |ranges| {
                ranges.retain(|listener| listener.slot != slot);
            });
        }
        if uncount(&mut table.vips, &vip.into()) == Some(0) {
            uncount(no_sources, &vip.into());
        }
        true
    }

    /// Whether any listener answers on this address.
    #[must_use]
    pub fn is_vip(&self, address: IpAddr) -> bool {
        self.snapshot.is_vip(address)
    }

    fn check(&self, listener: &Listener) -> Result<(), SnapshotError> {
        let Listener { slot, vip, protocol, ports: L4Ports { first, last }, .. } = *listener;
        if first == 0 || first > last {
            return Err(SnapshotError::Ports { slot, first, last });
        }
        let members = listener.group.members().iter().map(|member| member.address.ip());
        let mut addresses = members.chain(listener.snat.iter().copied());
        let stranger = addresses.find(|ip| ip.is_ipv4() != vip.is_ipv4());
        if let Some(address) = stranger.filter(|_| !listener.mode.is_tunnel()) {
            return Err(SnapshotError::Family { slot, vip, address });
        }
        // An exact port within another listener's range is no conflict: the exact one wins.
        let table = &self.snapshot.listeners;
        let held = if first == last {
            table.exact.get(&Key::at(vip, protocol, first)).filter(|held| held.slot != slot)
        } else {
            let mut ranges =
                table.ranges.get(&Key::of(vip, protocol)).into_iter().flat_map(|r| &**r);
            ranges.find(|held| held.slot != slot && held.ports.overlaps(listener.ports))
        };
        match held {
            Some(held) => Err(SnapshotError::Overlap {
                new: slot,
                held: held.slot,
                vip,
                protocol,
                first,
                last,
            }),
            None => Ok(()),
        }
    }

    fn note_clash(&mut self, address: IpAddr) {
        if self.clash(address) {
            self.clashes.insert(address);
        }
    }

    fn clash(&self, address: IpAddr) -> bool {
        self.snapshot.is_vip(address) && self.snapshot.is_snat(address)
    }

    /// The snapshot. `version` must differ from those still in use, and not be 0: a flow notes in
    /// which it last looked whether its backend serves.
    ///
    /// # Errors
    /// [`SnapshotError::VipIsSnatAddress`].
    pub fn build(&self, version: u32) -> Result<Snapshot, SnapshotError> {
        if let Some(address) = self.clashes.iter().find(|address| self.clash(**address)) {
            return Err(SnapshotError::VipIsSnatAddress { address: *address });
        }
        Ok(Snapshot { version, ..self.snapshot.clone() })
    }
}

fn set(addresses: impl IntoIterator<Item = IpAddr>) -> Set {
    addresses.into_iter().map(|address| (address.into(), ())).collect()
}

/// Whether it is the first.
fn count(counts: &mut Counts, key: Key) -> bool {
    let before = counts.get(&key).copied().unwrap_or(0);
    counts.insert(key, before + 1);
    before == 0
}

/// How many are left, if there was one.
fn uncount(counts: &mut Counts, key: &Key) -> Option<u32> {
    let left = counts.get(key)? - 1;
    if left == 0 {
        counts.remove(key);
    } else {
        counts.insert(*key, left);
    }
    Some(left)
}

/// Takes an item out of a list; whether it was there.
fn take<V: Clone + PartialEq>(map: &mut SharedMap<Key, Arc<[V]>>, key: Key, item: &V) -> bool {
    let mut known = false;
    change(map, key, |list| {
        let at = list.iter().position(|held| held == item);
        known = at.map(|at| list.swap_remove(at)).is_some();
    });
    known
}

/// Changes a list, which is not there if it is empty.
fn change<K: MapKey + Eq + Clone, V: Clone>(
    map: &mut SharedMap<K, Arc<[V]>>,
    key: K,
    change: impl FnOnce(&mut Vec<V>),
) {
    let mut list = map.get(&key).map_or_else(Vec::new, |list| list.to_vec());
    change(&mut list);
    if list.is_empty() {
        map.remove(&key);
    } else {
        map.insert(key, list.into());
    }
}
