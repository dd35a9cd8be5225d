//! Bytes to headers and 5-tuples. What is no packet we could understand takes its `Exit` here.

mod plain;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::burst::{Checked, Slip};
use crate::exit::ShortExit;
use crate::flow::{FlowKey, V4, V6};
use crate::journey::{Headers, Kind, PacketSet, Walk};
use crate::snapshot::{PortConfig, Snapshot};
use crate::wire::Malformed;
use crate::wire::ethernet::{self, EthernetView};
use crate::wire::ipv4::Ipv4View;
use crate::wire::ipv6::Ipv6View;
use crate::wire::tcp::TcpView;
use crate::wire::udp::UdpView;
use crate::{BURST, Burst, DropReason, Protocol, PuntClass};

const TCP: u8 = Protocol::Tcp.number();
const UDP: u8 = Protocol::Udp.number();
const OSPF: u8 = 89;
const VRRP: u8 = 112;

/// The room: every packet of the burst becomes a tuple, a stranger, or leaves.
pub(crate) fn parse(burst: &mut Burst, walk: &mut Walk, snapshot: &Snapshot) {
    let (mut tuples, mut strangers) = (PacketSet::default(), PacketSet::default());
    for at in 0..burst.len().min(BURST) {
        let (frame, slip) = (&*burst.frames[at], &mut burst.slips[at]);
        match parse_one(frame, slip, snapshot, &mut walk.keys[at], &mut walk.headers[at]) {
            Ok(Kind::Tuple) => tuples.insert(at),
            Ok(Kind::Fragment | Kind::Other) => strangers.insert(at),
            Err(exit) => slip.exit = exit,
        }
    }
    (walk.tuples, walk.strangers, walk.pinned) = (tuples, strangers, PacketSet::default());
}

/// One packet, as far as its L4 header. The frame is not changed.
#[inline]
fn parse_one(
    frame: &[u8],
    slip: &Slip,
    snapshot: &Snapshot,
    key: &mut FlowKey,
    headers: &mut Headers,
) -> Result<Kind, ShortExit> {
    let port = snapshot.port(slip.ingress).ok_or(DropReason::UnknownPort)?;
    if plain::parse(frame, port, slip.checks, key, headers).is_some() {
        return Ok(Kind::Tuple);
    }
    look_closely(frame, slip, port, key, headers)
}

/// Any packet, header by header.
#[cold]
fn look_closely(
    frame: &[u8],
    slip: &Slip,
    port: &PortConfig,
    key: &mut FlowKey,
    headers: &mut Headers,
) -> Result<Kind, ShortExit> {
    let frame = EthernetView::new(frame).map_err(|_| DropReason::Truncated)?;
    if frame.destination() != port.mac
        || frame.ether_type() != ethernet::IPV4
        || port.vlan != frame.vlan()
    {
        check_link(&frame, port)?;
    }
    if slip.checks.l4 == Checked::Bad {
        return Err(DropReason::L4Checksum.into());
    }
    match frame.ether_type() {
        ethernet::IPV4 => parse_v4(&frame, slip.checks.ip, key, headers),
        _ => parse_v6(&frame, key, headers),
    }
}

/// Whether a frame that is not plainly IPv4 for us may go on.
#[cold]
fn check_link(frame: &EthernetView, port: &PortConfig) -> Result<(), ShortExit> {
    match (port.vlan, frame.vlan()) {
        (Some(ours), Some(theirs)) if ours == theirs => {}
        (None, None | Some(0)) => {}
        _ => return Err(DropReason::VlanMismatch.into()),
    }
    let multicast = frame.destination().is_multicast();
    if frame.destination() != port.mac && !multicast {
        return Err(DropReason::OtherHost.into());
    }
    match frame.ether_type() {
        ethernet::ARP => Err(ShortExit::punt(PuntClass::Neighbour)),
        ethernet::VLAN | ethernet::SERVICE_VLAN => Err(DropReason::VlanStacked.into()),
        ethernet::IPV4 | ethernet::IPV6 if multicast => {
            Err(ShortExit::punt(multicast_class(frame)))
        }
        ethernet::IPV4 | ethernet::IPV6 => Ok(()),
        _ if multicast => Err(ShortExit::punt(PuntClass::Other)),
        _ => Err(DropReason::UnknownEtherType.into()),
    }
}

/// The queue of a frame to many: the kernel's in any case (RFC 1122 §3.3.6 lets no unicast IP
/// service answer a link-layer broadcast).
fn multicast_class(frame: &EthernetView) -> PuntClass {
    if let Ok(ip) = Ipv4View::new(frame.payload()) {
        return group_class(ip.protocol(), ip.destination().into());
    }
    match Ipv6View::new(frame.payload()) {
        Ok(ip) if ip.is_neighbour_discovery() => PuntClass::Neighbour,
        Ok(ip) => group_class(ip.next_header(), ip.destination().into()),
        Err(_) => PuntClass::Other,
    }
}

