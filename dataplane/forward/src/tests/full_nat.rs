//! Full NAT: the backend sees one of our addresses, the client the VIP.

use super::{BACKEND, CLIENT, FROM, FULL_NAT, FULL_NAT_UDP, NEW, SNAT, TO, VIP, families};
use crate::DropReason;
use crate::testing::{Dropped, Family, TestLb, Tx, tcp, udp};
use crate::wire::tcp::{ACK, FIN, RST, SYN};

#[test]
fn a_tcp_connection_through_full_nat() {
    for family in families() {
        let mut lb = family.lb(FULL_NAT);
        let data = b"GET / HTTP/1.0\r\n\r\n";
        lb.check(&[
            // promise, packet in, what leaves, what is counted and nothing else
            (
                "a SYN reaches its backend",
                family.tcp(CLIENT, VIP, SYN).into(),
                Tx(family.tcp(SNAT, BACKEND, SYN).leaving()),
                NEW,
            ),
            (
                "the same SYN again takes the same port",
                family.tcp(CLIENT, VIP, SYN).into(),
                Tx(family.tcp(SNAT, BACKEND, SYN).leaving()),
                TO,
            ),
            (
                "the answer comes from the VIP",
                family.tcp(BACKEND, SNAT, SYN | ACK).into(),
                Tx(family.tcp(VIP, CLIENT, SYN | ACK).leaving()),
                FROM,
            ),
            (
                "data of odd length",
                family.tcp(CLIENT, VIP, ACK).carrying(&data[1..]).into(),
                Tx(family.tcp(SNAT, BACKEND, ACK).carrying(&data[1..]).leaving()),
                TO,
            ),
            (
                "padding is no data",
                family.tcp(CLIENT, VIP, ACK).padded_to(80).into(),
                Tx(family.tcp(SNAT, BACKEND, ACK).leaving().padded_to(80)),
                TO,
            ),
            (
                "data back",
                family.tcp(BACKEND, SNAT, ACK).carrying(data).into(),
                Tx(family.tcp(VIP, CLIENT, ACK).carrying(data).leaving()),
                FROM,
            ),
            (
                "a wrong checksum stays wrong",
                family.tcp(CLIENT, VIP, ACK).carrying(&[7; 4]).put_l4(20, &[8]).into(),
                Tx(family.tcp(SNAT, BACKEND, ACK).carrying(&[7; 4]).leaving().put_l4(20, &[8])),
                TO,
            ),
            (
                "a packet without a hop left is neither hit nor miss",
                family.tcp(CLIENT, VIP, ACK).ttl(1).into(),
                crate::testing::Leaves::Tx(super::icmp::time_exceeded(
                    family,
                    &family.tcp(CLIENT, VIP, ACK).ttl(1),
                )),
                &["sent", "time_exceeded"],
            ),
            (
                "FIN",
                family.tcp(CLIENT, VIP, ACK | FIN).into(),
                Tx(family.tcp(SNAT, BACKEND, ACK | FIN).leaving()),
                TO,
            ),
            (
                "RST",
                family.tcp(BACKEND, SNAT, RST).into(),
                Tx(family.tcp(VIP, CLIENT, RST).leaving()),
                FROM,
            ),
        ]);
        assert_eq!(lb.flows().len(), 1);
    }
}

#[test]
fn ip_options_ride_along() {
    let with_options = |mut packet: crate::testing::TestPacket| {
        packet.ip_options = vec![0x94, 4, 0, 0, 1, 1, 1, 0]; // router alert, padding
        packet
    };
    let mut lb = TestLb::with(FULL_NAT);
    lb.check(&[(
        "options are not touched",
        with_options(tcp(CLIENT, VIP, SYN)).into(),
        Tx(with_options(tcp(SNAT, BACKEND, SYN)).leaving()),
        NEW,
    )]);
}

