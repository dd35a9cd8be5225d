//! Where the authority is kept, and which tokens were used.
//!
//! Of a cluster, in the Secret `penstock-boxes` beside the Lease, so that whichever controller leads has it, and a
//! controller that loses its disk. Every change names the resourceVersion it was read at: of two controllers that are
//! shown one token, one is told that it was used. Of a folder, in a file of the state directory that our user alone
//! can read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use kube::api::{Api, PostParams};
use kube::{Client, Error};
use penstock_gateway_types::k8s_openapi::ByteString;
use penstock_gateway_types::{ObjectMeta, Secret};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::authority::Kept;
use super::{Token, Unusable, token};
use crate::source::cluster::words;
use crate::whole_file;

/// The Secret's name, and the file's.
pub const NAME: &str = "penstock-boxes";
/// Its type: it is not among those that are watched.
const TYPE: &str = "penstock.dev/boxes";
/// The one key in it.
const DATA: &str = "boxes.json";
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// So often somebody else may be quicker.
const MOST_TRIES: usize = 8;
/// So many tokens may be used within the life of one.
const MOST_USED: usize = 4096;

/// What is kept.
#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The authority.
    pub authority: Kept,
    /// The tokens that were used, and until when they would be good.
    #[serde(default)]
    pub used: BTreeMap<String, u64>,
    /// The version of the configuration that stays in force until it is released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<String>,
}

/// Where it is kept.
#[derive(Clone)]
pub enum Keeper {
    /// In a file.
    File(PathBuf),
    /// In a Secret.
    Secret(Box<Api<Secret>>),
}

/// What was read, and which version of it.
struct Read {
    record: Option<Record>,
    secret: Option<Secret>,
}

/// How a write ended.
enum Written {
    Done,
    /// Somebody else was quicker.
    Conflict,
}

impl Keeper {
    /// In the Secret in `namespace`.
    #[must_use]
    pub fn secret(client: Client, namespace: &str) -> Self {
        Self::Secret(Box::new(Api::namespaced(client, namespace)))
    }

    /// What is kept. An authority is made if there is none yet.
    ///
    /// # Errors
    /// In words, with the next move.
    pub async fn open(&self) -> Result<Record, Unusable> {
        self.change(|_| Ok(())).await.map(|(record, ())| record)
    }

    /// Uses a token: it was not used before, and is from now on.
    ///
    /// # Errors
    /// If it was, or if that cannot be known.
    pub async fn use_token(&self, token: &Token, now: SystemTime) -> Result<(), Unusable> {
        let now = token::seconds(now);
        let using = |record: &mut Record| {
            record.used.retain(|_, until| *until > now);
            if record.used.len() >= MOST_USED {
                return Err(Unusable("too many tokens were used: wait until they are over".into()));
            }
            match record.used.insert(token.nonce().to_owned(), token.until()) {
                None => Ok(()),
                Some(_) => Err(Unusable("the token was used already: make another".into())),
            }
        };
        self.change(using).await.map(|_| ())
    }

    /// Pins a version, or releases it.
    ///
    /// # Errors
    /// In words, with the next move.
    pub async fn pin(&self, version: Option<String>) -> Result<(), Unusable> {
        let pinning = |record: &mut Record| {
            record.pinned.clone_from(&version);
            Ok(())
        };
        self.change(pinning).await.map(|_| ())
    }

    /// Reads, changes and writes, until nobody was quicker.
    async fn change<T>(
        &self,
        change: impl Fn(&mut Record) -> Result<T, Unusable>,
    ) -> Result<(Record, T), Unusable> {
        for _ in 0..MOST_TRIES {
            let read = self.read().await?;
            let before = read.record.clone();
            let mut record = match read.record {
                Some(record) => record,
                None => Record { authority: Kept::make(SystemTime::now())?, ..Record::default() },
            };
            let changed = change(&mut record)?;
            if before.as_ref() == Some(&record) {
                return Ok((record, changed));
            }
            if let Written::Done = self.write(&record, read.secret).await? {
                return Ok((record, changed));
            }
        }
        Err(Unusable(format!("{}: others change it all the time: try again", self.place())))
    }

