//! Theme: real programs from crates.io. One is always built; the matrix of all is for
//! `cargo test -p kiln-tests --test real_projects -- --ignored`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::Path;

use kiln_tests::{Done, Project, World, registry, skip, world};

/// What is done with a project; each is done, and done again from nothing.
const COLUMNS: &[&[&str]] = &[
    &["build"],
    &["build", "--release"],
    &["check"],
    &["clippy"],
    &["test", "--no-run"],
    &["build", "--examples"],
    &["build", "--benches"],
];

fn open(world: &World, name: &str, version: &str) -> Result<Project, String> {
    let published = registry::published(world, name, version)?;
    world.provide_sources(&published);
    Ok(published.copy_to(world.at("ws/one")))
}

/// What was compiled against expectation, each with Kiln's reason.
fn unexpected(world: &World, done: &Done, what: &str) -> Vec<String> {
    let compiled = done.compiled();
    if compiled.is_empty() {
        return Vec::new();
    }
    let stats = world.stats();
    let reason = |unit: &String| {
        let name = unit.split(' ').next().unwrap_or_default();
        let missed = stats["missed"].as_array().into_iter().flatten();
        let reasons: Vec<String> = missed
            .filter(|m| m["unit"]["crate_name"] == name || name == "build_script_build")
            .map(|m| format!("{} {}: {}", m["unit"]["crate_name"], m["unit"]["kind"], m["reason"]))
            .collect();
        reasons.join(", ")
    };
    compiled.iter().map(|unit| format!("{what}: {unit}: {}", reason(unit))).collect()
}

/// Units of the last build that were compiled for another reason than being new: they may not have
/// been stored, which explains a later compile.
fn odd_misses(world: &World, what: &str) -> Vec<String> {
    let usual = ["new-unit", "input-changed", "compile-failed"];
    let stats = world.stats();
    let missed = stats["missed"].as_array().into_iter().flatten();
    let odd = missed.filter(|m| !usual.contains(&m["reason"].as_str().unwrap_or_default()));
    odd.map(|m| {
        format!("{what}: {} {}: {}", m["unit"]["crate_name"], m["unit"]["kind"], m["reason"])
    })
    .collect()
}

/// Units that hold at one place only, as Kiln names them.
fn pinned(world: &World) -> Vec<String> {
    let stats = world.stats();
    let units = stats["pinned"].as_array().into_iter().flatten();
    units.map(|p| p["unit"]["crate_name"].as_str().unwrap().to_owned()).collect()
}

fn wiped(world: &World, project: &Project, args: &[&str], place: &str) -> Vec<String> {
    project.wipe();
    let done = world.cargo(project, args).run().ok();
    unexpected(world, &done, &format!("{place} {}", args.join(" ")))
}

/// Every column at one place, then all again in another checkout.
fn matrix(world: &World, one: &Project) {
    let (mut found, mut odd) = (Vec::new(), Vec::new());
    for args in COLUMNS {
        one.wipe();
        world.cargo(one, args).run().ok();
        odd.extend(odd_misses(world, &format!("first {}", args.join(" "))));
        found.extend(wiped(world, one, args, "again"));
    }
    one.wipe();
    let two = one.copy_to(world.at("ws/elsewhere/two"));
    for args in COLUMNS {
        let compiled = wiped(world, &two, args, "elsewhere");
        let pinned = pinned(world);
        let is_pinned = |line: &String| pinned.iter().any(|p| line.contains(&format!(": {p} ")));
        found.extend(compiled.into_iter().filter(|line| !is_pinned(line)));
    }
    let (found, odd) = (found.join("\n"), odd.join("\n"));
    assert!(found.is_empty(), "compiles that should not be:\n{found}\nodd misses before:\n{odd}");
}

/// The program says its version: it is whole.
#[track_caller]
fn says_version(world: &World, program: &Path, version: &str) {
    let done = world.call(program, world.root(), &["--version"]).run().ok();
    assert!(done.stdout.contains(version), "{}", done.stdout);
}

#[test]
fn ripgrep_dev() {
    let world = world!();
    let project = match open(&world, "ripgrep", "15.2.0") {
        Ok(project) => project,
        Err(why) => skip!("{why}"),
    };
    world.cargo(&project, &["build"]).run().ok();
    let found = wiped(&world, &project, &["build"], "again");
    assert!(found.is_empty(), "{found:#?}");
    says_version(&world, &project.at("target/debug/rg"), "15.2.0");
    let done = world.cargo(&project, &["build", "-v"]).run().ok();
    assert!(
        !done.stderr.contains("Dirty") && !done.stderr.contains("Compiling"),
        "{}",
        done.stderr
    );
}

fn whole_matrix(world: &World, name: &str, version: &str) -> Result<(), String> {
    let project = open(world, name, version)?;
    matrix(world, &project);
    Ok(())
}

#[test]
#[ignore = "minutes; .ci/run --full"]
fn ripgrep_matrix() {
    let world = world!();
    if let Err(why) = whole_matrix(&world, "ripgrep", "15.2.0") {
        skip!("{why}");
    }
}

#[test]
#[ignore = "minutes; .ci/run --full"]
fn fd_matrix() {
    let world = world!();
    if let Err(why) = whole_matrix(&world, "fd-find", "10.5.0") {
        skip!("{why}");
    }
}

#[test]
#[ignore = "minutes; .ci/run --full"]
fn just_matrix() {
    let world = world!();
    if let Err(why) = whole_matrix(&world, "just", "1.59.0") {
        skip!("{why}");
    }
}
