//! A route goes from one backend to another and back, while connections come all the time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::Fault;
use crate::ask::ask;
use crate::site::{Site, route_name};

/// Clients that ask one connection after the other.
const CLIENTS: usize = 16;
const BETWEEN: Duration = Duration::from_millis(200);

/// What became of the connections meanwhile.
pub(crate) async fn run(site: &Site, swaps: u16) -> Result<Value, Fault> {
    let place = site.listeners(1).await?[0];
    site.create_route(0, place.port()).await?;
    crate::site::within("the route serves", async || Ok(ask(place).await.ok())).await?;
    let (answers, faults) = (RefCell::new(BTreeMap::new()), RefCell::new(Vec::new()));
    let load = async {
        let client = |_| ask_on(place, &answers, &faults);
        join_all((0..CLIENTS).map(client)).await;
    };
    let swaps = async {
        for number in 1..=usize::from(swaps) {
            sleep(BETWEEN).await;
            let backend = &site.backends[number % 2].name;
            let to = json!({"spec": {"rules": [{"backendRefs": [{"name": backend, "port": 80}]}]}});
            site.api("TCPRoute")
                .patch(&route_name(0), &PatchParams::default(), &Patch::Merge(to))
                .await?;
        }
        sleep(BETWEEN).await;
        Ok::<_, Fault>(())
    };
    tokio::select! {
        () = load => {}
        done = swaps => done?,
    }
    let faults = faults.into_inner();
    Ok(json!({
        "answers": answers.into_inner(), "failed": faults.len(), "faults": faults.iter().take(5).collect::<Vec<_>>(),
    }))
}

async fn ask_on(
    place: SocketAddr,
    answers: &RefCell<BTreeMap<String, u64>>,
    faults: &RefCell<Vec<String>>,
) {
    loop {
        match ask(place).await {
            Ok(name) => *answers.borrow_mut().entry(name).or_default() += 1,
            Err(fault) => faults.borrow_mut().push(fault.to_string()),
        }
    }
}
