//! `GET` and `PUT /v1/notes/{name}`: small texts that a job leaves for the next one of its kind.

use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use kiln_storage::api::Problem;
use kiln_storage::limits::{MAX_NOTE_BYTES, MAX_NOTE_NAME_BYTES};

use crate::error::ApiError;
use crate::http::body;
use crate::index::notes;
use crate::principal::Principal;
use crate::service::Service;

fn check(name: &str) -> Result<(), ApiError> {
    let allowed = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-');
    match !name.is_empty() && name.len() <= MAX_NOTE_NAME_BYTES && name.bytes().all(allowed) {
        true => Ok(()),
        false => {
            Err(ApiError::BadRequest("the name has other characters than a-z, 0-9 and -".into()))
        }
    }
}

/// A note of the first scope that has it.
#[utoipa::path(
    get,
    path = "/v1/notes/{name}",
    params(("name" = String, Path, description = "a-z, 0-9 and -")),
    responses(
        (status = 200, description = "The text", content_type = "application/octet-stream"),
        (status = 404, description = "No such note", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(service): State<Service>,
    principal: Principal,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    check(&name)?;
    let scopes = principal.read_ids();
    let read = move |index: &_| {
        for scope in scopes {
            if let Some(note) = notes::get(index, &scope, &name)? {
                return Ok(Some(note));
            }
        }
        Ok(None)
    };
    let note = service.index.read_few(read).await?;
    let note: Bytes = note.ok_or(ApiError::NotFound)?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], note).into_response())
}

/// Replaces a note of the scope.
#[utoipa::path(
    put,
    path = "/v1/notes/{name}",
    params(("name" = String, Path, description = "a-z, 0-9 and -")),
    request_body(content_type = "application/octet-stream"),
    responses(
        (status = 204, description = "Written"),
        (status = 413, description = "Over the limit", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn put(
    State(service): State<Service>,
    principal: Principal,
    Path(name): Path<String>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    check(&name)?;
    let scope = principal.writes()?.id.clone();
    let text = body::bytes(request, MAX_NOTE_BYTES, "the note").await?;
    service.index.write(move |index| notes::put(index, &scope, &name, &text)).await?;
    Ok(StatusCode::NO_CONTENT)
}
