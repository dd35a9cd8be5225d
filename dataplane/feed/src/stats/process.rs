//! Whether a process whose id stands in a file still runs.

use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// Whether process `pid` runs: it is there, it is no zombie and, where the start of the process was
/// recorded (clock ticks since boot), it is still that one. Where `/proc` hides other users' processes,
/// being there is enough. Needs no privilege.
#[must_use]
pub fn is_running(pid: u32, recorded: Option<u64>) -> bool {
    let Some(id) = i32::try_from(pid).ok().filter(|&id| id > 0).and_then(Pid::from_raw) else {
        return false;
    };
    if !matches!(test_kill_process(id), Ok(()) | Err(Errno::PERM)) {
        return false;
    }
    match (process_stat(pid), recorded) {
        (Some(stat), _) if stat.is_dead => false,
        (Some(stat), Some(recorded)) => stat.started_ticks == recorded,
        _ => true,
    }
}

/// When process `pid` started, in clock ticks since boot; `None` if `/proc` does not say.
pub(super) fn started_ticks(pid: u32) -> Option<u64> {
    process_stat(pid).map(|stat| stat.started_ticks)
}

struct ProcessStat {
    is_dead: bool,
    started_ticks: u64,
}

/// Fields 3 and 22 of `/proc/PID/stat` (proc(5)); the name before them may hold spaces and brackets.
fn process_stat(pid: u32) -> Option<ProcessStat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    Some(ProcessStat {
        is_dead: matches!(state, "Z" | "X"),
        started_ticks: fields.nth(18)?.parse().ok()?,
    })
}
