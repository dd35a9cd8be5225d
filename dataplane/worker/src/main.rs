//! The command line of `penstock-dataplane`; the journey begins in [`start`].

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use penstock_dataplane::{config::Config, start};
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
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(io::stderr)
        .init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(&arguments.config)?;
    if arguments.check {
        return Ok(());
    }
    start::start(config)?.run();
    Ok(())
}
