//! Bytes to headers and 5-tuples. What is no packet we could understand takes its `Exit` here.

pub(crate) mod plain;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use self::plain::{Head, HeadV4, HeadV6};
use crate::burst::{Checked, Slot};
use crate::exit::ShortExit;
use crate::flow::{FlowKey, V4, V6};
use crate::journey::{Headers, Kind, PacketSet, Walk};
use crate::snapshot::{PortConfig, Snapshot};
use crate::wire::Malformed;
use crate::wire::ethernet::{self, EthernetView};
use crate::wire::icmp;
use crate::wire::ipv4::Ipv4View;
use crate::wire::ipv6::{self, Astray, Ipv6View};
use crate::wire::tcp::TcpView;
use crate::wire::udp::UdpView;
use crate::{Burst, DropReason, Protocol, PuntClass, RxChecks};

const TCP: u8 = Protocol::Tcp.number();
const UDP: u8 = Protocol::Udp.number();
const OSPF: u8 = 89;
const VRRP: u8 = 112;

/// The room: every packet of `rest` becomes a tuple, a stranger, or leaves. Those of them that are plainly IPv4
/// are known already.
pub(crate) fn parse(rest: PacketSet, burst: &mut Burst, walk: &mut Walk, snapshot: &Snapshot) {
    for at in rest.iter() {
        let slot = &mut burst.slots[at];
        let (key, headers) = (&mut walk.keys[at], &mut walk.headers[at]);
        let plain = match (walk.plain.contains(at), walk.wide.contains(at)) {
            (false, _) => None,
            (true, false) => read_plain::<HeadV4>(slot.buffer, key, headers),
            (true, true) => read_plain::<HeadV6>(slot.buffer, key, headers),
        };
        let kind = match plain {
            Some(kind) => Ok(kind),
            None => {
                walk.plain.remove(at);
                walk.wide.remove(at);
                parse_other(slot, snapshot, key, headers)
            }
        };
        match kind {
            Ok(Kind::Tuple) => {
                if key.family == V6 {
                    walk.wide.insert(at);
                }
                walk.tuples.insert(at);
            }
            Ok(Kind::Fragment | Kind::IcmpError | Kind::Echo | Kind::Other) => {
                walk.strangers.insert(at);
            }
            Err(exit) => slot.exit = exit,
        }
    }
}

fn read_plain<H: Head>(buffer: &[u8], key: &mut FlowKey, headers: &mut Headers) -> Option<Kind> {
    let head = H::of(buffer).filter(|head| head.has_l4())?;
    (*key, *headers) = (head.key(), head.headers());
    Some(headers.kind)
}

/// A packet that is not plain.
#[inline]
fn parse_other(
    slot: &Slot,
    snapshot: &Snapshot,
    key: &mut FlowKey,
    headers: &mut Headers,
) -> Result<Kind, ShortExit> {
    let port = snapshot.port(slot.arrival.ingress()).ok_or(DropReason::UnknownPort)?;
    look_closely(slot.frame(), slot.arrival.checks(), port, key, headers)
}

/// Any packet, header by header.
#[cold]
fn look_closely(
    frame: &[u8],
    checks: RxChecks,
    port: &PortConfig,
    key: &mut FlowKey,
    headers: &mut Headers,
) -> Result<Kind, ShortExit> {
    let frame = EthernetView::new(frame).map_err(|_| DropReason::Truncated)?;
    if frame.destination() != port.mac
        || frame.ether_type() != ethernet::IPV4
        || frame.vlan().is_some()
    {
        check_link(&frame, port)?;
    }
    if checks.l4 == Checked::Bad {
        return Err(DropReason::L4Checksum.into());
    }
    match frame.ether_type() {
        ethernet::IPV4 => parse_v4(&frame, checks.ip, key, headers),
        _ => parse_v6(&frame, key, headers),
    }
}

