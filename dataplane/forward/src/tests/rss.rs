//! Where RSS brings packets, and who owns them then.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::{CLIENT, DNAT, FULL_NAT, FULL_NAT_UDP, VIP, families};
use crate::spread::{Hashed, KEY_LEN, Key};
use crate::testing::{Family, TestLb, TestPacket, fragmented, spread};
use crate::wire::tcp::{ACK, FIN, SYN};
use crate::{
    CameBy, DropReason, Exit, Explanation, FlowInfo, FlowKey, L4Ports, Mode, Placed, PortIdx,
    Protocol, Spread, WorkerIdx,
};

const RSS: CameBy = CameBy::Rss(Hashed::ALL);
const SENT: Exit = Exit::Send(PortIdx(0));
/// Listeners whose packets come home by RSS, both ways or the only one, each with its backend's VIP and port.
const AT_HOME: &str = "192.0.2.10:80/tcp mode=full-nat backend=10.0.0.3:8080 backend=10.0.0.4:8080 snat=10.0.0.200 snat=10.0.0.201
     192.0.2.10:53/udp mode=full-nat backend=10.0.0.3:5300 snat=10.0.0.200
     192.0.2.12:80/tcp mode=l2-dsr backend=10.0.0.3:80
     192.0.2.12:53/udp mode=ipip backend=10.0.0.3:53 snat=10.0.0.200";

fn table(workers: u8) -> Vec<u8> {
    (0..workers).cycle().take(128).collect()
}

fn key(packet: &TestPacket) -> FlowKey {
    FlowKey::new(packet.source, packet.destination, packet.protocol).unwrap()
}

/// What the backend of a flow answers.
fn reply_of(flow: &FlowInfo) -> TestPacket {
    let mut reply = TestPacket::between(flow.backend, flow.outside, flow.protocol);
    reply.flags = SYN | ACK;
    reply
}

/// A box whose NIC keeps to the spread that the box has of it.
struct Honest {
    lb: TestLb<'static>,
    nic: Spread,
}

impl Honest {
    fn new(seed: u64, workers: u8, family: Family, spec: &str) -> Self {
        let nic = spread(seed, &table(workers), workers);
        let lb = TestLb::with_workers(workers, &family.text(spec)).with_spread(nic.clone());
        Self { lb, nic }
    }

    /// Lets the packet come in where RSS brings it.
    fn receive(&mut self, packet: &TestPacket) -> (WorkerIdx, Exit, Vec<u8>) {
        let worker = self.nic.worker_of(&key(packet)).expect("all is hashed");
        let (exit, left) = self.lb.send_as(RSS, worker, packet.bytes());
        (worker, exit, left)
    }

    fn placed(&mut self) -> Placed {
        let workers = (0..self.lb.workers()).map(WorkerIdx);
        workers.fold(Placed::default(), |sum, worker| {
            let placed = self.lb.worker_mut(worker).take_placed();
            Placed {
                as_computed: sum.as_computed + placed.as_computed,
                elsewhere: sum.elsewhere + placed.elsewhere,
            }
        })
    }
}

