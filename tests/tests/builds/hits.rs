//! Theme: every kind of unit comes from the cache when nothing changed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::samples::{small_app, small_workspace};
use kiln_tests::{Project, World, registry, skip, world};

/// A package whose library has these crate types.
fn library(world: &World, types: &str, more: &str) -> Project {
    let project = world.project("app");
    project.package("app", &format!("\n[lib]\n{types}\n{more}"));
    project.write("src/lib.rs", "#[no_mangle]\npub extern \"C\" fn answer() -> i32 { 42 }\n");
    project
}

/// Builds, wipes the target directory, builds again: the first build compiles `want`, the second
/// nothing.
#[track_caller]
fn check(world: &World, project: &Project, args: &[&str], want: &[&str]) {
    let first = world.cargo(project, args).run().ok();
    world.assert_compiled(&first, want);
    project.wipe();
    let second = world.cargo(project, args).run().ok();
    world.assert_all_hit(&second);
}

#[test]
fn lib() {
    let world = world!();
    check(&world, &library(&world, "", ""), &["build"], &["app lib"]);
}

#[test]
fn rlib() {
    let world = world!();
    check(&world, &library(&world, "crate-type = [\"rlib\"]", ""), &["build"], &["app rlib"]);
}

#[test]
fn cdylib() {
    let world = world!();
    let project = library(&world, "crate-type = [\"cdylib\"]", "");
    check(&world, &project, &["build"], &["app cdylib"]);
    assert!(project.at("target/debug/libapp.so").exists());
}

/// Its own file has no suffix of cargo's, and a short name is found in the metadata of any crate.
#[test]
fn a_cdylib_over_a_crate_that_has_the_letters_of_its_name() {
    let world = world!();
    let project = library(
        &world,
        "name = \"one\"\ncrate-type = [\"cdylib\"]",
        "\n[dependencies]\nlow = { path = \"low\" }\n",
    );
    let low = Project::create(project.at("low"));
    low.package("low", "").write("src/lib.rs", "pub fn n() -> i32 { 42 }\n");
    check(&world, &project, &["build"], &["low lib", "one cdylib"]);
}

/// Cargo gives no suffix to a library that is a cdylib as well. What is below the crates that one is given is found by its
/// name, and another file of that name is another input.
#[test]
fn a_library_without_a_suffix_counts_below_another() {
    let world = world!();
    let project = library(&world, "", "\n[dependencies]\nmid = { path = \"mid\" }\n");
    let (mid, low) = (Project::create(project.at("mid")), Project::create(project.at("low")));
    mid.package("mid", "\n[dependencies]\nlow = { path = \"../low\" }\n");
    mid.write("src/lib.rs", "pub fn n() -> i32 { low::n() }\n");
    low.package("low", "\n[lib]\ncrate-type = [\"rlib\", \"cdylib\"]\n");
    low.write("src/lib.rs", "pub fn n() -> i32 { 42 }\n");
    let build = || {
        // Cargo looks at times.
        project.write("src/lib.rs", "pub fn n() -> i32 { mid::n() }\n");
        world.cargo(&project, &["build"]).run().ok()
    };
    world.assert_compiled(&build(), &["app lib", "low rlib", "mid lib"]);
    world.assert_all_hit(&build());
    // One file more in the archive.
    let mut library = project.read("target/debug/deps/liblow.rlib");
    library
        .extend(format!("{:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\nhi", "hi/", 0, 0, 0, 644, 2).bytes());
    project.write("target/debug/deps/liblow.rlib", library);
    world.assert_compiled(&build(), &["app lib", "mid lib"]);
}

/// What is linked is stored all the same.
#[test]
fn a_target_directory_that_is_named_by_a_way_up() {
    let world = world!();
    let project = small_app(&world, "app");
    for compiled in [&["app bin", "low lib"][..], &[]] {
        let done = world.cargo(&project, &["build", "--target-dir", "../target"]).run().ok();
        world.assert_compiled(&done, compiled);
        std::fs::remove_dir_all(world.at("ws/target")).unwrap();
    }
}

#[test]
fn dylib() {
    let world = world!();
    let project = library(&world, "crate-type = [\"dylib\"]", "");
    check(&world, &project, &["build"], &["app dylib"]);
    assert!(project.at("target/debug/libapp.so").exists());
}

#[test]
fn staticlib() {
    let world = world!();
    let project = library(&world, "crate-type = [\"staticlib\"]", "");
    check(&world, &project, &["build"], &["app staticlib"]);
    assert!(project.at("target/debug/libapp.a").exists());
}

#[test]
fn several_crate_types_at_once() {
    let world = world!();
    let types = "crate-type = [\"rlib\", \"cdylib\", \"staticlib\"]";
    let project = library(&world, types, "");
    check(&world, &project, &["build"], &["app rlib"]);
    for file in ["libapp.rlib", "libapp.so", "libapp.a"] {
        assert!(project.at("target/debug").join(file).exists(), "{file}");
    }
}

/// A package with every kind of target that cargo knows but procedural macros.
fn everything(world: &World) -> Project {
    let project = library(world, "", "");
    project.write("src/main.rs", "fn main() { println!(\"{}\", app::answer()); }\n");
    project.write("build.rs", "fn main() { println!(\"cargo::rerun-if-changed=build.rs\"); }\n");
    project.write("examples/show.rs", "fn main() { println!(\"show {}\", app::answer()); }\n");
    project.write("benches/speed.rs", "fn main() { app::answer(); }\n");
    project.write("tests/outside.rs", "#[test]\nfn works() { assert_eq!(app::answer(), 42); }\n");
    project
}

const BUILD_SCRIPT: &str = "build_script_build bin";

