//! `/etc/penstock/dataplane.yaml`: the machine, said once. Ports, cores, memory, SNAT addresses.
//!
//! What to serve is not here: that comes over the feed. Every error names file, line, column, the
//! value and what would be right; nothing is started from a file with an error in it.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use penstock_feed::user_id;
use penstock_forward::{ECHO_PER_SECOND, OnUnknown, Tag, Tags, wire::ethernet};
use serde::Deserialize;
use serde_saphyr::Spanned;

/// Most ports one process drives.
pub const MAX_PORTS: usize = 8;
/// Most workers one process runs.
pub const MAX_WORKERS: usize = 64;
/// A flow table of fewer records would be full at once; one of more would not fit a u32 index.
const FLOW_CAPACITY: std::ops::RangeInclusive<u32> = 64..=(1 << 28);

/// What may announce the outer of two tags: 802.1ad, or what equipment older than that took.
const OUTER_TPIDS: [u16; 3] = [ethernet::SERVICE_VLAN, ethernet::VLAN, 0x9100];

/// The whole file, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The DPDK ports, in the order of the file; the index is the forwarder's `PortIdx`. Each has
    /// one receive and one transmit queue a worker, or as many as it can have.
    pub ports: Vec<PortConfig>,
    /// The pinned workers.
    pub workers: Workers,
    /// Hugepage memory and mbufs.
    pub memory: Memory,
    /// The flow table of each worker.
    pub flows: Flows,
    /// Source addresses of full NAT, used where a listener names no pool of its own.
    pub snat: Snat,
    /// What ICMP we answer ourselves.
    pub icmp: Icmp,
    /// Who may feed us, beside root and our own user.
    pub feed_users: Vec<u32>,
    /// Where sockets, statistics and state live.
    pub paths: Paths,
}

/// One DPDK port and the kernel interface beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct PortConfig {
    /// The operator's name for it, in logs and counters.
    pub name: String,
    /// A PCI address (`0000:3b:02.0`) or a vdev string (`net_tap0,iface=lan0`).
    pub device: String,
    /// The MAC that hosts see; the port's own if none is given.
    pub mac: Option<[u8; 6]>,
    /// The persistent TAP that carries the exception path.
    pub companion: String,
    /// Descriptors of each queue.
    pub descriptors: u16,
    /// Largest IP packet, in bytes.
    pub mtu_bytes: u16,
    /// How its packets come to the workers.
    pub receive: Receive,
    /// The VLAN tags of its frames.
    pub tags: Option<Tags>,
    /// Worker `i` transmits on queue `i + offset`. Zero except in a lab that wants replies to
    /// arrive at the wrong worker: a TAP returns a flow on the queue it was last sent on.
    pub transmit_queue_offset: u16,
}

/// How the packets of a port come to the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Receive {
    /// By a queue a worker, and RSS where the port has it; by one queue where it has no more.
    #[default]
    Auto,
    /// By RSS, or the program does not start.
    Rss,
    /// By one queue: its worker hands over what is another's.
    Software,
}

/// How many workers there are, where they run and what they do when there is nothing to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Workers {
    /// Number of workers, each with its own queues and flow table.
    pub count: usize,
    /// CPUs to pin to, one a worker, in order; workers share a CPU if there are fewer CPUs.
    pub cores: Vec<usize>,
    /// What a worker does while its queues are empty.
    pub idle: Idle,
}

/// What a worker does while its queues are empty.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idle {
    /// Polls without a break: lowest latency, the core is always busy.
    Spin,
    /// Polls with the CPU's pause hint: kind to a hyperthread sibling.
    Pause,
    /// Sleeps at most this long a time, once the queues have been empty for a while.
    Sleep(#[serde(deserialize_with = "duration")] Duration),
}

/// Memory that the process takes at start, once and for all.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// EAL's hugepage memory, in MiB.
    pub eal_mib: u32,
    /// Packet buffers over all ports.
    pub mbufs: u32,
    /// A hugetlbfs mount of our own for the flow tables; without one they live on ordinary pages.
    pub hugepages: Option<PathBuf>,
}

/// The flow table of each worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Flows {
    /// Connections a worker can hold.
    pub capacity: u32,
    /// How many of them may have IPv6 addresses.
    pub ipv6_capacity: u32,
    /// How many may be TCP handshakes that are not complete.
    pub half_open_capacity: u32,
    /// How many may be UDP flows that were not answered.
    pub udp_one_way_capacity: u32,
    /// Idle timeouts by state; what is not given keeps the default of the forwarder.
    pub timeouts: Timeouts,
}

