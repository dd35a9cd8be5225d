//! `hold`: connections that stay open and in use while the world around them changes.
//!
//! Each connection asks for its backend's name over and over. Because the answer must be the same
//! for as long as the connection lives, a flow that is moved to another backend shows as `moved`
//! even if nothing is reset. Two lines are printed: one as soon as all connections are open, for a
//! script to wait for, and the counts at the end.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::http::{After, Connection};
use crate::print_json;
use crate::tally::{Failure, Tally};

/// Keep COUNT connections open, ask on each of them again and again, count what breaks
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to connect: a VIP and its L4 port
    address: SocketAddr,
    /// How many connections to hold
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=2000))]
    count: u64,
    /// Pause between two questions on one connection, in milliseconds
    #[arg(long, default_value_t = 250)]
    interval_ms: u64,
    /// Stop after this many seconds; SIGTERM stops earlier
    #[arg(long, default_value_t = 600)]
    duration: u64,
    /// How long an answer may take, in milliseconds
    #[arg(long, default_value_t = 5000)]
    timeout_ms: u64,
}

/// The first line: the connections are there, the changes may begin.
#[derive(Serialize)]
struct Opened {
    opened: usize,
}

/// The last line. `ok` counts exchanges, every failure ends its connection.
#[derive(Serialize)]
struct Report {
    connections: u64,
    opened: usize,
    /// Connections that were still good at the end.
    alive: usize,
    /// Answers from another backend than the connection began with.
    moved: u64,
    #[serde(flatten)]
    tally: Tally,
    seconds: f64,
}

/// A connection and the backend that answered first.
struct Held {
    number: u64,
    connection: Connection,
    backend: String,
}

/// What became of one held connection.
struct Fate {
    tally: Tally,
    moved: u64,
    alive: bool,
}

pub(crate) fn run(arguments: &Arguments, stop: &AtomicBool) -> io::Result<()> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let held = open_all(arguments, stop, &mut tally);
    let opened = held.len();
    print_json(&Opened { opened })?;

    let end = start + Duration::from_secs(arguments.duration);
    let mut report =
        Report { connections: arguments.count, opened, alive: 0, moved: 0, tally, seconds: 0.0 };
    thread::scope(|scope| {
        let holders: Vec<_> = held
            .into_iter()
            .map(|held| scope.spawn(|| hold(held, arguments, start, end, stop)))
            .collect();
        for holder in holders {
            let fate = holder.join().expect("a holder does not panic");
            report.tally.merge(fate.tally);
            report.moved += fate.moved;
            report.alive += usize::from(fate.alive);
        }
    });
    report.seconds = start.elapsed().as_secs_f64();
    print_json(&report)
}

/// Opens the connections one after the other, each proved by a first answer.
fn open_all(arguments: &Arguments, stop: &AtomicBool, tally: &mut Tally) -> Vec<Held> {
    let limit = Duration::from_millis(arguments.timeout_ms);
    let mut held = Vec::new();
    for number in 0..arguments.count {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let first = Connection::open(arguments.address, limit).and_then(|mut connection| {
            let backend = connection.ask_name(After::Keep)?;
            Ok(Held { number, connection, backend })
        });
        match first {
            Ok(connection) => {
                tally.answer(&connection.backend);
                held.push(connection);
            }
            Err(failure) => tally.failure(&failure, &format!("opening connection {number}")),
        }
    }
    held
}

/// Asks on one connection until it fails, the time is over or `stop` is raised.
fn hold(
    mut held: Held,
    arguments: &Arguments,
    start: Instant,
    end: Instant,
    stop: &AtomicBool,
) -> Fate {
    let pause = Duration::from_millis(arguments.interval_ms);
    let mut fate = Fate { tally: Tally::default(), moved: 0, alive: true };
    // Spread over one pause, so that the connections do not all ask at once.
    thread::sleep(pause.mul_f64(held.number as f64 / arguments.count as f64));
    while !stop.load(Ordering::Relaxed) && Instant::now() < end {
        match held.connection.ask_name(After::Keep) {
            Ok(backend) => {
                fate.moved += u64::from(backend != held.backend);
                fate.tally.answer(&backend);
            }
            // A signal cut the wait short: the connection is no worse for it.
            Err(Failure::Timeout) if stop.load(Ordering::Relaxed) => break,
            Err(failure) => {
                let at = start.elapsed().as_millis();
                let context = format!("connection {} to {} at {at} ms", held.number, held.backend);
                fate.tally.failure(&failure, &context);
                fate.alive = false;
                break;
            }
        }
        thread::sleep(pause);
    }
    fate
}
