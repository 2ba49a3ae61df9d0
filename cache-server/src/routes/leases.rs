//! `POST /v1/leases`, `POST /v1/leases/{id}/hold`, `POST /v1/leases/{id}/release`, `GET /v1/leases`: who compiles a
//! unit while others wait for it. The first two stay open for as long as there is nothing to say; a connection that
//! ends before is noticed in [`crate::leases`]. What another Kiln server behind this one can answer is passed on
//! ([`crate::remote::leases`]).

use std::time::Instant;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use kiln_storage::api::{
    HoldRequest, LeaseRequest, LeaseResponse, LeasesResponse, Problem, ReleaseRequest,
};
use kiln_storage::limits::MAX_LOOKUP_KEYS;
use serde::Deserialize;

use super::runs::{Asked, malformed, name};
use crate::error::ApiError;
use crate::http::body;
use crate::http::middleware::peer_of;
use crate::leases::LeaseId;
use crate::limits::MAX_LEASE_BODY_BYTES;
use crate::principal::Principal;
use crate::remote::leases as behind;
use crate::service::Service;

/// Where leases are asked for.
pub(crate) const LEASES: &str = "/v1/leases";

/// Which leases are asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct Which {
    run: Option<String>,
}

/// May I compile this, or does somebody already? Answered as soon as there is something to say, at the latest after
/// the time that is given.
#[utoipa::path(
    post,
    path = "/v1/leases",
    request_body = LeaseRequest,
    responses(
        (status = 200, description = "What is to be done", body = LeaseResponse),
        (status = "4XX", description = "Malformed or too large", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn ask(
    State(service): State<Service>,
    principal: Principal,
    request: Request,
) -> Result<Json<LeaseResponse>, ApiError> {
    let (headers, peer) = (request.headers().clone(), peer_of(request.extensions()));
    let mut request: LeaseRequest = body::json_within(request, MAX_LEASE_BODY_BYTES).await?;
    if request.known.len() > MAX_LOOKUP_KEYS {
        return Err(ApiError::TooLarge("the number of keys"));
    }
    let Ok(_open) = service.questions.try_acquire() else {
        return Ok(Json(LeaseResponse::Free));
    };
    let Some(_waits) = Waits::begin(&service, principal.spender(peer)) else {
        return Ok(Json(LeaseResponse::Free));
    };
    // Who stores nothing has nothing to offer to those who would wait.
    let Some(scope) = &principal.writes else {
        return Ok(Json(match principal.is_public() {
            true => LeaseResponse::Free,
            false => service.leases.watch(&principal.read_ids(), request).await,
        }));
    };
    let begun = Instant::now();
    if let Some(answer) = behind::ask(&service, &principal, &headers, &request).await {
        return Ok(Json(answer));
    }
    let passed = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let wait_ms = request.wait_ms;
    request.wait_ms = wait_ms.saturating_sub(passed());
    // What is compiled in a scope that it reads serves it as well. From there nothing is taken over.
    let mut others = principal.read_ids();
    others.retain(|other| *other != scope.id && request.over_ms.is_none());
    let elsewhere = service.leases.watch(&others, request.clone()).await;
    if elsewhere != LeaseResponse::Free {
        return Ok(Json(elsewhere));
    }
    request.wait_ms = wait_ms.saturating_sub(passed());
    Ok(Json(service.leases.ask(&scope.id, request).await))
}

/// The holder of a lease lives. Answered after a while, and to be asked again at once then; a connection that ends
/// before ends the lease.
#[utoipa::path(
    post,
    path = "/v1/leases/{id}/hold",
    params(("id" = String, Path, description = "The lease")),
    request_body = HoldRequest,
    responses(
        (status = 204, description = "It has the lease"),
        (status = 404, description = "It does not, or no longer", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn hold(
    State(service): State<Service>,
    principal: Principal,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (id, headers) = (name(path)?, request.headers().clone());
    let request: HoldRequest = body::json_within(request, MAX_LEASE_BODY_BYTES).await?;
    let scope = principal.writes()?;
    if let Some(id) = behind::far(&id) {
        return there(behind::hold(&service, &principal, &headers, (id, request)).await);
    }
    there(service.leases.hold(&scope.id, own(&id)?, request.cpu_ms).await)
}

/// How a lease ended.
#[utoipa::path(
    post,
    path = "/v1/leases/{id}/release",
    params(("id" = String, Path, description = "The lease")),
    request_body = ReleaseRequest,
    responses(
        (status = 204, description = "Those who wait are told"),
        (status = 404, description = "It was lost before", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn release(
    State(service): State<Service>,
    principal: Principal,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (id, headers) = (name(path)?, request.headers().clone());
    let outcome: ReleaseRequest = body::json_within(request, MAX_LEASE_BODY_BYTES).await?;
    let scope = principal.writes()?;
    if let Some(id) = behind::far(&id) {
        return there(behind::release(&service, &principal, &headers, (id, outcome)).await);
    }
    there(service.leases.release(&scope.id, own(&id)?, outcome))
}

/// Who compiles what at this moment, oldest first.
#[utoipa::path(
    get,
    path = "/v1/leases",
    params(("run" = Option<String>, Query, description = "What this run compiles or waits for")),
    responses(
        (status = 200, description = "The leases", body = LeasesResponse),
        (status = "4XX", description = "Malformed", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(service): State<Service>,
    principal: Principal,
    which: Result<Query<Which>, QueryRejection>,
    (uri, headers): Asked,
) -> Result<Json<LeasesResponse>, ApiError> {
    let Query(Which { run }) = which.map_err(|_| malformed())?;
    let of = |scope: &String| service.leases.list(scope, run.as_deref());
    let mut listed = LeasesResponse { leases: principal.read_ids().iter().flat_map(of).collect() };
    behind::list(&service, &principal, (&headers, uri.query()), &mut listed).await;
    Ok(Json(listed))
}

/// A question of somebody that is open.
struct Waits {
    service: Service,
    name: Option<String>,
}

impl Waits {
    /// One more, unless they have too many.
    fn begin(service: &Service, name: Option<String>) -> Option<Self> {
        let left = service.questions.available_permits();
        let spending = service.policy.trust().spending();
        let may = name.as_ref().is_none_or(|name| spending.wait(name, left));
        may.then(|| Self { service: service.clone(), name })
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            self.service.policy.trust().spending().waited(name);
        }
    }
}

/// The lease of an id that this server made.
fn own(id: &str) -> Result<LeaseId, ApiError> {
    id.parse().map_err(|_| ApiError::NotFound)
}

fn there(there: bool) -> Result<StatusCode, ApiError> {
    if there { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::NotFound) }
}
