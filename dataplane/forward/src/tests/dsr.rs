//! DSR: packets reach the backend as the client sent them, on a link or in a tunnel, and it answers itself.

use super::{CLIENT, VIP, families};
use crate::testing::{BOX_MAC, Family, TestLb, TestPacket, fragmented, mac_towards};
use crate::wire::tcp::{ACK, FIN, RST, SYN};
use crate::wire::{checksum, ethernet};
use crate::{DropReason, Exit, FlowState, L4Ports, Mode, NextHopKey, PortIdx, Protocol, WorkerIdx};

const SERVED: WorkerIdx = WorkerIdx(0);
const SENT: Exit = Exit::Send(PortIdx(0));
/// Tunnels, with the bytes of their headers behind the outer IP header.
const TUNNELS: [(&str, usize); 3] = [("ipip", 0), ("gue", 8), ("gue-variant-0", 12)];
const SNAT: &str = "10.0.0.200";

/// A listener whose one backend is of this family, which a tunnel's may be whatever the client's is.
pub(super) fn lb(family: Family, mode: &str, outer: Family) -> TestLb<'static> {
    let vip = family.text("192.0.2.10:80/tcp");
    let (backend, snat) = (outer.text("10.0.0.3:8080"), outer.text(SNAT));
    TestLb::with(&format!("{vip} mode={mode} backend={backend} snat={snat}"))
}

/// What the IP header of a frame says of its packet: whether it is IPv6, and its traffic class.
fn class_of(frame: &[u8]) -> (bool, u8) {
    match frame[14] >> 4 {
        6 => (true, frame[14] << 4 | frame[15] >> 4),
        _ => (false, frame[15]),
    }
}

/// The frame of a packet, one hop older, in a tunnel. Source port and flow label are those of `left`.
pub(super) fn tunnelled(packet: &TestPacket, mode: &str, outer: Family, left: &[u8]) -> Vec<u8> {
    let inner_frame = packet.clone().leaving().bytes();
    wrapped(&inner_frame, mode, outer, left)
}

fn wrapped(inner_frame: &[u8], mode: &str, outer: Family, left: &[u8]) -> Vec<u8> {
    let ((inner_is_v6, class), inner) = (class_of(inner_frame), &inner_frame[14..]);
    let number = if inner_is_v6 { 41 } else { 4 };
    let outer_len = if outer == Family::V4 { 20 } else { 40 };
    let mut behind = Vec::new();
    if mode != "ipip" {
        let gue: &[u8] = if mode == "gue" { &[] } else { &[0, number, 0, 0] };
        behind.extend(&left[14 + outer_len..][..2]);
        behind.extend(6080_u16.to_be_bytes());
        behind.extend(((8 + gue.len() + inner.len()) as u16).to_be_bytes());
        behind.extend([0, 0]);
        behind.extend(gue);
    }
    let protocol = if mode == "ipip" { number } else { 17 };
    let payload_len = behind.len() + inner.len();
    let (source, backend) = (outer.address(SNAT), outer.address("10.0.0.3"));
    let mut frame = [mac_towards(backend).0, BOX_MAC.0].concat();
    match outer {
        Family::V4 => {
            frame.extend(ethernet::IPV4.to_be_bytes());
            let mut ip = vec![0x45, class];
            ip.extend((20 + payload_len as u16).to_be_bytes());
            ip.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            for address in [SNAT, "10.0.0.3"] {
                ip.extend(address.parse::<std::net::Ipv4Addr>().unwrap().octets());
            }
            let sum = !checksum::sum(&ip);
            ip[10..12].copy_from_slice(&sum.to_ne_bytes());
            frame.extend(ip);
        }
        Family::V6 => {
            frame.extend(ethernet::IPV6.to_be_bytes());
            frame.extend([0x60 | class >> 4, class << 4, left[16], left[17]]);
            frame.extend((payload_len as u16).to_be_bytes());
            frame.extend([protocol, 64]);
            for address in [source, backend] {
                let std::net::IpAddr::V6(v6) = address else { unreachable!("of this family") };
                frame.extend(v6.octets());
            }
        }
    }
    frame.extend(behind);
    frame.extend(inner);
    frame
}

