//! `churn`: a control process that changes its mind all the time.
//!
//! Two listeners: one whose backends stay, and one whose backends are weighed anew, drained, removed and added,
//! one change a transaction. The last state is the first again, so that a second run can go on from there.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use penstock_feed::model::{
    Affinity, Group, Listener, Member, Mode, Name, Policies, PortRange, Protocol, State,
};
use penstock_feed::{Ack, Producer};
use serde::Serialize;

use crate::print_json;

const PATIENCE: Duration = Duration::from_secs(20);
/// Changes until all begins anew.
const ROUND: u64 = 8;

/// Publish two listeners to a data plane, and change the backends of one of them again and again
#[derive(Args)]
pub(crate) struct Arguments {
    /// The data plane's socket
    socket: PathBuf,
    /// The VIP and L4 port whose backends stay
    #[arg(long)]
    steady: SocketAddr,
    /// The VIP and L4 port whose backends change
    #[arg(long)]
    changing: SocketAddr,
    /// A backend of both, several times
    #[arg(long, required = true)]
    backend: Vec<SocketAddr>,
    /// How many changes
    #[arg(long, default_value_t = 0)]
    changes: u64,
    /// Over so many seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

#[derive(Default, Serialize)]
struct Report {
    /// Transactions sent.
    changes: u64,
    /// Whether the data plane forwards by the last of them.
    in_force: bool,
    /// Acknowledgements; one may stand for several changes.
    acknowledgements: usize,
    /// Objects that the data plane could not serve, and transactions that it refused.
    refused: usize,
    seconds: f64,
}

/// Runs until all changes are in force or `stop` is raised.
pub(crate) fn run(arguments: &Arguments, stop: &AtomicBool) -> io::Result<()> {
    let mut producer = Producer::connect(&arguments.socket, PATIENCE).map_err(io::Error::other)?;
    let mut generation = producer.hello().generation + 1;
    let first = Arc::new(state(arguments, 0).map_err(io::Error::other)?);
    producer.adopt(&first);
    let (begin, mut report) = (Instant::now(), Report::default());
    publish(&mut producer, generation, &first)?;
    let pause =
        Duration::from_secs(arguments.seconds).as_secs_f64() / arguments.changes.max(1) as f64;
    for change in 1..=arguments.changes {
        if stop.load(Relaxed) {
            break;
        }
        let due = Duration::from_secs_f64(pause * change as f64);
        thread::sleep(due.saturating_sub(begin.elapsed()));
        let last = change == arguments.changes;
        let next = state(arguments, if last { 0 } else { change }).map_err(io::Error::other)?;
        generation += 1;
        publish(&mut producer, generation, &Arc::new(next))?;
        report.changes += 1;
        for ack in producer.wait(Duration::ZERO).map_err(io::Error::other)? {
            report.note(&ack, generation);
        }
    }
    while !report.in_force && begin.elapsed() < Duration::from_secs(arguments.seconds) + PATIENCE {
        for ack in producer.wait(Duration::from_secs(1)).map_err(io::Error::other)? {
            report.note(&ack, generation);
        }
    }
    report.seconds = begin.elapsed().as_secs_f64();
    print_json(&report)
}

fn publish(producer: &mut Producer, generation: u64, state: &Arc<State>) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    producer.publish(generation, state, deadline).map(drop).map_err(io::Error::other)
}

impl Report {
    fn note(&mut self, ack: &Ack, generation: u64) {
        self.acknowledgements += 1;
        self.refused += ack.errors.len() + usize::from(ack.refused.is_some());
        self.in_force |= ack.generation == generation;
    }
}

/// The state after so many changes; after none, all backends have the same weight.
fn state(
    arguments: &Arguments,
    change: u64,
) -> Result<State, Box<dyn std::error::Error + Send + Sync>> {
    let (steady, changing) = (Name::new("steady")?, Name::new("changing")?);
    let mut state = State::default();
    for (name, vip) in [(&steady, arguments.steady), (&changing, arguments.changing)] {
        let listener = Listener {
            vip: vip.ip(),
            protocol: Protocol::Tcp,
            ports: PortRange::single(vip.port())?,
            mode: Mode::FullNat,
            affinity: Affinity::Tuple,
            policies: Policies::default(),
            source_ranges: None,
            group: name.clone(),
            snat_pool: None,
        };
        state.listeners.insert_mut(name.clone(), listener);
    }
    let members = members(&arguments.backend, 0);
    state.groups.insert_mut(steady, Arc::new(Group { members, refused_weight: 0 }));
    let members = self::members(&arguments.backend, change);
    state.groups.insert_mut(changing, Arc::new(Group { members, refused_weight: 0 }));
    Ok(state)
}

/// The group after so many changes: in each round another backend is weighed anew, drained, removed and taken back,
/// and one that nobody hears at comes and goes.
fn members(backends: &[SocketAddr], change: u64) -> std::collections::BTreeMap<SocketAddr, Member> {
    let member = Member { weight: 1, draining: false };
    let mut members: std::collections::BTreeMap<_, _> =
        backends.iter().map(|backend| (*backend, member)).collect();
    let chosen = backends[(change / ROUND) as usize % backends.len()];
    let passing = SocketAddr::new(chosen.ip(), 10_000 + (change / ROUND % 1000) as u16);
    match change % ROUND {
        1 => drop(members.insert(chosen, Member { weight: 2 + (change % 7) as u32, ..member })),
        2 => drop(members.insert(chosen, Member { draining: true, ..member })),
        3 => drop(members.remove(&chosen)),
        4 => drop(members.insert(chosen, Member { weight: 0, ..member })),
        5 => drop(members.insert(passing, member)),
        6 => {
            members.insert(passing, Member { weight: 9, ..member });
            members.remove(&chosen);
        }
        7 => drop(members.insert(passing, Member { draining: true, ..member })),
        _ => {}
    }
    members
}
