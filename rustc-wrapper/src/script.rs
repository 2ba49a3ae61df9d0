//! A run of a build script, from the front that cargo starts to the event: looked up, put back, or run
//! under observation and stored.
//!
//! What the stages of a compile are for rustc, these are for a script: [`mod@unit`] says what it is called,
//! [`inputs`] what it read, [`holds`] what holds the result at its place, [`effects`] whether it did what a
//! hit would not do, [`tree`] what it left. The engine between them is the same. Whatever is in doubt, the
//! script just runs.

pub mod effects;
pub mod holds;
pub mod inputs;
pub mod named;
pub mod paths;
pub mod tree;
pub mod unit;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use kiln_storage::api::{Outcome, ReleaseRequest};
use kiln_storage::record::{
    Member, Producer, RECORD_VERSION, Record, TokenPath, TreeFilter, result_key,
};
use kiln_storage::{Digest, ResultKey};

use crate::args::Bypass;
use crate::compile::{self, Finished};
use crate::config::{BuildScripts, Config, Mode, Paths};
use crate::engine::Engine;
use crate::env::Env;
use crate::inputs::Unknown;
use crate::lease::{self, Step, Turn};
use crate::limits::SCRIPT_LOG_BYTES;
use crate::lookup::{self, Found, Place};
use crate::members::find_program;
use crate::notes::Notes;
use crate::objects::Classes;
use crate::observe::Library;
use crate::observe::seen::{Seen, Subject};
use crate::outputs::{RestoreError, Source};
use crate::roots::Escape;
use crate::scratch::Scratch;
use crate::{publish, say, session, stamp, variables};

/// The word that a front calls Kiln with.
pub const WORD: &str = "run-build-script";

/// The places of roots, as they are named and as the file system knows them.
type Places<'a> = [(&'a str, String)];

/// A script to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The real program.
    pub real: PathBuf,
    /// What it is called by cargo.
    pub called: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl Program {
    fn command(&self) -> Command {
        let mut command = compile::command(&self.real, &self.args);
        command.arg0(&self.called);
        command
    }

    /// Replaces this process by the script. Returns only when that fails.
    fn become_it(&self) -> ExitCode {
        let error = self.command().exec();
        let hint = "clean the package (cargo clean -p) and build again";
        say::error(&format!("cannot run {}: {error}", self.real.display()), &[hint]);
        ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
    }
}

/// One run of a script.
#[derive(Debug)]
pub struct Run<'a> {
    /// What every run has.
    pub engine: Engine<'a>,
    /// The script.
    pub program: Program,
    /// The directory it writes to.
    pub out: PathBuf,
    /// The same, links followed.
    pub real_out: PathBuf,
}

/// Runs `kiln run-build-script REAL CALLED ARGS…`.
pub fn main(env: &Env, arguments: &[OsString]) -> ExitCode {
    let [real, called, args @ ..] = arguments else {
        say::error("a front of a build script calls this; it is of no use otherwise", &[]);
        return ExitCode::from(2);
    };
    let program = Program { real: real.into(), called: called.clone(), args: args.to_vec() };
    let config = match crate::settings(env) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let usable = config.dir.as_deref().filter(|dir| crate::local::create_dir(dir).is_ok());
    let is_on = config.mode != Mode::Off && config.build_scripts == BuildScripts::On;
    let Some(dir) = usable.filter(|_| is_on) else {
        return program.become_it();
    };
    match Run::open(env, &config, dir, program.clone()) {
        Ok(run) => answer(run),
        Err(bypass) => {
            session::report_bypass_of(env, &config, dir, &bypass, (unit::name(env), None));
            program.become_it()
        }
    }
}

