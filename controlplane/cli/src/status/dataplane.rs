//! The data plane, by its statistics segment.

use std::path::Path;
use std::time::{Duration, SystemTime};

use penstock_feed::Digest;
use penstock_feed::stats::{Life, StatsReader};

use super::report::{Counted, DataPlane, Process, Serves, State, timestamp};
use super::tables;

/// Reads the segment at `path`: the process, and what it counted.
pub(super) fn look(path: &Path, now: SystemTime) -> (DataPlane, Counted) {
    match StatsReader::open(path) {
        Ok(reader) => (process(&reader, now), tables::read(&reader)),
        Err(error) if error.is_missing() => (DataPlane::default(), Counted::default()),
        Err(error) => {
            let state = State::Unreadable;
            let process = Process { state, error: Some(error.to_string()), ..Process::default() };
            (DataPlane { process, ..DataPlane::default() }, Counted::default())
        }
    }
}

fn process(reader: &StatsReader, now: SystemTime) -> DataPlane {
    let writer = reader.process();
    let (state, runs) = match reader.life(now) {
        Life::Beating => (State::Running, true),
        Life::Silent { .. } => (State::Silent, true),
        Life::Gone { .. } => (State::Down, false),
    };
    let since = |then: SystemTime| now.duration_since(then).unwrap_or(Duration::ZERO);
    let age_ms = u64::try_from(since(reader.heartbeat()).as_millis()).unwrap_or(u64::MAX);
    DataPlane {
        process: Process {
            state,
            error: None,
            pid: Some(writer.pid),
            version: Some(writer.version.clone()),
            started: timestamp(writer.started),
            uptime_seconds: runs.then(|| since(writer.started).as_secs()),
        },
        heartbeat: timestamp(reader.heartbeat()),
        heartbeat_age_ms: Some(age_ms),
        serves: reader.generation().map(|serves| Serves {
            generation: serves.generation,
            digest: Digest::from_bits(serves.digest).to_string(),
            epoch: serves.epoch,
            ready: serves.ready,
        }),
    }
}
