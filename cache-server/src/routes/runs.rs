//! `GET /v1/runs…`: runs, their jobs, and the report of a run. What has been reported till now is written before it
//! is read. Where another server is behind this one, that has the whole and is asked; where a bucket is, what other
//! machines left there is brought first.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use kiln_storage::api::Problem;
use kiln_storage::api::report::{JobReport, RunReport, RunSummary, RunsResponse};
use kiln_storage::api::watch::RunNow;
use kiln_storage::limits::MAX_LISTED_RUNS;
use serde::Deserialize;

use crate::clock;
use crate::error::ApiError;
use crate::history::read::{self, RunRow};
use crate::principal::Principal;
use crate::remote::{earlier, events};
use crate::report::markdown::{self, Plain};
use crate::report::{gather, now, summary};
use crate::service::Service;

const JSON: &str = "application/json";
const MARKDOWN: &str = "text/markdown; charset=utf-8";

/// What was asked, to ask it again.
pub(super) type Asked = (Uri, HeaderMap);

/// Which part of the list is asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    pub(super) before: Option<String>,
    pub(super) limit: Option<usize>,
}

/// What another server behind this one says to the same question.
pub(super) async fn told_behind(
    service: &Service,
    principal: &Principal,
    (uri, headers): &Asked,
    kind: &'static str,
) -> Option<Response> {
    principal.farther()?;
    let page = events::told(service, headers, uri.path_and_query()?.as_str()).await?;
    Some(([(CONTENT_TYPE, kind)], page).into_response())
}

/// The names in a path.
pub(super) fn name<T>(path: Result<Path<T>, PathRejection>) -> Result<T, ApiError> {
    let Path(names) = path.map_err(|_| ApiError::BadRequest("the path is malformed".into()))?;
    Ok(names)
}

/// Where a list goes on: the last event and the row of the last run of a page.
fn cursor(text: &str) -> Option<(u64, i64)> {
    let (last_ms, id) = text.split_once('-')?;
    Some((last_ms.parse().ok()?, id.parse().ok()?))
}

