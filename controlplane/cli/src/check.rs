//! `penstock check`: what would be wrong with Gateway API YAML, before it is served.
//!
//! The work is the control process's own: the same reader, the same translation, the same conditions.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use penstock_controlplane::{Finding, Severity};
use serde::Serialize;

use crate::layout::{Paint, Style};
use crate::output::{self, Format};

/// Checks Gateway API YAML without a box: syntax, unknown fields, and every condition that would not hold.
///
/// All files and folders given are one set of objects, as the control process would read them. Exit code: 0 if
/// nothing was found, 1 if something was, 2 for a wrong command line.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Files, or folders of *.yaml, *.yml and *.json.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,

    /// How to write what was found.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// The answer for programs.
#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    errors: usize,
    warnings: usize,
    findings: Vec<Found<'a>>,
}

/// One finding; what is unknown is left out.
#[derive(Serialize)]
struct Found<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
    severity: Severity,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    message: &'a str,
}

/// Checks, prints, and says by the exit code whether anything was found.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let findings = penstock_controlplane::check(&arguments.paths);
    let of = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let answer = Answer {
        ok: findings.is_empty(),
        errors: of(Severity::Error),
        warnings: of(Severity::Warning),
        findings: findings.iter().map(found).collect(),
    };
    let code = if answer.ok { ExitCode::SUCCESS } else { ExitCode::from(1) };
    let style = Style { colour: output::wants_colour(), verbose: true };
    output::print(arguments.output, &answer, || page(&answer, &findings, style), code)
}

fn found(finding: &Finding) -> Found<'_> {
    Found {
        file: Some(finding.file.as_str()).filter(|file| !file.is_empty()),
        line: finding.place.map(|place| place.line),
        column: finding.place.map(|place| place.column),
        severity: finding.severity,
        object: finding.object.as_ref().map(ToString::to_string),
        message: &finding.message,
    }
}

/// A line a finding, as compilers write it, and the sum.
fn page(answer: &Answer<'_>, findings: &[Finding], style: Style) -> String {
    let mut text = String::new();
    for finding in findings {
        let _ = writeln!(text, "{finding}"); // writing to a String cannot fail
    }
    let (sum, paint) = match (answer.errors, answer.warnings) {
        (0, 0) => ("ok: nothing wrong was found".to_owned(), Paint::Good),
        (errors, warnings) => (
            format!("{} and {}", counted(errors, "error"), counted(warnings, "warning")),
            Paint::Bad,
        ),
    };
    text + &style.paint(&sum, paint) + "\n"
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
