//! What happens when there is no more: flows, ports, hops, bytes.

use std::net::SocketAddr;

use super::{BACKEND, CLIENT, FULL_NAT, SNAT, VIP, families};
use crate::fib::{Neighbour, Prefix, Route, RouteHop};
use crate::flow::{FlowInfo, FlowState};
use crate::testing::{BOX_MAC, Family, Held, NOWHERE, TestLb, Tx, buffer_of, mac_towards, tcp};
use crate::wire::tcp::{ACK, FIN, SYN};
use crate::{
    BURST, Burst, DropReason, Exit, Fib, MacAddr, NextHopKey, PortConfig, PortIdx, RxChecks,
    WorkerIdx,
};

const SERVED: WorkerIdx = WorkerIdx(0);

fn client(n: u32) -> String {
    format!("203.{}.{}.7:{}", n >> 16, n >> 8 & 0xff, 1024 + (n & 0xff))
}

fn end(family: Family, n: u32) -> SocketAddr {
    family.text(&client(n)).parse().expect("an end")
}

fn source_port(family: Family, frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[family.l4()], frame[family.l4() + 1]])
}

/// Opens a connection completely.
pub(super) fn establish(lb: &mut TestLb, family: Family, n: u32) -> bool {
    establish_with(lb, family, n, VIP) == Exit::Send(PortIdx(0))
}

/// The same with one of several VIPs; how the SYN left.
fn establish_with(lb: &mut TestLb, family: Family, n: u32, vip: &str) -> Exit {
    let (exit, left) = lb.send_to(SERVED, family.tcp(&client(n), vip, SYN).into());
    if exit == Exit::Send(PortIdx(0)) {
        let snat = format!("10.0.0.200:{}", source_port(family, &left));
        lb.send_to(SERVED, family.tcp(BACKEND, &snat, SYN | ACK).into());
        lb.send_to(SERVED, family.tcp(&client(n), vip, ACK).into());
    }
    exit
}

#[test]
fn a_full_table_lets_the_oldest_half_open_flow_go_and_never_an_established_one() {
    for family in families() {
        let mut lb = TestLb::sized(1, 64, &family.text(FULL_NAT));
        for n in 0..48 {
            assert!(establish(&mut lb, family, n));
        }
        let mut made_room = 0;
        for n in 100..400 {
            lb.now = lb.now.plus_ms(1);
            let (exit, _) = lb.send_to(SERVED, family.tcp(&client(n), VIP, SYN).into());
            match exit {
                Exit::Send(_) => made_room += 1,
                exit => assert_eq!(exit, Exit::Drop(DropReason::FlowTableFull)),
            }
            assert!(lb.worker(SERVED).live_flows() <= 64);
        }
        assert!(made_room > 150, "most new connections find a half-open one in reach: {made_room}");
        let flows = lb.flows();
        let established = flows.iter().filter(|flow| flow.state == FlowState::Established);
        assert_eq!(established.count(), 48);
        for n in 0..48 {
            let (exit, _) = lb.send_to(SERVED, family.tcp(&client(n), VIP, ACK).into());
            assert_eq!(exit, Exit::Send(PortIdx(0)), "connection {n} goes on");
        }
    }
}

/// A quarter of the table each: the newest stay, and what was established is not asked.
#[test]
fn floods_of_one_packet_flows_take_their_quota_and_no_more() {
    for family in families() {
        let udp_too = format!("{FULL_NAT}\n{}", FULL_NAT.replace("/tcp", "/udp"));
        let mut lb = TestLb::sized(1, 64, &family.text(&udp_too));
        for n in 0..20 {
            assert!(establish(&mut lb, family, n));
        }
        for n in 100..400 {
            lb.now = lb.now.plus_ms(1);
            for frame in [family.tcp(&client(n), VIP, SYN), family.udp(&client(n), VIP, b"?")] {
                let (exit, _) = lb.send_to(SERVED, frame.into());
                assert_eq!(exit, Exit::Send(PortIdx(0)), "there is always room for a newer one");
            }
        }
        for (state, count) in
            [(FlowState::Established, 20), (FlowState::SynSent, 16), (FlowState::UdpOneWay, 16)]
        {
            let flows = lb.flows();
            let clients: Vec<_> = flows.iter().filter(|flow| flow.state == state).collect();
            assert_eq!(clients.len(), count, "{state:?}");
            let newest: Vec<_> = (400 - 16..400).map(|n| end(family, n)).collect();
            let stays = |flow: &&FlowInfo| newest.contains(&flow.client);
            assert!(count == 20 || clients.iter().all(stays), "the newest {state:?}");
        }
        assert_eq!(lb.worker_counter(SERVED, "flows_unproven"), 32);
        assert_eq!(lb.worker_counter(SERVED, "flows_evicted"), 2 * (300 - 16));
    }
}

