//! What a hostile or broken producer gets: the end of its connection, and nothing else happens.

use std::sync::Arc;

use penstock_feed::model::limits;
use penstock_feed::{
    AckRecord, Begin, Change, Commit, Digest, FEED_VERSION, Map, Record, Server, State, Step,
    encode,
};
use proptest::prelude::*;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::support::{Place, RawProducer, a_state, heard, name, say};

fn begin(producer: &RawProducer, generation: u64, base: Option<(u64, Digest)>) -> Record {
    Record::Begin(Begin { epoch: producer.epoch, generation, base })
}

fn put_group(text: &str) -> Record {
    Record::Change(Change::PutGroup { name: name(text), refused_weight: 1 })
}

fn commit(generation: u64, changes: u64) -> Record {
    Record::Commit(Commit { generation, digest: Digest::EMPTY, changes })
}

/// Steps until nothing is left to do; whether something was committed.
fn run(server: &mut Server) -> bool {
    let mut committed = false;
    for _ in 0..10_000 {
        match server.step(64) {
            Step::Idle => return committed,
            Step::Committed => committed = true,
            Step::More => {}
        }
    }
    panic!("the server never comes to rest");
}

/// The state that all tests here start from and must end with.
fn with_a_state(place: &Place) -> (Server, Arc<State>) {
    let mut server = place.server();
    let mut producer = RawProducer::connect(&place.socket(), &mut server);
    let state = a_state(2);
    producer.push(&begin(&producer, 10, None));
    let changes = State::default().diff(&state);
    for change in &changes {
        producer.push(&Record::Change(change.clone()));
    }
    let changes = changes.len() as u64;
    producer.push(&Record::Commit(Commit { generation: 10, digest: state.digest(), changes }));
    assert!(run(&mut server));
    server.acknowledge(10, &[]);
    (server, state)
}

/// What ends a connection, a row each, and the words that the producer hears.
#[test]
fn a_broken_protocol_ends_the_connection_and_leaves_the_state() {
    type Act = fn(&mut RawProducer);
    let rows: &[(&str, Act, &str)] = &[
        (
            "a tail far away",
            |p| p.spoil(0, u64::MAX),
            "cannot be: ours is 0, the ring holds 32768 words",
        ),
        ("zeros as a record", |p| p.spoil(0, 1), "a record of version 0, this end speaks feed 5"),
        (
            "half a record",
            |p| {
                p.spoil(32, u64::from_ne_bytes([FEED_VERSION, 16, 0, 0, 64, 0, 0, 0]));
                p.spoil(0, 2);
            },
            "a record of 9 words was published with 2 words in the ring",
        ),
        (
            "an unknown kind",
            |p| p.push_bytes(&[FEED_VERSION, 99, 0, 0, 0, 0, 0, 0]),
            "kind 99 is no record of feed 5",
        ),
        (
            "a body of the wrong length",
            |p| p.push_bytes(&[FEED_VERSION, 16, 0, 0, 0, 0, 0, 0]),
            "Listener: its body has 0 bytes",
        ),
        (
            "a change before its begin",
            |p| p.push(&put_group("g")),
            "a change outside of a transaction",
        ),
        (
            "a commit before its begin",
            |p| p.push(&commit(11, 0)),
            "a commit outside of a transaction",
        ),
        (
            "another connection's transaction",
            |p| {
                p.push(&Record::Begin(Begin { epoch: 77, generation: 11, base: None }));
            },
            "a transaction of epoch 77, this connection is epoch 2",
        ),
        (
            "an acknowledgement",
            |p| {
                let (generation, digest) = (11, Digest::EMPTY);
                let ack = AckRecord {
                    generation,
                    digest,
                    errors: 0,
                    wants_snapshot: false,
                    refused: None,
                };
                p.push(&Record::Ack(ack));
            },
            "an acknowledgement from a producer",
        ),
        (
            "words on the socket",
            |p| say(&p.socket, b"hello again"),
            "it spoke on the socket after the hand-shake",
        ),
    ];
    let place = Place::new();
    let (mut server, state) = with_a_state(&place);
    for (promise, act, expected) in rows {
        // Each row is a connection of its own; epochs in the texts are those of the second.
        let mut producer = RawProducer::connect(&place.socket(), &mut server);
        act(&mut producer);
        assert!(!run(&mut server), "{promise}");
        assert_eq!((server.state(), server.generation()), (&state, 10), "{promise}");
        assert_eq!(server.connected_peer(), None, "{promise}");
        let words = std::iter::from_fn(|| heard(&producer.socket)).last().unwrap().0;
        let words = String::from_utf8_lossy(&words)
            .replace(&format!("epoch {}", producer.epoch), "epoch 2");
        assert!(words.contains(expected), "{promise}: {words}");
    }
}

