//! What SYNs and their answers offer: no more than fits the way of their connection, whoever is told.

use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::{CLIENT, FROM, FULL_NAT, NEW, SNAT, TO, VIP, families};
use crate::testing::{BOX_MAC, Family, ROUTER, TestLb, TestPacket, Tx, fib_of, mac_towards};
use crate::wire::checksum;
use crate::wire::tcp::{ACK, SYN};
use crate::{Exit, NextHopKey, PortConfig, PortIdx, WorkerIdx};

const SELF: WorkerIdx = WorkerIdx(0);
const SENT: Exit = Exit::Send(PortIdx(0));
/// A backend behind a router, on a route of 1000 bytes.
const NARROW: &str = "192.0.2.10:80/tcp backend=10.77.0.1:8080 snat=10.0.0.200";
const NARROW_BACKEND: &str = "10.77.0.1:8080";

/// What fits 1000 bytes.
fn fits(family: Family) -> u16 {
    if family == Family::V4 { 960 } else { 940 }
}

/// An MSS option.
pub(super) fn mss(bytes: u16) -> [u8; 4] {
    let [high, low] = bytes.to_be_bytes();
    [2, 4, high, low]
}

/// A client's packet as it leaves for the backend.
fn to_backend(family: Family, outside: &str, flags: u8) -> TestPacket {
    let router = mac_towards(family.of(ROUTER));
    family.tcp(outside, NARROW_BACKEND, flags).leaving().to_mac(router)
}

