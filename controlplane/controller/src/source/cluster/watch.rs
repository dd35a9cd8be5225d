//! One kind of objects, listed and watched for as long as we run.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::Api;
use kube::runtime::watcher::{self, Config, Error, Event, watcher};
use kube::{Client, Error as ClientError};
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::Happening;
use super::connect::{WATCH_SECONDS, chain};
use super::raw::{Raw, resource};
use crate::backoff::{Backoff, jitter};
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

/// Why a stream was given up.
enum Ended {
    /// The API server does not know the kind.
    Absent,
    /// The API server does not stream lists.
    NoStreaming,
    /// The watch is too old. An event that says so makes kube's watcher list anew; an answer does not.
    Expired,
    /// Nobody listens any more.
    Closed,
}

/// Tells `out` of every object of `kind`, until nobody listens.
pub(super) async fn watch(client: Client, kind: Kind, out: Sender<Happening>) {
    let api: Api<Raw> = Api::all_with(client, &resource(kind));
    let mut streaming = true;
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let stream = watcher(api.clone(), config(kind, streaming));
        match follow(kind, stream, streaming, &out, &mut backoff).await {
            Ended::Absent => {
                if out.send(Happening::Absent(kind)).await.is_err() {
                    return;
                }
                sleep(jitter(LOOK_FOR_KIND)).await;
            }
            Ended::NoStreaming => {
                info!(%kind, "the API server streams no lists: it is asked for pages");
                streaming = false;
            }
            Ended::Expired => sleep(backoff.pause()).await,
            Ended::Closed => return,
        }
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

async fn follow(
    kind: Kind,
    stream: impl futures_util::Stream<Item = watcher::Result<Event<Raw>>>,
    streaming: bool,
    out: &Sender<Happening>,
    backoff: &mut Backoff,
) -> Ended {
    let mut stream = pin!(stream);
    let mut listing = false;
    loop {
        let silence = if streaming && listing { STREAM_SILENT } else { Duration::MAX };
        let Ok(event) = timeout(silence, stream.next()).await else { return Ended::NoStreaming };
        let happening = match event {
            None => return Ended::Absent, // kube's streams have no end; if one had, ask again
            Some(Ok(event)) => {
                if listing && matches!(event, Event::Init) {
                    sleep(backoff.pause()).await; // a list that broke off without a word
                }
                listing = matches!(event, Event::Init | Event::InitApply(_));
                Some(told(kind, event, backoff))
            }
            Some(Err(error)) => {
                listing = false;
                if let Some(ended) = gives_up(&error, streaming) {
                    return ended;
                }
                failed(kind, &error, backoff, out).await
            }
        };
        if let Some(happening) = happening
            && out.send(happening).await.is_err()
        {
            return Ended::Closed;
        }
    }
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
        // "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
        400 | 422 if streaming => Some(Ended::NoStreaming),
        _ => None,
    }
}

/// Tells of a failure, then waits. A watch that is merely too old is no trouble: what follows is a list.
async fn failed(
    kind: Kind,
    error: &Error,
    backoff: &mut Backoff,
    out: &Sender<Happening>,
) -> Option<Happening> {
    let pause = backoff.pause();
    if is_expired(error) {
        debug!(%kind, "the watch is too old: everything is listed anew");
    } else {
        let lasts = pause + FAILURE_LASTS;
        let trouble = Happening::Trouble { kind, reason: told_by(error), lasts };
        if out.send(trouble).await.is_err() {
            return None; // the next send ends the task
        }
    }
    sleep(pause).await;
    None
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

/// What the API server, or the way to it, said.
pub(crate) fn words(error: &ClientError) -> String {
    match error {
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
