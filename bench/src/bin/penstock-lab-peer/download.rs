//! `download`: one long connection that must neither break nor bring a wrong byte.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::http::{After, Connection};
use crate::pattern;
use crate::tally::Failure;

/// Fetch a file made by `pattern` and compare every byte
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to connect: a VIP and its L4 port
    address: SocketAddr,
    /// What to fetch
    #[arg(long, default_value = "/pattern")]
    path: String,
    /// How long the connection may be silent, in milliseconds
    #[arg(long, default_value_t = 5000)]
    timeout_ms: u64,
}

#[derive(Serialize)]
pub(crate) struct Report {
    bytes: u64,
    length: u64,
    complete: bool,
    reset: bool,
    failure: Option<String>,
    seconds: f64,
    mbit_per_s: f64,
}

/// Runs until the file is here, the connection fails or `stop` is raised.
pub(crate) fn run(arguments: &Arguments, stop: &AtomicBool) -> Report {
    let start = Instant::now();
    let mut bytes = 0;
    let mut length = 0;
    let failure = fetch(arguments, stop, &mut bytes, &mut length).err();
    let seconds = start.elapsed().as_secs_f64();
    Report {
        bytes,
        length,
        complete: failure.is_none() && bytes == length,
        reset: failure == Some(Failure::Reset),
        failure: failure.map(|failure| failure.to_string()),
        seconds,
        mbit_per_s: bytes as f64 * 8.0 / 1e6 / seconds,
    }
}

/// `bytes` and `length` are out parameters so that a failure still tells how far it got.
fn fetch(
    arguments: &Arguments,
    stop: &AtomicBool,
    bytes: &mut u64,
    length: &mut u64,
) -> Result<(), Failure> {
    let limit = Duration::from_millis(arguments.timeout_ms);
    let mut connection = Connection::open(arguments.address, limit)?;
    *length = connection.get(&arguments.path, After::Close)?;
    let mut buffer = vec![0; 64 * 1024];
    while *bytes < *length {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::Other("told to stop".to_owned()));
        }
        let read = connection.read_some(&mut buffer)?;
        if read == 0 {
            return Err(Failure::Closed);
        }
        if let Some(at) = pattern::first_difference(&buffer[..read], *bytes) {
            return Err(Failure::Wrong(format!("byte {at} is not the file's")));
        }
        *bytes += read as u64;
    }
    Ok(())
}
