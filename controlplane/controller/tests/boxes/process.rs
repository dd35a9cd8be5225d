//! The program itself, killed again and again.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use penstock_controlplane::agent::join::join;
use penstock_controlplane::controller::Paths;
use serde_json::Value;

use crate::site::{Controller, Edge, box_object, gateway, run, until};

const ROUNDS: usize = 20;

/// A program that is killed when it goes.
struct Program(Child);

impl Program {
    fn start(paths: &Paths, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_penstock-controlplane"));
        command.args(arguments).arg("--run-dir").arg(&paths.run_dir);
        command.arg("--state-dir").arg(&paths.state_dir).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Whether the report is its own.
    fn wrote(&self, report: &Value) -> bool {
        report["pid"].as_u64() == Some(self.0.id().into())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().unwrap(); // SIGKILL
        self.0.wait().unwrap();
    }
}

#[test]
fn twenty_kills_of_either_end_say_nothing_twice() {
    run(async {
        let names = ["edge-1", "edge-2", "edge-3"];
        let boxes: String = names.iter().map(|name| box_object(name, "")).collect();
        let controller = Controller::new(&(boxes + &gateway("web", 80)));
        let (listen, paths) = (controller.address.to_string(), &controller.appliance.paths);
        let config = paths.config_dir.to_str().unwrap();
        let serve = ["--config-dir", config, "--serve-boxes", &listen];
        let mut leader = Program::start(paths, &serve);
        let (mut edges, mut agents) = (Vec::new(), Vec::new());
        for name in names {
            let token = controller.token(name).await;
            let edge = Edge::strange();
            join(&token, &edge.appliance.paths.state_dir).await.unwrap();
            agents.push(Program::start(&edge.appliance.paths, &["agent"]));
            edges.push(edge);
        }
        let in_sync = |leader: &Program| {
            let report = controller.appliance.report();
            leader.wrote(&report) && report["boxes"]["in_sync"] == 3
        };
        until("all are in sync", || in_sync(&leader)).await;
        until("it is programmed", || controller.is_programmed("web")).await;
        let status = controller.status("Gateway/default/web");
        let commits = |edges: &[Edge]| -> Vec<usize> {
            edges.iter().map(|edge| edge.plane.commits().len()).collect()
        };
        let before = commits(&edges);
        let mut sent = controller.counted("bundles_sent");
        for round in 0..ROUNDS {
            let at = round % 4;
            if at == 3 {
                drop(leader);
                leader = Program::start(paths, &serve);
                sent = 0;
            } else {
                let edge = &edges[at];
                agents[at] = Program::start(&edge.appliance.paths, &["agent"]);
                let linked = || {
                    let report = edge.appliance.report();
                    agents[at].wrote(&report) && report["agent"]["connected"] == true
                };
                until("it is back", linked).await;
            }
            until("all are in sync", || in_sync(&leader)).await;
            assert_eq!(controller.counted("bundles_sent"), sent, "round {round}");
            assert_eq!(commits(&edges), before, "round {round}: no data plane was told anything");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(controller.status("Gateway/default/web"), status);
        let file = edges[0].state_file("bundle");
        assert!(fs::metadata(file).unwrap().len() > 0);
        controller.write("more", &gateway("other", 81));
        until("it goes on", || controller.is_programmed("other")).await;
        assert!(edges.iter().all(|edge| edge.plane.listeners() == 2));
        let same: Vec<_> = edges.iter().map(Edge::state).collect();
        assert!(same.iter().all(|state| *state == same[0]), "{same:?}");
    });
}
