//! What an operator asks of a running data plane: which flows it has, where a packet would go, where
//! packets go.
//!
//! A Unix socket that only its owner and root may open. One connection, one [`Question`]: a line of JSON
//! there, lines of JSON back, each an [`Answer`], the last one neither [`Answer::Flow`] nor
//! [`Answer::Packet`]. Both ends bound what they read and how long they wait for it.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Protocol;

/// The socket's name in the run directory.
pub const SOCKET: &str = "inspect.sock";
/// The longest line, in bytes with its end.
pub const MOST_LINE_BYTES: u64 = 16 << 10;
/// How long either end waits for the other: longer than a worker may hang before it is given up.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// The flows that match, of all workers, in no particular order.
    Flows {
        /// Which.
        filter: Box<FlowFilter>,
        /// At most so many are told; all that match are counted.
        limit: u64,
    },
    /// What would become of a packet.
    Explain {
        /// Its source address and L4 port.
        source: SocketAddr,
        /// Its destination address and L4 port.
        destination: SocketAddr,
        /// TCP or UDP.
        protocol: Protocol,
    },
    /// The next packets that match, each with what becomes of it. One asker at a time.
    Watch {
        /// Which.
        filter: Box<PacketFilter>,
        /// So many, then that is all.
        count: u64,
        /// That is all after so long, in milliseconds.
        limit_ms: u32,
        /// At most so many bytes of each frame, and no more than [`MOST_FRAME_BYTES`].
        frame_bytes: usize,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A flow.
    Flow(Flow),
    /// A packet and what became of it.
    Packet(Box<Packet>),
    /// What would become of the packet.
    Explained {
        /// The worker that has or would have its flow.
        worker: usize,
        /// What would become of it there.
        fate: Fate,
    },
    /// Those were all packets.
    Watched {
        /// How many were told.
        told: u64,
        /// How many more matched, and were not told, because they came faster than they were read.
        missed: u64,
    },
    /// Those were all flows.
    Done {
        /// How many flows were looked at.
        looked_at: u64,
        /// How many of them matched, told or not.
        matched: u64,
    },
    /// There is no answer, or no more of it: why, and the next move.
    Refused(String),
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client.
    pub client: SocketAddr,
    /// The VIP and L4 port it asked.
    pub vip: SocketAddr,
    /// What the backend sees as source: a SNAT address, or with DNAT the client.
    pub outside: SocketAddr,
    /// The backend that serves it.
    pub backend: SocketAddr,
    /// What it has lived through, for instance `established`.
    pub state: String,
    /// How long its last packet is ago.
    pub idle_ms: u32,
    /// The worker that has it.
    pub worker: usize,
    /// The row of its listener in the statistics.
    pub listener: u32,
    /// The row of its backend in the statistics.
    pub backend_row: u32,
}

/// What would become of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It belongs to a flow.
    Flow {
        /// The flow.
        flow: Flow,
        /// Whether it goes to the backend; if not, to the client.
        to_backend: bool,
        /// Where it leaves.
        next_hop: NextHop,
        /// The flow ends after so long, in milliseconds: nobody serves it any more, and its listener keeps none of
        /// those.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ends_in_ms: Option<u32>,
    },
    /// It has no flow; if it may begin one (TCP: a SYN), this backend gets it.
    New {
        /// The row of its listener in the statistics.
        listener: u32,
        /// The backend.
        backend: SocketAddr,
        /// Where it leaves.
        next_hop: NextHop,
    },
    /// It has no flow and gets none: the listener refuses its share, or has no backend.
    NoBackend {
        /// The row of its listener in the statistics.
        listener: u32,
    },
    /// It has no flow and gets none: its client is in none of the listener's source ranges.
    ShutOut {
        /// The row of its listener in the statistics.
        listener: u32,
    },
    /// The kernel gets it.
    Punted {
        /// By this queue, for instance `control`.
        class: String,
    },
    /// It is lost.
    Dropped {
        /// The name of the reason, as in the counters.
        reason: String,
    },
}