#[test]
fn bin_and_build_script() {
    let world = world!();
    let project = everything(&world);
    check(&world, &project, &["build"], &["app bin", "app lib", BUILD_SCRIPT]);
    let program = world.call(project.at("target/debug/app"), project.dir(), &[]);
    assert_eq!(program.run().ok().stdout, "42\n");
}

#[test]
fn release() {
    let world = world!();
    let want = ["app bin", "app lib", BUILD_SCRIPT];
    check(&world, &everything(&world), &["build", "--release"], &want);
}

#[test]
fn check_of_all_targets() {
    let world = world!();
    let want = [
        "app bin (check)",
        "app lib (check)",
        "app test (check)",
        "app test (check)",
        BUILD_SCRIPT,
        "outside test (check)",
        "show bin (check)",
        "speed test (check)",
    ];
    check(&world, &everything(&world), &["check", "--all-targets"], &want);
}

#[test]
fn test_harnesses() {
    let world = world!();
    let want =
        ["app bin", "app lib", "app test", "app test", BUILD_SCRIPT, "outside test", "show bin"];
    let project = everything(&world);
    check(&world, &project, &["test", "--no-run"], &want);
    let done = world.cargo(&project, &["test"]).run().ok();
    world.assert_all_hit(&done);
    assert!(done.stdout.contains("test works ... ok"), "{}", done.stdout);
}

#[test]
fn examples() {
    let world = world!();
    let want = ["app lib", BUILD_SCRIPT, "show bin"];
    check(&world, &everything(&world), &["build", "--examples"], &want);
}

#[test]
fn benches() {
    let world = world!();
    let project = everything(&world);
    let done = world.cargo(&project, &["bench", "--no-run"]).run().ok();
    assert!(done.compiled().contains(&"speed test".to_owned()), "{:?}", done.compiled());
    project.wipe();
    let done = world.cargo(&project, &["bench", "--no-run"]).run().ok();
    world.assert_all_hit(&done);
}

#[test]
fn clippy() {
    let world = world!();
    let project = everything(&world);
    project.write("src/lib.rs", "pub fn answer() -> i32 {\n    return 42;\n}\n");
    let done = world.cargo(&project, &["clippy"]).run().ok();
    assert!(done.runs.iter().any(|run| run.program == "clippy-driver" && run.is_compile()));
    assert!(done.stderr.contains("needless_return"), "{}", done.stderr);
    project.wipe();
    let again = world.cargo(&project, &["clippy"]).run().ok();
    world.assert_all_hit(&again);
    assert!(again.stderr.contains("needless_return"), "{}", again.stderr);
}

/// What clippy checked is no answer for rustc, nor the other way round.
#[test]
fn clippy_and_check_are_two_things() {
    let world = world!();
    let project = library(&world, "", "");
    project.write("src/lib.rs", "pub fn answer() -> i32 {\n    return 42;\n}\n");
    let check = world.cargo(&project, &["check"]).run().ok();
    assert!(!check.stderr.contains("needless_return"), "{}", check.stderr);
    project.wipe();
    let clippy = world.cargo(&project, &["clippy"]).run().ok();
    world.assert_compiled(&clippy, &["app lib (check)"]);
    assert!(clippy.stderr.contains("needless_return"), "{}", clippy.stderr);
    project.wipe();
    let check = world.cargo(&project, &["check"]).run().ok();
    assert!(!check.stderr.contains("needless_return"), "{}", check.stderr);
    world.assert_all_hit(&check);
}

#[test]
fn proc_macro() {
    let world = world!();
    let project = world.project("app");
    project.package("app", "\n[dependencies]\nmac = { path = \"mac\" }\n");
    project.write("src/main.rs", "fn main() { println!(\"{}\", mac::answer!()); }\n");
    let manifest = "[package]\nname = \"mac\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
    project.write("mac/Cargo.toml", format!("{manifest}\n[lib]\nproc-macro = true\n"));
    project.write(
        "mac/src/lib.rs",
        "#[proc_macro]\npub fn answer(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n    \
         \"42\".parse().unwrap()\n}\n",
    );
    check(&world, &project, &["build"], &["app bin", "mac proc-macro"]);
}

/// An empty set of records is asked for by profiles, too: each its own unit.
#[test]
fn profiles_are_apart() {
    let world = world!();
    let project = library(&world, "", "");
    check(&world, &project, &["build"], &["app lib"]);
    check(&world, &project, &["build", "--release"], &["app lib"]);
    check(&world, &project, &["check"], &["app lib (check)"]);
}

/// A workspace whose packages come from the registry, with build scripts and procedural macros.
#[test]
fn a_workspace_with_registry_crates() {
    let world = world!();
    let fetched = match registry::small(&world) {
        Ok(fetched) => fetched,
        Err(why) => skip!("{why}"),
    };
    let project = small_workspace(&world, fetched);
    let first = world.cargo(&project, &["build", "--workspace", "--all-targets"]).run().ok();
    for unit in
        ["serde_derive proc-macro", "serde lib", "libc lib", "anyhow lib", "one lib", "two bin"]
    {
        assert!(first.compiled().contains(&unit.to_owned()), "{unit}: {:?}", first.compiled());
    }
    project.wipe();
    let second = world.cargo(&project, &["build", "--workspace", "--all-targets"]).run().ok();
    world.assert_all_hit(&second);
    // Build scripts try whether some code compiles; what fails is not stored.
    let tried = second.runs.iter().filter(|run| run.is_compile()).count();
    let build = &world.stats()["build"];
    assert_eq!(build["miss"], tried, "{build:#}");
    assert_eq!(build["error"], 0, "{build:#}");
    assert_eq!(build["bypass"], 0, "{build:#}");
}
