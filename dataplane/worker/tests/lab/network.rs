//! The lab as a value: up when made, down when dropped, its hosts there to run commands.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::site::Site;

/// The longest that any one command of a test may take.
const COMMAND_LIMIT: &str = "240";

/// There is one lab, so one test at a time, however the test runner is called.
static ONE_LAB: Mutex<()> = Mutex::new(());

pub(crate) struct Lab {
    directory: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Lab {
    /// Builds the lab with Penstock reading `site`, and waits until it serves that.
    pub(crate) fn up(site: &Site, options: &[&str]) -> Self {
        let config = site.path().to_str().expect("a path of plain characters");
        Self::build(&[&["up", "--config", config], options].concat())
    }

    /// Builds the lab with the box's kernel as the router.
    pub(crate) fn routed_by_kernel() -> Self {
        Self::build(&["up", "--no-penstock"])
    }

    /// Builds the lab with a Kubernetes cluster, whose objects Penstock reads.
    pub(crate) fn with_cluster() -> Self {
        Self::build(&["up", "--cluster"])
    }

    fn build(arguments: &[&str]) -> Self {
        // A test that failed has taken its lab down: the next one may begin all the same.
        let turn = ONE_LAB.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = PathBuf::from(text(&succeed(script(&["dir"]))).trim());
        let lab = Self { directory, _turn: turn };
        succeed(script(&["down"]));
        succeed(script(arguments));
        lab
    }

    /// Where sockets, logs and reports are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs a command on a host to its end.
    ///
    /// # Panics
    /// If it fails; with all that it said.
    pub(crate) fn on(&self, host: &str, command: &[&str]) -> String {
        text(&succeed(script(&[&["exec", host], command].concat())))
    }

    /// What a command on a host says, or nothing if it fails.
    pub(crate) fn try_on(&self, host: &str, command: &[&str]) -> Option<String> {
        let output = script(&[&["exec", host], command].concat());
        output.status.success().then(|| text(&output))
    }

    /// What the names of its namespaces begin with, before the hosts'.
    pub(crate) fn name(&self) -> &str {
        let folder = self.directory.file_name().and_then(|name| name.to_str());
        folder.and_then(|name| name.strip_suffix("-lab")).expect("it is called NAME-lab")
    }

    /// Runs `penstock-lab-peer` on a host to its end, and reads its report.
    pub(crate) fn peer(&self, host: &str, arguments: &[&str]) -> Value {
        let said = self.on(host, &[&["penstock-lab-peer"], arguments].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said:?}"))
    }

    /// Sends 10 MiB from a host to a URL, all of which must arrive and be answered.
    pub(crate) fn upload(&self, host: &str, url: &str) {
        const BYTES: &str = "10485760";
        let command = format!(
            "head -c {BYTES} /dev/zero | curl -s -S -o /dev/null -m 60 -w '%{{size_upload}} %{{http_code}}' \
             -H Expect: --data-binary @- '{url}'"
        );
        let uploaded = self.on(host, &["bash", "-c", &command]);
        assert_eq!(uploaded, format!("{BYTES} 200"), "upload to {url}");
    }

    /// What a command of `penstock` on the box says.
    pub(crate) fn ask(&self, command: &[&str]) -> Value {
        let run = self.directory.join("run");
        let run = run.to_str().expect("a path of plain characters");
        let more = ["--output", "json", "--run-dir", run];
        let said = self.on("box", &[&["penstock"], command, &more].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said:?}"))
    }

    /// Starts `penstock-lab-peer` on a host, to run beside what the test does meanwhile.
    pub(crate) fn start_peer(&self, host: &str, arguments: &[&str]) -> Running {
        self.start(host, &[&["penstock-lab-peer"], arguments].concat())
    }

    /// Starts a command on a host, to run beside what the test does meanwhile.
    pub(crate) fn start(&self, host: &str, command_line: &[&str]) -> Running {
        let mut command = Command::new(lab_script());
        command.args(["exec", host]).args(command_line);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("scripts/lab starts");
        let said = BufReader::new(child.stdout.take().expect("it was asked for"));
        Running { child, said }
    }

    /// The process behind a name of `lab status`, or none between its death and its next start.
    pub(crate) fn pid(&self, name: &str) -> Option<i32> {
        let found = script(&["pid", name]);
        found.status.success().then(|| text(&found).trim().parse().expect("a pid"))
    }

    /// `kill -9`.
    pub(crate) fn kill(&self, name: &str) -> i32 {
        let pid = self.pid(name).unwrap_or_else(|| panic!("{name} does not run"));
        kill_process(Pid::from_raw(pid).expect("a pid is not 0"), Signal::KILL).expect("kill");
        pid
    }

    /// The end of the programs' logs, for the message of a test that fails.
    fn logs(&self) -> String {
        let mut logs = String::new();
        let entries = std::fs::read_dir(self.directory.join("log")).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        let is_ours = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("penstock-"))
        };
        paths.retain(is_ours);
        paths.sort();
        for path in paths {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(25)..].join("\n");
            logs += &format!("--- the end of {}\n{end}\n", path.display());
        }
        logs
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let down = script(&["down"]);
        if !down.status.success() && !thread::panicking() {
            panic!("lab down: {}", text(&down));
        }
    }
}

/// A command that runs on a host beside the test. Ends with the test if not before.
pub(crate) struct Running {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Running {
    /// Its next line of JSON: waits for it.
    pub(crate) fn report(&mut self) -> Value {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("its output can be read");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    /// Asks it to stop, and reads its last report.
    pub(crate) fn stop(mut self) -> Value {
        self.signal(Signal::TERM);
        self.report()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        // It may have ended by itself, which is not wrong.
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Looks twenty times a second until `condition` gives a value.
///
/// # Panics
/// With `what` if it does not within `limit`.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The names of the backends that answered, by a report of `penstock-lab-peer`.
pub(crate) fn answering(report: &Value) -> Vec<String> {
    report["backends"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

fn lab_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/lab")
}

/// Runs `scripts/lab` to its end, whatever that is.
fn script(arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.arg(COMMAND_LIMIT).arg(lab_script()).args(arguments);
    command.stdin(Stdio::null()).output().expect("timeout and bash are there")
}

fn succeed(output: Output) -> Output {
    let said = text(&output);
    assert!(
        output.status.success(),
        "{}: {said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
