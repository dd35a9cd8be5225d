//! Connections that nobody serves any more, and how they end.

use super::{BACKEND, CLIENT, DNAT, FULL_NAT, VIP, families};
use crate::testing::{BOX_MAC, Family, TestLb, TestPacket, fragmented, mac_towards};
use crate::wire::tcp::{ACK, FIN, RST, SYN};
use crate::{
    BackendId, DropReason, Exit, Explanation, FlowKey, FlowState, ListenerSlot, NextHopKey,
    PortIdx, Removal, Removals, Timeouts, WorkerIdx,
};

const SERVED: WorkerIdx = WorkerIdx(0);
const SENT: Exit = Exit::Send(PortIdx(0));
/// The time in which the sweep sees every record, and a bit.
const ROUND_MS: u32 = 1001;
/// What the backend expects next, and what the client does.
const OF_CLIENT: u32 = 0x1111_0000;
const OF_BACKEND: u32 = 0x2222_0000;

/// A segment of a connection, numbered as its sender would.
fn segment(lb: &TestLb, family: Family, from_client: bool, flags: u8) -> TestPacket {
    let outside = lb.flows().first().map(|flow| flow.outside.to_string()).unwrap_or_default();
    match (from_client, flags & SYN) {
        (true, SYN) => family.tcp(CLIENT, VIP, flags).numbered(OF_CLIENT - 1, 0),
        (false, SYN) => family.tcp(BACKEND, &outside, flags).numbered(OF_BACKEND - 1, OF_CLIENT),
        (true, _) => family.tcp(CLIENT, VIP, flags).numbered(OF_CLIENT, OF_BACKEND),
        (false, _) => family.tcp(BACKEND, &outside, flags).numbered(OF_BACKEND, OF_CLIENT),
    }
}

/// Segments as (from the client?, flags), and their burst's fate.
fn live(lb: &mut TestLb, family: Family, segments: &[(bool, u8)]) {
    for (from_client, flags) in segments {
        let segment = segment(lb, family, *from_client, *flags);
        assert_eq!(lb.send_to(SERVED, segment.into()).0, SENT);
    }
}

const OPEN: [(bool, u8); 4] = [(true, SYN), (false, SYN | ACK), (true, ACK), (false, ACK)];

/// The spec with the other backend.
fn moved(spec: &str) -> String {
    spec.replace("10.0.0.3:", "10.0.0.4:")
}

/// The first connection, and then its backend is removed.
fn removed(family: Family, spec: &str, segments: &[(bool, u8)]) -> TestLb<'static> {
    let mut lb = family.lb(spec);
    live(&mut lb, family, segments);
    lb.reconfigure(&family.text(&moved(spec)));
    lb.end_unserved(0);
    lb
}

/// A RST of ours, as it leaves, but for padding.
fn ours(family: Family, from: &str, to: &str, flags: u8, sequence: u32, number: u32) -> TestPacket {
    let mut rst = family.tcp(from, to, flags).numbered(sequence, number).ttl(64);
    rst.macs = [mac_towards(rst.destination.ip()), BOX_MAC];
    (rst.ip_id_and_fragment, rst.window) = ([0, 0, 0x40, 0], 0);
    rst
}

/// One that nobody asked for.
fn rst(family: Family, from: &str, to: &str, sequence: u32, number: u32) -> Vec<u8> {
    ours(family, from, to, RST | ACK, sequence, number).padded_to_zero(60).bytes()
}

/// One that answers a segment.
fn answer(family: Family, from: &str, to: &str, sequence: u32) -> Vec<u8> {
    ours(family, from, to, RST, sequence, 0).bytes()
}