/// Runs, newest first.
#[utoipa::path(
    get,
    path = "/v1/runs",
    params(
        ("before" = Option<String>, Query, description = "`next` of the answer before"),
        ("limit" = Option<usize>, Query, description = "How many; at most 100"),
    ),
    responses(
        (status = 200, description = "Runs", body = RunsResponse),
        (status = "4XX", description = "Malformed", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(service): State<Service>,
    principal: Principal,
    page: Result<Query<Page>, QueryRejection>,
    asked: Asked,
) -> Result<Response, ApiError> {
    if let Some(told) = told_behind(&service, &principal, &asked, JSON).await {
        return Ok(told);
    }
    let Query(page) = page.map_err(|_| malformed())?;
    Ok(Json(listed(&service, principal, page).await?).into_response())
}

pub(super) fn malformed() -> ApiError {
    ApiError::BadRequest("the query is malformed".into())
}

/// A part of the list.
///
/// # Errors
/// It is asked for in no way that is known; what the history fails with.
pub(super) async fn listed(
    service: &Service,
    principal: Principal,
    page: Page,
) -> Result<RunsResponse, ApiError> {
    let before = page.before.as_deref().map(|text| cursor(text).ok_or_else(malformed));
    let before = before.transpose()?;
    let limit = page.limit.unwrap_or(MAX_LISTED_RUNS).clamp(1, MAX_LISTED_RUNS);
    service.reports.flush(service).await?;
    let now_ms = clock::now_ms();
    let read = move |rows: &_| {
        let mut runs = Vec::new();
        for scoped in &principal.reads {
            runs.extend(read::runs(rows, &scoped.id, before, limit)?);
        }
        runs.sort_by_key(|run| std::cmp::Reverse((run.last_ms, run.id)));
        runs.truncate(limit);
        let next = runs.last().filter(|_| runs.len() == limit);
        let next = next.map(|RunRow { last_ms, id, .. }| format!("{last_ms}-{id}"));
        let told = |run: RunRow| Ok(summary(&run, read::jobs(rows, run.id)?, (false, now_ms)));
        let runs = runs.into_iter().map(told).collect::<rusqlite::Result<_>>()?;
        Ok(RunsResponse { runs, next })
    };
    Ok(service.history.read(read).await?)
}

/// A run with its jobs.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}",
    params(("run" = String, Path, description = "The run")),
    responses(
        (status = 200, description = "The run", body = RunSummary),
        (status = 404, description = "No such run", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn run(
    State(service): State<Service>,
    principal: Principal,
    path: Result<Path<String>, PathRejection>,
    asked: Asked,
) -> Result<Response, ApiError> {
    if let Some(told) = told_behind(&service, &principal, &asked, JSON).await {
        return Ok(told);
    }
    let run = name(path)?;
    let scope = gathered(&service, &principal, &run).await?;
    let read = move |rows: &_| {
        let Some(run) = read::run(rows, &scope, &run)? else { return Ok(None) };
        Ok(Some(summary(&run, read::jobs(rows, run.id)?, (true, clock::now_ms()))))
    };
    let told = service.history.read(read).await?.ok_or(ApiError::NotFound)?;
    Ok(Json(told).into_response())
}

/// A run as it stands, for who watches it: cheap, and asked for again and again. What other machines leave in a bucket
/// is looked for from time to time, and nobody waits for that.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}/now",
    params(("run" = String, Path, description = "The run")),
    responses(
        (status = 200, description = "The run", body = RunNow),
        (status = 404, description = "No such run", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn now(
    State(service): State<Service>,
    principal: Principal,
    path: Result<Path<String>, PathRejection>,
    asked: Asked,
) -> Result<Response, ApiError> {
    if let Some(told) = told_behind(&service, &principal, &asked, JSON).await {
        return Ok(told);
    }
    let run = name(path)?;
    if let Some(own) = principal.farther() {
        events::bring_again(&service, &own.id, &run);
    }
    let read = move |rows: &_| {
        for scope in &principal.reads {
            if let Some(run) = read::run(rows, &scope.id, &run)? {
                return Ok(Some(now::now(&run, read::jobs(rows, run.id)?, clock::now_ms())));
            }
        }
        Ok(None)
    };
    let told = service.history.read(read).await?.ok_or(ApiError::NotFound)?;
    Ok(Json(told).into_response())
}

/// A job of a run, with what its earlier runs came to.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}/jobs/{job}",
    params(
        ("run" = String, Path, description = "The run"),
        ("job" = String, Path, description = "The job"),
    ),
    responses(
        (status = 200, description = "The job", body = JobReport),
        (status = 404, description = "No such run or job", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn job(
    State(service): State<Service>,
    principal: Principal,
    path: Result<Path<(String, String)>, PathRejection>,
    asked: Asked,
) -> Result<Response, ApiError> {
    if let Some(told) = told_behind(&service, &principal, &asked, JSON).await {
        return Ok(told);
    }
    let names = name(path)?;
    let scope = gathered(&service, &principal, &names.0).await?;
    let job = gather::job(&service, &scope, names).await?;
    Ok(Json(job.ok_or(ApiError::NotFound)?).into_response())
}

/// Has all that is known of a run written here; the first scope that has it.
pub(super) async fn gathered(
    service: &Service,
    principal: &Principal,
    run: &str,
) -> Result<String, ApiError> {
    service.reports.flush(service).await?;
    if let Some(own) = principal.farther() {
        events::bring(service, &own.id, run).await;
    }
    let (first, scopes) = (principal.first()?.id.clone(), principal.read_ids());
    if scopes.len() == 1 {
        return Ok(first);
    }
    let run = run.to_owned();
    let read = move |rows: &_| {
        for scope in scopes {
            if read::run(rows, &scope, &run)?.is_some() {
                return Ok(Some(scope));
            }
        }
        Ok(None)
    };
    Ok(service.history.read(read).await?.unwrap_or(first))
}

/// The same for a report of it: with the runs that it is held against.
pub(super) async fn gathered_with_earlier(
    service: &Service,
    principal: &Principal,
    run: &str,
) -> Result<String, ApiError> {
    let scope = gathered(service, principal, run).await?;
    if let Some(own) = principal.farther() {
        earlier::bring(service, &own.id, run).await;
    }
    Ok(scope)
}

async fn made(service: &Service, principal: &Principal, run: &str) -> Result<RunReport, ApiError> {
    let scope = gathered_with_earlier(service, principal, run).await?;
    gather::report(service, &scope, run).await?.ok_or(ApiError::NotFound)
}

/// The report of a run.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}/report.json",
    params(("run" = String, Path, description = "The run")),
    responses(
        (status = 200, description = "The report", body = RunReport),
        (status = 404, description = "No such run", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn report(
    State(service): State<Service>,
    principal: Principal,
    path: Result<Path<String>, PathRejection>,
    asked: Asked,
) -> Result<Response, ApiError> {
    if let Some(told) = told_behind(&service, &principal, &asked, JSON).await {
        return Ok(told);
    }
    Ok(Json(made(&service, &principal, &name(path)?).await?).into_response())
}

/// The report of a run in Markdown, at most 64 KiB.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}/report.md",
    params(("run" = String, Path, description = "The run")),
    responses(
        (status = 200, description = "The report", content_type = "text/markdown"),
        (status = 404, description = "No such run", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn markdown(
    State(service): State<Service>,
    principal: Principal,
    path: Result<Path<String>, PathRejection>,
    asked: Asked,
) -> Result<Response, ApiError> {
    if let Some(told) = told_behind(&service, &principal, &asked, MARKDOWN).await {
        return Ok(told);
    }
    let report = made(&service, &principal, &name(path)?).await?;
    let text = markdown::markdown(&report, &Plain);
    Ok(([(CONTENT_TYPE, MARKDOWN)], text).into_response())
}
