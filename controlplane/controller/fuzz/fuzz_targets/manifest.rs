//! Any bytes as a file of the configuration folder: read, stored, translated, concluded.
//!
//! ```text
//! cd controlplane/controller
//! cargo +nightly fuzz run manifest -- -max_total_time=300 -max_len=16384
//! ```
//!
//! `corpus/manifest` holds a link to every golden input, and the small texts with which the fuzzer reached
//! what those do not. It adds what it finds: to keep a find, make it a golden promise.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use penstock_controlplane::source::folder::Texts;
use penstock_controlplane::status::{self, Progress, Stamp, Statuses};
use penstock_controlplane::store::Store;
use penstock_controlplane::translate::translate;
use penstock_gateway_types::Time;
use penstock_gateway_types::k8s_openapi::jiff::Timestamp;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let now = Time(Timestamp::UNIX_EPOCH);
    let mut store = Store::default();
    store.update(Texts::from([("a.yaml".to_owned(), Ok(text.to_owned()))]));
    let objects = store.in_force(&now).objects;

    let translation = translate(&objects);
    assert_eq!(translation.state.check(), [], "a data plane would refuse the state");
    let acknowledged = Some(Arc::clone(&translation.state));
    let progress = Progress { acknowledged, ..Progress::default() };
    let stamp = Stamp { now: &now, previous: &Statuses::new() };
    let _ = status::conclude(&objects, &translation, &progress, &stamp);

    // A half-written file keeps what was good.
    let half = text.chars().take(text.chars().count() / 2).collect();
    store.update(Texts::from([("a.yaml".to_owned(), Ok(half))]));
    let _ = translate(&store.in_force(&now).objects);
});
