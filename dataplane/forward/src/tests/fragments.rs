//! Pieces of datagrams: all to the same backend, in any order, with one new id, and never joined.

use super::{CLIENT, families};
use crate::testing::{Family, TestLb, TestPacket, fragmented, udp};
use crate::wire::ipv6::DESTINATION;
use crate::wire::tcp::SYN;
use crate::{DropReason, Exit, PortIdx, PuntClass, WorkerIdx};

const UDP_VIP: &str = "192.0.2.10:53";
/// UDP listeners by mode.
const MODES: [&str; 2] = [
    "192.0.2.10:53/udp mode=full-nat backend=10.0.0.3:5300 snat=10.0.0.200",
    "192.0.2.10:53/udp mode=dnat backend=10.0.0.3:5300",
];
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
/// 4000 bytes of UDP payload, as Ethernet carries them over IPv6.
const SIZES: [usize; 3] = [1448, 1448, 1112];
const ID: u32 = 0x1234;

fn payload() -> Vec<u8> {
    (0..4000_u16).map(|at| (at / 7) as u8).collect()
}

fn request(family: Family) -> TestPacket {
    family.udp(CLIENT, UDP_VIP, &payload())
}

/// Which id a piece carries, and where in the datagram it belongs.
fn id_and_offset(piece: &[u8]) -> (u32, u16) {
    let word = |at: usize| u16::from_be_bytes([piece[at], piece[at + 1]]);
    if piece[14] >> 4 == 4 {
        (word(18).into(), (word(20) & 0x1fff) * 8)
    } else {
        (u32::from(word(58)) << 16 | u32::from(word(60)), word(56) & 0xfff8)
    }
}

/// Carries the pieces, each to a worker of its own, and returns what was sent, in order of offset.
fn carry(lb: &mut TestLb, workers: u8, pieces: &[Vec<u8>], order: [usize; 3]) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    for (turn, at) in order.into_iter().enumerate() {
        for (exit, piece) in lb.carry(WorkerIdx(turn as u8 % workers), pieces[at].clone()) {
            assert_eq!(exit, Exit::Send(PortIdx(0)), "piece {at} of {order:?}");
            sent.push(piece);
        }
    }
    sent.sort_by_key(|piece| id_and_offset(piece).1);
    sent
}

/// Both ways, in both modes, whatever the order, and whichever worker each piece arrives at.
#[test]
fn pieces_leave_as_the_pieces_of_the_rewritten_datagram() {
    for family in families() {
        for (mode, workers, order) in MODES
            .iter()
            .flat_map(|mode| [1, 4].map(|n| (mode, n)))
            .flat_map(|(mode, n)| ORDERS.map(|order| (mode, n, order)))
        {
            let mut lb = TestLb::with_workers(workers, &family.text(mode));
            let sent =
                carry(&mut lb, workers, &fragmented(&request(family).bytes(), ID, &SIZES), order);
            let flow = lb.flows()[0];
            let to_backend = TestPacket::between(flow.outside, flow.backend, flow.protocol);
            let whole = to_backend.carrying(&payload()).leaving().bytes();
            let id = id_and_offset(&sent[0]).0;
            assert_eq!(sent, fragmented(&whole, id, &SIZES), "{mode} {workers} {order:?}");

            let reply = TestPacket::between(flow.backend, flow.outside, flow.protocol);
            let pieces = fragmented(&reply.carrying(&payload()).bytes(), ID, &SIZES);
            assert_eq!(lb.kept(), 0);
            let sent = carry(&mut lb, workers, &pieces, order);
            let to_client = TestPacket::between(flow.vip, flow.client, flow.protocol);
            let whole = to_client.carrying(&payload()).leaving().bytes();
            let other = id_and_offset(&sent[0]).0;
            assert_eq!(sent, fragmented(&whole, other, &SIZES), "back: {mode} {workers} {order:?}");
            assert_ne!(id, other);
        }
    }
}

/// Two clients behind one SNAT address may use the same id towards one backend.
#[test]
fn two_datagrams_with_one_id_leave_with_two() {
    for family in families() {
        let mut lb = family.lb(MODES[0]);
        let mut ids = Vec::new();
        for client in ["203.0.113.7:4000", "203.0.113.8:4000", "203.0.113.8:4000"] {
            let pieces = fragmented(&family.udp(client, UDP_VIP, &payload()).bytes(), ID, &SIZES);
            let sent = carry(&mut lb, 1, &pieces, ORDERS[0]);
            ids.extend(sent.iter().map(|piece| id_and_offset(piece).0));
        }
        ids.dedup();
        assert_eq!(ids.len(), 3, "one each, also for the same id again: {ids:?}");
    }
}

