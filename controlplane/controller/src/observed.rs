//! What the box found out by itself: which backends are not well, and the addresses of names. It is an input of
//! `translate`, like the objects, and is kept over restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::health::Asked;
use crate::whole_file;

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Those that are not well.
    pub unhealthy: BTreeSet<Asked>,
    /// What names came to.
    pub names: BTreeMap<String, Named>,
}

/// What a name came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its addresses, by the last good answer.
    pub addresses: BTreeSet<IpAddr>,
    /// Why there was no answer since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl Observed {
    /// What was kept in `file`; nothing if there is none.
    ///
    /// # Errors
    /// The file system's, or what is wrong with the file, with its path.
    pub fn load(file: &Path) -> io::Result<Self> {
        whole_file::read(file, |text| {
            serde_json::from_slice(text).map_err(|error| error.to_string())
        })
    }

    /// Keeps it in `file`.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn save(&self, file: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        whole_file::write(file, &text)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::health::Check;

    #[test]
    fn what_was_found_out_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("observed.json");
        assert_eq!(Observed::load(&file).unwrap(), Observed::default());
        let check = serde_json::from_str(r#"{"udp": {"send": "ping"}}"#).unwrap();
        let check = Arc::new(Check::read("", &check).unwrap());
        let backend = "[2001:db8::1]:53".parse().unwrap();
        let named = Named {
            addresses: ["192.0.2.1".parse().unwrap()].into(),
            trouble: Some("no answer".into()),
        };
        let observed = Observed {
            unhealthy: [Asked { backend, check }].into(),
            names: [("db.example.com".to_owned(), named)].into(),
        };
        observed.save(&file).unwrap();
        assert_eq!(Observed::load(&file).unwrap(), observed);
        std::fs::write(&file, "{").unwrap();
        let error = Observed::load(&file).unwrap_err().to_string();
        assert!(error.contains("observed.json"), "{error}");
    }
}
