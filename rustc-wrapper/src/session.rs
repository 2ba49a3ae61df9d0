//! [`Session`]: what the stages of one wrapper run share, and the event that ends it.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use kiln_storage::ResultKey;
use kiln_storage::api::{Event, EventsRequest, Outcome};
use kiln_storage::record::Member;

use crate::args::{Bypass, Invocation, Parsed};
use crate::client::{Client, ClientError};
use crate::config::{Config, Paths};
use crate::env::Env;
use crate::identity::Identity;
use crate::local::{self, Faults};
use crate::members::Evaluator;
use crate::memo::Memo;
use crate::notes::{self, Note, Notes};
use crate::roots::{Places, Roots, find_target};
use crate::stamp;
use crate::stdin::{self, Source};
use crate::tool::{self, Tool};
use crate::unit::{self, Unit};

/// One run of the wrapper for one unit, from arguments to event.
#[derive(Debug)]
pub struct Session<'a> {
    /// The environment.
    pub env: &'a Env,
    /// The settings.
    pub config: &'a Config,
    /// The state directory.
    pub dir: &'a Path,
    /// The working directory.
    pub cwd: PathBuf,
    /// Tool and arguments as given.
    pub invocation: Invocation,
    /// The arguments, understood.
    pub parsed: Parsed,
    /// The source, where it comes from standard input.
    pub source: Option<Source>,
    /// The compiler.
    pub tool: Tool,
    /// The roots.
    pub roots: Roots,
    /// The unit.
    pub unit: Unit,
    /// The digest memo.
    pub memo: Memo,
    /// Resolved colour of human-readable diagnostics.
    pub color: &'static str,
    /// The connection, while it is usable.
    pub client: Option<Client>,
    /// Where to tell what was read, when a build script asks.
    pub notes: Option<Notes>,
    /// What the result depends on that this run has answered with, or stored.
    pub members: Option<Vec<Member>>,
    /// Whether the output directory was there before.
    pub had_out_dir: bool,
    /// Counts faults of the server.
    pub faults: Faults,
    /// The event so far.
    pub event: Event,
    clock: Instant,
    phase: Instant,
}

/// A run that is handed to the tool.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub bypass: Bypass,
    /// The arguments, as far as they were understood.
    pub parsed: Option<Parsed>,
    /// What was read of standard input.
    pub source: Option<Source>,
}

/// An event with what is known from the start.
fn event(env: &Env, config: &Config, cwd: &Path, parsed: Option<&Parsed>) -> Event {
    let who = Identity::find(config, cwd);
    let now_ms = u64::try_from(stamp::now_ns() / 1_000_000).unwrap_or(0);
    Event {
        id: format!("{}-{}-{}", who.build, std::process::id(), stamp::now_ns()),
        at_ms: now_ms,
        run: who.run,
        job: who.job,
        build: who.build,
        unit: parsed.map(|p| unit::name(env, p)).unwrap_or_default(),
        unit_key: None,
        result_key: None,
        outcome: Outcome::Error,
        reason: None,
        detail: None,
        causes: Vec::new(),
        more_causes: 0,
        stem: parsed.and_then(unit::stem),
        pinned: Vec::new(),
        conservative: Vec::new(),
        phases_us: Default::default(),
        bytes: 0,
        cost_ms: 0,
        wall_us: 0,
    }
}

/// The colour of human-readable diagnostics: `auto` means what it means without a wrapper.
fn color(parsed: &Parsed) -> &'static str {
    match parsed.color.as_deref() {
        Some("always") => "always",
        Some("never") => "never",
        _ if std::io::stderr().is_terminal() => "always",
        _ => "never",
    }
}

/// What the first processor of this machine is: maker, model and features.
fn processor() -> Result<String, Bypass> {
    let unknown = |why: String| Bypass::new("unknown-processor", why);
    let text = std::fs::read_to_string("/proc/cpuinfo").map_err(|e| unknown(e.to_string()))?;
    let first = text.split("\n\n").next().unwrap_or_default();
    let telling = |line: &&str| {
        ["vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU "]
            .iter()
            .any(|field| line.starts_with(field))
    };
    let lines: Vec<&str> = first.lines().filter(telling).collect();
    if lines.is_empty() {
        Err(unknown("/proc/cpuinfo says nothing".into()))
    } else {
        Ok(lines.join("\n"))
    }
}

fn roots(env: &Env, parsed: &Parsed, cwd: &Path, tool: &Tool) -> Roots {
    let target = find_target(&unit::out_dir(parsed, cwd), parsed.target.as_deref());
    let sysroot = Some(tool.sysroot.clone());
    Roots::new(env, parsed, &Places { cwd: cwd.to_owned(), target: Some(target), sysroot })
}

