//! What the mirror promises whatever happens: companions that come and go, losses, turmoil.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::namespace::{
    COMPANION, MAC, PATIENCE, box_with_management, companion, in_namespace, ip, ip_batch, mirror,
    reopen, until, until_is,
};
use crate::kernel::{Mirror, RouteKind, Table, Tap};

#[test]
fn a_companion_is_recognised_by_name_whenever_it_comes_and_then_followed() {
    in_namespace("a_companion_is_recognised_by_name_whenever_it_comes_and_then_followed", || {
        let mut mirror = mirror();
        assert!(mirror.view().links.is_empty(), "it may come later");
        let tap = companion();
        ip("address add 10.10.0.2/24 dev pst0");
        let connected = |mirror: &Mirror| {
            let mut routes = mirror.view().routes.iter();
            routes.any(|route| route.table == Table::Main && route.kind == RouteKind::Unicast)
        };
        until(&mut mirror, "it came, with what is on it", |mirror| {
            mirror.companion(0) == Some(tap.index()) && connected(mirror)
        });
        let link = &mirror.view().links[0];
        assert_eq!((link.mac, link.mtu_bytes, link.up), (Some(MAC), 1500, true));
        ip("link set pst0 mtu 1400");
        until(&mut mirror, "another MTU", |mirror| mirror.view().links[0].mtu_bytes == 1400);
        ip("link set pst0 name pst9");
        until(&mut mirror, "under another name it is the same", |mirror| {
            mirror.view().links[0].name == "pst9"
        });
        ip("link add pst0 type bridge");
        ip("address add 10.11.0.2/24 dev pst9");
        until(&mut mirror, "whoever takes its name, and what is put on it is seen", |mirror| {
            let mut addresses = mirror.view().addresses.iter();
            addresses.any(|own| own.address.to_string() == "10.11.0.2" && own.port == Some(0))
        });
        assert_eq!((mirror.companion(0), mirror.view().links.len()), (Some(tap.index()), 1));
        assert!(connected(&mirror));
        mirror.resync().unwrap();
        until(&mut mirror, "a dump says no other", |mirror| {
            mirror.companion(0) == Some(tap.index()) && connected(mirror)
        });
        ip("link delete pst0");
        drop(tap);
        until(&mut mirror, "it went", |mirror| mirror.companion(0).is_none());
        let again = reopen(COMPANION, MAC, 1500, false);
        until(&mut mirror, "it came again", |mirror| mirror.companion(0) == Some(again.index()));
    });
}

#[test]
fn a_bridge_that_lets_a_companion_go_does_not_end_it() {
    in_namespace("a_bridge_that_lets_a_companion_go_does_not_end_it", || {
        let tap = companion();
        ip("link add br0 type bridge");
        let mut mirror = mirror();
        ip("link set pst0 master br0");
        ip("link set pst0 nomaster");
        ip("link set pst0 mtu 1300");
        until(&mut mirror, "the last word", |mirror| {
            mirror.view().links.iter().any(|link| link.mtu_bytes == 1300)
        });
        assert_eq!(mirror.companion(0), Some(tap.index()));
    });
}

#[test]
fn lost_events_are_made_good() {
    in_namespace("lost_events_are_made_good", || {
        let _tap = box_with_management();
        let companions = [(0, COMPANION.to_owned())];
        let mut mirror = Mirror::with_receive_buffer(&companions, 1).unwrap();
        let routes = |mirror: &Mirror| {
            mirror.view().routes.iter().filter(|route| route.table == Table::Main).count()
        };
        let before = routes(&mirror);
        let prefix = |i: usize| format!("10.{}.{}.0/24", 100 + i / 256, i % 256);
        ip_batch((0..2000).map(|i| format!("route add {} via 10.10.0.1", prefix(i))));
        until(&mut mirror, "2000 routes", |mirror| routes(mirror) == before + 2000);
        assert!(mirror.losses() > 0, "the buffer holds a few events only");
        let seen = mirror.losses();
        ip_batch((0..2000).map(|i| format!("route del {}", prefix(i))));
        until(&mut mirror, "none of them", |mirror| routes(mirror) == before);
        assert!(mirror.losses() > seen);
        ip("route add 10.99.0.0/24 via 10.10.0.1");
        until(&mut mirror, "and events are heard as before", |mirror| routes(mirror) == before + 1);
    });
}

#[test]
fn a_dump_in_many_steps_never_shows_half() {
    in_namespace("a_dump_in_many_steps_never_shows_half", || {
        let _tap = box_with_management();
        let count = 30_000;
        let prefix = |i: usize| format!("10.{}.{}.{}/32", 100 + (i >> 16), i >> 8 & 255, i & 255);
        ip_batch((0..count).map(|i| format!("route add {} via 10.10.0.1", prefix(i))));
        let mut mirror = mirror();
        let hosts = |mirror: &Mirror| {
            let routes = mirror.view().routes.iter();
            routes.filter(|route| route.table == Table::Main && route.prefix.len == 32).count()
        };
        assert_eq!(hosts(&mirror), count);
        mirror.resync().unwrap();
        let mut steps = 0;
        while !mirror.is_current() {
            mirror.step().unwrap();
            assert_eq!(hosts(&mirror), count);
            steps += 1;
        }
        assert!(steps > 1, "in {steps} steps");
    });
}

