//! How long flows live, what ends them, and what does not.

use super::{BACKEND, CLIENT, FROM, FULL_NAT, FULL_NAT_UDP, NEW, SNAT, TO, VIP, families};
use crate::flow::FlowState;
use crate::testing::{Dropped, Family, TestLb, Tx, tcp};
use crate::wire::tcp::{ACK, FIN, RST, SYN};
use crate::{BackendId, DropReason, Exit, ListenerSlot, PortIdx, Tick, Timeouts, WorkerIdx};

const SERVED: WorkerIdx = WorkerIdx(0);
/// The time in which the sweep sees every record, and a bit.
const ROUND_MS: u32 = 1001;

/// Packets of one connection, as (from the client?, flags).
fn live(lb: &mut TestLb, family: Family, packets: &[(bool, u8)]) {
    for (from_client, flags) in packets {
        let packet = if *from_client {
            family.tcp(CLIENT, VIP, *flags)
        } else {
            let snat = lb.flows().first().map_or(SNAT.to_owned(), |flow| flow.outside.to_string());
            family.tcp(BACKEND, &snat, *flags)
        };
        lb.send_to(SERVED, packet.into());
    }
}

const OPEN: [(bool, u8); 3] = [(true, SYN), (false, SYN | ACK), (true, ACK)];
const CLOSE: [(bool, u8); 2] = [(true, ACK | FIN), (false, ACK | FIN)];

