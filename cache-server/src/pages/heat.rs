//! [`Heat`]: jobs by crates, what became of each crate in each job; and the table of it. Pure.

use std::cmp::Reverse;
use std::collections::HashMap;

use kiln_storage::api::Outcome;

use super::html::Html;
use super::shown::{count, short, time, wide};
use crate::limits::{MAX_HEAT_CRATES, MAX_SHOWN_JOBS};
use crate::report::Job;
use crate::tally::is_hit;

/// What became of the units of a crate in a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cell {
    hits: u64,
    misses: u64,
    errors: u64,
    bypasses: u64,
    compiled_ms: u64,
}

/// A crate in all jobs that are shown.
#[derive(Debug, PartialEq, Eq)]
struct Row<'a> {
    crate_name: &'a str,
    cells: Vec<Cell>,
    compiled_ms: u64,
}

/// Jobs by crates: what cost most comes first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heat<'a> {
    jobs: Vec<&'a str>,
    rows: Vec<Row<'a>>,
    jobs_left_out: usize,
    crates_left_out: usize,
}

impl Cell {
    fn add(&mut self, outcome: Outcome, cost_ms: u64) {
        match outcome {
            outcome if is_hit(outcome) => self.hits += 1,
            Outcome::Bypass => self.bypasses += 1,
            Outcome::Error => self.errors += 1,
            _ => self.misses += 1,
        }
        if matches!(outcome, Outcome::Miss | Outcome::Error) {
            self.compiled_ms = self.compiled_ms.saturating_add(cost_ms);
        }
    }

    fn asked(&self) -> u64 {
        self.hits + self.misses + self.errors
    }

    /// The class of its colour: by the share of hits.
    fn class(&self) -> &'static str {
        match (self.asked(), self.hits) {
            _ if self.errors > 0 => "c error",
            (0, _) if self.bypasses > 0 => "c bypass",
            (0, _) => "c",
            (asked, hits) if hits == asked => "c hit",
            (_, 0) => "c miss",
            (asked, hits) if hits * 2 >= asked => "c most",
            _ => "c some",
        }
    }

    fn label(&self) -> String {
        match self.asked() {
            0 if self.bypasses > 0 => "not cached".to_owned(),
            0 => String::new(),
            asked => format!("{}/{asked}", self.hits),
        }
    }

    fn told(&self) -> String {
        let parts = [
            (self.hits, "hit"),
            (self.misses, "miss"),
            (self.errors, "error"),
            (self.bypasses, "bypass"),
        ];
        let told: Vec<String> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| count(*n, what)).collect();
        format!("{}; {} of compiling", told.join(", "), time(self.compiled_ms))
    }
}

impl<'a> Heat<'a> {
    /// The table of some jobs.
    pub(super) fn of(jobs: &'a [Job]) -> Self {
        let mut shown: Vec<&Job> = jobs.iter().filter(|job| !job.events.is_empty()).collect();
        let jobs_left_out = shown.len().saturating_sub(MAX_SHOWN_JOBS);
        if jobs_left_out > 0 {
            shown.sort_by_cached_key(|job| Reverse(job.row.sums.clone().measures().compiled_ms));
            shown.truncate(MAX_SHOWN_JOBS);
            shown.sort_by_key(|job| &job.row.job);
        }
        let mut crates: HashMap<&str, Vec<Cell>> = HashMap::new();
        for (at, job) in shown.iter().enumerate() {
            for event in &job.events {
                let cells = crates.entry(event.unit.crate_name.as_str());
                let cells = cells.or_insert_with(|| vec![Cell::default(); shown.len()]);
                cells[at].add(event.outcome, event.cost_ms);
            }
        }
        let row = |(crate_name, cells): (&'a str, Vec<Cell>)| {
            let compiled_ms = cells.iter().map(|cell| cell.compiled_ms).sum();
            Row { crate_name, cells, compiled_ms }
        };
        let mut rows: Vec<Row<'_>> = crates.into_iter().map(row).collect();
        let bypasses = |row: &Row<'_>| row.cells.iter().map(|cell| cell.bypasses).sum::<u64>();
        rows.sort_by_cached_key(|row| {
            (Reverse(row.compiled_ms), Reverse(bypasses(row)), row.crate_name)
        });
        let crates_left_out = rows.len().saturating_sub(MAX_HEAT_CRATES);
        rows.truncate(MAX_HEAT_CRATES);
        let jobs = shown.iter().map(|job| job.row.job.as_str()).collect();
        Self { jobs, rows, jobs_left_out, crates_left_out }
    }

