//! Theme: what Kiln does not store passes through untouched, with its reason; its modes; and the
//! one thing that stops a build, a malformed setting.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::{Call, Project, World, world};

fn app(world: &World) -> Project {
    let project = world.project("app");
    project.package("app", "").write("src/main.rs", "fn main() { println!(\"42\"); }\n");
    project.write("main.rs", "fn main() { println!(\"42\"); }\n");
    project
}

/// Runs the same call twice: both reach the compiler, and the reason is counted.
#[track_caller]
fn check(world: &World, call: &Call, reason: &str) {
    for _ in 0..2 {
        let done = call.clone().run().ok();
        assert!(done.runs.iter().any(kiln_tests::Run::is_compile), "{reason}: it compiles");
    }
    let stats = world.stats();
    assert_eq!(stats["bypass_reasons"][reason], 2, "{stats:#}");
    assert_eq!(stats["store"]["results"], 0, "{stats:#}");
}

#[test]
fn incremental_units_are_untouched() {
    let world = world!();
    let project = app(&world);
    let build = || world.cargo(&project, &["build"]).env("CARGO_INCREMENTAL", "1");
    let done = build().run().ok();
    let run = done.runs.iter().find(|run| run.is_compile()).unwrap();
    assert!(
        run.args.iter().any(|a| a.starts_with("incremental=") || a.contains("-Cincremental")),
        "{run:?}"
    );
    assert!(!run.args.iter().any(|a| a.contains("remap-path-prefix")), "untouched: {run:?}");
    project.wipe();
    assert!(build().run().ok().did_compile("app"));
    assert_eq!(world.stats()["bypass_reasons"]["incremental"], 2);
}

#[test]
fn a_long_source_on_standard_input() {
    let world = world!();
    let project = app(&world);
    let args = ["--crate-name", "app", "--emit=link", "--out-dir", "out", "-"];
    let long = format!("// {}\nfn main() {{}}\n", "x".repeat(1 << 20));
    check(&world, &world.rustc(&project, &args).stdin(long.as_bytes()), "stdin-source");
}

#[test]
fn output_on_standard_output() {
    let world = world!();
    let project = app(&world);
    let args = ["--crate-name", "app", "--crate-type=lib", "--emit=asm", "-o", "-", "main.rs"];
    let call = world.rustc(&project, &args);
    let plain = world.call(world.bin().join("rustc"), project.dir(), &args).run().ok();
    assert_eq!(call.clone().run().ok().stdout, plain.stdout);
    call.run().ok();
    let stats = world.stats();
    assert_eq!(stats["bypass"], 2, "{stats:#}");
}

#[test]
fn one_kind_of_output_in_a_file_of_its_own() {
    let world = world!();
    let project = app(&world);
    let args = ["--crate-name=app", "--crate-type=lib", "--emit=asm=x.s", "main.rs"];
    check(&world, &world.rustc(&project, &args), "emit-to-file");
    assert!(project.at("x.s").exists());
}

#[test]
fn save_temps() {
    let world = world!();
    let project = app(&world);
    let args = ["--crate-name=app", "-Csave-temps", "--out-dir", "out", "main.rs"];
    check(&world, &world.rustc(&project, &args), "save-temps");
}

#[test]
fn flags_with_effects_of_their_own() {
    let world = world!();
    let project = app(&world);
    let base = ["--crate-name=app", "--crate-type=lib", "--out-dir", "out", "main.rs"];
    check(&world, &world.rustc(&project, &base).args(&["-Cremark=all"]), "unsupported-flag");
}

/// A file that an argument of LLVM names may lie in the working directory.
#[test]
fn arguments_of_llvm_that_name_a_file() {
    let world = world!();
    let project = app(&world);
    let base = ["--crate-name=app", "--crate-type=lib", "--out-dir", "out", "main.rs"];
    let call = world.rustc(&project, &base).args(&["-Cllvm-args=-info-output-file=stats.txt"]);
    check(&world, &call, "unsupported-flag");
}

