//! A life of the box: packets of both families in bursts to two workers, some of them liars, configuration that
//! changes, time that passes, in any order. No panic, one exit a packet, and the flow tables stay
//! within their bounds.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use penstock_forward::testing::{Family, TestLb, TestMemory, TestPacket};
use penstock_forward::wire::ipv6;
use penstock_forward::{Exit, HEADROOM, OnUnknown, Protocol, Snapshot, WorkerIdx};

const CONFIGURATIONS: [&str; 3] = [
    "192.0.2.10:80/tcp backend=10.0.0.3:8080 backend=10.0.0.4:80 snat=10.0.0.200
     192.0.2.11:80/tcp mode=dnat backend=10.0.0.3:8080
     192.0.2.12:80/tcp mode=dnat backend=10.0.0.3:8080
     192.0.2.12:7/tcp mode=ipip backend=10.0.0.3:7 snat=10.0.0.200
     192.0.2.12:53/udp mode=gue-variant-0 backend=10.0.0.3:53 snat=10.0.0.200
     192.0.2.11:22/tcp mode=l2-dsr backend=10.0.0.4:22
     192.0.2.10:53/udp backend=10.0.0.3:5300 snat=10.0.0.200
     192.0.2.11:53/udp mode=dnat backend=10.0.0.3:5300",
    "192.0.2.10:80/tcp backend=10.0.0.3:8080*drain backend=10.0.0.5:80 snat=10.0.0.201 refused=1 on-unknown=reset
     192.0.2.11:80/tcp backend=10.0.0.3:8080 on-exhaustion=icmp
     192.0.2.12:53/udp on-exhaustion=icmp
     192.0.2.10:53/udp backend=10.0.1.99:5300 snat=10.0.0.200",
    "192.0.2.10:1-65535/tcp mode=dnat backend=10.66.0.1:80 backend=10.0.0.3:8080 on-unknown=reset",
];
/// How long flows go on that nobody serves, where they are not kept.
const GRACES_MS: [Option<u32>; 3] = [None, Some(0), Some(5_000)];
const ENDS: [&str; 17] = [
    "192.0.2.12:7",
    "192.0.2.12:53",
    "192.0.2.11:22",
    "203.0.113.7:1024",
    "203.0.113.7:1025",
    "203.0.113.8:1024",
    "192.0.2.10:80",
    "192.0.2.11:80",
    "192.0.2.12:80",
    "192.0.2.10:53",
    "192.0.2.11:53",
    "10.0.0.3:8080",
    "10.0.0.3:5300",
    "10.0.0.4:80",
    "10.0.0.200:2000",
    "192.0.2.2:22",
    "198.51.100.1:7",
];
/// The configurations, built once: only packets and their order are fuzzed.
static SNAPSHOTS: LazyLock<Vec<Snapshot>> = LazyLock::new(|| {
    let mut memory = TestMemory::new(1, 1);
    let mut lb = TestLb::in_memory(&mut memory, "");
    let build = |(spec, grace_ms): (&str, Option<u32>)| {
        lb.reconfigure(&Family::BOTH.map(|family| family.text(spec)).join("\n"));
        if let Some(grace_ms) = grace_ms {
            let mut builder = lb.builder();
            builder.snat_on_unknown(OnUnknown::Reset);
            lb.install(&builder);
            lb.end_unserved(grace_ms);
        }
        lb.snapshot.clone()
    };
    CONFIGURATIONS.into_iter().zip(GRACES_MS).map(build).collect()
});
const WORKERS: u8 = 2;
const CAPACITY: usize = 8;

fuzz_target!(|script: &[u8]| {
    let mut memory = TestMemory::new(WORKERS, CAPACITY);
    let mut lb = TestLb::in_memory(&mut memory, "");
    lb.snapshot = SNAPSHOTS[0].clone();
    let mut burst = Vec::new();
    for step in script.chunks_exact(4) {
        let [what, a, b, c] = [step[0], step[1], step[2], step[3]];
        match what % 16 {
            0 => lb.snapshot = SNAPSHOTS[usize::from(a) % SNAPSHOTS.len()].clone(),
            1 => {
                lb.sleep_ms(u32::from(a) << (b % 20));
                take_resets(&mut lb);
            }
            2 => replies_to_flows(&lb, c, &mut burst),
            3 => flush(&mut lb, a, &mut burst),
            _ => burst.push(packet(what, a, b, c)),
        }
        if burst.len() >= 24 {
            flush(&mut lb, what, &mut burst);
        }
    }
    flush(&mut lb, 0, &mut burst);
    for worker in (0..WORKERS).map(WorkerIdx) {
        assert!(lb.worker(worker).live_flows() <= CAPACITY);
    }
    // Whatever happened, all flows end.
    for _ in 0..4 {
        lb.sleep_ms(100_000_000);
    }
    assert_eq!(lb.flows(), []);
});

