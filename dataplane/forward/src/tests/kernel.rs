//! What belongs to the kernel reaches it unchanged, in the right queue.

use super::{CLIENT, FULL_NAT, VIP, families};
use crate::testing::Dropped;
use crate::testing::{Family, Punted, TestLb, TestPacket, Tx, arp_who_has, udp};
use crate::wire::tcp::{ACK, SYN};
use crate::{DropReason, MacAddr, PuntClass};

const MISS: &[&str] = &["flow_misses", "punted"];
const PUNT: &[&str] = &["punted"];
const BROADCAST: MacAddr = MacAddr([0xff; 6]);
const ALL_OSPF: MacAddr = MacAddr([0x01, 0x00, 0x5e, 0, 0, 5]);
const ALL_VRRP: MacAddr = MacAddr([0x01, 0x00, 0x5e, 0, 0, 18]);
const ALL_HOSTS: MacAddr = MacAddr([0x01, 0x00, 0x5e, 0, 0, 1]);

#[test]
fn the_kernel_gets_its_own() {
    for family in families() {
        let mut lb = family.lb(FULL_NAT);
        let router = "192.0.2.1:5000";
        let ip = |destination: &str, protocol| ip(family, destination, protocol);
        let icmp = |destination: &str| ip(destination, if family == Family::V4 { 1 } else { 58 });
        lb.check(&[
            (
                "BGP, we listen",
                family.tcp(router, "192.0.2.2:179", SYN).ttl(1).into(),
                Punted(PuntClass::Control),
                MISS,
            ),
            (
                "BGP, they listen",
                family.tcp("192.0.2.1:179", "192.0.2.2:4000", SYN | ACK).into(),
                Punted(PuntClass::Control),
                MISS,
            ),
            (
                "SSH, we listen",
                family.tcp(CLIENT, "192.0.2.2:22", SYN).into(),
                Punted(PuntClass::Management),
                MISS,
            ),
            (
                "SSH, they listen",
                family.tcp("203.0.113.7:22", "192.0.2.2:4000", SYN | ACK).into(),
                Punted(PuntClass::Management),
                MISS,
            ),
            (
                "BFD",
                family.udp(router, "192.0.2.2:3784", b"up").into(),
                Punted(PuntClass::Control),
                MISS,
            ),
            (
                "other traffic of the box",
                family.udp(router, "10.0.0.2:161", b"?").into(),
                Punted(PuntClass::Other),
                MISS,
            ),
            (
                "a VIP on a port without listener",
                family.tcp(CLIENT, "192.0.2.10:81", SYN).into(),
                Punted(PuntClass::Other),
                MISS,
            ),
            (
                "a VIP by a protocol without listener",
                family.udp(CLIENT, VIP, b"").into(),
                Punted(PuntClass::Other),
                MISS,
            ),
            (
                "nobody speaks BGP to a VIP",
                family.tcp(CLIENT, "192.0.2.10:179", SYN).into(),
                Punted(PuntClass::Other),
                MISS,
            ),
            (
                "nor from there",
                family.tcp("203.0.113.7:179", "192.0.2.10:81", ACK).into(),
                Punted(PuntClass::Other),
                MISS,
            ),
            (
                "nor SSH",
                family.tcp(CLIENT, "192.0.2.10:22", SYN).into(),
                Punted(PuntClass::Other),
                MISS,
            ),
            (
                "nor BFD",
                family.udp(CLIENT, "192.0.2.10:3784", b"up").into(),
                Punted(PuntClass::Other),
                MISS,
            ),
            ("nor OSPF", ip("192.0.2.10:0", 89).into(), Punted(PuntClass::Other), PUNT),
            (
                "nor OSPF to a SNAT address",
                ip("10.0.0.200:0", 89).into(),
                Punted(PuntClass::Other),
                PUNT,
            ),
            ("OSPF, to the box", ip("192.0.2.2:0", 89).into(), Punted(PuntClass::Control), PUNT),
            (
                "OSPF to a VIP in a frame to many",
                ip("192.0.2.10:0", 89).to_mac(ALL_OSPF).into(),
                Punted(PuntClass::Other),
                PUNT,
            ),
            ("a ping to a VIP", icmp("192.0.2.10:0").into(), Punted(PuntClass::Other), PUNT),
            (
                "a ping to a SNAT address",
                icmp("10.0.0.200:0").into(),
                Punted(PuntClass::Other),
                PUNT,
            ),
            (
                "a packet for a VIP in a broadcast frame",
                family.tcp(CLIENT, VIP, SYN).to_mac(BROADCAST).into(),
                Punted(PuntClass::Other),
                PUNT,
            ),
            (
                "TCP to a SNAT address is a reply or nothing",
                family.tcp(CLIENT, "10.0.0.200:179", SYN).into(),
                Dropped(DropReason::NoFlow),
                &["flow_misses", "dropped", "drop_no_flow"],
            ),
        ]);
    }
}

