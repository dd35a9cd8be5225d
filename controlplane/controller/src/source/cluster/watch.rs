//! One kind of objects, listed and watched for as long as we run.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::Api;
use kube::core::Status;
use kube::runtime::watcher::{self, Config, Error, Event, watcher};
use kube::{Client, Error as ClientError, Resource};
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};

use super::Happening;
use super::connect::{WATCH_SECONDS, chain};
use super::courtesy::Courtesy;
use super::raw::{Raw, resource};
use crate::backoff::{Backoff, jitter};
use crate::finding::Severity;
use crate::metrics::Metrics;
use crate::object::Kind;

/// The pauses of a watch that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A kind that is not installed is asked for this often.
const LOOK_FOR_KIND: Duration = Duration::from_secs(5);
/// A streaming list that is silent for so long never was one: the server does not know how.
const STREAM_SILENT: Duration = Duration::from_secs(10);
/// How long after the last failure a watch counts as well again, beside the pause: a connection that hangs takes
/// its time to fail.
const FAILURE_LASTS: Duration = Duration::from_secs(10);

/// Everything is listed anew this often, whatever the watches say: what was lost on the way is found, by whoever's
/// fault.
const LIST_ANEW: Duration = Duration::from_secs(30 * 60);

/// Why a stream was given up.
#[derive(Debug)]
enum Ended {
    /// The API server does not know the kind.
    Absent,
    /// The API server does not stream lists.
    NoStreaming,
    /// The watch is too old, or of another time than the API server's. An event that says so makes kube's watcher list
    /// anew; an answer does not.
    Expired,
    /// It is time for a list.
    Due,
    /// Nobody listens any more.
    Closed,
}

/// One kind's watch.
pub(super) struct Watch {
    client: Client,
    kind: Kind,
    courtesy: Arc<Courtesy>,
    metrics: Arc<Metrics>,
    streaming: bool,
    backoff: Backoff,
    /// The version of the last event; versions of one watch only rise.
    version: u64,
}

impl Watch {
    pub(super) fn new(
        client: &Client,
        kind: Kind,
        courtesy: Arc<Courtesy>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let client = courtesy.client(client);
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        Self { client, kind, courtesy, metrics, streaming: true, backoff, version: 0 }
    }

    /// Tells `out` of every object of the kind, until nobody listens.
    pub(super) async fn run(mut self, out: Sender<Happening>) {
        let (kind, api) =
            (self.kind, Api::<Raw>::all_with(self.client.clone(), &resource(self.kind)));
        loop {
            let stream = watcher(api.clone(), config(kind, self.streaming));
            match self.follow(stream, &out).await {
                Ended::Absent => {
                    if out.send(Happening::Absent(kind)).await.is_err() {
                        return;
                    }
                    sleep(jitter(LOOK_FOR_KIND)).await;
                }
                Ended::NoStreaming => {
                    info!(%kind, "the API server streams no lists: it is asked for pages");
                    self.streaming = false;
                }
                Ended::Expired => sleep(self.backoff.pause()).await,
                Ended::Due => debug!(%kind, "everything is listed anew"),
                Ended::Closed => return,
            }
        }
    }

    async fn follow(
        &mut self,
        stream: impl futures_util::Stream<Item = watcher::Result<Event<Raw>>>,
        out: &Sender<Happening>,
    ) -> Ended {
        let mut stream = pin!(stream);
        let due = Instant::now() + jitter(LIST_ANEW);
        let mut listing = false;
        self.version = 0;
        loop {
            let now = Instant::now();
            let (silence, silent) = match self.streaming && listing {
                true => (now + STREAM_SILENT, Ended::NoStreaming),
                false => (if listing { now + LIST_ANEW } else { due }, Ended::Due),
            };
            let Ok(event) = timeout_at(silence, stream.next()).await else { return silent };
            let happening = match event {
                None => return Ended::Absent, // kube's streams have no end; if one had, ask again
                Some(Ok(event)) => {
                    if listing && matches!(event, Event::Init) {
                        sleep(self.backoff.pause()).await; // a list that broke off without a word
                    }
                    listing = matches!(event, Event::Init | Event::InitApply(_));
                    let went_back = self.goes_back(&event);
                    let happening = told(self.kind, event, &mut self.backoff);
                    if went_back {
                        // It is taken as it is, and what else there is is asked for.
                        let _ = out.send(happening).await;
                        return Ended::Expired;
                    }
                    Some(happening)
                }
                Some(Err(error)) => {
                    listing = false;
                    self.metrics.watch_failed(self.kind.as_str());
                    if let Some(ended) = gives_up(&error, self.streaming) {
                        return ended;
                    }
                    self.failed(&error, out).await
                }
            };
            if let Some(happening) = happening
                && out.send(happening).await.is_err()
            {
                return Ended::Closed;
            }
        }
    }

