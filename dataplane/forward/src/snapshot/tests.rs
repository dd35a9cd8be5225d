//! What a builder takes, what it refuses, and what is shared.

use proptest::prelude::*;

use super::*;
use crate::BackendId;
use crate::group::{Group, Member};

fn listener(slot: u32, vip: &str, protocol: Protocol, first: u16, last: u16) -> Listener {
    Listener {
        slot: ListenerSlot(slot),
        vip: vip.parse().unwrap(),
        protocol,
        ports: L4Ports { first, last },
        mode: Mode::Dnat,
        affinity: Affinity::Tuple,
        on_exhaustion: crate::OnExhaustion::Reset,
        on_unknown: crate::OnUnknown::Drop,
        mss_clamp: crate::MssClamp::Auto,
        source_ranges: None,
        group: Arc::new(Group::new(vec![], 0, None).unwrap()),
        snat: Arc::new([]),
    }
}

fn tcp(slot: u32, first: u16, last: u16) -> Listener {
    listener(slot, "192.0.2.10", Protocol::Tcp, first, last)
}

fn found(snapshot: &Snapshot, destination: &str, protocol: Protocol) -> Option<u32> {
    let listener = snapshot.listener_of(destination.parse().unwrap(), protocol);
    listener.map(|listener| listener.slot.0)
}

#[test]
fn a_packet_finds_the_listener_that_fits_it_most_closely() {
    let mut builder = SnapshotBuilder::new();
    for listener in [
        tcp(1, 80, 80),
        tcp(2, 50, 100),
        tcp(3, 101, 200),
        listener(4, "192.0.2.10", Protocol::Udp, 80, 80),
        listener(5, "2001:db8::10", Protocol::Tcp, 80, 80),
    ] {
        builder.listener(listener).unwrap();
    }
    let snapshot = builder.build(1).unwrap();
    let rows = [
        ("192.0.2.10:80", Protocol::Tcp, Some(1)),
        ("192.0.2.10:79", Protocol::Tcp, Some(2)),
        ("192.0.2.10:50", Protocol::Tcp, Some(2)),
        ("192.0.2.10:49", Protocol::Tcp, None),
        ("192.0.2.10:101", Protocol::Tcp, Some(3)),
        ("192.0.2.10:200", Protocol::Tcp, Some(3)),
        ("192.0.2.10:80", Protocol::Udp, Some(4)),
        ("192.0.2.10:81", Protocol::Udp, None),
        ("[2001:db8::10]:80", Protocol::Tcp, Some(5)),
        ("192.0.2.11:80", Protocol::Tcp, None),
    ];
    for (destination, protocol, slot) in rows {
        assert_eq!(found(&snapshot, destination, protocol), slot, "{destination} {protocol:?}");
    }
}

#[test]
fn what_cannot_be_is_refused_and_the_builder_stays_as_it_was() {
    let mut builder = SnapshotBuilder::new();
    builder.listener(tcp(1, 80, 80)).unwrap();
    builder.listener(tcp(2, 100, 200)).unwrap();
    let rows = [
        (
            tcp(3, 80, 80),
            "listener ListenerSlot(3) wants 192.0.2.10 Tcp L4 ports 80..=80, of which listener ListenerSlot(1) has some",
        ),
        (
            tcp(3, 200, 300),
            "listener ListenerSlot(3) wants 192.0.2.10 Tcp L4 ports 200..=300, of which listener ListenerSlot(2) has some",
        ),
        (
            tcp(3, 0, 5),
            "listener ListenerSlot(3): L4 ports 0..=5 are no range; the first must be 1 or more and not above the last",
        ),
        (
            tcp(3, 9, 5),
            "listener ListenerSlot(3): L4 ports 9..=5 are no range; the first must be 1 or more and not above the last",
        ),
        (
            tcp(1, 150, 160),
            "listener ListenerSlot(1) wants 192.0.2.10 Tcp L4 ports 150..=160, of which listener ListenerSlot(2) has some",
        ),
    ];
    for (listener, message) in rows {
        assert_eq!(builder.listener(listener).unwrap_err().to_string(), message);
    }
    let member = Member {
        id: BackendId(0),
        address: "[2001:db8::1]:80".parse().unwrap(),
        weight: 1,
        draining: false,
    };
    let group = Arc::new(Group::new(vec![member], 0, Some(251)).unwrap());
    let refused = builder.listener(Listener { group, ..tcp(3, 9, 9) }).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "listener ListenerSlot(3) on 192.0.2.10: 2001:db8::1 is of the other address family"
    );
    let snapshot = builder.build(1).unwrap();
    assert_eq!(found(&snapshot, "192.0.2.10:80", Protocol::Tcp), Some(1));
    assert_eq!(found(&snapshot, "192.0.2.10:300", Protocol::Tcp), None);

    builder.add_snat_address("192.0.2.10".parse().unwrap());
    let refused = builder.build(2).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "192.0.2.10 is both a VIP and a SNAT address: use another address for one of them"
    );
}

