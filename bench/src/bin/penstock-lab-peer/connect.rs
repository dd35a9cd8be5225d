//! `connect`: many short connections, each opened, asked once and closed by the server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::http::{After, Connection};
use crate::tally::{Failure, Tally};

/// Open COUNT short HTTP connections and count how each ended
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to connect: a VIP and its L4 port
    address: SocketAddr,
    /// How many connections in all
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// How many at a time
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    concurrency: u64,
    /// At most this many new connections a second; 0 is as fast as they go
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// How long a step of a connection may take, in milliseconds
    #[arg(long, default_value_t = 5000)]
    timeout_ms: u64,
}

#[derive(Serialize)]
pub(crate) struct Report {
    connections: u64,
    #[serde(flatten)]
    tally: Tally,
    /// Milliseconds from SYN to the server's FIN: median, 99th percentile, worst.
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    seconds: f64,
}

/// Runs until all connections are done or `stop` is raised.
pub(crate) fn run(arguments: &Arguments, stop: &AtomicBool) -> Report {
    let start = Instant::now();
    let next = AtomicU64::new(0);
    let mut tally = Tally::default();
    let mut times = Vec::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..arguments.concurrency.min(arguments.count))
            .map(|_| scope.spawn(|| work(arguments, &next, start, stop)))
            .collect();
        for worker in workers {
            let (counted, timed) = worker.join().expect("a worker does not panic");
            tally.merge(counted);
            times.extend(timed);
        }
    });
    times.sort_unstable();
    Report {
        connections: times.len() as u64,
        tally,
        p50_ms: percentile(&times, 50),
        p99_ms: percentile(&times, 99),
        max_ms: percentile(&times, 100),
        seconds: start.elapsed().as_secs_f64(),
    }
}

/// One thread: takes the next connection's number until there is none.
fn work(
    arguments: &Arguments,
    next: &AtomicU64,
    start: Instant,
    stop: &AtomicBool,
) -> (Tally, Vec<Duration>) {
    let mut tally = Tally::default();
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= arguments.count {
            break;
        }
        wait_for_turn(number, arguments.rate, start);
        let begun = Instant::now();
        match one(arguments) {
            Ok(backend) => tally.answer(&backend),
            Err(failure) => {
                let at = start.elapsed().as_millis();
                tally.failure(&failure, &format!("connection {number} at {at} ms"));
            }
        }
        times.push(begun.elapsed());
    }
    (tally, times)
}

fn one(arguments: &Arguments) -> Result<String, Failure> {
    let mut connection =
        Connection::open(arguments.address, Duration::from_millis(arguments.timeout_ms))?;
    let backend = connection.ask_name(After::Close)?;
    connection.wait_for_close()?;
    Ok(backend)
}

/// Connection `number` starts no earlier than its place in a stream of `rate` a second.
fn wait_for_turn(number: u64, rate: u64, start: Instant) {
    if rate > 0 {
        let due = Duration::from_secs_f64(number as f64 / rate as f64);
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times: Vec<_> = (1..=10).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), 5.0);
        assert_eq!(percentile(&times, 99), 10.0);
        assert_eq!(percentile(&times, 100), 10.0);
        assert_eq!(percentile(&[], 50), 0.0, "none measured");
    }
}