#[test]
fn a_udp_exchange_through_full_nat() {
    for family in families() {
        const VIP: &str = "192.0.2.10:53";
        const BACKEND: &str = "10.0.0.3:5300";
        let mut lb = family.lb(FULL_NAT_UDP);
        lb.check(&[
            (
                "a datagram reaches its backend",
                family.udp(CLIENT, VIP, b"who").into(),
                Tx(family.udp(SNAT, BACKEND, b"who").leaving()),
                NEW,
            ),
            (
                "the answer comes from the VIP",
                family.udp(BACKEND, SNAT, b"me").into(),
                Tx(family.udp(VIP, CLIENT, b"me").leaving()),
                FROM,
            ),
            (
                "an empty datagram is one too",
                family.udp(CLIENT, VIP, b"").into(),
                Tx(family.udp(SNAT, BACKEND, b"").leaving()),
                TO,
            ),
            (
                "another port is no listener's",
                family.udp(CLIENT, "198.51.100.1:54", b"x").into(),
                Dropped(DropReason::NotRouted),
                &["flow_misses", "dropped", "drop_not_routed"],
            ),
        ]);
    }
}

/// Rooms take the families in turns, and use their places of one burst again in the next.
#[test]
fn a_burst_may_hold_both_families_in_any_order() {
    let mut lb = TestLb::with(&Family::BOTH.map(|family| family.text(FULL_NAT)).join("\n"));
    let client = |n: usize| format!("203.0.113.{}:40000", n / 2);
    let mut frames: Vec<Vec<u8>> =
        (0..crate::BURST).map(|n| Family::BOTH[n % 2].tcp(&client(n), VIP, SYN).into()).collect();
    for _ in 0..3 {
        let together = lb.send_burst(crate::WorkerIdx(0), frames.clone());
        for (frame, left) in frames.iter().zip(together) {
            assert_eq!(left.0, crate::Exit::Send(crate::PortIdx(0)));
            assert_eq!(left, lb.send_to(crate::WorkerIdx(0), frame.clone()), "as if it were alone");
        }
        frames.rotate_left(1);
    }
    assert_eq!(lb.flows().len(), crate::BURST);
}

/// IPv6 lets no datagram go without (RFC 8200 §8.1).
#[test]
fn no_udp_checksum_stays_no_udp_checksum() {
    let mut lb = TestLb::with(FULL_NAT_UDP);
    lb.check(&[(
        "zero says that none was computed",
        udp(CLIENT, "192.0.2.10:53", b"x").without_checksum().into(),
        Tx(udp(SNAT, "10.0.0.3:5300", b"x").without_checksum().leaving()),
        NEW,
    )]);
    let mut lb = Family::V6.lb(FULL_NAT_UDP);
    lb.check(&[(
        "and is wrong over IPv6",
        Family::V6.udp(CLIENT, "192.0.2.10:53", b"x").without_checksum().into(),
        Dropped(DropReason::L4Checksum),
        &["dropped", "drop_l4_checksum"],
    )]);
}

/// 0xffff stands for a computed zero, since zero says that none was computed.
#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_its_other_form() {
    for family in families() {
        const VIP: &str = "192.0.2.10:53";
        let mut lb = family.lb(FULL_NAT_UDP);
        let checksum = family.l4() + 6;
        let mut zeros = 0;
        for word in 0..=u16::MAX {
            let packet = family.udp(CLIENT, VIP, &word.to_be_bytes());
            let (_, left) = lb.send_to(crate::WorkerIdx(0), packet.into());
            assert_ne!(left[checksum..][..2], [0, 0], "payload {word:#06x}");
            zeros += u32::from(left[checksum..][..2] == [0xff, 0xff]);
        }
        assert_eq!(zeros, 1, "one payload of all makes the sum zero");
    }
}

