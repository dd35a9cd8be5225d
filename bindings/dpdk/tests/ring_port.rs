//! A port that hands back what it was sent (`net_ring`): mbufs, their lengths, and what a full ring
//! leaves in the burst.

mod eal;

use std::thread;

use penstock_dpdk::{
    BURST, Eal, Mbuf, MbufBurst, MbufError, Mempool, MempoolConfig, PortConfig, RxChecksum,
    RxQueue, TxQueue, VlanTcis,
};

const POOL: MempoolConfig = MempoolConfig { mbufs: 4095, cache: 0, data_room: 2048, socket: None };

#[test]
fn packets_keep_their_order_their_bytes_and_one_owner() {
    let mut eal = eal::start(&["--vdev=net_ring0", "-l", "0"]);
    let pool = Mempool::new(&eal, "mbufs", &POOL).unwrap();
    let port = eal.ports().remove(0).configure(&PortConfig::default(), &pool).unwrap();
    let (port, mut rx, mut tx) = port.start().unwrap();

    lengths_stay_inside_the_buffer(&pool);
    a_burst_is_an_array_of_owners(&pool);
    a_full_ring_leaves_the_rest_in_order(&pool, &mut rx[0], &mut tx[0]);
    a_chain_is_made_one_segment(&eal, &pool, &mut rx[0], &mut tx[0]);
    tags_travel_beside_the_bytes(&pool);
    any_thread_may_allocate_and_free(&pool);

    port.stop(rx, tx).unwrap();
    assert_eq!(pool.in_use(), 1, "every packet went back to its pool but the one forgotten");
    drop(pool);
    let refused = eal.cleanup().expect_err("a packet is out");
    assert_eq!(refused.to_string(), "mempool mbufs: 1 mbufs are still out, drop them first");
}

/// An mbuf of the length a row starts from.
fn mbuf(pool: &Mempool, len: u16) -> Mbuf {
    let mut mbuf = pool.alloc().expect("a packet");
    mbuf.set_len(len).expect("it fits");
    mbuf
}

