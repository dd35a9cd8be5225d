//! Which objects of a state a change may concern.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::change::{changed, changed_groups};
use super::{Change, Name, PemId, State};

/// The names of objects that were added, changed or removed; or put again as they were, which does no
/// harm. What is built of a state is built anew for these alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Of listeners.
    pub listeners: BTreeSet<Name>,
    /// Of groups, one for any of its members too.
    pub groups: BTreeSet<Name>,
    /// Of SNAT pools, one for any of its addresses too.
    pub snat_pools: BTreeSet<Name>,
    /// Of next-hop hints, the backend addresses.
    pub next_hops: BTreeSet<IpAddr>,
    /// Of VIPs of the L7 tier.
    pub vips: BTreeSet<IpAddr>,
    /// Of listeners of the L7 tier.
    pub l7_listeners: BTreeSet<Name>,
    /// Of pems.
    pub pems: BTreeSet<PemId>,
}

impl Touched {
    /// What differs between two states. Costs a pass over each map that they do not share.
    pub fn between(old: &State, new: &State) -> Self {
        let differing = |differs: bool, name: &Name| differs.then(|| name.clone());
        let listeners = changed(&old.listeners, &new.listeners);
        let groups = changed_groups(old, new);
        let pools = changed(&old.snat_pools, &new.snat_pools);
        let hints = changed(&old.next_hops, &new.next_hops);
        let vips = changed(&old.vips, &new.vips);
        let l7_listeners = changed(&old.l7.listeners, &new.l7.listeners);
        let pems = changed(&old.l7.pems, &new.l7.pems);
        Self {
            listeners: listeners.filter_map(|(name, a, b)| differing(a != b, name)).collect(),
            groups: groups.filter_map(|(name, a, b)| differing(a != b, name)).collect(),
            snat_pools: pools.filter_map(|(name, a, b)| differing(a != b, name)).collect(),
            next_hops: hints.filter_map(|(at, a, b)| (a != b).then_some(*at)).collect(),
            vips: vips.filter_map(|(at, a, b)| (a != b).then_some(*at)).collect(),
            l7_listeners: l7_listeners.filter_map(|(name, a, b)| differing(a != b, name)).collect(),
            pems: pems.filter_map(|(id, a, b)| (a != b).then_some(*id)).collect(),
        }
    }

    /// Takes in what one change touches.
    pub fn note(&mut self, change: &Change) {
        use Change as C;
        match change {
            C::PutListener { name, .. } | C::RemoveListener { name } => {
                self.listeners.insert(name.clone());
            }
            C::PutGroup { name, .. }
            | C::RemoveGroup { name }
            | C::PutMember { group: name, .. }
            | C::RemoveMember { group: name, .. } => {
                self.groups.insert(name.clone());
            }
            C::PutSnatPool { name }
            | C::RemoveSnatPool { name }
            | C::PutSnatAddress { pool: name, .. }
            | C::RemoveSnatAddress { pool: name, .. } => {
                self.snat_pools.insert(name.clone());
            }
            C::PutNextHop { address, .. } | C::RemoveNextHop { address } => {
                self.next_hops.insert(*address);
            }
            C::PutVip { address } | C::RemoveVip { address } => {
                self.vips.insert(*address);
            }
            C::PutL7Listener { name, .. } | C::RemoveL7Listener { name } => {
                self.l7_listeners.insert(name.clone());
            }
            C::PutPem { pem } | C::PutPemPart { pem, .. } | C::RemovePem { pem } => {
                self.pems.insert(*pem);
            }
        }
    }

    /// Takes in what another change touched.
    pub fn and(&mut self, later: Touched) {
        self.listeners.extend(later.listeners);
        self.groups.extend(later.groups);
        self.snat_pools.extend(later.snat_pools);
        self.next_hops.extend(later.next_hops);
        self.vips.extend(later.vips);
        self.l7_listeners.extend(later.l7_listeners);
        self.pems.extend(later.pems);
    }

    /// Whether nothing was touched.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty()
            && self.groups.is_empty()
            && self.snat_pools.is_empty()
            && self.next_hops.is_empty()
            && self.vips.is_empty()
            && self.l7_listeners.is_empty()
            && self.pems.is_empty()
    }
}
