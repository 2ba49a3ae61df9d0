//! Theme: cargo's tokens. The test is cargo: it has the pipe, starts the wrappers and counts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Mutex;

use kiln_tests::far::Shared;
use kiln_tests::server::{Gate, kill, wait_until};
use kiln_tests::{Call, Running, skip};
use rustix::process::Signal;

use crate::machine;
use crate::machines::{LIBRARIES, Machine, SUM, address, leases, until_they_wait};

pub(crate) const KRATE: &str = LIBRARIES[0];

/// The pipe of a cargo.
struct Tokens {
    read: File,
    write: File,
}

impl Tokens {
    /// As many as wait in it at the start; one job more can run.
    fn new(count: usize) -> Self {
        // Inherited by what the test starts, as cargo's is.
        let (read, write) = rustix::pipe::pipe().unwrap();
        let tokens = Self { read: read.into(), write: write.into() };
        (0..count).for_each(|_| tokens.put());
        tokens
    }

    fn put(&self) {
        (&self.write).write_all(b"+").unwrap();
    }

    fn take(&self) {
        (&self.read).read_exact(&mut [0]).unwrap();
    }

    fn idle(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.read).unwrap()
    }

    fn flags(&self) -> String {
        let (read, write) = (self.read.as_raw_fd(), self.write.as_raw_fd());
        format!("-j --jobserver-fds={read},{write} --jobserver-auth={read},{write}")
    }
}

/// `kiln rustc` for one of the crates, as cargo would call it.
pub(crate) fn compile(machine: &Machine, krate: &str, flags: &str) -> Call {
    let out = machine.project.at("out");
    std::fs::create_dir_all(&out).unwrap();
    let dir = machine.project.at(krate);
    let args = ["--crate-name", krate, "src/lib.rs", "--crate-type", "lib", "--edition", "2021"];
    let call = machine.world.rustc(&machine.project, &args).dir(&dir);
    let call = call.args(&["--emit=dep-info,metadata,link", "-Cmetadata=x", "--out-dir"]);
    let call = call.args(&[out]).env("KILN_SERVER", machine.server());
    let call = call.env("KILN_REPORT_FILE", machine.world.at("notes.jsonl"));
    let call = call.env("CARGO_MANIFEST_DIR", &dir).env("CARGO_PKG_NAME", krate);
    call.env("CARGO_MAKEFLAGS", flags)
}

/// Files in the ledger of a machine: tokens that were given and not taken again.
fn booked(machine: &Machine) -> usize {
    let dir = machine.world.kiln_dir().join("jobserver");
    let ledgers = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = ledgers.flat_map(|dir| std::fs::read_dir(dir.path()).into_iter().flatten());
    let is_own = |name: &std::ffi::OsStr| name == "lock" || name == "places";
    files.flatten().filter(|file| !is_own(&file.file_name())).count()
}

/// A crate that one machine compiles as long as the gate is held, while another waits for it.
pub(crate) struct Held {
    pub(crate) shared: Shared,
    pub(crate) second: Machine,
    pub(crate) first: Machine,
    pub(crate) job: Running,
    pub(crate) held: std::os::unix::net::UnixStream,
    pub(crate) _gate: Gate,
}

impl Held {
    fn new() -> Self {
        Self::by(|first| compile(first, KRATE, ""))
    }

    /// The crate is compiled by this call on the first machine.
    pub(crate) fn by(call: impl FnOnce(&Machine) -> Call) -> Self {
        let shared = Shared::start();
        let (first, second) = (machine!(&shared), machine!(&shared));
        let gate = Gate::new(&first.world.bin(), KRATE);
        let job = call(&first).spawn();
        let held = gate.wait();
        Self { shared, second, first, job, held, _gate: gate }
    }
}

