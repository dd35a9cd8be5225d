//! What belongs to the kernel reaches it unchanged, in the right queue.

use super::{CLIENT, FULL_NAT, VIP};
use crate::testing::Dropped;
use crate::testing::{Punted, TestLb, TestPacket, Tx, arp_who_has, tcp, udp};
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
    let mut lb = TestLb::with(FULL_NAT);
    let router = "192.0.2.1:5000";
    let icmp = |destination: &str| ip(destination, 1);
    lb.check(&[
        ("ARP", arp_who_has("192.0.2.10".parse().unwrap()), Punted(PuntClass::Neighbour), PUNT),
        (
            "BGP, we listen",
            tcp(router, "192.0.2.2:179", SYN).ttl(1).into(),
            Punted(PuntClass::Control),
            MISS,
        ),
        (
            "BGP, they listen",
            tcp("192.0.2.1:179", "192.0.2.2:4000", SYN | ACK).into(),
            Punted(PuntClass::Control),
            MISS,
        ),
        (
            "SSH, we listen",
            tcp(CLIENT, "192.0.2.2:22", SYN).into(),
            Punted(PuntClass::Management),
            MISS,
        ),
        (
            "SSH, they listen",
            tcp("203.0.113.7:22", "192.0.2.2:4000", SYN | ACK).into(),
            Punted(PuntClass::Management),
            MISS,
        ),
        ("BFD", udp(router, "192.0.2.2:3784", b"up").into(), Punted(PuntClass::Control), MISS),
        (
            "other traffic of the box",
            udp(router, "10.0.0.2:161", b"?").into(),
            Punted(PuntClass::Other),
            MISS,
        ),
        (
            "a VIP on a port without listener",
            tcp(CLIENT, "192.0.2.10:81", SYN).into(),
            Punted(PuntClass::Other),
            MISS,
        ),
        (
            "a VIP by a protocol without listener",
            udp(CLIENT, VIP, b"").into(),
            Punted(PuntClass::Other),
            MISS,
        ),
        (
            "nobody speaks BGP to a VIP",
            tcp(CLIENT, "192.0.2.10:179", SYN).into(),
            Punted(PuntClass::Other),
            MISS,
        ),
        (
            "nor from there",
            tcp("203.0.113.7:179", "192.0.2.10:81", ACK).into(),
            Punted(PuntClass::Other),
            MISS,
        ),
        ("nor SSH", tcp(CLIENT, "192.0.2.10:22", SYN).into(), Punted(PuntClass::Other), MISS),
        ("nor BFD", udp(CLIENT, "192.0.2.10:3784", b"up").into(), Punted(PuntClass::Other), MISS),
        ("nor OSPF", ip("192.0.2.10:0", 89).into(), Punted(PuntClass::Other), PUNT),
        (
            "nor OSPF to a SNAT address",
            ip("10.0.0.200:0", 89).into(),
            Punted(PuntClass::Other),
            PUNT,
        ),
        ("OSPF, to the box", ip("192.0.2.2:0", 89).into(), Punted(PuntClass::Control), PUNT),
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
            "OSPF to a VIP in a frame to many",
            ip("192.0.2.10:0", 89).to_mac(ALL_OSPF).into(),
            Punted(PuntClass::Other),
            PUNT,
        ),
        ("a ping to a VIP", icmp("192.0.2.10:0").into(), Punted(PuntClass::Other), PUNT),
        ("a ping to a SNAT address", icmp("10.0.0.200:0").into(), Punted(PuntClass::Other), PUNT),
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
        (
            "a packet for a VIP in a broadcast frame",
            tcp(CLIENT, VIP, SYN).to_mac(BROADCAST).into(),
            Punted(PuntClass::Other),
            PUNT,
        ),
        (
            "TCP to a SNAT address is a reply or nothing",
            tcp(CLIENT, "10.0.0.200:179", SYN).into(),
            Dropped(DropReason::NoFlow),
            &["flow_misses", "dropped", "drop_no_flow"],
        ),
    ]);
}

/// A datagram of a protocol without L4 ports.
fn ip(destination: &str, protocol: u8) -> TestPacket {
    let packet = udp(CLIENT, destination, b"ping").put(23, &[protocol]);
    packet.put(24, &ip_checksum_for(destination, protocol))
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
fn ipv6_is_the_kernels_where_it_is_for_us() {
    use crate::testing::BOX_MAC;
    let mut lb = TestLb::with(FULL_NAT);
    let mut builder = lb.builder();
    let [own, vip] = ["2001:db8::2", "2001:db8::10"].map(|address| address.parse().unwrap());
    builder.local_addresses([own, vip]).own_addresses([own]);
    lb.install(&builder);
    let solicited = MacAddr([0x33, 0x33, 0xff, 0, 0, 2]);
    let bgp = [0x12, 0x34, 0, 179, 0, 0, 0, 0];
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
        ("BGP", v6(BOX_MAC, 6, "2001:db8::2", &bgp), Punted(PuntClass::Control), PUNT),
        ("BGP to a VIP", v6(BOX_MAC, 6, "2001:db8::10", &bgp), Punted(PuntClass::Other), PUNT),
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
            v6(BOX_MAC, 17, "2001:db8::9", &[0; 8]),
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
    use super::{BACKEND, FROM, NEW, SNAT, TO};
    let mut lb = TestLb::with(FULL_NAT);
    lb.check(&[
        ("SYN", tcp(CLIENT, VIP, SYN).into(), Tx(tcp(SNAT, BACKEND, SYN).leaving()), NEW),
        (
            "SYN-ACK",
            tcp(BACKEND, SNAT, SYN | ACK).into(),
            Tx(tcp(VIP, CLIENT, SYN | ACK).leaving()),
            FROM,
        ),
        ("ACK", tcp(CLIENT, VIP, ACK).into(), Tx(tcp(SNAT, BACKEND, ACK).leaving()), TO),
    ]);
    lb.reconfigure("192.0.2.11:80/tcp backend=10.0.0.4:80 snat=10.0.0.201");
    lb.check(&[
        (
            "its packets go on",
            tcp(CLIENT, VIP, ACK).carrying(b"x").into(),
            Tx(tcp(SNAT, BACKEND, ACK).carrying(b"x").leaving()),
            TO,
        ),
        ("both ways", tcp(BACKEND, SNAT, ACK).into(), Tx(tcp(VIP, CLIENT, ACK).leaving()), FROM),
        (
            "a new one has nowhere to go",
            tcp("203.0.113.7:40001", VIP, SYN).into(),
            Dropped(DropReason::NotRouted),
            &["flow_misses", "dropped", "drop_not_routed"],
        ),
    ]);
}
