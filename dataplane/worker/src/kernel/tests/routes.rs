//! What the mirror promises of routes: a command, and what the view then says. After each row a new
//! mirror, which only dumps, must say the same as the one that followed.

use super::namespace::{COMPANION, box_with_management, in_namespace, ip, mirror, until, until_is};
use crate::kernel::{Mirror, NextHop, Prefix, Route, RouteKind, Table};

/// The routes of table main to what is tested (not the connected ones), a line each.
fn routes(mirror: &Mirror) -> Vec<String> {
    let tested = |route: &&Route| {
        let prefix = route.prefix.to_string();
        let connected = ["10.10.0.0/24", "192.168.7.0/24", "2001:db8::/64", "fe80::/64"];
        route.table == Table::Main && !connected.contains(&prefix.as_str())
    };
    mirror.view().routes.iter().filter(tested).map(line).collect()
}

fn line(route: &Route) -> String {
    let mut words = vec![route.prefix.to_string()];
    if route.kind != RouteKind::Unicast {
        words.push(format!("{:?}", route.kind).to_lowercase());
    }
    words.extend(route.next_hops.iter().map(|hop| {
        let gateway = hop.gateway.map_or("on-link".to_owned(), |gateway| gateway.to_string());
        format!("{gateway}*{}", hop.weight)
    }));
    words.extend(route.mtu_bytes.map(|mtu_bytes| format!("mtu {mtu_bytes}")));
    words.join(" ")
}

/// Each row: promise, commands, the routes then.
type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

fn check(name: &str, rows: &[Row]) {
    in_namespace(name, || {
        let _tap = box_with_management();
        let mut followed = mirror();
        for (promise, commands, expected) in rows {
            commands.iter().for_each(|command| ip(command));
            until_is(&mut followed, promise, routes, expected);
            let dumped = mirror().view().routes.clone();
            until_is(&mut followed, promise, |mirror| mirror.view().routes.clone(), &dumped);
        }
    });
}

