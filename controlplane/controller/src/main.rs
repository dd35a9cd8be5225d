//! `penstock-controlplane`: reads Gateway API objects from a folder, tells the data plane, and writes their
//! status. See the library for the journey; this is its command line.
//!
//! It needs no privilege but to read its folder, to write its run and state directories, and to connect to the
//! data plane's socket. SIGTERM ends it and disturbs no packet; SIGHUP reads every file anew.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use penstock_controlplane::controller::{self, Paths};
use tracing::error;
use tracing_subscriber::EnvFilter;

/// Gateway API objects in, data plane configuration and status out.
#[derive(Parser)]
#[command(name = "penstock-controlplane", version)]
struct Arguments {
    /// The folder of *.yaml, *.yml and *.json files to read and watch.
    #[arg(long, value_name = "DIR", default_value = "/etc/penstock/routes.d")]
    config_dir: PathBuf,

    /// Where status/ and controlplane.json are written.
    #[arg(long, value_name = "DIR", default_value = "/run/penstock")]
    run_dir: PathBuf,

    /// Where the last good objects and the published state are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/penstock/controlplane")]
    state_dir: PathBuf,

    /// The data plane's socket [default: RUN_DIR/dataplane.sock].
    #[arg(long, value_name = "SOCKET")]
    dataplane_socket: Option<PathBuf>,

    /// What to log: error, warn, info or debug, also by module.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,

    /// How to log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = match EnvFilter::try_new(&arguments.log) {
        Ok(filter) => filter,
        Err(fault) => {
            eprintln!("--log {:?}: {fault}: try info, or debug", arguments.log);
            return ExitCode::from(2);
        }
    };
    start_log(filter, arguments.log_format);
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            error!("{fault}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(filter: EnvFilter, format: LogFormat) {
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
}

fn run(arguments: Arguments) -> Result<(), controller::StartError> {
    let socket = arguments.dataplane_socket;
    let paths = Paths {
        dataplane_socket: socket.unwrap_or_else(|| arguments.run_dir.join("dataplane.sock")),
        config_dir: arguments.config_dir,
        run_dir: arguments.run_dir,
        state_dir: arguments.state_dir,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(controller::run(paths))
}
