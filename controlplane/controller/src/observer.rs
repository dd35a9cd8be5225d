//! The thread that asks: backends if they are well, resolvers for names. On a thread of its own, so that neither waits for
//! a translation, nor a translation for them.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};
use tracing::error;

use crate::health::Asked;
use crate::health::checker::{Change, Checker, Counters};
use crate::names::{self, Names};
use crate::observed::Observed;
use crate::translate::Translation;

/// What is found out within so long is told at once: many backends fail together.
const BATCH: Duration = Duration::from_millis(20);

/// Whom to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// The backends.
    pub asked: BTreeSet<Asked>,
    /// The names.
    pub names: BTreeSet<String>,
}

impl Questions {
    /// Whom a translation wants to be asked.
    #[must_use]
    pub fn of(translation: &Translation) -> Self {
        let asked = translation.checkups.asked().cloned().collect();
        Self { asked, names: translation.names.keys().cloned().collect() }
    }
}

/// The way to the thread.
pub struct Observer {
    wanted: UnboundedSender<Questions>,
}

impl Observer {
    /// Starts the thread, which ends when this is dropped. `known` is what was found out before; `counters` count what is
    /// answered, and `out` hears of each change.
    ///
    /// # Errors
    /// The kernel's, if it has no thread or descriptor.
    pub fn start(
        known: Observed,
        counters: Counters,
        out: UnboundedSender<Arc<Observed>>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (wanted, wants) = unbounded_channel();
        std::thread::Builder::new().name("observe".to_owned()).spawn(move || {
            runtime.block_on(Desk::new(known, counters, out).run(wants));
        })?;
        Ok(Self { wanted })
    }

    /// Asks these from now on, and nobody else.
    pub fn want(&self, wanted: Questions) {
        if self.wanted.send(wanted).is_err() {
            error!(
                "the thread that asks backends and resolvers has ended: restart penstock-controlplane"
            );
        }
    }
}

struct Desk {
    observed: Observed,
    checker: Checker,
    changes: UnboundedReceiver<Change>,
    names: Names,
    updates: UnboundedReceiver<names::Update>,
    out: UnboundedSender<Arc<Observed>>,
    /// When what changed is told.
    due: Option<Instant>,
}

impl Desk {
    fn new(observed: Observed, counters: Counters, out: UnboundedSender<Arc<Observed>>) -> Self {
        let (changes_in, changes) = unbounded_channel();
        let (updates_in, updates) = unbounded_channel();
        let checker = Checker::new(counters, changes_in);
        let names = Names::new(updates_in);
        Self { observed, checker, changes, names, updates, out, due: None }
    }

    async fn run(mut self, mut wants: UnboundedReceiver<Questions>) {
        loop {
            let due = self.due.unwrap_or_else(Instant::now);
            tokio::select! {
                wanted = wants.recv() => match wanted {
                    Some(wanted) => self.want(&wanted),
                    None => return,
                },
                Some(change) = self.changes.recv() => self.take(change),
                Some((name, named)) = self.updates.recv() => {
                    if self.names.asks(&name) {
                        self.observed.names.insert(name, named);
                        self.is_news();
                    }
                }
                () = sleep_until(due), if self.due.is_some() => {
                    self.due = None;
                    if self.out.send(Arc::new(self.observed.clone())).is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn take(&mut self, change: Change) {
        if !self.checker.knows(&change) {
            return; // it was on its way when nobody wanted to know any more
        }
        match change.healthy {
            true => self.observed.unhealthy.remove(&change.asked),
            false => self.observed.unhealthy.insert(change.asked),
        };
        self.is_news();
    }

    fn is_news(&mut self) {
        self.due.get_or_insert(Instant::now() + BATCH);
    }

    /// Of what nobody wants to know nothing is kept, here or by who hears of it: if it is wanted again, it is asked anew.
    fn want(&mut self, wanted: &Questions) {
        self.checker.want(&wanted.asked, &self.observed.unhealthy);
        self.names.want(&wanted.names, &self.observed.names);
        let Observed { unhealthy, names } = &mut self.observed;
        let before = (unhealthy.len(), names.len());
        unhealthy.retain(|asked| wanted.asked.contains(asked));
        names.retain(|name, _| wanted.names.contains(name));
        if before != (unhealthy.len(), names.len()) {
            self.is_news();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::health::Check;

    const LIMIT: Duration = Duration::from_secs(20);

    fn asked(backend: SocketAddr) -> Asked {
        let check = r#"{"tcp": {}, "interval": "100ms", "timeout": "80ms", "rise": 2, "fall": 2}"#;
        let check = Check::read("", &serde_json::from_str(check).unwrap()).unwrap();
        Asked { backend, check: Arc::new(check) }
    }

    fn of(asked: &[&Asked]) -> Questions {
        Questions { asked: asked.iter().map(|it| (*it).clone()).collect(), names: BTreeSet::new() }
    }

    /// One is there and one is not; one that was not well is, and one that nobody asks for any more is forgotten.
    #[tokio::test]
    async fn who_is_not_well_is_found_out_and_who_is_not_asked_is_forgotten() {
        let there = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (well, ill) = (asked(there.local_addr().unwrap()), asked(gone));
        let known = Observed { unhealthy: [well.clone()].into(), ..Observed::default() };
        let (out, mut heard) = unbounded_channel();
        let counters = Counters::default();
        let observer = Observer::start(known, counters.clone(), out).unwrap();
        let mut until = async |promise: &str, unhealthy: &[&Asked]| loop {
            let next = timeout(LIMIT, heard.recv()).await;
            let next: Arc<Observed> = next.unwrap_or_else(|_| panic!("{promise}")).unwrap();
            if next.unhealthy.iter().eq(unhealthy.iter().copied()) {
                return;
            }
        };
        observer.want(of(&[&well, &ill]));
        until("one is well again, one is not", &[&ill]).await;
        assert!(counters.answers.get() >= 4 && counters.bad_answers.get() >= 2);
        observer.want(of(&[&well]));
        until("what nobody asks for is forgotten", &[]).await;
        observer.want(of(&[&well, &ill]));
        until("and found out anew", &[&ill]).await;
        drop(there);
        observer.want(of(&[&well]));
        until("who ceases to answer", &[&well]).await;
    }
}
