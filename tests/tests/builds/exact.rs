//! Theme: with `KILN_PATHS=exact` the files are those of plain cargo, byte for byte.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::made::{assert_same, made};
use kiln_tests::samples::small_workspace;
use kiln_tests::{Project, registry, skip, world};

/// Plain cargo, a build through Kiln, and a restored one, all at one place.
#[track_caller]
fn check(project: &Project, world: &kiln_tests::World, args: &[&str]) {
    let exact = || {
        project.wipe();
        world.cargo(project, args).env("KILN_PATHS", "exact").run().ok()
    };
    project.wipe();
    world.plain_cargo(project, args).run().ok();
    let plain = made(project);
    assert!(plain.len() >= 4, "{:?}", plain.keys());
    exact();
    assert_same("compiled through Kiln", &made(project), &plain);
    world.assert_all_hit(&exact());
    assert_same("restored", &made(project), &plain);
}

/// One package with every kind of target; paths are baked by `file!()` and by debug information.
#[test]
fn every_kind_of_target() {
    let world = world!();
    let project = world.project("app");
    project.package("app", "\n[lib]\ncrate-type = [\"rlib\", \"cdylib\", \"staticlib\"]\n");
    project.write(
        "src/lib.rs",
        "pub fn place() -> &'static str { concat!(file!(), env!(\"CARGO_MANIFEST_DIR\")) }\n",
    );
    project.write("src/main.rs", "fn main() { println!(\"{}\", app::place()); }\n");
    project.write("build.rs", "fn main() { println!(\"cargo::rerun-if-changed=build.rs\"); }\n");
    project.write("examples/show.rs", "fn main() { println!(\"{}\", app::place()); }\n");
    project
        .write("tests/outside.rs", "#[test]\nfn works() { assert!(!app::place().is_empty()); }\n");
    check(&project, &world, &["build", "--all-targets"]);
    check(&project, &world, &["build", "--release"]);
    check(&project, &world, &["check"]);
}

#[test]
fn registry_crates() {
    let world = world!();
    let fetched = match registry::small(&world) {
        Ok(fetched) => fetched,
        Err(why) => skip!("{why}"),
    };
    let project = small_workspace(&world, fetched);
    check(&project, &world, &["build"]);
}

/// Exact results hold at one place; portable ones are other units, so neither answers for the other.
#[test]
fn exact_and_portable_never_meet() {
    let world = world!();
    let project = world.project("one");
    project.package("app", "").write("src/main.rs", "fn main() { panic!(\"here\"); }\n");
    let build = |project: &Project, paths: &str| {
        project.wipe();
        let done = world.cargo(project, &["build"]).env("KILN_PATHS", paths).run().ok();
        let bytes = project.read("target/debug/app");
        let place = project.text("");
        let place = place.trim_end_matches('/').as_bytes();
        (done, bytes.windows(place.len()).any(|w| w == place))
    };
    assert!(!build(&project, "portable").1, "no place in it");
    let (done, names_place) = build(&project, "exact");
    assert!(done.did_compile("app") && names_place);
    let other = project.copy_to(world.at("ws/two"));
    let (done, names_place) = build(&other, "exact");
    assert!(done.did_compile("app") && names_place, "another place");
    let (done, names_place) = build(&other, "portable");
    world.assert_all_hit(&done);
    assert!(!names_place);
    let (done, names_place) = build(&project, "exact");
    world.assert_all_hit(&done);
    assert!(names_place);
}
