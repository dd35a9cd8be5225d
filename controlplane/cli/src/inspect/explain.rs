//! `penstock explain`: where a packet would go now, and why.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use penstock_feed::inspect::{Answer, Fate, Flow, NextHop, Question};
use serde::Serialize;

use super::flows::Transport;
use super::names::Names;
use super::{Where, ask, no_answer};
use crate::layout::Span;
use crate::output::{self, Format};

/// Says where a packet would go now and why: from the configuration that is served, the live flows, and the
/// kernel's routes and neighbours as the data plane has them. Nothing is sent and no flow is made.
///
/// Exit code: 0 if it would be forwarded or be the kernel's, 3 if it would be dropped or refused, 1 if the data
/// plane does not answer.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Its source, for instance 203.0.113.7:40000.
    #[arg(long, value_name = "ADDR:PORT")]
    src: SocketAddr,
    /// Its destination.
    #[arg(
        long,
        value_name = "ADDR:PORT",
        help = "Its destination, for instance 192.0.2.10:80 or [2001:db8::1]:80"
    )]
    dst: SocketAddr,
    /// TCP or UDP.
    #[arg(long, value_enum, default_value = "tcp")]
    protocol: Transport,
    /// How to write it.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    place: Where,
}

/// The answer for programs.
#[derive(Serialize)]
struct Explained {
    worker: usize,
    fate: Fate,
    /// The same in words.
    words: Vec<String>,
}

/// Asks, and prints.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let question = Question::Explain {
        source: arguments.src,
        destination: arguments.dst,
        protocol: arguments.protocol.into(),
    };
    let names = Names::read(&arguments.place.run_dir);
    let (worker, fate) = match ask(&arguments.place.run_dir, &question, |_| Ok(())) {
        Ok(Answer::Explained { worker, fate }) => (worker, fate),
        Ok(_) => return no_answer("the data plane is of another version: upgrade both"),
        Err(reason) => return no_answer(&reason),
    };
    let code = if is_forwarded(&fate) { ExitCode::SUCCESS } else { ExitCode::from(3) };
    let words = words(&fate, worker, &names);
    let explained = Explained { worker, fate, words };
    let page = || {
        let mut text = String::new();
        for line in &explained.words {
            let _ = writeln!(text, "{line}"); // writing to a String cannot fail
        }
        text
    };
    output::print(arguments.output, &explained, page, code)
}

fn is_forwarded(fate: &Fate) -> bool {
    match fate {
        Fate::Flow { next_hop, .. } | Fate::New { next_hop, .. } => {
            *next_hop != NextHop::Unreachable
        }
        Fate::Punted { .. } => true,
        Fate::NoBackend { .. } | Fate::ShutOut { .. } | Fate::Dropped { .. } => false,
    }
}

/// A sentence a step.
fn words(fate: &Fate, worker: usize, names: &Names) -> Vec<String> {
    match fate {
        Fate::Flow { flow, to_backend, next_hop, ends_in_ms } => {
            let (from, to) =
                if *to_backend { (flow.outside, flow.backend) } else { (flow.vip, flow.client) };
            let mut words = flow_words(flow, *to_backend, worker, names);
            words
                .extend(ends_in_ms.map(|ms| ending(names.policy(flow.listener, "on_removal"), ms)));
            words.push(if flow.state == CUT {
                "It is answered by RST; a RST goes on, and a SYN begins anew.".to_owned()
            } else {
                format!("It leaves from {from} to {to}, {}.", leaves(next_hop, names))
            });
            words
        }
        Fate::New { listener, backend, next_hop } => vec![
            format!("It is for listener {}, and has no flow.", names.listener(*listener)),
            format!(
                "A SYN or a datagram begins one on worker {worker}; Maglev gives it to backend {backend}. \
                 Any other segment {}.",
                match names.policy(*listener, "on_unknown") {
                    _ if names.is_dsr(*listener) => "goes there, too",
                    "reset" => "is answered by RST",
                    _ => "is dropped (no_flow)",
                }
            ),
            format!("It leaves {}.", leaves(next_hop, names)),
        ],
        Fate::NoBackend { listener } => vec![
            format!("It is for listener {}, and has no flow.", names.listener(*listener)),
            format!(
                "No backend takes it: it falls in a share that is refused, or none is ready. \
                 A SYN is answered by RST, a datagram {}.",
                match names.policy(*listener, "on_exhaustion") {
                    "icmp" => "by ICMP \"port unreachable\"",
                    _ => "is dropped (no_backend)",
                }
            ),
        ],
        Fate::ShutOut { listener } => vec![
            format!("It is for listener {}, and has no flow.", names.listener(*listener)),
            "It is dropped: source_range. Its client is in none of the networks that the listener lets in \
             (sourceRanges of its L4Policy, loadBalancerSourceRanges of its Service)."
                .to_owned(),
        ],
        Fate::Punted { class } => {
            vec![format!("It is for the box itself: the kernel gets it, by the queue {class}.")]
        }
        Fate::Dropped { reason } => {
            vec![
                format!("It is dropped: {reason}. {}", names.meaning(reason)).trim_end().to_owned(),
            ]
        }
    }
}

/// The state of a flow that we have reset.
const CUT: &str = "cut";

fn flow_words(flow: &Flow, to_backend: bool, worker: usize, names: &Names) -> Vec<String> {
    let idle = Span(Duration::from_millis(flow.idle_ms.into()));
    let whose = if to_backend { "the client's side" } else { "the backend's side" };
    vec![
        format!(
            "It belongs to a flow of worker {worker}, {}, silent for {idle}: it is of {whose}.",
            flow.state
        ),
        format!(
            "The flow is of listener {}: {} to {}, pinned to backend {}, which sees {}.",
            names.listener(flow.listener),
            flow.client,
            flow.vip,
            flow.backend,
            flow.outside
        ),
    ]
}

/// Of a flow that nobody serves.
fn ending(policy: &str, ms: u32) -> String {
    let when = match ms {
        0 => "now".to_owned(),
        _ => format!("in {}", Span(Duration::from_millis(ms.into()))),
    };
    format!(
        "Its backend or listener was removed, or its client is shut out ({}): it ends {when}.",
        if policy.is_empty() { "on-removal".to_owned() } else { format!("on-removal {policy}") }
    )
}

fn leaves(next_hop: &NextHop, names: &Names) -> String {
    match next_hop {
        NextHop::Ready { port, mac } => format!("by port {} to {mac}", names.port(*port)),
        NextHop::Unresolved { port, address } => format!(
            "by port {} once the neighbour {address} has answered: until then it waits, and may be \
             dropped (hold_timeout)",
            names.port(*port)
        ),
        NextHop::Unreachable => {
            "nowhere: there is no route, and it is dropped (no_route)".to_owned()
        }
    }
}
