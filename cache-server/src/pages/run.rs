//! [`page`]: the report of a run: the matrix, what to do, the crates of each job, time, and lists. Pure.

use kiln_storage::api::report::{ByReason, CompiledUnit, JobReport, RunReport, TwiceGroup};
use kiln_storage::reasons::note;

use super::heat::Heat;
use super::html::{Html, segment};
use super::shown::{
    count, head, number, percent, share, shell_word, time, trend, unit, when, wide,
};
use super::{Form, page as around, timeline};
use crate::limits::{MAX_NAMED_IN_LINE, MAX_TREND_RUNS};
use crate::report::markdown::{Words, meaning};
use crate::report::{Job, details, earlier_runs, unshared};

const JOBS: &[(&str, bool)] = &[
    ("job", false),
    ("hit rate", true),
    ("by time", true),
    ("units", true),
    ("hits", true),
    ("misses", true),
    ("bypasses", true),
    ("errors", true),
    ("compiled", true),
    ("saved", true),
    ("Kiln", true),
    ("trend", false),
];

/// The page.
pub(crate) fn page(form: Form, report: &RunReport, jobs: &[Job], words: &dyn Words) -> String {
    around(form, &format!("Run {} \u{2013} Kiln", report.run), |html| {
        top(html, form, report);
        carried(html, report);
        section(html, "Jobs", |html| matrix(html, report));
        let advice = advice(report, words);
        if !advice.is_empty() {
            section(html, "What would help", |html| list(html, &advice));
        }
        section(html, "Jobs by crates", |html| Heat::of(jobs).write(html));
        section(html, "Over time", |html| timeline::write(html, jobs));
        if !report.slowest.is_empty() {
            section(html, "Slowest misses", |html| {
                compiled(
                    html,
                    ("slowest", "misses"),
                    (&report.slowest, report.slowest_left_out),
                    words,
                );
            });
        }
        if let Some(base) = report.base_run.as_ref().filter(|_| !report.lost_hits.is_empty()) {
            section(html, "Hits that were lost", |html| {
                html.element("p", &[("class", "note")], |html| {
                    html.text("They hit in the last run of the base branch, ");
                    html.name(base);
                    html.text(", and were compiled now.");
                });
                compiled(
                    html,
                    ("lost", "lost hits"),
                    (&report.lost_hits, report.lost_hits_left_out),
                    words,
                );
            });
        }
        if !report.twice.groups.is_empty() {
            section(html, "Done in more than one job", |html| twice(html, report, words));
        }
        for (title, id, groups) in
            [("Not cached", "bypasses", &report.bypasses), ("Errors", "errors", &report.errors)]
        {
            if !groups.is_empty() {
                section(html, title, |html| reasons(html, (id, title), groups));
            }
        }
    })
}

fn section(html: &mut Html, title: &str, inner: impl FnOnce(&mut Html)) {
    html.element("section", &[], |html| {
        html.line("h2", &[], title);
        inner(html);
    });
}

/// What run it is, and its figures.
fn top(html: &mut Html, form: Form, report: &RunReport) {
    let about = &report.about;
    html.element("h1", &[], |html| {
        html.text("Run ");
        html.name(&report.run);
    });
    html.element("p", &[("class", "about")], |html| {
        for (label, text) in [
            ("", &about.repository),
            ("", &about.workflow),
            ("", &about.branch),
            ("into ", &about.base),
        ] {
            if !text.is_empty() {
                html.text(label);
                html.name(text);
                html.text(" \u{b7} ");
            }
        }
        if !about.commit.is_empty() {
            let short: String = about.commit.chars().take(10).collect();
            html.element("code", &[], |html| html.name(&short));
            html.text(" \u{b7} ");
        }
        when(html, report.last_ms);
        html.text(" UTC");
        if ["https://", "http://"].iter().any(|scheme| about.url.starts_with(scheme)) {
            html.text(" \u{b7} ");
            html.line(
                "a",
                &[("href", &about.url), ("rel", "noreferrer noopener")],
                "at its service",
            );
        }
        if let Some(name) = segment(&report.run).filter(|_| form == Form::Served) {
            for (ending, label) in [("json", "JSON"), ("md", "Markdown"), ("html", "file")] {
                html.text(" \u{b7} ");
                html.line("a", &[("href", &format!("/v1/runs/{name}/report.{ending}"))], label);
            }
        }
    });
    let total = &report.total;
    let counts = &total.counts;
    html.element("dl", &[("class", "figures")], |html| {
        for (label, value, more) in [
            (
                "hit rate",
                percent(total.hit_rate),
                format!("{} by time", percent(total.hit_rate_by_time)),
            ),
            ("saved", time(total.saved_cpu_ms), "of processor time".to_owned()),
            ("compiled", time(total.compiled_ms), count(counts.miss, "miss")),
            (
                "units",
                counts.units.to_string(),
                format!("{}, {}", count(counts.bypass, "bypass"), count(counts.error, "error")),
            ),
            ("jobs", report.jobs.len().to_string(), format!("Kiln took {}", time(total.kiln_ms))),
        ] {
            html.element("div", &[], |html| {
                html.line("dt", &[], label);
                html.element("dd", &[], |html| {
                    html.line("b", &[], &value);
                    html.line("small", &[], &more);
                });
            });
        }
    });
}

