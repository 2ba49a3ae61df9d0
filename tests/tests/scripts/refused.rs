//! Theme: runs of build scripts that are not stored, each with its reason: they do things that no later
//! build could be spared, or that cannot be told.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use kiln_tests::direct::With;
use kiln_tests::script::{Scripted, Stored};
use kiln_tests::server::wait_until;
use kiln_tests::{scripts, world};

fn one(p: &Scripted) {
    p.write("pk/data/n", "one");
}

fn two(p: &Scripted) {
    p.write("pk/data/n", "two");
}

scripts! {
    a_file_written_into_the_package: Refused("writes-outside"),
        "fs::write(at(\"src/made.rs\"), read(\"data/n\")).unwrap(); read(\"data/n\")", one, two;
    a_file_written_into_the_workspace: Refused("writes-outside"),
        "fs::write(at(\"../made\"), read(\"data/n\")).unwrap(); read(\"data/n\")", one, two;
    a_directory_made_in_the_package: Refused("writes-outside"),
        "fs::create_dir_all(at(\"made\")).unwrap(); read(\"data/n\")", one, two;
    a_file_removed_from_the_package: Refused("writes-outside"),
        "fs::remove_file(at(\"data/gone\")).unwrap(); read(\"data/n\")",
        |p| { one(p); p.write("pk/data/gone", ""); }, |p| { two(p); p.write("pk/data/gone", ""); };
    a_link_made_in_the_package: Refused("writes-outside"),
        "std::os::unix::fs::symlink(\"n\", at(\"data/link\")).unwrap(); read(\"data/n\")", one, two;
    a_file_renamed_in_the_package: Refused("writes-outside"),
        "fs::rename(at(\"data/from\"), at(\"data/to\")).unwrap(); read(\"data/n\")",
        |p| { one(p); p.write("pk/data/from", ""); }, |p| { two(p); p.write("pk/data/from", ""); };
    a_mode_changed_in_the_package: Refused("writes-outside"),
        "use std::os::unix::fs::PermissionsExt; \
         fs::set_permissions(at(\"data/n\"), PermissionsExt::from_mode(0o755)).unwrap(); read(\"data/n\")", one, two;
    a_time_changed_in_the_package: Refused("writes-outside"), "run(Command::new(\"touch\").arg(at(\"data/n\"))) + &read(\"data/n\")", one, two;
    a_file_written_by_a_child: Refused("writes-outside"), "sh(\"echo x > made\") + &read(\"data/n\")", one, two;
    a_file_written_beside_its_own_directory: Refused("writes-outside"),
        "fs::write(out(\"../beside\"), \"x\").unwrap(); read(\"data/n\")", one, two;
    a_file_written_into_the_target_directory: Refused("writes-outside"),
        "fs::write(out(\"../../../made\"), \"x\").unwrap(); read(\"data/n\")", one, two;
    /// Nothing of a directory of its own is left; that files in it were made the plain way does not matter.
    a_directory_of_its_own_for_a_while: Everywhere,
        "fs::create_dir(at(\"own\")).unwrap(); fs::create_dir(at(\"own/deep\")).unwrap(); \
         fs::write(at(\"own/deep/n\"), read(\"data/n\")).unwrap(); let text = read(\"own/deep/n\"); \
         fs::remove_dir_all(at(\"own\")).unwrap(); text", one, two;
    /// What was there before is changed while it is in such a directory.
    a_file_that_was_in_a_directory_of_its_own_for_a_while: Refused("writes-outside"),
        "fs::create_dir(at(\"own\")).unwrap(); fs::rename(at(\"data/more\"), at(\"own/more\")).unwrap(); \
         fs::write(at(\"own/more/f\"), \"y\").unwrap(); fs::rename(at(\"own/more\"), at(\"data/more\")).unwrap(); \
         fs::remove_dir(at(\"own\")).unwrap(); read(\"data/n\")",
        |p| { one(p); p.write("pk/data/more/f", "x"); }, |p| { two(p); p.write("pk/data/more/f", "x"); };
    /// The same through a link in it.
    a_link_that_was_in_a_directory_of_its_own: Refused("writes-outside"),
        "fs::create_dir(at(\"own\")).unwrap(); std::os::unix::fs::symlink(at(\"data/more\"), at(\"own/more\")).unwrap(); \
         fs::write(at(\"own/more/f\"), \"y\").unwrap(); fs::remove_dir_all(at(\"own\")).unwrap(); read(\"data/n\")",
        |p| { one(p); p.write("pk/data/more/f", "x"); }, |p| { two(p); p.write("pk/data/more/f", "x"); };
    a_connection_to_this_machine: Refused("network"),
        "use std::net::{TcpListener, TcpStream}; let here = TcpListener::bind(\"127.0.0.1:0\").unwrap(); \
         TcpStream::connect(here.local_addr().unwrap()).unwrap(); read(\"data/n\")", one, two;
    /// There is nobody; asking is enough.
    a_connection_that_is_refused: Refused("network"),
        "use std::net::{TcpListener, TcpStream}; let here = TcpListener::bind(\"127.0.0.1:0\").unwrap().local_addr().unwrap(); \
         TcpStream::connect(here).is_err().to_string() + &read(\"data/n\")", one, two;
    a_name_that_is_looked_up: Refused("network"),
        "use std::net::ToSocketAddrs; let _ = (\"localhost\", 1).to_socket_addrs(); read(\"data/n\")", one, two;
    a_datagram: Refused("network"),
        "use std::net::UdpSocket; let here = UdpSocket::bind(\"127.0.0.1:0\").unwrap(); \
         here.send_to(b\"x\", here.local_addr().unwrap()).unwrap(); read(\"data/n\")", one, two;
    a_socket_of_the_machine: Refused("network"),
        "use std::os::unix::net::{UnixListener, UnixStream}; let _here = UnixListener::bind(out(\"s\")).unwrap(); \
         UnixStream::connect(out(\"s\")).unwrap(); fs::remove_file(out(\"s\")).unwrap(); read(\"data/n\")", one, two;
    /// A pipe and a pair of sockets lead nowhere else.
    a_pair_of_sockets: Everywhere,
        "let (mut a, mut b) = std::os::unix::net::UnixStream::pair().unwrap(); \
         a.write_all(read(\"data/n\").as_bytes()).unwrap(); drop(a); let mut text = String::new(); \
         b.read_to_string(&mut text).unwrap(); text", one, two;
    /// What is left cannot be put back: a pipe with a name.
    a_pipe_in_its_directory: Refused("special-file"),
        "run(Command::new(\"mkfifo\").arg(out(\"p\"))) + &read(\"data/n\")", one, two;
}

