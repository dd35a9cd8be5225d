//! What the fuzz targets start from, kept in `fuzz/corpus`: records of every kind, as a ring and as
//! a file. `PENSTOCK_WRITE_SEEDS=1 cargo test -p penstock-feed seeds` writes them anew after a
//! change of the encoding.

use std::path::Path;
use std::sync::Arc;

use penstock_feed::model::{ClientMode, Clients, Hostname, Pem, PemId, Speaks, Tls};
use penstock_feed::state_file::encode_file;
use penstock_feed::{
    AckRecord, Begin, Commit, Digest, L7Listener, MssClamp, NextHop, ObjectError, ObjectId,
    ObjectKind, OnExhaustion, OnRemoval, OnUnknown, Policies, Prefix, Record, Silence, SnatPool,
    SourceRanges, State, Timeouts, encode,
};

use crate::support::{a_state, name};

fn a_rich_state() -> Arc<State> {
    let mut state = State::clone(&a_state(2));
    let addresses = [[10, 0, 2, 10].into(), "2001:db8::1".parse().unwrap()].into();
    state.snat_pools.insert_mut(name("pool"), SnatPool { addresses });
    state.vips.insert_mut([192, 0, 2, 11].into(), ());
    state.next_hops.insert_mut([10, 0, 0, 1].into(), NextHop { via: [10, 0, 2, 1].into() });
    let listener = state.listeners.get_mut("default/web/http").unwrap();
    listener.snat_pool = Some(name("pool"));
    listener.policies = Policies {
        on_removal: OnRemoval::Expire { grace_ms: 30_000 },
        on_exhaustion: OnExhaustion::Icmp,
        on_unknown: OnUnknown::Reset,
        mss_clamp: MssClamp::Most { bytes: 1400 },
        timeouts: Timeouts::default().with(Silence::TcpEstablished, 3_600_000).unwrap(),
    };
    let prefixes = [([10, 0, 0, 0], 8), ([192, 0, 2, 0], 25)];
    let prefixes = prefixes.map(|(at, length)| Prefix::new(at.into(), length).unwrap());
    listener.source_ranges = SourceRanges::new(prefixes).ok();
    Arc::new(state)
}

fn a_state_of_the_l7_tier() -> Arc<State> {
    let mut state = State::default();
    let [certificate, authorities] = [1, 2].map(PemId::from_bits);
    state.l7.pems.insert_mut(certificate, Arc::new(Pem::new(&[b'c'; 1600]).unwrap()));
    state.l7.pems.insert_mut(authorities, Arc::new(Pem::new(b"a").unwrap()));
    let clients = Some(Clients { authorities, mode: ClientMode::InsecureFallback });
    let listener = L7Listener {
        address: "[2001:db8::1]:443".parse().unwrap(),
        hostname: Some(Hostname::new("*.example.com").unwrap()),
        speaks: Speaks::Https(Tls { certificates: vec![certificate], clients }),
    };
    state.l7.listeners.insert_mut(name("default/web/https"), listener);
    Arc::new(state)
}

fn bytes(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        encode(record, &mut bytes);
    }
    bytes
}

fn transaction(generation: u64, from: Option<(u64, &State)>, to: &State) -> Vec<Record> {
    let base = from.map(|(generation, state)| (generation, state.digest()));
    let changes = from.map_or_else(State::default, |(_, state)| state.clone()).diff(to);
    let commit = Commit { generation, digest: to.digest(), changes: changes.len() as u64 };
    let mut records = vec![Record::Begin(Begin { epoch: 1, generation, base })];
    records.extend(changes.into_iter().map(Record::Change));
    records.push(Record::Commit(commit));
    records
}

fn an_ack() -> Vec<Record> {
    let object = ObjectId { kind: ObjectKind::NextHop, name: name("10.0.0.1") };
    let error = ObjectError { object, message: "no such link".into() };
    let (digest, refused) = (Digest::EMPTY, Some((2, "no".into())));
    let ack = AckRecord { generation: 1, digest, errors: 1, wants_snapshot: true, refused };
    vec![Record::AckError(error), Record::Ack(ack)]
}

/// As the target `ring` reads it: the tail in pairs of words, all of the input there from the start.
fn ring(records: &[Record]) -> Vec<u8> {
    let bytes = bytes(records);
    let tail = u8::try_from(bytes.len() / 8 / 2).unwrap();
    [&[tail, 255][..], &bytes].concat()
}

#[test]
fn seeds_of_the_fuzz_targets_are_of_this_version() {
    let (rich, plain) = (a_rich_state(), a_state(1));
    let snapshot = transaction(1, None, &rich);
    let delta = transaction(2, Some((1, &rich)), &plain);
    let emptied = transaction(3, Some((2, &plain)), &State::default());
    let both = [snapshot.clone(), delta.clone(), emptied.clone()].concat();
    let changes: Vec<_> =
        snapshot.iter().filter(|record| matches!(record, Record::Change(_))).cloned().collect();
    let l7 = a_state_of_the_l7_tier();
    let of_l7 =
        [transaction(1, None, &l7), transaction(2, Some((1, &l7)), &State::default())].concat();
    for (target, seed, expected) in [
        ("decode", "l7", bytes(&of_l7)),
        ("changes", "l7", bytes(&of_l7)),
        ("state_file", "l7_file", encode_file(7, &l7)),
        ("decode", "snapshot", bytes(&snapshot)),
        ("decode", "delta", bytes(&delta)),
        ("decode", "emptied", bytes(&emptied)),
        ("decode", "ack", bytes(&an_ack())),
        ("changes", "snapshot", bytes(&snapshot)),
        ("changes", "three_transactions", bytes(&both)),
        ("ring", "snapshot", ring(&snapshot)),
        ("ring", "three_transactions", ring(&both)),
        ("state_file", "records", bytes(&changes)),
        ("state_file", "file", encode_file(7, &rich)),
    ] {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target).join(seed);
        if std::env::var_os("PENSTOCK_WRITE_SEEDS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &expected).unwrap();
        }
        let kept = std::fs::read(&path).unwrap_or_default();
        assert!(kept == expected, "{}: not of this version", path.display());
    }
}
