//! Packets made from what they should say.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::wire::{checksum, ethernet, ipv6};
use crate::{MacAddr, Protocol};

/// The MAC address of our port.
pub const BOX_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0xbb]);
/// The router, behind which everything is that is not in 10.0.0.0/8 or, embedded, in 2001:db8::/96.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The SNAT or DNAT port that the flow got, whichever that is.
pub const ANY_PORT: u16 = 0;

/// The MAC address that frames to an address carry in the test network: hosts of 10.0.0.0/8 are
/// on-link, all else is behind [`ROUTER`]. A host has one for each family.
#[must_use]
pub fn mac_towards(address: impl Into<IpAddr>) -> MacAddr {
    let (family, host) = match address.into() {
        IpAddr::V4(v4) => (1, v4),
        IpAddr::V6(v6) => (6, Ipv4Addr::from_bits(v6.to_bits() as u32)),
    };
    let next = if host.octets()[0] == 10 { host } else { ROUTER };
    let [a, b, c, d] = next.octets();
    MacAddr([0x02, family, a, b, c, d])
}

/// One frame, as fields. The default direction is towards us.
#[derive(Clone, Debug)]
pub struct TestPacket {
    /// Source address and L4 port.
    pub source: SocketAddr,
    /// Destination address and L4 port.
    pub destination: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// TCP control bits.
    pub flags: u8,
    /// TCP sequence number.
    pub sequence: u32,
    /// TCP acknowledgement number.
    pub acknowledgement: u32,
    /// TCP window.
    pub window: u16,
    /// TCP options, a multiple of four bytes.
    pub tcp_options: Vec<u8>,
    /// Hops left: TTL or hop limit.
    pub ttl: u8,
    /// DSCP and ECN: type of service or traffic class.
    pub traffic_class: u8,
    /// What the segment or datagram carries.
    pub payload: Vec<u8>,
    /// IPv4 options, a multiple of four bytes.
    pub ip_options: Vec<u8>,
    /// IPv4 identification, flags and fragment offset.
    pub ip_id_and_fragment: [u8; 4],
    /// IPv6 extension headers in order, each with its number. The first byte, which names the next,
    /// is filled in; the rest is as the test says.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// An 802.1Q tag: priority and VLAN id.
    pub tag: Option<u16>,
    /// Whether a UDP checksum is computed.
    pub udp_checksum: bool,
    /// Destination MAC and source MAC.
    pub macs: [MacAddr; 2],
    edits: Vec<Edit>,
}

#[derive(Clone, Debug)]
enum Edit {
    Put(usize, Vec<u8>),
    CutTo(usize),
    PadTo(usize, u8),
}

