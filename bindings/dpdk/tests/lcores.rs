//! Closures on EAL's pinned threads, and the threads that are none of EAL's.

mod eal;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use penstock_dpdk::{Eal, Lcore, MbufBurst, Mempool, MempoolConfig, PortConfig};

/// The CPUs that this thread may run on, as the kernel prints them.
fn own_cpus() -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.expect("the kernel tells").trim().to_owned()
}

/// Two lcores on the first CPU, beside the main one, so that one CPU is enough.
#[test]
fn lcores_run_what_they_are_given_and_the_caller_keeps_its_cpus() {
    let before = own_cpus();
    let cpu = before.split([',', '-']).next().unwrap().to_owned();
    let lcores = format!("--lcores=0@{cpu},1@{cpu},2@{cpu}");
    let mut eal = eal::start(&["--vdev=net_null0", &lcores]);
    assert_eq!(own_cpus(), before, "EAL pinned its own thread, not the caller");
    assert!(eal.tsc_hz() > 0 && penstock_dpdk::cycles() < penstock_dpdk::cycles());

    let mut lcores = eal.lcores();
    assert_eq!(lcores.iter().map(Lcore::id).collect::<Vec<_>>(), [1, 2]);
    assert!(eal.lcores().is_empty(), "each lcore is given out once");
    assert_eq!(lcores[0].cpus(), [cpu.parse::<u32>().unwrap()]);

    let (second, first) = (lcores.pop().unwrap(), lcores.pop().unwrap());
    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let tell = Arc::clone(&seen);
    let first = first.launch(move || *tell.lock().unwrap() = own_cpus()).unwrap().join().unwrap();
    assert_eq!(*seen.lock().unwrap(), cpu, "an lcore is pinned");

    let panicked = second.launch(|| panic!("worker {}", 2)).unwrap().join().expect_err("a panic");
    assert_eq!(panicked.to_string(), "lcore 2 panicked: worker 2");

    poll_until_told_to_stop(&mut eal, first);
    eal.cleanup().unwrap();
}

/// A worker's life, on an lcore that has worked before.
fn poll_until_told_to_stop(eal: &mut Eal, lcore: Lcore) {
    let pool = Mempool::new(
        eal,
        "mbufs",
        &MempoolConfig { mbufs: 1023, cache: 64, ..MempoolConfig::default() },
    )
    .unwrap();
    let config = PortConfig { rx_descriptors: 64, ..PortConfig::default() };
    let (port, mut rx, mut tx) =
        eal.ports().remove(0).configure(&config, &pool).unwrap().start().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (mut rx_queue, mut tx_queue, told) = (rx.remove(0), tx.remove(0), Arc::clone(&stop));
    let (give_back, queues) = std::sync::mpsc::channel();
    let running = lcore
        .launch(move || {
            let mut burst = MbufBurst::new();
            while !told.load(Ordering::Relaxed) {
                rx_queue.receive(&mut burst);
                tx_queue.send(&mut burst);
            }
            give_back.send((rx_queue, tx_queue)).unwrap();
        })
        .unwrap();
    while port.stats().unwrap().opackets < 10_000 {
        std::thread::yield_now();
    }
    assert!(!running.is_finished());
    stop.store(true, Ordering::Relaxed);
    let (rx_queue, tx_queue) = queues.recv().unwrap();
    let _lcore = running.join().unwrap();
    let stats = port.stats().unwrap();
    assert_eq!(stats.ipackets, stats.opackets);
    port.stop(vec![rx_queue], vec![tx_queue]).unwrap();
    assert_eq!(pool.in_use(), 0, "mbufs in the lcore's cache are free ones");
}