/// Answers a run: from the cache, or by the script.
fn answer(mut run: Run<'_>) -> ExitCode {
    let mut turn = None;
    let (outcome, reason, detail) = loop {
        if run.engine.config.mode == Mode::Refresh {
            break (Outcome::Miss, "refresh", String::new());
        }
        let found = lookup::lookup(&mut run.engine);
        run.engine.end_phase("lookup");
        match found {
            Found::Record(record, place) => {
                let joined = turn.as_ref().is_some_and(Turn::has_joined);
                match replay(&mut run, &record, &place, joined) {
                    Ok(()) => {
                        let result = record.result_key;
                        if let Some(mut turn) = turn {
                            turn.end(&mut run.engine, &ReleaseRequest::Stored { result });
                        }
                        return ExitCode::SUCCESS;
                    }
                    Err(failure) => break failure,
                }
            }
            Found::Nothing(reason, detail) => {
                let turn = turn.get_or_insert_with(|| turn_of(&run));
                match turn.next(&mut run.engine) {
                    Step::LookUp => {}
                    Step::Compile => break turn.miss(reason, detail),
                    Step::Leave => return ExitCode::FAILURE,
                }
            }
            Found::Fault(reason, detail) => break (Outcome::Error, reason, detail),
        }
    };
    let mut turn = turn.unwrap_or_default();
    make(run, (outcome, reason, detail), &mut turn)
}

/// The turn of a run.
fn turn_of(run: &Run<'_>) -> Turn {
    Turn::of_script(Turn::is_wanted(&run.engine).then(|| lease::key::of_script(run)).flatten())
}

