//! `one_object [FILTER]`: what a change of one object costs the control process beside five hundred routes and beside
//! five thousand, with ten endpoints each, from the object in its hand to what it says and writes of it.
//!
//! Objects are as a cluster has them: routes with a listener each, 64 listeners to a Gateway, half of them by a
//! ListenerSet. Translation, statuses and both ends of the feed are the real ones, in one thread; what the data plane
//! does at its end is not counted (`one_change` does). A line a step: name, median, spread (least to most), unit.
//!
//! | step        | what it is                                                                           |
//! |-------------|--------------------------------------------------------------------------------------|
//! | `translate` | what the changed object means for all others                                          |
//! | `conclude`  | the statuses that follow, and those that follow from the acknowledgement               |
//! | `publish`   | the producer's end: difference, checks, digest, encode, into the ring; the answer      |
//! | `all`       | all of these                                                                         |
//!
//! * `route_created`, `route_removed`: on a listener that had none
//! * `endpoint_changed`: one of the ten becomes unready, or ready again
//! * `listener_changed`: the port of a Gateway's or ListenerSet's listener
//! * `gateway_created`: one more, with an address of its own and a listener, or one less
//! * `whole`: for comparison, all of it from nothing: what each of these cost when nothing was kept
//! * `ratio`: of `all`, ten times the objects to one
//! * `memory`: resident, of what is kept of all objects

mod objects;
mod rig;

use std::io::Write as _;
use std::time::Duration;

use objects::Site;
use rig::{Outcome, Rig, STEPS};

const ROUNDS: usize = 401;
const WHOLE_ROUNDS: usize = 5;
const SIZES: [usize; 2] = [500, 5000];

/// What changes in a round.
type Change = fn(&Site, usize) -> Outcome<objects::Change>;

fn main() -> Outcome<()> {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let kinds: [(&str, Change); 5] = [
        ("route_created", Site::route_created),
        ("route_removed", Site::route_removed),
        ("endpoint_changed", Site::endpoint_changed),
        ("listener_changed", Site::listener_changed),
        ("gateway_created", Site::gateway_created),
    ];
    let mut medians = vec![Vec::new(); kinds.len()];
    for size in SIZES {
        let name = |kind: &str, step: &str| format!("one_object/{size}_routes/{kind}/{step}");
        let is_wanted = |kind: &str| {
            let steps = STEPS.iter().any(|step| name(kind, step).contains(&filter));
            steps || ratio(kind).contains(&filter)
        };
        let site = Site { routes: size };
        for at in ["objects", "translation", "statuses"] {
            let name = name("memory", at);
            if name.contains(&filter) {
                in_a_process_of_its_own(&name, size, at)?;
            }
        }
        if name("whole", "all").contains(&filter) {
            let rounds: Outcome<Vec<_>> = (0..WHOLE_ROUNDS).map(|_| rig::whole(&site)).collect();
            report(&name("whole", "all"), rounds?)?;
        }
        if !kinds.iter().any(|(kind, _)| is_wanted(kind)) {
            continue;
        }
        let mut rig = Rig::with(&site)?;
        for (at, (kind, change)) in
            kinds.iter().enumerate().filter(|(_, (kind, _))| is_wanted(kind))
        {
            let mut rounds = Vec::new();
            for round in 0..ROUNDS {
                // Before one can be removed it has to be there, and the other way round.
                if let Some(before) = site.before(kind, round)? {
                    rig.change(before)?;
                }
                rounds.push(rig.change(change(&site, round)?)?);
            }
            for (at, step) in STEPS.iter().enumerate() {
                let name = name(kind, step);
                if name.contains(&filter) {
                    report(&name, rounds.iter().map(|steps| steps[at]).collect())?;
                }
            }
            let mut all: Vec<_> = rounds.iter().map(|steps| steps[STEPS.len() - 1]).collect();
            all.sort();
            medians[at].push(all[all.len() / 2]);
        }
    }
    for ((kind, _), medians) in kinds.iter().zip(&medians) {
        if let ([small, large], true) = (medians.as_slice(), ratio(kind).contains(&filter)) {
            let ratio_of = large.as_secs_f64() / small.as_secs_f64();
            writeln!(std::io::stdout(), "{:52} {ratio_of:8.2}  ×", ratio(kind))?;
        }
    }
    Ok(())
}

fn ratio(kind: &str) -> String {
    format!("one_object/ratio/{kind}")
}

fn report(name: &str, mut times: Vec<Duration>) -> Outcome<()> {
    times.sort();
    let us = |at: usize| times[at].as_secs_f64() * 1e6;
    let (median, least, most) = (us(times.len() / 2), us(0), us(times.len() - 1));
    writeln!(std::io::stdout(), "{name:52} {median:8.1}  ({least:.1}-{most:.1})  µs")?;
    Ok(())
}

/// What is freed stays resident, so each figure has a process that allocated nothing else.
fn in_a_process_of_its_own(name: &str, size: usize, until: &str) -> Outcome<()> {
    const ASKED: &str = "PENSTOCK_BENCH_MEMORY";
    let asked = format!("{size} {until}");
    match std::env::var(ASKED) {
        Ok(it) if it == asked => {
            let mib = rig::resident(&Site { routes: size }, until)?;
            writeln!(std::io::stdout(), "{name:52} {mib:8.1}  MiB")?;
        }
        Ok(_) => {}
        Err(_) => {
            let program = std::env::current_exe()?;
            let ended = std::process::Command::new(program).arg(name).env(ASKED, asked).status()?;
            if !ended.success() {
                return Err(format!("{name}: {ended}").into());
            }
        }
    }
    Ok(())
}