#[test]
fn every_state_has_its_timeout() {
    for family in families() {
        let timeouts = Timeouts::default();
        type Row = (&'static str, Vec<(bool, u8)>, FlowState, u32);
        let rows: [Row; 7] = [
            (
                "a SYN without answer",
                OPEN[..1].to_vec(),
                FlowState::SynSent,
                timeouts.tcp_half_open_ms,
            ),
            (
                "half a handshake",
                OPEN[..2].to_vec(),
                FlowState::SynAcked,
                timeouts.tcp_half_open_ms,
            ),
            (
                "an open connection",
                OPEN.to_vec(),
                FlowState::Established,
                timeouts.tcp_established_ms,
            ),
            (
                "one FIN shortens nothing",
                [&OPEN[..], &CLOSE[..1]].concat(),
                FlowState::FinClient,
                timeouts.tcp_established_ms,
            ),
            (
                "nor the other alone",
                [&OPEN[..], &CLOSE[1..]].concat(),
                FlowState::FinBackend,
                timeouts.tcp_established_ms,
            ),
            (
                "both FINs",
                [OPEN.to_vec(), CLOSE.to_vec()].concat(),
                FlowState::Closing,
                timeouts.tcp_closing_ms,
            ),
            (
                "a RST",
                [&OPEN[..], &[(false, RST)]].concat(),
                FlowState::Reset,
                timeouts.tcp_reset_ms,
            ),
        ];
        for (promise, packets, state, timeout_ms) in rows {
            let mut lb = family.lb(FULL_NAT);
            live(&mut lb, family, &packets);
            assert_eq!(lb.flows()[0].state, state, "{promise}");
            lb.sleep_ms(timeout_ms - 1);
            assert_eq!(lb.flows().len(), 1, "{promise}: alive just before {timeout_ms} ms");
            lb.sleep_ms(ROUND_MS);
            assert_eq!(lb.flows(), [], "{promise}: gone a round after {timeout_ms} ms");
            assert_eq!(lb.worker(SERVED).live_flows(), 0);
            assert_eq!(
                lb.backend_gauge(BackendId(3), 0),
                0,
                "{promise}: the gauge is back at zero"
            );
        }
    }
}

#[test]
fn datagrams_one_way_and_both_ways_time_out_apart() {
    for family in families() {
        let timeouts = Timeouts::default();
        for (replied, timeout_ms) in
            [(false, timeouts.udp_one_way_ms), (true, timeouts.udp_replied_ms)]
        {
            let mut lb = family.lb(FULL_NAT_UDP);
            lb.send_to(SERVED, family.udp(CLIENT, "192.0.2.10:53", b"x").into());
            if replied {
                let snat = lb.flows()[0].outside.to_string();
                lb.send_to(SERVED, family.udp("10.0.0.3:5300", &snat, b"y").into());
            }
            lb.sleep_ms(timeout_ms - 1);
            assert_eq!(lb.flows().len(), 1);
            lb.sleep_ms(ROUND_MS);
            assert_eq!(lb.flows(), []);
        }
    }
}

#[test]
fn the_sweep_goes_round_in_about_a_second_a_few_records_at_a_time() {
    let mut lb = TestLb::sized(1, 8192, FULL_NAT);
    for port in 10_000..18_000 {
        lb.send_to(SERVED, tcp(&format!("203.0.113.7:{port}"), VIP, SYN).into());
    }
    lb.now = lb.now.plus_ms(Timeouts::default().tcp_half_open_ms);
    let mut calls = 0;
    while lb.worker(SERVED).live_flows() > 0 {
        let (snapshot, now) = (lb.snapshot.clone(), lb.now);
        assert!(lb.worker_mut(SERVED).expire_some(&snapshot, now) <= 64);
        calls += 1;
        assert!(calls < 1000, "8000 records, 64 a call");
        lb.now = lb.now.plus_ms(8);
    }
    assert!(calls >= 8000 / 64);
}

#[test]
fn idle_means_silent_both_ways_and_time_may_wrap() {
    for family in families() {
        let mut lb = family.lb(FULL_NAT);
        lb.now = Tick(u32::MAX - 10_000);
        live(&mut lb, family, &OPEN);
        for _ in 0..4 {
            lb.sleep_ms(Timeouts::default().tcp_established_ms - 1);
            live(&mut lb, family, &[(false, ACK)]);
        }
        assert_eq!(lb.flows().len(), 1);
    }
}

/// RFC 5961 §3 describes the attack; a packet of an established connection leaves as it came in any case.
#[test]
fn a_rst_ends_a_flow_only_if_its_number_is_about_what_the_other_end_expects() {
    const EXPECTED: u32 = 0x0102_0304; // what every packet of the tests acknowledges
    // promise, packets before, the RST's number, the state after
    type Row = (&'static str, &'static [(bool, u8)], u32, FlowState);
    let rows: [Row; 7] = [
        ("the very number", &OPEN, EXPECTED, FlowState::Reset),
        ("data in flight", &OPEN, EXPECTED + 100_000, FlowState::Reset),
        ("one too low", &OPEN, EXPECTED - 1, FlowState::Established),
        ("far ahead", &OPEN, EXPECTED + (1 << 18), FlowState::Established),
        ("zero", &OPEN, 0, FlowState::Established),
        (
            "far ahead of one that closes",
            &[OPEN[0], OPEN[1], OPEN[2], CLOSE[0]],
            1,
            FlowState::FinClient,
        ),
        ("anything, on a handshake", &OPEN[..2], 7, FlowState::Reset),
    ];
    for family in families() {
        for (promise, before, sequence, state) in rows {
            for from_client in [true, false] {
                let mut lb = family.lb(FULL_NAT);
                live(&mut lb, family, before);
                let outside = lb.flows()[0].outside.to_string();
                let (from, to) = if from_client { (CLIENT, VIP) } else { (BACKEND, &*outside) };
                let rst = family.tcp(from, to, RST).numbered(sequence, 0);
                let (exit, _) = lb.send_to(SERVED, rst.into());
                assert_eq!(exit, Exit::Send(PortIdx(0)), "{promise}: the ends decide");
                assert_eq!(lb.flows()[0].state, state, "{promise}, from the client: {from_client}");
                lb.sleep_ms(Timeouts::default().tcp_reset_ms + ROUND_MS);
                let lives = lb.flows().len() == 1;
                assert_eq!(lives, state != FlowState::Reset, "{promise}: it may be silent");
            }
        }
    }
}

/// Who sends from an address where it does not hear the answer cannot tell what to acknowledge.
#[test]
fn a_handshake_is_complete_when_the_client_acknowledges_what_the_backend_sent() {
    const BEGUN: u32 = 0x0102_0304; // the number of every SYN of the tests
    // promise, what the client's segment acknowledges, the state after
    let rows: [(&str, u32, FlowState); 5] = [
        ("the SYN", BEGUN + 1, FlowState::Established),
        ("and data, for the segment before was lost", BEGUN + 20_000, FlowState::Established),
        ("an older number", BEGUN - 1, FlowState::SynAcked),
        ("a number far ahead", BEGUN + (1 << 18), FlowState::SynAcked),
        ("nothing known", 0, FlowState::SynAcked),
    ];
    for family in families() {
        for (promise, number, state) in rows {
            let mut lb = family.lb(FULL_NAT);
            live(&mut lb, family, &OPEN[..2]);
            let segment = family.tcp(CLIENT, VIP, ACK).numbered(BEGUN + 1, number);
            let (exit, _) = lb.send_to(SERVED, segment.into());
            assert_eq!(exit, Exit::Send(PortIdx(0)), "{promise}: the backend decides");
            assert_eq!(lb.flows()[0].state, state, "{promise}");
        }
    }
}

#[test]
fn what_somebody_else_acknowledges_does_not_let_his_rst_pass() {
    for family in families() {
        let mut lb = family.lb(FULL_NAT);
        live(&mut lb, family, &OPEN);
        for number in (0..1000).map(|n| n << 22) {
            let forged = family.tcp(CLIENT, VIP, ACK).numbered(number, number);
            lb.send_to(SERVED, forged.into());
            if number.abs_diff(0x0102_0304) > 1 << 22 {
                lb.send_to(SERVED, family.tcp(CLIENT, VIP, RST).numbered(number, 0).into());
            }
        }
        assert_eq!(lb.flows()[0].state, FlowState::Established, "only the backend's count");
    }
}

#[test]
fn a_syn_on_a_connection_that_is_over_begins_a_new_one() {
    for family in families() {
        for last in [&CLOSE[..], &[(true, RST)]] {
            let mut lb = family.lb(FULL_NAT);
            live(&mut lb, family, &[&OPEN[..], last].concat());
            lb.check(&[(
                "a SYN is pinned anew",
                family.tcp(CLIENT, VIP, SYN).into(),
                Tx(family.tcp(SNAT, BACKEND, SYN).leaving()),
                NEW,
            )]);
            assert_eq!(lb.flows().len(), 1);
            assert_eq!(lb.flows()[0].state, FlowState::SynSent);
            assert_eq!(lb.backend_gauge(BackendId(3), 0), 1);
            lb.sleep_ms(Timeouts::default().tcp_closing_ms + ROUND_MS);
            assert_eq!(lb.worker(SERVED).live_flows(), 0, "the old record is freed too");
        }
    }
}

#[test]
fn a_burst_may_end_a_connection_and_begin_the_next() {
    for family in families() {
        let mut lb = family.lb(FULL_NAT);
        live(&mut lb, family, &OPEN);
        let old = lb.flows()[0].outside.to_string();
        let out = lb.send_burst(
            SERVED,
            vec![
                family.tcp(CLIENT, VIP, ACK | RST).into(),
                family.tcp(CLIENT, VIP, SYN).into(),
                family.tcp(CLIENT, VIP, SYN).into(),
                family.tcp(BACKEND, &old, ACK).into(),
            ],
        );
        let new = lb.flows()[0].outside.to_string();
        assert_ne!(old, new);
        assert_eq!(
            out[0].1,
            family.tcp(&old, BACKEND, ACK | RST).leaving().bytes(),
            "the RST goes to the old one"
        );
        assert_eq!(out[1].1, family.tcp(&new, BACKEND, SYN).leaving().bytes());
        assert_eq!(
            out[2].1,
            family.tcp(&new, BACKEND, SYN).leaving().bytes(),
            "one new flow, not two"
        );
        // Steady packets of a burst go first: this one may have come before the RST, as far as anyone can tell.
        let [sent, nobodys] =
            [crate::Exit::Send(PortIdx(0)), crate::Exit::Drop(DropReason::NoFlow)];
        assert!(out[3].0 == sent || out[3].0 == nobodys, "{:?}", out[3].0);
        if out[3].0 == sent {
            assert_eq!(out[3].1, family.tcp(VIP, CLIENT, ACK).leaving().bytes());
        }
    }
}

#[test]
fn two_datagrams_of_a_new_flow_in_one_burst_make_one_flow() {
    for family in families() {
        let mut lb = family.lb(FULL_NAT_UDP);
        let datagram = || family.udp(CLIENT, "192.0.2.10:53", b"x").bytes();
        let out = lb.send_burst(SERVED, vec![datagram(), datagram()]);
        assert_eq!(out[0], out[1]);
        assert_eq!(lb.flows().len(), 1);
    }
}

#[test]
fn a_backend_that_left_keeps_connections_but_no_datagrams() {
    for family in families() {
        let spec = |backend: u8| {
            format!(
                "192.0.2.10:80/tcp backend=10.0.0.{backend}:8080 snat=10.0.0.200
             192.0.2.10:53/udp backend=10.0.0.{backend}:5300 snat=10.0.0.200"
            )
        };
        let mut lb = family.lb(&spec(3));
        live(&mut lb, family, &OPEN);
        lb.send_to(SERVED, family.udp(CLIENT, "192.0.2.10:53", b"x").into());
        lb.send_to(SERVED, family.tcp("203.0.113.7:5", VIP, SYN).into());
        lb.reconfigure(&family.text(&spec(4)));
        let flow =
            lb.flows().into_iter().find(|flow| flow.state == FlowState::Established).unwrap();
        lb.port = flow.outside.port();
        lb.check(&[(
            "the connection stays",
            family.tcp(CLIENT, VIP, ACK).into(),
            Tx(family.tcp(SNAT, BACKEND, ACK).leaving()),
            TO,
        )]);
        lb.check(&[(
            "and is answered",
            family.tcp(BACKEND, SNAT, ACK).into(),
            Tx(family.tcp(VIP, CLIENT, ACK).leaving()),
            FROM,
        )]);
        lb.check(&[(
            "the next datagram goes to a backend that is there, at once",
            family.udp(CLIENT, "192.0.2.10:53", b"x").into(),
            Tx(family.udp(SNAT, "10.0.0.4:5300", b"x").leaving()),
            NEW,
        )]);
        lb.check(&[(
            "and so does a SYN that was never answered",
            family.tcp("203.0.113.7:5", VIP, SYN).into(),
            Tx(family.tcp(SNAT, "10.0.0.4:8080", SYN).leaving()),
            NEW,
        )]);
    }
}

#[test]
fn only_a_syn_makes_a_tcp_flow() {
    for family in families() {
        let mut lb = family.lb(FULL_NAT);
        for flags in 0..=u8::MAX {
            if flags & (SYN | ACK | RST | FIN) != SYN {
                let dropped = Dropped(DropReason::NoFlow);
                lb.check(&[(
                    "no SYN",
                    family.tcp(CLIENT, VIP, flags).into(),
                    dropped,
                    &["flow_misses", "dropped", "drop_no_flow"],
                )]);
            }
        }
        assert_eq!(lb.flows(), []);
    }
}

const MODES: [&str; 6] = ["full-nat", "dnat", "l2-dsr", "ipip", "gue", "gue-variant-0"];

/// Packets of a client's connection or exchange with a VIP, as (from the client?, flags; none of UDP).
fn live_at(lb: &mut TestLb, family: Family, vip: &str, packets: &[(bool, Option<u8>)]) {
    let of_vip: std::net::SocketAddr = family.text(vip).parse().unwrap();
    for (from_client, flags) in packets {
        let flow = lb.flows().into_iter().find(|flow| flow.vip == of_vip);
        let outside = flow.map_or(SNAT.to_owned(), |flow| flow.outside.to_string());
        let (from, to) = if *from_client { (CLIENT, vip) } else { (BACKEND, &*outside) };
        let packet = match flags {
            Some(flags) => family.tcp(from, to, *flags),
            None => family.udp(from, to, b"x"),
        };
        assert_eq!(lb.send_to(SERVED, packet.into()).0, Exit::Send(PortIdx(0)));
    }
}

/// Whether flows of either VIP are remembered.
fn remembered(lb: &TestLb, family: Family) -> [bool; 2] {
    [OWN, USUAL].map(|vip| {
        let vip: std::net::SocketAddr = family.text(vip).parse().unwrap();
        lb.flows().iter().any(|flow| flow.vip == vip)
    })
}

/// A VIP whose listeners, numbered 0 and 1, have timeouts of their own, and one whose have not.
const OWN: &str = "192.0.2.10:80";
const USUAL: &str = "192.0.2.11:80";

fn two_vips(family: Family, mode: &str) -> TestLb<'static> {
    let listener = |(vip, protocol)| {
        format!("{vip}/{protocol} mode={mode} backend=10.0.0.3:8080 snat=10.0.0.200")
    };
    let all = [(OWN, "tcp"), (OWN, "udp"), (USUAL, "tcp"), (USUAL, "udp")].map(listener);
    family.lb(&all.join("\n"))
}

