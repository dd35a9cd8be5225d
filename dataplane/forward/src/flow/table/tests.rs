//! The table against a map that cannot be wrong.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;

use super::super::hash::FlowHash;
use super::super::key::FlowKey;
use super::super::memory::{CacheLine, FlowCapacity, FlowMemory, NewFlow};
use super::super::state::{Direction, FlowState};
use super::{Entry, FlowTable, Full};
use crate::{BackendId, Counters, ListenerSlot, Mode, Protocol, Tick};

const NO_COUNTERS: Counters = Counters { drops: &[], listeners: &[], backends: &[], worker: &[] };

fn table(capacity: impl Into<FlowCapacity>, hash: FlowHash) -> FlowTable<'static> {
    let capacity = capacity.into();
    let lines = vec![CacheLine::ZERO; FlowMemory::lines_for(capacity)].leak();
    FlowTable::new(FlowMemory::new(lines, capacity).unwrap(), hash, NO_COUNTERS)
}

/// The two keys of connection `n`, of either family; never those of another.
fn keys(n: u16, wide: bool) -> [FlowKey; 2] {
    let end = |host: u8, port: u16| {
        if wide {
            SocketAddr::new(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()).into(), port)
        } else {
            SocketAddr::new(Ipv4Addr::new(10, 0, 0, host).into(), port)
        }
    };
    let forward = FlowKey::new(end(1, n), end(2, 80), Protocol::Tcp).unwrap();
    let reply = FlowKey::new(end(3, 8080), end(4, n), Protocol::Tcp).unwrap();
    [forward, reply]
}

fn flow(table: &FlowTable, n: u16, wide: bool, state: FlowState) -> NewFlow {
    let keys = keys(n, wide);
    NewFlow {
        mode: Mode::FullNat,
        keys,
        hashes: keys.map(|key| table.hash.tuple(&key)),
        state,
        listener: ListenerSlot(0),
        backend: BackendId(n.into()),
        snapshot_version: 1,
    }
}

fn find(table: &FlowTable, key: &FlowKey) -> Entry {
    let hash = table.hash.tuple(key);
    let entry = table.find(key, hash);
    assert_eq!(
        table.confirm(table.candidate(hash), key, hash),
        entry,
        "both ways of looking agree"
    );
    entry
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u16, bool, bool),
    Remove(u16, bool),
    Unlink(u16, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..200_u16, any::<bool>(), any::<bool>()).prop_map(|(n, wide, open)| Step::Insert(n, wide, open)),
        2 => (0..200_u16, any::<bool>()).prop_map(|(n, wide)| Step::Remove(n, wide)),
        1 => (0..200_u16, any::<bool>()).prop_map(|(n, wide)| Step::Unlink(n, wide)),
    ];
    prop::collection::vec(step, 1..400)
}

/// Of three, whose shares the model's flows take up.
fn listener(n: u16) -> ListenerSlot {
    ListenerSlot(u32::from(n % 3))
}

/// Everything the model holds is counted with its listener.
fn shares_agree(table: &FlowTable, model: &HashMap<(u16, bool), bool>) {
    for slot in (0..3).map(ListenerSlot) {
        let of_slot = model.iter().filter(|((n, _), _)| listener(*n) == slot);
        let half_open = of_slot.clone().filter(|(_, half_open)| **half_open).count();
        let counted = (of_slot.count() as u32, [half_open as u32, 0]);
        assert_eq!(table.shares.of(slot), counted, "{slot:?}");
    }
}

/// Everything the model holds is found, both ways; nothing else is.
fn agree(table: &FlowTable, model: &HashMap<(u16, bool), bool>) {
    for n in 0..200 {
        for wide in [false, true] {
            let [forward, reply] = keys(n, wide).map(|key| find(table, &key));
            assert_eq!(forward.is_some(), model.contains_key(&(n, wide)), "connection {n}");
            assert_eq!(forward.is_some(), reply.is_some());
            if forward.is_some() {
                assert_eq!(
                    (forward.direction(), reply.direction()),
                    (Direction::Forward, Direction::Reply)
                );
                assert_eq!(forward.record(), reply.record());
                assert_eq!(table.record(forward).backend, u32::from(n));
            }
        }
    }
}

