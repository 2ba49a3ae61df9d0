//! Theme: hits that are compiled again and compared.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::Path;

use kiln_tests::checking::{
    build, count, plainly, prints, quarantined, reasons, verify, with_macro,
};
use kiln_tests::project::files_below;
use kiln_tests::samples::{check_app, small_app};
use kiln_tests::server::{Gate, kill, wait_until};
use kiln_tests::{Project, World, world};
use rustix::process::Signal;
use serde_json::Value;

/// Every kind of unit, with warnings.
fn healthy(world: &World) -> Project {
    let project = with_macro(world, "\"42\".into()");
    project.write(
        "src/lib.rs",
        "fn unused() {}\npub fn n() -> u64 {\n    return mac::value!();\n}\n\
         pub fn out() -> &'static str { include_str!(concat!(env!(\"OUT_DIR\"), \"/x\")) }\n",
    );
    project.write(
        "build.rs",
        "fn main() {\n    println!(\"cargo::rerun-if-changed=build.rs\");\n    \
         std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/x\", \"x\").unwrap();\n}\n",
    );
    project.write("examples/show.rs", "fn main() { println!(\"{}\", low::out()); }\n");
    project.write("tests/outside.rs", "#[test]\nfn works() { assert_eq!(low::n(), 42); }\n");
    project
}

/// Every hit is compiled exactly once, is equal, and stays a hit; nothing is left behind.
#[track_caller]
fn check_healthy(args: &[&str]) {
    let world = world!();
    let project = healthy(&world);
    let first = plainly(&world, world.cargo(&project, args)).run().ok();
    let target = files_below(&project.at("target"));
    let done = verify(&world, &project, &[&["--"], args].concat()).run().ok();
    assert_eq!(done.compiled(), first.compiled(), "{}", done.stdout);
    assert_eq!(count(&done, "hits checked"), first.compiled().len(), "{}", done.stdout);
    assert_eq!(count(&done, "equal"), first.compiled().len());
    for name in ["not reproducible", "wrong", "hits not checked", "other units"] {
        assert_eq!(count(&done, name), 0, "{name}\n{}", done.stdout);
    }
    assert_eq!(files_below(&project.at("target")), target, "the project's own target directory");
    assert_eq!(std::fs::read_dir(world.at("tmp")).unwrap().count(), 0, "nothing is left");
    assert_eq!(quarantined(&world), Vec::<String>::new());
    project.wipe();
    world.assert_all_hit(&plainly(&world, world.cargo(&project, args)).run().ok());
}

#[test]
fn a_healthy_project() {
    check_healthy(&["build", "--all-targets"]);
}

#[test]
fn a_healthy_project_in_release() {
    check_healthy(&["test", "--no-run", "--release"]);
}

#[test]
fn a_healthy_project_under_check() {
    check_healthy(&["check", "--all-targets"]);
}

#[test]
fn a_healthy_project_under_clippy() {
    check_healthy(&["clippy", "--", "-W", "clippy::pedantic"]);
}

/// In the build itself: the program works, what is built is fresh, and each unit has its event.
#[test]
fn a_build_that_checks_its_hits() {
    let world = world!();
    let project = healthy(&world);
    let first = build(&world, &project, "").run().ok();
    let units = first.compiled().len();
    let events = world.at("events.jsonl");
    let checked = build(&world, &project, "100%").env("KILN_REPORT_FILE", &events).run().ok();
    assert_eq!(checked.compiled(), first.compiled());
    assert_eq!(checked.stderr.matches("unused").count(), first.stderr.matches("unused").count());
    prints(&world, &project, "42");
    assert_eq!(reasons(&world, "verified"), units as u64, "{:#}", world.stats()["missed"]);
    let text = std::fs::read_to_string(&events).unwrap();
    let events: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(events.len(), units);
    assert!(events.iter().all(|e| e["outcome"] == "miss" && e["reason"] == "verified"), "{text}");
    let again = plainly(&world, world.cargo(&project, &["build"])).run().ok();
    assert_eq!(again.runs.iter().filter(|run| run.is_compile()).count(), 0, "all is fresh");
}

/// Without cargo: `-o`, and diagnostics for people.
#[test]
fn a_single_compile() {
    let world = world!();
    let project = world.project("x");
    project.write("main.rs", "fn unused() {}\nfn main() {}\n");
    let compile = |share: &str| {
        let call = world.rustc(&project, &["main.rs", "-o", "out/program"]);
        let done = call.env("KILN_VERIFY", share).run().ok();
        (done.compiled().len(), done.stderr)
    };
    std::fs::create_dir(project.at("out")).unwrap();
    assert_eq!(compile("100%").0, 1);
    let build = world.stats();
    assert_eq!(build["miss_reasons"]["new-unit"], 1, "the first one is no hit: {build:#}");
    let hit = compile("0%");
    assert_eq!(hit.0, 0);
    let checked = compile("100%");
    assert_eq!(checked.0, 1);
    let build = world.stats();
    assert_eq!(build["miss_reasons"]["verified"], 1, "{build:#}");
    assert_eq!(checked.1, hit.1);
    assert!(checked.1.contains("unused"), "{}", checked.1);
}

