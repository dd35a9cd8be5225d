//! inotify's events as [`Change`]s.

use std::path::Path;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::UnboundedSender;

use super::Change;

/// Watches a folder until it is dropped.
pub struct Watch {
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Sends every change of `folder` to `changes`. An overflow of the kernel's queue is a change too.
    ///
    /// # Errors
    /// notify's: the folder is not there, or inotify's limits are reached.
    pub fn start(folder: &Path, changes: UnboundedSender<Change>) -> notify::Result<Self> {
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let found = event.map_or_else(|_| vec![Change::Whole], |event| changes_of(&event));
            // Nobody listens any more: the process ends.
            found.into_iter().for_each(|change| drop(changes.send(change)));
        })?;
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(Self { _watcher: watcher })
    }
}

/// Our own reads are no change.
fn changes_of(event: &Event) -> Vec<Change> {
    let each = |change: fn(std::path::PathBuf) -> Change| {
        event.paths.clone().into_iter().map(change).collect()
    };
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => each(Change::Closed),
        EventKind::Access(_) => Vec::new(),
        EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
            each(Change::Writing)
        }
        _ => vec![Change::Whole],
    }
}
