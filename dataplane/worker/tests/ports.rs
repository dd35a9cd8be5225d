//! What the worker promises around the forwarder, with mbufs through a port of DPDK: tags, chains, jumbo frames, and
//! where each packet of a burst goes.
//!
//! A port of `net_ring` has a ring a queue, and receives from it what it sent there: what `outside` sends by queue 0, the
//! worker receives, and the other way round by queue 1, a turn at a time. What must leave is what the forwarder alone makes of the same frame in a `TestLb`, whose own tables say
//! what that is; with the tags of the port. One EAL a process, hence one test.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use penstock_dataplane::clock::Clock;
use penstock_dataplane::config::Config;
use penstock_dataplane::edge::Edge;
use penstock_dataplane::exception::PuntOutbox;
use penstock_dataplane::handover::HandOver;
use penstock_dataplane::hold::Hold;
use penstock_dataplane::inspect::{self, Desk, Inspector, Probe};
use penstock_dataplane::path::{Path, Transmit, WorkerPort};
use penstock_dataplane::pieces::Pieces;
use penstock_dataplane::published::Published;
use penstock_dataplane::receive::{Manner, Reception};
use penstock_dataplane::statistics::{Activity, Statistics};
use penstock_dpdk::{
    Eal, Granted, Mbuf, MbufBurst, Mempool, MempoolConfig, Port, PortConfig, RxQueue, TxQueue,
    VlanTcis,
};
use penstock_feed::inspect::{Answer, PacketExit, PacketFilter, Question, ask};
use penstock_forward::testing::{
    BOX_MAC, Family, TestLb, TestPacket, arp_who_has, fib_of, fragmented,
};
use penstock_forward::wire::tcp::{ACK, SYN};
use penstock_forward::{
    self as forward, BURST, CacheLine, DropReason, Exit, FlowMemory, Forwarder, MacAddr, PortIdx,
    PuntClass, Tag, Tags, WORKER_COLUMNS, WorkerIdx,
};
use rtrb::{Consumer, Producer, RingBuffer};
use tempfile::TempDir;

const LISTENERS: &str = "192.0.2.10:80/tcp backend=10.0.0.3:80 snat=10.0.0.200
     192.0.2.11:80/tcp mode=ipip backend=10.0.0.3:80 snat=10.0.0.200
     192.0.2.12:80/tcp mode=gue-variant-0 backend=10.0.0.3:80 snat=10.0.0.200
     192.0.2.13:80/tcp backend=10.0.1.99:80 snat=10.0.0.200";
const VIPS: [&str; 3] = ["192.0.2.10:80", "192.0.2.11:80", "192.0.2.12:80"];
const FULL_NAT_VIP: &str = VIPS[0];
/// The MAC of its backend is not known.
const HELD_VIP: &str = "192.0.2.13:80";
const CLIENT: &str = "203.0.113.7:40000";
const BACKEND: &str = "10.0.0.3:80";
const SELF: WorkerIdx = WorkerIdx(0);

const SEVEN: Tags = Tags::one(7);
const STACKED: Tags = Tags::two(Tag { ether_type: 0x88a8, vlan: 100 }, 7);

#[test]
fn behind_its_edge_a_port_has_whole_frames_without_tags() {
    let memory = ["--no-huge", "-m", "128", "--no-pci", "-l", "0"];
    let quiet = ["--no-shconf", "--no-telemetry", "--file-prefix=penstock-test"];
    let mut eal = Eal::init(&[&memory[..], &quiet, &["--vdev=net_ring0"]].concat()).unwrap();
    let packets = pool(&eal, "packets", 10_240);
    let short = pool(&eal, "short", 256);
    let mut site = Site::new(&mut eal, &packets);
    for family in Family::BOTH {
        eprintln!("{family:?}");
        site.begin(family);
        site.tags_go_off_and_on(SEVEN, b"\x81\0\x60\x07", b"\x81\0\0\x07");
        site.tags_go_off_and_on(
            STACKED,
            b"\x88\xa8\x60\x64\x81\0\x20\x07",
            b"\x88\xa8\0\x64\x81\0\0\x07",
        );
        site.other_tags_are_refused();
        site.a_nic_does_what_it_can();
        site.chains_are_put_together(&short);
        site.jumbo_frames_pass();
        site.a_burst_of_many_kinds_parts_in_order();
        site.a_whole_burst_finds_room_beside_what_is_to_be_sent();
    }
    site.a_whole_burst_is_watched();
    site.close();
    assert_eq!((packets.in_use(), short.in_use()), (0, 0), "every mbuf went back");
}