/// Connections that nobody serves are told so, by whole frames.
fn take_resets(lb: &mut TestLb) {
    for worker in (0..WORKERS).map(WorkerIdx) {
        for (exit, frame) in lb.take_resets(worker) {
            assert!(matches!(exit, Exit::Send(_) | Exit::Hold(_) | Exit::Drop(_)));
            assert!(frame.len() == 60 || frame.len() == 74, "{} bytes", frame.len());
        }
    }
}

/// A packet between two of the ends, perhaps with extension headers or TCP options, a piece only, without a hop left,
/// perhaps with one byte overwritten or cut short.
fn packet(what: u8, a: u8, b: u8, c: u8) -> Vec<u8> {
    let family = if a & 0x80 == 0 { Family::V4 } else { Family::V6 };
    let end = |n: u8| {
        let end = ENDS[usize::from(n & 0x7f) % ENDS.len()];
        family.text(end).parse().expect("an address")
    };
    let protocol = if what & 0x10 == 0 { Protocol::Tcp } else { Protocol::Udp };
    let mut packet = TestPacket::between(end(a), end(b), protocol);
    packet.flags = c & 0x1f;
    packet = match c >> 5 {
        1 => packet.extended(ipv6::HOP_BY_HOP, &[0, 0, 1, 4, 0, 0, 0, 0]),
        2 => packet.extended(ipv6::DESTINATION, &[0; 32]),
        3 => packet.piece(u16::from(c & 3) * 2, c & 4 != 0),
        4 => packet.with_options(&[1, 2, 4, a, b, what, 2, 4]), // an MSS, and another that is cut off
        5 => packet.ttl(c & 3),
        _ => packet,
    };
    let header_len = if protocol == Protocol::Tcp { 20 } else { 8 };
    let payload_len = if c >> 5 == 3 { 32 - header_len } else { 3 };
    let mut frame = packet.carrying(&vec![c; payload_len]).bytes();
    match what >> 5 {
        6 => {
            let at = usize::from(a) % frame.len();
            frame[at] = c;
        }
        7 => frame.truncate(usize::from(c)),
        _ => {}
    }
    frame
}

/// What the backends of all flows answer.
fn replies_to_flows(lb: &TestLb, flags: u8, burst: &mut Vec<Vec<u8>>) {
    for flow in lb.flows().iter().take(4) {
        let mut packet = TestPacket::between(flow.backend, flow.outside, flow.protocol);
        packet.flags = flags & 0x1f;
        burst.push(packet.bytes());
    }
}

fn flush(lb: &mut TestLb, worker: u8, burst: &mut Vec<Vec<u8>>) {
    let frames = std::mem::take(burst);
    if worker & 0x80 != 0 {
        return one_by_one(lb, WorkerIdx(worker % WORKERS), frames);
    }
    let arrived = frames.clone();
    for (before, (exit, after)) in
        arrived.iter().zip(lb.send_burst(WorkerIdx(worker % WORKERS), frames))
    {
        match exit {
            Exit::Punt(_) | Exit::Await(_) => assert_eq!(*before, after),
            Exit::HandOver(owner) => {
                assert_eq!(*before, after);
                lb.carry(owner, after);
            }
            Exit::Send(_) | Exit::Hold(_) | Exit::Drop(_) => {
                assert!(after.len() <= before.len() + HEADROOM)
            }
        }
    }
}

/// Every packet to its end, pieces of datagrams by way of whoever knows their first.
fn one_by_one(lb: &mut TestLb, worker: WorkerIdx, frames: Vec<Vec<u8>>) {
    lb.take_ended(); // while time passed, or in a burst
    let kept = lb.kept();
    let (arrived, mut ended) = (frames.len(), 0);
    for frame in frames {
        for (exit, _) in lb.carry(worker, frame) {
            assert!(!matches!(exit, Exit::HandOver(_) | Exit::Await(_)));
            ended += 1;
        }
    }
    assert_eq!(
        kept + arrived,
        ended + lb.kept(),
        "none is lost without a reason, none comes twice"
    );
}
