//! A run at this moment, for who watches it: [`now`] makes it of rows alone. Pure.

use std::cmp::Reverse;

use kiln_storage::api::report::Measures;
use kiln_storage::api::watch::{Figures, JobNow, RunNow};
use kiln_storage::limits::MAX_WATCHED_JOBS;

use super::sums::Sums;
use crate::history::read::{JobRow, RunRow};

/// Milliseconds since the server heard of a run, by its jobs.
pub(crate) fn quiet_ms(rows: &[JobRow], now_ms: u64) -> u64 {
    now_ms.saturating_sub(rows.iter().map(|row| row.heard_ms).max().unwrap_or_default())
}

/// A run as it stands.
pub(crate) fn now(run: &RunRow, mut rows: Vec<JobRow>, now_ms: u64) -> RunNow {
    let mut total = Sums::default();
    rows.iter().for_each(|row| total.merge(&row.sums));
    let quiet_ms = quiet_ms(&rows, now_ms);
    let job_count = rows.len() as u64;
    rows.sort_by_key(|row| Reverse(row.heard_ms));
    rows.truncate(MAX_WATCHED_JOBS);
    rows.sort_by(|a, b| a.job.cmp(&b.job));
    RunNow {
        run: run.run.clone(),
        about: run.about.clone(),
        quiet_ms,
        total: figures(total.measures()),
        job_count,
        jobs: rows.into_iter().map(|row| job(row, now_ms)).collect(),
    }
}

fn job(row: JobRow, now_ms: u64) -> JobNow {
    JobNow {
        quiet_ms: now_ms.saturating_sub(row.heard_ms),
        latest: row.latest.seen(now_ms),
        job: row.job,
        figures: figures(row.sums.measures()),
    }
}

fn figures(measures: Measures) -> Figures {
    let Measures { counts, hits, hit_rate, compiled_ms, saved_cpu_ms, .. } = measures;
    Figures {
        units: counts.units,
        hits,
        miss: counts.miss,
        bypass: counts.bypass,
        error: counts.error,
        hit_rate,
        compiled_ms,
        saved_cpu_ms,
    }
}
