//! Every reason to drop, once for each family it can befall: what packet, in what state, is lost for it.

use super::{CLIENT, DNAT, FULL_NAT, FULL_NAT_UDP, VIP, families};
use crate::drop::RaisedBy;
use crate::testing::{Family, TestLb, TestPacket, buffer_of, fragmented};
use crate::wire::ipv6;
use crate::wire::tcp::{ACK, SYN};
use crate::{Burst, Checked, DropReason, Exit, MacAddr, PortIdx, RxChecks, WorkerIdx};

/// How a packet leaves a box with one listener.
fn exit(family: Family, packet: TestPacket) -> Exit {
    family.lb(FULL_NAT).send_to(WorkerIdx(0), packet.into()).0
}

fn syn(lb: &mut TestLb, family: Family, client: &str, vip: &str) -> Exit {
    lb.send_to(WorkerIdx(0), family.tcp(client, vip, SYN).into()).0
}

fn first(family: Family) -> TestPacket {
    family.tcp(CLIENT, VIP, SYN)
}

/// What the NIC or the worker says of the frame, beside its bytes.
fn with_metadata(family: Family, ingress: PortIdx, checks: RxChecks) -> Exit {
    let mut lb = family.lb(FULL_NAT);
    let mut frame = buffer_of(&first(family).bytes());
    let mut burst = Burst::new();
    burst.push(&mut frame, ingress, checks);
    let (snapshot, now) = (lb.snapshot.clone(), lb.now);
    lb.worker_mut(WorkerIdx(0)).forward(&mut burst, &snapshot, now);
    burst.iter().next().map(|packet| packet.exit()).unwrap()
}

/// What the sender is told of packets that are too large is limited.
fn too_large_too_often(family: Family) -> Exit {
    let mut lb = family.lb("192.0.2.10:80/tcp backend=10.77.0.1:80 snat=10.0.0.200");
    let long = family.tcp(CLIENT, VIP, SYN).carrying(&[0; 1000]).bytes();
    for _ in 0..crate::answer::ERRORS.at_once {
        assert_eq!(lb.send_to(WorkerIdx(0), long.clone()).0, Exit::Send(PortIdx(0)));
    }
    lb.send_to(WorkerIdx(0), long).0
}

/// And so is what it is told of packets that have no hop left.
fn no_hop_left_too_often(family: Family) -> Exit {
    let mut lb = family.lb(FULL_NAT);
    for _ in 0..crate::answer::ERRORS.at_once {
        let told = lb.send_to(WorkerIdx(0), first(family).ttl(1).into()).0;
        assert_eq!(told, Exit::Send(PortIdx(0)));
    }
    lb.send_to(WorkerIdx(0), first(family).ttl(1).into()).0
}

/// One worker in 255 has 253 ports, and a search tries 64 of them: fill the share.
fn snat_ports_used_up(family: Family) -> Exit {
    let spec = "192.0.2.10:80/tcp backend=10.0.0.3:8080 snat=10.0.0.200 on-exhaustion=drop";
    let mut lb = TestLb::with_workers(255, &family.text(spec));
    let mut port = 1_u16;
    loop {
        let exit = syn(&mut lb, family, &format!("203.0.113.7:{port}"), VIP);
        if !matches!(exit, Exit::Send(_) | Exit::HandOver(_)) {
            return exit;
        }
        port = port.checked_add(1).expect("exhausted before 65535 clients");
    }
}

/// Every port of the client towards the backend is taken by another VIP's flow.
fn dnat_ports_used_up(family: Family) -> Exit {
    let other = "192.0.2.11:80/tcp mode=dnat backend=10.0.0.3:8080 on-exhaustion=drop";
    let spec = format!("{DNAT}\n{other}");
    let mut lb = TestLb::sized(1, 65536, &family.text(&spec));
    for port in 1..=u16::MAX {
        syn(&mut lb, family, &format!("203.0.113.7:{port}"), VIP);
    }
    syn(&mut lb, family, CLIENT, "192.0.2.11:80")
}

fn table_full(family: Family) -> Exit {
    let mut lb = TestLb::sized(1, 1, &family.text(FULL_NAT));
    syn(&mut lb, family, "203.0.113.7:1", VIP);
    syn(&mut lb, family, "203.0.113.7:2", VIP)
}

/// What is left of a table of eight is for the other listener.
fn listener_share(family: Family) -> Exit {
    let other = FULL_NAT.replace(":80/", ":81/");
    let mut lb = TestLb::sized(1, 8, &family.text(&format!("{FULL_NAT}\n{other}")));
    for n in 1..=7 {
        assert!(super::limits::establish(&mut lb, family, n));
    }
    syn(&mut lb, family, "203.0.113.7:1", VIP)
}

