//! `penstock-controlplane`: reads Gateway API objects from a folder or from an API server, tells the data plane,
//! and writes their status. With `--serve-boxes` it tells boxes elsewhere instead; `penstock-controlplane agent` is what
//! runs there. See the library for the journey; this is its command line.
//!
//! It needs no privilege but to read its folder, to write its run and state directories, and to connect to the
//! data plane's socket. SIGTERM ends it and disturbs no packet; SIGHUP reads every file anew.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use penstock_controlplane::controller::{self, Cluster, Paths, ServeBoxes};
use penstock_controlplane::metrics::Address;
use penstock_controlplane::source::cluster::{Access, connect};
use tracing::error;
use tracing_subscriber::EnvFilter;

/// The shortest life of a box's certificate.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(60);
/// Where the Lease is, unless told.
const NAMESPACE: &str = "penstock-system";

/// Gateway API objects in, data plane configuration and status out.
#[derive(Parser)]
#[command(name = "penstock-controlplane", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

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

    /// Serve boxes that dial in here, for instance [::]:7443, and no data plane of this machine.
    #[arg(long, value_name = "ADDR:PORT")]
    serve_boxes: Option<SocketAddr>,

    /// How long a box's certificate is good for; it is renewed before two thirds of that.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = lifetime, requires = "serve_boxes")]
    box_certificate_lifetime: Duration,

    /// Where status/ and controlplane.json are written.
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/penstock")]
    run_dir: PathBuf,

    /// Where the last good objects and the published state are kept.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/var/lib/penstock/controlplane"
    )]
    state_dir: PathBuf,

    /// The data plane's socket [default: RUN_DIR/dataplane.sock].
    #[arg(long, global = true, value_name = "SOCKET")]
    dataplane_socket: Option<PathBuf>,

    /// The L7 tier's socket [default: RUN_DIR/l7.sock].
    #[arg(long, global = true, value_name = "SOCKET")]
    l7_socket: Option<PathBuf>,

    /// Serve /metrics, /healthz, /livez and /readyz there: 127.0.0.1:9465, or unix:/run/penstock/metrics.sock [default: nowhere].
    #[arg(long, global = true, value_name = "ADDRESS")]
    metrics: Option<Address>,

    /// What to log: error, warn, info or debug, also by module.
    #[arg(long, global = true, value_name = "FILTER", default_value = "info")]
    log: String,

    /// How to log.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Subcommand)]
enum Command {
    /// Run on a box that has joined (penstock join): be told by controllers elsewhere what to do.
    Agent,
}

/// A length of time, of a minute at least: a certificate that is over before it arrives lets nobody in.
fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match lifetime >= SHORTEST_LIFETIME {
        true => Ok(lifetime),
        false => Err(format!("{text} is less than {SHORTEST_LIFETIME:?}")),
    }
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
    if let Some(Command::Agent) = arguments.command {
        return Ok(controller::run_as_agent(paths).await?);
    }
    let certificate_lifetime = arguments.box_certificate_lifetime;
    let boxes = arguments.serve_boxes.map(|listen| ServeBoxes { listen, certificate_lifetime });
    let Some(access) = access else {
        match boxes {
            None => controller::run(paths).await?,
            Some(boxes) => controller::run_serving(paths, None, boxes).await?,
        }
        return Ok(());
    };
    let (client, url, namespace) = connect(&access).await?;
    let pods = (access == Access::InCluster).then_some(namespace);
    let lease_namespace = arguments.lease_namespace.or(pods).unwrap_or(NAMESPACE.to_owned());
    let cluster = Cluster { client, url, lease_namespace };
    match boxes {
        None => controller::run_on_cluster(paths, cluster).await?,
        Some(boxes) => controller::run_serving(paths, Some(cluster), boxes).await?,
    }
    Ok(())
}