#[test]
fn both_ends_are_told_at_the_numbers_they_expect() {
    for (family, spec) in families().flat_map(|family| [FULL_NAT, DNAT].map(|spec| (family, spec)))
    {
        let mut lb = removed(family, spec, &OPEN);
        let outside = lb.flows()[0].outside.to_string();
        lb.sleep_ms(ROUND_MS);
        assert_eq!(
            lb.take_resets(SERVED),
            [
                (SENT, rst(family, VIP, CLIENT, OF_BACKEND, OF_CLIENT)),
                (SENT, rst(family, &outside, BACKEND, OF_CLIENT, OF_BACKEND)),
            ]
        );
        assert_eq!(lb.flows()[0].state, FlowState::Cut);
        assert_eq!(lb.worker_counter(SERVED, "flows_reset"), 1);
        lb.sleep_ms(ROUND_MS);
        assert_eq!(lb.take_resets(SERVED), [], "once");
        lb.sleep_ms(Timeouts::default().tcp_reset_ms);
        assert_eq!((lb.flows().len(), lb.backend_gauge(BackendId(3), 0)), (0, 0));
    }
}

#[test]
fn every_state_ends_in_its_way() {
    const FIN_ACK: u8 = FIN | ACK;
    let after = |more: &[(bool, u8)]| [&OPEN[..], more].concat();
    // promise, segments before, RSTs, the state after
    type Row = (&'static str, Vec<(bool, u8)>, usize, Option<FlowState>);
    let rows: [Row; 7] = [
        ("a SYN without answer is forgotten", OPEN[..1].to_vec(), 0, None),
        ("half a handshake is reset", OPEN[..2].to_vec(), 2, Some(FlowState::Cut)),
        ("an open connection", OPEN.to_vec(), 2, Some(FlowState::Cut)),
        ("one that the client closed", after(&[(true, FIN_ACK)]), 2, Some(FlowState::Cut)),
        ("or the backend", after(&[(false, FIN_ACK)]), 2, Some(FlowState::Cut)),
        (
            "one that closes is over",
            after(&[(true, FIN_ACK), (false, FIN_ACK)]),
            0,
            Some(FlowState::Closing),
        ),
        ("and so is one that was reset", after(&[(false, RST)]), 0, Some(FlowState::Reset)),
    ];
    for family in families() {
        for (promise, segments, rsts, state) in &rows {
            let mut lb = removed(family, FULL_NAT, segments);
            lb.sleep_ms(ROUND_MS);
            assert_eq!(lb.take_resets(SERVED).len(), *rsts, "{promise}");
            let states: Vec<_> = lb.flows().iter().map(|flow| flow.state).collect();
            assert_eq!(states, Vec::from_iter(*state), "{promise}");
            let ended = u64::from(state.is_none() || *state == Some(FlowState::Cut));
            assert_eq!(lb.worker_counter(SERVED, "flows_reset"), ended, "{promise}");
            assert_eq!(lb.worker_counter(SERVED, "flows_unproven"), 0, "{promise}");
        }
    }
}

/// A client that has not heard the SYN-ACK wants its SYN acknowledged; one that has expects what follows it.
#[test]
fn half_a_handshake_is_reset_whichever_half_its_client_knows() {
    for family in families() {
        let mut lb = removed(family, FULL_NAT, &OPEN[..2]);
        lb.sleep_ms(ROUND_MS);
        let left = lb.take_resets(SERVED);
        assert_eq!(left[0].1, rst(family, VIP, CLIENT, OF_BACKEND, OF_CLIENT));
    }
}

#[test]
fn datagrams_begin_anew_and_what_is_left_of_their_flow_is_forgotten() {
    const SPEC: &str = "192.0.2.10:80/udp backend=10.0.0.3:8080 snat=10.0.0.200";
    for (family, mode) in families().flat_map(|f| ["full-nat", "dnat", "ipip"].map(|m| (f, m))) {
        for replied in [false, true].into_iter().filter(|replied| !(*replied && mode == "ipip")) {
            let spec = format!("{SPEC} mode={mode}");
            let mut lb = family.lb(&spec);
            lb.send_to(SERVED, family.udp(CLIENT, VIP, b"?").into());
            if replied {
                let outside = lb.flows()[0].outside.to_string();
                lb.send_to(SERVED, family.udp(BACKEND, &outside, b"!").into());
            }
            lb.reconfigure(&family.text(&moved(&spec)));
            lb.end_unserved(0);
            lb.sleep_ms(ROUND_MS);
            assert_eq!((lb.flows().len(), lb.take_resets(SERVED).len()), (0, 0), "{mode}");
            lb.send_to(SERVED, family.udp(CLIENT, VIP, b"?").into());
            assert_eq!(lb.flows()[0].backend_id, BackendId(4), "{mode}");
        }
    }
}

/// Acknowledgements are delayed, and data was on its way: the first RST may come at a wrong number.
#[test]
fn who_goes_on_is_answered_at_the_number_he_names() {
    for (family, spec) in families().flat_map(|family| [FULL_NAT, DNAT].map(|spec| (family, spec)))
    {
        let mut lb = removed(family, spec, &OPEN);
        let outside = lb.flows()[0].outside.to_string();
        lb.sleep_ms(ROUND_MS);
        lb.take_resets(SERVED);
        let more = family.tcp(CLIENT, VIP, ACK).numbered(OF_CLIENT, OF_BACKEND + 1448);
        assert_eq!(
            lb.send_to(SERVED, more.into()),
            (SENT, answer(family, VIP, CLIENT, OF_BACKEND + 1448)),
            "an acknowledgement that was on its way"
        );
        let again = family.tcp(BACKEND, &outside, ACK).numbered(OF_BACKEND, OF_CLIENT + 7);
        assert_eq!(
            lb.send_to(SERVED, again.into()),
            (SENT, answer(family, &outside, BACKEND, OF_CLIENT + 7)),
            "data that is repeated"
        );
        assert_eq!(lb.worker_counter(SERVED, "unknown_reset"), 2);
        let told = family.tcp(BACKEND, &outside, RST).numbered(OF_BACKEND, 0);
        let (exit, left) = lb.send_to(SERVED, told.clone().into());
        let expected = family.tcp(VIP, CLIENT, RST).numbered(OF_BACKEND, 0).leaving().bytes();
        assert_eq!((exit, left), (SENT, expected), "a RST of an end goes on to the other");
        assert_eq!(lb.flows()[0].state, FlowState::Cut);
        let error = super::icmp::too_big(family, "10.0.0.9", "10.0.0.200", &[]);
        assert!(!matches!(lb.send_to(SERVED, error).0, Exit::Send(_)), "an ICMP error does not");
    }
}

#[test]
fn the_client_of_a_connection_that_was_cut_may_begin_anew_at_once() {
    for (family, spec) in families().flat_map(|family| [FULL_NAT, DNAT].map(|spec| (family, spec)))
    {
        let mut lb = removed(family, spec, &OPEN);
        lb.sleep_ms(ROUND_MS);
        lb.take_resets(SERVED);
        let (exit, _) = lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).into());
        assert_eq!(exit, SENT);
        let flows = lb.flows();
        assert_eq!((flows.len(), flows[0].backend_id), (1, BackendId(4)));
        assert_eq!(flows[0].state, FlowState::SynSent);
    }
}

