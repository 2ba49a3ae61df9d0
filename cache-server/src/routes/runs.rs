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
use crate::remote::events;
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
    (uri, headers): &Asked,
    kind: &'static str,
) -> Option<Response> {
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
    if let Some(told) = told_behind(&service, &asked, JSON).await {
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
        let runs = read::runs(rows, &principal.scope_id, before, limit)?;
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
    if let Some(told) = told_behind(&service, &asked, JSON).await {
        return Ok(told);
    }
    let run = name(path)?;
    gathered(&service, &principal, &run).await?;
    let read = move |rows: &_| {
        let Some(run) = read::run(rows, &principal.scope_id, &run)? else { return Ok(None) };
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
    if let Some(told) = told_behind(&service, &asked, JSON).await {
        return Ok(told);
    }
    let run = name(path)?;
    events::bring_again(&service, &principal.scope_id, &run);
    let read = move |rows: &_| {
        let Some(run) = read::run(rows, &principal.scope_id, &run)? else { return Ok(None) };
        Ok(Some(now::now(&run, read::jobs(rows, run.id)?, clock::now_ms())))
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
    if let Some(told) = told_behind(&service, &asked, JSON).await {
        return Ok(told);
    }
    let names = name(path)?;
    gathered(&service, &principal, &names.0).await?;
    let job = gather::job(&service, &principal.scope_id, names).await?;
    Ok(Json(job.ok_or(ApiError::NotFound)?).into_response())
}

/// Has all that is known of a run written here.
pub(super) async fn gathered(
    service: &Service,
    principal: &Principal,
    run: &str,
) -> Result<(), ApiError> {
    service.reports.flush(service).await?;
    events::bring(service, &principal.scope_id, run).await;
    Ok(())
}

async fn made(service: &Service, principal: &Principal, run: &str) -> Result<RunReport, ApiError> {
    gathered(service, principal, run).await?;
    gather::report(service, &principal.scope_id, run).await?.ok_or(ApiError::NotFound)
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
    if let Some(told) = told_behind(&service, &asked, JSON).await {
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
    if let Some(told) = told_behind(&service, &asked, MARKDOWN).await {
        return Ok(told);
    }
    let report = made(&service, &principal, &name(path)?).await?;
    let text = markdown::markdown(&report, &Plain);
    Ok(([(CONTENT_TYPE, MARKDOWN)], text).into_response())
}
