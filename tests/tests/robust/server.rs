//! Theme: whatever becomes of the server or of a wrapper, builds are right, and nothing of Kiln
//! holds on to a build.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_tests::samples::{build_app, check_app, small_app};
use kiln_tests::server::{Gate, Server, kill, parent_of, processes_with, wait_until};
use kiln_tests::{Project, World, world};
use rustix::process::Signal;

/// A build of two small units that has to do without a server takes no longer than this.
const BOUND: Duration = Duration::from_secs(45);

#[test]
fn killed_between_two_builds() {
    let world = world!();
    let project = small_app(&world, "app");
    build_app(&world, &project);
    // The server takes outputs over behind the build.
    wait_until("both units are stored", || world.stats()["store"]["results"] == 2);
    let first = world.server().unwrap();
    first.kill();
    world.assert_all_hit(&build_app(&world, &project));
    assert_ne!(world.server().unwrap().pid, first.pid);
}

/// What was said to be stored is stored: killing the server right behind a build loses nothing.
#[test]
fn killed_right_behind_a_build() {
    let world = world!();
    for name in ["a", "b", "c"] {
        let project = small_app(&world, name);
        project.write("src/lib.rs", format!("pub fn n() -> i32 {{ let {name} = 42; {name} }}\n"));
        build_app(&world, &project);
        world.server().unwrap().kill();
        // What the server had not taken over yet is compiled again, and stored then.
        build_app(&world, &project);
        world.assert_all_hit(&build_app(&world, &project));
    }
}

#[test]
fn killed_during_a_compile() {
    let world = world!();
    let project = small_app(&world, "app");
    let gate = Gate::new(&world.bin(), "low");
    let running = world.cargo(&project, &["build"]).spawn();
    let held = gate.wait();
    world.server().unwrap().kill();
    gate.open();
    drop(held);
    running.wait().ok();
    check_app(&world, &project);
    build_app(&world, &project);
    world.assert_all_hit(&build_app(&world, &project));
}

/// The server is gone and cannot be started again, since its program is.
#[test]
fn the_program_is_removed_between_two_builds() {
    let world = world!();
    let project = small_app(&world, "app");
    let own = world.at("kiln");
    std::fs::copy(&world.programs.kiln, &own).unwrap();
    let build = || world.cargo(&project, &["build", "-v"]).env("RUSTC_WRAPPER", &own);
    build().run().ok();
    project.wipe();
    world.assert_all_hit(&build().run().ok());
    world.stop_server();
    std::fs::remove_file(&own).unwrap();
    let done = world.plain_cargo(&project, &["build", "-v"]).run().ok();
    assert!(
        !done.stderr.contains("Dirty") && !done.stderr.contains("Compiling"),
        "{}",
        done.stderr
    );
    check_app(&world, &project);
    project.write("src/lib.rs", "pub fn n() -> i32 { 40 + 2 }\n");
    world.plain_cargo(&project, &["build"]).run().ok();
    check_app(&world, &project);
}

/// Ends the wrapper above a compile that a gate holds.
fn kill_wrapper(world: &World, gate: Gate, crate_name: &str) {
    let held = gate.wait();
    let runs = world.runs_since(0);
    let run = runs.iter().rfind(|run| run.value("--crate-name") == Some(crate_name)).unwrap();
    let wrapper = parent_of(run.pid).unwrap();
    kill(wrapper, Signal::KILL);
    let compiler = run.pid;
    wait_until("the compiler ends with its wrapper", || !kiln_tests::server::is_alive(compiler));
    gate.open();
    drop(held);
}

#[test]
fn a_wrapper_killed_during_its_compile() {
    let world = world!();
    let project = small_app(&world, "app");
    for name in ["low", "app"] {
        let gate = Gate::new(&world.bin(), name);
        let running = world.cargo(&project, &["build"]).spawn();
        kill_wrapper(&world, gate, name);
        let done = running.wait().fails();
        assert!(done.stderr.contains("signal: 9"), "{}", done.stderr);
        world.cargo(&project, &["build"]).run().ok();
        check_app(&world, &project);
        project.wipe();
        std::fs::remove_dir_all(world.kiln_dir().join("store")).ok();
        world.server().unwrap().kill();
    }
}

