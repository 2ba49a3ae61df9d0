//! Theme: what stands between a source and a crate: chains of includes, links, macros of dependencies, and
//! procedural macros that are themselves made of other crates. Each is tried with observation and
//! without, except where only observation can be right.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::Path;

use kiln_tests::change::{Change, State};
use kiln_tests::direct::With;
use kiln_tests::project::copy_tree;
use kiln_tests::trap::{Place, SHOW, Stored, Way};
use kiln_tests::{Project, World, world};

const BOTH: [&str; 2] = ["on", "off"];

/// A program, compiled by rustc alone; it goes from one state to another and back in both ways.
fn check(main: &str, a: impl Fn() -> State, b: impl Fn() -> State) {
    for way in BOTH {
        let world = world!();
        let project = world.project("x");
        project.write("main.rs", main);
        let (a, b) = (a().env("KILN_OBSERVE", way), b().env("KILN_OBSERVE", way));
        Change::rustc(&world, &project, &[]).check(&a, &b);
    }
}

#[test]
fn a_chain_of_includes() {
    let state = |n: &str| {
        State::prints(n)
            .file("one.rs", "include!(\"deep/two.rs\")")
            .file("deep/two.rs", "include!(\"three.rs\")")
            .file("deep/three.rs", "include_str!(\"four.txt\")")
            .file("deep/four.txt", n)
    };
    let main = "fn main() { println!(\"{}\", include!(\"one.rs\")); }\n";
    check(main, || state("1"), || state("2"));
}

#[test]
fn a_module_at_a_path_of_its_own() {
    let state = |n: &str| {
        let code = format!("pub fn n() -> i32 {{ {n} }}");
        State::prints(n).file("far/away.rs", "pub mod below;").file("far/below.rs", code)
    };
    let main = "#[path = \"far/away.rs\"] mod m;\nfn main() { println!(\"{}\", m::below::n()); }\n";
    check(main, || state("1"), || state("2"));
}

#[test]
fn a_module_of_a_module_that_moves() {
    let main = "mod a { pub mod b; }\nfn main() { println!(\"{}\", a::b::n()); }\n";
    check(
        main,
        || State::prints("1").absent("a/b").file("a/b.rs", "pub fn n() -> i32 { 1 }"),
        || State::prints("2").absent("a/b.rs").file("a/b/mod.rs", "pub fn n() -> i32 { 2 }"),
    );
}

/// A link in place of a source, or of a directory on the way, leads elsewhere.
#[test]
fn a_source_behind_a_link() {
    for (link, targets) in [("note.txt", ["a/note.txt", "b/note.txt"]), ("dir", ["a", "b"])] {
        for way in BOTH {
            let world = world!();
            let project = world.project("x");
            project.write("a/note.txt", "one").write("b/note.txt", "two");
            let file = if link == "dir" { "dir/note.txt" } else { link };
            project.write(
                "main.rs",
                format!("fn main() {{ println!(\"{{}}\", include_str!(\"{file}\")); }}\n"),
            );
            let change = Change::rustc(&world, &project, &[]);
            let build = |to: &str, n: &str| {
                let _ = std::fs::remove_file(project.at(link));
                std::os::unix::fs::symlink(to, project.at(link)).unwrap();
                change.build(&State::prints(n).env("KILN_OBSERVE", way))
            };
            build(targets[0], "one");
            assert!(build(targets[1], "two").did_compile("app"));
            world.assert_all_hit(&build(targets[0], "one"));
        }
    }
}

/// A source names a file by its whole path: that is one file, wherever the source is compiled.
#[test]
fn a_file_by_its_whole_path() {
    for way in [Way::Observed, Way::Conservative] {
        let place = Place::new(world!(), way, "String::new()", SHOW);
        let file = place.desk.text("ws/pk/data/n");
        let program = format!("fn main() {{ print!(\"{{}}\", include_str!({file:?}).len()) }}\n");
        place.write("ws/pk/src/main.rs", program);
        one(&place);
        assert_eq!(place.same("the first checkout"), "3");
        let second = place.at("second");
        copy_tree(&place.at("ws"), &second, &[]);
        place.write("ws/pk/data/n", "three");
        assert_eq!(place.same_in(&second, Path::new("pk/src/main.rs")), "5");
    }
}

