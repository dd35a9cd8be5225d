//! One frame of any bytes: every view, then the whole journey on a fresh box. No panic, one exit.

#![no_main]

use std::sync::{LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use penstock_forward::testing::{BOX_MAC, Family, NOWHERE, TestLb};
use penstock_forward::wire::{
    ethernet::EthernetView,
    icmp,
    ipv4::Ipv4View,
    ipv6::{self, Ipv6View},
    tcp::TcpView,
    udp::UdpView,
};
use penstock_forward::{ByNic, Exit, HEADROOM, Tag, Tags, Tcis, WorkerIdx};

const LISTENERS: &str = "192.0.2.10:80/tcp backend=10.0.0.3:8080 snat=10.0.0.200
     192.0.2.11:53/udp mode=dnat backend=10.0.0.3:5300
     192.0.2.12:80/tcp snat=10.0.0.200";

static LB: LazyLock<Mutex<TestLb<'static>>> = LazyLock::new(|| {
    let listeners = Family::BOTH.map(|family| family.text(LISTENERS)).join("\n");
    Mutex::new(TestLb::with(&listeners))
});

fuzz_target!(|frame: &[u8]| {
    views(frame);
    tags(frame);
    // As it is, and as if it were for us: few mutations hit six bytes of MAC.
    let mut ours = frame.to_vec();
    if let Some(mac) = ours.first_chunk_mut() {
        *mac = BOX_MAC.0;
    }
    let mut lb = LB.lock().expect("one thread");
    for frame in [frame.to_vec(), ours] {
        let (exit, mut left) = lb.send_to(WorkerIdx(0), frame.clone());
        match exit {
            Exit::Punt(_) | Exit::HandOver(_) | Exit::Await(_) => {
                assert_eq!(left, frame, "unchanged")
            }
            // What is answered by ICMP is quoted, behind headers that it did not have.
            Exit::Send(_) | Exit::Hold(_) | Exit::Drop(_) => {
                assert!(left.len() <= frame.len() + HEADROOM);
            }
        }
        let snapshot = lb.snapshot.clone();
        let _ = lb.worker_mut(WorkerIdx(0)).resume(&mut left, NOWHERE, &snapshot);
    }
    lb.sleep_ms(1_000_000_000);
});

/// Tags are taken off, or the frame stays as it is; and what was taken off can be put on.
fn tags(frame: &[u8]) {
    let stacked = Tags::two(Tag { ether_type: 0x88a8, vlan: 100 }, 7);
    for tags in [Tags::one(7), stacked] {
        for by_nic in [ByNic::None, ByNic::One(7), ByNic::One(100)] {
            let mut rest = frame.to_vec();
            match tags.take_off(&mut rest, by_nic) {
                Err(_) => assert_eq!(rest, frame),
                Ok(taken) if taken.bytes == tags.bytes() => {
                    tags.put_on(&mut rest, taken.tcis).expect("there was room");
                    assert_eq!(rest, frame);
                }
                Ok(taken) => assert_eq!(tags.with_priorities_of(taken.tcis), taken.tcis),
            }
        }
    }
    let _ = stacked.put_on(&mut frame.to_vec(), Tcis::default());
}

/// After a view is made, none of its accessors panics.
fn views(bytes: &[u8]) {
    if let Ok(frame) = EthernetView::new(bytes) {
        let _ = (frame.destination(), frame.vlan(), frame.ether_type(), frame.payload());
        if let Ok(ip) = Ipv4View::new(frame.payload()) {
            assert!(ip.header_len() + ip.payload().len() == ip.total_len());
            let _ = (ip.checksum_is_right(), ip.is_fragment(), ip.addresses(), ip.ttl());
            if let Ok(tcp) = TcpView::new(ip.payload()) {
                let _ = (tcp.ports(), tcp.flags(), tcp.sequence(), tcp.sequence_len());
            }
            if let Ok(udp) = UdpView::new(ip.payload()) {
                let _ = udp.ports();
            }
        }
        // What an ICMP error quotes is cut off anywhere, and no checksum vouches for it.
        if let Some(quote) = icmp::quote(frame.payload()) {
            assert!(quote.l4_at + icmp::LEAST_L4 <= frame.payload().len());
        }
        if let Ok(ip) = Ipv6View::new(frame.payload()) {
            let _ = (ip.addresses(), ip.is_neighbour_discovery(), ip.hop_limit());
            assert!(ipv6::HEADER_LEN + ip.payload().len() == ip.total_len());
            if let Ok(upper) = ip.upper() {
                assert!(upper.extensions_len + upper.payload.len() == ip.payload().len());
            }
        }
    }
}
