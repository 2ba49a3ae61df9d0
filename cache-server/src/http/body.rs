//! Reading request bodies within their bounds.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use bytes::BytesMut;
use futures_util::StreamExt as _;
use kiln_storage::limits::MAX_JSON_BODY_BYTES;
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::limits::MAX_DRAIN_BYTES;

/// The JSON body of a request.
///
/// # Errors
/// [`ApiError::TooLarge`]; [`ApiError::BadRequest`] for anything but the JSON of a `T`.
pub(crate) async fn json<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    json_within(request, MAX_JSON_BODY_BYTES).await
}

/// The JSON body of a request that is small.
///
/// # Errors
/// As [`json`].
pub(crate) async fn json_within<T: DeserializeOwned>(
    request: Request,
    max: usize,
) -> Result<T, ApiError> {
    parsed(&bytes(request, max, "the JSON body").await?)
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let text: String = error.to_string().chars().take(200).collect();
        ApiError::BadRequest(format!("the JSON body: {text}"))
    })
}

/// The body of a request, up to a size; `what` is for the error.
///
/// # Errors
/// [`ApiError::TooLarge`]; [`ApiError::BadRequest`] for one that breaks off.
pub(crate) async fn bytes(
    request: Request,
    max: usize,
    what: &'static str,
) -> Result<BytesMut, ApiError> {
    if content_length(&request).is_some_and(|len| len > max as u64) {
        drain(request).await;
        return Err(ApiError::TooLarge(what));
    }
    let mut stream = request.into_body().into_data_stream();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| ApiError::BadRequest("the body broke off".into()))?;
        if bytes.len() + chunk.len() > max {
            drain_stream(Body::from_stream(stream)).await;
            return Err(ApiError::TooLarge(what));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The announced length of a body, bytes.
pub(crate) fn content_length(request: &Request) -> Option<u64> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A header that is a number.
pub(crate) fn number(request: &Request, name: &str) -> Option<u64> {
    request.headers().get(name)?.to_str().ok()?.parse().ok()
}

/// Reads a body that is not wanted, within a bound. A client that waits to be asked for it is not
/// asked.
pub(crate) async fn drain(request: Request) {
    if !request.headers().contains_key(EXPECT) {
        drain_stream(request.into_body()).await;
    }
}

async fn drain_stream(body: Body) {
    let mut stream = body.into_data_stream();
    let mut drained = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        drained += chunk.len();
        if drained > MAX_DRAIN_BYTES {
            return;
        }
    }
}
