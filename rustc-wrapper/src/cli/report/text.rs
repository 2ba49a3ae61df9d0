//! The text of a report: what happened in one line, the jobs as a table, then what is worth doing, the dearest
//! first. Pure.

use kiln_server::report::markdown::meaning;
use kiln_server::report::{details, earlier_runs, unshared};
use kiln_storage::api::report::{
    ByReason, CompiledUnit, JobReport, Measures, RunReport, TwiceGroup,
};
use kiln_storage::record::UnitName;

use super::super::{counted, percent, shortened, time};
use crate::explain::{Told, called};
use crate::{reasons, say};

/// Most entries under each heading.
const MAX_SHOWN: usize = 6;
/// Most names in one line.
const MAX_NAMED: usize = 5;

/// The report for people.
pub(super) fn text(report: &RunReport) -> String {
    let mut out = head(report);
    out.push_str(&table(report));
    for job in &report.jobs {
        if let Some(verdict) = &job.verdict {
            out.push_str(&format!("\n{}: {}\n", shortened(&job.job), say::inline(verdict)));
        }
    }
    if let Some(told) = unshared(report) {
        out.push_str(&format!("\n{}\n", say::inline(&told)));
    }
    if let Some(known) = earlier_runs(report.earlier_runs) {
        out.push_str(&format!("\n{known}\n"));
    }
    twice(&mut out, report);
    let base = report.base_run.as_deref().unwrap_or_default();
    let lost = format!("hit in run {} of the base branch, compiled now", say::inline(base));
    units(&mut out, &lost, &report.lost_hits, report.lost_hits_left_out);
    units(&mut out, "slowest misses", &report.slowest, report.slowest_left_out);
    groups(&mut out, "not cached", &report.bypasses);
    groups(&mut out, "errors", &report.errors);
    out
}

fn head(report: &RunReport) -> String {
    let about = &report.about;
    let mut out = format!("run {}", say::inline(&report.run));
    if !about.repository.is_empty() {
        out.push_str(&format!(" of {}", say::inline(&about.repository)));
    }
    if !about.branch.is_empty() {
        out.push_str(&format!(", branch {}", say::inline(&about.branch)));
    }
    let Measures { counts, hits, .. } = &report.total;
    let mut parts = vec![
        counted(*hits, "hit", "hits"),
        counted(counts.miss, "miss", "misses"),
        counted(counts.bypass, "bypass", "bypasses"),
        counted(counts.error, "error", "errors"),
    ];
    parts.retain(|part| !part.starts_with("0 "));
    let rate = match report.total.hit_rate {
        None => String::new(),
        rate => format!("{} of units from the cache: ", percent(rate)),
    };
    out.push_str(&format!(
        "\n{rate}{} in {}: {}\n{} of compiling saved, {} spent; Kiln itself took {}\n",
        counted(counts.units, "unit", "units"),
        counted(report.jobs.len() as u64, "job", "jobs"),
        parts.join(", "),
        time(report.total.saved_cpu_ms),
        time(report.total.compiled_ms),
        time(report.total.kiln_ms)
    ));
    for line in details(&report.total) {
        out.push_str(&format!("{}\n", say::inline(&line)));
    }
    out
}

