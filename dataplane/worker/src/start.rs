//! Everything that can fail, in order, before the first packet: statistics, feed, EAL, ports,
//! companions, memory, threads. What fails says why, and nothing half-started is left running.

use std::{
    collections::HashMap,
    error::Error,
    fs,
    sync::{Arc, atomic::AtomicBool, mpsc},
    thread::JoinHandle,
};

use arc_swap::Cache;
use penstock_dpdk::{
    Capabilities, ConfiguredPort, Eal, Lcore, MbufBurst, Mempool, MempoolConfig, Port, PortConfig,
    RssConfig, RssHash, Running, RxQueue, TxQueue, UnconfiguredPort,
};
use penstock_feed::{Server, StateFile};
use penstock_forward::{
    self as forward, CacheLine, FlowCapacity, FlowMemory, Forwarder, MacAddr, NextHopKey, Timeouts,
    WorkerIdx,
};
use rtrb::{Consumer, RingBuffer};
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing::{debug, info, warn};
use zerocopy::FromBytes;

use crate::{
    clock::Clock,
    companions::{CompanionFacts, Companions},
    config::{self, Config, Receive},
    eal,
    edge::{self, Edge},
    exception::{Companion, ExceptionPath, PuntOutbox},
    handover::HandOver,
    hold::Hold,
    idle::Rest,
    inspect::{self, Desk, Inspector},
    kernel::{self, Attachment, Mirror},
    lcore::Worker,
    main_lcore::{self, MainLcore, StartedPort},
    memory,
    path::{Path as WorkerPath, Transmit, WorkerPort},
    pieces::Pieces,
    published::Publisher,
    receive::{self, Drawn, Found, Manner, Queues, Reception, Taken},
    snapshot::Translator,
    statistics::{PortArrivals, Statistics},
    watch::Watch,
};

/// Requests for next hops that wait for the main lcore, a worker.
const UNRESOLVED_REQUESTS: usize = 256;
/// Frames of ours (announcements) on their way to a port.
const OWN_FRAMES: usize = 64;
/// Mbufs an lcore keeps for itself.
const LCORE_CACHE: u32 = 256;
/// Ethernet header, two VLAN tags, FCS, beside the MTU.
const FRAME_OVERHEAD_BYTES: u16 = 14 + 2 * 4 + 4;

type Failed = Box<dyn Error>;

/// Starts everything; the result is the main thread's loop.
///
/// # Errors
/// The first thing that failed, in words for the operator.
pub fn start(config: Config) -> Result<MainLcore, Failed> {
    let terminate = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&terminate))?;
    }
    fs::create_dir_all(&config.paths.state).map_err(|error| {
        format!("{}: {error}; make it writable for this user", config.paths.state.display())
    })?;
    let statistics = Statistics::create(&config.paths.run.join("dataplane.stats"), &config)?;
    let state_file = StateFile::open(config.paths.state.join("state"))?;
    let own_user = rustix::process::getuid().as_raw();
    let feed_users = [config.feed_users.as_slice(), &[0, own_user]].concat();
    let server = Server::bind(&config.paths.run.join("dataplane.sock"), &feed_users, state_file)?;
    info!(
        generation = server.generation(),
        listeners = server.state().listeners.size(),
        "last committed configuration"
    );

    let mut eal = Eal::init(&eal::arguments(&config))?;
    let mempool = make_mempool(&eal, &config)?;
    let mut available = eal.ports();
    let chosen = config.ports.iter().enumerate();
    let chosen = chosen.map(|(at, port)| choose_port(at, port, &mut available, &config));
    let chosen = chosen.collect::<Result<Vec<_>, _>>()?;
    let drawn = draw_rss(&chosen, config.workers.count)?;
    let mut ports = Vec::new();
    for (port, wanted) in chosen.into_iter().zip(&config.ports) {
        ports.push(start_port(port, wanted, drawn.as_ref(), &mempool)?);
    }
    let found = receive_by(&mut ports, drawn.as_ref(), &config)?;
    Start { config, statistics, server, mempool, found, terminate, stop: Arc::default() }
        .launch(eal, ports)
}

