//! Many routes on one listener: the oldest serves, all are counted.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Fault;
use crate::ask::ask;
use crate::site::Site;
use crate::spread::milliseconds;
use crate::writes::Writes;

/// When all are counted after the last create, and none after the delete.
pub(crate) async fn run(site: &Site, routes: u16) -> Result<Value, Fault> {
    let places = site.listeners(1).await?;
    let place = places[0];
    site.create_route(0, place.port()).await?;
    let writes = Writes::watch(site).await?;
    let others = 1..usize::from(routes);
    site.create_routes(others.map(|number| (number, place.port()))).await?;
    let last = Instant::now();
    let counted = writes.attached(routes.into()).await?;
    let mut seen = json!({
        "all_counted": milliseconds(counted.saturating_duration_since(last)),
        "status_writes": writes.summary(),
        "served_by": ask(place).await?, "oldest_of": site.backend_of(0).name,
    });
    drop(writes);
    let writes = Writes::watch(site).await?;
    site.delete_routes().await?;
    let last = Instant::now();
    let counted = writes.attached(0).await?;
    seen["none_counted_after_delete"] =
        json!(milliseconds(counted.saturating_duration_since(last)));
    seen["status_writes_of_delete"] = writes.summary();
    Ok(seen)
}
