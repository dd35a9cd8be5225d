//! The control process on a box that controllers elsewhere tell what to do: what is in force is a bundle.
//!
//! A bundle is read beside the loop, kept on disk, and then takes the place of the last one at once. What cannot be
//! read leaves the last one as it is, and is told to whoever sent it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{error, info, warn};

use super::round::Round;
use super::{Desk, Paths, StartError, beat, here, take};
use crate::agent::kept::{Epochs, Kept};
use crate::agent::{Dial, Heard};
use crate::link::message::{Delivery, Fault, RefusedBundle, Report};
use crate::link::{Bundle, Contents, Digest};
use crate::pki::Credentials;
use crate::report;
use crate::store::InForce;

/// Runs on a box that has joined, until SIGTERM or SIGINT. `paths.config_dir` is not read.
///
/// # Errors
/// [`StartError`]. Once it runs, nothing ends it but a signal.
pub async fn run_as_agent(paths: Paths) -> Result<(), StartError> {
    let desk = Desk::open(&paths)?;
    let credentials = Credentials::load(&paths.state_dir)?;
    let path = || Credentials::path(&paths.state_dir);
    let credentials = credentials.ok_or_else(|| StartError::NotJoined(path()))?;
    let epochs = Epochs::open(&paths.state_dir)?;
    let (consumers, mut words) = here(&paths, &desk.metrics)?;
    let (report, reported) = watch::channel(Report::default());
    let (tell, mut heard) = watch::channel(Heard::default());
    let Desk { mut terminate, mut interrupt, mut hang_up, metrics } = desk;
    let round = Round::new(&paths, None, consumers, metrics);
    let mut work = Work::new(&paths, &credentials, round, report);
    work.begin();
    let state_dir: PathBuf = paths.state_dir.clone();
    let dial = Dial { credentials, state_dir, epochs, report: reported, heard: tell };
    let mut link = JoinSet::new();
    link.spawn(dial.run());
    info!(box_name = work.told.name, "agent started");
    let mut beat = beat();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {}
            Some(event) = words.dataplane.recv() => {
                take(event, &mut words.dataplane, &mut work.round, Round::hear);
            }
            Some(event) = words.l7.recv() => {
                take(event, &mut words.l7, &mut work.round, Round::hear_l7);
            }
            Some(observed) = words.observations.recv() => work.round.observe_at_once(observed),
            Ok(()) = heard.changed() => {
                let heard = heard.borrow_and_update().clone();
                work.hear(heard);
            }
            read = finished(&mut work.reading) => work.read(read),
            () = work.round.overdue() => work.round.time_passed(),
            _ = beat.tick() => { work.round.beat(); }
        }
        work.report();
    }
    info!("agent ends; the data plane goes on with what it has");
    Ok(())
}

/// What reading a bundle came to: what it says, and whether it was kept.
type Reading = Result<(Contents, io::Result<()>), String>;

/// Waits until a bundle is read; for ever if none is.
async fn finished(reading: &mut Option<JoinHandle<Reading>>) -> Reading {
    let Some(task) = reading else { return std::future::pending().await };
    let read = task.await.unwrap_or_else(|error| Err(format!("it cannot be read: {error}")));
    *reading = None;
    read
}

struct Work {
    round: Round,
    kept: Kept,
    /// What is in force: its number and digest.
    in_force: Option<(u64, Digest)>,
    /// Objects of it that we do not know.
    unread: usize,
    /// Listeners of it that come to nothing here.
    not_served: Vec<Fault>,
    refused: Option<RefusedBundle>,
    /// The bundle that is read now.
    next: Option<Arc<Delivery>>,
    reading: Option<JoinHandle<Reading>>,
    /// The last one that was looked at.
    looked_at: Option<Digest>,
    heard: Heard,
    report: watch::Sender<Report>,
    told: report::Agent,
}

