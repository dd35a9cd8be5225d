//! `penstock`: what an operator asks of a box.
//!
//! `status` and `check` read files that the programs keep for anyone to read, and ask nobody: they need no
//! privilege, do not disturb the data plane, and answer when one of the programs, or both, are down. `flows`,
//! `explain`, `trace` and `capture` ask the data plane, which answers its owner and root; `token` and `rollback` ask a
//! controller that serves boxes, which does the same.
//!
//! ```text
//!  RUN/dataplane.stats ─┐
//!  RUN/controlplane.json ┴▶ status ─▶ report ─▶ page (table), JSON or YAML ─▶ exit code
//!  RUN/inspect.sock ────▶ flows, explain, trace, capture ─▶ page, JSON, YAML or pcapng
//!  RUN/boxes.sock ──────▶ token, rollback: of the controller that tells boxes elsewhere what to do
//!  a token ──▶ join ──▶ a certificate, by which the agent of this box is let in
//!  files of YAML ──▶ check (the control process's own translation) ──▶ findings ──▶ exit code
//! ```
//!
//! * [`status`]: what runs, what is served, what was counted and lost.
//! * [`check`]: what would be wrong with Gateway API YAML, before it is served.
//! * [`inspect`]: which flows there are, where a packet would go, and where packets go.
//! * [`boxes`]: how boxes come to belong to a controller, and how all of them go back to an earlier version.
//! * [`layout`]: columns, and numbers as people read them; [`output`]: where it all goes.

mod boxes;
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
    Token(boxes::TokenArguments),
    Join(boxes::JoinArguments),
    Rollback(boxes::RollbackArguments),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Status(arguments) => status::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Flows(arguments) => inspect::flows::run(&arguments),
        Command::Explain(arguments) => inspect::explain::run(&arguments),
        Command::Trace(arguments) => inspect::packets::trace(&arguments),
        Command::Capture(arguments) => inspect::packets::capture(&arguments),
        Command::Token(arguments) => boxes::token(&arguments),
        Command::Join(arguments) => boxes::join(&arguments),
        Command::Rollback(arguments) => boxes::rollback(&arguments),
    }
}