#[test]
fn what_ipv4_sends_to_many_is_the_kernels() {
    let ip = |destination: &str, protocol| ip(Family::V4, destination, protocol);
    let router = "192.0.2.1:5000";
    TestLb::with(FULL_NAT).check(&[
        ("ARP", arp_who_has("192.0.2.10".parse().unwrap()), Punted(PuntClass::Neighbour), PUNT),
        (
            "OSPF, to its group",
            ip("224.0.0.5:0", 89).to_mac(ALL_OSPF).into(),
            Punted(PuntClass::Control),
            PUNT,
        ),
        (
            "VRRP, to its group",
            ip("224.0.0.18:0", 112).to_mac(ALL_VRRP).into(),
            Punted(PuntClass::Control),
            PUNT,
        ),
        (
            "OSPF, to another group",
            ip("224.0.0.18:0", 89).to_mac(ALL_VRRP).into(),
            Punted(PuntClass::Other),
            PUNT,
        ),
        (
            "broadcast",
            udp(router, "255.255.255.255:67", b"?").to_mac(BROADCAST).into(),
            Punted(PuntClass::Other),
            PUNT,
        ),
        (
            "multicast",
            udp(router, "224.0.0.1:1", b"?").to_mac(ALL_HOSTS).into(),
            Punted(PuntClass::Other),
            PUNT,
        ),
    ]);
}

/// A datagram of a protocol without L4 ports.
fn ip(family: Family, destination: &str, protocol: u8) -> TestPacket {
    let packet = family.udp(CLIENT, destination, b"ping");
    match family {
        Family::V4 => packet.put(23, &[protocol]).put(24, &ip_checksum_for(destination, protocol)),
        Family::V6 => packet.put(20, &[protocol]),
    }
}

/// The header checksum bytes of a default datagram of 4 bytes with another protocol number.
fn ip_checksum_for(destination: &str, protocol: u8) -> [u8; 2] {
    let mut bytes = udp(CLIENT, destination, b"ping").bytes();
    bytes[23] = protocol;
    bytes[24..26].copy_from_slice(&[0, 0]);
    (!crate::wire::checksum::sum(&bytes[14..34])).to_ne_bytes()
}