    /// What the colours mean.
    fn legend(html: &mut Html) {
        html.element("p", &[("class", "legend")], |html| {
            for (class, label) in [
                ("c hit", "all from the cache"),
                ("c most", "most"),
                ("c some", "some"),
                ("c miss", "none"),
                ("c error", "errors"),
                ("c bypass", "not cached"),
            ] {
                html.line("span", &[("class", class)], label);
            }
        });
    }

    /// Writes the table.
    pub(super) fn write(&self, html: &mut Html) {
        if self.rows.is_empty() {
            html.line("p", &[], "No unit of the run is kept one by one.");
            return;
        }
        html.line(
            "p",
            &[("class", "note")],
            "Hits among the units that could be answered, by crate and job. What cost most compiling comes first.",
        );
        Self::legend(html);
        let attributes =
            [("class", "heat"), ("data-sort", ""), ("data-filter", "crates"), ("id", "heat")];
        wide(html, "Jobs by crates", |html| {
            html.element("table", &attributes, |html| {
                self.head(html);
                html.element("tbody", &[], |html| {
                    self.rows.iter().for_each(|row| self.row(html, row))
                });
            });
        });
        for (n, what) in [(self.crates_left_out, "crate"), (self.jobs_left_out, "job")] {
            if n > 0 {
                let text = format!("{} with less compiling left out.", count(n as u64, what));
                html.line("p", &[("class", "note")], &text);
            }
        }
    }

    fn head(&self, html: &mut Html) {
        html.element("thead", &[], |html| {
            html.element("tr", &[], |html| {
                html.line("th", &[("scope", "col")], "crate");
                html.line("th", &[("scope", "col"), ("class", "n")], "compiled");
                for job in &self.jobs {
                    html.element(
                        "th",
                        &[("scope", "col"), ("class", "job"), ("title", job)],
                        |html| {
                            html.name(job);
                        },
                    );
                }
            });
        });
    }

    fn row(&self, html: &mut Html, row: &Row<'_>) {
        html.element("tr", &[], |html| {
            html.element("th", &[("scope", "row")], |html| html.name(row.crate_name));
            let ms = row.compiled_ms.to_string();
            let text = if row.compiled_ms > 0 { time(row.compiled_ms) } else { String::new() };
            html.line("td", &[("class", "n"), ("data-v", &ms)], &text);
            for (job, cell) in self.jobs.iter().zip(&row.cells) {
                if *cell == Cell::default() {
                    html.line("td", &[("class", "c"), ("data-v", "-1")], "");
                    continue;
                }
                let title = format!("{} in {}: {}", short(row.crate_name), short(job), cell.told());
                let ms = cell.compiled_ms.to_string();
                let attributes = [("class", cell.class()), ("data-v", &*ms), ("title", &*title)];
                html.line("td", &attributes, &cell.label());
            }
        });
    }
}

/// What each crate came to in each job, for tests: `crate: label label…`.
#[cfg(test)]
pub(super) fn labels(heat: &Heat<'_>) -> Vec<String> {
    let told = |row: &Row<'_>| {
        let cells: Vec<String> = row.cells.iter().map(Cell::label).collect();
        format!("{}: {}", row.crate_name, cells.join(" "))
    };
    heat.rows.iter().map(told).collect()
}