#[test]
fn documentation_from_a_file() {
    for way in BOTH {
        let world = world!();
        let project = world.project("x");
        project.write("main.rs", "#![deny(rustdoc::all)]\n#![doc = include_str!(\"README.md\")]\nfn main() { println!(\"{}\", include_bytes!(\"README.md\").len()); }\n");
        let state = |n: &str| {
            State::prints(&n.len().to_string()).file("README.md", n).env("KILN_OBSERVE", way)
        };
        Change::rustc(&world, &project, &[]).check(&state("one"), &state("three"));
    }
}

// Macros by example ------------------------------------------------------------------------------

fn manifest(name: &str, more: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n{more}")
}

/// `app` prints what a macro of the library `low` gives.
fn with_macro_of_dependency(world: &World, body: &str) -> Project {
    let project = world.project("app");
    project.package(
        "app",
        "\n[dependencies]\nlow = { path = \"low\" }\n\n[workspace]\nmembers = [\"low\"]\n",
    );
    project.write("src/main.rs", "fn main() { println!(\"{}\", low::show!()); }\n");
    project.write("low/Cargo.toml", manifest("low", ""));
    project.write(
        "low/src/lib.rs",
        format!("#[macro_export]\nmacro_rules! show {{ () => {{ {body} }} }}\n"),
    );
    project
}

#[test]
fn a_macro_of_a_dependency_that_reads() {
    for (body, variable) in [
        ("env!(\"KT_VALUE\")", true),
        ("option_env!(\"KT_VALUE\").unwrap_or_default()", true),
        ("include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/data/n\"))", false),
        ("include_str!(\"../data/n\")", false),
    ] {
        for way in BOTH {
            let world = world!();
            let project = with_macro_of_dependency(&world, body);
            let state = |n: &str| {
                let state = State::prints(n).env("KILN_OBSERVE", way);
                if variable { state.env("KT_VALUE", n) } else { state.file("data/n", n) }
            };
            Change::cargo(&world, &project).check(&state("one"), &state("two"));
        }
    }
}

#[test]
fn a_variable_that_a_configuration_file_sets() {
    for way in BOTH {
        let world = world!();
        let project = with_macro_of_dependency(&world, "env!(\"KT_VALUE\")");
        let state = |n: &str| {
            let file = format!("[env]\nKT_VALUE = \"{n}\"\n");
            State::prints(n).env("KILN_OBSERVE", way).file(".cargo/config.toml", file)
        };
        Change::cargo(&world, &project).check(&state("one"), &state("two"));
    }
}

// Procedural macros and what they are made of ------------------------------------------------------

const MACRO: &str = "\n[lib]\nproc-macro = true\n";

/// `app` prints what the macro `mac` gives, which uses the library `low`.
fn with_library_of_macro(world: &World, macros: &str, low: &str) -> Project {
    let project = world.project("app");
    project.package(
        "app",
        "\n[dependencies]\nmac = { path = \"mac\" }\n\n[workspace]\nmembers = [\"mac\", \"low\"]\n",
    );
    project.write("src/main.rs", "fn main() { println!(\"{}\", mac::show!()); }\n");
    let dependency = format!("{MACRO}\n[dependencies]\nlow = {{ path = \"../low\" }}\n");
    project.write("mac/Cargo.toml", manifest("mac", &dependency));
    project.write(
        "mac/src/lib.rs",
        format!("#[proc_macro]\npub fn show(_: proc_macro::TokenStream) -> proc_macro::TokenStream {{\n    let text: String = {macros};\n    format!(\"{{text:?}}\").parse().unwrap()\n}}\n"),
    );
    project.write("low/Cargo.toml", manifest("low", ""));
    project.write("low/src/lib.rs", low);
    project
}

