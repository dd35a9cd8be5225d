//! ICMP errors: to the end that sent the packet, about the packet as it sent it.

use std::net::IpAddr;

use super::{BACKEND, CLIENT, DNAT, FULL_NAT, FULL_NAT_UDP, VIP, families};
use crate::testing::{BOX_MAC, Family, TestLb, TestPacket, mac_towards};
use crate::wire::checksum;
use crate::wire::tcp::{ACK, SYN};
use crate::{DropReason, Exit, FlowState, MacAddr, PortIdx, PuntClass, Timeouts, WorkerIdx};

const SERVED: WorkerIdx = WorkerIdx(0);
/// A router between us and the backend, and one between us and the client.
const INNER: &str = "10.0.0.9";
const OUTER: &str = "198.51.100.9";
const DNAT_UDP: &str = "192.0.2.10:53/udp mode=dnat backend=10.0.0.3:5300";

/// An ICMP error about `quoted`, an IP packet or its beginning; every checksum in full.
#[derive(Clone, Debug)]
struct IcmpError {
    from: IpAddr,
    to: IpAddr,
    /// Type, code, and the four bytes whose meaning they give.
    head: [u8; 6],
    ttl: u8,
    macs: [MacAddr; 2],
    quoted: Vec<u8>,
}

impl IcmpError {
    /// Towards us.
    fn arriving(from: IpAddr, to: IpAddr, head: [u8; 6], quoted: &[u8]) -> Self {
        let macs = [BOX_MAC, mac_towards(from)];
        Self { from, to, head, ttl: 61, macs, quoted: quoted.to_vec() }
    }

    /// As it leaves us, from and to whom, about what.
    fn leaving(&self, from: IpAddr, to: IpAddr, quoted: &[u8]) -> Self {
        let macs = [mac_towards(to), BOX_MAC];
        Self { from, to, macs, ttl: 60, quoted: quoted.to_vec(), ..self.clone() }
    }

    fn bytes(&self) -> Vec<u8> {
        let [kind, code, rest @ ..] = self.head;
        let mut message = vec![kind, code, 0, 0];
        message.extend(rest);
        message.extend(&self.quoted);
        let mut frame = self.macs.iter().flat_map(|mac| mac.0).collect::<Vec<u8>>();
        let ip = match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let sum = !checksum::sum(&message);
                message[2..4].copy_from_slice(&sum.to_ne_bytes());
                frame.extend([0x08, 0x00]);
                let len = (20 + message.len()) as u16;
                let mut ip = vec![0x45, 0xc0, 0, 0, 0x43, 0x21, 0, 0, self.ttl, 1, 0, 0];
                ip[2..4].copy_from_slice(&len.to_be_bytes());
                ip.extend(from.octets());
                ip.extend(to.octets());
                let sum = !checksum::sum(&ip);
                ip[10..12].copy_from_slice(&sum.to_ne_bytes());
                ip
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let addresses = [from.octets(), to.octets()].concat();
                let sum = checksum::l4(&addresses, 58, &message);
                message[2..4].copy_from_slice(&sum.to_ne_bytes());
                frame.extend([0x86, 0xdd]);
                let mut ip = vec![0x60, 0, 0, 0, 0, 0, 58, self.ttl];
                ip[4..6].copy_from_slice(&(message.len() as u16).to_be_bytes());
                ip.extend(addresses);
                ip
            }
            _ => panic!("two families"),
        };
        frame.extend(ip);
        frame.extend(message);
        frame
    }
}

