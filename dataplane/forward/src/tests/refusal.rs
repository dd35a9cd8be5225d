//! A group that has nobody to serve says so: RST to TCP, a named drop to UDP.

use super::{CLIENT, VIP, families};
use crate::testing::{BOX_MAC, Dropped, Family, ROUTER, TestLb, TestPacket, Tx, mac_towards};
use crate::wire::ipv6;
use crate::wire::tcp::{ACK, RST, SYN};
use crate::{BackendId, DropReason, Exit, WorkerIdx};

const NOBODY: &str = "192.0.2.10:80/tcp snat=10.0.0.200";
const REFUSED: &[&str] = &["flow_misses", "refused", "sent", "listener_refused"];

/// The RST of a closed port, back to the router.
fn rst(family: Family, acknowledgement: u32) -> TestPacket {
    let mut rst = family.tcp(VIP, CLIENT, RST | ACK).numbered(0, acknowledgement).ttl(64);
    rst.macs = [mac_towards(family.of(ROUTER)), BOX_MAC];
    rst.ip_id_and_fragment = [0, 0, 0x40, 0];
    rst.window = 0;
    rst
}

#[test]
fn a_syn_without_a_backend_is_answered_by_rst() {
    for family in families() {
        let mut lb = family.lb(NOBODY);
        let syn = family.tcp(CLIENT, VIP, SYN).numbered(1000, 0);
        let mut options = syn.clone().extended(ipv6::DESTINATION, &[0, 0, 1, 4, 0, 0, 0, 0]);
        options.ip_options = vec![1, 1, 1, 0];
        lb.check(&[
            ("SEQ=0, ACK=SEG.SEQ+1", syn.clone().into(), Tx(rst(family, 1001)), REFUSED),
            (
                "data on the SYN counts",
                syn.clone().carrying(b"hello").into(),
                Tx(rst(family, 1006).padded_to_zero(59)),
                REFUSED,
            ),
            (
                "the length is cut to the least frame",
                syn.clone().carrying(&[1; 500]).into(),
                Tx(rst(family, 1501).padded_to_zero(60)),
                REFUSED,
            ),
            (
                "IP options and extension headers are dropped",
                options.into(),
                Tx(rst(family, 1001).padded_to_zero(58)),
                REFUSED,
            ),
            (
                "the sequence number wraps",
                syn.clone().numbered(u32::MAX, 0).into(),
                Tx(rst(family, 0)),
                REFUSED,
            ),
            (
                "a RST is never answered",
                family.tcp(CLIENT, VIP, RST).into(),
                Dropped(DropReason::NoFlow),
                &["flow_misses", "dropped", "drop_no_flow"],
            ),
            (
                "nor is an ACK that no flow has",
                family.tcp(CLIENT, VIP, ACK).into(),
                Dropped(DropReason::NoFlow),
                &["flow_misses", "dropped", "drop_no_flow"],
            ),
        ]);
        assert_eq!(lb.flows(), []);
    }
}

#[test]
fn a_refusal_keeps_the_vlan_tag() {
    for family in families() {
        let mut lb = family.lb(NOBODY);
        let (exit, left) =
            lb.send_to(WorkerIdx(0), family.tcp(CLIENT, VIP, SYN).tagged(0x6000).into());
        assert_eq!(exit, Exit::Send(crate::PortIdx(0)));
        assert_eq!(left[12..16], [0x81, 0x00, 0x60, 0x00]);
        assert_eq!(left[4 + family.l4() + 13], RST | ACK);
    }
}

#[test]
fn a_datagram_without_a_backend_is_dropped_by_name() {
    for family in families() {
        let mut lb = family.lb("192.0.2.10:53/udp backend=10.0.0.3:53*0 snat=10.0.0.200");
        lb.check(&[(
            "weights all zero",
            family.udp(CLIENT, "192.0.2.10:53", b"x").into(),
            Dropped(DropReason::NoBackend),
            &["flow_misses", "dropped", "drop_no_backend", "listener_no_backend"],
        )]);
    }
}

#[test]
fn the_refused_share_is_refused_and_the_rest_served() {
    for family in families() {
        let mut lb = TestLb::sized(
            1,
            4096,
            &family.text("192.0.2.10:80/tcp backend=10.0.0.3:80*3 refused=1 snat=10.0.0.200"),
        );
        let mut refused = 0;
        for port in 10000..12000 {
            let (_, left) = lb
                .send_to(WorkerIdx(0), family.tcp(&format!("203.0.113.7:{port}"), VIP, SYN).into());
            refused += u32::from(left[family.l4() + 13] & RST != 0);
        }
        assert!((400..600).contains(&refused), "a quarter of 2000, found {refused}");
        assert_eq!(lb.flows().len() as u32 + refused, 2000);
    }
}

#[test]
fn a_draining_backend_keeps_its_flows_and_gets_no_others() {
    for family in families() {
        let both = "192.0.2.10:80/tcp backend=10.0.0.3:80 backend=10.0.0.4:80 snat=10.0.0.200";
        let mut lb = TestLb::sized(1, 4096, &family.text(both));
        let syn = |port: u16, flags| family.tcp(&format!("203.0.113.7:{port}"), VIP, flags);
        for port in 2000..2400 {
            lb.send_to(WorkerIdx(0), syn(port, SYN).into());
        }
        let draining = lb.backend_gauge(BackendId(3), 0);
        assert!((100..300).contains(&draining));
        lb.reconfigure(&family.text(
            "192.0.2.10:80/tcp backend=10.0.0.3:80*drain backend=10.0.0.4:80 snat=10.0.0.200",
        ));
        for port in 2000..2400 {
            let (exit, _) = lb.send_to(WorkerIdx(0), syn(port, SYN).into());
            assert_eq!(exit, Exit::Send(crate::PortIdx(0)));
        }
        assert_eq!(lb.backend_gauge(BackendId(3), 0), draining, "no flow moved");
        for port in 3000..3400 {
            lb.send_to(WorkerIdx(0), syn(port, SYN).into());
        }
        assert_eq!(lb.backend_gauge(BackendId(3), 0), draining, "no flow came");
        assert_eq!(lb.flows().len(), 800);
    }
}