#[test]
fn the_library_of_a_macro() {
    for way in BOTH {
        let world = world!();
        let project = with_library_of_macro(&world, "low::n()", "");
        let state = |n: &str| {
            let code = format!("pub fn n() -> String {{ {n:?}.into() }}\n");
            State::prints(n).file("low/src/lib.rs", code).env("KILN_OBSERVE", way)
        };
        Change::cargo(&world, &project)
            .watch(&["low", "mac", "app"])
            .check(&state("one"), &state("two"));
    }
}

#[test]
fn generic_code_in_the_library_of_a_macro() {
    for way in BOTH {
        let world = world!();
        let project = with_library_of_macro(&world, "low::n(())", "");
        let state = |n: &str| {
            let code = format!(
                "#[inline(always)]\npub fn n<T: Copy>(_: T) -> String {{ {n:?}.into() }}\n"
            );
            State::prints(n).file("low/src/lib.rs", code).env("KILN_OBSERVE", way)
        };
        Change::cargo(&world, &project)
            .watch(&["low", "mac", "app"])
            .check(&state("one"), &state("two"));
    }
}

#[test]
fn the_build_script_of_a_macro() {
    for way in BOTH {
        let world = world!();
        let project = with_library_of_macro(&world, "env!(\"KT_SET\").into()", "");
        project.write(
            "mac/build.rs",
            "fn main() {\n    println!(\"cargo::rerun-if-env-changed=KT_N\");\n    \
             println!(\"cargo::rustc-env=KT_SET={}\", std::env::var(\"KT_N\").unwrap());\n}\n",
        );
        let state = |n: &str| State::prints(n).env("KT_N", n).env("KILN_OBSERVE", way);
        Change::cargo(&world, &project).watch(&["mac", "app"]).check(&state("one"), &state("two"));
    }
}

/// The library of the macro reads, when it runs: in the package of whoever uses the macro.
#[test]
fn what_the_library_of_a_macro_reads() {
    let low = "pub fn n() -> String { std::fs::read_to_string(std::env::var(\"CARGO_MANIFEST_DIR\").unwrap() + \"/data/n\").unwrap() }\n";
    for way in BOTH {
        let world = world!();
        let project = with_library_of_macro(&world, "low::n()", low);
        let state = |n: &str| State::prints(n).file("data/n", n).env("KILN_OBSERVE", way);
        Change::cargo(&world, &project).check(&state("one"), &state("two"));
    }
}

/// `app` uses `mid`, and a macro reads in the package of `mid`.
#[test]
fn a_macro_in_a_dependency() {
    for way in BOTH {
        let world = world!();
        let low = "pub fn n() -> String { std::fs::read_to_string(std::env::var(\"CARGO_MANIFEST_DIR\").unwrap() + \"/data/n\").unwrap() }\n";
        let project = with_library_of_macro(&world, "low::n()", low);
        project.package("app", "\n[dependencies]\nmid = { path = \"mid\" }\n\n[workspace]\nmembers = [\"mac\", \"low\", \"mid\"]\n");
        project.write("src/main.rs", "fn main() { println!(\"{}\", mid::n()); }\n");
        project.write(
            "mid/Cargo.toml",
            manifest("mid", "\n[dependencies]\nmac = { path = \"../mac\" }\n"),
        );
        project.write("mid/src/lib.rs", "pub fn n() -> &'static str { mac::show!() }\n");
        let state = |n: &str| State::prints(n).file("mid/data/n", n).env("KILN_OBSERVE", way);
        Change::cargo(&world, &project).watch(&["mid", "app"]).check(&state("one"), &state("two"));
    }
}

/// The macro reads what the build script of its user made.
#[test]
fn a_macro_that_reads_the_output_of_a_build_script() {
    for way in BOTH {
        let world = world!();
        let code = "std::fs::read_to_string(std::env::var(\"OUT_DIR\").unwrap() + \"/n\").unwrap()";
        let project = with_library_of_macro(&world, code, "");
        project.write(
            "build.rs",
            "fn main() {\n    println!(\"cargo::rerun-if-env-changed=KT_N\");\n    \
             std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/n\", std::env::var(\"KT_N\").unwrap()).unwrap();\n}\n",
        );
        let state = |n: &str| State::prints(n).env("KT_N", n).env("KILN_OBSERVE", way);
        Change::cargo(&world, &project).check(&state("one"), &state("two"));
    }
}

