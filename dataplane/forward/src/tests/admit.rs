//! Who is let in, and that nobody else hears of the listener.

use super::{BACKEND, CLIENT, NEW, SNAT, VIP, families};
use crate::testing::{Dropped, Family, TestLb, Tx, fragmented};
use crate::wire::tcp::{ACK, FIN, RST, SYN};
use crate::{
    DropReason, Exit, Explanation, FlowKey, FlowState, ListenerSlot, PortIdx, Removal, Removals,
    Traced, WorkerIdx,
};

const SERVED: WorkerIdx = WorkerIdx(0);
const SENT: Exit = Exit::Send(PortIdx(0));
const SHUT_OUT: Exit = Exit::Drop(DropReason::SourceRange);
const MODES: [&str; 6] = ["full-nat", "dnat", "l2-dsr", "ipip", "gue", "gue-variant-0"];
/// In one network with [`CLIENT`], and in none of them.
const NEIGHBOUR: &str = "203.0.113.200:40000";
const OUTSIDER: &str = "203.0.114.7:40000";
const RANGES: &str = "source=198.51.100.0/25 source=203.0.113.0/24";

const LOST: &[&str] = &["flow_misses", "dropped", "drop_source_range"];
const LOST_NEW: &[&str] = &["flow_misses", "dropped", "drop_source_range", "listener_refused"];

fn spec(mode: &str, more: &str) -> String {
    ["192.0.2.10:80/tcp", "192.0.2.10:80/udp"]
        .map(|at| format!("{at} mode={mode} backend=10.0.0.3:8080 snat=10.0.0.200 {more}"))
        .join("\n")
}

fn each() -> impl Iterator<Item = (Family, &'static str)> {
    families().flat_map(|family| MODES.map(|mode| (family, mode)))
}

fn is_dsr(mode: &str) -> bool {
    !matches!(mode, "full-nat" | "dnat")
}

#[test]
fn a_client_inside_is_served_and_one_outside_is_not_answered() {
    for family in families() {
        let leaving = family.tcp(SNAT, BACKEND, SYN).leaving();
        let source_range = || Dropped(DropReason::SourceRange);
        for more in ["", "on-unknown=reset on-exhaustion=icmp"] {
            let mut lb = family.lb(&spec("full-nat", &format!("{RANGES} {more}")));
            lb.check(&[
                ("inside", family.tcp(CLIENT, VIP, SYN).into(), Tx(leaving.clone()), NEW),
                ("outside", family.tcp(OUTSIDER, VIP, SYN).into(), source_range(), LOST_NEW),
                ("a datagram", family.udp(OUTSIDER, VIP, b"x").into(), source_range(), LOST_NEW),
                (
                    "the middle of something",
                    family.tcp(OUTSIDER, VIP, ACK).into(),
                    source_range(),
                    LOST,
                ),
                (
                    "the end of something",
                    family.tcp(OUTSIDER, VIP, RST).into(),
                    source_range(),
                    LOST,
                ),
                (
                    "nobody's address is called so",
                    family.tcp("127.0.0.1:4000", VIP, SYN).into(),
                    Dropped(if family == Family::V4 {
                        DropReason::Martian
                    } else {
                        DropReason::SourceRange
                    }),
                    if family == Family::V4 {
                        &["flow_misses", "dropped", "drop_martian", "listener_refused"]
                    } else {
                        LOST_NEW
                    },
                ),
            ]);
            assert_eq!(lb.flows().len(), 1);
        }
    }
}

/// What bytes leave is promised elsewhere: a list changes none of them.
#[test]
fn whoever_is_inside_is_served_as_without_a_list() {
    for (family, mode) in each() {
        let mut open = family.lb(&spec(mode, ""));
        let mut listed = family.lb(&spec(mode, RANGES));
        for client in [CLIENT, NEIGHBOUR, "198.51.100.127:9", "198.51.100.0:9"] {
            for packet in [
                family.tcp(client, VIP, SYN),
                family.tcp(client, VIP, SYN),
                family.udp(client, VIP, b"question"),
                family.udp(client, VIP, b"question"),
            ] {
                let left = listed.send_to(SERVED, packet.bytes());
                assert_eq!(left.0, SENT, "{mode} {client}");
                assert_eq!(left, open.send_to(SERVED, packet.bytes()), "{mode} {client}");
            }
        }
        for client in [OUTSIDER, "203.0.112.255:9", "198.51.100.128:9", "10.0.0.3:9"] {
            for packet in [
                family.tcp(client, VIP, SYN),
                family.tcp(client, VIP, ACK | FIN),
                family.udp(client, VIP, b"question"),
            ] {
                assert_eq!(open.send_to(SERVED, packet.bytes()).0, SENT, "{mode} {client}");
                assert_eq!(listed.send_to(SERVED, packet.bytes()).0, SHUT_OUT, "{mode} {client}");
            }
        }
        assert_eq!(listed.flows().len(), 8, "{mode}");
    }
}

