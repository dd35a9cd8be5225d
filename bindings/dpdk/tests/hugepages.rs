//! `--in-memory`: hugepages without a file system, hence without rights on one.

use std::fs;

use penstock_dpdk::{BURST, Eal, MbufBurst, Mempool, MempoolConfig, PortConfig};

fn free_hugepages() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    line.and_then(|pages| pages.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn mbufs_live_in_hugepages() {
    let before = free_hugepages();
    if before < 32 {
        eprintln!(
            "skipped: 32 free hugepages are needed, there are {before}: sysctl vm.nr_hugepages=64"
        );
        return;
    }
    let mut eal = Eal::init(&[
        "--in-memory",
        "--no-pci",
        "-m",
        "64",
        "--no-telemetry",
        "-l",
        "0",
        "--vdev=net_null0",
    ])
    .unwrap();
    let pool = Mempool::new(&eal, "mbufs", &MempoolConfig::default()).unwrap();
    let port = eal.ports().remove(0).configure(&PortConfig::default(), &pool).unwrap();
    let (port, mut rx, mut tx) = port.start().unwrap();
    let mut burst = MbufBurst::new();
    assert_eq!((rx[0].receive(&mut burst), tx[0].send(&mut burst)), (BURST, BURST));
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let huge_kib: u64 = smaps
        .lines()
        .filter_map(|line| {
            line.strip_prefix("Private_Hugetlb:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        })
        .sum();
    assert!(huge_kib >= 16 * 1024, "only {huge_kib} KiB of hugepages are mapped");
    port.stop(rx, tx).unwrap();
    assert_eq!(pool.in_use(), 0);
    drop(pool);
    eal.cleanup().unwrap();
}