#[test]
fn ipv4_routes() {
    check(
        "ipv4_routes",
        &[
            (
                "a route comes",
                &["route add 10.1.0.0/24 via 10.10.0.1"],
                &["10.1.0.0/24 10.10.0.1*1"],
            ),
            (
                "is replaced",
                &["route replace 10.1.0.0/24 via 10.10.0.3 mtu 1400"],
                &["10.1.0.0/24 10.10.0.3*1 mtu 1400"],
            ),
            ("and goes", &["route del 10.1.0.0/24"], &[]),
            ("a default route", &["route add default via 10.10.0.1"], &["0.0.0.0/0 10.10.0.1*1"]),
            (
                "a default route elsewhere does not lead to us",
                &["route replace default via 192.168.7.1"],
                &["0.0.0.0/0 elsewhere"],
            ),
            (
                "multipath with weights",
                &[
                    "route replace default nexthop via 10.10.0.1 weight 1 nexthop via 10.10.0.3 weight 4",
                ],
                &["0.0.0.0/0 10.10.0.1*1 10.10.0.3*4"],
            ),
            (
                "of which only companions count",
                &[
                    "route replace default nexthop via 10.10.0.1 weight 2 nexthop via 192.168.7.1 weight 3",
                ],
                &["0.0.0.0/0 10.10.0.1*2"],
            ),
            (
                "on-link",
                &["route del default", "route add 10.2.0.0/16 dev pst0"],
                &["10.2.0.0/16 on-link*1"],
            ),
            (
                "a gateway that no subnet of ours holds",
                &["route replace 10.2.0.0/16 via 172.16.0.1 dev pst0 onlink"],
                &["10.2.0.0/16 172.16.0.1*1"],
            ),
            (
                "a gateway of the other family",
                &["route replace 10.2.0.0/16 via inet6 2001:db8::1 dev pst0"],
                &["10.2.0.0/16 2001:db8::1*1"],
            ),
            (
                "and in multipath",
                &[
                    "route replace 10.2.0.0/16 nexthop via inet6 2001:db8::1 dev pst0 nexthop via 10.10.0.1",
                ],
                &["10.2.0.0/16 10.10.0.1*1 2001:db8::1*1"],
            ),
            (
                "routes that lead nowhere, and how",
                &[
                    "route del 10.2.0.0/16",
                    "route add blackhole 10.1.0.0/24",
                    "route add unreachable 10.1.1.0/24",
                    "route add prohibit 10.1.2.0/24",
                    "route add throw 10.1.3.0/24",
                ],
                &[
                    "10.1.0.0/24 blackhole",
                    "10.1.1.0/24 unreachable",
                    "10.1.2.0/24 prohibit",
                    "10.1.3.0/24 unreachable",
                ],
            ),
            (
                "the better metric counts",
                &[
                    "route flush table main root 10.1.0.0/16",
                    "route add 10.1.0.0/24 via 10.10.0.1 metric 100",
                    "route add 10.1.0.0/24 via 10.10.0.3 metric 50",
                ],
                &["10.1.0.0/24 10.10.0.3*1"],
            ),
            (
                "and the other when it has gone",
                &["route del 10.1.0.0/24 metric 50"],
                &["10.1.0.0/24 10.10.0.1*1"],
            ),
            (
                "one appended stands behind",
                &["route append 10.1.0.0/24 via 10.10.0.3 metric 100"],
                &["10.1.0.0/24 10.10.0.1*1"],
            ),
            (
                "until the first goes",
                &["route del 10.1.0.0/24 via 10.10.0.1 metric 100"],
                &["10.1.0.0/24 10.10.0.3*1"],
            ),
            (
                "one prepended stands in front",
                &["route prepend 10.1.0.0/24 via 10.10.0.4 metric 100"],
                &["10.1.0.0/24 10.10.0.4*1"],
            ),
            (
                "other tables and other TOS are not looked at",
                &[
                    "route flush table main root 10.1.0.0/16",
                    "route add 10.1.0.0/24 via 10.10.0.1 table 100",
                    "route add 10.1.0.0/24 via 10.10.0.1 tos 0x10",
                ],
                &[],
            ),
            (
                "routes with a preferred source go with that address, though the kernel does not say",
                &[
                    "address add 10.10.0.77/32 dev pst0",
                    "route add 10.1.0.0/24 via 10.10.0.1 src 10.10.0.77",
                    "route add 10.1.1.0/24 via 10.10.0.1",
                    "address del 10.10.0.77/32 dev pst0",
                ],
                &["10.1.1.0/24 10.10.0.1*1"],
            ),
            ("and all with the link, though it does not say", &["link set pst0 down"], &[]),
            (
                "and a link that comes back brings the connected ones only",
                &["link set pst0 up", "route add 10.1.0.0/24 via 10.10.0.1"],
                &["10.1.0.0/24 10.10.0.1*1"],
            ),
            (
                "a multipath route lives on by what is left of it",
                &[
                    "route replace 10.1.0.0/24 nexthop via 10.10.0.1 nexthop via 192.168.7.1",
                    "link set mgmt0 down",
                ],
                &["10.1.0.0/24 10.10.0.1*1"],
            ),
        ],
    );
}

