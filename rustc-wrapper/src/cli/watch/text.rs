//! What is shown of a run that is watched: a frame for a terminal, lines for what changed elsewhere. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kiln_storage::api::watch::{Figures, JobNow, RunNow, SeenUnit};
use kiln_storage::api::{Holder, Lease, Outcome, RunAbout};

use super::super::{counted, percent, shortened, time};
use super::screen::{Size, columns, padded};
use super::{Notice, View};
use crate::explain::called;
use crate::limits::WATCH_GOING;
use crate::say;

/// Most last units, and most compiles that others wait for or not, in a frame.
const MAX_UNITS: usize = 6;
const MAX_COMPILES: usize = 6;
/// Rows of a frame beside those of the jobs and what is below them.
const OTHER_ROWS: usize = 6;

/// A frame: all there is to say of a run, within the rows of a terminal.
pub(super) fn frame(view: &View, size: Option<Size>) -> Vec<String> {
    let mut out = Vec::new();
    let notice = view.notice.as_ref().map(|notice| say::inline(notice.text()));
    let Some(now) = &view.now else { return notice.into_iter().collect() };
    out.push(head(now));
    out.push(figures(now));
    out.extend(notice);
    out.push(String::new());
    let below = [compiles(view, now), last_units(now)].concat();
    let rows = size.map_or(usize::MAX, |size| size.rows.saturating_sub(OTHER_ROWS));
    // Jobs first, but what is below them gets a third.
    let for_jobs = rows.saturating_sub(below.len().min(rows / 3)).max(1);
    let table = table(view, now, for_jobs, size);
    let left = rows.saturating_sub(table.len().saturating_sub(1));
    out.extend(table);
    out.extend(below.into_iter().take(left));
    out
}

fn head(now: &RunNow) -> String {
    let RunAbout { repository, branch, .. } = &now.about;
    let mut out = format!("run {}", shortened(&now.run));
    for (before, text) in [(" of ", repository), (", branch ", branch)] {
        if !text.is_empty() {
            out.push_str(&format!("{before}{}", shortened(text)));
        }
    }
    out
}

/// The run in a line.
fn figures(now: &RunNow) -> String {
    let Figures { units, miss, bypass, error, hit_rate, compiled_ms, saved_cpu_ms, .. } = now.total;
    if units == 0 {
        return "no unit has ended yet".to_owned();
    }
    let rate = match hit_rate {
        None => String::new(),
        rate => format!(": {} from the cache", percent(rate)),
    };
    let mut rest = vec![
        counted(miss, "miss", "misses"),
        counted(bypass, "bypass", "bypasses"),
        counted(error, "error", "errors"),
    ];
    rest.retain(|part| !part.starts_with("0 "));
    rest.push(format!("{} of compiling saved", time(saved_cpu_ms)));
    rest.push(format!("{} spent", time(compiled_ms)));
    format!(
        "{} in {}{rate}, {}",
        counted(units, "unit", "units"),
        counted(now.job_count, "job", "jobs"),
        rest.join(", ")
    )
}

/// The jobs beside each other, at most so many rows of them.
fn table(view: &View, now: &RunNow, most: usize, size: Option<Size>) -> Vec<String> {
    let mut shown: Vec<&JobNow> = now.jobs.iter().collect();
    // One row says how many are left out.
    let most = if shown.len() > most { most.saturating_sub(1).max(1) } else { most };
    shown.sort_by_key(|job| job.quiet_ms);
    shown.truncate(most);
    shown.sort_by(|a, b| a.job.cmp(&b.job));
    let cells = |cells: [&str; 4]| {
        let widths = [7, 10, 8, 13];
        cells.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect::<String>()
    };
    let names: Vec<String> = shown.iter().map(|job| shortened(&job.job)).collect();
    let widest = names.iter().map(|name| columns(name)).max().unwrap_or_default();
    // On a narrow terminal names are cut before figures are.
    let room = size.map_or(usize::MAX, |size| size.columns.saturating_sub(56)).max(8);
    let width = widest.min(room).max(3);
    let name = |name: &str| padded(&super::screen::cut(name, width), width);
    let heads = cells(["units", "hit rate", "misses", "saved"]);
    let mut out = vec![format!("{}{heads}  now", name("job"))];
    for (job, of) in shown.iter().zip(&names) {
        let Figures { units, miss, hit_rate, saved_cpu_ms, .. } = job.figures;
        let figures =
            cells([&units.to_string(), &percent(hit_rate), &miss.to_string(), &time(saved_cpu_ms)]);
        out.push(format!("{}{figures}  {}", name(of), state(view, &now.run, job)));
    }
    let left_out = now.job_count.saturating_sub(shown.len() as u64);
    if left_out > 0 {
        out.push(format!("... and {}", counted(left_out, "more job", "more jobs")));
    }
    out
}

