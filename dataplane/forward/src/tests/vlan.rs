//! One 802.1Q tag: checked on the way in, kept, changed or taken out on the way out.

use std::sync::Arc;

use super::{BACKEND, CLIENT, FULL_NAT, NEW, SNAT, VIP, families};
use crate::testing::{BOX_MAC, Dropped, Family, TestLb, TestPacket, Tx};
use crate::wire::tcp::SYN;
use crate::{DropReason, PortConfig, SnapshotBuilder};

fn on_vlan(family: Family, vlan: Option<u16>) -> TestLb<'static> {
    from_to(family, vlan, vlan)
}

/// Frames come in with one tag and must leave with another.
fn from_to(family: Family, vlan: Option<u16>, leaves_on: Option<u16>) -> TestLb<'static> {
    let mut lb = family.lb(FULL_NAT);
    let ports = [PortConfig { mac: BOX_MAC, vlan, mtu: 1500 }];
    let fib = crate::testing::fib_of(&[PortConfig { vlan: leaves_on, ..ports[0] }], 2);
    let mut builder: SnapshotBuilder = lb.builder();
    builder.ports(ports).fib(Arc::new(fib));
    lb.install(&builder);
    lb
}

fn leaves(family: Family, tag: u16) -> TestPacket {
    family.tcp(SNAT, BACKEND, SYN).tagged(tag).leaving()
}

const MISMATCH: &[&str] = &["dropped", "drop_vlan_mismatch"];

#[test]
fn a_tagged_port_takes_its_own_vlan_only() {
    for family in families() {
        on_vlan(family, Some(100)).check(&[
            (
                "its tag, with its priority, stays",
                family.tcp(CLIENT, VIP, SYN).tagged(0xa000 | 100).into(),
                Tx(leaves(family, 0xa000 | 100)),
                NEW,
            ),
            (
                "another VLAN",
                family.tcp(CLIENT, VIP, SYN).tagged(101).into(),
                Dropped(DropReason::VlanMismatch),
                MISMATCH,
            ),
            (
                "no tag",
                family.tcp(CLIENT, VIP, SYN).into(),
                Dropped(DropReason::VlanMismatch),
                MISMATCH,
            ),
            (
                "a second tag",
                family.tcp(CLIENT, VIP, SYN).tagged(100).put(16, &[0x81, 0x00]).into(),
                Dropped(DropReason::VlanStacked),
                &["dropped", "drop_vlan_stacked"],
            ),
        ]);
    }
}

#[test]
fn an_untagged_port_takes_no_vlan() {
    for family in families() {
        on_vlan(family, None).check(&[
            (
                "a VLAN",
                family.tcp(CLIENT, VIP, SYN).tagged(100).into(),
                Dropped(DropReason::VlanMismatch),
                MISMATCH,
            ),
            (
                "a service tag",
                family.tcp(CLIENT, VIP, SYN).tagged(100).put(12, &[0x88, 0xa8]).into(),
                Dropped(DropReason::VlanStacked),
                &["dropped", "drop_vlan_stacked"],
            ),
            (
                "a priority tag is taken in, and off",
                family.tcp(CLIENT, VIP, SYN).tagged(0xe000).into(),
                Tx(family.tcp(SNAT, BACKEND, SYN).leaving()),
                NEW,
            ),
        ]);
    }
}

#[test]
fn a_frame_leaves_with_the_tag_of_the_port_it_leaves_by() {
    for family in families() {
        let syn = || family.tcp(CLIENT, VIP, SYN).tagged(0x6000 | 100);
        from_to(family, Some(100), Some(200)).check(&[(
            "another VLAN, the same priority",
            syn().into(),
            Tx(leaves(family, 0x6000 | 200)),
            NEW,
        )]);
        from_to(family, Some(100), None).check(&[(
            "none: the tag is taken out",
            syn().padded_to(94).into(),
            Tx(family.tcp(SNAT, BACKEND, SYN).leaving().padded_to(90)),
            NEW,
        )]);
        from_to(family, None, Some(200)).check(&[(
            "one that it did not come with",
            family.tcp(CLIENT, VIP, SYN).into(),
            Tx(leaves(family, 200)),
            NEW,
        )]);
    }
}