#[test]
fn a_list_of_nobody_lets_nobody_in() {
    for (family, mode) in each() {
        let mut lb = family.lb(&spec(mode, "source=none"));
        for packet in [family.tcp(CLIENT, VIP, SYN), family.udp(CLIENT, VIP, b"x")] {
            assert_eq!(lb.send_to(SERVED, packet.bytes()).0, SHUT_OUT, "{mode}");
        }
    }
}

/// Nor by RST or ICMP when there is no backend, or no SNAT address.
#[test]
fn who_is_outside_is_not_told_how_the_listener_is() {
    for family in families() {
        for nobody in ["192.0.2.10:80/tcp snat=10.0.0.200", "192.0.2.10:80/tcp backend=10.0.0.3:80"]
        {
            for policy in ["reset", "icmp"] {
                let mut lb = family.lb(&format!("{nobody} on-exhaustion={policy} {RANGES}"));
                assert_eq!(lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).into()).0, SENT);
                assert_eq!(lb.send_to(SERVED, family.tcp(OUTSIDER, VIP, SYN).into()).0, SHUT_OUT);
            }
        }
    }
}

/// With DSR whoever has no flow goes by Maglev when the table is full: those of before, too, and nobody from outside.
#[test]
fn without_state_everyone_is_asked() {
    for (family, mode) in each().filter(|(_, mode)| is_dsr(mode)) {
        let mut lb = TestLb::sized(1, 1, &family.text(&spec(mode, RANGES)));
        lb.send_to(SERVED, family.udp(NEIGHBOUR, VIP, b"x").into());
        let flows = lb.flows();
        for packet in [
            family.tcp(CLIENT, VIP, ACK),
            family.tcp(CLIENT, VIP, ACK | RST),
            family.udp(CLIENT, VIP, b"x"),
        ] {
            assert_eq!(lb.send_to(SERVED, packet.clone().into()).0, SENT, "{mode}");
            let source = family.tcp(OUTSIDER, VIP, SYN).source;
            let mut outside = packet;
            outside.source = source;
            assert_eq!(lb.send_to(SERVED, outside.into()).0, SHUT_OUT, "{mode}");
        }
        assert!(lb.flows().len() <= flows.len(), "{mode}");
    }
}

#[test]
fn pieces_follow_their_datagram() {
    for (family, mode) in each() {
        let pieces = |client: &str, id: u32| {
            fragmented(&family.udp(client, VIP, &[7; 120]).bytes(), id, &[64, 64])
        };
        let exits = |lb: &mut TestLb, pieces: &[Vec<u8>]| -> Vec<Exit> {
            pieces
                .iter()
                .flat_map(|piece| lb.carry(SERVED, piece.clone()))
                .map(|left| left.0)
                .collect()
        };
        let mut lb = family.lb(&spec(mode, RANGES));
        assert_eq!(exits(&mut lb, &pieces(CLIENT, 1)), [SENT; 2], "{mode}");
        assert_eq!(exits(&mut lb, &pieces(OUTSIDER, 2)), [SHUT_OUT; 2], "{mode}");
        let mut later_first = pieces(OUTSIDER, 3);
        later_first.reverse();
        assert_eq!(
            exits(&mut lb, &later_first),
            [SHUT_OUT; 2],
            "{mode}: the later waits, and is asked"
        );
        assert_eq!(lb.flows().len(), 1);
    }
}

/// A router on the way to a client says that an answer was too big: it is about a flow, or with DSR about what would be one.
#[test]
fn icmp_errors_follow_what_they_are_about() {
    for (family, mode) in each() {
        let error = |client: &str| {
            let answer = family.tcp(VIP, client, ACK).bytes();
            super::icmp::too_big(family, "198.51.100.9", "192.0.2.10", &answer[14..])
        };
        let mut lb = family.lb(&spec(mode, RANGES));
        lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).into());
        assert_eq!(lb.send_to(SERVED, error(CLIENT)).0, SENT, "{mode}: of a flow");
        let unknown = if is_dsr(mode) { SENT } else { Exit::Drop(DropReason::IcmpNoFlow) };
        assert_eq!(lb.send_to(SERVED, error(NEIGHBOUR)).0, unknown, "{mode}: of no flow");
        assert_eq!(lb.send_to(SERVED, error(OUTSIDER)).0, SHUT_OUT, "{mode}: of a client outside");
        lb.reconfigure(&family.text(&spec(mode, "source=none")));
        assert_eq!(lb.send_to(SERVED, error(CLIENT)).0, SENT, "{mode}: of one that is kept");
    }
}

/// Segments of a connection as its ends would send them.
fn open(lb: &mut TestLb, family: Family, mode: &str) {
    lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).numbered(99, 0).into());
    if !is_dsr(mode) {
        let outside = lb.flows()[0].outside.to_string();
        let answer = family.tcp(BACKEND, &outside, SYN | ACK).numbered(199, 100);
        lb.send_to(SERVED, answer.into());
    }
    lb.send_to(SERVED, family.tcp(CLIENT, VIP, ACK).numbered(100, 200).into());
    assert_eq!(lb.flows()[0].state, FlowState::Established, "{mode}");
}