#[test]
fn tunnels_carry_either_family_in_either() {
    for (family, outer) in families().flat_map(|f| Family::BOTH.map(|outer| (f, outer))) {
        for (mode, _) in TUNNELS {
            let mut lb = lb(family, mode, outer);
            for packet in [
                family.tcp(CLIENT, VIP, SYN),
                family.tcp(CLIENT, VIP, ACK).carrying(b"GET / HTTP/1.1"),
                family.tcp(CLIENT, VIP, ACK | FIN),
            ] {
                // Ethernet padding ends where a tunnel begins.
                for padding in [0, 110] {
                    let (exit, left) =
                        lb.send_to(SERVED, packet.clone().padded_to(padding).bytes());
                    assert_eq!(exit, Exit::Send(PortIdx(0)), "{mode} {family:?} in {outer:?}");
                    assert_eq!(left, tunnelled(&packet, mode, outer, &left), "{mode}, {outer:?}");
                }
            }
        }
    }
}

#[test]
fn l2_dsr_changes_mac_addresses_and_the_hop_limit_alone() {
    for family in families() {
        let mut lb = lb(family, "l2-dsr", family);
        for flags in [SYN, ACK, ACK | FIN] {
            let packet = family.tcp(CLIENT, VIP, flags).carrying(b"x").padded_to(94);
            let (exit, left) = lb.send_to(SERVED, packet.bytes());
            assert_eq!(exit, Exit::Send(PortIdx(0)));
            let mut expected = packet.leaving();
            expected.macs[0] = mac_towards(family.address("10.0.0.3"));
            assert_eq!(left, expected.bytes());
        }
    }
}

#[test]
fn flows_spread_over_source_ports_and_labels() {
    for outer in families() {
        let mut lb = lb(Family::V4, "gue", outer);
        let mut ports = std::collections::BTreeSet::new();
        for port in 1000..1100 {
            let client = format!("203.0.113.7:{port}");
            let (_, left) = lb.send_to(SERVED, Family::V4.tcp(&client, VIP, SYN).bytes());
            let at = if outer == Family::V4 { 34 } else { 54 };
            ports.insert([left[at], left[at + 1]]);
        }
        assert!(ports.len() > 90, "{}", ports.len());
        assert!(ports.iter().all(|port| port[0] >= 0xc0));
    }
}

/// Of the flow we see the client only.
#[test]
fn states_follow_what_the_client_says() {
    for family in families() {
        let rows: &[(u8, FlowState)] = &[
            (SYN, FlowState::SynSent),
            (SYN, FlowState::SynSent),
            (ACK, FlowState::Established),
            (ACK | FIN, FlowState::Closing),
            (ACK, FlowState::Closing),
            (SYN, FlowState::SynSent),
            (RST, FlowState::Reset),
        ];
        let mut lb = lb(family, "ipip", family);
        for (flags, state) in rows {
            lb.send_to(SERVED, family.tcp(CLIENT, VIP, *flags).bytes());
            assert_eq!(lb.flows()[0].state, *state);
        }
    }
}

/// After a restart, and when the table is full: Maglev says the same without state.
#[test]
fn a_connection_that_nobody_remembers_goes_on_to_its_backend() {
    for family in families() {
        let spec = family.text(
            "192.0.2.10:80/tcp mode=ipip backend=10.0.0.3:80 backend=10.0.0.4:80
             backend=10.0.0.5:80 snat=10.0.0.200",
        );
        let spec = spec.replace("\n", " ");
        let client = |n: usize| format!("203.0.113.7:{}", 2000 + n);
        let mut lb = TestLb::with(&spec);
        let begun: Vec<_> = (0..40)
            .map(|n| lb.send_to(SERVED, family.tcp(&client(n), VIP, SYN).bytes()).1[..6].to_vec())
            .collect();
        let mut restarted = TestLb::with(&spec);
        let mut full = TestLb::sized(1, 4, &spec);
        for (n, mac) in begun.iter().enumerate() {
            for flags in [ACK, ACK | RST] {
                let segment = family.tcp(&client(n), VIP, flags).bytes();
                for lb in [&mut restarted, &mut full] {
                    let (exit, left) = lb.send_to(SERVED, segment.clone());
                    assert_eq!(exit, Exit::Send(PortIdx(0)));
                    assert_eq!(&left[..6], mac);
                }
            }
        }
        assert_eq!(restarted.flows().len(), 40);
        assert_eq!(full.flows().len(), 4);
    }
}