/// What an error says, in both families: a name, type, code and the rest of the head.
fn kinds(family: Family) -> [(&'static str, [u8; 6]); 4] {
    match family {
        Family::V4 => [
            ("too big", [3, 4, 0, 0, 0x05, 0x00]),
            ("unreachable", [3, 1, 0, 0, 0, 0]),
            ("time exceeded", [11, 0, 0, 0, 0, 0]),
            ("parameter problem", [12, 0, 20, 0, 0, 0]),
        ],
        Family::V6 => [
            ("too big", [2, 0, 0, 0, 0x05, 0x00]),
            ("unreachable", [1, 3, 0, 0, 0, 0]),
            ("time exceeded", [3, 0, 0, 0, 0, 0]),
            ("parameter problem", [4, 0, 0, 0, 0, 40]),
        ],
    }
}

/// What becomes of an error to the VIP that quotes these bytes, where there is no flow.
pub(super) fn error_about(family: Family, quoted: &[u8]) -> Exit {
    let [from, vip] = [OUTER, "192.0.2.10"].map(|ip| family.address(ip));
    let (_, head) = kinds(family)[0];
    let error = IcmpError::arriving(from, vip, head, quoted);
    family.lb(FULL_NAT).send_to(SERVED, error.bytes()).0
}

/// What a router says to a SNAT address of a packet that is larger than `mtu`, or with `None` of one whose way is
/// closed.
pub(super) fn from_inside(family: Family, mtu: Option<u16>, quoted: &[u8]) -> Vec<u8> {
    let [from, snat] = [INNER, "10.0.0.200"].map(|ip| family.address(ip));
    let [(_, mut head), (_, unreachable), ..] = kinds(family);
    head[4..].copy_from_slice(&mtu.unwrap_or(0).to_be_bytes());
    IcmpError::arriving(from, snat, if mtu.is_some() { head } else { unreachable }, quoted).bytes()
}

/// What a router says to `to` of a packet that is too large.
pub(super) fn too_big(family: Family, from: &str, to: &str, quoted: &[u8]) -> Vec<u8> {
    let [from, to] = [from, to].map(|ip| family.address(ip));
    let (_, head) = kinds(family)[0];
    IcmpError::arriving(from, to, head, quoted).bytes()
}

/// What we say to the client of a packet to the VIP that is larger than `mtu`.
pub(super) fn answer_too_big(family: Family, mtu: u16, arrived: &[u8]) -> Vec<u8> {
    let [high, low] = mtu.to_be_bytes();
    let (kind, code) = if family == Family::V4 { (3, 4) } else { (2, 0) };
    answer(family, [kind, code, 0, 0, high, low], &arrived[14..])
}

/// What we say to a client whose packet nobody takes.
pub(super) fn port_unreachable(family: Family, packet: &TestPacket) -> Vec<u8> {
    let (kind, code) = if family == Family::V4 { (3, 3) } else { (1, 4) };
    answer(family, [kind, code, 0, 0, 0, 0], &packet.bytes()[14..])
}

/// What we say to whom a packet without a hop left came from.
pub(super) fn time_exceeded(family: Family, packet: &TestPacket) -> Vec<u8> {
    let kind = if family == Family::V4 { 11 } else { 3 };
    let ends = [packet.destination.ip(), packet.source.ip()];
    answer_as(family, ends, [kind, 0, 0, 0, 0, 0], &packet.bytes()[14..])
}

/// What we say to the client about a packet of his.
fn answer(family: Family, head: [u8; 6], arrived: &[u8]) -> Vec<u8> {
    let ends = ["192.0.2.10", "203.0.113.7"].map(|ip| family.address(ip));
    answer_as(family, ends, head, arrived)
}

fn answer_as(family: Family, [vip, client]: [IpAddr; 2], head: [u8; 6], arrived: &[u8]) -> Vec<u8> {
    let most = if family == Family::V4 { 548 } else { 1232 };
    let macs = [mac_towards(client), BOX_MAC];
    let quoted = arrived[..arrived.len().min(most)].to_vec();
    let mut frame = IcmpError { from: vip, to: client, head, ttl: 64, macs, quoted }.bytes();
    if family == Family::V4 {
        // One that is not to be fragmented needs no id.
        frame[15] = 0;
        frame[18..22].copy_from_slice(&[0, 0, 0x40, 0]);
        frame[24..26].fill(0);
        let sum = !checksum::sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_ne_bytes());
    }
    frame
}

fn ip_packet(packet: &TestPacket) -> Vec<u8> {
    packet.bytes()[14..].to_vec()
}

/// A connection through `spec`, and what its packets look like on each side.
struct Connection {
    lb: TestLb<'static>,
    /// The client's packet as it sent it, and as it left us: the hops left are those it left with.
    forward: [Vec<u8>; 2],
    /// The backend's, likewise.
    reply: [Vec<u8>; 2],
    outside: IpAddr,
}

