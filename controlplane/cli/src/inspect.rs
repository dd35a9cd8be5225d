//! What is asked of the running data plane: `penstock flows`, `explain`, `trace` and `capture`.
//!
//! ```text
//!  arguments ─▶ question ─▶ RUN/inspect.sock ─▶ answers ─┬▶ page, JSON, YAML, pcapng
//!  RUN/dataplane.stats ─▶ names: the rows that answers speak of ┘
//! ```

pub(crate) mod explain;
pub(crate) mod flows;
mod frame;
mod names;
pub(crate) mod packets;
mod pcapng;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use penstock_feed::inspect::{self, Answer, Question};

/// Where the data plane is asked.
#[derive(clap::Args)]
pub(crate) struct Where {
    /// The folder where the data plane keeps inspect.sock and dataplane.stats.
    #[arg(
        long,
        value_name = "DIR",
        env = "PENSTOCK_RUN_DIR",
        hide_env_values = true,
        default_value = "/run/penstock"
    )]
    run_dir: PathBuf,
}

/// Asks, and gives each answer but the last to `each`, as they come, until that fails. The last one.
fn ask(
    run_dir: &Path,
    question: &Question,
    mut each: impl FnMut(Answer) -> Result<(), String>,
) -> Result<Answer, String> {
    let socket = run_dir.join(inspect::SOCKET);
    let fault = |error: &io::Error| {
        let next = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                "no data plane runs here: see penstock status"
            }
            io::ErrorKind::PermissionDenied => "only root may ask",
            io::ErrorKind::WouldBlock => "it did not answer in time: see penstock status",
            _ => "see penstock status",
        };
        format!("{}: {error}: {next}", socket.display())
    };
    let answers = inspect::ask(run_dir, question).map_err(|error| fault(&error))?;
    for answer in answers {
        match answer.map_err(|error| fault(&error))? {
            Answer::Refused(reason) => return Err(reason),
            answer @ (Answer::Flow(_) | Answer::Packet(_)) => each(answer)?,
            last => return Ok(last),
        }
    }
    Err(format!("{}: no answer: see penstock status", socket.display()))
}

/// Tells why there is no answer.
fn no_answer(reason: &str) -> ExitCode {
    eprintln!("penstock: {reason}");
    ExitCode::from(1)
}
