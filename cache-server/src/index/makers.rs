//! Rows of who made results: as the server knows it and as they say of themselves. Many results have the same one, so
//! whoever looks for results by their makers looks through these rows first.

use kiln_storage::{Digest, ResultKey, UnitKey};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::records::digest;
use super::usage::Place;
use super::{int, json, uint};
use crate::maker::{By, Made, Origin, Said};

/// A maker as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Maker {
    /// As the server knows it.
    pub by: By,
    /// As it says.
    pub said: Said,
}

/// What is known of who made a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// The row of the record.
    pub record: i64,
    /// Who had it stored.
    pub origin: Origin,
    /// Who else made it.
    pub again: Option<By>,
}

/// A result of a maker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Of {
    /// The row of the record.
    pub record: i64,
    /// Where it is stored.
    pub place: Place,
    /// Bytes of the record and of the blobs that it names and that are here.
    pub bytes: u64,
    /// When it was stored.
    pub made_ms: u64,
    /// The crate.
    pub unit: String,
}

/// Which results of a maker are meant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Which {
    /// Those stored then or later, milliseconds since 1970.
    pub since_ms: u64,
    /// Those of one scope, by its id.
    pub scope: Option<String>,
}

/// The row of a maker, made where there is none.
pub(crate) fn id_of(connection: &Connection, by: &By, said: &Said) -> rusqlite::Result<i64> {
    let body = json(&Maker { by: by.clone(), said: said.clone() })?;
    let key = Digest::of(body.as_bytes());
    let find = |connection: &Connection| {
        connection
            .prepare_cached("SELECT id FROM makers WHERE digest = ?1")?
            .query_row([key.as_bytes()], |row| row.get(0))
            .optional()
    };
    if let Some(id) = find(connection)? {
        return Ok(id);
    }
    connection
        .prepare_cached("INSERT INTO makers (digest, body) VALUES (?1, ?2)")?
        .execute(params![key.as_bytes(), body])?;
    Ok(connection.last_insert_rowid())
}

fn body(text: &str) -> Maker {
    // One of another version of the program: nothing is known.
    let unknown = || Maker { by: By::Unknown, said: Said::default() };
    serde_json::from_str(text).unwrap_or_else(|_| unknown())
}

/// Who made a result; none: it is not here.
pub(crate) fn of_result(
    connection: &Connection,
    scope: &str,
    key: &ResultKey,
) -> rusqlite::Result<Option<Known>> {
    connection
        .prepare_cached(
            "SELECT r.id, r.made_ms, m.body, a.body FROM records r JOIN makers m ON m.id = r.maker
             LEFT JOIN makers a ON a.id = r.again WHERE r.scope = ?1 AND r.result_key = ?2",
        )?
        .query_row(params![scope, key.digest().as_bytes()], |row| {
            let Maker { by, said } = body(&row.get::<_, String>(2)?);
            let made = Made { by, at_ms: uint(row.get(1)?) };
            let again: Option<String> = row.get(3)?;
            let again = again.map(|text| body(&text).by);
            Ok(Known { record: row.get(0)?, origin: Origin { made, said }, again })
        })
        .optional()
}

/// Notes that somebody else made a record, too.
pub(crate) fn note_again(connection: &Connection, record: i64, by: &By) -> rusqlite::Result<()> {
    let maker = id_of(connection, by, &Said::default())?;
    connection
        .prepare_cached("UPDATE records SET again = ?2 WHERE id = ?1")?
        .execute([record, maker])?;
    Ok(())
}

/// Some makers behind a row, in order, with their rows.
pub(crate) fn after(
    connection: &Connection,
    id: i64,
    limit: usize,
) -> rusqlite::Result<Vec<(i64, Maker)>> {
    connection
        .prepare_cached("SELECT id, body FROM makers WHERE id > ?1 ORDER BY id LIMIT ?2")?
        .query_map([id, int(limit as u64)], |row| {
            Ok((row.get(0)?, body(&row.get::<_, String>(1)?)))
        })?
        .collect()
}

/// Some results of a maker behind a row, in order.
pub(crate) fn results(
    connection: &Connection,
    maker: i64,
    which: &Which,
    (after, limit): (i64, usize),
) -> rusqlite::Result<Vec<Of>> {
    let sql = format!(
        "{OF} WHERE maker = ?1 AND r.id > ?2 AND made_ms >= ?3 AND (?4 IS NULL OR scope = ?4)
         ORDER BY r.id LIMIT ?5"
    );
    connection
        .prepare_cached(&sql)?
        .query_map(params![maker, after, int(which.since_ms), which.scope, int(limit as u64)], of)?
        .collect()
}