/// Source addresses of full NAT, used where a listener names no pool of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snat {
    /// The addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// How a segment to any SNAT address is answered that is of a connection nobody knows: of a listener it says
    /// nothing.
    pub on_unknown: OnUnknown,
}

/// What ICMP the workers answer themselves.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Icmp {
    /// Echo requests to VIPs that each worker answers a second; those beyond are dropped.
    pub echo_per_second: u32,
}

/// Idle timeouts by state, where the operator wants others than the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Timeouts {
    /// TCP, both directions seen after the handshake (RFC 5382 REQ-5).
    #[serde(deserialize_with = "some_duration")]
    pub tcp_established: Option<Duration>,
    /// TCP, the handshake is not complete.
    #[serde(deserialize_with = "some_duration")]
    pub tcp_half_open: Option<Duration>,
    /// TCP, both sides have sent FIN (RFC 5382 REQ-5, transitory).
    #[serde(deserialize_with = "some_duration")]
    pub tcp_closing: Option<Duration>,
    /// TCP, a RST was seen.
    #[serde(deserialize_with = "some_duration")]
    pub tcp_reset: Option<Duration>,
    /// UDP, only the client has spoken.
    #[serde(deserialize_with = "some_duration")]
    pub udp_one_way: Option<Duration>,
    /// UDP, the backend has answered (RFC 4787 REQ-5).
    #[serde(deserialize_with = "some_duration")]
    pub udp_replied: Option<Duration>,
}

/// Where sockets, statistics and state live.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Paths {
    /// The socket of the feed and the statistics segment.
    pub run: PathBuf,
    /// The last committed configuration.
    pub state: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { run: "/run/penstock".into(), state: "/var/lib/penstock/dataplane".into() }
    }
}

