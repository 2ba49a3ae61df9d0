//! Opening the history: the schema, and what happens to a file that cannot be used.

use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use super::History;
use crate::index::open::{is_condemned, throw_away};
use crate::index::{Index, IndexError};
use crate::limits::{SQLITE_BUSY_TIMEOUT, SQLITE_STATEMENTS};

/// Name of the file in the server's directory.
const FILE_NAME: &str = "reports.sqlite";

/// Version of the schema; a file of another one is thrown away.
const SCHEMA_VERSION: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    scope TEXT NOT NULL,
    run TEXT NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    -- When the server last heard of it: clocks of machines may say anything.
    seen_ms INTEGER NOT NULL,
    -- Of its chunks.
    bytes INTEGER NOT NULL,
    about TEXT NOT NULL,
    -- What runs of one kind have in common, and the branch that this one was for.
    series TEXT NOT NULL,
    branch TEXT NOT NULL,
    UNIQUE (scope, run)
);
CREATE INDEX runs_by_time ON runs (scope, last_ms, id);
CREATE INDEX runs_by_age ON runs (seen_ms);
CREATE INDEX runs_of_branch ON runs (series, branch, last_ms);
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    job TEXT NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    -- When the server last heard of it.
    heard_ms INTEGER NOT NULL,
    -- Events that are in chunks.
    kept INTEGER NOT NULL,
    -- What jobs of one kind have in common.
    series TEXT NOT NULL,
    sums TEXT NOT NULL,
    -- Its last units.
    latest TEXT NOT NULL,
    UNIQUE (run, job)
);
CREATE INDEX jobs_of_series ON jobs (series, last_ms);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    count INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX chunks_of_job ON chunks (job, id);
-- Batches of events that came from a place behind the server, by the name they have there.
CREATE TABLE arrived (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    PRIMARY KEY (run, name)
) WITHOUT ROWID;
-- Events that wait to be sent there.
CREATE TABLE outgoing (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL,
    job TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX outgoing_of_job ON outgoing (run, job, id);
";

/// What was added while the version stayed: a file without it gets it when it is opened.
const ADDED: &str = "
-- Jobs whose events are here and are not taken by what is behind the server, with the reason.
CREATE TABLE IF NOT EXISTS unshared (
    job INTEGER PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    why TEXT NOT NULL
);
";

/// Opens the history of a directory; what the log should say about it. A file that cannot be used is thrown away;
/// where none can be written the history is in memory.
///
/// # Errors
/// Not even one in memory can be had.
pub(crate) fn open(dir: &Path) -> Result<(History, Vec<String>), IndexError> {
    let path = dir.join(FILE_NAME);
    let mut notes = Vec::new();
    let mut opened = match is_condemned(&path) {
        true => Err(IndexError::Damaged("it was found damaged".into())),
        false => open_file(&path),
    };
    if let Err(IndexError::Damaged(why)) = &opened {
        notes.push(format!("history of runs thrown away: {why}"));
        throw_away(&path);
        opened = open_file(&path);
    }
    let rows = match opened {
        Ok(rows) => rows,
        Err(why) => {
            notes.push(format!("history of runs kept in memory: {why}"));
            Index::new(in_memory()?, None)
        }
    };
    Ok((History::new(rows, path), notes))
}

fn open_file(path: &Path) -> Result<Index, IndexError> {
    use ErrorCode::{CannotOpen, DiskFull, PermissionDenied, ReadOnly};
    let in_file = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(CannotOpen | DiskFull | PermissionDenied | ReadOnly) => IndexError::from(error),
        _ => IndexError::Damaged(error.to_string()),
    };
    let connection = connect(path).map_err(in_file)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(in_file)?;
    if tables == 0 {
        create(&connection).map_err(in_file)?;
    }
    let version: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(in_file)?;
    if version != SCHEMA_VERSION {
        return Err(IndexError::Damaged("another version of the schema".into()));
    }
    connection.execute_batch(ADDED).map_err(in_file)?;
    Ok(Index::new(connection, Some(connect(path).map_err(in_file)?)))
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(SQLITE_BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(SQLITE_STATEMENTS);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    Ok(connection)
}

/// An empty history that is gone with its connection.
pub(crate) fn in_memory() -> rusqlite::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    create(&connection)?;
    connection.execute_batch(ADDED)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let runs = |connection: &Connection| {
            connection.query_row("SELECT count(*) FROM runs", [], |row| row.get::<_, i64>(0))
        };
        for (bytes, notes) in [(None, 0), (Some(vec![7_u8; 8192]), 1)] {
            if let Some(bytes) = bytes {
                throw_away(&path);
                std::fs::write(&path, bytes).unwrap();
            }
            let (history, told) = open(dir.path()).unwrap();
            assert_eq!((history.read(runs).await.unwrap(), told.len()), (0, notes), "{told:?}");
        }
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert_eq!(open(dir.path()).unwrap().1.len(), 1);
        let (history, told) = open(&dir.path().join("not-there")).unwrap();
        assert_eq!((history.read(runs).await.unwrap(), told.len()), (0, 1), "{told:?}");
    }
}
