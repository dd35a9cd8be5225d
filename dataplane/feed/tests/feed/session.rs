//! Connecting, publishing, acknowledging, and what a restart of either end costs.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::{
    PATIENCE, Place, RawProducer, a_state, connect_message, heard, my_uid, name, say, soon,
};
use penstock_feed::{
    Ack, BindError, Change, ConnectError, Disconnected, Map, Member, ObjectError, ObjectId,
    ObjectKind, Producer, PublishError, Published, PublishedKind, Server, State, StateFile,
};

/// Waits for the acknowledgement of `generation`.
fn ack_of(producer: &mut Producer, generation: u64) -> Ack {
    let deadline = soon();
    while Instant::now() < deadline {
        let acks = producer.wait(PATIENCE).unwrap();
        if let Some(ack) = acks.into_iter().find(|ack| ack.generation == generation) {
            return ack;
        }
    }
    panic!("no acknowledgement of generation {generation}");
}

#[test]
fn a_first_state_is_a_snapshot_then_a_delta_then_nothing() {
    let place = Place::new();
    let served = place.serve(&[]);
    let mut producer = place.connect();
    for (promise, generation, members, kind, records) in [
        ("nothing held: everything", 1, 3, PublishedKind::Snapshot, 5),
        ("one member more: one record", 2, 4, PublishedKind::Delta, 1),
        ("the same again: nothing", 2, 4, PublishedKind::Nothing, 0),
        ("the same, a generation on: no record", 3, 4, PublishedKind::Delta, 0),
        ("two members fewer: two records", 4, 2, PublishedKind::Delta, 2),
    ] {
        let state = a_state(members);
        let published = producer.publish(generation, &state, soon()).unwrap();
        assert_eq!((published.kind, published.records), (kind, records), "{promise}");
        served.wait_until(promise, |server| server.generation() == generation);
        let server = served.server();
        assert_eq!((server.state(), server.digest()), (&state, state.digest()), "{promise}");
    }
    let ack = ack_of(&mut producer, 4);
    assert_eq!((ack.digest, ack.errors, ack.refused), (a_state(2).digest(), vec![], None));
}

#[test]
fn a_transaction_may_be_many_times_larger_than_the_ring() {
    let place = Place::new();
    let served = place.serve(&[]);
    let mut producer = place.connect();
    let state = a_state(40_000); // 2.5 MB of records through 256 KiB
    let published = producer.publish(7, &state, soon()).unwrap();
    assert_eq!(published.records, 40_002);
    ack_of(&mut producer, 7);
    assert_eq!(served.server().state(), &state);
}

#[test]
fn a_full_ring_ends_in_a_deadline_and_the_next_call_starts_over() {
    let place = Place::new();
    let served = place.serve(&[]);
    let mut producer = place.connect();
    producer.publish(1, &a_state(1), soon()).unwrap();
    ack_of(&mut producer, 1);
    served.pause();
    let large = a_state(40_000);
    let late = producer.publish(2, &large, Instant::now() + Duration::from_millis(50));
    let error = late.unwrap_err();
    assert!(matches!(error, PublishError::Deadline { sent: 1.., .. }), "{error}");
    assert!(error.to_string().contains("is its main loop running?"));
    served.resume();
    producer.publish(3, &a_state(2), soon()).unwrap();
    ack_of(&mut producer, 3);
    assert_eq!(served.server().state(), &a_state(2));
}

#[test]
fn a_newer_producer_fences_the_older() {
    let place = Place::new();
    let served = place.serve(&[]);
    let mut older = place.connect();
    older.publish(1, &a_state(1), soon()).unwrap();
    ack_of(&mut older, 1);
    let mut newer = place.connect();
    assert_eq!((older.hello().epoch, newer.hello().epoch), (1, 2));
    let said = loop {
        match older.wait(PATIENCE) {
            Ok(_) => {}
            Err(said) => break said,
        }
    };
    let pid = std::process::id();
    let reason = format!("a newer producer connected: pid {pid} of uid {}, epoch 2", my_uid());
    assert_eq!(said, Disconnected::Ended { reason });
    let refused = older.publish(2, &a_state(9), soon());
    assert!(matches!(refused, Err(PublishError::Disconnected(_))));
    newer.publish(2, &a_state(2), soon()).unwrap();
    ack_of(&mut newer, 2);
    assert_eq!(served.server().state(), &a_state(2));
    assert_eq!(served.server().connected_peer().map(|peer| peer.uid), Some(my_uid()));
}

