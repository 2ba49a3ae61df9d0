//! What the fuzz targets (`tests/fuzz`) reach of the wire: what is made of the answers of both services, without a
//! connection. Built for them alone.

use reqwest::StatusCode;

use super::client::{CacheError, Found};
use super::numbers;
use super::transport::Answer;
use super::{v1, v2};

fn answer(status: u16, body: &[u8]) -> Option<Answer> {
    Some(Answer { status: StatusCode::from_u16(status).ok()?, body: body.to_vec().into() })
}

/// What a lookup of the service of github.com found; none: no such status, or nothing was found.
///
/// # Errors
/// As [`super::client::CacheService::find`].
pub fn found_by_v2(status: u16, body: &[u8]) -> Result<Option<Found>, CacheError> {
    answer(status, body).map_or(Ok(None), |answer| v2::found(v2::read_reply(&answer)))
}

/// The same of the older service.
///
/// # Errors
/// As [`super::client::CacheService::find`].
pub fn found_by_v1(status: u16, body: &[u8]) -> Result<Option<Found>, CacheError> {
    answer(status, body).map_or(Ok(None), |answer| v1::found(&answer))
}

/// The number of a manifest whose key begins so.
pub fn manifest_number(prefix: &str, key: &str) -> Option<u64> {
    numbers::number_of(prefix, key)
}