/// What has been made so far.
struct Start {
    config: Config,
    statistics: Statistics,
    server: Server,
    mempool: Mempool,
    found: Found,
    terminate: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

/// A port of the configuration, found.
struct ChosenPort {
    port: UnconfiguredPort,
    can: Capabilities,
    queues: Queues,
}

/// A port that runs, with its queues in order, before they are given out.
struct RunningPort {
    port: Port,
    mac: MacAddr,
    edge: Edge,
    rx: Vec<RxQueue>,
    tx: Vec<TxQueue>,
    queues: Queues,
    /// What it said of its RSS.
    taken: Option<Taken>,
    reception: Reception,
}

/// The ports with their companions, before their ends are given to the workers.
struct OpenedPorts {
    wiring: Wiring,
    started: Vec<StartedPort>,
    taps: Vec<Companion>,
    facts: Vec<CompanionFacts>,
    names: Vec<(u16, String)>,
}

/// The workers with all they need but an lcore, and the other ends of what they hold.
#[derive(Default)]
struct Crew {
    workers: Vec<Worker>,
    unresolved: Vec<Consumer<NextHopKey>>,
    desks: Vec<Desk>,
}

impl Start {
    /// Gives each port its companion and each worker its ends of it.
    fn open(&self, ports: Vec<RunningPort>) -> Result<OpenedPorts, Failed> {
        let workers = self.config.workers.count;
        let mut opened = OpenedPorts {
            wiring: Wiring::new(workers),
            started: Vec::new(),
            taps: Vec::new(),
            facts: Vec::new(),
            names: Vec::new(),
        };
        for (at, (running, port)) in ports.into_iter().zip(&self.config.ports).enumerate() {
            let RunningPort { port: device, mac, edge, rx, tx, queues, reception, .. } = running;
            let mac = kernel::MacAddr(mac.0);
            let attachment = Attachment::open(&port.companion, mac, port.mtu_bytes.into())?;
            let (to_port, own_frames) = RingBuffer::new(OWN_FRAMES);
            opened.facts.push(CompanionFacts { mac, to_port });
            opened.names.push((at as u16, port.companion.clone()));
            let (companion, outboxes, from_kernel) = Companion::new(attachment, workers);
            opened.taps.push(companion);
            let ends = PortEnds {
                rx,
                tx,
                queues,
                offset: port.transmit_queue_offset,
                edge,
                outboxes,
                to_send: vec![own_frames, from_kernel],
                reception: reception.clone(),
            };
            opened.wiring.port(ends, |worker| self.statistics.arrivals(worker, at));
            opened.started.push(StartedPort::new(port, device, reception, mac));
        }
        Ok(opened)
    }

    fn launch(mut self, mut eal: Eal, ports: Vec<RunningPort>) -> Result<MainLcore, Failed> {
        let workers = self.config.workers.count;
        let forward_ports: Vec<_> =
            ports.iter().zip(&self.config.ports).map(forward_port).collect();
        let translator = Translator::new(
            forward_ports,
            self.config.snat.clone(),
            self.config.icmp,
            timeouts(&self.config),
            workers,
        );
        let OpenedPorts { wiring, started, taps, facts, names } = self.open(ports)?;
        let mirror = Mirror::open(&names)?;
        let companions = Companions::new(facts, self.mempool.clone())?;
        let publisher = Publisher::new(empty_snapshot(), workers);
        let exception = ExceptionPath {
            companions: taps,
            mempool: self.mempool.clone(),
            drops: self.statistics.drops(workers),
            punts: self.statistics.punts(),
        };
        let Crew { workers, unresolved, desks } = self.crew(&eal, wiring, &publisher)?;
        let clock = Clock::new(eal.tsc_hz());
        let inspector = Inspector::open(&self.config.paths.run, desks, clock)?;
        let lcores = eal.lcores();
        if lcores.len() < workers.len() {
            let (lcores, workers) = (lcores.len(), workers.len());
            return Err(format!("EAL made {lcores} lcores for {workers} workers").into());
        }
        for (row, port) in started.iter().enumerate() {
            port.label(row, &mut self.statistics);
        }
        let crew = lcores.into_iter().zip(workers);
        let Threads { helpers, workers, queues } =
            Threads::start(exception, inspector, crew, &self.stop)?;
        Ok(MainLcore {
            eal,
            mempool: self.mempool,
            ports: started,
            queues,
            server: self.server,
            mirror,
            companions,
            translator,
            publisher,
            statistics: self.statistics,
            clock,
            unresolved,
            workers,
            watch: Watch::default(),
            helpers,
            stop: self.stop,
            terminate: self.terminate,
        })
    }