/// Which hits they were, what was carried, and where the time went.
fn carried(html: &mut Html, report: &RunReport) {
    for line in details(&report.total) {
        html.line("p", &[("class", "note")], &line);
    }
}

fn table(
    html: &mut Html,
    (id, label): (&str, &str),
    columns: &[(&str, bool)],
    rows: impl FnOnce(&mut Html),
) {
    wide(html, label, |html| {
        let attributes = [("id", id), ("data-sort", ""), ("data-filter", label)];
        html.element("table", &attributes, |html| {
            head(html, columns);
            html.element("tbody", &[], rows);
        });
    });
}

fn matrix(html: &mut Html, report: &RunReport) {
    table(html, ("jobs", "jobs"), JOBS, |html| {
        report.jobs.iter().for_each(|job| job_row(html, job))
    });
    if report.jobs.iter().any(|job| job.without_details > 0) {
        let text = "Of jobs with too many units only the newest are kept one by one; the figures count all.";
        html.line("p", &[("class", "note")], text);
    }
    if let Some(text) = unshared(report) {
        html.line("p", &[("class", "note")], &text);
    }
    if let Some(text) = earlier_runs(report.earlier_runs) {
        html.line("p", &[("class", "note")], &text);
    }
}

fn job_row(html: &mut Html, job: &JobReport) {
    let (measures, counts) = (&job.measures, &job.measures.counts);
    html.element("tr", &[], |html| {
        html.element("th", &[("scope", "row"), ("data-v", &job.job)], |html| {
            html.name(&job.job);
            if let Some(verdict) = &job.verdict {
                html.fixed("<br>");
                html.element("small", &[("class", "verdict")], |html| html.text(verdict));
            }
        });
        share(html, measures.hit_rate);
        share(html, measures.hit_rate_by_time);
        for n in [counts.units, measures.hits, counts.miss, counts.bypass, counts.error] {
            number(html, n, &n.to_string());
        }
        number(html, measures.compiled_ms, &time(measures.compiled_ms));
        number(html, measures.saved_cpu_ms, &time(measures.saved_cpu_ms));
        number(html, measures.kiln_ms, &time(measures.kiln_ms));
        let bar = |share: Option<f64>, run: &str| (share, format!("{run}: {}", percent(share)));
        let mut bars: Vec<_> =
            job.trend.iter().rev().map(|point| bar(point.hit_rate, &point.run)).collect();
        bars.push(bar(measures.hit_rate, "this run"));
        let change = match (measures.hit_rate, job.trend.first().and_then(|last| last.hit_rate)) {
            (Some(now), Some(then)) => now - then,
            _ => 0.0,
        };
        html.element("td", &[("data-v", &format!("{change:.1}"))], |html| {
            if bars.len() > 1 {
                let label = format!("{change:+.1} points since the run before");
                trend(html, ("spark", 1 + MAX_TREND_RUNS), &label, &bars);
            }
        });
    });
}

/// An advice: what it saves, the sentence, and a command line that tells more.
#[derive(Debug, PartialEq, Eq)]
struct Advice {
    saves_ms: u64,
    text: String,
    command: Option<String>,
}

/// What to do, what saves most first.
fn advice(report: &RunReport, words: &dyn Words) -> Vec<Advice> {
    let explain = |name: &str| {
        Some(name)
            .filter(|name| !name.is_empty())
            .map(|name| format!("kiln explain {}", shell_word(name)))
    };
    let mut advice: Vec<Advice> = report
        .twice
        .groups
        .iter()
        .filter(|group| !group.advice.is_empty())
        .map(|group| Advice {
            saves_ms: group.saves_ms,
            text: format!("{}: {}", some(&group.jobs, 0), group.advice),
            command: group.units.first().and_then(|unit| explain(&unit.crate_name)),
        })
        .collect();
    advice.extend(report.bypasses.iter().chain(&report.errors).filter_map(|group| {
        let meaning = Some(meaning(group)).filter(|text| !text.is_empty())?;
        Some(Advice {
            saves_ms: group.cost_ms,
            text: format!("{} ({}): {meaning}", count(group.count, "unit"), group.reason),
            command: group.units.first().and_then(|unit| explain(&unit.crate_name)),
        })
    }));
    if let Some(slowest) = report.slowest.first() {
        let text = format!("{}: the slowest miss, {}", slowest.job, why(slowest, words));
        let command = explain(&slowest.unit.crate_name);
        advice.push(Advice { saves_ms: slowest.cost_ms, text, command });
    }
    advice.sort_by_key(|one| std::cmp::Reverse(one.saves_ms));
    advice.truncate(MAX_NAMED_IN_LINE);
    advice
}

