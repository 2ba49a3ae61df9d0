//! The report of a run: what `GET /v1/runs…` answers and `kiln report --format json` prints. docs/report.md
//! describes it for those who read it by program.
//!
//! Fields are only added while [`SCHEMA`] stays. Lists are bounded, the dearest first, and say how much is left
//! out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Cause, Counts, Outcome, RunAbout};
use crate::record::UnitName;

/// Version of the shape of reports.
pub const SCHEMA: u32 = 1;

/// What became of the units of a job, or of all jobs of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Measures {
    /// Counts by outcome and reason.
    #[serde(flatten)]
    pub counts: Counts,
    /// Hits of all kinds: local, remote, joined.
    pub hits: u64,
    /// Hits among the units that could be answered (all but bypasses), percent; none: there were no such units.
    pub hit_rate: Option<f64>,
    /// The same by what the units cost to compile.
    pub hit_rate_by_time: Option<f64>,
    /// Wall milliseconds of the compiles of misses and errors, summed over the units.
    pub compiled_ms: u64,
    /// Processor milliseconds that the hits cost when they were compiled.
    pub saved_cpu_ms: u64,
    /// Milliseconds that Kiln itself took, waiting included, summed over all units.
    pub kiln_ms: u64,
    /// `saved_cpu_ms` less `kiln_ms`: below zero, the cache cost more than it saved.
    pub net_saved_ms: i64,
    /// Bytes stored.
    pub stored_bytes: u64,
    /// Milliseconds by phase: `plan`, `lookup`, `restore`, `compile`, `publish` and others.
    pub phases_ms: BTreeMap<String, u64>,
}

/// `GET /v1/runs/{run}/report.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The run.
    pub run: String,
    /// What its service says of it.
    pub about: RunAbout,
    /// When its first unit ended.
    pub first_ms: u64,
    /// When its last unit so far ended.
    pub last_ms: u64,
    /// All jobs together.
    pub total: Measures,
    /// The jobs, by name.
    pub jobs: Vec<JobReport>,
    /// Units that were compiled since nothing held, the dearest first.
    pub slowest: Vec<CompiledUnit>,
    /// Misses that are not in `slowest`.
    pub slowest_left_out: u64,
    /// Units handed to the tool, by reason.
    pub bypasses: Vec<ByReason>,
    /// Units compiled since Kiln failed, by reason.
    pub errors: Vec<ByReason>,
    /// Units that more than one job compiled.
    pub twice: Twice,
    /// The run that the hits are held against: the last one of the base branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_run: Option<String>,
    /// Which earlier runs `base_run` and the trends of the jobs were looked for among.
    #[serde(default)]
    pub earlier_runs: EarlierRuns,
    /// Units that hit in the same job of that run and were compiled now, the dearest first.
    pub lost_hits: Vec<CompiledUnit>,
    /// Such units that are not in `lost_hits`.
    pub lost_hits_left_out: u64,
}

/// Which earlier runs a report knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EarlierRuns {
    /// Those of its server, which is all that there are.
    #[default]
    All,
    /// Those of its server, and the last ones of the run's branches, brought from where the jobs share results.
    Newest,
    /// Those of its server, though others may have run jobs as well.
    Own,
}

/// One job of a run. Also `GET /v1/runs/{run}/jobs/{job}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobReport {
    /// Its name, with the values of its matrix.
    pub job: String,
    /// When its first unit ended.
    pub first_ms: u64,
    /// When its last unit so far ended.
    pub last_ms: u64,
    /// What became of its units.
    pub measures: Measures,
    /// Where the cache did not pay: why, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Why its events are with the server that made this report alone, where the place that the jobs share does not
    /// take them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unshared: Option<String>,
    /// Earlier runs of the same job, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trend: Vec<TrendPoint>,
    /// Events of which only the counts are known: there were too many.
    #[serde(default)]
    pub without_details: u64,
}