#[test]
fn an_interrupted_dump_starts_again() {
    in_namespace("an_interrupted_dump_starts_again", || {
        let _tap = box_with_management();
        let host = |i: usize| format!("10.30.{}.{}/32 dev pst0", i >> 8, i & 255);
        ip_batch((0..1000).map(|i| format!("address add {}", host(i)))); // several datagrams
        let mut mirror = mirror();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let come_and_go =
                        ["add", "del"].map(|verb| format!("address {verb} {}", host(1000)));
                    ip_batch(come_and_go.into_iter().cycle().take(1000));
                }
            });
            let deadline = Instant::now() + PATIENCE;
            while mirror.interruptions() == 0 && Instant::now() < deadline {
                mirror.resync().unwrap();
                while mirror.interruptions() == 0 && !mirror.is_current() {
                    mirror.step().unwrap();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(mirror.interruptions() > 0, "the kernel says that it was");
        let addresses = |mirror: &Mirror| mirror.view().addresses.len();
        let expected = addresses(&super::namespace::mirror());
        until_is(&mut mirror, "and the next one is whole", addresses, &expected);
    });
}

#[test]
fn a_multipath_route_over_two_ports_uses_those_that_are_up() {
    in_namespace("a_multipath_route_over_two_ports_uses_those_that_are_up", || {
        let _tap = box_with_management();
        let _second = Tap::open("pst1", MAC, 1500, false).unwrap();
        ip("address add 10.11.0.2/24 dev pst1");
        ip("route add default nexthop via 10.10.0.1 weight 1 nexthop via 10.11.0.1 weight 2");
        let companions = [(0, COMPANION.to_owned()), (1, "pst1".to_owned())];
        let mut mirror = Mirror::open(&companions).unwrap();
        let shares = |mirror: &Mirror| {
            let mut routes = mirror
                .view()
                .routes
                .iter()
                .filter(|route| route.table == Table::Main && route.prefix.len == 0);
            let hops = routes.next().map_or(&[][..], |route| &route.next_hops);
            hops.iter().map(|hop| (hop.port, hop.weight)).collect::<Vec<_>>()
        };
        until_is(&mut mirror, "both", shares, &vec![(0, 1), (1, 2)]);
        ip("link set pst1 down");
        until_is(&mut mirror, "the one that is up", shares, &vec![(0, 1)]);
        ip("link set pst1 up");
        until_is(
            &mut mirror,
            "both again, though the kernel does not say",
            shares,
            &vec![(0, 1), (1, 2)],
        );
    });
}

/// A stream of changes from another thread, then silence: what was followed is what a new mirror
/// finds. The changes come by a fixed pseudo-random walk, their timing does not.
#[test]
fn after_turmoil_the_view_is_that_of_a_new_mirror() {
    in_namespace("after_turmoil_the_view_is_that_of_a_new_mirror", || {
        let _tap = box_with_management();
        let mut mirror = mirror();
        std::thread::scope(|scope| {
            let turmoil = scope.spawn(make_turmoil);
            while !turmoil.is_finished() {
                mirror.step().unwrap();
                let new = super::namespace::mirror(); // its dump is often interrupted
                assert_eq!(new.companion(0), mirror.companion(0));
            }
            turmoil.join().unwrap();
        });
        let new = super::namespace::mirror();
        let facts = |mirror: &Mirror| {
            let view = mirror.view();
            let routes = view.routes.iter().map(|route| format!("{route:?}"));
            let addresses = view.addresses.iter().map(|address| format!("{address:?}"));
            let ours = view.ours.iter().map(|ours| format!("{ours:?}"));
            let links = view.links.iter().map(|link| format!("{link:?}"));
            routes.chain(addresses).chain(ours).chain(links).collect::<BTreeSet<_>>()
        };
        let dumped = facts(&new);
        let apart = |mirror: &Mirror| {
            let followed = facts(mirror);
            followed.symmetric_difference(&dumped).cloned().collect::<Vec<_>>()
        };
        until_is(&mut mirror, "in the end nothing sets them apart", apart, &Vec::<String>::new());
        let prefixes: BTreeSet<_> =
            new.view().routes.iter().map(|route| (route.table, route.prefix)).collect();
        assert_eq!(prefixes.len(), new.view().routes.len(), "one route a prefix");
    });
}

fn make_turmoil() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..60 {
        let lines: Vec<String> = (0..40)
            .map(|_| {
                let (net, host) = (draw(20), 1 + draw(5));
                match draw(16) {
                    0 => format!("address replace 10.10.0.{}/32 dev pst0", 100 + host),
                    12 | 13 => {
                        format!("address add 10.10.0.{}/32 dev pst0 label pst0:pst", 100 + host)
                    }
                    14 => format!(
                        "route replace 10.20.{net}.0/24 via 10.10.0.1 src 10.10.0.{}",
                        100 + host
                    ),
                    1 => format!("address del 10.10.0.{}/32 dev pst0", 100 + host),
                    2 | 3 => format!("route replace 10.20.{net}.0/24 via 10.10.0.{host}"),
                    4 => format!("route append 10.20.{net}.0/24 via 10.10.0.{host} metric 5"),
                    5 => format!("route del 10.20.{net}.0/24"),
                    6 => format!("-6 route replace 2001:db8:{net}::/64 via 2001:db8::1{host}"),
                    7 | 8 => format!("-6 route append 2001:db8:{net}::/64 via 2001:db8::1{host}"),
                    9 => format!("-6 route del 2001:db8:{net}::/64 via 2001:db8::1{host}"),
                    10 if draw(8) == 0 => "link set pst0 down".to_owned(),
                    _ => "link set pst0 up".to_owned(),
                }
            })
            .collect();
        ip_tolerant(&lines);
    }
    ip_tolerant(&["link set pst0 up".to_owned()]);
}

/// Many commands, some of which find nothing to do.
fn ip_tolerant(lines: &[String]) {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new("ip")
        .args(["-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // `-6` is an option of the command, not of a line of a batch; an address names its family.
    let text: String = lines.iter().map(|line| line.replace("-6 ", "") + "\n").collect();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait().unwrap();
}