/// An IPv6 frame of 8 bytes payload.
fn v6(to: MacAddr, next_header: u8, destination: &str, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(to.0);
    frame.extend([2, 1, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend([next_header, 255]);
    frame.extend("2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
    frame.extend(destination.parse::<std::net::Ipv6Addr>().unwrap().octets());
    frame.extend(payload);
    frame
}

/// The same frame after a hop.
fn routed(mut frame: Vec<u8>) -> Vec<u8> {
    frame[21] -= 1;
    frame
}

#[test]
fn discovery_and_groups_of_ipv6_are_the_kernels() {
    use crate::testing::BOX_MAC;
    let mut lb = TestLb::with(FULL_NAT);
    let mut builder = lb.builder();
    let own = "2001:db8::2".parse().unwrap();
    builder.local_addresses([own]).add_own_address(own);
    lb.install(&builder);
    let solicited = MacAddr([0x33, 0x33, 0xff, 0, 0, 2]);
    lb.check(&[
        (
            "neighbour solicitation, by multicast",
            v6(solicited, 58, "ff02::1:ff00:2", &[135, 0, 0, 0]),
            Punted(PuntClass::Neighbour),
            PUNT,
        ),
        (
            "neighbour advertisement, to us",
            v6(BOX_MAC, 58, "2001:db8::2", &[136, 0, 0, 0]),
            Punted(PuntClass::Neighbour),
            PUNT,
        ),
        (
            "the same from behind a router",
            routed(v6(BOX_MAC, 58, "2001:db8::2", &[136, 0, 0, 0])),
            Punted(PuntClass::Other),
            PUNT,
        ),
        (
            "and in a frame to many",
            routed(v6(solicited, 58, "ff02::1:ff00:2", &[135, 0, 0, 0])),
            Punted(PuntClass::Other),
            PUNT,
        ),
        (
            "and for somebody else",
            routed(v6(BOX_MAC, 58, "2001:db8::9", &[136, 0, 0, 0])),
            Dropped(DropReason::NotRouted),
            &["dropped", "drop_not_routed"],
        ),
        ("a ping", v6(BOX_MAC, 58, "2001:db8::2", &[128, 0, 0, 0]), Punted(PuntClass::Other), PUNT),
        ("no next header", v6(BOX_MAC, 59, "2001:db8::2", &[]), Punted(PuntClass::Other), PUNT),
        (
            "VRRP for IPv6",
            v6(MacAddr([0x33, 0x33, 0, 0, 0, 0x12]), 112, "ff02::12", &[0x31, 1]),
            Punted(PuntClass::Control),
            PUNT,
        ),
        (
            "OSPFv3",
            v6(MacAddr([0x33, 0x33, 0, 0, 0, 5]), 89, "ff02::5", &[3, 1]),
            Punted(PuntClass::Control),
            PUNT,
        ),
        (
            "for somebody else",
            v6(BOX_MAC, 59, "2001:db8::9", &[0; 8]),
            Dropped(DropReason::NotRouted),
            &["dropped", "drop_not_routed"],
        ),
        (
            "a payload that is not there",
            v6(BOX_MAC, 17, "2001:db8::2", &[0; 8])[..60].to_vec(),
            Dropped(DropReason::Truncated),
            &["dropped", "drop_truncated"],
        ),
        (
            "a header that is not there",
            v6(BOX_MAC, 17, "2001:db8::2", &[])[..50].to_vec(),
            Dropped(DropReason::Truncated),
            &["dropped", "drop_truncated"],
        ),
    ]);
}

#[test]
fn an_established_flow_survives_the_listener_it_came_by() {
    for family in families() {
        use super::{BACKEND, FROM, NEW, SNAT, TO};
        let mut lb = family.lb(FULL_NAT);
        lb.check(&[
            (
                "SYN",
                family.tcp(CLIENT, VIP, SYN).into(),
                Tx(family.tcp(SNAT, BACKEND, SYN).leaving()),
                NEW,
            ),
            (
                "SYN-ACK",
                family.tcp(BACKEND, SNAT, SYN | ACK).into(),
                Tx(family.tcp(VIP, CLIENT, SYN | ACK).leaving()),
                FROM,
            ),
            (
                "ACK",
                family.tcp(CLIENT, VIP, ACK).into(),
                Tx(family.tcp(SNAT, BACKEND, ACK).leaving()),
                TO,
            ),
        ]);
        lb.reconfigure(&family.text("192.0.2.11:80/tcp backend=10.0.0.4:80 snat=10.0.0.201"));
        lb.check(&[
            (
                "its packets go on",
                family.tcp(CLIENT, VIP, ACK).carrying(b"x").into(),
                Tx(family.tcp(SNAT, BACKEND, ACK).carrying(b"x").leaving()),
                TO,
            ),
            (
                "both ways",
                family.tcp(BACKEND, SNAT, ACK).into(),
                Tx(family.tcp(VIP, CLIENT, ACK).leaving()),
                FROM,
            ),
            (
                "a new one has nowhere to go",
                family.tcp("203.0.113.7:40001", VIP, SYN).into(),
                Dropped(DropReason::NotRouted),
                &["flow_misses", "dropped", "drop_not_routed"],
            ),
        ]);
    }
}

/// What a VIP of the L7 tier promises, whether or not a listener is on it too.
#[test]
fn tcp_for_the_l7_tier_has_a_queue_of_its_own() {
    for family in families() {
        let mut lb = family.lb(FULL_NAT);
        let mut builder = lb.builder();
        let [l7, both] = [[192, 0, 2, 20], [192, 0, 2, 10]].map(|vip| family.of(vip.into()));
        builder.add_kept_vip(l7).add_kept_vip(both);
        lb.install(&builder);
        let tcp = |to: &str| family.tcp(CLIENT, to, SYN).into();
        let ping = if family == Family::V4 { 1 } else { 58 };
        lb.check(&[
            ("a SYN", tcp("192.0.2.20:443"), Punted(PuntClass::L7), MISS),
            ("to any L4 port", tcp("192.0.2.20:22"), Punted(PuntClass::L7), MISS),
            (
                "what follows it",
                family.tcp(CLIENT, "192.0.2.20:443", ACK).into(),
                Punted(PuntClass::L7),
                MISS,
            ),
            ("beside a listener", tcp("192.0.2.10:81"), Punted(PuntClass::L7), MISS),
            (
                "UDP is not the tier's",
                family.udp(CLIENT, "192.0.2.20:443", b"").into(),
                Punted(PuntClass::Other),
                MISS,
            ),
            (
                "nor is a ping",
                ip(family, "192.0.2.20:0", ping).into(),
                Punted(PuntClass::Other),
                PUNT,
            ),
            (
                "and nobody sends from there",
                family.tcp("192.0.2.20:5000", VIP, SYN).into(),
                Dropped(DropReason::Martian),
                &["flow_misses", "dropped", "drop_martian"],
            ),
        ]);
        builder.remove_kept_vip(l7).remove_kept_vip(both);
        lb.install(&builder);
        lb.check(&[
            (
                "it has gone",
                tcp("192.0.2.20:443"),
                Dropped(DropReason::NotRouted),
                &["flow_misses", "dropped", "drop_not_routed"],
            ),
            ("the listener's VIP has not", tcp("192.0.2.10:81"), Punted(PuntClass::Other), MISS),
        ]);
    }
}
