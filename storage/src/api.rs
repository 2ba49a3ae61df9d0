//! The types of the HTTP API, version 1: what wrapper, servers and tools say to each other.
//!
//! All bodies are JSON. Sizes are bytes, times milliseconds since 1970 unless a name ends in
//! another unit.

mod lease;
mod lookup;
mod remote;
pub mod report;
mod run;
mod session;
pub mod watch;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::key::{ResultKey, UnitKey};
use crate::record::{Record, UnitName, UnitPart};

pub use lease::{
    HoldRequest, Holder, Lease, LeaseRequest, LeaseResponse, LeasesResponse, ReleaseRequest, Waiter,
};
pub use lookup::{LookupRequest, LookupResponse};
pub use remote::{BringRequest, DrainRequest, RemoteStatus, ShutdownRequest};
pub use run::{RunAbout, bounded_name, plain};
pub use session::{SessionRequest, SessionResponse};

/// `PUT /v1/results/{key}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublishRequest {
    /// The record. Refused unless every blob is stored or offered.
    pub record: Record,
    /// On a unix socket: files from which the server takes over blobs that it does not have.
    #[serde(default)]
    pub offers: Vec<Offer>,
    /// Replace a record that is there ([`Record::result_key`] being equal).
    #[serde(default)]
    pub replace: bool,
}

/// A file on the server's machine that holds the bytes of a blob now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Offer {
    /// The blob.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Digest,
    /// Absolute path of the file.
    pub path: String,
}

/// `POST /v1/blobs/missing`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MissingRequest {
    /// Blobs asked for; the answer, of the same type, holds those that are not stored.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub blobs: Vec<Digest>,
}

/// `POST /v1/results/{key}/reject`: a result that could not be restored. The server verifies the
/// blobs it names, and forgets those that are damaged and the record with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RejectRequest {
    /// For the log.
    pub reason: String,
}

/// Status with which the publication of a quarantined result is refused, so that a wrapper can tell
/// it from every other refusal.
pub const QUARANTINED_STATUS: u16 = 423;

/// The status of a refusal for having asked for more than may be asked for in a time.
pub const OVER_LIMIT_STATUS: u16 = 429;

/// `POST /v1/results/{key}/quarantine`: a result that proved wrong. Its record is forgotten, and none
/// of the same key is stored or answered again until it is released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuarantineRequest {
    /// What people call the unit.
    pub unit: UnitName,
    /// What was seen, for people; kept up to [`crate::limits::MAX_QUARANTINE_TEXT_BYTES`].
    pub reason: String,
}

/// A result that proved wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quarantined {
    /// The result.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub result_key: ResultKey,
    /// What people call the unit.
    pub unit: UnitName,
    /// When it was quarantined.
    pub at_ms: u64,
    /// Why, for people.
    pub reason: String,
}

/// `GET /v1/quarantine`, and the answer to `DELETE /v1/quarantine`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuarantineResponse {
    /// Newest first; at most [`crate::limits::MAX_QUARANTINED`].
    pub quarantined: Vec<Quarantined>,
}

/// `POST /v1/nearest`: which earlier units are most like one that has no record; or more about the result that
/// is nearest to one that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NearestRequest {
    /// The unit that has no record.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub unit_key: UnitKey,
    /// What people call it.
    pub unit: UnitName,
    /// A result of the unit, where there is one: then its variables are asked for, and no units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub result: Option<ResultKey>,
}

/// The answer to a [`NearestRequest`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NearestResponse {
    /// Earlier units of the crate, at most [`crate::limits::MAX_NEAREST_UNITS`]: those of its kind
    /// and target, or any if there are none; of these, those of its version first, then the newest.
    pub units: Vec<NearestUnit>,
    /// [`Record::variables`] of the result.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

/// An earlier unit. Its results may be gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NearestUnit {
    /// Its key.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub unit_key: UnitKey,
    /// What people call it.
    pub unit: UnitName,
    /// What its key was made of.
    pub parts: Vec<UnitPart>,
}

/// Something about a unit that differs from the nearest earlier result: why it was compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cause {
    /// What kind of thing; the words are in docs/explain.md.
    pub kind: String,
    /// Which one: a path with roots as tokens, a variable, an argument. Empty where the kind says it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it was: the value of an argument, a word such as `absent`, or a short digest. None: it
    /// was not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<String>,
    /// What it is, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
}

/// What became of a unit. Exclusive: every unit has one outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Restored from this machine.
    HitLocal,
    /// Restored from afar.
    HitRemote,
    /// Restored after waiting for another job that compiled it.
    Joined,
    /// Compiled; the reason says why nothing answered.
    Miss,
    /// Handed to the tool without caching; the reason says why.
    Bypass,
    /// Compiled because something in Kiln failed; the reason says what.
    Error,
}