/// The queue of an IP packet to a group. Those of routing protocols are link-local: no router lets
/// a stranger's packet through to them.
pub(crate) fn group_class(protocol: u8, group: IpAddr) -> PuntClass {
    const OSPF_GROUPS: [IpAddr; 4] = [
        IpAddr::V4(Ipv4Addr::new(224, 0, 0, 5)), // RFC 2328 §A.1
        IpAddr::V4(Ipv4Addr::new(224, 0, 0, 6)),
        IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 5)), // RFC 5340 §A.1
        IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 6)),
    ];
    const VRRP_GROUPS: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18)), // RFC 9568 §5.1
        IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12)),
    ];
    match protocol {
        OSPF if OSPF_GROUPS.contains(&group) => PuntClass::Control,
        VRRP if VRRP_GROUPS.contains(&group) => PuntClass::Control,
        _ => PuntClass::Other,
    }
}

/// The queue of a packet for an address that is the box's alone.
pub(crate) fn own_class(protocol: u8, source_port: u16, destination_port: u16) -> PuntClass {
    const BGP: u16 = 179;
    const SSH: u16 = 22;
    const BFD: [u16; 3] = [3784, 3785, 4784]; // RFC 5881 control and echo, RFC 5883 multihop
    let either = |port| source_port == port || destination_port == port;
    match protocol {
        TCP if either(BGP) => PuntClass::Control,
        TCP if either(SSH) => PuntClass::Management,
        UDP if BFD.contains(&destination_port) => PuntClass::Control,
        OSPF | VRRP => PuntClass::Control,
        _ => PuntClass::Other,
    }
}

#[inline]
fn parse_v4(
    frame: &EthernetView,
    header_checked: Checked,
    key: &mut FlowKey,
    headers: &mut Headers,
) -> Result<Kind, ShortExit> {
    let ip = Ipv4View::new(frame.payload()).map_err(ip_header_reason)?;
    let right = match header_checked {
        Checked::Good => true,
        Checked::Bad => false,
        Checked::Unknown => ip.checksum_is_right(),
    };
    if !right {
        return Err(DropReason::IpChecksum.into());
    }
    let l3 = frame.payload_offset();
    headers.l3 = l3 as u16;
    headers.l4 = (l3 + ip.header_len()) as u16;
    headers.ip_len = ip.total_len() as u16;
    headers.ttl = ip.ttl();
    key.addresses = u64::from_ne_bytes(ip.addresses());
    key.protocol = ip.protocol();
    key.family = V4;
    if ip.is_fragment() {
        key.ports = 0;
        headers.kind = Kind::Fragment;
        return Ok(Kind::Fragment);
    }
    let (kind, ports, tcp_flags) = match ip.protocol() {
        TCP => {
            let tcp = TcpView::new(ip.payload()).map_err(l4_header_reason)?;
            (Kind::Tuple, u32::from_ne_bytes(tcp.ports()), tcp.flags())
        }
        UDP => {
            let udp = UdpView::new(ip.payload()).map_err(l4_header_reason)?;
            (Kind::Tuple, u32::from_ne_bytes(udp.ports()), 0)
        }
        _ => (Kind::Other, 0, 0),
    };
    key.ports = ports;
    headers.tcp_flags = tcp_flags;
    headers.kind = kind;
    Ok(kind)
}

/// IPv6 as far as it takes to know whose it is.
fn parse_v6(
    frame: &EthernetView,
    key: &mut FlowKey,
    headers: &mut Headers,
) -> Result<Kind, ShortExit> {
    let ip = Ipv6View::new(frame.payload()).map_err(ip_header_reason)?;
    if ip.is_neighbour_discovery() {
        return Err(ShortExit::punt(PuntClass::Neighbour));
    }
    let has_ports = Protocol::from_number(ip.next_header()).is_some();
    let ports = ip.payload().first_chunk().filter(|_| has_ports);
    *key = FlowKey {
        addresses: 0,
        ports: ports.map_or(0, |ports| u32::from_ne_bytes(*ports)),
        protocol: ip.next_header(),
        family: V6,
        wide: ip.addresses(),
    };
    *headers = Headers { kind: Kind::Other, ..Headers::default() };
    Ok(Kind::Other)
}

/// The tuple of a frame that is already rewritten, and the bytes of its datagram.
pub(crate) fn parse_leaving(frame: &[u8]) -> Option<(FlowKey, u16)> {
    let frame =
        EthernetView::new(frame).ok().filter(|frame| frame.ether_type() == ethernet::IPV4)?;
    let (mut key, mut headers) = (FlowKey::default(), Headers::default());
    parse_v4(&frame, Checked::Good, &mut key, &mut headers).ok()?;
    Some((key, headers.ip_len))
}

