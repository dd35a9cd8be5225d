//! The express lane and the corridor say the same of every packet, and every lane what the others say.

use proptest::prelude::*;

use crate::testing::{Family, TestLb, TestPacket};
use crate::wire::tcp::{ACK, FIN, RST, SYN};
use crate::{BURST, Exit, FlowInfo, Protocol, WorkerIdx};

const SERVED: WorkerIdx = WorkerIdx(0);
const CLIENTS: [&str; 3] = ["203.0.113.7:40000", "203.0.113.7:40001", "198.51.100.9:7"];
const VIPS: [(&str, Protocol); 8] = [
    ("192.0.2.10:80", Protocol::Tcp),
    ("192.0.2.11:80", Protocol::Tcp),
    ("192.0.2.10:53", Protocol::Udp),
    ("192.0.2.11:53", Protocol::Udp),
    ("192.0.2.12:80", Protocol::Tcp),
    ("192.0.2.13:80", Protocol::Tcp),
    ("192.0.2.14:80", Protocol::Tcp),
    ("192.0.2.12:53", Protocol::Udp),
];
const CONFIGURATIONS: [&str; 2] = [
    "192.0.2.10:80/tcp backend=10.0.0.3:8080 snat=10.0.0.200 mss-clamp=700
     192.0.2.11:80/tcp mode=dnat backend=10.0.0.3:8080
     192.0.2.10:53/udp backend=10.0.0.3:5300 snat=10.0.0.200
     192.0.2.11:53/udp mode=dnat backend=10.0.0.3:5300
     192.0.2.12:80/tcp mode=l2-dsr backend=10.0.0.3:80
     192.0.2.13:80/tcp mode=ipip backend=10.0.0.3:80 snat=10.0.0.200
     192.0.2.14:80/tcp mode=gue backend=10.0.0.3:80 snat=10.0.0.200
     192.0.2.12:53/udp mode=gue-variant-0 backend=10.0.0.3:53 snat=10.0.0.200",
    "192.0.2.10:80/tcp backend=10.0.0.4:8080 snat=10.0.0.201
     192.0.2.10:53/udp backend=10.0.0.4:5300 snat=10.0.0.200
     192.0.2.12:80/tcp mode=l2-dsr backend=10.0.0.4:80
     192.0.2.12:53/udp mode=gue-variant-0 backend=10.0.0.4:53 snat=10.0.0.200",
];

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// A packet of a client, or of a flow's backend to it.
    Packet {
        of: u8,
        listener: u8,
        answer: bool,
        shape: Shape,
    },
    Configuration(usize),
    /// A neighbour moves: every cached next hop is void.
    Move,
    Wait(u32),
}

