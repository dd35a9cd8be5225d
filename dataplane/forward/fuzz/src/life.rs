//! A life of the box: packets in bursts and one by one to either of two workers, configuration that
//! changes, time that passes, in any order.

use std::collections::{HashSet, VecDeque};
use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use penstock_forward::testing::{Family, TestLb, TestMemory};
use penstock_forward::{BURST, DropReason, Exit, OnUnknown, RaisedBy, Snapshot, WorkerIdx};

use crate::promise;

/// Each mode once for TCP and for UDP; then backends that drain, are not resolved, are behind a
/// narrow route or are none, and clients that are told.
const CONFIGURATIONS: [&str; 2] = [
    "192.0.2.10:80/tcp backend=10.0.0.3:8080 backend=10.0.0.4:80 snat=10.0.0.200
     192.0.2.10:53/udp backend=10.0.0.3:5300 snat=10.0.0.200
     192.0.2.11:80/tcp mode=dnat backend=10.0.0.3:8080
     192.0.2.11:53/udp mode=dnat backend=10.0.0.3:5300
     192.0.2.12:80/tcp mode=l2-dsr backend=10.0.0.5:80
     192.0.2.12:53/udp mode=l2-dsr backend=10.0.0.5:53
     192.0.2.13:80/tcp mode=ipip backend=10.0.0.6:80 snat=10.0.0.200
     192.0.2.13:53/udp mode=ipip backend=10.0.0.6:53 snat=10.0.0.200
     192.0.2.14:80/tcp mode=gue backend=10.0.0.7:80 snat=10.0.0.200
     192.0.2.14:53/udp mode=gue backend=10.0.0.7:53 snat=10.0.0.200
     192.0.2.15:80/tcp mode=gue-variant-0 backend=10.0.0.8:80 snat=10.0.0.200
     192.0.2.15:53/udp mode=gue-variant-0 backend=10.0.0.8:53 snat=10.0.0.200",
    "192.0.2.10:80/tcp backend=10.0.0.3:8080*drain backend=10.77.0.5:80 snat=10.0.0.200 on-unknown=reset
     192.0.2.10:53/udp backend=10.77.0.5:5300 snat=10.0.0.200
     192.0.2.11:80/tcp mode=dnat backend=10.0.1.99:8080 backend=10.66.0.1:80 on-unknown=reset
     192.0.2.11:53/udp mode=dnat on-exhaustion=icmp
     192.0.2.12:80/tcp mode=l2-dsr backend=10.77.0.5:80
     192.0.2.13:80/tcp mode=ipip backend=10.77.0.5:80 snat=10.0.0.200
     192.0.2.13:53/udp mode=ipip backend=10.0.1.99:53 snat=10.0.0.200
     192.0.2.14:80/tcp mode=gue backend=10.77.0.5:80 snat=10.0.0.200
     192.0.2.15:53/udp mode=gue-variant-0 on-exhaustion=icmp",
];
/// Tunnels of one family to backends of the other.
const MIXED: [&str; 3] =
    ["192.0.2.16:80/tcp mode=ipip", "192.0.2.17:80/tcp mode=gue", "192.0.2.17:53/udp mode=ipip"];
const WORKERS: u8 = 2;
const CAPACITY: usize = 16;
/// In which a worker looks at all datagrams of which pieces came.
const A_ROUND_MS: u32 = 600;
/// Frames that were sent and not forgotten: errors quote them.
const REMEMBERED: usize = 8;

/// The configurations, built once: only packets and their order are fuzzed. The last one ends flows
/// that nobody serves.
static SNAPSHOTS: LazyLock<Vec<Snapshot>> = LazyLock::new(|| {
    let mut memory = TestMemory::new(1, 1);
    let mut lb = TestLb::in_memory(&mut memory, "");
    let mut snapshots = Vec::new();
    for configuration in CONFIGURATIONS {
        lb.reconfigure(&spec(configuration));
        snapshots.push(lb.snapshot.clone());
    }
    let mut builder = lb.builder();
    builder.snat_on_unknown(OnUnknown::Reset);
    lb.install(&builder);
    lb.end_unserved(0);
    snapshots.push(lb.snapshot.clone());
    snapshots
});

/// A configuration in both families, with tunnels between the two.
fn spec(configuration: &str) -> String {
    let mixed = |[vip, behind]: [Family; 2]| {
        let backend = behind.text("backend=10.0.0.9:80 snat=10.0.0.200");
        MIXED.map(|listener| format!("{} {backend}", vip.text(listener))).join("\n")
    };
    let same = Family::BOTH.map(|family| family.text(configuration));
    let [v4, v6] = Family::BOTH;
    [same.join("\n"), mixed([v4, v6]), mixed([v6, v4])].join("\n")
}

/// The box, and what is remembered of what it did.
pub struct Life<'m> {
    /// The box.
    pub lb: TestLb<'m>,
    /// Frames that were sent lately, the youngest last.
    pub sent: VecDeque<Vec<u8>>,
    pieces: HashSet<(u16, Vec<u8>)>,
    /// RSTs of ours, by worker, that no way was found for: they have a reason, and are no packets that came.
    resets_lost: [u64; WORKERS as usize],
}

