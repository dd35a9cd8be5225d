//! Tasks that write to the API server while we lead.
//!
//! A task is told things, and sends what is due; its requests are under way beside it. When we no longer lead, they
//! are given up: someone else may write now.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::lease::Leads;

/// What a task knows and does. Nothing here waits.
pub(crate) trait Work: Send + 'static {
    /// What it is told.
    type Message: Send + 'static;
    /// What came of a request.
    type Done: Send + 'static;

    /// Takes in what it is told.
    fn hear(&mut self, message: Self::Message);

    /// We lead: sends what is due, by `requests`. Returns when the next one is, if there is room for it.
    fn lead(&mut self, requests: &mut JoinSet<Self::Done>) -> Option<Instant>;

    /// We do not lead, and nothing is under way.
    fn follow(&mut self);

    /// Takes in what came of a request.
    fn conclude(&mut self, done: Self::Done);
}

/// A task that is told by `M` and tells `T`. Dropping it ends it, and its requests.
#[derive(Debug)]
pub struct Writer<M, T> {
    messages: UnboundedSender<M>,
    told: watch::Receiver<T>,
    _task: JoinSet<()>,
}

impl<M: Send + 'static, T: Clone + Default> Writer<M, T> {
    /// Starts the work that `begin` makes of the way by which it tells.
    pub(crate) fn run<W: Work<Message = M>>(
        leads: watch::Receiver<Leads>,
        begin: impl FnOnce(watch::Sender<T>) -> W,
    ) -> Self {
        let (messages, inbox) = unbounded_channel();
        let (tell, told) = watch::channel(T::default());
        let mut task = JoinSet::new();
        task.spawn(serve(begin(tell), leads, inbox));
        Self { messages, told, _task: task }
    }

    /// Tells it something.
    pub fn tell(&self, message: M) {
        // It ends only with us.
        let _ = self.messages.send(message);
    }

    /// What it told last.
    #[must_use]
    pub fn told(&self) -> T {
        self.told.borrow().clone()
    }
}

async fn serve<W: Work>(
    mut work: W,
    mut leads: watch::Receiver<Leads>,
    mut inbox: UnboundedReceiver<W::Message>,
) {
    let mut requests = JoinSet::new();
    loop {
        let now = *leads.borrow_and_update();
        let next = if now.now() {
            work.lead(&mut requests)
        } else {
            if !requests.is_empty() {
                requests = JoinSet::new(); // dropping the old one aborts its tasks
            }
            work.follow();
            None
        };
        let ends = now.until().filter(|_| now.now());
        tokio::select! {
            message = inbox.recv() => match message {
                Some(message) => work.hear(message),
                None => return,
            },
            Some(ended) = requests.join_next() => {
                if let Ok(done) = ended {
                    work.conclude(done);
                }
            }
            changed = leads.changed() => {
                if changed.is_err() {
                    return; // the process ends
                }
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            () = sleep_until(ends.unwrap_or_else(Instant::now)), if ends.is_some() => {}
        }
    }
}
