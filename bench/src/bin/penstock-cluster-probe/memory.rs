//! The memory of another process.

use std::fs;

use crate::Fault;

/// What is resident now, in MiB.
pub(crate) fn resident_mib(pid: u32) -> Result<f64, Fault> {
    field(pid, "VmRSS:")
}

/// What was resident at most, in MiB.
pub(crate) fn peak_mib(pid: u32) -> Result<f64, Fault> {
    field(pid, "VmHWM:")
}

/// A field of `/proc/<pid>/status` (proc_pid_status(5)), which is in KiB.
fn field(pid: u32, name: &str) -> Result<f64, Fault> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file).map_err(|fault| format!("{file}: {fault}"))?;
    let field = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = field.and_then(|field| field.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.ok_or_else(|| format!("{file} has no {name}"))? / 1024.0)
}
