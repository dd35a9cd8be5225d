//! The companion interfaces seen together: which stands beside which port, which of our addresses
//! each holds, and whom the kernel shall ask for a MAC.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use penstock_dpdk::{Mbuf, Mempool};
use penstock_feed::State;
use penstock_forward::{Fib, NextHopKey};
use rtrb::Producer;
use tracing::{info, warn};

use crate::fib::in_prefix;
use crate::in_use::InUse;
use crate::kernel::{
    Address, Addresses, Ifindex, KernelError, KernelView, MacAddr, Mirror, announcements,
};

/// One port's companion, as the main lcore sees it.
pub struct CompanionFacts {
    /// Its name.
    pub name: String,
    /// Its index, which a persistent TAP keeps.
    pub index: Ifindex,
    /// The MAC it shares with the port.
    pub mac: MacAddr,
    /// Frames of ours to be sent out of the port.
    pub to_port: Producer<Mbuf>,
}

/// All companions, and what we keep on them.
pub struct Companions {
    companions: Vec<CompanionFacts>,
    addresses: Addresses,
    snat: BTreeSet<IpAddr>,
    mempool: Mempool,
    kept: Option<(Arc<State>, Arc<[Address]>)>,
    unannounced: Vec<(usize, Vec<IpAddr>)>,
    just_started: bool,
    started: Instant,
    in_use: InUse,
}

impl Companions {
    /// Companions by port index; `snat` are the box's own SNAT addresses.
    ///
    /// # Errors
    /// If netlink cannot be used.
    pub fn new(
        companions: Vec<CompanionFacts>,
        snat: BTreeSet<IpAddr>,
        mempool: Mempool,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            companions,
            addresses: Addresses::open()?,
            snat,
            mempool,
            kept: None,
            unannounced: Vec::new(),
            just_started: true,
            started: Instant::now(),
            in_use: InUse::default(),
        })
    }

    /// Sees that the kernel answers for every VIP and SNAT address, and no longer for those that
    /// have gone. Does nothing while neither the state nor the box's addresses have changed.
    pub fn keep_addresses(&mut self, state: &Arc<State>, view: &KernelView) {
        let unchanged = |(kept, addresses): &(Arc<State>, Arc<[Address]>)| {
            Arc::ptr_eq(kept, state) && Arc::ptr_eq(addresses, &view.addresses)
        };
        if self.kept.as_ref().is_some_and(unchanged) {
            return;
        }
        let wanted = self.wanted(state, view);
        let mut done = true;
        for at in 0..self.companions.len() {
            done &= self.reconcile(at, wanted.get(&at).unwrap_or(&BTreeSet::new()));
        }
        self.just_started = false;
        // What the kernel refused is tried again at the next call.
        self.kept = done.then(|| (Arc::clone(state), Arc::clone(&view.addresses)));
    }

    /// Every address we answer for, by the companion whose subnet it lies in; the first otherwise.
    fn wanted(&self, state: &State, view: &KernelView) -> BTreeMap<usize, BTreeSet<IpAddr>> {
        let vips = state.listeners.values().map(|listener| listener.vip);
        let pools = state.snat_pools.values().flat_map(|pool| pool.addresses.iter().copied());
        let mut wanted: BTreeMap<usize, BTreeSet<IpAddr>> = BTreeMap::new();
        for address in vips.chain(pools).chain(self.snat.iter().copied()) {
            let subnets = view.addresses.iter().filter(|own| !own.ours && contains(own, address));
            let port = subnets.max_by_key(|own| own.prefix_len).and_then(|own| own.port);
            wanted.entry(port.map_or(0, usize::from)).or_default().insert(address);
        }
        wanted
    }

    /// Whether the companion has all that is wanted.
    fn reconcile(&mut self, at: usize, wanted: &BTreeSet<IpAddr>) -> bool {
        let companion = &self.companions[at];
        let done = match self.addresses.reconcile(companion.index, &companion.name, wanted) {
            Ok(done) => done,
            Err(error) => {
                warn!(companion = companion.name, %error, "addresses");
                return false;
            }
        };
        for (address, error) in &done.failed {
            warn!(companion = companion.name, %address, %error, "address");
        }
        if !(done.added.is_empty() && done.removed.is_empty()) {
            info!(companion = companion.name, added = ?done.added, removed = ?done.removed, "addresses");
        }
        // A box that has just started may have taken over from another: it announces all.
        let new = if self.just_started { wanted.iter().copied().collect() } else { done.added };
        if !new.is_empty() {
            self.unannounced.push((at, new));
        }
        done.failed.is_empty()
    }

    /// Tells the links of addresses that are new here, once the workers serve them. What finds no
    /// room now is told at the next call.
    pub fn announce(&mut self) {
        for (at, addresses) in std::mem::take(&mut self.unannounced) {
            let told =
                addresses.iter().take_while(|address| self.announce_one(at, **address)).count();
            if told < addresses.len() {
                self.unannounced.push((at, addresses[told..].to_vec()));
            }
        }
    }

    /// Whether there was room for the announcement.
    fn announce_one(&mut self, at: usize, address: IpAddr) -> bool {
        let companion = &mut self.companions[at];
        announcements([&address], companion.mac).iter().all(|frame| {
            let mbuf = self.mempool.alloc().filter(|_| !companion.to_port.is_full());
            mbuf.is_some_and(|mut mbuf| {
                mbuf.append(frame).is_ok() && companion.to_port.push(mbuf).is_ok()
            })
        })
    }

    /// Has the kernel ask for a next hop that a packet waits for.
    pub fn resolve(&self, mirror: &mut Mirror, next_hop: NextHopKey) {
        if let Err(error) =
            mirror.resolve(next_hop.port.0, next_hop.address, self.started.elapsed())
        {
            warn!(address = %next_hop.address, %error, "next hop cannot be asked for");
        }
    }

    /// Has the kernel know gateways and backends before a packet waits for them, and keeps them
    /// fresh, since it never sees the traffic to them.
    pub fn keep_fresh(&mut self, mirror: &mut Mirror, state: &State, fib: &Fib) {
        let next_hops = self.in_use.next_hops(state, mirror.view(), fib);
        if let Err(error) = mirror.keep_fresh(next_hops, self.started.elapsed()) {
            warn!(%error, "a neighbour cannot be kept fresh");
        }
    }
}

/// Whether `address` lies in the subnet of an address that the box has on a companion.
fn contains(own: &Address, address: IpAddr) -> bool {
    own.port.is_some() && in_prefix(own.address, own.prefix_len, address)
}
