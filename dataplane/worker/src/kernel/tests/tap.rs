//! What the companion promises.

use rustix::thread::CapabilitySet;

use super::frames::{REPLY, REQUEST, arp, arp_frame};
use super::namespace::{
    COMPANION, MAC, become_ordinary_user, companion, frame, in_namespace, ip, ip_says, ip_will_say,
    mirror, reopen,
};
use crate::kernel::{Addresses, Asked, KernelError, MacAddr, Tap};

const HOST: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x77]);

#[test]
fn a_new_companion_is_up_with_its_mac_and_mtu() {
    in_namespace("a_new_companion_is_up_with_its_mac_and_mtu", || {
        let tap = Tap::open(COMPANION, MAC, 9000, false).unwrap();
        let shown = ip_says("-o link show dev pst0");
        for word in ["mtu 9000", "02:00:00:00:00:01", "UP", "LOWER_UP"] {
            assert!(shown.contains(word), "{word} in {shown}");
        }
        assert!(shown.starts_with(&format!("{}:", tap.index())));
        drop(tap);
        ip_will_say("link", "one not persistent goes with its holder", |links| {
            !links.contains(COMPANION)
        });
    });
}

#[test]
fn frames_pass_between_the_port_and_the_kernel() {
    in_namespace("frames_pass_between_the_port_and_the_kernel", || {
        let tap = companion();
        ip("address add 10.10.0.2/24 dev pst0");
        let (host, vip) = ([10, 10, 0, 9].into(), [10, 10, 0, 2].into());
        let question = arp_frame(REQUEST, (HOST, host), (MacAddr([0xff; 6]), vip));
        assert!(tap.write_frame(&question).unwrap());
        let answer = frame(&tap, "the kernel answers ARP", |frame| {
            arp(frame).filter(|arp| arp.operation == REPLY)
        });
        assert_eq!((answer.to, answer.sender, answer.target), (HOST, (MAC, vip), host));

        let mut buffer = [0; 2000];
        while tap.read_frame(&mut buffer).unwrap().is_some() {}
        assert_eq!(tap.read_frame(&mut buffer).unwrap(), None, "nothing there is no error");
        assert!(tap.write_frame(&[0; 13]).is_err(), "less than an Ethernet header is one");
        ip("link set pst0 down");
        assert!(!tap.write_frame(&question).unwrap(), "nor is an interface that is down");
        ip("link delete pst0");
        assert!(tap.read_frame(&mut buffer).is_err(), "an interface deleted under us is one");
        assert!(tap.write_frame(&question).is_err());
    });
}

#[test]
fn a_persistent_companion_outlives_its_holder_and_is_adopted() {
    in_namespace("a_persistent_companion_outlives_its_holder_and_is_adopted", || {
        let first = Tap::open(COMPANION, MAC, 1500, true).unwrap();
        let index = first.index();
        ip("address add 10.10.0.2/24 dev pst0");
        ip("address add 2001:db8::2/64 dev pst0 nodad");
        ip("route add 10.10.1.0/24 via 10.10.0.1");
        ip("-6 route add 2001:db8:1::/64 via 2001:db8::1");
        drop(first);

        let kept = |when: &str| {
            let addresses = ip_says("-o address show dev pst0");
            assert!(addresses.contains("10.10.0.2/24"), "{when}: {addresses}");
            assert!(addresses.contains("2001:db8::2/64"), "{when}: {addresses}");
            assert!(ip_says("route").contains("10.10.1.0/24 via 10.10.0.1"), "{when}");
            assert!(ip_says("-6 route").contains("2001:db8:1::/64 via 2001:db8::1"), "{when}");
        };
        kept("while nobody holds it");
        ip_will_say("-o link show dev pst0", "nobody holds it", |link| link.contains("NO-CARRIER"));

        let second = reopen(COMPANION, MAC, 1500, true);
        assert_eq!(second.index(), index, "the same interface");
        kept("adopted");
        assert!(ip_says("-o link show dev pst0").contains("LOWER_UP"));
        drop(second);

        let other = MacAddr([0x02, 0, 0, 0, 0, 0x02]);
        let third = reopen(COMPANION, other, 1400, false);
        let shown = ip_says("-o link show dev pst0");
        assert_eq!(third.index(), index);
        assert!(shown.contains("02:00:00:00:00:02") && shown.contains("mtu 1400"), "{shown}");
        kept("adopted with another MAC and MTU");
        drop(third);
        ip_will_say("link", "adopted to be let go", |links| !links.contains(COMPANION));
    });
}

