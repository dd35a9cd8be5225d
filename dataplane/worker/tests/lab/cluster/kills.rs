//! Between the objects and the packets any process may be killed at any moment.

use std::collections::BTreeMap;
use std::env;
use std::time::Duration;

use serde_json::Value;

use super::{GATEWAY, apply, get, kubectl, vip};
use crate::network::{Lab, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

/// Servers that are no pods, so that killing etcd has no say in whether they live.
const SERVERS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: None, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- {addresses: [10.10.0.11]}
- {addresses: [10.10.0.12]}
ports: [{name: http, port: 80}]
";

/// Another listener.
const CHANGE: &str = r#"[{"op": "add", "path": "/spec/listeners/-",
    "value": {"name": "late", "protocol": "TCP", "port": 81}}]"#;

/// How often each process is killed: twenty times if it may take long.
fn kills() -> u32 {
    if env::var_os("PENSTOCK_LONG").is_some() { 20 } else { 4 }
}

/// When each object that we write was written last, as the API server counts.
fn versions(lab: &Lab) -> BTreeMap<&'static str, Value> {
    ["gatewayclass/penstock", "gateway/web", "tcproute/web", "service/web-penstock"]
        .map(|name| (name, get(lab, &[name])["metadata"]["resourceVersion"].clone()))
        .into()
}

/// Waits until the control process hears the API server, writes statuses, and has the data plane's word.
fn all_is_well(lab: &Lab) {
    wait_for("the control process hears the API server, and leads", LIMIT, || {
        let report = lab.settled_report()?;
        let api_server = &report["api_server"];
        (api_server["connected"] == true && api_server["leader"] == true).then_some(())
    });
}

#[test]
#[ignore = "needs root, hugepages and the programs of scripts/lab build-cluster"]
fn kills_between_objects_and_packets_cost_no_connection_and_no_write() {
    let lab = Lab::with_cluster();
    apply(&lab, SERVERS);
    apply(&lab, GATEWAY);
    let vip = vip(&lab);
    let to = format!("{vip}:80");
    let mut held = lab.start_peer("client1", &["hold", &to, "--count", "100"]);
    assert_eq!(held.report()["opened"], 100);
    all_is_well(&lab);
    let before = versions(&lab);

    for name in ["penstock-controlplane", "kube-apiserver", "etcd"] {
        for _ in 0..kills() {
            let killed = lab.kill(name);
            let report = lab.peer("client2", &["connect", &to, "--count", "20"]);
            assert_eq!(report["ok"], 20, "{name} is killed: {report}");
            wait_for("it runs again", LIMIT, || lab.pid(name).filter(|new| *new != killed));
            wait_for("the API server is ready", LIMIT, || {
                lab.try_on("client1", &["kubectl", "get", "--raw", "/readyz"])
            });
            all_is_well(&lab);
        }
        assert_eq!(versions(&lab), before, "nothing changed, so nothing is written: {name}");
    }

    kubectl(&lab, &["patch", "gateway/web", "--type=json", "--patch", CHANGE]);
    wait_for("a change has its status", LIMIT, || {
        let gateway = get(&lab, &["gateway", "web"]);
        (gateway["status"]["listeners"].as_array()?.len() == 2).then_some(())
    });
    let report = held.stop();
    assert_eq!((&report["alive"], &report["resets"]), (&100.into(), &0.into()), "{report}");
    assert_eq!(report["moved"], 0, "{report}");
}
