//! Rows of notes: small texts that jobs leave for the next one of their kind. An aid: they are gone with
//! the index.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::int;
use crate::limits::MAX_NOTES;

/// A note of a scope.
pub(crate) fn get(
    connection: &Connection,
    scope: &str,
    name: &str,
) -> rusqlite::Result<Option<Bytes>> {
    connection
        .prepare_cached("SELECT body FROM notes WHERE scope = ?1 AND name = ?2")?
        .query_row(params![scope, name], |row| row.get::<_, Vec<u8>>(0))
        .optional()
        .map(|body| body.map(Bytes::from))
}

/// Writes a note over the one there is; the oldest beyond the bound go.
pub(crate) fn put(
    connection: &Connection,
    scope: &str,
    name: &str,
    body: &[u8],
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO notes (scope, name, body) VALUES (?1, ?2, ?3)")?
        .execute(params![scope, name, body])?;
    connection
        .prepare_cached(
            "DELETE FROM notes WHERE scope = ?1 AND id NOT IN
                 (SELECT id FROM notes WHERE scope = ?1 ORDER BY id DESC LIMIT ?2)",
        )?
        .execute(params![scope, int(MAX_NOTES)])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::open::in_memory;
    use super::*;

    #[test]
    fn a_note_is_replaced_and_the_oldest_go() {
        let connection = in_memory();
        put(&connection, "s", "a", b"1").unwrap();
        put(&connection, "s", "a", b"2").unwrap();
        assert_eq!(get(&connection, "s", "a").unwrap().unwrap(), "2");
        assert_eq!(get(&connection, "t", "a").unwrap(), None);
        for n in 0..MAX_NOTES {
            put(&connection, "s", &n.to_string(), b"").unwrap();
        }
        assert_eq!(get(&connection, "s", "a").unwrap(), None);
        assert!(get(&connection, "s", "0").unwrap().is_some());
    }
}
