//! The addresses that the kernel shall answer for: VIPs and SNAT addresses, for as long as they are
//! configured or a flow needs them, and the VIPs of the L7 tier.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use penstock_forward::SnapshotBuilder;
use rpds::RedBlackTreeSetSync;

/// Addresses; a copy shares what has not changed.
pub type AddressSet = RedBlackTreeSetSync<IpAddr>;

/// So many of each.
#[derive(Debug, Default)]
struct Counts(BTreeMap<IpAddr, usize>);

impl Counts {
    /// Whether it is the first.
    fn add(&mut self, address: IpAddr) -> bool {
        let count = self.0.entry(address).or_default();
        *count += 1;
        *count == 1
    }

    /// Whether it was the last.
    fn remove(&mut self, address: IpAddr) -> bool {
        let Some(count) = self.0.get_mut(&address) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.0.remove(&address);
        }
        last
    }

    fn has(&self, address: IpAddr) -> bool {
        self.0.contains_key(&address)
    }
}

/// See the module. A listener is *known* while it is served or a flow names it.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// VIPs of known listeners.
    vips: Counts,
    /// The SNAT addresses of known listeners: most have the same.
    lists: HashMap<Arc<[IpAddr]>, usize>,
    /// What is in any of these lists.
    used: Counts,
    /// SNAT addresses of the box and of pools.
    configured: Counts,
    /// VIPs that the L7 tier serves.
    l7: BTreeSet<IpAddr>,
    all: AddressSet,
    /// Those that have become a known VIP or SNAT address, or are so no more, since pools were divided.
    pub(super) moved: BTreeSet<IpAddr>,
    /// Those that came to `all` or left it since the last snapshot.
    pub(super) changed: BTreeSet<IpAddr>,
}

impl Addresses {
    /// Whether a known listener answers there, or the L7 tier.
    pub(super) fn is_vip(&self, address: IpAddr) -> bool {
        self.vips.has(address) || self.is_of_l7(address)
    }

    /// Whether the L7 tier answers there.
    pub(super) fn is_of_l7(&self, address: IpAddr) -> bool {
        self.l7.contains(&address)
    }

    /// Whether a known listener has it for SNAT.
    pub(super) fn is_used(&self, address: IpAddr) -> bool {
        self.used.has(address)
    }

    /// Whether it is for SNAT, used or only configured.
    pub(super) fn is_snat(&self, address: IpAddr) -> bool {
        self.used.has(address) || self.configured.has(address)
    }

    /// All of them.
    pub(super) fn all(&self) -> &AddressSet {
        &self.all
    }

    /// A listener is known from now on.
    pub(super) fn know(
        &mut self,
        vip: IpAddr,
        snat: &Arc<[IpAddr]>,
        builder: &mut SnapshotBuilder,
    ) {
        if self.vips.add(vip) {
            self.move_on(vip, builder);
        }
        let listeners = self.lists.entry(Arc::clone(snat)).or_default();
        *listeners += 1;
        if *listeners == 1 {
            for address in &**snat {
                if self.used.add(*address) {
                    self.move_on(*address, builder);
                }
            }
        }
    }

    /// One that was known is so no more.
    pub(super) fn forget(
        &mut self,
        vip: IpAddr,
        snat: &Arc<[IpAddr]>,
        builder: &mut SnapshotBuilder,
    ) {
        if self.vips.remove(vip) {
            self.move_on(vip, builder);
        }
        let Some(listeners) = self.lists.get_mut(snat) else { return };
        *listeners -= 1;
        if *listeners == 0 {
            self.lists.remove(snat);
            for address in &**snat {
                if self.used.remove(*address) {
                    self.move_on(*address, builder);
                }
            }
        }
    }

    /// The L7 tier serves a VIP, or no more: the kernel answers for it, whatever the workers serve there.
    pub(super) fn of_l7(&mut self, vip: IpAddr, is_served: bool, builder: &mut SnapshotBuilder) {
        let changed = if is_served { self.l7.insert(vip) } else { self.l7.remove(&vip) };
        if changed {
            _ = match is_served {
                true => builder.add_kept_vip(vip),
                false => builder.remove_kept_vip(vip),
            };
            self.move_on(vip, builder);
        }
    }

    /// The box or a pool has an address for SNAT.
    pub(super) fn configure(&mut self, address: IpAddr, builder: &mut SnapshotBuilder) {
        if self.configured.add(address) {
            self.settle(address, builder);
        }
    }

    /// It has it no more.
    pub(super) fn withdraw(&mut self, address: IpAddr, builder: &mut SnapshotBuilder) {
        if self.configured.remove(address) {
            self.settle(address, builder);
        }
    }

    /// Settles an address that a listener has taken up or left.
    fn move_on(&mut self, address: IpAddr, builder: &mut SnapshotBuilder) {
        self.moved.insert(address);
        self.settle(address, builder);
    }

    fn settle(&mut self, address: IpAddr, builder: &mut SnapshotBuilder) {
        let snat = self.is_snat(address);
        _ = if snat {
            builder.add_snat_address(address)
        } else {
            builder.remove_snat_address(address)
        };
        let ours = snat || self.is_vip(address);
        if ours != self.all.contains(&address) {
            if ours {
                self.all.insert_mut(address);
            } else {
                self.all.remove_mut(&address);
            }
            self.changed.insert(address);
        }
    }
}
