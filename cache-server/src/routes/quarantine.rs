//! `POST /v1/results/{key}/quarantine`, `GET` and `DELETE /v1/quarantine`,
//! `DELETE /v1/quarantine/{key}`.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use kiln_storage::api::{Problem, QuarantineRequest, QuarantineResponse};

use super::results::parse_key;
use crate::error::ApiError;
use crate::http::body;
use crate::index::quarantine as rows;
use crate::limits::MAX_QUESTION_BYTES;
use crate::principal::Principal;
use crate::quarantine;
use crate::service::Service;

/// Forgets a result that proved wrong, and stores and answers none of its key any more.
#[utoipa::path(
    post,
    path = "/v1/results/{key}/quarantine",
    params(("key" = String, Path, description = "The result key")),
    request_body = QuarantineRequest,
    responses(
        (status = 204, description = "Quarantined, until it is released"),
        (status = 503, description = "`read-only`: quarantined until the index is lost",
         body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The store is full: quarantined until the index is lost",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn add(
    State(service): State<Service>,
    principal: Principal,
    Path(key): Path<String>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let key = parse_key(&key)?;
    principal.writes()?;
    let request: QuarantineRequest = body::json_within(request, MAX_QUESTION_BYTES).await?;
    quarantine::add(&service, &principal, key, request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is quarantined, newest first; in what is read besides the own scope, too.
#[utoipa::path(
    get,
    path = "/v1/quarantine",
    responses((status = 200, description = "The results", body = QuarantineResponse))
)]
pub(crate) async fn list(
    State(service): State<Service>,
    principal: Principal,
) -> Result<Json<QuarantineResponse>, ApiError> {
    let scopes = principal.read_ids();
    let read = move |index: &_| {
        let lists = scopes.iter().map(|scope| rows::list(index, scope));
        lists.collect::<rusqlite::Result<Vec<_>>>()
    };
    let quarantined = service.index.read(read).await?.concat();
    Ok(Json(QuarantineResponse { quarantined }))
}

/// Releases all that is quarantined; the results that were.
#[utoipa::path(
    delete,
    path = "/v1/quarantine",
    responses(
        (status = 200, description = "Released", body = QuarantineResponse),
        (status = 503, description = "`read-only`", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn release_all(
    State(service): State<Service>,
    principal: Principal,
) -> Result<Json<QuarantineResponse>, ApiError> {
    let scope = principal.writes()?.id.clone();
    let quarantined = service.index.read(move |index| rows::list(index, &scope)).await?;
    let keys = quarantined.iter().map(|entry| entry.result_key).collect();
    quarantine::release(&service, &principal, keys).await?;
    Ok(Json(QuarantineResponse { quarantined }))
}

/// Releases one result: the next compile of its unit is stored again.
#[utoipa::path(
    delete,
    path = "/v1/quarantine/{key}",
    params(("key" = String, Path, description = "The result key")),
    responses(
        (status = 204, description = "Released"),
        (status = 404, description = "It is not quarantined", body = Problem,
         content_type = "application/problem+json"),
        (status = 503, description = "`read-only`", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn release(
    State(service): State<Service>,
    principal: Principal,
    Path(key): Path<String>,
) -> Result<StatusCode, ApiError> {
    let key = parse_key(&key)?;
    let scope = &principal.writes()?.id;
    if !quarantine::contains(&service, Vec::new(), scope, &key).await? {
        return Err(ApiError::NotFound);
    }
    quarantine::release(&service, &principal, vec![key]).await?;
    Ok(StatusCode::NO_CONTENT)
}