#[test]
fn a_user_that_is_not_allowed_is_refused_with_the_uid() {
    let place = Place::new();
    let store = StateFile::open(place.state()).unwrap();
    let mut server = Server::bind(&place.socket(), &[4_000_000], store).unwrap();
    let path = place.socket();
    let connecting = std::thread::spawn(move || Producer::connect(&path, PATIENCE));
    while !connecting.is_finished() {
        server.step(8);
        std::thread::sleep(Duration::from_millis(1));
    }
    let error = connecting.join().unwrap().unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    let expected = format!("uid {} may not feed this process, allowed are [4000000]", my_uid());
    assert!(error.to_string().contains(&expected), "{error}");
    assert_eq!((server.epoch(), server.connected_peer()), (0, None));
}

#[test]
fn another_version_is_refused_in_words_and_disturbs_nobody() {
    let place = Place::new();
    let mut server = place.server();
    let _present = RawProducer::connect(&place.socket(), &mut server);
    let socket = RawProducer::knock(&place.socket());
    say(&socket, &connect_message(9));
    server.step(0);
    server.step(0);
    let (message, _) = heard(&socket).unwrap();
    let text = String::from_utf8_lossy(&message[16..]).into_owned();
    assert_eq!(text, "this end speaks feed 5, the control process 9: upgrade the older of the two");
    assert_eq!(server.epoch(), 1);
    assert!(server.connected_peer().is_some());
}

#[test]
fn silent_and_foolish_connections_keep_nobody_out() {
    let place = Place::new();
    let served = place.serve(&[]);
    let silent: Vec<_> = (0..20)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(2)); // the listening socket's queue is short
            RawProducer::knock(&place.socket())
        })
        .collect();
    let foolish = RawProducer::knock(&place.socket());
    say(&foolish, b"GET / HTTP/1.1\r\n\r\n");
    let mut producer = place.connect();
    producer.publish(1, &a_state(1), soon()).unwrap();
    ack_of(&mut producer, 1);
    let (message, _) = heard(&foolish).unwrap();
    assert!(message.ends_with(b"this socket takes penstock's feed and nothing else"));
    drop((silent, served));
}

#[test]
fn a_data_plane_that_restarts_serves_at_once_what_it_last_committed() {
    let place = Place::new();
    let served = place.serve(&[]);
    let mut producer = place.connect();
    producer.publish(5, &a_state(3), soon()).unwrap();
    ack_of(&mut producer, 5);
    drop(served);
    assert!(matches!(
        producer.wait(PATIENCE),
        Err(Disconnected::Ended { .. } | Disconnected::HungUp)
    ));
    let served = place.serve(&[]);
    let mut server = served.server();
    assert_eq!(server.state(), &a_state(3));
    assert_eq!((server.generation(), server.digest()), (5, a_state(3).digest()));
    server.acknowledge(5, &[]); // as the workers do when they have built it
    drop(server);
    let mut producer = place.connect();
    let published = producer.publish(5, &a_state(3), soon()).unwrap();
    assert_eq!(published.kind, PublishedKind::Nothing);
    ack_of(&mut producer, 5); // and it says so to a producer that was not there
}

#[test]
fn a_data_plane_that_lost_its_file_gets_a_snapshot() {
    let place = Place::new();
    let served = place.serve(&[]);
    let mut producer = place.connect();
    producer.publish(5, &a_state(3), soon()).unwrap();
    ack_of(&mut producer, 5);
    drop(served);
    std::fs::remove_file(place.state()).unwrap();
    let served = place.serve(&[]);
    let mut producer = place.connect();
    assert_eq!(producer.hello().generation, 0);
    let published = producer.publish(5, &a_state(3), soon()).unwrap();
    assert_eq!(published.kind, PublishedKind::Snapshot);
    ack_of(&mut producer, 5);
    assert_eq!(served.server().state(), &a_state(3));
}

#[test]
fn a_producer_that_restarts_sends_nothing_or_the_difference() {
    let place = Place::new();
    let served = place.serve(&[]);
    let mut producer = place.connect();
    producer.publish(5, &a_state(3), soon()).unwrap();
    ack_of(&mut producer, 5);
    drop(producer);
    let mut producer = place.connect();
    assert_eq!((producer.hello().generation, producer.hello().digest), (5, a_state(3).digest()));
    assert!(!producer.adopt(&a_state(2)), "that is not what the data plane holds");
    assert!(producer.adopt(&a_state(3)));
    let nothing = producer.publish(5, &a_state(3), soon()).unwrap();
    assert_eq!(nothing.kind, PublishedKind::Nothing);
    ack_of(&mut producer, 5);
    let delta = producer.publish(6, &a_state(4), soon()).unwrap();
    assert_eq!((delta.kind, delta.records), (PublishedKind::Delta, 1));
    ack_of(&mut producer, 6);
    drop(producer);
    let mut producer = place.connect(); // one that remembers nothing
    let published = producer.publish(7, &a_state(5), soon()).unwrap();
    assert_eq!(published.kind, PublishedKind::Snapshot);
    ack_of(&mut producer, 7);
    assert_eq!(served.server().state(), &a_state(5));
}