/// One unit of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Unique; the same event sent twice counts once.
    pub id: String,
    /// When the unit ended.
    pub at_ms: u64,
    /// The run it belongs to.
    pub run: String,
    /// The job in the run, with the values of its matrix.
    pub job: String,
    /// What is known of the run beside its name; the same in all events of a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<RunAbout>,
    /// The cargo process that asked, so that "this build" can be told from others.
    pub build: String,
    /// What people call the unit.
    pub unit: UnitName,
    /// The unit key, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub unit_key: Option<UnitKey>,
    /// The result restored, stored or checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub result_key: Option<ResultKey>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, for a miss, bypass or error: a word from the list in docs/reasons.md.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// More about the reason, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What differs from the nearest earlier result, the most telling first; for a miss. At most
    /// [`crate::limits::MAX_CAUSES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// How many further causes are left out.
    #[serde(default)]
    pub more_causes: u64,
    /// What the names of its outputs begin with, without `lib`: by this other units name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stem: Option<String>,
    /// Why the result holds at one place only (a root token or a variable), when it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<String>,
    /// Why the unit's inputs were not found by observation alone; empty when they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conservative: Vec<String>,
    /// Time in Kiln by phase, microseconds: `plan`, `lookup`, `restore`, `publish`.
    #[serde(default)]
    pub phases_us: BTreeMap<String, u64>,
    /// Bytes restored or stored.
    #[serde(default)]
    pub bytes: u64,
    /// What the compile cost when it was made (a hit) or now (a miss), wall milliseconds.
    #[serde(default)]
    pub cost_ms: u64,
    /// The processor time of the same compile, milliseconds.
    #[serde(default)]
    pub cpu_ms: u64,
    /// Wall time of the whole wrapper run, microseconds.
    #[serde(default)]
    pub wall_us: u64,
}

/// `POST /v1/events`: at most [`crate::limits::MAX_EVENTS`] events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventsRequest {
    /// The events.
    pub events: Vec<Event>,
}

/// Exclusive counts of outcomes; `units` is the sum of the six.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Counts {
    /// All units.
    pub units: u64,
    /// [`Outcome::HitLocal`].
    pub hit_local: u64,
    /// [`Outcome::HitRemote`].
    pub hit_remote: u64,
    /// [`Outcome::Joined`].
    pub joined: u64,
    /// [`Outcome::Miss`].
    pub miss: u64,
    /// [`Outcome::Bypass`].
    pub bypass: u64,
    /// [`Outcome::Error`].
    pub error: u64,
    /// Misses by reason.
    pub miss_reasons: BTreeMap<String, u64>,
    /// Bypasses by reason.
    pub bypass_reasons: BTreeMap<String, u64>,
    /// Errors by reason.
    pub error_reasons: BTreeMap<String, u64>,
    /// Wall milliseconds that the restored units took when they were compiled.
    pub saved_ms: u64,
    /// Wall milliseconds that Kiln took to restore them.
    pub restore_ms: u64,
    /// Bytes restored.
    pub restored_bytes: u64,
}

/// `GET /v1/stats`: counts since the last reset and of the newest build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatsResponse {
    /// Since the last `kiln stats --zero`.
    #[serde(flatten)]
    pub total: Counts,
    /// The newest build (cargo process).
    pub build: Counts,
    /// Units of the newest build whose result holds at one place only, with what pins them.
    pub pinned: Vec<NotedUnit>,
    /// Units of the newest build whose inputs were not found by observation alone, with the reasons.
    #[serde(default)]
    pub conservative: Vec<NotedUnit>,
    /// Units of the newest build that were not hits, slowest first, bounded.
    pub missed: Vec<MissedUnit>,
    /// What the store holds.
    pub store: StoreStats,
    /// Results that proved wrong and are never answered.
    #[serde(default)]
    pub quarantined: u64,
}

/// `GET /v1/explain`: the events of one build, in the order they came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExplainResponse {
    /// The build; none when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// Its events; units that were not restored before all others when there are too many.
    pub events: Vec<Event>,
    /// Events that are left out.
    pub left_out: u64,
}

/// A unit of which there is something to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NotedUnit {
    /// The unit.
    pub unit: UnitName,
    /// What: roots and variables that pin it, or why its inputs were found the conservative way.
    pub by: Vec<String>,
}

/// A unit that was no hit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MissedUnit {
    /// The unit.
    pub unit: UnitName,
    /// Miss, bypass or error.
    pub outcome: Outcome,
    /// Why.
    pub reason: String,
    /// Wall milliseconds of the compile.
    pub cost_ms: u64,
}

/// The size of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StoreStats {
    /// Results.
    pub results: u64,
    /// Blobs.
    pub blobs: u64,
    /// Bytes in blobs and records.
    pub bytes: u64,
    /// The budget, where there is one.
    pub budget_bytes: Option<u64>,
    /// The storage URL, without credentials.
    pub storage: String,
}

/// `GET /v1/server`: who answers on this socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerInfo {
    /// Always `kiln`.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Process number.
    pub pid: u32,
    /// `local` or `shared`.
    pub role: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Seconds of idleness after which it goes; none: never.
    pub idle_s: Option<u64>,
    /// Whether results can be stored, and if not why.
    pub read_only: Option<String>,
    /// The place behind the server, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteStatus>,
}

/// An error answer, RFC 9457 (`application/problem+json`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A stable URI reference naming the kind, e.g. `/problems/not-found`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind for people.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What is wrong with this request; never internal text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The id under which the server logged it.
    pub request_id: String,
}
