//! Any records as transactions of an honest producer: each is committed exactly if its changes can be
//! made and nothing is wrong with the whole, and digest and state are those of the whole.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use penstock_feed::transaction::{Outcome, Transactions};
use penstock_feed::model::{Pem, PemId, Tier};
use penstock_feed::{Begin, Change, Commit, Record, State, Touched, decode};

fuzz_target!(|bytes: &[u8]| {
    let mut tiers = [Tier::L4, Tier::L7].map(|tier| (tier, Transactions::new(0, Arc::default()).of_tier(tier)));
    let (mut changes, mut rest) = (Vec::new(), bytes);
    while let Ok((record, after)) = decode(rest) {
        rest = after;
        match record {
            Record::Change(change) => changes.push(change),
            _ => run_both(&mut tiers, std::mem::take(&mut changes)),
        }
    }
    run_both(&mut tiers, changes);
});

/// Each tier gets the changes that are its own.
fn run_both(tiers: &mut [(Tier, Transactions); 2], changes: Vec<Change>) {
    let (l4, l7) = changes.into_iter().partition(|change| change.tier() == Tier::L4);
    for ((_, transactions), changes) in tiers.iter_mut().zip([l4, l7]) {
        run(transactions, changes);
    }
}

fn run(transactions: &mut Transactions, changes: Vec<Change>) {
    let before = State::clone(transactions.state());
    let mut next = before.clone();
    let fits = changes.iter().all(|change| apply(&mut next, change.clone()).is_some());
    let (generation, count) = (transactions.generation() + 1, changes.len() as u64);
    let base = Some((transactions.generation(), transactions.digest()));
    let begin = Record::Begin(Begin { epoch: 1, generation, base });
    let commit = Record::Commit(Commit { generation, digest: next.digest(), changes: count });
    let records = [begin].into_iter().chain(changes.into_iter().map(Record::Change));
    let outcomes: Vec<_> =
        records.chain([commit]).map(|record| transactions.take(record, 1).unwrap()).collect();
    let good = fits && next.check().is_empty();
    assert_eq!(outcomes.last() == Some(&Outcome::Committed), good, "{outcomes:?}");
    let expected = if good { next } else { before.clone() };
    assert_eq!(**transactions.state(), expected);
    assert_eq!(transactions.digest(), expected.digest());
    let touched = transactions.take_touched();
    let differing = Touched::between(&before, &expected);
    assert!(differing.listeners.is_subset(&touched.listeners));
    assert!(differing.groups.is_subset(&touched.groups));
    assert!(differing.snat_pools.is_subset(&touched.snat_pools));
    assert!(differing.next_hops.is_subset(&touched.next_hops));
    assert!(differing.vips.is_subset(&touched.vips));
    assert!(differing.l7_listeners.is_subset(&touched.l7_listeners));
    assert!(differing.pems.is_subset(&touched.pems));
}

/// Makes a change by another way than the feed's; `None` if what it changes is not there.
fn apply(state: &mut State, change: Change) -> Option<()> {
    use Change as C;
    match change {
        C::PutListener { name, listener } => state.listeners.insert_mut(name, listener),
        C::RemoveListener { name } => _ = state.listeners.remove_mut(&name),
        C::PutGroup { name, refused_weight } => {
            let mut group = state.groups.get(&name).cloned().unwrap_or_default();
            Arc::make_mut(&mut group).refused_weight = refused_weight;
            state.groups.insert_mut(name, group);
        }
        C::RemoveGroup { name } => _ = state.groups.remove_mut(&name),
        C::PutMember { group, address, member } => {
            Arc::make_mut(state.groups.get_mut(&group)?).members.insert(address, member);
        }
        C::RemoveMember { group, address } => {
            if let Some(group) = state.groups.get_mut(&group) {
                Arc::make_mut(group).members.remove(&address);
            }
        }
        C::PutSnatPool { name } => {
            let pool = state.snat_pools.get(&name).cloned().unwrap_or_default();
            state.snat_pools.insert_mut(name, pool);
        }
        C::RemoveSnatPool { name } => _ = state.snat_pools.remove_mut(&name),
        C::PutSnatAddress { pool, address } => {
            state.snat_pools.get_mut(&pool)?.addresses.insert(address);
        }
        C::RemoveSnatAddress { pool, address } => {
            if let Some(pool) = state.snat_pools.get_mut(&pool) {
                pool.addresses.remove(&address);
            }
        }
        C::PutNextHop { address, next_hop } => state.next_hops.insert_mut(address, next_hop),
        C::RemoveNextHop { address } => _ = state.next_hops.remove_mut(&address),
        C::PutVip { address } => state.vips.insert_mut(address, ()),
        C::RemoveVip { address } => _ = state.vips.remove_mut(&address),
        C::PutL7Listener { name, listener } => state.l7.listeners.insert_mut(name, listener),
        C::RemoveL7Listener { name } => _ = state.l7.listeners.remove_mut(&name),
        C::PutPem { pem } => {
            let held = state.l7.pems.get(&pem).cloned().unwrap_or_default();
            state.l7.pems.insert_mut(pem, held);
        }
        C::PutPemPart { pem, index, part } => append(state, pem, index, part.bytes())?,
        C::RemovePem { pem } => _ = state.l7.pems.remove_mut(&pem),
    }
    Some(())
}

/// The text with the part at its end, if the part begins where it ends.
fn append(state: &mut State, pem: PemId, index: u16, part: &[u8]) -> Option<()> {
    let held = state.l7.pems.get_mut(&pem)?;
    let mut text = held.text();
    let begins = usize::from(index) * Pem::PART_BYTES;
    if begins != text.len() || begins >= Pem::MAX_PARTS * Pem::PART_BYTES {
        return None;
    }
    text.extend_from_slice(part);
    *held = Arc::new(Pem::new(&text)?);
    Some(())
}
