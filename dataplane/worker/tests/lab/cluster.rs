//! Objects from a real API server, and pods behind the port.

mod kills;

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::network::{Lab, wait_for};

const LIMIT: Duration = Duration::from_secs(30);

/// Two pods of two containers, one of them probed, and a Service of both families.
const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: http
        image: example.com/echo-basic:v1
        env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        readinessProbe: {httpGet: {path: /, port: 3000}, periodSeconds: 1}
      - name: udp
        image: example.com/echo-basic:v1
        env: [{name: UDP_ECHO_SERVER, value: '1'}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 3000}]
";

/// A VIP from the lab's pool, and a route to that Service.
const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: penstock
  listeners: [{name: http, protocol: TCP, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: web}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
";

/// A pod whose image nobody has.
const UNKNOWN: &str = "
apiVersion: v1
kind: Pod
metadata: {name: unknown}
spec: {containers: [{name: it, image: 'example.com/nothing:v1'}]}
";

fn kubectl(lab: &Lab, arguments: &[&str]) -> String {
    lab.on("client1", &[&["kubectl"], arguments].concat())
}

fn apply(lab: &Lab, yaml: &str) {
    let folder = TempDir::with_prefix("penstock-cluster-").expect("a directory");
    let file = folder.path().join("objects.yaml");
    fs::write(&file, yaml).expect("write");
    kubectl(lab, &["apply", "-f", file.to_str().expect("a path of plain characters")]);
}

fn get(lab: &Lab, arguments: &[&str]) -> Value {
    let said = kubectl(lab, &[&["get", "-o", "json"], arguments].concat());
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said:?}"))
}

/// The ready addresses in the EndpointSlices of the Service, of one family.
fn ready(lab: &Lab, family: &str) -> Vec<String> {
    let slices = get(lab, &["endpointslices", "--selector", "kubernetes.io/service-name=web"]);
    let slices = slices["items"].as_array().expect("a list").iter();
    let endpoints = slices
        .filter(|slice| slice["addressType"] == family)
        .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    endpoints
        .filter(|endpoint| endpoint["conditions"]["ready"] == true)
        .map(|endpoint| endpoint["addresses"][0].as_str().expect("an address").to_owned())
        .collect()
}

fn serve(lab: &Lab) {
    apply(lab, WEB);
    for family in ["IPv4", "IPv6"] {
        wait_for("two endpoints are ready", LIMIT, || {
            (ready(lab, family).len() == 2).then_some(())
        });
    }
}

/// The address of the Gateway, once it is programmed.
fn vip(lab: &Lab) -> String {
    kubectl(lab, &["wait", "--for=condition=Programmed", "gateway/web", "--timeout=30s"]);
    let gateway = get(lab, &["gateway", "web"]);
    gateway["status"]["addresses"][0]["value"].as_str().expect("an address").to_owned()
}

/// Which pod answers at a URL.
fn answer(lab: &Lab, host: &str, url: &str) -> String {
    let said = lab.on(host, &["curl", "--silent", "--show-error", "--max-time", "5", url]);
    let said: Value =
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said:?}"));
    said["pod"].as_str().expect("a pod's name").to_owned()
}

/// The status of a container of a pod.
fn container(lab: &Lab, pod: &str, name: &str) -> Value {
    let pod = get(lab, &["pod", pod]);
    let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    statuses.into_iter().find(|status| status["name"] == name).unwrap_or_default()
}

