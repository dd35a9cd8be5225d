//! Tasks by what each is about.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use tokio::task::{AbortHandle, JoinSet};

/// A task a key, each with a number that no other has. Dropping it ends them all.
pub(crate) struct Tasks<K> {
    set: JoinSet<()>,
    running: BTreeMap<K, (u64, AbortHandle)>,
    begun: u64,
}

impl<K: Ord + Clone> Tasks<K> {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { set: JoinSet::new(), running: BTreeMap::new(), begun: 0 }
    }

    /// Lets there be a task for each of `wanted`, and no other: those of others are ended, and what `begin` makes of a
    /// key and a number is begun where there is none. Costs what changes, and a pass over both.
    pub(crate) fn want<T>(&mut self, wanted: &BTreeSet<K>, begin: impl Fn(&K, u64) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        self.running.retain(|key, (_, task)| {
            let stays = wanted.contains(key);
            if !stays {
                task.abort();
            }
            stays
        });
        for key in wanted {
            if !self.running.contains_key(key) {
                self.begun += 1;
                let task = self.set.spawn(begin(key, self.begun));
                self.running.insert(key.clone(), (self.begun, task));
            }
        }
        while self.set.try_join_next().is_some() {} // what was aborted
    }

    /// The number of the task for a key, if it is wanted.
    pub(crate) fn number<Q: Ord + ?Sized>(&self, key: &Q) -> Option<u64>
    where
        K: Borrow<Q>,
    {
        self.running.get(key).map(|(number, _)| *number)
    }
}
