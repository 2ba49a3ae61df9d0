//! The report of a run: `make` makes it of what `gather` has read. Pure but for that.
//!
//! It answers four questions: did the cache work, in which job, why not, and what would help. Figures come from the
//! sums that the history keeps with each job and are exact; lists come from the events and are bounded.
//! `twice` finds what more than one job compiled (`cfgs`: whether a build script said a `--cfg`), `verdict` says where
//! the cache did not pay, and [`markdown`] writes it for the summary of a step. Called by the routes of runs; the command
//! line has [`markdown`] write with its own words.

mod cfgs;
mod details;
pub(crate) mod gather;
pub mod markdown;
pub(crate) mod now;
pub(crate) mod sums;
mod twice;
pub(crate) mod verdict;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use kiln_storage::Digest;
use kiln_storage::api::Outcome;
use kiln_storage::api::report::{
    ByReason, CompiledUnit, EarlierRuns, JobReport, RunReport, RunSummary, SCHEMA, TrendPoint,
};
use kiln_storage::record::{Member, UnitName, UnitPart};

use crate::history::chunk::{Kept, More};
use crate::history::read::{JobRow, RunRow};
use crate::limits::{EARLIER_RUNS, MAX_NAMED_IN_GROUP, MAX_NAMED_IN_LINE, MAX_REPORTED_UNITS};
pub use details::{bytes, details};
use sums::{Sums, is_compiled};
pub use verdict::time;

/// Whether a character changes what a terminal does, is not seen, or changes in which order text is shown.
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The same in a page or in Markdown, which have no room for what is no character either.
pub(crate) fn is_invisible(c: char) -> bool {
    is_control(c) || matches!(c, '\u{fdd0}'..='\u{fdef}')
}

/// Whether a name would be seen as none, or as another one, without quotes: it is empty, or has white space at its
/// ends.
pub fn needs_quotes(name: &str) -> bool {
    name.is_empty() || name.trim() != name
}

/// What a report is made of.
#[derive(Debug)]
pub(crate) struct Input {
    /// The run.
    pub(crate) run: RunRow,
    /// Its jobs, by name.
    pub(crate) jobs: Vec<Job>,
    /// What its hits are held against.
    pub(crate) base: Option<Base>,
    /// What keys and results were made of.
    pub(crate) known: Known,
    /// Among which runs `base` and earlier jobs were looked for.
    pub(crate) earlier_runs: EarlierRuns,
}

/// A job with its events.
#[derive(Debug)]
pub(crate) struct Job {
    /// Its row.
    pub(crate) row: JobRow,
    /// The events that are kept.
    pub(crate) events: Vec<Kept>,
    /// Earlier jobs of its kind, newest first, with their runs.
    pub(crate) earlier: Vec<(String, JobRow)>,
}

/// The last run of the base branch.
#[derive(Debug)]
pub(crate) struct Base {
    /// Its name.
    pub(crate) run: String,
    /// What hit in it, by job, and how often.
    pub(crate) hits: HashMap<String, HashMap<UnitName, usize>>,
}

/// What keys were made of, as far as the index knows it.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Parts of unit keys, by the beginning of the key.
    pub(crate) parts: HashMap<String, Vec<UnitPart>>,
    /// Members and values of results, by the beginnings of both keys.
    pub(crate) inputs: HashMap<(String, String), Vec<(Member, Digest)>>,
}

/// Makes the report.
pub(crate) fn make(input: &Input) -> RunReport {
    let mut total = Sums::default();
    input.jobs.iter().for_each(|job| total.merge(&job.row.sums));
    let (slowest, slowest_left_out) = dearest(compiled(input, |outcome| outcome == Outcome::Miss));
    let (lost_hits, lost_hits_left_out) = dearest(lost_hits(input));
    RunReport {
        schema: SCHEMA,
        run: input.run.run.clone(),
        about: input.run.about.clone(),
        first_ms: input.run.first_ms,
        last_ms: input.run.last_ms,
        total: total.measures(),
        jobs: input.jobs.iter().map(job_report).collect(),
        slowest,
        slowest_left_out,
        bypasses: by_reason(input, Outcome::Bypass),
        errors: by_reason(input, Outcome::Error),
        twice: twice::find(&input.jobs, &input.known),
        earlier_runs: input.earlier_runs,
        base_run: input.base.as_ref().map(|base| base.run.clone()),
        lost_hits,
        lost_hits_left_out,
    }
}

/// What to say of the earlier runs of a report, where not all of them are known.
pub fn earlier_runs(known: EarlierRuns) -> Option<String> {
    match known {
        EarlierRuns::All => None,
        EarlierRuns::Newest => Some(format!(
            "Of earlier runs, those of this server and the last {EARLIER_RUNS} of the run's branches are known."
        )),
        EarlierRuns::Own => Some(
            "Of earlier runs, only those of this server are known; other machines may have had more."
                .to_owned(),
        ),
    }
}

/// What to say of jobs whose events are not in the place that the jobs share, if there are such.
pub fn unshared(report: &RunReport) -> Option<String> {
    let jobs: Vec<&JobReport> = report.jobs.iter().filter(|job| job.unshared.is_some()).collect();
    let why = jobs.first()?.unshared.as_ref()?;
    let named: Vec<&str> =
        jobs.iter().take(MAX_NAMED_IN_LINE).map(|job| job.job.as_str()).collect();
    let more = match jobs.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "The figures of {}{more} could not be shared: {why}. Reports made elsewhere lack them, and this one lacks \
         other jobs that could not share theirs.",
        named.join(", ")
    ))
}

