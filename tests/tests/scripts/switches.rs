//! Theme: build scripts when Kiln is switched off, taken away, or changed between two builds. Whatever
//! lies in the target directory works on, and cargo finds it as it was.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::PathBuf;

use kiln_tests::direct::With;
use kiln_tests::script::{Scripted, Stored};
use kiln_tests::world;

fn one(p: &Scripted) {
    p.write("pk/data/n", "one");
}

fn two(p: &Scripted) {
    p.write("pk/data/n", "two");
}

const READS: &str = "println!(\"cargo:rerun-if-changed=data/n\"); read(\"data/n\")";

/// A workspace whose script was answered from the cache.
fn answered() -> Scripted {
    let place = Scripted::new(world!(), READS);
    one(&place);
    assert_eq!(place.build(With::Kiln).scripts, ["pk"]);
    place.hits_in(&place.project, "one", "the same again");
    place
}

/// A build on what is there does nothing.
#[track_caller]
fn is_fresh(place: &Scripted, with: With) {
    let done = place.cargo(with, &place.project, &["build", "-v"]).run().ok();
    let worked = |l: &str| ["Dirty", "Compiling", "Running"].iter().any(|w| l.contains(w));
    assert!(!done.stderr.lines().any(worked), "{}", done.stderr);
}

/// In the same target directory, at once, in both directions; files stay fresh.
fn switched_off(name: &str, value: &str) {
    let place = answered();
    place.set(name, value);
    is_fresh(&place, With::Kiln);
    place.change("pk/data/n", "two");
    let off = place.build_on(With::Kiln, &place.project);
    assert_eq!((off.text.as_str(), off.scripts.as_slice()), ("two", &["pk".to_owned()][..]));
    is_fresh(&place, With::Kiln);
    let again = place.build(With::Kiln);
    assert_eq!((again.text.as_str(), again.scripts.as_slice()), ("two", &["pk".to_owned()][..]));
    is_fresh(&place, With::Kiln);
    place.unset(name);
    is_fresh(&place, With::Kiln);
    place.change("pk/data/n", "one");
    let on = place.build_on(With::Kiln, &place.project);
    assert_eq!(on.text, "one");
    one(&place);
    place.hits_in(&place.project, "one", "on again");
    is_fresh(&place, With::Kiln);
}

#[test]
fn build_scripts_off() {
    switched_off("KILN_BUILD_SCRIPTS", "off");
}

#[test]
fn kiln_off() {
    switched_off("KILN_MODE", "off");
}

/// Nothing is known of what a script does: it runs each time.
#[test]
fn observation_off() {
    switched_off("KILN_OBSERVE", "off");
}

/// A script that says in what it leaves which of the variables it sees.
const SEES: &str = "println!(\"cargo:rerun-if-changed=data/n\"); \
    let seen = [\"KILN_TOKEN\", \"KILN_TOKENS\", \"ACTIONS_ID_TOKEN_REQUEST_TOKEN\"]\
    .map(|name| std::env::var(name).unwrap_or_default()).join(\",\"); read(\"data/n\") + &seen";

