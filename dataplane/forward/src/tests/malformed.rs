//! Truncated and lying packets, at every layer: each has a name, none a flow.

use super::{CLIENT, FULL_NAT, FULL_NAT_UDP, VIP, families};
use crate::testing::{Dropped, Family, Leaves, TestLb, TestPacket, tcp};
use crate::wire::tcp::SYN;
use crate::{DropReason, WorkerIdx};

/// As the packet says, but with another length of what follows the IP header.
fn claims(family: Family, packet: &TestPacket, l4_len: u8) -> Vec<u8> {
    match family {
        Family::V4 => lie(packet, 16, &[0, 20 + l4_len]),
        Family::V6 => packet.clone().put(18, &[0, l4_len]).into(),
    }
}

/// Overwrites bytes of the IPv4 header and mends its checksum.
fn lie(packet: &TestPacket, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = packet.bytes();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    let header_len = usize::from(frame[14] & 0x0f) * 4;
    frame[24..26].copy_from_slice(&[0, 0]);
    let end = (14 + header_len.max(20)).min(frame.len());
    let sum = !crate::wire::checksum::sum(&frame[14..end]);
    frame[24..26].copy_from_slice(&sum.to_ne_bytes());
    frame
}

fn check(spec: &str, rows: Vec<(&str, Vec<u8>, DropReason)>) {
    let mut lb = TestLb::with(spec);
    for (promise, frame, reason) in rows {
        let counted = ["dropped".to_owned(), format!("drop_{}", reason.name())];
        let counted: Vec<&str> = counted.iter().map(String::as_str).collect();
        let leaves: Leaves = Dropped(reason);
        lb.check(&[(promise, frame, leaves, &counted)]);
    }
    assert_eq!(lb.flows(), []);
}

#[test]
fn ethernet_and_ipv4() {
    let syn = tcp(CLIENT, VIP, SYN);
    check(
        FULL_NAT,
        vec![
            ("nothing at all", vec![], DropReason::Truncated),
            ("half an Ethernet header", syn.clone().cut_to(13).into(), DropReason::Truncated),
            ("half a VLAN tag", syn.clone().tagged(5).cut_to(16).into(), DropReason::Truncated),
            ("no IP header", syn.clone().cut_to(14).into(), DropReason::Truncated),
            ("half an IP header", syn.clone().cut_to(33).into(), DropReason::Truncated),
            ("version 6 in an IPv4 frame", lie(&syn, 14, &[0x65]), DropReason::IpHeader),
            ("version 0", lie(&syn, 14, &[0x05]), DropReason::IpHeader),
            ("a header of 16 bytes", lie(&syn, 14, &[0x44]), DropReason::IpHeader),
            ("options beyond the packet", lie(&syn, 14, &[0x4f]), DropReason::IpHeader),
            ("a total length of 0", lie(&syn, 16, &[0, 0]), DropReason::IpHeader),
            ("a total length below the header", lie(&syn, 16, &[0, 19]), DropReason::IpHeader),
            ("a total length beyond the frame", lie(&syn, 16, &[0, 41]), DropReason::Truncated),
            ("a total length of 65 535", lie(&syn, 16, &[0xff, 0xff]), DropReason::Truncated),
            (
                "a wrong header checksum",
                syn.clone().put(24, &[0xde, 0xad]).into(),
                DropReason::IpChecksum,
            ),
            (
                "a right one complemented",
                syn.clone().put(24, &[0, 0]).into(),
                DropReason::IpChecksum,
            ),
        ],
    );
}