    fn crew(&self, eal: &Eal, wiring: Wiring, publisher: &Publisher) -> Result<Crew, Failed> {
        let secret = random_secret()?;
        let clock = Clock::new(eal.tsc_hz());
        let mut crew = Crew::default();
        let handovers = HandOver::between(self.config.workers.count);
        for (at, (ports, handover)) in wiring.workers.into_iter().zip(handovers).enumerate() {
            let (asks, asked) = RingBuffer::new(UNRESOLVED_REQUESTS);
            crew.unresolved.push(asked);
            let (desk, probe, tracer) = inspect::desk_and_probe();
            crew.desks.push(desk);
            crew.workers.push(Worker {
                published: Cache::new(publisher.root()),
                passed: publisher.progress(at),
                forwarder: self.forwarder(at, secret)?,
                path: WorkerPath {
                    ports,
                    handover,
                    hold: Hold::new(),
                    pieces: Pieces::new(),
                    unresolved: asks,
                    mempool: self.mempool.clone(),
                    tracer,
                    drops: self.statistics.drops(at),
                    activity: self.statistics.activity(at),
                },
                clock,
                probe,
                rest: Rest::new(self.config.workers.idle),
            });
        }
        Ok(crew)
    }

    fn forwarder(&self, at: usize, secret: [u8; 32]) -> Result<Forwarder<'static>, Failed> {
        let flows = &self.config.flows;
        let capacity = FlowCapacity {
            flows: flows.capacity as usize,
            ipv6: flows.ipv6_capacity as usize,
            half_open: flows.half_open_capacity as usize,
            one_way: flows.udp_one_way_capacity as usize,
        };
        let bytes = FlowMemory::bytes_for(capacity);
        let memory =
            memory::take(self.config.memory.hugepages.as_deref(), &format!("flows.{at}"), bytes)?;
        let lines = <[CacheLine]>::mut_from_bytes(memory)
            .map_err(|error| format!("flow memory: {error}"))?;
        let flows = FlowMemory::new(lines, capacity)?;
        let workers = self.config.workers.count as u8; // at most MAX_WORKERS
        Ok(Forwarder::new(
            WorkerIdx(at as u8),
            workers,
            secret,
            flows,
            self.statistics.counters(at),
        )
        .with_spread(self.found.spread.clone()))
    }
}

/// The threads beside the main one.
struct Threads {
    helpers: Vec<JoinHandle<()>>,
    workers: Vec<Running>,
    /// Where workers that end put their ends of the ports.
    queues: mpsc::Receiver<Vec<WorkerPort>>,
}

