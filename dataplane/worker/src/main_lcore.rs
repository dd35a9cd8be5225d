//! The thread that listens: to the feed for what to serve, to the kernel for how to reach it, to
//! the workers for next hops that are missing. It builds snapshots, publishes them, and answers the
//! control process only when every worker has gone over.

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use penstock_dpdk::{Eal, Mempool, Port, Running};
use penstock_feed::{ObjectError, Server, Step};
use penstock_forward::NextHopKey;
use rtrb::Consumer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{info, warn};

use crate::{
    clock::Clock,
    companions::Companions,
    config::PortConfig,
    kernel::{MacAddr, Mirror},
    path::{Transmit, WorkerPort},
    published::Publisher,
    receive::{self, Reception},
    snapshot::{AddressSet, Translator},
    statistics::{Arrived, Statistics, known_link},
    watch::{Found, Watch},
};

/// How long the thread waits when nothing happens: what a next hop may be late to be asked for.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
/// Records of the feed taken in one step, and steps in one turn: what a burst of commits may delay
/// the requests of workers, and how many of them become one snapshot.
const FEED_RECORDS: usize = 4096;
const FEED_STEPS: usize = 8;
/// Requests for next hops taken from a worker in one turn.
const RESOLVE_REQUESTS: usize = 64;
/// How often ports, labels and the heartbeat are brought up to date.
const STATISTICS_EVERY: Duration = Duration::from_millis(200);
/// How often neighbours in use are kept fresh.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How often the kernel is asked for everything anew: it withdraws some routes without a word.
const RESYNC_EVERY: Duration = Duration::from_secs(60);

/// How soon after a snapshot the kernel's changes may bring the next: a flapping route costs the
/// control plane's changes nothing.
const KERNEL_CHANGES_EVERY: Duration = Duration::from_millis(10);

/// What the workers were given last.
struct Serving {
    generation: u64,
    serial: u64,
    errors: Vec<ObjectError>,
    addresses: AddressSet,
}

/// A port that runs.
pub struct StartedPort {
    /// The operator's name for it.
    pub name: String,
    /// The port; its queues are the workers'.
    pub port: Port,
    reception: Reception,
    rss: receive::Watch,
    mac: String,
    companion: String,
    vlan: String,
}

impl StartedPort {
    /// A port and how its packets come to the workers, who know that too.
    pub fn new(config: &PortConfig, port: Port, reception: Reception, mac: MacAddr) -> Self {
        Self {
            name: config.name.clone(),
            port,
            reception,
            rss: receive::Watch::default(),
            mac: mac.to_string(),
            companion: config.companion.clone(),
            vlan: config.tags.map_or_else(String::new, |tags| tags.to_string()),
        }
    }

    /// Says what it is in its row of the statistics.
    pub fn label(&self, row: usize, statistics: &mut Statistics) {
        let label = [
            ("name", self.name.as_str()),
            ("device", self.port.name()),
            ("driver", self.port.driver()),
            ("mac", &self.mac),
            ("companion", &self.companion),
            ("receive", self.reception.manner().name()),
            ("vlan", &self.vlan),
        ];
        statistics.label_port(row, &label);
    }

    /// Looks whether RSS does what it says, and trusts it no longer if not.
    fn watch_rss(&mut self, row: usize, workers: usize, statistics: &mut Statistics) {
        let counted = |what| statistics.arrived(workers, row, what);
        let [matched, mismatched] = [Arrived::RssMatch, Arrived::RssMismatch].map(counted);
        if self.rss.look(&self.reception, matched, mismatched) {
            warn!(
                port = self.name,
                matched,
                mismatched,
                "RSS brings packets elsewhere than its key and table say, and is trusted no longer: the workers that receive them hand them over"
            );
            self.label(row, statistics);
        }
    }
}

impl Serving {
    /// With the serial of the one before if that says the same: so a busy kernel does not put off
    /// the answer to the control process.
    fn or_earlier(mut self, before: &Self) -> Self {
        if (before.generation, &before.errors) == (self.generation, &self.errors) {
            self.serial = before.serial;
        }
        self
    }
}

/// What the control process was told last.
type Told = (u64, Vec<ObjectError>);

