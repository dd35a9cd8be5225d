//! `penstock`: what an operator asks of a box.
//!
//! `status` and `check` read files that the programs keep for anyone to read, and ask nobody: they need no
//! privilege, do not disturb the data plane, and answer when one of the programs, or both, are down. `flows`,
//! `explain`, `trace` and `capture` ask the data plane, which answers its owner and root.
//!
//! ```text
//!  RUN/dataplane.stats ─┐
//!  RUN/controlplane.json ┴▶ status ─▶ report ─▶ page (table), JSON or YAML ─▶ exit code
//!  RUN/inspect.sock ────▶ flows, explain, trace, capture ─▶ page, JSON, YAML or pcapng
//!  files of YAML ──▶ check (the control process's own translation) ──▶ findings ──▶ exit code
//! ```
//!
//! * [`status`]: what runs, what is served, what was counted and lost.
//! * [`check`]: what would be wrong with Gateway API YAML, before it is served.
//! * [`inspect`]: which flows there are, where a packet would go, and where packets go.
//! * [`layout`]: columns, and numbers as people read them; [`output`]: where it all goes.

mod check;
mod inspect;
mod layout;
mod output;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Looks at a Penstock box: what runs, what is served, what was lost.
#[derive(Parser)]
#[command(name = "penstock", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Status(status::Arguments),
    Check(check::Arguments),
    Flows(inspect::flows::Arguments),
    Explain(inspect::explain::Arguments),
    Trace(inspect::packets::TraceArguments),
    Capture(inspect::packets::CaptureArguments),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Status(arguments) => status::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Flows(arguments) => inspect::flows::run(&arguments),
        Command::Explain(arguments) => inspect::explain::run(&arguments),
        Command::Trace(arguments) => inspect::packets::trace(&arguments),
        Command::Capture(arguments) => inspect::packets::capture(&arguments),
    }
}