impl Threads {
    /// Starts all of them; if one cannot be started, ends those that run.
    fn start(
        exception: ExceptionPath,
        inspector: Inspector,
        crew: impl Iterator<Item = (Lcore, Worker)>,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self, Failed> {
        let (returned, queues) = mpsc::channel();
        let mut threads = Self { helpers: Vec::new(), workers: Vec::new(), queues };
        match threads.start_each(exception, inspector, crew, &returned, stop) {
            Ok(()) => Ok(threads),
            Err(error) => {
                main_lcore::end(stop, threads.workers, threads.helpers);
                Err(error)
            }
        }
    }

    fn start_each(
        &mut self,
        exception: ExceptionPath,
        inspector: Inspector,
        crew: impl Iterator<Item = (Lcore, Worker)>,
        returned: &mpsc::Sender<Vec<WorkerPort>>,
        stop: &Arc<AtomicBool>,
    ) -> Result<(), Failed> {
        self.helpers.push(exception.start(Arc::clone(stop))?);
        self.helpers.push(inspector.start(Arc::clone(stop))?);
        let launched = start_all(&mut self.workers, crew, |(lcore, worker)| {
            let (stop, returned) = (Arc::clone(stop), returned.clone());
            lcore.launch(move || {
                let ports = worker.run(&stop);
                let _ = returned.send(ports); // nobody waits for them if the main thread is gone
            })
        });
        Ok(launched?)
    }
}

/// Starts one after the other, as long as they can be started; those that run are `running`.
fn start_all<J, R, E>(
    running: &mut Vec<R>,
    jobs: impl IntoIterator<Item = J>,
    mut start: impl FnMut(J) -> Result<R, E>,
) -> Result<(), E> {
    for job in jobs {
        running.push(start(job)?);
    }
    Ok(())
}

/// Queues and rings on their way to the workers.
struct Wiring {
    workers: Vec<Vec<WorkerPort>>,
}

/// A port's ends before they are given out.
struct PortEnds {
    rx: Vec<RxQueue>,
    tx: Vec<TxQueue>,
    queues: Queues,
    offset: u16,
    edge: Edge,
    outboxes: Vec<PuntOutbox>,
    to_send: Vec<Consumer<penstock_dpdk::Mbuf>>,
    reception: Reception,
}

impl Wiring {
    fn new(workers: usize) -> Self {
        Self { workers: (0..workers).map(|_| Vec::new()).collect() }
    }