/// Lives `script`, in which `frames` says which packets come next.
///
/// # Panics
/// If a promise is broken.
pub fn live(script: &[u8], frames: fn(&mut Unstructured, &Life) -> Result<Vec<Vec<u8>>>) {
    let mut memory = TestMemory::new(WORKERS, CAPACITY);
    let mut lb = TestLb::in_memory(&mut memory, "");
    lb.snapshot = SNAPSHOTS[0].clone();
    let mut life = Life {
        lb,
        sent: VecDeque::new(),
        pieces: HashSet::new(),
        resets_lost: [0; WORKERS as usize],
    };
    let mut script = Unstructured::new(script);
    while !script.is_empty() {
        if life.step(&mut script, frames).is_err() {
            break; // the script ended within a step
        }
    }
    life.end();
}

impl Life<'_> {
    fn step(
        &mut self,
        script: &mut Unstructured,
        frames: fn(&mut Unstructured, &Life) -> Result<Vec<Vec<u8>>>,
    ) -> Result<()> {
        let what: u8 = script.arbitrary()?;
        let worker = WorkerIdx(what >> 4 & 1);
        match what & 0x0f {
            0 => self.lb.snapshot = script.choose(&SNAPSHOTS)?.clone(),
            1 => self.sleep(script.arbitrary::<u16>()?.into()),
            2 => self.sleep(u32::from(script.arbitrary::<u8>()?) << 16),
            3..=7 => {
                let mut burst = frames(script, self)?;
                burst.truncate(BURST);
                self.burst(worker, burst);
            }
            _ => {
                for frame in frames(script, self)? {
                    self.carry(worker, frame);
                }
            }
        }
        Ok(())
    }

    fn sleep(&mut self, ms: u32) {
        self.lb.sleep_ms(ms);
        for (exit, frame) in self.lb.take_ended() {
            self.check(None, exit, &frame);
        }
        for worker in (0..WORKERS).map(WorkerIdx) {
            for (exit, frame) in self.lb.take_resets(worker) {
                self.resets_lost[usize::from(worker.0)] += u64::from(matches!(exit, Exit::Drop(_)));
                self.check(None, exit, &frame);
            }
        }
    }

    /// Packets side by side. A piece that would have to be kept is not.
    fn burst(&mut self, worker: WorkerIdx, frames: Vec<Vec<u8>>) {
        for frame in &frames {
            self.pieces.extend(promise::piece(frame));
        }
        let came = frames.clone();
        let left = self.lb.send_burst(worker, frames);
        for (exit, left) in self.lb.take_ended() {
            self.check(None, exit, &left);
        }
        for (came, (exit, left)) in came.iter().zip(left) {
            match exit {
                Exit::HandOver(owner) => {
                    assert_eq!(*came, left, "unchanged");
                    self.carry(owner, left);
                }
                Exit::Punt(_) | Exit::Await(_) => assert_eq!(*came, left, "unchanged"),
                exit => self.check(Some(came), exit, &left),
            }
        }
    }

    /// One packet to its end, and others that waited for it.
    fn carry(&mut self, worker: WorkerIdx, frame: Vec<u8>) {
        self.pieces.extend(promise::piece(&frame));
        let kept = self.lb.kept();
        let ended = self.lb.carry(worker, frame.clone());
        assert_eq!(
            kept + 1,
            ended.len() + self.lb.kept(),
            "none is lost unnamed, none comes twice"
        );
        for (exit, left) in ended {
            assert!(!matches!(exit, Exit::HandOver(_) | Exit::Await(_)));
            self.check(Some(&frame), exit, &left);
        }
    }

    fn check(&mut self, came: Option<&[u8]>, exit: Exit, left: &[u8]) {
        if !matches!(exit, Exit::Send(_)) {
            return;
        }
        if promise::is_later_piece(left) {
            let piece = promise::piece(left).expect("it is one");
            assert!(self.pieces.contains(&piece), "a piece that did not come: {left:02x?}");
        }
        promise::holds(came, left);
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back(left.to_vec());
    }

    /// Every packet left exactly one way, and every drop has its reason.
    fn count(&self) {
        const EXITS: [&str; 6] = ["sent", "punted", "handed_over", "held", "awaiting", "dropped"];
        for worker in (0..WORKERS).map(WorkerIdx) {
            let count = |name| self.lb.worker_counter(worker, name);
            assert_eq!(count("packets"), EXITS.map(count).iter().sum::<u64>());
            let ours = |(name, _): &&(String, u64)| {
                let ours =
                    DropReason::ALL.iter().filter(|it| it.raised_by() == RaisedBy::Forwarder);
                ours.map(|reason| reason.name()).any(|it| name.strip_prefix("drop_") == Some(it))
            };
            let counted = self.lb.counted(worker);
            let drops: u64 = counted.iter().filter(ours).map(|(_, count)| count).sum();
            let lost = count("dropped") + self.resets_lost[usize::from(worker.0)];
            assert_eq!(lost, drops, "each by its name");
            assert!(self.lb.worker(worker).live_flows() <= CAPACITY);
        }
    }

    /// Whatever happened, everything that waits and all flows end.
    fn end(&mut self) {
        self.count();
        for _ in 0..4 {
            self.sleep(100_000_000);
        }
        if self.lb.kept() > 0 {
            self.lb.wait_ms(A_ROUND_MS);
        }
        assert_eq!(self.lb.kept(), 0);
        assert_eq!(self.lb.flows(), []);
    }
}
