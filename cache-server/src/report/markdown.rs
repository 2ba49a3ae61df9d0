//! [`markdown`]: a report for the summary of a step, at most [`MAX_MARKDOWN_BYTES`]: the matrix as a table, the rest
//! folded. Pure.
//!
//! Whoever calls brings the words for causes ([`Words`]): the command line knows what they mean, a server alone has
//! [`Plain`] ones. Names come from builds and may hold anything: none of them can end a line,
//! a cell or a tag.

use kiln_storage::api::Cause;
use kiln_storage::api::report::{
    ByReason, CompiledUnit, JobReport, Measures, RunReport, TwiceGroup,
};
use kiln_storage::reasons;
use kiln_storage::record::UnitName;

use super::verdict::time;
use super::{details, earlier_runs, is_invisible, needs_quotes, unshared};
use crate::limits::{MAX_MARKDOWN_BYTES, MAX_NAMED_IN_LINE};

/// What causes mean, for people.
pub trait Words {
    /// What differed.
    fn cause(&self, cause: &Cause) -> String;
}

/// The words that events have themselves.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

impl Words for Plain {
    fn cause(&self, cause: &Cause) -> String {
        let name = [cause.kind.as_str(), cause.name.as_str()].join(" ");
        match (&cause.then, &cause.now) {
            (None, None) => name.trim().to_owned(),
            (then, now) => {
                let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".into());
                format!("{}: {} -> {}", name.trim(), shown(then), shown(now))
            }
        }
    }
}

/// A part of the text: lines that come together, and lines between them of which some may be left out.
#[derive(Debug, Default)]
struct Section {
    head: String,
    rows: Vec<String>,
    tail: String,
}

/// What keeps a service from making a link, or a call to somebody, of what stands around it; nobody sees it.
const APART: &str = "&#8203;";

/// Whether a link or the name of somebody would begin after the first character of a text.
fn begins_link(text: &str) -> bool {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some('@'), Some(next)) => next.is_alphanumeric(),
        (Some('#'), Some(next)) => next.is_ascii_digit(),
        (Some(':'), Some('/')) => true,
        (Some('w' | 'W'), _) => text.get(..4).is_some_and(|www| www.eq_ignore_ascii_case("www.")),
        _ => false,
    }
}

/// A text from elsewhere, so that it stays what it is: no control character, no markup, no link, no name that a
/// service would call. White space at its ends would be lost.
fn inline(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        match c {
            '@' | '#' | ':' | 'w' | 'W' if begins_link(&text[at..]) => {
                out.push(c);
                out.push_str(APART);
            }
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' => {
                out.push('\\');
                out.push(c);
            }
            c if is_invisible(c) => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

/// The name of a job, told from others by quotes where it needs them.
fn job_name(name: &str) -> String {
    match needs_quotes(name) {
        true => format!("\u{201c}{}\u{201d}", inline(name)),
        false => inline(name),
    }
}

pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".into(), |share| format!("{share:.1} %"))
}

fn called(unit: &UnitName) -> String {
    let name = if unit.crate_name.is_empty() { "a crate without a name" } else { &unit.crate_name };
    let mut text = [name, unit.version.as_str()].join(" ").trim().to_owned();
    if !unit.kind.is_empty() {
        text.push_str(&format!(" ({})", unit.kind));
    }
    inline(&text)
}

/// What a reason means and what to change, and an example of it where there is one.
pub fn meaning(group: &ByReason) -> String {
    match (reasons::note(&group.reason), &group.detail) {
        (Some(note), Some(detail)) => format!("{note}; e.g. {detail}"),
        (Some(note), None) => note.to_owned(),
        (None, detail) => detail.clone().unwrap_or_default(),
    }
}