fn pool(eal: &Eal, name: &str, data_room: u16) -> Mempool {
    let config = MempoolConfig { mbufs: 1023, cache: 0, data_room, socket: None };
    Mempool::new(eal, name, &config).unwrap()
}

/// A frame with these bytes behind its MAC addresses.
fn with(frame: &[u8], tags: &[u8]) -> Vec<u8> {
    [&frame[..12], tags, &frame[12..]].concat()
}

/// A worker with one port, who is on the other end of its wire, and a forwarder that has none.
struct Site {
    family: Family,
    lb: TestLb<'static>,
    forwarder: Forwarder<'static>,
    path: Path,
    granted: Granted,
    outside: (RxQueue, TxQueue),
    punted: Vec<Consumer<Mbuf>>,
    from_kernel: Producer<Mbuf>,
    watching: Option<(Desk, Probe)>,
    pool: Mempool,
    statistics: Statistics,
    port: Port,
    folder: TempDir,
}

impl Site {
    fn new(eal: &mut Eal, pool: &Mempool) -> Self {
        let folder = TempDir::new().unwrap();
        let text = "ports: [{ name: lan, device: net_ring0, companion: pst0 }]";
        let config = Config::parse("dataplane.yaml", text).unwrap();
        let statistics = Statistics::create(&folder.path().join("stats"), &config).unwrap();
        let queues = PortConfig { rx_queues: 2, tx_queues: 2, ..PortConfig::default() };
        let wanted = PortConfig { mtu: Some(9600), ..queues };
        let port = eal.ports().remove(0).configure(&wanted, pool).unwrap();
        let granted = port.granted().clone();
        assert_eq!(granted.mtu, 9600);
        let (port, mut rx, mut tx) = port.start().unwrap();
        let (punt, punted) = PuntOutbox::new();
        let (from_kernel, to_send) = RingBuffer::new(8);
        let (unresolved, _) = RingBuffer::new(8);
        let (desk, probe, tracer) = inspect::desk_and_probe();
        let path = Path {
            ports: vec![WorkerPort {
                rx: Some(rx.remove(0)),
                tx: Transmit::Queue(tx.remove(1)),
                sending: MbufBurst::new(),
                edge: Edge::default(),
                punt,
                to_send: vec![to_send],
                reception: Reception::new(Manner::Alone),
                arrivals: statistics.arrivals(0, 0),
            }],
            handover: HandOver::between(1).remove(0),
            hold: Hold::new(),
            pieces: Pieces::new(),
            unresolved,
            mempool: pool.clone(),
            tracer,
            drops: statistics.drops(0),
            activity: statistics.activity(0),
        };
        Self {
            family: Family::V4,
            lb: TestLb::with(LISTENERS),
            forwarder: forwarder(&statistics),
            path,
            granted,
            outside: (rx.remove(0), tx.remove(0)),
            punted,
            from_kernel,
            watching: Some((desk, probe)),
            pool: pool.clone(),
            statistics,
            port,
            folder,
        }
    }

    /// Neither forwarder has seen a packet.
    fn begin(&mut self, family: Family) {
        self.family = family;
        self.lb = TestLb::with(&family.text(LISTENERS));
        self.forwarder = forwarder(&self.statistics);
    }