#[test]
fn what_stands_in_the_way_is_said_with_the_next_move() {
    in_namespace("what_stands_in_the_way_is_said_with_the_next_move", || {
        let _held = companion();
        ip("link add br0 type bridge");
        ip("tuntap add dev tun0 mode tun");
        let group = MacAddr([0x01, 0, 0, 0, 0, 1]);
        let rows = [
            ("another process holds it", COMPANION, MAC, 1500, "another process holds it"),
            ("the name is a bridge's", "br0", MAC, 1500, "`ip link delete br0`"),
            ("the name is a TUN's", "tun0", MAC, 1500, "is not a TAP"),
            ("the name is too long", "sixteen-bytes-xy", MAC, 1500, "1 to 15 printable bytes"),
            ("the name is none", "", MAC, 1500, "1 to 15 printable bytes"),
            ("the name is a template", "pst%d", MAC, 1500, "1 to 15 printable bytes"),
            ("the name is a path", "../pst", MAC, 1500, "1 to 15 printable bytes"),
            ("the MAC is a group's", "pst1", group, 1500, "01:00:00:00:00:01 cannot be"),
            ("the MAC is none", "pst1", MacAddr([0; 6]), 1500, "all zeros"),
            ("the MTU is too large", "pst1", MAC, 100_000, "MTU 100000"),
        ];
        for (promise, name, mac, mtu_bytes, words) in rows {
            let error = Tap::open(name, mac, mtu_bytes, true).unwrap_err().to_string();
            assert!(error.contains(words), "{promise}: {error}");
            assert!(error.contains(name), "{promise} names it: {error}");
        }
        assert!(!ip_says("link").contains("pst1"), "a failure leaves nothing behind");
    });
}

#[test]
fn an_ordinary_user_with_cap_net_admin_can_do_everything() {
    in_namespace("an_ordinary_user_with_cap_net_admin_can_do_everything", || {
        let first = Tap::open(COMPANION, MAC, 1500, true).unwrap();
        drop(first); // by root, so that adoption is tried too
        become_ordinary_user(CapabilitySet::NET_ADMIN);
        let tap = reopen(COMPANION, MacAddr([2, 0, 0, 0, 0, 9]), 1400, true);
        let _new = Tap::open("pst1", MAC, 1500, true).unwrap();
        let mut mirror = mirror();
        assert_eq!(mirror.companion(0), Some(tap.index()));
        let wanted = ["10.10.0.100".parse().unwrap(), "2001:db8::100".parse().unwrap()].into();
        let done = Addresses::open().unwrap().reconcile(tap.index(), COMPANION, &wanted).unwrap();
        assert_eq!((done.added.len(), done.failed.len()), (2, 0), "{done:?}");
        let now = std::time::Duration::from_secs(1);
        let asked = mirror.resolve(0, "10.10.0.9".parse().unwrap(), now).unwrap();
        assert_eq!(asked, Asked::Now);
    });
}

#[test]
fn without_cap_net_admin_the_message_says_what_is_missing() {
    in_namespace("without_cap_net_admin_the_message_says_what_is_missing", || {
        let tap = Tap::open(COMPANION, MAC, 1500, true).unwrap();
        become_ordinary_user(CapabilitySet::empty());
        let refused = Tap::open("pst1", MAC, 1500, true).unwrap_err();
        let wanted = ["10.10.0.100".parse().unwrap()].into();
        let mut addresses = Addresses::open().unwrap();
        let mut done = addresses.reconcile(tap.index(), COMPANION, &wanted).unwrap();
        let now = std::time::Duration::from_secs(1);
        let unasked = mirror().resolve(0, "10.10.0.9".parse().unwrap(), now).unwrap_err();
        for error in [refused, done.failed.remove(0).1, unasked] {
            assert!(matches!(error, KernelError::NotPermitted { .. }), "{error:?}");
            assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
        }
    });
}

#[test]
fn a_persistent_companion_is_not_for_just_anyone() {
    in_namespace("a_persistent_companion_is_not_for_just_anyone", || {
        drop(Tap::open(COMPANION, MAC, 1500, true).unwrap());
        ip_will_say("-o link show dev pst0", "nobody holds it", |link| link.contains("NO-CARRIER"));
        become_ordinary_user(CapabilitySet::empty());
        let error = Tap::open(COMPANION, MAC, 1500, true).unwrap_err();
        assert!(matches!(error, KernelError::NotPermitted { .. }), "{error:?}");
    });
}