#[test]
fn ipv6_routes() {
    check(
        "ipv6_routes",
        &[
            (
                "a route comes",
                &["-6 route add 2001:db8:1::/64 via 2001:db8::1 mtu 1400"],
                &["2001:db8:1::/64 2001:db8::1*1 mtu 1400"],
            ),
            (
                "is replaced",
                &["-6 route replace 2001:db8:1::/64 via 2001:db8::3"],
                &["2001:db8:1::/64 2001:db8::3*1"],
            ),
            (
                "gets a second next hop",
                &["-6 route append 2001:db8:1::/64 via 2001:db8::4"],
                &["2001:db8:1::/64 2001:db8::3*1 2001:db8::4*1"],
            ),
            (
                "and a third",
                &["-6 route append 2001:db8:1::/64 via 2001:db8::5"],
                &["2001:db8:1::/64 2001:db8::3*1 2001:db8::4*1 2001:db8::5*1"],
            ),
            (
                "loses one",
                &["-6 route del 2001:db8:1::/64 via 2001:db8::4"],
                &["2001:db8:1::/64 2001:db8::3*1 2001:db8::5*1"],
            ),
            ("and goes whole", &["-6 route del 2001:db8:1::/64"], &[]),
            (
                "multipath with weights",
                &[
                    "-6 route add default nexthop via 2001:db8::1 weight 3 nexthop via fe80::1 dev pst0",
                ],
                &["::/0 2001:db8::1*3 fe80::1*1"],
            ),
            (
                "replaced by one",
                &["-6 route replace default via fe80::9 dev pst0"],
                &["::/0 fe80::9*1"],
            ),
            (
                "routes that lead nowhere",
                &[
                    "-6 route del default",
                    "-6 route add blackhole 2001:db8:2::/64",
                    "-6 route add unreachable 2001:db8:3::/64",
                    "-6 route add prohibit 2001:db8:4::/64",
                ],
                &[
                    "2001:db8:2::/64 blackhole",
                    "2001:db8:3::/64 unreachable",
                    "2001:db8:4::/64 prohibit",
                ],
            ),
            (
                "the better metric counts",
                &[
                    "-6 route flush root 2001:db8::/32 proto boot",
                    "-6 route add 2001:db8:1::/64 via 2001:db8::1 metric 100",
                    "-6 route add 2001:db8:1::/64 via 2001:db8::3 metric 50",
                ],
                &["2001:db8:1::/64 2001:db8::3*1"],
            ),
            (
                "a route by source prefix is not looked at",
                &[
                    "-6 route flush root 2001:db8::/32 proto boot",
                    "-6 route add 2001:db8:1::/64 from 2001:db8:9::/64 via 2001:db8::1",
                ],
                &[],
            ),
            (
                "all go with the link",
                &["-6 route add 2001:db8:1::/64 via 2001:db8::1", "link set pst0 down"],
                &[],
            ),
        ],
    );
}

#[test]
fn nexthop_objects() {
    let rows: &[Row] = &[
        (
            "a route by number",
            &["nexthop add id 1 via 10.10.0.1 dev pst0", "route add 10.1.0.0/24 nhid 1"],
            &["10.1.0.0/24 10.10.0.1*1"],
        ),
        (
            "follows its object",
            &["nexthop replace id 1 via 10.10.0.3 dev pst0"],
            &["10.1.0.0/24 10.10.0.3*1"],
        ),
        (
            "a group with weights",
            &[
                "nexthop add id 2 via inet6 2001:db8::1 dev pst0",
                "nexthop add id 9 group 1,2/2,5",
                "route replace 10.1.0.0/24 nhid 9",
            ],
            &["10.1.0.0/24 10.10.0.3*2 2001:db8::1*5"],
        ),
        (
            "a group changes",
            &["nexthop replace id 9 group 1,7/2,1"],
            &["10.1.0.0/24 10.10.0.3*7 2001:db8::1*1"],
        ),
        ("a member goes", &["nexthop del id 1"], &["10.1.0.0/24 2001:db8::1*1"]),
        (
            "a black hole",
            &["nexthop add id 3 blackhole", "route replace 10.1.0.0/24 nhid 3"],
            &["10.1.0.0/24 blackhole"],
        ),
        (
            "one elsewhere",
            &["nexthop add id 4 via 192.168.7.1 dev mgmt0", "route replace 10.1.0.0/24 nhid 4"],
            &["10.1.0.0/24 elsewhere"],
        ),
        (
            "a route goes with its object, though the kernel does not say",
            &["nexthop del id 4"],
            &[],
        ),
        (
            "the other family",
            &["nexthop add id 5 via 2001:db8::1 dev pst0", "-6 route add 2001:db8:1::/64 nhid 5"],
            &["2001:db8:1::/64 2001:db8::1*1"],
        ),
        ("all objects go with the link", &["link set pst0 down"], &[]),
    ];
    check("nexthop_objects", rows);
    in_namespace("nexthop_objects without compatibility", || {
        super::namespace::sysctl("net/ipv4/nexthop_compat_mode", "0");
        let _tap = box_with_management();
        let mut mirror = mirror();
        for (promise, commands, expected) in rows {
            commands.iter().for_each(|command| ip(command));
            until_is(&mut mirror, promise, routes, expected);
        }
    });
}

