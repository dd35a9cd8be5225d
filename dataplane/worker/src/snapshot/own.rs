//! The box's addresses that strangers have no business with: no VIP, refused ones included unless that
//! was the reason, and no SNAT address.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use penstock_forward::SnapshotBuilder;

use crate::kernel::{Address, KernelView};

/// Which of the addresses that others gave the box are its alone.
#[derive(Debug, Default)]
pub(super) struct Own {
    found_in: Option<Arc<[Address]>>,
    others: BTreeSet<IpAddr>,
    own: BTreeSet<IpAddr>,
}

impl Own {
    /// Goes over to another view of the kernel; the addresses to [settle](Self::settle) by that.
    pub(super) fn follow(
        &mut self,
        view: &KernelView,
        builder: &mut SnapshotBuilder,
    ) -> BTreeSet<IpAddr> {
        if self.found_in.as_ref().is_some_and(|found_in| Arc::ptr_eq(found_in, &view.addresses)) {
            return BTreeSet::new();
        }
        self.found_in = Some(Arc::clone(&view.addresses));
        let others = view.addresses.iter().map(|own| own.address).collect();
        let before = std::mem::replace(&mut self.others, others);
        builder.local_addresses(self.others.iter().copied());
        self.others.symmetric_difference(&before).copied().collect()
    }

    /// All that may have to be settled when what is known of addresses has changed.
    pub(super) fn others(&self) -> &BTreeSet<IpAddr> {
        &self.others
    }

    /// Has the snapshot say whether an address is the box's alone: if it is one at all, and `alone`.
    pub(super) fn settle(&mut self, address: IpAddr, alone: bool, builder: &mut SnapshotBuilder) {
        let own = alone && self.others.contains(&address);
        if own && self.own.insert(address) {
            builder.add_own_address(address);
        } else if !own && self.own.remove(&address) {
            builder.remove_own_address(address);
        }
    }
}
