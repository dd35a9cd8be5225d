//! Any bytes as a state file, and any records in one whose checksum and digest are right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_feed::state_file::{decode_file, encode_file, seal};
use penstock_feed::{Digest, Record, State, decode};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_file(bytes);
    let sealed = seal(1, digest_of(bytes), bytes);
    if let Ok((generation, state)) = decode_file(&sealed) {
        assert_eq!(generation, 1);
        let again = decode_file(&encode_file(1, &state));
        assert_eq!(again, Ok((1, state)));
    }
});

/// The digest of what the records would build, by another way than the file's: put what is put,
/// and ask the state for it.
fn digest_of(mut bytes: &[u8]) -> Digest {
    use penstock_feed::Change;
    let mut state = State::default();
    while let Ok((Record::Change(change), rest)) = decode(bytes) {
        match change {
            Change::PutListener { name, listener } => {
                state.listeners.insert_mut(name, listener);
            }
            Change::PutGroup { name, refused_weight } => {
                let mut group = state.groups.get(&name).cloned().unwrap_or_default();
                std::sync::Arc::make_mut(&mut group).refused_weight = refused_weight;
                state.groups.insert_mut(name, group);
            }
            Change::PutMember { group, address, member } => {
                if let Some(group) = state.groups.get_mut(&group) {
                    std::sync::Arc::make_mut(group).members.insert(address, member);
                }
            }
            Change::PutNextHop { address, next_hop } => {
                state.next_hops.insert_mut(address, next_hop);
            }
            _ => {}
        }
        bytes = rest;
    }
    state.digest()
}
