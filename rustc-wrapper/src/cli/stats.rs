//! `kiln stats`: what hit, missed and was saved.

use std::process::ExitCode;

use kiln_storage::api::{Counts, NotedUnit, RemoteStatus, StatsResponse};
use kiln_storage::limits;

use super::{Format, bytes, server, time};
use crate::client::Client;
use crate::config::Config;
use crate::env::Env;
use crate::{local, reasons, say};

/// Most units named under each heading.
const MAX_NAMED: usize = 12;

pub(super) fn run(env: &Env, config: &Config, format: Format, zero: bool) -> ExitCode {
    shown(env, config, zero, |stats, client| match format {
        Format::Json => serde_json::to_string_pretty(stats).unwrap_or_default(),
        Format::Text => {
            let remote = server::info(client).ok().and_then(|info| info.remote);
            text(stats, remote.as_ref())
        }
    })
}

/// Reads the figures, after they were reset where that is asked for, and prints what a function makes of them.
pub(super) fn shown(
    env: &Env,
    config: &Config,
    zero: bool,
    show: impl FnOnce(&StatsResponse, &mut Client) -> String,
) -> ExitCode {
    let fail = |why: String| {
        say::error(&format!("no figures: {why}"), &["kiln doctor looks for the reason"]);
        ExitCode::FAILURE
    };
    // The figures are kept by the server; one is started to read them.
    let mut client = match local::connect(env, config) {
        Ok(client) => client,
        Err(error) => return fail(error.to_string()),
    };
    if zero
        && let Err(error) = client.request("POST", "/v1/stats/zero", b"{}", limits::LOOKUP_TIMEOUT)
    {
        return fail(error.to_string());
    }
    match read(&mut client) {
        Ok(stats) => {
            say::result(&show(&stats, &mut client));
            ExitCode::SUCCESS
        }
        Err(error) => fail(error.to_string()),
    }
}

/// The server's figures.
pub(super) fn read(client: &mut Client) -> Result<StatsResponse, crate::client::ClientError> {
    let answer = client.request("GET", "/v1/stats", &[], limits::LOOKUP_TIMEOUT)?;
    serde_json::from_slice(&answer).map_err(|_| crate::client::ClientError::Foreign("stats"))
}

fn hits(counts: &Counts) -> u64 {
    counts.hit_local + counts.hit_remote + counts.joined
}

/// Share of hits among the units that could be answered, in percent.
fn rate(counts: &Counts) -> String {
    let asked = hits(counts) + counts.miss + counts.error;
    match asked {
        0 => "-".into(),
        _ => format!("{:.0} %", hits(counts) as f64 * 100.0 / asked as f64),
    }
}

/// The figures for people.
fn text(stats: &StatsResponse, remote: Option<&RemoteStatus>) -> String {
    let (build, total) = (&stats.build, &stats.total);
    let mut out = format!("{:<22}{:>12}{:>12}\n", "", "last build", "in all");
    let mut row =
        |name: &str, a: String, b: String| out.push_str(&format!("{name:<22}{a:>12}{b:>12}\n"));
    let number = |n: u64| n.to_string();
    row("units", number(build.units), number(total.units));
    row("hits, local", number(build.hit_local), number(total.hit_local));
    row("hits, remote", number(build.hit_remote), number(total.hit_remote));
    // A job that nobody builds beside has none.
    if total.joined > 0 {
        row("hits, joined", number(build.joined), number(total.joined));
    }
    row("misses", number(build.miss), number(total.miss));
    row("bypasses", number(build.bypass), number(total.bypass));
    row("errors", number(build.error), number(total.error));
    row("hit rate", rate(build), rate(total));
    row("compile time saved", time(build.saved_ms), time(total.saved_ms));
    row("restored", bytes(build.restored_bytes), bytes(total.restored_bytes));
    let budget = stats.store.budget_bytes.map_or(String::new(), |b| format!(" of {}", bytes(b)));
    out.push_str(&format!(
        "\nstore: {} in {} results{budget}, {}\n",
        bytes(stats.store.bytes),
        stats.store.results,
        stats.store.storage
    ));
    if stats.quarantined > 0 {
        out.push_str(&format!(
            "quarantined: {} results that proved wrong (kiln verify --quarantined)\n",
            stats.quarantined
        ));
    }
    if let Some((place, why)) = remote.and_then(|remote| Some((&remote.place, trouble(remote)?))) {
        out.push_str(&format!("nothing comes from {place} now: {why}\n"));
    }
    reasons_text(&mut out, build);
    units_text(&mut out, stats);
    out
}

/// Why the place behind a server is not asked, or did not answer last.
pub(super) fn trouble(remote: &RemoteStatus) -> Option<&str> {
    let silent = || (remote.reachable == Some(false)).then_some("it did not answer last");
    let left_alone = remote.left_alone.as_deref();
    left_alone.or_else(|| silent().map(|silent| remote.fault.as_deref().unwrap_or(silent)))
}