    /// Gives each worker its queues of a port. Frames of ours and of the kernel go to the worker of the first.
    fn port(&mut self, ends: PortEnds, arrivals: impl Fn(usize) -> PortArrivals) {
        let PortEnds { rx, mut tx, queues, offset, edge, outboxes, to_send, reception } = ends;
        let count = tx.len().max(1);
        tx.rotate_left(usize::from(offset) % count);
        let (mut rx, mut tx) = (by_worker(rx, queues), by_worker(tx, queues));
        let mut to_send = Some(to_send);
        for ((at, worker), punt) in self.workers.iter_mut().enumerate().zip(outboxes) {
            let sends_for_all = at == queues.worker_of(0);
            worker.push(WorkerPort {
                rx: rx.remove(&at),
                tx: match tx.remove(&at) {
                    Some(queue) => Transmit::Queue(queue),
                    None => Transmit::Through(queues.sender_for(at)),
                },
                sending: MbufBurst::new(),
                edge,
                punt,
                to_send: to_send.take_if(|_| sends_for_all).unwrap_or_default(),
                reception: reception.clone(),
                arrivals: arrivals(at),
            });
        }
    }
}

fn by_worker<Q>(all: Vec<Q>, queues: Queues) -> HashMap<usize, Q> {
    all.into_iter().enumerate().map(|(at, queue)| (queues.worker_of(at), queue)).collect()
}

fn make_mempool(eal: &Eal, config: &Config) -> Result<Mempool, Failed> {
    let longest = config.ports.iter().map(|port| port.mtu_bytes).max().unwrap_or(1500);
    // NICs fill buffers of whole KiB, and one of them holds every frame.
    let data_room = (longest + FRAME_OVERHEAD_BYTES).next_multiple_of(1024).max(2048);
    let wanted =
        MempoolConfig { mbufs: config.memory.mbufs, cache: LCORE_CACHE, data_room, socket: None };
    Ok(Mempool::new(eal, "packets", &wanted)?)
}

/// Finds the device of a port, and what it can do for so many workers.
fn choose_port(
    at: usize,
    config: &config::PortConfig,
    available: &mut Vec<UnconfiguredPort>,
    whole: &Config,
) -> Result<ChosenPort, Failed> {
    let device = eal::device_name(config);
    let found = available.iter().position(|port| port.name() == device || port.device() == device);
    let Some(found) = found else {
        let names: Vec<&str> = available.iter().map(UnconfiguredPort::name).collect();
        return Err(format!(
            "port {}: EAL found no device {device}, only [{}]; is it bound to vfio-pci, and its driver installed?",
            config.name, names.join(", ")
        ).into());
    };
    let port = available.swap_remove(found);
    let can = port.capabilities()?;
    let queues = Queues::of(config, &can, port.driver(), at, whole.workers.count)?;
    Ok(ChosenPort { port, can, queues })
}

/// What all NICs are asked to do, if there is any to be asked.
fn draw_rss(ports: &[ChosenPort], workers: usize) -> Result<Option<Drawn>, Failed> {
    let asked = ports.iter().filter(|port| port.queues.for_all() && port.has_table());
    let shortest = asked.map(|port| port.can.rss_table_len).min();
    Drawn::draw(shortest, workers as u8, fill_randomly) // at most MAX_WORKERS
}

impl ChosenPort {
    fn has_table(&self) -> bool {
        self.queues.can_spread(&self.can) && self.can.rss_table_len > 0
    }
}

fn start_port(
    chosen: ChosenPort,
    config: &config::PortConfig,
    drawn: Option<&Drawn>,
    mempool: &Mempool,
) -> Result<RunningPort, Failed> {
    let drawn = drawn.filter(|_| chosen.queues.for_all() && chosen.has_table());
    let ChosenPort { port, can, queues } = chosen;
    let key = drawn.filter(|_| can.rss_key_bytes > 0).map(|drawn| drawn.key(can.rss_key_bytes));
    let rss = queues.can_spread(&can).then(|| RssConfig { hash: RssHash::default(), key });
    let in_software = port.driver() == "net_tap";
    let own_mac = port.mac()?;
    let mac = config.mac.unwrap_or(own_mac);
    let wanted = PortConfig {
        rx_queues: queues.rx,
        tx_queues: queues.tx,
        rx_descriptors: config.descriptors,
        tx_descriptors: config.descriptors,
        mtu: Some(config.mtu_bytes),
        rss,
        promiscuous: mac != own_mac && !in_software, // a TAP shows every frame anyway
        all_multicast: !in_software,
        rx_checksums: !in_software, // and would compute on our own time
        vlan_tags: config.tags.map(edge::for_nic),
    };
    let (device, driver) = (port.name().to_owned(), port.driver().to_owned());
    let configured: ConfiguredPort = port.configure(&wanted, mempool)?;
    info!(port = config.name, device, driver, granted = ?configured.granted(), "port configured");
    let edge = Edge::new(config.tags, configured.granted());
    let (mut port, rx, tx) = configured.start()?;
    if !port.link()?.up {
        warn!(port = config.name, "the link is down");
    }
    let taken = drawn.and_then(|drawn| drawn.give(&mut port, &can));
    let reception = Reception::new(queues.manner());
    Ok(RunningPort { port, mac: MacAddr(mac), edge, rx, tx, queues, taken, reception })
}

/// Settles how the packets of each port come to the workers.
fn receive_by(
    ports: &mut [RunningPort],
    drawn: Option<&Drawn>,
    config: &Config,
) -> Result<Found, Failed> {
    let workers = config.workers.count as u8; // at most MAX_WORKERS
    let taken: Vec<Option<Taken>> = ports.iter().map(|port| port.taken.clone()).collect();
    let found = receive::find(drawn, &taken, workers);
    for ((running, wanted), keeps) in ports.iter_mut().zip(&config.ports).zip(&found.keeps) {
        if let Some(hashed) = *keeps {
            running.reception = Reception::by_rss(hashed);
        } else if wanted.receive == Receive::Rss && workers > 1 {
            return Err(format!(
                "port {}: receive: rss, but it does not say that it hashes L4 ports by the key and table it was given; use receive: auto",
                wanted.name
            ).into());
        }
        let manner = running.reception.manner();
        if manner == Manner::Queues && found.spread.is_none() {
            let addresses = &config.snat.addresses;
            let (rules, end) = receive::steer::replies(&mut running.port, addresses, workers);
            let refused = end.err().map(|error| error.to_string());
            debug!(port = wanted.name, rules, refused, "rte_flow");
        }
        info!(port = wanted.name, receive = manner.name(), "how its packets come to the workers");
    }
    Ok(found)
}

fn forward_port((running, config): (&RunningPort, &config::PortConfig)) -> forward::PortConfig {
    forward::PortConfig { mac: running.mac, mtu: config.mtu_bytes }
}

fn empty_snapshot() -> forward::Snapshot {
    let empty = forward::SnapshotBuilder::new().build(1);
    empty.unwrap_or_else(|error| unreachable!("nothing in it can conflict: {error}"))
}

fn random_secret() -> Result<[u8; 32], Failed> {
    let mut secret = [0; 32];
    fill_randomly(&mut secret)?;
    Ok(secret)
}

/// At most 256 bytes, which the kernel gives at once or not at all.
fn fill_randomly(bytes: &mut [u8]) -> Result<(), Failed> {
    let got = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty())?;
    if got == bytes.len() { Ok(()) } else { Err("the kernel gave too little randomness".into()) }
}

