//! What the tests of `kiln verify` and of quarantine share: projects whose macro reads something that
//! Kiln does not see, and what is said about them.

use crate::call::{Call, Done};
use crate::project::Project;
use crate::world::World;

/// Source of a procedural macro `value!()`.
pub fn value_macro(body: &str) -> String {
    format!(
        "use proc_macro::TokenStream;\n#[proc_macro]\npub fn value(_: TokenStream) -> TokenStream {{\n    \
         let text: String = {body};\n    text.parse().unwrap()\n}}\n"
    )
}

/// A program that prints `value!()`, in a library `low` between them.
pub fn with_macro(world: &World, body: &str) -> Project {
    let project = world.project("app");
    let path = "\n[lib]\nname = \"low\"\n\n[dependencies]\nmac = { path = \"mac\" }\n";
    project.package("app", path);
    project.write("src/lib.rs", "pub fn n() -> u64 { mac::value!() }\n");
    project.write("src/main.rs", "fn main() { println!(\"{}\", low::n()); }\n");
    let manifest = "[package]\nname = \"mac\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
    project.write("mac/Cargo.toml", format!("{manifest}\n[lib]\nproc-macro = true\n"));
    project.write("mac/src/lib.rs", value_macro(body));
    project
}

/// A macro that reads a file far from every package, which Kiln cannot see without observation.
pub fn with_hidden_file(world: &World) -> Project {
    let path = world.at("far/value");
    set_hidden(world, "1");
    with_macro(world, &format!("std::fs::read_to_string({path:?}).unwrap()"))
}

/// Changes that file.
pub fn set_hidden(world: &World, text: &str) {
    std::fs::create_dir_all(world.at("far")).unwrap();
    std::fs::write(world.at("far/value"), text).unwrap();
}

/// A call without observation, whose temporary files are the world's own.
pub fn plainly(world: &World, call: Call) -> Call {
    std::fs::create_dir_all(world.at("tmp")).unwrap();
    // Runs of build scripts are not checked, and not stored where nothing is observed.
    let call = call.env("KILN_BUILD_SCRIPTS", "off");
    call.env("KILN_OBSERVE", "off").env("TMPDIR", world.at("tmp"))
}

/// Builds from nothing.
pub fn build(world: &World, project: &Project, share: &str) -> Call {
    project.wipe();
    plainly(world, world.cargo(project, &["build"])).env("KILN_VERIFY", share)
}

/// `kiln verify --sample 100% ARGS…`.
pub fn verify(world: &World, project: &Project, args: &[&str]) -> Call {
    let path = project.dir().to_str().unwrap();
    plainly(world, world.kiln(&["verify", "--sample", "100%", path])).args(args)
}

/// Asserts what the program says.
#[track_caller]
pub fn prints(world: &World, project: &Project, want: &str) {
    let program = world.call(project.at("target/debug/app"), project.dir(), &[]).run().ok();
    assert_eq!(program.stdout.trim(), want);
}

/// The number in a line of the table.
#[track_caller]
pub fn count(done: &Done, name: &str) -> usize {
    let line = done.stdout.lines().find(|line| line.trim_start().starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{}\n{}", done.stdout, done.stderr));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// How often a reason was given in the last build.
pub fn reasons(world: &World, reason: &str) -> u64 {
    world.stats()["build"]["miss_reasons"][reason].as_u64().unwrap_or(0)
}

/// The lines of `kiln verify --quarantined` that name a unit.
pub fn quarantined(world: &World) -> Vec<String> {
    let done = world.kiln(&["verify", "--quarantined"]).run().ok();
    let named = |line: &&str| line.starts_with("  ");
    done.stdout.lines().filter(named).map(|line| line.trim().to_owned()).collect()
}

/// The keys that it lists.
pub fn quarantined_keys(world: &World) -> Vec<String> {
    let done = world.kiln(&["verify", "--quarantined"]).run().ok();
    let is_key = |line: &&str| line.len() == 64 && line.bytes().all(|b| b.is_ascii_hexdigit());
    done.stdout.lines().filter(is_key).map(str::to_owned).collect()
}

/// A stored result whose key is wrong: `low` says 1, and would say 2 by now.
pub fn wrong(world: &World) -> Project {
    let project = with_hidden_file(world);
    build(world, &project, "").run().ok();
    prints(world, &project, "1");
    set_hidden(world, "2");
    let stale = build(world, &project, "").run().ok();
    world.assert_all_hit(&stale);
    prints(world, &project, "1");
    project
}