/// The main thread with everything it owns.
pub struct MainLcore {
    /// Ends when every port is stopped.
    pub eal: Eal,
    /// Every packet buffer.
    pub mempool: Mempool,
    /// The ports; their queues are the workers' until they stop.
    pub ports: Vec<StartedPort>,
    /// Where workers that end leave their ends of the ports.
    pub queues: mpsc::Receiver<Vec<WorkerPort>>,
    /// The consumer's end of the feed.
    pub server: Server,
    /// The kernel's addresses, routes and neighbours.
    pub mirror: Mirror,
    /// The companion interfaces and the addresses we keep on them.
    pub companions: Companions,
    /// State and kernel view to snapshot.
    pub translator: Translator,
    /// The pointer the workers read.
    pub publisher: Publisher,
    /// What is counted.
    pub statistics: Statistics,
    /// The workers' clock.
    pub clock: Clock,
    /// Next hops the workers miss.
    pub unresolved: Vec<Consumer<NextHopKey>>,
    /// The workers.
    pub workers: Vec<Running>,
    /// Whether they turn.
    pub watch: Watch,
    /// The exception path, and what answers an operator.
    pub helpers: Vec<JoinHandle<()>>,
    /// Tells workers and helpers to end.
    pub stop: Arc<AtomicBool>,
    /// Set by SIGTERM and SIGINT.
    pub terminate: Arc<AtomicBool>,
}

impl MainLcore {
    /// Runs until SIGTERM or SIGINT; then workers finish their burst and ports are left stopped.
    pub fn run(mut self) {
        let mut told: Option<Told> = None;
        let mut serving = self.republish();
        let (mut statistics_due, mut refresh_due) = (Instant::now(), Instant::now());
        let mut resync_due = Instant::now() + RESYNC_EVERY;
        let (mut changed, mut republish_due) = (false, Instant::now());
        while !self.terminate.load(Ordering::Relaxed) {
            self.wait();
            let committed = self.take_feed();
            changed |= self.mirror_kernel();
            let now = Instant::now();
            if committed || (changed && now >= republish_due) {
                serving = self.republish().or_earlier(&serving);
                (changed, republish_due) = (false, now + KERNEL_CHANGES_EVERY);
            }
            if self.publisher.passed() >= serving.serial {
                self.companions.keep_addresses(&serving.addresses, self.mirror.view());
                self.acknowledge(&serving, &mut told);
                self.companions.announce();
            }
            self.publisher.reclaim();
            self.resolve_next_hops();
            if now >= refresh_due {
                self.companions.retry_refused();
                let published = self.publisher.root().load_full();
                let (hosts, fib) = (self.translator.hosts(), published.snapshot.fib());
                self.companions.keep_fresh(&mut self.mirror, hosts, fib);
                refresh_due = now + REFRESH_EVERY;
            }
            if now >= resync_due {
                self.resync_with_kernel();
                resync_due = now + RESYNC_EVERY;
            }
            if now >= statistics_due {
                changed |= self.update_statistics();
                statistics_due = now + STATISTICS_EVERY;
            }
        }
        self.shut_down();
    }

    fn wait(&self) {
        let mut fds: Vec<PollFd<'_>> = self
            .server
            .poll_fds()
            .into_iter()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        fds.push(PollFd::new(&self.mirror, PollFlags::IN));
        let _ = poll(&mut fds, Some(&WAIT)); // interrupted is as good as elapsed
    }

    /// Takes what the feed has, within a bound; whether a transaction was committed.
    fn take_feed(&mut self) -> bool {
        let mut committed = false;
        for _ in 0..FEED_STEPS {
            match self.server.step(FEED_RECORDS) {
                Step::Idle => break,
                Step::More => {}
                Step::Committed => committed = true,
            }
        }
        if committed {
            let (generation, listeners) =
                (self.server.generation(), self.server.state().listeners.size());
            info!(generation, listeners, "configuration committed");
        }
        committed
    }

    fn mirror_kernel(&mut self) -> bool {
        let changed = self.mirror.step().unwrap_or_else(|error| {
            warn!(%error, "kernel mirror");
            false
        });
        self.companions.look_at(self.mirror.take_ours_changed());
        changed
    }

    fn resync_with_kernel(&mut self) {
        if let Err(error) = self.mirror.resync() {
            warn!(%error, "kernel mirror");
        }
    }

