//! Types of `POST /v1/session`: a token of a CI service for one of this server.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `POST /v1/session`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionRequest {
    /// The token of the service, made for this server.
    pub token: String,
}

impl fmt::Debug for SessionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionRequest(not shown)")
    }
}

/// The answer to `POST /v1/session`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionResponse {
    /// The bearer token for further requests.
    pub token: String,
    /// How long it is good, seconds.
    pub lasts_s: u64,
    /// The refs that are read, in order.
    pub reads: Vec<String>,
    /// The ref that is written; none: nothing may be stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<String>,
}

impl fmt::Debug for SessionResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lasts_s, reads, writes, token: _ } = self;
        f.debug_struct("SessionResponse")
            .field("lasts_s", lasts_s)
            .field("reads", reads)
            .field("writes", writes)
            .finish_non_exhaustive()
    }
}
