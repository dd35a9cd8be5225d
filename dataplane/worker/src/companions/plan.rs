//! What to ask the kernel for, so that it answers for the addresses that are wanted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    fib::in_prefix,
    kernel::{Address, Ifindex, KernelView, Link},
    snapshot::AddressSet,
};

/// What is there besides our addresses: the companions, and the addresses that others gave the box.
#[derive(Debug)]
pub(super) struct Ground {
    addresses: Arc<[Address]>,
    links: Arc<[Link]>,
    others: BTreeSet<IpAddr>,
    /// Those of companions, which say what subnets they are in.
    subnets: Vec<Address>,
}

impl Ground {
    pub(super) fn of(view: &KernelView) -> Self {
        let subnets = view.addresses.iter().filter(|own| own.port.is_some());
        Self {
            addresses: Arc::clone(&view.addresses),
            links: Arc::clone(&view.links),
            others: view.addresses.iter().map(|own| own.address).collect(),
            subnets: subnets.copied().collect(),
        }
    }

    /// Whether a view shows the same.
    pub(super) fn is_of(&self, view: &KernelView) -> bool {
        Arc::ptr_eq(&self.addresses, &view.addresses) && Arc::ptr_eq(&self.links, &view.links)
    }

    /// The companion whose subnet an address lies in; the first otherwise.
    pub(super) fn companion_of(&self, address: IpAddr) -> usize {
        let subnets = self.subnets.iter();
        let around = subnets.filter(|own| in_prefix(own.address, own.prefix_len, address));
        let port = around.max_by_key(|own| own.prefix_len).and_then(|own| own.port);
        port.map_or(0, usize::from)
    }
}

/// Addresses to take away, with their prefix lengths, and to put on, by companion.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) unwanted: BTreeMap<usize, Vec<(IpAddr, u8)>>,
    pub(super) wanted: BTreeMap<usize, Vec<IpAddr>>,
}

impl Plan {
    /// Plans what one address needs. The view may not show yet what was asked for last: then the kernel is
    /// asked once more, to no effect, or the address is looked at again when it does.
    pub(super) fn look_at(
        &mut self,
        address: IpAddr,
        wanted: &AddressSet,
        view: &KernelView,
        ground: &Ground,
    ) {
        let host_len = if address.is_ipv4() { 32 } else { 128 };
        let at = wanted.contains(&address).then(|| ground.companion_of(address));
        let mut is_there = false;
        let kept = view.ours.range((address, Ifindex(0), 0)..);
        for (_, index, len) in kept.take_while(|(kept, ..)| *kept == address) {
            let link = view.links.iter().find(|link| link.index == *index);
            let Some(companion) = link.map(|link| usize::from(link.port)) else { continue };
            if at == Some(companion) && *len == host_len {
                is_there = true;
            } else {
                self.unwanted.entry(companion).or_default().push((address, *len));
            }
        }
        if let Some(at) = at.filter(|_| !is_there && !ground.others.contains(&address)) {
            self.wanted.entry(at).or_default().push(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn link(port: u16) -> Link {
        let (index, name) = (Ifindex(7 + u32::from(port)), format!("pst{port}"));
        Link { port, index, name, mac: None, mtu_bytes: 1500, up: true }
    }

    fn address(index: u32, address: [u8; 4], prefix_len: u8) -> Address {
        let port = (7..9).contains(&index).then(|| index as u16 - 7);
        Address { index: Ifindex(index), port, address: address.into(), prefix_len }
    }

    /// Two companions, each with a subnet, and an address of somebody else's on `lo`.
    fn view() -> KernelView {
        let addresses = [
            address(1, [10, 1, 0, 3], 32),
            address(7, [10, 0, 0, 1], 24),
            address(8, [10, 1, 0, 1], 24),
        ];
        let links = [link(0), link(1)].into();
        KernelView { links, addresses: addresses.into(), ..KernelView::default() }
    }

    fn ip(n: u8) -> IpAddr {
        [10, n / 4, 0, n % 4 + 1].into()
    }

    proptest! {
        /// Whatever comes to be wanted and goes, whatever somebody takes away or puts there, and however
        /// late the view is: when it has caught up, the kernel has what is wanted, each on its companion.
        #[test]
        fn in_the_end_the_kernel_has_what_is_wanted(
            steps in prop::collection::vec((0..12_u8, 0..6_u8), 1..60),
        ) {
            let mut view = view();
            let ground = Ground::of(&view);
            let (mut wanted, mut kernel) = (AddressSet::new_sync(), view.ours.clone());
            let (mut touched, mut unheard) = (BTreeSet::new(), BTreeSet::new());
            for (n, what) in steps.into_iter().chain([(0, 5); 4]) {
                let at = ip(n);
                match what {
                    0 => wanted.insert_mut(at),
                    1 => _ = wanted.remove_mut(&at),
                    2 => kernel.insert_mut((at, Ifindex(8), 32)),
                    3 => _ = kernel.remove_mut(&(at, Ifindex(7), 32)),
                    4 => kernel.insert_mut((at, Ifindex(9), 32)), // on no companion of ours
                    _ => {
                        // The view catches up, and says what came or went meanwhile.
                        touched.append(&mut unheard);
                        view.ours = kernel.clone();
                    }
                }
                _ = if what < 2 { touched.insert(at) } else { unheard.insert(at) };
                let mut plan = Plan::default();
                for address in std::mem::take(&mut touched) {
                    plan.look_at(address, &wanted, &view, &ground);
                }
                for (at, unwanted) in plan.unwanted {
                    for (address, len) in unwanted {
                        kernel.remove_mut(&(address, link(at as u16).index, len));
                        unheard.insert(address);
                    }
                }
                for (at, wanted) in plan.wanted {
                    for address in wanted {
                        kernel.insert_mut((address, link(at as u16).index, 32));
                        unheard.insert(address);
                    }
                }
            }
            let on = |index| -> Vec<IpAddr> {
                kernel.iter().filter(|(_, at, _)| *at == Ifindex(index)).map(|(address, ..)| *address).collect()
            };
            let in_subnet = |at: usize| -> Vec<IpAddr> {
                let of_others = |address: &IpAddr| view.addresses.iter().any(|own| own.address == *address);
                wanted.iter().filter(|a| ground.companion_of(**a) == at && !of_others(a)).copied().collect()
            };
            prop_assert_eq!(on(7), in_subnet(0));
            let mut second = on(8);
            second.retain(|address| !view.addresses.iter().any(|own| own.address == *address));
            prop_assert_eq!(second, in_subnet(1));
        }
    }
}
