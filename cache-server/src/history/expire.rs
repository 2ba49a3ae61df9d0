//! What goes from the history: runs that are old, too many, or too large together; the oldest first.

use rusqlite::{Connection, params};

use super::rows::OpenJobs;
use crate::index::{int, uint};
use crate::limits::{EXPIRED_AT_ONCE, MAX_HISTORY_BYTES, MAX_RUN_AGE, MAX_RUNS};

/// What may stay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Runs of which nothing was heard for longer go, milliseconds.
    pub(crate) age_ms: u64,
    /// Most runs.
    pub(crate) runs: u64,
    /// Most bytes of chunks.
    pub(crate) bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            age_ms: u64::try_from(MAX_RUN_AGE.as_millis()).unwrap_or(u64::MAX),
            runs: MAX_RUNS,
            bytes: MAX_HISTORY_BYTES,
        }
    }
}

/// Deletes what is over the bounds, some runs at a time: the next run that begins goes on with it.
pub(crate) fn expire(
    connection: &Connection,
    open: &mut OpenJobs,
    now_ms: u64,
) -> rusqlite::Result<u64> {
    let gone = expire_to(connection, now_ms, Bounds::default())?;
    if gone > 0 {
        open.clear();
    }
    Ok(gone)
}

fn expire_to(connection: &Connection, now_ms: u64, bounds: Bounds) -> rusqlite::Result<u64> {
    let (runs, bytes): (i64, i64) = connection
        .prepare_cached("SELECT count(*), coalesce(sum(bytes), 0) FROM runs")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (mut runs, mut bytes) = (uint(runs), uint(bytes));
    let oldest: Vec<(i64, u64, u64)> = connection
        .prepare_cached("SELECT id, seen_ms, bytes FROM runs ORDER BY seen_ms, id LIMIT ?1")?
        .query_map([int(EXPIRED_AT_ONCE)], |row| {
            Ok((row.get(0)?, uint(row.get(1)?), uint(row.get(2)?)))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut gone = 0;
    for (id, seen_ms, size) in oldest {
        let is_old = seen_ms.saturating_add(bounds.age_ms) < now_ms;
        if !is_old && runs <= bounds.runs && bytes <= bounds.bytes {
            break;
        }
        connection.prepare_cached("DELETE FROM runs WHERE id = ?1")?.execute(params![id])?;
        runs = runs.saturating_sub(1);
        bytes = bytes.saturating_sub(size);
        gone += 1;
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::open::in_memory;
    use crate::history::rows;
    use crate::history::rows::tests::now;
    use crate::tally::tests::event;
    use kiln_storage::api::Outcome;

    fn with_runs(count: u64) -> (Connection, OpenJobs) {
        let (connection, mut open) = (in_memory().unwrap(), OpenJobs::default());
        for n in 0..count {
            let mut event = event("1", "b", Outcome::Miss);
            event.run = format!("run {n}");
            event.at_ms = 9000 - n;
            rows::add(&connection, &mut open, now("s", 1000 + n), &[event]).unwrap();
        }
        (connection, open)
    }

    fn left(connection: &Connection) -> Vec<String> {
        let mut statement = connection.prepare("SELECT run FROM runs ORDER BY seen_ms").unwrap();
        let runs = statement.query_map([], |row| row.get(0)).unwrap();
        runs.collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn the_oldest_runs_go_with_all_they_have() {
        let none = Bounds { age_ms: u64::MAX, runs: u64::MAX, bytes: u64::MAX };
        for (bounds, now_ms) in
            [(Bounds { runs: 2, ..none }, 0), (Bounds { age_ms: 10, ..none }, 1013)]
        {
            let (connection, _) = with_runs(5);
            assert_eq!(expire_to(&connection, now_ms, none).unwrap(), 0);
            assert_eq!(expire_to(&connection, now_ms, bounds).unwrap(), 3);
            assert_eq!(left(&connection), ["run 3", "run 4"]);
            for table in ["jobs", "chunks"] {
                let sql = format!("SELECT count(*) FROM {table}");
                let rows: i64 = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
                assert_eq!(rows, 2, "{table}");
            }
        }
        let (connection, _) = with_runs(5);
        let all: i64 =
            connection.query_row("SELECT sum(bytes) FROM runs", [], |row| row.get(0)).unwrap();
        let held: i64 = connection
            .query_row("SELECT sum(length(body)) FROM chunks", [], |row| row.get(0))
            .unwrap();
        assert_eq!(all, held, "the bytes that are reckoned are those of the chunks");
        expire_to(&connection, 0, Bounds { bytes: uint(all) / 5 * 2, ..none }).unwrap();
        assert!(left(&connection).len() <= 2);
    }

    #[test]
    fn a_run_that_went_and_is_told_of_again_begins_anew() {
        let (connection, mut open) = with_runs(1);
        assert_eq!(expire(&connection, &mut open, u64::MAX / 2).unwrap(), 1);
        let mut event = event("1", "b", Outcome::Miss);
        event.run = "run 0".into();
        let events = [event];
        let added = rows::add(&connection, &mut open, now("s", 1), &events).unwrap();
        assert!(added.begins_run && added.new.len() == 1);
    }
}
