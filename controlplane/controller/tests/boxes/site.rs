//! A controller on a folder, and boxes that it tells what to do.

use std::cell::RefCell;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use penstock_controlplane::agent::join::join;
use penstock_controlplane::boxes::desk::{Answer, Ask, SOCKET};
use penstock_controlplane::controller::{self, ServeBoxes};
use penstock_controlplane::pki::Token;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::{JoinHandle, spawn_local};

use crate::appliance::Appliance;
use crate::data_plane::DataPlane;

const CLASS: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: penstock}
spec: {controllerName: penstock.dev/gateway-controller}
---
";

/// A Gateway with one TCP listener, and the route, Service and endpoint behind it.
pub fn gateway(name: &str, port: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  gatewayClassName: penstock
  addresses: [{{value: 192.0.2.10}}]
  listeners: [{{name: tcp, protocol: TCP, port: {port}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {{name: {name}}}
spec: {{parentRefs: [{{name: {name}}}], rules: [{{backendRefs: [{{name: {name}, port: 80}}]}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: 80}}]
endpoints: [{{addresses: [10.0.0.1]}}, {{addresses: [10.0.0.2]}}]
---
"
    )
}

pub fn box_object(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: penstock.dev/v1alpha1\nkind: Box\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
    )
}

/// A task that ends with what owns it, as a process does that is killed.
pub struct Running(pub JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks the controller of these folders.
pub async fn ask(appliance: &Appliance, ask: &Ask) -> Answer {
    let path = appliance.paths.run_dir.join(SOCKET);
    let mut stream = UnixStream::connect(path).await.unwrap();
    let mut text = serde_json::to_vec(ask).unwrap();
    text.push(b'\n');
    stream.write_all(&text).await.unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    serde_json::from_str(&line).unwrap()
}

/// A controller: its folders, and where it listens.
pub struct Controller {
    pub appliance: Appliance,
    pub address: SocketAddr,
    pub lifetime: Duration,
    running: RefCell<Option<Running>>,
}

impl Controller {
    pub fn new(objects: &str) -> Self {
        let appliance = Appliance::new();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        let lifetime = Duration::from_secs(86_400);
        let controller = Self { appliance, address, lifetime, running: RefCell::default() };
        controller.write("class", CLASS);
        controller.write("objects", objects);
        controller
    }

    /// As an editor saves: beside, then renamed.
    pub fn write(&self, name: &str, text: &str) {
        let folder = &self.appliance.paths.config_dir;
        let beside = folder.join(format!(".{name}.tmp"));
        fs::write(&beside, text).unwrap();
        fs::rename(beside, folder.join(format!("{name}.yaml"))).unwrap();
    }

    pub fn start(&self) {
        let boxes = ServeBoxes { listen: self.address, certificate_lifetime: self.lifetime };
        let paths = self.appliance.paths.clone();
        let run = async move {
            let ended = controller::run_serving(paths, None, boxes).await;
            panic!("the controller ended: {ended:?}");
        };
        *self.running.borrow_mut() = Some(Running(spawn_local(run)));
    }

    pub async fn stop(&self) {
        self.running.take();
        // Its thread ends with its task, which is dropped when it is next looked at.
        until("the controller is gone", || TcpListener::bind(self.address).is_ok()).await;
        // What it said is not what the next one says.
        fs::remove_file(self.appliance.paths.run_dir.join("controlplane.json")).unwrap();
    }

    pub async fn ask(&self, ask: &Ask) -> Answer {
        self::ask(&self.appliance, ask).await
    }

    pub async fn token(&self, name: &str) -> Token {
        let path = self.appliance.paths.run_dir.join(SOCKET);
        until("the desk is open", || path.exists()).await;
        let controllers = vec![self.address.to_string()];
        let ask = Ask::Token { name: name.to_owned(), controllers, seconds: 60 };
        match self.ask(&ask).await {
            Answer::Token(token) => token.parse().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub fn boxes(&self) -> Value {
        self.appliance.report()["boxes"].clone()
    }

    pub fn counted(&self, name: &str) -> u64 {
        self.boxes()[name].as_u64().unwrap_or_default()
    }

    pub fn refused(&self, reason: &str) -> u64 {
        self.boxes()["refused"][reason].as_u64().unwrap_or_default()
    }

    pub fn status(&self, object: &str) -> Value {
        let file = self.appliance.paths.run_dir.join("status").join(format!("{object}.yaml"));
        let text = fs::read_to_string(file).unwrap_or_default();
        let object: Value = serde_saphyr::from_str(&text).unwrap_or_default();
        object["status"].clone()
    }

    /// A condition: its status and reason, and what it says.
    pub fn condition(&self, object: &str, type_: &str) -> (String, String) {
        let status = self.status(object);
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition["type"] == type_);
        let found = found.unwrap_or_default();
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        (format!("{}/{}", text("status"), text("reason")), text("message"))
    }

    pub fn is_programmed(&self, gateway: &str) -> bool {
        self.condition(&format!("Gateway/default/{gateway}"), "Programmed").0 == "True/Programmed"
    }
}

/// A box: its folders, its data plane, and its agent.
pub struct Edge {
    pub appliance: Appliance,
    pub plane: DataPlane,
    running: Option<Running>,
}

impl Edge {
    /// A box that has joined, and whose agent runs.
    pub async fn join(controller: &Controller, name: &str) -> Self {
        let mut edge = Self::strange();
        let token = controller.token(name).await;
        let path = controller.appliance.paths.run_dir.join("controlplane.json");
        until("the Box is known", || path.exists()).await;
        let state_dir = &edge.appliance.paths.state_dir;
        join(&token, state_dir).await.unwrap();
        edge.start();
        edge
    }

    /// One that nobody knows.
    pub fn strange() -> Self {
        let appliance = Appliance::new();
        fs::create_dir(&appliance.paths.state_dir).unwrap();
        let plane = DataPlane::start(&appliance.paths);
        Self { appliance, plane, running: None }
    }

    pub fn start(&mut self) {
        let paths = self.appliance.paths.clone();
        let run = async move {
            let ended = controller::run_as_agent(paths).await;
            panic!("the agent ended: {ended:?}");
        };
        self.running = Some(Running(spawn_local(run)));
    }

    pub fn stop(&mut self) {
        self.running = None;
    }

    pub fn agent(&self) -> Value {
        self.appliance.report()["agent"].clone()
    }

    pub fn is_linked(&self) -> bool {
        self.agent()["connected"] == true
    }

    pub fn tells(&self, text: &str) -> bool {
        self.agent()["trouble"].to_string().contains(text)
    }

    /// The digest of what its data plane was told last.
    pub fn state(&self) -> Option<String> {
        Some(self.plane.commits().last()?.1.digest().to_string())
    }

    pub fn state_file(&self, name: &str) -> PathBuf {
        self.appliance.paths.state_dir.join(name)
    }
}

pub async fn until(promise: &str, condition: impl Fn() -> bool) {
    for _ in 0..4000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not in time: {promise}");
}

/// Runs a scenario on one thread.
pub fn run(scenario: impl Future<Output = ()>) {
    // PENSTOCK_LOG=debug shows what happened; a subscriber of before is as good.
    let filter = std::env::var("PENSTOCK_LOG").unwrap_or("off".into());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, scenario);
}
