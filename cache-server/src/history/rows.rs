//! Writing rows of the history: [`add`], the one way for events to get in.
//!
//! An event is known by its id among those of its job, so what is sent again counts once. A job's newest chunk grows
//! until it is full. What is open is kept in memory as well, so that a batch of a few events costs one chunk
//! written and nothing read.

use std::collections::{BTreeMap, HashMap, HashSet};

use kiln_storage::api::{Event, RunAbout, bounded_name};
use kiln_storage::encode::Encoder;
use kiln_storage::limits::{MAX_JOB_BYTES, MAX_RUN_BYTES};
use rusqlite::{Connection, OptionalExtension, params};

use super::chunk::{self, Kept};
use super::latest::Latest;
use crate::index::{int, json, uint};
use crate::limits::{CHUNK_EVENTS, CLOCK_AHEAD_MS, MAX_JOB_EVENTS, MAX_OPEN_JOBS, MAX_RUN_JOBS};
use crate::report::sums::Sums;

/// The job that counts what jobs beyond the bound report.
const OTHER_JOBS: &str = "other jobs";

/// How events came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'a> {
    /// For whom.
    pub(crate) scope: &'a str,
    /// When.
    pub(crate) now_ms: u64,
    /// They are old: brought from a place that had them for a while.
    pub(crate) brought: bool,
}

impl Arrival<'_> {
    /// When a unit ended. One that ends in days to come would be the newest till then.
    fn ended_ms(&self, event: &Event) -> u64 {
        match event.at_ms > self.now_ms.saturating_add(CLOCK_AHEAD_MS) {
            true => self.now_ms,
            false => event.at_ms,
        }
    }

    /// When the jobs of such events were last heard of. For old ones only they say it, by the clock of their
    /// machine.
    fn heard_ms(&self, events: &[&Event]) -> u64 {
        let last = || events.iter().map(|event| event.at_ms).max().unwrap_or_default();
        if self.brought { last().min(self.now_ms) } else { self.now_ms }
    }
}

/// What came of adding events.
#[derive(Debug, Default)]
pub(crate) struct Added<'a> {
    /// Those that were not known.
    pub(crate) new: Vec<&'a Event>,
    /// A run began.
    pub(crate) begins_run: bool,
}

/// Jobs of which it is known what the history has.
#[derive(Debug, Default)]
pub(crate) struct OpenJobs {
    jobs: HashMap<(String, String, String), OpenJob>,
}

/// A job as the history has it.
#[derive(Debug, Default)]
struct OpenJob {
    id: i64,
    name: String,
    first_ms: u64,
    last_ms: u64,
    kept: u64,
    heard_ms: u64,
    sums: Sums,
    latest: Latest,
    ids: HashSet<u64>,
    /// The newest chunk, while it is not full.
    tail: Vec<Kept>,
    tail_id: Option<i64>,
    tail_bytes: u64,
}

impl OpenJobs {
    /// Forgets all: rows went.
    pub(crate) fn clear(&mut self) {
        self.jobs.clear();
    }
}

/// Stores events of a scope that are new.
pub(crate) fn add<'a>(
    connection: &Connection,
    open: &mut OpenJobs,
    arrival: Arrival<'_>,
    events: &'a [Event],
) -> rusqlite::Result<Added<'a>> {
    let mut by_job: BTreeMap<(&str, &str), Vec<&'a Event>> = BTreeMap::new();
    for event in events {
        by_job.entry((&event.run, &event.job)).or_default().push(event);
    }
    let mut added = Added::default();
    for ((run, job), events) in by_job {
        if open.jobs.len() >= MAX_OPEN_JOBS {
            open.clear();
        }
        let (run, job) = (bounded_name(run, MAX_RUN_BYTES), bounded_name(job, MAX_JOB_BYTES));
        let mut key = (arrival.scope.to_owned(), run, job);
        let about = events.iter().find_map(|event| event.about.as_ref());
        let run = run_row(connection, arrival, (&key.1, about), &events)?;
        added.begins_run |= run.is_new;
        if !open.jobs.contains_key(&key) && is_one_too_many(connection, run.id, &key.2)? {
            key.2 = OTHER_JOBS.to_owned();
        }
        let open = match open.jobs.entry(key) {
            std::collections::hash_map::Entry::Occupied(there) => there.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => {
                let at_ms = arrival.ended_ms(events[0]);
                let job = job_row(connection, run.id, &free.key().2, at_ms)?;
                free.insert(job)
            }
        };
        let heard_ms = arrival.heard_ms(&events);
        let (new, kept) = open.take(arrival, events);
        let series = series(arrival.scope, &run.about, Some(&open.name));
        let bytes = open.write(connection, (&series, heard_ms), kept)?;
        connection
            .prepare_cached("UPDATE runs SET bytes = bytes + ?2 WHERE id = ?1")?
            .execute(params![run.id, bytes])?;
        added.new.extend(new);
    }
    Ok(added)
}

