//! The control process, by the file that it keeps about itself, and when it touched that file last.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use penstock_feed::stats::is_running;
use penstock_gateway_types::k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::report::{ControlPlane, ControlSays, Process, State, timestamp};

/// A control process that has not touched its file for so long is called silent; it does so every second.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// The process, as `controlplane.json` has it.
#[derive(Deserialize)]
struct File {
    pid: u32,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    started: Option<Timestamp>,
    #[serde(flatten)]
    says: ControlSays,
}

/// Reads `path` and sees whether the process it names runs.
pub(super) fn look(path: &Path, now: SystemTime) -> ControlPlane {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return ControlPlane::default(),
        Err(error) => return unreadable(path, &error.to_string()),
    };
    let file: File = match serde_json::from_slice(&text) {
        Ok(file) => file,
        Err(error) => return unreadable(path, &error.to_string()),
    };
    let says = Some(file.says);
    let told = Told { pid: file.pid, version: file.version, started: file.started };
    ControlPlane { process: told.process("penstock-contro", path, now), says }
}

/// What a process says of itself in the file that it touches each second.
#[derive(Deserialize)]
pub(super) struct Told {
    pid: u32,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    started: Option<Timestamp>,
}

impl Told {
    /// How it is, by that file at `path` and by what the kernel has of a process `called` so.
    pub(super) fn process(self, called: &str, path: &Path, now: SystemTime) -> Process {
        let Self { pid, version, started } = self;
        let runs = is_running(pid, None) && is_called(pid, called);
        Process {
            state: match (runs, is_silent(path, now)) {
                (true, false) => State::Running,
                (true, true) => State::Silent,
                (false, _) => State::Down,
            },
            error: None,
            pid: Some(pid),
            version,
            started,
            uptime_seconds: started.filter(|_| runs).and_then(|it| seconds_since(it, now)),
        }
    }
}

/// Whether the file was touched last too long ago. One from the future is of a clock that was set back.
fn is_silent(path: &Path, now: SystemTime) -> bool {
    let touched = fs::metadata(path).and_then(|file| file.modified());
    let age = touched.ok().and_then(|touched| now.duration_since(touched).ok());
    age.is_some_and(|age| age > SILENT_AFTER)
}

fn unreadable(path: &Path, error: &str) -> ControlPlane {
    let anew = "restart penstock-controlplane, which writes it anew";
    let error = Some(format!("{}: {error}; {anew}", path.display()));
    let process = Process { state: State::Unreadable, error, ..Process::default() };
    ControlPlane { process, says: None }
}

/// Whether process `pid` bears that name: ids come round again. Where `/proc` does not say, being
/// there is enough. The kernel keeps 15 bytes of a name.
fn is_called(pid: u32, called: &str) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    name.map_or(true, |name| name.trim_end() == called)
}

fn seconds_since(started: Timestamp, now: SystemTime) -> Option<u64> {
    let now = timestamp(now)?;
    u64::try_from(now.as_second() - started.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn control(text: &str) -> ControlPlane {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("controlplane.json");
        fs::write(&path, text).unwrap();
        look(&path, UNIX_EPOCH)
    }

    #[test]
    fn without_its_file_it_never_ran() {
        let found = look(Path::new("/nonexistent/controlplane.json"), UNIX_EPOCH);
        assert_eq!(found.process.state, State::NeverRan);
        assert!(found.says.is_none());
    }

    #[test]
    fn a_process_of_the_same_id_and_another_name_is_not_it() {
        let found = control(&format!("{{\"pid\": {}}}", std::process::id()));
        assert_eq!(found.process.state, State::Down);
    }

    #[test]
    fn a_file_that_is_not_touched_any_more_is_of_a_silent_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("controlplane.json");
        fs::write(&path, "{}").unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        let after = |seconds| is_silent(&path, written + Duration::from_secs(seconds));
        assert!(!after(0) && !after(3) && after(4));
        assert!(!is_silent(&path, written - Duration::from_secs(60)), "the clock was set back");
    }

    #[test]
    fn fields_of_another_release_are_no_error() {
        let found =
            control(r#"{"pid": 0, "generation": 7, "new-in-2031": {"a": 1}, "objects": 3}"#);
        let says = found.says.unwrap();
        assert_eq!((says.generation, says.objects, says.connected), (7, 3, false));
    }

    #[test]
    fn a_file_that_is_not_its_own_is_named_with_the_reason() {
        for text in ["", "{", "[]", "{\"pid\": \"one\"}", "\u{0}"] {
            let found = control(text);
            assert_eq!(found.process.state, State::Unreadable, "{text:?}");
            let error = found.process.error.unwrap();
            assert!(error.contains("controlplane.json: ") && error.contains("line 1"), "{error}");
        }
    }
}