fn is_of(holder: &Holder, run: &str, job: &str) -> bool {
    holder.run == run && holder.job == job
}

/// What a job does, as far as it is known.
fn state(view: &View, run: &str, job: &JobNow) -> String {
    let mut held = view.leases.iter().filter(|lease| is_of(&lease.holder, run, &job.job));
    if let Some(lease) = held.next() {
        let more = match held.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        return format!("compiles {}{more}", called(&lease.unit));
    }
    let waits = |lease: &&Lease| lease.waiting.iter().any(|by| by.run == run && by.job == job.job);
    if let Some(lease) = view.leases.iter().find(waits) {
        return format!("waits for {} of {}", called(&lease.unit), shortened(&lease.holder.job));
    }
    let quiet = Duration::from_millis(job.quiet_ms).saturating_add(view.age);
    match quiet < WATCH_GOING {
        true => "goes on".to_owned(),
        false => {
            format!("quiet for {}", time(u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX)))
        }
    }
}

/// Who compiles what while others wait.
fn compiles(view: &View, now: &RunNow) -> Vec<String> {
    if view.leases.is_empty() {
        return Vec::new();
    }
    let mut out = vec![String::new(), "being compiled:".to_owned()];
    let mut leases: Vec<&Lease> = view.leases.iter().collect();
    leases.sort_by_key(|lease| (Reverse(lease.waiting.len()), Reverse(lease.holder.age_ms)));
    out.extend(
        leases.iter().take(MAX_COMPILES).map(|lease| {
            format!("{:>12}  {}", time(lease.holder.age_ms), compile(lease, &now.run))
        }),
    );
    let more = leases.len().saturating_sub(MAX_COMPILES);
    if more > 0 {
        out.push(format!("{:>12}  and {more} more", "..."));
    }
    out
}

/// A compile: of what, in which job, and who waits for it.
fn compile(lease: &Lease, run: &str) -> String {
    let Holder { run: of, job, .. } = &lease.holder;
    let other = if of == run { String::new() } else { format!(" of run {}", shortened(of)) };
    let waiting = match lease.waiting.as_slice() {
        [] => String::new(),
        [one] => format!("; {} waits for it", shortened(&one.job)),
        [one, more @ ..] => {
            format!("; {} and {} more wait for it", shortened(&one.job), more.len())
        }
    };
    format!("{} in {}{other}{waiting}", called(&lease.unit), shortened(job))
}

/// The last units of all jobs, newest first.
fn last_units(now: &RunNow) -> Vec<String> {
    let all = now.jobs.iter().flat_map(|job| job.latest.iter().map(move |unit| (unit, &job.job)));
    let mut units: Vec<(&SeenUnit, &String)> = all.collect();
    units.sort_by_key(|(unit, _)| unit.quiet_ms);
    if units.is_empty() {
        return Vec::new();
    }
    let mut out = vec![String::new(), "last units:".to_owned()];
    for (unit, job) in units.iter().take(MAX_UNITS) {
        let job = match now.jobs.len() {
            1 => String::new(),
            _ => format!(" in {}", shortened(job)),
        };
        let took = time(unit.took_ms);
        out.push(format!(
            "{took:>12}  {}: {}{job}{}",
            word(unit.outcome),
            called(&unit.unit),
            why(unit)
        ));
    }
    out
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::HitLocal => "hit",
        Outcome::HitRemote => "remote hit",
        Outcome::Joined => "joined",
        Outcome::Miss => "miss",
        Outcome::Bypass => "bypass",
        Outcome::Error => "error",
    }
}

