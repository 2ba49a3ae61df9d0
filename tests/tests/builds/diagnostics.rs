//! Theme: what the compiler says comes back byte for byte, in every form, and failures are left as
//! they are.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::{Done, Project, World, world};

/// A workspace of two packages with warnings: an unused import over several lines, a deprecated
/// use, and one that names a dependency's source.
fn warning(world: &World) -> Project {
    let project = world.project("app");
    project.package(
        "app",
        "\n[dependencies]\nlow = { path = \"low\" }\n\n[workspace]\nmembers = [\"low\"]\n",
    );
    let manifest = "[package]\nname = \"low\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
    project.write("low/Cargo.toml", manifest);
    // A warning about a generated file names it by its full path, which is remapped.
    project.write(
        "low/build.rs",
        "fn main() {\n    println!(\"cargo::rerun-if-changed=build.rs\");\n    \
         let text = \"fn generated() { }\";\n    \
         std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/g.rs\", text).unwrap();\n}\n",
    );
    project.write(
        "low/src/lib.rs",
        "use std::collections::{BTreeMap,\n    HashMap};\n\n/// Old.\n#[deprecated(note = \"ünïcode — use new\")]\n\
         pub fn old() {}\n\n#[macro_export]\nmacro_rules! unused { () => { let x = 1; }; }\n\n\
         pub fn file() -> &'static str { file!() }\n\
         mod generated { include!(concat!(env!(\"OUT_DIR\"), \"/g.rs\")); }\n",
    );
    project.write("src/main.rs", "fn main() {\n    low::old();\n    low::unused!();\n    println!(\"{}\", low::file());\n}\n");
    project
}

/// What the compiler said, without cargo's own words.
fn said(done: &Done) -> String {
    let own = ["Compiling", "Checking", "Finished", "Fresh", "Locking", "Running"];
    let is_own = |line: &str| {
        let plain: String = strip_escapes(line);
        own.iter().any(|word| plain.trim_start().starts_with(word))
    };
    done.stderr.lines().filter(|line| !is_own(line)).map(|line| format!("{line}\n")).collect()
}

fn strip_escapes(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("\u{1b}[") {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 2..];
        rest = tail.find(|c: char| c.is_ascii_alphabetic()).map_or("", |end| &tail[end + 1..]);
    }
    out + rest
}

/// The compiler's messages of a JSON build, as cargo passed them on.
fn messages(done: &Done) -> Vec<String> {
    let of_compiler = |line: &&str| line.contains("\"reason\":\"compiler-message\"");
    done.stdout.lines().filter(of_compiler).map(str::to_owned).collect()
}

/// Plain cargo, a build through Kiln, and a restored one: all say the same.
#[track_caller]
fn check(args: &[&str]) {
    let world = world!();
    let project = warning(&world);
    let plain = world.plain_cargo(&project, args).run().ok();
    project.wipe();
    let compiled = world.cargo(&project, args).run().ok();
    project.wipe();
    let restored = world.cargo(&project, args).run().ok();
    world.assert_all_hit(&restored);
    // Two packages may end in either order.
    let sorted = |done: &Done| {
        let mut all = messages(done);
        all.sort_unstable();
        (blocks(&said(done)), all)
    };
    let (plain, compiled, restored) = (sorted(&plain), sorted(&compiled), sorted(&restored));
    assert!(!plain.0.is_empty() || !plain.1.is_empty(), "the compiler says something");
    assert_eq!(compiled, plain, "compiled through Kiln");
    assert_eq!(restored, plain, "restored");
}

/// Paragraphs in a fixed order.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = text.split("\n\n").map(|b| b.trim_end().to_owned()).collect();
    blocks.sort_unstable();
    blocks.retain(|b| !b.is_empty());
    blocks
}

#[test]
fn plain_text() {
    check(&["build", "-j1"]);
}

#[test]
fn coloured_text() {
    check(&["build", "-j1", "--color", "always"]);
}

#[test]
fn short_text() {
    check(&["build", "-j1", "--message-format=short"]);
}

#[test]
fn json() {
    check(&["build", "-j1", "--message-format=json"]);
}

#[test]
fn json_with_rendered_ansi() {
    check(&["check", "-j1", "--message-format=json-diagnostic-rendered-ansi"]);
}

#[test]
fn json_short() {
    check(&["check", "-j1", "--message-format=json-diagnostic-short"]);
}

#[test]
fn clippy() {
    check(&["clippy", "-j1"]);
}

/// rustc without cargo: the human form, whatever colour is asked for.
#[test]
fn human_form_of_rustc() {
    let world = world!();
    let project = world.project("x");
    project.write("x.rs", "use std::fmt;\nfn f() {}\n");
    for color in ["--color=never", "--color=always", "--color=auto"] {
        let args = [
            "--crate-name=x",
            "--crate-type=lib",
            "--emit=metadata",
            "--out-dir",
            "out",
            color,
            "x.rs",
        ];
        let plain = world.call(world.bin().join("rustc"), project.dir(), &args).run().ok();
        let first = world.rustc(&project, &args).run().ok();
        let again = world.rustc(&project, &args).run().ok();
        assert!(plain.stderr.contains("unused import"), "{}", plain.stderr);
        assert_eq!(first.stderr, plain.stderr, "{color}");
        assert_eq!(again.stderr, plain.stderr, "{color}");
        world.assert_all_hit(&again);
    }
}

