//! Packets that are sent to hurt others, by somebody who can write any source address and hears no answer.

use super::{CLIENT, VIP, families};
use crate::testing::{Family, TestLb, TestPacket, fragmented};
use crate::wire::tcp::{ACK, FIN, RST, SYN};
use crate::{Exit, FlowState, PortIdx, Protocol, WorkerIdx};

const SERVED: WorkerIdx = WorkerIdx(0);
const SENT: Exit = Exit::Send(PortIdx(0));

/// Nothing that a stranger sends to a DSR VIP proves anything, since its backend's answers are not seen.
#[test]
fn a_flood_on_dsr_leaves_room_for_other_listeners() {
    for family in families() {
        let spec = family.text("192.0.2.10:80/tcp mode=ipip backend=10.0.0.3:80 snat=10.0.0.200")
            + "\n"
            + &family.text("192.0.2.11:80/tcp mode=full-nat backend=10.0.0.4:80 snat=10.0.0.201");
        let floods: [&[u8]; 7] =
            [&[SYN], &[ACK], &[SYN | FIN], &[SYN | ACK], &[0], &[SYN, ACK], &[ACK, ACK]];
        for flood in floods {
            let mut lb = TestLb::sized(1, 8, &spec);
            for n in 0..64 {
                let liar = format!("100.64.{n}.1:999");
                for flags in flood {
                    lb.send_to(SERVED, family.tcp(&liar, VIP, *flags).bytes());
                }
            }
            lb.now = lb.now.plus_ms(1);
            let (exit, _) = lb.send_to(SERVED, family.tcp(CLIENT, "192.0.2.11:80", SYN).bytes());
            assert_eq!(exit, SENT, "after a flood of {flood:?}");
        }
    }
}

#[test]
fn a_fin_that_nobody_remembers_begins_no_connection_of_two_hours() {
    for family in families() {
        let mut lb = family.lb("192.0.2.10:80/tcp mode=ipip backend=10.0.0.3:80 snat=10.0.0.200");
        lb.send_to(SERVED, family.tcp(CLIENT, VIP, ACK | FIN).bytes());
        assert_eq!(lb.flows()[0].state, FlowState::Closing);
    }
}

/// Together with a SYN it would move the connection to another backend.
#[test]
fn a_blind_rst_or_fin_moves_no_connection() {
    let rows = families().flat_map(|family| {
        ["full-nat", "ipip"]
            .into_iter()
            .flat_map(move |mode| [(family, mode, RST), (family, mode, FIN | ACK)])
    });
    for (family, mode, flags) in rows {
        let spec = |one: &str, other: &str| {
            family.text(&format!(
                "192.0.2.10:80/tcp backend=10.0.0.3:80{one} backend=10.0.0.4:80{other} \
                 snat=10.0.0.200 mode={mode}"
            ))
        };
        let mut lb = TestLb::with(&spec("", "*drain"));
        lb.send_to(SERVED, family.tcp(CLIENT, VIP, SYN).bytes());
        let flow = lb.flows()[0];
        if mode == "full-nat" {
            let mut answer = TestPacket::between(flow.backend, flow.outside, Protocol::Tcp);
            answer.flags = SYN | ACK;
            lb.send_to(SERVED, answer.bytes());
        }
        let (_, before) = lb.send_to(SERVED, family.tcp(CLIENT, VIP, ACK).bytes());
        lb.reconfigure(&spec("*drain", ""));
        let blind = family.tcp(CLIENT, VIP, flags).numbered(0xdead_beef, 0);
        lb.send_to(SERVED, blind.bytes());
        let again = family.tcp(CLIENT, VIP, SYN).numbered(0x7777_0000, 0);
        lb.send_to(SERVED, again.bytes());
        let (_, after) = lb.send_to(SERVED, family.tcp(CLIENT, VIP, ACK).bytes());
        assert_eq!(before[..6], after[..6], "{mode}: it stays with its backend");
    }
}

/// In the backend's name, or in IPv6 in that of any host of its /64.
#[test]
fn spoofed_first_pieces_do_not_stop_a_backends_answers() {
    for family in families() {
        let mut lb =
            family.lb("192.0.2.10:53/udp mode=full-nat backend=10.0.0.3:53 snat=10.0.0.200");
        lb.send_to(SERVED, family.udp(CLIENT, "192.0.2.10:53", &[1]).bytes());
        let flow = lb.flows()[0];
        let liar = if family == Family::V4 { "10.0.0.3:53" } else { "10.0.9.9:53" };
        for id in 0..300 {
            let spoof = family.udp(liar, "10.0.0.200:9", &[0; 1000]).bytes();
            lb.carry(SERVED, fragmented(&spoof, id + 10_000, &[504, 504])[0].clone());
        }
        let answer = TestPacket::between(flow.backend, flow.outside, Protocol::Udp);
        for piece in fragmented(&answer.carrying(&[7; 2000]).bytes(), 7, &[1448, 560]) {
            assert_eq!(lb.carry(SERVED, piece)[0].0, SENT);
        }
    }
}
