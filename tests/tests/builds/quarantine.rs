//! Theme: results that proved wrong are not used any more.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use kiln_tests::checking::{
    build, count, prints, quarantined, quarantined_keys, reasons, set_hidden, verify,
    with_hidden_file, wrong,
};
use kiln_tests::mount::Mount;
use kiln_tests::server::Gate;
use kiln_tests::{Call, skip, world};

#[test]
fn a_wrong_result_is_found_and_not_used_any_more() {
    let world = world!();
    let project = wrong(&world);
    let done = verify(&world, &project, &[]).run();
    assert_eq!(done.status.code(), Some(1), "{}\n{}", done.stdout, done.stderr);
    assert_eq!((count(&done, "equal"), count(&done, "wrong")), (1, 1), "{}", done.stdout);
    assert!(done.stdout.contains("low 0.1.0 (lib): liblow-"), "{}", done.stdout);
    assert!(done.stdout.contains("; quarantined\n"), "{}", done.stdout);
    let listed = quarantined(&world);
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert!(listed[0].starts_with("low 0.1.0 (lib), "), "{listed:?}");
    for command in [&["doctor"][..], &["stats"]] {
        let said = world.kiln(command).run();
        assert!(said.stdout.contains("kiln verify --quarantined"), "{command:?}: {}", said.stdout);
    }
    assert_eq!(world.stats()["quarantined"], 1);

    // It is compiled in each build now, and nothing stores it again.
    for _ in 0..2 {
        let done = build(&world, &project, "").run().ok();
        assert!(done.did_compile("low"));
        prints(&world, &project, "2");
        assert_eq!(reasons(&world, "quarantined"), 1, "{:#}", world.stats()["missed"]);
    }
    let refresh = build(&world, &project, "").env("KILN_MODE", "refresh").run().ok();
    assert!(refresh.did_compile("low"));
    assert!(build(&world, &project, "").run().ok().did_compile("low"));
}