/// A terminal's width decides where lines break, so it counts where there is a diagnostic.
#[test]
fn the_width_counts_where_there_is_a_diagnostic() {
    let world = world!();
    let project = world.project("x");
    let long = format!("fn f() -> i32 {{ let unused = {}1; 1 }}\n", "1 + ".repeat(60));
    project.write("x.rs", long);
    let build = |width: &str| {
        let base = ["--crate-name=x", "--crate-type=lib", "--emit=metadata", "--out-dir", "out"];
        let json = ["--error-format=json", "--json=diagnostic-rendered-ansi", "x.rs"];
        let args: Vec<&str> = base.into_iter().chain(json).chain([width]).collect();
        world.rustc(&project, &args).run().ok()
    };
    let wide = build("--diagnostic-width=200");
    let narrow = build("--diagnostic-width=40");
    assert_ne!(wide.stderr, narrow.stderr);
    assert_eq!(build("--diagnostic-width=200").stderr, wide.stderr);
    let again = build("--diagnostic-width=40");
    assert_eq!(again.stderr, narrow.stderr);
    world.assert_all_hit(&again);
}

/// Diagnostics of another checkout name the files of that checkout.
#[test]
fn diagnostics_name_this_checkout() {
    let world = world!();
    let one = warning(&world);
    let args = ["build", "-j1", "--message-format=json"];
    world.cargo(&one, &args).run().ok();
    let two = one.copy_to(world.at("ws/else/where"));
    let done = world.cargo(&two, &args).run().ok();
    let place = format!("{}/target/", two.dir().display());
    assert!(
        messages(&done).iter().any(|m| m.contains(&place) && m.contains("/g.rs:1:")),
        "{}",
        done.stdout
    );
    let first = one.dir().to_str().unwrap();
    for message in messages(&done) {
        assert!(!message.contains(&format!("{first}/")), "{message}");
        assert!(!message.contains("/kiln/"), "{message}");
    }
}

#[test]
fn a_failing_compile_is_left_as_it_is_and_not_stored() {
    let world = world!();
    let project = world.project("app");
    project.package("app", "");
    project.write("src/main.rs", "use std::fmt;\nfn main() { let x: i32 = \"no\"; }\n");
    let plain = world.plain_cargo(&project, &["build"]).run().fails();
    project.wipe();
    for _ in 0..2 {
        let done = world.cargo(&project, &["build"]).run().fails();
        assert_eq!(done.status.code(), plain.status.code());
        // cargo names the command that failed only for odd statuses.
        assert_eq!(said(&done), said(&plain));
        assert!(done.did_compile("app"));
    }
    assert_eq!(world.stats()["store"]["results"], 0);
    assert!(!project.at("target/debug/app").exists());
}

/// rustc's own status passes through, for a wrong use of it too.
#[test]
fn exit_status_of_rustc() {
    let world = world!();
    let project = world.project("x");
    for args in [
        &["--crate-name=x", "absent.rs"][..],
        &["--no-such-flag", "x.rs"],
        &["--edition=1999", "x.rs"],
    ] {
        let plain = world.call(world.bin().join("rustc"), project.dir(), args).run().fails();
        let through = world.rustc(&project, args).run().fails();
        assert_eq!(through.status.code(), plain.status.code(), "{args:?}");
        assert_eq!(through.stderr, plain.stderr, "{args:?}");
    }
}

#[test]
fn a_compile_killed_by_a_signal_is_reported_as_such_and_not_stored() {
    let world = world!();
    let project = world.project("app");
    project.package("app", "");
    project.write("src/main.rs", "fn main() { println!(\"42\"); }\n");
    std::fs::write(world.bin().join("app.kill"), "").unwrap();
    let plain = world.plain_cargo(&project, &["build"]).run().fails();
    assert!(plain.stderr.contains("signal: 9"), "{}", plain.stderr);
    project.wipe();
    let done = world.cargo(&project, &["build"]).run().fails();
    assert!(done.stderr.contains("signal: 9"), "{}", done.stderr);
    assert_eq!(done.status.code(), plain.status.code());
    assert_eq!(world.stats()["store"]["results"], 0);
    std::fs::remove_file(world.bin().join("app.kill")).unwrap();
    let done = world.cargo(&project, &["build"]).run().ok();
    assert!(done.did_compile("app"));
}

/// A warning that was fixed is gone, and comes back with the code that had it.
#[test]
fn no_stale_warnings() {
    let world = world!();
    let project = world.project("app");
    project.package("app", "");
    let build = |source: &str| {
        project.wipe().write("src/lib.rs", source);
        world.cargo(&project, &["check"]).run().ok()
    };
    let bad = "fn unused() {}\n";
    assert!(build(bad).stderr.contains("never used"));
    assert!(!build("pub fn used() {}\n").stderr.contains("never used"));
    let again = build(bad);
    assert!(again.stderr.contains("never used"));
    world.assert_all_hit(&again);
}
