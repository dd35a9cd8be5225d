//! A frame in one line, however little of it there is.

use std::net::{Ipv4Addr, Ipv6Addr};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// `tcp 203.0.113.7:4000 > 192.0.2.10:80 [S] ttl 64`, or the most that can be said.
pub(super) fn in_words(frame: &[u8]) -> String {
    words(frame).unwrap_or_else(|| "a frame cut short".to_owned())
}

fn words(frame: &[u8]) -> Option<String> {
    let mut at = 12;
    let mut ether_type = u16_at(frame, at)?;
    let mut tags = String::new();
    while matches!(ether_type, 0x8100 | 0x88a8) {
        tags += &format!("vlan {} ", u16_at(frame, at + 2)? & 0x0fff);
        at += 4;
        ether_type = u16_at(frame, at)?;
    }
    let packet = frame.get(at + 2..)?;
    let rest = match ether_type {
        0x0800 => v4(packet)?,
        0x86dd => v6(packet)?,
        0x0806 => arp(packet)?,
        other => format!("ethertype {other:#06x}"),
    };
    Some(tags + &rest)
}

fn v4(packet: &[u8]) -> Option<String> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let address = |at: usize| -> Option<Ipv4Addr> {
        header.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
    };
    let (source, destination) = (address(12)?, address(16)?);
    let offset = u16_at(header, 6)? & 0x1fff;
    let l4 = packet.get(usize::from(header[0] & 0x0f) * 4..).filter(|_| offset == 0);
    let ends = Ends { source: source.to_string(), destination: destination.to_string() };
    Some(format!("{} ttl {}", ends.with(header[9], l4), header[8]))
}

fn v6(packet: &[u8]) -> Option<String> {
    let header: &[u8; 40] = packet.first_chunk()?;
    let address = |at: usize| -> Option<Ipv6Addr> {
        header.get(at..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets))
    };
    let ends =
        Ends { source: format!("[{}]", address(8)?), destination: format!("[{}]", address(24)?) };
    Some(format!("{} ttl {}", ends.with(header[6], packet.get(40..)), header[7]))
}

fn arp(packet: &[u8]) -> Option<String> {
    let address = |at: usize| -> Option<Ipv4Addr> {
        packet.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
    };
    let (sender, target) = (address(14)?, address(24)?);
    Some(match u16_at(packet, 6)? {
        1 => format!("arp who has {target}, asks {sender}"),
        2 => format!("arp {sender} is here"),
        other => format!("arp operation {other}"),
    })
}

/// Source and destination in words.
struct Ends {
    source: String,
    destination: String,
}

impl Ends {
    /// With the L4 header's part, if there is one.
    fn with(&self, protocol: u8, l4: Option<&[u8]>) -> String {
        let Self { source, destination } = self;
        let ports = l4.and_then(|l4| Some((u16_at(l4, 0)?, u16_at(l4, 2)?)));
        match (protocol, ports) {
            (TCP, Some((from, to))) => {
                let flags =
                    l4.and_then(|l4| l4.get(13)).map_or(String::new(), |flags| tcp_flags(*flags));
                format!("tcp {source}:{from} > {destination}:{to}{flags}")
            }
            (UDP, Some((from, to))) => format!("udp {source}:{from} > {destination}:{to}"),
            (TCP, None) => format!("tcp {source} > {destination}"),
            (UDP, None) => format!("udp {source} > {destination}"),
            (1 | 58, _) => format!("icmp {source} > {destination}"),
            (other, _) => format!("protocol {other} {source} > {destination}"),
        }
    }
}

/// As tcpdump has them: a letter each, `.` for ACK.
fn tcp_flags(flags: u8) -> String {
    let letters =
        [(1, 'F'), (2, 'S'), (4, 'R'), (8, 'P'), (16, '.'), (32, 'U'), (64, 'E'), (128, 'W')];
    let set = letters.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, letter)| letter);
    format!(" [{}]", set.collect::<String>())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|two| u16::from_be_bytes(*two))
}

#[cfg(test)]
mod tests {
    use penstock_forward::testing::{arp_who_has, tcp, udp};

    use super::*;

    #[test]
    fn a_frame_in_one_line_and_a_cut_one_in_what_is_left() {
        let syn = tcp("203.0.113.7:4000", "192.0.2.10:80", 0x12).bytes();
        let arp = arp_who_has(Ipv4Addr::new(192, 0, 2, 10));
        let mut tagged = tcp("203.0.113.7:4000", "192.0.2.10:80", 1);
        tagged.tag = Some(7);
        let mut fragment = syn.clone();
        fragment[20..22].copy_from_slice(&[0, 9]);
        let mut six = vec![0; 14 + 40 + 20];
        six[12..14].copy_from_slice(&[0x86, 0xdd]);
        six[14 + 6..14 + 8].copy_from_slice(&[17, 63]);
        (six[14 + 23], six[14 + 39], six[14 + 41], six[14 + 43]) = (1, 2, 53, 54);
        for (frame, expected) in [
            (&syn[..], "tcp 203.0.113.7:4000 > 192.0.2.10:80 [S.] ttl 61"),
            (&syn[..44], "tcp 203.0.113.7:4000 > 192.0.2.10:80 ttl 61"),
            (&syn[..34], "tcp 203.0.113.7 > 192.0.2.10 ttl 61"),
            (&syn[..20], "a frame cut short"),
            (&fragment, "tcp 203.0.113.7 > 192.0.2.10 ttl 61"),
            (&tagged.bytes(), "vlan 7 tcp 203.0.113.7:4000 > 192.0.2.10:80 [F] ttl 61"),
            (
                &udp("203.0.113.7:1", "192.0.2.10:53", b"x").bytes(),
                "udp 203.0.113.7:1 > 192.0.2.10:53 ttl 61",
            ),
            (&arp, "arp who has 192.0.2.10, asks 192.0.2.1"),
            (&six, "udp [::1]:53 > [::2]:54 ttl 63"),
            (&[0; 14], "ethertype 0x0000"),
            (&[], "a frame cut short"),
        ] {
            assert_eq!(in_words(frame), expected);
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let syn = tcp("203.0.113.7:4000", "192.0.2.10:80", 2).bytes();
        for at in 0..syn.len() {
            for byte in 0..=255 {
                let mut odd = syn.clone();
                odd[at] = byte;
                in_words(&odd);
                in_words(&odd[..at]);
            }
        }
    }
}
