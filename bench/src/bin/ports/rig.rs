//! What a run needs of the machine, and the two forwarders: started, asked what they counted, stopped.
//!
//! All of it lives in namespaces of processes, mounts and network that end with the bench, however it
//! ends: no process, file, mount, hugepage or interface is left. Only the bench's own children are ever signalled.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use penstock_feed::stats::StatsReader;
use penstock_forward::{BURST, MacAddr};
use rustix::process::{Pid, Signal};

use crate::frames::VIP;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Under `/run`, which is a file system of our own.
pub(crate) const MEMIF_SOCKET: &str = "/run/ports/memif.sock";
pub(crate) const CAPTURE: &str = "/run/ports/flows.pcap";
const DIR: &str = "/run/ports";
/// EAL of the forwarder and of the generator, and the flow table, with room for rounding.
const HUGEPAGES_NEEDED: u64 = 328;
const FREE_HUGEPAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
/// Nothing takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(20);

/// The box's MAC, whichever forwarder plays it.
pub(crate) const BOX: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// `net_pcap` gives its first port this one, and takes no other.
pub(crate) const PCAP_BOX: MacAddr = MacAddr([2, 0x70, 0x63, 0x61, 0x70, 0]);

const BACKENDS: u8 = 16;
const SNAT_ADDRESSES: u8 = 8;
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Connections the flow table can hold: as many as the larger bench opens, in the part of it that one listener of two may
/// fill.
const CAPACITY: u32 = (1 << 20) + (1 << 18);

/// Why the bench cannot run here.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root, for hugepages and namespaces".into());
    }
    if cpus().len() < 2 {
        return Some("it needs two CPUs, one for the forwarder and one for the generator".into());
    }
    let free = fs::read_to_string(FREE_HUGEPAGES).unwrap_or_default();
    let free: u64 = free.trim().parse().unwrap_or(0);
    if free < HUGEPAGES_NEEDED {
        return Some(format!(
            "{free} hugepages of 2 MiB are free, {HUGEPAGES_NEEDED} are needed: raise vm.nr_hugepages"
        ));
    }
    let found = |dir: PathBuf| dir.join("dpdk-testpmd").exists();
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(found) {
        return Some("there is no dpdk-testpmd: run scripts/setup, or install dpdk-dev".into());
    }
    let programs = ["penstock-dataplane", "penstock-controlplane"].map(program);
    let absent = programs.iter().find(|program| !program.exists())?;
    Some(format!("{} is not built: scripts/bench builds it", absent.display()))
}

/// Built beside us.
fn program(name: &str) -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name(name)
}

/// The CPUs we may use.
fn cpus() -> Vec<usize> {
    let allowed = rustix::thread::sched_getaffinity(None);
    allowed.map_or_else(|_| Vec::new(), |set| (0..1024).filter(|cpu| set.is_set(*cpu)).collect())
}

/// The forwarder's CPU and the generator's.
pub(crate) fn two_cpus() -> Outcome<(usize, usize)> {
    match *cpus() {
        [forwarder, generator, ..] => Ok((forwarder, generator)),
        _ => Err("two CPUs are needed".into()),
    }
}

/// Goes on in namespaces of our own: true there, where we are process 1. Outside returns only if that is
/// not to be had.
pub(crate) fn is_isolated() -> Outcome<bool> {
    if std::process::id() == 1 {
        return Ok(true);
    }
    let flags = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let mut unshare = Command::new("unshare");
    Err(unshare
        .args(flags)
        .args([std::env::current_exe()?])
        .args(std::env::args_os().skip(1))
        .exec()
        .into())
}

/// Makes the file systems, and the network's first interface.
pub(crate) fn prepare() -> Outcome<()> {
    // Process 1 has no default action for signals, so it says what to do.
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let always = std::sync::Arc::new(true.into());
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, always)?;
    }
    succeed(Command::new("mount").args(["-t", "tmpfs", "ports", "/run"]))?;
    for dir in ["run", "state/dataplane", "state/controlplane", "site", "hugepages"] {
        fs::create_dir_all(Path::new(DIR).join(dir))?;
    }
    succeed(Command::new("mount").args([
        "-t",
        "hugetlbfs",
        "-o",
        "pagesize=2M",
        "ports",
        "/run/ports/hugepages",
    ]))?;
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?; // no neighbour discovery among the frames
    fs::write(Path::new(DIR).join("site/web.yaml"), site())?;
    succeed(Command::new("ip").args(["link", "set", "lo", "up"]))
}

