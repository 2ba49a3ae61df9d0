//! `PUT /v1/results/{key}`, `POST /v1/results/{key}/bring` and `POST /v1/results/{key}/reject`.

use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use kiln_storage::api::{BringRequest, Problem, PublishRequest, RejectRequest};
use kiln_storage::remote::via;
use kiln_storage::{ObjectName, ResultKey, Scope};

use crate::asker::Asker;
use crate::error::ApiError;
use crate::http::body;
use crate::index::records;
use crate::limits::MAX_QUESTION_BYTES;
use crate::maker::again;
use crate::principal::{Kind, Principal, Scoped};
use crate::publish::{self, Published};
use crate::remote::fetch;
use crate::service::Service;

/// The key in a path.
pub(crate) fn parse_key(text: &str) -> Result<ResultKey, ApiError> {
    text.parse()
        .map_err(|_| ApiError::BadRequest("the key is not 64 lower-case hexadecimal digits".into()))
}

/// Stores a record unless an intact one is there.
#[utoipa::path(
    put,
    path = "/v1/results/{key}",
    params(("key" = String, Path, description = "The result key")),
    request_body = PublishRequest,
    responses(
        (status = 200, description = "An intact record is there and stays"),
        (status = 201, description = "Stored"),
        (status = 202, description = "The offered files are open; stored once taken over"),
        (status = 409, description = "`missing-blobs`: neither stored nor offered",
         body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The record is not what it says", body = Problem,
         content_type = "application/problem+json"),
        (status = 423, description = "`quarantined`: a result of this key proved wrong",
         body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`read-only` or `busy`", body = Problem,
         content_type = "application/problem+json"),
        (status = 507, description = "The store is full", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn publish(
    State(service): State<Service>,
    principal: Principal,
    Path(key): Path<String>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let key = parse_key(&key)?;
    principal.writes()?;
    let asker = Asker::of(&request);
    let request: PublishRequest = body::json(request).await?;
    Ok(match publish::publish(&service, (&principal, asker), &key, request).await? {
        Published::Kept => StatusCode::OK,
        Published::Created => StatusCode::CREATED,
        Published::Accepted => StatusCode::ACCEPTED,
    })
}

/// Has all blobs of a result on this server that a lookup named as absent.
#[utoipa::path(
    post,
    path = "/v1/results/{key}/bring",
    params(("key" = String, Path, description = "The result key")),
    request_body = BringRequest,
    responses(
        (status = 204, description = "They are here"),
        (status = 404, description = "No such record, or none that came from behind the server",
         body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "Not in time; it goes on", body = Problem,
         content_type = "application/problem+json"),
        (status = 409, description = "`missing-blobs`: a blob is damaged or gone there", body = Problem,
         content_type = "application/problem+json"),
        (status = 503, description = "`storage-unavailable`", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn bring(
    State(service): State<Service>,
    principal: Principal,
    Path(key): Path<String>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let key = parse_key(&key)?;
    let edge = service.edge.as_ref().ok_or(ApiError::NotFound)?;
    let ways = edge.ways(&principal);
    if ways.is_empty() {
        return Err(ApiError::NotFound);
    }
    let through = edge.via(&service.log, request.headers());
    let BringRequest { within_ms } = body::json_within(request, MAX_QUESTION_BYTES).await?;
    let within = Duration::from_millis(within_ms);
    // What lies behind a server that is behind this one, and nowhere else, is nowhere.
    let through = through.ok_or(ApiError::NotFound)?;
    let scopes: Vec<&Scope> = ways.iter().map(|way| &way.here.scope).collect();
    via::within(through, fetch::bring_from(&service, &scopes, &key, within)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Verifies the blobs of a record that could not be restored; forgets those that are damaged or
/// gone, and the record with them.
#[utoipa::path(
    post,
    path = "/v1/results/{key}/reject",
    params(("key" = String, Path, description = "The result key")),
    request_body = RejectRequest,
    responses(
        (status = 204, description = "Looked after"),
        (status = 404, description = "No such record", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn reject(
    State(service): State<Service>,
    principal: Principal,
    Path(key): Path<String>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    if principal.kind == Kind::Public {
        return Err(ApiError::Forbidden("who has no token says nothing of results"));
    }
    let key = parse_key(&key)?;
    let request: RejectRequest = body::json_within(request, MAX_QUESTION_BYTES).await?;
    let scopes = principal.reads.clone();
    let read = move |index: &_| {
        for Scoped { scope, id } in scopes {
            if let Some(row) = records::stored(index, &id, &key)? {
                return Ok(Some((scope, row)));
            }
        }
        Ok(None)
    };
    let (scope, row) = service.index.read(read).await?.ok_or(ApiError::NotFound)?;
    let reason: String = request.reason.chars().take(500).collect();
    service.log.info(format_args!("result {key} rejected: {reason}"));
    let mut bad = Vec::new();
    for (digest, _) in &row.blobs {
        if !service.store.verify_blob(digest).await? {
            bad.push(*digest);
        }
    }
    if bad.is_empty() {
        return Ok(StatusCode::NO_CONTENT);
    }
    service.log.warn(format_args!("result {key} forgotten: {} bad blobs", bad.len()));
    service
        .index
        .write(move |index| {
            bad.iter().try_for_each(|digest| records::forget_blob(index, digest))?;
            records::forget(index, row.id)
        })
        .await?;
    let name = ObjectName::record(&scope, &row.unit_key, &key, row.generation);
    // The row is gone: an object that stays is found without blobs by the next rebuild.
    let _ = service.store.delete(&name).await;
    if row.again {
        again::forget(&service, &scope.id(), &key).await;
    }
    Ok(StatusCode::NO_CONTENT)
}
