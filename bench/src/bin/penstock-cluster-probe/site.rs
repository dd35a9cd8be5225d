//! The objects: a namespace of their own, Services of given backends, Gateways and ListenerSets with a
//! listener a port, and routes.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Config};
use penstock_gateway_types::GROUP;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::Fault;

pub(crate) const NAMESPACE: &str = "cluster-probe";
/// The name of the one Gateway.
pub(crate) const GATEWAY: &str = "probe";
/// Listeners of one Gateway or ListenerSet (their `maxItems`).
const LISTENERS: u16 = 64;
const API_VERSION: &str = "gateway.networking.k8s.io/v1";
const FIRST_PORT: u16 = 20_000;
/// Requests to the API server under way at once.
const AT_ONCE: usize = 16;
/// What anything may take that is not measured.
const LIMIT: Duration = Duration::from_secs(300);
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// A server that answers with its name.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) at: SocketAddr,
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(name, at)| Some((name, at.parse().ok()?)));
        let (name, at) = parts.ok_or("NAME=IP:PORT is wanted, like backend1=10.10.0.11:80")?;
        Ok(Self { name: name.to_owned(), at })
    }
}

/// The namespace and what is in it.
pub(crate) struct Site {
    client: Client,
    class: String,
    pub(crate) backends: Vec<Backend>,
}

impl Site {
    /// An empty namespace but for a Service of each backend.
    pub(crate) async fn begin(class: &str, backends: Vec<Backend>) -> Result<Self, Fault> {
        if backends.len() < 2 {
            return Err("two backends are wanted at least: give --backend twice".into());
        }
        let config = Config::infer().await?;
        let client = Client::try_from(config)?;
        let site = Self { client, class: class.to_owned(), backends };
        site.remove_namespace().await?;
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        Api::<DynamicObject>::all_with(
            site.client.clone(),
            &kind("", "v1", "Namespace", "namespaces"),
        )
        .create(&PostParams::default(), &serde_json::from_value(namespace)?)
        .await?;
        for backend in &site.backends {
            site.create("Service", service(backend)).await?;
            site.create("EndpointSlice", endpoints(backend)).await?;
        }
        Ok(site)
    }

    /// Removes it all.
    pub(crate) async fn end(self) -> Result<(), Fault> {
        self.remove_namespace().await
    }

    async fn remove_namespace(&self) -> Result<(), Fault> {
        let all = kind("", "v1", "Namespace", "namespaces");
        let all = Api::<DynamicObject>::all_with(self.client.clone(), &all);
        match all.delete(NAMESPACE, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            Err(fault) => return Err(fault.into()),
        }
        within("the namespace is gone", async || {
            Ok(all.get_opt(NAMESPACE).await?.is_none().then_some(()))
        })
        .await
    }

    /// The objects of a kind in the namespace.
    pub(crate) fn api(&self, of: &str) -> Api<DynamicObject> {
        let kind = match of {
            "Service" => kind("", "v1", of, "services"),
            "EndpointSlice" => kind("discovery.k8s.io", "v1", of, "endpointslices"),
            "Gateway" => kind(GROUP, "v1", of, "gateways"),
            "ListenerSet" => kind(GROUP, "v1", of, "listenersets"),
            _ => kind(GROUP, "v1", "TCPRoute", "tcproutes"),
        };
        Api::namespaced_with(self.client.clone(), NAMESPACE, &kind)
    }

    async fn create(&self, of: &str, object: Value) -> Result<(), Fault> {
        self.api(of).create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(())
    }

    /// Objects of a kind, some at once.
    pub(crate) async fn create_all(
        &self,
        of: &str,
        objects: impl Iterator<Item = Value>,
    ) -> Result<(), Fault> {
        let creates = objects.map(|object| self.create(of, object));
        let mut done = stream::iter(creates).buffer_unordered(AT_ONCE);
        while let Some(done) = done.next().await {
            done?;
        }
        Ok(())
    }

    /// A Gateway, and ListenerSets for what it has no room for, with a TCP listener on each of `count` ports.
    /// Returns the places when all of them are programmed.
    pub(crate) async fn listeners(&self, count: u16) -> Result<Vec<SocketAddr>, Fault> {
        let ports: Vec<u16> = (FIRST_PORT..).take(usize::from(count)).collect();
        let mut parts = ports.chunks(usize::from(LISTENERS));
        let first = parts.next().ok_or("no listener is wanted")?;
        self.create("Gateway", gateway(&self.class, first)).await?;
        for (number, ports) in parts.enumerate() {
            self.create("ListenerSet", listener_set(number, ports)).await?;
        }
        let vip = within("every listener is programmed", async || {
            let all = self.with_listeners().await?;
            let listeners: usize = all.iter().map(programmed_listeners).sum();
            let vip = all
                .iter()
                .find_map(|object| object.data["status"]["addresses"][0]["value"].as_str());
            let vip = vip.and_then(|vip| vip.parse::<IpAddr>().ok());
            Ok(vip.filter(|_| listeners == ports.len()))
        })
        .await?;
        Ok(ports.into_iter().map(|port| SocketAddr::new(vip, port)).collect())
    }