/// Nobody but its receiver knows the number that a client of DSR expects.
#[test]
fn with_dsr_the_client_is_told_when_it_sends_and_then_tells_its_backend() {
    const SPEC: &str = "192.0.2.10:80/tcp backend=10.0.0.3:8080 snat=10.0.0.200";
    for (family, mode) in families().flat_map(|f| ["l2-dsr", "ipip", "gue"].map(|m| (f, m))) {
        let mut lb = removed(family, &format!("{SPEC} mode={mode}"), &[(true, SYN), (true, ACK)]);
        lb.sleep_ms(ROUND_MS);
        assert_eq!(lb.take_resets(SERVED), [], "{mode}: nothing can be said yet");
        assert_eq!(lb.flows()[0].state, FlowState::Cut, "{mode}");
        let ack = family.tcp(CLIENT, VIP, ACK).numbered(OF_CLIENT, OF_BACKEND);
        let (exit, left) = lb.send_to(SERVED, ack.into());
        assert_eq!((exit, left), (SENT, answer(family, VIP, CLIENT, OF_BACKEND)), "{mode}");
        let refuses = family.tcp(CLIENT, VIP, RST).numbered(OF_CLIENT, 0);
        let (exit, left) = lb.send_to(SERVED, refuses.into());
        assert_eq!(exit, SENT);
        assert_eq!(
            left[..6],
            mac_towards(family.address("10.0.0.3")).0,
            "{mode}: on to the old one"
        );
        let piece =
            &fragmented(&family.tcp(CLIENT, VIP, ACK).carrying(&[7; 44]).bytes(), 7, &[32, 32])[0];
        assert_eq!(lb.carry(SERVED, piece.clone())[0].0, Exit::Drop(DropReason::NoFlow), "{mode}");
        assert_eq!(lb.flows().len(), 1, "{mode}: a piece begins nothing beside it");
    }
}

