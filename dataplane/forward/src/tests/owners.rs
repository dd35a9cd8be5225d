//! Every flow has one owner, and every worker agrees who it is.

use std::net::SocketAddr;

use super::{BACKEND, CLIENT, VIP, families};
use crate::testing::{Family, TestLb, TestPacket, spread};
use crate::wire::tcp::{ACK, SYN};
use crate::{Exit, L4Ports, ListenerSlot, Mode, PortIdx, Protocol, WorkerIdx};

const LISTENERS: &str = "192.0.2.10:80/tcp mode=full-nat backend=10.0.0.3:8080 snat=10.0.0.200
     192.0.2.11:80/tcp mode=dnat backend=10.0.0.3:8080
     192.0.2.12:80/tcp mode=dnat backend=10.0.0.3:8080
     192.0.2.10:53/udp mode=full-nat backend=10.0.0.3:5300 snat=10.0.0.200
     192.0.2.11:53/udp mode=dnat backend=10.0.0.3:5300";

/// Boxes of so many workers: without RSS, and with.
fn boxes(workers: u8, family: Family) -> impl Iterator<Item = TestLb<'static>> {
    let lb = move || TestLb::with_workers(workers, &family.text(LISTENERS));
    let table: Vec<u8> = (0..workers).cycle().take(128).collect();
    let with_rss = move || lb().with_spread(spread(7, &table, workers));
    std::iter::once(lb()).chain((workers > 1).then(with_rss))
}

/// Sends the packet to every worker in turn; where it ended must be the same. It must be sent.
fn owner_of(lb: &mut TestLb, workers: u8, packet: &TestPacket) -> (WorkerIdx, Vec<u8>) {
    let ends: Vec<(WorkerIdx, Vec<u8>)> = (0..workers)
        .map(|worker| {
            let (owner, exit, left) = lb.send_and_follow(WorkerIdx(worker), packet.bytes());
            assert_eq!(exit, Exit::Send(PortIdx(0)), "{packet:?}");
            (owner, left)
        })
        .collect();
    assert!(ends.iter().all(|end| *end == ends[0]), "all workers agree");
    ends[0].clone()
}

#[test]
fn a_reply_belongs_to_the_owner_of_its_flow_for_any_number_of_workers() {
    for family in families() {
        for workers in 1..=8 {
            for mut lb in boxes(workers, family) {
                replies_belong_to_the_owners_of_their_flows(&mut lb, family, workers);
                let has_work = |worker: &u8| lb.worker(WorkerIdx(*worker)).live_flows() > 0;
                assert!((0..workers).all(|worker| has_work(&worker)), "every worker has work");
            }
        }
    }
}

fn replies_belong_to_the_owners_of_their_flows(lb: &mut TestLb, family: Family, workers: u8) {
    for n in 0..60_u16 {
        let client = format!("203.0.113.{}:{}", n % 7, 30_000 + n / 7);
        for (vip, is_tcp) in [
            ("192.0.2.10:80", true),
            ("192.0.2.11:80", true),
            ("192.0.2.12:80", true),
            ("192.0.2.10:53", false),
            ("192.0.2.11:53", false),
        ] {
            let packet = |from: &str, to: &str, flags| match is_tcp {
                true => family.tcp(from, to, flags),
                false => family.udp(from, to, b"datagram"),
            };
            let (owner, left) = owner_of(lb, workers, &packet(&client, vip, SYN));
            let (outside, backend) = ends_of(&left);
            let (reply_owner, left) = owner_of(lb, workers, &packet(&backend, &outside, SYN | ACK));
            assert_eq!(owner, reply_owner, "{workers} workers, {client} to {vip}");
            assert_eq!(ends_of(&left), (family.text(vip), family.text(&client)));
        }
    }
}

