//! Rows of owners: of which repositories a blob is. Whoever reads one of them may read it.
//!
//! A repository owns what it uploaded, and what a record in one of its scopes names: nobody gets to name a blob
//! in a record who did not have it. Both come from the store again ([`crate::scopes`]); an upload that no record
//! names by then is uploaded once more.

use kiln_storage::{Digest, Scope};
use rusqlite::{Connection, OptionalExtension as _, params};

/// Notes which repository the id of a scope is in, and that it owns what records there name already.
pub(crate) fn note_scope(connection: &Connection, scope: &Scope) -> rusqlite::Result<()> {
    let id = scope.id();
    let new = connection
        .prepare_cached("INSERT OR IGNORE INTO scopes VALUES (?1, ?2, ?3)")?
        .execute(params![id, scope.repository(), scope.reference()])?;
    if new > 0 {
        connection
            .prepare_cached(
                "INSERT OR IGNORE INTO owners SELECT b.digest, ?2
                 FROM records r JOIN record_blobs l ON l.record = r.id JOIN blobs b ON b.digest = l.digest
                 WHERE r.scope = ?1",
            )?
            .execute(params![id, scope.repository()])?;
    }
    Ok(())
}

/// The repository and ref behind the id of a scope.
pub(crate) fn scope(connection: &Connection, id: &str) -> rusqlite::Result<Option<Scope>> {
    connection
        .prepare_cached("SELECT repository, reference FROM scopes WHERE id = ?1")?
        .query_row([id], |row| Ok(Scope::new(row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
        .optional()
}

/// Notes that a repository owns a blob that is here.
pub(crate) fn own(
    connection: &Connection,
    digest: &Digest,
    repository: &str,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO owners SELECT digest, ?2 FROM blobs WHERE digest = ?1",
        )?
        .execute(params![digest.as_bytes(), repository])?;
    Ok(())
}

/// Notes who owns a blob that has come: the repositories of the records that name it.
pub(crate) fn of_blob(connection: &Connection, digest: &Digest) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO owners SELECT l.digest, s.repository
             FROM record_blobs l JOIN records r ON r.id = l.record JOIN scopes s ON s.id = r.scope
             WHERE l.digest = ?1",
        )?
        .execute([digest.as_bytes()])?;
    Ok(())
}

/// Notes who owns the blobs of a record that are here.
pub(crate) fn of_record(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO owners SELECT b.digest, s.repository
             FROM records r JOIN scopes s ON s.id = r.scope JOIN record_blobs l ON l.record = r.id
                 JOIN blobs b ON b.digest = l.digest
             WHERE r.id = ?1",
        )?
        .execute([id])?;
    Ok(())
}

/// Which of these blobs none of some repositories owns, in the order asked.
pub(crate) fn missing(
    connection: &Connection,
    asked: &[Digest],
    repositories: &[String],
) -> rusqlite::Result<Vec<Digest>> {
    let mut statement =
        connection.prepare_cached("SELECT 1 FROM owners WHERE digest = ?1 AND repository = ?2")?;
    let mut missing = Vec::new();
    'asked: for digest in asked {
        for repository in repositories {
            if statement.exists(params![digest.as_bytes(), repository])? {
                continue 'asked;
            }
        }
        missing.push(*digest);
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::super::open::in_memory;
    use super::super::records::{self, RecordRow, Times};
    use super::*;
    use crate::tests::record;

    fn is_missing(connection: &Connection, bytes: &str, repository: &str) -> bool {
        let digest = Digest::of(bytes.as_bytes());
        !missing(connection, &[digest], &[repository.to_owned()]).unwrap().is_empty()
    }

    fn row(unit: &str, scope: &Scope) -> RecordRow {
        let times = Times { created_ms: 1, used_ms: 1 };
        RecordRow::new(scope.id(), record(unit), 0, times).unwrap()
    }

    #[test]
    fn a_repository_owns_what_its_records_name_in_whatever_order_they_come() {
        let connection = in_memory();
        let scope = Scope::new("r", "main");
        let (a, b, c) = (row("a", &scope), row("b", &scope), row("c", &scope));
        records::insert(&connection, &a).unwrap();
        assert!(is_missing(&connection, "a", "r"), "nobody knows yet whose the scope is");
        note_scope(&connection, &scope).unwrap();
        records::insert(&connection, &b).unwrap();
        records::insert_found(&connection, &c).unwrap();
        assert!(is_missing(&connection, "c", "r"), "it is not here");
        records::insert_blob(&connection, &Digest::of(b"c"), 1, 1).unwrap();
        for unit in ["a", "b", "c"] {
            assert!(!is_missing(&connection, unit, "r"), "{unit}");
            assert!(is_missing(&connection, unit, "s"), "{unit}");
        }
    }

    #[test]
    fn what_was_uploaded_is_owned_until_it_goes() {
        let connection = in_memory();
        let digest = Digest::of(b"a");
        own(&connection, &digest, "r").unwrap();
        assert!(is_missing(&connection, "a", "r"), "it is not here");
        records::insert_blob(&connection, &digest, 1, 1).unwrap();
        own(&connection, &digest, "r").unwrap();
        own(&connection, &digest, "s").unwrap();
        let both = ["s".to_owned(), "r".to_owned()];
        assert!(missing(&connection, &[digest], &both).unwrap().is_empty());
        records::forget_blob(&connection, &digest).unwrap();
        assert_eq!(missing(&connection, &[digest], &both).unwrap(), [digest]);
        records::insert_blob(&connection, &digest, 1, 1).unwrap();
        assert_eq!(missing(&connection, &[digest], &both).unwrap(), [digest]);
    }
}
