//! What a server may expect of who asks it for ever: a pause where it asks for one, and no haste.
//!
//! A layer below what lists and watches one kind, where `kube`'s watcher cannot see, and below what writes: a
//! `Retry-After` is waited for, and a watch that is closed at once is opened again five times at once and then every two
//! seconds, since the watcher opens it without a pause.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::client::Body;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::metrics::Metrics;

/// So many watches may follow each other at once,
const BURST: u32 = 5;
/// and then one may be opened each so often.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// A server that asks for a longer pause is asked again after this one: changes wait meanwhile.
const LONGEST: Duration = Duration::from_secs(60);

/// What one kind's requests have to wait for.
#[derive(Debug)]
pub(crate) struct Courtesy {
    kind: &'static str,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Whether a watch was opened before.
    has_watched: bool,
    /// When the watches of a burst are all there again: each takes [`WATCH_EVERY`] of it.
    full_at: Instant,
    /// Whether it was said that watches are closed at once.
    was_told: bool,
    /// The server said so.
    not_before: Instant,
}

impl Courtesy {
    pub(crate) fn new(kind: &'static str, metrics: &Arc<Metrics>) -> Arc<Self> {
        let now = Instant::now();
        let state = State { has_watched: false, full_at: now, was_told: false, not_before: now };
        Arc::new(Self { kind, metrics: Arc::clone(metrics), state: Mutex::new(state) })
    }

    /// `client`, with this courtesy.
    pub(crate) fn client(self: &Arc<Self>, client: &Client) -> Client {
        let (inner, courtesy) = (client.clone(), Arc::clone(self));
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (client, courtesy) = (inner.clone(), Arc::clone(&courtesy));
            async move {
                let is_watch =
                    request.uri().query().is_some_and(|query| query.contains("watch=true"));
                courtesy.wait(is_watch).await;
                let response = client.send(request).await?;
                courtesy.hear(response.status().as_u16(), response.headers());
                Ok::<_, kube::Error>(response)
            }
        });
        Client::new(service, client.default_namespace())
    }

    /// For how long the server wants to be left alone.
    pub(crate) fn held_for(&self) -> Duration {
        self.state().not_before.saturating_duration_since(Instant::now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait(&self, is_watch: bool) {
        let until = self.begin(is_watch, Instant::now());
        sleep_until(until).await;
    }

    /// When a request may be sent that wants to be sent now.
    fn begin(&self, is_watch: bool, now: Instant) -> Instant {
        let mut state = self.state();
        let mut until = now;
        if state.not_before > now {
            until = state.not_before;
            self.metrics.held_back("retry_after");
        }
        if !is_watch {
            return until;
        }
        if std::mem::replace(&mut state.has_watched, true) {
            self.metrics.watch_restarted(self.kind);
        }
        if state.full_at <= until {
            state.was_told = false;
        }
        state.full_at = state.full_at.max(until) + WATCH_EVERY;
        let room = state.full_at - WATCH_EVERY * BURST;
        if room > until {
            self.metrics.held_back("watches_closed");
            if !std::mem::replace(&mut state.was_told, true) {
                warn!(
                    kind = self.kind,
                    "the API server closes watches at once: one is opened every {WATCH_EVERY:?}"
                );
            }
            until = room;
        }
        until
    }

    /// Takes in what a response asks for.
    fn hear(&self, code: u16, headers: &http::HeaderMap) {
        if !matches!(code, 429 | 503) {
            return;
        }
        // A date is for proxies; no API server sends one.
        let after = headers.get(http::header::RETRY_AFTER).and_then(|after| after.to_str().ok());
        if let Some(seconds) = after.and_then(|after| after.trim().parse().ok()) {
            self.state().not_before = Instant::now() + Duration::from_secs(seconds).min(LONGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_is_closed_at_once_is_opened_five_times_and_then_seldom() {
        let courtesy = Courtesy::new("Gateway", &Arc::default());
        let start = Instant::now();
        let mut now = start;
        let mut opened = Vec::new();
        for _ in 0..8 {
            now = courtesy.begin(true, now);
            opened.push(now.duration_since(start).as_secs());
        }
        assert_eq!(opened, [0, 0, 0, 0, 0, 2, 4, 6]);
        let rested = now + WATCH_EVERY * BURST;
        assert_eq!(courtesy.begin(true, rested), rested, "after a rest, at once");
        for ordinary in (1..20).map(|turn| rested + Duration::from_secs(80 * turn)) {
            assert_eq!(courtesy.begin(true, ordinary), ordinary, "a watch that lasted");
        }
    }

    #[test]
    fn a_pause_that_the_server_asks_for_is_kept() {
        let courtesy = Courtesy::new("Gateway", &Arc::default());
        let headers = |after: &str| {
            http::HeaderMap::from_iter([(http::header::RETRY_AFTER, after.parse().unwrap())])
        };
        for (code, after, at_least, at_most) in [
            (200, "7", 0, 0),
            (500, "7", 0, 0),
            (429, "soon", 0, 0),
            (429, "-1", 0, 0),
            (503, "3", 2, 3),
            (429, "7", 6, 7),
            (429, "99999999999999999999", 6, 7),
            (429, "86400", 59, 60),
        ] {
            courtesy.hear(code, &headers(after));
            let held = courtesy.held_for().as_secs_f64().round() as u64;
            assert!((at_least..=at_most).contains(&held), "{code} {after}: {held}");
        }
        let now = Instant::now();
        assert!(courtesy.begin(false, now) > now + Duration::from_secs(58), "lists wait, too");
    }
}