fn succeed(command: &mut Command) -> Outcome<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// Asks ten times a second until there is an answer.
fn within<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> Outcome<T> {
    let begin = Instant::now();
    loop {
        match ask() {
            Some(answer) => return Ok(answer),
            None if begin.elapsed() > PATIENCE => {
                return Err(format!("{what}: not within {PATIENCE:?}").into());
            }
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Waits for something that becomes true.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) -> Outcome<()> {
    within(what, || holds().then_some(()))
}

/// A program of ours; its output is in a file. Ended when dropped.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(name: &str, command: &mut Command) -> Outcome<Self> {
        let log = Path::new(DIR).join(format!("{name}.log"));
        let output = File::create(&log)?;
        let child = command.stdout(output.try_clone()?).stderr(output).stdin(Stdio::null()).spawn();
        let child = child.map_err(|error| format!("{command:?}: {error}"))?;
        Ok(Self { child, log })
    }

    /// The error, with the end of what the program said.
    fn explain(&self, error: &dyn std::fmt::Display) -> Box<dyn Error> {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let end = lines[lines.len().saturating_sub(15)..].join("\n");
        format!("{error}\n--- the end of {}\n{end}", self.log.display()).into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Asks a child to end, and makes it after five seconds.
fn end(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, Signal::TERM); // not reaped yet, so the id is still its own
    }
    let begin = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && begin.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The control process. It runs beside all data planes, as it would on a box.
pub(crate) struct ControlPlane(#[expect(dead_code, reason = "ends it when dropped")] Process);

impl ControlPlane {
    fn start() -> Outcome<Self> {
        let mut command = Command::new(program("penstock-controlplane"));
        command.args(["--config-dir", "/run/ports/site", "--run-dir", "/run/ports/run"]);
        command.args(["--state-dir", "/run/ports/state/controlplane"]);
        Ok(Self(Process::start("penstock-controlplane", &mut command)?))
    }
}

/// `penstock-dataplane` with one worker, serving the site.
pub(crate) struct Penstock {
    process: Process,
    reader: StatsReader,
}

impl Penstock {
    /// Starts it on a device, and waits until every worker forwards by the configuration.
    pub(crate) fn start(
        device: &str,
        mac: MacAddr,
        cpu: usize,
        control: &mut Option<ControlPlane>,
    ) -> Outcome<Self> {
        let config = Path::new(DIR).join("dataplane.yaml");
        fs::write(&config, machine(device, cpu))?;
        let mut command = Command::new(program("penstock-dataplane"));
        let process = Process::start("penstock-dataplane", command.arg("--config").arg(config))?;
        let own = process.child.id();
        let mut started = || -> Outcome<StatsReader> {
            until("the companion has the port's MAC", || companion_has(mac))?; // and forgets no neighbour from here on
            surroundings()?;
            if control.is_none() {
                *control = Some(ControlPlane::start()?);
            }
            within("the data plane serves", || {
                let reader = StatsReader::open(Path::new("/run/ports/run/dataplane.stats")).ok()?;
                let serves = reader.generation().is_some_and(|g| g.ready && g.generation > 0);
                (serves && reader.process().pid == own).then_some(reader)
            })
        };
        match started() {
            Ok(reader) => Ok(Self { process, reader }),
            Err(error) => Err(process.explain(&error)),
        }
    }

    /// What a column of a table counts, all rows and workers together.
    pub(crate) fn counted(&self, table: &str, column: &str) -> u64 {
        let Some(table) = self.reader.table(table) else { return 0 };
        let Some(column) = table.column(column) else { return 0 };
        self.reader.rows(table).iter().map(|row| row.total[column]).sum()
    }

    /// The error, with the end of the log and what was dropped.
    pub(crate) fn explain(&self, error: &dyn std::fmt::Display) -> Box<dyn Error> {
        let drops = self.reader.table("drops").map(|table| self.reader.rows(table));
        let drops = drops.unwrap_or_default().into_iter().filter(|row| row.total[0] > 0);
        let drops: Vec<String> = drops
            .map(|row| format!("{} {}", row.label("reason").unwrap_or_default(), row.total[0]))
            .collect();
        self.process.explain(&format!("{error}; dropped: [{}]", drops.join(", ")))
    }
}

/// DPDK's own forwarder, which swaps both ends' addresses and ports and keeps nothing in mind.
pub(crate) struct Testpmd {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Testpmd {
    /// Starts it on a device.
    pub(crate) fn start(device: &str, cpu: usize, other: usize) -> Outcome<Self> {
        let lcores = format!("0@{other},1@{cpu}");
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "dpdk-testpmd", "--file-prefix", "penstock-testpmd"]);
        command.args(["--in-memory", "--no-pci", "--no-telemetry", "-m", "256"]);
        command.args(["--lcores", &lcores, "--vdev", device, "--", "--interactive"]);
        command.args(["--nb-cores=1", "--forward-mode=5tswap", "--port-topology=loop"]);
        command.args(["--total-num-mbufs=16383", "--no-flush-rx", &format!("--burst={BURST}")]);
        let log = File::create(Path::new(DIR).join("testpmd.log"))?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("testpmd has no pipes".into());
        };
        let (line, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(output)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|read| line.send(read))
        });
        let mut testpmd = Self { child, input, lines };
        testpmd.tell("start")?;
        testpmd.answer("packet forwarding")?;
        Ok(testpmd)
    }

    fn tell(&mut self, command: &str) -> Outcome<()> {
        Ok(writeln!(self.input, "{command}")?)
    }

    /// The next line with these words in it.
    fn answer(&self, words: &str) -> Outcome<String> {
        let mut said = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(words) => return Ok(line),
                Ok(line) => said.push(line),
                Err(_) => {
                    return Err(format!("testpmd: no {words:?} in\n{}", said.join("\n")).into());
                }
            }
        }
    }

    /// Packets a second that it received since it was asked last.
    pub(crate) fn received_rate(&mut self) -> Outcome<f64> {
        self.tell("show port stats 0")?;
        let line = self.answer("Rx-pps:")?;
        let number = line.split("Rx-pps:").nth(1).and_then(|rest| rest.split_whitespace().next());
        Ok(number.ok_or("testpmd: no number behind Rx-pps")?.parse()?)
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.tell("quit");
        end(&mut self.child);
    }
}

