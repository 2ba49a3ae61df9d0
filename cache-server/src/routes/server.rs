//! `GET /v1/server`, `POST /v1/shutdown`, `GET /healthz`, `GET /readyz`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kiln_storage::api::{Problem, ServerInfo};
use serde::Serialize;

use crate::error::ApiError;
use crate::principal::Principal;
use crate::service::Service;

/// The answer to `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct Readiness {
    /// Whether lookups see all that the store holds.
    pub ready: bool,
    /// Why results cannot be stored, if that is so; lookups work all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<String>,
}

/// Who answers.
#[utoipa::path(
    get,
    path = "/v1/server",
    responses((status = 200, description = "The server", body = ServerInfo))
)]
pub(crate) async fn info(
    State(service): State<Service>,
    _principal: Principal,
) -> Json<ServerInfo> {
    Json(ServerInfo {
        name: "kiln".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        role: service.config.role.word().to_owned(),
        uptime_s: service.started.elapsed().as_secs(),
        idle_s: service.config.idle.map(|idle| idle.as_secs()),
        read_only: service.store.read_only(),
    })
}

/// Makes the server leave: it finishes what it has begun. On a unix socket only.
#[utoipa::path(
    post,
    path = "/v1/shutdown",
    responses(
        (status = 202, description = "It leaves"),
        (status = 403, description = "Not on a unix socket", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn shutdown(
    State(service): State<Service>,
    principal: Principal,
) -> Result<StatusCode, ApiError> {
    if !principal.local {
        return Err(ApiError::Forbidden("only on the unix socket"));
    }
    service.log.info(format_args!("asked to leave"));
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
pub(crate) async fn readyz(State(service): State<Service>) -> Response {
    let ready = *service.complete.borrow();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let readiness = Readiness { ready, read_only: service.store.read_only() };
    (status, Json(readiness)).into_response()
}