impl Connection {
    fn open(family: Family, spec: &str) -> Self {
        let mut lb = family.lb(spec);
        let is_tcp = spec.contains("/tcp");
        let (vip, backend) =
            if is_tcp { (VIP, BACKEND) } else { ("192.0.2.10:53", "10.0.0.3:5300") };
        let packet = |from: &str, to: &str, flags| match is_tcp {
            true => crate::testing::tcp(from, to, flags).carrying(b"some data"),
            false => crate::testing::udp(from, to, b"some data"),
        };
        let (client, vip, backend) = (family.text(CLIENT), family.text(vip), family.text(backend));
        lb.send_to(SERVED, packet(&client, &vip, SYN).into());
        let outside = lb.flows()[0].outside;
        lb.send_to(SERVED, packet(&backend, &outside.to_string(), SYN | ACK).into());
        let pair = |sent: TestPacket, left: TestPacket| {
            [sent.ttl(60), left.ttl(60)].map(|p| ip_packet(&p))
        };
        Self {
            lb,
            forward: pair(packet(&client, &vip, ACK), packet(&outside.to_string(), &backend, ACK)),
            reply: pair(packet(&backend, &outside.to_string(), ACK), packet(&vip, &client, ACK)),
            outside: outside.ip(),
        }
    }

    fn check(&mut self, promise: &str, arrives: &IcmpError, leaves: &IcmpError) {
        let before = self.lb.flows();
        let (exit, left) = self.lb.send_to(SERVED, arrives.bytes());
        assert_eq!(exit, Exit::Send(PortIdx(0)), "{promise}");
        assert_eq!(left, leaves.bytes(), "{promise}");
        assert_eq!(self.lb.flows(), before, "{promise}: it moves no flow on and keeps none alive");
    }
}

#[test]
fn an_error_reaches_the_end_that_sent_the_packet_about_the_packet_it_sent() {
    for family in families() {
        let header = if family == Family::V4 { 20 } else { 40 };
        for spec in [FULL_NAT, FULL_NAT_UDP, DNAT, DNAT_UDP] {
            for (kind, head) in kinds(family) {
                for cut in [header + 8, header + 16, header + 18, usize::MAX] {
                    let promise = format!("{spec}: {kind}, {cut} bytes quoted");
                    let mut connection = Connection::open(family, spec);
                    let cut = |packet: &[u8]| packet[..cut.min(packet.len())].to_vec();
                    let [vip, client, backend] =
                        ["192.0.2.10", "203.0.113.7", "10.0.0.3"].map(|ip| family.address(ip));
                    let inner = family.address(INNER);
                    let [sent, left] = connection.forward.clone();
                    let arrives = IcmpError::arriving(inner, connection.outside, head, &cut(&left));
                    let leaves = arrives.leaving(vip, client, &cut(&sent));
                    connection.check(&format!("{promise}, from inside"), &arrives, &leaves);

                    let outer = family.address(OUTER);
                    let [sent, left] = connection.reply.clone();
                    let arrives = IcmpError::arriving(outer, vip, head, &cut(&left));
                    let keeps_client = connection.outside == client;
                    let from = if keeps_client { outer } else { connection.outside };
                    let leaves = arrives.leaving(from, backend, &cut(&sent));
                    connection.check(&format!("{promise}, from outside"), &arrives, &leaves);
                }
            }
        }
    }
}

#[test]
fn what_quotes_nothing_of_ours_is_lost_by_name_or_is_the_kernels() {
    for family in families() {
        let [snat, vip, own, outer, backend] =
            ["10.0.0.200", "192.0.2.10", "192.0.2.2", OUTER, "10.0.0.3"]
                .map(|ip| family.address(ip));
        let (_, head) = kinds(family)[0];
        let text = |ip: IpAddr, port| std::net::SocketAddr::new(ip, port).to_string();
        let packet = |from: IpAddr, to: IpAddr| {
            ip_packet(&crate::testing::tcp(&text(from, 5000), &text(to, 9), ACK))
        };
        let (stranger, whole) = (packet(snat, backend), packet(vip, outer));
        let mut not_ours = whole.clone();
        not_ours[if family == Family::V4 { 9 } else { 6 }] = 1; // an ICMP packet
        let mut fragment = whole.clone();
        if family == Family::V4 {
            fragment[6..8].copy_from_slice(&[0, 9]);
        } else {
            fragment[6] = 44;
            fragment[40..48].copy_from_slice(&[6, 0, 0, 72, 0, 0, 0, 1]);
        }
        let drop = Exit::Drop;
        let rows: [(&str, IpAddr, &[u8], Exit); 10] = [
            ("of no flow, to a SNAT address", snat, &stranger, drop(DropReason::IcmpNoFlow)),
            ("of no flow, to a VIP", vip, &whole, drop(DropReason::IcmpNoFlow)),
            ("without ports", vip, &whole[..whole.len() - 13], drop(DropReason::IcmpQuote)),
            ("without anything", vip, &[], drop(DropReason::IcmpQuote)),
            ("half a header", vip, &whole[..19], drop(DropReason::IcmpQuote)),
            ("of another protocol", vip, &not_ours, drop(DropReason::IcmpQuote)),
            ("of a later fragment", vip, &fragment, drop(DropReason::IcmpQuote)),
            ("of no version", vip, &[0; 60], drop(DropReason::IcmpQuote)),
            ("about the box itself", own, &packet(own, outer), Exit::Punt(PuntClass::Other)),
            (
                "about nobody here",
                family.address("203.0.113.9"),
                &whole,
                drop(DropReason::NotRouted),
            ),
        ];
        for (promise, to, quoted, expected) in rows {
            let mut lb = family.lb(FULL_NAT);
            let error = IcmpError::arriving(outer, to, head, quoted).bytes();
            let (exit, left) = lb.send_to(SERVED, error.clone());
            assert_eq!((exit, left), (expected, error), "{promise}");
        }
    }
}

