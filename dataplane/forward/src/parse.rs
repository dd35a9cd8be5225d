//! Bytes to headers and 5-tuples. What is no packet we could understand takes its `Exit` here.

use crate::burst::{Checked, Packet};
use crate::flow::FlowKey;
use crate::journey::{Headers, Kind, Walk};
use crate::snapshot::{PortConfig, Snapshot};
use crate::wire::Malformed;
use crate::wire::ethernet::{self, EthernetView};
use crate::wire::ipv4::Ipv4View;
use crate::wire::ipv6::Ipv6View;
use crate::wire::tcp::TcpView;
use crate::wire::udp::UdpView;
use crate::{Burst, DropReason, Exit, Protocol, PuntClass};

const TCP: u8 = Protocol::Tcp.number();
const UDP: u8 = Protocol::Udp.number();

/// The room: every packet of the burst becomes a tuple, a stranger, or leaves.
pub(crate) fn parse(burst: &mut Burst, walk: &mut Walk, snapshot: &Snapshot) {
    walk.tuples = Default::default();
    walk.strangers = Default::default();
    walk.pinned = Default::default();
    let count = burst.len();
    for (at, packet) in burst.packets[..count].iter_mut().enumerate() {
        match parse_one(packet, snapshot, &mut walk.keys[at]) {
            Ok(headers) => {
                walk.headers[at] = headers;
                if headers.kind == Kind::Tuple {
                    walk.tuples.insert(at);
                } else {
                    walk.strangers.insert(at);
                }
            }
            Err(exit) => packet.exit = exit,
        }
    }
}

/// One packet, as far as its L4 header. The frame is not changed.
#[inline]
pub(crate) fn parse_one(
    packet: &Packet,
    snapshot: &Snapshot,
    key: &mut FlowKey,
) -> Result<Headers, Exit> {
    let port = snapshot.port(packet.ingress).ok_or(Exit::Drop(DropReason::UnknownPort))?;
    let frame = EthernetView::new(packet.frame).map_err(|_| Exit::Drop(DropReason::Truncated))?;
    if frame.destination() != port.mac
        || frame.ether_type() != ethernet::IPV4
        || port.vlan != frame.vlan()
    {
        check_link(&frame, port)?;
    }
    if packet.checks.l4 == Checked::Bad {
        return Err(Exit::Drop(DropReason::L4Checksum));
    }
    match frame.ether_type() {
        ethernet::IPV4 => parse_v4(&frame, packet.checks.ip, key),
        _ => parse_v6(&frame, key),
    }
}

/// Whether a frame that is not plainly IPv4 for us may go on.
#[cold]
fn check_link(frame: &EthernetView, port: &PortConfig) -> Result<(), Exit> {
    match (port.vlan, frame.vlan()) {
        (Some(ours), Some(theirs)) if ours == theirs => {}
        (None, None | Some(0)) => {}
        _ => return Err(Exit::Drop(DropReason::VlanMismatch)),
    }
    let multicast = frame.destination().is_multicast();
    if frame.destination() != port.mac && !multicast {
        return Err(Exit::Drop(DropReason::OtherHost));
    }
    match frame.ether_type() {
        ethernet::ARP => Err(Exit::Punt(PuntClass::Neighbour)),
        ethernet::VLAN | ethernet::SERVICE_VLAN => Err(Exit::Drop(DropReason::VlanStacked)),
        ethernet::IPV4 | ethernet::IPV6 if multicast => Err(Exit::Punt(multicast_class(frame))),
        ethernet::IPV4 | ethernet::IPV6 => Ok(()),
        _ if multicast => Err(Exit::Punt(PuntClass::Other)),
        _ => Err(Exit::Drop(DropReason::UnknownEtherType)),
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
) -> Result<Headers, Exit> {
    let ip = Ipv4View::new(frame.payload()).map_err(|error| Exit::Drop(ip_header_reason(error)))?;
    let right = match header_checked {
        Checked::Good => true,
        Checked::Bad => false,
        Checked::Unknown => ip.checksum_is_right(),
    };
    if !right {
        return Err(Exit::Drop(DropReason::IpChecksum));
    }
    let l3 = frame.payload_offset();
    key.addresses = u64::from_ne_bytes(ip.addresses());
    key.protocol = ip.protocol();
    key.family = 4;
    key.ports = 0;
    let mut headers = Headers {
        kind: Kind::Tuple,
        l3: l3 as u16,
        l4: (l3 + ip.header_len()) as u16,
        ip_len: ip.total_len() as u16,
        ttl: ip.ttl(),
        tcp_flags: 0,
    };
    if ip.is_fragment() {
        headers.kind = Kind::Fragment;
        return Ok(headers);
    }
    match ip.protocol() {
        TCP => {
            let tcp =
                TcpView::new(ip.payload()).map_err(|error| Exit::Drop(l4_header_reason(error)))?;
            key.ports = u32::from_ne_bytes(tcp.ports());
            headers.tcp_flags = tcp.flags();
        }
        UDP => {
            let udp =
                UdpView::new(ip.payload()).map_err(|error| Exit::Drop(l4_header_reason(error)))?;
            key.ports = u32::from_ne_bytes(udp.ports());
        }
        _ => headers.kind = Kind::Other,
    }
    Ok(headers)
}

/// IPv6 as far as it takes to know whose it is.
fn parse_v6(frame: &EthernetView, key: &mut FlowKey) -> Result<Headers, Exit> {
    let ip = Ipv6View::new(frame.payload()).map_err(|error| Exit::Drop(ip_header_reason(error)))?;
    if ip.is_neighbour_discovery() {
        return Err(Exit::Punt(PuntClass::Neighbour));
    }
    let ports =
        ip.payload().first_chunk().filter(|_| Protocol::from_number(ip.next_header()).is_some());
    *key = FlowKey {
        addresses: 0,
        ports: ports.map_or(0, |ports| u32::from_ne_bytes(*ports)),
        protocol: ip.next_header(),
        family: 6,
        wide: ip.addresses(),
    };
    Ok(Headers { kind: Kind::Other, ..Headers::default() })
}

/// The tuple of a frame that is already rewritten.
pub(crate) fn parse_leaving(frame: &[u8]) -> Option<FlowKey> {
    let frame =
        EthernetView::new(frame).ok().filter(|frame| frame.ether_type() == ethernet::IPV4)?;
    let mut key = FlowKey::default();
    parse_v4(&frame, Checked::Good, &mut key).ok()?;
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
