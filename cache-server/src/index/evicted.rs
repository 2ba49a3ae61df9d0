//! Rows of results that were sent to the place behind the server and are not here any more, with who made them: a
//! revoke has them taken back there. A trigger of the schema writes them, whatever removes a record. There is a bound:
//! from when on all of them are known is known, too ([`known_since_ms`]).

use kiln_storage::{ResultKey, UnitKey};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::makers::Which;
use super::open::{meta, set};
use super::records::digest;
use super::{int, uint};
use crate::limits::MAX_EVICTED_KNOWN;

/// The key of the time in the table of single values.
pub(super) const KNOWN_SINCE: &str = "evicted-known-since";

/// A result that is not here any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evicted {
    /// Id of its scope here.
    pub scope: String,
    /// The unit.
    pub unit_key: UnitKey,
    /// The result.
    pub result_key: ResultKey,
    /// The generation that it had here.
    pub generation: u32,
}

/// Which of a maker are meant.
const OF_MAKER: &str =
    "FROM evicted WHERE maker = ?1 AND made_ms >= ?2 AND (?3 IS NULL OR scope = ?3)";

/// Some of a maker.
pub(crate) fn of_maker(
    connection: &Connection,
    maker: i64,
    which: &Which,
    limit: usize,
) -> rusqlite::Result<Vec<Evicted>> {
    let sql = format!("SELECT scope, unit_key, result_key, generation {OF_MAKER} LIMIT ?4");
    connection
        .prepare_cached(&sql)?
        .query_map(params![maker, int(which.since_ms), which.scope, int(limit as u64)], evicted)?
        .collect()
}

fn evicted(row: &Row<'_>) -> rusqlite::Result<Evicted> {
    Ok(Evicted {
        scope: row.get(0)?,
        unit_key: UnitKey::new(digest(row, 1)?),
        result_key: ResultKey::new(digest(row, 2)?),
        generation: row.get(3)?,
    })
}

/// How many there are of a maker.
pub(crate) fn count(connection: &Connection, maker: i64, which: &Which) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(&format!("SELECT count(*) {OF_MAKER}"))?
        .query_row(params![maker, int(which.since_ms), which.scope], |row| Ok(uint(row.get(0)?)))
}

/// Forgets a result, whoever made it: it was taken back.
pub(crate) fn forget(
    connection: &Connection,
    scope: &str,
    key: &ResultKey,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM evicted WHERE scope = ?1 AND result_key = ?2")?
        .execute(params![scope, key.digest().as_bytes()])?;
    Ok(())
}

/// From when on all are known that were stored, milliseconds since 1970.
pub(crate) fn known_since_ms(connection: &Connection) -> rusqlite::Result<u64> {
    let known = meta(connection, KNOWN_SINCE)?;
    Ok(known.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX))
}

/// Forgets the oldest of too many.
pub(crate) fn bound(connection: &Connection) -> rusqlite::Result<()> {
    bound_to(connection, MAX_EVICTED_KNOWN)
}

fn bound_to(connection: &Connection, max: u64) -> rusqlite::Result<()> {
    let newest_over: Option<i64> = connection
        .prepare_cached("SELECT made_ms FROM evicted ORDER BY made_ms DESC LIMIT 1 OFFSET ?1")?
        .query_row([int(max)], |row| row.get(0))
        .optional()?;
    let Some(newest_over) = newest_over else { return Ok(()) };
    connection.prepare_cached("DELETE FROM evicted WHERE made_ms <= ?1")?.execute([newest_over])?;
    let since = known_since_ms(connection)?.max(uint(newest_over).saturating_add(1));
    set(connection, KNOWN_SINCE, &since.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::open::in_memory;
    use super::super::records::{self, RecordRow, Times};
    use super::super::{makers, outbox};
    use super::*;
    use crate::maker::{By, Made};
    use crate::tests::record;

    fn add(connection: &Connection, unit: &str, at_ms: u64) -> (i64, RecordRow) {
        let times = Times { created_ms: 1, used_ms: 1 };
        let mut row = RecordRow::new("s".into(), record(unit), 0, times).unwrap();
        row.origin.made = Made { by: By::Anybody, at_ms };
        (records::insert(connection, &row).unwrap().0, row)
    }

    fn all(connection: &Connection, since_ms: u64) -> usize {
        let which = Which { since_ms, scope: Some("s".into()) };
        let makers = makers::after(connection, 0, 9).unwrap();
        let of = |id: i64| of_maker(connection, id, &which, 99).unwrap().len();
        let counted = |id: i64| count(connection, id, &which).unwrap() as usize;
        makers.iter().for_each(|(id, _)| assert_eq!(of(*id), counted(*id)));
        makers.iter().map(|(id, _)| of(*id)).sum()
    }

    #[test]
    fn what_was_sent_and_goes_is_known_with_its_maker() {
        let connection = in_memory();
        let (id, _) = add(&connection, "alone", 1);
        records::forget(&connection, id).unwrap();
        assert_eq!(all(&connection, 0), 0, "nothing is sent");
        outbox::restart(&connection).unwrap();
        let (id, row) = add(&connection, "waits", 2);
        outbox::queue(&connection, id, &row).unwrap();
        records::forget(&connection, id).unwrap();
        assert_eq!(all(&connection, 0), 0, "it was not sent");
        let (id, row) = add(&connection, "sent", 3);
        records::forget(&connection, id).unwrap();
        makers::sweep(&connection).unwrap();
        assert_eq!((all(&connection, 3), all(&connection, 4)), (1, 0));
        forget(&connection, "s", &row.result_key).unwrap();
        makers::sweep(&connection).unwrap();
        assert_eq!(all(&connection, 0), 0);
        assert_eq!(makers::after(&connection, 0, 9).unwrap().len(), 0);
    }

    #[test]
    fn the_oldest_of_too_many_are_forgotten_and_that_is_known() {
        let connection = in_memory();
        outbox::restart(&connection).unwrap();
        set(&connection, KNOWN_SINCE, "5").unwrap();
        for at_ms in 10..14 {
            let (id, _) = add(&connection, &at_ms.to_string(), at_ms);
            records::forget(&connection, id).unwrap();
        }
        bound_to(&connection, 4).unwrap();
        assert_eq!((all(&connection, 0), known_since_ms(&connection).unwrap()), (4, 5));
        bound_to(&connection, 2).unwrap();
        assert_eq!((all(&connection, 0), known_since_ms(&connection).unwrap()), (2, 12));
    }
}
