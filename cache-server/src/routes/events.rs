//! `POST /v1/events`, `GET /v1/stats`, `POST /v1/stats/zero`.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use kiln_storage::api::{
    Cause, Event, EventsRequest, Problem, RunAbout, StatsResponse, StoreStats,
};
use kiln_storage::limits::{MAX_ABOUT_BYTES, MAX_CAUSES, MAX_EVENTS};

use crate::error::ApiError;
use crate::http::body;
use crate::index::{events, quarantine, records};
use crate::limits::MAX_EVENT_BYTES;
use crate::principal::Principal;
use crate::remote::ahead;
use crate::service::Service;

/// Reports what became of units. The same event sent twice counts once.
#[utoipa::path(
    post,
    path = "/v1/events",
    request_body = EventsRequest,
    responses(
        (status = 204, description = "Taken; counted before anybody asks for statistics"),
        (status = 413, description = "Too many or too large events", body = Problem,
         content_type = "application/problem+json"),
        (status = 503, description = "`busy`", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn add(
    State(service): State<Service>,
    principal: Principal,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let scope = principal.writes()?.id.clone();
    let EventsRequest { events } = body::json(request).await?;
    if events.len() > MAX_EVENTS {
        return Err(ApiError::TooLarge("the number of events"));
    }
    if events.iter().any(is_large) {
        return Err(ApiError::TooLarge("an event"));
    }
    ahead::note_used(&service, &scope, &events);
    let others = principal.read_ids();
    let others = others.into_iter().filter(|other| *other != scope).collect();
    service.reports.take((scope, others), events)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether an event is over a bound.
pub(crate) fn is_large(event: &Event) -> bool {
    let mut about = event.about.iter().flat_map(RunAbout::texts);
    text_bytes(event) > MAX_EVENT_BYTES
        || event.causes.len() > MAX_CAUSES
        || about.any(|text| text.len() > MAX_ABOUT_BYTES)
}

fn text_bytes(event: &Event) -> usize {
    let unit = &event.unit;
    let fixed = [&event.id, &event.run, &event.job, &event.build].into_iter().chain([
        &unit.crate_name,
        &unit.version,
        &unit.kind,
        &unit.target,
    ]);
    fixed
        .chain(&event.reason)
        .chain(&event.detail)
        .chain(event.about.iter().flat_map(RunAbout::texts))
        .chain(&event.stem)
        .chain(event.causes.iter().flat_map(cause_texts))
        .chain(&event.pinned)
        .chain(&event.conservative)
        .chain(event.phases_us.keys())
        .map(String::len)
        .sum()
}

fn cause_texts(cause: &Cause) -> impl Iterator<Item = &String> {
    [&cause.kind, &cause.name].into_iter().chain(&cause.then).chain(&cause.now)
}

/// Counts since the last reset and of the newest build.
#[utoipa::path(
    get,
    path = "/v1/stats",
    responses((status = 200, description = "Counts", body = StatsResponse))
)]
pub(crate) async fn stats(
    State(service): State<Service>,
    principal: Principal,
) -> Result<Json<StatsResponse>, ApiError> {
    let scope = principal.first()?.id.clone();
    service.reports.flush(&service).await?;
    // By the connection that writes: counting a large store takes time, and lookups go on.
    let (mut stats, (results, blobs, bytes)) = service
        .index
        .write(move |index| {
            let quarantined = quarantine::count(index, &scope)?;
            let stats = StatsResponse { quarantined, ..events::stats(index, &scope)? };
            Ok((stats, records::sizes(index)?))
        })
        .await?;
    stats.store = StoreStats {
        results,
        blobs,
        bytes,
        budget_bytes: service.config.cache_size,
        // Who has no token where one is asked for learns nothing of the machine.
        storage: if principal.is_public() { String::new() } else { service.store.display() },
    };
    Ok(Json(stats))
}

/// Begins to count anew.
#[utoipa::path(
    post,
    path = "/v1/stats/zero",
    responses((status = 204, description = "Done"))
)]
pub(crate) async fn zero(
    State(service): State<Service>,
    principal: Principal,
) -> Result<StatusCode, ApiError> {
    let scope = principal.writes()?.id.clone();
    service.reports.flush(&service).await?;
    service.index.write(move |index| events::zero(index, &scope)).await?;
    Ok(StatusCode::NO_CONTENT)
}