/// Whether a frame that is not plainly IPv4 for us may go on.
#[cold]
fn check_link(frame: &EthernetView, port: &PortConfig) -> Result<(), ShortExit> {
    if frame.vlan().is_some_and(|vlan| vlan != 0) {
        return Err(DropReason::VlanMismatch.into());
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
    (key.protocol, key.family) = (ip.protocol(), V4);
    parse_l4(ip.payload(), ip.is_fragment(), key, headers)
}

fn parse_v6(
    frame: &EthernetView,
    key: &mut FlowKey,
    headers: &mut Headers,
) -> Result<Kind, ShortExit> {
    let ip = Ipv6View::new(frame.payload()).map_err(ip_header_reason)?;
    if ip.is_neighbour_discovery() {
        return Err(ShortExit::punt(PuntClass::Neighbour));
    }
    let upper = ip.upper().map_err(astray_reason)?;
    let l3 = frame.payload_offset();
    headers.l3 = l3 as u16;
    headers.l4 = (l3 + ipv6::HEADER_LEN + upper.extensions_len) as u16;
    // The length does not count the header: no port's MTU reaches what would not fit.
    headers.ip_len = u16::try_from(ip.total_len()).map_err(|_| DropReason::MtuExceeded)?;
    headers.ttl = ip.hop_limit();
    (key.addresses, key.wide) = (0, ip.addresses());
    (key.protocol, key.family) = (upper.protocol, V6);
    parse_l4(upper.payload, upper.fragment.is_some(), key, headers)
}

/// What follows the IP header, of the protocol and family in `key`.
#[inline]
fn parse_l4(
    payload: &[u8],
    is_fragment: bool,
    key: &mut FlowKey,
    headers: &mut Headers,
) -> Result<Kind, ShortExit> {
    (headers.tcp_flags, headers.numbers) = (0, [0; 8]);
    let message = payload.first().copied().unwrap_or_default();
    let (kind, ports) = match key.protocol {
        _ if is_fragment => (Kind::Fragment, [0; 4]),
        TCP => {
            let tcp = TcpView::new(payload).map_err(l4_header_reason)?;
            headers.tcp_flags = tcp.flags();
            headers.numbers = tcp.numbers();
            (Kind::Tuple, tcp.ports())
        }
        UDP => {
            let udp = UdpView::new(payload).map_err(l4_header_reason)?;
            key.ports = u32::from_ne_bytes(udp.ports());
            if key.family == V6 && !udp.has_checksum() {
                return Err(DropReason::L4Checksum.into());
            }
            (Kind::Tuple, udp.ports())
        }
        number if icmp::is_error(number, message) => (Kind::IcmpError, [0; 4]),
        number if icmp::echo(number).is_some_and(|[request, _]| request == message) => {
            (Kind::Echo, [0; 4])
        }
        _ => (Kind::Other, [0; 4]),
    };
    key.ports = u32::from_ne_bytes(ports);
    headers.kind = kind;
    Ok(kind)
}

/// The tuple of a frame that is already rewritten, and the bytes of its datagram.
pub(crate) fn parse_leaving(frame: &[u8]) -> Option<(FlowKey, u16)> {
    let frame = EthernetView::new(frame).ok()?;
    let (mut key, mut headers) = (FlowKey::default(), Headers::default());
    match frame.ether_type() {
        ethernet::IPV4 => parse_v4(&frame, Checked::Good, &mut key, &mut headers),
        ethernet::IPV6 => match parse_v6(&frame, &mut key, &mut headers) {
            Err(exit) if exit == DropReason::L4Checksum.into() => Ok(Kind::Tuple), // of a tunnel: RFC 6935
            parsed => parsed,
        },
        _ => return None,
    }
    .ok()?;
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
fn astray_reason(error: Astray) -> DropReason {
    match error {
        Astray::Truncated => DropReason::Truncated,
        Astray::TooMany | Astray::Misplaced => DropReason::ExtensionHeaders,
        Astray::Routed => DropReason::RoutingHeader,
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

    use super::plain::Expected;
    use super::*;
    use crate::testing::{BOX_MAC, Family, TestPacket};
    use crate::{HEADROOM, PortIdx};

    /// What either way of parsing says: the kind, and key and headers if it is a tuple.
    type Said = Result<(Kind, Option<(FlowKey, Headers)>), ShortExit>;

    const PORT: PortConfig = PortConfig { mac: BOX_MAC, mtu: 1500 };

    fn plainly(frame: &[u8], checks: RxChecks) -> Option<(FlowKey, Headers)> {
        let mut buffer = [&[0; HEADROOM], frame].concat();
        let mut burst = Burst::new();
        burst.push(&mut buffer, PortIdx(0), checks);
        let slot = &burst.slots[0];
        let expected = Expected::by(slot.arrival, Some(&PORT));
        let v4 = HeadV4::of_plain(slot, &expected).filter(|head| head.has_l4());
        let v6 = HeadV6::of_plain(slot, &expected).filter(|head| head.has_l4());
        let v4 = v4.map(|head| (head.key(), head.headers()));
        v4.or_else(|| v6.map(|head| (head.key(), head.headers())))
    }

    fn closely(frame: &[u8], checks: RxChecks) -> Said {
        let (mut key, mut headers) = (FlowKey::default(), Headers::default());
        let kind = look_closely(frame, checks, &PORT, &mut key, &mut headers)?;
        Ok((kind, (kind == Kind::Tuple).then_some((key, headers))))
    }

    fn packets() -> impl Strategy<Value = Vec<u8>> {
        let flips = prop::collection::vec((0..80_usize, any::<u8>()), 0..3);
        let lens = prop_oneof![3 => Just(usize::MAX), 1 => 0..100_usize];
        let kinds = prop::sample::select(Family::BOTH.to_vec());
        let kinds = (kinds, any::<bool>());
        (kinds, prop::collection::vec(any::<u8>(), 0..30), flips, lens, any::<bool>()).prop_map(
            |((family, tcp), payload, flips, len, mend)| {
                let (client, vip) = ("203.0.113.7:40000", "192.0.2.10:80");
                let packet =
                    if tcp { family.tcp(client, vip, 0) } else { family.udp(client, vip, b"") };
                let least = family.l4() + 30;
                let mut frame = packet.carrying(&payload).padded_to(least).bytes();
                for (at, byte) in flips {
                    frame[at % (least - 4)] = byte;
                }
                if mend && family == Family::V4 {
                    frame[24..26].copy_from_slice(&[0, 0]);
                    let sum = !crate::wire::checksum::sum(&frame[14..34]);
                    frame[24..26].copy_from_slice(&sum.to_ne_bytes());
                }
                frame.truncate(len);
                frame
            },
        )
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
        ) {
            let checks = RxChecks { ip, l4 };
            let close = closely(&frame, checks);
            if let Some((key, headers)) = plainly(&frame, checks) {
                prop_assert_eq!(close, Ok((Kind::Tuple, Some((key, headers)))));
            } else if let Ok((Kind::Tuple, Some((key, headers)))) = close {
                let header_len = if key.family == V6 { 40 } else { 20 };
                let options = headers.l4 - headers.l3 > header_len;
                let least = if key.family == V6 { size_of::<HeadV6>() } else { size_of::<HeadV4>() };
                let short = frame.len() < least;
                let odd = ip == Checked::Bad; // which no NIC says of IPv6
                let excused = options || short || odd || headers.l3 > 14;
                prop_assert!(excused, "missed a plain packet: {headers:?}");
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
