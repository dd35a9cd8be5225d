//! Telling a network that an address is ours now: gratuitous ARP and unsolicited neighbour
//! advertisements, as frames for the DPDK port to send.
//!
//! The kernel announces addresses itself only on some interfaces and sysctls, and hosts that still
//! have the MAC of the box that held a VIP before would send to it for minutes. One frame for each
//! address; they may be lost like any other, so repeat them (RFC 5227 §2.3 says twice, two seconds
//! apart; RFC 9131 and VRRP practice say the same of ND).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::MacAddr;

const BROADCAST: MacAddr = MacAddr([0xff; 6]);
/// The Ethernet group of ff02::1, all nodes of the link (RFC 2464 §7).
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// The shortest Ethernet frame without its FCS.
const FRAME_MIN_BYTES: usize = 60;

const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// The override flag alone: not an answer to anyone, and not a router by this address.
const OVERRIDE: u8 = 0x20;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
const ADVERTISEMENT_BYTES: u16 = 32;

/// One whole Ethernet frame for each address, from `mac`, that makes every host of the link take
/// `mac` for it.
pub fn announcements<'a>(
    addresses: impl IntoIterator<Item = &'a IpAddr>,
    mac: MacAddr,
) -> Vec<Vec<u8>> {
    let frame = |address: &IpAddr| match address {
        IpAddr::V4(address) => gratuitous_arp(*address, mac),
        IpAddr::V6(address) => unsolicited_advertisement(*address, mac),
    };
    addresses.into_iter().map(frame).collect()
}

/// An ARP announcement: a request for our own address by ourselves (RFC 5227 §3).
fn gratuitous_arp(address: Ipv4Addr, mac: MacAddr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ETHERTYPE_ARP);
    frame.extend([0, 1, 0x08, 0x00, 6, 4, 0, 1]); // Ethernet, IPv4, their lengths, request
    frame.extend(mac.0);
    frame.extend(address.octets());
    frame.extend([0; 6]); // the target's MAC is what a request does not know
    frame.extend(address.octets());
    frame.resize(FRAME_MIN_BYTES, 0);
    frame
}

/// A neighbour advertisement that nobody asked for, with the override flag (RFC 4861 §7.2.6).
fn unsolicited_advertisement(address: Ipv6Addr, mac: MacAddr) -> Vec<u8> {
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    message.extend([TARGET_LINK_LAYER_ADDRESS, 1]);
    message.extend(mac.0);
    let checksum = icmpv6_checksum(address, ALL_NODES, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = ethernet(ALL_NODES_MAC, mac, ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(ADVERTISEMENT_BYTES.to_be_bytes());
    frame.extend([ICMPV6, 255]); // hop limit 255, or it is not taken for a neighbour's
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

fn ethernet(to: MacAddr, from: MacAddr, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(86);
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// RFC 8200 §8.1: the ones' complement sum of pseudo-header and message, whose own field is zero.
fn icmpv6_checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let words = from.segments().into_iter().chain(to.segments()).map(u32::from);
    let pairs = message.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair)));
    let mut sum = words.chain(pairs).sum::<u32>() + message.len() as u32 + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