/// A packet that a worker met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// The worker that met it. One that is handed over is met twice.
    pub worker: usize,
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The row of the port it came in by.
    pub ingress: u32,
    /// The frame as it arrived.
    pub arrived: Frame,
    /// The frame as it left, if it was sent or waits to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Frame>,
    /// How far it came.
    pub came: Came,
    /// What became of it.
    pub exit: PacketExit,
}

/// How far a packet came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Came {
    /// It was not understood, or is no IP packet.
    Parsed,
    /// It belongs to a flow.
    Hit(Flow),
    /// It began a flow.
    New(Flow),
    /// It is for the listener of this row, and has no flow.
    ForListener(u32),
    /// It would belong to a flow that is not on this worker.
    FlowElsewhere,
    /// It is an echo request to a VIP.
    Echo,
    /// It is the kernel's, or nobody's.
    Unclaimed,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PacketExit {
    /// Sent by the port of this row. What a full transmit queue did not take is only counted.
    Sent(u32),
    /// Given to the kernel, by this queue.
    Punted(String),
    /// Handed over to this worker.
    HandedOver(usize),
    /// It waits for this neighbour.
    Held(IpAddr),
    /// A fragment that waits for the first of its datagram.
    Awaits,
    /// Lost, for this reason.
    Dropped(String),
}

/// The most bytes of a frame that are told.
pub const MOST_FRAME_BYTES: usize = 2048;

/// A frame, or its beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Bytes of the whole frame, without FCS.
    pub len: usize,
    /// Its beginning. As text: two digits a byte.
    #[serde(with = "hexadecimal")]
    pub bytes: Vec<u8>,
}

/// Where a packet leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NextHop {
    /// By this port.
    Ready {
        /// The row of the port in the statistics.
        port: u32,
        /// The destination MAC address, for instance `02:00:00:00:00:01`.
        mac: String,
    },
    /// By this port, once the kernel knows the neighbour's MAC address: it waits, or is dropped after a while.
    Unresolved {
        /// The row of the port in the statistics.
        port: u32,
        /// The neighbour.
        address: IpAddr,
    },
    /// Nowhere: no route leads there, and it is dropped.
    Unreachable,
}

/// Which flows are meant: those to which all applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowFilter {
    /// The client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Ends>,
    /// The VIP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip: Option<Ends>,
    /// What the backend sees as source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside: Option<Ends>,
    /// The backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<Ends>,
    /// The state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// TCP or UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Rows of listeners in the statistics; none is any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<u32>,
}

impl FlowFilter {
    /// Whether a flow is meant.
    #[must_use]
    pub fn matches(&self, flow: &Flow) -> bool {
        let has = |wanted: &Option<Ends>, end| wanted.is_none_or(|wanted| wanted.contains(end));
        has(&self.client, flow.client)
            && has(&self.vip, flow.vip)
            && has(&self.outside, flow.outside)
            && has(&self.backend, flow.backend)
            && self.state.as_ref().is_none_or(|state| *state == flow.state)
            && self.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && (self.listeners.is_empty() || self.listeners.contains(&flow.listener))
    }
}

/// Which packets are meant: those to which all applies, as they came or as they left. Without any end and protocol, every frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PacketFilter {
    /// The source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Ends>,
    /// The destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Ends>,
    /// Source or destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub either: Option<Ends>,
    /// The IANA number of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// Only packets that are lost.
    pub dropped: bool,
}

/// Source, destination and protocol of a packet; L4 ports are 0 where there are none.
pub type Tuple = (SocketAddr, SocketAddr, u8);

impl PacketFilter {
    /// Whether a packet is meant, as far as its tuple goes; `None` is that of a frame without one.
    #[must_use]
    pub fn matches(&self, tuple: Option<Tuple>) -> bool {
        let Some((source, destination, protocol)) = tuple else {
            let Self { source, destination, either, protocol, .. } = self;
            return [source, destination, either].iter().all(|end| end.is_none())
                && protocol.is_none();
        };
        let has = |wanted: Option<Ends>, end| wanted.is_none_or(|wanted| wanted.contains(end));
        has(self.source, source)
            && has(self.destination, destination)
            && (has(self.either, source) || has(self.either, destination))
            && self.protocol.is_none_or(|wanted| wanted == protocol)
    }
}

