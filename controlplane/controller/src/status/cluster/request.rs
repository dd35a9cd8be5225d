//! One request of the status writer, and what came of it.

use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Error};
use tokio::time::timeout;

use super::difference::Write;
use crate::object::ObjectKey;
use crate::source::cluster::raw::{FIELD_MANAGER, Observed, Raw, resource};
use crate::source::cluster::words;

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of a write.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is written; the object is now so.
    Written(Observed),
    /// Someone else wrote first; the object is now so.
    Conflict(Observed),
    /// There is no such object any more.
    Gone,
    /// It failed, and may be tried again.
    Failed(String),
}

impl Outcome {
    /// It, as metrics have it.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Written(_) => "written",
            Self::Conflict(_) => "conflict",
            Self::Gone => "gone",
            Self::Failed(_) => "failed",
        }
    }
}

/// Sends `write`.
pub(super) async fn send(client: Client, key: &ObjectKey, write: &Write) -> Outcome {
    match timeout(PATIENCE, try_send(client, key, write)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failed(format!("no answer within {PATIENCE:?}")),
    }
}

async fn try_send(client: Client, key: &ObjectKey, write: &Write) -> Outcome {
    let resource = resource(key.kind);
    let api: Api<Raw> = match key.namespace.as_str() {
        "" => Api::all_with(client, &resource),
        namespace => Api::namespaced_with(client, namespace, &resource),
    };
    let name = key.name.as_str();
    let params =
        PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let answer = match write {
        Write::Apply(body) => {
            api.patch_status(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(body))
                .await
        }
        Write::Merge(body) => api.patch_status(name, &params, &Patch::Merge(body)).await,
        Write::Finalizers(body) => api.patch(name, &params, &Patch::Merge(body)).await,
    };
    match answer {
        Ok(object) => Outcome::Written(object.observed()),
        Err(Error::Api(status)) if status.code == 404 => Outcome::Gone,
        Err(Error::Api(status)) if status.code == 409 => read_anew(&api, name).await,
        Err(error) => Outcome::Failed(words(&error)),
    }
}

async fn read_anew(api: &Api<Raw>, name: &str) -> Outcome {
    match api.get_opt(name).await {
        Ok(Some(object)) => Outcome::Conflict(object.observed()),
        Ok(None) => Outcome::Gone,
        Err(error) => Outcome::Failed(words(&error)),
    }
}