#[test]
fn a_listener_is_replaced_by_its_slot_and_older_snapshots_do_not_notice() {
    let mut builder = SnapshotBuilder::new();
    builder.listener(tcp(1, 80, 80)).unwrap().listener(tcp(2, 90, 99)).unwrap();
    let old = builder.build(1).unwrap();
    let mut builder = SnapshotBuilder::from_snapshot(&old);
    builder.listener(tcp(1, 81, 81)).unwrap();
    assert!(builder.remove_listener(ListenerSlot(2)));
    assert!(!builder.remove_listener(ListenerSlot(2)));
    let new = builder.build(2).unwrap();
    for (port, before, after) in [(80, Some(1), None), (81, None, Some(1)), (95, Some(2), None)] {
        let destination = format!("192.0.2.10:{port}");
        assert_eq!(found(&old, &destination, Protocol::Tcp), before, "{port} before");
        assert_eq!(found(&new, &destination, Protocol::Tcp), after, "{port} after");
    }
    assert!(new.is_vip("192.0.2.10".parse().unwrap()));
    builder.remove_listener(ListenerSlot(1));
    assert!(!builder.build(3).unwrap().is_vip("192.0.2.10".parse().unwrap()));
    assert!(Arc::ptr_eq(&old.fib, &new.fib), "what did not change is shared");
}

/// A step of a builder that is kept.
#[derive(Clone, Copy, Debug)]
enum Step {
    Listener(u32, u8, Protocol, (u16, u16)),
    RemoveListener(u32),
    Snat(u8, bool),
    Own(u8, bool),
    Departed((u8, Protocol, (u16, u16), Mode), bool),
    Dnat((u8, Protocol, u16), bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let protocol = || prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let mode = prop_oneof![Just(Mode::FullNat), Just(Mode::Dnat)];
    let ports = || (1..8_u16, 0..3_u16).prop_map(|(first, more)| (first, first + more));
    prop_oneof![
        6 => (0..12_u32, 0..4_u8, protocol(), ports()).prop_map(|(slot, vip, p, ports)| Step::Listener(slot, vip, p, ports)),
        2 => (0..12_u32).prop_map(Step::RemoveListener),
        1 => (0..8_u8, any::<bool>()).prop_map(|(at, add)| Step::Snat(at, add)),
        1 => (0..8_u8, any::<bool>()).prop_map(|(at, add)| Step::Own(at, add)),
        3 => ((0..4_u8, protocol(), ports(), mode), any::<bool>()).prop_map(|(gone, add)| Step::Departed(gone, add)),
        3 => ((0..4_u8, protocol(), 1..4_u16), any::<bool>()).prop_map(|(at, add)| Step::Dnat(at, add)),
    ]
}

/// One of eight addresses, of both families.
fn address(n: u8) -> IpAddr {
    if n.is_multiple_of(2) {
        [192, 0, 2, n].into()
    } else {
        [0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()].into()
    }
}

/// What was put in and not taken out, in lists.
#[derive(Clone, Default)]
struct Lists {
    listeners: Vec<(u32, u8, Protocol, (u16, u16))>,
    snat: Vec<u8>,
    own: Vec<u8>,
    departed: Vec<(u8, Protocol, (u16, u16), Mode)>,
    dnat: Vec<(u8, Protocol, u16)>,
}

fn put_or_take<T: PartialEq>(list: &mut Vec<T>, item: T, put: bool, once: bool) {
    match list.iter().position(|held| *held == item) {
        Some(at) if !put => drop(list.swap_remove(at)),
        Some(_) if once => {}
        _ if put => list.push(item),
        _ => {}
    }
}

impl Lists {
    fn take(&mut self, step: Step, builder: &mut SnapshotBuilder) {
        let l4 = |(first, last)| L4Ports { first, last };
        match step {
            Step::Listener(slot, vip, protocol, ports) => {
                let listener =
                    Listener { ports: l4(ports), vip: address(vip), protocol, ..tcp(slot, 1, 1) };
                let overlaps = |held: &(u32, u8, Protocol, (u16, u16))| {
                    let (a, b) = (l4(held.3), l4(ports));
                    let alike = (a.first == a.last) == (b.first == b.last); // an exact one within a range is none
                    held.0 != slot && (held.1, held.2) == (vip, protocol) && alike && a.overlaps(b)
                };
                let refused = self.listeners.iter().any(overlaps);
                assert_eq!(builder.listener(listener).is_err(), refused);
                if !refused {
                    self.listeners.retain(|held| held.0 != slot);
                    self.listeners.push((slot, vip, protocol, ports));
                }
            }
            Step::RemoveListener(slot) => {
                let there = self.listeners.iter().any(|held| held.0 == slot);
                assert_eq!(builder.remove_listener(ListenerSlot(slot)), there);
                self.listeners.retain(|held| held.0 != slot);
            }
            Step::Snat(at, add) => {
                put_or_take(&mut self.snat, at, add, true);
                _ = if add {
                    builder.add_snat_address(address(at))
                } else {
                    builder.remove_snat_address(address(at))
                };
            }
            Step::Own(at, add) => {
                put_or_take(&mut self.own, at, add, true);
                _ = if add {
                    builder.add_own_address(address(at))
                } else {
                    builder.remove_own_address(address(at))
                };
            }
            Step::Departed((vip, protocol, ports, mode), add) => {
                put_or_take(&mut self.departed, (vip, protocol, ports, mode), add, false);
                let change = if add {
                    SnapshotBuilder::add_departed
                } else {
                    SnapshotBuilder::remove_departed
                };
                change(builder, address(vip), protocol, l4(ports), mode);
            }
            Step::Dnat((at, protocol, port), add) => {
                put_or_take(&mut self.dnat, (at, protocol, port), add, false);
                let change = if add {
                    SnapshotBuilder::add_dnat_backend
                } else {
                    SnapshotBuilder::remove_dnat_backend
                };
                change(builder, SocketAddr::new(address(at), port), protocol);
            }
        }
    }