    fn close(mut self) {
        let WorkerPort { rx: Some(rx), tx: Transmit::Queue(tx), .. } = self.path.ports.remove(0)
        else {
            panic!("it has queues of its own");
        };
        self.port.stop(vec![rx, self.outside.0], vec![tx, self.outside.1]).unwrap();
    }

    fn tag(&mut self, tags: Option<Tags>, vlan_strip: bool, vlan_insert: bool) {
        let granted = Granted { vlan_strip, vlan_insert, ..self.granted.clone() };
        self.path.ports[0].edge = Edge::new(tags, &granted);
    }

    fn mbuf(&self, bytes: &[u8]) -> Mbuf {
        let mut mbuf = self.pool.alloc().unwrap();
        mbuf.copy_from_slice(bytes).unwrap();
        mbuf
    }

    fn published(&self) -> Published {
        Published { serial: 1, snapshot: self.lb.snapshot.clone() }
    }

    /// What leaves when these come.
    fn pass(&mut self, mbufs: impl IntoIterator<Item = Mbuf>) -> Vec<Mbuf> {
        let (published, mut burst) = (self.published(), MbufBurst::new());
        for mbuf in mbufs {
            burst.push(mbuf).unwrap();
        }
        self.outside.1.send(&mut burst);
        assert!(burst.is_empty(), "the ring has room");
        self.path.take_packets(&mut self.forwarder, &published, self.lb.now);
        self.path.flush();
        let mut left = Vec::new();
        while self.outside.0.receive(&mut burst) > 0 {
            left.extend(burst.drain());
        }
        left
    }

    /// The bytes of what leaves when a frame comes.
    fn pass_bytes(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        let mbuf = self.mbuf(frame);
        self.pass([mbuf]).iter().map(|mbuf| mbuf.data().to_vec()).collect()
    }

    /// What the other forwarder makes of a frame that it sends on.
    fn expected(&mut self, frame: &[u8]) -> Vec<u8> {
        let (exit, left) = self.lb.send_to(SELF, frame.to_vec());
        assert_eq!(exit, Exit::Send(PortIdx(0)));
        left
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.statistics.writer.cells("drops", 0)[reason as usize].load(Relaxed)
    }

    fn linearized(&self) -> u64 {
        let columns = WORKER_COLUMNS.len() + Activity::Linearized as usize;
        self.statistics.writer.cells("workers", 0)[columns].load(Relaxed)
    }
}

fn forwarder(statistics: &Statistics) -> Forwarder<'static> {
    let lines = vec![CacheLine::ZERO; FlowMemory::lines_for(1024)].leak();
    let memory = FlowMemory::new(lines, 1024).unwrap();
    Forwarder::new(SELF, 1, [42; 32], memory, statistics.counters(0)) // as TestLb's
}

impl Site {
    fn syn(&self, port: u16, vip: &str) -> TestPacket {
        self.family.tcp(&format!("203.0.113.7:{port}"), vip, SYN)
    }

    /// The way there and back, a fragment that waits for the first, a packet that waits for a MAC, and the kernel's.
    fn tags_go_off_and_on(&mut self, tags: Tags, between: &[u8], without_priority: &[u8]) {
        self.begin(self.family);
        self.tag(Some(tags), false, false);
        for vip in VIPS {
            let syn = self.syn(40_000, vip).bytes();
            let left = self.expected(&syn);
            assert_eq!(self.pass_bytes(&with(&syn, between)), [with(&left, between)], "{vip}");
        }
        let outside = self.lb.flows()[0].outside.to_string();
        let reply = self.family.tcp(BACKEND, &outside, SYN | ACK).bytes();
        let left = self.expected(&reply);
        assert_eq!(self.pass_bytes(&with(&reply, between)), [with(&left, between)], "a reply");

        let datagram = self.syn(40_001, FULL_NAT_VIP).carrying(&[7; 44]).bytes();
        let pieces = fragmented(&datagram, 7, &[32, 32]);
        assert_eq!(self.lb.carry(SELF, pieces[1].clone()), [], "a piece waits");
        assert_eq!(self.pass_bytes(&with(&pieces[1], between)), <[Vec<u8>; 0]>::default());
        let left = self.lb.carry(SELF, pieces[0].clone());
        let left: Vec<_> = left.iter().map(|(_, frame)| with(frame, between)).collect();
        assert_eq!(left.len(), 2, "and goes with the first");
        assert_eq!(self.pass_bytes(&with(&pieces[0], between)), left);

        self.what_waits_for_a_mac_has_its_tags_later(between);
        self.the_kernel_sees_no_tags(between, without_priority);
    }

