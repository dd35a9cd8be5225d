//! The API server of a cluster: what is in it, and every change.
//!
//! A task a kind (`watch`) lists and watches it, and turns what the API server says ([`raw`]) into our objects.
//! All of them end in one bounded channel of [`Happening`]s, so that a burst waits in the API server and not in
//! our memory.
//!
//! Nothing the API server does ends a task: a watch that closes is opened anew where it stopped, one that is too
//! old lists anew, an API server that is gone is tried again with growing, uneven pauses. A kind that is not
//! installed is looked for again. An object that does not decode is one [`Happening::Seen`] with its reason.

mod bundle;
mod connect;
mod courtesy;
pub mod raw;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinSet;

pub use connect::{Access, AccessError, connect};
pub use raw::{Observed, Seen};
pub(crate) use watch::words;

pub(crate) use courtesy::Courtesy;

use crate::finding::Severity;
use crate::metrics::Metrics;
use crate::object::{Kind, ObjectKey};

/// What may wait to be taken in: a burst of this many is taken at once.
pub const MOST_WAITING: usize = 1024;

/// Something that happened in the cluster, or on the way to it.
#[derive(Debug)]
pub enum Happening {
    /// All objects of a kind follow, whether they changed or not.
    Listing(Kind),
    /// An object as it is now.
    Seen(Box<Seen>),
    /// An object is gone.
    Gone(ObjectKey),
    /// All objects of a kind were named: what was not is gone.
    Listed(Kind),
    /// The API server does not know the kind. It is asked again every few seconds.
    Absent(Kind),
    /// The installed CRDs are of this release, if they say so.
    Bundle(Option<String>),
    /// It cannot be known for now, and why.
    BundleUnknown(String),
    /// A kind cannot be listed or watched.
    Trouble {
        /// The kind.
        kind: Kind,
        /// Whether it is no more than a pause that was asked for.
        severity: Severity,
        /// Why, in words.
        reason: String,
        /// When this is not repeated for so long, it is over.
        lasts: Duration,
    },
}

/// The tasks that watch, and what they saw. Dropping it ends them.
#[derive(Debug)]
pub struct Watches {
    _tasks: JoinSet<()>,
    /// What happens.
    pub happenings: Receiver<Happening>,
}

/// Watches every kind we read, and of which release its CRDs are.
#[must_use]
pub fn watch_all(client: &Client, metrics: &Arc<Metrics>) -> Watches {
    let (out, happenings) = channel(MOST_WAITING);
    let mut tasks = JoinSet::new();
    for kind in Kind::ALL {
        let courtesy = Courtesy::new(kind.as_str(), metrics);
        let watch = watch::Watch::new(client, kind, courtesy, Arc::clone(metrics));
        tasks.spawn(watch.run(out.clone()));
    }
    let courtesy = Courtesy::new("CustomResourceDefinition", metrics);
    tasks.spawn(bundle::watch(courtesy.client(client), out));
    Watches { _tasks: tasks, happenings }
}