/// The reason, or what a hit saves.
fn why(unit: &SeenUnit) -> String {
    match &unit.reason {
        Some(reason) => format!(", {}", shortened(reason)),
        None if unit.cost_ms > 0 => format!(", saves {}", time(unit.cost_ms)),
        None => String::new(),
    }
}

/// What was said so far, line by line.
#[derive(Debug, Default)]
pub(super) struct Told {
    run: Option<String>,
    notice: Option<Notice>,
    /// Units of each job, and whether it was said that it is quiet.
    jobs: BTreeMap<String, (u64, bool)>,
    compiles: BTreeSet<String>,
}

impl Told {
    /// Whether another run is watched than before.
    pub(super) fn is_other(&mut self, view: &View) -> bool {
        let run = view.now.as_ref().map(|now| &now.run);
        let is_other = self.run.is_some() && run != self.run.as_ref();
        self.run = run.cloned();
        is_other
    }

    /// A line for each change.
    pub(super) fn changes(&mut self, view: &View) -> Vec<String> {
        let mut out = Vec::new();
        if view.notice != self.notice {
            match (&view.notice, &self.notice) {
                (Some(notice), _) => out.push(say::inline(notice.text())),
                (None, Some(Notice::Fault(_))) => out.push("the server answers again".to_owned()),
                (None, _) => {}
            }
            self.notice.clone_from(&view.notice);
        }
        let Some(now) = &view.now else { return out };
        if self.run.as_ref() != Some(&now.run) {
            let (run, notice) = (Some(now.run.clone()), self.notice.take());
            *self = Self { run, notice, ..Self::default() };
            out.push(head(now));
        }
        out.extend(now.jobs.iter().filter_map(|job| self.job(view, now, job)));
        let waited: Vec<&Lease> =
            view.leases.iter().filter(|lease| !lease.waiting.is_empty()).collect();
        let compiles: BTreeSet<String> =
            waited.iter().map(|lease| compile(lease, &now.run)).collect();
        out.extend(
            compiles.difference(&self.compiles).map(|compile| format!("being compiled: {compile}")),
        );
        self.compiles = compiles;
        out
    }

    fn job(&mut self, view: &View, now: &RunNow, job: &JobNow) -> Option<String> {
        let state = state(view, &now.run, job);
        let is_quiet = state.starts_with("quiet");
        let Figures { units, miss, error, hit_rate, saved_cpu_ms, .. } = job.figures;
        let before = self.jobs.insert(job.job.clone(), (units, is_quiet));
        let name = shortened(&job.job);
        match before {
            Some((then, _)) if then != units => {}
            Some((_, was_quiet)) => {
                return (is_quiet && !was_quiet).then(|| format!("{name}: {state}"));
            }
            None => {}
        }
        let mut parts = vec![counted(units, "unit", "units")];
        parts.extend(hit_rate.map(|rate| format!("{} from the cache", percent(Some(rate)))));
        parts.extend((miss > 0).then(|| counted(miss, "miss", "misses")));
        parts.extend((error > 0).then(|| counted(error, "error", "errors")));
        parts.push(format!("{} saved", time(saved_cpu_ms)));
        let last = job.latest.first().map_or_else(String::new, |unit| {
            let took = time(unit.took_ms);
            format!("; last in {took} {}: {}{}", word(unit.outcome), called(&unit.unit), why(unit))
        });
        let quiet = if is_quiet { format!("; {state}") } else { String::new() };
        Some(format!("{name}: {}{last}{quiet}", parts.join(", ")))
    }
}

#[cfg(test)]
mod tests;