#[cold]
fn ip_header_reason(error: Malformed) -> DropReason {
    match error {
        Malformed::Truncated => DropReason::Truncated,
        Malformed::Version | Malformed::HeaderLen | Malformed::TotalLen => DropReason::IpHeader,
    }
}

#[cold]
fn l4_header_reason(error: Malformed) -> DropReason {
    match error {
        Malformed::Truncated => DropReason::Truncated,
        Malformed::Version | Malformed::HeaderLen | Malformed::TotalLen => DropReason::L4Header,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::RxChecks;
    use crate::testing::{BOX_MAC, TestPacket};

    /// What either way of parsing says: the kind, and key and headers if it is a tuple.
    type Said = Result<(Kind, Option<(FlowKey, Headers)>), ShortExit>;

    fn port(vlan: Option<u16>) -> PortConfig {
        PortConfig { mac: BOX_MAC, vlan, mtu: 1500 }
    }

    fn plainly(frame: &[u8], slip: &Slip, port: &PortConfig) -> Option<(FlowKey, Headers)> {
        let (mut key, mut headers) = (FlowKey::default(), Headers::default());
        plain::parse(frame, port, slip.checks, &mut key, &mut headers)?;
        Some((key, headers))
    }

    fn closely(frame: &[u8], slip: &Slip, port: &PortConfig) -> Said {
        let (mut key, mut headers) = (FlowKey::default(), Headers::default());
        let kind = look_closely(frame, slip, port, &mut key, &mut headers)?;
        Ok((kind, (kind == Kind::Tuple).then_some((key, headers))))
    }

    fn packets() -> impl Strategy<Value = Vec<u8>> {
        let flips = prop::collection::vec((0..60_usize, any::<u8>()), 0..3);
        let lens = prop_oneof![3 => Just(usize::MAX), 1 => 0..80_usize];
        (any::<bool>(), prop::collection::vec(any::<u8>(), 0..30), flips, lens, any::<bool>())
            .prop_map(|(tcp, payload, flips, len, mend)| {
                let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
                let ends = ["203.0.113.7:40000", "192.0.2.10:80"].map(|end| end.parse().unwrap());
                let packet = TestPacket::between(ends[0], ends[1], protocol).carrying(&payload);
                let mut frame = packet.padded_to(64).bytes();
                for (at, byte) in flips {
                    frame[at % 60] = byte;
                }
                if mend {
                    frame[24..26].copy_from_slice(&[0, 0]);
                    let sum = !crate::wire::checksum::sum(&frame[14..34]);
                    frame[24..26].copy_from_slice(&sum.to_ne_bytes());
                }
                frame.truncate(len);
                frame
            })
    }

    fn checked() -> impl Strategy<Value = Checked> {
        prop_oneof![Just(Checked::Unknown), Just(Checked::Good), Just(Checked::Bad)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// What is plain is what a close look says it is; and the packets we live from are plain.
        #[test]
        fn a_plain_packet_says_the_same_looked_at_closely(
            frame in packets(),
            (ip, l4) in (checked(), checked()),
            vlan in prop_oneof![3 => Just(None), 1 => Just(Some(5_u16))],
        ) {
            let slip = Slip { checks: RxChecks { ip, l4 }, ..Slip::default() };
            let (port, close) = (port(vlan), closely(&frame, &slip, &port(vlan)));
            if let Some((key, headers)) = plainly(&frame, &slip, &port) {
                prop_assert_eq!(close, Ok((Kind::Tuple, Some((key, headers)))));
            } else if let Ok((Kind::Tuple, Some((_, headers)))) = close {
                let options = headers.l4 - headers.l3 > 20;
                prop_assert!(options || headers.l3 > 14, "missed a plain packet: {headers:?}");
            }
        }
    }

    #[test]
    fn a_header_checksum_is_right_for_one_value_of_sixty_five_thousand() {
        let ends = ["203.0.113.7:40000", "192.0.2.10:80"].map(|end| end.parse().unwrap());
        let frame = TestPacket::between(ends[0], ends[1], Protocol::Tcp).bytes();
        let mut header: [u8; 20] = frame[14..34].try_into().unwrap();
        let right: Vec<u16> = (0..=u16::MAX)
            .filter(|sum| {
                header[10..12].copy_from_slice(&sum.to_ne_bytes());
                crate::wire::checksum::header_is_right(&header)
            })
            .collect();
        assert_eq!(right, [u16::from_ne_bytes([frame[24], frame[25]])]);
    }
}