/// The first of some names, and how many more there are.
fn some<T>(all: &[T], left_out: u64, show: impl Fn(&T) -> String) -> String {
    let shown: Vec<String> = all.iter().take(MAX_NAMED_IN_LINE).map(show).collect();
    let more = (all.len() - shown.len()) as u64 + left_out;
    let mut text = shown.join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

pub(crate) fn count(n: u64, what: &str) -> String {
    let end = match (n, what) {
        (1, _) => "",
        (_, "miss" | "bypass") => "es",
        _ => "s",
    };
    format!("{n} {what}{end}")
}

/// What became of all units, in a line.
fn figures(measures: &Measures) -> String {
    let counts = &measures.counts;
    let mut parts = vec![count(measures.hits, "hit"), count(counts.miss, "miss")];
    for (n, what) in [(counts.bypass, "bypass"), (counts.error, "error")] {
        if n > 0 {
            parts.push(count(n, what));
        }
    }
    format!(
        "{}: {}; {} of compiling saved, {} spent, Kiln itself took {}.",
        count(counts.units, "unit"),
        parts.join(", "),
        time(measures.saved_cpu_ms),
        time(measures.compiled_ms),
        time(measures.kiln_ms)
    )
}

fn head(report: &RunReport) -> Section {
    let about = &report.about;
    let mut of = format!("Run {}", inline(&report.run));
    if !about.repository.is_empty() {
        of.push_str(&format!(" of {}", inline(&about.repository)));
    }
    if !about.branch.is_empty() {
        of.push_str(&format!(", branch {}", inline(&about.branch)));
    }
    let rate = match report.total.hit_rate {
        Some(_) => format!("{} of units from the cache", percent(report.total.hit_rate)),
        None => "no unit could be cached".to_owned(),
    };
    let jobs = count(report.jobs.len() as u64, "job");
    let figures = figures(&report.total);
    let mut head = format!("## Kiln: {rate}\n\n{of}: {jobs}, {figures}\n");
    for line in details(&report.total) {
        head.push_str(&format!("\n{}.\n", inline(&line)));
    }
    Section { head, ..Section::default() }
}

fn jobs(report: &RunReport) -> Section {
    let row = |job: &JobReport| {
        let (measures, counts) = (&job.measures, &job.measures.counts);
        let trend = match (measures.hit_rate, job.trend.first().and_then(|last| last.hit_rate)) {
            (Some(now), Some(then)) => format!("{:+.1}", now - then),
            _ => "–".to_owned(),
        };
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {trend} |\n",
            job_name(&job.job),
            counts.units,
            measures.hits,
            counts.miss,
            counts.bypass,
            counts.error,
            percent(measures.hit_rate),
            percent(measures.hit_rate_by_time),
            time(measures.compiled_ms),
            time(measures.saved_cpu_ms),
        )
    };
    Section {
        head: "\n| job | units | hits | misses | bypasses | errors | hit rate | by time | compiled | saved | \
               since last run |\n| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n"
            .to_owned(),
        rows: report.jobs.iter().map(row).collect(),
        ..Section::default()
    }
}

fn verdicts(report: &RunReport) -> Section {
    let told = |job: &JobReport| {
        let verdict = job.verdict.as_ref()?;
        Some(format!("- **{}**: {}\n", job_name(&job.job), inline(verdict)))
    };
    let mut rows: Vec<String> = report.jobs.iter().filter_map(told).collect();
    rows.extend(unshared(report).map(|text| format!("\n**Not shared.** {}\n", inline(&text))));
    rows.extend(earlier_runs(report.earlier_runs).map(|text| format!("\n{text}\n")));
    Section {
        head: if rows.is_empty() { String::new() } else { "\n".into() },
        rows,
        ..Section::default()
    }
}

fn folded(title: &str, columns: &[&str], rows: Vec<String>) -> Section {
    if rows.is_empty() {
        return Section::default();
    }
    Section {
        head: format!(
            "\n<details><summary>{title}</summary>\n\n| {} |\n|{}\n",
            columns.join(" | "),
            " --- |".repeat(columns.len())
        ),
        rows,
        tail: "\n</details>\n".to_owned(),
    }
}

fn twice(report: &RunReport, words: &dyn Words) -> Section {
    let row = |group: &TwiceGroup| {
        let mut why: Vec<String> =
            group.differs.iter().map(|cause| inline(&words.cause(cause))).collect();
        why.extend(group.reason.as_ref().map(|reason| inline(reason)));
        if why.is_empty() {
            why.push(inline(&group.kind));
        }
        format!(
            "| {} | {} | {} | {} | {}, {} |\n",
            some(&why, 0, Clone::clone),
            inline(&group.advice),
            some(&group.jobs, 0, |job| job_name(job)),
            some(&group.units, group.units_left_out, called),
            count(group.compiles, "compile"),
            time(group.saves_ms)
        )
    };
    let title = format!(
        "Done in more than one job: {}, {}",
        count(report.twice.compiles, "compile"),
        time(report.twice.cost_ms)
    );
    let columns = ["what differs", "what would share it", "jobs", "units", "saves"];
    folded(&title, &columns, report.twice.groups.iter().map(row).collect())
}

