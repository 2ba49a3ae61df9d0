//! Projects that more than one theme uses.

use crate::call::{Call, Done};
use crate::left::Tally;
use crate::project::Project;
use crate::registry;
use crate::world::World;

/// A workspace whose package `one` uses crates of the registry with build scripts and procedural
/// macros, and whose program `two` uses `one`. The sources are provided to the world.
pub fn small_workspace(world: &World, fetched: &Project) -> Project {
    let project = world.project("small");
    world.provide_sources(fetched);
    let manifest = |name: &str, dependencies: &str| {
        format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n\
             [dependencies]\n{dependencies}"
        )
    };
    let registry_crates: String =
        registry::SMALL.iter().map(|(name, spec)| format!("{name} = {spec}\n")).collect();
    project.write("Cargo.toml", "[workspace]\nmembers = [\"one\", \"two\"]\nresolver = \"2\"\n");
    project.write("one/Cargo.toml", manifest("one", &registry_crates));
    project.write(
        "one/src/lib.rs",
        "#[derive(serde::Serialize, serde::Deserialize)]\npub struct One {\n    pub n: i32,\n}\n\
         pub fn n(text: &str) -> anyhow::Result<usize> {\n    \
         Ok(memchr::memchr(b'x', text.as_bytes()).unwrap_or(0) + libc::EOF.unsigned_abs() as usize)\n}\n\
         pub fn show(n: u8) -> String {\n    itoa::Buffer::new().format(n).into()\n}\n\
         #[cfg(test)]\nmod tests {\n    #[test]\n    fn n() {\n        assert_eq!(super::n(\"ax\").unwrap(), 2);\n    }\n}\n",
    );
    project.write("two/Cargo.toml", manifest("two", "one = { path = \"../one\" }\n"));
    project.write("two/src/main.rs", "fn main() { println!(\"{}\", one::show(7)); }\n");
    project
}

/// A program `app` with a library of its own; it prints 42.
pub fn small_app(world: &World, name: &str) -> Project {
    let project = world.project(name);
    project.package("app", "\n[lib]\nname = \"low\"\n");
    project.write("src/lib.rs", "pub fn n() -> i32 { 42 }\n");
    project.write("src/main.rs", "fn main() { println!(\"{}\", low::n()); }\n");
    project
}

/// Builds the program of [`small_app`] from nothing and looks whether it works.
#[track_caller]
pub fn build_app(world: &World, project: &Project) -> Done {
    project.wipe();
    let done = world.cargo(project, &["build"]).run().ok();
    check_app(world, project);
    done
}

/// Looks whether the program of [`small_app`] works.
#[track_caller]
pub fn check_app(world: &World, project: &Project) {
    let program = world.call(project.at("target/debug/app"), project.dir(), &[]).run().ok();
    assert_eq!(program.stdout, "42\n");
}

/// Three packages in a row: `app` prints `mid::n()`, which is the given expression of `low::n()`. The
/// library of `low` is left to the caller.
pub fn chain(world: &World, name: &str, of_mid: &str) -> Project {
    let project = world.project(name);
    project.package(
        "app",
        "\n[dependencies]\nmid = { path = \"mid\" }\n\n[workspace]\nmembers = [\"mid\", \"low\"]\n",
    );
    project.write("src/main.rs", "fn main() { println!(\"{}\", mid::n()); }\n");
    let manifest = |name: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n")
    };
    project.write(
        "mid/Cargo.toml",
        manifest("mid") + "\n[dependencies]\nlow = { path = \"../low\" }\n",
    );
    project.write("mid/src/lib.rs", format!("pub fn n() -> i32 {{ {of_mid} }}\n"));
    project.write("low/Cargo.toml", manifest("low"));
    project
}

/// A workspace with a build script, a procedural macro, a library and a program `app`, which prints `42 43 44`.
pub fn of_all_kinds(world: &World, place: &str) -> Project {
    let project = world.project(place);
    project.package(
        "app",
        "\n[dependencies]\nmac = { path = \"mac\" }\nlow = { path = \"low\" }\n\n\
         [workspace]\nmembers = [\"mac\", \"low\"]\n",
    );
    project.write(
        "src/main.rs",
        "fn main() {\n    let made: i32 = include!(concat!(env!(\"OUT_DIR\"), \"/n.rs\"));\n    \
         println!(\"{} {} {}\", made, mac::answer!(), low::n());\n}\n",
    );
    project.write(
        "build.rs",
        "fn main() {\n    println!(\"cargo::rerun-if-changed=build.rs\");\n    \
         std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/n.rs\", \"42\").unwrap();\n}\n",
    );
    let manifest = "[package]\nname = \"mac\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[lib]\nproc-macro = true\n";
    project.write("mac/Cargo.toml", manifest);
    project.write(
        "mac/src/lib.rs",
        "#[proc_macro]\npub fn answer(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n    \
         \"43\".parse().unwrap()\n}\n",
    );
    let manifest = "[package]\nname = \"low\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
    project.write("low/Cargo.toml", manifest);
    project.write("low/src/lib.rs", "pub fn n() -> i32 { 44 }\n");
    project
}

/// The same with a script that notes its runs.
pub fn of_all_kinds_with_tally(world: &World, place: &str, tally: &Tally) -> Project {
    let project = of_all_kinds(world, place);
    project.write(
        "build.rs",
        format!(
            "use std::io::Write;\nfn main() {{\n    println!(\"cargo::rerun-if-changed=build.rs\");\n    \
             let mut log = std::fs::OpenOptions::new().create(true).append(true).open({:?}).unwrap();\n    \
             log.write_all(b\"app\\n\").unwrap();\n    \
             std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/n.rs\", \"42\").unwrap();\n}}\n",
            tally.path()
        ),
    );
    project
}

/// Builds [`of_all_kinds`] from nothing by a call of cargo and looks whether its program works.
#[track_caller]
pub fn build_all_kinds(world: &World, project: &Project, cargo: Call) -> Done {
    project.wipe();
    let done = cargo.run().ok();
    let program = world.call(project.at("target/debug/app"), project.dir(), &[]).run().ok();
    assert_eq!(program.stdout, "42 43 44\n");
    done
}
