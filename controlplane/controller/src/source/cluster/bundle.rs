//! Of which release the installed CRDs of Gateway API are: an annotation on each of them.
//!
//! The one of GatewayClass is watched, by its metadata alone, since it is GatewayClasses that tell of it
//! (`SupportedVersion`).

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::Api;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Client, core::PartialObjectMeta};
use penstock_gateway_types::k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;

use super::Happening;
use super::connect::WATCH_SECONDS;
use super::watch::told_by;
use crate::backoff::Backoff;

/// The CRD that is looked at.
const CRD: &str = "gatewayclasses.gateway.networking.k8s.io";
/// Where it says of which release it is.
const VERSION: &str = "gateway.networking.k8s.io/bundle-version";
/// The pauses of a watch that fails. What it tells changes a few times a year.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Tells `out` of the version, until nobody listens.
pub(super) async fn watch(client: Client, out: Sender<Happening>) {
    let api: Api<Crd> = Api::all(client);
    let config = Config::default().timeout(WATCH_SECONDS).fields(&format!("metadata.name={CRD}"));
    let mut stream = pin!(watcher(api, config));
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut listed = None;
    while let Some(event) = stream.next().await {
        let happening = match event {
            Ok(event) => told(event, &mut listed),
            Err(error) => {
                let trouble = Happening::BundleUnknown(told_by(&error));
                if out.send(trouble).await.is_err() {
                    return;
                }
                sleep(backoff.pause()).await;
                continue;
            }
        };
        backoff.reset();
        if let Some(happening) = happening
            && out.send(happening).await.is_err()
        {
            return;
        }
    }
}

type Crd = PartialObjectMeta<CustomResourceDefinition>;

/// What an event says; `listed` is what the list has named so far.
fn told(event: watcher::Event<Crd>, listed: &mut Option<String>) -> Option<Happening> {
    let is_it = |crd: &Crd| crd.metadata.name.as_deref() == Some(CRD);
    let version = |crd: &Crd| crd.metadata.annotations.as_ref()?.get(VERSION).cloned();
    match event {
        Event::Init => {
            *listed = None;
            None
        }
        Event::InitApply(crd) => {
            if is_it(&crd) {
                *listed = version(&crd);
            }
            None
        }
        Event::InitDone => Some(Happening::Bundle(listed.take())),
        Event::Apply(crd) => is_it(&crd).then(|| Happening::Bundle(version(&crd))),
        Event::Delete(crd) => is_it(&crd).then_some(Happening::Bundle(None)),
    }
}
