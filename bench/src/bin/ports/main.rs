//! `ports [FILTER]`: what the data plane forwards through ports of DPDK, beside DPDK's own forwarder.
//!
//! ```text
//!  memif   generator (a CPU) ── two rings ── penstock-dataplane, or testpmd 5tswap (another CPU)
//!  pcap    net_pcap, the same frames for ever ── penstock-dataplane, or testpmd 5tswap ── nowhere
//! ```
//! The data plane is the real program with one worker in full NAT, configured by the real control process.
//! Both forwarders are started anew each round, in turns, on the same CPU and the same PMD, with bursts of the same
//! size. A line a forwarder and one for the ratio: name, median of the rounds, spread (least to most), unit. A round's
//! rate is the median of its slices.
//!
//! | module        | what it is                                                              |
//! |---------------|-------------------------------------------------------------------------|
//! | [`frames`]    | the least TCP frames of so many flows                                   |
//! | [`generator`] | the other end of the memif, which sends them and counts what comes back |
//! | [`rig`]       | namespaces, processes, configuration                                    |
//!
//! On memif every connection is opened by a handshake, and then half the frames are the clients' and half
//! the backends'. After each round the data plane's own counters must say what the generator counted: so
//! many flows, every frame forwarded, none dropped. `net_pcap` cannot answer, so there the frames are
//! datagrams of clients.

mod frames;
mod generator;
mod rig;

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use penstock_forward::Protocol;
use penstock_forward::testing::TestPacket;
use penstock_forward::wire::tcp::{ACK, SYN};

use crate::frames::{Frames, Tuple, VIP};
use crate::generator::{Amount, Generator, Run};
use crate::rig::{ControlPlane, Outcome, Penstock, Testpmd};

/// Rounds of a bench: odd, for the median.
const ROUNDS: usize = 7;
/// How long a round is measured.
const ROUND: Duration = Duration::from_secs(1);
/// Of `net_pcap`, which is read out from afar. See `generator::SLICE`.
const PCAP_SLICE: Duration = Duration::from_millis(100);

type RunRound = fn(&mut Bench) -> Outcome<Round>;

