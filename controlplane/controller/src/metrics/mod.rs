//! What the control process counts, for Prometheus, and whether it is alive and ready.
//!
//! A number is an atomic; counting takes no lock but for the first of its labels. Labels are kinds, consumers and
//! results: how many series there are does not depend on how many objects there are. The names begin with
//! `penstock_controlplane_`; [`serve`] hands them out.

mod boxes;
pub mod serve;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use serve::Address;

use crate::health::Counters;
use crate::report::Boxes;

/// A series has one label, or two.
type Labels<const N: usize> = [(&'static str, &'static str); N];
type Seconds = Gauge<f64, AtomicU64>;

/// The event loop beats every second. One that has not for so long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(10);
/// From half a millisecond to five seconds.
const TRANSLATION_SECONDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Who is told what to do, and acknowledges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumer {
    /// The data plane of the box.
    DataPlane,
    /// Its L7 tier.
    L7,
}

impl Consumer {
    const ALL: [Self; 2] = [Self::DataPlane, Self::L7];

    fn labels(self) -> Labels<1> {
        [("consumer", if self == Self::DataPlane { "dataplane" } else { "l7" })]
    }
}

/// Every number, and what they are known by.
pub struct Metrics {
    registry: Registry,
    start: Instant,
    /// When the event loop has turned last, in milliseconds since the start.
    beat_ms: AtomicU64,
    /// Whether the objects have been read once.
    has_translated: AtomicBool,
    /// Whether boxes elsewhere are told, and no data plane here.
    is_told_elsewhere: AtomicBool,
    /// Since when each consumer owes its word on what is wanted.
    owes_since: [Mutex<Option<Instant>>; 2],
    lag: Family<Labels<1>, Seconds>,
    memory: Gauge,
    /// Objects in force.
    objects: Family<Labels<1>, Gauge>,
    refused: Family<Labels<1>, Gauge>,
    findings: Family<Labels<1>, Gauge>,
    /// What a translation takes.
    pub translation_seconds: Histogram,
    connected: Family<Labels<1>, Gauge>,
    published: Family<Labels<1>, Gauge>,
    acknowledged: Family<Labels<1>, Gauge>,
    publishes: Family<Labels<2>, Counter>,
    /// Things that happened in the cluster, and wait to be taken in.
    pub events_waiting: Gauge,
    watch_restarts: Family<Labels<1>, Counter>,
    watch_failures: Family<Labels<1>, Counter>,
    throttled: Family<Labels<1>, Counter>,
    /// Whether the API server answers.
    pub api_server_connected: Gauge,
    /// Whether we are the ones who write to the API server.
    pub lease_held: Gauge,
    /// How often that changed.
    pub lease_changes: Counter,
    status_writes: Family<Labels<2>, Counter>,
    /// Objects whose status is to be looked at.
    pub statuses_waiting: Gauge,
    /// Objects whose status could not be written yet.
    pub statuses_failing: Gauge,
    service_writes: Family<Labels<1>, Counter>,
    /// What the questions of health checks came to.
    pub checks: Counters,
    backends_asked: Gauge,
    backends_unhealthy: Gauge,
    boxes: boxes::Numbers,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self::unnamed();
        metrics.named()
    }
}

impl Metrics {
    fn unnamed() -> Self {
        Self {
            registry: Registry::with_prefix("penstock_controlplane"),
            start: Instant::now(),
            beat_ms: AtomicU64::default(),
            has_translated: AtomicBool::default(),
            is_told_elsewhere: AtomicBool::default(),
            owes_since: Default::default(),
            lag: Family::default(),
            memory: Gauge::default(),
            objects: Family::default(),
            refused: Family::default(),
            findings: Family::default(),
            translation_seconds: Histogram::new(TRANSLATION_SECONDS),
            connected: Family::default(),
            published: Family::default(),
            acknowledged: Family::default(),
            publishes: Family::default(),
            events_waiting: Gauge::default(),
            watch_restarts: Family::default(),
            watch_failures: Family::default(),
            throttled: Family::default(),
            api_server_connected: Gauge::default(),
            lease_held: Gauge::default(),
            lease_changes: Counter::default(),
            status_writes: Family::default(),
            statuses_waiting: Gauge::default(),
            statuses_failing: Gauge::default(),
            service_writes: Family::default(),
            checks: Counters::default(),
            backends_asked: Gauge::default(),
            backends_unhealthy: Gauge::default(),
            boxes: boxes::Numbers::default(),
        }
    }

