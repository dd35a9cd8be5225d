//! Any bytes as a record: an error, or a record whose encoding is exactly those bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_feed::{decode, encode};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok((record, after)) = decode(rest) {
        let mut again = Vec::new();
        encode(&record, &mut again);
        assert_eq!(again, rest[..rest.len() - after.len()], "{record:?} has two encodings");
        rest = after;
    }
});