/// What an earlier run of a job came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrendPoint {
    /// The run.
    pub run: String,
    /// When it ended.
    pub last_ms: u64,
    /// From its first unit to its last, milliseconds.
    pub span_ms: u64,
    /// Units.
    pub units: u64,
    /// As [`Measures::hit_rate`].
    pub hit_rate: Option<f64>,
    /// As [`Measures::hit_rate_by_time`].
    pub hit_rate_by_time: Option<f64>,
    /// As [`Measures::compiled_ms`].
    pub compiled_ms: u64,
    /// As [`Measures::net_saved_ms`].
    pub net_saved_ms: i64,
}

/// A unit that was compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompiledUnit {
    /// The job.
    pub job: String,
    /// The unit.
    pub unit: UnitName,
    /// Miss, bypass or error.
    pub outcome: Outcome,
    /// Why: a word of docs/reasons.md.
    pub reason: String,
    /// More about the reason, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What differs from the nearest earlier result; kinds as in docs/explain.md.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// How many further causes there are.
    #[serde(default)]
    pub more_causes: u64,
    /// Wall milliseconds of the compile.
    pub cost_ms: u64,
}

impl CompiledUnit {
    /// What differs, where that is why it was compiled: other reasons say more than it.
    pub fn cause(&self) -> Option<&Cause> {
        let differs = matches!(self.reason.as_str(), "new-unit" | "input-changed");
        self.causes.first().filter(|_| differs)
    }

    /// The reason, and what is known of it.
    pub fn reason_in_full(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{}: {detail}", self.reason),
            None => self.reason.clone(),
        }
    }
}

/// Units of one outcome with one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ByReason {
    /// A word of docs/reasons.md.
    pub reason: String,
    /// How many units.
    pub count: u64,
    /// Wall milliseconds of their compiles, as far as they are known.
    pub cost_ms: u64,
    /// The jobs that they are in.
    pub jobs: Vec<String>,
    /// Some of the units.
    pub units: Vec<UnitName>,
    /// More about the reason, for people: of the first unit that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Work that was done in more than one job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Twice {
    /// Units (crate, version, kind, target) that more than one job compiled.
    pub units: u64,
    /// Compiles beyond the first of each.
    pub compiles: u64,
    /// Wall milliseconds of these.
    pub cost_ms: u64,
    /// By what would have shared them, the dearest first.
    pub groups: Vec<TwiceGroup>,
    /// Groups that are left out.
    pub groups_left_out: u64,
}

/// Why the work of some units was done more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TwiceGroup {
    /// `same-time`, `inputs`, `not-stored`, `features`, `profile`, `flags`, `build-script`, `compiler`, `arguments`,
    /// `dependencies` or `unknown`; docs/report.md says what each means.
    pub kind: String,
    /// What differs between the jobs: `then` in the job that compiled it first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<Cause>,
    /// The reason why nothing was stored, where that is the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The change that would share the work, for people.
    pub advice: String,
    /// The jobs.
    pub jobs: Vec<String>,
    /// Compiles that it would save.
    pub compiles: u64,
    /// Wall milliseconds of these.
    pub saves_ms: u64,
    /// The units, the dearest first.
    pub units: Vec<UnitName>,
    /// Units that are left out.
    pub units_left_out: u64,
}

/// `GET /v1/runs`: newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunsResponse {
    /// Runs, at most [`crate::limits::MAX_LISTED_RUNS`].
    pub runs: Vec<RunSummary>,
    /// What to ask with as `before` for the next ones; none: these were the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A run in a list. Also `GET /v1/runs/{run}`, where its jobs are told one by one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunSummary {
    /// The run.
    pub run: String,
    /// What its service says of it.
    pub about: RunAbout,
    /// When its first unit ended.
    pub first_ms: u64,
    /// When its last unit so far ended.
    pub last_ms: u64,
    /// Milliseconds since the server heard of it, by its own clock.
    #[serde(default)]
    pub quiet_ms: u64,
    /// How many jobs it has.
    pub job_count: u64,
    /// All jobs together.
    pub total: Measures,
    /// The jobs by name; left out in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<JobReport>,
}
