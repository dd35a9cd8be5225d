//! A TAP port as an ordinary user with CAP_NET_ADMIN and nothing else, in a network namespace of its
//! own: the way the data plane runs in a lab.

mod eal;

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use penstock_dpdk::{MbufBurst, Mempool, MempoolConfig, PortConfig};

const INSIDE: &str = "PENSTOCK_TEST_INSIDE";
const NOBODY: u32 = 65_534;

/// Broadcast, so that any NIC takes it; an EtherType for experiments (IEEE 802), so that no kernel does.
const FRAME: &[u8] = b"\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5 sixty bytes and no checksum to be wrong..........";

#[test]
fn a_tap_port_needs_only_cap_net_admin() {
    if std::env::var_os(INSIDE).is_some() {
        return as_nobody();
    }
    if let Some(reason) = reason_to_skip() {
        eprintln!("skipped: {reason}");
        return;
    }
    let folder = Folder::new();
    let program = folder.0.join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap(); // a path that nobody can reach
    let mut command = Command::new("timeout");
    command.args([
        "60",
        "unshare",
        "--net",
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ]);
    command.args([
        "--inh-caps=-all,+net_admin",
        "--ambient-caps=+net_admin",
        "--bounding-set=-all,+net_admin",
    ]);
    command.arg(program).args(["--exact", "a_tap_port_needs_only_cap_net_admin", "--nocapture"]);
    command.env(INSIDE, "1").env("XDG_RUNTIME_DIR", &folder.0).current_dir("/");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn reason_to_skip() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    if !status.lines().any(|line| line.starts_with("Uid:\t0\t")) {
        return Some("needs root to make a network namespace".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("no /dev/net/tun here".to_owned());
    }
    let namespace = Command::new("unshare").args(["--net", "ip", "tuntap", "list"]).status();
    match namespace {
        Ok(status) if status.success() => None,
        Ok(_) => Some("no network namespaces, or no `ip` (apt-get install iproute2)".to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// EAL's runtime folder; it must belong to the user that runs EAL.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("penstock-test-tap-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn as_nobody() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
    assert_eq!(effective, Some("0000000000001000"), "CAP_NET_ADMIN alone");

    let mut eal = eal::start(&["-l", "0", "--vdev=net_tap0,iface=lan0,mac=02:00:00:00:00:fe"]);
    let pool =
        Mempool::new(&eal, "mbufs", &MempoolConfig { mbufs: 4095, ..MempoolConfig::default() })
            .unwrap();
    let before = pool.in_use();
    let config = PortConfig {
        mtu: Some(1400),
        promiscuous: true,
        all_multicast: true,
        ..PortConfig::default()
    };
    let port = eal.ports().remove(0).configure(&config, &pool).unwrap();
    assert_eq!(
        (port.name(), port.granted().mtu, port.granted().promiscuous, port.granted().all_multicast),
        ("net_tap0", 1400, true, true)
    );
    let (port, mut rx, mut tx) = port.start().unwrap();
    assert_eq!(port.mac().unwrap(), [2, 0, 0, 0, 0, 0xfe]);
    let mut burst = MbufBurst::new();
    for _ in 0..8 {
        let mut mbuf = pool.alloc().unwrap();
        mbuf.copy_from_slice(FRAME).unwrap();
        burst.push(mbuf).unwrap();
    }
    let before_sending = received_by("lan0");
    assert_eq!((tx[0].send(&mut burst), burst.len()), (8, 0));
    assert_eq!(
        received_by("lan0") - before_sending,
        8,
        "what the port sends arrives on the interface"
    );

    let added = Command::new("ip").args(["address", "add", "192.0.2.1/24", "dev", "lan0"]).status();
    assert!(added.unwrap().success());
    let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
    socket.send_to(b"who has .2?", "192.0.2.2:9").unwrap(); // the kernel asks by ARP first
    let asked = (0..2000).any(|_| {
        rx[0].receive(&mut burst);
        let found = burst.drain().any(|mbuf| is_arp_request(mbuf.data()));
        thread::sleep(Duration::from_millis(if found { 0 } else { 5 }));
        found
    });
    assert!(asked, "what the interface sends arrives by the port");
    port.stop(rx, tx).unwrap();
    assert_eq!(pool.in_use(), before, "ring and bursts gave all back");
    drop(pool);
    eal.cleanup().unwrap();
}

/// Packets that the kernel received on an interface, by its own count.
fn received_by(interface: &str) -> u64 {
    let counters = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let counters = counters.lines().find_map(|line| line.trim().strip_prefix(interface));
    let packets = counters.and_then(|line| line.split_whitespace().nth(2));
    packets.expect("the interface exists").parse().unwrap()
}

fn is_arp_request(frame: &[u8]) -> bool {
    frame.get(12..22) == Some(b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01")
}