impl<'a> Session<'a> {
    /// Understands an invocation: everything up to the unit.
    ///
    /// # Errors
    /// A bypass, with what is known so far.
    pub fn open(
        env: &'a Env,
        config: &'a Config,
        dir: &'a Path,
        invocation: Invocation,
    ) -> Result<Self, Box<Refused>> {
        let clock = Instant::now();
        let refused = |bypass, parsed| Box::new(Refused { bypass, parsed, source: None });
        let early = |bypass| refused(bypass, None);
        let cwd = env.cwd.clone().ok_or_else(|| early(Bypass::new("no-working-directory", "")))?;
        let words = crate::args::expand(&invocation.args, &cwd).map_err(early)?;
        let parsed =
            crate::args::parse(&words).map_err(|bypass| refused(bypass, crate_name(&words)))?;
        let memo = Memo::open(dir);
        let clippy = invocation.inner.is_some();
        let opened = (|| {
            let alone = |bypass| (bypass, None);
            let tool = tool::identify(dir, env, &invocation, &parsed, &memo).map_err(alone)?;
            let roots = roots(env, &parsed, &cwd, &tool);
            let color = color(&parsed);
            let processor =
                unit::wants_native(&parsed).then(processor).transpose().map_err(alone)?;
            let source = parsed.is_stdin().then(stdin::read).transpose()?;
            let identity = unit::Identity {
                parsed: &parsed,
                tool: &tool,
                roots: &roots,
                env,
                clippy,
                portable: config.paths == Paths::Portable,
                color,
                processor: processor.as_deref(),
                source: source.as_ref().map(Source::digest),
            };
            match Unit::new(&identity, &cwd) {
                Ok(unit) => Ok((tool, roots, unit, color, source)),
                Err(bypass) => Err((bypass, source)),
            }
        })();
        let (tool, roots, unit, color, source) = match opened {
            Ok(opened) => opened,
            Err((bypass, source)) => {
                return Err(Box::new(Refused { bypass, parsed: Some(parsed), source }));
            }
        };
        let mut event = event(env, config, &cwd, Some(&parsed));
        event.unit_key = Some(unit.key);
        let faults = Faults::new(dir);
        let had_out_dir = unit.out_dir.is_dir();
        let mut session = Self {
            env,
            config,
            dir,
            cwd,
            invocation,
            parsed,
            source,
            tool,
            roots,
            unit,
            memo,
            color,
            client: None,
            notes: Notes::within(env, dir),
            members: None,
            had_out_dir,
            faults,
            event,
            clock,
            phase: clock,
        };
        session.end_phase("plan");
        Ok(session)
    }

    /// An evaluator of members for this unit.
    pub fn evaluator(&self) -> Evaluator<'_> {
        Evaluator::new(self.env, &self.roots, &self.memo, self.parsed.width.clone())
    }

    /// The source, where it comes from standard input.
    pub fn source_bytes(&self) -> Option<&[u8]> {
        self.source.as_ref().map(|source| source.bytes.as_slice())
    }

    /// Ends a phase and notes how long it took.
    pub fn end_phase(&mut self, name: &str) {
        let took = u64::try_from(self.phase.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.phase = Instant::now();
        *self.event.phases_us.entry(name.to_owned()).or_default() += took;
    }

    /// A usable connection: the one there is, or a new one.
    ///
    /// # Errors
    /// When no server can be reached, which counts as a fault.
    pub fn connect(&mut self) -> Result<&mut Client, ClientError> {
        if self.client.as_ref().is_none_or(|client| !client.is_alive()) {
            self.client = None;
            match local::connect(self.env, self.config) {
                Ok(client) => self.client = Some(client),
                Err(error) => {
                    self.faults.count();
                    return Err(error);
                }
            }
        }
        self.client.as_mut().ok_or(ClientError::Foreign("no connection"))
    }

    /// Tells the server what became of the unit. Nothing waits for it and nothing depends on it.
    pub fn report(
        &mut self,
        outcome: Outcome,
        reason: Option<(&str, String)>,
        result: Option<ResultKey>,
    ) {
        self.leave_note(outcome, reason.as_ref());
        self.event.outcome = outcome;
        if let Some((reason, detail)) = reason {
            self.event.reason = Some(reason.to_owned());
            self.event.detail = Some(detail).filter(|d| !d.is_empty());
        }
        self.event.result_key = result;
        self.event.wall_us = u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX);
        note(self.config, &self.event);
        if self.faults.are_too_many() {
            return;
        }
        let events = EventsRequest { events: vec![self.event.clone()] };
        let reused = self.client.is_some();
        let told = self.connect().is_ok_and(|client| tell(client, &events));
        self.client = None;
        // The server may have hung up since the last question.
        if reused
            && !told
            && let Ok(client) = self.connect()
        {
            tell(client, &events);
        }
    }

    /// Tells the build script's Kiln what was read on its behalf.
    fn leave_note(&mut self, outcome: Outcome, reason: Option<&(&str, String)>) {
        let Some(notes) = self.notes.take() else { return };
        let members = self.members.as_ref().and_then(|members| {
            let mut members = notes::absolute(members, &self.roots, self.env)?;
            members.extend(self.tool.members());
            for tool in self.invocation.inner.iter().chain([&self.invocation.tool]) {
                members.extend(notes::absolute(
                    &tool::named(self.env, tool),
                    &self.roots,
                    self.env,
                )?);
            }
            Some(members)
        });
        let note = match (members, outcome) {
            // What the processor is, is in the key and no member.
            _ if unit::wants_native(&self.parsed) => Note::refused("processor: target-cpu=native"),
            (Some(members), _) => Note::read(members),
            (None, Outcome::Bypass) => Note::became(),
            (None, _) => {
                let (reason, detail) = reason.map_or(("not-stored", ""), |(r, d)| (*r, d.as_str()));
                Note::refused(format!("{reason}: {detail}"))
            }
        };
        // Whoever reads the notes misses the one of this process.
        let _ = notes.append(&note);
    }

    /// The tool's arguments for a compile: Kiln's own first, so that the user's win.
    pub fn tool_arguments(&self, own: Vec<String>) -> Vec<OsString> {
        let inner = self.invocation.inner.iter().cloned();
        inner
            .chain(own.into_iter().map(OsString::from))
            .chain(self.invocation.args.iter().cloned())
            .collect()
    }
}

