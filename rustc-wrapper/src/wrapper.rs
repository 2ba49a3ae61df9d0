//! The flow of one wrapper run, whole: arguments, unit, lookup, then restore or compile and
//! publish, and one event at the end.
//!
//! Whatever goes wrong in Kiln, the compiler runs. The one exception is a malformed setting.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use kiln_storage::api::{Outcome, ReleaseRequest};
use kiln_storage::record::Record;

use crate::args;
use crate::compile::{self, Finished};
use crate::config::{BuildScripts, Mode};
use crate::diagnostics::{is_artifact_notice, strip_json_ansi};
use crate::env::Env;
use crate::inputs::Unknown;
use crate::lease::{self, Step, Turn};
use crate::limits::OBSERVER_LOG_BYTES;
use crate::linker::{self, LinkPlan};
use crate::lookup::{self, Found, Place};
use crate::notes::{Note, Notes};
use crate::observe::Library;
use crate::observe::seen::Subject;
use crate::outputs::{self, RestoreError};
use crate::publish::{self, Compiled};
use crate::scratch::Scratch;
use crate::session::{Session, report_bypass};
use crate::stdin::Source;
use crate::verify::{self, Fresh};
use crate::{front, probes, say, stamp, unit};

/// Name of the linker's list in a run's private directory.
pub const LINK_LIST: &str = "link.d";
/// Name of the dep-info in a run's private directory, when cargo did not ask for one.
pub const DEP_INFO: &str = "dep-info.d";

/// Runs `kiln TOOL ARGS…`.
pub fn main(env: &Env, argv: &[OsString]) -> ExitCode {
    let config = match crate::settings(env) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let usable = config.dir.as_deref().filter(|dir| crate::local::create_dir(dir).is_ok());
    let Some(dir) = usable.filter(|_| config.mode != Mode::Off) else {
        if let Some(dir) = &config.dir {
            Notes::leave(env, dir, &Note::became());
        }
        return compile::become_tool(argv);
    };
    let invocation = match args::split(argv) {
        Ok(invocation) => invocation,
        Err(bypass) => {
            if !args::is_probe(argv.get(1..).unwrap_or_default()) {
                report_bypass(env, &config, dir, &bypass, None);
            }
            Notes::leave(env, dir, &Note::became());
            return compile::become_tool(argv);
        }
    };
    if args::is_probe(&invocation.args) {
        return probes::answer(env, config.mode, dir, &invocation);
    }
    match Session::open(env, &config, dir, invocation) {
        Ok(mut session) => unit(&mut session, argv),
        Err(refused) => {
            report_bypass(env, &config, dir, &refused.bypass, refused.parsed.as_ref());
            Notes::leave(env, dir, &Note::became());
            hand_over(argv, refused.source)
        }
    }
}

/// Has the tool do what it was called for, with what was read of standard input already.
fn hand_over(argv: &[OsString], source: Option<Source>) -> ExitCode {
    match source {
        Some(source) => compile::stand_in(argv, source),
        None => compile::become_tool(argv),
    }
}

/// Answers a unit: from the cache, by what another job compiles, or by the compiler.
fn unit(session: &mut Session<'_>, argv: &[OsString]) -> ExitCode {
    let mut turn = None;
    let mut doubted = None;
    let (outcome, reason, detail) = loop {
        if session.config.mode == Mode::Refresh {
            break (Outcome::Miss, "refresh", String::new());
        }
        let found = lookup::lookup(session);
        session.end_phase("lookup");
        match found {
            Found::Record(record, _) if verify::is_chosen(session, &record) => {
                doubted = Some(record);
                break (Outcome::Miss, "not-verified", String::new());
            }
            Found::Record(record, place) => {
                let joined = turn.as_ref().is_some_and(Turn::has_joined);
                match replay(session, &record, place, joined) {
                    Ok(()) => {
                        let result = record.result_key;
                        if let Some(mut turn) = turn {
                            turn.end(session, &ReleaseRequest::Stored { result });
                        }
                        return ExitCode::from(record.status);
                    }
                    Err(failure) => break failure,
                }
            }
            Found::Nothing(reason, detail) => {
                let turn = turn.get_or_insert_with(|| turn_of(session));
                match turn.next(session) {
                    Step::LookUp => {}
                    Step::Compile => break turn.miss(reason, detail),
                    Step::Leave => return ExitCode::FAILURE,
                }
            }
            Found::Fault(reason, detail) => break (Outcome::Error, reason, detail),
        }
    };
    let mut turn = turn.unwrap_or_default();
    let done = make(session, argv, (outcome, reason, detail), doubted, &mut turn);
    // What was not compiled, or could not be kept, is for others to make.
    turn.end(session, &ReleaseRequest::Abandoned);
    done
}