/// A wrapper that dies while it writes a restored file (at a limit of its size, which ends it by a
/// signal) leaves no half file under a name that cargo or rustc reads.
#[test]
fn a_wrapper_killed_during_its_restore() {
    let world = world!();
    let project = small_app(&world, "app");
    build_app(&world, &project);
    let whole = project.read("target/debug/app");
    project.wipe();
    let cargo = kiln_tests::host::host().toolchain.join("cargo");
    let script = "ulimit -f 1000; exec \"$0\" build";
    let call = world.call("/bin/sh", project.dir(), &["-c", script, cargo.to_str().unwrap()]);
    let done = call.run().fails();
    assert!(done.stderr.contains("signal") || done.stderr.contains("SIGXFSZ"), "{}", done.stderr);
    assert!(!project.at("target/debug/app").exists());
    let deps = std::fs::read_dir(project.at("target/debug/deps")).unwrap().flatten();
    let halves: Vec<_> = deps
        .map(|entry| entry.path())
        .filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'))
        .filter(|path| path.extension().is_none() && std::fs::read(path).unwrap() != whole)
        .collect();
    assert!(halves.is_empty(), "{halves:?}");
    let done = world.cargo(&project, &["build"]).run().ok();
    world.assert_all_hit(&done);
    assert_eq!(project.read("target/debug/app"), whole);
}

/// Builds with something else at the place of the socket: right, bounded, and quick later.
#[track_caller]
fn check_without_server(world: &World) {
    let project = small_app(world, "app");
    for _ in 0..2 {
        let done = build_app(world, &project);
        assert!(done.took < BOUND, "{:?}", done.took);
    }
}

fn socket(world: &World) -> PathBuf {
    std::fs::create_dir_all(world.kiln_dir()).unwrap();
    world.kiln_dir().join("kiln.sock")
}

#[test]
fn a_file_at_the_place_of_the_socket() {
    let world = world!();
    std::fs::write(socket(&world), "something").unwrap();
    check_without_server(&world);
}

#[test]
fn a_directory_at_the_place_of_the_socket() {
    let world = world!();
    std::fs::create_dir_all(socket(&world).join("inner")).unwrap();
    check_without_server(&world);
}

/// A socket that nobody listens on any more is taken over.
#[test]
fn a_dead_socket() {
    let world = world!();
    drop(UnixListener::bind(socket(&world)).unwrap());
    let project = small_app(&world, "app");
    build_app(&world, &project);
    world.assert_all_hit(&build_app(&world, &project));
}

/// Somebody else listens, and does this with each connection.
fn foreign(world: &World, act: impl Fn(std::os::unix::net::UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(socket(world)).unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(act));
}

#[test]
fn a_listener_that_hangs() {
    let world = world!();
    let held = std::sync::Mutex::new(Vec::new());
    foreign(&world, move |stream| held.lock().unwrap().push(stream));
    check_without_server(&world);
}

/// Nobody accepts, and the queue of connections is full.
#[test]
fn a_listener_that_never_accepts() {
    let world = world!();
    let _listener = UnixListener::bind(socket(&world)).unwrap();
    check_without_server(&world);
}

#[test]
fn a_listener_that_closes() {
    let world = world!();
    foreign(&world, drop);
    check_without_server(&world);
}

#[test]
fn a_listener_that_answers_garbage() {
    for answer in [
        &b"\0\xff garbage \n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n{\"records\":[{\"version\":1}],\"a\"",
    ] {
        let world = world!();
        foreign(&world, move |mut stream| {
            let _ = stream.read(&mut [0; 65536]);
            let _ = stream.write_all(answer);
        });
        check_without_server(&world);
    }
}

