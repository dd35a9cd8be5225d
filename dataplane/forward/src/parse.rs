//! Bytes to headers and 5-tuples. What is no packet we could understand takes its `Exit` here.

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
        return punt_class(ip.protocol(), 0, 0);
    }
    match Ipv6View::new(frame.payload()) {
        Ok(ip) if ip.is_neighbour_discovery() => PuntClass::Neighbour,
        Ok(ip) => punt_class(ip.next_header(), 0, 0),
        Err(_) => PuntClass::Other,
    }
}

/// The queue of a packet for an address of the box.
pub(crate) fn punt_class(protocol: u8, source_port: u16, destination_port: u16) -> PuntClass {
    const BGP: u16 = 179;
    const SSH: u16 = 22;
    const BFD: [u16; 3] = [3784, 3785, 4784]; // RFC 5881 control and echo, RFC 5883 multihop
    const OSPF: u8 = 89;
    let either = |port| source_port == port || destination_port == port;
    match protocol {
        TCP if either(BGP) || either(SSH) => PuntClass::Control,
        UDP if BFD.contains(&destination_port) => PuntClass::Control,
        OSPF => PuntClass::Control,
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

/// The tuple of a frame that is already rewritten.
pub(crate) fn parse_leaving(frame: &[u8]) -> Option<FlowKey> {
    let frame =
        EthernetView::new(frame).ok().filter(|frame| frame.ether_type() == ethernet::IPV4)?;
    let (mut key, mut headers) = (FlowKey::default(), Headers::default());
    parse_v4(&frame, Checked::Good, &mut key, &mut headers).ok()?;
    Some(key)
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
