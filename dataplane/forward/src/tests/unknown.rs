//! Segments from the middle of connections that no flow knows, as all are after a restart.

use super::{BACKEND, CLIENT, VIP, families};
use crate::forwarder::RSTS;
use crate::testing::{
    BOX_MAC, Dropped, Family, ROUTER, TestLb, TestPacket, Tx, fragmented, mac_towards,
};
use crate::wire::tcp::{ACK, FIN, RST, SYN};
use crate::{DropReason, Exit, OnUnknown, PortIdx, WorkerIdx};

const SERVED: WorkerIdx = WorkerIdx(0);
const SENT: Exit = Exit::Send(PortIdx(0));
const LOST: &[&str] = &["flow_misses", "dropped", "drop_no_flow"];
const RESET: &[&str] = &["flow_misses", "sent", "unknown_reset"];
/// A SNAT address at a port that no flow has.
const OUTSIDE: &str = "10.0.0.200:2000";

fn spec(mode: &str, policy: &str) -> String {
    format!(
        "192.0.2.10:80/tcp mode={mode} backend=10.0.0.3:8080 snat=10.0.0.200 on-unknown={policy}"
    )
}

/// The RST of a closed port, back by the way the segment came.
fn rst(family: Family, from: &str, to: &str, flags: u8, sequence: u32, number: u32) -> TestPacket {
    let mut rst = family.tcp(from, to, flags).numbered(sequence, number).ttl(64);
    rst.macs = [mac_towards(family.address(to.split(':').next().unwrap())), BOX_MAC];
    rst.ip_id_and_fragment = [0, 0, 0x40, 0];
    rst.window = 0;
    rst
}

#[test]
fn a_client_is_answered_as_the_listener_says() {
    for (family, mode) in families().flat_map(|family| ["full-nat", "dnat"].map(|m| (family, m))) {
        let segment = |flags| family.tcp(CLIENT, VIP, flags).numbered(500, 9000);
        let closed =
            |flags, sequence, number| Tx(rst(family, VIP, CLIENT, flags, sequence, number));
        family.lb(&spec(mode, "drop")).check(&[
            ("not at all", segment(ACK).bytes(), Dropped(DropReason::NoFlow), LOST),
            ("whatever it says", segment(SYN | ACK).bytes(), Dropped(DropReason::NoFlow), LOST),
        ]);
        family.lb(&spec(mode, "reset")).check(&[
            ("by a RST where it expects more", segment(ACK).bytes(), closed(RST, 9000, 0), RESET),
            (
                "data too",
                segment(ACK).carrying(&[7; 100]).bytes(),
                Tx(rst(family, VIP, CLIENT, RST, 9000, 0).padded_to_zero(60)),
                RESET,
            ),
            ("a FIN", segment(ACK | FIN).bytes(), closed(RST, 9000, 0), RESET),
            ("a SYN-ACK", segment(SYN | ACK).bytes(), closed(RST, 9000, 0), RESET),
            ("without ACK, about its end", segment(FIN).bytes(), closed(RST | ACK, 0, 501), RESET),
            ("a RST never", segment(RST).bytes(), Dropped(DropReason::NoFlow), LOST),
        ]);
    }
}

#[test]
fn a_backend_is_answered_as_the_box_says() {
    for family in families() {
        let segment = |flags| family.tcp(BACKEND, OUTSIDE, flags).numbered(500, 9000);
        let closed = rst(family, OUTSIDE, BACKEND, RST, 9000, 0);
        let mut lb = family.lb(&spec("full-nat", "drop"));
        lb.check(&[("not at all", segment(ACK).bytes(), Dropped(DropReason::NoFlow), LOST)]);
        let mut builder = lb.builder();
        builder.snat_on_unknown(OnUnknown::Reset);
        lb.install(&builder);
        lb.check(&[
            ("by a RST where it expects more", segment(ACK).bytes(), Tx(closed), RESET),
            ("a RST never", segment(ACK | RST).bytes(), Dropped(DropReason::NoFlow), LOST),
            (
                "a datagram never",
                family.udp(BACKEND, OUTSIDE, b"x").bytes(),
                Dropped(DropReason::NoFlow),
                LOST,
            ),
        ]);
    }
}

/// Who writes a source that can be nobody's gets no answer, nor does who cuts his segment in pieces.
#[test]
fn what_cannot_be_answered_is_not() {
    for family in families() {
        let mut lb = family.lb(&spec("full-nat", "reset"));
        let mut builder = lb.builder();
        builder.broadcasts([family.address("10.0.0.255")]).snat_on_unknown(OnUnknown::Reset);
        lb.install(&builder);
        for to in [VIP, OUTSIDE] {
            for source in ["10.0.0.255:5", "203.0.113.7:0"] {
                let (exit, _) = lb.send_to(SERVED, family.tcp(source, to, ACK).bytes());
                assert_eq!(exit, Exit::Drop(DropReason::NoFlow), "{source} to {to}");
            }
        }
        let segment = family.tcp(CLIENT, VIP, ACK).carrying(&[7; 44]);
        for piece in fragmented(&segment.bytes(), 7, &[32, 32]) {
            let exits = lb.carry(SERVED, piece);
            assert_eq!(exits[0].0, Exit::Drop(DropReason::NoFlow));
        }
        assert_eq!(lb.flows(), []);
    }
}

/// With DSR a backend knows the connection, or answers itself.
#[test]
fn with_dsr_it_goes_to_a_backend() {
    for family in families() {
        let mut lb = family.lb(&spec("ipip", "reset"));
        let (exit, left) = lb.send_to(SERVED, family.tcp(CLIENT, VIP, ACK).bytes());
        assert_eq!(exit, SENT);
        assert_eq!(left[..6], mac_towards(family.address("10.0.0.3")).0);
        assert_eq!(lb.worker_counter(SERVED, "unknown_reset"), 0);
    }
}

#[test]
fn so_many_are_answered_and_no_more() {
    for family in families() {
        let mut lb = family.lb(&spec("full-nat", "reset"));
        let segment = family.tcp(CLIENT, VIP, ACK).bytes();
        let sent = |lb: &mut TestLb, segments: u32| {
            let exits = (0..segments).map(|_| lb.send_to(SERVED, segment.clone()).0);
            exits.filter(|exit| *exit == SENT).count() as u32
        };
        assert_eq!(sent(&mut lb, RSTS.at_once + 100), RSTS.at_once);
        lb.wait_ms(3);
        assert_eq!(sent(&mut lb, 100), 30);
        let router = mac_towards(family.of(ROUTER));
        lb.wait_ms(1);
        let (_, left) = lb.send_to(SERVED, segment.clone());
        assert_eq!(left[..6], router.0, "back by the way it came");
    }
}
