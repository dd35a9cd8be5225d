//! Random transactions, producers that die after any record, and restarts of either end: the
//! applied state is always the last one that was committed, and all ends well.

use std::sync::Arc;

use penstock_feed::{Begin, Commit, Record, Server, State, Step};
use proptest::prelude::*;

use crate::support::{PATIENCE, Place, RawProducer, any_state, soon};

/// One act of a story.
#[derive(Clone, Debug)]
enum Act {
    /// Sends what leads to a state, and dies after so many records, or lives on.
    Publish { next: Arc<State>, snapshot: bool, dies_after: Option<prop::sample::Index> },
    /// Dies between transactions.
    Die,
    /// The data plane starts again, with its state file.
    Restart,
}

fn any_act() -> impl Strategy<Value = Act> {
    let dies_after = prop::option::weighted(0.4, any::<prop::sample::Index>());
    let publish = (any_state(), any::<bool>(), dies_after)
        .prop_map(|(next, snapshot, dies_after)| Act::Publish { next, snapshot, dies_after });
    prop_oneof![8 => publish, 1 => Just(Act::Die), 1 => Just(Act::Restart)]
}

/// The records of a transaction, as an honest producer sends them.
fn transaction(epoch: u64, server: &Server, next: &Arc<State>, snapshot: bool) -> Vec<Record> {
    let generation = server.generation() + 1;
    let base = (server.generation(), server.digest());
    let changes = if snapshot { State::default().diff(next) } else { server.state().diff(next) };
    let commit = Commit { generation, digest: next.digest(), changes: changes.len() as u64 };
    let begin = Begin { epoch, generation, base: (!snapshot).then_some(base) };
    let changes = changes.into_iter().map(Record::Change);
    [Record::Begin(begin)].into_iter().chain(changes).chain([Record::Commit(commit)]).collect()
}

fn run(server: &mut Server, budget: usize) {
    while server.step(budget) != Step::Idle {}
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_applied_state_is_always_the_last_committed_one(
        acts in prop::collection::vec(any_act(), 1..12),
        last in any_state(),
        budget in 1..20_usize,
    ) {
        let place = Place::new();
        let mut server = place.server();
        let mut producer: Option<RawProducer> = None;
        let mut committed = (0, Arc::<State>::default());
        for act in acts {
            match act {
                Act::Publish { next, snapshot, dies_after } => {
                    let path = place.socket();
                    let mut alive = producer.take().unwrap_or_else(|| RawProducer::connect(&path, &mut server));
                    let records = transaction(alive.epoch, &server, &next, snapshot);
                    let sent = dies_after.map_or(records.len(), |at| at.index(records.len() + 1));
                    for record in &records[..sent] {
                        alive.push(record);
                        if budget % 2 == 0 {
                            run(&mut server, budget); // keeps pace, or comes after the death
                        }
                    }
                    if sent == records.len() {
                        committed = (committed.0 + 1, next);
                    }
                    if dies_after.is_none() {
                        producer = Some(alive);
                    }
                }
                Act::Die => producer = None,
                Act::Restart => {
                    producer = None;
                    run(&mut server, budget);
                    drop(server);
                    server = place.server();
                }
            }
            run(&mut server, budget);
            prop_assert_eq!((server.generation(), server.state()), (committed.0, &committed.1));
            prop_assert_eq!(server.digest(), committed.1.digest());
        }
        drop((producer, server));
        converges(&place, committed.0 + 1, &last);
    }
}

/// An honest producer brings any data plane to where it should be, in one call.
fn converges(place: &Place, generation: u64, last: &Arc<State>) {
    let served = place.serve(&[]);
    let mut producer = place.connect();
    producer.publish(generation, last, soon()).unwrap();
    let acks = producer.wait(PATIENCE).unwrap();
    assert_eq!(
        acks.last().map(|ack| (ack.generation, ack.digest)),
        Some((generation, last.digest()))
    );
    assert_eq!(served.server().state(), last);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What both ends do with a difference: apply it, and know its digest without the rest.
    #[test]
    fn a_difference_leads_from_any_state_to_any_other(states in prop::collection::vec(any_state(), 1..6)) {
        use penstock_feed::transaction::{Outcome, Transactions};
        let mut transactions = Transactions::new(0, Arc::default());
        for (generation, next) in (1..).zip(states) {
            let base = Some((transactions.generation(), transactions.digest()));
            let changes = transactions.state().diff(&next);
            let count = changes.len() as u64;
            let begin = Record::Begin(Begin { epoch: 1, generation, base });
            prop_assert_eq!(transactions.take(begin, 1), Ok(Outcome::Open));
            for change in changes {
                prop_assert_eq!(transactions.take(Record::Change(change), 1), Ok(Outcome::Open));
            }
            let commit = Record::Commit(Commit { generation, digest: next.digest(), changes: count });
            prop_assert_eq!(transactions.take(commit, 1), Ok(Outcome::Committed));
            prop_assert_eq!(transactions.state(), &next);
            prop_assert_eq!(transactions.digest(), next.digest());
            prop_assert!(next.check().is_empty());
        }
    }
}