#[test]
fn who_is_served_is_not_concerned() {
    // promise, the configuration after
    let rows = [
        ("a backend that drains", "192.0.2.10:80/tcp backend=10.0.0.3:8080*drain snat=10.0.0.200"),
        ("one without weight", "192.0.2.10:80/tcp backend=10.0.0.3:8080*0 snat=10.0.0.200"),
        (
            "beside others",
            "192.0.2.10:80/tcp backend=10.0.0.3:8080 backend=10.0.0.4:8080 snat=10.0.0.200",
        ),
        ("in another mode", "192.0.2.10:80/tcp mode=dnat backend=10.0.0.3:8080"),
        ("with other SNAT addresses", "192.0.2.10:80/tcp backend=10.0.0.3:8080 snat=10.0.0.201"),
        (
            "by a listener of another number",
            "192.0.2.11:80/tcp
             192.0.2.10:80/tcp backend=10.0.0.3:8080 snat=10.0.0.200",
        ),
        ("in a range", "192.0.2.10:79-90/tcp backend=10.0.0.3:8080 snat=10.0.0.200"),
    ];
    for family in families() {
        for (promise, spec) in rows {
            let mut lb = family.lb(FULL_NAT);
            live(&mut lb, family, &OPEN);
            lb.reconfigure(&family.text(spec));
            lb.end_unserved(0);
            lb.sleep_ms(ROUND_MS);
            assert_eq!(lb.take_resets(SERVED), [], "{promise}");
            live(&mut lb, family, &[(true, ACK), (false, ACK)]);
            assert_eq!(lb.flows()[0].state, FlowState::Established, "{promise}");
        }
        let gone = "192.0.2.11:80/tcp backend=10.0.0.3:8080 snat=10.0.0.200";
        let mut lb = family.lb(FULL_NAT);
        live(&mut lb, family, &OPEN);
        lb.reconfigure(&family.text(gone));
        lb.end_unserved(0);
        lb.sleep_ms(ROUND_MS);
        assert_eq!(lb.take_resets(SERVED).len(), 2, "a VIP that is removed");
    }
}

/// The sweep passes each flow once a second: what it has found it does not ask again until there are other [`Removals`].
#[test]
fn a_flow_is_asked_for_once_a_change() {
    for family in families() {
        let mut lb = family.lb(FULL_NAT);
        live(&mut lb, family, &OPEN);
        lb.end_unserved(0);
        let asked_at = lb.snapshot.removals().cloned();
        lb.sleep_ms(ROUND_MS);
        lb.reconfigure(&family.text(&moved(FULL_NAT)));
        let mut builder = lb.builder();
        builder.removals(asked_at);
        lb.install(&builder);
        lb.sleep_ms(ROUND_MS);
        assert_eq!(lb.take_resets(SERVED), []);
        lb.end_unserved(0);
        lb.sleep_ms(ROUND_MS);
        assert_eq!(lb.take_resets(SERVED).len(), 2);
    }
}

