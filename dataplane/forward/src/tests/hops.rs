//! A hop is taken from every packet that passes, once; its DSCP and ECN stay, inside a tunnel and outside of it.

use super::dsr::{self, tunnelled};
use super::icmp::time_exceeded;
use super::{CLIENT, VIP, families};
use crate::testing::{Family, TestLb, TestPacket, fragmented};
use crate::wire::tcp::{ACK, FIN, SYN};
use crate::{DropReason, Exit, PortIdx, WorkerIdx};

const SELF: WorkerIdx = WorkerIdx(0);
const SENT: Exit = Exit::Send(PortIdx(0));
const BACKEND: &str = "10.0.0.3:8080";
const MODES: [&str; 6] = ["full-nat", "dnat", "l2-dsr", "ipip", "gue", "gue-variant-0"];
/// DSCP and ECN: none; EF with either kind of ECN-capable and with congestion experienced; all.
const CLASSES: [u8; 5] = [0x00, 0xb9, 0xba, 0xbb, 0xff];

/// Modes, the family of their packets, and that of the backend.
fn modes() -> impl Iterator<Item = (&'static str, Family, Family)> {
    let tunnel = |mode: &str| !["full-nat", "dnat", "l2-dsr"].contains(&mode);
    families().flat_map(move |family| {
        let pairs = MODES.into_iter().flat_map(|mode| Family::BOTH.map(|outer| (mode, outer)));
        let possible = pairs.filter(move |(mode, outer)| *outer == family || tunnel(mode));
        possible.map(move |(mode, outer)| (mode, family, outer))
    })
}

/// A client's packet as it leaves for the backend.
fn expected(lb: &TestLb, mode: &str, packet: &TestPacket, outer: Family, left: &[u8]) -> Vec<u8> {
    let backend = outer.text(BACKEND).parse().unwrap();
    match mode {
        "full-nat" | "dnat" => {
            let mut rewritten = packet.clone();
            (rewritten.source, rewritten.destination) = (lb.flows()[0].outside, backend);
            rewritten.leaving().bytes()
        }
        "l2-dsr" => {
            let to_mac = crate::testing::mac_towards(backend.ip());
            packet.clone().leaving().to_mac(to_mac).bytes()
        }
        _ => tunnelled(packet, mode, outer, left),
    }
}

/// RFC 1812 §5.3.1, RFC 8200 §3; RFC 6040 §4.1 "normal mode" and RFC 2983 §3.1 for what is outside.
#[test]
fn every_mode_takes_one_hop_and_keeps_the_traffic_class() {
    for ((mode, family, outer), lane) in modes().flat_map(|m| ["", "closed"].map(|lane| (m, lane)))
    {
        let mut lb = dsr::lb(family, mode, outer);
        assert!(lane.is_empty() || lb.worker_mut(SELF).take_lane(lane));
        let passes = |lb: &mut TestLb, packet: &TestPacket| {
            let (exit, left) = lb.send_to(SELF, packet.bytes());
            assert_eq!(exit, SENT, "{mode} {family:?} in {outer:?}");
            let expected = expected(lb, mode, packet, outer, &left);
            assert_eq!(left, expected, "{mode} {family:?} in {outer:?}, lane {lane:?}");
        };
        let client = |flags| family.tcp(CLIENT, VIP, flags);
        passes(&mut lb, &client(SYN).ttl(2).classed(CLASSES[1]));
        if mode == "full-nat" || mode == "dnat" {
            let outside = lb.flows()[0].outside.to_string();
            let backend = |flags| family.tcp(BACKEND, &outside, flags);
            for (flags, class) in
                [(SYN | ACK, CLASSES[4])].into_iter().chain(CLASSES.map(|class| (ACK, class)))
            {
                for ttl in [2, 255] {
                    let (exit, left) =
                        lb.send_to(SELF, backend(flags).ttl(ttl).classed(class).bytes());
                    let to_client = family.tcp(VIP, CLIENT, flags).ttl(ttl).classed(class);
                    assert_eq!((exit, left), (SENT, to_client.leaving().bytes()), "{mode}");
                    passes(&mut lb, &client(ACK)); // the handshake is complete
                }
            }
        }
        let express = lb.worker_counter(SELF, "express");
        for class in CLASSES {
            for ttl in [2, 64, 255] {
                passes(&mut lb, &client(ACK).carrying(b"data").ttl(ttl).classed(class));
            }
        }
        let taken = lb.worker_counter(SELF, "express") - express;
        assert_eq!(taken > 0, lane.is_empty(), "{mode}: {taken} packets took the express lane");
        passes(&mut lb, &client(ACK | FIN).classed(CLASSES[3]));
    }
}