/// Appends an event to the file that the settings name, if they do. One write, so that lines of
/// concurrent units do not mix; one that fails costs a line.
fn note(config: &Config, event: &Event) {
    let Some(path) = &config.report else { return };
    let file = OpenOptions::new().create(true).append(true).open(path);
    if let (Ok(mut file), Ok(mut line)) = (file, serde_json::to_vec(event)) {
        line.push(b'\n');
        let _ = file.write_all(&line);
    }
}

/// Hands events over. The answer is awaited: a server drops what a client that hangs up has asked.
/// Whether it has them; a lost event costs a figure in a report, never a build.
fn tell(client: &mut Client, events: &EventsRequest) -> bool {
    let body = serde_json::to_vec(events).unwrap_or_default();
    client.request("POST", "/v1/events", &body, crate::limits::EVENT_TIMEOUT).is_ok()
}

/// The crate name in arguments that were not understood, for the report.
fn crate_name(words: &[String]) -> Option<Parsed> {
    let at = words.iter().position(|w| w == "--crate-name")?;
    let crate_name = words.get(at + 1)?.clone();
    let value = |flag: &str| {
        let at = words.iter().position(|w| w == flag)?;
        words.get(at + 1).cloned()
    };
    Some(Parsed {
        crate_name,
        crate_types: value("--crate-type").into_iter().collect(),
        test: words.iter().any(|w| w == "--test"),
        emit: vec!["link".into()],
        extra_filename: extra_filename(words),
        ..Parsed::default()
    })
}

/// The extra filename in arguments that were not understood, by which other units name it.
fn extra_filename(words: &[String]) -> String {
    let value = words.iter().find_map(|word| {
        let option = word.strip_prefix("-C").unwrap_or(word);
        option.strip_prefix("extra-filename=")
    });
    value.unwrap_or_default().to_owned()
}

/// Tells the server of a run that is handed to the tool.
pub fn report_bypass(
    env: &Env,
    config: &Config,
    dir: &Path,
    bypass: &Bypass,
    parsed: Option<&Parsed>,
) {
    let is_left_alone = Faults::new(dir).are_too_many();
    if is_left_alone && config.report.is_none() {
        return;
    }
    let cwd = env.cwd.clone().unwrap_or_default();
    let mut event = event(env, config, &cwd, parsed);
    event.outcome = Outcome::Bypass;
    event.reason = Some(bypass.reason.to_owned());
    event.detail = Some(bypass.detail.chars().take(400).collect());
    note(config, &event);
    if is_left_alone {
        return;
    }
    match local::connect(env, config) {
        Ok(mut client) => drop(tell(&mut client, &EventsRequest { events: vec![event] })),
        Err(_) => Faults::new(dir).count(),
    }
}