/// The turn of a compile. What a build script tries out is done sooner than it is asked for.
fn turn_of(session: &Session<'_>) -> Turn {
    let is_wanted = Turn::is_wanted(session) && !probes::is_of_script(session.env);
    Turn::new(is_wanted.then(|| lease::key::of_compile(session)).flatten())
}

/// Has the compiler make a unit that was no hit, and stores what it made.
fn make(
    session: &mut Session<'_>,
    argv: &[OsString],
    (outcome, reason, detail): (Outcome, &'static str, String),
    doubted: Option<Box<Record>>,
    turn: &mut Turn,
) -> ExitCode {
    turn.compiles(session);
    let Some(mut private) = Scratch::create(session.env, session.dir) else {
        let bypass = args::Bypass::new("no-scratch", "no directory for temporary files has room");
        turn.end(session, &ReleaseRequest::Abandoned);
        session.report(Outcome::Bypass, Some((bypass.reason, bypass.detail)), None);
        return hand_over(argv, session.source.take());
    };
    let link = match plan_link(session, &private) {
        Ok(link) => link,
        Err(bypass) => {
            turn.end(session, &ReleaseRequest::Abandoned);
            session.report(Outcome::Bypass, Some((bypass.reason, bypass.detail)), None);
            return hand_over(argv, session.source.take());
        }
    };
    // A server closes connections that are idle, and a compile may be long: a new one is made after it.
    session.client = None;
    let library = Library::open(session.config, session.dir, &session.memo);
    private.watch = library.and_then(|library| library.watch(OBSERVER_LOG_BYTES));
    let barrier = stamp::barrier(&private.path.join("stamp"));
    let notices = doubted.is_some().then(RefCell::default);
    let finished = match compile(session, &private, link.as_ref(), notices.as_ref()) {
        Ok(finished) => finished,
        Err(_) => {
            turn.end(session, &ReleaseRequest::Abandoned);
            Notes::leave(session.env, session.dir, &Note::became());
            return hand_over(argv, session.source.take());
        }
    };
    session.end_phase("compile");
    session.event.cost_ms = finished.cost.wall_ms;
    session.event.cpu_ms = finished.cost.cpu_ms;
    if let Some(record) = doubted {
        check(session, &record, &private, link.as_ref(), (&finished, barrier));
        if finished.status.success() {
            say::replay_stderr(&notices.map(RefCell::into_inner).unwrap_or_default());
            put_front(session);
        }
        return compile::exit_as(finished.status);
    }
    if !finished.status.success() && !is_answer(session, &finished) {
        turn.end(session, &ReleaseRequest::Failed);
        session.report(outcome, Some(("compile-failed", detail)), None);
        return compile::exit_as(finished.status);
    }
    let may_store = session.config.mode != Mode::Read && outcome != Outcome::Error;
    let stored =
        may_store.then(|| store(session, &finished, &private, link.as_ref(), barrier)).transpose();
    put_front(session);
    session.end_phase("publish");
    lease::took(session, &finished.cost);
    turn.end(session, &lease::ended(&stored));
    match stored {
        Ok(key) => session.report(outcome, Some((reason, detail)), key),
        Err(unknown) => session.report(outcome, Some((unknown.reason, unknown.detail)), None),
    }
    compile::exit_as(finished.status)
}

/// Whether a compile that failed is the answer to what a build script wanted to know: its source was
/// refused. Somebody's own source that does not compile is not stored.
fn is_answer(session: &Session<'_>, finished: &Finished) -> bool {
    let form = matches!(session.parsed.error_format.as_str(), "human" | "json");
    let refused = |stderr: &String| probes::refuses_source(stderr, session.parsed.is_json());
    finished.status.code() == Some(1)
        && form
        && probes::is_of_script(session.env)
        && finished.stderr.as_ref().is_some_and(refused)
}

/// Puts the front before the program of a build script, so that its runs are Kiln's too. Where that cannot
/// be, the script just runs.
fn put_front(session: &Session<'_>) {
    let is_on = session.config.build_scripts == BuildScripts::On;
    if is_on
        && front::is_script(&session.parsed, session.env)
        && let Some(stem) = unit::stem(&session.parsed)
    {
        let program = session.unit.out_dir.join(stem);
        let known = session.memo.known(&program);
        if let (Ok(real), Some(known)) = (front::put(session.env, &program), known) {
            // The name that it got moved the ctime; the run that follows counts it by content.
            session.memo.follow(&real, &known);
        }
    }
}

/// Compares a compile that began at a point in file time with the record that a restore would have
/// used, and reports it.
fn check(
    session: &mut Session<'_>,
    record: &Record,
    private: &Scratch,
    link: Option<&LinkPlan>,
    (finished, barrier): (&Finished, io::Result<i128>),
) {
    let finding = match barrier {
        Ok(started_ns) => {
            let fresh = Fresh { finished, started_ns, private: &private.path };
            verify::check(session, record, &fresh, |session| {
                compile::run_unseen(tool_command(session, private, link), session.source_bytes())
            })
        }
        Err(error) => verify::unable(finished, &error),
    };
    session.end_phase("verify");
    session.members = (finding.reason == "verified").then(|| record.members.clone());
    session.report(Outcome::Miss, Some((finding.reason, finding.detail)), finding.result);
}

/// Stores the result of a compile that began at a point in file time.
fn store(
    session: &mut Session<'_>,
    finished: &Finished,
    private: &Scratch,
    link: Option<&LinkPlan>,
    barrier: io::Result<i128>,
) -> Result<kiln_storage::ResultKey, Unknown> {
    let started_ns =
        barrier.map_err(|error| Unknown { reason: "no-file-time", detail: error.to_string() })?;
    let seen = match &private.watch {
        Ok(watch) => watch.read(Subject::Compiler).map_err(|error| error.to_string()),
        Err(why) => Err(why.clone()),
    };
    let seen = seen.as_ref().map_err(String::as_str);
    publish::publish(
        session,
        &Compiled { finished, started_ns, private: &private.path, link, seen },
    )
}

/// Puts a record's files back and says again what the tool said.
fn replay(
    session: &mut Session<'_>,
    record: &Record,
    place: Place,
    joined: bool,
) -> Result<(), (Outcome, &'static str, String)> {
    let escape = publish::escape(session);
    let odd = || (Outcome::Miss, "odd-output", String::new());
    let stdout = session.roots.fill(&record.stdout, escape).ok_or_else(odd)?;
    let mut stderr = session.roots.fill(&record.stderr, escape).ok_or_else(odd)?;
    if session.parsed.is_json() && !session.parsed.json_ansi {
        stderr = stderr.split_inclusive('\n').map(strip_json_ansi).collect();
    }
    let restored = match record.status {
        0 => put_back(session, record, place.store.clone()),
        // It left nothing.
        _ => Ok(outputs::Restored::default()),
    };
    match restored {
        Ok(restored) => {
            session.event.bytes = restored.bytes;
            let out_dir = session.unit.out_dir.clone();
            session.memo.probe(&out_dir);
            for (meta, digest) in &restored.files {
                session.memo.put(meta, stamp::coarse_now_ns(), digest);
            }
        }
        Err(RestoreError::Blob(digest, why)) => {
            let reason = format!("blob {digest}: {why}");
            lookup::reject(session, record, &reason);
            return Err((Outcome::Miss, "damaged", reason));
        }
        Err(error) => return Err((Outcome::Error, "restore-failed", error.to_string())),
    }
    say::replay_stdout(&stdout);
    say::replay_stderr(&stderr);
    session.end_phase("restore");
    session.event.cost_ms = record.cost.wall_ms;
    session.event.cpu_ms = record.cost.cpu_ms;
    session.event.pinned = lookup::pins(record);
    session.event.conservative = record.conservative.clone();
    (session.event.causes, session.event.more_causes) = (Vec::new(), 0);
    session.members = Some(record.members.clone());
    put_front(session);
    session.report(lookup::outcome(&place, joined), None, Some(record.result_key));
    Ok(())
}

fn put_back(
    session: &mut Session<'_>,
    record: &Record,
    store: Option<PathBuf>,
) -> Result<outputs::Restored, RestoreError> {
    let unit_dir = session.unit.out_dir.clone();
    let target = |error| RestoreError::Target(unit_dir.clone(), error);
    let session = &mut session.engine;
    if !unit_dir.is_dir() {
        std::fs::create_dir_all(&unit_dir).map_err(target)?;
    }
    match &store {
        Some(store) => {
            outputs::restore(record, &unit_dir, &session.roots, &mut outputs::Source::Store(store))
        }
        None => {
            session.connect().map_err(|error| target(io::Error::other(error.to_string())))?;
            let Some(client) = session.client.as_mut() else {
                return Err(target(io::Error::other("no connection")));
            };
            outputs::restore(
                record,
                &unit_dir,
                &session.roots,
                &mut outputs::Source::Server(client),
            )
        }
    }
}

fn plan_link(session: &Session<'_>, private: &Scratch) -> Result<Option<LinkPlan>, args::Bypass> {
    if !session.parsed.links() {
        return Ok(None);
    }
    let list = private.path.join(LINK_LIST);
    linker::plan(session.dir, session.env, &session.parsed, &session.roots, &list).map(Some)
}

/// Arguments that Kiln adds to the tool's.
fn own_arguments(session: &Session<'_>, private: &Scratch, link: Option<&LinkPlan>) -> Vec<String> {
    let parsed = &session.parsed;
    let mut own = Vec::new();
    if session.unit.remapped {
        own.extend(session.roots.remap_arguments());
    }
    if parsed.is_json() && !parsed.json_ansi {
        own.push("--json=diagnostic-rendered-ansi".into());
    }
    if !parsed.is_json() && parsed.color.as_deref().is_none_or(|c| c == "auto") {
        own.push(format!("--color={}", session.color));
    }
    if !parsed.emit.iter().any(|e| e == "dep-info") {
        own.push(format!("--emit=dep-info={}", private.path.join(DEP_INFO).display()));
        if parsed.emit == ["link"] {
            own.push("--emit=link".into());
        }
    }
    own.extend(link.map(|plan| plan.argument.clone()));
    own
}

/// Runs the compiler. Artifact notices go to `notices` instead of cargo when that is given: cargo
/// starts dependents at once when it sees one, and these outputs may yet move. A source that finds a file by its own remapped name, as in
/// `include_str!(concat!(file!(), ".txt"))`, only compiles where nothing is remapped: then it is
/// run once more, and people see one run.
fn compile(
    session: &mut Session<'_>,
    private: &Scratch,
    link: Option<&LinkPlan>,
    notices: Option<&RefCell<String>>,
) -> io::Result<Finished> {
    let hold = |raw: &str, line: String| match notices.filter(|_| is_artifact_notice(raw)) {
        Some(notices) => {
            notices.borrow_mut().push_str(&line);
            String::new()
        }
        None => line,
    };
    let shown = RefCell::new(Vec::<String>::new());
    let misled = Cell::new(false);
    let finished = run_tool(session, private, link, |raw, line| {
        misled.set(misled.get() || (session.unit.remapped && is_misled(raw)));
        if !misled.get() {
            shown.borrow_mut().push(line.clone());
        }
        if misled.get() { String::new() } else { hold(raw, line) }
    })?;
    if !misled.get() || finished.status.success() {
        return Ok(finished);
    }
    session.unit.remapped = false;
    notices.into_iter().for_each(|notices| notices.borrow_mut().clear());
    run_tool(session, private, link, |raw, line| {
        let mut shown = shown.borrow_mut();
        match shown.iter().position(|seen| *seen == line) {
            Some(at) => {
                shown.remove(at);
                String::new()
            }
            None => hold(raw, line),
        }
    })
}

/// Whether the compiler says that it cannot read a file at a virtual place.
fn is_misled(line: &str) -> bool {
    line.contains("couldn't read") && line.contains(crate::roots::VIRTUAL)
}

/// The compiler with all its arguments, prepared but not started.
fn tool_command(session: &Session<'_>, private: &Scratch, link: Option<&LinkPlan>) -> Command {
    let own = own_arguments(session, private, link);
    let mut command = compile::command(&session.invocation.tool, &session.tool_arguments(own));
    if let Ok(watch) = &private.watch {
        command.envs(watch.variables(session.env, &[]));
    }
    command
}

/// Runs the compiler once; `show` gets each line of standard error, raw and as people should read
/// it, and says what they see.
fn run_tool(
    session: &Session<'_>,
    private: &Scratch,
    link: Option<&LinkPlan>,
    show: impl Fn(&str, String) -> String,
) -> io::Result<Finished> {
    let command = tool_command(session, private, link);
    let escape = publish::escape(session);
    let strip = session.parsed.is_json() && !session.parsed.json_ansi;
    compile::run(command, session.source_bytes(), |line| {
        let shown = session.roots.reveal(line, escape);
        Some(show(line, if strip { strip_json_ansi(&shown) } else { shown }))
    })
}
