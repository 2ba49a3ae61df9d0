//! Theme: `kiln watch` shows a run while it is built, in a log and on a terminal, and comes through whatever happens
//! to the server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Stdio};

use kiln_tests::far::Shared;
use kiln_tests::server::{Gate, kill};
use kiln_tests::{Call, Project, World, world};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};

/// A program over a crate.
fn project(world: &World) -> Project {
    let project = world.project("watched");
    project.package("app", "[dependencies]\nlow = { path = \"low\" }\n[workspace]\n");
    project.write("src/main.rs", "fn main() { println!(\"{}\", low::n()); }\n");
    project.write(
        "low/Cargo.toml",
        "[package]\nname = \"low\"\nversion = \"0.3.0\"\nedition = \"2021\"\n",
    );
    project.write("low/src/lib.rs", "pub fn n() -> i32 { 41 }\n");
    project
}

/// Builds it as a job of a run.
fn build(world: &World, project: &Project, run: &str, job: &str) {
    project.wipe();
    let call = world.cargo(project, &["build"]).env("KILN_RUN", run).env("KILN_JOB", job);
    call.run().ok();
}

/// `kiln watch` whose output is read while it goes on.
struct Watching {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Watching {
    fn start(call: &Call) -> Self {
        let mut child = call.command().stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The lines up to the next one that holds a text.
    #[track_caller]
    fn until(&mut self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "{text:?} is not in {lines:#?}");
            lines.push(line.trim_end().to_owned());
            if line.contains(text) {
                return lines;
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(lines: &[String]) -> String {
    lines.join("\n")
}

/// Nothing is counted before a unit has ended; what is compiled at that moment is told all the same.
#[test]
fn a_run_is_shown_before_its_first_unit_has_ended() {
    let world = world!();
    let project = project(&world);
    let gate = Gate::new(&world.bin(), "low");
    let call = world.cargo(&project, &["build"]).env("KILN_RUN", "r7").env("KILN_JOB", "linux");
    let job = call.spawn();
    let held = gate.wait();
    let watch = |run: &[&str]| {
        let words = [&["watch", "--once"], run].concat();
        world.kiln(&words).run().ok().stdout
    };
    for run in [&["r7"][..], &[]] {
        let shown = watch(run);
        assert!(shown.contains("run r7\nno unit has ended yet"), "{shown}");
        assert!(shown.contains("low 0.3.0"), "{shown}");
    }
    drop(held);
    job.wait().ok();
    assert!(!watch(&["r7"]).contains("no unit"));
}

#[test]
fn a_log_tells_of_a_run_while_it_is_built() {
    let world = world!();
    let project = project(&world);
    let watch = ["watch", "7", "--every", "1", "--until-quiet", "never"];
    let mut watching = Watching::start(&world.kiln(&watch));
    assert_eq!(watching.until("waiting"), ["no run 7 is known; waiting for it"]);
    build(&world, &project, "7", "build (plain)");
    let lines = watching.until("2 units");
    assert_eq!(lines[0], "run 7");
    let last = lines.last().unwrap();
    assert!(
        last.starts_with(
            "build (plain): 2 units, 0.0 % from the cache, 2 misses, 0 ms saved; last in "
        ) && last.ends_with(" miss: app 0.1.0 (bin), new-unit"),
        "{lines:#?}"
    );
    build(&world, &project, "7", "again");
    let lines = watching.until("again: 2 units");
    let last = lines.last().unwrap();
    assert!(
        last.starts_with("again: 2 units, 100.0 % from the cache, ")
            && last.contains(" hit: app 0.1.0 (bin)"),
        "{lines:#?}"
    );
    // The server goes, and comes again with the next build.
    world.stop_server();
    assert!(text(&watching.until("trying again")).contains("the server does not answer"));
    build(&world, &project, "7", "third");
    watching.until("the server answers again");
    watching.until("third: 2 units");
    assert!(world.server().is_some());
}

#[test]
fn without_a_name_each_run_that_begins_is_watched() {
    let world = world!();
    let project = project(&world);
    let mut watching =
        Watching::start(&world.kiln(&["watch", "--every", "1", "--until-quiet", "never"]));
    watching.until("no run goes on; waiting for one to begin");
    for run in ["one", "two"] {
        build(&world, &project, run, "j");
        watching.until(&format!("run {run}"));
        watching.until("j: 2 units");
    }
}

#[test]
fn how_a_run_stands_is_told_once() {
    let world = world!();
    let project = project(&world);
    let once = |args: &[&str]| world.kiln(&[&["watch", "--once"], args].concat()).run();
    let none = once(&[]).fails();
    assert!(none.stderr.contains("nothing to watch: no run goes on"), "{}", none.stderr);
    build(&world, &project, "7", "one");
    build(&world, &project, "7", "two");
    let shown = once(&["7"]).ok().stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "run 7");
    assert!(
        lines[1].starts_with("4 units in 2 jobs: 50.0 % from the cache, 2 misses, "),
        "{shown}"
    );
    let row = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(row(lines[3]), ["job", "units", "hit", "rate", "misses", "saved", "now"]);
    assert_eq!(row(lines[4])[..5], ["one", "2", "0.0", "%", "2"], "{shown}");
    assert!(lines[4].ends_with("  goes on") && lines[5].starts_with("two "), "{shown}");
    assert_eq!(lines[7], "last units:");
    assert!(lines[8].contains("hit: app 0.1.0 (bin) in two"), "{shown}");
    // The one that goes on, and the one that settings name.
    assert!(once(&[]).ok().stdout.starts_with("run 7\n"));
    let named = world.kiln(&["watch", "--once"]).env("KILN_RUN", "8").run().fails();
    assert!(named.stderr.contains("no run 8 is known"), "{}", named.stderr);
    // It ends by itself.
    let ended = world.kiln(&["watch", "7", "--every", "1", "--until-quiet", "1"]).run().ok().stdout;
    assert!(ended.ends_with("\nnothing was heard of run 7 for 1.0 s\n"), "{ended}");
    let waited = world.kiln(&["watch", "8", "--every", "1", "--until-quiet", "1"]).run().fails();
    assert!(waited.stderr.contains("no run 8 is known"), "{}", waited.stderr);
}

/// What a terminal shows after some bytes, as far as `kiln watch` uses it; it may use nothing else.
fn shown(bytes: &str) -> Vec<String> {
    let (mut rows, mut at, mut column) = (vec![Vec::new()], 0_usize, 0);
    let mut rest = bytes;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\r' => column = 0,
            '\n' => {
                (at, column) = (at + 1, 0);
                rows.resize(rows.len().max(at + 1), Vec::new());
            }
            '\u{1b}' => {
                let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap() + 1;
                let sequence = rest[..end].strip_prefix('[').unwrap();
                rest = &rest[end..];
                if let Some(up) = sequence.strip_suffix('A') {
                    at -= up.parse::<usize>().unwrap();
                    continue;
                }
                assert!(["K", "J"].contains(&sequence), "{bytes:?}");
                rows[at].truncate(column);
                if sequence == "J" {
                    rows.truncate(at + 1);
                }
            }
            c => {
                assert!(!c.is_control(), "{bytes:?}");
                rows[at].truncate(column);
                rows[at].push(c);
                column += 1;
            }
        }
    }
    rows.into_iter().map(String::from_iter).collect()
}

/// A terminal of a size, and a program on it.
struct Terminal {
    master: File,
    child: Child,
    bytes: Vec<u8>,
}

impl Terminal {
    fn start(call: &Call, ws_col: u16, ws_row: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = File::options().read(true).write(true).open(name).unwrap();
        tcsetwinsize(&slave, Winsize { ws_col, ws_row, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let call = call.clone().env("TERM", "xterm");
        let child = call.command().stdout(slave).spawn().unwrap();
        Self { master: File::from(master), child, bytes: Vec::new() }
    }

    /// What it shows once that holds a text.
    #[track_caller]
    fn until(&mut self, text: &str) -> Vec<String> {
        let mut buffer = [0; 4096];
        loop {
            let rows = shown(&String::from_utf8_lossy(&self.bytes));
            let is_whole = self.bytes.ends_with(b"\x1b[J");
            if is_whole && rows.iter().any(|row| row.contains(text)) {
                return rows;
            }
            let read = self.master.read(&mut buffer).unwrap_or_default();
            assert!(read > 0, "{text:?} is not in {rows:#?}");
            self.bytes.extend(&buffer[..read]);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_terminal_shows_a_run_in_place_and_is_left_clean() {
    let world = world!();
    let project = project(&world);
    build(&world, &project, "7", "a job with a long name, and (linux, stable, all features)");
    let watch = world.kiln(&["watch", "7", "--until-quiet", "never"]);
    let mut terminal = Terminal::start(&watch, 60, 14);
    let before = terminal.until("last units:");
    assert_eq!(before[0], "run 7");
    assert!(
        before[1].starts_with("2 units in 1 job: 0.0 % from the cache, 2 misses"),
        "{before:#?}"
    );
    assert!(before[4].starts_with("a job w\u{2026}      2     0.0 %       2"), "{before:#?}");
    build(&world, &project, "7", "b");
    let after = terminal.until("hit: app 0.1.0 (bin) in b");
    assert_eq!(after[0], "run 7");
    assert!(
        after[1].starts_with("4 units in 2 jobs: 50.0 % from the cache, 2 misses"),
        "{after:#?}"
    );
    assert!(after[5].starts_with("b             2   100.0 %       0"), "{after:#?}");
    assert!(after.len() <= 14 && after.iter().all(|row| row.chars().count() < 60), "{after:#?}");
    // The cursor is below what is shown, at the beginning of a line.
    assert_eq!(after.last().unwrap(), "");
    kill(terminal.child.id(), Signal::INT);
    assert_eq!(terminal.child.wait().unwrap().signal(), Some(Signal::INT.as_raw()));
}

/// Answers requests by path, in place of a Kiln server; what begins nothing it knows is not there.
fn stand_in(answers: Vec<(&'static str, Value)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = move |stream: TcpStream| {
        let mut from = BufReader::new(stream.try_clone().unwrap());
        let mut to = stream;
        loop {
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if from.read_line(&mut line).unwrap_or_default() == 0 {
                    return;
                }
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line);
            }
            let path = lines[0].split(' ').nth(1).unwrap().to_owned();
            let found = answers.iter().find(|(of, _)| *of == path);
            let (status, body) =
                found.map_or((404, "{}".into()), |(_, value)| (200, value.to_string()));
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n");
            let _ = to.write_all(format!("{head}{body}").as_bytes());
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    url
}

/// Figures beyond all bounds, names that would do something to a terminal, and leases.
#[test]
fn whatever_a_server_says_is_only_shown() {
    let world = world!();
    let most = u64::MAX;
    let bad = "\u{1b}]0;title\u{7}\u{9b}2J\r\n\u{202e}\u{1b}[99A";
    let unit = json!({ "crate_name": bad, "version": bad, "kind": "lib", "target": bad });
    let figures = json!({
        "units": most, "hits": most, "miss": most, "bypass": most, "error": most,
        "hit_rate": -1e300, "compiled_ms": most, "saved_cpu_ms": most,
    });
    let seen = json!({
        "unit": unit, "outcome": "miss", "reason": bad, "took_ms": most, "cost_ms": most, "quiet_ms": most,
    });
    let mut job = figures.clone();
    for (name, value) in
        [("job", json!(bad)), ("quiet_ms", json!(most)), ("latest", json!([seen, seen]))]
    {
        job[name] = value;
    }
    let about = json!({ "repository": bad, "branch": bad });
    let now = json!({
        "run": bad, "about": about, "quiet_ms": 0, "total": figures, "job_count": most, "jobs": [job],
    });
    let holder = json!({ "run": "r", "job": bad, "age_ms": most, "silent_ms": 0, "cpu_ms": most });
    let leases = json!({ "leases": [{
        "unit": unit, "holder": holder, "waiting": [{ "run": bad, "job": bad }],
    }] });
    let run = json!({
        "run": "r", "about": {}, "first_ms": 1, "last_ms": most, "job_count": 1,
        "total": { "hits": 0, "hit_rate": null, "hit_rate_by_time": null, "compiled_ms": 0, "saved_cpu_ms": 0,
                   "kiln_ms": 0, "net_saved_ms": 0, "stored_bytes": 0, "phases_ms": {}, "units": 0,
                   "hit_local": 0, "hit_remote": 0, "joined": 0, "miss": 0, "bypass": 0, "error": 0,
                   "miss_reasons": {}, "bypass_reasons": {}, "error_reasons": {}, "saved_ms": 0, "restore_ms": 0,
                   "restored_bytes": 0 },
    });
    let url =
        stand_in(vec![("/v1/runs/r", run), ("/v1/runs/r/now", now), ("/v1/leases?run=r", leases)]);
    let watch =
        |args: &[&str]| world.kiln(&[&["watch", "r"], args].concat()).env("KILN_SERVER", &url);
    let once = watch(&["--once"]).run().ok().stdout;
    assert!(once.contains("being compiled:") && once.contains("waits for it"), "{once}");
    let mut log = Watching::start(&watch(&["--until-quiet", "never"]));
    let lines = log.until("being compiled: ");
    let all = format!("{once}{}", text(&lines));
    let is_bad = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    assert!(!all.contains(is_bad), "{all:?}");
    // On a terminal nothing moves but by Kiln's own sequences.
    let mut terminal = Terminal::start(&watch(&["--until-quiet", "never"]), 100, 30);
    let rows = terminal.until("last units:");
    assert!(rows[0].starts_with("run \\u001b"), "{rows:#?}");
}

/// A server that never had such calls.
#[test]
fn what_a_server_does_not_know_is_left_out() {
    let world = world!();
    let shared = Shared::start();
    let project = project(&world);
    let url = format!("http://{}", shared.address());
    let call = world.cargo(&project, &["build"]).env("KILN_SERVER", &url);
    call.env("KILN_RUN", "7").env("KILN_JOB", "j").run().ok();
    let shown = world.kiln(&["watch", "--once"]).env("KILN_SERVER", &url).run().ok().stdout;
    assert!(shown.starts_with("run 7\n2 units in 1 job"), "{shown}");
    let empty = stand_in(vec![("/v1/runs?limit=20", json!({ "runs": [] }))]);
    let none = world.kiln(&["watch", "7", "--once"]).env("KILN_SERVER", &empty).run().fails();
    assert!(none.stderr.contains("no run 7 is known"), "{}", none.stderr);
}
