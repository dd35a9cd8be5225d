//! A port whose packets come from nowhere and go nowhere (`net_null`), from EAL's start to its cleanup.

mod eal;

use penstock_dpdk::{
    BURST, Eal, EalError, MbufBurst, Mempool, MempoolConfig, PortConfig, PortError,
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

    let two_queues = PortConfig { rx_queues: 2, tx_queues: 2, ..PortConfig::default() };
    let first = ports.remove(0).configure(&two_queues, &pool).unwrap();
    let (first, mut rx, other_tx) = first.start().unwrap();
    let second = ports.remove(0).configure(&PortConfig::default(), &pool).unwrap();
    let (second, other_rx, mut tx) = second.start().unwrap();
    assert_eq!((rx.len(), other_tx.len(), other_rx.len(), tx.len()), (2, 2, 1, 1));
    assert_ne!(first.mac().unwrap(), second.mac().unwrap());
    assert!(first.link().unwrap().up);

    let mut burst = MbufBurst::new();
    for round in 0..1000 {
        assert_eq!(rx[round % 2].receive(&mut burst), BURST);
        assert!(burst.iter().all(|mbuf| mbuf.len() == 64 && mbuf.is_contiguous()));
        assert_eq!((tx[0].send(&mut burst), burst.len()), (BURST, 0));
    }
    let packets = 1000 * BURST as u64;
    let (received, sent) = (first.stats().unwrap(), second.stats().unwrap());
    assert_eq!((received.ipackets, received.opackets, received.rx_nombuf), (packets, 0, 0));
    assert_eq!((sent.ipackets, sent.opackets, sent.oerrors), (0, packets, 0));
    assert!(first.xstats().unwrap().contains(&("rx_good_packets".to_owned(), packets)));

    assert_eq!(rx[0].receive(&mut burst), BURST);
    let (asked, kept) = (burst.len(), burst.pop().expect("a packet"));
    burst.clear();
    assert_eq!(
        (asked, pool.in_use()),
        (BURST, 1),
        "a packet has an owner, the others went back in bulk"
    );
    drop(kept);

    let foreign = first.stop(rx, tx).expect_err("a queue of another port");
    assert_eq!(
        foreign.to_string(),
        "port net_null0: a queue of port net_null1 was given back to it"
    );
    let missing = second.stop(Vec::new(), Vec::new()).expect_err("a queue is missing");
    assert_eq!(missing, PortError::QueuesOut { port: "net_null1".to_owned(), queues: 1 });
    drop((other_rx, other_tx)); // the last queue closes its port

    let none = PortConfig { tx_descriptors: 0, ..PortConfig::default() };
    let refused = ports.remove(0).configure(&none, &pool).expect_err("a ring of nothing");
    assert_eq!(refused.to_string(), "port net_null2: 0 TX descriptors asked, PMD allows 1..=65535");

    assert_eq!((pool.available(), pool.in_use()), (4095, 0), "as before");
    drop(pool);
    eal.cleanup().expect("a clean end");
}
