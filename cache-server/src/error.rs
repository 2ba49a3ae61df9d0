//! [`ApiError`]: everything a request can fail with, and the one place where that becomes a
//! status, a title and safe text (RFC 9457 problem details).
//!
//! What went wrong inside stays in [`ApiError::Internal`] and goes to the log only.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kiln_storage::StoreError;
use kiln_storage::api::Problem;

use crate::index::IndexError;
use crate::limits::RETRY_AFTER_S;

/// Why a request fails.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ApiError {
    /// Nothing of that name.
    #[error("not found")]
    NotFound,
    /// The path is there, the method is not.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// The request is not what the call takes; the text is about the request only.
    #[error("bad request: {0}")]
    BadRequest(String),
    /// The request is well formed but contradicts itself; the text is about the request only.
    #[error("unprocessable: {0}")]
    Unprocessable(String),
    /// The bytes are not those that the digest names.
    #[error("digest mismatch")]
    DigestMismatch,
    /// The record names blobs that are neither stored nor offered.
    #[error("missing blobs: {0}")]
    MissingBlobs(String),
    /// Over a bound.
    #[error("too large: {0}")]
    TooLarge(&'static str),
    /// The upload does not say how long it is.
    #[error("length required")]
    LengthRequired,
    /// No part of the blob is in the range asked for.
    #[error("range not satisfiable, {0} bytes")]
    RangeNotSatisfiable(u64),
    /// The caller may not do this.
    #[error("forbidden: {0}")]
    Forbidden(&'static str),
    /// The store takes no writes; the text is safe.
    #[error("read-only: {0}")]
    ReadOnly(&'static str),
    /// The store is full.
    #[error("insufficient storage")]
    InsufficientStorage,
    /// Too much at once.
    #[error("busy: {0}")]
    Busy(&'static str),
    /// The storage behind the server does not answer.
    #[error("storage unavailable: {0}")]
    Unavailable(String),
    /// The request took too long.
    #[error("timeout")]
    Timeout,
    /// Something inside; the text is for the log.
    #[error("internal: {0}")]
    Internal(String),
}

/// What a client is told about an [`ApiError`].
struct Projection {
    name: &'static str,
    title: &'static str,
    status: StatusCode,
    detail: Option<String>,
}

impl ApiError {
    fn project(&self) -> Projection {
        let (name, title, status, detail) = match self {
            Self::NotFound => (
                "not-found",
                "There is nothing of this name",
                StatusCode::NOT_FOUND,
                None,
            ),
            Self::MethodNotAllowed => (
                "method-not-allowed",
                "This path does not take this method",
                StatusCode::METHOD_NOT_ALLOWED,
                None,
            ),
            Self::BadRequest(detail) => (
                "bad-request",
                "The request is malformed",
                StatusCode::BAD_REQUEST,
                Some(detail.clone()),
            ),
            Self::Unprocessable(detail) => (
                "unprocessable",
                "The request contradicts itself",
                StatusCode::UNPROCESSABLE_ENTITY,
                Some(detail.clone()),
            ),
            Self::DigestMismatch => (
                "digest-mismatch",
                "The bytes are not those that the digest names",
                StatusCode::UNPROCESSABLE_ENTITY,
                None,
            ),
            Self::MissingBlobs(detail) => (
                "missing-blobs",
                "Blobs of the record are neither stored nor offered",
                StatusCode::CONFLICT,
                Some(detail.clone()),
            ),
            Self::TooLarge(what) => (
                "too-large",
                "The request is over a bound",
                StatusCode::PAYLOAD_TOO_LARGE,
                Some((*what).to_owned()),
            ),
            Self::LengthRequired => (
                "length-required",
                "The length of the body has to be given",
                StatusCode::LENGTH_REQUIRED,
                None,
            ),
            Self::RangeNotSatisfiable(size) => (
                "range-not-satisfiable",
                "No byte of the blob is in the range",
                StatusCode::RANGE_NOT_SATISFIABLE,
                Some(format!("the blob has {size} bytes")),
            ),
            Self::Forbidden(detail) => (
                "forbidden",
                "The caller may not do this",
                StatusCode::FORBIDDEN,
                Some((*detail).to_owned()),
            ),
            Self::ReadOnly(detail) => (
                "read-only",
                "The store takes no writes",
                StatusCode::SERVICE_UNAVAILABLE,
                Some((*detail).to_owned()),
            ),
            Self::InsufficientStorage => (
                "insufficient-storage",
                "The store is full",
                StatusCode::INSUFFICIENT_STORAGE,
                None,
            ),
            Self::Busy(detail) => (
                "busy",
                "The server has too much to do at once",
                StatusCode::SERVICE_UNAVAILABLE,
                Some((*detail).to_owned()),
            ),
            Self::Unavailable(_) => (
                "storage-unavailable",
                "The storage behind the server does not answer",
                StatusCode::SERVICE_UNAVAILABLE,
                None,
            ),
            Self::Timeout => (
                "timeout",
                "The request took too long",
                StatusCode::REQUEST_TIMEOUT,
                None,
            ),
            Self::Internal(_) => (
                "internal",
                "Something failed inside the server",
                StatusCode::INTERNAL_SERVER_ERROR,
                None,
            ),
        };
        Projection {
            name,
            title,
            status,
            detail,
        }
    }

    /// The status it is answered with.
    pub(crate) fn status(&self) -> StatusCode {
        self.project().status
    }

    /// Seconds after which it makes sense to ask again, where it does.
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        matches!(self, Self::Busy(_) | Self::Unavailable(_)).then_some(RETRY_AFTER_S)
    }

    /// The problem document.
    pub(crate) fn problem(&self, request_id: &str) -> Problem {
        let projection = self.project();
        Problem {
            kind: format!("/problems/{}", projection.name),
            title: projection.title.to_owned(),
            status: projection.status.as_u16(),
            detail: projection.detail,
            request_id: request_id.to_owned(),
        }
    }
}

/// The error travels as an extension; [`crate::http::middleware`] knows the request id, logs the
/// error and writes the document.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(why) => Self::Unavailable(why),
            StoreError::ReadOnly(why) => read_only(&why),
            StoreError::Damaged { name, why } => Self::Internal(format!("{name} damaged: {why}")),
            StoreError::TooLarge { .. } => Self::TooLarge("a blob is over the limit of the store"),
        }
    }
}

/// Tells a full store from one that is not to be written; what a backend says is for the log.
pub(crate) fn read_only(why: &str) -> ApiError {
    let why = why.to_ascii_lowercase();
    if ["no space", "full", "quota"]
        .iter()
        .any(|word| why.contains(word))
    {
        ApiError::InsufficientStorage
    } else {
        ApiError::ReadOnly("the store is read-only or not permitted to the server")
    }
}

impl From<IndexError> for ApiError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Full => Self::InsufficientStorage,
            IndexError::Damaged(why) | IndexError::Failed(why) => Self::Internal(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_text_stays_inside() {
        for error in [
            ApiError::Internal("secret".into()),
            ApiError::Unavailable("secret".into()),
            StoreError::ReadOnly("secret".into()).into(),
            IndexError::Failed("secret".into()).into(),
        ] {
            let problem = error.problem("7");
            assert_eq!(problem.request_id, "7");
            assert!(
                !serde_json::to_string(&problem).unwrap().contains("secret"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_full_store_is_not_a_read_only_one() {
        assert_eq!(read_only("No space left on device").status(), 507);
        assert_eq!(read_only("Read-only file system").status(), 503);
    }
}
