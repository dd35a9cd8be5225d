//! What is written to the status of Gateways and ListenerSets, as a watch tells it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt, TryStreamExt};
use kube::Api;
use kube::api::{DynamicObject, WatchEvent, WatchParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::Fault;
use crate::site::{Site, within};

/// A status as it was last, and how often it was another one.
#[derive(Default)]
struct Seen {
    status: Value,
    writes: u32,
}

/// What the watches have told.
#[derive(Default)]
struct Told {
    objects: BTreeMap<String, Seen>,
    last: Option<Instant>,
    fault: Option<String>,
}

/// Watches until it is dropped.
pub(crate) struct Writes {
    told: Arc<Mutex<Told>>,
    watches: Vec<JoinHandle<()>>,
}

impl Writes {
    /// Counts from now on.
    pub(crate) async fn watch(site: &Site) -> Result<Self, Fault> {
        let told = Arc::new(Mutex::new(Told::default()));
        let mut watches = Vec::new();
        for kind in ["Gateway", "ListenerSet"] {
            let api = site.api(kind);
            let list = api.list(&Default::default()).await?;
            for object in list.items {
                let seen = Seen { status: object.data["status"].clone(), writes: 0 };
                lock(&told).objects.insert(key(kind, &object), seen);
            }
            let version = list.metadata.resource_version.unwrap_or_default();
            watches.push(tokio::spawn(follow(kind, api, version, Arc::clone(&told))));
        }
        Ok(Self { told, watches })
    }

    /// When the watches have told that all listeners together have `routes` attached: the moment of the
    /// write that said so.
    pub(crate) async fn attached(&self, routes: u64) -> Result<Instant, Fault> {
        within(&format!("{routes} routes are counted"), async || {
            let told = lock(&self.told);
            if let Some(fault) = &told.fault {
                return Err(fault.clone().into());
            }
            let attached: u64 = told.objects.values().map(|seen| attached(&seen.status)).sum();
            Ok(told.last.filter(|_| attached == routes))
        })
        .await
    }

    /// How often the status of an object was written, at the most and together, and by the object that was
    /// written to most.
    pub(crate) fn summary(&self) -> Value {
        let told = lock(&self.told);
        let most = told.objects.iter().max_by_key(|(_, seen)| seen.writes);
        json!({
            "objects": told.objects.len(),
            "total": told.objects.values().map(|seen| seen.writes).sum::<u32>(),
            "most": most.map(|(_, seen)| seen.writes),
            "most_on": most.map(|(name, _)| name),
        })
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        self.watches.iter().for_each(JoinHandle::abort);
    }
}

fn lock(told: &Mutex<Told>) -> std::sync::MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow(
    kind: &'static str,
    api: Api<DynamicObject>,
    version: String,
    told: Arc<Mutex<Told>>,
) {
    let events = match api.watch(&WatchParams::default(), &version).await {
        Ok(events) => events,
        Err(fault) => return lock(&told).fault = Some(format!("{kind}: {fault}")),
    };
    let mut events = events.into_stream().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                let mut told = lock(&told);
                let seen = told.objects.entry(key(kind, &object)).or_default();
                let status = &object.data["status"];
                if seen.status != *status {
                    seen.status = status.clone();
                    seen.writes += 1;
                    told.last = Some(Instant::now());
                }
            }
            Ok(WatchEvent::Error(fault)) => lock(&told).fault = Some(format!("{kind}: {fault:?}")),
            Err(fault) => lock(&told).fault = Some(format!("{kind}: {fault}")),
            Ok(_) => {}
        }
    }
}

fn key(kind: &str, object: &DynamicObject) -> String {
    format!("{kind} {}", object.metadata.name.as_deref().unwrap_or_default())
}

fn attached(status: &Value) -> u64 {
    let listeners = status["listeners"].as_array();
    listeners.into_iter().flatten().filter_map(|listener| listener["attachedRoutes"].as_u64()).sum()
}
