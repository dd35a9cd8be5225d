use super::*;
use crate::model::{Change, Group, Name};

fn a_state() -> Arc<State> {
    let mut state = State::default();
    let group = Group { refused_weight: 3, ..Group::default() };
    state.groups.insert_mut(Name::new("group").unwrap(), Arc::new(group));
    Arc::new(state)
}

#[test]
fn what_is_saved_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let file = StateFile::open(directory.path().join("state")).unwrap();
    assert_eq!(file.load().unwrap(), None);
    for (generation, state) in [(1, Arc::default()), (2, a_state()), (u64::MAX, a_state())] {
        file.save(generation, &state).unwrap();
        assert_eq!(file.load().unwrap(), Some((generation, state)));
    }
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing is left beside it");
}

#[test]
fn a_save_that_fails_leaves_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = StateFile::open(directory.path().join("state")).unwrap();
    file.save(1, &a_state()).unwrap();
    fs::create_dir(directory.path().join("state.new")).unwrap(); // in the way
    let error = file.save(2, &Arc::default()).unwrap_err();
    assert!(error.to_string().contains("state.new: cannot write it"), "{error}");
    assert_eq!(file.load().unwrap(), Some((1, a_state())));
}

#[test]
fn a_directory_that_does_not_exist_is_named() {
    let error = StateFile::open("/nonexistent/penstock/state").unwrap_err();
    assert!(
        error.to_string().contains("/nonexistent/penstock: cannot use its directory"),
        "{error}"
    );
}

#[test]
fn every_changed_byte_and_every_cut_is_found() {
    let good = encode_file(7, &a_state());
    assert_eq!(decode_file(&good), Ok((7, a_state())));
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        assert!(decode_file(&bytes).is_err(), "byte {at}");
        assert!(decode_file(&good[..at]).is_err(), "cut at {at}");
    }
    assert!(decode_file(&[&good[..], &[0]].concat()).is_err(), "a byte more");
}

/// Files whose checksum is right and which are wrong all the same, a row each.
#[test]
fn a_file_that_says_nonsense_is_not_half_used() {
    let records = |records: &[Record]| {
        let mut bytes = Vec::new();
        for record in records {
            encode(record, &mut bytes);
        }
        bytes
    };
    let group = Name::new("group").unwrap();
    let put = Record::Change(Change::PutGroup { name: group.clone(), refused_weight: 3 });
    let address = "10.0.0.1:80".parse().unwrap();
    let orphan = Record::Change(Change::PutMember {
        group,
        address,
        member: crate::Member { weight: 1, draining: false },
    });
    let begin = Record::Begin(crate::Begin { epoch: 1, generation: 1, base: None });
    for (promise, bytes, expected) in [
        ("a wrong digest", records(std::slice::from_ref(&put)), "its digest is"),
        (
            "a member of no group",
            records(&[orphan]),
            "at byte 64: a member for group group, which does not exist",
        ),
        ("a transaction", records(&[put, begin]), "at byte 88: a record that describes no object"),
        ("zeros", vec![0; 16], "at byte 64: a record of version 0"),
    ] {
        let error = decode_file(&seal(1, Digest::EMPTY, &bytes)).unwrap_err();
        assert!(error.starts_with(expected), "{promise}: {error}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = StateFile::open(directory.path().join("state")).unwrap();
    fs::write(file.path(), seal(1, Digest::EMPTY, &[0; 16])).unwrap();
    let error = file.load().unwrap_err().to_string();
    assert!(
        error.contains("state.damaged and not used: the control plane will send everything"),
        "{error}"
    );
    assert_eq!(file.load().unwrap(), None);
}