#[test]
fn a_wrong_checksum_and_no_hop_left_are_lost_and_no_flow_changes() {
    for family in families() {
        let mut connection = Connection::open(family, FULL_NAT);
        let (inner, snat) = (family.address(INNER), connection.outside);
        let (_, head) = kinds(family)[0];
        let error = IcmpError::arriving(inner, snat, head, &connection.forward[1]);
        let mut wrong = error.bytes();
        *wrong.last_mut().unwrap() ^= 1;
        let before = connection.lb.flows();
        for (frame, reason) in [
            (wrong, DropReason::L4Checksum),
            (IcmpError { ttl: 1, ..error.clone() }.bytes(), DropReason::TtlExpired),
        ] {
            assert_eq!(connection.lb.send_to(SERVED, frame).0, Exit::Drop(reason));
        }
        connection.lb.sleep_ms(Timeouts::default().tcp_half_open_ms - 1);
        connection.lb.send_to(SERVED, error.bytes());
        assert_eq!(connection.lb.flows(), before);
        assert_eq!(before[0].state, FlowState::SynAcked);
    }
}

#[test]
fn any_worker_brings_an_error_to_the_owner_of_its_flow() {
    for family in families() {
        for (spec, with_rss) in [(FULL_NAT, false), (DNAT, false), (FULL_NAT, true)] {
            let mut lb = TestLb::with_workers(4, &family.text(spec));
            if with_rss {
                lb = lb.with_spread(crate::testing::spread(1, &[0, 1, 2, 3], 4));
            }
            for n in 0..40_u16 {
                let client = family.text(&format!("203.0.113.7:{}", 30_000 + n));
                let syn = crate::testing::tcp(&client, &family.text(VIP), SYN);
                let (owner, _, left) = lb.send_and_follow(SERVED, syn.bytes());
                let flow = lb.flows().into_iter().find(|flow| flow.client.to_string() == client);
                let outside = flow.expect("its flow").outside.ip();
                let (_, head) = kinds(family)[0];
                let inner = family.address(INNER);
                let error = IcmpError::arriving(inner, outside, head, &left[14..]).bytes();
                for worker in (0..4).map(WorkerIdx) {
                    let (at, exit, _) = lb.send_and_follow(worker, error.clone());
                    assert_eq!((at, exit), (owner, Exit::Send(PortIdx(0))));
                }
            }
        }
    }
}

/// An echo request of the client's to `to`.
fn ping(family: Family, to: &str, payload: &[u8]) -> IcmpError {
    let kind = if family == Family::V4 { 8 } else { 128 };
    let head = [kind, 0, 0x12, 0x34, 0, 7];
    IcmpError::arriving(family.address("203.0.113.7"), family.address(to), head, payload)
}

/// One to the VIP, as a frame.
pub(super) fn ping_to_vip(family: Family) -> Vec<u8> {
    ping(family, "192.0.2.10", b"ping").bytes()
}

/// The reply to it.
fn pong(family: Family, request: &IcmpError) -> IcmpError {
    let mut head = request.head;
    head[0] = if family == Family::V4 { 0 } else { 129 };
    let macs = [mac_towards(request.from), BOX_MAC];
    IcmpError { from: request.to, to: request.from, head, macs, ttl: 64, ..request.clone() }
}

