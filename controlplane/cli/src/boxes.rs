//! `penstock token`, `join` and `rollback`: boxes that controllers elsewhere tell what to do.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use penstock_controlplane::agent::join::join_and_wait;
use penstock_controlplane::boxes::desk::{self, Answer, Ask, Listed};
use penstock_controlplane::pki::Token;

use crate::layout::{Grid, Style};
use crate::output::{self, Format};

/// Where a controller is asked.
#[derive(clap::Args)]
struct Where {
    /// The folder where the controller keeps boxes.sock.
    #[arg(
        long,
        value_name = "DIR",
        env = "PENSTOCK_RUN_DIR",
        hide_env_values = true,
        default_value = "/run/penstock"
    )]
    run_dir: PathBuf,
}

/// Makes a token, with which a box joins: `penstock join` on the box, once and within the token's time.
///
/// Asks the controller that leads, on its own machine or in its pod. The Box must be there before the box joins. Whoever
/// has the token can join as that Box: treat it as a password. Exit code: 0, or 1 if no token was made.
#[derive(clap::Args)]
pub(crate) struct TokenArguments {
    /// The name of the Box.
    #[arg(value_name = "BOX")]
    name: String,

    /// Where boxes find controllers. A name may stand for several; may be given up to 16 times.
    #[arg(long = "controller", value_name = "HOST:PORT", required = true)]
    controllers: Vec<String>,

    /// For how long the token is good; at most 30 days.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    lifetime: Duration,

    #[command(flatten)]
    at: Where,
}

/// Joins this machine to the controllers that a token names: makes a key, and gets a certificate for it.
///
/// The key stays here. The controller is believed only if its authority is the one whose hash the token holds. Then
/// start penstock-controlplane agent. Exit code: 0, or 1 if nothing came of it.
#[derive(clap::Args)]
pub(crate) struct JoinArguments {
    /// What `penstock token` printed; `-` reads it from standard input, so that no process list shows it.
    token: String,

    /// Where the certificate and its key are kept. The file will be of the owner of this directory.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/penstock/controlplane")]
    state_dir: PathBuf,
}

/// Puts an earlier version of the configuration in force on all boxes, until it is released.
///
/// A version is what people wrote: Gateways, routes, policies, Services. Endpoints and certificates stay those of now.
/// Asks the controller that leads, on its own machine or in its pod. Exit code: 0, or 1 if nothing was changed.
#[derive(clap::Args)]
pub(crate) struct RollbackArguments {
    /// The version, or how its name begins [default: the one before what is written now].
    version: Option<String>,

    /// List the versions that there are, the newest first, and change nothing.
    #[arg(long, conflicts_with_all = ["version", "release"])]
    list: bool,

    /// Put what is written now in force again.
    #[arg(long, conflicts_with = "version")]
    release: bool,

    /// How to write the list.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,

    #[command(flatten)]
    at: Where,
}

/// Makes a token and prints it.
pub(crate) fn token(arguments: &TokenArguments) -> ExitCode {
    let TokenArguments { name, controllers, lifetime, at } = arguments;
    let (name, controllers) = (name.clone(), controllers.clone());
    match ask(&at.run_dir, &Ask::Token { name, controllers, seconds: lifetime.as_secs() }) {
        Ok(Answer::Token(token)) => {
            output::print(Format::Table, &(), || token + "\n", ExitCode::SUCCESS)
        }
        other => failed(other),
    }
}

/// Joins, and says what comes next.
pub(crate) fn join(arguments: &JoinArguments) -> ExitCode {
    let joined = read(&arguments.token)
        .and_then(|text| text.parse::<Token>().map_err(|fault| fault.to_string()))
        .and_then(|token| {
            let joined = join_and_wait(&token, &arguments.state_dir);
            joined.map(|_| token).map_err(|error| error.to_string())
        });
    match joined {
        Ok(token) => {
            let page =
                || format!("joined as Box {}: start penstock-controlplane agent\n", token.name());
            output::print(Format::Table, &(), page, ExitCode::SUCCESS)
        }
        Err(reason) => failed(Err(reason)),
    }
}

fn read(token: &str) -> Result<String, String> {
    if token != "-" {
        return Ok(token.to_owned());
    }
    let mut text = String::new();
    let read = std::io::stdin().take(64 << 10).read_to_string(&mut text);
    read.map(|_| text).map_err(|error| format!("standard input: {error}"))
}

/// Goes back, goes on, or lists.
pub(crate) fn rollback(arguments: &RollbackArguments) -> ExitCode {
    let RollbackArguments { version, list, release, output, at } = arguments;
    let question = match (list, release) {
        (true, _) => Ask::Versions,
        (_, true) => Ask::Release,
        _ => Ask::Pin { version: version.clone() },
    };
    match ask(&at.run_dir, &question) {
        Ok(Answer::Versions(mut versions)) => {
            versions.reverse();
            output::print(*output, &versions, || page(&versions), ExitCode::SUCCESS)
        }
        Ok(Answer::Done(Some(version))) => {
            let page =
                || format!("version {version} is in force until `penstock rollback --release`\n");
            output::print(Format::Table, &(), page, ExitCode::SUCCESS)
        }
        Ok(Answer::Done(None)) => {
            let page = || "what is written now is in force\n".to_owned();
            output::print(Format::Table, &(), page, ExitCode::SUCCESS)
        }
        other => failed(other),
    }
}

fn page(versions: &[Listed]) -> String {
    let mut grid = Grid::new(&["VERSION", "SINCE", ">OBJECTS", "IS"]);
    for it in versions {
        let is = match (it.current, it.pinned) {
            (_, true) => "pinned",
            (true, false) => "written now",
            (false, false) => "",
        };
        let cells = [it.version.clone(), it.since.clone(), it.objects.to_string(), is.to_owned()];
        grid.row(cells.map(Into::into));
    }
    grid.render(Style::default())
}

fn ask(run_dir: &Path, question: &Ask) -> Result<Answer, String> {
    desk::ask(run_dir, question).map_err(|error| {
        format!("no controller that serves boxes answers: {error}: run it where penstock-controlplane --serve-boxes runs, as its user or root")
    })
}

fn failed(answer: Result<Answer, String>) -> ExitCode {
    let reason = match answer {
        Err(reason) | Ok(Answer::Refused(reason)) => reason,
        Ok(other) => format!("an answer to something else: {other:?}"),
    };
    eprintln!("penstock: {reason}");
    ExitCode::from(1)
}