/// One listener ends them, the other keeps them, and a third has nothing to do with it.
#[test]
fn each_listener_has_its_own_way() {
    for family in families() {
        let spec = |backend: &str| {
            family.text(&format!(
                "192.0.2.10:80/tcp backend={backend} snat=10.0.0.200
                 192.0.2.11:80/tcp backend={backend} snat=10.0.0.200
                 192.0.2.12:80/tcp backend=10.0.0.3:8080 snat=10.0.0.200"
            ))
        };
        let mut lb = TestLb::with(&spec("10.0.0.3:8080"));
        for vip in ["192.0.2.10:80", "192.0.2.11:80", "192.0.2.12:80"] {
            lb.send_to(SERVED, family.tcp(CLIENT, vip, SYN).into());
            let of_vip: std::net::SocketAddr = family.text(vip).parse().unwrap();
            let flow = lb.flows().into_iter().find(|flow| flow.vip == of_vip).unwrap();
            let outside = flow.outside.to_string();
            lb.send_to(SERVED, family.tcp(BACKEND, &outside, SYN | ACK).into());
            lb.send_to(SERVED, family.tcp(CLIENT, vip, ACK).into());
        }
        lb.reconfigure(&spec("10.0.0.4:8080"));
        let removal = Removal { since: lb.now, ranges_since: lb.now, grace_ms: 0 };
        let (first, third) = ((ListenerSlot(0), removal), (ListenerSlot(2), removal));
        let mut builder = lb.builder();
        builder.removals(Removals::new(lb.snapshot.version() + 1, [first, third], []));
        lb.install(&builder);
        lb.sleep_ms(ROUND_MS);
        assert_eq!(lb.take_resets(SERVED).len(), 2);
        let mut states: Vec<_> =
            lb.flows().iter().map(|flow| (flow.listener.0, flow.state)).collect();
        states.sort_by_key(|(listener, _)| *listener);
        let (cut, goes_on) = (FlowState::Cut, FlowState::Established);
        assert_eq!(states, [(0, cut), (1, goes_on), (2, goes_on)]);
    }
}

#[test]
fn a_grace_begins_with_the_last_change_that_concerns_the_flow() {
    // promise, when the listener changed, when the backend left, when the flow ends
    let rows = [
        ("the listener's", 0, None, 30_000),
        ("the backend's", 0, Some(5_000), 35_000),
        ("the listener's again", 7_000, Some(5_000), 37_000),
    ];
    for family in families() {
        for (promise, changed, left, ends) in rows {
            let mut lb = family.lb(FULL_NAT);
            live(&mut lb, family, &OPEN);
            lb.reconfigure(&family.text(&moved(FULL_NAT)));
            let at = |ms| lb.now.plus_ms(ms);
            let removal = Removal { since: at(changed), ranges_since: at(0), grace_ms: 30_000 };
            let left = left.map(|left| (BackendId(3), at(left)));
            let version = lb.snapshot.version() + 1;
            let removals = Removals::new(version, [(ListenerSlot(0), removal)], left);
            let mut builder = lb.builder();
            builder.removals(removals);
            lb.install(&builder);
            lb.sleep_ms(ends - 1);
            assert_eq!(lb.take_resets(SERVED), [], "{promise}: not before");
            live(&mut lb, family, &[(true, ACK), (false, ACK)]);
            lb.sleep_ms(ROUND_MS);
            assert_eq!(lb.take_resets(SERVED).len(), 2, "{promise}: but then");
        }
    }
}

#[test]
fn who_asks_is_told_when_a_flow_ends() {
    for family in families() {
        let mut lb = family.lb(FULL_NAT);
        live(&mut lb, family, &OPEN);
        let packet = family.tcp(CLIENT, VIP, ACK);
        let key = FlowKey::new(packet.source, packet.destination, packet.protocol).unwrap();
        let told = |lb: &TestLb| match lb.explain(SERVED, &key) {
            Explanation::Flow { flow, ends, .. } => (flow.state, ends),
            other => panic!("{other:?}"),
        };
        lb.end_unserved(30_000);
        assert_eq!(told(&lb), (FlowState::Established, None), "while it is served");
        lb.reconfigure(&family.text(&moved(FULL_NAT)));
        assert_eq!(told(&lb), (FlowState::Established, None), "where it is kept");
        lb.end_unserved(30_000);
        let end = lb.now.plus_ms(30_000);
        assert_eq!(told(&lb), (FlowState::Established, Some(end)));
        lb.sleep_ms(30_000 + ROUND_MS);
        assert_eq!(told(&lb), (FlowState::Cut, None), "then it has ended");
    }
}