/// As many counters, and that an option was lowered.
fn lowered(counted: &[&'static str]) -> Vec<&'static str> {
    [counted, &["mss_clamped"]].concat()
}

#[test]
fn a_syn_offers_what_fits_and_so_does_its_answer() {
    for family in families() {
        let mut lb = family.lb(NARROW);
        let (syn, to_backend) = (family.tcp(CLIENT, VIP, SYN), to_backend(family, SNAT, SYN));
        lb.check(&[(
            "an offer that is more is lowered",
            syn.clone().with_options(&mss(1460)).into(),
            Tx(to_backend.with_options(&mss(fits(family)))),
            &lowered(NEW),
        )]);
        let outside = lb.flows()[0].outside.to_string();
        let answer = family.tcp(NARROW_BACKEND, &outside, SYN | ACK);
        let to_client = family.tcp(VIP, CLIENT, SYN | ACK).leaving();
        lb.check(&[
            (
                "the answer's too, though the way to the client is wide",
                answer.clone().with_options(&mss(8960)).into(),
                Tx(to_client.clone().with_options(&mss(fits(family)))),
                &lowered(FROM),
            ),
            (
                "and when it is sent again",
                answer.with_options(&mss(8960)).into(),
                Tx(to_client.with_options(&mss(fits(family)))),
                &lowered(FROM),
            ),
        ]);
    }
}

/// A packet as it leaves between other ends, offering no more than fits.
fn passed_on(
    family: Family,
    packet: &TestPacket,
    [source, destination]: [SocketAddr; 2],
) -> Vec<u8> {
    let [_, _, high, low] = packet.tcp_options[..] else { panic!("one option") };
    let offered = u16::from_be_bytes([high, low]).min(fits(family));
    let mut packet = packet.clone().with_options(&mss(offered));
    (packet.source, packet.destination) = (source, destination);
    packet.leaving().to_mac(mac_towards(family.of(ROUTER))).bytes()
}

/// Flows that begin together, and one that had, whatever lane there is for what is plain.
#[test]
fn the_syns_of_a_burst_and_their_answers_offer_what_fits_each() {
    let lanes = ["portable", "avx2", "avx512", "closed"];
    for (family, lane) in families().flat_map(|family| lanes.map(|lane| (family, lane))) {
        let mut lb = family.lb(NARROW);
        if !lb.worker_mut(SELF).take_lane(lane) {
            continue; // not of this CPU
        }
        lb.send_to(SELF, family.tcp(CLIENT, VIP, SYN).bytes());
        let offers = [1460, 500, 9000, fits(family), fits(family) + 1, 0, u16::MAX];
        let clients = (50_000..).map(|port| format!("203.0.113.7:{port}"));
        let clients = std::iter::once(CLIENT.to_owned()).chain(clients);
        let syns: Vec<_> = clients
            .zip(offers)
            .map(|(client, offer)| family.tcp(&client, VIP, SYN).with_options(&mss(offer)))
            .collect();
        let left = lb.send_burst(SELF, syns.iter().map(TestPacket::bytes).collect());

        let (flows, backend) = (lb.flows(), family.text(NARROW_BACKEND).parse().unwrap());
        let outside = |client| flows.iter().find(|flow| flow.client == client).unwrap().outside;
        let to_backend = |syn: &TestPacket| passed_on(family, syn, [outside(syn.source), backend]);
        let expected: Vec<_> = syns.iter().map(|syn| (SENT, to_backend(syn))).collect();
        assert_eq!(left, expected, "{lane}");
        assert_eq!(lb.worker_counter(SELF, "mss_clamped"), 4, "{lane}");

        let answers = syns.iter().map(|syn| {
            let outside = outside(syn.source);
            let answer = family.tcp(NARROW_BACKEND, &outside.to_string(), SYN | ACK);
            answer.with_options(&syn.tcp_options)
        });
        let answers: Vec<_> = answers.collect();
        let left = lb.send_burst(SELF, answers.iter().map(TestPacket::bytes).collect());
        let ends = |syn: &TestPacket| [syn.destination, syn.source];
        let to_clients = answers.iter().zip(&syns);
        let expected: Vec<_> =
            to_clients.map(|(answer, syn)| (SENT, passed_on(family, answer, ends(syn)))).collect();
        assert_eq!(left, expected, "{lane}");
        assert_eq!(lb.worker_counter(SELF, "mss_clamped"), 8, "{lane}");
    }
}

/// The options of a SYN, and those it leaves with.
#[test]
fn the_option_is_found_wherever_it_lies_and_nothing_else_is_touched() {
    for family in families() {
        let most = fits(family);
        let [high, low] = most.to_be_bytes();
        let rows: &[(&str, Vec<u8>, Vec<u8>)] = &[
            ("none", vec![], vec![]),
            ("one that is less", mss(500).to_vec(), mss(500).to_vec()),
            ("one that fits exactly", mss(most).to_vec(), mss(most).to_vec()),
            ("one byte more", mss(most + 1).to_vec(), mss(most).to_vec()),
            ("the most there can be", mss(u16::MAX).to_vec(), mss(most).to_vec()),
            ("nothing at all is offered", mss(0).to_vec(), mss(0).to_vec()),
            (
                "as Linux writes it, the first of many",
                b"\x02\x04\x05\xb4\x04\x02\x08\x0aTSvalEcr\x01\x03\x03\x07".to_vec(),
                [b"\x02\x04", &[high, low][..], b"\x04\x02\x08\x0aTSvalEcr\x01\x03\x03\x07"]
                    .concat(),
            ),
            (
                "at an odd place",
                b"\x01\x02\x04\x05\xb4\x03\x03\x07".to_vec(),
                [b"\x01\x02\x04", &[high, low][..], b"\x03\x03\x07"].concat(),
            ),
            (
                "at the very end",
                b"\x01\x01\x01\x01\x02\x04\x05\xb4".to_vec(),
                [b"\x01\x01\x01\x01\x02\x04", &[high, low][..]].concat(),
            ),
            (
                "twice, and one fits",
                [mss(1460), mss(500), mss(9000)].concat(),
                [mss(most), mss(500), mss(most)].concat(),
            ),
            (
                "behind the end of options",
                [b"\x00\x01\x01\x01", &mss(1460)[..]].concat(),
                [b"\x00\x01\x01\x01", &mss(1460)[..]].concat(),
            ),
            (
                "behind an option without a length",
                [b"\x08\x00\x01\x01", &mss(1460)[..]].concat(),
                [b"\x08\x00\x01\x01", &mss(1460)[..]].concat(),
            ),
            (
                "behind one that ends beyond the header",
                [b"\x08\x09\x01\x01", &mss(1460)[..]].concat(),
                [b"\x08\x09\x01\x01", &mss(1460)[..]].concat(),
            ),
            ("of another length", b"\x02\x03\x05\x01".to_vec(), b"\x02\x03\x05\x01".to_vec()),
            ("cut off", b"\x01\x01\x02\x04".to_vec(), b"\x01\x01\x02\x04".to_vec()),
            ("its kind alone", b"\x01\x01\x01\x02".to_vec(), b"\x01\x01\x01\x02".to_vec()),
        ];
        for (promise, options, left) in rows {
            let mut lb = family.lb(NARROW);
            let syn = family.tcp(CLIENT, VIP, SYN).with_options(options).carrying(b"data");
            let leaves = to_backend(family, SNAT, SYN);
            let counted = if options == left { NEW.to_vec() } else { lowered(NEW) };
            let leaves = leaves.with_options(left).carrying(b"data");
            lb.check(&[(promise, syn.into(), Tx(leaves), &counted)]);
        }
    }
}

/// The listener, the MTU of our port, and what a SYN and its answer of 9000 leave with.
#[test]
fn how_much_is_what_the_listener_and_both_ways_say() {
    let dnat = NARROW.replace("snat=10.0.0.200", "mode=dnat");
    let rows: &[(&str, &str, u16, [u16; 2])] = &[
        ("the port's, where the route says nothing", FULL_NAT, 1500, [1460, 1440]),
        ("that of a wider port", FULL_NAT, 9000, [8960, 8940]),
        ("the narrower of both ways", NARROW, 9000, [960, 940]),
        ("with DNAT as well", &dnat, 1500, [960, 940]),
        ("nothing, where that is wanted", &format!("{NARROW} mss-clamp=off"), 1500, [9000, 9000]),
        ("what is wanted, where that fits", &format!("{NARROW} mss-clamp=700"), 1500, [700, 700]),
        ("and else what fits", &format!("{NARROW} mss-clamp=1400"), 1500, [960, 940]),
    ];
    for family in families() {
        for (promise, spec, mtu, expected) in rows {
            let mut lb = family.lb(spec);
            let ports = [PortConfig { mac: BOX_MAC, mtu: *mtu }];
            let mut builder = lb.builder();
            builder.ports(ports).fib(Arc::new(fib_of(&ports, 2)));
            lb.install(&builder);
            let offer = |packet: TestPacket| packet.with_options(&mss(9000)).bytes();
            let (_, syn) = lb.send_to(SELF, offer(family.tcp(CLIENT, VIP, SYN)));
            let flow = lb.flows()[0];
            let (backend, outside) = (flow.backend.to_string(), flow.outside.to_string());
            let answer = family.tcp(&backend, &outside, SYN | ACK);
            let (_, answer) = lb.send_to(SELF, offer(answer));
            for left in [syn, answer] {
                let option = &left[family.l4() + 20..][..4];
                let expected = expected[usize::from(family == Family::V6)];
                assert_eq!(option, mss(expected), "{promise}: {spec}");
                assert_eq!(tcp_checksum_left(family, &left), 0, "{promise}");
            }
        }
    }
}

/// A route may say what it does before its next hop is known, and a listener may be gone before its backend answers.
#[test]
fn what_is_not_known_yet_or_any_more_changes_nothing() {
    for family in families() {
        let spec = "192.0.2.10:80/tcp backend=10.0.1.99:8080 snat=10.0.0.200 mss-clamp=700";
        let mut lb = family.lb(spec);
        let next_hop = NextHopKey { port: PortIdx(0), address: family.address("10.0.1.99") };
        let syn = family.tcp(CLIENT, VIP, SYN).with_options(&mss(1460));
        let (exit, left) = lb.send_to(SELF, syn.bytes());
        assert_eq!(exit, Exit::Hold(next_hop));
        assert_eq!(left[family.l4() + 20..][..4], mss(700), "it waits as it will leave");

        let flow = lb.flows()[0];
        lb.reconfigure("");
        lb.resolve(family.address("10.0.1.99"));
        let answer = family.tcp(&flow.backend.to_string(), &flow.outside.to_string(), SYN | ACK);
        let (exit, left) = lb.send_to(SELF, answer.with_options(&mss(9000)).bytes());
        assert_eq!(exit, Exit::Send(PortIdx(0)));
        let usual = if family == Family::V4 { 1460 } else { 1440 };
        assert_eq!(left[family.l4() + 20..][..4], mss(usual));
    }
}

#[test]
fn what_is_no_syn_of_a_connection_both_ways_of_which_pass_is_left_alone() {
    for family in families() {
        let options = mss(1460);
        let mut lb = family.lb(NARROW);
        lb.send_to(SELF, family.tcp(CLIENT, VIP, SYN).into());
        let data = family.tcp(CLIENT, VIP, ACK).with_options(&options);
        let left = to_backend(family, &lb.flows()[0].outside.to_string(), ACK);
        lb.check(&[("data", data.into(), Tx(left.with_options(&options)), TO)]);

        let mut lb = family.lb("192.0.2.10:80/tcp mode=l2-dsr backend=10.0.0.3:80 mss-clamp=700");
        let (_, left) =
            lb.send_to(SELF, family.tcp(CLIENT, VIP, SYN).with_options(&options).bytes());
        assert_eq!(left[family.l4() + 20..][..4], options, "with DSR");

        // One that does not fit itself is answered, and quoted as it came.
        let mut lb = family.lb(NARROW);
        let syn = family.tcp(CLIENT, VIP, SYN).with_options(&options).carrying(&[7; 1000]).bytes();
        let (_, told) = lb.send_to(SELF, syn.clone());
        let quote = family.l4() + 8;
        assert_eq!(told[quote..], syn[14..][..told.len() - quote]);
        assert_eq!(lb.worker_counter(SELF, "mss_clamped"), 0);
    }
}

/// The sum over the segment of a frame without padding; 0 if it is right.
fn tcp_checksum_left(family: Family, frame: &[u8]) -> u16 {
    let l4 = family.l4();
    let addresses = if family == Family::V4 { &frame[26..34] } else { &frame[22..54] };
    checksum::l4(addresses, 6, &frame[l4..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever options a SYN has: its checksum is right, its length stays, and so do all bytes but those of an MSS.
    #[test]
    fn any_options_leave_with_a_right_checksum(
        v6 in any::<bool>(),
        flags in prop::sample::select(vec![SYN, SYN | 0xc0]),
        words in prop::collection::vec(
            prop_oneof![
                any::<[u8; 4]>(),
                any::<u16>().prop_map(mss),
                prop::sample::select(vec![[1, 1, 2, 4], [1, 2, 4, 9], [5, 180, 1, 3], [3, 7, 0, 2]]),
            ],
            0..10,
        ),
    ) {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let options = words.concat();
        let mut lb: TestLb = family.lb(NARROW);
        let syn = family.tcp(CLIENT, VIP, flags).with_options(&options).carrying(b"odd").bytes();
        let (exit, left) = lb.send_to(SELF, syn.clone());
        prop_assert_eq!((exit, left.len()), (Exit::Send(PortIdx(0)), syn.len()));
        prop_assert_eq!(tcp_checksum_left(family, &left), 0);
        let at = family.l4() + 20;
        let changed = (at..syn.len()).filter(|at| left[*at] != syn[*at]).count();
        let lowered = lb.worker_counter(SELF, "mss_clamped");
        prop_assert_eq!(changed > 0, lowered > 0);
        prop_assert!(changed <= 2 * options.windows(2).filter(|kind| *kind == [2, 4]).count());
    }
}
