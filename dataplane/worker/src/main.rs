//! `penstock-dataplane`: the process that owns the ports.
//!
//! It takes packets from DPDK ports, sends them through the forwarder and out again, on pinned
//! workers that share nothing. It knows no Kubernetes and holds no secret: what to serve comes over
//! the feed, and the last that was committed is on disk, so that it serves with nobody to ask.
//!
//! ```text
//!  main thread   feed ─▶ state ─┐                    statistics, heartbeat
//!                netlink ─▶ FIB ┴▶ snapshot ─▶ one pointer ─┐   ▲ next hops to resolve
//!  worker lcore  queue ─▶ forwarder ─▶ queue      ◀─────────┘   │      (one each, pinned)
//!                  │  ▲ hand over to the owner of the flow      │
//!                  ▼  │ other workers      hold ────────────────┘
//!  exception     companion TAP ◀─▶ the kernel: ARP, ICMP, BGP, SSH
//! ```
//!
//! * [`config`]: the machine, said once in a file; [`eal`]: what of it DPDK is told.
//! * [`start`]: everything that can fail, in order, before the first packet.
//! * [`main_lcore`]: the thread that listens to feed and kernel, and publishes snapshots.
//! * [`snapshot`]: state and kernel view to what the forwarder reads; [`slots`]: stable numbers.
//! * [`published`]: the pointer, and when the old may be freed.
//! * [`lcore`]: the worker's loop; [`handover`], [`hold`], [`idle`], [`clock`]: its parts.
//! * [`exception`]: frames to and from the kernel; [`kernel`]: TAPs and netlink.
//! * [`memory`]: hugepage files for the flow tables; [`statistics`]: what is counted, and where.

mod clock;
mod config;
mod companions;
mod eal;
mod exception;
mod fib;
mod handover;
mod hold;
mod idle;
mod kernel;
mod lcore;
mod main_lcore;
mod memory;
mod published;
mod slots;
mod snapshot;
mod start;
mod statistics;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use tracing::error;
use tracing_subscriber::EnvFilter;

/// The Penstock data plane: forwards packets between DPDK ports by what its control process feeds it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The machine's configuration: ports, workers, memory, SNAT addresses.
    #[arg(long, default_value = "/etc/penstock/dataplane.yaml")]
    config: PathBuf,
    /// Only check the configuration, and say what is wrong with it.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("PENSTOCK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = config::Config::load(&arguments.config)?;
    if arguments.check {
        return Ok(());
    }
    start::start(config)?.run();
    Ok(())
}
