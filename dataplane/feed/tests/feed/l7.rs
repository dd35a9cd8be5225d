//! What goes to the L7 tier: the same promises as for the data plane, and that neither gets the other's.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use penstock_feed::model::{ClientMode, Clients, Hostname, Pem, PemId, Secret, Speaks, Tls};
use penstock_feed::transaction::{Outcome, ProtocolError, Transactions};
use penstock_feed::{
    Begin, Change, Commit, Digest, L7Listener, Record, State, StateFile, Tier, Touched,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::support::{a_state, name};

fn id(n: u8) -> PemId {
    PemId::from_bits(n.into())
}

/// The text of a pem, of up to three parts; another in another state may have the same number.
fn text(n: u8, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at as u8) ^ n).collect()
}

/// A state of the L7 tier that passes `State::check`.
fn any_l7() -> impl Strategy<Value = Arc<State>> {
    let pems = btree_map(0..4_u8, (any::<u8>(), 1..3 * Pem::PART_BYTES), 1..4);
    let listener = (vec(any::<prop::sample::Index>(), 1..4), any::<[bool; 3]>());
    (pems, btree_map(0..6_u8, listener, 0..5)).prop_map(|(pems, listeners)| {
        let mut state = State::default();
        for (n, (salt, bytes)) in pems {
            state.l7.pems.insert_mut(id(n), Arc::new(Pem::new(&text(salt, bytes)).unwrap()));
        }
        let ids: Vec<_> = state.l7.pems.keys().copied().collect();
        for (n, (certificates, [https, named, clients])) in listeners {
            let tls = || Tls {
                certificates: certificates.iter().map(|index| *index.get(&ids)).collect(),
                clients: clients
                    .then(|| Clients { authorities: ids[0], mode: ClientMode::Required }),
            };
            let listener = L7Listener {
                address: SocketAddr::from(([192, 0, 2, n], 443)),
                hostname: named.then(|| Hostname::new("*.example.com").unwrap()),
                speaks: if https { Speaks::Https(tls()) } else { Speaks::Http },
            };
            state.l7.listeners.insert_mut(name(&format!("l7/{n}")), listener);
        }
        Arc::new(state)
    })
}

/// Records of one transaction that leads to `next`.
fn records(transactions: &Transactions, next: &State) -> Vec<Record> {
    let (generation, held) = (transactions.generation() + 1, transactions.generation());
    let base = (held > 0).then(|| (held, transactions.digest()));
    let changes = transactions.state().diff(next);
    let commit = Commit { generation, digest: next.digest(), changes: changes.len() as u64 };
    let begin = Record::Begin(Begin { epoch: 1, generation, base });
    let changes = changes.into_iter().map(Record::Change);
    [begin].into_iter().chain(changes).chain([Record::Commit(commit)]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn changes_lead_from_any_state_to_any_other(states in vec(any_l7(), 1..4)) {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::open(directory.path().join("state")).unwrap();
        let mut transactions = Transactions::new(0, Arc::default()).of_tier(Tier::L7);
        for next in states {
            let before = Arc::clone(transactions.state());
            transactions.take_touched();
            let records = records(&transactions, &next);
            let outcomes: Vec<_> =
                records.into_iter().map(|record| transactions.take(record, 1).unwrap()).collect();
            prop_assert_eq!(outcomes.last(), Some(&Outcome::Committed));
            prop_assert_eq!(transactions.state(), &next);
            prop_assert_eq!(transactions.digest(), next.digest());
            let differing = Touched::between(&before, &next);
            let touched = transactions.take_touched();
            prop_assert!(differing.l7_listeners.is_subset(&touched.l7_listeners));
            prop_assert!(differing.pems.is_subset(&touched.pems));
            file.save(7, &next).unwrap();
            prop_assert_eq!(file.load().unwrap(), Some((7, next)));
        }
    }
}

#[test]
fn neither_process_takes_what_is_the_other_s() {
    let l7 = Change::PutPem { pem: id(1) };
    let l4 = Change::PutGroup { name: name("g"), refused_weight: 0 };
    for (ours, theirs, change) in [(Tier::L4, Tier::L7, l7), (Tier::L7, Tier::L4, l4)] {
        let mut transactions = Transactions::new(0, Arc::default()).of_tier(ours);
        let begin = Record::Begin(Begin { epoch: 1, generation: 1, base: None });
        transactions.take(begin, 1).unwrap();
        let taken = transactions.take(Record::Change(change), 1);
        assert_eq!(taken, Err(ProtocolError::Tier { theirs, ours }));
        assert_eq!(transactions.digest(), Digest::EMPTY);
    }
}

/// What a part must be to be appended, a row each.
#[test]
fn parts_come_in_order_and_are_full_but_for_the_last() {
    let full = |pem, index| (pem, index, Pem::PART_BYTES);
    for (promise, parts, good) in [
        ("in order", vec![full(1, 0), full(1, 1), (1, 2, 5)], true),
        ("of a pem that is not there", vec![full(2, 0)], false),
        ("one left out", vec![full(1, 0), full(1, 2)], false),
        ("one twice", vec![full(1, 0), full(1, 0)], false),
        ("after the last", vec![(1, 0, 5), (1, 1, 5)], false),
    ] {
        let mut transactions = Transactions::new(0, Arc::default()).of_tier(Tier::L7);
        let put = Record::Change(Change::PutPem { pem: id(1) });
        let parts = parts.into_iter().map(|(pem, index, bytes)| {
            let part = Secret::new(&vec![b'x'; bytes]);
            Record::Change(Change::PutPemPart { pem: id(pem), index, part })
        });
        let begin = Record::Begin(Begin { epoch: 1, generation: 1, base: None });
        let outcomes: Vec<_> = [begin, put]
            .into_iter()
            .chain(parts)
            .map(|record| transactions.take(record, 1).unwrap())
            .collect();
        assert_eq!(outcomes.iter().all(|it| *it == Outcome::Open), good, "{promise}: {outcomes:?}");
    }
}

#[test]
fn only_its_owner_reads_a_state_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = StateFile::open(directory.path().join("state")).unwrap();
    file.save(1, &a_state(1)).unwrap();
    let mode = std::fs::metadata(file.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_is_shown_of_a_state_holds_no_key() {
    let mut state = State::default();
    state.l7.pems.insert_mut(id(1), Arc::new(Pem::new(b"KEY").unwrap()));
    let changes = State::default().diff(&state);
    let shown = format!("{state:?} {changes:?}");
    assert!(!shown.contains("KEY") && !shown.contains("75, 69, 89"), "{shown}");
}