#[test]
#[ignore = "needs root, hugepages and the programs of scripts/lab build-cluster"]
fn pods_serve_both_families_are_restarted_and_leave_nothing() {
    let lab = Lab::with_cluster();
    serve(&lab);
    for address in [ready(&lab, "IPv4"), ready(&lab, "IPv6")].concat() {
        let host = if address.contains(':') { format!("[{address}]") } else { address };
        let pod = answer(&lab, "box", &format!("http://{host}:3000/"));
        assert!(pod.starts_with("web-"), "{pod}");
        assert!(
            kubectl(&lab, &["logs", &pod, "--container", "http"]).contains("Echoing back request")
        );
    }

    let pods = get(&lab, &["pods", "--selector", "app=web"]);
    let pod = pods["items"][0]["metadata"]["name"].as_str().expect("a name");
    kill_process(process(&container(&lab, pod, "http")), Signal::KILL).expect("kill");
    wait_for("the container is ready again", LIMIT, || {
        let it = container(&lab, pod, "http");
        (it["restartCount"] == 1 && it["ready"] == true).then_some(())
    });
    let killed = container(&lab, pod, "http")["lastState"]["terminated"]["exitCode"].clone();
    assert_eq!(killed, 137, "128 and SIGKILL's number");
    assert_eq!(container(&lab, pod, "udp")["restartCount"], 0, "the other container ran on");

    apply(&lab, UNKNOWN);
    wait_for("the unknown image is told", LIMIT, || {
        (container(&lab, "unknown", "it")["state"]["waiting"]["reason"] == "ErrImagePull")
            .then_some(())
    });

    kubectl(&lab, &["delete", "deployment/web", "pod/unknown"]);
    let prefix = format!("{}-pod-", lab.name());
    wait_for("no pod and no namespace of one is left", LIMIT, || {
        let pods = get(&lab, &["pods"]);
        let none = pods["items"].as_array().is_some_and(Vec::is_empty);
        (none && !namespaces().iter().any(|name| name.starts_with(&prefix))).then_some(())
    });
}

#[test]
#[ignore = "needs root, hugepages and the programs of scripts/lab build-cluster"]
fn clients_reach_pods_through_a_vip_of_the_pool_and_all_goes_after_kills() {
    let lab = Lab::with_cluster();
    serve(&lab);
    apply(&lab, GATEWAY);
    let vip = vip(&lab);
    assert!(vip.starts_with("10.10.4."), "{vip} is of the pool");
    let url = format!("http://{vip}/");
    let mut seen: Vec<_> = (0..40).map(|_| answer(&lab, "client1", &url)).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 2, "both pods answered: {seen:?}");

    let containers = containers(&lab);
    assert_eq!(containers.len(), 4, "two containers of two pods: {containers:?}");
    for name in ["podrunner", "etcd", "kube-apiserver", "kube-controller-manager"] {
        lab.kill(name);
    }
    wait_for("containers end with the pod runner", LIMIT, || {
        containers.iter().all(|pid| test_kill_process(*pid).is_err()).then_some(())
    });
    wait_for("two pods are ready again, by new processes", LIMIT, || {
        let pods = lab.try_on("client1", &["kubectl", "get", "pods", "-o", "json"])?;
        let pods: Value = serde_json::from_str(&pods).ok()?;
        let restarted = pods["items"].as_array()?.iter().all(|pod| {
            let statuses = &pod["status"]["containerStatuses"];
            statuses[0]["ready"] == true && statuses[0]["restartCount"].as_u64() >= Some(1)
        });
        restarted.then_some(())
    });
    wait_for("clients reach them", LIMIT, || {
        let said = lab.try_on("client1", &["curl", "--silent", "--max-time", "2", &url])?;
        said.contains("\"pod\"").then_some(())
    });
    for name in ["podrunner", "etcd", "kube-apiserver", "kube-controller-manager"] {
        lab.kill(name);
    }
    // `Lab` takes it down as it is now, and fails if anything is left.
}

/// What a command of `penstock-cluster-probe` saw from where clients are.
fn probe(lab: &Lab, command: &[&str]) -> Value {
    let said = lab.on("client1", &[&["penstock-cluster-probe"], command].concat());
    eprint!("  {}: {said}", command.join(" "));
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said:?}"))
}