    /// Gives every number its name.
    fn named(mut self) -> Self {
        let mut names = std::mem::take(&mut self.registry);
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        names.register("build", "Our version", build);
        let bytes = Unit::Bytes;
        names.register_with_unit("resident_memory", "Memory in use", bytes, self.memory.clone());
        self.name_work(&mut names);
        self.name_cluster(&mut names);
        self.name_checks(&mut names);
        self.boxes.name(&mut names);
        self.registry = names;
        self
    }

    /// What is done with objects, wherever they come from.
    fn name_work(&self, names: &mut Registry) {
        let seconds = || Unit::Seconds;
        names.register("objects", "Objects in force", self.objects.clone());
        names.register(
            "objects_refused",
            "Objects that are refused, or not served as written",
            self.refused.clone(),
        );
        names.register("findings", "What is wrong, or looks wrong", self.findings.clone());
        let translation = self.translation_seconds.clone();
        names.register_with_unit(
            "translation",
            "From objects to what is wanted",
            seconds(),
            translation,
        );
        names.register("consumer_connected", "Whether it is connected", self.connected.clone());
        names.register(
            "consumer_published_generation",
            "The generation it was told last",
            self.published.clone(),
        );
        names.register(
            "consumer_acknowledged_generation",
            "The generation it acknowledged last",
            self.acknowledged.clone(),
        );
        let lag = self.lag.clone();
        names.register_with_unit(
            "consumer_lag",
            "Since when it owes its word on what is wanted",
            seconds(),
            lag,
        );
        names.register(
            "publishes",
            "How often it was told something, by how much",
            self.publishes.clone(),
        );
    }

    /// How we stand with an API server.
    fn name_cluster(&self, names: &mut Registry) {
        names.register(
            "api_server_connected",
            "Whether every kind is watched",
            self.api_server_connected.clone(),
        );
        names.register(
            "events_waiting",
            "Changes that wait to be taken in, 1024 at most",
            self.events_waiting.clone(),
        );
        names.register(
            "watch_restarts",
            "Watches that were opened again",
            self.watch_restarts.clone(),
        );
        names.register(
            "watch_failures",
            "Lists and watches that failed",
            self.watch_failures.clone(),
        );
        names.register(
            "requests_held_back",
            "Requests that waited, because the API server said so or closes watches at once",
            self.throttled.clone(),
        );
        names.register("lease_held", "Whether we write to the API server", self.lease_held.clone());
        names.register(
            "lease_changes",
            "How often we began or ceased to",
            self.lease_changes.clone(),
        );
        names.register("status_writes", "Writes of statuses", self.status_writes.clone());
        names.register(
            "statuses_waiting",
            "Objects whose status is to be looked at",
            self.statuses_waiting.clone(),
        );
        names.register(
            "statuses_failing",
            "Objects whose status could not be written yet",
            self.statuses_failing.clone(),
        );
        names.register(
            "service_writes",
            "Writes of the Services that stand for Gateways",
            self.service_writes.clone(),
        );
    }

    /// What came of health checks.
    fn name_checks(&self, names: &mut Registry) {
        let Counters { answers, bad_answers, changes } = self.checks.clone();
        names.register("check_answers", "Answers of backends to health checks", answers);
        names.register("check_bad_answers", "Those that were not as expected", bad_answers);
        names.register(
            "check_changes",
            "How often a backend went from well to not, or back",
            changes,
        );
        names.register(
            "backends_asked",
            "Backends that are asked if they are well, by each check",
            self.backends_asked.clone(),
        );
        names.register(
            "backends_unhealthy",
            "Those that are not well",
            self.backends_unhealthy.clone(),
        );
    }

    /// So many backends are asked if they are well, and so many are not.
    pub fn backends(&self, asked: usize, unhealthy: usize) {
        self.backends_asked.set(count(asked));
        self.backends_unhealthy.set(count(unhealthy));
    }

    /// So many objects of a kind are in force.
    pub fn objects(&self, kind: &'static str, number: usize) {
        self.objects.get_or_create(&[("kind", kind)]).set(count(number));
    }