fn lengths_stay_inside_the_buffer(pool: &Mempool) {
    type Outcome = Result<(), MbufError>;
    type Row = (&'static str, fn(&mut Mbuf) -> Outcome, Outcome, (usize, u16));
    let rows: [Row; 11] = [
        // promise                        change of 100 bytes            answer                (len, headroom)
        ("it shrinks", |m| m.set_len(60), Ok(()), (60, 128)),
        ("it grows", |m| m.set_len(2048), Ok(()), (2048, 128)),
        ("not beyond its buffer", |m| m.set_len(2049), Err(no_room(2049, 2048)), (100, 128)),
        ("headroom opens", |m| m.prepend(128), Ok(()), (228, 0)),
        ("as far as there is one", |m| m.prepend(129), Err(no_room(129, 128)), (100, 128)),
        ("the front goes", |m| m.trim_front(100), Ok(()), (0, 228)),
        (
            "if it is there",
            |m| m.trim_front(101),
            Err(MbufError::TooShort { asked: 101, len: 100 }),
            (100, 128),
        ),
        ("bytes go to the end", |m| m.append(&[7; 1948]), Ok(()), (2048, 128)),
        ("if they fit", |m| m.append(&[7; 1949]), Err(no_room(1949, 1948)), (100, 128)),
        ("bytes take its place", |m| m.copy_from_slice(b"packet"), Ok(()), (6, 128)),
        (
            "not 64 KiB of them",
            |m| m.copy_from_slice(&[7; 65_536]),
            Err(no_room(65_536, 2048)),
            (100, 128),
        ),
    ];
    for (promise, change, answer, (len, headroom)) in rows {
        let mut mbuf = mbuf(pool, 100);
        assert_eq!(change(&mut mbuf), answer, "{promise}");
        assert_eq!(
            (mbuf.len(), mbuf.data().len(), mbuf.headroom()),
            (len, len, headroom),
            "{promise}"
        );
    }

    let mut packet = pool.alloc().unwrap();
    assert!(packet.is_empty() && packet.is_contiguous());
    assert_eq!(
        (packet.rx_checksums().ip(), packet.rx_checksums().l4()),
        (RxChecksum::Unknown, RxChecksum::Unknown)
    );
    assert_eq!((packet.rss_hash(), packet.stripped()), (None, None));
    packet.copy_from_slice(b"backend").unwrap();
    packet.append(b" 1").unwrap();
    packet.prepend(4).unwrap();
    packet.data_mut()[..4].copy_from_slice(b"the ");
    assert_eq!(packet.data(), b"the backend 1");
    packet.trim_front(4).unwrap();
    assert_eq!(packet.data(), b"backend 1");
}

fn no_room(asked: usize, room: usize) -> MbufError {
    MbufError::NoRoom { asked, room }
}

fn a_burst_is_an_array_of_owners(pool: &Mempool) {
    let mut burst = MbufBurst::new();
    for len in 0..BURST as u16 {
        burst.push(mbuf(pool, len)).expect("room");
    }
    let held = BURST as u32;
    let refused = burst.push(mbuf(pool, 99)).expect_err("a full burst takes no more");
    assert_eq!((refused.len(), burst.is_full(), pool.in_use()), (99, true, held + 1));
    drop(refused);
    assert_eq!(burst.pop().map(|mbuf| mbuf.len()), Some(BURST - 1));
    for mbuf in &mut burst {
        mbuf.append(b"!").unwrap();
    }
    assert_eq!(pool.in_use(), held - 1);
    let lens = |burst: &MbufBurst| burst.iter().map(Mbuf::len).collect::<Vec<_>>();
    burst.retain(|_| true);
    assert_eq!((lens(&burst), pool.in_use()), ((1..BURST).collect(), held - 1));
    burst.retain(|mbuf| mbuf.len() % 3 != 0);
    let others: Vec<usize> = (1..BURST).filter(|len| len % 3 != 0).collect();
    assert_eq!((lens(&burst), pool.in_use()), (others.clone(), others.len() as u32), "in order");
    let mut more = MbufBurst::new();
    (others.len()..BURST).for_each(|at| more.push(mbuf(pool, 100 + at as u16)).expect("room"));
    assert!(burst.append(&mut more), "together they are a burst");
    let behind = (others.len()..BURST).map(|at| 100 + at);
    let all: Vec<usize> = others.into_iter().chain(behind).collect();
    assert_eq!((lens(&burst), more.len(), pool.in_use()), (all.clone(), 0, held), "in order");
    assert!(burst.append(&mut more), "none fit even into a full one");
    more.push(mbuf(pool, 99)).expect("room");
    assert!(!burst.append(&mut more), "one more does not");
    assert_eq!((lens(&burst), lens(&more), pool.in_use()), (all, vec![99], held + 1));
    burst.clear();
    more.clear();
    for len in 0..31 {
        burst.push(mbuf(pool, len + 1)).expect("room");
    }

    let mut drain = burst.drain();
    assert_eq!(
        (drain.next().map(|mbuf| mbuf.len()), drain.next().map(|mbuf| mbuf.len())),
        (Some(1), Some(2))
    );
    assert_eq!(drain.len(), 29);
    drop(drain);
    assert_eq!((burst.len(), pool.in_use()), (0, 0), "what was not taken is freed");

    burst.push(mbuf(pool, 1)).unwrap();
    std::mem::forget(burst.drain());
    assert!(burst.is_empty(), "a forgotten drain leaks its packets, it does not free them twice");
    assert_eq!(pool.in_use(), 1);
}

fn a_full_ring_leaves_the_rest_in_order(pool: &Mempool, rx: &mut RxQueue, tx: &mut TxQueue) {
    let before = pool.in_use();
    let mut number = 0_u32;
    let mut burst = MbufBurst::new();
    let left = loop {
        while !burst.is_full() {
            let mut mbuf = pool.alloc().unwrap();
            mbuf.copy_from_slice(&number.to_be_bytes()).unwrap();
            burst.push(mbuf).unwrap();
            number += 1;
        }
        let sent = tx.send(&mut burst);
        assert_eq!(sent + burst.len(), BURST);
        if sent < BURST {
            break burst.len();
        }
    };
    assert!(left > 0, "the ring holds fewer than its power of two");

    let mut seen = 0_u32;
    let mut received = MbufBurst::new();
    loop {
        while rx.receive(&mut received) > 0 {
            for mbuf in received.drain() {
                assert_eq!(mbuf.data(), seen.to_be_bytes(), "in order, across the leftovers");
                seen += 1;
            }
        }
        if burst.is_empty() {
            break;
        }
        tx.send(&mut burst);
    }
    assert_eq!((seen, pool.in_use()), (number, before), "each packet once, and none kept");
}

fn a_chain_is_made_one_segment(eal: &Eal, pool: &Mempool, rx: &mut RxQueue, tx: &mut TxQueue) {
    let before = pool.in_use();
    let whole: Vec<u8> = (0..2048_u16).map(|at| (at % 251) as u8).collect();
    // Where the packet is cut, and how long it is in all: the first segment has room for 2048.
    let rows: &[(&[usize], usize)] =
        &[(&[], 60), (&[1], 60), (&[14, 34], 1500), (&[64, 64, 100, 1000], 2048), (&[2000], 2048)];
    for (cuts, len) in rows {
        let mut burst = MbufBurst::new();
        burst.push(chain(pool, &whole[..*len], cuts)).unwrap();
        assert_eq!((tx.send(&mut burst), rx.receive(&mut burst)), (1, 1));
        let mut mbuf = burst.pop().unwrap();
        let first = cuts.first().unwrap_or(len);
        assert_eq!((mbuf.len(), mbuf.data()), (*len, &whole[..*first]), "{cuts:?}");
        assert_eq!(usize::from(mbuf.segments()), cuts.len() + 1);
        if !cuts.is_empty() {
            let refused = Err(MbufError::Chained(mbuf.segments()));
            assert_eq!(
                (mbuf.set_len(10), mbuf.prepend(4), mbuf.trim_front(4)),
                (refused, refused, refused)
            );
        }
        mbuf.make_contiguous().unwrap();
        assert_eq!((mbuf.segments(), mbuf.len(), mbuf.headroom()), (1, *len, 128), "{cuts:?}");
        assert_eq!(mbuf.data(), &whole[..*len], "{cuts:?}");
        assert_eq!(pool.in_use() - before, 1, "the other segments went back");
    }

    let short = MempoolConfig { mbufs: 63, cache: 0, data_room: 100, socket: None };
    let short = Mempool::new(eal, "short", &short).unwrap();
    let mut mbuf = chain(&short, &whole[..150], &[80]);
    assert_eq!(mbuf.make_contiguous(), Err(no_room(150, 100)), "the first has no room for all");
    assert_eq!((mbuf.segments(), mbuf.len(), mbuf.data()), (2, 150, &whole[..80]), "as it was");
    drop(mbuf);
    assert_eq!((pool.in_use(), short.in_use()), (before, 0), "a chain is freed whole");
}

/// A packet of these bytes, cut into segments.
fn chain(pool: &Mempool, bytes: &[u8], cuts: &[usize]) -> Mbuf {
    let ends = cuts.iter().copied().chain([bytes.len()]);
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let segments = starts.zip(ends).map(|(start, end)| {
        let mut segment = pool.alloc().expect("a packet");
        segment.append(&bytes[start..end]).expect("it fits");
        segment
    });
    let join = |mut head: Mbuf, tail| {
        head.append_segments(tail).expect("few segments");
        head
    };
    segments.reduce(join).expect("one at least")
}

fn tags_travel_beside_the_bytes(pool: &Mempool) {
    let mut packet = pool.alloc().unwrap();
    assert_eq!(packet.stripped(), None);
    packet.insert_tag(0x6007);
    assert_eq!((packet.to_insert(), packet.stripped()), (Some(VlanTcis::One(0x6007)), None));
    let both = VlanTcis::Two { outer: 0xa064, inner: 0x6007 };
    packet.insert_tags(0xa064, 0x6007);
    assert_eq!((packet.to_insert(), packet.stripped()), (Some(both), None));
    let mut packet = pool.alloc().unwrap();
    packet.set_stripped(0xa064, 0x6007);
    assert_eq!((packet.to_insert(), packet.stripped()), (None, Some(both)));
}

fn any_thread_may_allocate_and_free(pool: &Mempool) {
    let before = pool.in_use();
    let hold = |pool: Mempool| {
        (0..1000).map(move |_| pool.alloc().expect("enough for all")).collect::<Vec<Mbuf>>()
    };
    let threads: Vec<_> =
        (0..3).map(|_| pool.clone()).map(|pool| thread::spawn(move || hold(pool))).collect();
    let held: Vec<Vec<Mbuf>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(pool.in_use(), before + 3000);
    for mbufs in held {
        thread::spawn(move || drop(mbufs)).join().unwrap();
    }
    assert_eq!(pool.in_use(), before);

    let all: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!((all.len() as u32, pool.available()), (4095 - before, 0));
    assert!(pool.alloc().is_none(), "an empty pool says so");
}