/// One end of many flows: addresses that begin alike, and one L4 port or any.
///
/// Written `203.0.113.7`, `203.0.113.0/24`, `203.0.113.7:4000`, `203.0.113.0/24:80`, `2001:db8::/32`,
/// `[2001:db8::1]:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ends {
    address: IpAddr,
    prefix_len: u8,
    port: Option<u16>,
}

impl Ends {
    /// Whether `end` is one of them.
    #[must_use]
    pub fn contains(&self, end: SocketAddr) -> bool {
        let same_prefix = match (self.address, end.ip()) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                let differs = one.to_bits() ^ other.to_bits();
                differs.checked_shr(32 - u32::from(self.prefix_len)).unwrap_or(0) == 0
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                let differs = one.to_bits() ^ other.to_bits();
                differs.checked_shr(128 - u32::from(self.prefix_len)).unwrap_or(0) == 0
            }
            _ => false,
        };
        same_prefix && self.port.is_none_or(|port| port == end.port())
    }
}

/// A text that names no [`Ends`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no address: write one such as 203.0.113.7, 203.0.113.0/24, 203.0.113.7:80 or [2001:db8::1]:80"
)]
pub struct BadEnds(String);

impl FromStr for Ends {
    type Err = BadEnds;

    fn from_str(text: &str) -> Result<Self, BadEnds> {
        let bad = || BadEnds(text.chars().take(80).collect());
        // A port follows the last colon of `[v6]:port` and of an IPv4 address, prefix or not.
        let (address, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inside, after) = rest.split_once(']').ok_or_else(bad)?;
                match after.split_once(':') {
                    Some(("", port)) => (inside, Some(port)),
                    None if after.is_empty() => (inside, None),
                    _ => return Err(bad()),
                }
            }
            None if text.matches(':').count() == 1 => {
                text.split_once(':').map(|(address, port)| (address, Some(port))).ok_or_else(bad)?
            }
            None => (text, None),
        };
        let port = port.map(str::parse).transpose().map_err(|_| bad())?;
        let (address, prefix_len) = match address.split_once('/') {
            Some((address, len)) => (address, Some(len.parse::<u8>().map_err(|_| bad())?)),
            None => (address, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len = prefix_len.unwrap_or(most);
        if prefix_len > most {
            return Err(bad());
        }
        Ok(Self { address, prefix_len, port })
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, prefix_len, port } = self;
        match (address, port) {
            (IpAddr::V6(_), Some(port)) => write!(f, "[{address}/{prefix_len}]:{port}"),
            (IpAddr::V4(_), Some(port)) => write!(f, "{address}/{prefix_len}:{port}"),
            (_, None) => write!(f, "{address}/{prefix_len}"),
        }
    }
}

impl TryFrom<String> for Ends {
    type Error = BadEnds;

    fn try_from(text: String) -> Result<Self, BadEnds> {
        text.parse()
    }
}

impl From<Ends> for String {
    fn from(ends: Ends) -> Self {
        ends.to_string()
    }
}

/// Asks the data plane whose run directory is given. The answers come as they are made, up to the last one
/// or an error.
///
/// # Errors
/// The socket's: nobody listens, or not for us.
pub fn ask(
    run_dir: &Path,
    question: &Question,
) -> io::Result<impl Iterator<Item = io::Result<Answer>> + use<>> {
    let mut stream = UnixStream::connect(run_dir.join(SOCKET))?;
    let silence = match question {
        Question::Watch { limit_ms, .. } => Duration::from_millis((*limit_ms).into()), // no packet may come
        Question::Flows { .. } | Question::Explain { .. } => Duration::ZERO,
    };
    stream.set_read_timeout(Some(PATIENCE + silence))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    put(&mut stream, question)?;
    Ok(Lines { reader: BufReader::new(stream), ended: false })
}

