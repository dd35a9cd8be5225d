//! What ports say of their RSS, and what they let us set: `net_null` all of it, `net_ring` and `net_memif` nothing.

mod eal;

use std::net::Ipv6Addr;

use penstock_dpdk::{
    Capabilities, Eal, Hashed, Mempool, MempoolConfig, Port, PortConfig, PortError, Rss, RssConfig,
    RssHash, RxQueue, Steering, TxQueue, softrss,
};

const POOL: MempoolConfig = MempoolConfig { mbufs: 4095, cache: 0, data_room: 2048, socket: None };
const NONE: RssHash = RssHash { ip: false, tcp: false, udp: false };
const ALL: Hashed = Hashed { tcp_v4: true, udp_v4: true, tcp_v6: true, udp_v6: true };

type Started = (Port, Vec<RxQueue>, Vec<TxQueue>);

#[test]
fn what_a_port_says_of_its_rss_is_read_and_what_it_lets_be_set_is_set() {
    let socket = std::env::temp_dir().join(format!("penstock-rss-{}", std::process::id()));
    let memif =
        format!("--vdev=net_memif0,role=server,socket-abstract=no,socket={}", socket.display());
    let vdevs = ["--vdev=net_null0", "--vdev=net_ring0", &memif, "-l", "0"];
    let mut eal = eal::start(&vdevs);
    let pool = Mempool::new(&eal, "mbufs", &POOL).unwrap();
    the_key_and_the_table_are_what_was_set(&mut eal, &pool);
    drop(pool);
    eal.cleanup().unwrap();
    let _ = std::fs::remove_file(socket);
}

fn the_key_and_the_table_are_what_was_set(eal: &mut Eal, pool: &Mempool) {
    let mut ports = eal.ports();
    let mut take = |name: &str| {
        let at = ports.iter().position(|port| port.name() == name).unwrap();
        let port = ports.swap_remove(at);
        let can = port.capabilities().unwrap();
        (can, start(port, can, pool))
    };
    let (can, (mut port, rx, tx)) = take("net_null0");
    assert_eq!((can.rss_key_bytes, can.rss_table_len), (0, 128), "of the key it tells nothing");
    assert!(can.rss.tcp && can.rss.udp && can.rx_queues >= 2);
    let drawn: Vec<u8> = (0..40).map(|at| at * 5 + 1).collect();
    port.set_rss_key(&drawn).unwrap();
    let table: Vec<u16> = (0..128).map(|entry| entry % 2).collect();
    port.set_rss_table(&table).unwrap();
    assert_eq!(port.rss().unwrap(), Rss { key: drawn, hashed: ALL, table });
    let rows = [
        (port.set_rss_key(&[1; 39]), "port net_null0: an RSS key of 39 bytes given, PMD takes 40"),
        (port.set_rss_table(&[0; 64]), "port net_null0: a RETA of 64 entries given, PMD has 128"),
        (port.set_rss_table(&[2; 128]), "port net_null0: queue 2 named, there are 2 from 0 on"),
        (port.steer(&to(2)), "port net_null0: queue 2 named, there are 2 from 0 on"),
        (
            port.steer(&to(1)),
            "port net_null0: rte_flow: Function not implemented: Function not implemented (errno 38)",
        ),
    ];
    for (refused, expected) in rows {
        assert_eq!(refused.unwrap_err().to_string(), expected);
    }
    port.stop(rx, tx).unwrap();

    for name in ["net_ring0", "net_memif0"] {
        let (can, (mut port, rx, tx)) = take(name);
        assert_eq!((can.rss, can.rss_table_len), (NONE, 0), "{name}");
        assert!(matches!(port.rss(), Err(PortError::Call { .. })), "{name}: {:?}", port.rss());
        assert!(port.set_rss_table(&[]).is_err() && port.steer(&to(0)).is_err());
        port.stop(rx, tx).unwrap();
    }
}

fn to(queue: u16) -> Steering {
    let address = Ipv6Addr::LOCALHOST.into();
    Steering { address, protocol: 6, l4_port: 1024, l4_port_mask: 0xfc00, queue }
}

/// Two queues, if it has them, and RSS over them, if it has that.
fn start(port: penstock_dpdk::UnconfiguredPort, can: Capabilities, pool: &Mempool) -> Started {
    let queues = can.rx_queues.min(can.tx_queues).min(2);
    let rss = (can.rss != NONE).then(RssConfig::default);
    let config = PortConfig { rx_queues: queues, tx_queues: queues, rss, ..PortConfig::default() };
    port.configure(&config, pool).unwrap().start().unwrap()
}

/// Two of Microsoft's examples (*Verifying the RSS Hash Calculation*).
#[test]
fn the_hash_in_software_is_that_of_microsofts_examples() {
    let key = b"\x6d\x5a\x56\xda\x25\x5b\x0e\xc2\x41\x67\x25\x3d\x43\xa3\x8f\xb0\xd0\xca\x2b\xcb\
        \xae\x7b\x30\xb4\x77\xcb\x2d\xa3\x80\x30\xf2\x0c\x6a\x42\xb7\x3b\xbe\xac\x01\xfa";
    let v4 = |address: [u8; 4]| u32::from_be_bytes(address);
    let ports = |source: u32, destination| source << 16 | destination;
    let words = [v4([66, 9, 149, 187]), v4([161, 142, 100, 80]), ports(2794, 1766)];
    assert_eq!(softrss(&words, key), 0x51cc_c178);
    let v6 = |text: &str| {
        let bits = text.parse::<Ipv6Addr>().unwrap().to_bits();
        [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
    };
    let addresses = [v6("3ffe:2501:200:1fff::7"), v6("3ffe:2501:200:3::1")].concat();
    assert_eq!(softrss(&[&addresses[..], &[ports(2794, 1766)]].concat(), key), 0x4020_7d3d);
}