#[test]
fn a_ping_to_a_vip_is_answered_whatever_becomes_of_its_backends() {
    for family in families() {
        for spec in [FULL_NAT, "192.0.2.10:80/tcp mode=l2-dsr", "192.0.2.10:53/udp snat=10.0.0.200"]
        {
            let mut lb = family.lb(spec);
            for payload in [&[] as &[u8], b"odd", &[7; 1400]] {
                let mut request = ping(family, "192.0.2.10", payload);
                for ttl in [1, 64] {
                    request.ttl = ttl; // it is at its end here
                    let (exit, left) = lb.send_to(SERVED, request.bytes());
                    assert_eq!(exit, Exit::Send(PortIdx(0)), "{spec}");
                    assert_eq!(left, pong(family, &request).bytes(), "{spec}");
                }
            }
            assert_eq!(lb.worker_counter(SERVED, "echoed"), 6);
            assert!(lb.flows().is_empty());
        }
    }
}

#[test]
fn other_pings_are_the_kernels_or_lost_by_name() {
    for family in families() {
        let mut lb = family.lb(FULL_NAT);
        let punt = Exit::Punt(PuntClass::Other);
        let lost = |reason| Exit::Drop(reason);
        let request = ping(family, "192.0.2.10", b"ping");
        let mut wrong = request.bytes();
        *wrong.last_mut().unwrap() ^= 1;
        let from_us = IcmpError { from: request.to, ..request.clone() };
        let mut reply = request.clone();
        reply.head[0] = pong(family, &request).head[0];
        let rows = [
            ("to a SNAT address", ping(family, "10.0.0.200", b"").bytes(), punt),
            ("to the box itself", ping(family, "192.0.2.2", b"").bytes(), punt),
            ("with options", with_options(family, &request), punt),
            ("a reply to the VIP", reply.bytes(), punt),
            ("to nobody", ping(family, "198.51.100.77", b"").bytes(), lost(DropReason::NotRouted)),
            ("of a wrong checksum", wrong, lost(DropReason::L4Checksum)),
            ("from the VIP itself", from_us.bytes(), lost(DropReason::Martian)),
        ];
        for (promise, frame, expected) in rows {
            assert_eq!(lb.send_to(SERVED, frame.clone()), (expected, frame), "{promise}");
        }
    }
}

/// The same, with options or an extension header that say nothing.
fn with_options(family: Family, request: &IcmpError) -> Vec<u8> {
    let mut frame = request.bytes();
    match family {
        Family::V4 => {
            frame.splice(34..34, [1; 4]);
            (frame[14], frame[17]) = (0x46, frame[17] + 4);
            frame[24..26].fill(0);
            let sum = !checksum::sum(&frame[14..38]);
            frame[24..26].copy_from_slice(&sum.to_ne_bytes());
        }
        Family::V6 => {
            frame.splice(54..54, [58, 0, 1, 4, 0, 0, 0, 0]);
            (frame[20], frame[19]) = (60, frame[19] + 8);
        }
    }
    frame
}

#[test]
fn so_many_pings_a_second_are_answered() {
    for family in families() {
        for most in [0, 1, 250] {
            let mut lb = family.lb(FULL_NAT);
            let mut builder = lb.builder();
            builder.echo_per_second(most);
            lb.install(&builder);
            let frame = ping_to_vip(family);
            let answered = |lb: &mut TestLb| {
                let exits = (0..300).map(|_| lb.send_to(SERVED, frame.clone()).0);
                exits.filter(|exit| *exit != Exit::Drop(DropReason::EchoLimited)).count() as u32
            };
            assert_eq!(answered(&mut lb), most);
            lb.wait_ms(500);
            assert_eq!(answered(&mut lb), most / 2);
            lb.wait_ms(5000);
            assert_eq!(answered(&mut lb), most);
        }
    }
}

/// One more than are answered.
pub(super) fn pinged_too_often(family: Family) -> Exit {
    let mut lb = family.lb(FULL_NAT);
    let frame = ping_to_vip(family);
    for _ in 0..crate::snapshot::ECHO_PER_SECOND {
        assert_eq!(lb.send_to(SERVED, frame.clone()).0, Exit::Send(PortIdx(0)));
    }
    lb.send_to(SERVED, frame).0
}

/// Its answer would go to all of the link.
#[test]
fn a_ping_from_a_group_of_the_link_is_not_answered() {
    for family in families() {
        let mut lb = family.lb(super::FULL_NAT);
        let mut ping = ping_to_vip(family);
        ping[6..12].fill(0xff);
        assert_eq!(lb.send_to(WorkerIdx(0), ping).0, Exit::Drop(DropReason::Martian));
    }
}
