//! What the feed promises over the real socket and the real rings, both ends in one process.

mod changes;
mod hostile;
mod kills;
mod l7;
mod seeds;
mod session;
mod support;