/// A main loop that sleeps on `poll_fds` after every step, whatever the step said, misses nothing.
#[test]
fn what_a_step_leaves_for_want_of_budget_wakes_the_next() {
    let place = Place::new();
    let mut server = place.server();
    let path = place.socket();
    let publishing = std::thread::spawn(move || {
        let mut producer = Producer::connect(&path, PATIENCE).unwrap();
        producer.publish(1, &a_state(100), soon()).unwrap();
    });
    let mut steps = 0;
    while server.generation() == 0 || server.connected_peer().is_some() {
        let [fd] = server.poll_fds();
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let woken = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&patience));
        assert_eq!(
            woken,
            Ok(1),
            "asleep after {steps} steps, with generation {}",
            server.generation()
        );
        server.step(3);
        steps += 1;
    }
    publishing.join().unwrap();
    assert!(steps > 102 / 3, "{steps}");
}

#[test]
fn what_was_committed_before_a_hang_up_is_committed() {
    let place = Place::new();
    let served = place.serve(&[]);
    let mut producer = place.connect();
    served.pause();
    producer.publish(1, &a_state(3), soon()).unwrap();
    drop(producer);
    served.resume();
    served.wait_until("the commit counts", |server| server.state() == &a_state(3));
    served.wait_until("the peer is gone", |server| server.connected_peer().is_none());
}

#[test]
fn a_group_that_did_not_change_is_shared_with_the_state_before() {
    let place = Place::new();
    let served = place.serve(&[]);
    let mut producer = place.connect();
    producer.publish(1, &a_state(3), soon()).unwrap();
    ack_of(&mut producer, 1);
    let before = Arc::clone(served.server().state());
    let mut next = State::clone(&a_state(3));
    next.groups.insert_mut(name("another"), Arc::default());
    producer.publish(2, &Arc::new(next.clone()), soon()).unwrap();
    ack_of(&mut producer, 2);
    let after = Arc::clone(served.server().state());
    let group = name("default/route/0");
    assert!(Arc::ptr_eq(&before.groups[&group], &after.groups[&group]), "after a delta");
    drop(producer);
    next.groups.remove_mut(&name("another"));
    let mut producer = place.connect();
    let published = producer.publish(3, &Arc::new(next), soon()).unwrap();
    assert_eq!(published.kind, PublishedKind::Snapshot);
    ack_of(&mut producer, 3);
    let last = Arc::clone(served.server().state());
    assert!(Arc::ptr_eq(&after.groups[&group], &last.groups[&group]), "after a snapshot");
}

#[test]
fn who_knows_the_difference_says_nothing_else() {
    let place = Place::new();
    let served = place.serve(&[]);
    let mut producer = place.connect();
    producer.publish(1, &a_state(3), soon()).unwrap();
    ack_of(&mut producer, 1);
    let group = name("default/route/0");
    let member = |n: u32, weight| {
        let address = SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + n), 8080));
        let member = Member { weight, draining: false };
        Change::PutMember { group: group.clone(), address, member }
    };
    let rows = [
        (2, vec![member(1, 7)], Ok(1)),
        (
            3,
            vec![
                member(4, 4),
                member(1, 1),
                Change::RemoveNextHop { address: [10, 0, 0, 1].into() },
            ],
            Ok(3),
        ),
        (
            3,
            vec![member(5, 5)],
            Err("generation 3 of a new state is not above 3, which the data plane holds: raise it"),
        ),
        (
            4,
            vec![Change::RemoveGroup { name: group.clone() }, member(5, 5)],
            Err("a member for group default/route/0, which does not exist"),
        ),
        (
            4,
            vec![Change::RemoveGroup { name: group.clone() }],
            Err(
                "1 objects cannot be served together: the first is listener default/web/http: its group \
                 default/route/0 does not exist: send the group with it",
            ),
        ),
        (4, vec![member(5, 5)], Ok(1)),
    ];
    for (generation, changes, expected) in rows {
        match (producer.publish_changes(generation, changes, soon()), expected) {
            (Ok(published), Ok(records)) => {
                assert_eq!(published, Published { kind: PublishedKind::Delta, records });
                ack_of(&mut producer, generation);
            }
            (Err(error), Err(expected)) => assert_eq!(error.to_string(), expected),
            (got, expected) => panic!("{got:?} instead of {expected:?}"),
        }
    }
    assert_eq!(served.server().state(), &a_state(5));
    assert_eq!(producer.state(), Some(&a_state(5)));
    drop(producer);
    let mut another = place.connect(); // which does not know what the data plane holds
    let error = another.publish_changes(5, vec![member(6, 6)], soon()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "changes to a state that is not known: publish the whole state first"
    );
    assert!(another.adopt(&a_state(5)));
    another.publish_changes(5, vec![member(6, 6)], soon()).unwrap();
    ack_of(&mut another, 5);
    assert_eq!(served.server().state(), &a_state(6));
}

