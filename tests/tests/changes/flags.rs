//! Theme: arguments change (cfg, features, edition, profile, flags, target description, lints).

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::change::{Change, State};
use kiln_tests::{Project, World, world};

fn program(world: &World, expression: &str) -> Project {
    let project = world.project("app");
    let main = format!("fn main() {{ println!(\"{{}}\", {expression}); }}\n");
    project.package("app", "").write("main.rs", &main).write("src/main.rs", &main);
    project
}

/// By rustc alone, with these arguments in A and B.
fn check(expression: &str, a: (&str, &[&str]), b: (&str, &[&str])) {
    let world = world!();
    let project = program(&world, expression);
    let state = |(line, args): (&str, &[&str])| {
        args.iter().fold(State::prints(line), |state, arg| state.arg(arg))
    };
    Change::rustc(&world, &project, &[]).check(&state(a), &state(b));
}

#[test]
fn cfg() {
    check("cfg!(kt)", ("true", &["--cfg", "kt"]), ("false", &[]));
    check("cfg!(kt = \"2\")", ("false", &["--cfg=kt=\"1\""]), ("true", &["--cfg=kt=\"2\""]));
}

#[test]
fn edition() {
    let shown = "std::any::type_name_of_val(&[1].into_iter().next().unwrap())";
    check(shown, ("i32", &["--edition=2021"]), ("&i32", &["--edition=2018"]));
}

#[test]
fn codegen_flags() {
    let shown = "cfg!(debug_assertions)";
    check(shown, ("true", &["-Cdebug-assertions=on"]), ("false", &["-C", "debug-assertions=off"]));
    let shown = "cfg!(target_feature = \"avx\")";
    check(shown, ("false", &[]), ("true", &["-Ctarget-feature=+avx"]));
    check("cfg!(panic = \"abort\")", ("false", &[]), ("true", &["-Cpanic=abort"]));
}

/// Flags that change code, not behaviour: each is a unit of its own.
#[test]
fn flags_that_change_code_only() {
    let world = world!();
    let project = program(&world, "42");
    let change = Change::rustc(&world, &project, &[]);
    let flags = [
        "-Copt-level=1",
        "-Cdebuginfo=1",
        "-Cstrip=symbols",
        "-Ccodegen-units=1",
        "-Coverflow-checks=on",
        "-Clto=fat",
        "-Ctarget-cpu=x86-64-v2",
        "-Csymbol-mangling-version=v0",
        "-Cforce-frame-pointers=yes",
    ];
    change.build(&State::prints("42"));
    for flag in flags {
        assert!(change.build(&State::prints("42").arg(flag)).did_compile("app"), "{flag}");
    }
    for flag in flags {
        world.assert_all_hit(&change.build(&State::prints("42").arg(flag)));
    }
}

#[test]
fn features() {
    let world = world!();
    let project = program(&world, "cfg!(feature = \"kt\")");
    project.package("app", "\n[features]\nkt = []\n");
    let b = State::prints("true").arg("--features=kt");
    Change::cargo(&world, &project).check(&State::prints("false"), &b);
}

#[test]
fn profile_options() {
    let world = world!();
    let project = program(&world, "cfg!(debug_assertions)");
    let manifest = String::from_utf8(project.read("Cargo.toml")).unwrap();
    let state = |on: &str| {
        State::prints(on)
            .file("Cargo.toml", format!("{manifest}\n[profile.dev]\ndebug-assertions = {on}\n"))
    };
    Change::cargo(&world, &project).check(&state("true"), &state("false"));
}

#[test]
fn rustflags() {
    let world = world!();
    let project = program(&world, "cfg!(kt)");
    let b = State::prints("true").env("RUSTFLAGS", "--cfg kt --check-cfg=cfg(kt)");
    Change::cargo(&world, &project).check(&State::prints("false"), &b);
}

#[test]
fn rustflags_in_a_configuration_file() {
    let world = world!();
    let project = program(&world, "cfg!(kt)");
    let b =
        State::prints("true").file(".cargo/config.toml", "[build]\nrustflags = [\"--cfg=kt\"]\n");
    Change::cargo(&world, &project).check(&State::prints("false").absent(".cargo/config.toml"), &b);
}

