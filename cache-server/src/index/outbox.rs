//! Rows of what waits to be sent to the place behind the server: queued in the transaction that makes a
//! record visible, so that neither is without the other.

use kiln_storage::{ResultKey, Scope, UnitKey};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::open::set;
use super::records::{self, RecordRow, digest};
use super::{int, uint};
use crate::limits::{MAX_OUTBOX_BYTES, MAX_OUTBOX_RESULTS, OUTBOX_MAX_RETRY};

/// A result that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queued {
    /// Row.
    pub id: i64,
    /// Id of the scope that it is in here.
    pub scope: String,
    /// That scope, where it is known what is behind the id.
    pub named: Option<Scope>,
    /// The unit.
    pub unit_key: UnitKey,
    /// The result.
    pub result_key: ResultKey,
    /// The generation of the object here.
    pub stored: u32,
    /// The generation that it gets there.
    pub generation: u32,
    /// Attempts so far.
    pub attempts: u32,
}

/// What was left out because the queue is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Results.
    pub count: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// How much waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Results.
    pub count: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// When the oldest was queued, milliseconds since 1970.
    pub oldest_ms: Option<u64>,
}

/// Queues a record; what costs most to make again for each byte is sent first and dropped last.
pub(crate) fn queue(
    connection: &Connection,
    record: i64,
    row: &RecordRow,
) -> rusqlite::Result<Dropped> {
    let bytes = row.body.len() as u64 + row.blobs.iter().map(|(_, size)| size).sum::<u64>();
    let generation = replaced(connection, &row.scope, &row.result_key)?.max(row.generation);
    #[expect(clippy::cast_precision_loss, reason = "it only orders")]
    let worth = row.cost_ms as f64 / bytes.max(1) as f64;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO outbox
                 (record, generation, queued_ms, bytes, worth, attempts, retry_ms, collected)
             VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, 0)",
        )?
        .execute(params![record, generation, int(row.created_ms), int(bytes), worth])?;
    bound(connection, (MAX_OUTBOX_RESULTS, MAX_OUTBOX_BYTES))
}

/// Drops what is over a number of results and of bytes.
fn bound(connection: &Connection, (results, bytes): (u64, u64)) -> rusqlite::Result<Dropped> {
    let mut dropped = Dropped::default();
    let Waiting { mut count, bytes: mut held, .. } = waiting(connection)?;
    while count > results || held > bytes {
        let worst = connection
            .prepare_cached("SELECT id, bytes FROM outbox ORDER BY worth, id DESC LIMIT 1")?
            .query_row([], |row| Ok((row.get::<_, i64>(0)?, uint(row.get(1)?))))
            .optional()?;
        let Some((id, size)) = worst else { break };
        remove(connection, id)?;
        count = count.saturating_sub(1);
        held = held.saturating_sub(size);
        dropped.count += 1;
        dropped.bytes += size;
    }
    Ok(dropped)
}

/// Results whose time has come, the most worth first. So has that of one that would wait longer than any does: the
/// clock was set back.
pub(crate) fn next(
    connection: &Connection,
    now_ms: u64,
    limit: usize,
) -> rusqlite::Result<Vec<Queued>> {
    connection
        .prepare_cached(
            "SELECT o.id, scope, unit_key, result_key, r.generation, o.generation, attempts, s.repository,
                 s.reference
             FROM outbox o JOIN records r ON r.id = o.record LEFT JOIN scopes s ON s.id = r.scope
             WHERE collected = 0 AND (retry_ms <= ?1 OR retry_ms > ?3)
             ORDER BY worth DESC, o.id LIMIT ?2",
        )?
        .query_map(params![int(now_ms), int(limit as u64), int(latest_ms(now_ms))], queued)?
        .collect()
}

/// No result waits for longer.
fn latest_ms(now_ms: u64) -> u64 {
    now_ms.saturating_add(u64::try_from(OUTBOX_MAX_RETRY.as_millis()).unwrap_or(u64::MAX))
}

fn queued(row: &Row<'_>) -> rusqlite::Result<Queued> {
    let (repository, reference): (Option<String>, Option<String>) = (row.get(7)?, row.get(8)?);
    Ok(Queued {
        named: repository.zip(reference).map(|(of, name)| Scope::new(of, name)),
        id: row.get(0)?,
        scope: row.get(1)?,
        unit_key: UnitKey::new(digest(row, 2)?),
        result_key: ResultKey::new(digest(row, 3)?),
        stored: row.get(4)?,
        generation: row.get(5)?,
        attempts: row.get(6)?,
    })
}