/// Source and destination of a plain frame.
fn ends_of(frame: &[u8]) -> (String, String) {
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let v6 = |at: usize| <[u8; 16]>::try_from(&frame[at..at + 16]).unwrap();
    let v4 = |at: usize| <[u8; 4]>::try_from(&frame[at..at + 4]).unwrap();
    let ends: [SocketAddr; 2] = match frame[12..14] {
        [0x86, 0xdd] => [(v6(22), port(54)).into(), (v6(38), port(56)).into()],
        _ => [(v4(26), port(34)).into(), (v4(30), port(36)).into()],
    };
    (ends[0].to_string(), ends[1].to_string())
}

#[test]
fn what_is_handed_over_is_not_touched() {
    for family in families() {
        let mut lb = TestLb::with_workers(2, &family.text(LISTENERS));
        let mut handed = 0;
        for port in 1..=64 {
            let frame = family.tcp(&format!("203.0.113.7:{port}"), VIP, SYN).tagged(0).bytes();
            let (exit, left) = lb.send_to(WorkerIdx(0), frame.clone());
            if exit == Exit::HandOver(WorkerIdx(1)) {
                assert_eq!(left, frame);
                handed += 1;
            }
        }
        assert!((16..48).contains(&handed), "about half of 64: {handed}");
        assert_eq!(lb.worker(WorkerIdx(1)).live_flows(), 0);
    }
}

#[test]
fn packets_that_can_have_no_flow_are_not_handed_over() {
    for family in families() {
        let mut lb = TestLb::with_workers(4, &family.text(LISTENERS));
        for port in 1..=64 {
            for frame in [
                family.tcp(&format!("203.0.113.7:{port}"), "192.0.2.2:22", SYN).bytes(),
                family.tcp(CLIENT, &format!("10.0.0.200:{port}"), SYN).bytes(),
                family
                    .tcp(BACKEND, &format!("198.51.100.1:{port}"), SYN)
                    .to_mac(crate::MacAddr([2; 6]))
                    .bytes(),
            ] {
                let (exit, _) = lb.send_to(WorkerIdx(0), frame);
                assert!(!matches!(exit, Exit::HandOver(_)), "{exit:?}");
            }
        }
    }
}

#[test]
fn flows_of_a_listener_that_has_gone_are_found_from_every_worker_and_none_is_made() {
    for family in families() {
        for lb in boxes(4, family) {
            departed_flows_are_found(lb, family);
        }
    }
}

fn departed_flows_are_found(mut lb: TestLb, family: Family) {
    let clients: Vec<_> = (0..40).map(|n| format!("203.0.113.{n}:30000")).collect();
    let vips = ["192.0.2.10:80", "192.0.2.11:80"];
    let mut opened = Vec::new();
    for (client, vip) in clients.iter().flat_map(|client| vips.map(|vip| (client, vip))) {
        let (_, left) = owner_of(&mut lb, 4, &family.tcp(client, vip, SYN));
        let (outside, backend) = ends_of(&left);
        owner_of(&mut lb, 4, &family.tcp(&backend, &outside, SYN | ACK));
        owner_of(&mut lb, 4, &family.tcp(client, vip, ACK));
        opened.push((client, vip, outside, backend));
    }
    let mut builder = lb.builder();
    (0..2).for_each(|slot| assert!(builder.remove_listener(ListenerSlot(slot))));
    let gone = vips.map(|vip| family.text(vip).parse::<SocketAddr>().unwrap());
    for (vip, mode) in gone.into_iter().zip([Mode::FullNat, Mode::Dnat]) {
        builder.add_departed(vip.ip(), Protocol::Tcp, L4Ports::one(vip.port()), mode);
    }
    lb.install(&builder);
    for (client, vip, outside, backend) in &opened {
        owner_of(&mut lb, 4, &family.tcp(client, vip, ACK));
        owner_of(&mut lb, 4, &family.tcp(backend, outside, ACK));
    }
    let before = lb.flows().len();
    for worker in (0..4).map(WorkerIdx) {
        let (_, exit, _) =
            lb.send_and_follow(worker, family.tcp("203.0.113.99:9", vips[0], SYN).bytes());
        assert!(matches!(exit, Exit::Punt(_)), "the kernel answers for the address: {exit:?}");
    }
    assert_eq!(lb.flows().len(), before);
}