    /// The Gateway and its ListenerSets.
    pub(crate) async fn with_listeners(&self) -> Result<Vec<DynamicObject>, Fault> {
        let mut all = self.api("Gateway").list(&ListParams::default()).await?.items;
        all.extend(self.api("ListenerSet").list(&ListParams::default()).await?.items);
        Ok(all)
    }

    /// The backend of the route with that number.
    pub(crate) fn backend_of(&self, number: usize) -> &Backend {
        &self.backends[number % self.backends.len()]
    }

    /// A route from a port to the backend of that number. Returns when the API server has answered.
    pub(crate) async fn create_route(&self, number: usize, port: u16) -> Result<(), Fault> {
        let route = tcp_route(number, port, &self.backend_of(number).name);
        self.create("TCPRoute", route).await
    }

    /// Routes of these numbers from these ports, some at once.
    pub(crate) async fn create_routes(
        &self,
        ports: impl Iterator<Item = (usize, u16)>,
    ) -> Result<(), Fault> {
        let routes =
            ports.map(|(number, port)| tcp_route(number, port, &self.backend_of(number).name));
        self.create_all("TCPRoute", routes).await
    }

    /// Removes all routes. Returns when the API server has answered.
    pub(crate) async fn delete_routes(&self) -> Result<(), Fault> {
        self.api("TCPRoute")
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await?;
        Ok(())
    }
}

/// The name of a route.
pub(crate) fn route_name(number: usize) -> String {
    format!("route-{number}")
}

/// What `done` finds, asked again and again.
pub(crate) async fn within<T>(
    what: &str,
    done: impl AsyncFn() -> Result<Option<T>, Fault>,
) -> Result<T, Fault> {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = done().await? {
            return Ok(found);
        }
        if Instant::now() > end {
            return Err(format!("not within {} s: {what}", LIMIT.as_secs()).into());
        }
        sleep(ASK_AGAIN).await;
    }
}

fn kind(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

fn programmed_listeners(object: &DynamicObject) -> usize {
    let listeners = object.data["status"]["listeners"].as_array();
    let is_programmed = |listener: &&Value| {
        let conditions = listener["conditions"].as_array();
        conditions.is_some_and(|conditions| {
            conditions.iter().any(|it| it["type"] == "Programmed" && it["status"] == "True")
        })
    };
    listeners.into_iter().flatten().filter(is_programmed).count()
}

fn service(backend: &Backend) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": backend.name},
        "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80, "targetPort": backend.at.port()}]},
    })
}

fn endpoints(backend: &Backend) -> Value {
    let family = if backend.at.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {"name": backend.name, "labels": {"kubernetes.io/service-name": backend.name}},
        "endpoints": [{"addresses": [backend.at.ip()], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": backend.at.port(), "protocol": "TCP"}],
    })
}

fn gateway(class: &str, ports: &[u16]) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "Gateway", "metadata": {"name": GATEWAY},
        "spec": {
            "gatewayClassName": class, "listeners": listeners(ports),
            "allowedListeners": {"namespaces": {"from": "Same"}},
        },
    })
}

fn listener_set(number: usize, ports: &[u16]) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "ListenerSet",
        "metadata": {"name": set_name(number)},
        "spec": {"parentRef": {"name": GATEWAY}, "listeners": listeners(ports)},
    })
}

fn set_name(number: usize) -> String {
    format!("probe-{number}")
}

fn listeners(ports: &[u16]) -> Value {
    ports
        .iter()
        .map(|port| json!({"name": format!("port-{port}"), "port": port, "protocol": "TCP"}))
        .collect()
}

pub(crate) fn tcp_route(number: usize, port: u16, backend: &str) -> Value {
    let section = format!("port-{port}");
    let parent = match usize::from(port - FIRST_PORT) / usize::from(LISTENERS) {
        0 => json!({"name": GATEWAY, "sectionName": section}),
        part => json!({"kind": "ListenerSet", "name": set_name(part - 1), "sectionName": section}),
    };
    json!({
        "apiVersion": API_VERSION, "kind": "TCPRoute",
        "metadata": {"name": route_name(number)},
        "spec": {"parentRefs": [parent], "rules": [{"backendRefs": [{"name": backend, "port": 80}]}]},
    })
}
