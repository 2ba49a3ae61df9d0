//! A long past for a history: runs that a server took are copied row by row under other names until there are as many
//! as wanted. What a server would have had to be sent for hours is there in minutes, and what reads it sees no
//! difference.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use crate::failure::{Failure, Outcome};
use crate::report;

/// Name of the history in a state directory.
const HISTORY: &str = "reports.sqlite";
/// Runs copied in one transaction.
const AT_ONCE: u64 = 100;
/// Between the last units of two runs, milliseconds.
const APART_MS: u64 = 60_000;

/// The history of a state directory.
pub fn path(dir: &Path) -> PathBuf {
    dir.join(HISTORY)
}

/// Adds runs to the history of a server that does not run: older ones, each a copy of one that is there.
///
/// # Errors
/// When the history is not as expected.
pub fn prepend(dir: &Path, count: u64) -> Outcome<()> {
    let failed = |error: rusqlite::Error| Failure::NotMeasured(format!("{HISTORY}: {error}"));
    let history = Connection::open(path(dir)).map_err(failed)?;
    history.pragma_update(None, "synchronous", "OFF").map_err(failed)?;
    let runs: Vec<i64> = {
        let mut rows = history.prepare("SELECT id FROM runs ORDER BY id").map_err(failed)?;
        let ids = rows.query_map([], |row| row.get(0)).map_err(failed)?;
        ids.collect::<rusqlite::Result<_>>().map_err(failed)?
    };
    for from in (0..count).step_by(AT_ONCE as usize) {
        report::progress(&format!("copied {from} of {count} runs"));
        let work = || -> rusqlite::Result<()> {
            let all = history.unchecked_transaction()?;
            for n in from..count.min(from + AT_ONCE) {
                copy(&all, runs[n as usize % runs.len()], n + 1)?;
            }
            all.commit()
        };
        work().map_err(failed)?;
    }
    Ok(())
}

/// One run with its jobs and chunks, so many steps before all others.
fn copy(history: &Connection, run: i64, nth: u64) -> rusqlite::Result<()> {
    let before = i64::try_from(nth * APART_MS).unwrap_or(i64::MAX);
    history
        .prepare_cached(
            "INSERT INTO runs (scope, run, first_ms, last_ms, seen_ms, bytes, about, series, branch)
             SELECT scope, 'past-' || ?2, least - (last_ms - first_ms) - ?3, least - ?3, seen_ms, bytes, about,
                 series, branch
             FROM runs, (SELECT min(first_ms) AS least FROM runs WHERE run NOT LIKE 'past-%') WHERE id = ?1",
        )?
        .execute(params![run, nth as i64, before])?;
    let copy = history.last_insert_rowid();
    history
        .prepare_cached(
            "INSERT INTO jobs (run, job, first_ms, last_ms, heard_ms, kept, series, sums, latest)
             SELECT ?2, job, c.first_ms, c.last_ms, heard_ms, kept, j.series, sums, latest
             FROM jobs j JOIN runs c ON c.id = ?2 WHERE j.run = ?1",
        )?
        .execute([run, copy])?;
    history
        .prepare_cached(
            "INSERT INTO chunks (job, count, body)
             SELECT c.id, k.count, k.body FROM jobs o JOIN jobs c ON c.run = ?2 AND c.job = o.job
                 JOIN chunks k ON k.job = o.id
             WHERE o.run = ?1 ORDER BY k.id",
        )?
        .execute([run, copy])?;
    Ok(())
}