    fn what_waits_for_a_mac_has_its_tags_later(&mut self, between: &[u8]) {
        let syn = self.syn(40_000, HELD_VIP).bytes();
        let (exit, mut left) = self.lb.send_to(SELF, syn.clone());
        let Exit::Hold(next_hop) = exit else { panic!("{exit:?}") };
        assert_eq!(self.pass_bytes(&with(&syn, between)), <[Vec<u8>; 0]>::default());
        self.lb.resolve(next_hop.address);
        let (published, mut burst) = (self.published(), MbufBurst::new());
        self.lb.worker_mut(SELF).resume(&mut left, next_hop, &published.snapshot);
        self.path.retry_held(&mut self.forwarder, &published, self.lb.now);
        self.path.flush();
        self.outside.0.receive(&mut burst);
        assert_eq!(burst.pop().unwrap().data(), with(&left, between));
    }

    fn the_kernel_sees_no_tags(&mut self, between: &[u8], without_priority: &[u8]) {
        let asks = arp_who_has(Ipv4Addr::new(192, 0, 2, 10));
        assert_eq!(self.pass_bytes(&with(&asks, between)), <[Vec<u8>; 0]>::default());
        let punted = self.punted[PuntClass::Neighbour as usize].pop().unwrap();
        assert_eq!(punted.data(), asks, "what it gets");
        self.from_kernel.push(self.mbuf(&asks)).unwrap();
        let left: Vec<_> = self.pass([]).iter().map(|mbuf| mbuf.data().to_vec()).collect();
        assert_eq!(left, [with(&asks, without_priority)], "what it sends");
    }

    fn a_burst_of_many_kinds_parts_in_order(&mut self) {
        self.begin(self.family);
        self.tag(None, false, false);
        let asks = arp_who_has(Ipv4Addr::new(192, 0, 2, 10));
        let elsewhere = self.syn(40_000, FULL_NAT_VIP).to_mac(MacAddr([2, 0, 0, 0, 9, 9])).bytes();
        let syns = [FULL_NAT_VIP, VIPS[1], FULL_NAT_VIP, VIPS[2]].into_iter().zip(41_000..);
        let syns: Vec<_> = syns.map(|(vip, port)| self.syn(port, vip).bytes()).collect();
        let left: Vec<_> = syns.iter().map(|syn| self.expected(syn)).collect();
        let [nat, ipip, again, gue] = &syns[..] else { panic!("four") };
        let frames =
            [&asks, nat, &elsewhere, ipip, &asks, again, gue].map(|frame| self.mbuf(frame));
        let (not_ours, passed) = (self.drops(DropReason::OtherHost), self.pass(frames));
        let passed: Vec<_> = passed.iter().map(|mbuf| mbuf.data().to_vec()).collect();
        assert_eq!(passed, left, "in tunnels or not");
        let punted = [(); 3].map(|()| self.punted[PuntClass::Neighbour as usize].pop().ok());
        let punted = punted.map(|punted| punted.map(|mbuf| mbuf.data().to_vec()));
        assert_eq!(punted, [Some(asks.clone()), Some(asks), None], "as they came");
        assert_eq!(self.drops(DropReason::OtherHost), not_ours + 1);

        let twice = syns.iter().chain(&syns).map(|syn| self.mbuf(syn)).collect::<Vec<_>>();
        let expected: Vec<_> = syns.iter().chain(&syns).map(|syn| self.expected(syn)).collect();
        let passed = self.pass(twice);
        let passed: Vec<_> = passed.iter().map(|mbuf| mbuf.data().to_vec()).collect();
        assert_eq!(passed, expected, "all of them sent");
    }

