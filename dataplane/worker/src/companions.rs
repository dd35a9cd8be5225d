//! The companion interfaces seen together: which stands beside which port, which of our addresses
//! each holds and tells its link of, and whom the kernel shall ask for a MAC.

mod announcer;
mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use penstock_dpdk::{Mbuf, Mempool};
use penstock_feed::ObjectError;
use penstock_forward::{Fib, NextHopKey};
use rtrb::Producer;
use tracing::{info, warn};

pub use self::announcer::Announced;
use self::{
    announcer::Announcer,
    plan::{Ground, Plan},
};
use crate::{
    hosts::Hosts,
    in_use::InUse,
    kernel::{Addresses, KernelError, KernelView, Link, MacAddr, Mirror, Reconciled, announcement},
    snapshot::{AddressSet, Translator},
};

/// One port's companion, as the main lcore sees it.
pub struct CompanionFacts {
    /// The MAC it shares with the port.
    pub mac: MacAddr,
    /// Frames of ours to be sent out of the port.
    pub to_port: Producer<Mbuf>,
}

impl CompanionFacts {
    /// Announces an address out of the port; whether there was room for that.
    fn send(&mut self, address: IpAddr, mempool: &Mempool) -> bool {
        let mbuf = mempool.alloc().filter(|_| !self.to_port.is_full());
        mbuf.is_some_and(|mut mbuf| {
            mbuf.append(&announcement(address, self.mac)).is_ok() && self.to_port.push(mbuf).is_ok()
        })
    }
}

