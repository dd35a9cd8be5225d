//! The addresses of SNAT pools, without those that cannot be used.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use penstock_feed::{self as feed, Name};

/// A pool's addresses that can be used.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    pub(super) addresses: BTreeSet<IpAddr>,
    both: Arc<[IpAddr]>,
    v4: Arc<[IpAddr]>,
    v6: Arc<[IpAddr]>,
}

impl Pool {
    pub(super) fn of(addresses: BTreeSet<IpAddr>) -> Self {
        let family = |v4: bool| addresses.iter().filter(|at| at.is_ipv4() == v4).copied().collect();
        let both = addresses.iter().copied().collect();
        Self { both, v4: family(true), v6: family(false), addresses }
    }

    /// Those that a listener takes: of its VIP's family, but tunnels of either.
    fn for_listener(&self, listener: &feed::Listener) -> &Arc<[IpAddr]> {
        match listener.vip {
            _ if listener.mode.is_tunnel() => &self.both,
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        }
    }
}

/// The box's addresses and those of its pools, once for all listeners that have them.
#[derive(Debug)]
pub(super) struct Pools {
    own: Pool,
    named: BTreeMap<Name, Pool>,
    none: Arc<[IpAddr]>,
}

impl Pools {
    /// The box's, and no pool.
    pub(super) fn new(own: BTreeSet<IpAddr>) -> Self {
        Self { own: Pool::of(own), named: BTreeMap::new(), none: Arc::new([]) }
    }

    /// Says what can be used of a pool; what could be before. `None`: there is no such pool.
    pub(super) fn set(&mut self, name: &Name, pool: Option<Pool>) -> Option<Pool> {
        match pool {
            Some(pool) => self.named.insert(name.clone(), pool),
            None => self.named.remove(name),
        }
    }

    /// The addresses that full NAT and tunnels take for a listener; none for DNAT and L2 DSR.
    pub(super) fn snat_of(&self, listener: &feed::Listener) -> Arc<[IpAddr]> {
        let pool = match &listener.snat_pool {
            _ if matches!(listener.mode, feed::Mode::Dnat | feed::Mode::L2Dsr) => None,
            Some(pool) => self.named.get(pool),
            None => Some(&self.own),
        };
        Arc::clone(pool.map_or(&self.none, |pool| pool.for_listener(listener)))
    }
}