#[test]
fn pieces_are_carried_as_they_are() {
    for family in families() {
        let spec = family.text("192.0.2.10:53/udp mode=ipip backend=10.0.0.3:53 snat=10.0.0.200");
        let mut lb = TestLb::with(&spec);
        let question = family.udp(CLIENT, "192.0.2.10:53", &[7; 120]);
        let pieces = fragmented(&question.bytes(), 0x77, &[64, 64]);
        let older = fragmented(&question.clone().leaving().bytes(), 0x77, &[64, 64]);
        assert_eq!(lb.carry(SERVED, pieces[1].clone()), []);
        let left = lb.carry(SERVED, pieces[0].clone());
        assert_eq!(left.len(), 2);
        for ((exit, left), piece) in left.iter().zip(&older) {
            assert_eq!(*exit, Exit::Send(PortIdx(0)));
            assert_eq!(*left, wrapped(piece, "ipip", family, left));
        }
    }
}

/// What a router says of a backend's answer comes to the VIP, and is the backend's to read.
#[test]
fn icmp_errors_about_answers_are_carried_to_the_backend() {
    for family in families() {
        for mode in ["ipip", "l2-dsr"] {
            let mut lb = lb(family, mode, family);
            let (_, first) = lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).bytes());
            let answer = family.tcp(VIP, CLIENT, SYN | ACK).bytes();
            let error = super::icmp::too_big(family, "198.51.100.9", "192.0.2.10", &answer[14..]);
            let (exit, left) = lb.send_to(SERVED, error.clone());
            assert_eq!(exit, Exit::Send(PortIdx(0)), "{mode}");
            assert_eq!(left[..6], first[..6], "{mode}: to the backend");
            let hops = if family == Family::V4 { 8 } else { 7 };
            let quoted = &error[error.len() - 40..];
            assert!(left.ends_with(quoted), "{mode}: what is quoted is not touched");
            let ip = left.len() - (error.len() - 14);
            assert_eq!(left[ip + hops], error[14 + hops] - 1, "{mode}: one hop older");
        }
    }
}

#[test]
fn a_packet_that_does_not_fit_is_answered_with_what_would() {
    for (family, outer) in families().flat_map(|f| Family::BOTH.map(|outer| (f, outer))) {
        for (mode, behind) in TUNNELS {
            let most = 1500 - behind - if outer == Family::V4 { 20 } else { 40 };
            let header = if family == Family::V4 { 40 } else { 60 };
            let mut lb = lb(family, mode, outer);
            lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).bytes());
            let segment = |len: usize| family.tcp(CLIENT, VIP, ACK).carrying(&vec![7; len]);
            let (_, fits) = lb.send_to(SERVED, segment(most - header).bytes());
            assert_eq!(fits.len(), 1514, "{mode} {outer:?}");
            let too_long = segment(most - header + 1).bytes();
            let (exit, answer) = lb.send_to(SERVED, too_long.clone());
            assert_eq!(exit, Exit::Send(PortIdx(0)), "{mode}");
            assert_eq!(answer, super::icmp::answer_too_big(family, most as u16, &too_long));
        }
    }
}

#[test]
fn those_answers_are_few_and_none_is_about_a_later_piece() {
    for family in families() {
        let mut lb = lb(family, "ipip", family);
        lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).bytes());
        let long = family.tcp(CLIENT, VIP, ACK).carrying(&[7; 1445]).bytes();
        let mut sent = || {
            let exits = (0..200).map(|_| lb.send_to(SERVED, long.clone()).0);
            exits.filter(|exit| *exit == Exit::Send(PortIdx(0))).count()
        };
        assert_eq!(sent(), 100);
        assert_eq!(sent(), 0);
        lb.wait_ms(7);
        let again = (0..20).map(|_| lb.send_to(SERVED, long.clone()).0);
        let lost = Exit::Drop(DropReason::MtuExceeded);
        assert_eq!(again.filter(|exit| *exit != lost).count(), 7);
    }
    let spec = "192.0.2.10:53/udp mode=ipip backend=10.0.0.3:53 snat=10.0.0.200";
    let datagram = Family::V4.udp(CLIENT, "192.0.2.10:53", &[7; 3000 - 8]).bytes();
    let pieces = fragmented(&datagram, 7, &[1472, 1480, 48]);
    let mut lb = TestLb::with(spec);
    let exits = [&pieces[0], &pieces[1], &pieces[0]];
    let exits = exits.map(|piece| lb.carry(SERVED, piece.clone())[0].0);
    let lost = |reason| Exit::Drop(reason);
    assert_eq!(exits[0], Exit::Send(PortIdx(0)), "the answer, or the piece");
    assert_eq!(exits[1], lost(DropReason::MtuExceeded));
    assert_eq!(exits[2], lost(DropReason::FragmentOverlap));
}