    /// Builds a snapshot of what is known now and gives it to the workers. The kernel is asked for new
    /// backends at once, before a packet waits for them.
    fn republish(&mut self) -> Serving {
        let (state, touched) = (Arc::clone(self.server.state()), self.server.take_touched());
        let (view, now) = (self.mirror.view(), self.clock.now());
        let translation =
            self.translator.translate(&state, &touched, view, &mut self.statistics, now);
        self.companions.look_at(translation.addresses_changed);
        let new = self.translator.hosts().take_new();
        self.companions.ask_for_new(&mut self.mirror, new, translation.snapshot.fib());
        let serial = self.publisher.publish(translation.snapshot);
        Serving {
            generation: self.server.generation(),
            serial,
            errors: translation.errors,
            addresses: translation.addresses,
        }
    }

    /// Tells the control process what every worker does now, unless it knows.
    fn acknowledge(&mut self, serving: &Serving, told: &mut Option<Told>) {
        let mut errors = serving.errors.clone();
        errors.extend(self.companions.errors(&self.translator));
        let now = (serving.generation, errors);
        if told.as_ref() == Some(&now) {
            return;
        }
        for error in &now.1 {
            if !told.as_ref().is_some_and(|(_, before)| before.contains(error)) {
                warn!(object = %error.object, "{}", error.message);
            }
        }
        self.server.acknowledge(now.0, &now.1);
        let (digest, epoch) = (self.server.digest().to_bits(), self.server.epoch());
        self.statistics.writer.set_generation(now.0, digest, epoch, true);
        *told = Some(now);
    }

    fn resolve_next_hops(&mut self) {
        for worker in &mut self.unresolved {
            for _ in 0..RESOLVE_REQUESTS {
                let Ok(next_hop) = worker.pop() else { break };
                self.companions.resolve(&mut self.mirror, next_hop);
            }
        }
    }

    /// Whether something that flows needed is needed no more.
    fn update_statistics(&mut self) -> bool {
        let workers = self.workers.len();
        for (at, port) in self.ports.iter_mut().enumerate() {
            let link_up = known_link(&port.port);
            self.companions.link_is(at, link_up);
            let announced = self.companions.announced(at);
            self.statistics.set_port(workers, at, &port.port, link_up, announced, &self.mempool);
            port.watch_rss(at, workers, &mut self.statistics);
        }
        let turns = (0..self.workers.len()).map(|worker| self.statistics.turns(worker));
        match self.watch.look(turns, Instant::now()) {
            Found::Turning => self.statistics.writer.beat(SystemTime::now()),
            Found::Hanging => {} // a heart that does not beat is seen from outside
            Found::Lost => process::abort(), // to end well needs the worker
        }
        let now = self.clock.now();
        self.publisher.all_passed() && self.translator.release_unused(&mut self.statistics, now)
    }

    fn shut_down(self) {
        info!("stopping: workers finish their burst, ports are stopped");
        end(&self.stop, self.workers, self.helpers);
        let mut queues: Vec<_> = self.ports.iter().map(|_| (Vec::new(), Vec::new())).collect();
        for returned in self.queues.try_iter() {
            for (port, (rx, tx)) in returned.into_iter().zip(&mut queues) {
                rx.extend(port.rx);
                if let Transmit::Queue(queue) = port.tx {
                    tx.push(queue);
                }
            }
        }
        for (port, (rx, tx)) in self.ports.into_iter().zip(queues) {
            if let Err(error) = port.port.stop(rx, tx) {
                warn!(port = port.name, %error, "the port did not stop well");
            }
        }
        drop((self.companions, self.mempool));
        match self.eal.cleanup() {
            Ok(()) => info!("stopped"),
            Err(error) => warn!(%error, "EAL was not cleaned up"),
        }
    }
}

/// Tells every thread to end, and waits: what they use must outlive them.
pub fn end(stop: &AtomicBool, workers: Vec<Running>, helpers: Vec<JoinHandle<()>>) {
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        if let Err(error) = worker.join() {
            warn!(%error, "a worker did not end well");
        }
    }
    for helper in helpers {
        let name = helper.thread().name().unwrap_or_default().to_owned();
        if helper.join().is_err() {
            warn!(thread = name, "a thread did not end well");
        }
    }
}
