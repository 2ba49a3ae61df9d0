//! `POST /v1/revoke`, `DELETE /v1/results/{key}`, `GET /v1/results/{key}/maker`: who made results, and their removal.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use kiln_storage::api::Problem;
use serde::Serialize;

use super::results::parse_key;
use crate::error::ApiError;
use crate::http::body;
use crate::index::makers;
use crate::maker::{By, Said};
use crate::principal::Principal;
use crate::revoke::{self, RevokeRequest, Revoked, take};
use crate::service::Service;

/// Longest body of a revoke, bytes.
const MAX_REVOKE_BYTES: usize = 16 * 1024;

/// Who made a result.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct MakerResponse {
    /// Who had it stored, as the server knows them.
    pub by: By,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// What they say of themselves; nobody has verified it.
    pub said: Said,
    /// Somebody else who published it afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub also_by: Option<By>,
}

/// Who made a result. For who may read it, and is known.
#[utoipa::path(
    get,
    path = "/v1/results/{key}/maker",
    params(("key" = String, Path, description = "The result key")),
    responses(
        (status = 200, description = "Who made it", body = MakerResponse),
        (status = 404, description = "No such record", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn maker(
    State(service): State<Service>,
    principal: Principal,
    Path(key): Path<String>,
) -> Result<Json<MakerResponse>, ApiError> {
    let (key, scopes) = (parse_key(&key)?, principal.read_ids());
    if principal.is_public() {
        return Err(ApiError::Forbidden("only with a token"));
    }
    let read = move |index: &_| {
        for scope in &scopes {
            if let Some(known) = makers::of_result(index, scope, &key)? {
                return Ok(Some(known));
            }
        }
        Ok(None)
    };
    let known = service.index.read_few(read).await?.ok_or(ApiError::NotFound)?;
    let (made, said) = (known.origin.made, known.origin.said);
    let response = MakerResponse { by: made.by, at_ms: made.at_ms, said, also_by: known.again };
    Ok(Json(response))
}

/// Takes a result back from the scope that is written, and from the place behind the server. A later one of its key is
/// stored again.
#[utoipa::path(
    delete,
    path = "/v1/results/{key}",
    params(("key" = String, Path, description = "The result key")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "No such record", body = Problem,
         content_type = "application/problem+json"),
        (status = 503, description = "`storage-unavailable`, `read-only`: it may be there still, or farther away",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(
    State(service): State<Service>,
    principal: Principal,
    Path(key): Path<String>,
) -> Result<StatusCode, ApiError> {
    let (key, scope) = (parse_key(&key)?, principal.writes()?.id.clone());
    let read = move |index: &_| makers::one(index, &scope, &key);
    let one = service.index.read(read).await?.ok_or(ApiError::NotFound)?;
    service.log.info(format_args!("audit: {} takes result {key} back", principal.name));
    let taken = take::take(&service, vec![one], false).await?;
    if taken.stay > 0 {
        return Err(ApiError::ReadOnly("its object is still there"));
    }
    match taken.behind.filter(|behind| behind.left > 0) {
        Some(behind) => Err(ApiError::Unavailable(behind.why.unwrap_or_default())),
        None => Ok(StatusCode::NO_CONTENT),
    }
}

/// Removes all results that came from somebody, or counts them. For a bounded time: there may be more. On a unix socket
/// only.
#[utoipa::path(
    post,
    path = "/v1/revoke",
    request_body = RevokeRequest,
    responses(
        (status = 200, description = "What went, or would go", body = Revoked),
        (status = 403, description = "Not on a unix socket", body = Problem,
         content_type = "application/problem+json"),
        (status = 422, description = "It is not said which results", body = Problem,
         content_type = "application/problem+json"),
        (status = 503, description = "The index is not whole yet", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn revoke(
    State(service): State<Service>,
    principal: Principal,
    request: Request,
) -> Result<Json<Revoked>, ApiError> {
    if !principal.local() {
        return Err(ApiError::Forbidden("only on the unix socket"));
    }
    let request: RevokeRequest = body::json_within(request, MAX_REVOKE_BYTES).await?;
    if !*service.complete.borrow() {
        return Err(ApiError::Busy("the index is being made anew"));
    }
    Ok(Json(revoke::audited(&service, request, &principal.by.name()).await?))
}