/// How a packet differs from the plainest.
#[derive(Clone, Debug)]
struct Shape {
    family: Family,
    flags: u8,
    ttl: u8,
    payload: usize,
    numbers: (u32, u32),
    mss: Option<u16>,
    flip: Option<(prop::sample::Index, u8)>,
    cut: Option<prop::sample::Index>,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let flags = prop_oneof![
        8 => Just(ACK), 3 => Just(SYN), 3 => Just(SYN | ACK), 1 => Just(RST), 1 => Just(ACK | FIN), 1 => any::<u8>()
    ];
    let numbers = (0..3_u32, 0..3_u32).prop_map(|(a, b)| (a << 17, b << 17));
    let families = prop_oneof![3 => Just(Family::V4), 1 => Just(Family::V6)];
    let mss = prop::option::of(prop::sample::select(vec![500, 1400, 9000]));
    let flip = prop::option::weighted(0.1, (any::<prop::sample::Index>(), any::<u8>()));
    let cut = prop::option::weighted(0.05, any::<prop::sample::Index>());
    let payload = prop_oneof![8 => 0..40_usize, 1 => 1400..1480_usize];
    let ttl = prop_oneof![9 => Just(64), 1 => 0..3_u8];
    (families, flags, ttl, payload, numbers, mss, flip, cut).prop_map(
        |(family, flags, ttl, payload, numbers, mss, flip, cut)| Shape {
            family,
            flags,
            ttl,
            payload,
            numbers,
            mss,
            flip,
            cut,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let packet = (0..3_u8, 0..8_u8, any::<bool>(), shapes())
        .prop_map(|(of, listener, answer, shape)| Step::Packet { of, listener, answer, shape });
    let step = prop_oneof![
        60 => packet,
        1 => (0..CONFIGURATIONS.len()).prop_map(Step::Configuration),
        1 => Just(Step::Move),
        1 => (1..400_000_u32).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..150)
}

impl Shape {
    fn frame(&self, ends: [&str; 2], protocol: Protocol) -> Vec<u8> {
        let ends = ends.map(|end| self.family.text(end).parse().expect("an address"));
        let mut packet = TestPacket::between(ends[0], ends[1], protocol);
        (packet.flags, packet.ttl) = (self.flags, self.ttl);
        (packet.sequence, packet.acknowledgement) = self.numbers;
        let options = self.mss.filter(|_| protocol == Protocol::Tcp).map(super::mss::mss);
        let packet = packet.with_options(options.as_ref().map_or(&[], |option| option));
        let mut frame = packet.carrying(&vec![7; self.payload]).bytes();
        if let Some((at, byte)) = &self.flip {
            let at = at.index(frame.len());
            frame[at] = *byte;
        }
        if let Some(at) = &self.cut {
            frame.truncate(at.index(frame.len()));
        }
        frame
    }
}

/// A balancer that takes one lane.
fn lb(lane: &str) -> Option<TestLb<'static>> {
    let mut lb = TestLb::sized(1, 8, "");
    lb.worker_mut(SERVED).take_lane(lane).then_some(lb)
}

fn configure(lb: &mut TestLb, at: usize) {
    lb.reconfigure(&Family::BOTH.map(|family| family.text(CONFIGURATIONS[at])).join("\n"));
}

/// What a balancer makes of the steps, packets in bursts of so many.
fn live(lb: &mut TestLb, steps: &[Step], burst: usize) -> Vec<(Exit, Vec<u8>)> {
    let (mut left, mut waiting) = (Vec::new(), Vec::new());
    configure(lb, 0);
    for step in steps {
        if let Step::Packet { of, listener, answer, shape } = step {
            let (vip, protocol) = VIPS[usize::from(*listener)];
            let flow =
                lb.flows().into_iter().filter(|flow| flow.protocol == protocol).nth((*of).into());
            let ends = match flow {
                Some(FlowInfo { backend, outside, .. }) if *answer && backend.is_ipv4() => {
                    [backend.to_string(), outside.to_string()]
                }
                _ => [CLIENTS[usize::from(*of)].to_owned(), vip.to_owned()],
            };
            waiting.push(shape.frame(ends.each_ref().map(String::as_str), protocol));
        }
        if waiting.len() == burst || !matches!(step, Step::Packet { .. }) {
            left.extend(lb.send_burst(SERVED, std::mem::take(&mut waiting)));
        }
        match step {
            Step::Packet { .. } => {}
            Step::Configuration(at) => configure(lb, *at),
            Step::Move => {
                lb.move_neighbour("10.0.0.9".parse().expect("an address"), crate::MacAddr([2; 6]));
            }
            Step::Wait(ms) => lb.sleep_ms(*ms),
        }
    }
    left.extend(lb.send_burst(SERVED, waiting));
    left
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// One by one, so that the order is the same.
    #[test]
    fn the_express_lane_does_what_the_corridor_does(steps in steps()) {
        let mut corridor = lb("closed").expect("every CPU has a corridor");
        let expected = live(&mut corridor, &steps, 1);
        for lane in ["portable", "avx2", "avx512"] {
            let Some(mut lb) = lb(lane) else { continue };
            let left = live(&mut lb, &steps, 1);
            for (at, (left, expected)) in left.iter().zip(&expected).enumerate() {
                prop_assert_eq!(left, expected, "{}, packet {}", lane, at);
            }
            prop_assert_eq!(lb.flows(), corridor.flows());
            prop_assert_eq!(lb.counted(SERVED), corridor.counted(SERVED));
        }
    }

    #[test]
    fn all_lanes_do_the_same_with_whole_bursts(steps in steps(), burst in 1..=BURST) {
        let mut portable = lb("portable").expect("every CPU takes it");
        let expected = live(&mut portable, &steps, burst);
        for lane in ["avx2", "avx512"] {
            let Some(mut lb) = lb(lane) else { continue };
            prop_assert_eq!(live(&mut lb, &steps, burst), expected.clone(), "{}", lane);
            prop_assert_eq!(lb.flows(), portable.flows());
            prop_assert_eq!(lb.counted(SERVED), portable.counted(SERVED));
        }
    }
}

/// Wherever in a full burst a packet is that the lane does not take, or that is of the other family.
#[test]
fn a_full_burst_leaves_by_any_lane_as_by_the_corridor() {
    let (vip, client) = ("192.0.2.11:80", |n: usize| format!("203.0.113.{}:40000", n + 1));
    let config = Family::BOTH.map(|family| family.text(CONFIGURATIONS[0])).join("\n");
    let plain = |n: usize| Family::V4.tcp(&client(n), vip, ACK);
    let aged = |mut packet: TestPacket| {
        packet.ttl = 1;
        packet
    };
    let odd = |at: usize, kind: usize| match kind {
        0 => aged(plain(at)).bytes(),
        1 => Family::V6.tcp(&client(at), vip, ACK).bytes(),
        _ => plain(at).bytes()[..20].to_vec(),
    };
    let burst = |at: usize, kind: usize| -> Vec<Vec<u8>> {
        (0..BURST).map(|n| if n == at { odd(at, kind) } else { plain(n).bytes() }).collect()
    };
    let lbs = |lane: &str| {
        let mut lb = TestLb::with(&config);
        let taken = lb.worker_mut(SERVED).take_lane(lane);
        for family in Family::BOTH {
            for n in 0..BURST {
                let answer = family.tcp("10.0.0.3:8080", &client(n), SYN | ACK);
                let [syn, ack] = [SYN, ACK].map(|flags| family.tcp(&client(n), vip, flags));
                for packet in [syn, answer, ack] {
                    lb.send_to(SERVED, packet.bytes());
                }
            }
        }
        assert_eq!(lb.flows().len(), 2 * BURST);
        taken.then_some(lb)
    };
    for lane in ["portable", "avx2", "avx512"] {
        let Some(mut lb) = lbs(lane) else { continue };
        let mut corridor = lbs("closed").expect("every CPU has a corridor");
        for (at, kind) in (0..=BURST).flat_map(|at| (0..3).map(move |kind| (at, kind))) {
            let before = lb.worker_counter(SERVED, "express");
            let left = lb.send_burst(SERVED, burst(at, kind));
            assert_eq!(left, corridor.send_burst(SERVED, burst(at, kind)), "{lane}, {at}, {kind}");
            let by_lane = lb.worker_counter(SERVED, "express") - before;
            let expected = BURST - usize::from(at < BURST && kind != 1);
            assert_eq!(by_lane, expected as u64, "{lane}, {at}, {kind}");
        }
    }
}

#[test]
fn the_steps_reach_the_lane() {
    let mut lb = lb("portable").expect("every CPU takes it");
    configure(&mut lb, 0);
    let shape = |flags| Shape {
        family: Family::V4,
        flags,
        ttl: 64,
        payload: 9,
        numbers: (0, 0),
        mss: None,
        flip: None,
        cut: None,
    };
    for flags in [SYN, ACK] {
        let frame = shape(flags).frame([CLIENTS[0], VIPS[0].0], Protocol::Tcp);
        lb.send_to(SERVED, frame);
        let flow = lb.flows()[0];
        let (backend, outside) = (flow.backend.to_string(), flow.outside.to_string());
        lb.send_to(SERVED, shape(flags | ACK).frame([&backend, &outside], Protocol::Tcp));
    }
    let before = lb.worker_counter(SERVED, "express");
    for _ in 0..3 {
        lb.send_to(SERVED, shape(ACK).frame([CLIENTS[0], VIPS[0].0], Protocol::Tcp));
    }
    assert_eq!(lb.worker_counter(SERVED, "express"), before + 3);
}