/// The token is for Kiln alone, whoever starts the script; others are the user's.
#[test]
fn no_script_sees_the_token_and_it_is_in_no_key() {
    let place = Scripted::new(world!(), SEES);
    place.set("KILN_TOKENS", "other");
    place.set("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "github");
    place.set("KILN_TOKEN", "secret");
    one(&place);
    let said = |n: &str| format!("{n},other,github");
    let first = place.build(With::Kiln);
    assert_eq!((first.text, first.scripts), (said("one"), vec!["pk".to_owned()]));
    place.set("KILN_TOKEN", "another secret");
    place.hits_in(&place.project, &said("one"), "another token");
    for (name, value, with) in [
        ("KILN_BUILD_SCRIPTS", "off", With::Kiln),
        ("KILN_MODE", "off", With::Kiln),
        ("KILN_TOKENS", "other", With::Nothing),
    ] {
        place.set(name, value);
        place.change("pk/data/n", "two");
        assert_eq!(place.build_on(with, &place.project).text, said("two"), "{name}={value}");
        place.change("pk/data/n", "one");
        assert_eq!(place.build_on(with, &place.project).text, said("one"), "{name}={value}");
        if with == With::Kiln {
            place.unset(name);
        }
    }
}

/// What was built with the switch off has no front; switched on, scripts run as they are until they are
/// made anew.
#[test]
fn off_first() {
    let place = Scripted::new(world!(), READS);
    one(&place);
    place.set("KILN_BUILD_SCRIPTS", "off");
    assert_eq!(place.build(With::Kiln).scripts, ["pk"]);
    place.unset("KILN_BUILD_SCRIPTS");
    is_fresh(&place, With::Kiln);
    place.change("pk/data/n", "two");
    assert_eq!(place.build_on(With::Kiln, &place.project).text, "two");
    one(&place);
    assert_eq!(place.build(With::Kiln).text, "one");
    place.hits_in(&place.project, "one", "on");
}

/// The wrapper is taken out of the environment: cargo starts what is there, and that runs.
#[test]
fn without_the_wrapper() {
    let place = answered();
    is_fresh(&place, With::Nothing);
    place.change("pk/data/n", "two");
    let plain = place.build_on(With::Nothing, &place.project);
    assert_eq!((plain.text.as_str(), plain.scripts.as_slice()), ("two", &["pk".to_owned()][..]));
    is_fresh(&place, With::Nothing);
    is_fresh(&place, With::Kiln);
}

/// A copy of Kiln that can be taken away.
fn own_kiln(place: &Scripted) -> PathBuf {
    let kiln = place.world.at("own/kiln");
    std::fs::create_dir_all(kiln.parent().unwrap()).unwrap();
    std::fs::copy(&place.world.programs.kiln, &kiln).unwrap();
    place.set("RUSTC_WRAPPER", kiln.to_str().unwrap());
    kiln
}

/// Kiln is removed between two builds; the wrapper is no longer set.
#[test]
fn kiln_is_gone() {
    let place = Scripted::new(world!(), READS);
    one(&place);
    let kiln = own_kiln(&place);
    place.build(With::Kiln).done.ok();
    place.hits_in(&place.project, "one", "the same again");
    place.world.stop_server();
    std::fs::remove_file(kiln).unwrap();
    place.unset("RUSTC_WRAPPER");
    is_fresh(&place, With::Nothing);
    place.change("pk/data/n", "two");
    let plain = place.build_on(With::Nothing, &place.project);
    assert_eq!((plain.text.as_str(), plain.scripts.as_slice()), ("two", &["pk".to_owned()][..]));
}

/// Kiln is removed while cargo still believes in it: the script alone is run by hand.
#[test]
fn kiln_is_gone_and_the_wrapper_is_set() {
    let place = Scripted::new(world!(), READS);
    one(&place);
    let kiln = own_kiln(&place);
    place.build(With::Kiln).done.ok();
    place.world.stop_server();
    std::fs::remove_file(&kiln).unwrap();
    let program = place.project.at("target/debug/build");
    let mut found = std::fs::read_dir(program).unwrap().map(|e| e.unwrap().path());
    let script = found.find_map(|dir| {
        let script = dir.join("build-script-build");
        script.exists().then_some(script)
    });
    place.tally.take();
    let out = place.world.at("out");
    std::fs::create_dir(&out).unwrap();
    let package = place.project.at("pk");
    let call = place.world.call(script.unwrap(), &package, &[]).env("RUSTC_WRAPPER", &kiln);
    call.env("OUT_DIR", &out).env("CARGO_MANIFEST_DIR", &package).run().ok();
    assert_eq!(place.tally.take(), ["pk"]);
    assert_eq!(std::fs::read(out.join("shown")).unwrap(), b"one");
}

/// A server that does not answer: scripts run.
#[test]
fn without_a_server() {
    let place = answered();
    let server = place.world.server().unwrap();
    place.world.stop_server();
    server.kill_if_alive();
    place.set("KILN_SERVER", "unix:///nowhere/at/all");
    let shown = place.build(With::Kiln);
    assert_eq!((shown.text.as_str(), shown.scripts.as_slice()), ("one", &["pk".to_owned()][..]));
    is_fresh(&place, With::Kiln);
}

/// Every result is made anew, and stored.
#[test]
fn refreshed() {
    let place = answered();
    place.set("KILN_MODE", "refresh");
    let shown = place.build(With::Kiln);
    assert_eq!((shown.text.as_str(), shown.scripts.as_slice()), ("one", &["pk".to_owned()][..]));
    place.unset("KILN_MODE");
    place.hits_in(&place.project, "one", "as usual");
}

/// What is there is used, and nothing is added to it.
#[test]
fn read_only() {
    let place = answered();
    place.set("KILN_MODE", "read");
    place.hits_in(&place.project, "one", "what is there");
    two(&place);
    for _ in 0..2 {
        let shown = place.build(With::Kiln);
        assert_eq!(
            (shown.text.as_str(), shown.scripts.as_slice()),
            ("two", &["pk".to_owned()][..])
        );
    }
}

/// `KILN_PATHS=exact`: results hold at their place.
#[test]
fn exact_paths() {
    let place = answered();
    place.set("KILN_PATHS", "exact");
    place.build(With::Kiln).done.ok();
    place.hits_in(&place.project, "one", "the same place");
    let two = place.project.copy_to(place.world.at("ws/far/er/two"));
    let shown = place.build_in(With::Kiln, &two);
    assert_eq!(shown.text, "one");
}

/// A target directory that was moved: cargo's own rules say what is built anew.
#[test]
fn a_target_directory_that_was_moved() {
    let place = answered();
    let moved = place.world.at("ws/moved");
    std::fs::rename(place.project.dir(), &moved).unwrap();
    let project = kiln_tests::Project::create(moved);
    let shown = place.build_on(With::Kiln, &project);
    shown.done.ok();
    assert_eq!(place.prints(&project), "one");
}

/// A script that has nothing to do with the first one under the same name.
#[test]
fn a_script_that_is_changed() {
    let place = Scripted::new(world!(), "\"one\".into()");
    let build = |text: &str| {
        place.script(
            "pk/build.rs",
            &format!("fn main() {{ tally(); fs::write(out(\"shown\"), {text:?}).unwrap(); }}\n"),
        );
        place.touch("pk/build.rs");
        place.build_on(With::Kiln, &place.project)
    };
    assert_eq!(build("a").text, "a");
    assert_eq!(build("b").text, "b");
    place.project.wipe();
    let again = build("a");
    assert_eq!((again.text.as_str(), again.scripts.len()), ("a", 0), "{}", place.why());
    let again = build("b");
    assert_eq!((again.text.as_str(), again.scripts.len()), ("b", 0), "{}", place.why());
}

/// A result that holds proves itself: `KILN_VERIFY` runs the script, and finds what was stored.
#[test]
fn verified() {
    let place = answered();
    place.set("KILN_VERIFY", "100%");
    let shown = place.build(With::Kiln);
    assert_eq!(shown.text, "one");
    shown.done.ok();
    place.unset("KILN_VERIFY");
    place.hits_in(&place.project, "one", "verified");
    assert_eq!(place.world.stats()["quarantined"], 0);
}

/// Both states through the whole story once more, with the script under the wrapper's eyes from the
/// beginning: nothing of the switches is remembered.
#[test]
fn nothing_is_remembered() {
    let place = answered();
    for (name, value) in [("KILN_BUILD_SCRIPTS", "off"), ("KILN_MODE", "off")] {
        place.set(name, value);
        place.build(With::Kiln).done.ok();
        place.unset(name);
    }
    place.check(Stored::Everywhere, one, two);
}