#[test]
fn each_backend_has_all_snat_ports_to_itself() {
    for family in families() {
        let mut lb = family.lb(
        "192.0.2.10:80/tcp backend=10.0.0.3:80 backend=10.0.0.4:80 snat=10.0.0.200 snat=10.0.0.201",
    );
        let mut seen = std::collections::HashSet::new();
        for port in 2000..2900 {
            let (exit, _) = lb.send_to(
                crate::WorkerIdx(0),
                family.tcp(&format!("203.0.113.7:{port}"), VIP, SYN).into(),
            );
            assert!(matches!(exit, crate::Exit::Send(_)), "{exit:?}");
        }
        for flow in lb.flows() {
            assert!(flow.outside.port() >= 1024);
            assert!(seen.insert((flow.backend, flow.outside)), "a reply tuple is unique");
        }
        assert_eq!(seen.len(), 900);
    }
}

/// A backend that closes first keeps the connection in TIME-WAIT, and takes no SYN from that port.
#[test]
fn a_port_just_freed_is_the_last_to_be_taken_again() {
    for family in families() {
        let mut lb = family.lb(FULL_NAT_UDP);
        let mut seen = std::collections::HashSet::new();
        for round in 0..6 {
            for client in 0..500 {
                let client = format!("203.0.{round}.7:{}", 2000 + client);
                let (exit, left) = lb.send_to(
                    crate::WorkerIdx(0),
                    family.udp(&client, "192.0.2.10:53", b"who").into(),
                );
                assert!(matches!(exit, crate::Exit::Send(_)), "{exit:?}");
                assert!(
                    seen.insert([left[family.l4()], left[family.l4() + 1]]),
                    "a port of an earlier flow"
                );
            }
            lb.sleep_ms(600_000);
            assert_eq!(lb.flows().len(), 0);
        }
    }
}

/// The walk comes round to connections that were opened one after the other and are still there.
#[test]
fn a_run_of_taken_ports_costs_no_connection() {
    for family in families() {
        const WORKERS: u8 = 64; // 1008 ports each
        let mut lb = TestLb::sized(WORKERS, 1024, &family.text(FULL_NAT_UDP));
        let mut clients = (0_u32..).map(|n| {
            let [_, high, middle, low] = n.to_be_bytes();
            format!("203.{high}.{middle}.{low}:4000")
        });
        let exit = |lb: &mut TestLb, client: &str| {
            lb.send_to(crate::WorkerIdx(0), family.udp(client, "192.0.2.10:53", b"who").into()).0
        };
        let mut open = |lb: &mut TestLb, flows: usize| -> Vec<String> {
            let sent = clients.by_ref().filter(|client| match exit(lb, client) {
                crate::Exit::Send(_) => true,
                crate::Exit::HandOver(_) => false,
                lost => panic!("{lost:?}"),
            });
            sent.take(flows).collect()
        };
        let stay = open(&mut lb, 500);
        open(&mut lb, 500);
        let timeout_ms = lb.snapshot.timeouts().udp_one_way_ms;
        lb.sleep_ms(timeout_ms / 2);
        for client in &stay {
            assert!(matches!(exit(&mut lb, client), crate::Exit::Send(_)));
        }
        lb.sleep_ms(timeout_ms / 2 + 1);
        assert_eq!(lb.flows().len(), 500);
        open(&mut lb, 250);
        assert_eq!(lb.flows().len(), 750);
    }
}

/// Hairpin: a backend is a client too, and Maglev may send it to itself. Its answer finds us by the SNAT address.
#[test]
fn a_backend_may_be_its_own_client() {
    let (client, vip) = ("10.0.0.3:40000", VIP);
    for family in families() {
        family.lb(FULL_NAT).check(&[
            (
                "the request comes back from a SNAT address",
                family.tcp(client, vip, SYN).into(),
                Tx(family.tcp(SNAT, BACKEND, SYN).leaving()),
                NEW,
            ),
            (
                "and the answer from the VIP",
                family.tcp(BACKEND, SNAT, SYN | ACK).into(),
                Tx(family.tcp(vip, client, SYN | ACK).leaving()),
                FROM,
            ),
        ]);
    }
}
