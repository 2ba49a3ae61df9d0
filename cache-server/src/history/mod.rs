//! The history: runs, their jobs, and what became of each unit, for reports. A file of its own beside the index.
//!
//! Apart from the index for three reasons: reading a report keeps no lookup waiting, events do not go when an
//! index is thrown away, and what a machine went down with is still good here (commits do not wait for the disk,
//! checkpoints do). Events are kept in chunks ([`chunk`]) of a job, each event once whatever is sent again; what they
//! come to is kept beside them, so that lists and trends read no chunk. Rows are in [`rows`] and [`read`], what
//! goes in [`expire`]. Called by [`crate::reports`] and by the routes of runs.

pub(crate) mod chunk;
pub(crate) mod expire;
pub(crate) mod latest;
pub(crate) mod open;
pub(crate) mod outgoing;
pub(crate) mod read;
pub(crate) mod rows;
pub(crate) mod unshared;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kiln_storage::api::Event;
use rusqlite::Connection;

use crate::clock;
use crate::index::open::condemn_file;
use crate::index::{Index, IndexError};
use rows::{Arrival, OpenJobs};

/// A handle on the history; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct History {
    rows: Arc<RwLock<Index>>,
    open: Arc<Mutex<OpenJobs>>,
    path: Arc<Path>,
}

impl History {
    /// A history over open connections to a file.
    pub(crate) fn new(rows: Index, path: PathBuf) -> Self {
        Self { rows: Arc::new(RwLock::new(rows)), open: Arc::default(), path: path.into() }
    }

    fn rows(&self) -> Index {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After a file was found damaged: the next start throws it away, and till then the history is in memory. Only
    /// reports depend on it, so the server stays.
    fn without_damage<T>(&self, done: Result<T, IndexError>) -> Result<T, IndexError> {
        let Err(IndexError::Damaged(why)) = done else { return done };
        let mut current = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        if !current.is_damaged() {
            // Somebody else saw it before.
            return Err(IndexError::Damaged(why));
        }
        condemn_file(&self.path);
        *current = Index::new(open::in_memory()?, None);
        drop(current);
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = OpenJobs::default();
        Err(IndexError::Damaged(format!(
            "the history of runs is begun anew, in memory till the server starts again: {why}"
        )))
    }

    /// Takes events of a scope that are new; the others are known. `brought` says that they are old ones. `more` is
    /// done in the same transaction, with those that were new.
    ///
    /// # Errors
    /// What SQLite fails with; nothing is written then.
    pub(crate) async fn add<M>(
        &self,
        (scope, brought): (String, bool),
        events: Arc<Vec<Event>>,
        more: M,
    ) -> Result<(), IndexError>
    where
        M: FnOnce(&Connection, &[&Event]) -> rusqlite::Result<()> + Send + 'static,
    {
        let (open, rows) = (self.open.clone(), self.rows());
        let written = rows.write(move |connection| {
            let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
            let arrival = Arrival { scope: &scope, now_ms: clock::now_ms(), brought };
            let added = rows::add(connection, &mut open, arrival, &events)?;
            more(connection, &added.new)?;
            if added.begins_run {
                expire::expire(connection, &mut open, clock::now_ms())?;
            }
            Ok(())
        });
        let written = self.without_damage(written.await);
        if written.is_err() {
            // What is in memory may be ahead of what was written.
            *self.open.lock().unwrap_or_else(PoisonError::into_inner) = OpenJobs::default();
        }
        written
    }

    /// Writes rows that are no events.
    ///
    /// # Errors
    /// What SQLite fails with.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, IndexError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let rows = self.rows();
        let written = rows.write(work).await;
        self.without_damage(written)
    }

    /// Reads rows, beside whoever writes.
    ///
    /// # Errors
    /// What SQLite fails with.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, IndexError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let rows = self.rows();
        let read = rows.read(work).await;
        self.without_damage(read)
    }
}
