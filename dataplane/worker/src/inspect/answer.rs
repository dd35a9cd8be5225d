//! The socket, and a thread for each question.

use std::fs::{self, Permissions};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Scope};
use std::time::{Duration, Instant};

use penstock_feed as feed;
use penstock_feed::inspect::{self, Answer, FlowFilter, Question};
use penstock_forward::{FlowKey, Protocol};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tracing::warn;

use super::desk::NoAnswer;
use super::tracer::{Sighting, Watch};
use super::{Desk, tell};
use crate::clock::Clock;

/// Questions that are answered at the same time.
const MOST_ASKERS: usize = 4;
/// How often the socket is looked at: what a question may be late, and the end of the data plane.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often a worker's sightings are looked for when there were none.
const LOOK_AT_SIGHTINGS_EVERY: Duration = Duration::from_millis(2);

/// The socket and the desks behind it.
#[derive(Debug)]
pub struct Inspector {
    listener: UnixListener,
    desks: Vec<Mutex<Desk>>,
    /// Held by whoever watches packets.
    watching: Mutex<()>,
    clock: Clock,
}

impl Inspector {
    /// Opens the socket in `run_dir`, for our user and root alone: answers name clients.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn open(run_dir: &Path, desks: Vec<Desk>, clock: Clock) -> io::Result<Self> {
        let path = run_dir.join(inspect::SOCKET);
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(named)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(named)?;
        listener.set_nonblocking(true).map_err(named)?;
        let desks = desks.into_iter().map(Mutex::new).collect();
        Ok(Self { listener, desks, watching: Mutex::new(()), clock })
    }

    /// Answers until `stop`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(self, stop: Arc<AtomicBool>) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("inspect".into()).spawn(move || {
            let askers = AtomicUsize::new(0);
            thread::scope(|scope| {
                while !stop.load(Ordering::Relaxed) {
                    match self.listener.accept() {
                        Ok((stream, _)) => self.receive(stream, &askers, &stop, scope),
                        Err(_) => thread::sleep(LOOK_EVERY), // nobody asks, or no descriptor is left
                    }
                }
            });
        })
    }

    /// Gives the asker a thread, unless there are many.
    fn receive<'s>(
        &'s self,
        stream: UnixStream,
        askers: &'s AtomicUsize,
        stop: &'s AtomicBool,
        scope: &'s Scope<'s, '_>,
    ) {
        if askers.fetch_add(1, Ordering::Relaxed) >= MOST_ASKERS {
            askers.fetch_sub(1, Ordering::Relaxed);
            let busy = format!("{MOST_ASKERS} questions are being answered: ask again later");
            let _ = inspect::put(&mut &stream, &Answer::Refused(busy)); // or it never knows
            return;
        }
        let answer = move || {
            if let Err(error) = self.answer(&stream, stop) {
                // An asker who goes away is no event.
                if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::WouldBlock) {
                    warn!(%error, "a question was not answered");
                }
            }
            askers.fetch_sub(1, Ordering::Relaxed);
        };
        if let Err(error) = thread::Builder::new().name("asker".into()).spawn_scoped(scope, answer)
        {
            askers.fetch_sub(1, Ordering::Relaxed);
            warn!(%error, "a question was not answered");
        }
    }

    fn answer(&self, stream: &UnixStream, stop: &AtomicBool) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(inspect::PATIENCE))?;
        stream.set_write_timeout(Some(inspect::PATIENCE))?;
        let mut out = BufWriter::new(stream);
        let last = match inspect::read_question(stream) {
            Ok(Question::Flows { filter, limit }) => self.flows(&filter, limit, stop, &mut out)?,
            Ok(Question::Explain { source, destination, protocol }) => {
                self.explain(source, destination, protocol)
            }
            Ok(Question::Watch { filter, count, limit_ms, frame_bytes }) => {
                let watch = Watch { filter: *filter, left: count, frame_bytes };
                let limit = Duration::from_millis(limit_ms.into());
                self.watch(watch, limit, &mut out, || {
                    stop.load(Ordering::Relaxed) || has_gone(stream)
                })?
            }
            Err(error) => Answer::Refused(format!("no question: {error}")),
        };
        inspect::put(&mut out, &last)?;
        out.flush()
    }

    fn flows(
        &self,
        filter: &FlowFilter,
        limit: u64,
        stop: &AtomicBool,
        out: &mut impl Write,
    ) -> io::Result<Answer> {
        let (mut looked_at, mut matched, mut written) = (0, 0, Ok(()));
        for worker in 0..self.desks.len() {
            let asked = self.desk(worker).flows(|page, now| {
                looked_at += page.len() as u64;
                for flow in page.iter().map(|flow| tell::flow(flow, worker, now)) {
                    if filter.matches(&flow) {
                        matched += 1;
                        if matched <= limit && written.is_ok() {
                            written = inspect::put(out, &Answer::Flow(flow));
                        }
                    }
                }
                written.is_ok() && !stop.load(Ordering::Relaxed)
            });
            if let Err(fault @ NoAnswer) = asked {
                return Ok(Answer::Refused(format!("worker {worker} {fault}")));
            }
        }
        written.map(|()| Answer::Done { looked_at, matched })
    }

    fn explain(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        protocol: feed::Protocol,
    ) -> Answer {
        let protocol = match protocol {
            feed::Protocol::Tcp => Protocol::Tcp,
            feed::Protocol::Udp => Protocol::Udp,
        };
        let Some(key) = FlowKey::new(source, destination, protocol) else {
            return Answer::Refused(format!("{source} and {destination} are of two families"));
        };
        let mut worker = 0;
        // Any worker knows the owner; while a listener changes, there may be one to be asked before.
        for handed in [false, true, true] {
            match self.desk(worker).explain(key, handed) {
                Ok((explanation, now)) => match tell::fate(&explanation, worker, now) {
                    Ok(fate) => return Answer::Explained { worker, fate },
                    Err(owner) => worker = usize::from(owner.0),
                },
                Err(fault @ NoAnswer) => {
                    return Answer::Refused(format!("worker {worker} {fault}"));
                }
            }
        }
        Answer::Refused("the workers do not agree whose flow it is: ask again".to_owned())
    }
}