fn set_own(lb: &mut TestLb, own: Option<Timeouts>) {
    let mut builder = lb.builder();
    builder.listener_timeouts(ListenerSlot(0), own).listener_timeouts(ListenerSlot(1), own);
    lb.install(&builder);
}

#[test]
fn a_listener_may_have_timeouts_of_its_own() {
    let own = Timeouts {
        tcp_established_ms: 60_000,
        tcp_half_open_ms: 7_000,
        tcp_closing_ms: 11_000,
        tcp_reset_ms: 2_000,
        udp_one_way_ms: 13_000,
        udp_replied_ms: 17_000,
    };
    const FIN_ACK: Option<u8> = Some(FIN | ACK);
    let open = [(true, Some(SYN)), (false, Some(SYN | ACK)), (true, Some(ACK))];
    let after = |more: &[(bool, Option<u8>)]| [&open[..], more].concat();
    type Row = (&'static str, Vec<(bool, Option<u8>)>, u32);
    let rows: [Row; 6] = [
        ("a SYN", open[..1].to_vec(), own.tcp_half_open_ms),
        ("an open connection", open.to_vec(), own.tcp_established_ms),
        ("one that closes", after(&[(true, FIN_ACK), (false, FIN_ACK)]), own.tcp_closing_ms),
        ("one that was reset", after(&[(true, Some(RST))]), own.tcp_reset_ms),
        ("a datagram", vec![(true, None)], own.udp_one_way_ms),
        ("and its answer", vec![(true, None), (false, None)], own.udp_replied_ms),
    ];
    for (family, mode) in families().flat_map(|family| MODES.map(|mode| (family, mode))) {
        let is_dsr = !matches!(mode, "full-nat" | "dnat");
        for (promise, packets, own_ms) in &rows {
            // With DSR a backend's packets take another way.
            if is_dsr && *promise == "and its answer" {
                continue;
            }
            let seen = packets.iter().filter(|(from_client, _)| *from_client || !is_dsr);
            let packets: Vec<_> = seen.copied().collect();
            for before in [true, false] {
                let promise = format!("{family:?} {mode}: {promise}, told before it: {before}");
                let mut lb = two_vips(family, mode);
                if before {
                    set_own(&mut lb, Some(own));
                }
                for vip in [OWN, USUAL] {
                    live_at(&mut lb, family, vip, &packets);
                }
                if !before {
                    set_own(&mut lb, Some(own));
                }
                lb.sleep_ms(own_ms - 1);
                assert_eq!(remembered(&lb, family), [true, true], "{promise}: not before its time");
                lb.sleep_ms(ROUND_MS);
                assert_eq!(remembered(&lb, family), [false, true], "{promise}: of the other, yes");
            }
        }
    }
}

#[test]
fn timeouts_of_its_own_may_be_longer_than_the_boxs_and_taken_back() {
    for family in families() {
        let mut lb = two_vips(family, "full-nat");
        let usual = Timeouts::default();
        set_own(&mut lb, Some(Timeouts { tcp_half_open_ms: 3_600_000, ..usual }));
        for vip in [OWN, USUAL] {
            live_at(&mut lb, family, vip, &[(true, Some(SYN))]);
        }
        lb.sleep_ms(usual.tcp_half_open_ms + ROUND_MS);
        assert_eq!(remembered(&lb, family), [true, false]);
        set_own(&mut lb, None);
        lb.sleep_ms(ROUND_MS);
        assert_eq!(remembered(&lb, family), [false, false]);
    }
}