/// As many as the pace allows, each with both RSTs: none is forgotten without a word.
#[test]
fn many_connections_are_cut_at_a_pace_and_none_without_its_rsts() {
    const CONNECTIONS: u32 = 3000;
    let mut lb = TestLb::sized(1, 4096, FULL_NAT);
    for n in 0..CONNECTIONS {
        let client = format!("203.{}.{}.7:4000", n >> 8, n & 0xff);
        let (_, left) = lb.send_to(SERVED, Family::V4.tcp(&client, VIP, SYN).into());
        let outside = format!("10.0.0.200:{}", u16::from_be_bytes([left[34], left[35]]));
        lb.send_to(SERVED, Family::V4.tcp(BACKEND, &outside, SYN | ACK).into());
        lb.send_to(SERVED, Family::V4.tcp(&client, VIP, ACK).into());
    }
    lb.reconfigure(&moved(FULL_NAT));
    lb.end_unserved(0);
    let (mut rsts, mut ms) = (0, 0);
    while rsts < 2 * CONNECTIONS as usize {
        lb.wait_ms(1);
        ms += 1;
        let now = lb.take_resets(SERVED);
        assert!(now.len() <= 64, "{} at once", now.len());
        assert!(now.iter().all(|(exit, _)| *exit == SENT));
        rsts += now.len();
        assert!(rsts <= 2 * (32 + 16 * ms), "{rsts} after {ms} ms");
        assert!(ms < 3000, "{rsts} after {ms} ms");
    }
    assert_eq!(lb.worker_counter(SERVED, "flows_reset"), u64::from(CONNECTIONS));
    eprintln!("{CONNECTIONS} connections in {ms} ms");
}

/// Nobody sends what is due: as in a box without a free buffer.
#[test]
fn where_rsts_cannot_leave_connections_wait_to_be_cut() {
    let mut lb = TestLb::sized(1, 1024, FULL_NAT);
    for n in 0..100 {
        let client = format!("203.0.{n}.7:4000");
        let (_, left) = lb.send_to(SERVED, Family::V4.tcp(&client, VIP, SYN).into());
        let outside = format!("10.0.0.200:{}", u16::from_be_bytes([left[34], left[35]]));
        lb.send_to(SERVED, Family::V4.tcp(BACKEND, &outside, SYN | ACK).into());
    }
    lb.reconfigure(&moved(FULL_NAT));
    lb.end_unserved(0);
    lb.wait_ms(3000);
    assert_eq!(lb.worker(SERVED).resets_due(), 64);
    assert_eq!(lb.worker_counter(SERVED, "flows_reset"), 32);
    let mut rsts = lb.take_resets(SERVED).len();
    for _ in 0..3 {
        lb.wait_ms(ROUND_MS);
        rsts += lb.take_resets(SERVED).len();
    }
    assert_eq!(rsts, 200);
}

#[test]
fn a_rst_takes_the_way_that_its_connections_packets_took() {
    for family in families() {
        // To a neighbour that is not known, it waits; without a route, it is lost by name.
        for (backend, expected) in [
            (
                "10.0.1.99:8080",
                Exit::Hold(NextHopKey { port: PortIdx(0), address: family.address("10.0.1.99") }),
            ),
            ("10.66.0.1:8080", Exit::Drop(DropReason::NoRoute)),
        ] {
            let spec = FULL_NAT.replace("10.0.0.3:8080", backend);
            let mut lb = family.lb(&spec);
            lb.send_to(SERVED, segment(&lb, family, true, SYN).into());
            let outside = lb.flows()[0].outside.to_string();
            let answer =
                family.tcp(backend, &outside, SYN | ACK).numbered(OF_BACKEND - 1, OF_CLIENT);
            lb.send_to(SERVED, answer.into());
            lb.reconfigure(&family.text(FULL_NAT));
            lb.end_unserved(0);
            lb.sleep_ms(ROUND_MS);
            let exits: Vec<_> = lb.take_resets(SERVED).into_iter().map(|(exit, _)| exit).collect();
            assert_eq!(exits, [SENT, expected]);
        }
    }
}

/// Without [`Removals`] nothing ends, whatever changes.
#[test]
fn connections_are_kept_unless_somebody_says_otherwise() {
    for family in families() {
        for after in [moved(FULL_NAT), String::new()] {
            let mut lb = family.lb(FULL_NAT);
            live(&mut lb, family, &OPEN);
            lb.reconfigure(&family.text(&after));
            lb.sleep_ms(60_000);
            live(&mut lb, family, &[(true, ACK), (false, ACK)]);
            assert_eq!(lb.worker_counter(SERVED, "flows_reset"), 0);
        }
    }
}
