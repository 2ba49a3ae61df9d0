//! The index: what the store holds and what was reported, in SQLite.
//!
//! It is an aid and no truth: records and blobs are objects in the store, and an index that is
//! gone, damaged or of another store is thrown away and rebuilt ([`crate::rebuild`]). Rows are
//! kept under the id of a scope. Functions on rows are in the modules below; they take a connection, know no
//! async, and are run by [`Index::read`] and [`Index::write`].

pub(crate) mod events;
pub(crate) mod evicted;
pub(crate) mod makers;
pub(crate) mod notes;
pub(crate) mod open;
pub(crate) mod outbox;
pub(crate) mod owners;
pub(crate) mod quarantine;
pub(crate) mod records;
pub(crate) mod units;
pub(crate) mod unsent;
pub(crate) mod usage;
pub(crate) mod variables;

use std::sync::Arc;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{Mutex, watch};

/// What a caller can do about a failure of the index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// No room on the disk.
    #[error("the index has no room")]
    Full,
    /// The file is no good any more: it has to be rebuilt.
    #[error("the index is damaged: {0}")]
    Damaged(String),
    /// Anything else.
    #[error("the index failed: {0}")]
    Failed(String),
}

impl From<rusqlite::Error> for IndexError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// A handle on the index; clones share the connections, and have them in the order in which they ask. With a lock that
/// whoever comes takes when it happens to be free a publication, which asks several times, would wait behind lookups
/// that came later.
#[derive(Debug, Clone)]
pub(crate) struct Index {
    writer: Arc<Mutex<Connection>>,
    reader: Arc<Mutex<Connection>>,
    damaged: Arc<watch::Sender<bool>>,
}

impl Index {
    /// An index over open connections; without a reader, the writer reads too.
    pub(crate) fn new(writer: Connection, reader: Option<Connection>) -> Self {
        let writer = Arc::new(Mutex::new(writer));
        let reader = reader.map_or_else(|| writer.clone(), |reader| Arc::new(Mutex::new(reader)));
        Self { writer, reader, damaged: Arc::new(watch::Sender::new(false)) }
    }

    /// Whether an operation has found the file damaged. That cannot be repaired under way: the
    /// server leaves, and the next start rebuilds it.
    pub(crate) fn is_damaged(&self) -> bool {
        *self.damaged.borrow()
    }

    /// Waits until it is found damaged.
    pub(crate) async fn damaged(&self) {
        let mut damaged = self.damaged.subscribe();
        // The sender lives as long as the index.
        let _ = damaged.wait_for(|damaged| *damaged).await;
    }

    fn note<T>(&self, result: Result<T, IndexError>) -> Result<T, IndexError> {
        if let Err(IndexError::Damaged(_)) = &result {
            self.damaged.send_replace(true);
        }
        result
    }

    /// Runs a read beside the writers.
    ///
    /// # Errors
    /// What SQLite fails with.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, IndexError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let connection = self.reader.clone().lock_owned().await;
        self.note(blocking(move || Ok(work(&connection)?)).await)
    }

    /// Runs a read of a few rows, on this thread: a change of threads costs more than the read.
    ///
    /// # Errors
    /// What SQLite fails with.
    pub(crate) async fn read_few<T, F>(&self, work: F) -> Result<T, IndexError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let connection = self.reader.lock().await;
        self.note(work(&connection).map_err(IndexError::from))
    }

    /// Runs a write as one transaction.
    ///
    /// # Errors
    /// What SQLite fails with; nothing is written then.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, IndexError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let mut connection = self.writer.clone().lock_owned().await;
        let result = blocking(move || {
            let transaction = connection.transaction()?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        });
        self.note(result.await)
    }

    /// Waits for the disk, once, with all that was written so far; what is written from now on waits, too.
    ///
    /// # Errors
    /// What SQLite fails with.
    pub(crate) async fn settle(&self) -> Result<(), IndexError> {
        let connection = self.writer.clone().lock_owned().await;
        let result = blocking(move || {
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
            Ok(())
        });
        self.note(result.await)
    }
}

async fn blocking<T, F>(work: F) -> Result<T, IndexError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, IndexError> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| IndexError::Failed(error.to_string()))?
}

/// SQLite's integers are signed; sizes and times here never reach the sign.
pub(crate) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

pub(crate) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is asked for while somebody waits comes after that, also when it is short.
    #[tokio::test]
    async fn reads_and_writes_are_had_in_the_order_they_are_asked_for() {
        let connect = || Connection::open_in_memory().unwrap();
        let index = Index::new(connect(), Some(connect()));
        let (open, gate) = std::sync::mpsc::channel();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let asked = index.clone();
        let first = tokio::spawn(async move {
            let work = move |_: &Connection| {
                let _ = begin.send(());
                gate.recv().unwrap();
                Ok(())
            };
            asked.read(work).await.unwrap();
        });
        begun.await.unwrap();
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut others = Vec::new();
        for number in 0..64 {
            let (index, order) = (index.clone(), order.clone());
            let note = move |_: &Connection| {
                order.lock().unwrap().push(number);
                Ok(())
            };
            others.push(tokio::spawn(async move {
                match number % 2 {
                    0 => index.read(note).await.unwrap(),
                    _ => index.read_few(note).await.unwrap(),
                }
            }));
            tokio::task::yield_now().await;
        }
        index.write(|_| Ok(())).await.unwrap();
        assert!(order.lock().unwrap().is_empty(), "who writes does not wait for who reads");
        open.send(()).unwrap();
        first.await.unwrap();
        for other in others {
            other.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..64).collect::<Vec<_>>());
    }
}