fn churn(table: &mut FlowTable, steps: Vec<Step>) {
    let mut model: HashMap<(u16, bool), bool> = HashMap::new(); // to whether it is half-open
    let mut unlinked = Vec::new();
    for (now, step) in (0..).map(Tick).zip(steps) {
        match step {
            Step::Insert(n, wide, half_open) if !model.contains_key(&(n, wide)) => {
                let state = if half_open { FlowState::SynSent } else { FlowState::Established };
                let before = table.live();
                let flow = flow(table, n, wide, state);
                match table.insert(&NewFlow { listener: listener(n), ..flow }, 3, now) {
                    Ok(_) => {
                        model.insert((n, wide), half_open);
                    }
                    Err(_) => assert!(before > 0 || wide, "an empty table takes an IPv4 flow"),
                }
                // Whoever gave way was half-open.
                model.retain(|(n, wide), half_open| {
                    let lives = find(table, &keys(*n, *wide)[0]).is_some();
                    assert!(lives || *half_open, "an established flow never gives way");
                    lives
                });
            }
            Step::Remove(n, wide) if model.remove(&(n, wide)).is_some() => {
                table.remove(find(table, &keys(n, wide)[0]).record());
            }
            Step::Unlink(n, wide) if model.remove(&(n, wide)).is_some() => {
                let record = find(table, &keys(n, wide)[0]).record();
                table.unlink(record);
                unlinked.push(record);
            }
            _ => {}
        }
        assert_eq!(table.live(), model.len() + unlinked.len());
        shares_agree(table, &model);
    }
    agree(table, &model);
    for record in unlinked {
        table.remove(record);
    }
    for (n, wide) in model.keys() {
        table.remove(find(table, &keys(*n, *wide)[0]).record());
    }
    assert_eq!(table.live(), 0);
    let empty = |bucket: &super::Bucket| bucket.tags == [0; 8] && bucket.overflow == 0;
    assert!(table.memory.buckets.iter().all(empty), "nothing is left behind");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_table_agrees_with_a_map_under_churn(
        steps in steps(), flows in 1..200_usize, ipv6 in 0..200_usize, aes in any::<bool>()
    ) {
        let hash = if aes { FlowHash::new(&[5; 32]) } else { FlowHash::portable(&[5; 32]) };
        churn(&mut table(FlowCapacity { ipv6, ..flows.into() }, hash), steps);
    }
}

#[test]
fn a_table_takes_all_the_flows_it_has_records_for() {
    for hash in [FlowHash::new(&[9; 32]), FlowHash::portable(&[9; 32])] {
        let mut table = table(1 << 14, hash);
        for n in 0..1 << 14 {
            let flow = flow(&table, n, false, FlowState::Established);
            assert!(table.insert(&flow, 1, Tick(0)).is_ok(), "flow {n}");
        }
        let one_more = flow(&table, 60_000, false, FlowState::Established);
        assert_eq!(table.insert(&one_more, 1, Tick(9)), Err(Full::Table));
        let crowded = table.memory.buckets.iter().filter(|bucket| bucket.overflow > 0).count();
        assert!(crowded > 0, "some keys lived in their alternate bucket");
    }
}

#[test]
fn ipv6_flows_take_the_records_they_may_have_and_ipv4_flows_the_others_first() {
    let mut table = table(FlowCapacity { ipv6: 4, ..10.into() }, FlowHash::new(&[3; 32]));
    let mut insert = |n, wide| {
        let flow = flow(&table, n, wide, FlowState::Established);
        table.insert(&flow, 1, Tick(0))
    };
    for n in 0..7 {
        assert!(insert(n, false).is_ok(), "six without a wide line, and one with");
    }
    for n in 0..3 {
        assert!(insert(n, true).is_ok());
    }
    assert_eq!(insert(3, true), Err(Full::Table));
    assert_eq!(insert(7, false), Err(Full::Table));
    let listed = super::super::expire::list(&table).count();
    assert_eq!(listed, 10, "the records of both kinds");
    let given = find(&table, &keys(6, false)[0]).record();
    table.remove(given);
    let flow = flow(&table, 3, true, FlowState::Established);
    let taken = table.insert(&flow, 1, Tick(0)).unwrap();
    assert_eq!(taken.record(), given, "the one record that suits");
}