fn packet(source: SocketAddr, destination: SocketAddr, protocol: Protocol) -> TestPacket {
    assert_eq!(source.is_ipv4(), destination.is_ipv4(), "{source} to {destination}");
    TestPacket {
        source,
        destination,
        protocol,
        flags: 0,
        sequence: 0x0102_0304,
        acknowledgement: 0x0102_0304, // what the other end sends next
        window: 0xfaf0,
        tcp_options: Vec::new(),
        ttl: 61,
        traffic_class: 0,
        payload: Vec::new(),
        ip_options: Vec::new(),
        ip_id_and_fragment: [0x12, 0x34, 0x40, 0x00],
        extensions: Vec::new(),
        tag: None,
        udp_checksum: true,
        macs: [BOX_MAC, mac_towards(source.ip())],
        edits: Vec::new(),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A TCP segment, towards us.
#[must_use]
pub fn tcp(source: &str, destination: &str, flags: u8) -> TestPacket {
    TestPacket { flags, ..packet(address(source), address(destination), Protocol::Tcp) }
}

/// A UDP datagram, towards us.
#[must_use]
pub fn udp(source: &str, destination: &str, payload: &[u8]) -> TestPacket {
    TestPacket {
        payload: payload.to_vec(),
        ..packet(address(source), address(destination), Protocol::Udp)
    }
}

/// A broadcast ARP request.
#[must_use]
pub fn arp_who_has(target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac_towards(ROUTER).0);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac_towards(ROUTER).0);
    frame.extend(ROUTER.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame.resize(60, 0);
    frame
}

impl TestPacket {
    /// Any protocol between any addresses of one family, towards us.
    #[must_use]
    pub fn between(source: SocketAddr, destination: SocketAddr, protocol: Protocol) -> Self {
        packet(source, destination, protocol)
    }

    /// The same packet as it leaves us: one hop less, MAC addresses for the next.
    #[must_use]
    pub fn leaving(mut self) -> Self {
        self.ttl -= 1;
        self.macs = [mac_towards(self.destination.ip()), BOX_MAC];
        self
    }

    /// With this payload.
    #[must_use]
    pub fn carrying(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// With this many hops left.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// With these TCP options, a multiple of four bytes.
    #[must_use]
    pub fn with_options(mut self, options: &[u8]) -> Self {
        self.tcp_options = options.to_vec();
        self
    }

    /// With this DSCP and ECN.
    #[must_use]
    pub fn classed(mut self, traffic_class: u8) -> Self {
        self.traffic_class = traffic_class;
        self
    }

    /// With these sequence and acknowledgement numbers.
    #[must_use]
    pub fn numbered(mut self, sequence: u32, acknowledgement: u32) -> Self {
        (self.sequence, self.acknowledgement) = (sequence, acknowledgement);
        self
    }

    /// With an 802.1Q tag: priority bits and VLAN id.
    #[must_use]
    pub fn tagged(mut self, tag: u16) -> Self {
        self.tag = Some(tag);
        self
    }

    /// Without a UDP checksum.
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        self.udp_checksum = false;
        self
    }

    /// For another MAC address.
    #[must_use]
    pub fn to_mac(mut self, mac: MacAddr) -> Self {
        self.macs[0] = mac;
        self
    }

    /// The bytes at `at` overwritten at the last, whatever checksum that breaks.
    #[must_use]
    pub fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.edits.push(Edit::Put(at, bytes.to_vec()));
        self
    }

    /// As [`Self::put`], counted from the TCP or UDP header on.
    #[must_use]
    pub fn put_l4(self, at: usize, bytes: &[u8]) -> Self {
        let l4 = self.l4_at();
        self.put(l4 + at, bytes)
    }

    /// With one more IPv6 extension header, before TCP or UDP and behind those it has.
    #[must_use]
    pub fn extended(mut self, number: u8, bytes: &[u8]) -> Self {
        self.extensions.push((number, bytes.to_vec()));
        self
    }

    /// As a piece of a larger datagram: at an offset of 8-byte units, and whether more is to come.
    #[must_use]
    pub fn piece(mut self, offset: u16, more: bool) -> Self {
        if self.source.is_ipv4() {
            let [high, low] = (u16::from(more) << 13 | offset).to_be_bytes();
            self.ip_id_and_fragment = [0x12, 0x34, high, low];
            return self;
        }
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        self.extended(ipv6::FRAGMENT, &[0, 0, high, low, 0, 0, 0x12, 0x34])
    }

    /// Only the first `len` bytes of the frame.
    #[must_use]
    pub fn cut_to(mut self, len: usize) -> Self {
        self.edits.push(Edit::CutTo(len));
        self
    }

    /// Ethernet padding, of bytes that are not zero.
    #[must_use]
    pub fn padded_to(mut self, len: usize) -> Self {
        self.edits.push(Edit::PadTo(len, 0xa5));
        self
    }

    /// Ethernet padding as it should be.
    #[must_use]
    pub fn padded_to_zero(mut self, len: usize) -> Self {
        self.edits.push(Edit::PadTo(len, 0));
        self
    }

    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.macs[0].0);
        frame.extend(self.macs[1].0);
        if let Some(tag) = self.tag {
            frame.extend(ethernet::VLAN.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        let segment = self.segment();
        if self.source.is_ipv4() {
            frame.extend(ethernet::IPV4.to_be_bytes());
            frame.extend(self.v4_header(segment.len()));
        } else {
            frame.extend(ethernet::IPV6.to_be_bytes());
            frame.extend(self.v6_headers(segment.len()));
        }
        frame.extend(segment);
        for edit in &self.edits {
            match edit {
                Edit::Put(at, bytes) => frame[*at..][..bytes.len()].copy_from_slice(bytes),
                Edit::CutTo(len) => frame.truncate(*len),
                Edit::PadTo(len, with) => frame.resize((*len).max(frame.len()), *with),
            }
        }
        frame
    }

    /// Where the TCP or UDP header lies.
    #[must_use]
    pub fn l4_at(&self) -> usize {
        let link = if self.tag.is_some() { 18 } else { 14 };
        let extensions: usize = self.extensions.iter().map(|(_, bytes)| bytes.len()).sum();
        link + if self.source.is_ipv4() { 20 + self.ip_options.len() } else { 40 + extensions }
    }

    fn addresses(&self) -> Vec<u8> {
        let octets = |ip| match ip {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        [octets(self.source.ip()), octets(self.destination.ip())].concat()
    }

    fn v6_headers(&self, segment_len: usize) -> Vec<u8> {
        let numbers = self.extensions.iter().map(|(number, _)| *number);
        let mut numbers = numbers.chain([self.protocol.number()]);
        let extensions_len: usize = self.extensions.iter().map(|(_, bytes)| bytes.len()).sum();
        let payload_len =
            u16::try_from(extensions_len + segment_len).expect("a packet of 64 KiB at most");
        let mut ip = vec![0x60 | self.traffic_class >> 4, self.traffic_class << 4, 0, 0];
        ip.extend(payload_len.to_be_bytes());
        ip.extend(numbers.next());
        ip.push(self.ttl);
        ip.extend(self.addresses());
        for ((_, bytes), next) in self.extensions.iter().zip(numbers) {
            ip.push(next);
            ip.extend(&bytes[1..]);
        }
        ip
    }

    fn v4_header(&self, segment_len: usize) -> Vec<u8> {
        let header_len = 20 + self.ip_options.len();
        let total_len =
            u16::try_from(header_len + segment_len).expect("a packet of 64 KiB at most");
        let mut ip =
            vec![0x40 | u8::try_from(header_len / 4).expect("40 bytes of options at most")];
        ip.push(self.traffic_class);
        ip.extend(total_len.to_be_bytes());
        ip.extend(self.ip_id_and_fragment);
        ip.extend([self.ttl, self.protocol.number(), 0, 0]);
        ip.extend(self.addresses());
        ip.extend(&self.ip_options);
        let sum = !checksum::sum(&ip);
        ip[10..12].copy_from_slice(&sum.to_ne_bytes());
        ip
    }

    fn segment(&self) -> Vec<u8> {
        let mut l4 = Vec::new();
        l4.extend(self.source.port().to_be_bytes());
        l4.extend(self.destination.port().to_be_bytes());
        let checksum_at = match self.protocol {
            Protocol::Tcp => {
                l4.extend(self.sequence.to_be_bytes());
                l4.extend(self.acknowledgement.to_be_bytes());
                let words =
                    u8::try_from(5 + self.tcp_options.len() / 4).expect("40 bytes of options");
                l4.extend([words << 4, self.flags]);
                l4.extend(self.window.to_be_bytes());
                l4.extend([0; 4]);
                l4.extend(&self.tcp_options);
                16
            }
            Protocol::Udp => {
                let len =
                    u16::try_from(8 + self.payload.len()).expect("a datagram of 64 KiB at most");
                l4.extend(len.to_be_bytes());
                l4.extend([0, 0]);
                6
            }
        };
        l4.extend(&self.payload);
        let mut sum = checksum::l4(&self.addresses(), self.protocol.number(), &l4);
        if self.protocol == Protocol::Udp {
            sum = if !self.udp_checksum {
                0
            } else if sum == 0 {
                0xffff
            } else {
                sum
            };
        }
        l4[checksum_at..][..2].copy_from_slice(&sum.to_ne_bytes());
        l4
    }
}

impl From<TestPacket> for Vec<u8> {
    fn from(packet: TestPacket) -> Self {
        packet.bytes()
    }
}