    /// So many objects of a kind are refused.
    pub fn refused(&self, kind: &'static str, number: usize) {
        self.refused.get_or_create(&[("kind", kind)]).set(count(number));
    }

    /// So many things are wrong, and so many look wrong.
    pub fn findings(&self, errors: usize, warnings: usize) {
        self.findings.get_or_create(&[("severity", "error")]).set(count(errors));
        self.findings.get_or_create(&[("severity", "warning")]).set(count(warnings));
    }

    /// Whether a consumer is connected.
    pub fn connected(&self, consumer: Consumer, is: bool) {
        self.connected.get_or_create(&consumer.labels()).set(i64::from(is));
    }

    /// A consumer was told a generation, by so much.
    pub fn published(&self, consumer: Consumer, generation: u64, kind: &'static str) {
        let [label] = consumer.labels();
        self.publishes.get_or_create(&[label, ("kind", kind)]).inc();
        self.published.get_or_create(&[label]).set(generation.try_into().unwrap_or(i64::MAX));
    }

    /// A consumer has acknowledged a generation.
    pub fn acknowledged(&self, consumer: Consumer, generation: u64) {
        let generation = generation.try_into().unwrap_or(i64::MAX);
        self.acknowledged.get_or_create(&consumer.labels()).set(generation);
    }

    /// Whether a consumer owes its word on what is wanted.
    pub fn owes(&self, consumer: Consumer, owes: bool) {
        let mut since = self.since(consumer);
        *since = owes.then(|| since.unwrap_or_else(Instant::now));
        drop(since);
        self.has_translated.store(true, Ordering::Relaxed);
    }

    fn since(&self, consumer: Consumer) -> std::sync::MutexGuard<'_, Option<Instant>> {
        let since = &self.owes_since[consumer as usize];
        since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A watch of a resource was opened again.
    pub fn watch_restarted(&self, kind: &'static str) {
        self.watch_restarts.get_or_create(&[("kind", kind)]).inc();
    }

    /// A kind could not be listed or watched.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_failures.get_or_create(&[("kind", kind)]).inc();
    }

    /// A request waited, and why.
    pub fn held_back(&self, reason: &'static str) {
        self.throttled.get_or_create(&[("reason", reason)]).inc();
    }

    /// What came of a write of a status.
    pub fn status_write(&self, kind: &'static str, result: &'static str) {
        self.status_writes.get_or_create(&[("kind", kind), ("result", result)]).inc();
    }

    /// What came of a write of a Service.
    pub fn service_write(&self, result: &'static str) {
        self.service_writes.get_or_create(&[("result", result)]).inc();
    }

    /// The event loop turns.
    pub fn beat(&self) {
        let now = self.start.elapsed().as_millis();
        self.beat_ms.store(now.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Boxes elsewhere were told what is in force: no data plane here is waited for.
    pub fn told_elsewhere(&self) {
        self.has_translated.store(true, Ordering::Relaxed);
        self.is_told_elsewhere.store(true, Ordering::Relaxed);
    }

    /// Whether the event loop turns.
    ///
    /// # Errors
    /// Since when it does not.
    pub fn health(&self) -> Result<(), String> {
        let beat = Duration::from_millis(self.beat_ms.load(Ordering::Relaxed));
        let since = self.start.elapsed().saturating_sub(beat);
        if since < HANGS_AFTER {
            return Ok(());
        }
        Err(format!("the event loop has not turned for {} s", since.as_secs()))
    }

    /// Whether the objects have been read, and the data plane has acknowledged something that it serves.
    ///
    /// # Errors
    /// What is missing.
    pub fn readiness(&self) -> Result<(), String> {
        let of = |family: &Family<_, Gauge>| {
            family.get_or_create(&Consumer::DataPlane.labels()).get() > 0
        };
        self.health()?;
        let missing = if !self.has_translated.load(Ordering::Relaxed) {
            "the objects have not been read yet"
        } else if self.is_told_elsewhere.load(Ordering::Relaxed) {
            return Ok(());
        } else if !of(&self.connected) {
            "the data plane is not connected: it serves what it has, if it runs"
        } else if !of(&self.acknowledged) {
            "the data plane has not acknowledged a state yet"
        } else {
            return Ok(());
        };
        Err(missing.to_owned())
    }

    /// How boxes elsewhere are.
    pub fn boxes(&self, told: &Boxes) {
        self.boxes.tell(told);
    }

    /// Every number, as OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        for consumer in Consumer::ALL {
            let since = *self.since(consumer);
            let lag = since.map_or(0.0, |since| since.elapsed().as_secs_f64());
            self.lag.get_or_create(&consumer.labels()).set(lag);
        }
        self.memory.set(resident_bytes());
        let mut text = String::new();
        // A String takes everything.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What `/proc` says of our memory; 0 if it says nothing.
fn resident_bytes() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok());
    kib.unwrap_or_default() * 1024
}

