//! Theme: results hold in another checkout, cargo home, home and target directory; and no place is
//! left in what was made.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::Path;

use kiln_tests::project::{copy_tree, files_below};
use kiln_tests::samples::small_workspace;
use kiln_tests::toolchain::{add_sources, toolchain};
use kiln_tests::{Call, Done, Project, World, registry, skip, world};

/// A package with every kind of target, one of which bakes `CARGO_BIN_EXE_app`.
fn everything(world: &World) -> Project {
    let project = world.project("one");
    project.package(
        "app",
        "\n[dependencies]\nmac = { path = \"mac\" }\n\n[workspace]\nmembers = [\"mac\"]\n",
    );
    project.write(
        "src/lib.rs",
        "pub fn answer() -> i32 { include!(concat!(env!(\"OUT_DIR\"), \"/n.rs\")) }\n",
    );
    project.write(
        "src/main.rs",
        "fn main() { println!(\"{} {}\", app::answer(), mac::answer!()); }\n",
    );
    project.write(
        "build.rs",
        "fn main() {\n    println!(\"cargo::rerun-if-changed=build.rs\");\n    \
         std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/n.rs\", \"42\").unwrap();\n}\n",
    );
    project.write("examples/show.rs", "fn main() { println!(\"{}\", file!()); }\n");
    project.write("tests/plain.rs", "#[test]\nfn works() { assert_eq!(app::answer(), 42); }\n");
    let manifest = "[package]\nname = \"mac\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[lib]\nproc-macro = true\n";
    project.write("mac/Cargo.toml", manifest);
    project.write(
        "mac/src/lib.rs",
        "#[proc_macro]\npub fn answer(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n    \
         \"42\".parse().unwrap()\n}\n",
    );
    project
}

const BAKES: &str = "#[test]\nfn works() { assert!(std::path::Path::new(env!(\"CARGO_BIN_EXE_app\")).exists()); }\n";

/// The same call at another place in every respect.
fn elsewhere(world: &World, call: Call) -> Call {
    let other = |name: &str| {
        let dir = world.at("other").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    };
    let target = world.at("other/t");
    call.env("HOME", other("home"))
        .env("CARGO_HOME", other("cargo-home"))
        .env("CARGO_TARGET_DIR", target)
}

fn check(world: &World, args: &[&str]) -> (Project, Done) {
    let one = everything(world);
    world.cargo(&one, args).run().ok();
    let two = one.copy_to(world.at("other/deep/checkout"));
    let done = elsewhere(world, world.cargo(&two, args)).run().ok();
    (two, done)
}

#[test]
fn dev_builds() {
    let world = world!();
    let (_, done) = check(&world, &["build", "--all-targets"]);
    world.assert_all_hit(&done);
}

#[test]
fn release_builds() {
    let world = world!();
    let (_, done) = check(&world, &["build", "--release", "--examples", "--bins"]);
    world.assert_all_hit(&done);
}

#[test]
fn checks_and_clippy() {
    let world = world!();
    let (two, done) = check(&world, &["check", "--all-targets"]);
    world.assert_all_hit(&done);
    let args = ["clippy", "--all-targets"];
    world.cargo(&world.project("one"), &args).run().ok();
    let done = elsewhere(&world, world.cargo(&two, &args)).run().ok();
    world.assert_all_hit(&done);
}

/// The program runs at the other place, and its `file!()` is that of the source.
#[test]
fn what_was_restored_elsewhere_works() {
    let world = world!();
    let (two, _) = check(&world, &["build", "--all-targets"]);
    let run = |program: &str| {
        let program = world.at("other/t/debug").join(program);
        world.call(program, two.dir(), &[]).run().ok().stdout
    };
    assert_eq!(run("app"), "42 42\n");
    assert_eq!(run("examples/show"), "examples/show.rs\n");
    let test = elsewhere(&world, world.cargo(&two, &["test"])).run().ok();
    assert!(test.stdout.contains("test works ... ok"), "{}", test.stdout);
}

