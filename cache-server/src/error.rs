//! [`ApiError`]: everything a request can fail with, and the one place where that becomes a
//! status, a title and safe text (RFC 9457 problem details).
//!
//! What went wrong inside stays in [`ApiError::Internal`] and goes to the log only.

use std::fmt;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kiln_storage::StoreError;
use kiln_storage::api::Problem;

use crate::index::IndexError;
use crate::limits::{LOGIN_PERIOD, RETRY_AFTER_S};
use crate::log::Log;
use crate::trust::spending::Over;

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
    /// The result proved wrong before: none of its key is stored.
    #[error("quarantined")]
    Quarantined,
    /// Over a bound.
    #[error("too large: {0}")]
    TooLarge(&'static str),
    /// The upload does not say how long it is.
    #[error("length required")]
    LengthRequired,
    /// No part of the blob is in the range asked for.
    #[error("range not satisfiable, {0} bytes")]
    RangeNotSatisfiable(u64),
    /// It has to be known who the caller is.
    #[error("unauthorized: {0}")]
    Unauthorized(&'static str),
    /// Too many failed logins came from the caller's address.
    #[error("too many failed logins")]
    TooManyLogins,
    /// The caller has asked for too much of late.
    #[error("too many {}", .0.what)]
    TooMuch(Over),
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
    /// The request took too long to come, or what it waits for did.
    #[error("timeout")]
    Timeout,
    /// Something inside; the text is for the log.
    #[error("internal: {0}")]
    Internal(String),
}

/// A kind of error as clients know it.
struct Kind {
    /// Last segment of the type URI.
    name: &'static str,
    status: StatusCode,
    title: &'static str,
}

const fn kind(name: &'static str, status: StatusCode, title: &'static str) -> Kind {
    Kind { name, status, title }
}

const NOT_FOUND: Kind = kind("not-found", StatusCode::NOT_FOUND, "There is nothing of this name");
const METHOD_NOT_ALLOWED: Kind = kind(
    "method-not-allowed",
    StatusCode::METHOD_NOT_ALLOWED,
    "This path does not take this method",
);
const BAD_REQUEST: Kind = kind("bad-request", StatusCode::BAD_REQUEST, "The request is malformed");
const UNPROCESSABLE: Kind =
    kind("unprocessable", StatusCode::UNPROCESSABLE_ENTITY, "The request contradicts itself");
const DIGEST_MISMATCH: Kind = kind(
    "digest-mismatch",
    StatusCode::UNPROCESSABLE_ENTITY,
    "The bytes are not those that the digest names",
);
const MISSING_BLOBS: Kind = kind(
    "missing-blobs",
    StatusCode::CONFLICT,
    "Blobs of the record are neither stored nor offered",
);
const QUARANTINED: Kind = kind(
    "quarantined",
    StatusCode::LOCKED,
    "A result of this key proved wrong; none is stored until it is released",
);
const TOO_LARGE: Kind =
    kind("too-large", StatusCode::PAYLOAD_TOO_LARGE, "The request is over a bound");
const LENGTH_REQUIRED: Kind =
    kind("length-required", StatusCode::LENGTH_REQUIRED, "The length of the body has to be given");
const RANGE_NOT_SATISFIABLE: Kind = kind(
    "range-not-satisfiable",
    StatusCode::RANGE_NOT_SATISFIABLE,
    "No byte of the blob is in the range",
);
const UNAUTHORIZED: Kind =
    kind("unauthorized", StatusCode::UNAUTHORIZED, "The caller is not known");
const TOO_MANY_LOGINS: Kind = kind(
    "too-many-logins",
    StatusCode::TOO_MANY_REQUESTS,
    "Too many logins from this address failed of late",
);
const TOO_MUCH: Kind = kind(
    "over-limit",
    StatusCode::TOO_MANY_REQUESTS,
    "The caller has asked for more than it may in this time",
);
const FORBIDDEN: Kind = kind("forbidden", StatusCode::FORBIDDEN, "The caller may not do this");
const READ_ONLY: Kind =
    kind("read-only", StatusCode::SERVICE_UNAVAILABLE, "The store takes no writes");
const INSUFFICIENT_STORAGE: Kind =
    kind("insufficient-storage", StatusCode::INSUFFICIENT_STORAGE, "The store is full");
const BUSY: Kind =
    kind("busy", StatusCode::SERVICE_UNAVAILABLE, "The server has too much to do at once");
const UNAVAILABLE: Kind = kind(
    "storage-unavailable",
    StatusCode::SERVICE_UNAVAILABLE,
    "The storage behind the server does not answer",
);
const TIMEOUT: Kind = kind("timeout", StatusCode::REQUEST_TIMEOUT, "The request took too long");
const INTERNAL: Kind =
    kind("internal", StatusCode::INTERNAL_SERVER_ERROR, "Something failed inside the server");

impl ApiError {
    /// The kind, and what may be said about this case of it.
    fn project(&self) -> (Kind, Option<String>) {
        match self {
            Self::NotFound => (NOT_FOUND, None),
            Self::MethodNotAllowed => (METHOD_NOT_ALLOWED, None),
            Self::BadRequest(detail) => (BAD_REQUEST, Some(detail.clone())),
            Self::Unprocessable(detail) => (UNPROCESSABLE, Some(detail.clone())),
            Self::DigestMismatch => (DIGEST_MISMATCH, None),
            Self::MissingBlobs(detail) => (MISSING_BLOBS, Some(detail.clone())),
            Self::Quarantined => (QUARANTINED, None),
            Self::TooLarge(what) => (TOO_LARGE, Some((*what).to_owned())),
            Self::LengthRequired => (LENGTH_REQUIRED, None),
            Self::RangeNotSatisfiable(size) => {
                (RANGE_NOT_SATISFIABLE, Some(format!("the blob has {size} bytes")))
            }
            Self::Unauthorized(detail) => (UNAUTHORIZED, Some((*detail).to_owned())),
            Self::TooManyLogins => (TOO_MANY_LOGINS, None),
            Self::TooMuch(over) => (TOO_MUCH, Some(format!("too many {}", over.what))),
            Self::Forbidden(detail) => (FORBIDDEN, Some((*detail).to_owned())),
            Self::ReadOnly(detail) => (READ_ONLY, Some((*detail).to_owned())),
            Self::InsufficientStorage => (INSUFFICIENT_STORAGE, None),
            Self::Busy(detail) => (BUSY, Some((*detail).to_owned())),
            Self::Unavailable(_) => (UNAVAILABLE, None),
            Self::Timeout => (TIMEOUT, None),
            Self::Internal(_) => (INTERNAL, None),
        }
    }

    /// The status it is answered with.
    pub(crate) fn status(&self) -> StatusCode {
        self.project().0.status
    }

    /// Seconds after which it makes sense to ask again, where it does.
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::Busy(_) | Self::Unavailable(_) => Some(RETRY_AFTER_S),
            Self::TooManyLogins => Some(LOGIN_PERIOD.as_secs()),
            Self::TooMuch(over) => Some(over.after_s),
            _ => None,
        }
    }

    /// The problem document.
    pub(crate) fn problem(&self, request_id: &str) -> Problem {
        let (kind, detail) = self.project();
        Problem {
            kind: format!("/problems/{}", kind.name),
            title: kind.title.to_owned(),
            status: kind.status.as_u16(),
            detail,
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

impl ApiError {
    /// Logs that something failed. What fails for every unit while the store is full or takes no writes is told once.
    pub(crate) fn tell(&self, log: &Log, what: fmt::Arguments<'_>) {
        match self {
            Self::InsufficientStorage | Self::ReadOnly(_) => {
                log.warn_of(self.project().0.name, format_args!("{what}: {self}"));
            }
            _ => log.warn(format_args!("{what}: {self}")),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(why) => Self::Unavailable(why),
            StoreError::ReadOnly(why) => read_only(&why),
            StoreError::Damaged { name, why } => Self::Internal(format!("{name} damaged: {why}")),
            StoreError::TooLarge { .. } => Self::TooLarge("a blob is over the limit of the store"),
            StoreError::Refused(why) => Self::Internal(why),
        }
    }
}

/// Tells a full store from one that is not to be written; what a backend says is for the log.
pub(crate) fn read_only(why: &str) -> ApiError {
    let why = why.to_ascii_lowercase();
    if ["no space", "full", "quota"].iter().any(|word| why.contains(word)) {
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
            assert!(!serde_json::to_string(&problem).unwrap().contains("secret"), "{error:?}");
        }
    }

    /// Wrappers tell this refusal from others by its status.
    #[test]
    fn quarantined_results_have_a_status_of_their_own() {
        assert_eq!(ApiError::Quarantined.status().as_u16(), kiln_storage::api::QUARANTINED_STATUS);
    }

    #[test]
    fn a_full_store_is_not_a_read_only_one() {
        assert_eq!(read_only("No space left on device").status(), 507);
        assert_eq!(read_only("Read-only file system").status(), 503);
    }
}
