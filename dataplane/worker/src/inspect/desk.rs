//! The asking end of one worker's rings.

use std::thread;
use std::time::{Duration, Instant};

use penstock_forward::{Explanation, FlowInfo, FlowKey, Tick};
use rtrb::{Consumer, Producer};

use super::probe::{Reply, Request, Told, What};
use super::tracer::{Sighting, Sightings, Watch};

/// How long a worker may take: as long as one that hangs is borne with.
const PATIENCE: Duration = crate::watch::GIVEN_UP_AFTER;
/// How long to sleep between two looks; an idle worker may sleep too.
const LOOK_EVERY: Duration = Duration::from_micros(50);
/// Room for a page of flows: more than a worker looks at in one turn.
const PAGE: usize = 64;

/// The worker has not answered in time: it hangs, or the data plane stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("does not answer; see penstock status")]
pub(super) struct NoAnswer;

/// One asks at a time; whoever asks holds it.
#[derive(Debug)]
pub struct Desk {
    requests: Producer<Request>,
    replies: Consumer<Reply>,
    sightings: Sightings,
    serial: u64,
    patience: Duration,
}

impl Desk {
    pub(super) fn new(
        requests: Producer<Request>,
        replies: Consumer<Reply>,
        sightings: Sightings,
    ) -> Self {
        Self { requests, replies, sightings, serial: 0, patience: PATIENCE }
    }

    /// Every flow the worker has, a page at a time with the time of the page, until `each` says that it is
    /// enough. A flow that begins or ends meanwhile may be missed.
    pub(super) fn flows(
        &mut self,
        mut each: impl FnMut(&[FlowInfo], Tick) -> bool,
    ) -> Result<(), NoAnswer> {
        let mut page = Vec::with_capacity(PAGE);
        let mut from = 0;
        loop {
            let (now, told) = self.ask(What::Flows { from, page })?;
            let Told::Flows { page: told, next } = told else { return Err(NoAnswer) };
            page = told;
            let more = each(&page, now);
            page.clear();
            match next {
                Some(next) if more => from = next,
                _ => return Ok(()),
            }
        }
    }

    /// What the worker says would become of a packet, `handed` to it by another or not, and when it said so.
    pub(super) fn explain(
        &mut self,
        key: FlowKey,
        handed: bool,
    ) -> Result<(Explanation, Tick), NoAnswer> {
        match self.ask(What::Explain(key, handed))? {
            (now, Told::Explained(explanation)) => Ok((explanation, now)),
            _ => Err(NoAnswer),
        }
    }

    /// Has the worker watch this from now on, or nothing; how many it missed of what it watched before.
    pub(super) fn watch(&mut self, watch: Option<Watch>) -> Result<u64, NoAnswer> {
        match self.ask(What::Watch(watch))? {
            (_, Told::Watches { missed }) => Ok(missed),
            _ => Err(NoAnswer),
        }
    }

    /// Shows the next packet that the worker met to `each`, if there is one.
    pub(super) fn sighting<T>(&mut self, each: impl FnOnce(&Sighting) -> T) -> Option<T> {
        self.sightings.next(each)
    }

    fn ask(&mut self, what: What) -> Result<(Tick, Told), NoAnswer> {
        self.serial += 1;
        let request = Request { serial: self.serial, what };
        self.requests.push(request).map_err(|_| NoAnswer)?; // full of what was never answered
        let asked = Instant::now();
        while asked.elapsed() < self.patience {
            match self.replies.pop() {
                Ok(Reply { serial, now, what }) if serial == self.serial => return Ok((now, what)),
                Ok(_) => {} // came too late for whoever asked
                Err(_) => thread::sleep(LOOK_EVERY),
            }
        }
        Err(NoAnswer)
    }
}

#[cfg(test)]
mod tests {
    use penstock_forward::testing::TestLb;
    use penstock_forward::{Protocol, WorkerIdx};

    use super::super::desk_and_probe;
    use super::*;

    #[test]
    fn what_comes_too_late_is_not_taken_for_what_was_asked_since() {
        let lb =
            TestLb::with("192.0.2.10:80/tcp mode=full-nat backend=10.0.0.3:8080 snat=10.0.0.200");
        let (mut desk, mut probe, mut tracer) = desk_and_probe();
        desk.patience = Duration::from_millis(1);
        let key = |vip: &str| {
            let client = "203.0.113.7:4000".parse().unwrap();
            FlowKey::new(client, vip.parse().unwrap(), Protocol::Tcp).unwrap()
        };
        let (own, nobodys) = (key("192.0.2.2:22"), key("198.51.100.1:80"));
        assert_eq!(desk.explain(own, false), Err(NoAnswer));
        let mut turn = || {
            probe.answer_one(lb.worker(WorkerIdx(0)), &lb.snapshot, &mut tracer, lb.now);
        };
        turn(); // it hung, and goes on
        let told = thread::scope(|scope| {
            desk.patience = PATIENCE;
            let asked = scope.spawn(|| desk.explain(nobodys, false));
            while !asked.is_finished() {
                turn();
            }
            asked.join().unwrap().unwrap().0
        });
        let expected = lb.explain(WorkerIdx(0), &nobodys);
        assert_eq!(told, expected);
        assert_ne!(lb.explain(WorkerIdx(0), &own), expected);
    }

    #[test]
    fn a_worker_that_never_answers_is_given_up_without_waiting_at_last() {
        let (mut desk, _probe, _) = desk_and_probe();
        desk.patience = Duration::ZERO;
        for _ in 0..100 {
            assert_eq!(desk.flows(|_, _| true), Err(NoAnswer));
        }
    }
}