/// All companions, and what we keep on them.
pub struct Companions {
    companions: Vec<CompanionFacts>,
    announcers: Vec<Announcer>,
    addresses: Addresses,
    mempool: Mempool,
    /// What was there besides when all addresses were last kept.
    ground: Option<Ground>,
    /// Addresses that are wanted or kept otherwise than when they were last looked at.
    touched: BTreeSet<IpAddr>,
    refused: BTreeMap<IpAddr, String>,
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
            announcers: companions.iter().map(|_| Announcer::new()).collect(),
            companions,
            addresses: Addresses::open()?,
            mempool,
            ground: None,
            touched: BTreeSet::new(),
            refused: BTreeMap::new(),
            just_started: true,
            started: Instant::now(),
            in_use: InUse::default(),
        })
    }

    /// Has the next [`Self::keep_addresses`] look at these addresses: they have come to be wanted, or are
    /// so no more, or the kernel has said something of them.
    pub fn look_at(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.touched.extend(addresses);
    }

    /// Sees that the kernel answers for the `wanted` addresses, and no longer for those that have
    /// gone. Looks at those that it was told to look at; at all of them when the companions have
    /// changed, or the addresses that others gave the box.
    pub fn keep_addresses(&mut self, wanted: &AddressSet, view: &KernelView) {
        match self.ground.take_if(|ground| ground.is_of(view)) {
            Some(ground) => {
                let touched = std::mem::take(&mut self.touched);
                let mut plan = Plan::default();
                touched.iter().for_each(|address| plan.look_at(*address, wanted, view, &ground));
                self.ground = Some(ground);
                let known =
                    self.refused.extract_if(.., |address, _| touched.contains(address)).collect();
                self.carry_out(plan, view, &known);
            }
            None => self.keep_all(wanted, view),
        }
    }

    /// `known`: what the kernel refused when it was asked before.
    fn carry_out(&mut self, plan: Plan, view: &KernelView, known: &BTreeMap<IpAddr, String>) {
        let Plan { unwanted, wanted } = plan; // in this order, so that one can move between companions
        let unwanted = unwanted.into_iter().map(|(at, unwanted)| (at, Vec::new(), unwanted));
        let wanted = wanted.into_iter().map(|(at, wanted)| (at, wanted, Vec::new()));
        for (at, wanted, unwanted) in unwanted.chain(wanted) {
            let link = view.links.iter().find(|link| usize::from(link.port) == at);
            let Some(link) = link else { continue };
            let done = self.addresses.change(link.index, &link.name, &wanted, &unwanted);
            self.announce_from_now(at, done.added.iter().copied(), done.removed.iter().copied());
            let refused = told(link, done);
            warn_of_new(&refused, known);
            self.refused.extend(refused);
        }
    }

    fn keep_all(&mut self, wanted: &AddressSet, view: &KernelView) {
        let ground = Ground::of(view);
        let mut by_companion: BTreeMap<usize, BTreeSet<IpAddr>> = BTreeMap::new();
        for address in wanted {
            by_companion.entry(ground.companion_of(*address)).or_default().insert(*address);
        }
        let mut refused = BTreeMap::new();
        for at in 0..self.companions.len() {
            // One that was deleted comes back with another index, and is seen to then.
            let link = view.links.iter().find(|link| usize::from(link.port) == at);
            let Some(link) = link else {
                self.announcers[at].forget_all();
                continue;
            };
            let none = BTreeSet::new();
            refused.extend(self.reconcile(at, link, by_companion.get(&at).unwrap_or(&none)));
        }
        self.just_started = false;
        warn_of_new(&refused, &self.refused);
        self.refused = refused;
        self.touched.clear();
        self.ground = Some(ground);
    }

    /// Has the next [`Self::keep_addresses`] ask the kernel again for what it refused.
    pub fn retry_refused(&mut self) {
        self.touched.extend(self.refused.keys());
    }

    /// The objects that cannot be served because the kernel refused their address.
    pub fn errors(&self, translator: &Translator) -> Vec<ObjectError> {
        let mut errors = BTreeMap::new();
        for (address, message) in &self.refused {
            for object in translator.objects_with(address) {
                errors.entry(object).or_insert(message);
            }
        }
        let error =
            |(object, message): (_, &String)| ObjectError { object, message: message.clone() };
        errors.into_iter().map(error).collect()
    }

    /// Makes the addresses of a companion those that are wanted; what the kernel refused, and why.
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
        let foreign = done.foreign.iter().map(|(address, _)| *address);
        let failed = done.failed.iter().map(|(address, _)| *address);
        let not_ours: BTreeSet<_> =
            foreign.chain(failed).chain(done.removed.iter().copied()).collect();
        // It may have taken over from another box, or be another: at a start it announces all that it has.
        let new: Vec<_> = match self.just_started {
            true => wanted.difference(&not_ours).copied().collect(),
            false => done.added.clone(),
        };
        self.announce_from_now(at, new, not_ours);
        self.say_if_up_again(at, |announcer, now| announcer.companion_is(link.up, now));
        told(link, done)
    }

    fn announce_from_now(
        &mut self,
        at: usize,
        new: impl IntoIterator<Item = IpAddr>,
        gone: impl IntoIterator<Item = IpAddr>,
    ) {
        let (now, announcer) = (self.started.elapsed(), &mut self.announcers[at]);
        gone.into_iter().for_each(|address| announcer.forget(address));
        new.into_iter().for_each(|address| announcer.begin(address, now));
    }

    /// What is known of the link of a port now: when it has come up again, who is there is told anew.
    pub fn link_is(&mut self, port: usize, up: Option<bool>) {
        self.say_if_up_again(port, |announcer, now| announcer.link_is(up, now));
    }

    fn say_if_up_again(&mut self, at: usize, look: impl FnOnce(&mut Announcer, Duration) -> usize) {
        let addresses = look(&mut self.announcers[at], self.started.elapsed());
        if addresses > 0 {
            info!(port = at, addresses, "up again: addresses are announced anew");
        }
    }

    /// What the link of a port was told of our addresses.
    pub fn announced(&self, port: usize) -> Announced {
        self.announcers[port].announced()
    }

    /// Tells the links of addresses that are new here, or were told too seldom; once the workers serve them.
    /// What finds no room now is told at a later call.
    pub fn announce(&mut self) {
        let (now, mempool) = (self.started.elapsed(), &self.mempool);
        for (companion, announcer) in self.companions.iter_mut().zip(&mut self.announcers) {
            announcer.tell(now, |address| companion.send(address, mempool));
        }
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
    pub fn keep_fresh(&mut self, mirror: &mut Mirror, hosts: &Hosts, fib: &Fib) {
        let next_hops = self.in_use.next_hops(hosts, mirror.view(), fib);
        warn_if_refused(mirror.keep_fresh(next_hops, self.started.elapsed()));
    }

    /// The same for hosts that came since.
    pub fn ask_for_new(&self, mirror: &mut Mirror, new: BTreeSet<IpAddr>, fib: &Fib) {
        let next_hops = InUse::of_hosts(new, fib);
        warn_if_refused(mirror.ask_for_new(next_hops, self.started.elapsed()));
    }
}

/// Says what the kernel refuses now and did not before.
fn warn_of_new(refused: &BTreeMap<IpAddr, String>, before: &BTreeMap<IpAddr, String>) {
    for (address, error) in refused {
        if before.get(address) != Some(error) {
            warn!(%address, error, "address");
        }
    }
}

fn warn_if_refused(asked: Result<usize, KernelError>) {
    if let Err(error) = asked
        && !error.says_gone()
    {
        warn!(%error, "a neighbour cannot be kept fresh");
    }
}

/// Says what was done to a companion; what the kernel refused and why. That the companion has just gone
/// is no refusal: whoever holds it says so and opens it anew.
fn told(link: &Link, done: Reconciled) -> BTreeMap<IpAddr, String> {
    if !(done.added.is_empty() && done.removed.is_empty()) {
        info!(companion = link.name, added = ?done.added, removed = ?done.removed, "addresses");
    }
    let refused = done.failed.into_iter().filter(|(_, error)| !error.says_gone());
    refused.map(|(address, error)| (address, error.to_string())).collect()
}