/// The machine as the data plane sees it.
fn machine(device: &str, cpu: usize) -> String {
    let snat: Vec<String> = (1..=SNAT_ADDRESSES).map(|n| format!("10.0.1.{n}")).collect();
    format!(
        "ports:\n- {{name: wire, device: '{device}', companion: pst0}}\n\
         workers: {{count: 1, cores: [{cpu}], idle: spin}}\n\
         memory: {{hugepages: /run/ports/hugepages}}\n\
         flows: {{capacity: {CAPACITY}, half-open-capacity: {CAPACITY}}}\n\
         snat: {{addresses: [{}]}}\n\
         paths: {{run: /run/ports/run, state: /run/ports/state/dataplane}}\n",
        snat.join(", ")
    )
}

fn companion_has(mac: MacAddr) -> bool {
    let shown = Command::new("ip").args(["-brief", "link", "show", "dev", "pst0"]).output();
    shown.is_ok_and(|shown| String::from_utf8_lossy(&shown.stdout).contains(&format!("{mac:?}")))
}

/// The companion's address, the routes, and neighbours that need not be asked. Done again, it changes nothing.
fn surroundings() -> Outcome<()> {
    let mut batch = String::from("address replace 192.0.2.2/24 dev pst0\nlink set pst0 up\n");
    batch += &format!("route replace default via {ROUTER} dev pst0\n");
    batch += "route replace 10.0.0.0/24 dev pst0\n";
    let backends = (1..=BACKENDS).map(|n| Ipv4Addr::new(10, 0, 0, n));
    for (address, n) in backends.chain([ROUTER]).zip(1_u8..) {
        let neighbour = format!("{address} lladdr 02:01:00:00:00:{n:02x} dev pst0");
        batch += &format!("neighbour replace {neighbour} nud permanent\n");
    }
    let file = Path::new(DIR).join("surroundings");
    fs::write(&file, batch)?;
    succeed(Command::new("ip").arg("-batch").arg(file))
}

/// One VIP in full NAT, TCP and UDP, on sixteen backends.
fn site() -> String {
    let (vip, port) = VIP;
    let mut yaml = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: penstock}}\n\
         spec: {{controllerName: penstock.dev/gateway-controller}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: web}}\nspec:\n  \
         gatewayClassName: penstock\n  addresses: [{{type: IPAddress, value: {vip}}}]\n  listeners:\n  \
         - {{name: tcp, protocol: TCP, port: {port}}}\n  - {{name: udp, protocol: UDP, port: {port}}}\n"
    );
    let endpoints: Vec<String> =
        (1..=BACKENDS).map(|n| format!("{{addresses: [10.0.0.{n}]}}")).collect();
    let endpoints = endpoints.join(", ");
    for (name, protocol) in [("tcp", "TCP"), ("udp", "UDP")] {
        let ports = format!("ports: [{{name: web, protocol: {protocol}, port: 8080}}]");
        yaml += &format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {protocol}Route\nmetadata: {{name: {name}}}\n\
             spec:\n  parentRefs: [{{name: web, sectionName: {name}}}]\n  \
             rules: [{{backendRefs: [{{name: {name}, port: 8080}}]}}]\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{ports}}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  \
             labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\n{ports}\n\
             endpoints: [{endpoints}]\n"
        );
    }
    yaml
}