#[test]
fn who_waits_gives_its_token_and_leaves_at_once() {
    let Held { shared, second, first: _first, job, held, _gate } = Held::new();
    let tokens = Tokens::new(0);
    let waiter = compile(&second, KRATE, &tokens.flags()).spawn();
    wait_until("a token is given", || tokens.idle() == 1);
    // Another crate runs in its place, and goes on for longer than the one that is waited for.
    tokens.take();
    until_they_wait(&address(&shared), KRATE, 1);
    drop(held);
    job.wait().ok();
    waiter.wait().ok();
    assert_eq!(second.outcome(KRATE).0, "joined");
    assert_eq!((tokens.idle(), booked(&second)), (0, 1), "it left without a token");
    // Cargo gives the token of the process that ended back, and so there is one more than there was. The next
    // compile repays it.
    tokens.put();
    tokens.take();
    compile(&second, LIBRARIES[1], &tokens.flags()).spawn().wait().ok();
    assert_eq!((tokens.idle(), booked(&second)), (0, 1), "none is idle");
    tokens.put();
    compile(&second, LIBRARIES[2], &tokens.flags()).spawn().wait().ok();
    assert_eq!((tokens.idle(), booked(&second)), (0, 0), "it is repaid");
}

#[test]
fn a_waiter_that_is_killed_owes_its_token() {
    let Held { shared, second, first: _first, job, held, _gate } = Held::new();
    let tokens = Tokens::new(0);
    let waiter = compile(&second, KRATE, &tokens.flags()).spawn();
    wait_until("a token is given", || tokens.idle() == 1);
    until_they_wait(&address(&shared), KRATE, 1);
    kill(waiter.pid(), Signal::KILL);
    waiter.wait().fails();
    assert_eq!((tokens.idle(), booked(&second)), (1, 1));
    // The next one that waits has its place, and gives nothing more.
    let waiter = compile(&second, KRATE, &tokens.flags()).spawn();
    until_they_wait(&address(&shared), KRATE, 1);
    drop(held);
    job.wait().ok();
    waiter.wait().ok();
    assert_eq!((tokens.idle(), booked(&second)), (1, 1));
    compile(&second, LIBRARIES[1], &tokens.flags()).spawn().wait().ok();
    assert_eq!((tokens.idle(), booked(&second)), (0, 0));
}

/// How often a process has gone to sleep.
pub(crate) fn looks(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

/// Three that wait for the same crate leave at the same time, and cargo has three tokens too many: of what it starts
/// with them so many compile at a time as it has jobs.
#[test]
fn after_many_have_joined_no_more_compile_than_cargo_has_jobs() {
    let Held { shared, second, first: _first, job, held, _gate } = Held::new();
    let tokens = Tokens::new(0);
    let compile = |krate| compile(&second, krate, &tokens.flags()).env("CARGO_BUILD_JOBS", "1");
    let waiters = [(); 3].map(|()| compile(KRATE).spawn());
    wait_until("their tokens are given", || tokens.idle() == 3);
    (0..3).for_each(|_| tokens.take());
    drop(held);
    job.wait().ok();
    waiters.into_iter().for_each(|waiter| drop(waiter.wait().ok()));
    assert_eq!((tokens.idle(), booked(&second)), (0, 3));
    let gates = [1, 2].map(|n| Gate::new(&second.world.bin(), LIBRARIES[n]));
    let one = compile(LIBRARIES[1]).spawn();
    let held = gates[0].wait();
    let other = compile(LIBRARIES[2]).spawn();
    let began = looks(other.pid());
    wait_until("it looks for a place again and again", || looks(other.pid()) > began + 50);
    assert_eq!(leases(&address(&shared)).len(), 1, "nobody who cannot compile has a lease");
    assert!(!second.began(LIBRARIES[2]));
    drop(held);
    one.wait().ok();
    drop(gates[1].wait());
    other.wait().ok();
    assert_eq!(leases(&address(&shared)).len(), 0);
}

#[test]
fn who_compiles_after_all_takes_a_token_again() {
    let Held { shared, second, first, job, held, _gate } = Held::new();
    let tokens = Tokens::new(0);
    let waiter = compile(&second, KRATE, &tokens.flags()).spawn();
    wait_until("a token is given", || tokens.idle() == 1);
    until_they_wait(&address(&shared), KRATE, 1);
    kill(job.pid(), Signal::KILL);
    drop(held);
    job.wait().fails();
    assert!(waiter.wait().ok().did_compile(KRATE));
    assert_eq!((tokens.idle(), booked(&second)), (0, 0), "it has what it had");
    drop(first);
}

/// What came is compiled all the same, to compare it: with a token, like every compile.
#[test]
fn who_waited_and_checks_what_came_takes_a_token_again() {
    let Held { shared, second, first: _first, job, held, _gate } = Held::new();
    let tokens = Tokens::new(0);
    let waiter = compile(&second, KRATE, &tokens.flags()).env("KILN_VERIFY", "100%").spawn();
    wait_until("a token is given", || tokens.idle() == 1);
    until_they_wait(&address(&shared), KRATE, 1);
    drop(held);
    job.wait().ok();
    assert!(waiter.wait().ok().did_compile(KRATE));
    assert_eq!(second.outcome(KRATE).1, "verified");
    assert_eq!((tokens.idle(), booked(&second)), (0, 0), "it has what it had");
}

/// Numbers that were closed and are something else by now.
#[test]
fn what_is_no_jobserver_gets_no_token() {
    for flags in [
        "--jobserver-auth=1,2",
        "--jobserver-auth=2,1",
        "--jobserver-auth=0,1",
        "--jobserver-auth=200,201",
        "--jobserver-auth=fifo:/dev/null",
        "--jobserver-auth=",
        "-j4",
    ] {
        let Held { shared, second, first: _first, job, held, _gate } = Held::new();
        let waiter = compile(&second, KRATE, flags).spawn();
        until_they_wait(&address(&shared), KRATE, 1);
        assert_eq!(booked(&second), 0);
        drop(held);
        job.wait().ok();
        let done = waiter.wait().ok();
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""), "{flags}");
        assert_eq!(second.outcome(KRATE).0, "joined");
    }
}