/// What is refused by an answer, a row each; the connection goes on.
#[test]
fn a_transaction_that_cannot_be_committed_is_refused_whole() {
    type Records = fn(&RawProducer) -> Vec<Record>;
    let held = a_state(2).digest();
    let rows: &[(&str, Records, bool, &str)] = &[
        (
            "a wrong digest",
            |p| vec![begin(p, 11, None), put_group("g"), commit(11, 1)],
            true,
            "the commit says",
        ),
        (
            "a record lost",
            |p| vec![begin(p, 11, None), commit(11, 1)],
            true,
            "the commit says generation 11, 1 changes",
        ),
        (
            "another generation",
            |p| vec![begin(p, 11, None), commit(12, 0)],
            true,
            "the commit says generation 12",
        ),
        (
            "a base that is not held",
            |p| vec![begin(p, 11, Some((9, Digest::EMPTY))), put_group("g"), commit(11, 1)],
            true,
            "a delta from generation 9",
        ),
        (
            "a generation gone by",
            |p| vec![begin(p, 9, None), commit(9, 0)],
            false,
            "generation 9 is behind 10",
        ),
        (
            "a generation used twice",
            |p| vec![begin(p, 10, None), commit(10, 0)],
            false,
            "generation 10 is already another state",
        ),
        (
            "a member of no group",
            |p| {
                let change = State::default().diff(&a_state(1)).swap_remove(1);
                vec![begin(p, 11, None), Record::Change(change), put_group("g"), commit(11, 2)]
            },
            false,
            "a member for group default/route/0, which does not exist",
        ),
        (
            "a listener of no group",
            |p| {
                let mut state = State::clone(&a_state(1));
                state.groups = Map::default();
                let digest = state.digest();
                let mut records = vec![begin(p, 11, None)];
                records.extend(State::default().diff(&state).into_iter().map(Record::Change));
                records.push(Record::Commit(Commit { generation: 11, digest, changes: 1 }));
                records
            },
            false,
            "its group default/route/0 does not exist",
        ),
    ];
    let place = Place::new();
    let (mut server, state) = with_a_state(&place);
    let mut producer = RawProducer::connect(&place.socket(), &mut server);
    producer.acks(); // that of generation 10
    for (promise, records, wants_snapshot, expected) in rows {
        for record in records(&producer) {
            producer.push(&record);
        }
        assert!(!run(&mut server), "{promise}");
        assert_eq!((server.state(), server.generation()), (&state, 10), "{promise}");
        let Some(Record::Ack(ack)) = producer.acks().pop() else { panic!("{promise}: no answer") };
        assert_eq!((ack.generation, ack.digest), (10, held), "{promise}");
        assert_eq!(ack.wants_snapshot, *wants_snapshot, "{promise}");
        let (_, reason) = ack.refused.expect(promise);
        assert!(reason.contains(expected), "{promise}: {reason}");
    }
    producer.push(&begin(&producer, 11, Some((10, held))));
    producer.push(&Record::Commit(Commit { generation: 11, digest: held, changes: 0 }));
    assert!(run(&mut server), "and the connection still works");
}

#[test]
fn more_objects_than_a_box_takes_are_refused_at_the_first_too_many() {
    let place = Place::new();
    let mut server = place.server();
    let mut producer = RawProducer::connect(&place.socket(), &mut server);
    producer.push(&begin(&producer, 1, None));
    for n in 0..=limits::GROUPS {
        producer.push(&put_group(&n.to_string()));
        if n % 256 == 0 {
            run(&mut server);
        }
    }
    assert!(!run(&mut server));
    let Some(Record::Ack(ack)) = producer.acks().pop() else { panic!("no answer") };
    let expected = "more than 16384 groups: split the configuration over more boxes";
    assert_eq!(ack.refused, Some((1, expected.to_owned())));
}