/// The whole header chain is in the first piece, behind the fragment header too (RFC 7112).
#[test]
fn ports_are_found_behind_headers_that_are_in_pieces_themselves() {
    let family = Family::V6;
    let mut lb = family.lb(MODES[0]);
    let first = family
        .udp(CLIENT, UDP_VIP, &[0; 24])
        .piece(0, true)
        .extended(DESTINATION, &[0, 0, 1, 4, 0, 0, 0, 0]);
    let exits = lb.carry(WorkerIdx(0), first.clone());
    assert_eq!(exits[0].0, Exit::Send(PortIdx(0)));
    let second = family.udp(CLIENT, UDP_VIP, &[0; 32]).piece(5, false).put(54, &[DESTINATION]);
    assert_eq!(lb.carry(WorkerIdx(0), second)[0].0, Exit::Send(PortIdx(0)));
}

#[test]
fn what_contradicts_is_lost_and_with_it_the_datagram() {
    let whole = |family: Family| family.udp(CLIENT, UDP_VIP, &[0; 120]);
    for family in families() {
        let cut = |sizes: &[usize]| fragmented(&whole(family).bytes(), ID, sizes);
        let (thirds, halves) = (cut(&[48, 40, 40]), cut(&[64, 64]));
        let longer = family.udp(CLIENT, UDP_VIP, &[0; 200]);
        let longer = fragmented(&longer.bytes(), ID, &[128, 80]);
        let overlap = Exit::Drop(DropReason::FragmentOverlap);
        let sent = Exit::Send(PortIdx(0));
        let rows = [
            (
                "a repeated piece",
                vec![&thirds[0], &thirds[0], &thirds[1]],
                vec![sent, overlap, sent],
            ),
            (
                "a piece within another",
                vec![&halves[0], &thirds[0], &halves[1]],
                vec![sent, overlap, sent],
            ),
            ("an overlap", vec![&thirds[0], &halves[0], &thirds[1]], vec![sent, overlap, overlap]),
            ("one with pieces that wait", vec![&thirds[1], &halves[1]], vec![overlap, overlap]),
            ("the end again", vec![&halves[1], &thirds[2], &halves[0]], vec![overlap, sent, sent]),
            ("what lies beyond the end", vec![&halves[1], &longer[1]], vec![overlap, overlap]),
        ];
        for (promise, pieces, expected) in rows {
            let mut lb = family.lb(MODES[0]);
            let mut exits: Vec<_> = pieces
                .into_iter()
                .flat_map(|piece| lb.carry(WorkerIdx(0), piece.clone()))
                .collect();
            exits.truncate(expected.len());
            let exits: Vec<_> = exits.into_iter().map(|(exit, _)| exit).collect();
            assert_eq!(exits, expected, "{promise}");
            assert_eq!(lb.kept(), 0, "{promise}");
        }
    }
}

#[test]
fn pieces_that_no_datagram_can_have_are_lost_by_name() {
    for family in families() {
        let cut = |packet: TestPacket, sizes: &[usize]| fragmented(&packet.bytes(), ID, sizes);
        let datagram = |len: usize| family.udp(CLIENT, UDP_VIP, &vec![0; len]);
        let segment = cut(family.tcp(CLIENT, "192.0.2.10:53", SYN), &[16, 4]);
        let rows: Vec<(&str, Vec<u8>, DropReason)> = vec![
            ("nothing", cut(datagram(8), &[16, 0]).remove(1), DropReason::FragmentLength),
            (
                "no multiple of 8",
                cut(datagram(16), &[12, 12]).remove(0),
                DropReason::FragmentLength,
            ),
            (
                "beyond 65 535 bytes",
                datagram(64).piece(8190, false).into(),
                DropReason::FragmentLength,
            ),
            ("most of a TCP header", segment[0].clone(), DropReason::FragmentTiny),
            ("the rest of it", segment[1].clone(), DropReason::FragmentTiny),
        ];
        for (promise, piece, reason) in rows {
            let (exit, _) = family.lb(MODES[0]).send_to(WorkerIdx(0), piece);
            assert_eq!(exit, Exit::Drop(reason), "{promise}");
        }
    }
}