fn main() -> ExitCode {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let mut bench = Bench { generator: None, control: None };
    let mut benches: Vec<(&str, RunRound)> = vec![
        ("ports/memif/64B/64_flows", |bench| bench.memif(64)),
        ("ports/memif/64B/1M_flows", |bench| bench.memif(1 << 20)),
        ("ports/pcap/64B/64_flows", |bench| bench.pcap(64)),
    ];
    benches.retain(|(name, _)| name.contains(&filter));
    if benches.is_empty() {
        return ExitCode::SUCCESS;
    }
    let run = || -> Outcome<()> {
        if let Some(reason) = rig::missing() {
            return say(&format!("# ports: skipped: {reason}"));
        }
        if rig::is_isolated()? {
            rig::prepare()?;
            for (name, round) in benches {
                report(name, || round(&mut bench))?;
            }
        }
        Ok(())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ports: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What a round came to.
struct Round {
    penstock: f64,
    testpmd: f64,
    /// TSC cycles a packet of the data plane's turns that moved any: its own work and the PMD's.
    cycles: f64,
    /// The share of its time that the generator waited for each of them, if there is a generator.
    waited: Option<[f64; 2]>,
}

fn report(name: &str, mut round: impl FnMut() -> Outcome<Round>) -> Outcome<()> {
    let rounds: Vec<Round> = (0..ROUNDS).map(|_| round()).collect::<Outcome<_>>()?;
    let line = |what: &str, unit: &str, decimals: usize, value: &dyn Fn(&Round) -> Option<f64>| {
        let mut values: Vec<f64> = rounds.iter().filter_map(value).collect();
        values.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (values.first(), values.last()) else { return Ok(()) };
        let (name, median) = (format!("{name}/{what}"), values[values.len() / 2]);
        say(&format!(
            "{name:46} {median:7.decimals$}  ({least:.decimals$}-{most:.decimals$})  {unit}"
        ))
    };
    line("penstock", "Mpps", 2, &|round| Some(round.penstock / 1e6))?;
    line("5tswap", "Mpps", 2, &|round| Some(round.testpmd / 1e6))?;
    line("ratio", "of testpmd 5tswap", 3, &|round| Some(round.penstock / round.testpmd))?;
    line("cycles/penstock", "TSC cycles a packet", 1, &|round| Some(round.cycles))?;
    line("waited/penstock", "% of the generator's time", 1, &|round| {
        Some(round.waited?[0] * 100.0)
    })?;
    line("waited/5tswap", "% of the generator's time", 1, &|round| Some(round.waited?[1] * 100.0))
}

fn say(line: &str) -> Outcome<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// What outlives a round.
struct Bench {
    generator: Option<Generator>,
    control: Option<ControlPlane>,
}

impl Bench {
    /// Both forwarders on a memif, `flows` connections.
    fn memif(&mut self, flows: u32) -> Outcome<Round> {
        let (cpu, other) = rig::two_cpus()?;
        let generator = match self.generator.take() {
            Some(generator) => generator,
            None => Generator::start(rig::MEMIF_SOCKET, other)?,
        };
        let generator = self.generator.insert(generator);
        let device = format!(
            "net_memif0,role=client,id=0,socket={},socket-abstract=no,mac={:?}",
            rig::MEMIF_SOCKET,
            rig::BOX
        );
        let connected = "the forwarder is connected to the generator";
        let testpmd = {
            let _testpmd = Testpmd::start(&device, cpu, other)?;
            rig::until(connected, || generator.is_connected())?;
            let keys = open_connections(generator, flows)?;
            generator.run(Frames::new(rig::BOX, ACK, &keys), Amount::For(ROUND), false)?
        };
        rig::until("the generator is alone again", || !generator.is_connected())?;
        let penstock = Penstock::start(&device, rig::BOX, cpu, &mut self.control)?;
        rig::until(connected, || generator.is_connected())?;
        let measured = measure_penstock(&penstock, generator, flows);
        let (run, cycles) = measured.map_err(|error| penstock.explain(&error))?;
        drop(penstock);
        rig::until("the generator is alone again", || !generator.is_connected())?;
        Ok(Round {
            penstock: run.rate,
            testpmd: testpmd.rate,
            cycles,
            waited: Some([run.waited, testpmd.waited]),
        })
    }

    /// Both forwarders on a file of one datagram for each of `flows`, read round and round.
    fn pcap(&mut self, flows: u32) -> Outcome<Round> {
        let (cpu, other) = rig::two_cpus()?;
        fs::write(rig::CAPTURE, capture(flows))?;
        let device = format!("net_pcap0,rx_pcap={},infinite_rx=1", rig::CAPTURE);
        let testpmd = {
            let mut testpmd = Testpmd::start(&device, cpu, other)?;
            testpmd.received_rate()?; // forwarding has begun
            std::thread::sleep(PCAP_SLICE);
            testpmd.received_rate()?; // and from here on is counted
            median_of_slices(|| {
                std::thread::sleep(PCAP_SLICE);
                testpmd.received_rate()
            })?
        };
        let penstock = Penstock::start(&device, rig::PCAP_BOX, cpu, &mut self.control)?;
        let received = || (Instant::now(), penstock.counted("workers", "received"));
        let mut dropped = 0;
        rig::until("each flow is in the table, and nothing is dropped", || {
            let before = std::mem::replace(&mut dropped, penstock.counted("drops", "packets"));
            penstock.counted("workers", "flows") == u64::from(flows) && dropped == before
        })
        .map_err(|error| penstock.explain(&error))?;
        let (mut before, work) = (received(), Work::of(&penstock));
        let rate = median_of_slices(|| {
            std::thread::sleep(PCAP_SLICE);
            let now = received();
            let (then, packets) = std::mem::replace(&mut before, now);
            Ok((now.1 - packets) as f64 / (now.0 - then).as_secs_f64())
        })?;
        let more = penstock.counted("drops", "packets") - dropped;
        if more > 0 {
            return Err(penstock.explain(&format!("{more} packets were dropped in the round")));
        }
        let cycles = Work::of(&penstock).cycles_since(&work);
        Ok(Round { penstock: rate, testpmd, cycles, waited: None })
    }
}

fn median_of_slices(mut slice: impl FnMut() -> Outcome<f64>) -> Outcome<f64> {
    let slices = ROUND.as_millis() / PCAP_SLICE.as_millis();
    let mut rates: Vec<f64> = (0..=slices).map(|_| slice()).collect::<Outcome<_>>()?;
    rates.sort_by(f64::total_cmp);
    Ok(rates[rates.len() / 2])
}

/// Opens so many connections by their handshakes. The tuples of their packets, clients' and backends', in
/// the order to send them.
fn open_connections(generator: &Generator, flows: u32) -> Outcome<Vec<Tuple>> {
    let clients: Vec<Tuple> = (0..flows).map(Tuple::of_client).collect();
    let once = |flags, tuples: &[Tuple], answers| {
        generator.run(Frames::new(rig::BOX, flags, tuples), Amount::Once, answers)
    };
    let mut backends = once(SYN, &clients, true)?.answers;
    backends.sort_unstable();
    backends.dedup();
    if backends.len() != clients.len() {
        let (opened, distinct) = (clients.len(), backends.len());
        return Err(format!(
            "{opened} connections opened, {distinct} came to a backend sound and distinct"
        )
        .into());
    }
    once(SYN | ACK, &backends, false)?;
    once(ACK, &clients, false)?;
    let mut tuples = [clients, backends].concat();
    frames::shuffle(&mut tuples);
    Ok(tuples)
}

/// What the worker has done.
struct Work {
    packets: u64,
    cycles: u64,
}

impl Work {
    fn of(penstock: &Penstock) -> Self {
        let [packets, cycles] =
            ["busy_packets", "busy_cycles"].map(|column| penstock.counted("workers", column));
        Self { packets, cycles }
    }

    fn cycles_since(&self, earlier: &Self) -> f64 {
        (self.cycles - earlier.cycles) as f64 / (self.packets - earlier.packets).max(1) as f64
    }
}

/// A round of the data plane, whose counters must agree with the generator's, and the cycles a packet took it.
fn measure_penstock(penstock: &Penstock, generator: &Generator, flows: u32) -> Outcome<(Run, f64)> {
    let keys = open_connections(generator, flows)?;
    let (before, work) = (count(penstock), Work::of(penstock));
    let run = generator.run(Frames::new(rig::BOX, ACK, &keys), Amount::For(ROUND), false)?;
    let (after, cycles) = (count(penstock), Work::of(penstock).cycles_since(&work));
    let expected = Counted {
        flows: flows.into(),
        opened: flows.into(),
        received: before.received + run.sent,
        forwarded: before.forwarded + run.returned,
        hits: before.hits + run.sent,
        dropped: before.dropped, // what is announced before the link is up
    };
    if after == expected {
        Ok((run, cycles))
    } else {
        Err(format!("the data plane counted {after:?}, not {expected:?}").into())
    }
}

/// What the data plane says of its work.
#[derive(Debug, PartialEq)]
struct Counted {
    flows: u64,
    opened: u64,
    received: u64,
    forwarded: u64,
    hits: u64,
    dropped: u64,
}

fn count(penstock: &Penstock) -> Counted {
    let worker = |column| penstock.counted("workers", column);
    Counted {
        flows: worker("flows"),
        opened: worker("flows_new"),
        received: worker("received"),
        forwarded: worker("sent"),
        hits: worker("flow_hits"),
        dropped: penstock.counted("drops", "packets"),
    }
}

/// A file for `net_pcap` (libpcap's classic format) of one datagram a flow, of the same length as the
/// generator's frames.
fn capture(flows: u32) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, 1_u32] {
        file.extend(word.to_le_bytes());
    }
    for n in 0..flows {
        let client = SocketAddr::from(([100, 64, 0, 1], 20_000 + n as u16));
        let packet = TestPacket::between(client, VIP.into(), Protocol::Udp);
        let frame = packet.carrying(&[0; 18]).to_mac(rig::PCAP_BOX).bytes();
        file.extend([0; 8]);
        for len in [frame.len() as u32; 2] {
            file.extend(len.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}