/// Why the file cannot be used: where, what, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}; give a readable file with --config")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not YAML, or not of our shape.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: String,
        /// The parser's words, with line and column.
        message: String,
    },
    /// YAML of our shape with a value that cannot be.
    #[error("{path}:{line}:{column}: {message}")]
    Value {
        /// The file.
        path: String,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What is wrong and what would be right.
        message: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: name.clone(), source })?;
        Self::parse(&name, &text)
    }

    /// Checks the text of a file; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn parse(path: &str, text: &str) -> Result<Self, ConfigError> {
        let raw: RawConfig = serde_saphyr::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        raw.check().map_err(|wrong| ConfigError::Value {
            path: path.to_owned(),
            line: wrong.line,
            column: wrong.column,
            message: wrong.message,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawConfig {
    ports: Spanned<Vec<RawPort>>,
    #[serde(default)]
    workers: RawWorkers,
    #[serde(default)]
    memory: RawMemory,
    #[serde(default)]
    flows: RawFlows,
    #[serde(default)]
    snat: RawSnat,
    #[serde(default)]
    icmp: Icmp,
    #[serde(default)]
    feed: RawFeed,
    #[serde(default)]
    paths: Paths,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawPort {
    name: Spanned<String>,
    device: Spanned<String>,
    mac: Option<Spanned<String>>,
    companion: Spanned<String>,
    #[serde(default = "default_descriptors")]
    descriptors: u16,
    mtu_bytes: Option<Spanned<u16>>,
    vlan: Option<Spanned<RawVlan>>,
    outer_tpid: Option<Spanned<u16>>,
    #[serde(default)]
    receive: Receive,
    #[serde(default)]
    transmit_queue_offset: u16,
}

/// One tag, or the outer and the inner of two.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "a VLAN id such as 7, or the outer and the inner such as [100, 7]")]
enum RawVlan {
    One(u16),
    Two([u16; 2]),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct RawWorkers {
    count: Option<Spanned<usize>>,
    cores: Vec<usize>,
    idle: Idle,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct RawMemory {
    eal_mib: u32,
    mbufs: Option<Spanned<u32>>,
    hugepages: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct RawFlows {
    capacity: Option<Spanned<u32>>,
    ipv6_capacity: Option<Spanned<u32>>,
    half_open_capacity: Option<Spanned<u32>>,
    udp_one_way_capacity: Option<Spanned<u32>>,
    timeouts: Timeouts,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct RawSnat {
    addresses: Vec<Spanned<IpAddr>>,
    on_unknown: RawOnUnknown,
}

impl Default for Icmp {
    fn default() -> Self {
        Self { echo_per_second: ECHO_PER_SECOND }
    }
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawOnUnknown {
    #[default]
    Drop,
    Reset,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct RawFeed {
    users: Option<Vec<Spanned<String>>>,
}

impl Default for RawWorkers {
    fn default() -> Self {
        Self { count: None, cores: Vec::new(), idle: Idle::Sleep(Duration::from_micros(50)) }
    }
}

impl Default for RawMemory {
    fn default() -> Self {
        Self { eal_mib: 256, mbufs: None, hugepages: None }
    }
}

const fn default_descriptors() -> u16 {
    512
}

struct Wrong {
    line: u64,
    column: u64,
    message: String,
}

fn wrong<T, U>(at: &Spanned<T>, message: impl fmt::Display) -> Result<U, Wrong> {
    Err(Wrong {
        line: at.referenced.line(),
        column: at.referenced.column(),
        message: message.to_string(),
    })
}

impl RawConfig {
    fn check(self) -> Result<Config, Wrong> {
        let workers = self.workers.check()?;
        if self.ports.value.is_empty() || self.ports.value.len() > MAX_PORTS {
            let found = self.ports.value.len();
            return wrong(&self.ports, format!("{found} ports; give 1 to {MAX_PORTS}"));
        }
        let mut ports = Vec::new();
        for raw in self.ports.value {
            let port = raw.check(&ports)?;
            ports.push(port);
        }
        Ok(Config {
            memory: self.memory.check(&ports, workers.count)?,
            flows: self.flows.check()?,
            snat: self.snat.check()?,
            icmp: self.icmp,
            feed_users: self.feed.check()?,
            paths: self.paths,
            ports,
            workers,
        })
    }
}

impl RawPort {
    fn check(self, others: &[PortConfig]) -> Result<PortConfig, Wrong> {
        let companion = &self.companion;
        if companion.value.is_empty() || companion.value.len() > 15 || companion.value.contains('/')
        {
            let found = &companion.value;
            return wrong(
                companion,
                format!("companion {found:?}: an interface name of 1 to 15 characters"),
            );
        }
        if let Some(other) = others.iter().find(|other| other.name == self.name.value) {
            return wrong(
                &self.name,
                format!("a second port named {:?}; names must differ", other.name),
            );
        }
        if let Some(other) = others.iter().find(|other| other.companion == companion.value) {
            return wrong(
                companion,
                format!("{:?} is the companion of port {:?} already", companion.value, other.name),
            );
        }
        if self.device.value.starts_with('-') || self.device.value.trim().is_empty() {
            return wrong(
                &self.device,
                format!(
                    "device {:?}: a PCI address (0000:3b:02.0) or a vdev (net_tap0,iface=lan0)",
                    self.device.value
                ),
            );
        }
        let mtu_bytes = match &self.mtu_bytes {
            Some(mtu) if !(576..=9600).contains(&mtu.value) => {
                return wrong(mtu, format!("mtu-bytes {}: 576 to 9600", mtu.value));
            }
            Some(mtu) => mtu.value,
            None => 1500,
        };
        let mac = self.mac.as_ref().map(parse_mac).transpose()?;
        let tags = check_tags(self.vlan.as_ref(), self.outer_tpid.as_ref())?;
        Ok(PortConfig {
            name: self.name.value,
            device: self.device.value,
            mac,
            companion: self.companion.value,
            descriptors: self.descriptors,
            mtu_bytes,
            receive: self.receive,
            tags,
            transmit_queue_offset: self.transmit_queue_offset,
        })
    }
}

fn check_tags(
    vlan: Option<&Spanned<RawVlan>>,
    outer_tpid: Option<&Spanned<u16>>,
) -> Result<Option<Tags>, Wrong> {
    let stacked = vlan.is_some_and(|vlan| matches!(vlan.value, RawVlan::Two(_)));
    let ether_type = match outer_tpid {
        Some(tpid) if !stacked => {
            return wrong(
                tpid,
                "outer-tpid without an outer tag; give two, such as vlan: [100, 7]",
            );
        }
        Some(tpid) if !OUTER_TPIDS.contains(&tpid.value) => {
            let offered = OUTER_TPIDS.map(|tpid| format!("{tpid:#06x}")).join(", ");
            return wrong(tpid, format!("outer-tpid {:#06x}: one of {offered}", tpid.value));
        }
        Some(tpid) => tpid.value,
        None => ethernet::SERVICE_VLAN,
    };
    let Some(vlan) = vlan else { return Ok(None) };
    let id = |id: u16| match Tags::VLANS.contains(&id) {
        true => Ok(id),
        false => {
            wrong(vlan, format!("vlan {id}: {} to {}", Tags::VLANS.start(), Tags::VLANS.end()))
        }
    };
    Ok(Some(match vlan.value {
        RawVlan::One(vlan) => Tags::one(id(vlan)?),
        RawVlan::Two([outer, inner]) => Tags::two(Tag { ether_type, vlan: id(outer)? }, id(inner)?),
    }))
}

impl RawWorkers {
    fn check(self) -> Result<Workers, Wrong> {
        let online = std::thread::available_parallelism().map_or(1, usize::from);
        let cores = if self.cores.is_empty() { (0..online).collect() } else { self.cores };
        let count = match &self.count {
            Some(count) if !(1..=MAX_WORKERS).contains(&count.value) => {
                return wrong(count, format!("{} workers; give 1 to {MAX_WORKERS}", count.value));
            }
            Some(count) => count.value,
            None => 1,
        };
        Ok(Workers { count, cores, idle: self.idle })
    }
}

impl RawMemory {
    fn check(self, ports: &[PortConfig], workers: usize) -> Result<Memory, Wrong> {
        // Every queue's descriptors, what waits in rings and holds, and the caches of the lcores.
        let descriptors: usize = ports.iter().map(|port| 2 * usize::from(port.descriptors)).sum();
        let least = (workers * (descriptors + 1024) + 1024) as u32;
        let mbufs = match &self.mbufs {
            Some(mbufs) if mbufs.value < least => {
                let message = format!(
                    "{} mbufs; {} ports and {workers} workers can hold {least} at once",
                    mbufs.value,
                    ports.len()
                );
                return wrong(mbufs, message);
            }
            Some(mbufs) => mbufs.value,
            None => (least + 1).max(16_384).next_power_of_two() - 1, // DPDK's pools hold one less best
        };
        Ok(Memory { eal_mib: self.eal_mib, mbufs, hugepages: self.hugepages })
    }
}

impl RawFlows {
    fn check(self) -> Result<Flows, Wrong> {
        let capacity = match &self.capacity {
            Some(capacity) if !FLOW_CAPACITY.contains(&capacity.value) => {
                let (low, high) = (FLOW_CAPACITY.start(), FLOW_CAPACITY.end());
                return wrong(
                    capacity,
                    format!("a capacity of {} flows; give {low} to {high}", capacity.value),
                );
            }
            Some(capacity) => capacity.value,
            None => 1 << 20,
        };
        let part = |part: Option<Spanned<u32>>, least: u32, otherwise: u32| match part {
            Some(part) if !(least..=capacity).contains(&part.value) => {
                let message =
                    format!("{} of {capacity} flows; give {least} to {capacity}", part.value);
                wrong(&part, message)
            }
            Some(part) => Ok(part.value),
            None => Ok(otherwise),
        };
        Ok(Flows {
            capacity,
            ipv6_capacity: part(self.ipv6_capacity, 0, capacity)?,
            half_open_capacity: part(self.half_open_capacity, 16, capacity / 4)?,
            udp_one_way_capacity: part(self.udp_one_way_capacity, 16, capacity / 4)?,
            timeouts: self.timeouts,
        })
    }
}

impl RawSnat {
    fn check(self) -> Result<Snat, Wrong> {
        let on_unknown = match self.on_unknown {
            RawOnUnknown::Drop => OnUnknown::Drop,
            RawOnUnknown::Reset => OnUnknown::Reset,
        };
        let mut addresses = BTreeSet::new();
        for address in self.addresses {
            let unusable = address.value.is_unspecified()
                || address.value.is_loopback()
                || address.value.is_multicast();
            if unusable || crate::snapshot::lives_on_one_link(address.value) {
                return wrong(
                    &address,
                    format!(
                        "SNAT address {}: a unicast address that backends can answer",
                        address.value
                    ),
                );
            }
            addresses.insert(address.value);
        }
        Ok(Snat { addresses, on_unknown })
    }
}

impl RawFeed {
    /// Without the key, the control process's own user, if the box has one.
    fn check(self) -> Result<Vec<u32>, Wrong> {
        let Some(users) = self.users else {
            return Ok(user_id("penstock-controlplane").into_iter().collect());
        };
        let id = |user: Spanned<String>| match user_id(&user.value) {
            Some(id) => Ok(id),
            None => wrong(
                &user,
                format!(
                    "user {:?} is not in /etc/passwd; give a local user or a number",
                    user.value
                ),
            ),
        };
        users.into_iter().map(id).collect()
    }
}

fn parse_mac(text: &Spanned<String>) -> Result<[u8; 6], Wrong> {
    let mut mac = [0; 6];
    let mut parts = text.value.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2);
        match part.and_then(|part| u8::from_str_radix(part, 16).ok()) {
            Some(value) => *byte = value,
            None => {
                return wrong(
                    text,
                    format!("mac {:?}: six bytes like 02:00:00:00:00:01", text.value),
                );
            }
        }
    }
    if parts.next().is_some() || mac[0] & 1 == 1 {
        return wrong(
            text,
            format!("mac {:?}: a unicast address of six bytes like 02:00:00:00:00:01", text.value),
        );
    }
    Ok(mac)
}

fn duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(|error| {
        serde::de::Error::custom(format!(
            "{text:?} is no duration ({error}); write 50us, 30s or 2h 4m"
        ))
    })
}

fn some_duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: &str = "ports: [{ name: lan, device: 'net_tap0,iface=lan0', companion: pst0 }]\n";

    fn parse(rest: &str) -> Result<Config, String> {
        Config::parse("dataplane.yaml", &format!("{PORT}{rest}")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_port_is_all_that_must_be_said() {
        let config = parse("").unwrap();
        assert_eq!((config.workers.count, config.ports[0].mtu_bytes), (1, 1500));
        assert_eq!(config.workers.idle, Idle::Sleep(Duration::from_micros(50)));
        assert_eq!(config.flows.capacity, 1 << 20);
        assert_eq!(config.flows.ipv6_capacity, 1 << 20);
        assert_eq!(config.icmp.echo_per_second, 1000);
        assert_eq!(config.paths.run, Path::new("/run/penstock"));
    }

    #[test]
    fn a_port_has_no_tag_or_one_or_two() {
        let tags = |keys: &str| {
            let text = format!("ports: [{{ name: a, device: x, companion: c{keys} }}]");
            Config::parse("dataplane.yaml", &text).map(|config| config.ports[0].tags)
        };
        let two = |ether_type| Tags::two(Tag { ether_type, vlan: 100 }, 7);
        for (keys, expected) in [
            ("", None),
            (", vlan: 7", Some(Tags::one(7))),
            (", vlan: [100, 7]", Some(two(0x88a8))),
            (", vlan: [100, 7], outer-tpid: 0x8100", Some(two(0x8100))),
            (", vlan: [100, 7], outer-tpid: 0x9100", Some(two(0x9100))),
        ] {
            assert_eq!(tags(keys).unwrap(), expected, "{keys}");
        }
    }

    #[test]
    fn there_are_mbufs_for_every_descriptor() {
        let text = |port: &str| {
            format!(
                "ports: [{{ name: lan, device: net_ring0, companion: pst0{port} }}]\nworkers: {{ count: 4 }}"
            )
        };
        for (port, expected) in [("", 16_383), (", descriptors: 4096", 65_535)] {
            let config = Config::parse("dataplane.yaml", &text(port)).unwrap();
            assert_eq!(config.memory.mbufs, expected, "{port}");
        }
    }

    /// Three workers of 2 * 2048 descriptors and 1024 more, and 1024: 16 384.
    #[test]
    fn the_default_number_of_mbufs_may_be_asked_for() {
        let ports = "ports: [{ name: lan, device: net_ring0, companion: pst0, descriptors: 2048 }]";
        let text = format!("{ports}\nworkers: {{ count: 3 }}\n");
        let mbufs = Config::parse("dataplane.yaml", &text).unwrap().memory.mbufs;
        let asked = Config::parse("dataplane.yaml", &format!("{text}memory: {{ mbufs: {mbufs} }}"));
        assert_eq!(asked.map(|config| config.memory.mbufs).map_err(|e| e.to_string()), Ok(mbufs));
    }

    #[test]
    fn the_reference_file_is_read() {
        let text = include_str!("../../../deploy/examples/dataplane.yaml");
        let config = Config::parse("dataplane.yaml", text).unwrap();
        assert!(!config.ports.is_empty() && !config.snat.addresses.is_empty());
    }

    /// What is wrong, and the message that a stranger must understand: place, value, next move.
    #[test]
    fn wrong_values_are_named_with_line_and_column() {
        let rows = [
            ("workers: { count: 0 }", "dataplane.yaml:2:19: 0 workers; give 1 to 64"),
            ("workers: { idle: { sleep: soon } }", "is no duration"),
            ("flows: { capacity: 5 }", "dataplane.yaml:2:20: a capacity of 5 flows; give 64 to"),
            ("flows: { capacity: 64, ipv6-capacity: 65 }", "65 of 64 flows; give 0 to 64"),
            (
                "flows: { half-open-capacity: 3 }",
                "dataplane.yaml:2:30: 3 of 1048576 flows; give 16",
            ),
            (
                "memory: { mbufs: 12 }",
                "dataplane.yaml:2:18: 12 mbufs; 1 ports and 1 workers can hold",
            ),
            (
                "snat: { addresses: [127.0.0.1] }",
                "dataplane.yaml:2:21: SNAT address 127.0.0.1: a unicast",
            ),
            (
                r#"snat: { addresses: ["fe80::200"] }"#,
                "dataplane.yaml:2:21: SNAT address fe80::200: a unicast",
            ),
            ("snat: { on-unknown: refuse }", "unknown variant"),
            ("icmp: { echo-per-second: -1 }", "line 2 column 26"),
            ("feed: { users: [nobody-of-that-name] }", "is not in /etc/passwd"),
            ("flow: { capacity: 5 }", "unknown field"),
            ("workers: [", "line 2"),
        ];
        for (text, expected) in rows {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn wrong_ports_are_named_with_line_and_column() {
        let rows = [
            ("ports: []", "dataplane.yaml:1:8: 0 ports; give 1 to 8"),
            (
                "ports: [{ name: a, device: x, companion: a-name-that-is-too-long }]",
                "1 to 15 characters",
            ),
            (
                "ports: [{ name: a, device: --no-huge, companion: c }]",
                "a PCI address (0000:3b:02.0) or a vdev",
            ),
            (
                "ports: [{ name: a, device: x, companion: c, mac: 01:00:00:00:00:01 }]",
                "a unicast address",
            ),
            ("ports: [{ name: a, device: x, companion: c, mac: 2:0:0:0:0:1 }]", "six bytes like"),
            (
                "ports: [{ name: a, device: x, companion: c, mtu-bytes: 68 }]",
                "mtu-bytes 68: 576 to 9600",
            ),
            (
                "ports: [{ name: a, device: x, companion: c, receive: hardware }]",
                "unknown variant `hardware`, expected one of",
            ),
            (
                "ports: [{ name: a, device: x, companion: c, vlan: 4095 }]",
                "dataplane.yaml:1:51: vlan 4095: 1 to 4094",
            ),
            (
                "ports: [{ name: a, device: x, companion: c, vlan: [100, 0] }]",
                "dataplane.yaml:1:51: vlan 0: 1 to 4094",
            ),
            (
                "ports: [{ name: a, device: x, companion: c, vlan: [1, 2, 3] }]",
                "a VLAN id such as 7, or the outer and the inner such as [100, 7]",
            ),
            (
                "ports: [{ name: a, device: x, companion: c, vlan: seven }]",
                "a VLAN id such as 7, or the outer and the inner such as [100, 7]",
            ),
            (
                "ports: [{ name: a, device: x, companion: c, vlan: [100, 7], outer-tpid: 0x0800 }]",
                "outer-tpid 0x0800: one of 0x88a8, 0x8100, 0x9100",
            ),
            (
                "ports: [{ name: a, device: x, companion: c, vlan: 7, outer-tpid: 0x8100 }]",
                "outer-tpid without an outer tag; give two, such as vlan: [100, 7]",
            ),
            (
                "ports: [{ name: a, device: x, companion: c }, { name: a, device: y, companion: d }]",
                "a second port named",
            ),
            (
                "ports: [{ name: a, device: x, companion: c }, { name: b, device: y, companion: c }]",
                "companion of port \"a\" already",
            ),
        ];
        for (text, expected) in rows {
            let error = Config::parse("dataplane.yaml", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