/// Numbers that nobody asked for yet.
#[must_use]
pub fn none() -> Arc<Metrics> {
    Arc::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_prefixed_and_have_their_units() {
        let metrics = Metrics::default();
        metrics.objects("Gateway", 3);
        metrics.published(Consumer::DataPlane, 7, "delta");
        metrics.acknowledged(Consumer::L7, 6);
        metrics.status_write("TCPRoute", "written");
        metrics.translation_seconds.observe(0.002);
        let text = metrics.text();
        for line in [
            "penstock_controlplane_objects{kind=\"Gateway\"} 3",
            "penstock_controlplane_publishes_total{consumer=\"dataplane\",kind=\"delta\"} 1",
            "penstock_controlplane_consumer_published_generation{consumer=\"dataplane\"} 7",
            "penstock_controlplane_consumer_acknowledged_generation{consumer=\"l7\"} 6",
            "penstock_controlplane_consumer_lag_seconds{consumer=\"dataplane\"} 0.0",
            "penstock_controlplane_status_writes_total{kind=\"TCPRoute\",result=\"written\"} 1",
            "penstock_controlplane_translation_seconds_bucket{le=\"0.0025\"} 1",
            "penstock_controlplane_lease_held 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let memory = text.lines().find_map(|line| {
            line.strip_prefix("penstock_controlplane_resident_memory_bytes ")?.parse::<i64>().ok()
        });
        assert!(memory.is_some_and(|bytes| bytes > 1 << 20), "{memory:?}");
    }

    #[test]
    fn boxes_are_counted() {
        let metrics = Metrics::default();
        let mut told = Boxes { boxes: 3, connected: 2, in_sync: 1, ..Boxes::default() };
        told.counted.bundles_built = 4;
        told.counted.bundle_bytes_sent = 5000;
        told.counted.refused.insert("tls", 6);
        metrics.boxes(&told);
        metrics.boxes(&told);
        let text = metrics.text();
        for line in [
            "penstock_controlplane_boxes 3",
            "penstock_controlplane_boxes_connected 2",
            "penstock_controlplane_boxes_in_sync 1",
            "penstock_controlplane_box_bundles_built_total 4",
            "penstock_controlplane_box_bundles_sent_total 0",
            "penstock_controlplane_box_bundles_sent_bytes_total 5000",
            "penstock_controlplane_box_connections_refused_total{reason=\"tls\"} 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn who_is_ready_has_read_and_been_acknowledged() {
        let metrics = Metrics::default();
        metrics.beat();
        let missing = |metrics: &Metrics| metrics.readiness().err().unwrap_or_default();
        assert!(missing(&metrics).contains("not been read"));
        metrics.owes(Consumer::DataPlane, true);
        assert!(missing(&metrics).contains("not connected"));
        metrics.connected(Consumer::DataPlane, true);
        assert!(missing(&metrics).contains("not acknowledged"));
        metrics.acknowledged(Consumer::DataPlane, 1);
        assert_eq!(metrics.readiness(), Ok(()));
        assert_eq!(metrics.health(), Ok(()));
    }

    #[test]
    fn a_lag_grows_until_the_word_is_given() {
        let metrics = Metrics::default();
        let lag = || {
            let text = metrics.text();
            let name = "penstock_controlplane_consumer_lag_seconds{consumer=\"l7\"} ";
            text.lines().find_map(|line| line.strip_prefix(name)?.parse::<f64>().ok()).unwrap()
        };
        metrics.owes(Consumer::L7, true);
        std::thread::sleep(Duration::from_millis(5));
        metrics.owes(Consumer::L7, true);
        assert!(lag() >= 0.005);
        metrics.owes(Consumer::L7, false);
        assert!(lag() == 0.0);
    }
}