impl Work {
    fn new(
        paths: &Paths,
        credentials: &Credentials,
        round: Round,
        report: watch::Sender<Report>,
    ) -> Self {
        let name = credentials.card().map(|card| card.identity.name().to_owned());
        let told = report::Agent { name: name.unwrap_or_default(), ..report::Agent::default() };
        Self {
            round,
            kept: Kept::open(&paths.state_dir),
            in_force: None,
            unread: 0,
            not_served: Vec::new(),
            refused: None,
            next: None,
            reading: None,
            looked_at: None,
            heard: Heard::default(),
            report,
            told,
        }
    }

    /// Serves what was in force when we ran last.
    fn begin(&mut self) {
        match self.kept.load() {
            Ok(Some((bundle, contents))) => self.apply(&bundle, contents),
            Ok(None) => info!("nothing is in force yet: the data plane goes on with what it has"),
            Err(error) => {
                warn!(%error, "the last good bundle is lost: a controller sends it again");
            }
        }
        self.report();
        self.round.conclude();
    }

    /// Puts a bundle in force.
    fn apply(&mut self, bundle: &Bundle, contents: Contents) {
        let Contents { objects, listeners, unread } = contents;
        let origins = objects.iter().map(|object| (object.key(), String::new())).collect();
        self.round.replace(InForce { objects, origins, findings: Vec::new() });
        self.round.only = Some(Arc::new(listeners));
        self.in_force = Some((bundle.version, bundle.digest));
        (self.unread, self.refused, self.looked_at) = (unread, None, Some(bundle.digest));
        if unread > 0 {
            warn!(
                objects = unread,
                "kinds that this version does not know are left out: update it"
            );
        }
        info!(version = bundle.version, digest = ?bundle.digest, "bundle in force");
        self.round.translate();
        self.not_served = self.round.not_served();
    }

    fn hear(&mut self, heard: Heard) {
        self.heard = heard;
        self.begin_reading();
    }

    /// Reads what is wanted, beside the loop, one bundle after the other.
    fn begin_reading(&mut self) {
        let Some(wanted) = self.heard.wanted.clone() else { return };
        if self.reading.is_some() || self.looked_at == Some(wanted.bundle.digest) {
            return;
        }
        self.looked_at = Some(wanted.bundle.digest);
        self.next = Some(Arc::clone(&wanted));
        let kept = self.kept.clone();
        self.reading = Some(tokio::task::spawn_blocking(move || {
            let contents = wanted.bundle.contents().map_err(|fault| fault.to_string())?;
            Ok((contents, kept.save(&wanted.bundle)))
        }));
    }

    fn read(&mut self, read: Reading) {
        let Some(next) = self.next.take() else { return };
        match read {
            Ok((contents, kept)) => {
                if let Err(error) = kept {
                    warn!(%error, "the bundle is not kept: after a restart the one before is in force");
                }
                self.apply(&next.bundle, contents);
            }
            Err(message) => {
                let digest = next.bundle.digest;
                error!(?digest, message, "the bundle is refused whole: the last good one stays");
                self.refused = Some(RefusedBundle { digest, message });
            }
        }
        self.round.conclude();
        self.begin_reading();
    }

    /// Says what we do, to the controller and to `penstock status`.
    fn report(&mut self) {
        let (dataplane, l7) = self.round.consumers(&self.not_served);
        let (version, digest) = self.in_force.unzip();
        let (version, epoch) = (version.unwrap_or_default(), self.heard.epoch);
        let (refused, unread) = (self.refused.clone(), self.unread);
        let report = Report { digest, version, epoch, dataplane, l7, refused, unread }.bounded();
        self.report.send_if_modified(|said| {
            let is_news = *said != report;
            *said = report;
            is_news
        });
        let linked = self.heard.linked.as_ref();
        let refused = self
            .refused
            .as_ref()
            .map(|refused| format!("the last bundle is refused: {}", refused.message));
        let told = report::Agent {
            name: self.told.name.clone(),
            connected: linked.is_some(),
            controller: linked
                .map(|it| format!("{} at {}", it.controller, it.address))
                .unwrap_or_default(),
            version,
            digest: digest.map(|digest| digest.to_string()).unwrap_or_default(),
            epoch,
            trouble: refused.or_else(|| self.heard.trouble.clone()),
        };
        if self.told != told {
            self.told = told;
            self.round.report_agent(self.told.clone());
            self.round.tell_report();
        }
    }
}