/// A job alone.
pub(crate) fn job_report(job: &Job) -> JobReport {
    let row = &job.row;
    let measures = row.sums.clone().measures();
    JobReport {
        job: row.job.clone(),
        first_ms: row.first_ms,
        last_ms: row.last_ms,
        verdict: verdict::verdict(&measures),
        unshared: row.unshared.clone(),
        trend: job.earlier.iter().map(|(run, row)| trend_point(run, row)).collect(),
        without_details: measures.counts.units.saturating_sub(row.kept),
        measures,
    }
}

fn trend_point(run: &str, row: &JobRow) -> TrendPoint {
    let measures = row.sums.clone().measures();
    TrendPoint {
        run: run.to_owned(),
        last_ms: row.last_ms,
        span_ms: row.last_ms.saturating_sub(row.first_ms),
        units: measures.counts.units,
        hit_rate: measures.hit_rate,
        hit_rate_by_time: measures.hit_rate_by_time,
        compiled_ms: measures.compiled_ms,
        net_saved_ms: measures.net_saved_ms,
    }
}

/// A run for a list, or with its jobs, at some time.
pub(crate) fn summary(
    run: &RunRow,
    rows: Vec<JobRow>,
    (with_jobs, now_ms): (bool, u64),
) -> RunSummary {
    let quiet_ms = now::quiet_ms(&rows, now_ms);
    let mut total = Sums::default();
    rows.iter().for_each(|row| total.merge(&row.sums));
    let job_count = rows.len() as u64;
    let alone = |row| job_report(&Job { row, events: Vec::new(), earlier: Vec::new() });
    let jobs = if with_jobs { rows.into_iter().map(alone).collect() } else { Vec::new() };
    RunSummary {
        run: run.run.clone(),
        about: run.about.clone(),
        first_ms: run.first_ms,
        last_ms: run.last_ms,
        quiet_ms,
        job_count,
        total: total.measures(),
        jobs,
    }
}

/// The events of some outcomes, with their jobs.
fn compiled(input: &Input, wanted: impl Fn(Outcome) -> bool) -> Vec<CompiledUnit> {
    let events = input.jobs.iter().flat_map(|job| job.events.iter().map(move |event| (job, event)));
    let wanted = events.filter(|(_, event)| wanted(event.outcome));
    wanted.map(|(job, event)| unit(&job.row.job, event)).collect()
}

fn unit(job: &str, event: &Kept) -> CompiledUnit {
    let More { reason, detail, causes, more_causes, .. } =
        event.more.as_deref().cloned().unwrap_or_default();
    CompiledUnit {
        job: job.to_owned(),
        unit: UnitName::clone(&event.unit),
        outcome: event.outcome,
        reason,
        detail,
        causes,
        more_causes,
        cost_ms: event.cost_ms,
    }
}

/// The dearest of some units, and how many are left out.
fn dearest(mut units: Vec<CompiledUnit>) -> (Vec<CompiledUnit>, u64) {
    units.sort_by(|a, b| {
        let order = |unit: &CompiledUnit| (Reverse(unit.cost_ms), unit.job.clone());
        order(a).cmp(&order(b))
    });
    let left_out = units.len().saturating_sub(MAX_REPORTED_UNITS);
    units.truncate(MAX_REPORTED_UNITS);
    (units, left_out as u64)
}

/// Units that were compiled, and hit in the same job of the base branch's last run.
fn lost_hits(input: &Input) -> Vec<CompiledUnit> {
    let Some(base) = &input.base else { return Vec::new() };
    let mut lost = Vec::new();
    for job in &input.jobs {
        let Some(hits) = base.hits.get(&job.row.job) else { continue };
        let mut left = hits.clone();
        // What hits now is not lost, though another unit of its name is compiled.
        for event in job.events.iter().filter(|event| event.more.is_none()) {
            left.entry(UnitName::clone(&event.unit)).and_modify(|n| *n = n.saturating_sub(1));
        }
        for event in job.events.iter().filter(|event| is_compiled(event.outcome)) {
            if let Some(n) = left.get_mut(&*event.unit).filter(|n| **n > 0) {
                *n -= 1;
                lost.push(unit(&job.row.job, event));
            }
        }
    }
    lost
}

/// Units of an outcome by reason, the most frequent first.
fn by_reason(input: &Input, outcome: Outcome) -> Vec<ByReason> {
    let mut groups: BTreeMap<String, ByReason> = BTreeMap::new();
    for unit in compiled(input, |of| of == outcome) {
        let group = groups.entry(unit.reason.clone()).or_default();
        group.reason = unit.reason;
        group.count += 1;
        group.cost_ms = group.cost_ms.saturating_add(unit.cost_ms);
        name(&mut group.jobs, unit.job);
        name(&mut group.units, unit.unit);
        group.detail = group.detail.take().or(unit.detail);
    }
    let mut groups: Vec<ByReason> = groups.into_values().collect();
    groups.sort_by_key(|group| Reverse(group.count));
    groups.truncate(MAX_REPORTED_UNITS);
    groups
}

/// Adds to a list that names each thing once, up to a bound.
fn name<T: PartialEq>(list: &mut Vec<T>, one: T) {
    if list.len() < MAX_NAMED_IN_GROUP && !list.contains(&one) {
        list.push(one);
    }
}

#[cfg(test)]
mod tests;
