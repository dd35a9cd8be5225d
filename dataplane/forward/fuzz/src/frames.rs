//! Packets of flows that there are, and of those that there could be.

use std::net::{IpAddr, SocketAddr};

use etherparse::checksum::Sum16BitWords;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use penstock_forward::Protocol;
use penstock_forward::testing::{Family, TestPacket};

use crate::Life;
use crate::promise::LINK;

/// Who sends: clients, a backend as a client, and one nearby.
const CLIENTS: [&str; 5] =
    ["203.0.113.7:1024", "203.0.113.7:1025", "203.0.113.8:1024", "10.0.0.3:8080", "10.0.0.20:99"];
/// VIPs, and addresses that serve nobody.
const SERVED: [&str; 10] = [
    "192.0.2.10",
    "192.0.2.11",
    "192.0.2.12",
    "192.0.2.13",
    "192.0.2.14",
    "192.0.2.15",
    "192.0.2.16",
    "192.0.2.17",
    "10.0.0.200",
    "192.0.2.2",
];

/// One of the families.
pub fn family(script: &mut Unstructured) -> Result<Family> {
    script.choose(&Family::BOTH).copied()
}

/// A client's address and port.
pub fn client(script: &mut Unstructured, family: Family) -> Result<SocketAddr> {
    Ok(family.text(script.choose(&CLIENTS)?).parse().expect("an address and a port"))
}

/// An address of the box.
pub fn ours(script: &mut Unstructured, family: Family) -> Result<IpAddr> {
    Ok(family.address(script.choose(&SERVED)?))
}

/// A packet that could begin a flow, or one of a flow, of the client or of the backend.
pub fn segment(script: &mut Unstructured, life: &Life) -> Result<TestPacket> {
    let flows = life.lb.flows();
    let what: u8 = script.arbitrary()?;
    let known = flows.get(usize::from(what >> 2) % flows.len().max(1));
    let mut packet = match known.filter(|_| what & 3 > 0) {
        Some(flow) if what & 3 == 1 => TestPacket::between(flow.client, flow.vip, flow.protocol),
        Some(flow) if flow.backend.is_ipv4() == flow.outside.is_ipv4() => {
            TestPacket::between(flow.backend, flow.outside, flow.protocol)
        }
        _ => {
            let family = family(script)?;
            let protocol = *script.choose(&[Protocol::Tcp, Protocol::Udp])?;
            let port = if protocol == Protocol::Tcp { 80 } else { 53 };
            let vip = SocketAddr::new(ours(script, family)?, port);
            TestPacket::between(client(script, family)?, vip, protocol)
        }
    };
    packet.flags = *script.choose(&[2, 0x12, 0x10, 0x18, 0x11, 4, 0x14, 0, 0x3f])?;
    Ok(packet)
}

/// An IP packet of any protocol.
#[must_use]
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [source, destination] = [source, destination].map(|address| SocketAddr::new(address, 0));
    let mut frame = TestPacket::between(source, destination, Protocol::Udp).bytes();
    if source.is_ipv4() {
        frame.truncate(LINK + 20);
        frame[LINK + 9] = protocol;
        let len = u16::try_from(20 + payload.len()).expect("a packet of 64 KiB at most");
        frame[LINK + 2..LINK + 4].copy_from_slice(&len.to_be_bytes());
    } else {
        frame.truncate(LINK + 40);
        frame[LINK + 6] = protocol;
        let len = u16::try_from(payload.len()).expect("a packet of 64 KiB at most");
        frame[LINK + 4..LINK + 6].copy_from_slice(&len.to_be_bytes());
    }
    frame.extend(payload);
    mend(&mut frame);
    frame
}

/// Puts some of the script's bytes in some places, and mends the checksums of most.
pub fn overwrite(script: &mut Unstructured, frame: &mut [u8], from: usize) -> Result<()> {
    let what: u8 = script.arbitrary()?;
    for _ in 0..what & 3 {
        let at = script.int_in_range(from..=frame.len().max(from + 1) - 1)?;
        if let Some(byte) = frame.get_mut(at) {
            *byte = script.arbitrary()?;
        }
    }
    if what & 0x30 != 0 {
        mend(frame);
    }
    Ok(())
}

/// Makes the checksums right of a frame whose headers can be found.
pub fn mend(frame: &mut [u8]) {
    let _ = mend_ip(frame.get_mut(LINK..).unwrap_or_default());
}

fn mend_ip(packet: &mut [u8]) -> Option<()> {
    let (addresses, protocol, l4_at) = match *packet.first()? >> 4 {
        4 => {
            let head = packet.get_mut(..usize::from(packet.first()? & 0x0f) * 4)?;
            head.get_mut(10..12)?.fill(0);
            let sum = Sum16BitWords::new().add_slice(head).ones_complement();
            head.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
            (head.get(12..20)?.to_vec(), *head.get(9)?, head.len())
        }
        6 => {
            let (mut protocol, mut at) = (*packet.get(6)?, 40);
            while [0, 43, 44, 60].contains(&protocol) {
                let len = if protocol == 44 { 0 } else { *packet.get(at + 1)? };
                (protocol, at) = (*packet.get(at)?, at + 8 + usize::from(len) * 8);
            }
            (packet.get(8..40)?.to_vec(), protocol, at)
        }
        _ => return None,
    };
    let l4 = packet.get_mut(l4_at..)?;
    let field = match protocol {
        6 => 16,
        17 => 6,
        1 | 58 => 2,
        _ => return None,
    };
    l4.get_mut(field..field + 2)?.fill(0);
    let mut sum = Sum16BitWords::new().add_slice(l4);
    if protocol != 1 {
        let len = u16::try_from(l4.len()).ok()?;
        sum = sum.add_slice(&addresses).add_2bytes([0, protocol]).add_2bytes(len.to_be_bytes());
    }
    let sum =
        if protocol == 17 { sum.to_ones_complement_with_no_zero() } else { sum.ones_complement() };
    l4.get_mut(field..field + 2)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}
