//! Routes made one after the other, as a team's pipeline does.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::Fault;
use crate::ask::ask;
use crate::site::Site;
use crate::spread::spread;
use crate::writes::Writes;

const ASK_AGAIN: Duration = Duration::from_micros(500);
const LIMIT: Duration = Duration::from_secs(10);

/// From the answer of a route's create to the first connection that its backend served, for each; before
/// that, connections are refused, and none reaches another backend.
pub(crate) async fn run(site: &Site, routes: u16) -> Result<Value, Fault> {
    let places = site.listeners(routes).await?;
    let writes = Writes::watch(site).await?;
    let (mut took, mut wrong) = (Vec::new(), Vec::new());
    let mut created = Vec::new();
    for (number, place) in places.into_iter().enumerate() {
        let begun = Instant::now();
        site.create_route(number, place.port()).await?;
        let answered = Instant::now();
        created.push(answered - begun);
        let expected = &site.backend_of(number).name;
        loop {
            match ask(place).await {
                Ok(name) if name == *expected => break,
                Ok(name) => wrong.push(format!("{place}: {name}, not {expected}")),
                Err(fault) if answered.elapsed() > LIMIT => {
                    return Err(format!(
                        "{place} is not served after {} s: {fault}",
                        LIMIT.as_secs()
                    )
                    .into());
                }
                Err(_) => sleep(ASK_AGAIN).await,
            }
        }
        took.push(answered.elapsed());
    }
    writes.attached(routes.into()).await?;
    Ok(json!({
        "create": spread(created), "first_served": spread(took), "wrong": wrong,
        "status_writes": writes.summary(),
    }))
}