/// The row of a run.
struct RunRow {
    id: i64,
    about: RunAbout,
    is_new: bool,
}

/// The row of a run, made or brought up to these events.
fn run_row(
    connection: &Connection,
    arrival: Arrival<'_>,
    (run, about): (&str, Option<&RunAbout>),
    events: &[&Event],
) -> rusqlite::Result<RunRow> {
    let Arrival { scope, now_ms, .. } = arrival;
    let times = || events.iter().map(|event| int(arrival.ended_ms(event)));
    let first = times().min().unwrap_or_default();
    let last = times().max().unwrap_or_default();
    let found: Option<(i64, String)> = connection
        .prepare_cached("SELECT id, about FROM runs WHERE scope = ?1 AND run = ?2")?
        .query_row([scope, run], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let known: RunAbout =
        found.as_ref().and_then(|(_, about)| serde_json::from_str(about).ok()).unwrap_or_default();
    let about = match about {
        // What was said first holds.
        Some(about) if known == RunAbout::default() => about.clone(),
        _ => known,
    };
    let series = series(scope, &about, None);
    let id = match &found {
        Some((id, _)) => {
            connection
                .prepare_cached(
                    "UPDATE runs SET first_ms = min(first_ms, ?2), last_ms = max(last_ms, ?3),
                         about = ?4, series = ?5, branch = ?6, seen_ms = ?7 WHERE id = ?1",
                )?
                .execute(params![
                    id,
                    first,
                    last,
                    json(&about)?,
                    series,
                    about.branch,
                    int(now_ms)
                ])?;
            *id
        }
        None => {
            connection
                .prepare_cached(
                    "INSERT INTO runs
                         (scope, run, first_ms, last_ms, seen_ms, bytes, about, series, branch)
                     VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, ?8)",
                )?
                .execute(params![
                    scope,
                    run,
                    first,
                    last,
                    int(now_ms),
                    json(&about)?,
                    series,
                    about.branch
                ])?;
            connection.last_insert_rowid()
        }
    };
    Ok(RunRow { id, about, is_new: found.is_none() })
}

/// What runs of one kind have in common, or jobs of one kind.
pub(crate) fn series(scope: &str, about: &RunAbout, job: Option<&str>) -> String {
    let mut encoder = Encoder::new("kiln series v1");
    encoder.text("scope", scope).text("repository", &about.repository);
    encoder.text("workflow", &about.workflow);
    encoder.optional("job", job.map(str::as_bytes));
    encoder.finish().to_string()[..24].to_owned()
}