/// Its destination is the VIP, and so no help in finding the next hop.
#[test]
fn a_held_packet_goes_to_its_backend() {
    for (family, mode) in families().flat_map(|f| ["l2-dsr", "ipip"].map(|mode| (f, mode))) {
        let spec = "192.0.2.10:80/tcp backend=10.0.1.99:80 snat=10.0.0.200 mode=";
        let mut lb = TestLb::with(&(family.text(spec) + mode));
        let (exit, mut held) = lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).bytes());
        let key = NextHopKey { port: PortIdx(0), address: family.address("10.0.1.99") };
        assert_eq!(exit, Exit::Hold(key), "{mode}");
        lb.resolve(key.address);
        let snapshot = lb.snapshot.clone();
        let resumed = lb.worker_mut(SERVED).resume(&mut held, key, &snapshot);
        assert_eq!(resumed, Exit::Send(PortIdx(0)), "{mode}");
        assert_eq!(held[..6], mac_towards(key.address).0, "{mode}");
    }
}

/// As the client sent it, though it was rewritten already when that was found out.
#[test]
fn a_rewritten_packet_that_does_not_fit_is_quoted_as_it_was_sent() {
    for (family, mode) in families().flat_map(|f| ["full-nat", "dnat"].map(|mode| (f, mode))) {
        let spec = "192.0.2.10:80/tcp backend=10.77.0.1:80 snat=10.0.0.200 mode=";
        let mut lb = TestLb::with(&(family.text(spec) + mode));
        let long = family.tcp(CLIENT, VIP, SYN).carrying(&[7; 1300]).bytes();
        let (exit, answer) = lb.send_to(SERVED, long.clone());
        assert_eq!(exit, Exit::Send(PortIdx(0)), "{mode}");
        assert_eq!(answer, super::icmp::answer_too_big(family, 1000, &long), "{mode}");
    }
}

/// Both pieces over IPv6, whose routers never cut any further; over IPv4 the first only (RFC 1812 §4.3.2.7).
#[test]
fn a_piece_that_does_not_fit_is_quoted_as_it_was_sent() {
    for (family, mode) in families().flat_map(|f| ["full-nat", "dnat"].map(|mode| (f, mode))) {
        let spec = "192.0.2.10:53/udp backend=10.77.0.1:53 snat=10.0.0.200 mode=";
        let mut lb = TestLb::with(&(family.text(spec) + mode));
        let whole = family.udp(CLIENT, "192.0.2.10:53", &[7; 2700]).bytes();
        let pieces = fragmented(&whole, 0x1234, &[1448, 1260]);
        for (at, piece) in pieces.iter().enumerate() {
            let (exit, answer) = &lb.carry(SERVED, piece.clone())[0];
            if family == Family::V4 && at > 0 {
                assert_eq!(*exit, Exit::Drop(DropReason::MtuExceeded), "{mode}");
                continue;
            }
            assert_eq!(*exit, SENT, "{mode}, piece {at}");
            assert_eq!(
                *answer,
                super::icmp::answer_too_big(family, 1000, piece),
                "{mode}, piece {at}"
            );
        }
    }
}

#[test]
fn a_held_gue_packet_goes_to_its_backend() {
    for (outer, mode) in families().flat_map(|f| ["gue", "gue-variant-0"].map(|mode| (f, mode))) {
        let spec = "192.0.2.10:80/tcp backend=10.0.1.99:80 snat=10.0.0.200 mode=";
        let mut lb = TestLb::with(&(outer.text(spec) + mode));
        let (exit, mut held) = lb.send_to(SERVED, outer.tcp(CLIENT, VIP, SYN).bytes());
        let key = NextHopKey { port: PortIdx(0), address: outer.address("10.0.1.99") };
        assert_eq!(exit, Exit::Hold(key));
        lb.resolve(key.address);
        let snapshot = lb.snapshot.clone();
        let resumed = lb.worker_mut(SERVED).resume(&mut held, key, &snapshot);
        assert_eq!(resumed, SENT, "{mode} over {outer:?}");
    }
}