    /// As many SYNs as a burst holds, each of a connection of its own.
    fn whole_burst(&self) -> Vec<Vec<u8>> {
        let ports = (42_000..).take(BURST);
        ports.map(|port| self.syn(port, FULL_NAT_VIP).bytes()).collect()
    }

    /// Whether none, half, all but one, or all of its places are taken: what waits is sent first, and nothing is lost.
    fn a_whole_burst_finds_room_beside_what_is_to_be_sent(&mut self) {
        for waiting in [0, 1, BURST / 2, BURST - 1, BURST] {
            self.begin(self.family);
            self.tag(None, false, false);
            let asks = arp_who_has(Ipv4Addr::new(192, 0, 2, 10));
            for _ in 0..waiting {
                let mbuf = self.mbuf(&asks);
                self.path.ports[0].sending.push(mbuf).unwrap();
            }
            let syns = self.whole_burst();
            let mut expected = vec![asks; waiting];
            expected.extend(syns.iter().map(|syn| self.expected(syn)));
            let mbufs: Vec<_> = syns.iter().map(|syn| self.mbuf(syn)).collect();
            let lost = self.drops(DropReason::TransmitFull);
            let left: Vec<_> = self.pass(mbufs).iter().map(|mbuf| mbuf.data().to_vec()).collect();
            assert_eq!(left, expected, "{waiting} wait");
            assert_eq!(self.drops(DropReason::TransmitFull), lost);
        }
    }

    /// Each of its packets is told, in order, and leaves as if nobody watched.
    fn a_whole_burst_is_watched(&mut self) {
        self.begin(Family::V4);
        self.tag(None, false, false);
        let (desk, mut probe) = self.watching.take().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let run = self.folder.path().to_owned();
        let inspector = Inspector::open(&run, vec![desk], Clock::new(2_000_000_000)).unwrap();
        let inspector = inspector.start(Arc::clone(&stop)).unwrap();
        let watch = Question::Watch {
            filter: Box::new(PacketFilter::default()),
            count: BURST as u64,
            limit_ms: 20_000,
            frame_bytes: 2048,
        };
        let asker = thread::spawn(move || ask(&run, &watch).unwrap().map(Result::unwrap).collect());
        let snapshot = self.lb.snapshot.clone();
        let mut answer = |site: &mut Self| {
            let (tracer, now) = (&mut site.path.tracer, site.lb.now);
            probe.answer_one(&site.forwarder, &snapshot, tracer, now);
            thread::yield_now();
        };
        while !self.path.tracer.is_watching() {
            answer(self);
        }
        let syns = self.whole_burst();
        let expected: Vec<_> = syns.iter().map(|syn| self.expected(syn)).collect();
        let mbufs: Vec<_> = syns.iter().map(|syn| self.mbuf(syn)).collect();
        let left: Vec<_> = self.pass(mbufs).iter().map(|mbuf| mbuf.data().to_vec()).collect();
        assert_eq!(left, expected, "as if nobody watched");
        while !asker.is_finished() {
            answer(self);
        }
        stop.store(true, Relaxed);
        inspector.join().unwrap();
        let mut answers: Vec<Answer> = asker.join().unwrap();
        let last = answers.pop();
        assert!(matches!(last, Some(Answer::Watched { told: 64, .. })), "{last:?}");
        for ((answer, came), left) in answers.iter().zip(&syns).zip(&expected) {
            let Answer::Packet(packet) = answer else { panic!("{answer:?}") };
            assert_eq!((&packet.arrived.bytes, &packet.exit), (came, &PacketExit::Sent(0)));
            assert_eq!(packet.left.as_ref().map(|frame| &frame.bytes), Some(left));
        }
        assert_eq!(answers.len(), BURST);
    }

