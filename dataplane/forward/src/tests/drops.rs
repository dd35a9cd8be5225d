//! Every reason to drop, once: what packet, in what state, is lost for it.

use std::sync::Arc;

use super::{BACKEND, CLIENT, DNAT, FULL_NAT, FULL_NAT_UDP, VIP};
use crate::drop::RaisedBy;
use crate::testing::{BOX_MAC, TestLb, fib_of, tcp, udp};
use crate::wire::tcp::{ACK, SYN};
use crate::{Burst, Checked, DropReason, Exit, MacAddr, PortConfig, PortIdx, RxChecks, WorkerIdx};

fn lb() -> TestLb<'static> {
    TestLb::with(FULL_NAT)
}

fn syn(lb: &mut TestLb, client: &str, vip: &str) -> Exit {
    lb.send_to(WorkerIdx(0), tcp(client, vip, SYN).into()).0
}

/// What the NIC or the worker says of the frame, beside its bytes.
fn with_metadata(ingress: PortIdx, checks: RxChecks) -> Exit {
    let mut lb = lb();
    let mut frame = tcp(CLIENT, VIP, SYN).bytes();
    let mut burst = Burst::new();
    burst.push(&mut frame, ingress, checks);
    let (snapshot, now) = (lb.snapshot.clone(), lb.now);
    lb.worker_mut(WorkerIdx(0)).forward(&mut burst, &snapshot, now);
    burst.iter().next().map(|packet| packet.exit()).unwrap()
}

fn with_mac(mac: MacAddr) -> Exit {
    lb().send_to(WorkerIdx(0), tcp(CLIENT, VIP, SYN).to_mac(mac).into()).0
}

fn changed(at: usize, bytes: &[u8]) -> Exit {
    lb().send_to(WorkerIdx(0), tcp(CLIENT, VIP, SYN).put(at, bytes).into()).0
}

/// Replies must leave by a tagged port; the client's packets came untagged.
fn untagged_to_tagged() -> Exit {
    let mut lb = lb();
    let tagged = [PortConfig { mac: BOX_MAC, vlan: Some(7), mtu: 1500 }];
    let mut builder = lb.builder();
    builder.fib(Arc::new(fib_of(&tagged, 2)));
    lb.install(&builder);
    syn(&mut lb, CLIENT, VIP)
}

fn fragment() -> Exit {
    let mut packet = tcp(CLIENT, VIP, SYN);
    packet.ip_id_and_fragment = [0, 1, 0x20, 0];
    lb().send_to(WorkerIdx(0), packet.into()).0
}

/// One worker in 255 has 253 ports, and a search tries 64 of them: fill the share.
fn snat_ports_used_up() -> Exit {
    let spec = "192.0.2.10:80/tcp backend=10.0.0.3:8080 snat=10.0.0.200";
    let mut lb = TestLb::with_workers(255, spec);
    let mut port = 1_u16;
    loop {
        let exit = syn(&mut lb, &format!("203.0.113.7:{port}"), VIP);
        if !matches!(exit, Exit::Send(_) | Exit::HandOver(_)) {
            return exit;
        }
        port = port.checked_add(1).expect("exhausted before 65535 clients");
    }
}

/// Every port of the client towards the backend is taken by another VIP's flow.
fn dnat_ports_used_up() -> Exit {
    let mut lb = TestLb::sized(
        1,
        65536,
        &format!("{DNAT}\n192.0.2.11:80/tcp mode=dnat backend=10.0.0.3:8080"),
    );
    for port in 1..=u16::MAX {
        syn(&mut lb, &format!("203.0.113.7:{port}"), VIP);
    }
    syn(&mut lb, CLIENT, "192.0.2.11:80")
}

fn table_full() -> Exit {
    let mut lb = TestLb::sized(1, 1, FULL_NAT);
    syn(&mut lb, "203.0.113.7:1", VIP);
    syn(&mut lb, "203.0.113.7:2", VIP)
}

fn to_backend(backend: &str, len: usize) -> Exit {
    let mut lb = TestLb::with(&format!("192.0.2.10:80/tcp backend={backend} snat=10.0.0.200"));
    lb.send_to(WorkerIdx(0), tcp(CLIENT, VIP, SYN).carrying(&vec![0; len]).into()).0
}

/// A row: the reason, and a packet lost for it.
type Row = (DropReason, fn() -> Exit);