/// A file outside of every directory that Kiln knows, and not a temporary one either.
#[test]
fn a_file_written_elsewhere() {
    let world = world!();
    let dir = tempfile::tempdir_in(&world.programs.shared).unwrap();
    if dir.path().starts_with("/tmp") {
        // The whole build is in a temporary directory.
        return;
    }
    let made = dir.path().join("made");
    let code = format!("fs::write({made:?}, \"x\").unwrap(); read(\"data/n\")");
    Scripted::new(world, &code).check(Stored::Refused("writes-outside"), one, two);
    assert!(made.exists());
}

/// Both builds write what the source tree then holds.
#[test]
fn what_is_written_into_the_package_is_there() {
    let code = "fs::write(at(\"src/made.rs\"), read(\"data/n\")).unwrap(); String::new()";
    let place = Scripted::new(world!(), code);
    for text in ["one", "two", "one", "one"] {
        place.write("pk/data/n", text);
        place.project.remove("pk/src/made.rs");
        place.build(With::Kiln).done.ok();
        assert_eq!(place.project.read("pk/src/made.rs"), text.as_bytes());
    }
}

// Failures ---------------------------------------------------------------------------------------

const FAILS: &str = "let text = read(\"data/n\"); println!(\"cargo:warning=it is {text}\"); println!(\"a line\"); \
     if text == \"two\" { eprintln!(\"cannot be two\"); std::process::exit(7) } text";

#[test]
fn a_script_that_fails() {
    let place = Scripted::new(world!(), FAILS);
    let both = |text: &str| {
        place.write("pk/data/n", text);
        let (plain, kiln) = (place.build(With::Nothing), place.build(With::Kiln));
        assert_eq!(kiln.text, plain.text, "{}", place.why());
        assert_eq!(kiln.done.status, plain.done.status);
        kiln
    };
    for _ in 0..2 {
        let failed = both("two");
        assert!(!failed.done.status.success());
        assert_eq!(failed.scripts, ["pk"], "a failure is not stored");
        for part in ["exit status: 7", "cannot be two", "a line"] {
            assert!(failed.text.contains(part), "{part}: {}", failed.text);
        }
        assert!(place.reasons().iter().any(|r| r == "script-failed"), "{}", place.why());
    }
    let good = both("one");
    assert!(good.done.status.success() && good.text.contains("it is one"), "{}", good.text);
    place.hits_in(&place.project, &good.text, "mended");
    assert!(!both("two").done.status.success());
}

#[test]
fn a_script_that_panics() {
    let place = Scripted::new(
        world!(),
        "assert_eq!(read(\"data/n\"), \"one\", \"not one\"); \"ok\".into()",
    );
    two(&place);
    for _ in 0..2 {
        let failed = place.build(With::Kiln);
        assert_eq!(failed.scripts, ["pk"]);
        assert!(failed.text.contains("exit status: 101") && failed.text.contains("not one"));
    }
    one(&place);
    assert_eq!(place.build(With::Kiln).text, "ok");
}

