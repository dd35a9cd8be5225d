//! `one_change [FILTER]`: what a change of one object costs the data plane beside ten, a thousand and ten
//! thousand others, from the producer's call to the acknowledgement in its hand.
//!
//! A box serves N listeners with a VIP each, and N groups of ten members. Both ends of the feed, the
//! translator and the pointer that workers read are the real ones, in one thread, without workers and
//! without a kernel. A line a step: name, median, spread (least to most), unit.
//!
//! | step       | what it is                                                                          |
//! |------------|-------------------------------------------------------------------------------------|
//! | `send`     | the producer's end: apply, check, digest, encode, into the ring                      |
//! | `commit`   | the consumer's end: out of the ring, decode, apply, check, digest, the saver is told |
//! | `translate`| state to snapshot, with a Maglev table of the group that changed, and its labels     |
//! | `publish`  | the pointer is swapped and what the old snapshot alone held is freed                 |
//! | `answer`   | the acknowledgement, until the producer has it                                       |
//! | `all`      | all of these                                                                         |
//!
//! * `weight`, `add`, `remove`: of one member of one group
//! * `listener`: one comes, on a VIP of its own, or goes
//! * `whole`: for comparison, all of it at once: fed (both ends in a thread each), and translated

mod rig;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use penstock_feed::{
    Affinity, Change, Group, Listener, Member, Mode, Name, Policies, PortRange, Protocol, State,
};

use rig::{Outcome, Rig, STEPS};

const ROUNDS: usize = 201;
const WHOLE_ROUNDS: usize = 5;
const MEMBERS: u32 = 10;
const SIZES: [u32; 3] = [10, 1000, 10_000];

/// What is changed in a round.
type Round = fn(u32, usize) -> Outcome<Vec<Change>>;

fn main() -> Outcome<()> {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let kinds: [(&str, Round); 4] =
        [("weight", weight), ("add", add), ("remove", remove), ("listener", listener)];
    for size in SIZES {
        let name = |kind: &str, step: &str| format!("one_change/{size}_groups/{kind}/{step}");
        let wanted = |kind: &str| STEPS.iter().any(|step| name(kind, step).contains(&filter));
        let whole = ["feed", "translate"].map(|step| name("whole", step));
        if whole.iter().any(|name| name.contains(&filter)) {
            let rounds = (0..WHOLE_ROUNDS).map(|_| Ok(Rig::with(&state(size)?)?.1));
            let rounds = rounds.collect::<Outcome<Vec<_>>>()?;
            for (at, name) in whole.iter().enumerate().filter(|(_, name)| name.contains(&filter)) {
                report(name, rounds.iter().map(|steps| steps[at]).collect())?;
            }
        }
        if !kinds.iter().any(|(kind, _)| wanted(kind)) {
            continue;
        }
        let (mut rig, _) = Rig::with(&state(size)?)?;
        for (kind, round) in kinds.iter().filter(|(kind, _)| wanted(kind)) {
            let rounds = (0..ROUNDS).map(|n| {
                // Before one can be removed it has to be there, and the other way round.
                for change in before(kind, size, n)? {
                    rig.change(vec![change])?;
                }
                rig.change(round(size, n)?)
            });
            let rounds = rounds.collect::<Outcome<Vec<_>>>()?;
            for (at, step) in STEPS.iter().enumerate() {
                let name = name(kind, step);
                if name.contains(&filter) {
                    report(&name, rounds.iter().map(|steps| steps[at]).collect())?;
                }
            }
        }
    }
    Ok(())
}

fn report(name: &str, mut times: Vec<Duration>) -> Outcome<()> {
    times.sort();
    let us = |at: usize| times[at].as_secs_f64() * 1e6;
    let (median, least, most) = (us(times.len() / 2), us(0), us(times.len() - 1));
    writeln!(std::io::stdout(), "{name:44} {median:8.1}  ({least:.1}-{most:.1})  µs")?;
    Ok(())
}

/// Listeners and groups by turns, so that each group serves one.
fn state(size: u32) -> Outcome<State> {
    let mut state = State::default();
    for n in 0..size {
        let member = Member { weight: 1, draining: false };
        let members = (0..MEMBERS).map(|at| (backend(n, at), member)).collect();
        state.groups.insert_mut(group(n)?, Group { members, refused_weight: 0 }.into());
        state.listeners.insert_mut(listener_name(n)?, a_listener(n)?);
    }
    Ok(state)
}

fn group(n: u32) -> Outcome<Name> {
    Ok(Name::new(&format!("default/route-{n}/rule-0"))?)
}

fn listener_name(n: u32) -> Outcome<Name> {
    Ok(Name::new(&format!("default/gateway-{n}/http"))?)
}

fn a_listener(n: u32) -> Outcome<Listener> {
    Ok(Listener {
        vip: IpAddr::from(Ipv4Addr::from(0xc612_0000 + n)),
        protocol: Protocol::Tcp,
        ports: PortRange::single(80)?,
        mode: if n.is_multiple_of(2) { Mode::FullNat } else { Mode::Dnat },
        affinity: Affinity::Tuple,
        policies: Policies::default(),
        source_ranges: None,
        group: group(n)?,
        snat_pool: None,
    })
}

fn backend(group: u32, at: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + group * 16 + at), 8080))
}

/// Another object each round, all over the state.
fn chosen(size: u32, round: usize) -> u32 {
    (round as u32).wrapping_mul(2_654_435_761) % size
}

fn weight(size: u32, round: usize) -> Outcome<Vec<Change>> {
    let n = chosen(size, round);
    let member = Member { weight: 2 + round as u32, draining: false };
    Ok(vec![Change::PutMember { group: group(n)?, address: backend(n, 3), member }])
}

fn add(size: u32, round: usize) -> Outcome<Vec<Change>> {
    let n = chosen(size, round);
    let member = Member { weight: 1, draining: false };
    Ok(vec![Change::PutMember { group: group(n)?, address: backend(n, MEMBERS), member }])
}

fn remove(size: u32, round: usize) -> Outcome<Vec<Change>> {
    let n = chosen(size, round);
    Ok(vec![Change::RemoveMember { group: group(n)?, address: backend(n, MEMBERS) }])
}

fn listener(size: u32, round: usize) -> Outcome<Vec<Change>> {
    let name = listener_name(size)?;
    Ok(vec![match round % 2 {
        0 => Change::PutListener {
            name,
            listener: Listener { group: group(chosen(size, round))?, ..a_listener(size)? },
        },
        _ => Change::RemoveListener { name },
    }])
}

fn before(kind: &str, size: u32, round: usize) -> Outcome<Vec<Change>> {
    match kind {
        "add" => remove(size, round),
        "remove" => add(size, round),
        _ => Ok(Vec::new()),
    }
}