#[test]
fn lint_levels() {
    let world = world!();
    let project = program(&world, "{ let x = 1; 42 }");
    let a = State::warns("unused variable").arg("--emit=metadata");
    let b =
        State::is_silent_about("unused variable").arg("--emit=metadata").arg("-Aunused-variables");
    Change::rustc(&world, &project, &[]).check(&a, &b);
    let deny = State::fails("unused variable").arg("--emit=metadata").arg("-Dunused-variables");
    let change = Change::rustc(&world, &project, &[]);
    change.build(&deny);
    world.assert_all_hit(&change.build(&b));
}

/// What a crate may be configured with decides which warnings there are.
#[test]
fn known_configurations() {
    let world = world!();
    let project = program(&world, "cfg!(kt)");
    let manifest = String::from_utf8(project.read("Cargo.toml")).unwrap();
    let lints = "\n[lints.rust]\nunexpected_cfgs = { level = \"warn\", check-cfg = ['cfg(kt)'] }\n";
    let a =
        State::is_silent_about("unexpected `cfg`").file("Cargo.toml", format!("{manifest}{lints}"));
    let b = State::warns("unexpected `cfg`").file("Cargo.toml", &manifest);
    Change::cargo(&world, &project).check(&a, &b);
    let declared = format!("{manifest}\n[features]\nkt = []\n");
    project.write("src/main.rs", "fn main() { println!(\"{}\", cfg!(feature = \"kt\")); }\n");
    let a = State::is_silent_about("unexpected `cfg`").file("Cargo.toml", declared);
    Change::cargo(&world, &project).check(&a, &b);
}

#[test]
fn unstable_features_for_all_or_some() {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", "#![feature(never_type)]\nfn main() { println!(\"42\"); }\n");
    for value in ["1", "app"] {
        let world = world!();
        let a = State::prints("42").env("RUSTC_BOOTSTRAP", value);
        let change = Change::rustc(&world, &project, &[]);
        change.check(&a, &State::fails("E0554"));
        change.build(&State::fails("E0554").env("RUSTC_BOOTSTRAP", "other"));
    }
}

/// A target description counts by its content, not by its name.
#[test]
fn a_target_description() {
    let world = world!();
    let project = world.project("x");
    let args = ["-Zunstable-options", "--print", "target-spec-json"];
    let spec = world
        .call(world.bin().join("rustc"), project.dir(), &args)
        .env("RUSTC_BOOTSTRAP", "1")
        .run()
        .ok();
    let spec = |vendor: &str| {
        spec.stdout.replace("\"is-builtin\": true", "\"is-builtin\": false").replacen(
            '{',
            &format!("{{ \"vendor\": \"{vendor}\","),
            1,
        )
    };
    project.write("main.rs", "#![feature(no_core)]\n#![no_core]\n#![allow(internal_features)]\n#[cfg(target_vendor = \"two\")]\nmod two;\n");
    let state = |state: State, vendor: &str| {
        state.file("kt.json", spec(vendor)).env("RUSTC_BOOTSTRAP", "1")
    };
    let args = ["--crate-type=lib", "--emit=metadata", "-Zunstable-options", "--target=kt.json"];
    let change = Change::rustc(&world, &project, &args);
    change.check(&state(State::builds(), "one"), &state(State::fails("E0583"), "two"));
}

/// The order of search directories decides which library is found.
#[test]
fn order_of_search_directories() {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", "extern crate low;\nfn main() { println!(\"{}\", low::n()); }\n");
    for n in ["1", "2"] {
        project.write("lib.rs", format!("pub fn n() -> i32 {{ {n} }}\n"));
        std::fs::create_dir_all(project.at(n)).unwrap();
        let out = format!("{n}/liblow.rlib");
        let args = ["--crate-name=low", "--crate-type=lib", "-o", &out, "lib.rs"];
        world.call(world.bin().join("rustc"), project.dir(), &args).run().ok();
    }
    let state = |n: &str| State::prints(n).arg("--extern").arg(&format!("low={n}/liblow.rlib"));
    let change = Change::rustc(&world, &project, &["-L1", "-L2"]);
    change.check(&state("1"), &state("2"));
}
