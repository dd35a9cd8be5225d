//! The control process on a folder: when it is read, and what is kept of it.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tracing::{info, warn};

use super::round::{Round, now};
use super::saving::Saving;
use super::{
    Consumers, Desk, Paths, ServeBoxes, StartError, Words, beat, elsewhere, here, take, take_boxes,
};
use crate::agent::kept::Epochs;
use crate::finding::{Finding, Severity};
use crate::lease::{Identity, Leads};
use crate::pki::keeper::{self, Keeper};
use crate::source::folder::{Change, Reader, Settle, Texts, Watch};
use crate::store::Store;

/// Without a change, the folder is looked at this often: events may get lost.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// While the folder cannot be watched or read, it is tried this often.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Runs until a signal ends it.
pub(super) async fn run(
    paths: &Paths,
    mut desk: Desk,
    boxes: Option<ServeBoxes>,
) -> Result<(), StartError> {
    let (consumers, mut words) = match boxes {
        None => here(paths, &desk.metrics)?,
        Some(boxes) => match for_boxes(paths, &boxes, &mut desk).await? {
            Some(started) => started,
            None => return Ok(()),
        },
    };
    let Desk { mut terminate, mut interrupt, mut hang_up, metrics } = desk;
    let mut reading = Reading::new(&paths.config_dir);
    let mut round = Round::new(paths, None, consumers, metrics);
    let mut kept = Kept::load(paths);
    info!(config_dir = %paths.config_dir.display(), "control process started");
    reading.look(&mut kept, &mut round);
    let mut beat = beat();
    loop {
        let wake = tokio::time::Instant::from_std(reading.next_look());
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {
                info!("SIGHUP: every file is read anew");
                kept.store.forget_texts();
                reading.reader.forget();
                reading.look(&mut kept, &mut round);
            }
            Some(event) = words.dataplane.recv() => {
                take(event, &mut words.dataplane, &mut round, Round::hear);
            }
            Some(event) = words.l7.recv() => take(event, &mut words.l7, &mut round, Round::hear_l7),
            Some(event) = words.fleet.recv() => take_boxes(event, &mut words.fleet, &mut round),
            Some(change) = reading.changes.recv() => reading.note(change),
            Some(observed) = words.observations.recv() => round.observe_at_once(observed),
            () = tokio::time::sleep_until(wake) => reading.look(&mut kept, &mut round),
            () = round.overdue() => round.time_passed(),
            _ = beat.tick() => {
                kept.save();
                round.beat();
            }
        }
    }
    kept.save_now().await;
    info!("control process ends; the data plane goes on with what it has");
    Ok(())
}

/// Boxes elsewhere, of one controller: it leads as long as it lives, and each life is an epoch.
async fn for_boxes(
    paths: &Paths,
    boxes: &ServeBoxes,
    desk: &mut Desk,
) -> Result<Option<(Consumers, Words)>, StartError> {
    let identity = Identity::open(&paths.state_dir)?;
    let folder = paths.state_dir.join("boxes");
    std::fs::create_dir_all(&folder)?;
    let mut epochs = Epochs::open(&folder)?;
    let epoch = epochs.highest() + 1;
    epochs.meet(epoch).map_err(io::Error::other)?;
    // Whoever receives sees the last value, though nobody sends any more.
    let (_, leads) = watch::channel(Leads::alone(epoch));
    let keeper = Keeper::File(folder.join(keeper::NAME));
    elsewhere(paths, boxes, keeper, leads, identity.name(), desk).await
}

/// The files as they were last good, and where they are saved.
struct Kept {
    store: Store,
    file: PathBuf,
    folder: String,
    /// Whether the store is not saved as it is.
    is_unsaved: bool,
    saving: Saving,
}

impl Kept {
    fn load(paths: &Paths) -> Self {
        let file = paths.state_dir.join("objects.json");
        let store = Store::load(&file).unwrap_or_else(|error| {
            warn!(%error, "the last good objects are lost");
            Store::default()
        });
        Self {
            store,
            file,
            folder: paths.config_dir.display().to_string(),
            is_unsaved: false,
            saving: Saving::new(Duration::ZERO),
        }
    }

