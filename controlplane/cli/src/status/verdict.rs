//! Whether the box does what it was told, and what to do if not.

use std::path::Path;

use super::report::{Agent, Boxes, ControlPlane, DataPlane, State};

/// What is not well, each a sentence with its next move. Empty: both programs run, the data plane is connected,
/// and what was published, what was acknowledged and what is served are one generation with one digest.
pub(super) fn problems(
    dataplane: &DataPlane,
    control: &ControlPlane,
    run_dir: &Path,
) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(boxes) = control.says.as_ref().and_then(|says| says.boxes.as_ref()) {
        problems.extend(control_problem(control, true, run_dir));
        problems.extend(boxes_problem(boxes));
        return problems;
    }
    problems.extend(dataplane_problem(dataplane, run_dir));
    let flows = dataplane.process.state == State::Running;
    problems.extend(control_problem(control, flows, run_dir));
    let agent = control.says.as_ref().and_then(|says| says.agent.as_ref());
    if problems.is_empty() {
        problems.extend(agent.and_then(agent_problem));
    }
    if problems.is_empty() {
        problems.extend(disagreement(dataplane, control));
    }
    problems
}

fn dataplane_problem(dataplane: &DataPlane, run_dir: &Path) -> Option<String> {
    let since = dataplane.heartbeat.map_or_else(String::new, |time| format!(" since {time:.0}"));
    let unit = "penstock-dataplane";
    match dataplane.process.state {
        State::Running => None,
        State::Silent => Some(format!(
            "data plane silent{since}: its process is there, but its main lcore does not beat; see journalctl -u {unit}"
        )),
        State::Down => Some(format!(
            "data plane down{since}: see journalctl -u {unit}, then systemctl start {unit}"
        )),
        State::NeverRan => Some(never_ran("data plane", "dataplane.stats", unit, run_dir)),
        State::Unreadable => Some(unreadable("data plane", dataplane.process.error.as_deref())),
    }
}

fn control_problem(control: &ControlPlane, flows: bool, run_dir: &Path) -> Option<String> {
    let unit = "penstock-controlplane";
    match control.process.state {
        State::Running => None,
        State::Silent => Some(format!(
            "control process silent: its process is there, but does nothing: changes wait; see journalctl -u \
             {unit}, then systemctl restart {unit}"
        )),
        State::Down => {
            let rest = if flows {
                "packets flow by the last configuration, changes wait"
            } else {
                "changes wait"
            };
            Some(format!(
                "control process down: {rest}; see journalctl -u {unit}, then systemctl start {unit}"
            ))
        }
        State::NeverRan => Some(never_ran("control process", "controlplane.json", unit, run_dir)),
        State::Unreadable => Some(unreadable("control process", control.process.error.as_deref())),
    }
}

/// Boxes that are away, or late. Of a controller that does not lead, none is there.
fn boxes_problem(boxes: &Boxes) -> Option<String> {
    let Boxes { boxes: all, connected, in_sync, .. } = *boxes;
    if connected == 0 || (connected == all && in_sync == all) {
        return None;
    }
    Some(format!(
        "{connected} of {all} boxes are connected, {in_sync} have what they should: the status of each Box says more"
    ))
}

/// A box without its controller goes on, and hears of no change.
fn agent_problem(agent: &Agent) -> Option<String> {
    let why = agent.trouble.as_deref();
    match (agent.connected, why) {
        (true, None) => None,
        (true, Some(why)) => Some(format!("what the controller wants is not in force: {why}")),
        (false, why) => Some(format!(
            "no link to a controller, changes wait: {}",
            why.unwrap_or("see journalctl -u penstock-controlplane")
        )),
    }
}

fn never_ran(who: &str, file: &str, unit: &str, run_dir: &Path) -> String {
    let path = run_dir.join(file);
    format!(
        "{who} has never run here: there is no {}; systemctl start {unit}, or give its folder with --run-dir",
        path.display()
    )
}

fn unreadable(who: &str, error: Option<&str>) -> String {
    format!("{who} unknown: {}", error.unwrap_or("its file cannot be read"))
}

