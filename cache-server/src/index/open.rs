//! Opening the index: the schema, and what happens to a file that cannot be used.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{Index, IndexError, evicted, uint, unsent};
use crate::clock;
use crate::limits::{SQLITE_BUSY_TIMEOUT, SQLITE_STATEMENTS};

/// Name of the file in the server's directory.
const FILE_NAME: &str = "index.sqlite";

/// Suffix of a file beside it that says that it is to be thrown away.
const CONDEMNED: &str = "sqlite-condemned";

/// Version of the schema; an index of another one is rebuilt.
const SCHEMA_VERSION: &str = "10";

const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    scope TEXT NOT NULL,
    unit_key BLOB NOT NULL,
    result_key BLOB NOT NULL,
    generation INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    last_used_ms INTEGER NOT NULL,
    uses INTEGER NOT NULL,
    cost_ms INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    -- Its name (JSON) in the place behind the server, when it came from there.
    afar TEXT,
    maker INTEGER NOT NULL REFERENCES makers (id),
    -- When it was stored, by the clock of the server.
    made_ms INTEGER NOT NULL,
    -- Somebody else who made it, too.
    again INTEGER REFERENCES makers (id),
    UNIQUE (scope, result_key)
);
CREATE INDEX records_of_maker ON records (maker);
CREATE INDEX records_made_again ON records (again) WHERE again IS NOT NULL;
-- Who makes results, as the server knows it and as they say (JSON), by the digest of that.
CREATE TABLE makers (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, body TEXT NOT NULL);
-- Apart from the rows, which are counted and weighed far more often than bodies are read.
CREATE TABLE bodies (
    record INTEGER PRIMARY KEY REFERENCES records (id) ON DELETE CASCADE,
    body BLOB NOT NULL
);
-- What explanations alone read.
CREATE TABLE variables (
    record INTEGER PRIMARY KEY REFERENCES records (id) ON DELETE CASCADE,
    list TEXT NOT NULL
);
CREATE INDEX records_of_unit ON records (scope, unit_key, created_ms DESC, id DESC);
CREATE TABLE record_blobs (
    record INTEGER NOT NULL REFERENCES records (id) ON DELETE CASCADE,
    digest BLOB NOT NULL,
    PRIMARY KEY (record, digest)
) WITHOUT ROWID;
CREATE INDEX records_of_blob ON record_blobs (digest);
CREATE TABLE blobs (
    digest BLOB PRIMARY KEY,
    size INTEGER NOT NULL,
    created_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE scopes (
    id TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    reference TEXT NOT NULL
) WITHOUT ROWID;
-- Of which repositories a blob is.
CREATE TABLE owners (
    digest BLOB NOT NULL REFERENCES blobs (digest) ON DELETE CASCADE,
    repository TEXT NOT NULL,
    PRIMARY KEY (digest, repository)
) WITHOUT ROWID;
-- What waits to be sent to the place behind the server. `collected`: it has it, not durable yet.
CREATE TABLE outbox (
    -- Never given twice: whoever sends a result takes out its row, and not that of one that came meanwhile.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    record INTEGER NOT NULL UNIQUE REFERENCES records (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    queued_ms INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    worth REAL NOT NULL,
    attempts INTEGER NOT NULL,
    retry_ms INTEGER NOT NULL,
    collected INTEGER NOT NULL
);
-- The generation that the next result of a key gets there, after one that proved damaged.
CREATE TABLE replaced (
    scope TEXT NOT NULL,
    result_key BLOB NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (scope, result_key)
) WITHOUT ROWID;
-- What was sent there and is not here any more. One that waits was not sent. `sends`: something is sent there.
CREATE TABLE evicted (
    scope TEXT NOT NULL,
    result_key BLOB NOT NULL,
    maker INTEGER NOT NULL REFERENCES makers (id),
    unit_key BLOB NOT NULL,
    generation INTEGER NOT NULL,
    made_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, result_key, maker)
) WITHOUT ROWID;
CREATE INDEX evicted_of_maker ON evicted (maker);
CREATE INDEX evicted_by_time ON evicted (made_ms);
CREATE TRIGGER evicted_when_gone BEFORE DELETE ON records
WHEN OLD.afar IS NULL AND EXISTS (SELECT 1 FROM meta WHERE key = 'sends')
    AND NOT EXISTS (SELECT 1 FROM outbox WHERE record = OLD.id)
BEGIN
    INSERT OR REPLACE INTO evicted VALUES
        (OLD.scope, OLD.result_key, OLD.maker, OLD.unit_key, OLD.generation, OLD.made_ms);
END;
CREATE TABLE notes (
    id INTEGER PRIMARY KEY,
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (scope, name)
);
CREATE TABLE quarantine (
    scope TEXT NOT NULL,
    result_key BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (scope, result_key)
) WITHOUT ROWID;
-- What unit keys were made of, also of units whose results are gone: for explanations only.
CREATE TABLE units (
    id INTEGER PRIMARY KEY,
    scope TEXT NOT NULL,
    unit_key BLOB NOT NULL,
    crate TEXT NOT NULL,
    version TEXT NOT NULL,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    parts TEXT NOT NULL,
    UNIQUE (scope, unit_key)
);
CREATE INDEX units_of_key ON units (unit_key);
CREATE INDEX units_of_crate ON units (scope, crate, kind, target, created_ms DESC);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    scope TEXT NOT NULL,
    id TEXT NOT NULL,
    build TEXT NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (scope, id)
);
CREATE INDEX events_of_build ON events (scope, build);
CREATE TABLE builds (
    scope TEXT NOT NULL,
    build TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    PRIMARY KEY (scope, build)
) WITHOUT ROWID;
CREATE TABLE totals (
    scope TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    zero_seq INTEGER NOT NULL
) WITHOUT ROWID;
";

