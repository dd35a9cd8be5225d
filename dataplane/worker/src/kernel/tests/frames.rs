//! The few frames that tests build and look for.

use std::net::{IpAddr, Ipv4Addr};

use crate::kernel::{MacAddr, announcement};

/// An ARP packet in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arp {
    pub(super) to: MacAddr,
    pub(super) operation: u16,
    pub(super) sender: (MacAddr, Ipv4Addr),
    pub(super) target: Ipv4Addr,
}

pub(super) const REQUEST: u16 = 1;
pub(super) const REPLY: u16 = 2;

pub(super) fn arp(frame: &[u8]) -> Option<Arp> {
    let mac = |at: usize| frame.get(at..at + 6)?.try_into().ok().map(MacAddr);
    let ip = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
    if frame.get(12..20)? != [0x08, 0x06, 0, 1, 0x08, 0, 6, 4] {
        return None;
    }
    let operation = u16::from_be_bytes([*frame.get(20)?, *frame.get(21)?]);
    Some(Arp { to: mac(0)?, operation, sender: (mac(22)?, ip(28)?), target: ip(38)? })
}

/// The request for `address`, if the frame is that.
pub(super) fn arp_request_for(frame: &[u8], address: Ipv4Addr) -> Option<Arp> {
    arp(frame).filter(|arp| arp.operation == REQUEST && arp.target == address)
}

/// `from` says to `to` where it is, or asks where `to` is.
pub(super) fn arp_frame(
    operation: u16,
    from: (MacAddr, Ipv4Addr),
    to: (MacAddr, Ipv4Addr),
) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(to.0.0);
    frame.extend(from.0.0);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(from.0.0);
    frame.extend(from.1.octets());
    frame.extend(to.0.0);
    frame.extend(to.1.octets());
    frame
}

/// Whether the frame is a neighbour solicitation for `address`.
pub(super) fn solicits(frame: &[u8], address: IpAddr) -> Option<()> {
    let IpAddr::V6(address) = address else { return None };
    let is_ipv6 = frame.get(12..14)? == [0x86, 0xdd];
    let is_solicitation = frame.get(20) == Some(&58) && frame.get(54) == Some(&135);
    (is_ipv6 && is_solicitation && frame.get(62..78)? == address.octets()).then_some(())
}

#[test]
fn an_announcement_is_the_frame_of_the_rfc() {
    let mac = MacAddr([2, 0, 0, 0, 0, 0xaa]);
    #[rustfmt::skip]
    let rows: [(&str, &str, &[&[u8]]); 2] = [
        ("who has it, asks who has it, of everyone", "192.0.2.10", &[
            &[0xff; 6], &[2, 0, 0, 0, 0, 0xaa], &[0x08, 0x06],
            &[0, 1, 0x08, 0x00, 6, 4, 0, 1], // Ethernet, IPv4, a request
            &[2, 0, 0, 0, 0, 0xaa], &[192, 0, 2, 10],
            &[0; 6], &[192, 0, 2, 10],
            &[0; 18], // the shortest frame is of 60 bytes
        ]),
        ("all nodes are told, over what they know", "2001:db8::10", &[
            &[0x33, 0x33, 0, 0, 0, 1], &[2, 0, 0, 0, 0, 0xaa], &[0x86, 0xdd],
            &[0x60, 0, 0, 0, 0, 32, 58, 255], // ICMPv6, hop limit 255
            &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10],
            &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            &[136, 0, 0xf8, 0x63], // an advertisement, its checksum
            &[0x20, 0, 0, 0], // override, not solicited, not a router
            &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10],
            &[2, 1, 2, 0, 0, 0, 0, 0xaa], // the target's link-layer address
        ]),
    ];
    for (promise, address, expected) in rows {
        let frame = announcement(address.parse().unwrap(), mac);
        assert_eq!(frame, expected.concat(), "{promise}");
    }
}
