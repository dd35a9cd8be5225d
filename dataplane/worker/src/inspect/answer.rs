//! The socket, and a thread for each question.

use std::fs::{self, Permissions};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Scope};
use std::time::Duration;

use penstock_feed as feed;
use penstock_feed::inspect::{self, Answer, Fate, Flow, FlowFilter, NextHop, Question};
use penstock_forward::{
    self as forward, Direction, Explanation, FlowInfo, FlowKey, Protocol, Tick, WorkerIdx,
};
use tracing::warn;

use super::Desk;
use super::desk::NoAnswer;
use crate::kernel::MacAddr;

/// Questions that are answered at the same time.
const MOST_ASKERS: usize = 4;
/// How often the socket is looked at: what a question may be late, and the end of the data plane.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The socket and the desks behind it.
#[derive(Debug)]
pub struct Inspector {
    listener: UnixListener,
    desks: Vec<Mutex<Desk>>,
}

impl Inspector {
    /// Opens the socket in `run_dir`, for our user and root alone: answers name clients.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn open(run_dir: &Path, desks: Vec<Desk>) -> io::Result<Self> {
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
        Ok(Self { listener, desks: desks.into_iter().map(Mutex::new).collect() })
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
        for (worker, desk) in self.desks.iter().enumerate() {
            let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
            let asked = desk.flows(|page, now| {
                looked_at += page.len() as u64;
                for flow in page.iter().map(|flow| tell(flow, worker, now)) {
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
        // Any worker knows the owner, and the owner is not another's.
        for _ in 0..2 {
            let Some(desk) = self.desks.get(worker) else { break };
            let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
            match desk.explain(key) {
                Ok((explanation, now)) => match fate(&explanation, worker, now) {
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

fn tell(flow: &FlowInfo, worker: usize, now: Tick) -> Flow {
    Flow {
        protocol: match flow.protocol {
            Protocol::Tcp => feed::Protocol::Tcp,
            Protocol::Udp => feed::Protocol::Udp,
        },
        client: flow.client,
        vip: flow.vip,
        outside: flow.outside,
        backend: flow.backend,
        state: flow.state.name().to_owned(),
        idle_ms: now.since(flow.last_seen),
        worker,
        listener: flow.listener.0,
        backend_row: flow.backend_id.0,
    }
}

/// What a worker said, or the worker to be asked instead.
fn fate(explanation: &Explanation, worker: usize, now: Tick) -> Result<Fate, WorkerIdx> {
    Ok(match *explanation {
        Explanation::Flow { flow, direction, next_hop } => Fate::Flow {
            flow: tell(&flow, worker, now),
            to_backend: direction == Direction::Forward,
            next_hop: tell_next_hop(next_hop),
        },
        Explanation::New { listener, address, next_hop, .. } => {
            Fate::New { listener: listener.0, backend: address, next_hop: tell_next_hop(next_hop) }
        }
        Explanation::Refused { listener } => Fate::NoBackend { listener: listener.0 },
        Explanation::Punted(class) => Fate::Punted { class: class.name().to_owned() },
        Explanation::Dropped(reason) => Fate::Dropped { reason: reason.name().to_owned() },
        Explanation::Elsewhere(owner) => return Err(owner),
    })
}

fn tell_next_hop(next_hop: forward::NextHop) -> NextHop {
    match next_hop {
        forward::NextHop::Ready { port, mac } => {
            NextHop::Ready { port: u32::from(port.0), mac: MacAddr(mac.0).to_string() }
        }
        forward::NextHop::Unresolved(key) => {
            NextHop::Unresolved { port: u32::from(key.port.0), address: key.address }
        }
        forward::NextHop::Unreachable => NextHop::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use penstock_feed::inspect::ask;
    use penstock_forward::testing::{TestLb, tcp};
    use penstock_forward::{WorkerIdx, wire};

    use super::super::desk_and_probe;
    use super::*;

    const VIP: &str = "192.0.2.10:80";

    /// Two workers with a hundred flows, which answer while `asking` runs.
    fn while_answering(asking: impl FnOnce(&Path, &TestLb<'_>) + Send) {
        let run = tempfile::tempdir().unwrap();
        let mut lb = TestLb::with_workers(
            2,
            "192.0.2.10:80/tcp mode=full-nat backend=10.0.0.3:8080 snat=10.0.0.200",
        );
        for n in 0..100_u16 {
            let syn = tcp(&format!("203.0.113.7:{}", 1000 + n), VIP, wire::tcp::SYN);
            lb.send_and_follow(WorkerIdx(0), syn.bytes());
        }
        let (desks, mut probes): (Vec<_>, Vec<_>) = (0..2).map(|_| desk_and_probe()).unzip();
        let stop = Arc::new(AtomicBool::new(false));
        let inspector = Inspector::open(run.path(), desks).unwrap();
        let inspector = inspector.start(Arc::clone(&stop)).unwrap();
        thread::scope(|scope| {
            let asker = scope.spawn(|| asking(run.path(), &lb));
            while !asker.is_finished() {
                for (worker, probe) in (0..).map(WorkerIdx).zip(&mut probes) {
                    probe.answer_one(lb.worker(worker), &lb.snapshot, lb.now);
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
        while_answering(|run, lb| {
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
        while_answering(|run, lb| {
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
        while_answering(|run, _| {
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
}
