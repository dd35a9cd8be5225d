//! The control process: Gateway API objects in, a data plane's configuration and conditions out.
//!
//! It is the only process that knows Kubernetes' objects, and it may die at any moment: packets flow by what
//! the data plane was told last. What it does, in the order in which it happens, a module a step:
//!
//! ```text
//!  source      a folder of YAML, watched                         source::folder: settle, watch
//!    │         or the API server of a cluster                    source::cluster: connect, watch, raw
//!  yaml        of files: documents, trees with places, objects   yaml: documents, tree, decode
//!  manifest    the objects of a file, and what is wrong with it
//!  schema      what an API server would refuse; of our own kinds by their CRDs (crd, structural)
//!    │  objects
//!  store       what is in force: now, or when it was last good   store: history, saved; mirror of a cluster
//!    │  a set of objects        observer: who is not well (health), what names come to (names)
//!    │                            │  observed
//!  translate   pure: the feed's State, and what to answer        translate: class, gateway, listener, route, …
//!    │  State                              │  answers
//!  publish     a thread with the ring      │                     publish: session, generation
//!    │  acknowledgements                   │
//!  status      conditions, stamped and written as files,         status: programmed, stamp, files
//!              and by who holds the lease to the API server      status::cluster: difference, pace; lease, writer
//!              a Service a Gateway, for who looks by labels      infrastructure: service
//! ```
//!
//! Where boxes elsewhere are told what to do, [`boxes`] takes the place of `publish`: it says by [`link`] to [`agent`],
//! which is a source on a box, what is in force; who is who between them is for [`pki`].
//!
//! [`controller::run`] is the event loop around them; [`check()`] runs the same steps without a data plane, for
//! `penstock check`.
//!
//! Three rules hold throughout:
//!
//! 1. **What is wrong is wrong alone.** A file, a document, an object, a listener, a share of a route: each
//!    is refused by itself, with a message that names the value and the next move, and the rest serves.
//! 2. **What was good stays.** A half-written file, a folder that vanished, an object that no longer decodes:
//!    the last good one stays in force, over restarts too.
//! 3. **Nothing is said before it is so.** `Programmed=True` waits for the data plane's acknowledgement.

pub mod agenda;
pub mod agent;
pub mod backoff;
pub mod boxes;
mod check;
pub mod controller;
pub mod crd;
pub mod finding;
pub mod health;
pub mod infrastructure;
pub mod lease;
pub mod link;
pub mod manifest;
pub mod metrics;
mod names;
pub mod object;
pub mod observed;
pub mod observer;
pub mod pki;
pub mod publish;
pub mod report;
mod schema;
pub mod source;
pub mod status;
pub mod store;
mod structural;
mod tasks;
pub mod translate;
pub mod whole_file;
pub mod writer;
pub mod yaml;

pub use check::check;
pub use finding::{Finding, Severity};