/// When the next result may be tried, milliseconds since 1970; none: none waits.
pub(crate) fn next_ms(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    let next: Option<i64> = connection
        .prepare_cached("SELECT min(retry_ms) FROM outbox WHERE collected = 0")?
        .query_row([], |row| row.get(0))?;
    Ok(next.map(uint))
}

/// What became meanwhile of a result that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meanwhile {
    /// It is here, or another one of its key that replaces it there.
    Stays,
    /// It was removed here.
    Gone,
    /// It was taken back, and its key was stored again since.
    Again,
}

/// What became of a result that was taken from the queue.
pub(crate) fn meanwhile(connection: &Connection, of: &Queued) -> rusqlite::Result<Meanwhile> {
    let waits = connection.prepare_cached("SELECT 1 FROM outbox WHERE id = ?1")?.exists([of.id])?;
    if waits {
        return Ok(Meanwhile::Stays);
    }
    if records::stored(connection, &of.scope, &of.result_key)?.is_none() {
        return Ok(Meanwhile::Gone);
    }
    // One that was dropped because the queue is full, or replaced, may be there.
    let next = replaced(connection, &of.scope, &of.result_key)?;
    Ok(if next > of.generation { Meanwhile::Again } else { Meanwhile::Stays })
}

/// Takes a result out.
pub(crate) fn remove(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM outbox WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Notes that a result is to be tried again later.
pub(crate) fn retry(connection: &Connection, id: i64, at_ms: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE outbox SET attempts = attempts + 1, retry_ms = ?2 WHERE id = ?1")?
        .execute(params![id, int(at_ms)])?;
    Ok(())
}

/// Notes that the remote has collected a result.
pub(crate) fn collect(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE outbox SET collected = 1 WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// The results that are collected.
pub(crate) fn collected(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    connection
        .prepare_cached("SELECT id FROM outbox WHERE collected = 1")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// What was collected by a server that ended was not made durable by it: it is sent again. Every result
/// may be tried at once. From now on it is kept who made what goes here and was sent ([`super::evicted`]).
pub(crate) fn restart(connection: &Connection) -> rusqlite::Result<()> {
    set(connection, "sends", "1")?;
    connection.execute("UPDATE outbox SET collected = 0, retry_ms = 0", [])?;
    Ok(())
}

/// Every result may be tried at once, and again soon, however often it failed before: somebody waits for that.
pub(crate) fn hurry(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE outbox SET retry_ms = 0, attempts = 0", [])?;
    Ok(())
}

/// Whether a result waits to be sent; none: it is not here.
pub(crate) fn is_waiting(
    connection: &Connection,
    scope: &str,
    key: &ResultKey,
) -> rusqlite::Result<Option<bool>> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM outbox o WHERE o.record = r.id) FROM records r
             WHERE scope = ?1 AND result_key = ?2",
        )?
        .query_row(params![scope, key.digest().as_bytes()], |row| row.get(0))
        .optional()
}

/// A result is sent before all others: somebody waits for it.
pub(crate) fn first(connection: &Connection, scope: &str, key: &ResultKey) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE outbox SET worth = 1e300 WHERE record IN
                 (SELECT id FROM records WHERE scope = ?1 AND result_key = ?2)",
        )?
        .execute(params![scope, key.digest().as_bytes()])?;
    Ok(())
}

/// How much waits, what is collected included.
pub(crate) fn waiting(connection: &Connection) -> rusqlite::Result<Waiting> {
    connection
        .prepare_cached("SELECT count(*), coalesce(sum(bytes), 0), min(queued_ms) FROM outbox")?
        .query_row([], |row| {
            let oldest: Option<i64> = row.get(2)?;
            Ok(Waiting {
                count: uint(row.get(0)?),
                bytes: uint(row.get(1)?),
                oldest_ms: oldest.map(uint),
            })
        })
}

