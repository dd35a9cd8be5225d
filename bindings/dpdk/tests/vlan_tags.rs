//! VLAN tags by a PMD that deals with them (`net_af_packet`), over a wire between two interfaces of a network
//! namespace: what one port does with tags, the other sees as bytes.

mod eal;

use std::process::Command;
use std::thread;
use std::time::Duration;

use penstock_dpdk::{
    MbufBurst, Mempool, MempoolConfig, PortConfig, RxQueue, TxQueue, VlanTags, VlanTcis,
};

const INSIDE: &str = "PENSTOCK_TEST_INSIDE";
const NAME: &str = "tags_are_taken_off_and_put_on_by_the_pmd";

/// Broadcast, from anyone.
const MACS: &[u8] = b"\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01";
/// An EtherType for experiments (IEEE 802), so that no kernel looks further.
const REST: &[u8] = b"\x88\xb5 sixty bytes and no checksum to be wrong..........";

#[test]
fn tags_are_taken_off_and_put_on_by_the_pmd() {
    if std::env::var_os(INSIDE).is_some() {
        return between_two_ports();
    }
    let mut command = Command::new("timeout");
    command.args(["60", "unshare", "--net"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", NAME, "--nocapture"]).env(INSIDE, "1");
    let usable = Command::new("unshare").args(["--net", "ip", "link"]).output();
    if !usable.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: needs root and `ip` to make a network namespace with two interfaces");
        return;
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {words}");
}

fn between_two_ports() {
    ip("link add v0 type veth peer name v1");
    for end in ["v0", "v1"] {
        ip(&format!("link set {end} addrgenmode none up")); // no IPv6, which would say something
    }
    let ring = "qpairs=1,blocksz=4096,framesz=2048,framecnt=256";
    let ports = [0, 1].map(|n| format!("--vdev=net_af_packet{n},iface=v{n},{ring}"));
    let mut eal = eal::start(&["-l", "0", &ports[0], &ports[1]]);
    let pool =
        Mempool::new(&eal, "mbufs", &MempoolConfig { mbufs: 4095, ..MempoolConfig::default() })
            .unwrap();
    let vlan_tags = Some(VlanTags::One { vlan: 7 });
    let mut found = eal.ports();
    let plain = found.remove(1).configure(&PortConfig::default(), &pool).unwrap();
    let tagging =
        found.remove(0).configure(&PortConfig { vlan_tags, ..PortConfig::default() }, &pool);
    let tagging = tagging.unwrap();
    let granted = tagging.granted();
    assert_eq!((granted.vlan_strip, granted.vlan_insert, granted.vlan_filter), (true, true, false));
    let granted = plain.granted();
    assert_eq!((granted.vlan_strip, granted.vlan_insert), (false, false), "not asked");
    let (tagging, mut rx, mut tx) = tagging.start().unwrap();
    let (plain, mut plain_rx, mut plain_tx) = plain.start().unwrap();

    let tagged = |tci: &[u8; 2]| [MACS, b"\x81\0", tci, REST].concat();
    let untagged = [MACS, REST].concat();
    // What a frame is to the port that deals with tags: the tag that it took, and the bytes left.
    for (sent, stripped) in [
        (tagged(b"\xa0\x07"), Some(VlanTcis::One(0xa007))),
        (tagged(b"\x00\x08"), Some(VlanTcis::One(8))),
        (untagged.clone(), None),
    ] {
        send(&pool, &mut plain_tx[0], &sent, None);
        assert_eq!(receive(&mut rx[0]), (stripped, untagged.clone()), "{sent:x?}");
    }
    // And what leaves by it.
    for (tci, left) in [(Some(0x6007), tagged(b"\x60\x07")), (None, untagged.clone())] {
        send(&pool, &mut tx[0], &untagged, tci);
        assert_eq!(receive(&mut plain_rx[0]), (None, left), "{tci:?}");
    }
    tagging.stop(rx, tx).unwrap();
    plain.stop(plain_rx, plain_tx).unwrap();
    drop(pool);
    eal.cleanup().unwrap();
}

fn send(pool: &Mempool, tx: &mut TxQueue, frame: &[u8], tci: Option<u16>) {
    let mut mbuf = pool.alloc().unwrap();
    mbuf.copy_from_slice(frame).unwrap();
    if let Some(tci) = tci {
        mbuf.insert_tag(tci);
    }
    let mut burst = MbufBurst::new();
    burst.push(mbuf).unwrap();
    assert_eq!(tx.send(&mut burst), 1);
}

/// The next frame.
fn receive(rx: &mut RxQueue) -> (Option<VlanTcis>, Vec<u8>) {
    let mut burst = MbufBurst::new();
    for _ in 0..2000 {
        rx.receive(&mut burst);
        if let Some(mbuf) = burst.pop() {
            assert!(burst.is_empty(), "one was sent");
            return (mbuf.stripped(), mbuf.data().to_vec());
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("nothing comes");
}
