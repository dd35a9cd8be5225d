//! SYNs that lead nowhere, and those who were there before, and come meanwhile.

use std::time::Duration;

use crate::network::{Lab, wait_for};
use crate::site::{Endpoint::Ready, Site};
use crate::{BACKENDS, FULL_NAT_VIP};

const HELD: &str = "500";
/// How many half-open connections the lab's two workers may have.
const QUOTA: u64 = 2 * 16_384;
const FULL_FOR: Duration = Duration::from_secs(30);

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn a_flood_of_syns_breaks_no_connection() {
    let site = Site::new();
    site.gateway("web", FULL_NAT_VIP, "full-nat", &[("http", "TCP", 80)]);
    site.route("TCP", ("web", "http"), 80, &[("web", 1)]);
    site.service("web", "TCP", 80, &BACKENDS.map(Ready));
    let lab = Lab::up(&site, &["--workers", "2"]);
    let to = format!("{FULL_NAT_VIP}:80");
    // The flood takes more than the lab's links carry, so each loses its share, and sends it again.
    let patient = ["hold", &to, "--count", HELD, "--timeout-ms", "60000"];
    let mut held = lab.start_peer("client1", &patient);
    assert_eq!(held.report()["opened"].to_string(), HELD);

    let mut flood = lab.start_peer("client2", &["flood", &to, "--seconds", "120"]);
    assert_eq!(flood.report()["ready"], true);
    let unproven = || lab.counted("workers", "", "flows_unproven");
    wait_for("the quota is full", Duration::from_secs(60), || {
        (unproven() > QUOTA - QUOTA / 50).then_some(())
    });
    let evicted = lab.counted("workers", "", "flows_evicted");
    let newcomers = ["connect", &to, "--count", "600", "--rate", "20", "--timeout-ms", "10000"];
    let newcomers = lab.peer("client1", &newcomers);
    assert!(newcomers["seconds"].as_f64() >= Some(FULL_FOR.as_secs_f64() - 1.0), "{newcomers}");
    let full = unproven();
    assert!(full > QUOTA - QUOTA / 50 && full <= QUOTA + QUOTA / 50, "half-open: {full}");
    let gave_way = lab.counted("workers", "", "flows_evicted") - evicted;
    let flood = flood.stop();
    let held = held.stop();
    eprintln!("  flood {flood}\n  held {held}\n  newcomers {newcomers}\n  gave way {gave_way}");

    assert_eq!(held["alive"].to_string(), HELD, "{held}");
    assert_eq!((held["resets"].as_u64(), held["moved"].as_u64()), (Some(0), Some(0)), "{held}");
    assert!(gave_way > QUOTA, "the oldest made room for the newest: {gave_way}");
    assert!(newcomers["ok"].as_u64() >= Some(540), "nine of ten get through: {newcomers}");
}
