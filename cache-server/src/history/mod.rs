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

use std::sync::{Arc, Mutex, PoisonError};

use kiln_storage::api::Event;
use rusqlite::Connection;

use crate::clock;
use crate::index::{Index, IndexError};
use rows::{Arrival, OpenJobs};

/// A handle on the history; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct History {
    rows: Index,
    open: Arc<Mutex<OpenJobs>>,
}

impl History {
    /// A history over open connections.
    pub(crate) fn new(rows: Index) -> Self {
        Self { rows, open: Arc::default() }
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
        let open = self.open.clone();
        let written = self.rows.write(move |connection| {
            let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
            let arrival = Arrival { scope: &scope, now_ms: clock::now_ms(), brought };
            let added = rows::add(connection, &mut open, arrival, &events)?;
            more(connection, &added.new)?;
            if added.begins_run {
                expire::expire(connection, &mut open, clock::now_ms())?;
            }
            Ok(())
        });
        let written = written.await;
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
        self.rows.write(work).await
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
        self.rows.read(work).await
    }
}