/// A macro that reads the clock: each fresh compile differs. It is named and stays in use.
#[test]
fn a_crate_that_is_not_reproducible() {
    let world = world!();
    let now = "std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)";
    let project =
        with_macro(&world, &format!("{now}.unwrap().as_nanos().to_string() + \" as u64\""));
    build(&world, &project, "").run().ok();
    let program = project.read("target/debug/app");
    let done = verify(&world, &project, &[]).run().ok();
    assert_eq!(count(&done, "not reproducible"), 1, "{}", done.stdout);
    assert_eq!(count(&done, "wrong"), 0);
    assert!(done.stdout.contains("low 0.1.0 (lib): liblow-"), "{}", done.stdout);
    assert!(done.stdout.contains(".rlib"), "{}", done.stdout);
    let crates: Vec<&str> = done
        .runs
        .iter()
        .filter(|run| run.is_compile())
        .filter_map(|run| run.value("--crate-name"))
        .collect();
    // Cargo hears of the library after it was judged only, so the program comes last.
    assert_eq!(crates, ["mac", "low", "low", "app"]);
    assert_eq!(quarantined(&world), Vec::<String>::new());
    world.assert_all_hit(&build(&world, &project, "").run().ok());
    assert_eq!(project.read("target/debug/app"), program, "what is stored stays");
}

/// What is left is one compile's work, whole: the first one's, which cargo was told of.
#[test]
fn the_outputs_of_the_first_compile_stay() {
    let world = world!();
    // The nth run of the macro says n.
    let counter = world.at("counter");
    let body = format!(
        "{{ let n = std::fs::read({counter:?}).map_or(0, |b| b.len());\n    \
         std::fs::write({counter:?}, vec![b'x'; n + 1]).unwrap(); n.to_string() }}"
    );
    let project = with_macro(&world, &body);
    build(&world, &project, "").run().ok();
    prints(&world, &project, "0");
    let done = build(&world, &project, "100%").run().ok();
    assert_eq!(done.runs.iter().filter(|r| r.value("--crate-name") == Some("low")).count(), 2);
    prints(&world, &project, "1");
    let odd = |path: &Path| path.to_str().is_some_and(|p| p.contains(".kiln"));
    assert!(!files_below(&project.at("target")).iter().any(|path| odd(path)));
    assert!(!project.at("target/debug/deps").read_dir().unwrap().any(|e| odd(&e.unwrap().path())));
    let again = plainly(&world, world.cargo(&project, &["build"])).run().ok();
    assert_eq!(again.runs.iter().filter(|run| run.is_compile()).count(), 0, "all is fresh");
}

/// A compiler that is killed says nothing of the crate.
#[test]
fn a_compiler_that_is_killed_is_no_proof() {
    let world = world!();
    let project = small_app(&world, "app");
    build(&world, &project, "").run().ok();
    std::fs::write(world.bin().join("low.kill"), "").unwrap();
    let done = build(&world, &project, "100%").run().fails();
    assert!(done.stderr.contains("signal: 9"), "{}", done.stderr);
    assert_eq!(done.runs.iter().filter(|r| r.value("--crate-name") == Some("low")).count(), 1);
    std::fs::remove_file(world.bin().join("low.kill")).unwrap();
    assert_eq!(quarantined(&world), Vec::<String>::new());
    world.assert_all_hit(&build(&world, &project, "").run().ok());
}

/// The source changes after the lookup: what is compiled is something else, and proves nothing.
#[test]
fn an_input_that_changes_meanwhile_is_no_proof() {
    let world = world!();
    let project = small_app(&world, "app");
    build(&world, &project, "").run().ok();
    let gate = Gate::new(&world.bin(), "low");
    let running = build(&world, &project, "100%").spawn();
    let held = gate.wait();
    project.write("src/lib.rs", "pub fn n() -> i32 { 43 }\n");
    gate.open();
    drop(held);
    running.wait().ok();
    assert_eq!(reasons(&world, "input-changed-meanwhile"), 1, "{:#}", world.stats()["missed"]);
    assert_eq!(quarantined(&world), Vec::<String>::new());
    project.write("src/lib.rs", "pub fn n() -> i32 { 42 }\n");
    world.assert_all_hit(&build(&world, &project, "").run().ok());
    check_app(&world, &project);
}