#[test]
fn every_refused_object_is_told_even_if_that_fills_the_ring_many_times() {
    let error = |n: u32| ObjectError {
        object: ObjectId {
            kind: ObjectKind::Listener,
            name: name(&format!("default/gateway/{n}")),
        },
        message: "x".repeat(700),
    };
    let errors: Vec<_> = (0..4000).map(error).collect(); // 3 MB through 64 KiB
    let place = Place::new();
    let _served = place.serve(&errors);
    let mut producer = place.connect();
    producer.publish(1, &a_state(1), soon()).unwrap();
    assert_eq!(ack_of(&mut producer, 1).errors, errors);
}

#[test]
fn a_state_that_no_data_plane_can_serve_is_not_sent() {
    let place = Place::new();
    let served = place.serve(&[]);
    let mut producer = place.connect();
    producer.publish(2, &a_state(1), soon()).unwrap();
    let mut dangling = State::clone(&a_state(1));
    dangling.groups = Map::default();
    let mut crowded = State::default();
    for n in 0..=penstock_feed::model::limits::GROUPS {
        crowded.groups.insert_mut(name(&n.to_string()), Arc::default());
    }
    for (generation, state, expected) in [
        (
            3,
            dangling,
            "1 objects cannot be served together: the first is listener default/web/http: its group \
                       default/route/0 does not exist: send the group with it",
        ),
        (3, crowded, "more than 16384 groups: split the configuration over more boxes"),
        (
            2,
            State::default(),
            "generation 2 of a new state is not above 2, which the data plane holds: raise it",
        ),
        (
            1,
            State::clone(&a_state(1)),
            "generation 1 of a new state is not above 2, which the data plane holds: raise it",
        ),
    ] {
        let error = producer.publish(generation, &Arc::new(state), soon()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    producer.publish(3, &a_state(2), soon()).unwrap();
    ack_of(&mut producer, 3);
    assert_eq!(served.server().state(), &a_state(2));
}

#[test]
fn a_socket_is_bound_by_one_data_plane_and_only_over_a_stale_one() {
    let place = Place::new();
    let store = || StateFile::open(place.state()).unwrap();
    let server = place.server();
    let mode = std::fs::metadata(place.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let second = Server::bind(&place.socket(), &[], store());
    assert!(matches!(second, Err(BindError::InUse { .. })), "{second:?}");
    drop(server);
    assert!(!place.socket().exists(), "an orderly end leaves nothing");
    drop(std::os::unix::net::UnixListener::bind(place.socket()).unwrap()); // and a crash leaves this
    let third = Server::bind(&place.socket(), &[], store());
    assert!(third.is_ok(), "{third:?}");
    drop(third);
    std::fs::write(place.socket(), "precious").unwrap();
    let fourth = Server::bind(&place.socket(), &[], store());
    assert!(matches!(fourth, Err(BindError::NotASocket { .. })), "{fourth:?}");
}

#[test]
fn a_damaged_state_file_is_set_aside_and_the_data_plane_starts() {
    let place = Place::new();
    std::fs::write(place.state(), b"half a fi").unwrap();
    let served = place.serve(&[]);
    let server = served.server();
    assert_eq!((server.generation(), server.state()), (0, &Arc::default()));
    let aside = place.directory.path().join("state.damaged");
    assert_eq!(std::fs::read(aside).unwrap(), b"half a fi");
}

#[test]
fn a_producer_says_what_to_do_when_nobody_answers() {
    let place = Place::new();
    let error = Producer::connect(&place.socket(), Duration::ZERO).unwrap_err();
    let said = error.to_string();
    assert!(
        said.starts_with("penstock-dataplane at ") && said.ends_with("is it running?"),
        "{error}"
    );
    let _server = place.server(); // bound, and nobody steps it
    let error = Producer::connect(&place.socket(), Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
}