/// An open index and how it came to be.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The index.
    pub index: Index,
    /// It is empty and has to be filled from the store.
    pub fresh: bool,
    /// It was in use when its server ended: the store may hold blobs that it does not know.
    pub(crate) unclean: bool,
    /// What the log should say about it.
    pub notes: Vec<String>,
    /// Results that waited to be sent in an index that was thrown away or removed; none: nobody knows.
    pub(crate) unsent: Option<u64>,
}

/// Opens the index of a directory for a store.
///
/// A file that cannot be used is thrown away; where no file can be written the index is in memory.
///
/// # Errors
/// Not even an index in memory can be had.
pub(crate) fn open(dir: &Path, store_id: &str) -> Result<Opened, IndexError> {
    let path = dir.join(FILE_NAME);
    // Where there is none, none was made yet, or somebody removed it.
    let noted = || unsent::take(dir);
    let (mut notes, mut unsent) = (Vec::new(), Some(0));
    if !path.exists() {
        unsent = noted().or(unsent);
    }
    let mut opened = match is_condemned(&path) {
        true => Err(IndexError::Damaged("it was found damaged".into())),
        false => open_file(&path, store_id),
    };
    if let Err(IndexError::Damaged(why)) = &opened {
        notes.push(format!("index thrown away: {why}"));
        unsent = count_unsent(&path).or_else(noted);
        throw_away(&path);
        opened = open_file(&path, store_id);
    }
    let opened = match opened {
        Ok(opened) => opened,
        Err(why) => {
            notes.push(format!("index kept in memory: {why}"));
            let connection = Connection::open_in_memory()?;
            create(&connection, store_id)?;
            Opened {
                index: Index::new(connection, None),
                fresh: true,
                unclean: false,
                notes: Vec::new(),
                unsent: Some(0),
            }
        }
    };
    Ok(Opened { notes, unsent, ..opened })
}

/// Has the next start throw an index away that was found damaged, and say what was in it.
pub(crate) fn condemn(dir: &Path) {
    condemn_file(&dir.join(FILE_NAME));
}

/// Has the next start throw a file away.
pub(crate) fn condemn_file(path: &Path) {
    if fs::write(path.with_extension(CONDEMNED), "").is_err() {
        throw_away(path);
    }
}

/// Whether a file was found damaged by the server before.
pub(crate) fn is_condemned(path: &Path) -> bool {
    path.with_extension(CONDEMNED).exists()
}