    /// Takes in what the folder holds: texts that may have changed, and files that did not.
    fn read(&mut self, (texts, same): (Texts, BTreeSet<String>), round: &mut Round) {
        let recovered = !std::mem::take(&mut round.source_troubles).is_empty();
        let changed = self.store.update_beside(texts, &same);
        if changed || recovered || !round.has_translated() {
            round.note_findings();
            self.translate(round);
            self.is_unsaved = true;
            self.save();
        }
        round.conclude();
    }

    /// Saves the store, if it is not saved and it is time. The first change after a rest is saved at once.
    fn save(&mut self) {
        if self.saving.may_begin() && std::mem::take(&mut self.is_unsaved) {
            let (store, file) = (self.store.clone(), self.file.clone());
            self.saving.begin(move || save(&store, &file));
        }
    }

    async fn save_now(&mut self) {
        self.saving.finish().await;
        if self.is_unsaved {
            save(&self.store, &self.file);
        }
    }

    /// The folder cannot be read: what was last good stays in force.
    fn unreadable(&mut self, error: &io::Error, round: &mut Round) {
        let message = format!("cannot be read: {error}: the last good objects stay in force");
        round.source_troubles = vec![Finding {
            file: self.folder.clone(),
            place: None,
            severity: Severity::Error,
            object: None,
            message,
        }];
        round.note_findings();
        if !round.has_translated() && !self.store.is_empty() {
            self.translate(round);
        }
        round.conclude();
    }

    fn translate(&mut self, round: &mut Round) {
        let changed = self.store.follow(&mut round.in_force, &now());
        round.changed.extend(changed);
        round.translate();
    }
}

fn save(store: &Store, file: &Path) {
    if let Err(error) = store.save(file) {
        warn!(%error, "the last good objects are not kept");
    }
}

/// When the folder is read.
struct Reading {
    folder: PathBuf,
    reader: Reader,
    watch: Option<Watch>,
    /// Device and inode of the folder that is watched: another may have taken its name.
    watched: Option<(u64, u64)>,
    changes: UnboundedReceiver<Change>,
    settle: Settle,
    looked: Instant,
    readable: bool,
}

impl Reading {
    fn new(folder: &Path) -> Self {
        let (_, changes) = unbounded_channel();
        let (settle, looked) = (Settle::default(), Instant::now());
        Self {
            folder: folder.to_owned(),
            reader: Reader::default(),
            watch: None,
            watched: None,
            changes,
            settle,
            looked,
            readable: true,
        }
    }

    fn note(&mut self, change: Change) {
        self.settle.note(change, Instant::now());
    }

    fn next_look(&self) -> Instant {
        let well = self.readable && self.watch.is_some();
        let regular = self.looked + if well { LOOK_AGAIN } else { TRY_AGAIN };
        self.settle.due().map_or(regular, |due| due.min(regular))
    }

    /// Watches first, then reads, so that no change falls in between.
    fn look(&mut self, kept: &mut Kept, round: &mut Round) {
        self.settle.clear();
        self.looked = Instant::now();
        self.ensure_watch();
        match self.reader.read(&self.folder) {
            Ok(read) => {
                self.readable = true;
                kept.read(read, round);
            }
            Err(error) => {
                self.readable = false;
                self.watch = None; // it may watch a folder that was replaced
                kept.unreadable(&error, round);
            }
        }
    }

    fn ensure_watch(&mut self) {
        let now = std::fs::metadata(&self.folder).ok().map(|folder| (folder.dev(), folder.ino()));
        if self.watch.is_some() && now == self.watched {
            return;
        }
        let (changes_in, changes) = unbounded_channel();
        match Watch::start(&self.folder, changes_in) {
            Ok(watch) => (self.watch, self.watched, self.changes) = (Some(watch), now, changes),
            Err(error) if self.readable => {
                warn!(folder = %self.folder.display(), %error, "not watched: read every second instead");
            }
            Err(_) => {}
        }
    }
}