/// cargo says which signal it was; nothing is stored.
#[test]
fn a_script_that_is_killed() {
    let code = "if read(\"data/n\") == \"two\" { sh(&format!(\"kill -9 {}\", std::process::id())); \
         loop { std::thread::park() } } read(\"data/n\")";
    let place = Scripted::new(world!(), code);
    two(&place);
    let plain = place.build(With::Nothing);
    assert!(plain.text.contains("signal: 9"), "{}", plain.text);
    for _ in 0..2 {
        let killed = place.build(With::Kiln);
        assert_eq!(killed.text, plain.text, "{}", place.why());
        assert_eq!(killed.scripts, ["pk"]);
    }
    one(&place);
    assert_eq!(place.build(With::Kiln).text, "one");
}

/// A build that is ended while a script runs takes the script with it or not, as without Kiln; what it
/// left is no result.
#[test]
fn a_build_that_is_ended_meanwhile() {
    let place = Scripted::new(world!(), &stopping("read(\"data/n\")"));
    one(&place);
    let build = place.cargo(With::Kiln, &place.project, &["build"]).spawn();
    let script = stopped(&place);
    let cargo = Pid::from_raw(build.pid().try_into().unwrap()).unwrap();
    kill_process(cargo, Signal::KILL).unwrap();
    kill_process(script, Signal::KILL).unwrap();
    assert_eq!(build.wait().status.signal(), Some(9));
    assert_eq!(resuming(&place, || place.build(With::Kiln)).text, "one");
}

// Changes meanwhile ------------------------------------------------------------------------------

/// Code that stops its process before the value is there.
fn stopping(code: &str) -> String {
    format!(
        "extern \"C\" {{ fn raise(signal: i32) -> i32; }} let value = {{ {code} }}; \
         OpenOptions::new().create(true).append(true).open(\"@TALLY@.pid\").unwrap().write_all(format!(\"{{}}\\n\", std::process::id()).as_bytes()).unwrap(); \
         unsafe {{ raise(19) }}; value"
    )
}

/// The script that stands still, by the file that holds the processes of scripts.
fn standing(file: &str) -> Option<Pid> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let pid: i32 = text.lines().last()?.parse().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.starts_with('T').then(|| Pid::from_raw(pid)).flatten()
}

fn pids(place: &Scripted) -> String {
    format!("{}.pid", place.tally.path())
}

/// Waits for the script that stops.
fn stopped(place: &Scripted) -> Pid {
    let file = pids(place);
    let mut found = None;
    wait_until("a script stops", || {
        found = standing(&file);
        found.is_some()
    });
    std::fs::write(&file, "").unwrap();
    found.unwrap()
}

fn resume(script: Pid) {
    kill_process(script, Signal::CONT).unwrap();
}

/// Does something, and resumes meanwhile whatever stops.
fn resuming<R>(place: &Scripted, action: impl FnOnce() -> R) -> R {
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let (file, ended) = (pids(place), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _ends = Ends(&ended);
        scope.spawn(|| {
            wait_until("the end of the builds", || {
                standing(&file).into_iter().for_each(resume);
                ended.load(Ordering::Acquire)
            });
        });
        action()
    })
}

/// What the script read is not what is there when it ends: the result belongs to neither.
#[test]
fn an_input_that_changes_while_the_script_runs() {
    let place = Scripted::new(world!(), &stopping("read(\"data/n\")"));
    one(&place);
    let build = place.cargo(With::Kiln, &place.project, &["build"]).spawn();
    let script = stopped(&place);
    two(&place);
    resume(script);
    build.wait().ok();
    assert_eq!(place.prints(&place.project), "one", "as it was read");
    let reasons = place.reasons();
    assert!(reasons.iter().any(|r| r == "input-changed-meanwhile"), "{}", place.why());
    for (text, state) in [("two", two as fn(&Scripted)), ("one", one)] {
        place.project.wipe();
        state(&place);
        resuming(&place, || {
            let shown = place.build(With::Kiln);
            assert_eq!((shown.text.as_str(), shown.scripts.len()), (text, 1));
            place.hits_in(&place.project, text, "unchanged");
        });
    }
}

/// A directory that it listed.
#[test]
fn a_listing_that_changes_while_the_script_runs() {
    let code = stopping("fs::read_dir(\"data\").unwrap().count().to_string()");
    let place = Scripted::new(world!(), &code);
    one(&place);
    let build = place.cargo(With::Kiln, &place.project, &["build"]).spawn();
    let script = stopped(&place);
    place.write("pk/data/m", "");
    resume(script);
    build.wait().ok();
    assert!(place.reasons().iter().any(|r| r == "input-changed-meanwhile"), "{}", place.why());
    assert_eq!(resuming(&place, || place.build(With::Kiln)).text, "2");
}