/// Runs the script, and stores what it left.
fn make(
    mut run: Run<'_>,
    (outcome, reason, detail): (Outcome, &'static str, String),
    turn: &mut Turn,
) -> ExitCode {
    turn.compiles(&run.engine);
    let stores = run.engine.config.mode != Mode::Read && outcome != Outcome::Error;
    let watched = stores.then(|| Watched::begin(&mut run));
    // A server closes connections that are idle, and a script may take long: a new one is made after it.
    run.engine.client = None;
    let command = watched.as_ref().map_or_else(|| run.program.command(), |w| w.command(&run));
    let finished = match compile::run(command, None, |_| None) {
        Ok(finished) => finished,
        Err(_) => {
            turn.end(&mut run.engine, &ReleaseRequest::Abandoned);
            return run.program.become_it();
        }
    };
    run.engine.end_phase("compile");
    run.engine.event.cost_ms = finished.cost.wall_ms;
    run.engine.event.cpu_ms = finished.cost.cpu_ms;
    if !finished.status.success() {
        turn.end(&mut run.engine, &ReleaseRequest::Failed);
        run.engine.report(outcome, Some(("script-failed", detail)), None);
        return compile::exit_as(finished.status);
    }
    let stored = watched.map(|watched| store(&mut run, &finished, watched)).transpose();
    run.engine.end_phase("publish");
    lease::took(&run.engine, &finished.cost);
    turn.end(&mut run.engine, &lease::ended(&stored));
    match stored {
        Ok(key) => run.engine.report(outcome, Some((reason, detail)), key),
        Err(unknown) => run.engine.report(outcome, Some((unknown.reason, unknown.detail)), None),
    }
    compile::exit_as(finished.status)
}

/// Puts back what a record's run left and says again what it said.
fn replay(
    run: &mut Run<'_>,
    record: &Record,
    place: &Place,
    joined: bool,
) -> Result<(), (Outcome, &'static str, String)> {
    let odd = || (Outcome::Miss, "odd-output", String::new());
    let fill = |text: &str| run.engine.roots.fill(text, Escape::Plain).ok_or_else(odd);
    let (stdout, stderr) = (fill(&record.stdout)?, fill(&record.stderr)?);
    let restored = match &place.store {
        Some(store) => {
            tree::restore(record, &run.out, &run.engine.roots, &mut Source::Store(store))
        }
        None => match run.engine.client.as_mut() {
            Some(client) => {
                tree::restore(record, &run.out, &run.engine.roots, &mut Source::Server(client))
            }
            None => return Err((Outcome::Error, "restore-failed", "no connection".into())),
        },
    };
    match restored {
        Ok(restored) => {
            run.engine.event.bytes = restored.bytes;
            run.engine.memo.probe(&run.out);
            for (meta, digest) in &restored.files {
                run.engine.memo.put(meta, stamp::coarse_now_ns(), digest);
            }
        }
        Err(RestoreError::Blob(digest, why)) => {
            let reason = format!("blob {digest}: {why}");
            lookup::reject(&mut run.engine, record, &reason);
            return Err((Outcome::Miss, "damaged", reason));
        }
        Err(error) => return Err((Outcome::Error, "restore-failed", error.to_string())),
    }
    say::replay_stdout(&stdout);
    say::replay_stderr(&stderr);
    run.engine.end_phase("restore");
    run.engine.event.cost_ms = record.cost.wall_ms;
    run.engine.event.cpu_ms = record.cost.cpu_ms;
    run.engine.event.pinned = lookup::pins(record);
    (run.engine.event.causes, run.engine.event.more_causes) = (Vec::new(), 0);
    run.engine.report(lookup::outcome(place, joined), None, Some(record.result_key));
    Ok(())
}

/// What is prepared for a run that is observed, or why it is not.
struct Watched {
    scratch: Option<Scratch>,
    notes: Option<Notes>,
    started_ns: Result<i128, String>,
}

impl Watched {
    fn begin(run: &mut Run<'_>) -> Self {
        let none = |why: &str| Self { scratch: None, notes: None, started_ns: Err(why.to_owned()) };
        let Some(mut scratch) = Scratch::create(run.engine.env, run.engine.dir) else {
            return none("no directory for temporary files has room");
        };
        let library = Library::open(run.engine.config, run.engine.dir, &run.engine.memo);
        scratch.watch = library.and_then(|library| library.watch(SCRIPT_LOG_BYTES));
        let notes = match Notes::begin(run.engine.dir, &run.out) {
            Ok(notes) => notes,
            Err(error) => return none(&format!("notes of compiles: {error}")),
        };
        let prior = Member::Tree(TokenPath("<out>".into()), TreeFilter::All);
        let Some(value) = run.engine.evaluator().value(&prior) else {
            return none("what is in OUT_DIR already cannot be read");
        };
        run.engine.before.push((prior, value));
        let barrier = stamp::barrier(&scratch.path.join("stamp"));
        let started_ns = barrier.map_err(|error| format!("file times: {error}"));
        Self { scratch: Some(scratch), notes: Some(notes), started_ns }
    }

    fn command(&self, run: &Run<'_>) -> Command {
        let mut command = run.program.command();
        if let Some(Ok(watch)) = self.scratch.as_ref().map(|scratch| &scratch.watch) {
            let portable = run.engine.config.paths == Paths::Portable;
            let maps = if portable { run.engine.roots.remaps() } else { Vec::new() };
            command.envs(watch.variables(run.engine.env, &maps));
        }
        command
    }
}

fn unknown(reason: &'static str, detail: impl ToString) -> Unknown {
    Unknown { reason, detail: detail.to_string() }
}

/// Stores what a script left; its key.
fn store(run: &mut Run<'_>, finished: &Finished, watched: Watched) -> Result<ResultKey, Unknown> {
    let unobserved = |why: &dyn ToString| unknown("not-observed", why.to_string());
    let started_ns = watched.started_ns.as_ref().map_err(|why| unobserved(why))?;
    let (Some(scratch), Some(notes)) = (&watched.scratch, &watched.notes) else {
        return Err(unobserved(&"nothing was prepared"));
    };
    let watch = scratch.watch.as_ref().map_err(|why| unobserved(why))?;
    let kiln = run.engine.env.program.clone().unwrap_or_default();
    let seen = watch.read(Subject::Script(kiln.as_os_str().as_encoded_bytes()));
    let mut seen = seen.map_err(|error| unobserved(&error))?;
    let apart = apart(run.engine.env, &mut seen);
    if seen.pids.iter().any(|pid| is_running(*pid)) {
        return Err(unobserved(&"a program that it started still runs"));
    }
    let notes = notes.read().map_err(|error| unobserved(&error))?;
    let observed = inputs::Observed {
        seen: &seen,
        notes: &notes,
        apart: &apart,
        classes: &Classes::open(run.engine.dir),
        started_ns: *started_ns,
    };
    let mut inputs = inputs::find(run, &observed)?;
    let out = run.out.clone();
    run.engine.memo.probe(&out);
    let places = publish::places(&run.engine);
    let made = tree::collect(run, &places, &mut inputs)?;
    let stdout = said(run, &places, finished.stdout.as_ref(), &mut inputs)?;
    let stderr = said(run, &places, finished.stderr.as_ref(), &mut inputs)?;
    let members: Vec<Member> = inputs.members.into_iter().collect();
    let values = publish::evaluate(&run.engine, &members, *started_ns)?;
    run.engine.event.pinned = inputs.pinned;
    let record = record(run, finished, (members, values), made.outputs, (stdout, stderr));
    publish::hand_over(&mut run.engine, record, made.offers)
}

/// Takes the runs of Kiln itself out of what was not observed, where it is linked statically; the system's
/// numbers of their processes. What they read they tell themselves, or nothing is stored.
fn apart(env: &Env, seen: &mut Seen) -> Vec<u32> {
    let real = |path: &Path| path.canonicalize().ok();
    let Some(kiln) = env.program.as_deref().and_then(real) else { return Vec::new() };
    let is_kiln = |program: &[u8]| {
        let path = match std::str::from_utf8(program) {
            Ok(name) if !name.contains('/') => find_program(env, name),
            Ok(path) if path.starts_with('/') => Some(path.into()),
            _ => None,
        };
        path.and_then(|path| real(&path)).is_some_and(|path| path == kiln)
    };
    let mut pids = Vec::new();
    seen.unobserved.retain(|started| {
        let own = started.origin.is_foreign() && is_kiln(&started.program);
        pids.extend(own.then_some(started.pid));
        !own
    });
    pids
}

/// Whether a process of this number runs, and is not just waited for.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn record(
    run: &mut Run<'_>,
    finished: &Finished,
    (members, values): (Vec<Member>, Vec<Digest>),
    outputs: Vec<kiln_storage::record::Output>,
    (stdout, stderr): (String, String),
) -> Record {
    let variables = variables::list(&mut run.engine.evaluator(), &members);
    let named = &run.engine.named;
    let record = Record {
        version: RECORD_VERSION,
        unit_key: named.key,
        result_key: result_key(&named.key, &members, &values),
        unit: named.name.clone(),
        parts: crate::unit::parts::kept(&named.parts),
        members,
        values,
        variables,
        outputs,
        status: 0,
        stdout,
        stderr,
        cost: finished.cost,
        producer: Producer {
            run: run.engine.event.run.clone(),
            job: run.engine.event.job.clone(),
            toolchain: String::new(),
            created_at_ms: run.engine.event.at_ms,
        },
        conservative: Vec::new(),
    };
    run.engine.event.bytes = record.blobs().iter().map(|(_, size)| size).sum();
    record
}