/// How many results waited to be sent in an index that cannot be used, where that can be read.
fn count_unsent(path: &Path) -> Option<u64> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).ok()?;
    let count = |of: &str| {
        let count =
            connection.query_row(&format!("SELECT count(*) FROM {of}"), [], |row| row.get(0));
        count.ok().map(uint)
    };
    match count("sqlite_master WHERE name = 'outbox'")? {
        0 => Some(0),
        _ => count("outbox"),
    }
}

/// Removes a file that cannot be used, with SQLite's own files beside it.
pub(crate) fn throw_away(path: &Path) {
    let _ = fs::remove_file(path);
    for suffix in ["sqlite-wal", "sqlite-shm", "sqlite-journal", CONDEMNED] {
        let _ = fs::remove_file(path.with_extension(suffix));
    }
}

/// Opens or makes the file. Any failure that is not for want of room or of permission is the
/// file's fault: [`IndexError::Damaged`].
fn open_file(path: &Path, store_id: &str) -> Result<Opened, IndexError> {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, PermissionDenied, ReadOnly};
    let in_file = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(CannotOpen | DiskFull | PermissionDenied | ReadOnly) => IndexError::from(error),
        _ => IndexError::Damaged(error.to_string()),
    };
    let connection = connect(path).map_err(in_file)?;
    if is_empty(&connection).map_err(in_file)? {
        create(&connection, store_id)?;
    }
    let meta = |key: &str| meta(&connection, key).map_err(in_file);
    if meta("schema")?.as_deref() != Some(SCHEMA_VERSION) {
        return Err(IndexError::Damaged("another version of the schema".into()));
    }
    if meta("store")?.as_deref() != Some(store_id) {
        return Err(IndexError::Damaged("it belongs to another store".into()));
    }
    // What an interrupted rebuild has left is not all that the store holds.
    let fresh = meta("complete")?.is_none();
    let (in_use, boot) = (meta("in-use")?, boot());
    let unclean = in_use.is_some();
    if in_use.is_some_and(|then| then != boot || then.is_empty()) {
        return Err(IndexError::Damaged("the machine went down while it was in use".into()));
    }
    set(&connection, "in-use", &boot).map_err(in_file)?;
    let reader = connect(path).map_err(in_file)?;
    let (index, unsent) = (Index::new(connection, Some(reader)), Some(0));
    Ok(Opened { index, fresh, unclean, notes: Vec::new(), unsent })
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    Ok(tables == 0)
}

pub(super) fn meta(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
        .optional()
}

/// Notes that the index holds all that the store holds.
///
/// # Errors
/// What SQLite fails with.
pub(crate) fn mark_complete(connection: &Connection) -> rusqlite::Result<()> {
    set(connection, "complete", "1")
}

/// Notes that the server ends and has finished what it began.
///
/// # Errors
/// What SQLite fails with.
pub(crate) fn mark_clean(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM meta WHERE key = 'in-use'", [])?;
    Ok(())
}

pub(super) fn set(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", [key, value])?;
    Ok(())
}

