//! What is explained is what happens.

use super::{BACKEND, CLIENT, VIP};
use crate::testing::{TestLb, TestPacket, tcp, udp};
use crate::wire::tcp::{ACK, SYN};
use crate::{
    Direction, DropReason, Exit, Explanation, FlowKey, FlowState, MacAddr, NextHop, PortIdx,
    Protocol, PuntClass, WorkerIdx,
};

const WORKERS: u8 = 3;
const LISTENERS: &str =
    "192.0.2.10:80/tcp mode=full-nat backend=10.0.0.3:8080 backend=10.0.0.4:8080 snat=10.0.0.200
     192.0.2.11:80/tcp mode=dnat backend=10.0.0.3:8080 backend=10.0.0.4:8080
     192.0.2.12:80/tcp mode=full-nat backend=10.0.0.3:8080*drain snat=10.0.0.200
     192.0.2.13:80/tcp mode=full-nat backend=10.0.0.99:8080 snat=10.0.0.200
     192.0.2.14:80/tcp mode=dnat backend=10.0.0.3:8080 source=203.0.113.0/30
     192.0.2.10:53/udp mode=full-nat backend=10.0.0.3:5300 snat=10.0.0.200";

fn key(packet: &TestPacket) -> FlowKey {
    FlowKey::new(packet.source, packet.destination, packet.protocol).unwrap()
}

/// Sends the packet, and compares with what was said before.
fn explained(lb: &mut TestLb, worker: WorkerIdx, packet: &TestPacket) -> Explanation {
    let told = lb.explain(worker, &key(packet));
    assert_eq!(lb.explain(worker, &key(packet)), told, "to ask changes nothing");
    let (exit, left) = lb.send_to(worker, packet.bytes());
    let destination = || [&left[..6], &left[30..34]].concat();
    match told {
        Explanation::Elsewhere(owner) => assert_eq!(exit, Exit::HandOver(owner)),
        Explanation::Punted(class) => assert_eq!(exit, Exit::Punt(class)),
        Explanation::Dropped(reason) => assert_eq!(exit, Exit::Drop(reason)),
        Explanation::New { address, next_hop, .. } => {
            same_next_hop(exit, next_hop, &destination(), address.ip());
        }
        Explanation::Flow { flow, direction, next_hop, .. } => {
            let to = if direction == Direction::Forward { flow.backend } else { flow.client };
            same_next_hop(exit, next_hop, &destination(), to.ip());
        }
        Explanation::ShutOut { .. } => assert_eq!(exit, Exit::Drop(DropReason::SourceRange)),
        Explanation::Refused { .. } => match packet.protocol {
            Protocol::Tcp => assert_eq!(exit, Exit::Send(PortIdx(0)), "an RST"),
            Protocol::Udp => assert_eq!(exit, Exit::Drop(DropReason::NoBackend)),
        },
    }
    told
}

fn same_next_hop(exit: Exit, told: NextHop, mac_and_address: &[u8], to: std::net::IpAddr) {
    let std::net::IpAddr::V4(to) = to else { panic!("an IPv4 packet") };
    assert_eq!(mac_and_address[6..], to.octets());
    match told {
        NextHop::Ready { port, mac: MacAddr(mac) } => {
            assert_eq!((exit, &mac_and_address[..6]), (Exit::Send(port), &mac[..]));
        }
        NextHop::Unresolved(next_hop) => assert_eq!(exit, Exit::Hold(next_hop)),
        NextHop::Unreachable => assert_eq!(exit, Exit::Drop(DropReason::NoRoute)),
    }
}

#[test]
fn what_is_explained_is_what_happens() {
    let mut lb = TestLb::with_workers(WORKERS, LISTENERS);
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..40_u16 {
        let client = format!("203.0.113.{}:{}", n % 7 + 1, 30_000 + n);
        for packet in [
            tcp(&client, "192.0.2.10:80", SYN),
            tcp(&client, "192.0.2.11:80", SYN),
            tcp(&client, "192.0.2.12:80", SYN),
            tcp(&client, "192.0.2.13:80", SYN),
            tcp(&client, "192.0.2.14:80", SYN),
            tcp(&client, "192.0.2.14:80", ACK),
            tcp(&client, "192.0.2.10:81", SYN),
            tcp(&client, "198.51.100.1:80", SYN),
            udp(&client, "192.0.2.10:53", b"who"),
            tcp("10.0.0.3:8080", &format!("10.0.0.200:{}", 1024 + n * 1500), ACK),
        ] {
            for worker in (0..WORKERS).map(WorkerIdx) {
                for _first_and_second in 0..2 {
                    let told = format!("{:?}", explained(&mut lb, worker, &packet));
                    seen.insert(told.split([' ', '(']).next().unwrap_or_default().to_owned());
                }
            }
        }
    }
    assert_eq!(
        Vec::from_iter(seen),
        ["Dropped", "Elsewhere", "Flow", "New", "Punted", "Refused", "ShutOut"]
    );
}

#[test]
fn a_flow_is_told_both_ways() {
    let mut lb =
        TestLb::with("192.0.2.10:80/tcp mode=full-nat backend=10.0.0.3:8080 snat=10.0.0.200");
    explained(&mut lb, WorkerIdx(0), &tcp(CLIENT, VIP, SYN));
    let flow = lb.flows()[0];
    assert_eq!(
        (flow.client.to_string(), flow.backend.to_string()),
        (CLIENT.into(), BACKEND.into())
    );
    assert_eq!(flow.state, FlowState::SynSent);
    let reply = tcp(BACKEND, &flow.outside.to_string(), SYN | ACK);
    match explained(&mut lb, WorkerIdx(0), &reply) {
        Explanation::Flow { flow: told, direction, .. } => {
            assert_eq!((told, direction), (flow, Direction::Reply));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_the_boxs_own_leaves_for_the_kernel() {
    let mut lb = TestLb::with(LISTENERS);
    let ssh = tcp(CLIENT, "192.0.2.2:22", SYN);
    let told = explained(&mut lb, WorkerIdx(0), &ssh);
    assert_eq!(told, Explanation::Punted(PuntClass::Management));
}

/// Nor is a backend told for them, though Maglev has one.
#[test]
fn what_can_be_nobodys_begins_nothing() {
    for (source, listener) in [
        ("0.0.0.0:40000", VIP),
        ("127.0.0.1:40000", VIP),
        ("224.0.0.1:40000", VIP),
        ("203.0.113.7:0", VIP),
        (VIP, VIP),
        ("203.0.113.7:0", "192.0.2.11:80"),
    ] {
        let mut lb = TestLb::with(LISTENERS);
        let told = explained(&mut lb, WorkerIdx(0), &tcp(source, listener, SYN));
        assert_eq!(told, Explanation::Dropped(DropReason::Martian), "{source} to {listener}");
    }
}

#[test]
fn pages_tell_every_flow_once() {
    let mut lb =
        TestLb::with("192.0.2.10:80/tcp mode=full-nat backend=10.0.0.3:8080 snat=10.0.0.200");
    for n in 0..300_u16 {
        lb.send_to(WorkerIdx(0), tcp(&format!("203.0.113.7:{}", 1000 + n), VIP, SYN).bytes());
    }
    let (mut told, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let before = told.len();
        from = lb.worker(WorkerIdx(0)).flow_page(at, &mut told);
        assert!(told.len() - before <= 64);
    }
    assert_eq!(told, lb.flows());
    assert_eq!(told.len(), 300);
    assert_eq!(lb.worker(WorkerIdx(0)).flow_page(u32::MAX - 64, &mut told), None);
}
