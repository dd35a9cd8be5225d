//! Which of several control processes writes statuses: the one that holds a `Lease`.
//!
//! The holder renews it every other second. It counts as ours for `OURS` from the moment before the renewal was
//! sent, by our own monotonic clock; others take it when it has not changed for `DURATION` by theirs. So no two
//! clocks are ever compared, and there is a time in which nobody writes, never one in which two do. Every change of
//! the Lease names the resourceVersion it was read at: of two who want it, one gets a conflict.
//!
//! Forwarding does not depend on it: who does not lead feeds its data plane all the same.
//!
//! Boxes elsewhere do not see the Lease, so each leadership has a number, its *epoch*: the resourceVersion of the
//! write by which it began. Those rise with every write of the cluster, also over a Lease that was deleted and made
//! anew, so of two leaderships the later has the higher one. A box remembers the highest and obeys no lower.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use kube::api::{Api, PostParams};
use kube::{Client, Error};
use penstock_gateway_types::ObjectMeta;
use penstock_gateway_types::k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use penstock_gateway_types::k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use penstock_gateway_types::k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::backoff::jitter;
use crate::source::cluster::words;

/// The Lease's name.
pub const NAME: &str = "penstock-controlplane";
/// Others wait this long for a renewal.
const DURATION: Duration = Duration::from_secs(15);
/// It is ours for this long after a renewal was sent.
const OURS: Duration = Duration::from_secs(10);
/// The longest pause between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether we lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leads {
    until: Option<Instant>,
    epoch: u64,
}

impl Leads {
    /// We lead until then, if nothing happens, in the epoch of that number.
    #[must_use]
    pub fn for_now(until: Instant, epoch: u64) -> Self {
        Self { until: Some(until), epoch }
    }

    /// We lead as long as we live: there is nobody else.
    #[must_use]
    pub fn alone(epoch: u64) -> Self {
        Self { until: Some(Instant::now() + Duration::from_secs(100 * 365 * 86_400)), epoch }
    }

    /// The epoch in which we lead; `None` if we do not at this moment.
    #[must_use]
    pub fn epoch(self) -> Option<u64> {
        self.now().then_some(self.epoch)
    }

    /// Whether we lead at this moment.
    #[must_use]
    pub fn now(self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// Until when, if at all.
    #[must_use]
    pub fn until(self) -> Option<Instant> {
        self.until
    }
}

/// One who wants to lead.
#[derive(Debug)]
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    /// Another's Lease, and when we first saw it so.
    other: Option<(LeaseSpec, Instant)>,
    leads: Leads,
    trouble: Option<String>,
}

impl Candidate {
    /// Wants the Lease in `namespace`, as `identity`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        let leads = Leads::default();
        Self { api, identity: identity.to_owned(), other: None, leads, trouble: None }
    }

    /// Tells `out` who leads, for ever.
    pub async fn run(mut self, out: watch::Sender<Leads>) {
        loop {
            self.look().await;
            out.send_replace(self.leads);
            sleep(jitter(PAUSE)).await;
        }
    }

    async fn look(&mut self) {
        let start = Instant::now();
        let result = match timeout(PATIENCE, self.try_hold()).await {
            Ok(result) => result.map_err(|error| words(&error)),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        };
        let led = self.leads.now();
        match result {
            Ok(Some(version)) => {
                // A leadership that goes on keeps its number.
                let epoch = if led { self.leads.epoch } else { version };
                self.leads = Leads::for_now(start + OURS, epoch);
            }
            Ok(None) => self.leads = Leads::default(),
            Err(ref reason) if self.trouble.as_ref() != Some(reason) => {
                warn!(%reason, "Lease {NAME}: cannot be had");
            }
            Err(_) => {}
        }
        self.trouble = result.err();
        match (led, self.leads.now()) {
            (false, true) => {
                let epoch = self.leads.epoch;
                info!(identity = %self.identity, epoch, "leading: statuses are written");
            }
            (true, false) => warn!("no longer leading: statuses are left to another"),
            _ => {}
        }
    }

    /// The version of the Lease if it is ours afterwards.
    async fn try_hold(&mut self) -> Result<Option<u64>, Error> {
        let Some(mut lease) = self.api.get_opt(NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.claim(None)) };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        if !self.is_free(lease.spec.as_ref()) {
            return Ok(None);
        }
        lease.spec = Some(self.claim(lease.spec.as_ref()));
        won(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    /// Whether nobody else holds it.
    fn is_free(&mut self, spec: Option<&LeaseSpec>) -> bool {
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let Some(spec) = spec.filter(|_| !holder.is_empty() && holder != self.identity) else {
            self.other = None;
            return true;
        };
        let now = Instant::now();
        match &self.other {
            Some((seen, since)) if seen == spec => now.duration_since(*since) >= patience(spec),
            _ => {
                self.other = Some((spec.clone(), now));
                false
            }
        }
    }

    /// The Lease as ours: renewed, or taken from `before`.
    fn claim(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let seconds = i32::try_from(DURATION.as_secs()).ok();
        let mut spec = before.cloned().unwrap_or_default();
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            spec.lease_transitions =
                before.map(|b| b.lease_transitions.unwrap_or(0).saturating_add(1));
            spec.acquire_time.clone_from(&now);
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = seconds;
        spec.renew_time = now;
        spec
    }
}

fn patience(spec: &LeaseSpec) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(DURATION, Duration::from_secs)
}

/// Who is too late does not lead, and has not failed.
fn won(answer: Result<Lease, Error>) -> Result<Option<u64>, Error> {
    match answer {
        Ok(lease) => {
            let version = lease.metadata.resource_version.as_deref();
            Ok(Some(version.and_then(|version| version.parse().ok()).unwrap_or_default()))
        }
        Err(Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives the Lease back, so that another need not wait for it to run out.
pub async fn release(client: Client, namespace: &str, identity: &str) {
    let api: Api<Lease> = Api::namespaced(client, namespace);
    let release = async {
        let Ok(Some(mut lease)) = api.get_opt(NAME).await else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(identity) {
            spec.holder_identity = Some(String::new());
            // If it fails, the Lease runs out.
            let _ = api.replace(NAME, &PostParams::default(), &lease).await;
        }
    };
    let _ = timeout(Duration::from_secs(1), release).await;
}

/// Who we are, for as long as the state directory is there: a process that comes back takes its own Lease at once.
#[derive(Debug)]
pub struct Identity {
    name: String,
    /// Locked, so that a second process with this directory is someone else.
    _file: Option<File>,
}

impl Identity {
    /// The identity that is kept in `state_dir`, or a new one.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join("identity");
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        if file.try_lock().is_err() {
            return Ok(Self { name: new_name(), _file: None });
        }
        let mut name = String::new();
        file.read_to_string(&mut name)?;
        if name.is_empty() {
            name = new_name();
            file.write_all(name.as_bytes())?;
        }
        Ok(Self { name, _file: Some(file) })
    }

    /// It, as the Lease has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The host's name, and something that no other has.
fn new_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut random = [0_u8; 8];
    // Without a source of randomness the process id has to do.
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
    let random = read.map_or(u64::from(std::process::id()), |()| u64::from_ne_bytes(random));
    format!("{host}_{random:016x}")
}