/// What became of each job, beside each other.
fn table(report: &RunReport) -> String {
    let names: Vec<String> = report.jobs.iter().map(|job| shortened(&job.job)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(3);
    let line = |name: &str, cells: [String; 9]| {
        let widths = [5, 5, 6, 8, 6, 8, 8, 12, 12];
        let cells = cells.iter().zip(widths).map(|(cell, width)| format!(" {cell:>width$}"));
        format!("{name:<width$}{}\n", cells.collect::<String>())
    };
    let heads = [
        "units", "hits", "misses", "bypasses", "errors", "hit rate", "by time", "compiled", "saved",
    ];
    let mut out = format!("\n{}", line("job", heads.map(str::to_owned)));
    for (job, name) in report.jobs.iter().zip(&names) {
        let (measures, counts) = (&job.measures, &job.measures.counts);
        let cells = [
            counts.units.to_string(),
            measures.hits.to_string(),
            counts.miss.to_string(),
            counts.bypass.to_string(),
            counts.error.to_string(),
            percent(measures.hit_rate),
            percent(measures.hit_rate_by_time),
            time(measures.compiled_ms),
            time(measures.saved_cpu_ms),
        ];
        out.push_str(&line(name, cells));
    }
    let trends: Vec<String> =
        report.jobs.iter().zip(&names).filter_map(|(job, name)| trend(job, name)).collect();
    if !trends.is_empty() {
        out.push_str(&format!("\nagainst the last run:\n{}", trends.concat()));
    }
    out
}

/// What changed since the last run of a job.
fn trend(job: &JobReport, name: &str) -> Option<String> {
    let last = job.trend.first()?;
    let (now, then) = (job.measures.hit_rate?, last.hit_rate?);
    let compiled = (time(last.compiled_ms), time(job.measures.compiled_ms));
    let changed = (now - then).abs() >= 0.05 || compiled.0 != compiled.1;
    changed.then(|| {
        format!(
            "  {name}: hit rate {} -> {}, compiling {} -> {}\n",
            percent(Some(then)),
            percent(Some(now)),
            compiled.0,
            compiled.1
        )
    })
}

/// The first of some names, and how many more there are.
fn some<T>(all: &[T], left_out: u64, show: impl Fn(&T) -> String) -> String {
    let shown: Vec<String> = all.iter().take(MAX_NAMED).map(show).collect();
    let more = (all.len() - shown.len()) as u64 + left_out;
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn unit_names(units: &[UnitName], left_out: u64) -> String {
    some(units, left_out, called)
}

fn twice(out: &mut String, report: &RunReport) {
    let twice = &report.twice;
    if twice.compiles == 0 {
        return;
    }
    out.push_str(&format!(
        "\ndone in more than one job: {}, {}\n",
        counted(twice.compiles, "compile", "compiles"),
        time(twice.cost_ms)
    ));
    for (n, group) in twice.groups.iter().take(MAX_SHOWN).enumerate() {
        out.push_str(&format!("{:>3}. {}\n", n + 1, differs(group)));
        let jobs = some(&group.jobs, 0, |job| say::inline(job));
        out.push_str(&format!("     in     {jobs}\n"));
        let named = unit_names(&group.units, group.units_left_out);
        out.push_str(&format!("     units  {named}\n"));
        let compiles = counted(group.compiles, "compile", "compiles");
        out.push_str(&format!("     saves  {compiles}, {}\n", time(group.saves_ms)));
        out.push_str(&format!("     hint   {}\n", say::inline(&group.advice)));
    }
    more(out, twice.groups.len() as u64 + twice.groups_left_out, MAX_SHOWN);
}

fn differs(group: &TwiceGroup) -> String {
    let texts: Vec<String> = group.differs.iter().map(|cause| Told::new(cause).text).collect();
    match (texts.is_empty(), &group.reason) {
        (false, _) => some(&texts, 0, Clone::clone),
        (true, Some(reason)) => reason_text(reason),
        (true, None) => match group.kind.as_str() {
            "same-time" => "nothing differs: the same was compiled at the same time".to_owned(),
            "dependencies" => "the crates that they are made with".to_owned(),
            _ => "what differs is not known here any more".to_owned(),
        },
    }
}

fn more(out: &mut String, all: u64, shown: usize) {
    let more = all.saturating_sub(shown as u64);
    if more > 0 {
        out.push_str(&format!("     ... and {more} more; --format json has them\n"));
    }
}

fn reason_text(reason: &str) -> String {
    let note = reasons::note(reason).map(|note| format!(": {note}")).unwrap_or_default();
    format!("{}{note}", say::inline(reason))
}

fn units(out: &mut String, heading: &str, units: &[CompiledUnit], left_out: u64) {
    if units.is_empty() {
        return;
    }
    out.push_str(&format!("\n{heading}:\n"));
    for unit in units.iter().take(MAX_SHOWN) {
        let why = match unit.cause() {
            Some(cause) => Told::new(cause).text,
            None => say::inline(&unit.reason_in_full()),
        };
        let job = shortened(&unit.job);
        out.push_str(&format!(
            "{:>10}  {} in {job}: {why}\n",
            time(unit.cost_ms),
            called(&unit.unit)
        ));
    }
    more(out, units.len() as u64 + left_out, MAX_SHOWN);
}

fn groups(out: &mut String, heading: &str, groups: &[ByReason]) {
    if groups.is_empty() {
        return;
    }
    out.push_str(&format!("\n{heading}:\n"));
    for group in groups.iter().take(MAX_SHOWN) {
        let named = unit_names(&group.units, group.count.saturating_sub(group.units.len() as u64));
        out.push_str(&format!(
            "{:>5}  {}{}\n       {named}\n",
            group.count,
            say::inline(&group.reason),
            say::inline(&match meaning(group) {
                text if text.is_empty() => text,
                text => format!(": {text}"),
            })
        ));
    }
    more(out, groups.len() as u64, MAX_SHOWN);
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::api::report::{TrendPoint, Twice};
    use kiln_storage::api::{Cause, Counts, Outcome, RunAbout};

    fn unit(name: &str) -> UnitName {
        UnitName {
            crate_name: name.into(),
            version: "1.0.0".into(),
            kind: "lib".into(),
            ..UnitName::default()
        }
    }

    fn report() -> RunReport {
        let counts = Counts { units: 10, hit_remote: 7, miss: 2, bypass: 1, ..Counts::default() };
        let measures = Measures {
            counts,
            hits: 7,
            hit_rate: Some(77.8),
            hit_rate_by_time: Some(91.0),
            compiled_ms: 2000,
            saved_cpu_ms: 61_000,
            kiln_ms: 900,
            ..Measures::default()
        };
        let trend = TrendPoint { hit_rate: Some(90.0), compiled_ms: 500, ..TrendPoint::default() };
        let cause = Cause {
            kind: "feature".into(),
            name: "derive".into(),
            then: None,
            now: Some("given".into()),
        };
        RunReport {
            run: "17".into(),
            about: RunAbout { repository: "o/r".into(), ..RunAbout::default() },
            total: measures.clone(),
            jobs: vec![JobReport {
                job: "build (linux)".into(),
                measures,
                trend: vec![trend],
                verdict: Some("The cache did not pay.".into()),
                ..JobReport::default()
            }],
            slowest: vec![CompiledUnit {
                job: "build (linux)".into(),
                unit: unit("serde"),
                outcome: Outcome::Miss,
                reason: "new-unit".into(),
                detail: None,
                causes: vec![cause.clone()],
                more_causes: 0,
                cost_ms: 1500,
            }],
            bypasses: vec![ByReason {
                reason: "incremental".into(),
                count: 9,
                units: vec![unit("app")],
                ..ByReason::default()
            }],
            twice: Twice {
                compiles: 2,
                cost_ms: 3000,
                groups: vec![TwiceGroup {
                    kind: "features".into(),
                    differs: vec![cause],
                    advice: "use the same".into(),
                    jobs: vec!["a".into(), "b".into()],
                    compiles: 2,
                    saves_ms: 3000,
                    units: vec![unit("serde")],
                    ..TwiceGroup::default()
                }],
                ..Twice::default()
            },
            ..RunReport::default()
        }
    }

    #[test]
    fn a_report_reads_from_what_happened_to_what_helps() {
        let shown = text(&report());
        let want = "\
run 17 of o/r
77.8 % of units from the cache: 10 units in 1 job: 7 hits, 2 misses, 1 bypass
1 min 1 s of compiling saved, 2.0 s spent; Kiln itself took 900 ms
hits: 0 local, 7 remote, 0 joined; 0 B restored, 0 B stored

job           units  hits misses bypasses errors hit rate  by time     compiled        saved
build (linux)    10     7      2        1      0   77.8 %   91.0 %        2.0 s    1 min 1 s

against the last run:
  build (linux): hit rate 90.0 % -> 77.8 %, compiling 500 ms -> 2.0 s

build (linux): The cache did not pay.

done in more than one job: 2 compiles, 3.0 s
  1. feature \"derive\" added
     in     a, b
     units  serde 1.0.0 (lib)
     saves  2 compiles, 3.0 s
     hint   use the same

slowest misses:
     1.5 s  serde 1.0.0 (lib) in build (linux): feature \"derive\" added

not cached:
    9  incremental: incremental compilation is on; set CARGO_INCREMENTAL=0 (kiln env prints it)
       app 1.0.0 (lib) and 8 more
";
        let squeezed = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
        };
        assert_eq!(squeezed(&shown), squeezed(want), "{shown}");
    }

    #[test]
    fn hostile_names_leave_the_terminal_alone() {
        let mut report = report();
        report.run = "\u{1b}[2J\n".into();
        report.jobs[0].job = "a\u{9b}b\u{202e}".into();
        report.twice.groups[0].jobs = vec!["\u{1b}x".into()];
        let shown = text(&report);
        assert!(!shown.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{shown:?}");
    }
}
