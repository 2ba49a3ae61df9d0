//! Reading rows of the history. Each answer is bounded.

use kiln_storage::api::RunAbout;
use kiln_storage::remote::events::KnownBatches;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::chunk::{self, Kept};
use super::latest::Latest;
use crate::index::{int, uint};
use crate::limits::MAX_RUN_JOBS;
use crate::report::sums::Sums;

/// A run.
#[derive(Debug, Clone)]
pub(crate) struct RunRow {
    /// Its row.
    pub(crate) id: i64,
    /// Its name.
    pub(crate) run: String,
    /// What its service says of it.
    pub(crate) about: RunAbout,
    /// When its first unit ended.
    pub(crate) first_ms: u64,
    /// When its last one did.
    pub(crate) last_ms: u64,
}

/// A job of a run.
#[derive(Debug, Clone)]
pub(crate) struct JobRow {
    /// Its row.
    pub(crate) id: i64,
    /// Its name.
    pub(crate) job: String,
    /// When its first unit ended.
    pub(crate) first_ms: u64,
    /// When its last one did.
    pub(crate) last_ms: u64,
    /// When the server last heard of it.
    pub(crate) heard_ms: u64,
    /// Events that are kept one by one.
    pub(crate) kept: u64,
    /// What jobs of its kind have in common.
    pub(crate) series: String,
    /// What its events come to.
    pub(crate) sums: Sums,
    /// Its last units.
    pub(crate) latest: Latest,
    /// Why its events are with this server alone, if so.
    pub(crate) unshared: Option<String>,
}

const JOB: &str =
    "SELECT j.id, j.job, j.first_ms, j.last_ms, j.heard_ms, j.kept, j.series, j.sums, j.latest,
        (SELECT why FROM unshared u WHERE u.job = j.id)";

const RUN: &str = "SELECT id, run, about, first_ms, last_ms FROM runs";

fn run_row(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    let about: String = row.get(2)?;
    Ok(RunRow {
        id: row.get(0)?,
        run: row.get(1)?,
        about: serde_json::from_str(&about).unwrap_or_default(),
        first_ms: uint(row.get(3)?),
        last_ms: uint(row.get(4)?),
    })
}

fn job_row(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    let (sums, latest): (String, String) = (row.get(7)?, row.get(8)?);
    Ok(JobRow {
        id: row.get(0)?,
        job: row.get(1)?,
        first_ms: uint(row.get(2)?),
        last_ms: uint(row.get(3)?),
        heard_ms: uint(row.get(4)?),
        kept: uint(row.get(5)?),
        series: row.get(6)?,
        sums: serde_json::from_str(&sums).unwrap_or_default(),
        latest: serde_json::from_str(&latest).unwrap_or_default(),
        unshared: row.get(9)?,
    })
}

/// Runs of a scope, newest first; `before` is the last event and the row of one of them.
pub(crate) fn runs(
    connection: &Connection,
    scope: &str,
    before: Option<(u64, i64)>,
    limit: usize,
) -> rusqlite::Result<Vec<RunRow>> {
    let (last_ms, id) = before.map_or((i64::MAX, i64::MAX), |(last_ms, id)| (int(last_ms), id));
    connection
        .prepare_cached(&format!(
            "{RUN} WHERE scope = ?1 AND (last_ms, id) < (?2, ?3)
             ORDER BY last_ms DESC, id DESC LIMIT ?4"
        ))?
        .query_map(params![scope, last_ms, id, int(limit as u64)], run_row)?
        .collect()
}

/// The run of a name.
pub(crate) fn run(
    connection: &Connection,
    scope: &str,
    run: &str,
) -> rusqlite::Result<Option<RunRow>> {
    connection
        .prepare_cached(&format!("{RUN} WHERE scope = ?1 AND run = ?2"))?
        .query_row([scope, run], run_row)
        .optional()
}

/// The last run of a kind for a branch before some time.
pub(crate) fn last_of_branch(
    connection: &Connection,
    series: &str,
    branch: &str,
    (not, before_ms): (i64, u64),
) -> rusqlite::Result<Option<RunRow>> {
    connection
        .prepare_cached(&format!(
            "{RUN} WHERE series = ?1 AND branch = ?2 AND last_ms <= ?4 AND id <> ?3
             ORDER BY last_ms DESC, id DESC LIMIT 1"
        ))?
        .query_row(params![series, branch, not, int(before_ms)], run_row)
        .optional()
}

/// The batches of a run that came from a place behind the server, by the names they have there.
pub(crate) fn arrived(
    connection: &Connection,
    scope: &str,
    run: &str,
) -> rusqlite::Result<KnownBatches> {
    connection
        .prepare_cached(
            "SELECT name FROM arrived a JOIN runs r ON r.id = a.run WHERE scope = ?1 AND r.run = ?2",
        )?
        .query_map([scope, run], |row| row.get(0))?
        .collect()
}

/// Notes that a batch came.
pub(crate) fn note_arrived(
    connection: &Connection,
    (scope, run): (&str, &str),
    name: &str,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO arrived
                 SELECT id, ?3 FROM runs WHERE scope = ?1 AND run = ?2",
        )?
        .execute([scope, run, name])?;
    Ok(())
}

/// How many runs and jobs there are.
pub(crate) fn counts(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    connection
        .prepare_cached("SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM jobs)")?
        .query_row([], |row| Ok((uint(row.get(0)?), uint(row.get(1)?))))
}

/// The jobs of a run, by name.
pub(crate) fn jobs(connection: &Connection, run: i64) -> rusqlite::Result<Vec<JobRow>> {
    connection
        .prepare_cached(&format!("{JOB} FROM jobs j WHERE j.run = ?1 ORDER BY j.job LIMIT ?2"))?
        .query_map(params![run, int(MAX_RUN_JOBS + 1)], job_row)?
        .collect()
}

/// Earlier jobs of the kind of a job, newest first, with the names of their runs.
pub(crate) fn earlier(
    connection: &Connection,
    job: &JobRow,
    limit: usize,
) -> rusqlite::Result<Vec<(String, JobRow)>> {
    connection
        .prepare_cached(&format!(
            "{JOB}, r.run FROM jobs j JOIN runs r ON r.id = j.run
             WHERE j.series = ?1 AND j.last_ms <= ?2 AND j.id <> ?3
             ORDER BY j.last_ms DESC LIMIT ?4"
        ))?
        .query_map(params![job.series, int(job.first_ms), job.id, int(limit as u64)], |row| {
            Ok((row.get(10)?, job_row(row)?))
        })?
        .collect()
}

/// The events of a job that are kept, in the order they came.
pub(crate) fn events(connection: &Connection, job: i64) -> rusqlite::Result<Vec<Kept>> {
    let mut events = Vec::new();
    let mut statement =
        connection.prepare_cached("SELECT body FROM chunks WHERE job = ?1 ORDER BY id")?;
    let mut rows = statement.query([job])?;
    while let Some(row) = rows.next()? {
        let body: Vec<u8> = row.get(0)?;
        events.extend(chunk::decode(&body).unwrap_or_default());
    }
    Ok(events)
}
