//! What the keeping of VIPs and SNAT addresses promises.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::namespace::{
    COMPANION, MAC, box_with_management, in_namespace, ip, ip_says, mirror, sysctl, until,
};
use crate::kernel::{Addresses, Ifindex, Reconciled, Tap};

fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

/// What was done, in a line.
fn said(done: &Reconciled) -> String {
    let list = |addresses: &[IpAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let foreign: Vec<IpAddr> = done.foreign.iter().map(|(address, _)| *address).collect();
    assert!(done.failed.is_empty(), "{done:?}");
    format!("+[{}] -[{}] ={}", list(&done.added), list(&done.removed), list(&foreign))
}

#[test]
fn addresses_are_reconciled() {
    in_namespace("addresses_are_reconciled", || {
        let tap = box_with_management();
        ip("address add 10.10.0.200/32 dev pst0"); // an administrator's
        ip("address add 10.10.0.100/32 dev mgmt0");
        let mut addresses = Addresses::open().unwrap();
        // promise, restarted before, wanted, what is done
        let rows: &[(&str, bool, &[&str], &str)] = &[
            ("nothing wanted, nothing touched", false, &[], "+[] -[] ="),
            (
                "what is wanted comes",
                false,
                &["10.10.0.101", "10.10.0.102", "2001:db8::101"],
                "+[10.10.0.101 10.10.0.102 2001:db8::101] -[] =",
            ),
            ("once", false, &["10.10.0.101", "10.10.0.102", "2001:db8::101"], "+[] -[] ="),
            (
                "ours are known after a restart",
                true,
                &["10.10.0.101", "10.10.0.103", "2001:db8::101"],
                "+[10.10.0.103] -[10.10.0.102] =",
            ),
            (
                "what another put there is left to it",
                false,
                &["10.10.0.2", "10.10.0.100", "10.10.0.101", "10.10.0.200", "2001:db8::2"],
                "+[] -[10.10.0.103 2001:db8::101] =10.10.0.2 10.10.0.100 10.10.0.200 2001:db8::2",
            ),
            ("and only ours go", true, &[], "+[] -[10.10.0.101] ="),
        ];
        let mut mirror = mirror();
        for (promise, restarted, wanted, done) in rows {
            if *restarted {
                addresses = Addresses::open().unwrap();
            }
            let result = addresses.reconcile(tap.index(), COMPANION, &set(wanted)).unwrap();
            assert_eq!(said(&result), *done, "{promise}");
            let others = ["10.10.0.2", "10.10.0.200", "192.168.7.2", "10.10.0.100", "2001:db8::2"];
            let mut ours = set(wanted);
            ours.retain(|address| !set(&others).contains(address));
            until(&mut mirror, promise, |mirror| {
                let shown = mirror.view().ours.iter().map(|(address, ..)| *address);
                shown.collect::<BTreeSet<_>>() == ours
            });
            let shown = ip_says("-o address show");
            for other in others {
                assert!(shown.contains(&format!(" {other}/")), "{promise}: {other} in {shown}");
            }
        }
    });
}

#[test]
fn single_addresses_come_and_go_and_the_others_are_not_looked_at() {
    in_namespace("single_addresses_come_and_go_and_the_others_are_not_looked_at", || {
        let tap = box_with_management();
        let mut addresses = Addresses::open().unwrap();
        let (v4, v6): (IpAddr, IpAddr) =
            ("10.10.0.100".parse().unwrap(), "2001:db8::100".parse().unwrap());
        let [other]: [IpAddr; 1] = ["10.10.0.101".parse().unwrap()];
        type Row<'r> = (&'r str, &'r [IpAddr], &'r [(IpAddr, u8)], &'r str);
        // promise, wanted, unwanted, what is done
        let rows: &[Row] = &[
            ("they come", &[v4, v6], &[], "+[10.10.0.100 2001:db8::100] -[] ="),
            ("once", &[v4, v6], &[], "+[] -[] ="),
            ("beside each other", &[other], &[], "+[10.10.0.101] -[] ="),
            ("they go", &[], &[(v4, 32), (v6, 128)], "+[] -[10.10.0.100 2001:db8::100] ="),
            ("and if they have gone, so be it", &[], &[(v4, 32)], "+[] -[10.10.0.100] ="),
        ];
        for (promise, wanted, unwanted, done) in rows {
            let result = addresses.change(tap.index(), COMPANION, wanted, unwanted);
            assert_eq!(said(&result), *done, "{promise}");
        }
        let shown = ip_says("-o address show dev pst0");
        assert!(shown.contains("10.10.0.101/32") && !shown.contains("10.10.0.100"), "{shown}");
    });
}

#[test]
fn what_comes_and_goes_of_ours_changes_no_route_that_is_shown() {
    in_namespace("what_comes_and_goes_of_ours_changes_no_route_that_is_shown", || {
        let tap = box_with_management();
        let mut mirror = mirror();
        let mut addresses = Addresses::open().unwrap();
        let wanted = set(&["10.10.0.100", "2001:db8::100"]);
        let (routes, links) = (mirror.view().routes.clone(), mirror.view().links.clone());
        let mut seen = BTreeSet::new();
        for (there, wanted) in [(true, &wanted), (false, &BTreeSet::new()), (true, &wanted)] {
            addresses.reconcile(tap.index(), COMPANION, wanted).unwrap();
            until(&mut mirror, "it is seen", |mirror| {
                set(&["10.10.0.100", "2001:db8::100"])
                    .iter()
                    .all(|address| mirror.view().keeps(*address) == there)
            });
            seen.extend(mirror.take_ours_changed());
        }
        ip("link set mgmt0 mtu 1400"); // after which all that the kernel had to say has been heard
        ip("address add 10.10.0.201/32 dev pst0");
        until(&mut mirror, "the last word", |mirror| {
            mirror.view().addresses.iter().any(|own| own.address.to_string() == "10.10.0.201")
        });
        assert_eq!(seen, set(&["10.10.0.100", "2001:db8::100"]));
        assert!(mirror.is_current(), "no route was in doubt");
        assert!(std::sync::Arc::ptr_eq(&links, &mirror.view().links));
        let without = |routes: &[crate::kernel::Route]| -> Vec<crate::kernel::Route> {
            let other =
                |route: &&crate::kernel::Route| route.prefix.address.to_string() != "10.10.0.201";
            routes.iter().filter(other).cloned().collect()
        };
        assert_eq!(without(&mirror.view().routes), routes[..]);
        mirror.resync().unwrap();
        let view = mirror.view().clone();
        while !mirror.is_current() {
            mirror.step().unwrap();
        }
        assert!(mirror.view().ours.ptr_eq(&view.ours) && mirror.take_ours_changed().is_empty());
        assert_eq!(*mirror.view(), view, "a dump says the same");
    });
}

#[test]
fn a_route_whose_source_was_ours_goes_with_it() {
    in_namespace("a_route_whose_source_was_ours_goes_with_it", || {
        let tap = box_with_management();
        let mut mirror = mirror();
        let mut addresses = Addresses::open().unwrap();
        let vip = "10.10.0.100".parse().unwrap();
        addresses.change(tap.index(), COMPANION, &[vip], &[]);
        ip("route add 10.77.0.0/16 via 10.10.0.1 src 10.10.0.100");
        let leads = |mirror: &crate::kernel::Mirror| {
            mirror.view().routes.iter().any(|route| route.prefix.to_string() == "10.77.0.0/16")
        };
        until(&mut mirror, "it came", leads);
        addresses.change(tap.index(), COMPANION, &[], &[(vip, 32)]);
        until(&mut mirror, "it went", |mirror| !leads(mirror));
    });
}

#[test]
fn an_address_is_ready_at_once_and_disturbs_nobody() {
    in_namespace("an_address_is_ready_at_once_and_disturbs_nobody", || {
        let tap = box_with_management();
        let routes = ip_says("-6 route show dev pst0");
        let wanted = set(&["10.10.0.100", "2001:db8::100"]);
        let done = Addresses::open().unwrap().reconcile(tap.index(), COMPANION, &wanted).unwrap();
        assert_eq!(done.added.len(), 2);
        let v6 = ip_says("-6 -o address show dev pst0 to 2001:db8::100/128");
        assert!(v6.contains("/128") && v6.contains("nodad"), "{v6}");
        assert!(!v6.contains("tentative"), "no detection of duplicates first: {v6}");
        assert!(v6.contains("deprecated"), "not the source of the box's own connections: {v6}");
        assert_eq!(ip_says("-6 route show dev pst0"), routes, "no route of its own in main");
        let v4 = ip_says("-4 -o address show dev pst0 to 10.10.0.100/32");
        assert!(v4.contains("10.10.0.100/32") && v4.contains("pst0:pst"), "{v4}");
        let source = ip_says("-4 -o route get 10.10.0.50");
        assert!(source.contains("src 10.10.0.2"), "{source}");
        let source = ip_says("-6 -o route get 2001:db8::101");
        assert!(source.contains("src 2001:db8::2 "), "{source}");
    });
}

#[test]
fn an_address_is_never_tentative_though_the_companion_be_down() {
    in_namespace("an_address_is_never_tentative_though_the_companion_be_down", || {
        let tap = box_with_management();
        let mut addresses = Addresses::open().unwrap();
        let vip: IpAddr = "2001:db8::100".parse().unwrap();
        let is_ready = |when: &str| {
            let shown = ip_says("-6 -o address show dev pst0 to 2001:db8::100/128");
            assert!(shown.contains("2001:db8::100/128"), "{when}: {shown}");
            assert!(!shown.contains("tentative"), "{when}: {shown}");
        };
        let put_on = |addresses: &mut Addresses| {
            let done = addresses.change(tap.index(), COMPANION, &[vip], &[]);
            assert_eq!(said(&done), "+[2001:db8::100] -[] =");
        };
        sysctl("net/ipv6/conf/pst0/accept_dad", "1");
        put_on(&mut addresses);
        is_ready("on a companion that is up");
        ip("link set pst0 down"); // with which IPv6 addresses go
        put_on(&mut addresses);
        is_ready("on one that is down");
        ip("link set pst0 up");
        is_ready("when that comes up");
    });
}

#[test]
fn a_refused_address_is_named_and_the_others_are_done() {
    in_namespace("a_refused_address_is_named_and_the_others_are_done", || {
        let name = "fifteen-bytes-x";
        let tap = Tap::open(name, MAC, 1500, false).unwrap();
        sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1");
        let wanted = set(&["10.10.0.100", "2001:db8::100", "10.10.0.101"]);
        let mut addresses = Addresses::open().unwrap();
        let done = addresses.reconcile(tap.index(), name, &wanted).unwrap();
        assert_eq!(Vec::from_iter(set(&["10.10.0.100", "10.10.0.101"])), done.added);
        assert!(ip_says("-o address").contains("fifteen-byt:pst"), "the label has 15 bytes");
        let [(address, error)] = &done.failed[..] else { panic!("{done:?}") };
        let error = format!("{address} | {error}");
        let start = "2001:db8::100 | companion fifteen-bytes-x: adding address 2001:db8::100: ";
        assert!(error.starts_with(start) && error.contains("disable_ipv6=0"), "{error}");

        let gone = addresses.reconcile(Ifindex(4711), "pst9", &set(&["10.10.0.101"])).unwrap();
        let error = gone.failed[0].1.to_string();
        assert!(error.contains("companion pst9: adding address 10.10.0.101"), "{error}");
    });
}

#[test]
fn a_companion_that_has_gone_is_told_from_a_refusal() {
    in_namespace("a_companion_that_has_gone_is_told_from_a_refusal", || {
        let tap = box_with_management();
        let mut addresses = Addresses::open().unwrap();
        ip("link delete pst0");
        let wanted = set(&["10.10.0.101", "2001:db8::101"]);
        let done = addresses.reconcile(tap.index(), COMPANION, &wanted).unwrap();
        assert_eq!(done.failed.len(), 2, "{done:?}");
        assert!(done.failed.iter().all(|(_, error)| error.says_gone()), "{done:?}");
    });
}
