//! A control process beside an API server in memory: what both tests of it share.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::time::Duration;

use penstock_controlplane::controller::{self, Cluster};
use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::appliance::Appliance;

/// The controller that we are.
pub const OURS: &str = "penstock.dev/gateway-controller";

impl Appliance {
    /// Whether something that is refused says so.
    pub fn tells(&self, text: &str) -> bool {
        self.report()["refused"].to_string().contains(text)
    }

    pub async fn while_running(&self, server: &ApiServer, scenario: impl Future<Output = ()>) {
        self.run(server, Duration::from_secs(40), scenario).await;
    }

    /// The same for hours, if nobody waits for them.
    pub async fn while_running_long(&self, server: &ApiServer, scenario: impl Future<Output = ()>) {
        self.run(server, Duration::from_secs(4 * 3600), scenario).await;
    }

    async fn run(&self, server: &ApiServer, at_most: Duration, scenario: impl Future<Output = ()>) {
        let cluster = Cluster {
            client: server.client(),
            url: "https://api".into(),
            lease_namespace: "penstock-system".into(),
        };
        tokio::select! {
            ended = controller::run_on_cluster(self.paths.clone(), cluster) => panic!("it ended: {ended:?}"),
            done = tokio::time::timeout(at_most, scenario) => done.expect("in time"),
        }
    }
}

pub async fn until(promise: &str, condition: impl Fn() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not in time: {promise}");
}

pub fn class() -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "penstock"},
        "spec": {"controllerName": OURS}})
}

pub fn gateway(name: &str, ports: &[Value]) -> Value {
    let listener = |port: &Value| json!({"name": format!("l{port}").replace('"', ""), "protocol": "TCP", "port": port});
    let listeners: Vec<_> = ports.iter().map(listener).collect();
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": name, "namespace": "default"},
        "spec": {"gatewayClassName": "penstock", "addresses": [{"value": "192.0.2.10"}], "listeners": listeners}})
}

pub fn route(parent: &str) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TCPRoute", "metadata": {"name": "r", "namespace": "default"},
        "spec": {"parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": parent}],
            "rules": [{"backendRefs": [{"name": "s", "port": 80}]}]}})
}

pub fn cluster() -> ApiServer {
    let server = ApiServer::new();
    server.put("gatewayclasses", class());
    server.put("gateways", gateway("web", &[json!(80)]));
    server
}

pub fn programmed(server: &ApiServer, name: &str) -> bool {
    let Some(gateway) = server.get("gateways", "default", name) else { return false };
    let conditions = gateway["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let generation = &gateway["metadata"]["generation"];
    conditions.iter().any(|c| {
        c["type"] == "Programmed" && c["status"] == "True" && c["observedGeneration"] == *generation
    })
}
