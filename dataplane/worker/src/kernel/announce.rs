//! Telling a network that an address is ours now: gratuitous ARP and unsolicited neighbour
//! advertisements, as frames for the DPDK port to send.
//!
//! The kernel announces addresses itself only on some interfaces and sysctls, and hosts that still
//! have the MAC of the box that held a VIP before would send to it for minutes. When and how often is
//! left to [`crate::companions`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::icmpv6::NeighborAdvertisementHeader;
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv6Type, PacketBuilder};

use super::MacAddr;

const BROADCAST: [u8; 6] = [0xff; 6];
/// The Ethernet group of ff02::1, all nodes of the link (RFC 2464 §7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The shortest Ethernet frame without its FCS.
const FRAME_MIN_BYTES: usize = 60;
/// An advertisement of ND is one only with this, which no router leaves (RFC 4861 §7.1.2).
const HOP_LIMIT: u8 = 255;
/// The option that says a MAC, of one unit of eight bytes (RFC 4861 §4.6.1).
const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];

/// A whole Ethernet frame from `mac` that makes every host of the link that knows `address` take `mac`
/// for it, and no host know it that did not.
pub fn announcement(address: IpAddr, mac: MacAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => gratuitous_arp(address, mac),
        IpAddr::V6(address) => unsolicited_advertisement(address, mac),
    }
}

/// An ARP announcement: a request for our own address by ourselves (RFC 5227 §2.3, §3).
fn gratuitous_arp(address: Ipv4Addr, mac: MacAddr) -> Vec<u8> {
    let unknown = [0; 6]; // the target's MAC is what a request does not know
    let (kind, ours) = (ArpHardwareId::ETHERNET, &address.octets());
    let request = ArpOperation::REQUEST;
    let arp = ArpPacket::new(kind, EtherType::IPV4, request, &mac.0, ours, &unknown, ours);
    let arp = arp.expect("addresses of both kinds are as long as each other");
    let mut frame = Vec::with_capacity(FRAME_MIN_BYTES);
    let written = PacketBuilder::ethernet2(mac.0, BROADCAST).arp(arp).write(&mut frame);
    written.expect("a Vec takes all");
    frame.resize(FRAME_MIN_BYTES, 0);
    frame
}

/// A neighbour advertisement that nobody asked for (RFC 4861 §7.2.6): with the override flag, since others
/// know another MAC, and no router's, since nobody routes by a VIP.
fn unsolicited_advertisement(address: Ipv6Addr, mac: MacAddr) -> Vec<u8> {
    let flags = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
    let told = [&address.octets()[..], &TARGET_LINK_LAYER_ADDRESS, &mac.0].concat();
    let packet = PacketBuilder::ethernet2(mac.0, ALL_NODES_MAC)
        .ipv6(address.octets(), ALL_NODES.octets(), HOP_LIMIT)
        .icmpv6(Icmpv6Type::NeighborAdvertisement(flags));
    let mut frame = Vec::with_capacity(packet.size(told.len()));
    packet.write(&mut frame, &told).expect("a Vec takes all, and the length fits");
    frame
}