#[test]
fn a_connection_of_who_is_shut_out_later_goes_on_and_no_other_begins() {
    for (family, mode) in each() {
        let (mut kept, mut untouched) = (family.lb(&spec(mode, "")), family.lb(&spec(mode, "")));
        for lb in [&mut kept, &mut untouched] {
            open(lb, family, mode);
        }
        let other = family.tcp("203.0.113.7:40001", VIP, SYN);
        kept.send_to(SERVED, other.clone().into()); // a handshake that has no answer yet
        kept.reconfigure(&family.text(&spec(mode, "source=198.51.100.0/24")));
        kept.sleep_ms(1001);
        assert_eq!(kept.take_resets(SERVED), []);
        for flags in [ACK, ACK | FIN] {
            let segment = family.tcp(CLIENT, VIP, flags).numbered(100, 200).carrying(b"more");
            let left = kept.send_to(SERVED, segment.bytes());
            assert_eq!(left.0, SENT, "{mode}");
            assert_eq!(left, untouched.send_to(SERVED, segment.bytes()), "{mode}");
        }
        assert_eq!(kept.send_to(SERVED, other.into()).0, SHUT_OUT, "{mode}: the SYN again");
        let another = family.tcp("203.0.113.7:40002", VIP, SYN);
        assert_eq!(kept.send_to(SERVED, another.into()).0, SHUT_OUT, "{mode}");
    }
}

/// A datagram promises nothing about the next: each is asked after a change.
#[test]
fn datagrams_of_who_is_shut_out_later_end_with_the_next() {
    for (family, mode) in each() {
        let mut lb = family.lb(&spec(mode, RANGES));
        let datagram = family.udp(CLIENT, VIP, b"x");
        assert_eq!(lb.send_to(SERVED, datagram.bytes()).0, SENT);
        lb.reconfigure(&family.text(&spec(mode, "source=198.51.100.0/24")));
        assert_eq!(lb.send_to(SERVED, datagram.bytes()).0, SHUT_OUT, "{mode}");
        lb.reconfigure(&family.text(&spec(mode, "")));
        assert_eq!(lb.send_to(SERVED, datagram.bytes()).0, SENT, "{mode}: and let in again");
    }
}

#[test]
fn a_listener_that_ends_what_nobody_serves_ends_what_it_shuts_out() {
    // promise, when it was given its group, when its ranges, the grace, when the flow ends
    let rows = [
        ("at once", 0, 0, 0, 0),
        ("after its grace", 0, 0, 30_000, 30_000),
        ("from when the ranges came", 0, 5_000, 30_000, 35_000),
        ("or the group", 7_000, 5_000, 30_000, 37_000),
    ];
    for (family, mode) in each() {
        for (promise, group, ranges, grace_ms, ends) in rows {
            let mut lb = family.lb(&spec(mode, ""));
            open(&mut lb, family, mode);
            lb.reconfigure(&family.text(&spec(mode, "source=198.51.100.0/24")));
            let at = |ms| lb.now.plus_ms(ms);
            let removal = Removal { since: at(group), ranges_since: at(ranges), grace_ms };
            let version = lb.snapshot.version() + 1;
            let removals = Removals::new(version, [(ListenerSlot(0), removal)], []);
            let mut builder = lb.builder();
            builder.removals(removals);
            lb.install(&builder);
            if ends > 0 {
                lb.sleep_ms(ends - 1);
                assert_eq!(
                    lb.flows()[0].state,
                    FlowState::Established,
                    "{mode}: {promise}, not before"
                );
            }
            lb.sleep_ms(1001);
            let told = if is_dsr(mode) { 0 } else { 2 };
            assert_eq!(lb.take_resets(SERVED).len(), told, "{mode}: {promise}");
            assert_eq!(lb.flows()[0].state, FlowState::Cut, "{mode}: {promise}");
            let syn = family.tcp(CLIENT, VIP, SYN);
            assert_eq!(lb.send_to(SERVED, syn.into()).0, SHUT_OUT, "{mode}: it begins no other");
        }
        let mut lb = family.lb(&spec(mode, ""));
        open(&mut lb, family, mode);
        lb.reconfigure(&family.text(&spec(mode, RANGES)));
        lb.end_unserved(0);
        lb.sleep_ms(1001);
        assert_eq!(lb.flows()[0].state, FlowState::Established, "{mode}: who is inside goes on");
    }
}

#[test]
fn explain_and_trace_say_so() {
    for (family, mode) in each() {
        let mut lb = family.lb(&spec(mode, RANGES));
        let syn = family.tcp(OUTSIDER, VIP, SYN);
        let key = FlowKey::new(syn.source, syn.destination, syn.protocol).unwrap();
        let told = lb.explain(SERVED, &key);
        assert_eq!(told, Explanation::ShutOut { listener: ListenerSlot(0) }, "{mode}");
        assert_eq!(lb.send_to(SERVED, syn.into()).0, SHUT_OUT);
        let traced = lb.worker(SERVED).traced(0, &lb.snapshot);
        assert_eq!(traced, Traced::ForListener(ListenerSlot(0)), "{mode}");
    }
}
