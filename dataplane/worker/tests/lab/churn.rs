//! Ten thousand changes of backends, and connections that have nothing to do with them, or all.

use rustix::process::{Pid, Signal, kill_process};

use crate::network::Lab;
use crate::site::Site;
use crate::{BACKENDS, DNAT_VIP, FULL_NAT_VIP};

const HELD: &str = "1000";

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn ten_thousand_changes_of_backends_end_no_connection() {
    let site = Site::new();
    let lab = Lab::up(&site, &["--workers", "2"]);
    let control = Stopped::new(lab.pid("penstock-controlplane").expect("it runs"));
    churn(&lab, "0");
    let mut held = [("client1", FULL_NAT_VIP), ("client2", DNAT_VIP)].map(|(client, vip)| {
        let to = format!("{vip}:80");
        lab.start_peer(client, &["hold", &to, "--count", HELD, "--timeout-ms", "10000"])
    });
    for held in &mut held {
        assert_eq!(held.report()["opened"].to_string(), HELD);
    }
    churn(&lab, "10000");
    for held in held {
        let report = held.stop();
        assert_eq!(report["alive"].to_string(), HELD, "{report}");
        let (resets, moved) = (&report["resets"], &report["moved"]);
        assert_eq!((resets.as_u64(), moved.as_u64()), (Some(0), Some(0)), "{report}");
    }
    drop(control);
}

/// Changes the backends of one of two VIPs so many times, and waits until the last change is in force.
fn churn(lab: &Lab, changes: &str) {
    let socket = lab.directory().join("run/dataplane.sock");
    let socket = socket.to_str().expect("a path of plain characters");
    let [steady, changing] = [FULL_NAT_VIP, DNAT_VIP].map(|vip| format!("{vip}:80"));
    let backends = BACKENDS.map(|backend| format!("{backend}:80"));
    let as_control =
        ["setpriv", "--reuid=penstock-controlplane", "--regid=penstock", "--clear-groups"];
    let command =
        ["penstock-lab-peer", "churn", socket, "--steady", &steady, "--changing", &changing];
    let options = backends.iter().flat_map(|backend| ["--backend", backend]);
    let all: Vec<&str> = as_control
        .into_iter()
        .chain(command)
        .chain(options)
        .chain(["--changes", changes, "--seconds", "60"])
        .collect();
    let report: serde_json::Value =
        serde_json::from_str(&lab.on("box", &all)).expect("a report of churn");
    eprintln!("  {report}");
    assert_eq!(report["changes"].to_string(), changes);
    assert_eq!((&report["in_force"], &report["refused"]), (&true.into(), &0.into()), "{report}");
}

/// A process that does nothing for a while.
struct Stopped(Pid);

impl Stopped {
    fn new(pid: i32) -> Self {
        let pid = Pid::from_raw(pid).expect("a pid is not 0");
        kill_process(pid, Signal::STOP).expect("it is ours");
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT); // it may be gone with the lab
    }
}