#[test]
#[ignore = "needs root, hugepages and the programs of scripts/lab build-cluster"]
fn routes_serve_when_they_are_made_and_few_writes_count_them() {
    let lab = Lab::with_cluster();
    let few = |writes: &Value| {
        let most = writes["most"].as_u64().expect("a number");
        assert!(most <= 20, "{most} writes to one object: {writes}");
    };

    let seen = probe(&lab, &["each", "--routes", "100"]);
    assert_eq!(seen["first_served"]["count"], 100);
    assert_eq!(seen["wrong"], serde_json::json!([]), "connections that reached another's backend");

    // Returns only when each of them serves and is counted, and then when none is.
    let seen = probe(&lab, &["together", "--routes", "300"]);
    few(&seen["status_writes"]);
    few(&seen["status_writes_of_delete"]);

    let seen = probe(&lab, &["crowd", "--routes", "300"]);
    assert_eq!(seen["served_by"], seen["oldest_of"]);
    few(&seen["status_writes"]);
    few(&seen["status_writes_of_delete"]);

    let seen = probe(&lab, &["swap", "--swaps", "20"]);
    assert_eq!(seen["failed"], 0, "{}", seen["faults"]);
    assert!(seen["answers"].as_object().is_some_and(|answers| answers.len() == 2), "{seen}");
}

/// The processes of all containers of the pods.
fn containers(lab: &Lab) -> Vec<Pid> {
    let pods = get(lab, &["pods", "--selector", "app=web"]);
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let statuses = pods
        .iter()
        .flat_map(|pod| pod["status"]["containerStatuses"].as_array().into_iter().flatten());
    statuses.map(process).collect()
}

/// The process that a container's status names.
fn process(status: &Value) -> Pid {
    let id = status["containerID"].as_str();
    let pid = id.and_then(|id| id.strip_prefix("process://")).expect("a process");
    Pid::from_raw(pid.parse().expect("a pid")).expect("a pid is not 0")
}

/// The names of all network namespaces.
fn namespaces() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// A spec of one of our own kinds, and what `penstock check` says of it: nothing if it is well.
#[derive(serde::Deserialize)]
struct Spec {
    kind: String,
    spec: String,
    #[serde(default)]
    says: String,
}

/// A policy of the Gateway, and a backend that no Service knows.
const OWN: &str = "
apiVersion: penstock.dev/v1alpha1
kind: L4Policy
metadata: {name: web}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}]
  listener: {onUnknown: reset}
---
apiVersion: penstock.dev/v1alpha1
kind: Backend
metadata: {name: db}
spec: {endpoints: [{address: 10.10.0.11, port: 80}]}
";

/// Whether an object of ours is told that it is accepted.
fn is_accepted(lab: &Lab, kind: &str, name: &str) -> bool {
    let status = get(lab, &[kind, name])["status"].to_string();
    let condition = r#""reason":"Accepted","status":"True""#;
    status.contains(condition)
}

#[test]
#[ignore = "needs root, hugepages and the programs of scripts/lab build-cluster"]
fn own_kinds_are_judged_as_they_are_in_files_and_answered() {
    let lab = Lab::with_cluster();
    let specs = include_str!("../../../../controlplane/controller/tests/crds.yaml");
    let specs: Vec<Spec> = serde_saphyr::from_str(specs).expect("a list of specs");
    let folder = TempDir::with_prefix("penstock-own-kinds-").expect("a directory");
    let file = folder.path().join("it.yaml");
    let path = file.to_str().expect("a path of plain characters");
    for Spec { kind, spec, says } in &specs {
        let head =
            format!("apiVersion: penstock.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: it}}\n");
        fs::write(&file, format!("{head}spec: {spec}\n")).expect("write");
        let judge = ["kubectl", "apply", "--dry-run=server", "--validate=strict", "-f", path];
        let is_well = lab.try_on("client1", &judge).is_some();
        assert_eq!(is_well, says.is_empty(), "{kind} {spec}: a file is told {says:?}");
    }
    eprintln!("  {} specs", specs.len());

    apply(&lab, GATEWAY);
    apply(&lab, OWN);
    wait_for("the policy is accepted", LIMIT, || {
        is_accepted(&lab, "l4policy", "web").then_some(())
    });
    wait_for("the Backend is accepted", LIMIT, || is_accepted(&lab, "backend", "db").then_some(()));
}
