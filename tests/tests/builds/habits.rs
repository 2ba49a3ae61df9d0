//! Theme: who comes from sccache finds its flags, the fields of its statistics, and a compiler of C behind the wrapper's name.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use kiln_tests::{World, world};
use serde_json::{Value, json};

/// The figures as a script of sccache's users reads them.
fn figures(world: &World) -> Value {
    let told = world.kiln(&["--show-stats", "--stats-format=json"]).run().ok().stdout;
    serde_json::from_str(&told).unwrap()
}

#[test]
fn the_flags_of_sccache_are_answered() {
    let world = world!();
    let project = world.project("app");
    project.package("app", "").write("src/main.rs", "fn main() { println!(\"42\"); }\n");
    world.kiln(&["--start-server"]).run().ok();
    for _ in 0..2 {
        project.wipe();
        world.cargo(&project, &["build"]).run().ok();
    }
    let told = figures(&world);
    let rust = |name: &str| told["stats"][name]["counts"].clone();
    assert_eq!(
        (rust("cache_hits"), rust("cache_misses")),
        (json!({"Rust": 1}), json!({"Rust": 1}))
    );
    assert_eq!((rust("cache_errors"), &told["stats"]["compile_requests"]), (json!({}), &json!(2)));
    assert_eq!(told["cache_size"], world.stats()["store"]["bytes"]);
    let plain = world.kiln(&["stats"]).run().ok().stdout;
    for flags in [&["-s"][..], &["--show-stats"], &["--show-adv-stats", "--stats-format", "text"]] {
        assert_eq!(world.kiln(flags).run().ok().stdout, plain, "{flags:?}");
    }
    world.kiln(&["--zero-stats"]).run().ok();
    assert_eq!(figures(&world)["stats"]["compile_requests"], 0);
    let stopped = world.kiln(&["--stop-server"]).run().ok();
    assert_eq!(stopped.stdout, "stopped\n");
    let unknown = world.kiln(&["--dist-status"]).run().fails();
    assert_eq!(unknown.status.code(), Some(2), "{}", unknown.stderr);
}

#[test]
fn a_compiler_of_c_behind_the_wrapper_is_that_compiler() {
    let world = world!();
    let project = world.project("c");
    project.write("a.c", "int answer(void) { return 42; }\n");
    let compile = |words: &[&str], to: &str| {
        let words = [words, &["-c", "a.c", "-o", to]].concat();
        world.call(words[0], project.dir(), &words[1..]).run().ok();
        project.read(to)
    };
    let kiln = world.kiln(&[]).command().get_program().to_str().unwrap().to_owned();
    let plain = compile(&["/usr/bin/cc"], "plain.o");
    assert_eq!(compile(&[&kiln, "cc"], "named.o"), plain);
    assert_eq!(compile(&[&kiln, "/usr/bin/cc"], "placed.o"), plain);
    let failed = world.call(&kiln, project.dir(), &["cc", "-c", "none.c"]).run().fails();
    assert!(failed.stderr.contains("none.c"), "{}", failed.stderr);
    assert_eq!(world.stats()["units"], 0);
}