#[test]
fn unknown_flags_that_name_a_file() {
    let world = world!();
    let project = app(&world);
    project.write("some.txt", "");
    let base = ["--crate-name=app", "--crate-type=lib", "--out-dir", "out", "main.rs"];
    let call = world.rustc(&project, &base).env("RUSTC_BOOTSTRAP", "1");
    check(&world, &call.args(&["-Zcrate-attr=doc = \"a/b.txt\""]), "unknown-flag");
}

#[test]
fn prints_along_with_a_compile() {
    let world = world!();
    let project = app(&world);
    let args = [
        "--crate-name=app",
        "--crate-type=staticlib",
        "--print=native-static-libs",
        "--out-dir",
        "out",
        "main.rs",
    ];
    let call = world.rustc(&project, &args);
    for _ in 0..2 {
        let done = call.clone().run().ok();
        assert!(done.stderr.contains("native-static-libs"), "{}", done.stderr);
    }
    assert_eq!(world.stats()["bypass_reasons"]["print"], 2);
}

#[test]
fn an_argument_file_that_is_not_there() {
    let world = world!();
    let project = app(&world);
    let args = ["--crate-name=app", "@absent", "main.rs"];
    let plain = world.call(world.bin().join("rustc"), project.dir(), &args).run().fails();
    let done = world.rustc(&project, &args).run().fails();
    assert_eq!((done.status.code(), done.stderr), (plain.status.code(), plain.stderr));
    assert_eq!(world.stats()["bypass_reasons"]["argument-file"], 1);
}

/// An argument file is part of the arguments: its content counts, not its name.
#[test]
fn argument_files_are_read() {
    let world = world!();
    let project = app(&world);
    project.write("main.rs", "fn main() { println!(\"{}\", cfg!(one)); }\n");
    let build = |cfg: &str| {
        project.write("args", format!("--cfg\n{cfg}\n"));
        let args = ["--crate-name=app", "--out-dir", "out", "--emit=link", "@args", "main.rs"];
        let done = world.rustc(&project, &args).run().ok();
        let program = world.call(project.at("out/app"), project.dir(), &[]).run().ok();
        (done, program.stdout)
    };
    assert_eq!(build("one").1, "true\n");
    assert_eq!(build("two").1, "false\n");
    let (done, printed) = build("one");
    assert_eq!(printed, "true\n");
    world.assert_all_hit(&done);
}

#[test]
fn another_wrapper_in_between() {
    let world = world!();
    let project = app(&world);
    let wrapper = project.at("wrap");
    project.write("wrap", "#!/bin/sh\nexec \"$@\"\n");
    std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let call = world.cargo(&project, &["build"]).env("RUSTC_WORKSPACE_WRAPPER", &wrapper);
    assert!(call.clone().run().ok().did_compile("app"));
    project.wipe();
    assert!(call.run().ok().did_compile("app"));
    assert_eq!(world.stats()["bypass_reasons"]["unknown-wrapper"], 2);
}

/// Probes are no units and reach the compiler.
#[test]
fn probes_are_no_units() {
    let world = world!();
    let project = app(&world);
    for args in [&["-vV"][..], &["--version"], &["--print", "sysroot"], &["--print=cfg"]] {
        let plain = world.call(world.bin().join("rustc"), project.dir(), args).run().ok();
        assert_eq!(world.rustc(&project, args).run().ok().stdout, plain.stdout, "{args:?}");
    }
    assert_eq!(world.stats()["units"], 0);
}

#[test]
fn mode_off_only_runs_the_compiler() {
    let world = world!();
    let project = app(&world);
    for _ in 0..2 {
        let done = world.cargo(&project, &["build"]).env("KILN_MODE", "off").run().ok();
        assert!(done.did_compile("app"));
        assert!(world.server().is_none(), "no server is started");
        project.wipe();
    }
}

#[test]
fn mode_read_stores_nothing_and_hits() {
    let world = world!();
    let project = app(&world);
    let read = || world.cargo(&project, &["build"]).env("KILN_MODE", "read").run().ok();
    assert!(read().did_compile("app"));
    project.wipe();
    assert!(read().did_compile("app"), "nothing was stored");
    project.wipe();
    world.cargo(&project, &["build"]).run().ok();
    project.wipe();
    world.assert_all_hit(&read());
}

