//! Theme: whatever becomes of the store, builds are right, and the cache heals.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::{Path, PathBuf};

use kiln_tests::mount::Mount;
use kiln_tests::project::{Project, files_below};
use kiln_tests::samples::{build_app, check_app, small_app};
use kiln_tests::server::wait_until;
use kiln_tests::{World, skip, world};

/// Files of the store, and of the index when that is wanted.
fn files(world: &World, index: bool) -> Vec<PathBuf> {
    let dir = world.kiln_dir();
    let store = files_below(&dir.join("store")).into_iter().map(|f| dir.join("store").join(f));
    let own = std::fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.path());
    let own =
        own.filter(|path| path.is_file() && index && !path.to_str().unwrap().ends_with(".lock"));
    store.chain(own).collect()
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
}

fn halve(path: &Path) {
    let size = path.metadata().unwrap().len();
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(size / 2).unwrap();
}

/// Builds the program, and waits until the server has taken its outputs over: what is damaged while it
/// is written is another matter.
#[track_caller]
fn fill(world: &World, project: &Project) {
    build_app(world, project);
    wait_until("both units are stored", || world.stats()["store"]["results"] == 2);
}

/// Damages a filled cache: the next build is right, the one after comes from the cache again. Once
/// with the server running on, once with a new one.
#[track_caller]
fn check(index: bool, damage: impl Fn(&Path)) {
    for stop in [false, true] {
        let world = world!();
        let project = small_app(&world, "app");
        fill(&world, &project);
        if stop {
            world.stop_server();
        }
        let files = files(&world, index);
        assert!(files.len() >= 3, "{files:?}");
        files.iter().filter(|path| path.exists()).for_each(|path| damage(path));
        build_app(&world, &project);
        world.assert_all_hit(&build_app(&world, &project));
    }
}

#[test]
fn a_bit_of_every_stored_file_flipped() {
    check(false, flip);
}

#[test]
fn every_stored_file_halved() {
    check(false, halve);
}

#[test]
fn every_stored_file_emptied() {
    check(false, |path| std::fs::write(path, "").unwrap());
}

#[test]
fn every_stored_file_removed() {
    check(false, |path| std::fs::remove_file(path).unwrap());
}

#[test]
fn every_stored_file_replaced_by_another() {
    check(false, |path| {
        let size = usize::try_from(path.metadata().unwrap().len()).unwrap();
        std::fs::write(path, vec![b'x'; size]).unwrap();
    });
}

/// Index, memo and what was noted of tools, too.
#[test]
fn everything_replaced_by_garbage() {
    for stop in [true, false] {
        let world = world!();
        let project = small_app(&world, "app");
        fill(&world, &project);
        if stop {
            world.stop_server();
        }
        for path in files(&world, true) {
            if path.is_file() {
                std::fs::write(path, "no such thing\n".repeat(1000)).unwrap();
            }
        }
        for file in files_below(&world.kiln_dir().join("tools")) {
            std::fs::write(world.kiln_dir().join("tools").join(file), "{").unwrap();
        }
        build_app(&world, &project);
        if !stop {
            // A running server cannot notice that its index was written over; a new one does.
            world.server().into_iter().for_each(|server| server.kill());
            build_app(&world, &project);
        }
        world.assert_all_hit(&build_app(&world, &project));
    }
}

#[test]
fn the_whole_store_removed() {
    for stop in [false, true] {
        let world = world!();
        let project = small_app(&world, "app");
        fill(&world, &project);
        if stop {
            world.stop_server();
        }
        std::fs::remove_dir_all(world.kiln_dir().join("store")).unwrap();
        build_app(&world, &project);
        world.assert_all_hit(&build_app(&world, &project));
    }
}

/// Only the index is lost: it is built anew from the store.
#[test]
fn the_index_removed() {
    let world = world!();
    let project = small_app(&world, "app");
    fill(&world, &project);
    world.stop_server();
    for path in std::fs::read_dir(world.kiln_dir()).unwrap().flatten().map(|e| e.path()) {
        if path.to_str().unwrap().contains("index.sqlite") {
            std::fs::remove_file(path).unwrap();
        }
    }
    world.assert_all_hit(&build_app(&world, &project));
}

