//! `penstock`: what an operator asks of a box.
//!
//! It reads files that the programs keep for anyone to read, and asks nobody: it needs no privilege, does
//! not disturb the data plane, and answers when one of the programs, or both, are down.
//!
//! ```text
//!  RUN/dataplane.stats ─┐
//!  RUN/controlplane.json ┴▶ status ─▶ report ─▶ page (table), JSON or YAML ─▶ exit code
//!  files of YAML ──▶ check (the control process's own translation) ──▶ findings ──▶ exit code
//! ```
//!
//! * [`status`]: what runs, what is served, what was counted and lost.
//! * [`check`]: what would be wrong with Gateway API YAML, before it is served.
//! * [`layout`]: columns, and numbers as people read them; [`output`]: where it all goes.

mod check;
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
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Status(arguments) => status::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
    }
}