/// Reads the one question of a connection.
///
/// # Errors
/// The socket's, and [`io::ErrorKind::InvalidData`] for what is no question: its text is for the asker.
pub fn read_question(stream: &UnixStream) -> io::Result<Question> {
    get(&mut BufReader::new(stream))?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Writes one line.
///
/// # Errors
/// The socket's.
pub fn put(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads one line; `None` at the end.
fn get<T: for<'de> Deserialize<'de>>(reader: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    reader.take(MOST_LINE_BYTES).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        let message = format!("a line of more than {MOST_LINE_BYTES} bytes, or cut off");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// The answers of one connection.
struct Lines {
    reader: BufReader<UnixStream>,
    ended: bool,
}

impl Iterator for Lines {
    type Item = io::Result<Answer>;

    fn next(&mut self) -> Option<io::Result<Answer>> {
        if self.ended {
            return None;
        }
        let answer = get(&mut self.reader)
            .and_then(|answer| answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()));
        self.ended = !matches!(answer, Ok(Answer::Flow(_) | Answer::Packet(_)));
        Some(answer)
    }
}

/// Bytes as text, two digits each.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], out: S) -> Result<S::Ok, S::Error> {
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
        let text: String =
            bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        out.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let digits: Option<Vec<u8>> =
            text.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
        let digits = digits.filter(|digits| digits.len() % 2 == 0);
        let digits = digits.ok_or_else(|| D::Error::custom("no bytes in hexadecimal"))?;
        Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn flow(client: &str, backend: &str) -> Flow {
        let end = |text: &str| text.parse().unwrap();
        Flow {
            protocol: Protocol::Tcp,
            client: end(client),
            vip: end("192.0.2.10:80"),
            outside: end("10.0.0.200:1024"),
            backend: end(backend),
            state: "established".into(),
            idle_ms: 12,
            worker: 1,
            listener: 3,
            backend_row: 7,
        }
    }

    #[test]
    fn ends_are_read_as_people_write_them() {
        for (text, inside, outside) in [
            ("203.0.113.7", "203.0.113.7:1", "203.0.113.8:1"),
            ("203.0.113.0/24", "203.0.113.255:1", "203.0.114.0:1"),
            ("203.0.113.7:80", "203.0.113.7:80", "203.0.113.7:81"),
            ("203.0.113.0/24:80", "203.0.113.9:80", "203.0.113.9:81"),
            ("0.0.0.0/0", "255.255.255.255:1", "[::]:1"),
            ("2001:db8::1", "[2001:db8::1]:9", "[2001:db8::2]:9"),
            ("2001:db8::/32", "[2001:db8:ffff::1]:9", "[2001:db9::]:9"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80", "[2001:db8::1]:81"),
            ("[2001:db8::/32]:80", "[2001:db8::1]:80", "[2001:db8::1]:81"),
            ("::/0", "[ffff::]:1", "0.0.0.0:1"),
        ] {
            let ends: Ends = text.parse().unwrap();
            assert!(ends.contains(inside.parse().unwrap()), "{text} has {inside}");
            assert!(!ends.contains(outside.parse().unwrap()), "{text} has not {outside}");
            assert_eq!(ends.to_string().parse(), Ok(ends), "{text}");
        }
        for text in [
            "",
            "x",
            "1.2.3",
            "1.2.3.4/33",
            "1.2.3.4:",
            "1.2.3.4:65536",
            "[::1",
            "[::1]x",
            "::/129",
            "[::1]:80:1",
            "1.2.3.4/",
            ":80",
        ] {
            let error = text.parse::<Ends>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is no address: write")), "{error}");
        }
    }

    #[test]
    fn a_filter_means_what_all_of_it_means() {
        let subject = flow("203.0.113.7:4000", "10.0.0.3:8080");
        let ends = |text: &str| Some(text.parse().unwrap());
        let all = FlowFilter {
            client: ends("203.0.113.0/24"),
            vip: ends("192.0.2.10:80"),
            outside: ends("10.0.0.200"),
            backend: ends("10.0.0.3:8080"),
            state: Some("established".into()),
            protocol: Some(Protocol::Tcp),
            listeners: vec![1, 3],
        };
        assert!(all.matches(&subject));
        assert!(FlowFilter::default().matches(&subject));
        for (part, other) in [
            ("client", FlowFilter { client: ends("203.0.114.0/24"), ..all.clone() }),
            ("vip", FlowFilter { vip: ends("192.0.2.10:81"), ..all.clone() }),
            ("outside", FlowFilter { outside: ends("10.0.0.201"), ..all.clone() }),
            ("backend", FlowFilter { backend: ends("10.0.0.3:8081"), ..all.clone() }),
            ("state", FlowFilter { state: Some("closing".into()), ..all.clone() }),
            ("protocol", FlowFilter { protocol: Some(Protocol::Udp), ..all.clone() }),
            ("listeners", FlowFilter { listeners: vec![1], ..all.clone() }),
        ] {
            assert!(!other.matches(&subject), "{part}");
        }
    }

    #[test]
    fn a_packet_filter_means_what_all_of_it_means() {
        let ends = |text: &str| Some(text.parse().unwrap());
        let end = |text: &str| text.parse().unwrap();
        let tuple = Some((end("203.0.113.7:4000"), end("192.0.2.10:80"), 6));
        let any = PacketFilter::default();
        for (filter, meant) in [
            (any, true),
            (PacketFilter { source: ends("203.0.113.0/24"), ..any }, true),
            (PacketFilter { source: ends("192.0.2.10"), ..any }, false),
            (PacketFilter { destination: ends("192.0.2.10:80"), ..any }, true),
            (PacketFilter { destination: ends("192.0.2.10:81"), ..any }, false),
            (PacketFilter { either: ends("192.0.2.10"), ..any }, true),
            (PacketFilter { either: ends("203.0.113.7:4000"), ..any }, true),
            (PacketFilter { either: ends("203.0.113.8"), ..any }, false),
            (PacketFilter { protocol: Some(6), ..any }, true),
            (PacketFilter { protocol: Some(17), ..any }, false),
        ] {
            assert_eq!(filter.matches(tuple), meant, "{filter:?}");
            assert_eq!(filter.matches(None), filter == any, "{filter:?}: ARP has no tuple");
        }
    }

    #[test]
    fn a_frame_is_its_digits() {
        let frame = Frame { len: 60, bytes: vec![0x00, 0x9f, 0xff] };
        let text = serde_json::to_string(&frame).unwrap();
        assert_eq!(text, "{\"len\":60,\"bytes\":\"009fff\"}");
        assert_eq!(serde_json::from_str::<Frame>(&text).unwrap(), frame);
        for bytes in ["0", "0g", "é0"] {
            let text = format!("{{\"len\":1,\"bytes\":\"{bytes}\"}}");
            serde_json::from_str::<Frame>(&text).expect_err(bytes);
        }
    }

    /// What the asker reads when the answerer writes `bytes` and goes.
    fn answers(bytes: &'static [u8]) -> Vec<io::Result<Answer>> {
        let folder = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let question = Question::Flows { filter: Box::default(), limit: 5 };
        let asked = question.clone();
        let answerer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert_eq!(read_question(&stream).unwrap(), asked);
            stream.write_all(bytes).unwrap();
        });
        let read = ask(folder.path(), &question).unwrap().collect();
        answerer.join().unwrap();
        read
    }

    #[test]
    fn answers_end_with_the_last_one_or_an_error() {
        let done = b"{\"done\":{\"looked_at\":2,\"matched\":1}}\n{}";
        assert!(matches!(&answers(done)[..], [Ok(Answer::Done { looked_at: 2, matched: 1 })]));
        assert!(matches!(&answers(b"{\"refused\":\"busy\"}\n")[..], [Ok(Answer::Refused(_))]));
        for (cut, kind) in [
            (&b""[..], io::ErrorKind::UnexpectedEof),
            (b"{\"done\"", io::ErrorKind::InvalidData),
            (b"{\"new in 2031\":{}}\n", io::ErrorKind::InvalidData),
        ] {
            let read = answers(cut);
            assert_eq!(read.len(), 1, "{cut:?}");
            assert_eq!(read[0].as_ref().unwrap_err().kind(), kind, "{cut:?}");
        }
    }

    #[test]
    fn what_is_no_question_is_refused_before_it_fills_memory() {
        for bytes in
            [vec![b'x'; 1 << 20], b"{}\n".to_vec(), b"{\"flows\":{\"limit\":-1}}\n".to_vec()]
        {
            let (mut asker, answerer) = UnixStream::pair().unwrap();
            let writes = thread::spawn(move || asker.write_all(&bytes));
            let error = read_question(&answerer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            drop(answerer);
            let _ = writes.join().unwrap(); // what was not read does not matter
        }
    }
}
