//! Two controllers on one API server: one leads, and each box finds it.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use penstock_controlplane::agent::join::join;
use penstock_controlplane::boxes::desk::{Answer, Ask};
use penstock_controlplane::controller::{self, Cluster, ServeBoxes};
use serde_json::{Value, json};
use tokio::task::spawn_local;

use crate::api_server::ApiServer;
use crate::appliance::Appliance;
use crate::site::{Edge, Running, ask, run, until};

/// One of the controllers.
struct Controller {
    appliance: Appliance,
    address: SocketAddr,
    running: RefCell<Option<Running>>,
}

impl Controller {
    fn new() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { appliance: Appliance::new(), address, running: RefCell::default() }
    }

    fn start(&self, server: &ApiServer) {
        let cluster = Cluster {
            client: server.client(),
            url: "https://api".into(),
            lease_namespace: "penstock-system".into(),
        };
        let lifetime = Duration::from_secs(86_400);
        let boxes = ServeBoxes { listen: self.address, certificate_lifetime: lifetime };
        let paths = self.appliance.paths.clone();
        let run = async move {
            let ended = controller::run_serving(paths, Some(cluster), boxes).await;
            panic!("the controller ended: {ended:?}");
        };
        *self.running.borrow_mut() = Some(Running(spawn_local(run)));
    }

    /// As kill -9 does: the Lease is not given back.
    fn kill(&self) {
        self.running.take();
    }

    fn leads(&self) -> bool {
        self.running.borrow().is_some() && self.appliance.report()["api_server"]["leader"] == true
    }

    fn boxes(&self) -> Value {
        self.appliance.report()["boxes"].clone()
    }
}

fn put(server: &ApiServer, plural: &str, kind: &str, name: &str, spec: &Value) {
    let (group, namespace) = match plural {
        "boxes" => ("penstock.dev/v1alpha1", Value::Null),
        "gatewayclasses" => ("gateway.networking.k8s.io/v1", Value::Null),
        _ => ("gateway.networking.k8s.io/v1", "default".into()),
    };
    let metadata = match namespace {
        Value::Null => json!({"name": name}),
        namespace => json!({"name": name, "namespace": namespace}),
    };
    server.put(
        plural,
        json!({"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec}),
    );
}

fn gateway(server: &ApiServer, name: &str, port: u16) {
    let spec = json!({"gatewayClassName": "penstock", "addresses": [{"value": "192.0.2.10"}],
        "listeners": [{"name": "tcp", "protocol": "TCP", "port": port}]});
    put(server, "gateways", "Gateway", name, &spec);
}

fn programmed(server: &ApiServer, name: &str) -> bool {
    let gateway = server.get("gateways", "default", name).unwrap_or_default();
    let conditions = gateway["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|it| it["type"] == "Programmed" && it["status"] == "True")
}

#[test]
fn when_the_leader_dies_boxes_find_the_other_and_nothing_is_said_twice() {
    run(async {
        let server = ApiServer::new();
        let class = json!({"controllerName": "penstock.dev/gateway-controller"});
        put(&server, "gatewayclasses", "GatewayClass", "penstock", &class);
        gateway(&server, "web", 80);
        let names = ["edge-1", "edge-2", "edge-3"];
        names.iter().for_each(|name| put(&server, "boxes", "Box", name, &json!({})));
        let controllers = [Controller::new(), Controller::new()];
        controllers.iter().for_each(|controller| controller.start(&server));
        until("one leads", || controllers.iter().any(Controller::leads)).await;
        let (first, second) = match controllers[0].leads() {
            true => (&controllers[0], &controllers[1]),
            false => (&controllers[1], &controllers[0]),
        };
        // The one that does not lead is tried first by every box.
        let addresses: Vec<_> = [second, first].map(|it| it.address.to_string()).into();
        let mut edges = Vec::new();
        for name in names {
            let question =
                Ask::Token { name: name.into(), controllers: addresses.clone(), seconds: 60 };
            let Answer::Token(token) = ask(&first.appliance, &question).await else {
                panic!("no token")
            };
            assert!(matches!(ask(&second.appliance, &question).await, Answer::Refused(_)));
            let mut edge = Edge::strange();
            let token = token.parse().unwrap();
            join(&token, &edge.appliance.paths.state_dir).await.unwrap();
            edge.start();
            edges.push(edge);
        }
        until("all are in sync", || first.boxes()["in_sync"] == 3).await;
        until("it is programmed", || programmed(&server, "web")).await;
        let of_box = |name: &str| server.get("boxes", "", name).unwrap()["status"].clone();
        until("each Box says so", || names.iter().all(|name| of_box(name)["connected"] == true))
            .await;
        assert_eq!(second.boxes()["connected"], 0);
        // The statuses that name all boxes are written before the leader dies.
        tokio::time::sleep(Duration::from_secs(2)).await;

        let commits: Vec<_> = edges.iter().map(|edge| edge.plane.commits().len()).collect();
        let (gateways, routes) =
            (server.writes("gateways").len(), of_box("edge-1")["digest"].clone());
        let epoch = of_box("edge-1")["epoch"].as_i64().unwrap();
        first.kill();
        until("the other leads", || second.leads()).await;
        until("all are there", || second.boxes()["in_sync"] == 3).await;
        assert_eq!(second.boxes()["bundles_sent"], 0, "the digest is the same");
        let after: Vec<_> = edges.iter().map(|edge| edge.plane.commits().len()).collect();
        assert_eq!(after, commits, "no data plane was told anything");
        until("the later epoch is known", || of_box("edge-1")["epoch"].as_i64() > Some(epoch))
            .await;
        assert_eq!(of_box("edge-1")["digest"], routes);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(server.writes("gateways").len(), gateways, "no status was written anew");

        gateway(&server, "other", 81);
        until("it goes on", || programmed(&server, "other")).await;
        assert!(edges.iter().all(|edge| edge.plane.listeners() == 2));
        // One of before comes back: it follows, and sends every box on.
        first.start(&server);
        until("it is there", || first.boxes()["connected"] == 0).await;
        assert_eq!(second.boxes()["connected"], 3);
    });
}
