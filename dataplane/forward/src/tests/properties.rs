//! Promises that hold for any packets, not only for those somebody thought of.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    IpHeaders, Ipv4Header, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header, Ipv6RawExtHeader, NetSlice,
    PacketBuilder, SlicedPacket, TransportSlice, ip_number,
};
use proptest::prelude::*;

use crate::testing::{BOX_MAC, Family, ROUTER, TestLb, mac_towards};
use crate::wire::tcp::SYN;
use crate::{BURST, Exit, PortIdx, Protocol, WorkerIdx};

const LISTENERS: &str =
    "192.0.2.10:80/tcp backend=10.0.0.3:8080 backend=10.0.0.4:80 snat=10.0.0.200 snat=10.0.0.201
     192.0.2.11:80/tcp mode=dnat backend=10.0.0.3:8080 backend=10.0.0.5:80
     192.0.2.10:53/udp backend=10.0.0.3:5300 snat=10.0.0.200
     192.0.2.11:53/udp mode=dnat backend=10.0.0.3:5300 backend=10.0.0.5:53";

/// The listeners of both families.
fn listeners() -> String {
    Family::BOTH.map(|family| family.text(LISTENERS)).join("\n")
}

/// A packet of another author's making.
#[derive(Clone, Debug)]
struct Made {
    source: SocketAddr,
    destination: SocketAddr,
    protocol: Protocol,
    flags: u8,
    ttl: u8,
    /// Extension headers, where it is IPv6: options for every hop, and for the destination.
    extended: [bool; 2],
    payload: Vec<u8>,
}

impl Made {
    fn ip(&self) -> IpHeaders {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (source, destination) = (source.octets(), destination.octets());
                let header = Ipv4Header::new(0, self.ttl, ip_number::TCP, source, destination);
                IpHeaders::Ipv4(header.expect("no payload yet"), Default::default())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let options = Ipv6RawExtHeader::new_raw(ip_number::TCP, &[1, 4, 0, 0, 0, 0])
                    .expect("8 bytes");
                let [every_hop, at_destination] =
                    self.extended.map(|extended| extended.then(|| options.clone()));
                let extensions = Ipv6Extensions {
                    hop_by_hop_options: every_hop,
                    destination_options: at_destination,
                    ..Default::default()
                };
                let header = Ipv6Header {
                    traffic_class: 0x28,
                    flow_label: Ipv6FlowLabel::try_new(0x1_2345).expect("20 bits"),
                    payload_length: 0,
                    next_header: ip_number::TCP,
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                IpHeaders::Ipv6(header, extensions)
            }
            ends => panic!("two families: {ends:?}"),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(mac_towards(ROUTER).0, BOX_MAC.0).ip(self.ip());
        let mut bytes = Vec::new();
        let (from, to) = (self.source.port(), self.destination.port());
        match self.protocol {
            Protocol::Udp => builder.udp(from, to).write(&mut bytes, &self.payload),
            Protocol::Tcp => {
                let mut tcp = builder.tcp(from, to, 7, 1000);
                tcp = if self.flags & SYN != 0 { tcp.syn() } else { tcp };
                tcp = if self.flags & 0x10 != 0 { tcp.ack(99) } else { tcp };
                tcp.write(&mut bytes, &self.payload)
            }
        }
        .expect("writing to memory");
        bytes
    }

    /// The same words said by the other side.
    fn answer(&self, source: SocketAddr, destination: SocketAddr) -> Self {
        Self { source, destination, flags: SYN | 0x10, ..self.clone() }
    }
}

/// What another author's parser reads in a frame: both ends, TTL, payload, and that every checksum
/// is right when computed in full.
fn read(frame: &[u8]) -> (SocketAddr, SocketAddr, u8, Vec<u8>) {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a packet");
    let transport = sliced.transport.as_ref().expect("TCP or UDP");
    let (source, destination, ttl, sums): (IpAddr, IpAddr, u8, [u16; 2]) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let sums = match transport {
                TransportSlice::Tcp(tcp) => {
                    let sum = tcp.calc_checksum_ipv4(header.source, header.destination);
                    [tcp.checksum(), sum.expect("short enough")]
                }
                TransportSlice::Udp(udp) => {
                    let sum = udp.to_header().calc_checksum_ipv4(&header, udp.payload());
                    [udp.checksum(), sum.expect("short enough")]
                }
                _ => panic!("TCP or UDP"),
            };
            (header.source.into(), header.destination.into(), header.time_to_live, sums)
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header().to_header();
            let sums = match transport {
                TransportSlice::Tcp(tcp) => {
                    let sum = tcp.calc_checksum_ipv6(header.source, header.destination);
                    [tcp.checksum(), sum.expect("short enough")]
                }
                TransportSlice::Udp(udp) => {
                    let sum = udp.to_header().calc_checksum_ipv6(&header, udp.payload());
                    [udp.checksum(), sum.expect("short enough")]
                }
                _ => panic!("TCP or UDP"),
            };
            (header.source.into(), header.destination.into(), header.hop_limit, sums)
        }
        _ => panic!("IP"),
    };
    assert_eq!(sums[0], sums[1], "the L4 checksum");
    let (from, to, payload) = match transport {
        TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port(), tcp.payload()),
        TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port(), udp.payload()),
        _ => panic!("TCP or UDP"),
    };
    let ends = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
    (ends.0, ends.1, ttl, payload.to_vec())
}