/// A test that bakes the place of a program hits at that place and is named as pinned.
#[test]
fn units_that_bake_a_place_hit_at_that_place() {
    let world = world!();
    let one = everything(&world);
    one.write("tests/bakes.rs", BAKES);
    let args = ["test", "--no-run"];
    world.cargo(&one, &args).run().ok();
    one.wipe();
    let again = world.cargo(&one, &args).run().ok();
    world.assert_all_hit(&again);
    let pinned = world.stats()["pinned"].clone();
    let names: Vec<_> = pinned
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["unit"]["crate_name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["bakes"], "{pinned:#}");
    let two = one.copy_to(world.at("other/deep/checkout"));
    let done = elsewhere(&world, world.cargo(&two, &args)).run().ok();
    world.assert_compiled(&done, &["bakes test"]);
    let test = elsewhere(&world, world.cargo(&two, &["test"])).run().ok();
    assert!(test.stdout.contains("test works ... ok"), "{}", test.stdout);
    // Back at the first place nothing was forgotten.
    one.wipe();
    world.assert_all_hit(&world.cargo(&one, &args).run().ok());
}

/// `env!("CARGO_MANIFEST_DIR").len()` leaves no path behind, yet bakes the place.
#[test]
fn the_length_of_a_place_is_baked_too() {
    let world = world!();
    let one = world.project("one");
    one.package("app", "").write(
        "src/main.rs",
        "fn main() { println!(\"{}\", env!(\"CARGO_MANIFEST_DIR\").len()); }\n",
    );
    let two = one.copy_to(world.at("ws/of-another-length"));
    for project in [&one, &two, &one] {
        project.wipe();
        world.cargo(project, &["build"]).run().ok();
        let program = world.call(project.at("target/debug/app"), project.dir(), &[]).run().ok();
        assert_eq!(program.stdout.trim(), project.dir().to_str().unwrap().len().to_string());
    }
}

/// The place of the checkout in a string shows where the program was built.
#[test]
fn the_manifest_directory_of_this_checkout() {
    let world = world!();
    let one = world.project("one");
    one.package("app", "")
        .write("src/main.rs", "fn main() { println!(\"{}\", env!(\"CARGO_MANIFEST_DIR\")); }\n");
    let two = one.copy_to(world.at("ws/two"));
    for project in [&one, &two, &one, &two] {
        project.wipe();
        world.cargo(project, &["build"]).run().ok();
        let program = world.call(project.at("target/debug/app"), project.dir(), &[]).run().ok();
        assert_eq!(program.stdout.trim(), project.dir().to_str().unwrap());
    }
    let done = world.cargo(one.wipe(), &["build"]).run().ok();
    world.assert_all_hit(&done);
}

fn contains(file: &Path, needle: &str) -> bool {
    let bytes = std::fs::read(file).unwrap();
    let needle = needle.as_bytes();
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// Registry crates, build scripts, procedural macros: another cargo home with the same content.
#[test]
fn registry_crates_in_another_cargo_home() {
    let world = world!();
    let fetched = match registry::small(&world) {
        Ok(fetched) => fetched,
        Err(why) => skip!("{why}"),
    };
    let one = small_workspace(&world, fetched);
    let args = ["build", "--all-targets"];
    world.cargo(&one, &args).run().ok();
    let two = one.copy_to(world.at("other/deep/checkout"));
    world.provide_sources_to(fetched, &world.at("other/cargo-home"));
    let done = elsewhere(&world, world.cargo(&two, &args)).run().ok();
    world.assert_all_hit(&done);
    // Nothing that was made knows where: not the debug information, not the metadata.
    let places = [one.dir().to_owned(), world.cargo_home(), world.at("home")];
    let target = one.at("target/debug/deps");
    let made = files_below(&target).into_iter().filter(|f| f.extension().is_none_or(|e| e != "d"));
    for file in made {
        for place in &places {
            assert!(
                !contains(&target.join(&file), place.to_str().unwrap()),
                "{} in {}",
                place.display(),
                file.display()
            );
        }
    }
}

/// Only the target directory is elsewhere.
#[test]
fn another_target_directory() {
    let world = world!();
    let one = everything(&world);
    world.cargo(&one, &["build", "--all-targets"]).run().ok();
    for target in ["elsewhere", "target/nested"] {
        let call =
            world.cargo(&one, &["build", "--all-targets"]).env("CARGO_TARGET_DIR", one.at(target));
        world.assert_all_hit(&call.run().ok());
    }
}

/// cargo marks only target directories that it makes; a mounted one has no marker.
#[test]
fn a_target_directory_that_cargo_did_not_make() {
    let world = world!();
    let one = everything(&world);
    let two = one.copy_to(world.at("ws/two"));
    for args in
        [&["build", "--all-targets"][..], &["build", "--target", "x86_64-unknown-linux-gnu"]]
    {
        world.cargo(&one, args).run().ok();
        two.wipe();
        std::fs::create_dir(two.at("target")).unwrap();
        let done = world.cargo(&two, args).run().ok();
        assert!(!two.at("target/CACHEDIR.TAG").exists());
        world.assert_all_hit(&done);
    }
}

/// A checkout reached through a symbolic link is the same source.
#[test]
fn a_symlinked_checkout() {
    let world = world!();
    let one = everything(&world);
    world.cargo(&one, &["build", "--all-targets"]).run().ok();
    one.wipe();
    let link = world.at("link");
    std::os::unix::fs::symlink(one.dir(), &link).unwrap();
    let done = world.cargo(&one, &["build", "--all-targets"]).dir(&link).run().ok();
    world.assert_all_hit(&done);
}

/// Blanks and letters of other scripts in a path are nothing special.
#[test]
fn odd_names_of_directories() {
    let world = world!();
    let one = everything(&world);
    world.cargo(&one, &["build", "--all-targets"]).run().ok();
    let two = Project::create(world.at("ws/öd d#r $x"));
    copy_tree(one.dir(), two.dir(), &["target"]);
    let args = ["build", "--all-targets", "-v"];
    world.assert_all_hit(&world.cargo(&two, &args).run().ok());
    let again = world.cargo(&two, &args).run().ok();
    assert!(
        again.stderr.contains("Fresh app") && !again.stderr.contains("Dirty"),
        "{}",
        again.stderr
    );
}

/// Where `rust-src` is installed, the compiler names the sources of std by their place in the toolchain.
#[test]
fn the_sources_of_std_in_a_toolchain() {
    let world = world!();
    let project = everything(&world);
    let build = |name: &str| {
        let bin = toolchain(world.at(name), b"");
        add_sources(&bin);
        std::fs::write(world.bin().join("toolchain"), bin.to_str().unwrap()).unwrap();
        project.wipe();
        world.cargo(&project, &["build"]).run().ok()
    };
    let first = build("one-toolchain");
    assert!(first.did_compile("app"));
    let program = std::fs::read(project.at("target/debug/app")).unwrap();
    let holds = |text: &str| program.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("/kiln/std/library/") && !holds("one-toolchain"));
    world.assert_all_hit(&build("another/two-toolchain"));
}
