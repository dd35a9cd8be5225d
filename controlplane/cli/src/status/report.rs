//! What `status` knows, in the form in which programs get it. Fields are only ever added.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use penstock_gateway_types::k8s_openapi::jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde::{Deserialize, Serialize as SerializeDerive};

/// `time` as people and programs read it, to the millisecond; `None` outside the years of RFC 3339.
pub(crate) fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Timestamp::from_millisecond(i64::try_from(since.as_millis()).ok()?).ok()
}

/// The whole answer.
#[derive(Clone, Debug, SerializeDerive)]
pub(crate) struct Report {
    /// Both programs run, and serve and publish the same generation.
    pub(crate) ok: bool,
    /// What is not well, each with the next move; empty if `ok`.
    pub(crate) problems: Vec<String>,
    /// Where this was read.
    pub(crate) run_dir: PathBuf,
    pub(crate) dataplane: DataPlane,
    pub(crate) controlplane: ControlPlane,
    /// Absent where none has run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) l7: Option<L7Tier>,
    #[serde(flatten)]
    pub(crate) counted: Counted,
}

/// How a program is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, SerializeDerive)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It runs.
    Running,
    /// Its process is there, but has not given a sign of life for seconds.
    Silent,
    /// It ran, and is gone.
    Down,
    /// It has left no trace: it has not run since the box started.
    #[default]
    NeverRan,
    /// Its file cannot be read.
    Unreadable,
}

/// A program, as its own file describes it.
#[derive(Clone, Debug, Default, SerializeDerive)]
pub(crate) struct Process {
    pub(crate) state: State,
    /// Why its file cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started: Option<Timestamp>,
    /// Only while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uptime_seconds: Option<u64>,
}

/// `penstock-dataplane`.
#[derive(Clone, Debug, Default, SerializeDerive)]
pub(crate) struct DataPlane {
    #[serde(flatten)]
    pub(crate) process: Process,
    /// The last sign of life of its main lcore: where it is down, when it went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) heartbeat: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) heartbeat_age_ms: Option<u64>,
    /// What every worker forwards by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) serves: Option<Serves>,
}

/// The generation that the data plane serves.
#[derive(Clone, Debug, PartialEq, SerializeDerive)]
pub(crate) struct Serves {
    pub(crate) generation: u64,
    /// Hexadecimal.
    pub(crate) digest: String,
    pub(crate) epoch: u64,
    /// Whether it has reached every worker.
    pub(crate) ready: bool,
}

/// `penstock-controlplane`.
#[derive(Clone, Debug, Default, SerializeDerive)]
pub(crate) struct ControlPlane {
    #[serde(flatten)]
    pub(crate) process: Process,
    /// What it says of itself; absent where it never ran.
    #[serde(flatten)]
    pub(crate) says: Option<ControlSays>,
}

/// `penstock-l7`.
#[derive(Clone, Debug, Default, SerializeDerive)]
pub(crate) struct L7Tier {
    #[serde(flatten)]
    pub(crate) process: Process,
    #[serde(flatten)]
    pub(crate) says: L7Says,
}

/// What the L7 tier says of itself in `l7.json`.
#[derive(Clone, Debug, Default, Deserialize, SerializeDerive)]
#[serde(default)]
pub(crate) struct L7Says {
    pub(crate) generation: u64,
    pub(crate) open_connections: u64,
    /// Where it listens.
    pub(crate) listening: Vec<String>,
    /// Listeners that it cannot serve, and why.
    pub(crate) errors: Vec<String>,
    /// What became of connections, handshakes and requests.
    pub(crate) counters: BTreeMap<String, u64>,
}

/// What the control process says of itself in `controlplane.json`. A field that an older or newer one does
/// not write is empty.
#[derive(Clone, Debug, Default, Deserialize, SerializeDerive)]
#[serde(default)]
pub(crate) struct ControlSays {
    pub(crate) config_dir: String,
    /// The API server that it watches, if it does not read a folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api_server: Option<ApiServer>,
    /// The boxes that it tells what to do, instead of a data plane here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) boxes: Option<Boxes>,
    /// The controller that tells it what to do, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<Agent>,
    pub(crate) generation: u64,
    pub(crate) acknowledged: u64,
    pub(crate) digest: String,
    pub(crate) connected: bool,
    pub(crate) trouble: Option<String>,
    /// What came of health checks.
    #[serde(skip_serializing_if = "Health::is_idle")]
    pub(crate) health: Health,
    pub(crate) objects: u64,
    /// How many things are refused, or not served as written.
    pub(crate) errors: u64,
    /// How many look wrong.
    pub(crate) warnings: u64,
    /// The first of them.
    pub(crate) refused: Vec<Refused>,
    pub(crate) publishes: BTreeMap<String, u64>,
}

