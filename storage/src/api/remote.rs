//! Types of the HTTP API that are about the place behind a server: bringing results from there, sending
//! them there, and how it is.

use serde::{Deserialize, Serialize};

/// `POST /v1/results/{key}/bring`: have all blobs of a result on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BringRequest {
    /// How long that may take, milliseconds; bounded by the server too.
    pub within_ms: u64,
}

/// `POST /v1/drain`: send what waits to be sent to the place behind the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainRequest {
    /// How long the answer may take, milliseconds; bounded by the server too. It comes as soon as
    /// nothing is left to be sent.
    pub within_ms: u64,
    /// How long the asker goes on asking, milliseconds: what was begun may take so long.
    #[serde(default)]
    pub in_all_ms: u64,
}

/// `POST /v1/shutdown`. An empty body stands for the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShutdownRequest {
    /// Leave without sending what waits to be sent; it stays queued.
    #[serde(default)]
    pub at_once: bool,
}

/// What a server says of the place behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RemoteStatus {
    /// The place, without credentials.
    pub place: String,
    /// Whether it answered when it was asked last; none: it was not asked so far.
    pub reachable: Option<bool>,
    /// Why it is left alone now, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_alone: Option<String>,
    /// Why nothing is sent now, if that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_sending: Option<String>,
    /// Why what became of units is not told to other jobs there, if that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_stay: Option<String>,
    /// What went wrong when it was asked last, if something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Results that wait to be sent.
    pub queued: u64,
    /// Bytes in them.
    pub queued_bytes: u64,
    /// Whether packs of what jobs used are being written, which comes last.
    #[serde(default)]
    pub packing: bool,
    /// Age of the oldest of them, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_ms: Option<u64>,
    /// Results sent since the server started.
    pub sent: u64,
    /// Results that were not sent and are no longer queued, since the server started.
    pub lost: u64,
    /// Why the last of them was lost; without a number: what may have been lost, when nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_why: Option<String>,
    /// Results that came from there since the server started.
    pub arrived: u64,
    /// What came from there damaged.
    pub damaged: u64,
    /// Requests sent there, repeated ones included.
    pub requests: u64,
    /// Bytes that came from there.
    pub bytes_in: u64,
    /// Bytes that went there.
    pub bytes_out: u64,
    /// Bytes that were fetched ahead.
    pub ahead_bytes: u64,
    /// Bytes of these whose results were used.
    pub ahead_used_bytes: u64,
}