/// Hits come from a read-only store; what is new is compiled.
#[test]
fn a_read_only_store() {
    let world = world!();
    let project = small_app(&world, "app");
    let storage = world.at("storage");
    let url = format!("file://{}", storage.display());
    let build = |project: &kiln_tests::Project| {
        project.wipe();
        let done = world.cargo(project, &["build"]).env("KILN_STORAGE", &url).run().ok();
        check_app(&world, project);
        done
    };
    build(&project);
    world.stop_server();
    let path = storage.to_str().unwrap().to_owned();
    let _mount = match Mount::new(&["--bind", "-o", "ro", &path], &storage) {
        Ok(mount) => mount,
        Err(why) => skip!("{why}"),
    };
    assert!(std::fs::write(storage.join("probe"), "").is_err(), "it is read-only");
    let done = build(&project);
    assert!(done.compiled().is_empty(), "{:?}", done.compiled());
    let other = small_app(&world, "other");
    other.write("src/lib.rs", "pub fn n() -> i32 { 21 * 2 }\n");
    for _ in 0..2 {
        assert!(build(&other).did_compile("low"));
    }
    world.stop_server();
}

/// Nothing of the state directory can be written.
#[test]
fn a_read_only_state_directory() {
    let world = world!();
    let project = small_app(&world, "app");
    build_app(&world, &project);
    world.stop_server();
    let dir = world.kiln_dir();
    let path = dir.to_str().unwrap().to_owned();
    let _mount = match Mount::new(&["--bind", "-o", "ro", &path], &dir) {
        Ok(mount) => mount,
        Err(why) => skip!("{why}"),
    };
    for _ in 0..2 {
        let done = build_app(&world, &project);
        let said = done.stderr.matches("kiln: ").count();
        assert!(said <= 1, "at most one warning: {}", done.stderr);
    }
    world.stop_server();
}

/// No room for a single result, then enough.
#[test]
fn a_full_disk() {
    for size in ["64k", "1m", "9m"] {
        let world = world!();
        let project = small_app(&world, "app");
        let dir = world.kiln_dir();
        let _mount = match Mount::new(&["-t", "tmpfs", "-o", &format!("size={size}"), "none"], &dir)
        {
            Ok(mount) => mount,
            Err(why) => skip!("{why}"),
        };
        std::fs::write(dir.join("ballast"), vec![1; 48 * 1024]).unwrap();
        for _ in 0..3 {
            let done = build_app(&world, &project);
            let said = done.stderr.matches("kiln: ").count();
            assert!(said <= 1, "at most one warning: {}", done.stderr);
        }
        let log = std::fs::read_to_string(dir.join("server.log")).unwrap_or_default();
        let told = log.lines().filter(|line| line.contains("insufficient storage")).count();
        assert!(told <= 1, "one line for what each unit meets: {log}");
        std::fs::remove_file(dir.join("ballast")).unwrap();
        build_app(&world, &project);
        world.stop_server();
    }
}

/// A target directory without room: cargo fails as without Kiln, and works once there is room.
#[test]
fn a_full_target_directory() {
    let world = world!();
    let project = small_app(&world, "app");
    build_app(&world, &project);
    project.wipe();
    let target = project.at("target");
    {
        let _mount = match Mount::new(&["-t", "tmpfs", "-o", "size=1m", "none"], &target) {
            Ok(mount) => mount,
            Err(why) => skip!("{why}"),
        };
        world.cargo(&project, &["build"]).run().fails();
    }
    let done = build_app(&world, &project);
    world.assert_all_hit(&done);
}

/// A cache of a small size budget keeps working, within its budget.
#[test]
fn a_small_budget() {
    let world = world!();
    for n in 0..4 {
        let project = small_app(&world, &format!("p{n}"));
        project.write("src/lib.rs", format!("pub fn n() -> i32 {{ {n} * 0 + 42 }}\n"));
        for _ in 0..2 {
            project.wipe();
            world.cargo(&project, &["build"]).env("KILN_CACHE_SIZE", "6MiB").run().ok();
            check_app(&world, &project);
        }
    }
    let store = world.kiln_dir().join("store");
    // Stopped, so that nothing is removed meanwhile.
    world.stop_server();
    let bytes: u64 =
        files_below(&store).iter().map(|f| store.join(f).metadata().unwrap().len()).sum();
    assert!(bytes <= 8 * 1024 * 1024, "{bytes} bytes");
}