/// Which start of the machine this is; empty where nobody tells.
fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(SQLITE_BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(SQLITE_STATEMENTS);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Nobody waits for the disk but a server that ends: a process that is killed loses nothing, and an index
    // that the machine went down with is thrown away.
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

fn create(connection: &Connection, store_id: &str) -> Result<(), IndexError> {
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.execute_batch(&format!("BEGIN; {SCHEMA} COMMIT;"))?;
    connection.execute(
        "INSERT INTO meta VALUES ('schema', ?1), ('store', ?2)",
        params![SCHEMA_VERSION, store_id],
    )?;
    set(connection, evicted::KNOWN_SINCE, &clock::now_ms().to_string())?;
    Ok(())
}

/// An empty index in memory, for tests of the functions on rows.
#[cfg(test)]
pub(crate) fn in_memory() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    create(&connection, "test").unwrap();
    connection
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn complete(index: &Index) {
        index.write(mark_complete).await.unwrap();
    }

    #[tokio::test]
    async fn a_good_index_is_kept_and_any_other_is_throw_away() {
        let dir = tempfile::tempdir().unwrap();
        let opened = open(dir.path(), "a").unwrap();
        assert!(opened.fresh && opened.notes.is_empty(), "{opened:?}");
        drop(opened);
        let opened = open(dir.path(), "a").unwrap();
        assert!(opened.fresh, "an interrupted rebuild starts again");
        complete(&opened.index).await;
        drop(opened);
        let opened = open(dir.path(), "a").unwrap();
        assert!(!opened.fresh && opened.unclean && opened.notes.is_empty());
        opened.index.write(mark_clean).await.unwrap();
        drop(opened);
        assert!(!open(dir.path(), "a").unwrap().unclean);

        let opened = open(dir.path(), "b").unwrap();
        assert!(opened.fresh && opened.notes.len() == 1, "{opened:?}");
        complete(&opened.index).await;
        drop(opened);

        let path = dir.path().join(FILE_NAME);
        throw_away(&path);
        fs::write(&path, vec![7_u8; 8192]).unwrap();
        let opened = open(dir.path(), "b").unwrap();
        assert!(opened.fresh && opened.notes.len() == 1, "{opened:?}");
        drop(opened);

        throw_away(&path);
        let foreign = Connection::open(&path).unwrap();
        foreign.execute_batch("CREATE TABLE t (x)").unwrap();
        drop(foreign);
        let opened = open(dir.path(), "b").unwrap();
        assert!(opened.fresh && opened.notes.len() == 1, "{opened:?}");
    }

    #[tokio::test]
    async fn what_waited_in_an_index_that_is_thrown_away_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let unsent = || open(dir.path(), "a").unwrap().unsent;
        assert_eq!(unsent(), Some(0), "nothing was thrown away");
        let rows = "PRAGMA foreign_keys = off;
             INSERT INTO outbox VALUES (1, 1, 0, 0, 0, 0, 0, 0, 0), (2, 2, 0, 0, 0, 0, 0, 0, 0);";
        let waits = || connect(&path).unwrap().execute_batch(rows).unwrap();
        waits();
        assert_eq!(unsent(), Some(0), "it is kept");
        connect(&path)
            .unwrap()
            .execute_batch("UPDATE meta SET value = '0' WHERE key = 'schema'")
            .unwrap();
        assert_eq!(unsent(), Some(2));
        waits();
        condemn(dir.path());
        assert_eq!(unsent(), Some(2));
        assert_eq!(unsent(), Some(0), "it is told once");
        fs::write(&path, vec![7_u8; 8192]).unwrap();
        assert_eq!(unsent(), None);
        // That it was noted beside it, too.
        super::unsent::note(dir.path(), 3);
        assert_eq!(unsent(), Some(0), "the index itself is asked");
        fs::write(&path, vec![7_u8; 8192]).unwrap();
        assert_eq!(unsent(), Some(3));
        fs::write(&path, vec![7_u8; 8192]).unwrap();
        assert_eq!(unsent(), None, "it is told once");
        super::unsent::note(dir.path(), 4);
        throw_away(&path);
        assert_eq!(unsent(), Some(4));
        for text in ["", "x", "-1", "99999999999999999999999"] {
            throw_away(&path);
            fs::write(dir.path().join("index.unsent"), text).unwrap();
            assert_eq!(unsent(), Some(0), "{text:?}");
        }
        super::unsent::note(dir.path(), 5);
        super::unsent::note(dir.path(), 0);
        throw_away(&path);
        assert_eq!(unsent(), Some(0));
    }

    #[tokio::test]
    async fn an_index_that_the_machine_went_down_with_is_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let opened = open(dir.path(), "a").unwrap();
        complete(&opened.index).await;
        opened.index.write(|index| set(index, "in-use", "another start")).await.unwrap();
        drop(opened);
        let opened = open(dir.path(), "a").unwrap();
        assert!(opened.fresh && opened.notes.len() == 1, "{opened:?}");
        complete(&opened.index).await;
        opened.index.write(mark_clean).await.unwrap();
        drop(opened);
        assert!(!open(dir.path(), "a").unwrap().fresh, "it was closed before that");
    }

    #[test]
    fn where_no_file_can_be_the_index_is_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let opened = open(&dir.path().join("not-there"), "a").unwrap();
        assert!(opened.fresh && opened.notes.len() == 1, "{opened:?}");
    }
}