/// At ten thousand connections a second, those of the last four minutes that are over would fill the table.
#[test]
fn in_a_full_table_a_connection_that_is_over_gives_way_before_a_handshake() {
    for family in families() {
        let mut lb = TestLb::sized(1, 16, &family.text(FULL_NAT));
        for n in 0..16 {
            assert!(establish(&mut lb, family, n));
        }
        let (fin, snat) = (FIN | ACK, lb.flows());
        let closing = snat.iter().find(|flow| flow.client == end(family, 5)).unwrap();
        lb.send_to(SERVED, family.tcp(&client(5), VIP, fin).into());
        lb.send_to(SERVED, family.tcp(BACKEND, &closing.outside.to_string(), fin).into());
        lb.now = lb.now.plus_ms(1);
        let (exit, _) = lb.send_to(SERVED, family.tcp(&client(99), VIP, SYN).into());
        assert_eq!(exit, Exit::Send(PortIdx(0)));
        assert!(lb.flows().iter().all(|flow| flow.client != closing.client), "it gave way");
    }
}

#[test]
fn a_table_full_of_established_flows_refuses_by_name() {
    for family in families() {
        let mut lb = TestLb::sized(1, 16, &family.text(FULL_NAT));
        let established = (0..64).filter(|n| establish(&mut lb, family, *n)).count();
        assert_eq!(established, 16);
        let (exit, _) = lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).into());
        assert_eq!(exit, Exit::Drop(DropReason::FlowTableFull));
    }
}

/// Two listeners, the second at [`OTHER`].
fn hot_and_other(family: Family, flows: usize) -> TestLb<'static> {
    let other = FULL_NAT.replace(":80/", ":81/");
    TestLb::sized(1, flows, &family.text(&format!("{FULL_NAT}\n{other}")))
}

const OTHER: &str = "192.0.2.10:81";

#[test]
fn a_hot_listener_leaves_the_last_eighth_of_the_table_to_others() {
    let sent = Exit::Send(PortIdx(0));
    let (beyond, full) =
        [DropReason::ListenerShare, DropReason::FlowTableFull].map(Exit::Drop).into();
    for family in families() {
        let mut lb = hot_and_other(family, 64);
        for n in 0..56 {
            assert_eq!(establish_with(&mut lb, family, n, VIP), sent, "there is room for {n}");
        }
        assert_eq!(establish_with(&mut lb, family, 56, VIP), beyond, "the rest is for others");
        for n in 100..108 {
            assert_eq!(establish_with(&mut lb, family, n, OTHER), sent, "the other's {n}");
        }
        assert_eq!(establish_with(&mut lb, family, 108, OTHER), full, "nobody has room");
        for (n, vip) in (0..56).map(|n| (n, VIP)).chain((100..108).map(|n| (n, OTHER))) {
            let (exit, _) = lb.send_to(SERVED, family.tcp(&client(n), vip, ACK).into());
            assert_eq!(exit, sent, "connection {n} goes on");
        }
        let counted = lb.counted(SERVED);
        for (name, count) in
            [("drop_listener_share", 1), ("drop_flow_table_full", 1), ("listener_refused", 2)]
        {
            assert!(counted.contains(&(name.to_owned(), count)), "{name}: {counted:?}");
        }
    }
}

#[test]
fn a_listener_that_has_its_share_takes_the_places_of_its_own_flows() {
    for family in families() {
        let mut lb = hot_and_other(family, 64);
        for n in 0..50 {
            establish(&mut lb, family, n);
        }
        for (n, vip) in [(200, OTHER), (201, OTHER), (50, VIP), (51, VIP), (52, VIP), (53, VIP)] {
            lb.now = lb.now.plus_ms(1);
            lb.send_to(SERVED, family.tcp(&client(n), vip, SYN).into());
        }
        for n in 54..300 {
            lb.now = lb.now.plus_ms(1);
            let (exit, _) = lb.send_to(SERVED, family.tcp(&client(1000 + n), VIP, SYN).into());
            assert_eq!(exit, Exit::Send(PortIdx(0)), "the oldest of its handshakes gives way");
        }
        let flows = lb.flows();
        for n in [200, 201] {
            assert!(flows.iter().any(|flow| flow.client == end(family, n)), "the other's stay");
        }
        assert_eq!(flows.len(), 56);
    }
}

