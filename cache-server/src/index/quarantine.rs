//! Rows of quarantined results: they proved wrong, and no record of their key may be there.
//!
//! Whoever adds a record row asks [`contains`] in the same transaction.

use kiln_storage::ResultKey;
use kiln_storage::api::Quarantined;
use kiln_storage::limits::MAX_QUARANTINED;
use rusqlite::{Connection, params};

use super::records::{self, Stored, digest};
use super::{int, uint};

/// Quarantines a result and forgets its record: the record there was, and the keys that were
/// released because there are too many.
pub(crate) fn insert(
    connection: &Connection,
    scope: &str,
    entry: &Quarantined,
) -> rusqlite::Result<(Option<Stored>, Vec<ResultKey>)> {
    let body = serde_json::to_string(entry)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    connection
        .prepare_cached("INSERT OR IGNORE INTO quarantine VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![scope, entry.result_key.digest().as_bytes(), int(entry.at_ms), body])?;
    let stored = records::stored(connection, scope, &entry.result_key)?;
    if let Some(stored) = &stored {
        records::forget(connection, stored.id)?;
    }
    let oldest = keys(
        connection,
        "SELECT result_key FROM quarantine WHERE scope = ?1
         ORDER BY at_ms DESC, result_key LIMIT -1 OFFSET ?2",
        scope,
    )?;
    for key in &oldest {
        release(connection, scope, key)?;
    }
    Ok((stored, oldest))
}

fn keys(connection: &Connection, sql: &str, scope: &str) -> rusqlite::Result<Vec<ResultKey>> {
    connection
        .prepare_cached(sql)?
        .query_map(params![scope, int(MAX_QUARANTINED as u64)], |row| {
            digest(row, 0).map(ResultKey::new)
        })?
        .collect()
}

/// Whether a result is quarantined.
pub(crate) fn contains(
    connection: &Connection,
    scope: &str,
    key: &ResultKey,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM quarantine WHERE scope = ?1 AND result_key = ?2")?
        .exists(params![scope, key.digest().as_bytes()])
}

/// Whether a result is quarantined in one of some scopes.
pub(crate) fn in_any(
    connection: &Connection,
    scopes: &[String],
    key: &ResultKey,
) -> rusqlite::Result<bool> {
    for scope in scopes {
        if contains(connection, scope, key)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is quarantined in a scope, newest first.
pub(crate) fn list(connection: &Connection, scope: &str) -> rusqlite::Result<Vec<Quarantined>> {
    let bodies: Vec<String> = connection
        .prepare_cached(
            "SELECT body FROM quarantine WHERE scope = ?1 ORDER BY at_ms DESC, result_key",
        )?
        .query_map(params![scope], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    // A row of another version of the program is left out; it counts all the same.
    Ok(bodies.iter().filter_map(|body| serde_json::from_str(body).ok()).collect())
}

/// How many results are quarantined in a scope.
pub(crate) fn count(connection: &Connection, scope: &str) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT count(*) FROM quarantine WHERE scope = ?1")?
        .query_row(params![scope], |row| row.get(0).map(uint))
}

/// Releases a result; whether it was quarantined.
pub(crate) fn release(
    connection: &Connection,
    scope: &str,
    key: &ResultKey,
) -> rusqlite::Result<bool> {
    let rows = connection
        .prepare_cached("DELETE FROM quarantine WHERE scope = ?1 AND result_key = ?2")?
        .execute(params![scope, key.digest().as_bytes()])?;
    Ok(rows > 0)
}

#[cfg(test)]
mod tests {
    use super::super::open::in_memory;
    use super::*;
    use kiln_storage::Digest;
    use kiln_storage::record::UnitName;

    fn entry(n: u64) -> Quarantined {
        Quarantined {
            result_key: ResultKey::new(Digest::of(&n.to_le_bytes())),
            unit: UnitName::default(),
            at_ms: n,
            reason: "why".into(),
        }
    }

    #[test]
    fn scopes_are_apart_and_the_oldest_go_first() {
        let connection = in_memory();
        let most = MAX_QUARANTINED as u64;
        for n in 0..most {
            assert_eq!(insert(&connection, "s", &entry(n)).unwrap(), (None, Vec::new()));
        }
        insert(&connection, "t", &entry(0)).unwrap();
        assert_eq!(count(&connection, "s").unwrap(), most);
        let (_, gone) = insert(&connection, "s", &entry(most)).unwrap();
        assert_eq!(gone, [entry(0).result_key]);
        assert_eq!(count(&connection, "s").unwrap(), most);
        assert!(!contains(&connection, "s", &entry(0).result_key).unwrap());
        assert!(contains(&connection, "t", &entry(0).result_key).unwrap());
        assert_eq!(list(&connection, "s").unwrap()[0], entry(most));
        assert!(release(&connection, "s", &entry(most).result_key).unwrap());
        assert!(!release(&connection, "s", &entry(most).result_key).unwrap());
        assert_eq!(list(&connection, "t").unwrap(), [entry(0)]);
    }
}