/// As [`dsr::lb`], and what a packet without a hop left belongs to: a flow there is, one there is not, a piece.
#[test]
fn who_sends_what_has_no_hop_left_is_told() {
    for (mode, family, outer) in modes() {
        for ttl in [0, 1] {
            let mut lb = dsr::lb(family, mode, outer);
            let told = |lb: &mut TestLb, packet: &TestPacket| {
                let before = lb.worker_counter(SELF, "time_exceeded");
                let (exit, left) = lb.send_to(SELF, packet.bytes());
                assert_eq!(exit, SENT, "{mode} {family:?} in {outer:?}");
                assert_eq!(left, time_exceeded(family, packet), "{mode} {family:?} in {outer:?}");
                assert_eq!(lb.worker_counter(SELF, "time_exceeded") - before, 1);
            };
            told(&mut lb, &family.tcp(CLIENT, VIP, SYN).ttl(ttl));
            assert_eq!(lb.flows(), [], "{mode}: it begins nothing");
            lb.send_to(SELF, family.tcp(CLIENT, VIP, SYN).into());
            told(&mut lb, &family.tcp(CLIENT, VIP, SYN).ttl(ttl).carrying(&[7; 1300]));
            told(&mut lb, &family.tcp(CLIENT, VIP, ACK).ttl(ttl).classed(0xbb));
            if mode == "full-nat" || mode == "dnat" {
                let outside = lb.flows()[0].outside.to_string();
                told(&mut lb, &family.tcp(BACKEND, &outside, SYN | ACK).ttl(ttl));
            }
        }
    }
}

#[test]
fn of_pieces_the_first_is_told_and_a_source_that_is_nobodys_is_not() {
    for (mode, family, outer) in modes() {
        let mut lb = dsr::lb(family, mode, outer);
        lb.send_to(SELF, family.tcp(CLIENT, VIP, SYN).into());
        let datagram = family.tcp(CLIENT, VIP, SYN).carrying(&[7; 44]).ttl(1).bytes();
        let pieces = fragmented(&datagram, 7, &[32, 32]);
        let exits = [0, 1].map(|nth| lb.carry(SELF, pieces[nth].clone())[0].0);
        let later = if family == Family::V6 { SENT } else { Exit::Drop(DropReason::TtlExpired) };
        assert_eq!(exits, [SENT, later], "{mode}: RFC 1122 section 3.2.2, which is about IPv4");

        let nobodys = family.tcp("203.0.113.7:0", VIP, SYN).ttl(1);
        let exit = lb.send_to(SELF, nobodys.into()).0;
        assert_eq!(exit, Exit::Drop(DropReason::TtlExpired), "{mode}");
    }
}

/// Who provokes errors of one kind silences no other.
#[test]
fn packets_without_a_hop_left_do_not_silence_packet_too_big() {
    for family in families() {
        let mut lb = dsr::lb(family, "ipip", family);
        lb.send_to(SELF, family.tcp(CLIENT, VIP, SYN).into());
        for _ in 0..200 {
            lb.send_to(SELF, family.tcp("203.0.113.9:4000", VIP, SYN).ttl(1).into());
        }
        let big = family.tcp(CLIENT, VIP, ACK).carrying(&[7; 1440]);
        assert_eq!(lb.send_to(SELF, big.bytes()).0, SENT, "told what fits");
    }
}
