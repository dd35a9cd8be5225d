//! Everything that can fail, in order, before the first packet: statistics, feed, EAL, ports,
//! companions, memory, threads. What fails says why, and nothing half-started is left running.

use std::{
    error::Error,
    fs,
    sync::{Arc, atomic::AtomicBool, mpsc},
};

use arc_swap::Cache;
use penstock_dpdk::{
    ConfiguredPort, Eal, Lcore, Mempool, MempoolConfig, Port, PortConfig, RssConfig, Running,
    RxQueue, TxQueue, UnconfiguredPort,
};
use penstock_feed::{Server, StateFile};
use penstock_forward::{
    self as forward, CacheLine, FlowCapacity, FlowMemory, Forwarder, MacAddr, NextHopKey, Timeouts,
    WorkerIdx,
};
use rtrb::{Consumer, RingBuffer};
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing::{info, warn};
use zerocopy::FromBytes;

use crate::{
    clock::Clock,
    companions::{CompanionFacts, Companions},
    config::{self, Config},
    eal,
    exception::{Companion, ExceptionPath, PuntOutbox},
    handover::HandOver,
    hold::Hold,
    idle::Rest,
    inspect::{self, Desk, Inspector},
    kernel::{self, Attachment, Mirror},
    lcore::{Path as WorkerPath, Worker, WorkerPort},
    main_lcore::{self, MainLcore, StartedPort},
    memory,
    pieces::Pieces,
    published::Publisher,
    snapshot::Translator,
    statistics::Statistics,
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
        listeners = server.state().listeners.len(),
        "last committed configuration"
    );

    let mut eal = Eal::init(&eal::arguments(&config))?;
    let mempool = make_mempool(&eal, &config)?;
    let mut ports = Vec::new();
    let mut available = eal.ports();
    for port in &config.ports {
        ports.push(start_port(port, &mut available, &mempool, &config)?);
    }
    Start { config, statistics, server, mempool, terminate, stop: Arc::default() }
        .launch(eal, ports)
}

/// What has been made so far.
struct Start {
    config: Config,
    statistics: Statistics,
    server: Server,
    mempool: Mempool,
    terminate: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

/// A port that runs, with its queues in order, before they are given out.
struct RunningPort {
    port: Port,
    mac: MacAddr,
    rx: Vec<RxQueue>,
    tx: Vec<TxQueue>,
}

/// The workers with all they need but an lcore, and the other ends of what they hold.
#[derive(Default)]
struct Crew {
    workers: Vec<Worker>,
    unresolved: Vec<Consumer<NextHopKey>>,
    desks: Vec<Desk>,
}

impl Start {
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
        let mut wiring = Wiring::new(workers);
        let (mut started, mut taps, mut facts, mut names) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (at, (running, port)) in ports.into_iter().zip(&self.config.ports).enumerate() {
            let mac = kernel::MacAddr(running.mac.0);
            let attachment = Attachment::open(&port.companion, mac, port.mtu_bytes.into())?;
            let (to_port, own_frames) = RingBuffer::new(OWN_FRAMES);
            facts.push(CompanionFacts { mac, to_port });
            names.push((at as u16, port.companion.clone()));
            let (companion, outboxes, from_kernel) = Companion::new(attachment, workers);
            taps.push(companion);
            started.push(StartedPort { name: port.name.clone(), port: running.port });
            wiring.port(port, running.rx, running.tx, outboxes, [own_frames, from_kernel])?;
        }
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
        self.label_ports(&started)?;
        // From here on threads run that a failure has to end.
        let mut helpers = vec![exception.start(Arc::clone(&self.stop))?];
        match inspector.start(Arc::clone(&self.stop)) {
            Ok(inspector) => helpers.push(inspector),
            Err(error) => {
                main_lcore::end(&self.stop, Vec::new(), helpers);
                return Err(error.into());
            }
        }
        let (returned, queues) = mpsc::channel();
        let launch =
            |(lcore, worker)| launch(lcore, worker, Arc::clone(&self.stop), returned.clone());
        let running = match start_all(lcores.into_iter().zip(workers), launch) {
            Ok(running) => running,
            Err((error, running)) => {
                main_lcore::end(&self.stop, running, helpers);
                return Err(error.into());
            }
        };
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
            workers: running,
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
        ))
    }

    fn label_ports(&mut self, ports: &[StartedPort]) -> Result<(), Failed> {
        for (row, (port, config)) in ports.iter().zip(&self.config.ports).enumerate() {
            let mac = config.mac.map_or_else(|| port.port.mac(), Ok)?;
            let mac = kernel::MacAddr(mac).to_string();
            let label = [
                ("name", port.name.as_str()),
                ("device", port.port.name()),
                ("driver", port.port.driver()),
                ("mac", &mac),
                ("companion", &config.companion),
            ];
            self.statistics.writer.set_label("ports", row, &label)?;
        }
        Ok(())
    }
}