/// An IP packet of `len` bytes.
fn to_backend(family: Family, backend: &str, len: usize) -> Exit {
    let mut lb = family.lb(&format!("192.0.2.10:80/tcp backend={backend} snat=10.0.0.200"));
    let payload = vec![0; len - (family.l4() - 14 + 20)];
    lb.send_to(WorkerIdx(0), first(family).carrying(&payload).into()).0
}

/// A row: the reason, the families, and a packet lost for it.
type Row = (DropReason, &'static [Family], fn(Family) -> Exit);

const BOTH: &[Family] = &Family::BOTH;
const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];
const ROWS: &[Row] = &[
    (DropReason::UnknownPort, BOTH, |family| {
        with_metadata(family, PortIdx(9), RxChecks::default())
    }),
    (DropReason::Truncated, BOTH, |family| exit(family, first(family).cut_to(13))),
    (DropReason::OtherHost, BOTH, |family| {
        exit(family, first(family).to_mac(MacAddr([2, 0, 0, 0, 0, 1])))
    }),
    (DropReason::VlanMismatch, BOTH, |family| exit(family, first(family).tagged(9))),
    (DropReason::VlanStacked, BOTH, |family| exit(family, first(family).put(12, &[0x88, 0xa8]))),
    (DropReason::UnknownEtherType, BOTH, |family| {
        exit(family, first(family).put(12, &[0x12, 0x34]))
    }),
    (DropReason::IpHeader, BOTH, |family| exit(family, first(family).put(14, &[0x54]))),
    (DropReason::ExtensionHeaders, V6, |family| {
        exit(family, extended(&[(ipv6::DESTINATION, PADDING); 9]))
    }),
    (DropReason::RoutingHeader, V6, |family| {
        exit(family, extended(&[(ipv6::ROUTING, [0, 0, 0, 0, 0, 0, 0, 0])]))
    }),
    (DropReason::IpChecksum, V4, |family| exit(family, first(family).put(24, &[0xff, 0xff]))),
    (DropReason::L4Header, BOTH, |family| exit(family, first(family).put_l4(12, &[0x40]))),
    (DropReason::L4Checksum, BOTH, |family| {
        with_metadata(family, PortIdx(0), RxChecks { ip: Checked::Good, l4: Checked::Bad })
    }),
    (DropReason::FragmentLength, BOTH, |family| {
        exit(family, first(family).carrying(b"odd").piece(0, true))
    }),
    (DropReason::FragmentTiny, BOTH, |family| exit(family, first(family).piece(1, false))),
    (DropReason::FragmentOverlap, BOTH, |family| {
        let mut lb = family.lb(FULL_NAT);
        let pieces = fragmented(&first(family).carrying(&[0; 44]).bytes(), 7, &[32, 32]);
        lb.carry(WorkerIdx(0), pieces[0].clone());
        lb.carry(WorkerIdx(0), pieces[0].clone())[0].0
    }),
    (DropReason::FragmentLimit, BOTH, super::fragments::too_many_wait),
    (DropReason::IcmpQuote, BOTH, |family| super::icmp::error_about(family, &[])),
    (DropReason::IcmpNoFlow, BOTH, |family| {
        super::icmp::error_about(family, &family.tcp(VIP, CLIENT, SYN).bytes()[14..])
    }),
    (DropReason::IcmpTunnel, BOTH, super::dsr::told_of_another_error),
    (DropReason::EchoLimited, BOTH, super::icmp::pinged_too_often),
    (DropReason::Martian, BOTH, |family| exit(family, family.tcp("203.0.113.7:0", VIP, SYN))),
    (DropReason::TtlExpired, BOTH, no_hop_left_too_often),
    (DropReason::NotRouted, BOTH, |family| {
        exit(family, family.tcp(CLIENT, "198.51.100.9:80", SYN))
    }),
    (DropReason::NoFlow, BOTH, |family| exit(family, family.tcp(CLIENT, VIP, ACK))),
    (DropReason::SourceRange, BOTH, |family| {
        let mut lb = family.lb(&format!("{FULL_NAT} source=198.51.100.0/24"));
        syn(&mut lb, family, CLIENT, VIP)
    }),
    (DropReason::NoBackend, BOTH, |family| {
        let mut lb = family.lb("192.0.2.10:53/udp snat=10.0.0.200");
        lb.send_to(WorkerIdx(0), family.udp(CLIENT, "192.0.2.10:53", b"").into()).0
    }),
    (DropReason::NoSnatAddress, BOTH, |family| {
        let mut lb = family.lb("192.0.2.10:80/tcp backend=10.0.0.3:80 on-exhaustion=drop");
        syn(&mut lb, family, CLIENT, VIP)
    }),
    (DropReason::SnatPortsExhausted, BOTH, snat_ports_used_up),
    (DropReason::DnatPortsExhausted, BOTH, dnat_ports_used_up),
    (DropReason::FlowTableFull, BOTH, table_full),
    (DropReason::ListenerShare, BOTH, listener_share),
    (DropReason::NoRoute, BOTH, |family| to_backend(family, "10.66.0.1:80", 100)),
    (DropReason::MtuExceeded, BOTH, too_large_too_often),
];