#[test]
fn a_flood_on_one_listener_does_not_shorten_the_handshakes_of_another() {
    for family in families() {
        let mut lb = hot_and_other(family, 64);
        let mut flood = 1000..;
        let mut flood_of = |lb: &mut TestLb, count| {
            for n in flood.by_ref().take(count) {
                lb.now = lb.now.plus_ms(1);
                let (exit, _) = lb.send_to(SERVED, family.tcp(&client(n), VIP, SYN).into());
                assert_eq!(exit, Exit::Send(PortIdx(0)), "there is always room for a newer one");
            }
        };
        flood_of(&mut lb, 100);
        let slow = 1..8_u32; // fewer than half the quota of 16
        for n in slow.clone() {
            lb.send_to(SERVED, family.tcp(&client(n), OTHER, SYN).into());
        }
        flood_of(&mut lb, 1000);
        for n in slow {
            let flows = lb.flows();
            let flow = flows.iter().find(|flow| flow.client == end(family, n)).expect("it waits");
            let syn_ack = family.tcp(BACKEND, &flow.outside.to_string(), SYN | ACK);
            assert_eq!(lb.send_to(SERVED, syn_ack.into()).0, Exit::Send(PortIdx(0)), "{n}");
        }
        assert_eq!(lb.worker_counter(SERVED, "flows_unproven"), 16);
    }
}

#[test]
fn a_flow_seen_in_this_burst_gives_way_to_none_in_it() {
    let mut lb = TestLb::sized(1, 8, FULL_NAT);
    let frames: Vec<Vec<u8>> =
        (0..BURST as u32).map(|n| tcp(&client(n), VIP, SYN).into()).collect();
    let out = lb.send_burst(SERVED, frames);
    let sent = out.iter().filter(|(exit, _)| *exit == Exit::Send(PortIdx(0))).count();
    assert_eq!(sent, 8);
    assert_eq!(lb.flows().len(), 8);
}

#[test]
fn a_burst_takes_no_more_than_it_holds() {
    let mut frames = vec![buffer_of(&tcp(CLIENT, VIP, SYN).bytes()); BURST + 1];
    let mut burst = Burst::new();
    let taken = frames
        .iter_mut()
        .filter_map(|frame| burst.push(frame, PortIdx(0), RxChecks::default()).then_some(()));
    assert_eq!(taken.count(), BURST);
    assert_eq!(burst.len(), BURST);
}

#[test]
fn a_held_packet_goes_on_when_its_next_hop_is_known() {
    for family in families() {
        let spec = "192.0.2.10:80/tcp backend=10.0.1.99:8080 snat=10.0.0.200";
        let mut lb = family.lb(spec);
        let key = NextHopKey { port: PortIdx(0), address: family.address("10.0.1.99") };
        let (exit, mut held) = lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).into());
        assert_eq!(exit, Exit::Hold(key));
        let snapshot = lb.snapshot.clone();
        assert_eq!(
            lb.worker_mut(SERVED).resume(&mut held, NOWHERE, &snapshot),
            Exit::Hold(key),
            "not yet"
        );
        lb.check(&[(
            "while it waits, others join it",
            family.tcp(CLIENT, VIP, SYN).into(),
            Held(key),
            &["flow_hits", "held", "listener_packets_in", "backend_packets_to"],
        )]);

        lb.resolve(family.address("10.0.1.99"));
        let snapshot = lb.snapshot.clone();
        assert_eq!(
            lb.worker_mut(SERVED).resume(&mut held, NOWHERE, &snapshot),
            Exit::Send(PortIdx(0))
        );
        lb.port = source_port(family, &held);
        let snat = format!("10.0.0.200:{}", lb.port);
        assert_eq!(held, family.tcp(&snat, "10.0.1.99:8080", SYN).leaving().bytes());
        lb.check(&[(
            "the flow goes that way now",
            family.tcp(CLIENT, VIP, SYN).into(),
            Tx(family.tcp(SNAT, "10.0.1.99:8080", SYN).leaving()),
            super::TO,
        )]);
    }
}