    fn other_tags_are_refused(&mut self) {
        let syn = self.syn(40_000, FULL_NAT_VIP).bytes();
        let rows: &[(Option<Tags>, &[u8], DropReason)] = &[
            (Some(SEVEN), b"", DropReason::VlanMismatch),
            (Some(SEVEN), b"\x81\0\0\x08", DropReason::VlanMismatch),
            (Some(SEVEN), b"\x81\0\0\x07\x81\0\0\x07", DropReason::VlanStacked),
            (Some(STACKED), b"\x81\0\0\x07", DropReason::VlanMismatch),
            (None, b"\x81\0\0\x07", DropReason::VlanMismatch),
            (None, b"\x88\xa8\0\x64\x81\0\0\x07", DropReason::VlanStacked),
        ];
        for (tags, between, reason) in rows {
            self.tag(*tags, false, false);
            let (ours, others) = (self.mbuf(&with(&syn, between)), self.drops(*reason));
            let left = self.pass([ours]);
            assert_eq!((left.len(), self.drops(*reason) - others), (0, 1), "{between:x?}");
        }
        // And those beside them are not.
        self.begin(self.family);
        self.tag(Some(SEVEN), false, false);
        let left = with(&self.expected(&syn), b"\x81\0\0\x07");
        let frames = [with(&syn, b"\x81\0\0\x08"), with(&syn, b"\x81\0\0\x07"), syn];
        let mbufs = frames.map(|frame| self.mbuf(&frame));
        let sent: Vec<_> = self.pass(mbufs).iter().map(|mbuf| mbuf.data().to_vec()).collect();
        assert_eq!(sent, [left]);
    }

    /// The bytes are as if there were no tags; the mbuf says what they were, and are to be.
    fn a_nic_does_what_it_can(&mut self) {
        self.begin(self.family);
        self.tag(Some(STACKED), true, true);
        let syn = self.syn(40_000, FULL_NAT_VIP).bytes();
        let left = self.expected(&syn);
        let mut by_nic = self.mbuf(&syn);
        by_nic.set_stripped(0x6064, 0x2007);
        let sent = self.pass([by_nic]);
        let asked = VlanTcis::Two { outer: 0x6064, inner: 0x2007 };
        assert_eq!((sent[0].data(), sent[0].to_insert()), (&left[..], Some(asked)));
        drop(sent);

        let left = self.expected(&syn);
        let by_us = self.mbuf(&with(&syn, b"\x88\xa8\x60\x64\x81\0\x20\x07"));
        let sent = self.pass([by_us]);
        assert_eq!((sent[0].data(), sent[0].to_insert()), (&left[..], Some(asked)), "it left them");
        drop(sent);

        self.tag(Some(SEVEN), true, true);
        let left = self.expected(&syn);
        let sent = self.pass([self.mbuf(&with(&syn, b"\x81\0\x60\x07"))]);
        let asked = VlanTcis::One(0x6007);
        assert_eq!((sent[0].data(), sent[0].to_insert()), (&left[..], Some(asked)));
        drop(sent);

        let reason = DropReason::VlanMismatch;
        let (mut other, before) = (self.mbuf(&syn), self.drops(reason));
        other.set_stripped(0x6065, 0x2007);
        self.tag(Some(STACKED), true, true);
        assert_eq!((self.pass([other]).len(), self.drops(reason) - before), (0, 1));
    }