#[test]
fn a_held_l2_dsr_packet_whose_listener_departs_does_not_go_to_a_router() {
    for family in families() {
        let spec = family.text("192.0.2.10:80/tcp backend=10.0.1.99:80 mode=l2-dsr");
        let mut lb = TestLb::with(&spec);
        let (exit, mut held) = lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).bytes());
        let key = NextHopKey { port: PortIdx(0), address: family.address("10.0.1.99") };
        assert_eq!(exit, Exit::Hold(key));
        lb.reconfigure("");
        let mut builder = lb.builder();
        let vip = family.address("192.0.2.10");
        builder.add_departed(vip, Protocol::Tcp, L4Ports::one(80), Mode::L2Dsr);
        lb.install(&builder);
        lb.resolve(key.address);
        let snapshot = lb.snapshot.clone();
        let resumed = lb.worker_mut(SERVED).resume(&mut held, key, &snapshot);
        assert_eq!(resumed, SENT);
        assert_eq!(held[..6], mac_towards(key.address).0, "to the backend, not to the router");
    }
}

#[test]
fn pieces_of_a_dsr_datagram_go_on_when_the_table_is_full() {
    for family in families() {
        let spec = family.text("192.0.2.10:53/udp mode=ipip backend=10.0.0.3:53 snat=10.0.0.200");
        let mut lb = TestLb::sized(1, 1, &spec);
        lb.send_to(SERVED, family.udp("203.0.113.9:9", "192.0.2.10:53", &[1]).bytes());
        let whole = lb.send_to(SERVED, family.udp(CLIENT, "192.0.2.10:53", &[1]).bytes());
        assert_eq!(whole.0, SENT, "a whole datagram goes without state");
        let pieces =
            fragmented(&family.udp(CLIENT, "192.0.2.10:53", &[7; 120]).bytes(), 7, &[64, 64]);
        let exits = [0, 1].map(|at| lb.carry(SERVED, pieces[at].clone())[0].0);
        assert_eq!(exits, [SENT, SENT]);
    }
}

#[test]
fn a_packet_without_state_that_does_not_fit_is_answered() {
    for family in families() {
        let spec = family.text("192.0.2.10:80/tcp mode=ipip backend=10.0.0.3:80 snat=10.0.0.200");
        let mut lb = TestLb::sized(1, 1, &spec);
        lb.send_to(SERVED, family.tcp("203.0.113.9:9", VIP, ACK).bytes());
        let (exit, _) =
            lb.send_to(SERVED, family.tcp(CLIENT, VIP, ACK).carrying(&[7; 1445]).bytes());
        assert_eq!(exit, SENT, "the answer");
    }
}

#[test]
fn l2_dsr_sends_nothing_to_a_router() {
    for family in families() {
        let spec = family.text("192.0.2.10:80/tcp backend=198.51.100.5:80 mode=l2-dsr");
        let mut lb = TestLb::with(&spec);
        let (exit, _) = lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).bytes());
        assert_eq!(exit, Exit::Drop(DropReason::NoRoute), "it would come back to us");
    }
}

#[test]
fn an_icmp_error_about_a_connection_without_state_reaches_the_backend() {
    for family in families() {
        let spec = family.text("192.0.2.10:80/tcp mode=ipip backend=10.0.0.3:80 snat=10.0.0.200");
        let mut lb = TestLb::with(&spec);
        let answer = family.tcp(VIP, CLIENT, ACK).bytes();
        let error = super::icmp::too_big(family, "198.51.100.9", "192.0.2.10", &answer[14..]);
        let (exit, left) = lb.send_to(SERVED, error.clone());
        assert_eq!(exit, SENT);
        assert_eq!(left[..6], mac_towards(family.address("10.0.0.3")).0);
        assert_eq!(left.len(), error.len() + if family == Family::V6 { 40 } else { 20 });
        assert!(lb.flows().is_empty(), "an error begins no flow");
    }
}