    fn compare(&self, snapshot: &Snapshot) {
        let within = |(first, last): (u16, u16), port| (first..=last).contains(&port);
        for n in 0..8 {
            let at = address(n);
            let vip = self.listeners.iter().any(|held| held.1 == n);
            let departed = self.departed.iter().any(|held| held.0 == n);
            assert_eq!(snapshot.is_vip(at), vip, "{at}");
            assert_eq!(snapshot.is_departed_vip(at), departed, "{at}");
            assert_eq!(snapshot.is_snat(at), self.snat.contains(&n), "{at}");
            assert_eq!(snapshot.is_own(at), self.own.contains(&n), "{at}");
            assert_eq!(snapshot.is_local(at), vip || departed || self.snat.contains(&n), "{at}");
            assert_eq!(
                snapshot.is_no_source(at),
                vip || departed || self.snat.contains(&n),
                "{at}"
            );
            assert_eq!(
                snapshot.is_dnat_address(at),
                self.dnat.iter().any(|held| held.0 == n),
                "{at}"
            );
            for (port, protocol) in
                (0..12).flat_map(|port| [(port, Protocol::Tcp), (port, Protocol::Udp)])
            {
                let place = SocketAddr::new(at, port);
                let mut owners: Vec<_> = self
                    .listeners
                    .iter()
                    .filter(|held| (held.1, held.2) == (n, protocol) && within(held.3, port))
                    .collect();
                owners.sort_by_key(|held| held.3.0 != held.3.1); // the exact one first
                let found = snapshot.listener_of(place, protocol).map(|listener| listener.slot.0);
                assert_eq!(found, owners.first().map(|held| held.0), "{place} {protocol:?}");
                let departed = self
                    .departed
                    .iter()
                    .filter(|held| (held.0, held.1) == (n, protocol) && within(held.2, port));
                let sorted = |modes: &mut dyn Iterator<Item = Mode>| {
                    let mut modes: Vec<_> = modes.map(|mode| mode as u8).collect();
                    modes.sort_unstable();
                    modes
                };
                let departed = sorted(&mut departed.map(|held| held.3));
                let found = sorted(&mut snapshot.departed_modes(place, protocol));
                assert_eq!(found, departed, "{place} {protocol:?}");
                let is_departed = snapshot.is_departed(place, protocol);
                assert_eq!(is_departed, !departed.is_empty(), "{place} {protocol:?}");
                let dnat = self.dnat.contains(&(n, protocol, port));
                assert_eq!(snapshot.is_dnat_backend(place, protocol), dnat, "{place} {protocol:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// A builder that is kept, beside lists; and each snapshot says for ever what it said first.
    #[test]
    fn a_kept_builder_says_what_was_put_in_and_not_taken_out(
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        let (mut builder, mut lists) = (SnapshotBuilder::new(), Lists::default());
        let mut built = Vec::new();
        for (version, step) in (1..).zip(steps) {
            lists.take(step, &mut builder);
            let clash = lists.snat.iter().any(|at| lists.listeners.iter().any(|held| held.1 == *at));
            match builder.build(version) {
                Ok(snapshot) => {
                    prop_assert!(!clash);
                    lists.compare(&snapshot);
                    built.push((snapshot, lists.clone()));
                }
                Err(error) => prop_assert!(clash, "{}", error),
            }
        }
        built.iter().for_each(|(snapshot, lists)| lists.compare(snapshot));
    }
}
