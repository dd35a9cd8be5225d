//! Endpoints that change all the time, among many Services with a route and a listener each.
//!
//! Most endpoints are nobody's, from the range for benchmarks (RFC 2544). Of some Services one endpoint is ready, a
//! backend that answers; these are measured: a change of theirs puts another backend in its place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::Fault;
use crate::ask::ask;
use crate::memory;
use crate::site::{Backend, Site, tcp_route};
use crate::spread::spread;

/// One in so many Services, and so of the changes, is measured.
const MEASURED: usize = 5;
const ASK_AGAIN: Duration = Duration::from_millis(2);
const LIMIT: Duration = Duration::from_secs(10);
/// 198.18.0.0/15.
const NOBODY: u32 = 0xc612_0000;
const NOBODIES: u32 = 1 << 17;

/// What is asked for.
#[derive(clap::Args)]
pub(crate) struct Churn {
    /// Services, each with a route and a listener.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    services: u16,
    /// Endpoints of each.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=100))]
    endpoints: u16,
    /// Changes in a second.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rate: u16,
    /// How long, in seconds.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// A process whose memory is watched: that of the control process.
    #[arg(long, value_name = "PID")]
    memory_of: Option<u32>,
}

/// From the answer of a change to the first connection that the new backend served, for one change in five.
pub(crate) async fn run(site: &Site, churn: &Churn) -> Result<Value, Fault> {
    let mut seen = json!({});
    if let Some(pid) = churn.memory_of {
        seen["memory_mib_before"] = json!(memory::resident_mib(pid)?);
    }
    let places = churn.begin(site).await?;
    let begun = Instant::now();
    let (answered, served) = churn.change_all(site, &places).await?;
    seen["seconds"] = json!(begun.elapsed().as_secs_f64());
    (seen["answered"], seen["served"]) = (spread(answered), spread(served));
    if let Some(pid) = churn.memory_of {
        seen["memory_mib"] = json!(memory::resident_mib(pid)?);
        seen["memory_mib_peak"] = json!(memory::peak_mib(pid)?);
    }
    Ok(seen)
}

impl Churn {
    /// Makes the objects. Returns the places of the Services when those that are measured are served.
    async fn begin(&self, site: &Site) -> Result<Vec<SocketAddr>, Fault> {
        let services = usize::from(self.services);
        site.create_all("Service", (0..services).map(service)).await?;
        let slices = (0..services).map(|number| self.slice(site, number, 0));
        site.create_all("EndpointSlice", slices).await?;
        let places = site.listeners(self.services).await?;
        let routes = places.iter().enumerate();
        let routes = routes.map(|(number, place)| tcp_route(number, place.port(), &name(number)));
        site.create_all("TCPRoute", routes).await?;
        let begun = Instant::now();
        for number in (0..services).step_by(MEASURED) {
            served_by(places[number], self.backend(site, number, 0), begun).await?;
        }
        Ok(places)
    }

    /// Makes all changes, each when it is due. Returns what the answers took, and, of what is measured, what it took
    /// from there until it was served.
    async fn change_all(
        &self,
        site: &Site,
        places: &[SocketAddr],
    ) -> Result<(Vec<Duration>, Vec<Duration>), Fault> {
        let (mut answered, mut served) = (Vec::new(), Vec::new());
        let mut note = |(answer, until_served): (Duration, Option<Duration>)| {
            answered.push(answer);
            served.extend(until_served);
        };
        let begun = Instant::now();
        let mut under_way = FuturesUnordered::new();
        for change in 0..u32::from(self.rate) * u32::from(self.seconds) {
            let due = begun + Duration::from_secs(1) * change / u32::from(self.rate);
            while due > Instant::now() {
                tokio::select! {
                    () = sleep_until(due) => {}
                    Some(done) = under_way.next() => note(done?),
                }
            }
            under_way.push(self.change(site, places, change));
        }
        while let Some(done) = under_way.next().await {
            note(done?);
        }
        Ok((answered, served))
    }

    /// One change of a Service's endpoints: what the answer took, and the time from there until it was served, if that
    /// is measured. Services are changed in turn, so that each rests between two changes.
    async fn change(
        &self,
        site: &Site,
        places: &[SocketAddr],
        change: u32,
    ) -> Result<(Duration, Option<Duration>), Fault> {
        let (change, services) = (usize::try_from(change)?, usize::from(self.services));
        let (number, turn) = (change % services, change / services + 1);
        let endpoints = json!({"endpoints": self.slice(site, number, turn)["endpoints"]});
        let sent = Instant::now();
        site.api("EndpointSlice")
            .patch(&name(number), &PatchParams::default(), &Patch::Merge(endpoints))
            .await?;
        let answered = Instant::now();
        if !is_measured(number) {
            return Ok((answered - sent, None));
        }
        served_by(places[number], self.backend(site, number, turn), answered).await?;
        Ok((answered - sent, Some(answered.elapsed())))
    }

    fn backend<'s>(&self, site: &'s Site, number: usize, turn: usize) -> &'s Backend {
        site.backend_of(number / MEASURED + turn)
    }

    /// The endpoints of a Service after so many changes.
    fn slice(&self, site: &Site, number: usize, turn: usize) -> Value {
        let count = usize::from(self.endpoints);
        let mut endpoints: Vec<Value> = (0..count)
            .map(|at| {
                let ready = !is_measured(number) && (turn.is_multiple_of(2) || at != turn % count);
                endpoint(nobody(number * count + at).into(), ready)
            })
            .collect();
        let backend = self.backend(site, number, turn).at;
        if is_measured(number) {
            endpoints[0] = endpoint(backend.ip(), true);
        }
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name(number), "labels": {"kubernetes.io/service-name": name(number)}},
            "endpoints": endpoints,
            "ports": [{"name": "http", "port": backend.port(), "protocol": "TCP"}],
        })
    }
}

fn is_measured(number: usize) -> bool {
    number.is_multiple_of(MEASURED)
}

fn name(number: usize) -> String {
    format!("churn-{number}")
}

fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name(number)},
        "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]},
    })
}

fn nobody(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).unwrap_or_default() % NOBODIES;
    Ipv4Addr::from_bits(NOBODY | number)
}

fn endpoint(address: IpAddr, ready: bool) -> Value {
    json!({"addresses": [address], "conditions": {"ready": ready}})
}

/// Waits until the backend answers at a place; others may before.
async fn served_by(place: SocketAddr, backend: &Backend, since: Instant) -> Result<(), Fault> {
    loop {
        match ask(place).await {
            Ok(name) if name == backend.name => return Ok(()),
            answer if since.elapsed() > LIMIT => {
                let (name, limit) = (&backend.name, LIMIT.as_secs());
                return Err(
                    format!("{place}: not served by {name} after {limit} s: {answer:?}").into()
                );
            }
            _ => sleep(ASK_AGAIN).await,
        }
    }
}
