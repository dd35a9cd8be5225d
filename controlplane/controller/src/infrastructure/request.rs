//! One request about a Service of ours, and what came of it.

use std::time::Duration;

use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, Error};
use serde_json::Value;
use tokio::time::timeout;

use super::service::Step;
use crate::object::{Kind, NamespacedName};
use crate::source::cluster::raw::{FIELD_MANAGER, Made, Raw, resource};
use crate::source::cluster::words;

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is said of a Service that someone else made.
const ANOTHERS: &str =
    "is someone else's, so what belongs to the Gateway cannot be found by it: rename or delete it";

/// What came of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The Service is now so.
    Written(Made),
    /// It is there already, and so.
    Found(Made),
    /// It is gone, or is another one.
    Removed,
    /// It failed, and may be tried again.
    Failed(String),
}

impl Outcome {
    /// It, as metrics have it.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Written(_) => "written",
            Self::Found(_) => "found",
            Self::Removed => "removed",
            Self::Failed(_) => "failed",
        }
    }
}

/// Does `step`.
pub(super) async fn send(client: Client, service: &NamespacedName, step: &Step) -> Outcome {
    let api: Api<Raw> = Api::namespaced_with(client, &service.namespace, &resource(Kind::Service));
    let done = async {
        match step {
            Step::Nothing => Outcome::Failed("nothing was to be done".to_owned()),
            Step::Make(body) => make(&api, &service.name, body).await,
            Step::Apply(body) => apply(&api, &service.name, body, true).await,
            Step::Remove(uid) => remove(&api, &service.name, uid).await,
        }
    };
    let failed = || Outcome::Failed(format!("no answer within {PATIENCE:?}"));
    timeout(PATIENCE, done).await.unwrap_or_else(|_| failed())
}

/// An apply makes what is not there and joins what is: so it is looked first whose it is.
async fn make(api: &Api<Raw>, name: &str, body: &Value) -> Outcome {
    match api.get_opt(name).await {
        Ok(None) => apply(api, name, body, false).await,
        Ok(Some(there)) => match there.made() {
            Some(made) => Outcome::Found(made),
            None => Outcome::Failed(ANOTHERS.to_owned()),
        },
        Err(error) => Outcome::Failed(words(&error)),
    }
}

async fn apply(api: &Api<Raw>, name: &str, body: &Value, force: bool) -> Outcome {
    let params = PatchParams { force, ..PatchParams::apply(FIELD_MANAGER) };
    match api.patch(name, &params, &Patch::Apply(body)).await {
        Ok(object) => Outcome::Written(object.made().unwrap_or_default()),
        Err(Error::Api(status)) if status.code == 409 => Outcome::Failed(ANOTHERS.to_owned()),
        Err(error) => Outcome::Failed(words(&error)),
    }
}

async fn remove(api: &Api<Raw>, name: &str, uid: &str) -> Outcome {
    let only = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
    match api.delete(name, &params).await {
        Ok(_) => Outcome::Removed,
        Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Outcome::Removed,
        Err(error) => Outcome::Failed(words(&error)),
    }
}