fn why(unit: &CompiledUnit, words: &dyn Words) -> String {
    match unit.cause() {
        Some(cause) => inline(&words.cause(cause)),
        None => inline(&unit.reason_in_full()),
    }
}

fn compiled(title: &str, units: &[CompiledUnit], left_out: u64, words: &dyn Words) -> Section {
    let row = |unit: &CompiledUnit| {
        let (job, time, why) = (job_name(&unit.job), time(unit.cost_ms), why(unit, words));
        format!("| {} | {job} | {time} | {why} |\n", called(&unit.unit))
    };
    let title = format!("{title}: {}", units.len() as u64 + left_out);
    folded(&title, &["unit", "job", "time", "why"], units.iter().map(row).collect())
}

fn reasons(title: &str, groups: &[ByReason]) -> Section {
    let row = |group: &ByReason| {
        format!(
            "| {} | {} | {} | {} | {} |\n",
            inline(&group.reason),
            group.count,
            inline(&meaning(group)),
            some(&group.jobs, 0, |job| job_name(job)),
            some(&group.units, group.count.saturating_sub(group.units.len() as u64), called)
        )
    };
    let all: u64 = groups.iter().map(|group| group.count).sum();
    let columns = ["reason", "units", "what to change", "jobs", "which"];
    folded(&format!("{title}: {all}"), &columns, groups.iter().map(row).collect())
}