#[test]
fn mode_refresh_compiles_and_replaces() {
    let world = world!();
    let project = app(&world);
    world.cargo(&project, &["build"]).run().ok();
    project.wipe();
    let done = world.cargo(&project, &["build"]).env("KILN_MODE", "refresh").run().ok();
    assert!(done.did_compile("app"));
    assert_eq!(world.stats()["miss_reasons"]["refresh"], 1);
    project.wipe();
    let done = world.cargo(&project, &["build"]).run().ok();
    world.assert_all_hit(&done);
}

#[test]
fn malformed_settings_stop_the_build_at_once() {
    let world = world!();
    let project = app(&world);
    for (name, value) in [
        ("KILN_MODE", "write"),
        ("KILN_PATHS", "short"),
        ("KILN_DIR", "relative/path"),
        ("KILN_IDLE", "soon"),
        ("KILN_CACHE_SIZE", "lots"),
        ("KILN_STORAGE", "ftp://x"),
        ("KILN_SERVER", "localhost"),
        ("KILN_LOG", "loud"),
        ("KILN_VERIFY", "10"),
        ("KILN_REPORT_FILE", "relative/path"),
        ("KILN_MATRIX", "linux, stable"),
    ] {
        let done = world.rustc(&project, &["--crate-name=app", "main.rs"]).env(name, value).run();
        assert_eq!(done.status.code(), Some(2), "{name}: {}", done.stderr);
        assert!(done.stderr.contains(name) && done.stderr.contains("accepts"), "{}", done.stderr);
        assert!(done.runs.is_empty(), "{name}: no compiler runs");
        let build = world.cargo(&project, &["build"]).env(name, value).run().fails();
        assert!(build.stderr.contains(name), "cargo shows it: {}", build.stderr);
        let stats = world.kiln(&["stats"]).env(name, value).run();
        assert_eq!(stats.status.code(), Some(2), "{name}: {}", stats.stderr);
    }
    assert!(world.server().is_none());
}

/// Empty settings mean the default.
#[test]
fn empty_settings_are_unset_ones() {
    let world = world!();
    let project = app(&world);
    let names = [
        "KILN_MODE",
        "KILN_PATHS",
        "KILN_SERVER",
        "KILN_STORAGE",
        "KILN_CACHE_SIZE",
        "KILN_LOG",
        "KILN_VERIFY",
        "KILN_REPORT_FILE",
        "KILN_MATRIX",
    ];
    let build = || {
        let call = world.cargo(&project, &["build"]);
        names.iter().fold(call, |call, name| call.env(name, "")).run().ok()
    };
    build();
    project.wipe();
    world.assert_all_hit(&build());
}

#[test]
fn without_a_home_everything_is_compiled() {
    let world = world!();
    let project = app(&world);
    let args = ["--crate-name=app", "--out-dir", "out", "main.rs"];
    let call =
        world.rustc(&project, &args).without("HOME").without("KILN_DIR").without("CARGO_HOME");
    for _ in 0..2 {
        let done = call.clone().run().ok();
        assert!(done.did_compile("app"));
        assert_eq!(done.stderr, "");
    }
}

/// A home that cannot be written.
#[test]
fn without_a_place_for_state_everything_is_compiled() {
    let world = world!();
    let project = app(&world);
    project.write("file", "");
    let call = world.cargo(&project, &["build"]).env("KILN_DIR", project.at("file/below"));
    for _ in 0..2 {
        assert!(call.clone().run().ok().did_compile("app"));
        project.wipe();
    }
}

#[test]
fn a_path_that_is_not_utf8() {
    use std::os::unix::ffi::OsStringExt;
    let world = world!();
    let odd = world.root().join(std::ffi::OsString::from_vec(b"od\xffd".to_vec()));
    let project = Project::create(odd);
    project.package("app", "").write("src/main.rs", "fn main() { println!(\"42\"); }\n");
    let done = world.cargo(&project, &["build"]).run();
    let plain = world.plain_cargo(&project, &["build"]).run();
    assert_eq!(done.status.code(), plain.status.code(), "{}\n{}", done.stderr, plain.stderr);
}