fn timeouts(config: &Config) -> Timeouts {
    let wanted = &config.flows.timeouts;
    let defaults = Timeouts::default();
    let ms = |wanted: Option<std::time::Duration>, default: u32| {
        wanted.map_or(default, |wanted| u32::try_from(wanted.as_millis()).unwrap_or(u32::MAX))
    };
    Timeouts {
        tcp_half_open_ms: ms(wanted.tcp_half_open, defaults.tcp_half_open_ms),
        tcp_established_ms: ms(wanted.tcp_established, defaults.tcp_established_ms),
        tcp_closing_ms: ms(wanted.tcp_closing, defaults.tcp_closing_ms),
        tcp_reset_ms: ms(wanted.tcp_reset, defaults.tcp_reset_ms),
        udp_one_way_ms: ms(wanted.udp_one_way, defaults.udp_one_way_ms),
        udp_replied_ms: ms(wanted.udp_replied, defaults.udp_replied_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key of the file is the timeout of its state, and no other's.
    #[test]
    fn each_timeout_is_of_its_state() {
        use penstock_forward::FlowState;
        let text = "ports: [{ name: lan, device: net_null0, companion: pst0 }]\n\
             flows: { timeouts: { tcp-established: 1s, tcp-half-open: 2s, tcp-closing: 3s, \
             tcp-reset: 4s, udp-one-way: 5s, udp-replied: 6s } }";
        let timeouts = timeouts(&Config::parse("dataplane.yaml", text).unwrap());
        for (state, seconds) in [
            (FlowState::Established, 1),
            (FlowState::FinClient, 1),
            (FlowState::FinBackend, 1),
            (FlowState::SynSent, 2),
            (FlowState::SynAcked, 2),
            (FlowState::Closing, 3),
            (FlowState::Quarantine, 3),
            (FlowState::Reset, 4),
            (FlowState::Cut, 4),
            (FlowState::UdpOneWay, 5),
            (FlowState::UdpReplied, 6),
        ] {
            assert_eq!(timeouts.of(state), seconds * 1000, "{state:?}");
        }
    }
    #[test]
    fn what_runs_is_given_back_when_one_cannot_be_started() {
        let started = |jobs: &[u32]| {
            let mut running = Vec::new();
            let start = |job: &u32| if *job == 3 { Err("no lcore") } else { Ok(job * 10) };
            (start_all(&mut running, jobs, start), running)
        };
        assert_eq!(started(&[1, 2, 4]), (Ok(()), vec![10, 20, 40]));
        assert_eq!(started(&[1, 2, 3, 4]), (Err("no lcore"), vec![10, 20]));
        assert_eq!(started(&[3]), (Err("no lcore"), vec![]));
    }
}