    async fn read(&self) -> Result<Read, Unusable> {
        match self {
            Self::File(path) => {
                let decode = |bytes: &[u8]| {
                    serde_json::from_slice(bytes).map(Some).map_err(|error| error.to_string())
                };
                let record = whole_file::read(path, decode);
                let record = record.map_err(|error| Unusable(error.to_string()))?;
                Ok(Read { record, secret: None })
            }
            Self::Secret(api) => {
                let secret = self.ask(api.get_opt(NAME)).await?;
                let Some(secret) = secret else { return Ok(Read { record: None, secret: None }) };
                let data = secret.data.as_ref().and_then(|data| data.get(DATA));
                let data = data.map(|bytes| bytes.0.as_slice()).unwrap_or_default();
                let record = serde_json::from_slice(data).map_err(|error| {
                    Unusable(format!(
                        "{}: {error}: delete it to begin anew, and let every box join again",
                        self.place()
                    ))
                })?;
                Ok(Read { record: Some(record), secret: Some(secret) })
            }
        }
    }

    async fn write(&self, record: &Record, before: Option<Secret>) -> Result<Written, Unusable> {
        let bytes = serde_json::to_vec(record).map_err(|error| Unusable(error.to_string()))?;
        match self {
            Self::File(path) => {
                whole_file::write_durably(path, &bytes)
                    .map_err(|error| Unusable(error.to_string()))?;
                Ok(Written::Done)
            }
            Self::Secret(api) => {
                let is_new = before.is_none();
                let metadata = ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() };
                let type_ = Some(TYPE.to_owned());
                let new = || Secret { metadata, type_, ..Secret::default() };
                let mut secret = before.unwrap_or_else(new);
                secret.data = Some([(DATA.to_owned(), ByteString(bytes))].into());
                let params = PostParams::default();
                let written = match is_new {
                    true => timeout(PATIENCE, api.create(&params, &secret)).await,
                    false => timeout(PATIENCE, api.replace(NAME, &params, &secret)).await,
                };
                match written {
                    Ok(Ok(_)) => Ok(Written::Done),
                    Ok(Err(Error::Api(status))) if status.code == 409 => Ok(Written::Conflict),
                    Ok(Err(error)) => Err(self.trouble(&error)),
                    Err(_) => Err(self.silent()),
                }
            }
        }
    }

    async fn ask<T>(&self, asking: impl Future<Output = Result<T, Error>>) -> Result<T, Unusable> {
        match timeout(PATIENCE, asking).await {
            Ok(answer) => answer.map_err(|error| self.trouble(&error)),
            Err(_) => Err(self.silent()),
        }
    }

    fn trouble(&self, error: &Error) -> Unusable {
        Unusable(format!("{}: {}", self.place(), words(error)))
    }

    fn silent(&self) -> Unusable {
        Unusable(format!("{}: no answer within {PATIENCE:?}", self.place()))
    }

    fn place(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Secret(_) => format!("Secret {NAME}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::Authority;
    use super::*;

    #[tokio::test]
    async fn an_authority_is_made_once_and_a_token_used_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let keeper = Keeper::File(path.clone());
        let made = keeper.open().await.unwrap();
        assert!(keeper.open().await.unwrap() == made, "and not again");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let now = SystemTime::now();
        let authority = Authority::open(&made.authority).unwrap();
        let hour = Duration::from_secs(3600);
        let token = Token::make(&authority, "a", &["h:1".into()], now, hour).unwrap();
        assert_eq!(keeper.use_token(&token, now).await, Ok(()));
        let again = keeper.use_token(&token, now).await.unwrap_err();
        assert!(again.0.contains("used already"), "{again}");
        let other = Token::make(&authority, "a", &["h:1".into()], now, hour).unwrap();
        assert_eq!(keeper.use_token(&other, now + hour).await, Ok(()));
        assert_eq!(keeper.open().await.unwrap().used.len(), 1, "what is over is forgotten");

        keeper.pin(Some("v7".into())).await.unwrap();
        assert_eq!(keeper.open().await.unwrap().pinned.as_deref(), Some("v7"));
        keeper.pin(None).await.unwrap();
        assert_eq!(keeper.open().await.unwrap().pinned, None);
        std::fs::write(&path, "{").unwrap();
        let error = keeper.open().await.err().unwrap();
        assert!(error.0.contains(NAME) && error.0.contains("remove it"), "{error}");
    }
}
