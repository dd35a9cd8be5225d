//! `penstock status`: what runs, what is served, what was counted and what was lost.
//!
//! ```text
//!  RUN/dataplane.stats   ─▶ dataplane: the process, and its tables as listeners, backends, drops …
//!  RUN/controlplane.json ─▶ control: the process, what it published, what it refused
//!  RUN/l7.json           ─▶ l7: the L7 tier, if there is one
//!                           verdict: are both alive, do they agree, and what to do if not
//!                           report: all of it, for programs;  page: the same for people
//! ```

mod control;
mod dataplane;
mod l7;
mod page;
mod report;
mod tables;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use crate::layout::Style;
use crate::output::{self, Format};
use report::Report;

/// Shows processes, generations, ports, workers, listeners with their backends, drops and punts.
///
/// Counters are those since the data plane started, and so are the busy ratio of a worker and its cycles a packet.
/// Bytes are of Ethernet frames without FCS.
///
/// Exit code: 0 if both programs run and agree on what is served, 1 if not; all that is known is printed
/// either way.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How to write it. JSON and YAML have everything, and exact numbers.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,

    /// The folder where the programs keep dataplane.stats and controlplane.json.
    #[arg(
        long,
        value_name = "DIR",
        env = "PENSTOCK_RUN_DIR",
        hide_env_values = true,
        default_value = "/run/penstock"
    )]
    run_dir: PathBuf,

    /// In tables: every drop reason and column, Maglev digests, exact numbers, whole names.
    #[arg(short, long)]
    verbose: bool,
}

/// Looks, prints, and says by the exit code whether all is well.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let report = look(&arguments.run_dir, SystemTime::now());
    let code = if report.ok { ExitCode::SUCCESS } else { ExitCode::from(1) };
    let style = Style { colour: output::wants_colour(), verbose: arguments.verbose };
    output::print(arguments.output, &report, || page::page(&report, style), code)
}

/// All that can be known of the box at `now`.
fn look(run_dir: &Path, now: SystemTime) -> Report {
    let (dataplane, counted) = dataplane::look(&run_dir.join("dataplane.stats"), now);
    let controlplane = control::look(&run_dir.join("controlplane.json"), now);
    let problems = verdict::problems(&dataplane, &controlplane, run_dir);
    let l7 = l7::look(&run_dir.join("l7.json"), now);
    let run_dir = run_dir.to_owned();
    Report { ok: problems.is_empty(), problems, run_dir, dataplane, controlplane, l7, counted }
}