#[test]
fn a_doorbell_turned_into_a_trap_does_not_hold_the_data_plane() {
    let place = Place::new();
    let (mut server, state) = with_a_state(&place);
    let mut producer = RawProducer::connect(&place.socket(), &mut server);
    // What the producer may do to the file that both have open: full, and blocking.
    rustix::io::write(&producer.doorbell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let flags = fcntl_getfl(&producer.doorbell).unwrap();
    fcntl_setfl(&producer.doorbell, flags - OFlags::NONBLOCK).unwrap();
    let base = Some((10, state.digest()));
    producer.push(&begin(&producer, 11, base));
    producer.push(&Record::Commit(Commit { generation: 11, digest: state.digest(), changes: 0 }));
    assert!(run(&mut server));
    server.acknowledge(11, &[]);
    let mut byte = [0; 8];
    rustix::io::read(&producer.doorbell, &mut byte).unwrap(); // emptied, so that a read would wait
    assert!(!run(&mut server));
    assert!(matches!(producer.acks().pop(), Some(Record::Ack(ack)) if ack.generation == 11));
}

#[test]
fn a_producer_that_never_reads_its_answers_is_served_in_bounded_memory() {
    let place = Place::new();
    let (mut server, state) = with_a_state(&place);
    let mut producer = RawProducer::connect(&place.socket(), &mut server);
    for generation in 11..5000 {
        let base = Some((generation - 1, state.digest()));
        producer.push(&begin(&producer, generation, base));
        let digest = state.digest();
        producer.push(&Record::Commit(Commit { generation, digest, changes: 0 }));
        assert!(run(&mut server));
        server.acknowledge(generation, &[]);
    }
    let in_the_ring = producer.acks().len(); // then there is room again
    assert!(in_the_ring < 2000, "{in_the_ring} of 64 KiB");
    server.acknowledge(4999, &[]);
    assert!(matches!(producer.acks().pop(), Some(Record::Ack(ack)) if ack.generation == 4999));
}

#[test]
fn a_mapping_that_outlived_its_connection_reaches_nobody() {
    let place = Place::new();
    let (mut server, state) = with_a_state(&place);
    let mut older = RawProducer::connect(&place.socket(), &mut server);
    let newer = RawProducer::connect(&place.socket(), &mut server);
    older.push(&begin(&older, 11, None));
    older.push(&commit(11, 0));
    let _ = rustix::io::write(&older.doorbell, &1_u64.to_ne_bytes());
    assert!(!run(&mut server));
    assert_eq!((server.state(), server.epoch()), (&state, newer.epoch));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Random words all over the shared memory, and random records, in any order.
    #[test]
    fn no_bytes_in_the_ring_move_the_state(
        words in prop::collection::vec((0..96_usize, prop_oneof![any::<u64>(), 0..128_u64, hostile_header()]), 0..40),
        tail in prop_oneof![0..96_u64, any::<u64>()],
    ) {
        let place = Place::new();
        let (mut server, state) = with_a_state(&place);
        let mut producer = RawProducer::connect(&place.socket(), &mut server);
        producer.push(&begin(&producer, 11, None));
        for (word, value) in words {
            if word != 0 {
                producer.spoil(word, value);
            }
        }
        producer.spoil(0, tail);
        prop_assert!(!run(&mut server));
        prop_assert_eq!(server.state(), &state);
        let mut honest = RawProducer::connect(&place.socket(), &mut server);
        honest.push(&begin(&honest, 11, Some((10, state.digest()))));
        honest.push(&Record::Commit(Commit { generation: 11, digest: state.digest(), changes: 0 }));
        prop_assert!(run(&mut server));
    }
}

fn hostile_header() -> impl Strategy<Value = u64> {
    (0..70_u8, 0..100_u8)
        .prop_map(|(kind, length)| u64::from_ne_bytes([FEED_VERSION, kind, 0, 0, length, 0, 0, 0]))
}

#[test]
fn the_longest_record_there_is_fits_a_record() {
    let long = "n".repeat(600);
    let state = a_state(0);
    let (_, listener) = state.listeners.first().unwrap();
    let mut listener = listener.clone();
    (listener.group, listener.snat_pool) = (name(&long), Some(name(&long)));
    let change = Change::PutListener { name: name(&long), listener };
    let mut bytes = Vec::new();
    encode(&Record::Change(change), &mut bytes);
    assert!(bytes.len() <= penstock_feed::MAX_RECORD_BYTES);
}