fn launch(
    lcore: Lcore,
    worker: Worker,
    stop: Arc<AtomicBool>,
    returned: mpsc::Sender<Vec<WorkerPort>>,
) -> Result<Running, penstock_dpdk::LaunchError> {
    lcore.launch(move || {
        let ports = worker.run(&stop);
        let _ = returned.send(ports); // nobody waits for them if the main thread is gone
    })
}

/// Starts one after the other; if one cannot be started, gives those back that run.
fn start_all<J, R, E>(
    jobs: impl IntoIterator<Item = J>,
    mut start: impl FnMut(J) -> Result<R, E>,
) -> Result<Vec<R>, (E, Vec<R>)> {
    let mut running = Vec::new();
    for job in jobs {
        match start(job) {
            Ok(started) => running.push(started),
            Err(error) => return Err((error, running)),
        }
    }
    Ok(running)
}

/// Queues and rings on their way to the workers.
struct Wiring {
    workers: Vec<Vec<WorkerPort>>,
}

impl Wiring {
    fn new(workers: usize) -> Self {
        Self { workers: (0..workers).map(|_| Vec::new()).collect() }
    }

    /// Gives worker `i` the port's receive queue `i` and transmit queue `i + offset`; frames of
    /// ours and of the kernel go to the first worker.
    fn port(
        &mut self,
        config: &config::PortConfig,
        rx: Vec<RxQueue>,
        mut tx: Vec<TxQueue>,
        outboxes: Vec<PuntOutbox>,
        to_send: [Consumer<penstock_dpdk::Mbuf>; 2],
    ) -> Result<(), Failed> {
        let workers = self.workers.len();
        if rx.len() != workers || tx.len() != workers {
            return Err(
                format!("port {}: {} queues for {workers} workers", config.name, rx.len()).into()
            );
        }
        tx.rotate_left(usize::from(config.transmit_queue_offset) % workers);
        let mut to_send = Some(Vec::from(to_send));
        for (worker, ((rx, tx), punt)) in
            self.workers.iter_mut().zip(rx.into_iter().zip(tx).zip(outboxes))
        {
            let to_send = to_send.take().unwrap_or_default();
            worker.push(WorkerPort::new(rx, tx, punt, to_send));
        }
        Ok(())
    }
}

fn make_mempool(eal: &Eal, config: &Config) -> Result<Mempool, Failed> {
    let longest = config.ports.iter().map(|port| port.mtu_bytes).max().unwrap_or(1500);
    let data_room = (longest + FRAME_OVERHEAD_BYTES).max(2048);
    let wanted =
        MempoolConfig { mbufs: config.memory.mbufs, cache: LCORE_CACHE, data_room, socket: None };
    Ok(Mempool::new(eal, "packets", &wanted)?)
}

fn start_port(
    config: &config::PortConfig,
    available: &mut Vec<UnconfiguredPort>,
    mempool: &Mempool,
    whole: &Config,
) -> Result<RunningPort, Failed> {
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
    let workers = whole.workers.count as u16;
    let in_software = port.driver() == "net_tap";
    let own_mac = port.mac()?;
    let mac = config.mac.unwrap_or(own_mac);
    let wanted = PortConfig {
        rx_queues: workers,
        tx_queues: workers,
        rx_descriptors: config.descriptors,
        tx_descriptors: config.descriptors,
        mtu: Some(config.mtu_bytes),
        rss: (workers > 1).then(RssConfig::default),
        promiscuous: mac != own_mac && !in_software, // a TAP shows every frame anyway
        all_multicast: !in_software,
        rx_checksums: !in_software, // and would compute on our own time

        vlan_strip: false,
    };
    let driver = port.driver().to_owned();
    let configured: ConfiguredPort = port.configure(&wanted, mempool)?;
    info!(port = config.name, device, driver, granted = ?configured.granted(), "port configured");
    let (port, rx, tx) = configured.start()?;
    if !port.link()?.up {
        warn!(port = config.name, "the link is down");
    }
    Ok(RunningPort { port, mac: MacAddr(mac), rx, tx })
}

fn forward_port((running, config): (&RunningPort, &config::PortConfig)) -> forward::PortConfig {
    forward::PortConfig { mac: running.mac, vlan: None, mtu: config.mtu_bytes }
}

fn empty_snapshot() -> forward::Snapshot {
    let empty = forward::SnapshotBuilder::new().build(1);
    empty.unwrap_or_else(|error| unreachable!("nothing in it can conflict: {error}"))
}

fn random_secret() -> Result<[u8; 32], Failed> {
    let mut secret = [0; 32];
    let got = rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())?;
    if got == secret.len() {
        Ok(secret)
    } else {
        Err("the kernel gave too little randomness".into())
    }
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
        let start = |job: u32| if job == 3 { Err("no lcore") } else { Ok(job * 10) };
        assert_eq!(start_all([1, 2, 4], start), Ok(vec![10, 20, 40]));
        assert_eq!(start_all([1, 2, 3, 4], start), Err(("no lcore", vec![10, 20])));
        assert_eq!(start_all([3], start), Err(("no lcore", vec![])));
    }
}