/// With the running server, with a new one, with a new index.
#[test]
fn what_is_quarantined_stays_so() {
    let world = world!();
    let project = wrong(&world);
    verify(&world, &project, &[]).run().fails();
    let check = || {
        assert!(build(&world, &project, "").run().ok().did_compile("low"));
        prints(&world, &project, "2");
        assert_eq!(quarantined(&world).len(), 1);
    };
    check();
    world.stop_server();
    check();
    world.server().unwrap().kill();
    check();
    world.stop_server();
    for entry in std::fs::read_dir(world.kiln_dir()).unwrap().flatten() {
        if entry.file_name().to_str().unwrap().starts_with("index.sqlite") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    check();
}

#[test]
fn what_is_released_is_stored_again() {
    let world = world!();
    let project = wrong(&world);
    verify(&world, &project, &[]).run().fails();
    let keys = quarantined_keys(&world);
    assert_eq!(keys.len(), 1);
    let release = |what: &str| world.kiln(&["verify", "--release", what]).run();
    assert_eq!(release("nonsense").status.code(), Some(2));
    let other = release(&"0".repeat(64));
    assert_eq!(other.status.code(), Some(1));
    assert!(other.stderr.contains("not quarantined"), "{}", other.stderr);
    assert_eq!(release(&keys[0]).ok().stdout, "released: 1\n");
    assert_eq!(quarantined_keys(&world), Vec::<String>::new());
    assert!(build(&world, &project, "").run().ok().did_compile("low"));
    let hit = build(&world, &project, "").run().ok();
    world.assert_all_hit(&hit);
    prints(&world, &project, "2");

    set_hidden(&world, "3");
    verify(&world, &project, &[]).run().fails();
    assert_eq!(release("all").ok().stdout, "released: 1\n");
    assert_eq!(release("all").ok().stdout, "released: 0\n");
}

/// In the build itself the fresh compile is what is used, and the next build has no stale hit.
#[test]
fn a_build_that_finds_a_wrong_result() {
    let world = world!();
    let project = wrong(&world);
    build(&world, &project, "100%").run().ok();
    prints(&world, &project, "2");
    assert_eq!(reasons(&world, "verify-differs"), 1, "{:#}", world.stats()["missed"]);
    build(&world, &project, "").run().ok();
    prints(&world, &project, "2");
}

/// What is stored compiled; by now it does not.
#[test]
fn a_stored_success_of_what_does_not_compile() {
    let world = world!();
    let project = wrong(&world);
    set_hidden(&world, "no_such_thing");
    let done = build(&world, &project, "100%").run().fails();
    assert!(done.stderr.contains("no_such_thing"), "{}", done.stderr);
    let errors = done.stderr.matches("cannot find value").count();
    assert_eq!(errors, 1, "the second run is silent: {}", done.stderr);
    assert_eq!(reasons(&world, "compile-failed"), 1);
    assert_eq!(quarantined(&world).len(), 1);
    let done = build(&world, &project, "").run().fails();
    assert!(done.stderr.contains("no_such_thing"), "{}", done.stderr);

    let world = world!();
    let project = wrong(&world);
    set_hidden(&world, "no_such_thing");
    let done = verify(&world, &project, &[]).run();
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(count(&done, "wrong"), 1, "{}", done.stdout);
    assert!(done.stderr.contains("kiln: error: cargo failed"), "{}", done.stderr);
}

/// `read` looks up and stores nothing: what is wrong is said and stays.
#[test]
fn a_cache_that_is_only_read() {
    let world = world!();
    let project = wrong(&world);
    let done = verify(&world, &project, &[]).env("KILN_MODE", "read").run();
    assert_eq!(done.status.code(), Some(1), "{}", done.stdout);
    assert_eq!(count(&done, "wrong"), 1);
    assert!(done.stdout.contains("not quarantined, since KILN_MODE=read"), "{}", done.stdout);
    assert_eq!(quarantined(&world), Vec::<String>::new());
    world.assert_all_hit(&build(&world, &project, "").run().ok());
}

/// A store that takes no writes: it is not used any more as long as the index lasts.
#[test]
fn a_read_only_store() {
    let world = world!();
    let project = with_hidden_file(&world);
    let storage = world.at("storage");
    let url = format!("file://{}", storage.display());
    let stored = |call: Call| call.env("KILN_STORAGE", &url).run();
    stored(build(&world, &project, "")).ok();
    world.stop_server();
    let path = storage.to_str().unwrap().to_owned();
    let _mount = match Mount::new(&["--bind", "-o", "ro", &path], &storage) {
        Ok(mount) => mount,
        Err(why) => skip!("{why}"),
    };
    assert_eq!(stored(verify(&world, &project, &[])).ok().compiled().len(), 3, "all are equal");
    set_hidden(&world, "2");
    let done = stored(verify(&world, &project, &[])).fails();
    assert_eq!(count(&done, "wrong"), 1);
    assert!(done.stdout.contains("not quarantined for good"), "{}", done.stdout);
    stored(build(&world, &project, "")).ok();
    prints(&world, &project, "2");
    world.stop_server();
}

/// The local server dies while a hit is checked: another one quarantines the result.
#[test]
fn a_server_that_dies_meanwhile() {
    let world = world!();
    let project = wrong(&world);
    let gate = Gate::new(&world.bin(), "low");
    let running = build(&world, &project, "100%").spawn();
    let held = gate.wait();
    world.server().unwrap().kill();
    gate.open();
    drop(held);
    running.wait().ok();
    prints(&world, &project, "2");
    assert_eq!(quarantined(&world).len(), 1);
}

/// A server that nobody can start again goes while a hit is checked: the build is right, and so is
/// what is said.
#[test]
fn a_server_that_is_gone_for_good() {
    let world = world!();
    let project = wrong(&world);
    let url = format!("unix://{}", world.kiln_dir().join("kiln.sock").display());
    let gate = Gate::new(&world.bin(), "low");
    let running = verify(&world, &project, &[]).env("KILN_SERVER", &url).spawn();
    let held = gate.wait();
    world.server().unwrap().kill();
    gate.open();
    drop(held);
    let done = running.wait();
    assert_eq!(done.status.code(), Some(1), "{}\n{}", done.stdout, done.stderr);
    assert_eq!((count(&done, "equal"), count(&done, "wrong")), (1, 1), "{}", done.stdout);
    assert!(done.stdout.contains("not quarantined for good: no server"), "{}", done.stdout);
    assert!(done.stdout.contains("1 server-absent"), "{}", done.stdout);
}