#[test]
fn ipv6() {
    let syn = Family::V6.tcp(CLIENT, VIP, SYN);
    check(
        &Family::V6.text(FULL_NAT),
        vec![
            ("half a VLAN tag", syn.clone().tagged(5).cut_to(16).into(), DropReason::Truncated),
            ("no IP header", syn.clone().cut_to(14).into(), DropReason::Truncated),
            ("half an IP header", syn.clone().cut_to(53).into(), DropReason::Truncated),
            (
                "version 4 in an IPv6 frame",
                syn.clone().put(14, &[0x45]).into(),
                DropReason::IpHeader,
            ),
            ("version 0", syn.clone().put(14, &[0x05]).into(), DropReason::IpHeader),
            ("a payload of 0", syn.clone().put(18, &[0, 0]).into(), DropReason::Truncated),
            (
                "a payload beyond the frame",
                syn.clone().put(18, &[0, 21]).into(),
                DropReason::Truncated,
            ),
            (
                "a payload of 65 535",
                syn.clone().put(18, &[0xff, 0xff]).into(),
                DropReason::Truncated,
            ),
        ],
    );
}

#[test]
fn tcp_and_udp() {
    for family in families() {
        let syn = family.tcp(CLIENT, VIP, SYN);
        check(
            &family.text(FULL_NAT),
            vec![
                (
                    "half a TCP header is no flow",
                    syn.clone().cut_to(family.l4() + 10).into(),
                    DropReason::Truncated,
                ),
                ("nor when IP says so too", claims(family, &syn, 10), DropReason::Truncated),
                ("nor when there is no TCP at all", claims(family, &syn, 0), DropReason::Truncated),
                (
                    "a data offset of 4",
                    syn.clone().put_l4(12, &[0x40]).into(),
                    DropReason::L4Header,
                ),
                (
                    "a data offset of 0",
                    syn.clone().put_l4(12, &[0x00]).into(),
                    DropReason::L4Header,
                ),
                (
                    "a data offset beyond the segment",
                    syn.clone().put_l4(12, &[0x60]).into(),
                    DropReason::L4Header,
                ),
            ],
        );
        let datagram = family.udp(CLIENT, "192.0.2.10:53", b"query");
        check(
            &family.text(FULL_NAT_UDP),
            vec![
                (
                    "half a UDP header",
                    datagram.clone().cut_to(family.l4() + 7).into(),
                    DropReason::Truncated,
                ),
                ("nor when IP says so too", claims(family, &datagram, 7), DropReason::Truncated),
                (
                    "a UDP length of 7",
                    datagram.clone().put_l4(4, &[0, 7]).into(),
                    DropReason::L4Header,
                ),
                (
                    "a UDP length of 0",
                    datagram.clone().put_l4(4, &[0, 0]).into(),
                    DropReason::L4Header,
                ),
                (
                    "a UDP length beyond the packet",
                    datagram.clone().put_l4(4, &[0, 14]).into(),
                    DropReason::Truncated,
                ),
            ],
        );
    }
}

/// Every prefix of a good packet, in an exactly fitting buffer, is dropped and nothing more.
#[test]
fn a_packet_cut_anywhere_is_dropped_by_name() {
    let packets = families().flat_map(|family| {
        let [tcp, udp] =
            [family.tcp(CLIENT, VIP, SYN), family.udp(CLIENT, "192.0.2.10:53", b"query")];
        [(family, tcp.bytes()), (family, udp.bytes())]
    });
    for (family, whole) in packets {
        for len in 0..whole.len() {
            let mut lb = family.lb(FULL_NAT);
            let (exit, _) = lb.send_to(WorkerIdx(0), whole[..len].to_vec());
            assert_eq!(exit, crate::Exit::Drop(DropReason::Truncated), "{len} bytes");
        }
    }
}

/// Trailing bytes are Ethernet padding, even inside a UDP datagram that is shorter than its packet.
#[test]
fn a_udp_length_below_the_packets_is_let_through() {
    for family in families() {
        let mut lb = family.lb(FULL_NAT_UDP);
        let packet = family.udp(CLIENT, "192.0.2.10:53", b"query").put_l4(4, &[0, 10]);
        let (exit, _) = lb.send_to(WorkerIdx(0), packet.into());
        assert!(matches!(exit, crate::Exit::Send(_)));
    }
}