#[test]
fn packets_of_full_nat_and_dsr_come_to_their_owner_and_none_is_handed_over() {
    for family in families() {
        for workers in 2..=8 {
            let mut honest = Honest::new(workers.into(), workers, family, AT_HOME);
            for n in 0..100_u16 {
                let client = format!("203.0.113.{}:{}", n % 7, 30_000 + n);
                for packet in [
                    family.tcp(&client, "192.0.2.10:80", SYN),
                    family.udp(&client, "192.0.2.10:53", b"who"),
                    family.tcp(&client, "192.0.2.12:80", SYN),
                    family.udp(&client, "192.0.2.12:53", b"who"),
                ] {
                    let (owner, exit, _) = honest.receive(&packet);
                    assert_eq!(exit, SENT, "{client} to {}", packet.destination);
                    let flow = honest.lb.worker(owner).flows().find(|flow| {
                        (flow.client, flow.vip) == (packet.source, packet.destination)
                    });
                    let flow = flow.expect("it is there");
                    if flow.vip.ip() == family.address("192.0.2.12") {
                        continue;
                    }
                    let reply = reply_of(&flow);
                    assert_eq!(honest.receive(&reply).0, owner, "{client}");
                    assert_eq!(honest.receive(&reply).1, SENT);
                }
            }
            assert_eq!(honest.placed(), Placed { as_computed: 400, elsewhere: 0 });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// By any key, to any backend, of any client: the reply of each new flow comes to its owner, and no two flows
    /// share a reply's tuple.
    #[test]
    fn the_reply_of_every_new_flow_lands_at_its_owner(
        seed in any::<u64>(),
        workers in 2..=16_u8,
        family in prop::sample::select(Family::BOTH.to_vec()),
        (backend, port) in (1..=40_u8, 1..=u16::MAX),
        clients in prop::collection::hash_set((any::<u16>(), 1..=u16::MAX), 1..60),
    ) {
        let spec = format!("192.0.2.10:80/tcp backend=10.0.0.{backend}:{port} snat=10.0.0.200");
        let mut honest = Honest::new(seed, workers, family, &spec);
        for (host, port) in clients {
            let [high, low] = host.to_be_bytes();
            let client = format!("198.{}.{high}.{low}:{port}", 18 + port % 2);
            let (owner, exit, _) = honest.receive(&family.tcp(&client, VIP, SYN));
            prop_assert_eq!(exit, SENT);
            let client = family.text(&client).parse().unwrap();
            let flow = honest.lb.worker(owner).flows().find(|flow| flow.client == client);
            let flow = flow.expect("it is its owner's");
            prop_assert!(flow.outside.port() >= 1024);
            let reply = reply_of(&flow);
            let (at, exit, _) = honest.receive(&reply);
            prop_assert_eq!((at, exit), (owner, SENT));
        }
    }
}

/// Each worker has its share of the ports towards each backend, all of it, and walks it to the end.
#[test]
fn every_port_of_a_worker_is_taken_before_one_is_refused() {
    const WORKERS: u8 = 64;
    for family in families() {
        let nic = spread(3, &table(WORKERS), WORKERS);
        let lb = TestLb::sized(WORKERS, 2048, &family.text(FULL_NAT_UDP));
        let mut lb = lb.with_spread(nic.clone());
        let worker = WorkerIdx(5);
        let mut taken = 0;
        let mut clients = (0_u32..).map(|n| {
            let [_, high, middle, low] = n.to_be_bytes();
            family.udp(&format!("203.{high}.{middle}.{low}:4000"), "192.0.2.10:53", b"who")
        });
        let refused = loop {
            let packet = clients.next().unwrap();
            if nic.worker_of(&key(&packet)) != Some(worker) {
                continue;
            }
            match lb.send_as(RSS, worker, packet.bytes()).0 {
                SENT => taken += 1,
                refused => break refused,
            }
        };
        assert_eq!(refused, Exit::Drop(DropReason::SnatPortsExhausted));
        assert!((900..=1008).contains(&taken), "{taken} of 1008");
    }
}

/// A reply in DNAT says nothing of the VIP: both directions are handed over, as without RSS.
#[test]
fn dnat_is_owned_by_the_client_as_without_rss() {
    for family in families() {
        let mut plain = TestLb::with_workers(4, &family.text(DNAT));
        let mut honest = Honest::new(1, 4, family, DNAT);
        for n in 0..64 {
            let syn = family.tcp(&format!("203.0.113.7:{}", 30_000 + n), VIP, SYN);
            let (owner, exit, _) = plain.send_and_follow(WorkerIdx(0), syn.bytes());
            assert_eq!(exit, SENT);
            let (arrived, exit, _) = honest.receive(&syn);
            assert!(exit == SENT && arrived == owner || exit == Exit::HandOver(owner));
        }
        assert_eq!(honest.placed(), Placed::default(), "which is not held against the NIC");
    }
}

/// Whoever knows the key can aim at a worker, so it names no owner of a client; our own ports are not theirs to
/// choose.
#[test]
fn a_key_that_is_known_says_where_replies_come_and_not_who_owns_a_client() {
    for family in families() {
        let mut secret = [0; KEY_LEN];
        secret.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * at * 7 + 13) as u8);
        let nic = Spread::new(&secret, Key::Known, &table(4), 4, Hashed::ALL).unwrap();
        let mut lb = TestLb::with_workers(4, &family.text(FULL_NAT)).with_spread(nic.clone());
        let mut plain = TestLb::with_workers(4, &family.text(FULL_NAT));
        for n in 0..64 {
            let syn = family.tcp(&format!("203.0.113.7:{}", 30_000 + n), VIP, SYN);
            let (owner, _, _) = plain.send_and_follow(WorkerIdx(0), syn.bytes());
            let (at, exit, _) = lb.send_and_follow(WorkerIdx(n as u8 % 4), syn.bytes());
            assert_eq!((at, exit), (owner, SENT), "as without RSS");
            let flow = lb.worker(owner).flows().find(|flow| flow.client == syn.source).unwrap();
            let replies = FlowKey::new(flow.backend, flow.outside, Protocol::Tcp).unwrap();
            assert_eq!(nic.worker_of(&replies), Some(owner));
        }
    }
}