/// Whether a run has so many jobs already that one of this name is none of its own.
fn is_one_too_many(connection: &Connection, run: i64, job: &str) -> rusqlite::Result<bool> {
    let (jobs, is_there): (i64, bool) = connection
        .prepare_cached(
            "SELECT count(*), EXISTS (SELECT 1 FROM jobs WHERE run = ?1 AND job = ?2)
             FROM jobs WHERE run = ?1",
        )?
        .query_row(params![run, job], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(uint(jobs) >= MAX_RUN_JOBS && !is_there)
}

/// The job of a name, made if need be, with what is there of it.
fn job_row(connection: &Connection, run: i64, job: &str, at_ms: u64) -> rusqlite::Result<OpenJob> {
    if let Some(job) = find_job(connection, run, job)? {
        return Ok(job);
    }
    connection
        .prepare_cached(
            "INSERT INTO jobs (run, job, first_ms, last_ms, heard_ms, kept, series, sums, latest)
             VALUES (?1, ?2, ?3, ?3, 0, 0, '', '{}', '[]')",
        )?
        .execute(params![run, job, int(at_ms)])?;
    let id = connection.last_insert_rowid();
    let name = job.to_owned();
    Ok(OpenJob { id, name, first_ms: at_ms, last_ms: at_ms, ..OpenJob::default() })
}

fn find_job(connection: &Connection, run: i64, job: &str) -> rusqlite::Result<Option<OpenJob>> {
    let found = connection
        .prepare_cached(
            "SELECT id, first_ms, last_ms, heard_ms, kept, sums, latest FROM jobs
             WHERE run = ?1 AND job = ?2",
        )?
        .query_row(params![run, job], |row| {
            let (sums, latest): (String, String) = (row.get(5)?, row.get(6)?);
            Ok(OpenJob {
                id: row.get(0)?,
                name: job.to_owned(),
                first_ms: uint(row.get(1)?),
                last_ms: uint(row.get(2)?),
                heard_ms: uint(row.get(3)?),
                kept: uint(row.get(4)?),
                sums: serde_json::from_str(&sums).unwrap_or_default(),
                latest: serde_json::from_str(&latest).unwrap_or_default(),
                ..OpenJob::default()
            })
        })
        .optional()?;
    let Some(mut job) = found else { return Ok(None) };
    let mut statement =
        connection.prepare_cached("SELECT id, body FROM chunks WHERE job = ?1 ORDER BY id")?;
    let mut rows = statement.query([job.id])?;
    while let Some(row) = rows.next()? {
        let (id, body): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let events = chunk::decode(&body).unwrap_or_default();
        job.ids.extend(events.iter().map(|event| event.id));
        let is_full = events.len() >= CHUNK_EVENTS || events.is_empty();
        (job.tail_id, job.tail_bytes) =
            if is_full { (None, 0) } else { (Some(id), body.len() as u64) };
        job.tail = if is_full { Vec::new() } else { events };
    }
    Ok(Some(job))
}

impl OpenJob {
    /// Counts the events that are not known; which these are, and what is kept of them.
    fn take<'a>(
        &mut self,
        arrival: Arrival<'_>,
        events: Vec<&'a Event>,
    ) -> (Vec<&'a Event>, Vec<Kept>) {
        let (mut new, mut kept) = (Vec::new(), Vec::new());
        for event in events {
            let id = chunk::id(event);
            if self.ids.insert(id) {
                self.sums.add(event);
                let ended_ms = arrival.ended_ms(event);
                self.first_ms = self.first_ms.min(ended_ms);
                self.last_ms = self.last_ms.max(ended_ms);
                new.push(event);
                kept.push(Kept::of(event, id));
            }
        }
        (new, kept)
    }

    /// Writes new events; by how many bytes the chunks of the job grew.
    fn write(
        &mut self,
        connection: &Connection,
        (series, heard_ms): (&str, u64),
        new: Vec<Kept>,
    ) -> rusqlite::Result<i64> {
        if new.is_empty() {
            return Ok(0);
        }
        self.heard_ms = self.heard_ms.max(heard_ms);
        self.latest.add(&new, heard_ms);
        self.kept += new.len() as u64;
        let mut grown = 0;
        for kept in new {
            self.tail.push(kept);
            if self.tail.len() >= CHUNK_EVENTS {
                grown += self.write_tail(connection)?;
                self.tail.clear();
                (self.tail_id, self.tail_bytes) = (None, 0);
            }
        }
        if !self.tail.is_empty() {
            grown += self.write_tail(connection)?;
        }
        grown -= self.drop_oldest(connection)?;
        connection
            .prepare_cached(
                "UPDATE jobs SET first_ms = ?2, last_ms = ?3, heard_ms = ?4, kept = ?5, series = ?6,
                     sums = ?7, latest = ?8 WHERE id = ?1",
            )?
            .execute(params![
                self.id,
                int(self.first_ms),
                int(self.last_ms),
                int(self.heard_ms),
                int(self.kept),
                series,
                json(&self.sums)?,
                json(&self.latest)?
            ])?;
        Ok(grown)
    }

    fn write_tail(&mut self, connection: &Connection) -> rusqlite::Result<i64> {
        let body = chunk::encode(&self.tail)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        let bytes = body.len() as u64;
        let count = int(self.tail.len() as u64);
        match self.tail_id {
            Some(id) => {
                connection
                    .prepare_cached("UPDATE chunks SET count = ?2, body = ?3 WHERE id = ?1")?
                    .execute(params![id, count, body])?;
            }
            None => {
                connection
                    .prepare_cached("INSERT INTO chunks (job, count, body) VALUES (?1, ?2, ?3)")?
                    .execute(params![self.id, count, body])?;
                self.tail_id = Some(connection.last_insert_rowid());
            }
        }
        let grown = int(bytes) - int(self.tail_bytes);
        self.tail_bytes = bytes;
        Ok(grown)
    }

    /// Drops the oldest chunks of a job that has too many; how many bytes that were.
    fn drop_oldest(&mut self, connection: &Connection) -> rusqlite::Result<i64> {
        let mut dropped = 0;
        while self.kept > MAX_JOB_EVENTS {
            let oldest: Option<(i64, i64, Vec<u8>)> = connection
                .prepare_cached(
                    "SELECT id, count, body FROM chunks WHERE job = ?1 ORDER BY id LIMIT 1",
                )?
                .query_row([self.id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            let Some((id, count, body)) = oldest.filter(|(id, ..)| Some(*id) != self.tail_id)
            else {
                break;
            };
            connection.prepare_cached("DELETE FROM chunks WHERE id = ?1")?.execute([id])?;
            for event in chunk::decode(&body).unwrap_or_default() {
                self.ids.remove(&event.id);
            }
            self.kept = self.kept.saturating_sub(uint(count));
            dropped += int(body.len() as u64);
        }
        Ok(dropped)
    }
}

#[cfg(test)]
pub(crate) mod tests;