/// The macro reads what the build script of another package made, which a variable of the build
/// script of its user tells.
#[test]
fn a_macro_that_reads_in_the_target_directory_of_another_unit() {
    let world = world!();
    let code = "std::fs::read_to_string(std::env::var(\"KT_PLACE\").unwrap()).unwrap()";
    let project = with_library_of_macro(&world, code, "");
    project.package("app", "\n[dependencies]\nmac = { path = \"mac\" }\nsys = { path = \"sys\" }\n\n[workspace]\nmembers = [\"mac\", \"low\", \"sys\"]\n");
    project.write("sys/Cargo.toml", manifest("sys", "links = \"kt\"\n"));
    project.write("sys/src/lib.rs", "");
    project.write(
        "sys/build.rs",
        "fn main() {\n    println!(\"cargo::rerun-if-env-changed=KT_N\");\n    \
         let file = std::env::var(\"OUT_DIR\").unwrap() + \"/n\";\n    \
         std::fs::write(&file, std::env::var(\"KT_N\").unwrap()).unwrap();\n    \
         println!(\"cargo::metadata=PLACE={file}\");\n}\n",
    );
    project.write(
        "build.rs",
        "fn main() { println!(\"cargo::rustc-env=KT_PLACE={}\", std::env::var(\"DEP_KT_PLACE\").unwrap()); }\n",
    );
    let state = |n: &str| State::prints(n).env("KT_N", n);
    Change::cargo(&world, &project).check(&state("one"), &state("two"));
}

// Other forms of macros and of compilers ------------------------------------------------------------

fn one(p: &Place) {
    p.write("ws/pk/data/n", "one");
}

fn two(p: &Place) {
    p.write("ws/pk/data/n", "two");
}

const READS: &str = "read(at(\"data/n\"))";

#[test]
fn derive_and_attribute_macros() {
    for program in [
        "#[derive(pm::Show)] struct Show;\nfn main() { print!(\"{}\", Show::SHOWN) }\n",
        "#[pm::shown] struct Show;\nfn main() { print!(\"{}\", SHOWN) }\n",
    ] {
        for way in [Way::Observed, Way::Conservative] {
            Place::new(world!(), way, READS, program).check(Stored::Yes, one, two);
        }
    }
}

/// The text that the macro read is in a warning: of rustc with and without code, and of clippy.
#[test]
fn compilers_that_only_check() {
    const WARNS: &str = "pm::warn!();\nfn main() { new() }\n";
    for clippy in [false, true] {
        for way in [Way::Observed, Way::Conservative] {
            let place = Place::new(world!(), way, READS, WARNS).args(&["--emit=dep-info,metadata"]);
            if clippy {
                place.desk.set_compiler(place.desk.world.bin().join("clippy-driver"));
            }
            place.check(Stored::Yes, one, two);
            one(&place);
            let (shown, _) = place.build(With::Kiln);
            assert!(shown.contains("deprecated") && shown.contains("one"), "{shown}");
        }
    }
}

/// The macro waits until the file has changed that it read before.
#[test]
fn an_input_that_changes_while_the_macro_runs() {
    for way in [Way::Observed, Way::Conservative] {
        let code = "let was = read(at(\"data/n\")); let _ = read(outside(\"gate\")); was";
        let place = Place::new(world!(), way, code, SHOW);
        one(&place);
        place.desk.tool("/usr/bin/mkfifo", place.project().dir(), "outside/gate");
        let (gate, file) = (place.at("outside/gate"), place.at("ws/pk/data/n"));
        let changed = std::thread::spawn(move || {
            // Opens when the macro has come here.
            let gate = std::fs::OpenOptions::new().write(true).open(gate).unwrap();
            std::fs::write(file, "two").unwrap();
            drop(gate);
        });
        let (shown, ran) = place.build(With::Kiln);
        changed.join().unwrap();
        assert!(ran);
        assert_eq!(shown, "one", "it was read before");
        place.write("outside/gate", "");
        assert_eq!(place.same("the new content"), "two");
        one(&place);
        assert_eq!(place.same("the old content"), "one");
    }
}