const UDP_ALONE: Hashed = Hashed { tcp_v4: false, tcp_v6: false, ..Hashed::ALL };

/// How bursts come in, and what is counted of them.
#[test]
fn a_nic_that_does_otherwise_than_it_says_is_found_out() {
    let options = |mut packet: TestPacket| {
        packet.ip_options = vec![1, 1, 1, 0];
        packet
    };
    let fin = |n: u16| Family::V4.tcp(&format!("203.0.113.7:{n}"), VIP, ACK | FIN);
    type Row = (&'static str, CameBy, fn(TestPacket) -> TestPacket, bool);
    let rows: [Row; 7] = [
        ("all to one queue is not what RSS does", RSS, |packet| packet, true),
        ("a queue that nobody trusts is not checked", CameBy::Queue, |packet| packet, false),
        ("nor is one to which everything comes", CameBy::Unspread, |packet| packet, false),
        ("nor is what others hand over", CameBy::Handed, |packet| packet, false),
        (
            "one that hashes no TCP has said nothing of it",
            CameBy::Rss(UDP_ALONE),
            |packet| packet,
            false,
        ),
        ("NICs may stumble over options", RSS, options, false),
        ("and over tags", RSS, |packet| packet.tagged(0), false),
    ];
    for (promise, arrival, change, counted) in rows {
        let mut honest = Honest::new(9, 4, Family::V4, FULL_NAT);
        for n in 1..=400 {
            honest.lb.send_as(arrival, WorkerIdx(0), change(fin(n)).bytes());
        }
        let Placed { as_computed, elsewhere } = honest.placed();
        assert_eq!(as_computed + elsewhere, if counted { 400 } else { 0 }, "{promise}");
        assert!(!counted || (250..350).contains(&elsewhere), "{promise}: {elsewhere}");
    }
}

/// A port with one queue: its worker looks up what is its own, and hands over the rest without a look.
#[test]
fn the_worker_of_an_unspread_port_hands_over_before_it_looks_anything_up() {
    let spec =
        format!("{FULL_NAT}\n192.0.2.11:80/tcp mode=dnat backend=10.0.0.3:8080\n{FULL_NAT_UDP}");
    let receiver = WorkerIdx(0);
    for family in families() {
        for with_rss in [false, true] {
            let mut lb = TestLb::with_workers(4, &family.text(&spec));
            if with_rss {
                lb = lb.with_spread(spread(5, &table(4), 4));
            }
            let mut owners = std::collections::HashSet::new();
            for n in 0..64 {
                let client = format!("203.0.113.7:{}", 30_000 + n);
                for vip in [VIP, "192.0.2.11:80"] {
                    let syn = family.tcp(&client, vip, SYN);
                    let (owner, exit, _) = lb.follow(CameBy::Unspread, receiver, syn.bytes());
                    assert_eq!(exit, SENT);
                    owners.insert(owner);
                    let flows = lb.worker(owner).flows().collect::<Vec<_>>();
                    let flow = flows
                        .iter()
                        .find(|flow| (flow.client, flow.vip) == (syn.source, syn.destination));
                    let flow = flow.expect("its owner has it");
                    let reply = reply_of(flow);
                    for packet in [syn.clone(), reply] {
                        let (at, exit, _) = lb.follow(CameBy::Unspread, receiver, packet.bytes());
                        assert_eq!((at, exit), (owner, SENT), "both ways");
                    }
                }
            }
            assert_eq!(owners.len(), 4);
            let own = lb.worker(receiver).live_flows() as u64;
            assert_eq!(lb.worker_counter(receiver, "flow_misses"), own, "one a flow of its own");
            assert_eq!(lb.worker_counter(receiver, "handed_over"), (128 - own) * 3);
            let ssh = family.tcp(CLIENT, "192.0.2.2:22", SYN);
            let (exit, _) = lb.send_as(CameBy::Unspread, receiver, ssh.bytes());
            assert!(matches!(exit, Exit::Punt(_)), "what has no owner is not handed over");
        }
    }
}

/// NICs spread pieces by their addresses only; whole datagrams and pieces of a flow meet at its owner.
#[test]
fn pieces_of_a_datagram_find_the_owner_that_rss_gives_its_flow() {
    for family in families() {
        let mut honest = Honest::new(4, 4, family, FULL_NAT_UDP);
        for n in 0..20_u32 {
            let client = format!("203.0.113.7:{}", 30_000 + n);
            let whole = family.udp(&client, "192.0.2.10:53", &[7; 1200]);
            let (owner, exit, _) = honest.receive(&whole);
            assert_eq!(exit, SENT);
            for first in (0..4).map(WorkerIdx) {
                let pieces = fragmented(&whole.bytes(), n * 4 + u32::from(first.0), &[600, 608]);
                for piece in pieces.into_iter().rev() {
                    let ended = honest.lb.carry(first, piece);
                    assert!(ended.iter().all(|(exit, _)| *exit == SENT), "{ended:?}");
                }
            }
            let found = honest.lb.worker(owner).flows().any(|flow| flow.client == whole.source);
            assert!(found && honest.lb.flows().len() == 1 + n as usize, "and no other");
        }
    }
}

/// What a listener was, for how many flows, and what it becomes under them.
#[test]
fn flows_stay_found_when_their_listener_changes_to_dnat_or_from_it() {
    for family in families() {
        for (before, mode, after) in [
            (FULL_NAT, Mode::FullNat, DNAT),
            (DNAT, Mode::Dnat, FULL_NAT),
            (DNAT, Mode::Dnat, "192.0.2.10:80/tcp mode=l2-dsr backend=10.0.0.4:80"),
        ] {
            let mut honest = Honest::new(2, 4, family, before);
            let old = open(&mut honest.lb, family, 100);
            change_mode(&mut honest.lb, family, mode, after);
            for (client, owner) in &old {
                stays_with(&mut honest.lb, &family.tcp(client, VIP, ACK), *owner);
            }
            let known = honest.lb.flows().len();
            let new = open(&mut honest.lb, family, 200);
            assert_eq!(honest.lb.flows().len(), known + new.len());
            for (client, owner) in old.iter().chain(&new) {
                stays_with(&mut honest.lb, &family.tcp(client, VIP, ACK), *owner);
            }
            for worker in (0..4).map(WorkerIdx) {
                let strange = family.tcp("203.0.113.9:9", VIP, ACK).bytes();
                let (_, exit, _) = honest.lb.send_and_follow(worker, strange);
                let by_maglev = after.contains("l2-dsr");
                assert!(by_maglev || exit == Exit::Drop(DropReason::NoFlow), "{exit:?}");
            }
        }
    }
}

/// Connections of clients with ports from `first` on, each with its owner.
fn open(lb: &mut TestLb, family: Family, first: u16) -> Vec<(String, WorkerIdx)> {
    let clients = (first..first + 40).map(|port| format!("203.0.113.7:{port}"));
    let opened = clients.map(|client| {
        let syn = family.tcp(&client, VIP, SYN).bytes();
        let (owner, exit, _) = lb.send_and_follow(WorkerIdx(0), syn);
        assert_eq!(exit, SENT);
        (client, owner)
    });
    opened.collect()
}

/// A new configuration under which flows of the old one live.
fn change_mode(lb: &mut TestLb, family: Family, mode: Mode, after: &str) {
    lb.reconfigure(&family.text(after));
    let vip: SocketAddr = family.text(VIP).parse().unwrap();
    let mut builder = lb.builder();
    builder.add_snat_address(family.address("10.0.0.200"));
    builder.add_departed(vip.ip(), Protocol::Tcp, L4Ports::one(vip.port()), mode);
    lb.install(&builder);
}

/// Whichever worker gets the packet, and whatever each says of it first.
fn stays_with(lb: &mut TestLb, packet: &TestPacket, owner: WorkerIdx) {
    for worker in (0..4).map(WorkerIdx) {
        let (mut explains, mut handed) = (worker, false);
        while let Explanation::Elsewhere(next) = lb.explain_as(explains, &key(packet), handed) {
            (explains, handed) = (next, true);
        }
        assert_eq!(explains, owner, "explained");
        for arrival in [CameBy::Queue, CameBy::Unspread] {
            let (at, exit, _) = lb.follow(arrival, worker, packet.bytes());
            assert_eq!((at, exit), (owner, SENT));
        }
    }
}

#[test]
fn one_worker_has_no_spread() {
    for family in families() {
        let table = [0, 0];
        let nic = Spread::new(&[0x5a; KEY_LEN], Key::Secret, &table, 1, Hashed::ALL);
        let lb = TestLb::with(&family.text(FULL_NAT));
        let mut lb = match nic {
            Ok(nic) => lb.with_spread(nic),
            Err(_) => lb.with_spread(spread(1, &table, 1)),
        };
        for arrival in [CameBy::Queue, RSS, CameBy::Unspread, CameBy::Handed] {
            let syn = family.tcp(CLIENT, VIP, SYN).bytes();
            assert_eq!(lb.send_as(arrival, WorkerIdx(0), syn).0, SENT);
        }
        assert_eq!(lb.worker_mut(WorkerIdx(0)).take_placed(), Placed::default());
    }
}
