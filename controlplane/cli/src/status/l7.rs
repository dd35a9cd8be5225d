//! The L7 tier, by `l7.json`. A box may do without: then there is nothing to say of it.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use serde::Deserialize;

use super::control::Told;
use super::report::{L7Says, L7Tier};

/// The process, as `l7.json` has it.
#[derive(Deserialize)]
struct File {
    #[serde(flatten)]
    told: Told,
    #[serde(flatten)]
    says: L7Says,
}

/// Reads `path` and sees whether the process it names runs; `None` if there is no such file, or it cannot be
/// read.
pub(super) fn look(path: &Path, now: SystemTime) -> Option<L7Tier> {
    let file: File = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some(L7Tier { process: file.told.process("penstock-l7", path, now), says: file.says })
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    #[test]
    fn an_l7_tier_is_told_of_where_there_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("l7.json");
        assert!(look(&path, SystemTime::now()).is_none());
        let ours = std::process::id(); // which runs, and is called otherwise
        let text = format!(
            r#"{{"pid": {ours}, "generation": 7, "open_connections": 3, "errors": ["x"]}}"#
        );
        fs::write(&path, text).unwrap();
        let found = look(&path, SystemTime::now()).unwrap();
        assert_eq!((found.process.state, found.says.generation), (State::Down, 7));
        assert_eq!((found.says.open_connections, found.says.errors.len()), (3, 1));
        fs::write(&path, "{").unwrap();
        assert!(look(&path, SystemTime::now()).is_none());
    }
}
