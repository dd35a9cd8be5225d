//! `penstock-l7`: ends TLS and HTTP for the listeners that must read the request. See the library for the
//! journey; this is its command line.
//!
//! It needs `CAP_NET_BIND_SERVICE` for ports below 1024, and its run and state directories. SIGTERM ends it:
//! open connections end what they are doing, and no L4 flow notices.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use penstock_feed::user_id;
use penstock_l7::tier::{self, Settings};
use tracing::error;
use tracing_subscriber::EnvFilter;

/// TLS and HTTP for the listeners that must read the request.
#[derive(Parser)]
#[command(name = "penstock-l7", version)]
struct Arguments {
    /// Where l7.sock and l7.json are.
    #[arg(long, value_name = "DIR", default_value = "/run/penstock")]
    run_dir: PathBuf,

    /// Where the last configuration is kept, with its keys: only our user can read it.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/penstock/l7")]
    state_dir: PathBuf,

    /// Connections that may be open at once; one more is closed and counted.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,

    /// Threads that serve connections [default: one a CPU].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// A user who may feed us, besides root and our own, by number or as in /etc/passwd; several if repeated.
    #[arg(long, value_name = "USER", value_parser = user, default_value = "penstock-controlplane")]
    feed_user: Vec<u32>,

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

fn user(text: &str) -> Result<u32, String> {
    user_id(text).ok_or_else(|| format!("{text:?} is no user of /etc/passwd and no number"))
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
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
    let mut allowed_uids = arguments.feed_user;
    allowed_uids.extend([0, rustix::process::geteuid().as_raw()]);
    let settings = Settings {
        run_dir: arguments.run_dir,
        state_dir: arguments.state_dir,
        max_connections: arguments.max_connections as usize,
        allowed_uids,
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = arguments.threads {
        runtime.worker_threads(threads.into());
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            error!("cannot start: {fault}");
            return ExitCode::FAILURE;
        }
    };
    match tier::run(settings, &runtime) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            error!("{fault}");
            ExitCode::FAILURE
        }
    }
}