fn first_packets() -> impl Strategy<Value = Made> {
    let listener = prop_oneof![
        Just(("192.0.2.10:80", Protocol::Tcp)),
        Just(("192.0.2.11:80", Protocol::Tcp)),
        Just(("192.0.2.10:53", Protocol::Udp)),
        Just(("192.0.2.11:53", Protocol::Udp)),
    ];
    let families = prop::sample::select(Family::BOTH.to_vec());
    let client = (families, 0..=255_u8, 1..=u16::MAX);
    let ip = (3..=255_u8, any::<[bool; 2]>());
    (listener, client, ip, prop::collection::vec(any::<u8>(), 0..64)).prop_map(
        |((vip, protocol), (family, host, port), (ttl, extended), payload)| Made {
            source: SocketAddr::new(family.of([203, 0, 113, host].into()), port),
            destination: family.text(vip).parse().expect("a VIP"),
            protocol,
            flags: SYN,
            ttl,
            extended,
            payload,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A client sees exactly the mirror image of what it sent, whichever worker got which packet,
    /// and every checksum on the way is what a full computation says.
    #[test]
    fn a_round_trip_is_a_mirror_image(
        workers in 1..=4_u8,
        packets in prop::collection::vec((first_packets(), 0..4_u8, 0..4_u8), 1..40),
    ) {
        let mut lb = TestLb::with_workers(workers, &listeners());
        for (packet, arrives_at, answer_arrives_at) in packets {
            let (owner, exit, out) = lb.send_and_follow(WorkerIdx(arrives_at % workers), packet.bytes());
            prop_assert_eq!(exit, Exit::Send(PortIdx(0)));
            let (outside, backend, ttl, payload) = read(&out);
            prop_assert_eq!(ttl, packet.ttl - 1);
            prop_assert_eq!(&payload, &packet.payload);
            let answer = packet.answer(backend, outside);
            let (answer_owner, exit, back) =
                lb.send_and_follow(WorkerIdx(answer_arrives_at % workers), answer.bytes());
            prop_assert_eq!(exit, Exit::Send(PortIdx(0)));
            prop_assert_eq!(owner, answer_owner);
            let (from, to, ttl, payload) = read(&back);
            prop_assert_eq!((from, to, ttl), (packet.destination, packet.source, packet.ttl - 1));
            prop_assert_eq!(payload, packet.payload);
        }
        let mut replies: Vec<(SocketAddr, SocketAddr, Protocol)> =
            lb.flows().iter().map(|flow| (flow.backend, flow.outside, flow.protocol)).collect();
        let count = replies.len();
        replies.sort();
        replies.dedup();
        prop_assert_eq!(replies.len(), count, "no two connections share a reply tuple");
    }

    /// Any bytes at all: no panic, exactly one exit, and what is not ours is not changed.
    #[test]
    fn any_bytes_have_an_exit(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..=BURST),
        ours in prop::sample::select(vec![None, Some(Family::V4), Some(Family::V6)]),
    ) {
        let mut lb = TestLb::with(&listeners());
        let frames: Vec<Vec<u8>> = frames
            .into_iter()
            .map(|mut frame| {
                if let Some(family) = ours && frame.len() > 20 {
                    frame[..6].copy_from_slice(&BOX_MAC.0);
                    match family {
                        Family::V4 => frame[12..14].copy_from_slice(&[8, 0]),
                        Family::V6 => {
                            let payload_len = frame.len().saturating_sub(54) as u8;
                            frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
                            frame[18..20].copy_from_slice(&[0, payload_len]);
                        }
                    }
                }
                frame
            })
            .collect();
        for (before, (exit, after)) in frames.clone().into_iter().zip(lb.send_burst(WorkerIdx(0), frames)) {
            match exit {
                Exit::Punt(_) | Exit::HandOver(_) | Exit::Await(_) => prop_assert_eq!(before, after),
                Exit::Send(_) | Exit::Hold(_) | Exit::Drop(_) => prop_assert!(after.len() <= before.len()),
            }
        }
    }

    /// A good packet with a few bytes changed anywhere: no panic, whatever the state.
    #[test]
    fn a_packet_with_flipped_bytes_has_an_exit(
        packets in prop::collection::vec((first_packets(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)), 1..32),
    ) {
        let mut lb = TestLb::with(&listeners());
        for (packet, flips) in packets {
            let mut frame = packet.bytes();
            for (at, byte) in flips {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            let _ = lb.send_to(WorkerIdx(0), frame);
        }
    }
}