/// Notes that a generation proved damaged there: the next result of the key gets the one after it.
pub(crate) fn replace(
    connection: &Connection,
    scope: &str,
    key: &ResultKey,
    damaged: u32,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO replaced VALUES (?1, ?2, max(?3, ?4))")?
        .execute(params![
            scope,
            key.digest().as_bytes(),
            damaged.saturating_add(1),
            replaced(connection, scope, key)?
        ])?;
    Ok(())
}

/// The generation that the next result of a key gets there, where one proved damaged or was taken back.
pub(crate) fn replaced(
    connection: &Connection,
    scope: &str,
    key: &ResultKey,
) -> rusqlite::Result<u32> {
    let found = connection
        .prepare_cached("SELECT generation FROM replaced WHERE scope = ?1 AND result_key = ?2")?
        .query_row(params![scope, key.digest().as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::open::in_memory;
    use super::super::units::UnitRow;
    use super::*;
    use kiln_storage::Digest;
    use kiln_storage::record::UnitName;

    fn row(n: u8, cost_ms: u64, size: u64) -> RecordRow {
        RecordRow {
            scope: "s".into(),
            unit_key: UnitKey::new(Digest::of(&[n])),
            result_key: ResultKey::new(Digest::of(&[n, 1])),
            generation: 0,
            created_ms: u64::from(n),
            used_ms: u64::from(n),
            cost_ms,
            body: vec![n],
            blobs: vec![(Digest::of(&[n, 2]), size)],
            unit: UnitRow { name: UnitName::default(), parts: Vec::new() },
            variables: Default::default(),
            afar: None,
            origin: Default::default(),
        }
    }

    fn add(connection: &Connection, row: &RecordRow) -> Dropped {
        let (id, _) = records::insert(connection, row).unwrap();
        queue(connection, id, row).unwrap()
    }

    fn order(connection: &Connection, now_ms: u64) -> Vec<ResultKey> {
        next(connection, now_ms, 10).unwrap().into_iter().map(|q| q.result_key).collect()
    }

    #[test]
    fn what_costs_most_for_each_byte_goes_first_and_is_dropped_last() {
        let connection = in_memory();
        let rows = [row(1, 10, 1000), row(2, 1000, 1000), row(3, 500, 100_000)];
        for row in &rows {
            assert_eq!(add(&connection, row), Dropped::default());
        }
        let [one, two, three] = rows.map(|row| row.result_key);
        assert_eq!(order(&connection, 0), [two, one, three]);
        assert_eq!(waiting(&connection).unwrap().oldest_ms, Some(1));
        let dropped = bound(&connection, (2, u64::MAX)).unwrap();
        assert_eq!((dropped.count, dropped.bytes), (1, 100_001));
        assert_eq!(bound(&connection, (9, 1500)).unwrap().count, 1);
        assert_eq!(order(&connection, 0), [two]);
    }

    #[test]
    fn what_somebody_waits_for_goes_first() {
        let connection = in_memory();
        let rows = [row(1, 10, 10), row(2, 1000, 10)];
        for row in &rows {
            add(&connection, row);
        }
        let [one, two] = rows.map(|row| row.result_key);
        assert_eq!(order(&connection, 0), [two, one]);
        first(&connection, "t", &one).unwrap();
        assert_eq!(order(&connection, 0), [two, one]);
        first(&connection, "s", &one).unwrap();
        let waiting = next(&connection, 0, 9).unwrap();
        assert_eq!(waiting[0].result_key, one);
        assert_eq!(is_waiting(&connection, "s", &one).unwrap(), Some(true));
        assert_eq!(is_waiting(&connection, "t", &one).unwrap(), None);
        remove(&connection, waiting[0].id).unwrap();
        assert_eq!(is_waiting(&connection, "s", &one).unwrap(), Some(false));
    }

    #[test]
    fn what_failed_waits_and_what_is_collected_is_sent_again_after_a_restart() {
        let connection = in_memory();
        let rows = [row(1, 10, 10), row(2, 5, 10)];
        for row in &rows {
            add(&connection, row);
        }
        let ids: Vec<i64> = next(&connection, 0, 9).unwrap().iter().map(|q| q.id).collect();
        retry(&connection, ids[0], 500).unwrap();
        collect(&connection, ids[1]).unwrap();
        assert_eq!(order(&connection, 499), []);
        assert_eq!(next_ms(&connection).unwrap(), Some(500));
        assert_eq!(next(&connection, 500, 9).unwrap()[0].attempts, 1);
        assert_eq!(collected(&connection).unwrap(), [ids[1]]);
        assert_eq!(waiting(&connection).unwrap().count, 2);
        restart(&connection).unwrap();
        assert_eq!(order(&connection, 0).len(), 2);
        remove(&connection, ids[0]).unwrap();
        assert_eq!(waiting(&connection).unwrap().count, 1);
    }

    /// The pauses that a result has come to are too long for somebody who waits for the end of sending.
    #[test]
    fn who_hurries_forgets_how_often_it_failed() {
        let connection = in_memory();
        add(&connection, &row(1, 10, 10));
        let id = next(&connection, 0, 1).unwrap()[0].id;
        for _ in 0..8 {
            retry(&connection, id, 256_000).unwrap();
        }
        hurry(&connection).unwrap();
        let waiting = next(&connection, 0, 1).unwrap();
        assert_eq!((waiting.len(), waiting[0].attempts), (1, 0));
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nothing_from_being_sent() {
        let connection = in_memory();
        add(&connection, &row(1, 10, 10));
        let id = next(&connection, 0, 1).unwrap()[0].id;
        let (now_ms, hours_ms) = (1_000_000, 5 * 3600 * 1000);
        retry(&connection, id, now_ms + hours_ms).unwrap();
        assert_eq!(next(&connection, now_ms, 9).unwrap().len(), 1);
        retry(&connection, id, latest_ms(now_ms)).unwrap();
        assert_eq!(next(&connection, now_ms, 9).unwrap().len(), 0);
    }

    /// A result that is replaced while it is sent is another one in the queue: who sent the first takes out no more.
    #[test]
    fn what_is_replaced_while_it_is_sent_is_sent_again() {
        let connection = in_memory();
        let first = row(1, 10, 10);
        add(&connection, &first);
        let sending = next(&connection, 0, 1).unwrap()[0].id;
        add(&connection, &RecordRow { generation: 1, ..first });
        remove(&connection, sending).unwrap();
        let waiting = next(&connection, 0, 9).unwrap();
        assert_eq!((waiting.len(), waiting[0].generation), (1, 1));
        // Nor is one that came after all were gone.
        let last = waiting[0].id;
        remove(&connection, last).unwrap();
        add(&connection, &row(2, 10, 10));
        collect(&connection, last).unwrap();
        retry(&connection, last, 500).unwrap();
        assert_eq!(next(&connection, 0, 9).unwrap().len(), 1);
    }

    #[test]
    fn who_sent_a_result_knows_what_became_of_it_meanwhile() {
        let connection = in_memory();
        let row = row(1, 10, 10);
        add(&connection, &row);
        let sent = next(&connection, 0, 1).unwrap().remove(0);
        let now = || meanwhile(&connection, &sent).unwrap();
        let forget = || {
            let stored = records::stored(&connection, "s", &row.result_key).unwrap().unwrap();
            records::forget(&connection, stored.id).unwrap();
        };
        assert_eq!(now(), Meanwhile::Stays);
        add(&connection, &RecordRow { generation: 1, ..row.clone() });
        assert_eq!(now(), Meanwhile::Stays, "the one that replaces it is another generation");
        forget();
        assert_eq!(now(), Meanwhile::Gone);
        // It was taken back, and the next one of the key is as the first was.
        replace(&connection, "s", &row.result_key, sent.generation).unwrap();
        add(&connection, &row);
        assert_eq!(now(), Meanwhile::Again);
        let again = next(&connection, 0, 1).unwrap().remove(0);
        assert_eq!(meanwhile(&connection, &again).unwrap(), Meanwhile::Stays);
    }

    #[test]
    fn a_damaged_generation_is_followed_by_the_next() {
        let connection = in_memory();
        let row = row(1, 10, 10);
        replace(&connection, "s", &row.result_key, 4).unwrap();
        replace(&connection, "s", &row.result_key, 2).unwrap();
        add(&connection, &row);
        let queued = next(&connection, 0, 1).unwrap();
        assert_eq!((queued[0].generation, queued[0].stored), (5, 0));
        // A record that goes takes its place in the queue along.
        let stored = records::stored(&connection, "s", &row.result_key).unwrap().unwrap();
        records::forget(&connection, stored.id).unwrap();
        assert_eq!(waiting(&connection).unwrap(), Waiting::default());
    }
}