#[test]
fn every_reason_the_forwarder_raises_has_a_packet_that_is_lost_for_it() {
    for (reason, families, lose) in ROWS {
        for family in *families {
            assert_eq!(lose(*family), Exit::Drop(*reason), "{family:?}");
        }
    }
    for reason in DropReason::ALL {
        let rows = ROWS.iter().filter(|(row, ..)| row == reason).count();
        let expected = usize::from(reason.raised_by() == RaisedBy::Forwarder);
        assert_eq!(rows, expected, "rows for {reason:?}");
    }
}

#[test]
fn what_is_nearly_lost_is_not() {
    type Row = (&'static str, fn(Family) -> Exit);
    let rows: &[Row] = &[
        ("a packet of exactly the MTU", |family| to_backend(family, "10.77.0.1:80", 1000)),
        ("two hops left", |family| exit(family, first(family).ttl(2))),
        ("a NIC that found both checksums good", |family| {
            with_metadata(family, PortIdx(0), RxChecks { ip: Checked::Good, l4: Checked::Good })
        }),
    ];
    for family in families() {
        for (promise, send) in rows {
            assert_eq!(send(family), Exit::Send(PortIdx(0)), "{promise}");
        }
    }
}

/// Options that say nothing: a PadN of four (RFC 8200 §4.2).
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

/// A SYN with IPv6 extension headers.
fn extended(headers: &[(u8, [u8; 8])]) -> TestPacket {
    let syn = first(Family::V6);
    headers.iter().fold(syn, |packet, (number, bytes)| packet.extended(*number, bytes))
}

#[test]
fn sources_that_can_be_nobodys_open_nothing() {
    type Sources = &'static [&'static str];
    let rows: [(Family, Sources); 2] = [
        (
            Family::V4,
            &[
                "0.0.0.1:5",
                "10.0.0.255:5",
                "127.1.2.3:5",
                "224.0.0.5:5",
                "240.1.1.1:5",
                "255.255.255.255:5",
            ],
        ),
        (
            Family::V6,
            &[
                "[::]:5",
                "[::1]:5",
                "[ff02::5]:5",
                "[ff0e::5]:5",
                "[::ffff:203.0.113.7]:5",
                "[fe80::7]:5",
            ],
        ),
    ];
    for (family, sources) in rows {
        let another = FULL_NAT.replace("192.0.2.10", "192.0.2.11");
        let mut lb = family.lb(&format!("{FULL_NAT}\n{FULL_NAT_UDP}\n{another}"));
        let mut builder = lb.builder();
        builder.broadcasts(["10.0.0.255".parse().unwrap()]);
        lb.install(&builder);
        // No port; the VIP itself, and others of our addresses, to which replies would come back to us.
        let ours = ["203.0.113.7:0", VIP, "192.0.2.10:5", "192.0.2.11:5", "10.0.0.200:5"];
        let ours = ours.map(|end| family.text(end));
        for source in sources.iter().copied().chain(ours.iter().map(String::as_str)) {
            let frame = crate::testing::tcp(source, &family.text(VIP), SYN);
            let (exit, _) = lb.send_to(WorkerIdx(0), frame.into());
            assert_eq!(exit, Exit::Drop(DropReason::Martian), "{source}");
        }
        assert_eq!(lb.flows(), []);
    }
}

/// RFC 4291 §2.5.6: a router forwards no packet with a link-local address at either end.
#[test]
fn a_link_local_vip_serves_nobody() {
    let mut lb =
        TestLb::with("[fe80::10]:80/tcp backend=[2001:db8::a00:3]:80 snat=2001:db8::a00:c8");
    let frame = crate::testing::tcp("[2001:db8::7]:5", "[fe80::10]:80", SYN);
    assert_eq!(lb.send_to(WorkerIdx(0), frame.into()).0, Exit::Drop(DropReason::Martian));
}