impl Inspector {
    /// Tells packets until there were enough of them, `limit` has passed, or it is `over`.
    fn watch(
        &self,
        watch: Watch,
        limit: Duration,
        out: &mut impl Write,
        over: impl Fn() -> bool,
    ) -> io::Result<Answer> {
        let Ok(_turn) = self.watching.try_lock() else {
            let busy = "another trace or capture runs: ask again when it has ended";
            return Ok(Answer::Refused(busy.to_owned()));
        };
        for worker in 0..self.desks.len() {
            let mut desk = self.desk(worker);
            while desk.sighting(|_| ()).is_some() {} // of a watch that was given up
            if let Err(fault @ NoAnswer) = desk.watch(Some(watch)) {
                return Ok(Answer::Refused(format!("worker {worker} {fault}")));
            }
        }
        let until = Instant::now() + limit;
        let (mut told, mut written) = (0, Ok(()));
        while written.is_ok() && told < watch.left && Instant::now() < until && !over() {
            let before = told;
            written = self.tell_some(watch.left, &mut told, out);
            if told == before {
                written = written.and_then(|()| out.flush());
                thread::sleep(LOOK_AT_SIGHTINGS_EVERY);
            }
        }
        let mut missed = 0;
        for worker in 0..self.desks.len() {
            // If it does not answer, the next watch will tell.
            missed += self.desk(worker).watch(None).unwrap_or(0);
        }
        written.and_then(|()| self.tell_some(watch.left, &mut told, out))?;
        Ok(Answer::Watched { told, missed })
    }

    /// Tells what the workers have met by now, up to `most` in all.
    fn tell_some(&self, most: u64, told: &mut u64, out: &mut impl Write) -> io::Result<()> {
        for worker in 0..self.desks.len() {
            let packet = |sighting: &Sighting| tell::packet(sighting, worker, self.clock);
            while *told < most {
                let Some(packet) = self.desk(worker).sighting(packet) else { break };
                *told += 1;
                inspect::put(out, &Answer::Packet(Box::new(packet)))?;
            }
        }
        Ok(())
    }

    fn desk(&self, worker: usize) -> MutexGuard<'_, Desk> {
        self.desks[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the asker has closed its end: it says no more than its question.
fn has_gone(stream: &UnixStream) -> bool {
    let mut byte = [0];
    match recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, 0)) => true,
        Ok(_) => false,
        Err(error) => error != Errno::AGAIN,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use penstock_feed::inspect::{Fate, PacketExit, PacketFilter, ask};
    use penstock_forward::testing::{TestLb, tcp};
    use penstock_forward::{DropReason, Exit, PortIdx, PuntClass, Traced, WorkerIdx, wire};

