//! `penstock trace` and `penstock capture`: packets as they come, with what becomes of them.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use penstock_feed::inspect::{
    Answer, Came, Ends, Flow, MOST_FRAME_BYTES, Packet, PacketExit, PacketFilter, Question,
};
use penstock_gateway_types::k8s_openapi::jiff::Timestamp;

use super::names::Names;
use super::pcapng::{Entry, Way, Writer};
use super::{Where, ask, frame, no_answer};

/// Which packets are meant; all filters must apply, to a packet as it came or as it left. Without an end and a
/// protocol, every frame is meant.
#[derive(clap::Args)]
struct Which {
    /// Source or destination: 203.0.113.7, 203.0.113.0/24, 203.0.113.7:4000 or [2001:db8::/32]:443.
    #[arg(long, value_name = "ENDS")]
    host: Option<Ends>,
    /// The source.
    #[arg(long, value_name = "ENDS")]
    src: Option<Ends>,
    /// The destination.
    #[arg(long, value_name = "ENDS")]
    dst: Option<Ends>,
    /// tcp, udp, icmp, icmpv6, or the number of another protocol.
    #[arg(long, value_parser = protocol)]
    protocol: Option<u8>,
    /// Only packets that are lost.
    #[arg(long)]
    dropped: bool,
    /// It ends after so long, at most a day.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
}

fn protocol(text: &str) -> Result<u8, String> {
    match text {
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "icmp" => Ok(1),
        "icmpv6" => Ok(58),
        number => number.parse().map_err(|_| "tcp, udp, icmp, icmpv6 or a number".to_owned()),
    }
}

impl Which {
    fn question(&self, count: u64) -> Question {
        let filter = PacketFilter {
            source: self.src,
            destination: self.dst,
            either: self.host,
            protocol: self.protocol,
            dropped: self.dropped,
        };
        let (filter, limit_ms) = (Box::new(filter), self.seconds * 1000);
        Question::Watch { filter, count, limit_ms, frame_bytes: MOST_FRAME_BYTES }
    }
}

