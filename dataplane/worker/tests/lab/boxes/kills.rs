//! Agents and the controller may be killed at any moment.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{
    BOXES, CLIENTS, TO, are_held, boxes, change, common_digests, connections, hold, is_all_well,
    none_failed, site, up,
};
use crate::network::{Lab, wait_for};

const LIMIT: Duration = Duration::from_secs(15);

/// How often each process is killed: twenty times if it may take long.
fn kills() -> usize {
    if env::var_os("PENSTOCK_LONG").is_some() { 20 } else { 3 }
}

/// Which file each status is in, and when it was written: one that is written anew is another file.
type Written = BTreeMap<PathBuf, (u64, i64, i64)>;

fn written(lab: &Lab, of: impl Fn(&Path) -> bool) -> Written {
    let (mut written, mut folders) = (Written::new(), vec![lab.directory().join("run/status")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, metadata) = (entry.path(), entry.metadata().expect("it is there"));
            if metadata.is_dir() {
                folders.push(path);
            } else if of(&path) {
                let time = (metadata.mtime(), metadata.mtime_nsec());
                written.insert(path, (metadata.ino(), time.0, time.1));
            }
        }
    }
    written
}

/// What the data planes were told since their agents began.
fn told(lab: &Lab) -> [u64; 3] {
    BOXES.map(|host| {
        let publishes = &lab.control_report_on(host).expect("its agent runs")["publishes"];
        ["delta", "snapshot"].map(|kind| publishes[kind].as_u64().unwrap_or(0)).iter().sum()
    })
}

/// Kills a process and waits until another is there, and all is as it was.
fn kill(lab: &Lab, name: &str) {
    let killed = lab.kill(name);
    connections(lab);
    wait_for("it runs again", LIMIT, || lab.pid(name).filter(|new| *new != killed));
    let host = name.strip_prefix("penstock-agent-");
    wait_for("all is as it was", LIMIT, || {
        let report = lab.control_report_on(host.unwrap_or("controller"))?;
        let is_its_own = report["pid"].as_i64() == lab.pid(name).map(i64::from);
        (is_its_own && is_all_well(lab)).then_some(())
    });
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn kills_of_agents_and_controller_cost_no_connection_and_no_write() {
    let site = site();
    let lab = up(&site);
    let held = hold(&lab, 50);
    let begin = ["connect", TO, "--count", "1000000", "--concurrency", "1", "--rate", "50"];
    let beginning = CLIENTS.map(|client| lab.start_peer(client, &begin));
    let served = common_digests(&lab);
    let is_of_a_box = |path: &Path| path.components().any(|part| part.as_os_str() == "Box");
    let others = |path: &Path| !is_of_a_box(path);
    let before = written(&lab, others);
    assert_eq!(
        before.len(),
        7,
        "a class, and two Gateways with their routes and policies: {before:?}"
    );

    let sent = boxes(&lab).expect("it runs")["bundles_sent"].clone();
    for round in 0..kills() {
        let host = BOXES[round % 3];
        let but_its = |path: &Path| !path.ends_with(format!("Box/{host}.yaml"));
        let before = written(&lab, but_its);
        kill(&lab, &format!("penstock-agent-{host}"));
        assert_eq!(written(&lab, but_its), before, "only the Box of {host} has news");
        assert_eq!(told(&lab)[round % 3], 0, "what {host} serves is in force already");
    }
    assert_eq!(boxes(&lab).expect("it runs")["bundles_sent"], sent, "nothing is sent twice");
    let told_before = told(&lab);
    for round in 0..kills() {
        kill(&lab, "penstock-controlplane");
        assert_eq!(
            written(&lab, others),
            before,
            "nothing changed, so nothing is written: {round}"
        );
        assert_eq!(boxes(&lab).expect("it runs")["bundles_sent"], 0, "{round}: nothing is sent");
    }
    assert_eq!(told(&lab), told_before, "no data plane is told anything");
    assert_eq!(common_digests(&lab), served);

    change(&lab, "a change", || site.route("TCP", ("web", "http"), 80, &[("web", 1), ("more", 1)]));
    for beginning in beginning {
        none_failed(&beginning.stop());
    }
    are_held(held);
}