    fn chains_are_put_together(&mut self, short: &Mempool) {
        self.begin(self.family);
        self.tag(None, false, false);
        let before = self.linearized();
        let segment = self.syn(40_000, FULL_NAT_VIP).carrying(&[5; 1000]).bytes();
        let left = self.expected(&segment);
        let mbuf = chain(&self.pool, &segment, &[13, 40, 41, 700]);
        let sent = self.pass([mbuf]);
        assert_eq!(
            (sent[0].segments(), sent[0].data()),
            (1, &left[..]),
            "one slice, the same bytes"
        );
        drop(sent);

        self.tag(Some(SEVEN), false, false);
        let left = with(&self.expected(&segment), b"\x81\0\0\x07");
        let sent = self.pass([chain(&self.pool, &with(&segment, b"\x81\0\0\x07"), &[14])]);
        assert_eq!(sent[0].data(), left, "cut within its tag");
        drop(sent);
        assert_eq!(self.linearized() - before, 2);

        let (lost, reason) = (self.drops(DropReason::Oversized), DropReason::Oversized);
        let mbuf = chain(short, &segment[..400], &[200]);
        assert_eq!(
            (self.pass([mbuf]).len(), self.drops(reason) - lost),
            (0, 1),
            "too long for one"
        );
        assert_eq!(self.linearized() - before, 2);
    }

    /// What fits 9000 bytes passes whole, with two tags as without; what does not is answered.
    fn jumbo_frames_pass(&mut self) {
        let headers = self.family.l4() + 20 - 14;
        for (tags, between) in
            [(None, &b""[..]), (Some(STACKED), &b"\x88\xa8\x60\x64\x81\0\x20\x07"[..])]
        {
            self.begin(self.family);
            self.tag(tags, false, false);
            let ports = [forward::PortConfig { mac: BOX_MAC, mtu: 9000 }];
            let mut builder = self.lb.builder();
            builder.ports(ports).fib(Arc::new(fib_of(&ports, 2)));
            self.lb.install(&builder);
            let outer = if self.family == Family::V4 { [0, 20, 32] } else { [0, 40, 52] };
            for (vip, outer) in VIPS.into_iter().zip(outer) {
                let syn = self.syn(40_000, vip).bytes();
                let left = self.expected(&syn);
                assert_eq!(self.pass_bytes(&with(&syn, between)), [with(&left, between)]);
                let ip_len = 9000 - outer;
                let data: Vec<u8> = (0..ip_len - headers).map(|at| (at % 251) as u8).collect();
                let whole = self.family.tcp(CLIENT, vip, ACK).carrying(&data).bytes();
                let left = self.expected(&whole);
                assert_eq!((whole.len(), left.len()), (14 + ip_len, 14 + 9000), "{vip}");
                assert_eq!(
                    self.pass_bytes(&with(&whole, between)),
                    [with(&left, between)],
                    "{vip}"
                );

                let longer =
                    self.family.tcp(CLIENT, vip, ACK).carrying(&[&data[..], b"!"].concat());
                let told = self.expected(&longer.bytes());
                assert!(told.len() < 1300, "{vip}: packet too big");
                let told = with(&told, between);
                assert_eq!(self.pass_bytes(&with(&longer.bytes(), between)), [told], "{vip}");
            }
            let outside = self.lb.flows()[0].outside.to_string();
            let data: Vec<u8> = (0..9000 - headers).map(|at| (at % 249) as u8).collect();
            for flags in [SYN | ACK, ACK] {
                let payload = if flags == ACK { &data[..] } else { b"" };
                let reply = self.family.tcp(BACKEND, &outside, flags).carrying(payload).bytes();
                let left = self.expected(&reply);
                assert_eq!(self.pass_bytes(&with(&reply, between)), [with(&left, between)]);
            }
        }
    }
}

/// A packet of these bytes, cut into segments.
fn chain(pool: &Mempool, bytes: &[u8], cuts: &[usize]) -> Mbuf {
    let ends = cuts.iter().copied().chain([bytes.len()]);
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let segments = starts.zip(ends).map(|(start, end)| {
        let mut segment = pool.alloc().unwrap();
        segment.append(&bytes[start..end]).unwrap();
        segment
    });
    let join = |mut head: Mbuf, tail| {
        head.append_segments(tail).unwrap();
        head
    };
    segments.reduce(join).unwrap()
}