/// How a control process stands with boxes.
#[derive(Clone, Debug, Default, Deserialize, SerializeDerive)]
#[serde(default)]
pub(crate) struct Boxes {
    pub(crate) address: String,
    pub(crate) boxes: u64,
    pub(crate) connected: u64,
    pub(crate) in_sync: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pinned: Option<String>,
    pub(crate) joined: u64,
    pub(crate) renewed: u64,
    pub(crate) bundles_sent: u64,
    pub(crate) bundle_bytes_sent: u64,
    /// Who was turned away, by why.
    pub(crate) refused: BTreeMap<String, u64>,
}

/// How a box stands with its controller.
#[derive(Clone, Debug, Default, Deserialize, SerializeDerive)]
#[serde(default)]
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) connected: bool,
    pub(crate) controller: String,
    pub(crate) version: u64,
    pub(crate) digest: String,
    pub(crate) epoch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<String>,
}

/// What came of health checks.
#[derive(Clone, Debug, Default, Deserialize, SerializeDerive)]
#[serde(default)]
pub(crate) struct Health {
    /// How many backends are asked.
    pub(crate) backends: u64,
    /// How many of them are not well.
    pub(crate) unhealthy: u64,
    /// Where so many are not well that all serve.
    pub(crate) fail_open: Vec<String>,
    /// The first that are not well, each with its check.
    pub(crate) down: Vec<String>,
    pub(crate) answers: u64,
    pub(crate) bad_answers: u64,
    pub(crate) changes: u64,
}

impl Health {
    /// Whether nobody is asked.
    pub(crate) fn is_idle(&self) -> bool {
        self.backends == 0
    }
}

/// How the control process stands with an API server.
#[derive(Clone, Debug, Default, Deserialize, SerializeDerive)]
#[serde(default)]
pub(crate) struct ApiServer {
    pub(crate) url: String,
    pub(crate) connected: bool,
    pub(crate) leader: bool,
    pub(crate) status_writes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status_trouble: Option<String>,
}

/// Something that the control process refuses, or that looks wrong to it.
#[derive(Clone, Debug, Default, Deserialize, SerializeDerive)]
#[serde(default)]
pub(crate) struct Refused {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) severity: Option<String>,
    pub(crate) reason: String,
}

/// The tables of the statistics segment. Where the data plane is down, its last values.
#[derive(Clone, Debug, Default, SerializeDerive)]
pub(crate) struct Counted {
    pub(crate) ports: Vec<Item>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) listeners: Vec<Listener>,
    /// Backends of no listener that is there: drained ones whose flows go on.
    pub(crate) other_backends: Vec<Item>,
    pub(crate) drops: Vec<ByThread>,
    pub(crate) punts: Vec<Item>,
    /// Tables that this program does not know.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) other_tables: BTreeMap<String, Vec<Item>>,
}

/// A row: what it is about, and its numbers.
#[derive(Clone, Debug, Default, SerializeDerive)]
pub(crate) struct Item {
    #[serde(flatten)]
    pub(crate) labels: Labels,
    pub(crate) counters: Counters,
}

/// A listener and its backends.
#[derive(Clone, Debug, Default, SerializeDerive)]
pub(crate) struct Listener {
    #[serde(flatten)]
    pub(crate) item: Item,
    /// Those of its group. Two listeners of one group show the same backends with the same numbers.
    pub(crate) backends: Vec<Item>,
}

/// A row with its one number by thread: the workers in order, then the exception path where it counts.
#[derive(Clone, Debug, Default, SerializeDerive)]
pub(crate) struct ByThread {
    #[serde(flatten)]
    pub(crate) item: Item,
    pub(crate) by_thread: Vec<u64>,
}

/// A worker.
#[derive(Clone, Debug, Default, SerializeDerive)]
pub(crate) struct Worker {
    pub(crate) worker: usize,
    /// The part of its cycles, since it started, of turns that moved packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) busy_ratio: Option<f64>,
    /// Those cycles by the packets it moved in them: received, handed over to it, or sent for the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cycles_per_packet: Option<f64>,
    pub(crate) counters: Counters,
}

/// What a row is about, in the order of the data plane. `weight` and `maglev_slots` are numbers and `draining` and
/// `departed` are truth values for programs; all others are text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Labels(pub(crate) Vec<(String, String)>);

impl Labels {
    /// The value of `key`, empty if there is none.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(known, _)| known == key).map_or("", |(_, value)| value)
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            match (key.as_str(), value.parse::<u64>(), value.parse::<bool>()) {
                ("weight" | "maglev_slots", Ok(number), _) => map.serialize_entry(key, &number)?,
                ("draining" | "departed", _, Ok(truth)) => map.serialize_entry(key, &truth)?,
                _ => map.serialize_entry(key, value)?,
            }
        }
        map.end()
    }
}

/// The numbers of a row by the names of their columns, in the order of the data plane.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counters(pub(crate) Vec<(String, u64)>);

impl Counters {
    /// The number in column `name`, if there is such a column.
    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

impl Serialize for Counters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