fn list(html: &mut Html, advice: &[Advice]) {
    html.element("ul", &[("class", "advice")], |html| {
        for Advice { saves_ms, text, command } in advice {
            html.element("li", &[], |html| {
                html.line("b", &[("class", "saves")], &time(*saves_ms));
                html.element("span", &[], |html| {
                    html.name(text);
                    if let Some(command) = command {
                        html.fixed("<br>");
                        html.element("code", &[], |html| html.name(command));
                    }
                });
            });
        }
    });
    html.line("p", &[("class", "note")], "Commands tell more where the build ran.");
}

/// The first of some names, and how many more there are.
fn some(all: &[String], left_out: u64) -> String {
    let shown = &all[..all.len().min(MAX_NAMED_IN_LINE)];
    let more = (all.len() - shown.len()) as u64 + left_out;
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &rest
}

fn why(unit: &CompiledUnit, words: &dyn Words) -> String {
    let Some(cause) = unit.cause() else { return unit.reason_in_full() };
    let more = unit.causes.len() as u64 - 1 + unit.more_causes;
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    words.cause(cause) + &rest
}

fn compiled(
    html: &mut Html,
    (id, label): (&str, &str),
    (units, left_out): (&[CompiledUnit], u64),
    words: &dyn Words,
) {
    const COLUMNS: &[(&str, bool)] = &[
        ("unit", false),
        ("job", false),
        ("compile", true),
        ("reason", false),
        ("what differs", false),
    ];
    table(html, (id, label), COLUMNS, |html| {
        for one in units {
            html.element("tr", &[], |html| {
                html.element("th", &[("scope", "row")], |html| unit(html, &one.unit));
                html.element("td", &[], |html| html.name(&one.job));
                number(html, one.cost_ms, &time(one.cost_ms));
                html.element("td", &[], |html| html.name(&one.reason));
                let told = match (&one.causes[..], &one.detail) {
                    ([], Some(detail)) => detail.clone(),
                    ([], None) => note(&one.reason).unwrap_or_default().to_owned(),
                    _ => why(one, words),
                };
                html.element("td", &[("class", "long")], |html| html.words(&told));
            });
        }
    });
    if left_out > 0 {
        let text = format!("{} that cost less left out.", count(left_out, "unit"));
        html.line("p", &[("class", "note")], &text);
    }
}

fn names(units: &[kiln_storage::record::UnitName], left_out: u64) -> String {
    let names: Vec<String> = units.iter().map(|unit| unit.crate_name.clone()).collect();
    some(&names, left_out)
}

fn twice(html: &mut Html, report: &RunReport, words: &dyn Words) {
    const COLUMNS: &[(&str, bool)] = &[
        ("what differs", false),
        ("what would share it", false),
        ("jobs", false),
        ("units", false),
        ("compiles", true),
        ("saves", true),
    ];
    let text = format!(
        "{} that another job had done before: {}.",
        count(report.twice.compiles, "compile"),
        time(report.twice.cost_ms)
    );
    html.line("p", &[("class", "note")], &text);
    let differs = |group: &TwiceGroup| {
        let mut why: Vec<String> = group.differs.iter().map(|cause| words.cause(cause)).collect();
        why.extend(group.reason.clone());
        if why.is_empty() { group.kind.clone() } else { some(&why, 0) }
    };
    table(html, ("twice", "groups"), COLUMNS, |html| {
        for group in &report.twice.groups {
            html.element("tr", &[], |html| {
                html.element("th", &[("scope", "row"), ("class", "long")], |html| {
                    html.words(&differs(group))
                });
                let units = names(&group.units, group.units_left_out);
                for text in [group.advice.clone(), some(&group.jobs, 0), units] {
                    html.element("td", &[("class", "long")], |html| html.words(&text));
                }
                number(html, group.compiles, &group.compiles.to_string());
                number(html, group.saves_ms, &time(group.saves_ms));
            });
        }
    });
}

fn reasons(html: &mut Html, (id, label): (&str, &str), groups: &[ByReason]) {
    const COLUMNS: &[(&str, bool)] = &[
        ("reason", false),
        ("units", true),
        ("compile", true),
        ("what to change", false),
        ("jobs", false),
        ("which", false),
    ];
    table(html, (id, label), COLUMNS, |html| {
        for group in groups {
            html.element("tr", &[], |html| {
                html.element("th", &[("scope", "row")], |html| html.name(&group.reason));
                number(html, group.count, &group.count.to_string());
                number(html, group.cost_ms, &time(group.cost_ms));
                let left_out = group.count.saturating_sub(group.units.len() as u64);
                let which = names(&group.units, left_out);
                for text in [meaning(group), some(&group.jobs, 0), which] {
                    html.element("td", &[("class", "long")], |html| html.words(&text));
                }
            });
        }
    });
}
