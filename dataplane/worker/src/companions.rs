//! The companion interfaces seen together: which stands beside which port, which of our addresses
//! each holds, and whom the kernel shall ask for a MAC.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use penstock_dpdk::{Mbuf, Mempool};
use penstock_feed::{Name, ObjectError, ObjectId, ObjectKind, State};
use penstock_forward::{Fib, NextHopKey};
use rtrb::Producer;
use tracing::{info, warn};

use crate::fib::in_prefix;
use crate::in_use::InUse;
use crate::kernel::{
    Address, Addresses, KernelError, KernelView, Link, MacAddr, Mirror, announcements,
};

/// One port's companion, as the main lcore sees it.
pub struct CompanionFacts {
    /// The MAC it shares with the port.
    pub mac: MacAddr,
    /// Frames of ours to be sent out of the port.
    pub to_port: Producer<Mbuf>,
}

/// What was wanted and what the box had when the addresses were last kept.
struct Kept {
    wanted: Arc<BTreeSet<IpAddr>>,
    addresses: Arc<[Address]>,
    links: Arc<[Link]>,
}

/// All companions, and what we keep on them.
pub struct Companions {
    companions: Vec<CompanionFacts>,
    addresses: Addresses,
    mempool: Mempool,
    kept: Option<Kept>,
    refused: BTreeMap<IpAddr, String>,
    unannounced: Vec<(usize, Vec<IpAddr>)>,
    just_started: bool,
    started: Instant,
    in_use: InUse,
}

impl Companions {
    /// Companions by port index.
    ///
    /// # Errors
    /// If netlink cannot be used.
    pub fn new(companions: Vec<CompanionFacts>, mempool: Mempool) -> Result<Self, KernelError> {
        Ok(Self {
            companions,
            addresses: Addresses::open()?,
            mempool,
            kept: None,
            refused: BTreeMap::new(),
            unannounced: Vec::new(),
            just_started: true,
            started: Instant::now(),
            in_use: InUse::default(),
        })
    }

    /// Sees that the kernel answers for the `wanted` addresses, and no longer for those that have
    /// gone. Does nothing while neither these nor the box's addresses and companions have changed.
    pub fn keep_addresses(&mut self, wanted: &Arc<BTreeSet<IpAddr>>, view: &KernelView) {
        let unchanged = |kept: &Kept| {
            Arc::ptr_eq(&kept.wanted, wanted)
                && Arc::ptr_eq(&kept.addresses, &view.addresses)
                && Arc::ptr_eq(&kept.links, &view.links)
        };
        if self.kept.as_ref().is_some_and(unchanged) {
            return;
        }
        let by_companion = by_companion(wanted, view);
        let mut refused = BTreeMap::new();
        for at in 0..self.companions.len() {
            // One that was deleted comes back with another index, and is seen to then.
            let link = view.links.iter().find(|link| usize::from(link.port) == at);
            let Some(link) = link else { continue };
            let none = BTreeSet::new();
            refused.extend(self.reconcile(at, link, by_companion.get(&at).unwrap_or(&none)));
        }
        self.just_started = false;
        for (address, error) in &refused {
            if self.refused.get(address) != Some(error) {
                warn!(%address, error, "address");
            }
        }
        self.refused = refused;
        self.kept = Some(Kept {
            wanted: Arc::clone(wanted),
            addresses: Arc::clone(&view.addresses),
            links: Arc::clone(&view.links),
        });
    }

    /// Has the next [`Self::keep_addresses`] ask the kernel again for what it refused.
    pub fn retry_refused(&mut self) {
        if !self.refused.is_empty() {
            self.kept = None;
        }
    }

    /// The objects that cannot be served because the kernel refused their address.
    pub fn errors(&self, state: &State) -> Vec<ObjectError> {
        if self.refused.is_empty() {
            return Vec::new();
        }
        let error = |kind, name: &Name, address: &IpAddr| {
            let message = self.refused.get(address)?.clone();
            Some(ObjectError { object: ObjectId { kind, name: name.clone() }, message })
        };
        let listeners = state.listeners.iter();
        let listeners = listeners
            .filter_map(|(name, listener)| error(ObjectKind::Listener, name, &listener.vip));
        let pools = state.snat_pools.iter().filter_map(|(name, pool)| {
            pool.addresses.iter().find_map(|address| error(ObjectKind::SnatPool, name, address))
        });
        listeners.chain(pools).collect()
    }

    /// Makes the addresses of a companion those that are wanted; what the kernel refused, and why.
    /// That the companion has just gone is no refusal: whoever holds it says so and opens it anew.
    fn reconcile(
        &mut self,
        at: usize,
        link: &Link,
        wanted: &BTreeSet<IpAddr>,
    ) -> BTreeMap<IpAddr, String> {
        let done = match self.addresses.reconcile(link.index, &link.name, wanted) {
            Ok(done) => done,
            Err(error) => {
                return wanted.iter().map(|address| (*address, error.to_string())).collect();
            }
        };
        if !(done.added.is_empty() && done.removed.is_empty()) {
            info!(companion = link.name, added = ?done.added, removed = ?done.removed, "addresses");
        }
        // A box that has just started may have taken over from another: it announces all.
        let new = if self.just_started { wanted.iter().copied().collect() } else { done.added };
        if !new.is_empty() {
            self.unannounced.push((at, new));
        }
        let refused = done.failed.into_iter().filter(|(_, error)| !error.says_gone());
        refused.map(|(address, error)| (address, error.to_string())).collect()
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
            && !error.says_gone()
        {
            warn!(address = %next_hop.address, %error, "next hop cannot be asked for");
        }
    }

    /// Has the kernel know gateways and backends before a packet waits for them, and keeps them
    /// fresh, since it never sees the traffic to them.
    pub fn keep_fresh(&mut self, mirror: &mut Mirror, state: &State, fib: &Fib) {
        let next_hops = self.in_use.next_hops(state, mirror.view(), fib);
        if let Err(error) = mirror.keep_fresh(next_hops, self.started.elapsed())
            && !error.says_gone()
        {
            warn!(%error, "a neighbour cannot be kept fresh");
        }
    }
}

/// Each address by the companion whose subnet it lies in; the first otherwise.
fn by_companion(wanted: &BTreeSet<IpAddr>, view: &KernelView) -> BTreeMap<usize, BTreeSet<IpAddr>> {
    let subnets: Vec<_> =
        view.addresses.iter().filter(|own| !own.ours && own.port.is_some()).collect();
    let mut by_companion: BTreeMap<usize, BTreeSet<IpAddr>> = BTreeMap::new();
    for &address in wanted {
        let around = subnets.iter().filter(|own| in_prefix(own.address, own.prefix_len, address));
        let port = around.max_by_key(|own| own.prefix_len).and_then(|own| own.port);
        by_companion.entry(port.map_or(0, usize::from)).or_default().insert(address);
    }
    by_companion
}
