//! `GET /v1/server`, `POST /v1/drain`, `POST /v1/shutdown`, `GET /healthz`, `GET /readyz`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kiln_storage::api::{DrainRequest, Problem, RemoteStatus, ServerInfo, ShutdownRequest};
use serde::Serialize;

use crate::error::ApiError;
use crate::http::body;
use crate::limits::{MAX_DRAIN_WAIT, MAX_QUESTION_BYTES};
use crate::principal::Principal;
use crate::remote;
use crate::service::Service;

/// Longest body of a request to leave, bytes.
const MAX_SHUTDOWN_BYTES: usize = 1024;

/// The answer to `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct Readiness {
    /// Whether lookups see all that the store holds.
    pub ready: bool,
    /// Why results cannot be stored, if that is so; lookups work all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<String>,
    /// The place behind the server, if there is one, for who would get an answer from the server. A server whose remote
    /// is away is ready all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteStatus>,
}

/// Who answers.
#[utoipa::path(
    get,
    path = "/v1/server",
    responses((status = 200, description = "The server", body = ServerInfo))
)]
pub(crate) async fn info(
    State(service): State<Service>,
    principal: Principal,
) -> Result<Json<ServerInfo>, ApiError> {
    let remote = match principal.is_public() {
        true => None,
        false => remote::status(&service).await?,
    };
    Ok(Json(ServerInfo {
        name: "kiln".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        role: service.config.role.word().to_owned(),
        uptime_s: service.started.elapsed().as_secs(),
        idle_s: service.config.idle.map(|idle| idle.as_secs()),
        read_only: service.store.read_only(),
        remote,
    }))
}

/// Sends what waits to be sent to the place behind the server. On a unix socket only.
#[utoipa::path(
    post,
    path = "/v1/drain",
    request_body = DrainRequest,
    responses(
        (status = 200, description = "How far it is", body = RemoteStatus),
        (status = 403, description = "Not on a unix socket", body = Problem,
         content_type = "application/problem+json"),
        (status = 404, description = "Nothing is behind the server", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn drain(
    State(service): State<Service>,
    principal: Principal,
    request: Request,
) -> Result<Json<RemoteStatus>, ApiError> {
    if !principal.local() {
        return Err(ApiError::Forbidden("only on the unix socket"));
    }
    let DrainRequest { within_ms, in_all_ms } =
        body::json_within(request, MAX_QUESTION_BYTES).await?;
    let in_all = Duration::from_millis(in_all_ms);
    let within = Duration::from_millis(within_ms).min(MAX_DRAIN_WAIT);
    // What is being taken over is queued only then.
    let taken = tokio::time::timeout(within, service.queue.drain()).await;
    if taken.is_ok() {
        remote::outbox::drain(&service, within, in_all).await;
    }
    Ok(Json(remote::status(&service).await?.ok_or(ApiError::NotFound)?))
}

/// Makes the server leave: it finishes what it has begun. On a unix socket only.
#[utoipa::path(
    post,
    path = "/v1/shutdown",
    request_body = ShutdownRequest,
    responses(
        (status = 202, description = "It leaves"),
        (status = 403, description = "Not on a unix socket", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn shutdown(
    State(service): State<Service>,
    principal: Principal,
    request: Request,
) -> Result<StatusCode, ApiError> {
    if !principal.local() {
        return Err(ApiError::Forbidden("only on the unix socket"));
    }
    let body = body::bytes(request, MAX_SHUTDOWN_BYTES, "the body").await?;
    // Earlier wrappers send nothing of use.
    let ShutdownRequest { at_once } = serde_json::from_slice(&body).unwrap_or_default();
    service.log.info(format_args!("asked to leave"));
    if at_once {
        service.drains.store(false, Ordering::Relaxed);
    }
    service.leave();
    Ok(StatusCode::ACCEPTED)
}

/// Whether the process answers.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "It does")))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether lookups see all that the store holds, and whether results can be stored.
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, description = "Ready, perhaps read-only", body = Readiness),
        (status = 503, description = "The index is being rebuilt", body = Readiness),
    )
)]
pub(crate) async fn readyz(
    State(service): State<Service>,
    who: Result<Principal, ApiError>,
) -> Response {
    let ready = *service.complete.borrow();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Whoever asks wants to know whether lookups work.
    let remote = match who.is_ok_and(|principal| !principal.is_public()) {
        true => remote::status(&service).await.unwrap_or_default(),
        false => None,
    };
    let readiness = Readiness { ready, read_only: service.store.read_only(), remote };
    (status, Json(readiness)).into_response()
}