/// The client is told what would have fitted, by the packet in the tunnel, in whatever family that is.
#[test]
fn a_packet_too_big_for_a_tunnels_way_is_answered_by_what_would_fit_in_it() {
    for (family, outer) in families().flat_map(|f| Family::BOTH.map(|outer| (f, outer))) {
        for (mode, behind) in TUNNELS {
            let overhead = behind + if outer == Family::V4 { 20 } else { 40 };
            for has_state in [true, false] {
                let mut lb = lb(family, mode, outer);
                if has_state {
                    lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).bytes());
                }
                let sent = family.tcp(CLIENT, VIP, ACK).carrying(&[7; 1300]);
                let (_, left) = lb.send_to(SERVED, sent.bytes());
                if !has_state {
                    lb = self::lb(family, mode, outer);
                }
                let aged = sent.leaving().bytes();
                let header = if family == Family::V4 { 20 } else { 40 };
                for quoted in [usize::MAX, overhead + header + 8] {
                    let promise = format!("{mode}, {family:?} in {outer:?}, {quoted} bytes quoted");
                    let quoted = &left[14..][..quoted.min(left.len() - 14)];
                    let error = super::icmp::from_inside(outer, Some(1400), quoted);
                    let (exit, answer) = lb.send_to(SERVED, error);
                    let (mtu, inner) = (1400 - overhead as u16, &quoted[overhead..]);
                    let known = [&aged[..14], inner].concat();
                    assert_eq!(exit, SENT, "{promise}");
                    assert_eq!(
                        answer,
                        super::icmp::answer_too_big(family, mtu, &known),
                        "{promise}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_else_is_said_of_tunnels_is_lost_by_name() {
    for family in families() {
        let mut lb = lb(family, "ipip", family);
        let (_, left) = lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).bytes());
        let header = if family == Family::V4 { 20 } else { 40 };
        let quoted = &left[14..];
        let at = header - 1; // the last byte of the outer destination
        let to_another = [&quoted[..at], &[quoted[at] ^ 1], &quoted[header..]].concat();
        let at = header * 2 + 1; // the client's port
        let of_nobody = [&quoted[..at], &[quoted[at] ^ 1], &quoted[at + 1..]].concat();
        let nothing_fits = if family == Family::V4 { 87 } else { 1319 };
        let rows = [
            ("an error other than that", None, quoted, DropReason::IcmpTunnel),
            ("an MTU of zero", Some(0), quoted, DropReason::IcmpTunnel),
            ("an MTU too small for anything", Some(nothing_fits), quoted, DropReason::IcmpTunnel),
            ("to another backend", Some(1400), &to_another, DropReason::IcmpNoFlow),
            ("half an inner header", Some(1400), &quoted[..header + 19], DropReason::IcmpQuote),
        ];
        for (promise, mtu, quoted, reason) in rows {
            let error = super::icmp::from_inside(family, mtu, quoted);
            assert_eq!(lb.send_to(SERVED, error).0, Exit::Drop(reason), "{promise}");
        }
        let error = super::icmp::from_inside(family, Some(1400), &of_nobody);
        assert_eq!(lb.send_to(SERVED, error).0, SENT, "Maglev knows where it went");
        let nat = family
            .lb(super::FULL_NAT)
            .send_to(SERVED, super::icmp::from_inside(family, Some(1400), quoted));
        assert_eq!(nat.0, Exit::Drop(DropReason::IcmpNoFlow), "of a listener without tunnels");
    }
}

/// The way to the backend is closed, says a router on it.
pub(super) fn told_of_another_error(family: Family) -> Exit {
    let mut lb = lb(family, "ipip", family);
    let (_, left) = lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).bytes());
    lb.send_to(SERVED, super::icmp::from_inside(family, None, &left[14..])).0
}

/// What a router quotes may be in anybody's name.
#[test]
fn of_a_tunnel_nobody_is_told_who_cannot_be() {
    let nobodies = ["255.255.255.255:4000", "224.0.0.1:4000", "127.0.0.1:4000", "192.0.2.10:4000"];
    for nobody in nobodies {
        let mut lb = lb(Family::V4, "ipip", Family::V4);
        let sent = Family::V4.tcp(CLIENT, VIP, ACK).carrying(&[7; 1300]);
        let (_, left) = lb.send_to(SERVED, sent.bytes());
        let inner = Family::V4.tcp(nobody, VIP, ACK).carrying(&[7; 1300]).bytes();
        let quoted = [&left[14..34], &inner[14..]].concat();
        let error = super::icmp::from_inside(Family::V4, Some(1400), &quoted);
        assert_eq!(lb.send_to(SERVED, error).0, Exit::Drop(DropReason::Martian), "{nobody}");
    }
}
