//! What a collection says: text for people, or a line of JSON for each of the plan and its end. Pure but for
//! the writing. Called by [`super::gc`].

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use kiln_storage::remote::collect::{Collected, Inventory, KeptResult, Plan, ResultContent, Why};
use serde::Serialize;

use super::GcConfig;

/// A plan, for programs.
#[derive(Debug, Serialize)]
struct PlanLine<'a> {
    plan: Planned<'a>,
}

#[derive(Debug, Serialize)]
struct Planned<'a> {
    storage: String,
    dry_run: bool,
    /// Bytes of all that goes.
    bytes: u64,
    /// What making the results anew would take.
    rebuild_ms: u64,
    results: Vec<Going<'a>>,
    /// Blobs that no result names then.
    blobs: Vec<&'a str>,
    scopes: BTreeMap<&'a str, Account<'a>>,
    /// The results that cost most to make anew.
    dearest: Vec<Dear<'a>>,
    /// Results that were to be pinned or not, and are not there.
    unknown_pins: &'a [String],
}

#[derive(Debug, Serialize)]
struct Going<'a> {
    object: &'a str,
    result: String,
    scope: &'a str,
    why: &'static str,
    name: &'a str,
    bytes: u64,
    stored_ms: u64,
    used_ms: u64,
    rebuild_ms: u64,
}

#[derive(Debug, Serialize)]
struct Account<'a> {
    name: Option<&'a str>,
    results: u64,
    results_gone: u64,
    bytes_before: u64,
    bytes_after: u64,
    rebuild_ms: u64,
}

#[derive(Debug, Serialize)]
struct Dear<'a> {
    name: &'a str,
    rebuild_ms: u64,
}

/// An end, for programs.
#[derive(Debug, Serialize)]
struct DoneLine {
    done: Done,
}

#[derive(Debug, Serialize)]
struct Done {
    results: u64,
    blobs: u64,
    spared: u64,
    left: u64,
}

fn word(why: Why) -> &'static str {
    match why {
        Why::Replaced => "replaced",
        Why::Broken => "broken",
        Why::Unused => "unused",
        Why::Quota => "quota",
    }
}

/// What people call a result, and what making it cost.
fn known(result: &KeptResult) -> (&str, u64) {
    match &result.content {
        ResultContent::Read { unit_name, cost_ms, .. } => (unit_name, *cost_ms),
        ResultContent::Damaged | ResultContent::Foreign => ("", 0),
    }
}

fn line(value: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", serde_json::to_string(value)?)
}

/// Says what goes.
pub(super) fn planned(
    config: &GcConfig,
    (inventory, plan): (&Inventory, &Plan),
    unknown_pins: &[String],
    out: &mut dyn Write,
) -> io::Result<()> {
    if config.json {
        return line(&PlanLine { plan: describe(config, (inventory, plan), unknown_pins) }, out);
    }
    for pin in unknown_pins {
        writeln!(out, "result {pin} is not there")?;
    }
    let mut text = plan.describe();
    for (id, name) in &config.names {
        text = text.replace(id.as_str(), name);
    }
    // Names of crates come out of the bucket: no control character reaches a terminal.
    let plain: String =
        text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect();
    write!(out, "{}\n{plain}", config.url.display())?;
    if plan.results.is_empty() && plan.blobs.is_empty() {
        let why = "nothing goes: what is there was used of late, is young, or is pinned";
        writeln!(out, "{why}; --unused TIME and --quota SIZE let more go")?;
    } else if config.dry_run {
        writeln!(out, "dry run: nothing was deleted; without --dry-run it goes")?;
    }
    Ok(())
}

fn describe<'a>(
    config: &'a GcConfig,
    (inventory, plan): (&'a Inventory, &'a Plan),
    unknown_pins: &'a [String],
) -> Planned<'a> {
    let kept: HashMap<_, _> = inventory.results.iter().map(|kept| (&kept.object, kept)).collect();
    let going = plan.results.iter().filter_map(|(object, why)| {
        let kept = kept.get(object)?;
        let (name, rebuild_ms) = known(kept);
        Some(Going {
            object: object.as_str(),
            result: kept.result.to_string(),
            scope: &kept.scope_id,
            why: word(*why),
            name,
            bytes: kept.bytes,
            stored_ms: kept.stored_ms,
            used_ms: kept.used_ms,
            rebuild_ms,
        })
    });
    let account = |(id, account): (&'a String, &kiln_storage::remote::collect::ScopeAccount)| {
        let account = Account {
            name: config.names.get(id).map(String::as_str),
            results: account.results,
            results_gone: account.results_gone,
            bytes_before: account.bytes_before,
            bytes_after: account.bytes_after,
            rebuild_ms: account.rebuild_ms,
        };
        (id.as_str(), account)
    };
    Planned {
        storage: config.url.display(),
        dry_run: config.dry_run,
        bytes: plan.bytes,
        rebuild_ms: plan.scopes.values().map(|scope| scope.rebuild_ms).sum(),
        results: going.collect(),
        blobs: plan.blobs.iter().map(|(object, _)| object.as_str()).collect(),
        scopes: plan.scopes.iter().map(account).collect(),
        dearest: plan.dearest.iter().map(|(name, cost)| Dear { name, rebuild_ms: *cost }).collect(),
        unknown_pins,
    }
}

/// Says what went.
pub(super) fn done(
    config: &GcConfig,
    collected: &Collected,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Collected { results, blobs, spared, left } = *collected;
    if config.json {
        return line(&DoneLine { done: Done { results, blobs, spared, left } }, out);
    }
    writeln!(out, "deleted: {results} results and {blobs} blobs")?;
    if spared > 0 {
        writeln!(out, "spared: {spared} blobs that a result names which came meanwhile")?;
    }
    if left > 0 {
        writeln!(out, "left for the next collection: {left} blobs")?;
    }
    Ok(())
}
