//! Who cannot be served is told so: RST to TCP, a named drop to UDP, or as the listener says.

use super::{CLIENT, VIP, families};
use crate::testing::{
    BOX_MAC, Dropped, Family, Leaves, ROUTER, TestLb, TestPacket, Tx, mac_towards,
};
use crate::wire::ipv6;
use crate::wire::tcp::{ACK, RST, SYN};
use crate::{BackendId, DropReason, Exit, PortIdx, WorkerIdx};

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
            &["flow_misses", "dropped", "drop_no_backend", "listener_refused"],
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

const VIP_UDP: &str = "192.0.2.10:53";
/// Full NAT without an address to take, and a group without a backend.
const EXHAUSTED: &str = "192.0.2.10:80/tcp backend=10.0.0.3:80
    192.0.2.10:53/udp backend=10.0.0.3:53";
const EMPTY: &str = "192.0.2.10:80/tcp snat=10.0.0.200
    192.0.2.10:53/udp snat=10.0.0.200";

fn with_policy(spec: &str, policy: &str) -> String {
    spec.lines().map(|line| format!("{line} on-exhaustion={policy}\n")).collect()
}

#[test]
fn who_gets_no_snat_port_or_no_backend_is_told_as_the_listener_says() {
    type Counted = &'static [&'static str];
    const LOST: Counted =
        &["flow_misses", "dropped", "drop_no_snat_address", "exhausted", "listener_refused"];
    const TOLD: Counted = &["flow_misses", "sent", "unreachable", "exhausted", "listener_refused"];
    const RESET: Counted = &["flow_misses", "sent", "refused", "exhausted", "listener_refused"];
    const NOBODY: Counted = &["flow_misses", "dropped", "drop_no_backend", "listener_refused"];
    const NOBODY_TOLD: Counted = &["flow_misses", "sent", "unreachable", "listener_refused"];
    let (no_address, no_backend) = (DropReason::NoSnatAddress, DropReason::NoBackend);
    for family in families() {
        let syn = family.tcp(CLIENT, VIP, SYN).numbered(1000, 0);
        let udp = family.udp(CLIENT, VIP_UDP, b"who is it?");
        let (refused, told) = (Tx(rst(family, 1001)), super::icmp::port_unreachable);
        let (syn_told, udp_told) = (Leaves::Tx(told(family, &syn)), Leaves::Tx(told(family, &udp)));
        let (syn_padded, udp_padded) = (syn.clone().padded_to(60), udp.clone().padded_to(60));
        // promise, listeners, policy, packet in, what leaves, what is counted and nothing else
        let rows: [(&str, &str, &str, &TestPacket, Leaves, Counted); 13] = [
            ("a SYN by RST", EXHAUSTED, "reset", &syn, refused.clone(), RESET),
            ("a datagram not at all", EXHAUSTED, "reset", &udp, Dropped(no_address), LOST),
            ("a SYN by ICMP", EXHAUSTED, "icmp", &syn, syn_told.clone(), TOLD),
            ("without its padding", EXHAUSTED, "icmp", &syn_padded, syn_told, TOLD),
            ("a datagram by ICMP", EXHAUSTED, "icmp", &udp, udp_told.clone(), TOLD),
            ("a SYN not at all", EXHAUSTED, "drop", &syn, Dropped(no_address), LOST),
            ("nor a datagram", EXHAUSTED, "drop", &udp, Dropped(no_address), LOST),
            ("no backend: a datagram", EMPTY, "reset", &udp, Dropped(no_backend), NOBODY),
            ("no backend: by ICMP", EMPTY, "icmp", &udp, udp_told.clone(), NOBODY_TOLD),
            ("and not its padding", EMPTY, "icmp", &udp_padded, udp_told, NOBODY_TOLD),
            ("no backend: not at all", EMPTY, "drop", &udp, Dropped(no_backend), NOBODY),
            ("a SYN is refused by RST in any case", EMPTY, "icmp", &syn, refused.clone(), REFUSED),
            ("or if others are not told", EMPTY, "drop", &syn, refused, REFUSED),
        ];
        for (promise, spec, policy, packet, leaves, counted) in rows {
            let mut lb = family.lb(&with_policy(spec, policy));
            lb.check(&[(promise, packet.bytes(), leaves, counted)]);
            assert_eq!(lb.flows(), []);
        }
    }
}

/// The packet is quoted where it lies, so that the answer of a short one is longer than it was, and a tag stays.
#[test]
fn an_answer_by_icmp_quotes_packets_of_any_length_and_keeps_the_vlan_tag() {
    for family in families() {
        for bytes in [0, 1, 2, 17, 511, 512, 1400] {
            let udp = family.udp(CLIENT, VIP_UDP, &vec![7; bytes]);
            let expected = super::icmp::port_unreachable(family, &udp);
            for tag in [None, Some(0x6000)] {
                let mut lb = family.lb(&with_policy(EMPTY, "icmp"));
                let tagged = tag.map_or(udp.clone(), |tag| udp.clone().tagged(tag));
                let (exit, left) = lb.send_to(WorkerIdx(0), tagged.bytes());
                assert_eq!(exit, Exit::Send(PortIdx(0)));
                let (link, packet) = left.split_at(if tag.is_some() { 18 } else { 14 });
                assert_eq!((&link[..12], packet), (&expected[..12], &expected[14..]), "{bytes}");
                assert!(tag.is_none() || link[12..16] == [0x81, 0x00, 0x60, 0x00]);
            }
        }
    }
}

#[test]
fn answers_by_icmp_are_as_few_as_those_about_packets_too_large() {
    for family in families() {
        let mut lb = family.lb(&with_policy(EMPTY, "icmp"));
        let udp = family.udp(CLIENT, VIP_UDP, b"?").bytes();
        let sent = |lb: &mut TestLb, datagrams: u32| {
            let exits = (0..datagrams).map(|_| lb.send_to(WorkerIdx(0), udp.clone()).0);
            exits.filter(|exit| *exit == Exit::Send(PortIdx(0))).count()
        };
        assert_eq!(sent(&mut lb, 200), 100);
        lb.wait_ms(7);
        assert_eq!(sent(&mut lb, 20), 7);
        let lost = lb.send_to(WorkerIdx(0), udp.clone()).0;
        assert_eq!(lost, Exit::Drop(DropReason::NoBackend), "the others are lost by name");
    }
}
