//! Theme: the tools change (compiler, clippy's settings) and what they read without saying so.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use kiln::silent::{VARIABLES, When};
use kiln_tests::change::{Change, State};
use kiln_tests::host::host;
use kiln_tests::toolchain::{link_entries, toolchain};
use kiln_tests::{Call, Project, World, world};

fn app(world: &World) -> Project {
    let project = world.project("app");
    project.package("app", "").write("src/main.rs", "fn main() { println!(\"42\"); }\n");
    project
}

/// Two compilers that say the same of themselves are two.
#[test]
fn another_compiler_of_the_same_version() {
    let world = world!();
    let project = app(&world);
    let mut stand_ins = Vec::new();
    for name in ["one", "two"] {
        let bin = toolchain(world.at(name), name.as_bytes());
        let dir = world.at(&format!("{name}-standin/bin"));
        world.install_standins(&dir, &bin);
        stand_ins.push(dir);
    }
    let version =
        |dir: &Path| world.call(dir.join("rustc"), world.root(), &["-vV"]).run().ok().stdout;
    assert_eq!(version(&stand_ins[0]), version(&stand_ins[1]));
    let build = |dir: &Path| {
        project.wipe();
        let call = world.cargo(&project, &["build"]).env("RUSTC", dir.join("rustc"));
        call.log(dir.join("runs.jsonl")).run().ok()
    };
    assert!(build(&stand_ins[0]).did_compile("app"));
    assert!(build(&stand_ins[1]).did_compile("app"), "another compiler");
    world.assert_all_hit(&build(&stand_ins[0]));
    world.assert_all_hit(&build(&stand_ins[1]));
}

/// A compiler that is replaced in place, as by an update of the distribution.
#[test]
fn a_compiler_that_is_replaced_in_place() {
    let world = world!();
    let project = app(&world);
    let bins = ["one", "two"].map(|name| toolchain(world.at(name), name.as_bytes()));
    let build = |bin: &Path| {
        project.wipe();
        std::fs::write(world.bin().join("toolchain"), bin.to_str().unwrap()).unwrap();
        world.cargo(&project, &["build"]).run().ok()
    };
    assert!(build(&bins[0]).did_compile("app"));
    assert!(build(&bins[1]).did_compile("app"), "another compiler");
    world.assert_all_hit(&build(&bins[0]));
}

/// One byte more in a library of the standard library of the target.
#[test]
fn another_standard_library() {
    let world = world!();
    let project = app(&world);
    let target = format!("lib/rustlib/{}-unknown-linux-gnu/lib", std::env::consts::ARCH);
    let real = host().toolchain.parent().unwrap().to_owned();
    let sysroot = |name: &str, more: &[u8]| {
        let dir = world.at(name);
        link_entries(&real.join(&target), &dir.join(&target), &["libpanic_abort"]);
        for entry in std::fs::read_dir(real.join(&target)).unwrap() {
            let file = entry.unwrap().file_name();
            if file.to_str().unwrap().starts_with("libpanic_abort") {
                let copy = dir.join(&target).join(&file);
                std::fs::copy(real.join(&target).join(&file), &copy).unwrap();
                std::fs::OpenOptions::new()
                    .append(true)
                    .open(copy)
                    .unwrap()
                    .write_all(more)
                    .unwrap();
            }
        }
        dir
    };
    let dirs = [sysroot("one", b""), sysroot("two", b"\n")];
    let build = |dir: &Path| {
        project.wipe();
        world
            .cargo(&project, &["build"])
            .env("RUSTFLAGS", format!("--sysroot={}", dir.display()))
            .run()
            .ok()
    };
    assert!(build(&dirs[0]).did_compile("app"));
    assert!(build(&dirs[1]).did_compile("app"), "another library");
    world.assert_all_hit(&build(&dirs[0]));
}

const LINTED: &str = "pub fn f(a: u8, b: u8, c: u8) -> u8 {\n    a + b + c\n}\n";
const FEW: &str = "too-many-arguments-threshold = 2\n";

/// A package below another directory, checked by clippy.
fn linted(world: &World) -> Project {
    let project = world.project("outer");
    let inner = Project::create(project.at("inner"));
    inner.package("app", "").write("src/lib.rs", LINTED);
    inner
}

#[test]
fn clippy_settings_that_appear() {
    let world = world!();
    let project = linted(&world);
    let change = Change::cargo_with(&world, &project, &["clippy"]);
    for file in ["clippy.toml", ".clippy.toml", "../clippy.toml", "../.clippy.toml"] {
        let a = State::is_silent_about("too many arguments").absent(file);
        let b = State::warns("too many arguments").file(file, FEW);
        change.build(&a);
        assert!(change.build(&b).did_compile("app"), "{file}");
        world.assert_all_hit(&change.build(&a));
    }
}

