//! Many routes at once, a listener each, over a Gateway and its ListenerSets.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::Fault;
use crate::ask::ask;
use crate::site::Site;
use crate::spread::milliseconds;
use crate::writes::Writes;

/// Connections under way at once.
const AT_ONCE: usize = 32;
const ASK_AGAIN: Duration = Duration::from_millis(1);
const LIMIT: Duration = Duration::from_secs(30);

/// When all serve and are counted after the last create, and when none does after the delete.
pub(crate) async fn run(site: &Site, routes: u16) -> Result<Value, Fault> {
    let places = site.listeners(routes).await?;
    let mut seen = json!({});
    let writes = Writes::watch(site).await?;
    let begun = Instant::now();
    site.create_routes(places.iter().map(SocketAddr::port).enumerate()).await?;
    let last = Instant::now();
    seen["creating_all"] = json!(milliseconds(last - begun));
    let served = async {
        all(&places, async |number, place| {
            ask(place).await.is_ok_and(|name| name == site.backend_of(number).name)
        })
        .await?;
        Ok(Instant::now())
    };
    let (served, counted) = futures_util::try_join!(served, writes.attached(routes.into()))?;
    seen["all_served"] = json!(milliseconds(served.saturating_duration_since(last)));
    seen["all_counted"] = json!(milliseconds(counted.saturating_duration_since(last)));
    seen["status_writes"] = writes.summary();
    drop(writes);

    let writes = Writes::watch(site).await?;
    site.delete_routes().await?;
    let last = Instant::now();
    let refused = async {
        all(&places, async |_, place| ask(place).await.is_err()).await?;
        Ok(Instant::now())
    };
    let (refused, counted) = futures_util::try_join!(refused, writes.attached(0))?;
    seen["all_refused_after_delete"] = json!(milliseconds(refused.saturating_duration_since(last)));
    seen["none_counted_after_delete"] =
        json!(milliseconds(counted.saturating_duration_since(last)));
    seen["status_writes_of_delete"] = writes.summary();
    Ok(seen)
}

/// Waits until each place is as it should be.
async fn all(
    places: &[SocketAddr],
    is_so: impl AsyncFn(usize, SocketAddr) -> bool,
) -> Result<(), Fault> {
    let is_so = &is_so;
    let wait = async |(number, place): (usize, &SocketAddr)| {
        let begun = Instant::now();
        while !is_so(number, *place).await {
            if begun.elapsed() > LIMIT {
                return Err(format!("{place} is not as it should be after {} s", LIMIT.as_secs()));
            }
            sleep(ASK_AGAIN).await;
        }
        Ok(())
    };
    let mut waits = stream::iter(places.iter().enumerate().map(wait)).buffer_unordered(AT_ONCE);
    while let Some(done) = waits.next().await {
        done?;
    }
    Ok(())
}