#[test]
fn a_held_packet_obeys_the_mtu_of_its_route() {
    for family in families() {
        let spec = "192.0.2.10:80/tcp backend=10.0.1.99:8080 snat=10.0.0.200";
        let ready = Exit::Send(PortIdx(0));
        let room = 1000 - (family.l4() - 14 + 20);
        // promise, bytes of payload, MTU of the route, how it leaves
        let rows = [
            ("it fits exactly", room, Some(1000), ready),
            ("a byte too long", room + 1, Some(1000), Exit::Drop(DropReason::MtuExceeded)),
            ("the port's MTU, where the route has none", room + 500, None, ready),
        ];
        for (promise, bytes, mtu, expected) in rows {
            let mut lb = family.lb(spec);
            let syn = family.tcp(CLIENT, VIP, SYN).carrying(&vec![7; bytes]);
            let (exit, mut held) = lb.send_to(SERVED, syn.into());
            assert!(matches!(exit, Exit::Hold(_)), "{promise}: {exit:?}");
            let address = family.address("10.0.1.99");
            let route = Route {
                prefix: Prefix { address, len: 128 },
                next_hops: vec![RouteHop { port: PortIdx(0), gateway: None, weight: 1 }],
                mtu,
            };
            let port = PortConfig { mac: BOX_MAC, mtu: 1500 };
            let neighbour = Neighbour { port: PortIdx(0), address, mac: MacAddr([2; 6]) };
            let fib = Fib::build(2, &[port], &[route], &[neighbour]);
            let mut builder = lb.builder();
            builder.fib(fib.into());
            lb.install(&builder);
            let snapshot = lb.snapshot.clone();
            assert_eq!(
                lb.worker_mut(SERVED).resume(&mut held, NOWHERE, &snapshot),
                expected,
                "{promise}"
            );
        }
    }
}

/// Anyone can ask, in anybody's name.
#[test]
fn datagrams_that_are_answered_lock_nobody_out() {
    const VIP: &str = "192.0.2.10:53";
    for family in families() {
        let spec = "192.0.2.10:53/udp backend=10.0.0.3:53 snat=10.0.0.200";
        let mut lb = TestLb::sized(1, 64, &family.text(spec));
        for n in 0..500 {
            lb.now = lb.now.plus_ms(1);
            let (exit, left) = lb.send_to(SERVED, family.udp(&client(n), VIP, b"?").into());
            assert_eq!(exit, Exit::Send(PortIdx(0)), "datagram {n}");
            let snat = format!("10.0.0.200:{}", source_port(family, &left));
            lb.send_to(SERVED, family.udp("10.0.0.3:53", &snat, b"!").into());
        }
        assert_eq!(lb.flows().len(), 64);
    }
}

/// A frame could come by a port that takes longer ones.
#[test]
fn padding_beyond_the_mtu_stays_behind() {
    for (family, mode) in families().flat_map(|family| ["full-nat", "l2-dsr"].map(|m| (family, m)))
    {
        let spec = format!("192.0.2.10:53/udp mode={mode} backend=10.0.0.3:53 snat=10.0.0.200");
        let mut lb = family.lb(&family.text(&spec));
        for (promise, bytes, len, left) in [
            ("a new flow", 3, 1700, 1514),
            ("one that is known", 3, 1700, 1514),
            ("padding that fits", 3, 1514, 1514),
            ("a packet that just fits", 1500 - (family.l4() - 14 + 8), 1600, 1514),
        ] {
            let datagram = family.udp(CLIENT, "192.0.2.10:53", &vec![b'x'; bytes]).padded_to(len);
            let (exit, frame) = lb.send_to(SERVED, datagram.into());
            assert_eq!((exit, frame.len()), (Exit::Send(PortIdx(0)), left), "{promise}, {mode}");
        }
    }
}

#[test]
fn a_neighbour_that_moves_is_followed_with_the_next_fib() {
    for family in families() {
        let mut lb = family.lb(FULL_NAT);
        lb.check(&[(
            "before",
            family.tcp(CLIENT, VIP, SYN).into(),
            Tx(family.tcp(SNAT, BACKEND, SYN).leaving()),
            super::NEW,
        )]);
        let moved = crate::MacAddr([2, 9, 9, 9, 9, 9]);
        lb.move_neighbour(family.address("10.0.0.3"), moved);
        let mut expected = family.tcp(SNAT, BACKEND, SYN).leaving();
        assert_eq!(expected.macs[0], mac_towards(family.address("10.0.0.3")));
        expected.macs[0] = moved;
        lb.check(&[("after", family.tcp(CLIENT, VIP, SYN).into(), Tx(expected), super::TO)]);
    }
}

#[test]
fn resume_survives_any_bytes() {
    for family in families() {
        let mut lb = family.lb(FULL_NAT);
        let snapshot = lb.snapshot.clone();
        let whole = family.tcp(CLIENT, BACKEND, SYN).bytes();
        for len in 0..whole.len() {
            let exit = lb.worker_mut(SERVED).resume(&mut whole[..len].to_vec(), NOWHERE, &snapshot);
            assert_eq!(exit, Exit::Drop(DropReason::Truncated), "{len} bytes");
        }
    }
}
