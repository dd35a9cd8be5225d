//! Where the answer goes: a page for people, or JSON or YAML for programs, on standard output.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables for people.
    Table,
    /// JSON: all there is, exact.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Whether people look on: colours only on a terminal, and not where `NO_COLOR` is set.
pub(crate) fn wants_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes `answer` in `format`, `page` being its form for people, and ends with `code`.
///
/// A reader that went away (`penstock status | head`) is no failure; any other error of standard output is
/// told on standard error and ends with 2.
pub(crate) fn print(
    format: Format,
    answer: &impl Serialize,
    page: impl FnOnce() -> String,
    code: ExitCode,
) -> ExitCode {
    let text = match format {
        Format::Table => Ok(page()),
        Format::Json => serde_json::to_string_pretty(answer)
            .map(|text| text + "\n")
            .map_err(|error| error.to_string()),
        Format::Yaml => serde_saphyr::to_string(answer).map_err(|error| error.to_string()),
    };
    let written = text.and_then(|text| {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).or_else(|error| {
            match error.kind() {
                io::ErrorKind::BrokenPipe => Ok(()),
                _ => Err(error.to_string()),
            }
        })
    });
    match written {
        Ok(()) => code,
        Err(error) => {
            eprintln!("penstock: cannot write the answer: {error}");
            ExitCode::from(2)
        }
    }
}
