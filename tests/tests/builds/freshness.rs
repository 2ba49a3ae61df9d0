//! Theme: restored files are fresh for cargo, belong to this checkout, and look like rustc's.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kiln_tests::project::files_below;
use kiln_tests::{Project, World, samples, world};

/// Three packages in a row: `app` uses `mid` uses `low`; `low` has a build script.
fn chain(world: &World, name: &str) -> Project {
    let project = samples::chain(world, name, "low::n() + 1");
    project.write(
        "low/build.rs",
        "fn main() {\n    println!(\"cargo::rerun-if-changed=build.rs\");\n    \
         std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/n.rs\", \"41\").unwrap();\n}\n",
    );
    project.write(
        "low/src/lib.rs",
        "pub fn n() -> i32 { include!(concat!(env!(\"OUT_DIR\"), \"/n.rs\")) }\n",
    );
    project
}

/// The packages that `cargo -v` says it works on.
fn dirty(stderr: &str) -> Vec<String> {
    let words = ["Compiling ", "Checking ", "Dirty "];
    let worked = |line: &str| {
        words.iter().find_map(|w| line.trim_start().strip_prefix(w)).map(str::to_owned)
    };
    let mut found: Vec<String> = stderr
        .lines()
        .filter_map(worked)
        .filter_map(|rest| rest.split(' ').next().map(str::to_owned))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// A project whose target directory came from the cache.
fn restored(world: &World, args: &[&str]) -> Project {
    let project = chain(world, "app");
    world.cargo(&project, args).run().ok();
    project.wipe();
    let done = world.cargo(&project, args).run().ok();
    world.assert_all_hit(&done);
    project
}

#[test]
fn a_following_build_does_nothing() {
    let world = world!();
    for args in
        [&["build", "-v"][..], &["check", "-v", "--all-targets"], &["test", "--no-run", "-v"]]
    {
        let project = restored(&world, args);
        let done = world.cargo(&project, args).run().ok();
        assert_eq!(dirty(&done.stderr), Vec::<String>::new(), "{}", done.stderr);
        assert!(done.stderr.contains("Fresh app"), "{}", done.stderr);
        assert!(done.runs.iter().all(|run| !run.is_compile()));
        project.wipe();
    }
}

/// Turning Kiln off leaves a target directory as it is: cargo does not build anew.
#[test]
fn a_following_build_without_kiln_does_nothing() {
    let world = world!();
    let project = restored(&world, &["build"]);
    let done = world.cargo(&project, &["build", "-v"]).env("KILN_MODE", "off").run().ok();
    assert_eq!(dirty(&done.stderr), Vec::<String>::new(), "{}", done.stderr);
}

#[test]
fn touching_a_source_rebuilds_what_cargo_would() {
    let world = world!();
    let cases: &[(&str, &[&str])] = &[
        ("src/main.rs", &["app"]),
        ("mid/src/lib.rs", &["app", "mid"]),
        ("low/src/lib.rs", &["app", "low", "mid"]),
        ("low/build.rs", &["app", "low", "mid"]),
    ];
    for (file, want) in cases {
        let project = restored(&world, &["build"]);
        let source = project.read(file);
        project.write(file, source);
        let done = world.cargo(&project, &["build", "-v"]).run().ok();
        assert_eq!(dirty(&done.stderr), *want, "{file}: {}", done.stderr);
        let done = world.cargo(&project, &["build", "-v"]).run().ok();
        assert_eq!(dirty(&done.stderr), Vec::<String>::new(), "{file}: {}", done.stderr);
        project.wipe();
    }
}

/// An edit behind a restore is built, and shows.
#[test]
fn an_edit_after_a_restore_is_built() {
    let world = world!();
    let project = restored(&world, &["build"]);
    project.write("low/src/lib.rs", "pub fn n() -> i32 { 6 }\n");
    world.cargo(&project, &["build"]).run().ok();
    let program = world.call(project.at("target/debug/app"), project.dir(), &[]);
    assert_eq!(program.run().ok().stdout, "7\n");
}

/// The `.d` files of a target directory.
fn dep_infos(project: &Project) -> Vec<(String, String)> {
    let files = files_below(&project.at("target")).into_iter();
    let names = files.map(|f| f.to_str().unwrap().to_owned()).filter(|f| f.ends_with(".d"));
    names
        .map(|f| (f.clone(), String::from_utf8(project.read(&format!("target/{f}"))).unwrap()))
        .collect()
}

#[test]
fn dep_info_names_this_checkout() {
    let world = world!();
    let one = chain(&world, "one");
    world.cargo(&one, &["build"]).run().ok();
    let two = one.copy_to(world.at("ws/elsewhere/two"));
    world.cargo(&two, &["build"]).run().ok();
    let (first, second) = (dep_infos(&one), dep_infos(&two));
    assert!(first.len() >= 4 && first.len() == second.len(), "{first:?}");
    for (name, text) in second {
        let here = two.dir().to_str().unwrap();
        assert!(text.contains(here), "{name}: {text}");
        assert!(!text.contains(one.dir().to_str().unwrap()), "{name}: {text}");
        assert!(!text.contains("/kiln/") && !text.contains('\u{1}'), "{name}: {text}");
    }
}

/// A restored dep-info is byte for byte the one that was stored.
#[test]
fn dep_info_comes_back_byte_for_byte() {
    let world = world!();
    let project = chain(&world, "app");
    world.plain_cargo(&project, &["build"]).run().ok();
    let plain = dep_infos(&project);
    project.wipe();
    world.cargo(&project, &["build"]).run().ok();
    assert_eq!(dep_infos(&project), plain, "compiled through Kiln");
    project.wipe();
    world.cargo(&project, &["build"]).run().ok();
    assert_eq!(dep_infos(&project), plain, "restored");
}

#[test]
fn artifact_notices_name_this_checkout() {
    let world = world!();
    let one = chain(&world, "one");
    let args = ["build", "--message-format=json"];
    world.cargo(&one, &args).run().ok();
    let two = one.copy_to(world.at("ws/elsewhere/two"));
    let done = world.cargo(&two, &args).run().ok();
    let mut seen = 0;
    for message in done.messages() {
        for file in message["filenames"].as_array().into_iter().flatten() {
            let file = Path::new(file.as_str().unwrap());
            assert!(file.starts_with(two.dir()) && file.exists(), "{}", file.display());
            seen += 1;
        }
    }
    assert!(seen >= 4, "{}", done.stdout);
    assert!(!done.stdout.contains(one.dir().to_str().unwrap()), "{}", done.stdout);
}

/// Mode bits of all files of a target directory but cargo's own. The program behind the front of a build
/// script has those of the front.
fn modes(project: &Project) -> BTreeMap<String, u32> {
    let files = files_below(&project.at("target")).into_iter();
    let names = files.map(|f| f.to_str().unwrap().to_owned());
    let of_rustc = names.filter(|f| f.contains("/deps/") || f.contains("/build/"));
    let mode = |f: &str| {
        let meta = project.at("target").join(f).metadata().unwrap();
        meta.permissions().mode() & 0o7777
    };
    let (real, others): (Vec<String>, Vec<String>) = of_rustc.partition(|f| f.ends_with(".real"));
    for real in &real {
        assert_eq!(mode(real), mode(real.strip_suffix(".real").unwrap()), "{real}");
    }
    others.into_iter().map(|f| (f.clone(), mode(&f))).collect()
}

#[test]
fn restored_files_have_the_modes_that_rustc_gives() {
    for umask in ["022", "077"] {
        let world = world!();
        let project = chain(&world, "app");
        world.plain_cargo(&project, &["build"]).umask(umask).run().ok();
        let plain = modes(&project);
        project.wipe();
        // Stored under one mask, restored under the other.
        let other = if umask == "022" { "077" } else { "022" };
        world.cargo(&project, &["build"]).umask(other).run().ok();
        project.wipe();
        let done = world.cargo(&project, &["build"]).umask(umask).run().ok();
        world.assert_all_hit(&done);
        assert_eq!(modes(&project), plain, "umask {umask}");
        assert!(modes(&project).values().all(|mode| mode & 0o200 != 0), "writable by the owner");
    }
}

/// A restored file shares nothing with the store: writing into it damages no later build.
#[test]
fn writing_into_a_restored_file_leaves_the_cache_alone() {
    let world = world!();
    let project = restored(&world, &["build"]);
    for file in files_below(&project.at("target/debug/deps")) {
        let path = project.at("target/debug/deps").join(file);
        let open = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        open.set_len(3).unwrap();
    }
    project.wipe();
    let done = world.cargo(&project, &["build"]).run().ok();
    world.assert_all_hit(&done);
    let program = world.call(project.at("target/debug/app"), project.dir(), &[]);
    assert_eq!(program.run().ok().stdout, "42\n");
}

/// `strip` of a restored program, then a build: cargo finds it fresh, a wiped one comes back whole.
#[test]
fn stripping_a_restored_program_leaves_the_cache_alone() {
    let world = world!();
    let project = restored(&world, &["build"]);
    let whole = project.read("target/debug/app");
    let strip = world.call("/usr/bin/strip", project.dir(), &["target/debug/app"]).run();
    assert!(strip.status.success(), "{}", strip.stderr);
    assert_ne!(project.read("target/debug/app"), whole);
    project.wipe();
    world.cargo(&project, &["build"]).run().ok();
    assert_eq!(project.read("target/debug/app"), whole);
}

/// Times are those of ordinary writes: never in the future of the file clock, whatever the store
/// holds.
#[test]
fn restored_files_are_as_old_as_the_restore() {
    let world = world!();
    let project = chain(&world, "app");
    world.cargo(&project, &["build"]).run().ok();
    project.wipe();
    project.write("before", "");
    world.cargo(&project, &["build"]).run().ok();
    project.write("after", "");
    let time = |path: &Path| path.metadata().unwrap().modified().unwrap();
    let (before, after) = (time(&project.at("before")), time(&project.at("after")));
    for file in files_below(&project.at("target/debug/deps")) {
        let file = project.at("target/debug/deps").join(file);
        assert!(before <= time(&file) && time(&file) <= after, "{}", file.display());
    }
}
