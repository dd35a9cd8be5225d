//! The few frames that tests build and look for.

use std::net::{IpAddr, Ipv4Addr};

use crate::kernel::{MacAddr, announcements};

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
    let addresses: [IpAddr; 2] = ["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()];
    let frames = announcements(&addresses, mac);
    assert_eq!(frames.len(), 2);

    let vip = Ipv4Addr::new(192, 0, 2, 10);
    let to = MacAddr([0xff; 6]);
    let told = Arp { to, operation: REQUEST, sender: (mac, vip), target: vip };
    assert_eq!(arp(&frames[0]), Some(told), "sender and target are the VIP, to everyone");
    assert_eq!(frames[0].len(), 60, "padded to the shortest frame");

    let advertisement = &frames[1];
    assert_eq!(advertisement.len(), 14 + 40 + 32);
    assert_eq!(advertisement[..14], [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0xaa, 0x86, 0xdd]);
    assert_eq!(advertisement[21], 255, "hop limit");
    assert_eq!(advertisement[54..56], [136, 0]);
    assert_eq!(advertisement[58], 0x20, "override, not solicited, not a router");
    assert_eq!(advertisement[78..], [2, 1, 2, 0, 0, 0, 0, 0xaa]);
}
