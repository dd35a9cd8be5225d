//! Tags that frames still have when they come to the forwarder: those of their port are off already.

use super::{BACKEND, CLIENT, FULL_NAT, NEW, SNAT, VIP, families};
use crate::testing::{Dropped, Family, Tx};
use crate::wire::tcp::SYN;
use crate::{DropReason, Exit, NextHopKey, PortIdx, WorkerIdx};

const MISMATCH: &[&str] = &["dropped", "drop_vlan_mismatch"];
const STACKED: &[&str] = &["dropped", "drop_vlan_stacked"];

#[test]
fn a_frame_has_no_tag_but_that_of_its_priority() {
    for family in families() {
        let syn = || family.tcp(CLIENT, VIP, SYN);
        family.lb(FULL_NAT).check(&[
            ("a VLAN", syn().tagged(100).into(), Dropped(DropReason::VlanMismatch), MISMATCH),
            (
                "a service tag",
                syn().tagged(100).put(12, &[0x88, 0xa8]).into(),
                Dropped(DropReason::VlanStacked),
                STACKED,
            ),
            (
                "a tag behind that of its priority",
                syn().tagged(0xe000).put(16, &[0x81, 0x00]).into(),
                Dropped(DropReason::VlanStacked),
                STACKED,
            ),
            (
                "a priority tag is taken in, and off",
                syn().tagged(0xe000).into(),
                Tx(family.tcp(SNAT, BACKEND, SYN).leaving()),
                NEW,
            ),
            (
                "and the padding stays",
                family.tcp("203.0.113.7:40001", VIP, SYN).tagged(0xe000).padded_to(94).into(),
                Tx(family.tcp("10.0.0.200:0", BACKEND, SYN).leaving().padded_to(90)),
                NEW,
            ),
        ]);
    }
}

#[test]
fn a_frame_waits_without_its_priority_tag() {
    for family in families() {
        let spec = "192.0.2.10:80/tcp backend=10.0.1.99:8080 snat=10.0.0.200";
        let mut lb = family.lb(spec);
        let tagged = family.tcp(CLIENT, VIP, SYN).tagged(0xe000);
        let (exit, left) = lb.send_to(WorkerIdx(0), tagged.into());
        let address = family.address("10.0.1.99");
        assert_eq!(exit, Exit::Hold(NextHopKey { port: PortIdx(0), address }));
        let ether_type = if family == Family::V4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        assert_eq!(left[12..14], ether_type);
    }
}
