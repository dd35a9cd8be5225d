//! Both ends of the feed and what stands behind them, as the main thread of a data plane has them.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_dataplane::{
    config::{Config, Icmp, Snat},
    kernel::KernelView,
    published::Publisher,
    snapshot::Translator,
    statistics::Statistics,
};
use penstock_feed::{Change, Producer, Server, State, StateFile, Step};
use penstock_forward::{MacAddr, PortConfig, SnapshotBuilder, Tick, Timeouts};

/// An error is for the person at the terminal.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const PATIENCE: Duration = Duration::from_secs(60);
const RECORDS: usize = 4096;
/// By the workers' clock, which nothing here depends on: all flows are kept.
const NOW: Tick = Tick(1000);
const SNAT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 255, 0, 1));

/// What the steps are called.
pub(crate) const STEPS: [&str; 6] = ["send", "commit", "translate", "publish", "answer", "all"];

/// See the module.
pub(crate) struct Rig {
    generation: u64,
    producer: Option<Producer>,
    server: Server,
    translator: Translator,
    statistics: Statistics,
    publisher: Publisher,
    _directory: Directory,
}

impl Rig {
    /// A box that serves a state; what it took to feed it, and to translate it.
    pub(crate) fn with(state: &State) -> Outcome<(Self, [Duration; 2])> {
        let directory = Directory::new()?;
        let at = |name: &str| directory.0.join(name);
        let config = "ports: [{ name: lan, device: net_null0, companion: pst0 }]";
        let config = Config::parse("bench.yaml", config)?;
        let uid = rustix::process::geteuid().as_raw();
        let mut server = Server::bind(&at("sock"), &[uid], StateFile::open(at("state"))?)?;
        // The hand-shake needs both ends.
        let socket = at("sock");
        let connecting = std::thread::spawn(move || Producer::connect(&socket, PATIENCE));
        while !connecting.is_finished() {
            server.step(RECORDS);
        }
        let producer = connecting.join().map_err(|_| "the producer's thread ended")??;
        let port = PortConfig { mac: MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1500 };
        let snat = Snat { addresses: [SNAT].into(), ..Snat::default() };
        let mut rig = Self {
            generation: 0,
            producer: None,
            server,
            translator: Translator::new(vec![port], snat, Icmp::default(), Timeouts::default(), 1),
            statistics: Statistics::create(&at("dataplane.stats"), &config)?,
            publisher: Publisher::new(SnapshotBuilder::new().build(1)?, 0),
            _directory: directory,
        };
        let whole = rig.publish(producer, Arc::new(state.clone()))?;
        Ok((rig, whole))
    }

    /// Brings the box to a state, of which the ring does not hold all at once: with a thread for the
    /// producer's end.
    fn publish(&mut self, mut producer: Producer, state: Arc<State>) -> Outcome<[Duration; 2]> {
        self.generation += 1;
        let (generation, begin) = (self.generation, Instant::now());
        let publishing = std::thread::spawn(move || {
            let published = producer.publish(generation, &state, begin + PATIENCE);
            (producer, published)
        });
        while self.server.step(RECORDS) != Step::Committed {}
        let committed = Instant::now();
        let (producer, published) = publishing.join().map_err(|_| "the producer's thread ended")?;
        published?;
        let producer = self.producer.insert(producer);
        let (state, touched) = (Arc::clone(self.server.state()), self.server.take_touched());
        let view = KernelView::default();
        let begun = Instant::now();
        let translation =
            self.translator.translate(&state, &touched, &view, &mut self.statistics, NOW);
        let translated = begun.elapsed();
        self.publisher.publish(translation.snapshot);
        self.publisher.reclaim();
        self.server.acknowledge(generation, &translation.errors);
        producer.wait(PATIENCE)?;
        Ok([committed - begin, translated])
    }

    /// Makes some changes; what each step took.
    pub(crate) fn change(&mut self, changes: Vec<Change>) -> Outcome<[Duration; STEPS.len()]> {
        self.generation += 1;
        let producer = self.producer.as_mut().ok_or("no producer")?;
        let begin = Instant::now();
        producer.publish_changes(self.generation, changes, begin + PATIENCE)?;
        let sent = Instant::now();
        while self.server.step(RECORDS) != Step::Committed {}
        let (state, touched) = (Arc::clone(self.server.state()), self.server.take_touched());
        let committed = Instant::now();
        let view = KernelView::default();
        let translation =
            self.translator.translate(&state, &touched, &view, &mut self.statistics, NOW);
        let translated = Instant::now();
        self.publisher.publish(translation.snapshot);
        self.publisher.reclaim();
        let published = Instant::now();
        self.server.acknowledge(self.generation, &translation.errors);
        let acks = producer.wait(PATIENCE)?;
        let answered = Instant::now();
        let ack = acks.last().ok_or("no acknowledgement")?;
        if ack.generation != self.generation || !ack.errors.is_empty() || ack.refused.is_some() {
            return Err(format!("not served as it was said: {ack:?}").into());
        }
        // What a main thread does now and then: numbers that nobody uses are given back.
        self.translator.release_unused(&mut self.statistics, NOW);
        let times = [begin, sent, committed, translated, published, answered];
        let mut steps = [answered - begin; STEPS.len()];
        for (step, pair) in steps.iter_mut().zip(times.windows(2)) {
            *step = pair[1] - pair[0];
        }
        Ok(steps)
    }
}

/// A directory that goes away.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Outcome<Self> {
        let shm = PathBuf::from("/dev/shm"); // as `/run` is, where the segment lies
        let parent = if shm.is_dir() { shm } else { std::env::temp_dir() };
        let path = parent.join(format!("penstock-one-change.{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // what is left there is in the temporary directory
    }
}
