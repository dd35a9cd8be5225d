//! IPv6 extension headers: what rides along, and what is lost by name.

use super::{BACKEND, CLIENT, DNAT, FROM, FULL_NAT, FULL_NAT_UDP, NEW, SNAT, TO, VIP};
use crate::testing::Family::V6;
use crate::testing::{Dropped, Leaves, NOWHERE, Punted, TestPacket, Tx};
use crate::wire::ipv6::{DESTINATION, FRAGMENT, HOP_BY_HOP, MAX_EXTENSIONS, ROUTING};
use crate::wire::tcp::{ACK, SYN};
use crate::{DropReason, Exit, PuntClass, WorkerIdx};

/// Options that say nothing: a PadN of four (RFC 8200 §4.2).
const PADDING: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
/// A segment routing header whose last segment is reached (RFC 8754 §2).
const ARRIVED: &[u8] =
    &[0, 2, 4, 0, 0, 0, 0, 0, 32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
/// A fragment header of a packet that is whole (RFC 6946 §2.1).
const ATOMIC: &[u8] = &[0, 0, 0, 0, 0, 0, 0x12, 0x34];

/// One header of this many bytes.
fn long(bytes: usize) -> Vec<u8> {
    let mut header = vec![0; bytes];
    header[1] = u8::try_from(bytes / 8 - 1).expect("256 units at most");
    header
}

fn times(packet: TestPacket, headers: usize) -> TestPacket {
    (0..headers).fold(packet, |packet, _| packet.extended(DESTINATION, PADDING))
}

#[test]
fn extension_headers_ride_along_both_ways_in_both_modes() {
    type With = fn(TestPacket) -> TestPacket;
    let rows: &[(&str, With)] = &[
        ("options for every hop", |packet| packet.extended(HOP_BY_HOP, PADDING)),
        ("options for the destination", |packet| packet.extended(DESTINATION, PADDING)),
        ("a route that is at its end", |packet| packet.extended(ROUTING, ARRIVED)),
        ("an atomic fragment", |packet| packet.extended(FRAGMENT, ATOMIC)),
        ("all of them, in no order", |packet| {
            packet
                .extended(HOP_BY_HOP, PADDING)
                .extended(FRAGMENT, ATOMIC)
                .extended(DESTINATION, &long(64))
                .extended(ROUTING, ARRIVED)
                .extended(DESTINATION, PADDING)
        }),
        ("eight of them", |packet| times(packet, MAX_EXTENSIONS)),
        ("256 bytes of them", |packet| packet.extended(DESTINATION, &long(256))),
        ("and padding is none", |packet| packet.extended(DESTINATION, PADDING).padded_to(200)),
    ];
    for (promise, with) in rows {
        let with = |from, to, flags| with(V6.tcp(from, to, flags));
        for (spec, outside) in [(FULL_NAT, SNAT), (DNAT, CLIENT)] {
            V6.lb(spec).check(&[
                (
                    promise,
                    with(CLIENT, VIP, SYN).into(),
                    Tx(with(outside, BACKEND, SYN).leaving()),
                    NEW,
                ),
                (
                    promise,
                    with(BACKEND, outside, SYN | ACK).into(),
                    Tx(with(VIP, CLIENT, SYN | ACK).leaving()),
                    FROM,
                ),
                (
                    "the flow is that of packets without",
                    V6.tcp(CLIENT, VIP, ACK).into(),
                    Tx(V6.tcp(outside, BACKEND, ACK).leaving()),
                    TO,
                ),
            ]);
        }
    }
}

#[test]
fn a_datagram_behind_extension_headers() {
    let with = |from, to| V6.udp(from, to, b"who").extended(DESTINATION, PADDING);
    V6.lb(FULL_NAT_UDP).check(&[(
        "is one like any other",
        with(CLIENT, "192.0.2.10:53").into(),
        Tx(with(SNAT, "10.0.0.3:5300").leaving()),
        NEW,
    )]);
}

#[test]
fn what_cannot_be_forwarded_is_lost_by_name() {
    let syn = || V6.tcp(CLIENT, VIP, SYN);
    let beyond = |header: &[u8], len: u8| {
        let mut header = header.to_vec();
        header[1] = len;
        header
    };
    let rows: Vec<(&str, TestPacket, DropReason)> = vec![
        ("nine headers", times(syn(), 9), DropReason::ExtensionHeaders),
        ("264 bytes", syn().extended(DESTINATION, &long(264)), DropReason::ExtensionHeaders),
        (
            "264 bytes in two",
            syn().extended(DESTINATION, &long(136)).extended(DESTINATION, &long(128)),
            DropReason::ExtensionHeaders,
        ),
        (
            "options for every hop, but not first",
            syn().extended(DESTINATION, PADDING).extended(HOP_BY_HOP, PADDING),
            DropReason::ExtensionHeaders,
        ),
        (
            "a routing header of type 0",
            syn().extended(ROUTING, &[0, 0, 0, 1, 0, 0, 0, 0]),
            DropReason::RoutingHeader,
        ),
        (
            "even at its end",
            syn().extended(ROUTING, &[0, 0, 0, 0, 0, 0, 0, 0]),
            DropReason::RoutingHeader,
        ),
        (
            "a segment to go",
            syn().extended(ROUTING, &[0, 0, 4, 1, 0, 0, 0, 0]),
            DropReason::RoutingHeader,
        ),
        ("a first piece of 20 bytes", syn().piece(0, true), DropReason::FragmentLength),
        ("a piece of the TCP header", syn().piece(2, false), DropReason::FragmentTiny),
        (
            "a piece behind options",
            syn().extended(DESTINATION, PADDING).piece(2, false),
            DropReason::FragmentTiny,
        ),
        ("a piece of a piece", syn().piece(0, true).piece(0, true), DropReason::ExtensionHeaders),
        (
            "a header longer than the packet",
            syn().extended(DESTINATION, &beyond(PADDING, 30)),
            DropReason::Truncated,
        ),
        (
            "a header that leaves half a TCP header",
            syn().extended(DESTINATION, &beyond(PADDING, 1)),
            DropReason::Truncated,
        ),
        (
            "a jumbogram",
            syn().extended(HOP_BY_HOP, &[0, 0, 0xc2, 4, 0, 1, 0, 0]).put(18, &[0, 0]),
            DropReason::IpHeader,
        ),
    ];
    let mut lb = V6.lb(FULL_NAT);
    for (promise, packet, reason) in rows {
        let counted = ["dropped".to_owned(), format!("drop_{}", reason.name())];
        let counted: Vec<&str> = counted.iter().map(String::as_str).collect();
        let leaves: Leaves = Dropped(reason);
        lb.check(&[(promise, packet.into(), leaves, &counted)]);
    }
    assert_eq!(lb.flows(), []);
}

#[test]
fn what_we_cannot_look_into_is_the_kernels() {
    let to_vip = |number: u8| V6.tcp(CLIENT, VIP, SYN).put(20, &[number]);
    let mut lb = V6.lb(FULL_NAT);
    for (promise, number) in [("ESP", 50), ("AH", 51), ("nothing next", 59), ("mobility", 135)] {
        lb.check(&[(promise, to_vip(number).into(), Punted(PuntClass::Other), &["punted"])]);
    }
}

#[test]
fn a_packet_cut_in_its_extension_headers_is_dropped_by_name() {
    let packet = V6.tcp(CLIENT, VIP, SYN).extended(HOP_BY_HOP, PADDING).extended(ROUTING, ARRIVED);
    let whole = packet.bytes();
    for len in 0..whole.len() {
        let mut cut = whole[..len].to_vec();
        let exit = |frame: &[u8]| V6.lb(FULL_NAT).send_to(WorkerIdx(0), frame.to_vec()).0;
        assert_eq!(exit(&cut), Exit::Drop(DropReason::Truncated), "{len} bytes");
        if let Some(payload_len) = len.checked_sub(54 + 1) {
            cut[18..20].copy_from_slice(&u16::try_from(payload_len + 1).unwrap().to_be_bytes());
            assert_eq!(
                exit(&cut),
                Exit::Drop(DropReason::Truncated),
                "{len} bytes, and it says so"
            );
        }
    }
}

#[test]
fn a_held_packet_with_extension_headers_goes_on() {
    let mut lb = V6.lb("192.0.2.10:80/tcp backend=10.0.1.99:8080 snat=10.0.0.200");
    let syn = V6.tcp(CLIENT, VIP, SYN).extended(DESTINATION, PADDING);
    let (exit, mut held) = lb.send_to(WorkerIdx(0), syn.into());
    assert!(matches!(exit, Exit::Hold(_)), "{exit:?}");
    lb.resolve(V6.address("10.0.1.99"));
    let snapshot = lb.snapshot.clone();
    let resumed = lb.worker_mut(WorkerIdx(0)).resume(&mut held, NOWHERE, &snapshot);
    assert_eq!(resumed, Exit::Send(crate::PortIdx(0)));
}
