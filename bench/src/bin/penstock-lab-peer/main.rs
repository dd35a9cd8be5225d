//! `penstock-lab-peer`: the hosts' side of the lab, both ends of the traffic that a test looks at.
//!
//! Debian has servers and load tools enough, but none that says *how* a connection ended. A test of
//! a load balancer needs to know whether the peer said goodbye (FIN), threw the connection away
//! (RST), fell silent, or answered with somebody else's bytes. This program counts those apart, and
//! prints what it counted as one JSON object on standard output, for a person or a test to read.
//!
//! | command    | module     | what it does                                                         |
//! |------------|------------|----------------------------------------------------------------------|
//! | `udp-echo` | [`udp`]    | a server: answers each datagram with its own name in front of it     |
//! | `udp-ask`  | [`udp`]    | asks such a server through the VIP, with a timeout and retries       |
//! | `connect`  | [`connect`]| many short HTTP connections, each opened, asked once and closed      |
//! | `hold`     | [`hold`]   | keeps connections open and asks on each of them until told to stop   |
//! | `download` | [`download`]| fetches a file and compares every byte with what it must be          |
//! | `flood`    | [`flood`]  | SYNs from random sources                                             |
//! | `churn`    | [`churn`]  | in the control process's place: changes backends again and again     |
//! | `decap`    | [`decap`]  | a backend's end of a tunnel: takes packets out of IPIP and GUE       |
//! | `pattern`  | [`pattern`]| writes the file that `download` can check                            |
//!
//! [`http`] is the little of HTTP/1.1 that the commands speak to nginx; [`tally`] is the one list of
//! ways an exchange can end. Everything is bounded: connections, time, and the bytes of an answer.
//! Exit status: 0 if the command did its work, whatever it counted, since a test may well expect
//! refusals; 2 if it could not be understood or could not begin.

mod churn;
mod connect;
mod decap;
mod download;
mod flood;
mod hold;
mod http;
mod pattern;
mod tally;
mod udp;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Parser, Subcommand};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Both ends of the lab's traffic: echo server, and clients that say how each connection ended.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    UdpEcho(udp::EchoArguments),
    UdpAsk(udp::AskArguments),
    Connect(connect::Arguments),
    Hold(hold::Arguments),
    Download(download::Arguments),
    Pattern(pattern::Arguments),
    Decap(decap::Arguments),
    Flood(flood::Arguments),
    Churn(churn::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "penstock-lab-peer: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> io::Result<()> {
    let stop = stop_on_signal()?;
    match command {
        Command::UdpEcho(arguments) => udp::echo(&arguments, &stop),
        Command::UdpAsk(arguments) => print_json(&udp::ask(&arguments, &stop)?),
        Command::Connect(arguments) => print_json(&connect::run(&arguments, &stop)),
        Command::Hold(arguments) => hold::run(&arguments, &stop),
        Command::Download(arguments) => print_json(&download::run(&arguments, &stop)),
        Command::Pattern(arguments) => pattern::write(&arguments),
        Command::Decap(arguments) => decap::run(&arguments, &stop),
        Command::Flood(arguments) => flood::run(&arguments, &stop),
        Command::Churn(arguments) => churn::run(&arguments, &stop),
    }
}

/// A flag that SIGTERM and SIGINT raise, so that what was counted is still printed.
fn stop_on_signal() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// One line of JSON on standard output, flushed, since a script waits for it.
fn print_json(report: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, report)?;
    writeln!(out)?;
    out.flush()
}
