//! What a box keeps to be let in: its key and certificate, the authority, and where the controllers are.
//!
//! One file, replaced whole and readable by our user alone, so that a key and another key's certificate are never
//! found together, whenever the power goes.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::identity::Card;
use super::{Unusable, token};
use crate::whole_file;

/// The file in the state directory.
const FILE: &str = "box.json";

/// What is kept.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Where controllers are, as `host:port`.
    pub controllers: Vec<String>,
    /// The authority's certificate in PEM: nobody else is believed.
    pub authority: String,
    /// The certificate in PEM.
    pub certificate: String,
    /// Its key in PEM.
    pub key: Zeroizing<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("controllers", &self.controllers)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Where they are in `state_dir`.
    #[must_use]
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join(FILE)
    }

    /// Those in `state_dir`; `None` for a box that has not joined.
    ///
    /// # Errors
    /// The file system's, or [`io::ErrorKind::InvalidData`] for a file that is not ours: both with the path.
    pub fn load(state_dir: &Path) -> io::Result<Option<Self>> {
        whole_file::read(&Self::path(state_dir), |bytes| {
            let read: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
            read.card().map_err(|fault| fault.0)?;
            token::check_addresses(&read.controllers).map_err(|fault| fault.0)?;
            Ok(Some(read))
        })
    }

    /// Keeps them in `state_dir`, for the owner of that directory: who joins may be root, and the agent is not.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn save(&self, state_dir: &Path) -> io::Result<()> {
        let path = Self::path(state_dir);
        let mut bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        let written = whole_file::write_durably(&path, &bytes);
        bytes.zeroize();
        written?;
        let (folder, file) = (std::fs::metadata(state_dir)?, std::fs::metadata(&path)?);
        if (folder.uid(), folder.gid()) != (file.uid(), file.gid()) {
            std::os::unix::fs::chown(&path, Some(folder.uid()), Some(folder.gid()))
                .map_err(|error| whole_file::named(&path, &error))?;
        }
        Ok(())
    }

    /// What the certificate says.
    ///
    /// # Errors
    /// If it is none.
    pub fn card(&self) -> Result<Card, Unusable> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        let certificate =
            certificate.map_err(|error| Unusable::because("the box's certificate", error))?;
        Card::of(&certificate)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    use super::super::authority::{Authority, Kept, new_request};
    use super::super::identity::Identity;
    use super::*;

    #[test]
    fn they_are_kept_whole_and_for_our_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Credentials::load(folder.path()).unwrap(), None);
        let now = SystemTime::now();
        let authority = Authority::open(&Kept::make(now).unwrap()).unwrap();
        let (key, request) = new_request().unwrap();
        let identity = Identity::new("edge-1", "u").unwrap();
        let credentials = Credentials {
            controllers: vec!["c:1".into()],
            authority: authority.pem().to_owned(),
            certificate: authority
                .certify(&request, &identity, now, Duration::from_secs(60))
                .unwrap(),
            key: key.serialize_pem().into(),
        };
        credentials.save(folder.path()).unwrap();
        assert_eq!(Credentials::load(folder.path()).unwrap(), Some(credentials.clone()));
        assert_eq!(credentials.card().unwrap().identity, identity);
        let path = Credentials::path(folder.path());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{credentials:?}").contains("KEY"));
        for text in ["", "{}", &std::fs::read_to_string(&path).unwrap().replace("c:1", "c")] {
            std::fs::write(&path, text).unwrap();
            let error = Credentials::load(folder.path()).unwrap_err().to_string();
            assert!(error.contains("box.json"), "{error}");
        }
    }
}
