//! Promises that hold for any packets, not only for those somebody thought of.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use crate::testing::{BOX_MAC, ROUTER, TestLb, mac_towards};
use crate::wire::tcp::SYN;
use crate::{Exit, PortIdx, Protocol, WorkerIdx};

const LISTENERS: &str =
    "192.0.2.10:80/tcp backend=10.0.0.3:8080 backend=10.0.0.4:80 snat=10.0.0.200 snat=10.0.0.201
     192.0.2.11:80/tcp mode=dnat backend=10.0.0.3:8080 backend=10.0.0.5:80
     192.0.2.10:53/udp backend=10.0.0.3:5300 snat=10.0.0.200
     192.0.2.11:53/udp mode=dnat backend=10.0.0.3:5300 backend=10.0.0.5:53";

/// A packet of another author's making.
#[derive(Clone, Debug)]
struct Made {
    source: SocketAddrV4,
    destination: SocketAddrV4,
    protocol: Protocol,
    flags: u8,
    ttl: u8,
    payload: Vec<u8>,
}

impl Made {
    fn bytes(&self) -> Vec<u8> {
        let (source, destination) = (self.source.ip().octets(), self.destination.ip().octets());
        let builder = PacketBuilder::ethernet2(mac_towards(ROUTER).0, BOX_MAC.0).ipv4(
            source,
            destination,
            self.ttl,
        );
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
    fn answer(&self, source: SocketAddrV4, destination: SocketAddrV4) -> Self {
        Self { source, destination, flags: SYN | 0x10, ..self.clone() }
    }
}

/// What another author's parser reads in a frame: both ends, TTL, payload, and that every checksum
/// is right when computed in full.
fn read(frame: &[u8]) -> (SocketAddrV4, SocketAddrV4, u8, Vec<u8>) {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a packet");
    let Some(etherparse::NetSlice::Ipv4(ip)) = &sliced.net else { panic!("IPv4") };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    let (from, to, payload) = match sliced.transport.as_ref().expect("TCP or UDP") {
        TransportSlice::Tcp(tcp) => {
            let sum =
                tcp.calc_checksum_ipv4(header.source, header.destination).expect("short enough");
            assert_eq!(tcp.checksum(), sum);
            (tcp.source_port(), tcp.destination_port(), tcp.payload())
        }
        TransportSlice::Udp(udp) => {
            let header_of_udp = udp.to_header();
            let sum =
                header_of_udp.calc_checksum_ipv4(&header, udp.payload()).expect("short enough");
            assert_eq!(udp.checksum(), sum);
            (udp.source_port(), udp.destination_port(), udp.payload())
        }
        _ => panic!("TCP or UDP"),
    };
    let end = |ip: [u8; 4], port| SocketAddrV4::new(Ipv4Addr::from(ip), port);
    (end(header.source, from), end(header.destination, to), header.time_to_live, payload.to_vec())
}

fn first_packets() -> impl Strategy<Value = Made> {
    let listener = prop_oneof![
        Just(("192.0.2.10:80", Protocol::Tcp)),
        Just(("192.0.2.11:80", Protocol::Tcp)),
        Just(("192.0.2.10:53", Protocol::Udp)),
        Just(("192.0.2.11:53", Protocol::Udp)),
    ];
    let client = (0..=255_u8, 1..=u16::MAX);
    (listener, client, 3..=255_u8, prop::collection::vec(any::<u8>(), 0..64)).prop_map(
        |((vip, protocol), (host, port), ttl, payload)| Made {
            source: SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, host), port),
            destination: vip.parse().expect("a VIP"),
            protocol,
            flags: SYN,
            ttl,
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
        let mut lb = TestLb::with_workers(workers, LISTENERS);
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
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..32),
        ours in any::<bool>(),
    ) {
        let mut lb = TestLb::with(LISTENERS);
        let frames: Vec<Vec<u8>> = frames
            .into_iter()
            .map(|mut frame| {
                if ours && frame.len() > 14 {
                    frame[..6].copy_from_slice(&BOX_MAC.0);
                    frame[12..14].copy_from_slice(&[8, 0]);
                }
                frame
            })
            .collect();
        for (before, (exit, after)) in frames.clone().into_iter().zip(lb.send_burst(WorkerIdx(0), frames)) {
            match exit {
                Exit::Punt(_) | Exit::HandOver(_) => prop_assert_eq!(before, after),
                Exit::Send(_) | Exit::Hold(_) | Exit::Drop(_) => prop_assert!(after.len() <= before.len()),
            }
        }
    }

    /// A good packet with a few bytes changed anywhere: no panic, whatever the state.
    #[test]
    fn a_packet_with_flipped_bytes_has_an_exit(
        packets in prop::collection::vec((first_packets(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)), 1..32),
    ) {
        let mut lb = TestLb::with(LISTENERS);
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
