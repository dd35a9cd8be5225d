//! `penstock-controlplane`: reads Gateway API objects from a folder or from an API server, tells the data plane,
//! and writes their status. See the library for the journey; this is its command line.
//!
//! It needs no privilege but to read its folder, to write its run and state directories, and to connect to the
//! data plane's socket. SIGTERM ends it and disturbs no packet; SIGHUP reads every file anew.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use penstock_controlplane::controller::{self, Cluster, Paths};
use penstock_controlplane::metrics::Address;
use penstock_controlplane::source::cluster::{Access, connect};
use tracing::error;
use tracing_subscriber::EnvFilter;

/// Where the Lease is, unless told.
const NAMESPACE: &str = "penstock-system";

/// Gateway API objects in, data plane configuration and status out.
#[derive(Parser)]
#[command(name = "penstock-controlplane", version)]
struct Arguments {
    /// The folder of *.yaml, *.yml and *.json files to read and watch. There is one source: a folder or a cluster.
    #[arg(long, value_name = "DIR", default_value = "/etc/penstock/routes.d")]
    config_dir: PathBuf,

    /// Watch the API server of this kubeconfig instead of a folder.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config_dir", "in_cluster"])]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig [default: its current one].
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    context: Option<String>,

    /// Watch the API server of the cluster we run in, as the service account of our pod.
    #[arg(long, conflicts_with = "config_dir")]
    in_cluster: bool,

    /// The namespace of the Lease by which one of several writes statuses [default: our pod's, or penstock-system].
    #[arg(long, value_name = "NAMESPACE")]
    lease_namespace: Option<String>,

    /// Where status/ and controlplane.json are written.
    #[arg(long, value_name = "DIR", default_value = "/run/penstock")]
    run_dir: PathBuf,

    /// Where the last good objects and the published state are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/penstock/controlplane")]
    state_dir: PathBuf,

    /// The data plane's socket [default: RUN_DIR/dataplane.sock].
    #[arg(long, value_name = "SOCKET")]
    dataplane_socket: Option<PathBuf>,

    /// The L7 tier's socket [default: RUN_DIR/l7.sock].
    #[arg(long, value_name = "SOCKET")]
    l7_socket: Option<PathBuf>,

    /// Serve /metrics, /healthz, /livez and /readyz there: 127.0.0.1:9465, or unix:/run/penstock/metrics.sock [default: nowhere].
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<Address>,

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
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            error!("cannot start: {fault}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments)) {
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

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let access = match (arguments.kubeconfig, arguments.in_cluster) {
        (Some(file), _) => Some(Access::Kubeconfig { file, context: arguments.context }),
        (None, true) => Some(Access::InCluster),
        (None, false) => None,
    };
    let socket = arguments.dataplane_socket;
    let paths = Paths {
        l7_socket: arguments.l7_socket.unwrap_or_else(|| arguments.run_dir.join("l7.sock")),
        dataplane_socket: socket.unwrap_or_else(|| arguments.run_dir.join("dataplane.sock")),
        config_dir: arguments.config_dir,
        run_dir: arguments.run_dir,
        state_dir: arguments.state_dir,
        metrics: arguments.metrics,
    };
    let Some(access) = access else { return Ok(controller::run(paths).await?) };
    let (client, url, namespace) = connect(&access).await?;
    let pods = (access == Access::InCluster).then_some(namespace);
    let lease_namespace = arguments.lease_namespace.or(pods).unwrap_or(NAMESPACE.to_owned());
    Ok(controller::run_on_cluster(paths, Cluster { client, url, lease_namespace }).await?)
}