/// What a script said, as a template. A place of a root that is left in it pins the result.
fn said(
    run: &Run<'_>,
    places: &Places<'_>,
    text: Option<&String>,
    inputs: &mut inputs::Inputs,
) -> Result<String, Unknown> {
    let text = text.ok_or_else(|| unknown("long-output", "over its bound or not UTF-8"))?;
    let roots = &run.engine.roots;
    let template = roots.template_of_places(text);
    let template = template.ok_or_else(|| unknown("odd-output", "control character"))?;
    for (name, _) in places.iter().filter(|(_, place)| template.contains(place)) {
        inputs.pin(name);
    }
    pin_named_above(places, &template, inputs);
    Ok(template)
}

/// Pins the roots that lie below a place that a template names: that moves along with them.
fn pin_named_above(places: &Places<'_>, template: &str, inputs: &mut inputs::Inputs) {
    let deep = |dir: &&Path| dir.components().count() > 2;
    let names = |dir: &Path| dir.to_str().is_some_and(|dir| template.contains(dir));
    for (name, place) in places {
        let moves = matches!(*name, "workspace" | "package" | "target");
        if moves && Path::new(place).ancestors().skip(1).take_while(deep).any(names) {
            inputs.pin(name);
        }
    }
}

impl<'a> Run<'a> {
    /// The real program's path and its directory's front are no inputs of their own: the program counts by
    /// content.
    pub fn is_program(&self, path: &str) -> bool {
        let path = Path::new(path);
        path == self.program.real || path == Path::new(&self.program.called)
    }

    /// Understands a run: everything up to the unit.
    ///
    /// # Errors
    /// A bypass.
    pub fn open(
        env: &'a Env,
        config: &'a Config,
        dir: &'a Path,
        program: Program,
    ) -> Result<Self, Bypass> {
        unit::open(env, config, dir, program)
    }
}
