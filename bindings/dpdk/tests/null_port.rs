//! A port whose packets come from nowhere and go nowhere (`net_null`), from EAL's start to its cleanup.

mod eal;

use penstock_dpdk::{
    CleanupError, Eal, EalError, MbufBurst, Mempool, MempoolConfig, PortConfig, PortError,
};

const POOL: MempoolConfig = MempoolConfig { mbufs: 4095, cache: 32, data_room: 2048, socket: None };

#[test]
fn packets_are_counted_and_nothing_is_left_behind() {
    let mut eal =
        eal::start(&["--vdev=net_null0", "--vdev=net_null1", "--vdev=net_null2", "-l", "0"]);
    let again = Eal::init(&["--no-pci"]).expect_err("a second EAL");
    assert!(matches!(again, EalError::Again), "{again}");

    let pool = Mempool::new(&eal, "mbufs", &POOL).expect("a mempool");
    assert_eq!((pool.available(), pool.in_use()), (4095, 0));
    let mut ports = eal.ports();
    assert!(eal.ports().is_empty(), "each port is given out once");
    assert_eq!((ports[0].name(), ports[0].driver()), ("net_null0", "net_null"));

    let config = PortConfig { rx_queues: 2, tx_queues: 2, ..PortConfig::default() };
    let (first, mut rx, mut tx) =
        ports.remove(0).configure(&config, &pool).unwrap().start().unwrap();
    let (second, other_rx, other_tx) =
        ports.remove(0).configure(&PortConfig::default(), &pool).unwrap().start().unwrap();
    assert_eq!((rx.len(), tx.len(), other_rx.len(), other_tx.len()), (2, 2, 1, 1));
    assert_ne!(first.mac().unwrap(), second.mac().unwrap());
    assert!(first.link().unwrap().up);

    let mut burst = MbufBurst::new();
    for round in 0..1000 {
        let queue = round % 2;
        assert_eq!(rx[queue].receive(&mut burst), 32);
        assert!(burst.iter().all(|mbuf| mbuf.len() == 64 && mbuf.is_contiguous()));
        assert_eq!((tx[queue].send(&mut burst), burst.len()), (32, 0));
    }
    let stats = first.stats().unwrap();
    assert_eq!((stats.ipackets, stats.opackets, stats.rx_nombuf), (32_000, 32_000, 0));
    assert!(first.xstats().unwrap().contains(&("rx_good_packets".to_owned(), 32_000)));
    assert_eq!(second.stats().unwrap().ipackets, 0);

    assert_eq!(rx[0].receive(&mut burst), 32);
    let (asked, kept) = (burst.len(), burst.pop().expect("a packet"));
    burst.clear();
    assert_eq!((asked, pool.in_use()), (32, 1), "a packet has an owner, 31 went back in bulk");

    let foreign = second.stop(rx, tx).expect_err("queues of another port");
    assert_eq!(
        foreign.to_string(),
        "port net_null1: a queue of port net_null0 was given back to it"
    );
    let missing = first.stop(Vec::new(), other_tx).expect_err("a queue of another port");
    assert!(matches!(missing, PortError::ForeignQueue { .. }), "{missing}");
    drop((other_rx, kept));

    let none = PortConfig { tx_descriptors: 0, ..PortConfig::default() };
    let refused = ports.remove(0).configure(&none, &pool).expect_err("a ring of nothing");
    assert_eq!(refused.to_string(), "port net_null2: 0 TX descriptors asked, PMD allows 1..=65535");

    assert_eq!((pool.available(), pool.in_use()), (4095, 0), "as before");
    drop(pool);
    eal.cleanup().expect("a clean end");
}

#[test]
fn cleanup_says_who_is_left() {
    let messages = [
        CleanupError::InUse(2).to_string(),
        CleanupError::MbufsOut { pool: "mbufs".to_owned(), mbufs: 3 }.to_string(),
    ];
    assert_eq!(
        messages,
        [
            "EAL is still in use: 2 of its ports, queues, mempool handles and lcores exist, drop or join them first",
            "mempool mbufs: 3 mbufs are still out, drop them first",
        ]
    );
}
