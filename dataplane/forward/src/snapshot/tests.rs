//! What a builder takes, what it refuses, and what is shared.

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

    builder.snat_addresses(["192.0.2.10".parse().unwrap()]);
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
