//! A run as it stands at this moment: what `GET /v1/runs/{run}/now` answers, for who watches it. Small, and asked for
//! again and again.
//!
//! Times are told as ages by the server's clock, so that clocks of machines that differ confuse nobody.

use serde::{Deserialize, Serialize};

use super::{Outcome, RunAbout};
use crate::record::UnitName;

/// `GET /v1/runs/{run}/now`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunNow {
    /// The run.
    pub run: String,
    /// What its service says of it.
    pub about: RunAbout,
    /// Milliseconds since the server heard of it.
    pub quiet_ms: u64,
    /// All jobs together, those that are left out too.
    pub total: Figures,
    /// How many jobs there are.
    pub job_count: u64,
    /// The jobs by name: at most [`crate::limits::MAX_WATCHED_JOBS`], those that were heard of last.
    pub jobs: Vec<JobNow>,
}

/// What became of units so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Figures {
    /// Units that are done.
    pub units: u64,
    /// Hits of all kinds.
    pub hits: u64,
    /// Units compiled since nothing held.
    pub miss: u64,
    /// Units handed to the compiler.
    pub bypass: u64,
    /// Units compiled since Kiln failed.
    pub error: u64,
    /// As [`super::report::Measures::hit_rate`].
    pub hit_rate: Option<f64>,
    /// As [`super::report::Measures::compiled_ms`].
    pub compiled_ms: u64,
    /// As [`super::report::Measures::saved_cpu_ms`].
    pub saved_cpu_ms: u64,
}

/// A job of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobNow {
    /// Its name, with the values of its matrix.
    pub job: String,
    /// Milliseconds since the server heard of it.
    pub quiet_ms: u64,
    /// What became of its units.
    #[serde(flatten)]
    pub figures: Figures,
    /// The last units, newest first; at most [`crate::limits::LATEST_UNITS`].
    pub latest: Vec<SeenUnit>,
}

/// A unit that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SeenUnit {
    /// The unit.
    pub unit: UnitName,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, where it was no hit: a word of docs/reasons.md.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Wall milliseconds that cargo waited for it.
    pub took_ms: u64,
    /// Wall milliseconds of its compile, now or when the result was made.
    pub cost_ms: u64,
    /// Milliseconds since it ended, or since the server heard of it where the clock of its machine is wrong.
    pub quiet_ms: u64,
}
