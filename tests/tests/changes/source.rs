//! Theme: what a compile reads changes (sources, included files, variables, dependencies).

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::change::{Change, State};
use kiln_tests::{Project, World, samples, world};

/// A program that prints one expression, compiled by rustc alone.
fn check(expression: &str, a: State, b: State) {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", format!("fn main() {{ println!(\"{{}}\", {expression}); }}\n"));
    Change::rustc(&world, &project, &[]).check(&a, &b);
}

#[test]
fn the_source() {
    let main = |n: u32| format!("fn main() {{ println!(\"{n}\"); }}\n");
    check(
        "0",
        State::prints("1").file("main.rs", main(1)),
        State::prints("2").file("main.rs", main(2)),
    );
}

#[test]
fn an_included_text() {
    let state = |n: &str| State::prints(n).file("note.txt", n);
    check("include_str!(\"note.txt\")", state("one"), state("two"));
}

#[test]
fn included_bytes() {
    let state = |n: &str| State::prints(n).file("note.bin", vec![0; n.parse().unwrap()]);
    check("include_bytes!(\"note.bin\").len()", state("3"), state("4"));
}

#[test]
fn included_code() {
    let state = |n: &str| State::prints(n).file("code.rs", n);
    check("include!(\"code.rs\")", state("3"), state("4"));
}

/// Same size, same time of modification, other bytes.
#[test]
fn a_change_that_keeps_size_and_time() {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", "fn main() { println!(\"{}\", include_str!(\"note.txt\")); }\n");
    let change = Change::rustc(&world, &project, &[]);
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let build = |text: &str| {
        project.write("note.txt", text);
        std::fs::File::open(project.at("note.txt")).unwrap().set_modified(time).unwrap();
        change.build(&State::prints(text))
    };
    build("one");
    build("two");
    world.assert_all_hit(&build("one"));
}

#[test]
fn variables_of_env() {
    let state = |n: &str| State::prints(n).env("KT_VALUE", n);
    check("env!(\"KT_VALUE\")", state("one"), state("two"));
}

#[test]
fn variables_of_option_env() {
    const SHOWN: &str = "match option_env!(\"KT_VALUE\") { None => \"unset\".into(), Some(v) => format!(\"<{v}>\") }";
    let set = |n: &str| State::prints(&format!("<{n}>")).env("KT_VALUE", n);
    check(SHOWN, State::prints("unset"), set(""));
    check(SHOWN, set(""), set("1"));
    check(SHOWN, set("1"), State::prints("unset"));
    check(SHOWN, set("1"), set("1 "));
}

#[test]
fn a_module_that_moves() {
    check(
        "foo::n()",
        State::prints("1")
            .file("foo.rs", "pub fn n() -> i32 { 1 }")
            .absent("foo/mod.rs")
            .file("main.rs", MODULE),
        State::prints("2")
            .file("foo/mod.rs", "pub fn n() -> i32 { 2 }")
            .absent("foo.rs")
            .file("main.rs", MODULE),
    );
}

const MODULE: &str = "mod foo;\nfn main() { println!(\"{}\", foo::n()); }\n";

#[test]
fn a_module_that_becomes_ambiguous() {
    for (here, there) in [("foo.rs", "foo/mod.rs"), ("foo/mod.rs", "foo.rs")] {
        let world = world!();
        let project = world.project("x");
        project.write("main.rs", MODULE).write(here, "pub fn n() -> i32 { 1 }");
        let a = State::prints("1").absent(there);
        let b = State::fails("E0761").file(there, "pub fn n() -> i32 { 2 }");
        Change::rustc(&world, &project, &[]).check(&a, &b);
    }
}

/// A build script writes what the environment says.
#[test]
fn content_of_out_dir() {
    let world = world!();
    let project = world.project("app");
    project.package("app", "");
    project.write(
        "src/main.rs",
        "fn main() { println!(\"{}\", include!(concat!(env!(\"OUT_DIR\"), \"/n.rs\"))); }\n",
    );
    project.write(
        "build.rs",
        "fn main() {\n    println!(\"cargo::rerun-if-env-changed=KT_N\");\n    \
         let n = std::env::var(\"KT_N\").unwrap();\n    \
         std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/n.rs\", n).unwrap();\n}\n",
    );
    let state = |n: &str| State::prints(n).env("KT_N", n);
    Change::cargo(&world, &project).check(&state("1"), &state("2"));
}

#[test]
fn what_a_build_script_sets() {
    let world = world!();
    let project = world.project("app");
    project.package("app", "");
    project
        .write("src/main.rs", "fn main() { println!(\"{} {}\", env!(\"KT_SET\"), cfg!(kt)); }\n");
    project.write(
        "build.rs",
        "fn main() {\n    let n = std::env::var(\"KT_N\").unwrap();\n    \
         println!(\"cargo::rerun-if-env-changed=KT_N\\ncargo::rustc-env=KT_SET={n}\\ncargo::rustc-check-cfg=cfg(kt)\");\n    \
         if n == \"2\" { println!(\"cargo::rustc-cfg=kt\"); }\n}\n",
    );
    let a = State::prints("1 false").env("KT_N", "1");
    Change::cargo(&world, &project).check(&a, &State::prints("2 true").env("KT_N", "2"));
}

/// `app` uses `mid` uses `low`; only a body deep below changes.
#[test]
fn a_body_in_a_transitive_dependency() {
    let world = world!();
    let project = samples::chain(&world, "app", "low::n()");
    let state =
        |n: &str| State::prints(n).file("low/src/lib.rs", format!("pub fn n() -> i32 {{ {n} }}\n"));
    Change::cargo(&world, &project).watch(&["low", "app"]).check(&state("1"), &state("2"));
}

/// A library of one function, compiled without Kiln.
fn compiled_library(world: &World, project: &Project, name: &str, body: &str) -> Vec<u8> {
    project.write("lib.rs", format!("pub fn n() -> i32 {{ {body} }}\n"));
    let args =
        ["--crate-name", name, "--crate-type=lib", "--edition=2021", "-o", "made.rlib", "lib.rs"];
    world.call(world.bin().join("rustc"), project.dir(), &args).run().ok();
    project.read("made.rlib")
}

#[test]
fn a_crate_of_the_same_name() {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", "fn main() { println!(\"{}\", low::n()); }\n");
    let libraries = ["1", "2"].map(|n| compiled_library(&world, &project, "low", n));
    let state = |at: usize| State::prints(["1", "2"][at]).file("dep/liblow.rlib", &libraries[at]);
    Change::rustc(&world, &project, &["--extern", "low=dep/liblow.rlib"])
        .check(&state(0), &state(1));
}

#[test]
fn names_of_crates_swapped() {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", "fn main() { println!(\"{} {}\", one::n(), two::n()); }\n");
    for (name, n) in [("a", "1"), ("b", "2")] {
        let library = compiled_library(&world, &project, name, n);
        project.write(&format!("dep/lib{name}.rlib"), library);
    }
    let state = |line: &str, one: &str, two: &str| {
        State::prints(line)
            .arg(&format!("--extern=one=dep/lib{one}.rlib"))
            .arg(&format!("--extern=two=dep/lib{two}.rlib"))
    };
    Change::rustc(&world, &project, &[]).check(&state("1 2", "a", "b"), &state("2 1", "b", "a"));
}

/// A crate found in a search directory, not given by name.
#[test]
fn a_crate_found_by_search() {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", "extern crate low;\nfn main() { println!(\"{}\", low::n()); }\n");
    let libraries = ["1", "2"].map(|n| compiled_library(&world, &project, "low", n));
    let state = |at: usize| State::prints(["1", "2"][at]).file("dep/liblow.rlib", &libraries[at]);
    for search in ["dep", "crate=dep"] {
        Change::rustc(&world, &project, &["-L", search]).check(&state(0), &state(1));
    }
}

/// A package with a procedural macro that expands to the value of some code.
fn with_macro(world: &World, code: &str) -> Project {
    let project = world.project("app");
    project.package(
        "app",
        "\n[dependencies]\nmac = { path = \"mac\" }\n\n[workspace]\nmembers = [\"mac\"]\n",
    );
    project.write("src/main.rs", "fn main() { println!(\"{}\", mac::read!()); }\n");
    let manifest = "[package]\nname = \"mac\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[lib]\nproc-macro = true\n";
    project.write("mac/Cargo.toml", manifest);
    let body =
        format!("let text: String = {{ {code} }};\n    format!(\"{{text:?}}\").parse().unwrap()");
    project.write(
        "mac/src/lib.rs",
        format!("#[proc_macro]\npub fn read(_: proc_macro::TokenStream) -> proc_macro::TokenStream {{\n    {body}\n}}\n"),
    );
    project
}

#[test]
fn a_file_that_a_macro_reads() {
    let world = world!();
    let project = with_macro(
        &world,
        "std::fs::read_to_string(std::env::var(\"CARGO_MANIFEST_DIR\").unwrap() + \"/data/n\").unwrap()",
    );
    let state = |n: &str| State::prints(n).file("data/n", n);
    Change::cargo(&world, &project).check(&state("one"), &state("two"));
}

#[test]
fn a_directory_that_a_macro_lists() {
    let world = world!();
    let code = "std::fs::read_dir(std::env::var(\"CARGO_MANIFEST_DIR\").unwrap() + \"/data\").unwrap().count().to_string()";
    let project = with_macro(&world, code);
    project.write("data/a", "");
    let a = State::prints("1").absent("data/b");
    Change::cargo(&world, &project).check(&a, &State::prints("2").file("data/b", ""));
}

#[test]
fn a_variable_of_cargo_that_a_macro_reads() {
    let world = world!();
    let project = with_macro(&world, "std::env::var(\"CARGO_PKG_DESCRIPTION\").unwrap()");
    let manifest = String::from_utf8(project.read("Cargo.toml")).unwrap();
    let state = |n: &str| {
        let text = manifest.replace("edition = ", &format!("description = \"{n}\"\nedition = "));
        State::prints(n).file("Cargo.toml", text)
    };
    Change::cargo(&world, &project).check(&state("one"), &state("two"));
}

#[test]
fn any_variable_that_a_macro_reads() {
    let world = world!();
    let project = with_macro(&world, "std::env::var(\"KT_VALUE\").unwrap()");
    let state = |n: &str| State::prints(n).env("KT_VALUE", n);
    Change::cargo(&world, &project).check(&state("one"), &state("two"));
}

#[test]
fn a_file_outside_of_the_package_that_a_macro_reads() {
    let world = world!();
    let file = world.at("outside");
    let project = with_macro(&world, &format!("std::fs::read_to_string({file:?}).unwrap()"));
    let change = Change::cargo(&world, &project);
    for n in ["one", "two", "one"] {
        std::fs::write(&file, n).unwrap();
        change.build(&State::prints(n));
    }
}

/// A macro's own code changes; the crate that uses it must not stay.
#[test]
fn the_code_of_a_macro() {
    let world = world!();
    let project = with_macro(&world, "\"one\".into()");
    let source = String::from_utf8(project.read("mac/src/lib.rs")).unwrap();
    let state = |n: &str| State::prints(n).file("mac/src/lib.rs", source.replace("one", n));
    Change::cargo(&world, &project).watch(&["mac", "app"]).check(&state("one"), &state("two"));
}

/// A source that changes while the compiler runs is not stored under the new content.
#[test]
fn a_source_that_changes_during_the_compile() {
    let world = world!();
    let project = world.project("app");
    project.package("app", "").write("src/main.rs", "fn main() { println!(\"1\"); }\n");
    let gate = kiln_tests::server::Gate::new(&world.bin(), "app");
    let running = world.cargo(&project, &["build"]).spawn();
    let held = gate.wait();
    project.write("src/main.rs", "fn main() { println!(\"2\"); }\n");
    gate.open();
    drop(held);
    running.wait().ok();
    let change = Change::cargo(&world, &project);
    change.build(&State::prints("1").file("src/main.rs", "fn main() { println!(\"1\"); }\n"));
    change.build(&State::prints("2").file("src/main.rs", "fn main() { println!(\"2\"); }\n"));
}