/// Many small crates in one package.
fn many(world: &World, crates: usize) -> Project {
    let project = world.project("many");
    project.package("many", "");
    project.write("src/lib.rs", "");
    for n in 0..crates {
        project.write(&format!("examples/e{n}.rs"), format!("fn main() {{ let _ = {n}; }}\n"));
    }
    project
}

/// Nothing, a part, and all. That a part is none or all of so many has a chance of one in four
/// million.
#[test]
fn a_share_of_the_hits_is_checked() {
    const CRATES: usize = 22;
    let world = world!();
    let project = many(&world, CRATES);
    let check = |share: &str| {
        project.wipe();
        let call = world.cargo(&project, &["check", "--examples"]).env("KILN_VERIFY", share);
        let done = call.run().ok();
        let compiles = done.compiled().len();
        let build = &world.stats()["build"];
        (compiles, build["hit_local"].as_u64().unwrap(), build["units"].as_u64().unwrap())
    };
    let all = CRATES + 1;
    assert_eq!(check("100%"), (all, 0, all as u64), "nothing is stored yet");
    assert_eq!(check("0%"), (0, all as u64, all as u64));
    assert_eq!(check(""), (0, all as u64, all as u64));
    let (compiles, hits, _) = check("50%");
    assert!(0 < compiles && compiles < all, "{compiles}");
    assert_eq!(hits, (all - compiles) as u64);
    assert_eq!(reasons(&world, "verified"), compiles as u64);
    assert_eq!(check("100%"), (all, 0, all as u64));
    assert_eq!(reasons(&world, "verified"), all as u64);

    let done = world
        .kiln(&["verify", "--sample", "0%", project.dir().to_str().unwrap()])
        .args(&["--", "check"])
        .run()
        .ok();
    assert_eq!((count(&done, "hits checked"), count(&done, "hits not checked")), (0, 1));
    assert!(done.stdout.contains("--sample 100%"), "{}", done.stdout);
}

#[test]
fn malformed_shares() {
    let world = world!();
    let project = small_app(&world, "app");
    for value in ["10", "101%", "most", "-1%"] {
        let done = world.rustc(&project, &["src/lib.rs"]).env("KILN_VERIFY", value).run();
        assert_eq!(done.status.code(), Some(2), "{value}: {}", done.stderr);
        let say = ["KILN_VERIFY", "it accepts", "`0%` to `100%`"];
        assert!(say.iter().all(|word| done.stderr.contains(word)), "{}", done.stderr);
        assert_eq!(done.runs.len(), 0);
        let sample = format!("--sample={value}");
        let done = world.kiln(&["verify", &sample]).dir(project.dir()).run();
        assert_eq!(done.status.code(), Some(2), "{value}: {}", done.stderr);
    }
    let done = world.rustc(&project, &["src/lib.rs"]).env("KILN_REPORT_FILE", "here").run();
    assert_eq!(done.status.code(), Some(2));
    assert!(done.stderr.contains("KILN_REPORT_FILE"), "{}", done.stderr);
}

#[test]
fn what_cannot_be_verified() {
    let world = world!();
    let project = small_app(&world, "app");
    let off = verify(&world, &project, &[]).env("KILN_MODE", "off").run();
    assert_eq!(off.status.code(), Some(2));
    let nowhere = world.kiln(&["verify", "/not/there"]).run();
    assert_eq!(nowhere.status.code(), Some(2));
    project.write("src/main.rs", "fn main() { no_such_thing }\n");
    let broken = verify(&world, &project, &[]).run();
    assert_eq!(broken.status.code(), Some(1));
    assert!(broken.stderr.contains("kiln: error: cargo failed"), "{}", broken.stderr);
    assert_eq!(std::fs::read_dir(world.at("tmp")).unwrap().count(), 0);
}

/// An interrupt ends the build and leaves nothing behind.
#[test]
fn an_interrupt_cleans_up() {
    for signal in [Signal::INT, Signal::TERM] {
        let world = world!();
        let project = small_app(&world, "app");
        build(&world, &project, "").run().ok();
        let gate = Gate::new(&world.bin(), "low");
        let running = verify(&world, &project, &[]).spawn();
        let held = gate.wait();
        let compiler = world.runs_since(0).last().unwrap().pid;
        kill(running.pid(), signal);
        let done = running.wait();
        assert_eq!(done.status.code(), Some(130), "{}\n{}", done.stdout, done.stderr);
        assert_eq!(std::fs::read_dir(world.at("tmp")).unwrap().count(), 0, "nothing is left");
        wait_until("the compiler ends", || !kiln_tests::server::is_alive(compiler));
        gate.open();
        drop(held);
        assert_eq!(quarantined(&world), Vec::<String>::new());
        world.assert_all_hit(&build(&world, &project, "").run().ok());
    }
}