const ROWS: &[Row] = &[
    (DropReason::UnknownPort, || with_metadata(PortIdx(9), RxChecks::default())),
    (DropReason::Truncated, || lb().send_to(WorkerIdx(0), vec![0; 13]).0),
    (DropReason::OtherHost, || with_mac(MacAddr([2, 0, 0, 0, 0, 1]))),
    (DropReason::VlanMismatch, || {
        lb().send_to(WorkerIdx(0), tcp(CLIENT, VIP, SYN).tagged(9).into()).0
    }),
    (DropReason::VlanStacked, || changed(12, &[0x88, 0xa8])),
    (DropReason::VlanEgress, untagged_to_tagged),
    (DropReason::UnknownEtherType, || changed(12, &[0x12, 0x34])),
    (DropReason::IpHeader, || changed(14, &[0x44])),
    (DropReason::IpChecksum, || changed(24, &[0xff, 0xff])),
    (DropReason::L4Header, || changed(46, &[0x40])),
    (DropReason::L4Checksum, || {
        with_metadata(PortIdx(0), RxChecks { ip: Checked::Good, l4: Checked::Bad })
    }),
    (DropReason::Fragment, fragment),
    (DropReason::Martian, || syn(&mut lb(), "127.0.0.1:5", VIP)),
    (DropReason::TtlExpired, || lb().send_to(WorkerIdx(0), tcp(CLIENT, VIP, SYN).ttl(1).into()).0),
    (DropReason::NotRouted, || syn(&mut lb(), CLIENT, "198.51.100.9:80")),
    (DropReason::NoFlow, || lb().send_to(WorkerIdx(0), tcp(CLIENT, VIP, ACK).into()).0),
    (DropReason::NoBackend, || {
        let mut lb = TestLb::with("192.0.2.10:53/udp snat=10.0.0.200");
        lb.send_to(WorkerIdx(0), udp(CLIENT, "192.0.2.10:53", b"").into()).0
    }),
    (DropReason::NoSnatAddress, || {
        syn(&mut TestLb::with("192.0.2.10:80/tcp backend=10.0.0.3:80"), CLIENT, VIP)
    }),
    (DropReason::SnatPortsExhausted, snat_ports_used_up),
    (DropReason::DnatPortsExhausted, dnat_ports_used_up),
    (DropReason::FlowTableFull, table_full),
    (DropReason::NoRoute, || to_backend("10.66.0.1:80", 0)),
    (DropReason::MtuExceeded, || to_backend("10.77.0.1:80", 961)),
];

#[test]
fn every_reason_the_forwarder_raises_has_a_packet_that_is_lost_for_it() {
    for (reason, lose) in ROWS {
        assert_eq!(lose(), Exit::Drop(*reason));
    }
    for reason in DropReason::ALL {
        let rows = ROWS.iter().filter(|(row, _)| row == reason).count();
        let expected = usize::from(reason.raised_by() == RaisedBy::Forwarder);
        assert_eq!(rows, expected, "rows for {reason:?}");
    }
}

#[test]
fn what_is_nearly_lost_is_not() {
    type Row = (&'static str, fn() -> Exit);
    let rows: &[Row] = &[
        ("a packet of exactly the MTU", || to_backend("10.77.0.1:80", 960)),
        ("two hops left", || lb().send_to(WorkerIdx(0), tcp(CLIENT, VIP, SYN).ttl(2).into()).0),
        ("a NIC that found both checksums good", || {
            with_metadata(PortIdx(0), RxChecks { ip: Checked::Good, l4: Checked::Good })
        }),
    ];
    for (promise, send) in rows {
        assert_eq!(send(), Exit::Send(PortIdx(0)), "{promise}");
    }
}

#[test]
fn sources_that_can_be_nobodys_open_nothing() {
    let mut lb = TestLb::with(&format!("{FULL_NAT}\n{FULL_NAT_UDP}"));
    let mut builder = lb.builder();
    builder.broadcasts(["10.0.0.255".parse().unwrap()]);
    lb.install(&builder);
    for source in [
        "0.0.0.1:5",
        "10.0.0.255:5",
        "127.1.2.3:5",
        "224.0.0.5:5",
        "240.1.1.1:5",
        "255.255.255.255:5",
        "203.0.113.7:0",
        VIP,
        "192.0.2.10:5",
    ] {
        assert_eq!(syn(&mut lb, source, VIP), Exit::Drop(DropReason::Martian), "{source}");
    }
    assert_eq!(lb.flows(), []);
}

/// Fragments of what we would not forward stay the kernel's, or nobody's.
#[test]
fn fragments_for_the_box_go_to_the_kernel() {
    let cases = [
        ("192.0.2.2:9", Exit::Punt(crate::PuntClass::Other)),
        ("10.0.0.200:9", Exit::Drop(DropReason::Fragment)),
        ("198.51.100.1:9", Exit::Drop(DropReason::NotRouted)),
    ];
    for (destination, expected) in cases {
        let mut packet = udp(CLIENT, destination, &[0; 64]);
        packet.ip_id_and_fragment = [0, 1, 0, 8]; // not the first, the last
        assert_eq!(lb().send_to(WorkerIdx(0), packet.into()).0, expected, "{destination}");
    }
    let mut reply = tcp(BACKEND, CLIENT, ACK);
    reply.ip_id_and_fragment = [0, 1, 0x20, 0];
    let (exit, _) = TestLb::with(DNAT).send_to(WorkerIdx(0), reply.into());
    assert_eq!(exit, Exit::Drop(DropReason::Fragment), "from a DNAT backend");
}