/// Follows the next packets that match through the data plane: which flow or listener, which backend, how they leave.
///
/// A filter means a packet as it came or as it left: --host VIP shows both ways of its connections. A packet that is handed over is shown by both workers. What a full transmit queue
/// does not take, and what waits for a neighbour in vain, is shown as it was meant and only counted as lost. Exit
/// code: 0, or 1 if the data plane does not answer.
#[derive(clap::Args)]
pub(crate) struct TraceArguments {
    #[command(flatten)]
    which: Which,
    /// It ends after so many packets.
    #[arg(long, default_value_t = 20)]
    count: u64,
    /// A line of JSON for each, with the bytes of the frames.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// Writes the next packets that match to a pcapng file: as they came, and as they left.
///
/// A filter means a packet as it came or as it left. The comment of each says what became of it, for instance
/// `dropped: no_backend`; each port is two interfaces, in and out. Exit code: 0, or 1 if the data plane does not answer or the file cannot be written.
#[derive(clap::Args)]
pub(crate) struct CaptureArguments {
    #[command(flatten)]
    which: Which,
    /// It ends after so many packets.
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    /// The file; `-` is standard output.
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    #[command(flatten)]
    place: Where,
}

/// Asks, and shows packets as they come.
pub(crate) fn trace(arguments: &TraceArguments) -> ExitCode {
    let names = Names::read(&arguments.place.run_dir);
    let mut out = io::stdout().lock();
    let mut number = 0;
    let asked = watch(&arguments.place, &arguments.which, arguments.count, |packet| {
        number += 1;
        let text = if arguments.json {
            serde_json::to_string(packet)? + "\n"
        } else {
            page(number, packet, &names)
        };
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    });
    finish(asked)
}

/// Asks, and writes packets as they come.
pub(crate) fn capture(arguments: &CaptureArguments) -> ExitCode {
    let path = &arguments.write;
    let out: Box<dyn Write> = if path.as_os_str() == "-" {
        Box::new(io::stdout().lock())
    } else {
        match File::create(path) {
            Ok(file) => Box::new(io::BufWriter::new(file)),
            Err(error) => return no_answer(&format!("{}: {error}", path.display())),
        }
    };
    let mut writer = match Writer::begin(out) {
        Ok(writer) => writer,
        Err(error) => return no_answer(&format!("{}: {error}", path.display())),
    };
    let names = Names::read(&arguments.place.run_dir);
    let asked = watch(&arguments.place, &arguments.which, arguments.count, |packet| {
        write(&mut writer, packet, &names)
    });
    finish(asked)
}

/// Asks for packets and gives each to `each`, until that fails. How many were told, and how many missed.
fn watch(
    place: &Where,
    which: &Which,
    count: u64,
    mut each: impl FnMut(&Packet) -> io::Result<()>,
) -> Result<(u64, u64), String> {
    let last = ask(&place.run_dir, &which.question(count), |answer| match answer {
        Answer::Packet(packet) => {
            each(&packet).map_err(|error| format!("cannot be written: {error}"))
        }
        _ => Ok(()),
    })?;
    match last {
        Answer::Watched { told, missed } => Ok((told, missed)),
        _ => Err("the data plane is of another version: upgrade both".to_owned()),
    }
}

fn finish(asked: Result<(u64, u64), String>) -> ExitCode {
    match asked {
        Ok((told, missed)) => {
            let missed = match missed {
                0 => String::new(),
                missed => format!(", {missed} more came faster than they were read"),
            };
            eprintln!("{told} packets{missed}");
            ExitCode::SUCCESS
        }
        Err(reason) => no_answer(&reason),
    }
}

/// A packet and what became of it, a line a step.
fn page(number: u64, packet: &Packet, names: &Names) -> String {
    let Packet { worker, time_ns, ingress, arrived, left, came, exit } = packet;
    let time = i128::from(*time_ns);
    let time = Timestamp::from_nanosecond(time).map_or(String::new(), |time| format!("{time:.6}"));
    let port = names.port(*ingress);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{number}  {time}  worker {worker}  port {port}  {} bytes", arrived.len);
    let _ = writeln!(text, "   arrived  {}", frame::in_words(&arrived.bytes));
    for line in steps(came, names) {
        let _ = writeln!(text, "   {line}");
    }
    if let Some(left) = left {
        let _ = writeln!(text, "   left     {}", frame::in_words(&left.bytes));
    }
    let _ = writeln!(text, "   exit     {}\n", exit_words(exit, names));
    text
}

fn steps(came: &Came, names: &Names) -> Vec<String> {
    let flow = |flow: &Flow, how: &str| {
        let Flow { client, vip, outside, backend, state, listener, .. } = flow;
        vec![
            format!("flow     {how}: listener {}, now {state}", names.listener(*listener)),
            format!("         {client} > {vip}, pinned to {backend}, which sees {outside}"),
        ]
    };
    match came {
        Came::Parsed => vec!["parse    no packet for a flow".to_owned()],
        Came::Hit(hit) => flow(hit, "hit"),
        Came::New(new) => flow(new, "new"),
        Came::ForListener(listener) => {
            vec![format!("flow     none: it is for listener {}", names.listener(*listener))]
        }
        Came::FlowElsewhere => vec!["flow     none on this worker".to_owned()],
        Came::Echo => vec!["flow     none: it is an echo request to a VIP".to_owned()],
        Came::Unclaimed => vec!["flow     none, and no listener".to_owned()],
    }
}

fn exit_words(exit: &PacketExit, names: &Names) -> String {
    match exit {
        PacketExit::Sent(port) => format!("sent by port {}", names.port(*port)),
        PacketExit::Punted(class) => format!("to the kernel, queue {class}"),
        PacketExit::HandedOver(worker) => format!("handed over to worker {worker}"),
        PacketExit::Awaits => "waits for the first fragment".to_owned(),
        PacketExit::Held(address) => format!("waits for neighbour {address}"),
        PacketExit::Dropped(reason) => {
            format!("dropped: {reason}. {}", names.meaning(reason)).trim_end().to_owned()
        }
    }
}

/// A packet as it came, and as it left.
fn write(writer: &mut Writer<impl Write>, packet: &Packet, names: &Names) -> io::Result<()> {
    let exit = match &packet.exit {
        PacketExit::Dropped(reason) => format!("dropped: {reason}"),
        exit => exit_words(exit, names),
    };
    let comment = format!("worker {}: {exit}", packet.worker);
    let (port, arrived) = (names.port(packet.ingress), &packet.arrived);
    let entry = Entry {
        port: &port,
        way: Way::In,
        time_ns: packet.time_ns,
        len: arrived.len,
        bytes: &arrived.bytes,
        comment: &comment,
    };
    writer.write(&entry)?;
    if let (Some(left), PacketExit::Sent(egress)) = (&packet.left, &packet.exit) {
        let port = names.port(*egress);
        let (len, bytes) = (left.len, &left.bytes);
        writer.write(&Entry { port: &port, way: Way::Out, len, bytes, ..entry })?;
    }
    Ok(())
}
