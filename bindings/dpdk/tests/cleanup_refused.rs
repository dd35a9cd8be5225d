//! EAL's memory stays mapped while anybody may use it.

mod eal;

use std::sync::mpsc;

use penstock_dpdk::{CleanupError, Mempool, MempoolConfig};

#[test]
fn eal_outlives_what_was_made_from_it() {
    let mut eal = eal::start(&["--lcores=0@0,1@0"]);
    let pool = Mempool::new(&eal, "mbufs", &MempoolConfig::default()).unwrap();
    let (tell, told) = mpsc::channel::<()>();
    let (give_back, length) = mpsc::channel();
    let work = move || {
        let mbuf = pool.alloc();
        let _ = told.recv();
        give_back.send(mbuf.map(|mbuf| mbuf.len())).unwrap();
    };
    drop(eal.lcores().remove(0).launch(work).unwrap()); // nobody will join it

    let refused = eal.cleanup().expect_err("an lcore works, with a pool and a packet");
    assert_eq!(refused, CleanupError::InUse(2));
    assert_eq!(
        refused.to_string(),
        "EAL is held by 2 values (ports, queues, mempools, lcores): drop or join them first"
    );
    drop(tell);
    assert_eq!(length.recv().unwrap(), Some(0), "the packet is still there");
}
