//! `penstock-cluster-probe`: what a cluster's users see of Penstock, from their objects to their packets.
//!
//! It writes Gateways, ListenerSets and TCPRoutes to an API server, opens connections to the VIP from where
//! it runs, and watches what is written to the objects' status. Each command makes its own objects in the
//! namespace `cluster-probe`, and removes it at its end.
//!
//! | command     | module       | what it asks                                                                |
//! |-------------|--------------|-----------------------------------------------------------------------------|
//! | `each`      | [`each`]     | routes made one after the other: from the answer of the create to the first connection served |
//! | `together`  | [`together`] | many routes at once, a listener each: when all serve and are counted, how many status writes |
//! | `crowd`     | [`crowd`]    | many routes on one listener: is `attachedRoutes` exact, how many status writes |
//! | `churn`     | [`churn`]    | endpoints that change all the time, among many: how long until a change is served, and the control process's memory |
//! | `swap`      | [`swap`]     | a route goes from one backend to another and back, under load: what fails  |
//!
//! [`site`] makes the objects, [`ask`] is one connection, [`writes`] counts what is written to status. In the
//! lab:
//!
//! ```console
//! # scripts/lab up --cluster
//! # scripts/lab exec client1 penstock-cluster-probe each
//! ```
//!
//! What it saw is printed as one JSON object; times are in milliseconds. Exit status: 0 if the command did
//! its work, whatever it saw; 2 if it could not.

mod ask;
mod churn;
mod crowd;
mod each;
mod memory;
mod site;
mod spread;
mod swap;
mod together;
mod writes;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::Value;

use site::Site;

/// What went wrong: nothing a program could mend.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// From objects in a cluster to served connections.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// A backend that answers HTTP with its name, as NAME=IP:PORT; two or more. By default the lab's.
    #[arg(long = "backend", global = true, value_name = "NAME=IP:PORT", default_values = LAB_BACKENDS)]
    backends: Vec<site::Backend>,

    /// The GatewayClass.
    #[arg(long, global = true, value_name = "NAME", default_value = "penstock")]
    class: String,

    #[command(subcommand)]
    command: Command,
}

const LAB_BACKENDS: [&str; 4] = [
    "backend1=10.10.0.11:80",
    "backend2=10.10.0.12:80",
    "backend3=10.10.0.13:80",
    "backend4=10.10.0.14:80",
];

#[derive(Subcommand)]
enum Command {
    /// Routes made one after the other.
    Each {
        /// How many.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        routes: u16,
    },
    /// Routes made at once, a listener each.
    Together {
        /// How many.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        routes: u16,
    },
    /// Routes on one listener.
    Crowd {
        /// How many.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        routes: u16,
    },
    /// Endpoints that change all the time.
    Churn(churn::Churn),
    /// A route whose backend is swapped under load.
    Swap {
        /// How often.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        swaps: u16,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(Fault::from).and_then(|runtime| runtime.block_on(run(arguments)));
    match done {
        Ok(seen) => {
            let _ = writeln!(io::stdout(), "{seen}"); // nobody reads it any more
            ExitCode::SUCCESS
        }
        Err(fault) => {
            let _ = writeln!(io::stderr(), "penstock-cluster-probe: {fault}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: Arguments) -> Result<Value, Fault> {
    let site = Site::begin(&arguments.class, arguments.backends).await?;
    let seen = match arguments.command {
        Command::Each { routes } => each::run(&site, routes).await,
        Command::Together { routes } => together::run(&site, routes).await,
        Command::Crowd { routes } => crowd::run(&site, routes).await,
        Command::Churn(churn) => churn::run(&site, &churn).await,
        Command::Swap { swaps } => swap::run(&site, swaps).await,
    };
    site.end().await?;
    seen
}
