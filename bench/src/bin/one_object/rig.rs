//! The control process without its event loop, and the data plane's end of the feed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_controlplane::object::{ObjectKey, Objects};
use penstock_controlplane::status::{Ledger, Progress, Stamp, Statuses, conclude};
use penstock_controlplane::translate::{Known, Translator, owner_of, translate};
use penstock_feed::{Digest, Producer, Server, StateFile, Step};
use penstock_gateway_types::Time;
use penstock_gateway_types::k8s_openapi::jiff::Timestamp;

use super::objects::{Change, Site};

/// An error is for the person at the terminal.
pub(super) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const PATIENCE: Duration = Duration::from_secs(60);
const RECORDS: usize = 4096;

/// What the steps are called.
pub(super) const STEPS: [&str; 4] = ["translate", "conclude", "publish", "all"];

/// See the module.
pub(super) struct Rig {
    objects: Objects,
    translator: Translator,
    ledger: Ledger,
    progress: Progress,
    generation: u64,
    producer: Producer,
    server: Server,
    _directory: Directory,
}

fn now() -> Time {
    Time(Timestamp::UNIX_EPOCH)
}

/// What all of it cost when nothing was kept: translated, every status concluded, and the state hashed.
pub(super) fn whole(site: &Site) -> Outcome<Duration> {
    let objects: Objects = site.objects()?.into_iter().collect();
    let begin = Instant::now();
    let translation = translate(&objects);
    let stamp = Stamp { now: &now(), previous: &Statuses::new() };
    let statuses = conclude(&objects, &translation, &Progress::default(), &stamp);
    let digest = translation.state.digest();
    let took = begin.elapsed();
    if statuses.len() < site.routes || digest == Digest::EMPTY {
        return Err("the site means nothing".into());
    }
    Ok(took)
}

/// How much memory is resident when all objects are there, or their translation too, or their statuses too.
pub(super) fn resident(site: &Site, until: &str) -> Outcome<f64> {
    let before = resident_bytes()?;
    let objects: Objects = site.objects()?.into_iter().collect();
    let mut translator = Translator::new(Known::default());
    let mut ledger = Ledger::of(Statuses::new());
    if until != "objects" {
        translator.update(&objects, &objects.keys().collect());
    }
    if until == "statuses" {
        let state = Arc::clone(&translator.translation().state);
        let progress = Progress { acknowledged: Some(state), ..Progress::default() };
        ledger.conclude(&objects, translator.translation(), &progress, &now());
    }
    Ok((resident_bytes()? - before) / f64::from(1 << 20))
}

fn resident_bytes() -> Outcome<f64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split(' ').nth(1).ok_or("no resident pages")?.parse()?;
    Ok(pages * rustix::param::page_size() as f64)
}

impl Rig {
    /// A site that is served.
    pub(super) fn with(site: &Site) -> Outcome<Self> {
        let directory = Directory::new()?;
        let socket = directory.0.join("sock");
        let uid = rustix::process::geteuid().as_raw();
        let file = StateFile::open(directory.0.join("state"))?;
        let mut server = Server::bind(&socket, &[uid], file)?;
        // The hand-shake needs both ends.
        let connecting = std::thread::spawn(move || Producer::connect(&socket, PATIENCE));
        while !connecting.is_finished() {
            server.step(RECORDS);
        }
        let producer = connecting.join().map_err(|_| "the producer's thread ended")??;
        let objects: Objects = site.objects()?.into_iter().collect();
        let mut translator = Translator::new(Known::default());
        translator.update(&objects, &objects.keys().collect());
        let state = Arc::clone(&translator.translation().state);
        let publishing = std::thread::spawn(move || {
            let mut producer = producer;
            let published = producer.publish(1, &state, Instant::now() + PATIENCE);
            (producer, published)
        });
        while server.step(RECORDS) != Step::Committed {}
        let (mut producer, published) =
            publishing.join().map_err(|_| "the producer's thread ended")?;
        published?;
        server.take_touched();
        server.acknowledge(1, &[]);
        producer.wait(PATIENCE)?;
        let acknowledged = Some(Arc::clone(&translator.translation().state));
        let progress = Progress { acknowledged, ..Progress::default() };
        let mut ledger = Ledger::of(Statuses::new());
        ledger.conclude(&objects, translator.translation(), &progress, &now());
        let generation = 1;
        let _directory = directory;
        Ok(Self { objects, translator, ledger, progress, generation, producer, server, _directory })
    }

    /// Makes one change; what each step took.
    pub(super) fn change(&mut self, change: Change) -> Outcome<[Duration; STEPS.len()]> {
        let begin = Instant::now();
        let changed = self.take(change);
        let update = self.translator.update(&self.objects, &changed);
        let translated = Instant::now();
        let waiting: BTreeSet<_> = update.touched.listeners.iter().filter_map(owner_of).collect();
        self.ledger.note(changed.into_iter().chain(update.answers));
        self.conclude();
        let concluded = Instant::now();
        if update.touched.is_empty() {
            let steps = [translated - begin, concluded - translated, Duration::ZERO];
            return Ok([steps[0], steps[1], steps[2], concluded - begin]);
        }
        let next = Arc::clone(&self.translator.translation().state);
        self.generation += 1;
        let (generation, deadline) = (self.generation, Instant::now() + PATIENCE);
        self.producer.publish_touched(&next, &update.touched, |_| generation, deadline)?;
        let sent = Instant::now();
        while self.server.step(RECORDS) != Step::Committed {}
        self.server.take_touched();
        self.server.acknowledge(generation, &[]);
        let answering = Instant::now();
        let acks = self.producer.wait(PATIENCE)?;
        let answered = Instant::now();
        let ack = acks.last().ok_or("no acknowledgement")?;
        if ack.generation != generation || !ack.errors.is_empty() || ack.refused.is_some() {
            return Err(format!("not served as it was said: {ack:?}").into());
        }
        self.progress.acknowledged = Some(next);
        self.ledger.note(waiting);
        self.conclude();
        let end = Instant::now();
        let translate = translated - begin;
        let conclude = (concluded - translated) + (end - answered);
        let publish = (sent - concluded) + (answered - answering);
        Ok([translate, conclude, publish, translate + conclude + publish])
    }

    fn take(&mut self, change: Change) -> BTreeSet<ObjectKey> {
        let key = match change {
            Change::Put(object) => {
                let key = object.key();
                self.objects.insert(object);
                key
            }
            Change::Remove(key) => {
                self.objects.remove(&key);
                key
            }
        };
        [key].into()
    }

    fn conclude(&mut self) {
        let translation = self.translator.translation();
        self.ledger.conclude(&self.objects, translation, &self.progress, &now());
    }
}

/// A directory that goes away.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("penstock-one-object.{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // what is left there is in the temporary directory
    }
}
