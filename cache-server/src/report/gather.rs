//! Reads what a report is made of, from the history and the index, and has it made. The one part of
//! [`super`] that waits.

use std::collections::{BTreeSet, HashMap};

use kiln_storage::api::RunAbout;
use kiln_storage::api::report::{JobReport, RunReport};
use rusqlite::Connection;
use tokio::sync::SemaphorePermit;

use super::{Base, Input, Job, Known, job_report, make, twice};
use crate::error::ApiError;
use crate::history::outgoing;
use crate::history::read::{self, RunRow};
use crate::history::rows::series;
use crate::index::units;
use crate::limits::{COMPARED_AT_ONCE, MAX_TREND_RUNS};
use crate::remote::{Edge, earlier};
use crate::service::Service;

/// The report of a run of a scope; none: there is no such run.
///
/// # Errors
/// What history or index fail with.
pub(crate) async fn report(
    service: &Service,
    scope: &str,
    run: &str,
) -> Result<Option<RunReport>, ApiError> {
    let _turn = turn(service).await?;
    let Some(input) = input(service, scope, run).await? else { return Ok(None) };
    Ok(Some(blocking(move || make(&input)).await?))
}

/// A turn to make a report, held while what it is made of is in memory.
///
/// # Errors
/// The server leaves.
pub(crate) async fn turn(service: &Service) -> Result<SemaphorePermit<'_>, ApiError> {
    service.making.acquire().await.map_err(|_| ApiError::Busy("too many reports at once"))
}

/// What the report of a run is made of; none: there is no such run.
///
/// # Errors
/// What history or index fail with.
pub(crate) async fn input(
    service: &Service,
    scope: &str,
    run: &str,
) -> Result<Option<Input>, ApiError> {
    let (of, name) = (scope.to_owned(), run.to_owned());
    let refused = service.edge.as_ref().and_then(Edge::refuses_events);
    let found = service.history.read(move |rows| {
        let Some(run) = read::run(rows, &of, &name)? else { return Ok(None) };
        let mut jobs = Vec::new();
        for mut row in read::jobs(rows, run.id)? {
            if outgoing::waits(rows, (&run.run, &row.job))? {
                row.unshared = row.unshared.or_else(|| refused.clone());
            }
            let events = read::events(rows, row.id)?;
            let earlier = read::earlier(rows, &row, MAX_TREND_RUNS)?;
            jobs.push(Job { row, events, earlier });
        }
        let base = base(rows, &of, &run, &jobs)?;
        Ok(Some((run, jobs, base)))
    });
    let Some((run, jobs, base)) = found.await? else { return Ok(None) };
    let (jobs, wanted) = blocking(move || {
        let wanted = twice::wanted(&jobs);
        (jobs, wanted)
    })
    .await?;
    let known = known(service, scope, wanted).await?;
    let earlier_runs = earlier::known(service, &run.about);
    Ok(Some(Input { run, jobs, base, known, earlier_runs }))
}

/// One job of a run, with its trend.
///
/// # Errors
/// What the history fails with.
pub(crate) async fn job(
    service: &Service,
    scope: &str,
    (run, job): (String, String),
) -> Result<Option<JobReport>, ApiError> {
    let scope = scope.to_owned();
    let found = service.history.read(move |rows| {
        let Some(run) = read::run(rows, &scope, &run)? else { return Ok(None) };
        let row = read::jobs(rows, run.id)?.into_iter().find(|row| row.job == job);
        let Some(row) = row else { return Ok(None) };
        let earlier = read::earlier(rows, &row, MAX_TREND_RUNS)?;
        Ok(Some(job_report(&Job { row, events: Vec::new(), earlier })))
    });
    Ok(found.await?)
}

/// Work that takes a while, where it keeps nobody waiting.
///
/// # Errors
/// It panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::Internal(error.to_string()))
}

/// What hit in the last run of the base branch before this run began; for a run that is no pull request, in the
/// last one of its own branch.
fn base(
    rows: &Connection,
    scope: &str,
    run: &RunRow,
    jobs: &[Job],
) -> rusqlite::Result<Option<Base>> {
    let RunAbout { base, branch, .. } = &run.about;
    let branch = if base.is_empty() { branch } else { base };
    if branch.is_empty() {
        return Ok(None);
    }
    let kind = series(scope, &run.about, None);
    let Some(last) = read::last_of_branch(rows, &kind, branch, (run.id, run.first_ms))? else {
        return Ok(None);
    };
    let names: BTreeSet<&str> = jobs.iter().map(|job| job.row.job.as_str()).collect();
    let mut hits = HashMap::new();
    for row in read::jobs(rows, last.id)? {
        if !names.contains(row.job.as_str()) {
            continue;
        }
        let mut of_job: HashMap<_, usize> = HashMap::new();
        for event in read::events(rows, row.id)?.iter().filter(|event| event.more.is_none()) {
            *of_job.entry((*event.unit).clone()).or_default() += 1;
        }
        hits.insert(row.job, of_job);
    }
    Ok(Some(Base { run: last.run, hits }))
}

/// What keys and results were made of. In pieces: lookups read the index meanwhile.
async fn known(
    service: &Service,
    scope: &str,
    wanted: Vec<(String, BTreeSet<String>)>,
) -> Result<Known, ApiError> {
    let mut known = Known::default();
    for piece in wanted.chunks(COMPARED_AT_ONCE) {
        let (scope, piece) = (scope.to_owned(), piece.to_vec());
        let read = service.index.read(move |index| {
            let mut known = Known::default();
            for (key, results) in piece {
                for result in results {
                    if let Some(inputs) = units::inputs_of(index, &scope, (&key, &result))? {
                        known.inputs.insert((key.clone(), result), inputs);
                    }
                }
                if let Some(parts) = units::parts_of(index, &scope, &key)? {
                    known.parts.insert(key, parts);
                }
            }
            Ok(known)
        });
        let Known { parts, inputs } = read.await?;
        known.parts.extend(parts);
        known.inputs.extend(inputs);
    }
    Ok(known)
}