    use super::super::desk_and_probe;
    use super::*;

    const VIP: &str = "192.0.2.10:80";

    /// Two workers with a hundred flows, which answer while `asking` runs. In each turn the first worker
    /// meets `packets`, as `lcore` has it.
    fn while_answering(
        packets: &[(&[u8], Exit, Option<DropReason>)],
        asking: impl FnOnce(&Path, &TestLb<'_>) + Send,
    ) {
        let run = tempfile::tempdir().unwrap();
        let mut lb = TestLb::with_workers(
            2,
            "192.0.2.10:80/tcp mode=full-nat backend=10.0.0.3:8080 snat=10.0.0.200",
        );
        for n in 0..100_u16 {
            let syn = tcp(&format!("203.0.113.7:{}", 1000 + n), VIP, wire::tcp::SYN);
            lb.send_and_follow(WorkerIdx(0), syn.bytes());
        }
        let (mut desks, mut probes) = (Vec::new(), Vec::new());
        for (desk, probe, tracer) in (0..2).map(|_| desk_and_probe()) {
            desks.push(desk);
            probes.push((probe, tracer));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let inspector = Inspector::open(run.path(), desks, Clock::new(2_000_000_000)).unwrap();
        let inspector = inspector.start(Arc::clone(&stop)).unwrap();
        thread::scope(|scope| {
            let asker = scope.spawn(|| asking(run.path(), &lb));
            while !asker.is_finished() {
                for (worker, (probe, tracer)) in (0..).map(WorkerIdx).zip(&mut probes) {
                    probe.answer_one(lb.worker(worker), &lb.snapshot, tracer, lb.now);
                }
                let tracer = &mut probes[0].1;
                if tracer.is_watching() {
                    for (at, (frame, exit, lost)) in packets.iter().enumerate() {
                        tracer.arrived(at, frame, PortIdx(3), 1, lb.now);
                        tracer.forwarded(at, frame, *exit, || Traced::Unclaimed);
                        tracer.dispatched(at, *lost);
                    }
                }
                thread::yield_now();
            }
        });
        stop.store(true, Ordering::Relaxed);
        inspector.join().unwrap();
    }

    fn answers(run: &Path, question: &Question) -> Vec<Answer> {
        ask(run, question).unwrap().map(Result::unwrap).collect()
    }

    fn all(limit: u64) -> Question {
        Question::Flows { filter: Box::default(), limit }
    }

    #[test]
    fn the_flows_of_all_workers_are_told() {
        while_answering(&[], |run, lb| {
            let mut told = answers(run, &all(1000));
            assert_eq!(told.pop(), Some(Answer::Done { looked_at: 100, matched: 100 }));
            let clients: BTreeSet<_> = told
                .iter()
                .map(|answer| match answer {
                    Answer::Flow(flow) => {
                        assert_eq!(flow.state, "syn-sent");
                        flow.client
                    }
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(clients, lb.flows().iter().map(|flow| flow.client).collect());
            let told = answers(run, &all(3));
            assert_eq!(told.len(), 4);
            assert_eq!(told[3], Answer::Done { looked_at: 100, matched: 100 });
        });
    }

    #[test]
    fn the_owner_explains() {
        while_answering(&[], |run, lb| {
            let mut owners = BTreeSet::new();
            for flow in lb.flows() {
                let question = Question::Explain {
                    source: flow.client,
                    destination: flow.vip,
                    protocol: feed::Protocol::Tcp,
                };
                match &answers(run, &question)[..] {
                    [Answer::Explained { worker, fate: Fate::Flow { flow: told, .. } }] => {
                        assert_eq!((told.client, told.outside), (flow.client, flow.outside));
                        owners.insert(*worker);
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(owners, [0, 1].into());
        });
    }

    #[test]
    fn what_cannot_be_answered_is_refused_with_the_next_move() {
        while_answering(&[], |run, _| {
            let mixed = Question::Explain {
                source: "[2001:db8::1]:1".parse().unwrap(),
                destination: VIP.parse().unwrap(),
                protocol: feed::Protocol::Udp,
            };
            let [Answer::Refused(reason)] = &answers(run, &mixed)[..] else { panic!("refused") };
            assert!(reason.ends_with("are of two families"), "{reason}");

            let silent: Vec<_> = (0..MOST_ASKERS)
                .map(|_| UnixStream::connect(run.join(inspect::SOCKET)).unwrap())
                .collect();
            let [Answer::Refused(reason)] = &answers(run, &all(1))[..] else { panic!("refused") };
            assert!(reason.contains("ask again later"), "{reason}");
            drop(silent);
            while !matches!(&answers(run, &all(1))[..], [Answer::Flow(_), Answer::Done { .. }]) {
                thread::sleep(Duration::from_millis(1)); // until it has seen them go
            }
            let mode = fs::metadata(run.join(inspect::SOCKET)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        });
    }

    fn watch(filter: PacketFilter, count: u64, limit_ms: u32) -> Question {
        Question::Watch { filter: Box::new(filter), count, limit_ms, frame_bytes: 60 }
    }

    #[test]
    fn packets_are_told_as_they_arrive_and_leave_with_what_became_of_them() {
        let syn = tcp("203.0.113.7:4000", VIP, wire::tcp::SYN).padded_to(200).bytes();
        let other = tcp("203.0.113.8:4000", VIP, wire::tcp::SYN).bytes();
        let arp = [0xff; 60];
        let packets: &[(&[u8], Exit, Option<DropReason>)] = &[
            (&arp, Exit::Punt(PuntClass::Neighbour), None),
            (&syn, Exit::Send(PortIdx(1)), None),
            (&syn, Exit::Punt(PuntClass::Other), Some(DropReason::PuntFull)),
            (&syn, Exit::Drop(DropReason::NoFlow), None),
            (&other, Exit::Punt(PuntClass::Other), None),
        ];
        let told = |run: &Path, question: &Question| {
            let mut answers = answers(run, question);
            let last = answers.pop();
            let packets = answers.into_iter().map(|answer| match answer {
                Answer::Packet(packet) => *packet,
                other => panic!("{other:?}"),
            });
            (packets.collect::<Vec<_>>(), last)
        };
        while_answering(packets, |run, _| {
            let (all, last) = told(run, &watch(PacketFilter::default(), 10, 10_000));
            assert!(matches!(last, Some(Answer::Watched { told: 10, .. })), "{last:?}");
            let exits: Vec<_> = all[..4].iter().map(|packet| &packet.exit).collect();
            let dropped = |reason: &str| PacketExit::Dropped(reason.into());
            let expected = [
                PacketExit::Punted("neighbour".into()),
                PacketExit::Sent(1),
                dropped("punt_full"),
                dropped("no_flow"),
            ];
            assert_eq!(exits, expected.iter().collect::<Vec<_>>());
            assert_eq!((all[1].ingress, all[1].arrived.len), (3, 200));
            assert_eq!(all[1].arrived.bytes, syn[..60], "no more than was asked for");
            assert_eq!(all[1].left.as_ref().map(|left| left.len), Some(200));
            assert_eq!(all[0].left, None, "unchanged, and not sent");

            let port = Some("203.0.113.7:4000".parse().unwrap());
            let filter = PacketFilter { either: port, dropped: true, ..PacketFilter::default() };
            let (lost, _) = told(run, &watch(filter, 300, 10_000));
            assert_eq!(lost.len(), 300, "more than there are boxes");
            let of =
                |reason: &str| lost.iter().filter(|packet| packet.exit == dropped(reason)).count();
            let (full, no_flow) = (of("punt_full"), of("no_flow"));
            assert!(full > 0 && no_flow > 0 && full + no_flow == 300, "{full} and {no_flow}");
        });
    }

    #[test]
    fn a_watch_ends_by_its_time_or_when_the_asker_goes_and_there_is_one_at_a_time() {
        let nobody = Some("198.51.100.1".parse().unwrap());
        let filter = PacketFilter { source: nobody, ..PacketFilter::default() };
        while_answering(&[], |run, _| {
            let ended = answers(run, &watch(filter, 1, 20));
            assert_eq!(ended, [Answer::Watched { told: 0, missed: 0 }]);

            let second = || answers(run, &watch(filter, 1, 1)).remove(0);
            let long = loop {
                let mut long = UnixStream::connect(run.join(inspect::SOCKET)).unwrap();
                inspect::put(&mut long, &watch(filter, 1, 60_000)).unwrap();
                thread::sleep(Duration::from_millis(50));
                if let Answer::Refused(reason) = second() {
                    assert!(reason.contains("another trace or capture runs"), "{reason}");
                    break long;
                } // else the second came first, and the first one was refused
            };
            drop(long);
            while matches!(second(), Answer::Refused(_)) {
                thread::sleep(Duration::from_millis(1));
            }
        });
    }
}