/// One result of a scope.
pub(crate) fn one(
    connection: &Connection,
    scope: &str,
    key: &ResultKey,
) -> rusqlite::Result<Option<Of>> {
    connection
        .prepare_cached(&format!("{OF} WHERE scope = ?1 AND result_key = ?2"))?
        .query_row(params![scope, key.digest().as_bytes()], of)
        .optional()
}

/// The columns of an [`Of`].
const OF: &str = "SELECT r.id, scope, unit_key, result_key, generation, again IS NOT NULL, made_ms,
         r.bytes + (SELECT coalesce(sum(b.size), 0) FROM record_blobs l
             JOIN blobs b ON b.digest = l.digest WHERE l.record = r.id),
         (SELECT crate FROM units u WHERE u.scope = r.scope AND u.unit_key = r.unit_key)
     FROM records r";

fn of(row: &Row<'_>) -> rusqlite::Result<Of> {
    Ok(Of {
        record: row.get(0)?,
        place: Place {
            scope: row.get(1)?,
            unit_key: UnitKey::new(digest(row, 2)?),
            result_key: ResultKey::new(digest(row, 3)?),
            generation: row.get(4)?,
            again: row.get(5)?,
        },
        made_ms: uint(row.get(6)?),
        bytes: uint(row.get(7)?),
        unit: row.get::<_, Option<String>>(8)?.unwrap_or_default(),
    })
}

/// Whether no record names a blob.
pub(crate) fn is_unnamed(connection: &Connection, digest: &Digest) -> rusqlite::Result<bool> {
    let named = connection
        .prepare_cached("SELECT 1 FROM record_blobs WHERE digest = ?1")?
        .exists([digest.as_bytes()])?;
    Ok(!named)
}

/// Forgets makers of which nothing is left.
pub(crate) fn sweep(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM makers WHERE NOT EXISTS (SELECT 1 FROM records WHERE maker = makers.id)
         AND NOT EXISTS (SELECT 1 FROM records WHERE again = makers.id)
         AND NOT EXISTS (SELECT 1 FROM evicted WHERE maker = makers.id)",
        [],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::open::in_memory;
    use super::super::records::{self, RecordRow, Times};
    use super::*;
    use crate::tests::record;

    fn add(connection: &Connection, unit: &str, by: &By, at_ms: u64) -> RecordRow {
        let mut record = record(unit);
        record.producer.run = "r".into();
        let times = Times { created_ms: 1, used_ms: 1 };
        let mut row = RecordRow::new("s".into(), record, 0, times).unwrap();
        row.origin.made = Made { by: by.clone(), at_ms };
        records::insert(connection, &row).unwrap();
        row
    }

    #[test]
    fn results_are_found_by_who_made_them_when_and_where() {
        let connection = in_memory();
        let (one, two) = (By::Anybody, By::User { uid: 1 });
        for (unit, by, at_ms) in [("a", &one, 10), ("b", &one, 20), ("c", &two, 30)] {
            add(&connection, unit, by, at_ms);
        }
        let makers = after(&connection, 0, 9).unwrap();
        assert_eq!(makers.iter().map(|(_, m)| &m.by).collect::<Vec<_>>(), [&one, &two]);
        assert_eq!(makers[0].1.said.run, "r");
        let count = |maker: i64, since_ms, scope: Option<&str>| {
            let which = Which { since_ms, scope: scope.map(str::to_owned) };
            results(&connection, maker, &which, (0, 9)).unwrap().len()
        };
        let (one, two) = (makers[0].0, makers[1].0);
        assert_eq!((count(one, 0, None), count(two, 0, Some("s"))), (2, 1));
        assert_eq!((count(one, 11, None), count(one, 0, Some("t"))), (1, 0));
        assert_eq!(after(&connection, one, 9).unwrap().len(), 1);
        let page = results(&connection, one, &Which::default(), (0, 1)).unwrap();
        assert!(page.len() == 1 && page[0].bytes > 1, "{page:?}");
        records::forget(&connection, page[0].record).unwrap();
        sweep(&connection).unwrap();
        assert_eq!(after(&connection, 0, 9).unwrap().len(), 2);
    }

    #[test]
    fn who_else_made_a_result_is_told_until_it_goes() {
        let connection = in_memory();
        let row = add(&connection, "a", &By::Anybody, 10);
        let known = || of_result(&connection, "s", &row.result_key).unwrap();
        assert_eq!(known().unwrap().again, None);
        note_again(&connection, known().unwrap().record, &By::Unknown).unwrap();
        assert_eq!(known().unwrap().again, Some(By::Unknown));
        sweep(&connection).unwrap();
        assert_eq!(after(&connection, 0, 9).unwrap().len(), 2);
        records::forget(&connection, known().unwrap().record).unwrap();
        sweep(&connection).unwrap();
        assert_eq!((known(), after(&connection, 0, 9).unwrap().len()), (None, 0));
    }
}
