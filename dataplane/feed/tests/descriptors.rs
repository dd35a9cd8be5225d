//! What a connection leaves behind: nothing. A program of its own, since it counts what the whole
//! process has open.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_feed::{Name, Producer, Server, State, StateFile};

const PATIENCE: Duration = Duration::from_secs(20);

/// The sockets, doorbells and memfds that are open, and the mappings of the feed. Files are left
/// out: the thread that saves the state has one open for as long as the disk takes.
fn open_descriptors_and_mappings() -> (usize, usize) {
    let of_a_connection = |target: &str| {
        ["socket:", "anon_inode:[eventfd]", "/memfd:"].iter().any(|kind| target.starts_with(kind))
    };
    let open = std::fs::read_dir("/proc/self/fd").unwrap().filter(|entry| {
        let target = std::fs::read_link(entry.as_ref().unwrap().path()).unwrap_or_default();
        of_a_connection(&target.to_string_lossy())
    });
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let feeds = maps.lines().filter(|line| line.contains("penstock-feed")).count();
    (open.count(), feeds)
}

#[test]
fn a_thousand_connections_leave_no_descriptor_and_no_mapping() {
    let directory = tempfile::tempdir().unwrap();
    let uid = std::fs::metadata(directory.path()).unwrap().uid();
    let path = directory.path().join("dataplane.sock");
    let store = StateFile::open(directory.path().join("state")).unwrap();
    let mut server = Server::bind(&path, &[uid], store).unwrap();
    let mut state = State::default();
    state.groups.insert_mut(Name::new("group").unwrap(), Arc::default());
    let state = Arc::new(state);
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let before = open_descriptors_and_mappings();
            let mut held = None;
            for round in 0..1000 {
                let mut producer = Producer::connect(&path, PATIENCE).unwrap();
                producer.publish(1, &state, Instant::now() + PATIENCE).unwrap();
                // Every other one is fenced by its successor, the others hang up by themselves.
                let (open, feeds) = open_descriptors_and_mappings();
                assert!(open > before.0 && feeds > before.1, "the count sees a connection");
                held = (round % 2 == 0).then_some(producer);
            }
            drop(held);
            before
        });
        while !connecting.is_finished() || server.connected_peer().is_some() {
            server.step(64);
            std::thread::yield_now();
        }
        let before = connecting.join().unwrap();
        assert_eq!(open_descriptors_and_mappings(), before);
    });
    assert_eq!((server.generation(), server.epoch()), (1, 1000));
}
