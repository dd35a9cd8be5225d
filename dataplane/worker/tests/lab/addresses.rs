//! Many Gateways, each with a VIP that it left to us: the link knows all of them, and each keeps its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use penstock_feed::stats::StatsReader;

use crate::network::{Lab, wait_for};
use crate::site::{Endpoint::Ready, Site};
use crate::{BACKENDS, BACKENDS6};

const GATEWAYS: usize = 128;
/// Every fourth is IPv6.
const IPV6: usize = GATEWAYS / 4;
const OUR_MAC: &str = "02:00:00:00:00:01";
const LIMIT: Duration = Duration::from_secs(30);

fn name(n: usize) -> String {
    format!("g{n:03}")
}

/// Two pools on the LAN, and parameters for each that take addresses from it.
fn site() -> Site {
    let site = Site::new();
    let pools = [
        ("lan", "[10.10.0.21-10.10.0.99, 10.10.0.101-10.10.0.199]"),
        ("lan6", "[\"2001:db8:10::1000-2001:db8:10::10ff\"]"),
    ];
    for (name, addresses) in pools {
        site.write(
            name,
            &format!(
                "apiVersion: penstock.dev/v1alpha1\nkind: AddressPool\nmetadata: {{name: {name}}}\n\
                 spec: {{addresses: {addresses}}}\n---\n\
                 apiVersion: penstock.dev/v1alpha1\nkind: GatewayParameters\nmetadata: {{name: {name}}}\n\
                 spec: {{addressPools: [{name}]}}\n"
            ),
        );
    }
    site.service("pages", "TCP", 80, &BACKENDS.map(Ready));
    site.service("pages6", "TCP", 80, &BACKENDS6.map(Ready));
    (0..GATEWAYS).for_each(|n| gateway(&site, n));
    site
}

fn gateway(site: &Site, n: usize) {
    let (name, is_ipv6) = (name(n), n.is_multiple_of(4));
    let (pool, service) = if is_ipv6 { ("lan6", "pages6") } else { ("lan", "pages") };
    site.write(
        &name,
        &format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\nspec:\n  \
             gatewayClassName: penstock\n  infrastructure: {{parametersRef: \
             {{group: penstock.dev, kind: GatewayParameters, name: {pool}}}}}\n  \
             listeners: [{{name: http, protocol: TCP, port: 80}}]\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {{name: {name}}}\nspec:\n  \
             parentRefs: [{{name: {name}}}]\n  rules: [{{backendRefs: [{{name: {service}, port: 80}}]}}]\n"
        ),
    );
}

/// The address of each Gateway, by the data plane's listeners.
fn addresses(lab: &Lab) -> BTreeMap<String, IpAddr> {
    let path = lab.directory().join("run/dataplane.stats");
    let Ok(stats) = StatsReader::open(&path) else { return BTreeMap::new() };
    let table = stats.table("listeners").expect("there is one");
    let rows = stats.rows(table);
    let served = rows.iter().filter_map(|row| {
        let label = |key: &str| row.labels.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let address: IpAddr = label("vip").and_then(|vip| vip.parse().ok())?;
        let gateway = label("name")?.split('/').nth(1)?.to_owned();
        (label("departed") == Some("false")).then_some((gateway, address))
    });
    served.collect()
}

/// A connection to each VIP is answered by a backend.
fn all_serve(lab: &Lab, vips: &BTreeMap<String, IpAddr>, when: &str) {
    let url = |vip: &IpAddr| match vip {
        IpAddr::V4(vip) => format!("http://{vip}/"),
        IpAddr::V6(vip) => format!("http://[{vip}]/"),
    };
    let urls: Vec<_> = vips.values().map(url).collect();
    let ask = "for url; do echo \"$url $(curl -sS -m 5 $url 2>&1)\"; done";
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let said = lab.on("client1", &[&["bash", "-c", ask, "bash"], &urls[..]].concat());
    let silent: Vec<_> = said.lines().filter(|line| !line.contains(" backend")).collect();
    assert!(silent.is_empty(), "{when}: {silent:#?}");
    assert_eq!(said.lines().count(), vips.len(), "{when}");
}

/// The router has asked for each and was answered with our MAC.
fn all_are_answered_for(lab: &Lab, vips: &BTreeMap<String, IpAddr>) {
    let known = lab.on("router", &["ip", "neighbour", "show", "dev", "lan"]);
    let ours = known.lines().filter(|line| line.contains(OUR_MAC));
    let ours: BTreeSet<IpAddr> =
        ours.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    let missing: Vec<_> = vips.values().filter(|vip| !ours.contains(vip)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn a_hundred_and_twenty_eight_gateways_keep_their_addresses_whatever_is_killed() {
    let site = site();
    let lab = Lab::up(&site, &[]);
    wait_for("every Gateway has its VIP", LIMIT, || {
        (addresses(&lab).len() == GATEWAYS).then_some(())
    });
    let mut vips = addresses(&lab);
    let distinct: BTreeSet<_> = vips.values().collect();
    let ipv6 = distinct.iter().filter(|vip| vip.is_ipv6()).count();
    assert_eq!((distinct.len(), ipv6), (GATEWAYS, IPV6));
    all_serve(&lab, &vips, "at first");
    all_are_answered_for(&lab, &vips);

    // Who came first goes: given out anew, every address would be another's.
    for first in [0, 1] {
        vips.remove(&name(first));
        lab.change("a Gateway goes", || site.remove(&name(first)));
    }
    let killed = ["penstock-dataplane", "penstock-controlplane"].map(|name| (name, lab.kill(name)));
    let began = Instant::now();
    for (name, killed) in killed {
        wait_for("it runs again", LIMIT, || lab.pid(name).filter(|pid| *pid != killed));
    }
    wait_for("the control process is connected", LIMIT, || lab.settled_report());
    wait_for("and each has its VIP", LIMIT, || (addresses(&lab) == vips).then_some(()));
    eprintln!("  each has its VIP {:?} after kill -9 of both", began.elapsed());
    let on_companion = lab.on("box", &["ip", "-oneline", "address", "show", "dev", "pst0"]);
    for vip in vips.values() {
        let len = if vip.is_ipv4() { 32 } else { 128 };
        let line = on_companion.lines().find(|line| line.contains(&format!(" {vip}/{len} ")));
        let line = line.unwrap_or_else(|| panic!("{vip} is not on the companion"));
        assert!(!line.contains("tentative"), "{line}");
    }
    lab.on("router", &["ip", "neighbour", "flush", "dev", "lan"]);
    all_serve(&lab, &vips, "after kill -9 of both");
    all_are_answered_for(&lab, &vips);
}