#[test]
fn routers_are_known_whatever_interface_they_are_behind() {
    in_namespace("routers_are_known_whatever_interface_they_are_behind", || {
        let _tap = box_with_management();
        let mut mirror = mirror();
        let routers = |mirror: &Mirror| -> Vec<String> {
            mirror.view().routers.iter().map(ToString::to_string).collect()
        };
        ip("route add default nexthop via 10.10.0.1 nexthop via 192.168.7.1");
        ip("route add default via 10.10.0.5 metric 10");
        ip("nexthop add id 1 via 10.10.0.3 dev pst0");
        ip("route add 10.1.0.0/24 nhid 1");
        let all = ["10.10.0.1", "10.10.0.3", "10.10.0.5", "192.168.7.1"];
        until_is(&mut mirror, "each of them", routers, &all);
        ip("nexthop del id 1");
        ip("route del default metric 0");
        ip("route del default metric 10");
        until_is(&mut mirror, "and none", routers, &[""; 0]);
    });
}

#[test]
fn what_is_the_boxs_own_stands_in_table_local() {
    in_namespace("what_is_the_boxs_own_stands_in_table_local", || {
        let tap = box_with_management();
        let mut mirror = mirror();
        let kind = |mirror: &Mirror, prefix: &str| {
            let (address, len) = prefix.split_once('/').unwrap();
            let prefix = Prefix { address: address.parse().unwrap(), len: len.parse().unwrap() };
            let mut routes = mirror.view().routes.iter();
            routes
                .find(|route| route.table == Table::Local && route.prefix == prefix)
                .map(|route| route.kind)
        };
        let rows = [
            ("its address", "10.10.0.2/32", Some(RouteKind::Local)),
            ("its address elsewhere", "192.168.7.2/32", Some(RouteKind::Local)),
            ("its loopback", "127.0.0.0/8", Some(RouteKind::Local)),
            ("its subnet's broadcast", "10.10.0.255/32", Some(RouteKind::Broadcast)),
            ("its IPv6 address", "2001:db8::2/128", Some(RouteKind::Local)),
            ("IPv6 groups", "ff00::/8", Some(RouteKind::Multicast)),
            ("nobody's", "10.10.0.3/32", None),
        ];
        for (promise, prefix, expected) in rows {
            until(&mut mirror, promise, |mirror| kind(mirror, prefix) == expected);
        }
        ip("route add local 203.0.113.0/24 dev lo");
        until(&mut mirror, "a whole prefix of its own", |mirror| {
            kind(mirror, "203.0.113.0/24") == Some(RouteKind::Local)
        });
        let first_of_main = mirror.view().routes.iter().position(|r| r.table == Table::Main);
        let last_of_local = mirror.view().routes.iter().rposition(|r| r.table == Table::Local);
        assert!(last_of_local < first_of_main, "table local comes first");

        ip("route add 10.1.0.0/24 via 10.10.0.1");
        let hop = NextHop {
            port: 0,
            index: tap.index(),
            gateway: Some("10.10.0.1".parse().unwrap()),
            weight: 1,
        };
        until(&mut mirror, "a next hop says its port and its companion", |mirror| {
            mirror.view().routes.iter().any(|route| route.next_hops == [hop])
        });
        assert_eq!(mirror.view().links[0].name, COMPANION);
    });
}