    /// Whether an event is of an older version than the one before: then the API server is of another time, restored
    /// from a copy perhaps, and events may have been lost.
    fn goes_back(&mut self, event: &Event<Raw>) -> bool {
        let (Event::Apply(object) | Event::Delete(object)) = event else { return false };
        let version = object.meta().resource_version.as_deref();
        let Some(version) = version.and_then(|version| version.parse::<u64>().ok()) else {
            return false; // a server may name its versions as it likes
        };
        let went_back = version < self.version;
        if went_back {
            let (kind, before) = (self.kind, self.version);
            warn!(%kind, version, before, "the API server's resourceVersion goes back: everything is listed anew");
        }
        self.version = version;
        went_back
    }

    /// Tells of a failure, then waits. A watch that is merely too old is no trouble: what follows is a list.
    async fn failed(&mut self, error: &Error, out: &Sender<Happening>) -> Option<Happening> {
        let (kind, pause) = (self.kind, self.backoff.pause());
        if is_expired(error) {
            debug!(%kind, "the watch is too old: everything is listed anew");
        } else {
            let lasts = pause.max(self.courtesy.held_for()) + FAILURE_LASTS;
            let severity = if is_a_pause(error) { Severity::Warning } else { Severity::Error };
            let reason = told_by(error);
            if out.send(Happening::Trouble { kind, severity, reason, lasts }).await.is_err() {
                return None; // the next send ends the task
            }
        }
        sleep(pause).await;
        None
    }
}

fn config(kind: Kind, streaming: bool) -> Config {
    let config = Config::default().timeout(WATCH_SECONDS);
    let config = if streaming { config.streaming_lists() } else { config.page_size(500) };
    match selector(kind) {
        Some(fields) => config.fields(fields),
        None => config,
    }
}

/// Which objects of a kind, if not all: of Secrets only those that hold certificates.
fn selector(kind: Kind) -> Option<&'static str> {
    (kind == Kind::Secret).then_some("type=kubernetes.io/tls")
}

fn told(kind: Kind, event: Event<Raw>, backoff: &mut Backoff) -> Happening {
    if !matches!(event, Event::Init) {
        backoff.reset();
    }
    match event {
        Event::Init => Happening::Listing(kind),
        Event::InitApply(object) => Happening::Seen(Box::new(object.seen(kind, true))),
        Event::InitDone => Happening::Listed(kind),
        Event::Apply(object) => Happening::Seen(Box::new(object.seen(kind, false))),
        Event::Delete(object) => Happening::Gone(object.key(kind)),
    }
}

/// Whether another stream, or none for a while, is the answer to `error`.
fn gives_up(error: &Error, streaming: bool) -> Option<Ended> {
    let (Error::InitialListFailed(ClientError::Api(status))
    | Error::WatchStartFailed(ClientError::Api(status))) = error
    else {
        return None;
    };
    match status.code {
        404 => Some(Ended::Absent),
        410 => Some(Ended::Expired),
        // "Too large resource version": it is of a time before that of the watch.
        504 if status.message.contains("resource version") => Some(Ended::Expired),
        // "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
        400 | 422 if streaming => Some(Ended::NoStreaming),
        _ => None,
    }
}

/// Whether the API server only wants to be asked later.
fn is_a_pause(error: &Error) -> bool {
    let (Error::InitialListFailed(ClientError::Api(status))
    | Error::WatchStartFailed(ClientError::Api(status))) = error
    else {
        return false;
    };
    status.code == 429
}

fn is_expired(error: &Error) -> bool {
    matches!(error, Error::WatchError(status) if status.code == 410)
}

pub(super) fn told_by(error: &Error) -> String {
    match error {
        Error::InitialListFailed(error)
        | Error::WatchStartFailed(error)
        | Error::WatchFailed(error) => words(error),
        Error::WatchError(status) => format!("{} {}", status.code, status.message),
        Error::NoResourceVersion => "an object without resourceVersion".to_owned(),
    }
}

/// Whether it is no want of rights that forbids to make something.
fn is_of_a_namespace_that_goes(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// What the API server, or the way to it, said.
pub(crate) fn words(error: &ClientError) -> String {
    match error {
        ClientError::Api(status) if is_of_a_namespace_that_goes(status) => {
            format!("403 {}: nothing is made there any more", status.message)
        }
        ClientError::Api(status) if status.code == 403 => format!(
            "403 {}: give our user the rights of deploy/kubernetes/rbac.yaml",
            status.message
        ),
        ClientError::Api(status) if status.code == 401 => {
            format!("401 {}: renew the credentials", status.message)
        }
        ClientError::Api(status) => format!("{} {}", status.code, status.message),
        other => chain(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_about_a_refusal_is_said() {
        let goes = r#"{"code": 403, "message": "no", "reason": "Forbidden",
            "details": {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}}"#;
        for (status, says) in [
            (r#"{"code": 403, "message": "no"}"#, "403 no: give our user the rights"),
            (goes, "403 no: nothing is made there any more"),
            (r#"{"code": 401, "message": "no"}"#, "401 no: renew the credentials"),
            (r#"{"code": 500, "message": "no"}"#, "500 no"),
        ] {
            let status: Status = serde_json::from_str(status).unwrap();
            let said = words(&ClientError::Api(status.boxed()));
            assert!(said.starts_with(says), "{said}");
        }
    }
}
