//! [`page`]: the runs of a scope, newest first. Pure.

use kiln_storage::api::report::{RunSummary, RunsResponse};

use super::html::{Html, segment};
use super::shown::{count, head, number, percent, share, time, trend, when, wide};
use super::{Form, page as around};

const COLUMNS: &[(&str, bool)] = &[
    ("run", false),
    ("last unit (UTC)", false),
    ("jobs", true),
    ("units", true),
    ("hit rate", true),
    ("by time", true),
    ("compiled", true),
    ("saved", true),
];

/// The page; `later` says that there are newer runs than these, `note` which runs are not among them.
pub(crate) fn page(runs: &RunsResponse, (later, note): (bool, Option<&str>)) -> String {
    around(Form::Served, "Runs \u{2013} Kiln", |html| {
        html.line("h1", &[], "Runs");
        if runs.runs.is_empty() {
            html.line("p", &[], "No run is known. A build with Kiln makes one.");
        } else {
            chart(html, &runs.runs);
            wide(html, "Runs", |html| {
                let attributes =
                    [("class", "list"), ("data-sort", ""), ("data-filter", "runs"), ("id", "runs")];
                html.element("table", &attributes, |html| {
                    head(html, COLUMNS);
                    html.element("tbody", &[], |html| {
                        runs.runs.iter().for_each(|run| row(html, run))
                    });
                });
            });
        }
        if let Some(note) = note {
            html.line("p", &[("class", "note")], note);
        }
        html.element("nav", &[("class", "pages"), ("aria-label", "Pages")], |html| {
            if later {
                html.line("a", &[("href", "/")], "Newest");
            }
            if let Some(next) = &runs.next {
                let href = format!("/?before={}", segment(next).unwrap_or_default());
                html.line("a", &[("href", &href), ("rel", "next")], "Older");
            }
        });
    })
}

/// The hit rates of the runs, oldest first.
fn chart(html: &mut Html, runs: &[RunSummary]) {
    if runs.len() < 2 {
        return;
    }
    let bars: Vec<_> = runs
        .iter()
        .rev()
        .map(|run| {
            let share = run.total.hit_rate;
            (share, format!("{}: {}", run.run, percent(share)))
        })
        .collect();
    html.element("figure", &[], |html| {
        html.line("figcaption", &[], "Hit rate, oldest to newest");
        trend(
            html,
            ("chart", 40),
            &format!("Hit rates of {}", count(bars.len() as u64, "run")),
            &bars,
        );
    });
}

fn row(html: &mut Html, run: &RunSummary) {
    let total = &run.total;
    html.element("tr", &[], |html| {
        html.element("th", &[("scope", "row"), ("data-v", &run.run)], |html| {
            match segment(&run.run) {
                Some(name) => {
                    let href = format!("/runs/{name}");
                    html.element("a", &[("href", &href)], |html| html.name(&run.run));
                }
                None => html.name(&run.run),
            }
            let about = &run.about;
            let of = [&about.repository, &about.workflow, &about.branch];
            if of.iter().any(|text| !text.is_empty()) {
                html.fixed("<br>");
                html.element("small", &[], |html| {
                    let mut first = true;
                    for text in of.iter().filter(|text| !text.is_empty()) {
                        if !std::mem::take(&mut first) {
                            html.text(" \u{b7} ");
                        }
                        html.name(text);
                    }
                });
            }
        });
        html.element("td", &[("data-v", &run.last_ms.to_string())], |html| when(html, run.last_ms));
        number(html, run.job_count, &run.job_count.to_string());
        number(html, total.counts.units, &total.counts.units.to_string());
        share(html, total.hit_rate);
        share(html, total.hit_rate_by_time);
        number(html, total.compiled_ms, &time(total.compiled_ms));
        number(html, total.saved_cpu_ms, &time(total.saved_cpu_ms));
    });
}
