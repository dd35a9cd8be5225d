//! The command as people and scripts use it: what they type, what they read, the exit code.
//!
//! The documents in the folders beside are the expectation. Those of `status` are read with a run directory
//! that the test makes, in `PENSTOCK_RUN_DIR`.

mod fixture;

use std::process::Command;

use fixture::RunDir;

#[test]
fn help_and_wrong_command_lines() {
    trycmd::TestCases::new().case("tests/help/*.trycmd");
}

#[test]
fn check_names_file_line_object_and_the_next_move() {
    trycmd::TestCases::new().case("tests/check/*.trycmd");
}

#[test]
fn flows_and_explain_ask_the_data_plane() {
    let run = RunDir::serving();
    let answering = run.answer(19);
    read_as(&run, "tests/inspect/answered.trycmd");
    answering.join().unwrap();
}

#[test]
fn flows_and_explain_without_a_data_plane() {
    read_as(&RunDir::serving(), "tests/inspect/nobody.trycmd");
}

/// What `status` shows: `tests/status/NAME.trycmd` for the run directory given.
fn status(name: &str, run: &RunDir) {
    read_as(run, &format!("tests/status/{name}.trycmd"));
}

fn read_as(run: &RunDir, document: &str) {
    let cases = trycmd::TestCases::new();
    cases.env("PENSTOCK_RUN_DIR", run.path().to_string_lossy());
    cases.insert_var("[RUN]", run.path().to_string_lossy().into_owned()).unwrap();
    cases.case(document).run();
}

#[test]
fn status_of_a_box_that_serves() {
    status("serving", &RunDir::serving());
}

#[test]
fn status_while_a_generation_is_on_its_way() {
    let run = RunDir::serving();
    run.control_says(&fixture::control_json(run.control_pid(), 13));
    status("on_its_way", &run);
}

#[test]
fn status_after_both_programs_died() {
    let mut run = RunDir::serving();
    run.kill_data_plane();
    run.kill_control_process();
    status("both_down", &run);
}

#[test]
fn status_while_the_main_lcore_hangs() {
    let run = RunDir::serving();
    run.silence_data_plane();
    status("silent", &run);
}

#[test]
fn status_while_the_control_process_hangs() {
    let run = RunDir::serving();
    run.silence_control_process();
    status("control_silent", &run);
}

#[test]
fn status_of_a_box_where_nothing_ever_ran() {
    let run = RunDir::serving();
    run.remove("dataplane.stats");
    run.remove("controlplane.json");
    status("never_ran", &run);
}

#[test]
fn status_of_damaged_files() {
    let run = RunDir::serving();
    std::fs::write(run.path().join("dataplane.stats"), "PNSTSTAT").unwrap();
    run.control_says("{");
    status("damaged", &run);
}

/// JSON and YAML are one answer: what a program reads from the one it reads from the other.
#[test]
fn json_and_yaml_say_the_same() {
    let run = RunDir::serving();
    let answer = |format: &str| {
        let status = Command::new(env!("CARGO_BIN_EXE_penstock"))
            .args(["status", "--output", format, "--run-dir"])
            .arg(run.path())
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
        String::from_utf8(status.stdout).unwrap()
    };
    let json: serde_json::Value = serde_json::from_str(&answer("json")).unwrap();
    let yaml: serde_json::Value = serde_saphyr::from_str(&answer("yaml")).unwrap();
    let without_uptime = |mut value: serde_json::Value| {
        for program in ["dataplane", "controlplane"] {
            value[program].as_object_mut().unwrap().remove("uptime_seconds");
        }
        value
    };
    assert_eq!(without_uptime(json), without_uptime(yaml));
}

/// `penstock status | head -1` ends quietly.
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let run = RunDir::serving();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["status", "--run-dir"])
        .arg(run.path())
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!((status.status.code(), status.stderr), (Some(0), Vec::new()));
}