/// Why units of a build were not answered, counted.
fn reasons_text(out: &mut String, build: &Counts) {
    let all = [
        ("misses", &build.miss_reasons),
        ("bypasses", &build.bypass_reasons),
        ("errors", &build.error_reasons),
    ];
    for (heading, counted) in all {
        if !counted.is_empty() {
            out.push_str(&format!("\n{heading} of the last build:\n"));
        }
        for (reason, count) in counted {
            let note = reasons::note_with_hint(reason).map_or(String::new(), |n| format!(": {n}"));
            out.push_str(&format!("  {count:>4}  {reason}{note}\n"));
        }
    }
}

fn noted(out: &mut String, heading: &str, units: &[NotedUnit]) {
    if !units.is_empty() {
        out.push_str(&format!("\n{heading}:\n"));
    }
    for NotedUnit { unit, by } in units.iter().take(MAX_NAMED) {
        out.push_str(&format!("  {} ({}): {}\n", unit.crate_name, unit.kind, by.join(", ")));
    }
    more(out, units.len());
}

/// The units that hit at one place only, and those that were not answered.
fn units_text(out: &mut String, stats: &StatsResponse) {
    noted(out, "units that hit at this place only, and what holds them", &stats.pinned);
    noted(
        out,
        "units that depend on their whole workspace, since not all that they read was seen",
        &stats.conservative,
    );
    if !stats.missed.is_empty() {
        out.push_str("\nnot answered in the last build, slowest first:\n");
    }
    for unit in stats.missed.iter().take(MAX_NAMED) {
        out.push_str(&format!(
            "  {:>9}  {} {} ({}): {}\n",
            time(unit.cost_ms),
            unit.unit.crate_name,
            unit.unit.version,
            unit.unit.kind,
            unit.reason
        ));
    }
    more(out, stats.missed.len());
    if !stats.missed.is_empty() {
        out.push_str("\nkiln explain says what differed, and in which crate it began\n");
    }
}

fn more(out: &mut String, count: usize) {
    if count > MAX_NAMED {
        out.push_str(&format!("  ... and {} more\n", count - MAX_NAMED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_leaves_bypasses_out() {
        let counts = Counts { units: 5, hit_local: 3, miss: 1, bypass: 1, ..Counts::default() };
        assert_eq!(rate(&counts), "75 %");
        assert_eq!(rate(&Counts::default()), "-");
    }

    #[test]
    fn every_kind_of_hit_that_the_rate_counts_has_a_row() {
        let build = Counts { units: 4, joined: 3, miss: 1, ..Counts::default() };
        let stats = StatsResponse { build: build.clone(), total: build, ..Default::default() };
        let shown = text(&stats, None);
        assert!(shown.contains("hits, joined                     3           3\n"), "{shown}");
        assert!(!text(&StatsResponse::default(), None).contains("joined"));
    }

    #[test]
    fn a_place_that_gives_nothing_is_named() {
        let place = |reachable, fault: Option<&str>, left_alone: Option<&str>| {
            let remote = RemoteStatus {
                place: "https://cache.example".into(),
                reachable,
                fault: fault.map(str::to_owned),
                left_alone: left_alone.map(str::to_owned),
                ..RemoteStatus::default()
            };
            let shown = text(&StatsResponse::default(), Some(&remote));
            let line = shown.lines().find(|line| line.contains("cache.example"));
            line.map(str::to_owned)
        };
        assert_eq!(place(Some(true), None, None), None);
        assert_eq!(place(None, None, None), None);
        let says = |why: &str| Some(format!("nothing comes from https://cache.example now: {why}"));
        assert_eq!(place(Some(false), Some("it answers 401"), None), says("it answers 401"));
        assert_eq!(place(Some(false), None, None), says("it did not answer last"));
        assert_eq!(place(Some(false), Some("x"), Some("three faults")), says("three faults"));
    }

    #[test]
    fn quarantined_results_are_mentioned() {
        let mut stats = StatsResponse::default();
        assert!(!text(&stats, None).contains("quarantined"));
        stats.quarantined = 2;
        assert!(text(&stats, None).contains("quarantined: 2 results"));
    }

    #[test]
    fn every_reason_that_is_counted_is_shown() {
        let mut stats = StatsResponse::default();
        stats.build.bypass_reasons.insert("incremental".into(), 3);
        let text = text(&stats, None);
        assert!(text.contains("incremental: "), "{text}");
        assert!(text.contains("CARGO_INCREMENTAL=0"), "{text}");
    }

    #[test]
    fn misses_lead_to_their_explanation() {
        let mut stats = StatsResponse::default();
        assert!(!text(&stats, None).contains("kiln explain"));
        stats.missed.push(kiln_storage::api::MissedUnit {
            unit: Default::default(),
            outcome: kiln_storage::api::Outcome::Miss,
            reason: "new-unit".into(),
            cost_ms: 1,
        });
        assert!(text(&stats, None).contains("kiln explain"));
    }
}