#[test]
fn clippy_settings_that_change() {
    let world = world!();
    let project = linted(&world);
    let state = |state: State, n: u8| {
        state.file("clippy.toml", format!("too-many-arguments-threshold = {n}\n"))
    };
    let a = state(State::is_silent_about("too many arguments"), 3);
    let b = state(State::warns("too many arguments"), 2);
    Change::cargo_with(&world, &project, &["clippy"]).check(&a, &b);
}

#[test]
fn clippy_settings_in_a_directory_of_their_own() {
    let world = world!();
    let project = linted(&world);
    project.write("conf/clippy.toml", FEW);
    let a = State::is_silent_about("too many arguments");
    let b = State::warns("too many arguments").env("CLIPPY_CONF_DIR", &project.text("conf"));
    Change::cargo_with(&world, &project, &["clippy"]).check(&a, &b);
}

#[test]
fn lints_given_to_cargo_clippy() {
    let world = world!();
    let project = linted(&world);
    project.write("src/lib.rs", "pub fn f(a: Option<u8>) -> u8 {\n    a.unwrap()\n}\n");
    let change = Change::cargo_with(&world, &project, &["clippy"]);
    let a = State::is_silent_about("unwrap_used");
    let b = State::warns("unwrap-used").arg("--").arg("-Wclippy::unwrap_used");
    change.build(&a);
    assert!(change.build(&b).did_compile("app"));
    world.assert_all_hit(&change.build(&a));
}

#[test]
fn links_in_the_text_of_clippy() {
    let world = world!();
    let project = linted(&world);
    project.write("src/lib.rs", "pub fn f() -> u8 {\n    return 1;\n}\n");
    let a = State::warns("for further information visit");
    let b = State::is_silent_about("for further information visit")
        .env("CLIPPY_DISABLE_DOCS_LINKS", "1");
    Change::cargo_with(&world, &project, &["clippy"]).check(&a, &b);
}

/// Variables that have no effect on this system, or need a tool that may be missing.
const NOT_HERE: &[&str] = &[
    "SDKROOT",
    "MACOSX_DEPLOYMENT_TARGET",
    // Set by cargo in every build; the tests of clippy's settings cover it.
    "CARGO_MANIFEST_DIR",
];

/// A value that the tools survive, or at least fail with.
fn value(name: &str) -> &'static str {
    match name {
        "LDEMULATION" => "elf_x86_64",
        "GNUTARGET" => "elf64-x86-64",
        "RUSTC_LOG" => "error",
        "RUSTC_FORCE_RUSTC_VERSION" | "RUSTC_OVERRIDE_VERSION_STRING" => "1.2.3",
        "LD_PRELOAD" => "/usr/lib/libkt-absent.so",
        "CLIPPY_ARGS" => "-Wclippy::pedantic__CLIPPY_HACKERY__",
        "GCC_COMPARE_DEBUG"
        | "RUSTC_BOOTSTRAP"
        | "RUSTC_BREAK_ON_ICE"
        | "CARGO_PRIMARY_PACKAGE" => "1",
        "CCC_OVERRIDE_OPTIONS" => "+-O1",
        _ => "/kt/absent",
    }
}

/// Every row of the table: a unit made without the variable is no answer for one with it, nor the
/// other way round.
#[test]
fn every_variable_that_is_read_silently() {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", "fn main() { println!(\"42\"); }\n");
    let rustc = world.bin().join("rustc");
    let call = |when: When| -> Call {
        let emit = if when == When::Link { "--emit=link" } else { "--emit=metadata" };
        let args = ["--crate-name=app", emit, "--out-dir=out", "main.rs"];
        if when != When::Clippy {
            return world.rustc(&project, &args);
        }
        let driver = world.bin().join("clippy-driver");
        let words = [driver.to_str().unwrap(), rustc.to_str().unwrap()];
        let words: Vec<&str> = words.into_iter().chain(args).collect();
        world.call(&world.programs.kiln, project.dir(), &words)
    };
    for when in [When::Always, When::Link, When::Clippy] {
        assert!(call(when).run().ok().did_compile("app"));
        world.assert_all_hit(&call(when).run().ok());
    }
    let mut tried = BTreeSet::new();
    for row in VARIABLES.iter().filter(|row| !NOT_HERE.contains(&row.name)) {
        let done = call(row.when).env(row.name, value(row.name)).run();
        assert!(done.did_compile("app"), "{} is read, yet there was a hit", row.name);
        world.assert_all_hit(&call(row.when).run().ok());
        tried.insert(row.name);
    }
    assert_eq!(tried.len() + NOT_HERE.len(), VARIABLES.len());
}