/// An endless answer is cut off.
#[test]
fn a_listener_that_never_ends() {
    let world = world!();
    foreign(&world, |mut stream| {
        std::thread::spawn(move || {
            let _ = stream.read(&mut [0; 65536]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            while stream.write_all(b"x-more: more\r\n").is_ok() {}
        });
    });
    check_without_server(&world);
}

#[test]
fn a_server_that_leaves_when_idle() {
    let world = world!();
    let project = small_app(&world, "app");
    let build = || {
        project.wipe();
        let done = world.cargo(&project, &["build"]).env("KILN_IDLE", "1").run().ok();
        (done, world.server())
    };
    let (_, server) = build();
    wait_until("the server leaves", || server.as_ref().is_none_or(|s| !s.is_alive()));
    assert!(!world.kiln_dir().join("kiln.sock").exists(), "it takes its socket along");
    let (done, _) = build();
    assert!(done.compiled().is_empty(), "{:?}", done.compiled());
}

#[test]
fn two_builds_at_once() {
    let world = world!();
    let projects = ["a", "b", "c"].map(|name| small_app(&world, name));
    let running: Vec<_> = projects.iter().map(|p| world.cargo(p, &["build"]).spawn()).collect();
    for running in running {
        running.wait().ok();
    }
    projects.iter().for_each(|project| check_app(&world, project));
    assert_eq!(servers(&world.kiln_dir()).len(), 1, "one server");
    let running: Vec<_> =
        projects.iter().map(|p| world.cargo(p.wipe(), &["build"]).spawn()).collect();
    for running in running {
        world.assert_all_hit(&running.wait().ok());
    }
    projects.iter().for_each(|project| check_app(&world, project));
}

fn servers(dir: &Path) -> Vec<u32> {
    processes_with(&format!("KILN_DIR={}", dir.display()))
}

/// Two state directories never meet, not even under long names.
#[test]
fn two_state_directories() {
    let world = world!();
    let project = small_app(&world, "app");
    let long = |end: &str| world.at(&format!("{}/{end}", "long/".repeat(30)));
    let dirs = [world.at("one"), world.at("two"), long("a"), long("b")];
    let build = |dir: &Path| {
        project.wipe();
        let done = world.cargo(&project, &["build"]).env("KILN_DIR", dir).run().ok();
        check_app(&world, &project);
        done
    };
    for dir in &dirs {
        assert!(build(dir).did_compile("app"), "{}", dir.display());
    }
    for dir in &dirs {
        assert!(build(dir).compiled().is_empty(), "{}", dir.display());
    }
    let all: BTreeSet<u32> = dirs.iter().flat_map(|dir| servers(dir)).collect();
    assert_eq!(all.len(), dirs.len(), "a server each");
    for (i, dir) in dirs.iter().enumerate() {
        world.kiln(&["server", "stop"]).env("KILN_DIR", dir).run().ok();
        assert_eq!(dirs.iter().flat_map(|dir| servers(dir)).count(), dirs.len() - 1 - i);
    }
}

/// Where the descriptors of a process lead.
fn descriptors(pid: u32) -> BTreeSet<PathBuf> {
    Server { pid }.descriptors().into_iter().map(|(_, to)| to).collect()
}

/// The server shares no pipe, terminal, socket or file with cargo, not the jobserver either.
#[test]
fn the_server_holds_nothing_of_the_build() {
    let world = world!();
    let project = small_app(&world, "app");
    let gate = Gate::new(&world.bin(), "low");
    let running = world.cargo(&project, &["build", "-j2"]).spawn();
    let held = gate.wait();
    let server = world.server().unwrap();
    let null = PathBuf::from("/dev/null");
    let own = |to: &PathBuf| {
        to.starts_with(world.kiln_dir()) || to.starts_with("anon_inode:") || *to == null
    };
    let of_server = descriptors(server.pid);
    let of_cargo = descriptors(running.pid());
    let shared: Vec<_> = of_server.intersection(&of_cargo).filter(|to| !own(to)).collect();
    assert!(shared.is_empty(), "{shared:?}");
    let odd = of_server
        .iter()
        .filter(|to| to.starts_with("pipe:") || to.starts_with(project.dir()))
        .count();
    assert_eq!(odd, 0, "{of_server:?}");
    for standard in 0..3 {
        let link = std::fs::read_link(format!("/proc/{}/fd/{standard}", server.pid)).unwrap();
        assert!(own(&link), "descriptor {standard}: {}", link.display());
    }
    assert_eq!(std::fs::read_link(format!("/proc/{}/cwd", server.pid)).unwrap(), Path::new("/"));
    gate.open();
    drop(held);
    running.wait().ok();
    let after = descriptors(server.pid);
    assert!(
        !after.iter().any(|to| to.starts_with(project.dir()) || to.starts_with("pipe:")),
        "{after:?}"
    );
    assert_eq!(servers(&world.kiln_dir()), [server.pid], "nothing else is left of the build");
}

/// The server is a session of its own: a terminal's hang-up or interrupt does not reach it.
#[test]
fn the_server_is_a_session_of_its_own() {
    let world = world!();
    build_app(&world, &small_app(&world, "app"));
    let pid = world.server().unwrap().pid;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split_whitespace().collect();
    let (session, terminal) = (fields[3], fields[4]);
    assert_eq!((session, terminal), (pid.to_string().as_str(), "0"));
}

/// A wrapper works when its directory is gone and its server cannot be reached.
#[test]
fn the_state_directory_vanishes_during_a_build() {
    let world = world!();
    let project: Project = small_app(&world, "app");
    let gate = Gate::new(&world.bin(), "low");
    let running = world.cargo(&project, &["build"]).spawn();
    let held = gate.wait();
    let server = world.server().unwrap();
    std::fs::remove_dir_all(world.kiln_dir()).unwrap();
    gate.open();
    drop(held);
    running.wait().ok();
    check_app(&world, &project);
    server.kill_if_alive();
    build_app(&world, &project);
    world.assert_all_hit(&build_app(&world, &project));
}