/// Both run: do they serve and publish the same?
fn disagreement(dataplane: &DataPlane, control: &ControlPlane) -> Option<String> {
    let says = control.says.as_ref()?;
    let Some(serves) = &dataplane.serves else {
        return Some("data plane: which generation it serves cannot be read; see journalctl -u penstock-dataplane".into());
    };
    if !says.connected {
        let why = says.trouble.as_deref().unwrap_or("see journalctl -u penstock-controlplane");
        return Some(format!("control process is not connected to the data plane: {why}"));
    }
    if says.generation != says.acknowledged {
        let why = says.trouble.as_deref().unwrap_or("ask again in a second");
        return Some(format!(
            "generation {} is published, {} acknowledged: {why}",
            says.generation, says.acknowledged
        ));
    }
    if !serves.ready {
        return Some(format!(
            "generation {} has not reached every worker: ask again in a second",
            serves.generation
        ));
    }
    if (serves.generation, serves.digest.as_str()) != (says.generation, says.digest.as_str()) {
        return Some(format!(
            "generation {} with digest {} is served, {} with {} was acknowledged: ask again in a second; \
             if it stays so, systemctl restart penstock-controlplane",
            serves.generation, serves.digest, says.generation, says.digest
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::report::{ControlSays, Process, Serves};
    use super::*;

    /// Both run and agree on generation 7.
    fn well() -> (DataPlane, ControlPlane) {
        let running = Process { state: State::Running, ..Process::default() };
        let serves = Serves { generation: 7, digest: "ab".into(), epoch: 1, ready: true };
        let heartbeat = Some("2026-11-23T10:00:00.25Z".parse().unwrap());
        let dataplane = DataPlane {
            process: running.clone(),
            heartbeat,
            heartbeat_age_ms: None,
            serves: Some(serves),
        };
        let says = ControlSays {
            generation: 7,
            acknowledged: 7,
            digest: "ab".into(),
            connected: true,
            ..ControlSays::default()
        };
        (dataplane, ControlPlane { process: running, says: Some(says) })
    }

    #[test]
    fn boxes_and_agents_are_judged_by_their_links() {
        type Row = (&'static str, Option<Boxes>, Option<Agent>, &'static [&'static str]);
        let boxes =
            |boxes, connected, in_sync| Boxes { boxes, connected, in_sync, ..Boxes::default() };
        let agent = |connected, trouble: Option<&str>| Agent {
            connected,
            trouble: trouble.map(str::to_owned),
            ..Agent::default()
        };
        let rows: [Row; 6] = [
            ("all are there", Some(boxes(3, 3, 3)), None, &[]),
            ("another leads", Some(boxes(3, 0, 0)), None, &[]),
            ("one is away", Some(boxes(3, 2, 2)), None, &["2 of 3 boxes"]),
            ("a link", None, Some(agent(true, None)), &[]),
            ("no link", None, Some(agent(false, Some("refused"))), &["no link", "refused"]),
            ("a bad bundle", None, Some(agent(true, Some("line 3"))), &["not in force", "line 3"]),
        ];
        for (promise, boxes, agent, expected) in rows {
            let (mut dataplane, mut control) = well();
            let says = control.says.as_mut().unwrap();
            if boxes.is_some() {
                dataplane = DataPlane::default(); // there is none
            }
            (says.boxes, says.agent) = (boxes, agent);
            let found = problems(&dataplane, &control, Path::new("/run/penstock")).join("\n");
            assert_eq!(found.is_empty(), expected.is_empty(), "{promise}: {found}");
            assert!(expected.iter().all(|part| found.contains(part)), "{promise}: {found}");
        }
    }

    #[test]
    fn each_fault_is_named_with_the_next_move() {
        type Break = fn(&mut DataPlane, &mut ControlPlane);
        let rows: [(&str, Break, &[&str]); 13] = [
            ("all is well", |_, _| {}, &[]),
            (
                "down",
                |d, _| d.process.state = State::Down,
                &[
                    "data plane down since 2026-11-23T10:00:00Z: see journalctl -u penstock-dataplane, then",
                ],
            ),
            (
                "silent",
                |d, _| d.process.state = State::Silent,
                &["its process is there, but its main lcore does not beat"],
            ),
            (
                "never ran",
                |d, _| d.process.state = State::NeverRan,
                &["there is no /r/dataplane.stats; systemctl start penstock-dataplane, or give"],
            ),
            (
                "both are down",
                |d, c| (d.process.state, c.process.state) = (State::Down, State::Down),
                &["data plane down", "control process down: changes wait; see"],
            ),
            (
                "control process down",
                |_, c| c.process.state = State::Down,
                &["packets flow by the last configuration, changes wait; see"],
            ),
            (
                "control process stopped",
                |_, c| c.process.state = State::Silent,
                &["control process silent: its process is there, but does nothing: changes wait"],
            ),
            (
                "no control process yet",
                |_, c| c.process.state = State::NeverRan,
                &["there is no /r/controlplane.json"],
            ),
            (
                "damaged",
                |d, _| {
                    (d.process.state, d.process.error) =
                        (State::Unreadable, Some("/r/x: damaged".into()));
                },
                &["data plane unknown: /r/x: damaged"],
            ),
            (
                "another release",
                |_, c| {
                    let says = c.says.as_mut().unwrap();
                    (says.connected, says.trouble) =
                        (false, Some("data plane speaks feed 1: upgrade".into()));
                },
                &["not connected to the data plane: data plane speaks feed 1: upgrade"],
            ),
            (
                "on its way",
                |_, c| c.says.as_mut().unwrap().generation = 8,
                &["generation 8 is published, 7 acknowledged: ask again"],
            ),
            (
                "not everywhere",
                |d, _| d.serves.as_mut().unwrap().ready = false,
                &["generation 7 has not reached every worker"],
            ),
            (
                "another digest",
                |d, _| d.serves.as_mut().unwrap().digest = "cd".into(),
                &["with digest cd is served, 7 with ab was acknowledged"],
            ),
        ];
        for (promise, damage, expected) in rows {
            let (mut dataplane, mut control) = well();
            damage(&mut dataplane, &mut control);
            let said = problems(&dataplane, &control, Path::new("/r"));
            assert_eq!(said.len(), expected.len(), "{promise}: {said:?}");
            for (said, expected) in said.iter().zip(expected) {
                assert!(said.contains(expected), "{promise}: {said}");
            }
        }
    }
}