/// make counts its tokens: none of them is given to it twice.
#[test]
fn a_jobserver_of_make_is_left_alone() {
    if !Path::new("/usr/bin/make").exists() {
        skip!("there is no make");
    }
    let shared = Shared::start();
    let (first, second) = (machine!(&shared), machine!(&shared));
    let gate = Gate::new(&first.world.bin(), KRATE);
    let job = first.build(1);
    let held = gate.wait();
    let cargo = kiln_tests::host::host().toolchain.join("cargo");
    second.project.write("Makefile", format!("all:\n\t+{} build\n", cargo.display()));
    let call = second.world.call("/usr/bin/make", second.project.dir(), &["-j2", "all"]);
    let call = call.env("KILN_SERVER", second.server());
    let other = call.env("KILN_REPORT_FILE", second.world.at("notes.jsonl")).spawn();
    until_they_wait(&address(&shared), KRATE, 1);
    assert_eq!(booked(&second), 0);
    drop(held);
    job.wait().ok();
    other.wait().ok();
    assert_eq!(second.outcome(KRATE).0, "joined");
    assert!(!second.world.kiln_dir().join("jobserver").exists());
    assert_eq!(second.says(), SUM);
}

/// Jobs that run at the same time, each with a cargo that counts its tokens.
#[test]
fn tokens_are_balanced_when_all_is_built() {
    let shared = Shared::start();
    let machines = [machine!(&shared), machine!(&shared)];
    let compiled = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for machine in &machines {
            scope.spawn(|| build_as_cargo(machine, 2, &compiled));
        }
    });
    let mut compiled = compiled.into_inner().unwrap();
    compiled.sort_unstable();
    assert_eq!(compiled, LIBRARIES);
    assert!(leases(&address(&shared)).is_empty());
}

/// Compiles all crates, so many at the same time, and counts the tokens at the end.
fn build_as_cargo(machine: &Machine, jobs: u64, compiled: &Mutex<Vec<&'static str>>) {
    let tokens = Tokens::new(jobs as usize - 1);
    let implicit = Mutex::new(true);
    std::thread::scope(|scope| {
        for krate in &LIBRARIES {
            scope.spawn(|| {
                let own = token(&tokens, &implicit);
                let done = compile(machine, krate, &tokens.flags()).spawn().wait().ok();
                if done.did_compile(krate) {
                    compiled.lock().unwrap().push(krate);
                }
                give_back(&tokens, &implicit, own);
            });
        }
    });
    assert_eq!(tokens.idle(), jobs - 1 + booked(machine) as u64);
}

/// Waits for the token that a cargo has by itself, or for one of the pipe; whether it is its own.
fn token(tokens: &Tokens, implicit: &Mutex<bool>) -> bool {
    if std::mem::take(&mut *implicit.lock().unwrap()) {
        return true;
    }
    tokens.take();
    false
}

fn give_back(tokens: &Tokens, implicit: &Mutex<bool>, own: bool) {
    match own {
        true => *implicit.lock().unwrap() = true,
        false => tokens.put(),
    }
}