/// The report in Markdown.
pub fn markdown(report: &RunReport, words: &dyn Words) -> String {
    let lost = report.base_run.as_ref().map_or_else(String::new, |base| {
        format!("Hit in the last run of the base branch ({}), compiled now", inline(base))
    });
    let sections = [
        head(report),
        jobs(report),
        verdicts(report),
        twice(report, words),
        compiled(&lost, &report.lost_hits, report.lost_hits_left_out, words),
        compiled("Slowest misses", &report.slowest, report.slowest_left_out, words),
        reasons("Not cached", &report.bypasses),
        reasons("Errors", &report.errors),
    ];
    const CUT: &str = "\nThe rest is left out here; `kiln report` shows it.\n";
    let mut out = String::new();
    let mut is_cut = false;
    for Section { head, rows, tail } in sections {
        let room = |out: &String, more: usize| out.len() + more + CUT.len() <= MAX_MARKDOWN_BYTES;
        if !room(&out, head.len() + tail.len()) {
            is_cut = true;
            continue;
        }
        out.push_str(&head);
        for row in rows {
            if !room(&out, row.len() + tail.len()) {
                is_cut = true;
                break;
            }
            out.push_str(&row);
        }
        out.push_str(&tail);
    }
    if is_cut {
        out.push_str(CUT);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::api::report::Twice;
    use kiln_storage::api::{Counts, Outcome, RunAbout};

    fn measures() -> Measures {
        let counts = Counts { units: 10, hit_local: 7, miss: 2, bypass: 1, ..Counts::default() };
        Measures {
            counts,
            hits: 7,
            hit_rate: Some(77.8),
            hit_rate_by_time: Some(90.0),
            compiled_ms: 2000,
            saved_cpu_ms: 61_000,
            kiln_ms: 90,
            ..Measures::default()
        }
    }

    fn unit(name: &str) -> UnitName {
        UnitName {
            crate_name: name.into(),
            version: "1.0".into(),
            kind: "lib".into(),
            ..UnitName::default()
        }
    }

    fn report(jobs: usize, name: &str) -> RunReport {
        let job = |n: usize| JobReport {
            job: format!("{name} {n}"),
            measures: measures(),
            verdict: (n == 1).then(|| "It did not pay.".to_owned()),
            ..JobReport::default()
        };
        RunReport {
            run: "17".into(),
            about: RunAbout {
                repository: "o/r".into(),
                branch: "main".into(),
                ..RunAbout::default()
            },
            total: measures(),
            jobs: (0..jobs).map(job).collect(),
            slowest: vec![CompiledUnit {
                job: name.into(),
                unit: unit(name),
                outcome: Outcome::Miss,
                reason: "new-unit".into(),
                detail: None,
                causes: Vec::new(),
                more_causes: 0,
                cost_ms: 1500,
            }],
            bypasses: vec![ByReason {
                reason: "incremental".into(),
                count: 1,
                detail: Some("it is on".into()),
                units: vec![unit(name)],
                ..ByReason::default()
            }],
            twice: Twice {
                compiles: 2,
                cost_ms: 700,
                groups: vec![TwiceGroup {
                    kind: "profile".into(),
                    differs: vec![Cause {
                        kind: "argument".into(),
                        name: "-C opt-level".into(),
                        then: None,
                        now: Some("3".into()),
                    }],
                    advice: "use one".into(),
                    compiles: 2,
                    saves_ms: 700,
                    units: vec![unit(name)],
                    ..TwiceGroup::default()
                }],
                ..Twice::default()
            },
            ..RunReport::default()
        }
    }

    #[test]
    fn the_matrix_is_a_table_and_the_rest_is_folded() {
        let text = markdown(&report(2, "build"), &Plain);
        for part in [
            "## Kiln: 77.8 % of units from the cache\n\nRun 17 of o/r, branch main: 2 jobs, 10 units: 7 hits, \
             2 misses, 1 bypass; 1 min 1 s of compiling saved, 2.0 s spent, Kiln itself took 90 ms.\n",
            "| build 1 | 10 | 7 | 2 | 1 | 0 | 77.8 % | 90.0 % | 2.0 s | 1 min 1 s | – |\n",
            "- **build 1**: It did not pay.\n",
            "<summary>Done in more than one job: 2 compiles, 700 ms</summary>",
            "| argument -C opt-level: none -&gt; 3 | use one |",
            "| build 1.0 (lib) | build | 1.5 s | new-unit |\n",
            "| incremental | 1 | incremental compilation is on; set CARGO\\_INCREMENTAL=0 (kiln env prints it); e.g. it is on |",
        ] {
            assert!(text.contains(part), "{part}\nin\n{text}");
        }
        assert!(!text.contains("Errors") && !text.contains("left out"), "{text}");
    }

    #[test]
    fn a_long_one_is_cut_with_a_sentence() {
        let text = markdown(&report(2000, &"x".repeat(60)), &Plain);
        assert!(text.len() <= MAX_MARKDOWN_BYTES && text.len() > MAX_MARKDOWN_BYTES / 2);
        assert!(text.ends_with("`kiln report` shows it.\n"), "{}", &text[text.len() - 200..]);
        assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
    }

    #[test]
    fn names_cannot_leave_their_place() {
        let hostile = "a|b\n\n# c</details><script>`x`[y](z)\u{1b}[2J\u{202e}";
        let text = markdown(&report(1, hostile), &Plain);
        assert!(!text.contains("<script>") && !text.contains("\n# c"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
        let row = text.lines().find(|line| line.starts_with("| a")).unwrap();
        assert_eq!(row.replace("\\|", "").matches('|').count(), 12, "{row}");
    }

    #[test]
    fn names_call_nobody_and_lead_nowhere() {
        let text =
            inline("@octocat o/r#12 https://x.example WWW.x.example \u{61c}\u{feff}\u{2060}");
        let want =
            "@&#8203;octocat o/r#&#8203;12 https:&#8203;//x.example W&#8203;WW.x.example ???";
        assert_eq!(text, want);
        for well in ["a@ b", "C# 7", "a: b", "wwww", "std::fmt", "crate #[x]"] {
            assert_eq!(inline(well), well.replace('[', "\\[").replace(']', "\\]"));
        }
    }

    #[test]
    fn jobs_that_differ_in_white_space_are_told_apart() {
        let names = ["", "job", "job ", "\tjob"].map(job_name);
        assert_eq!(
            names,
            ["\u{201c}\u{201d}", "job", "\u{201c}job \u{201d}", "\u{201c}?job\u{201d}"]
        );
    }
}