#[test]
fn a_piece_whose_first_never_comes_is_let_go() {
    for family in families() {
        let mut lb = family.lb(MODES[0]);
        let pieces = fragmented(&request(family).bytes(), ID, &SIZES);
        assert_eq!(lb.carry(WorkerIdx(0), pieces[1].clone()), []);
        lb.wait_ms(4_900);
        assert_eq!((lb.take_ended().len(), lb.kept()), (0, 1));
        lb.wait_ms(1_000);
        let ended = lb.take_ended();
        assert_eq!(ended, [(Exit::Drop(DropReason::FragmentTimeout), pieces[1].clone())]);
        assert_eq!(lb.carry(WorkerIdx(0), pieces[0].clone())[0].0, Exit::Send(PortIdx(0)));
    }
}

/// One of many clients; in IPv6 in a network of its own, since the addresses of one count as one source.
fn source(family: Family, number: u32) -> String {
    let [.., high, low] = number.to_be_bytes();
    match family {
        Family::V4 => format!("100.{high}.{low}.1:5"),
        Family::V6 => format!("[2001:db8:1:{number:x}::1]:5"),
    }
}

/// One source has its share of what may wait.
pub(super) fn too_many_wait(family: Family) -> Exit {
    let mut lb = family.lb(MODES[0]);
    loop {
        let id = lb.kept() as u32;
        let pieces = fragmented(&request(family).bytes(), id, &SIZES);
        if let Some((exit, _)) = lb.carry(WorkerIdx(0), pieces[1].clone()).first() {
            assert_eq!(id, 48);
            let other = udp(&source(family, 0), &family.text(UDP_VIP), &payload()).bytes();
            let others = fragmented(&other, id, &SIZES);
            assert_eq!(lb.carry(WorkerIdx(0), others[1].clone()), [], "another source's waits");
            return *exit;
        }
    }
}

/// A flood of datagrams that are never whole, from as many sources, takes no more than its room, and those
/// that are whole come through.
#[test]
fn a_flood_of_first_pieces_leaves_room_for_whole_datagrams() {
    for family in families() {
        let mut lb = family.lb(MODES[0]);
        let mut lost = 0;
        for id in 0..20_000_u32 {
            let packet = udp(&source(family, id), &family.text(UDP_VIP), &[0; 24]);
            let piece = packet.piece(4 + (id & 1) as u16, true);
            lost += lb.carry(WorkerIdx(0), piece).len();
            if id % 100 == 0 {
                let pieces = fragmented(&request(family).bytes(), id, &SIZES);
                carry(&mut lb, 1, &pieces, ORDERS[0]);
            }
        }
        assert_eq!(lost + lb.kept(), 20_000);
        assert!(lb.kept() <= crate::WAITING, "{}", lb.kept());
    }
}

/// What we would not forward stays the kernel's, or nobody's.
#[test]
fn pieces_for_the_box_go_to_the_kernel() {
    let cases = [
        ("192.0.2.2:9", Some(Exit::Punt(PuntClass::Other))),
        ("192.0.2.10:9", Some(Exit::Punt(PuntClass::Other))),
        ("10.0.0.200:9", Some(Exit::Drop(DropReason::NoFlow))),
        ("198.51.100.1:9", Some(Exit::Drop(DropReason::NotRouted))),
    ];
    for family in families() {
        for (destination, expected) in cases {
            let pieces =
                fragmented(&family.udp(CLIENT, destination, &[0; 64]).bytes(), ID, &[64, 8]);
            let mut lb = family.lb(MODES[0]);
            for piece in pieces {
                let exits = lb.carry(WorkerIdx(0), piece.clone());
                assert_eq!(exits, expected.map(|exit| (exit, piece)).as_slice(), "{destination}");
            }
        }
    }
}

/// RFC 8200 §4.5: 65,535 bytes follow the IPv6 header.
#[test]
fn the_largest_ipv6_datagram_is_carried() {
    let family = Family::V6;
    let mut lb = family.lb(MODES[0]);
    let whole = family.udp(CLIENT, UDP_VIP, &vec![7; 65_527]).bytes();
    let mut sizes = vec![1448; 45];
    sizes.push(65_535 - 45 * 1448);
    for piece in fragmented(&whole, 7, &sizes) {
        assert_eq!(lb.carry(WorkerIdx(0), piece)[0].0, Exit::Send(PortIdx(0)));
    }
}

#[test]
fn over_ipv6_neither_a_datagram_nor_its_first_piece_may_lack_the_udp_checksum() {
    let mut lb = Family::V6.lb(MODES[0]);
    let whole = Family::V6.udp(CLIENT, UDP_VIP, &[0; 1000]).without_checksum().bytes();
    for frame in [whole.clone(), fragmented(&whole, 9, &[504, 504])[0].clone()] {
        let (exit, _) = lb.carry(WorkerIdx(0), frame)[0];
        assert_eq!(exit, Exit::Drop(DropReason::L4Checksum));
    }
}
