//! [`Session`]: what the stages of a compile share: the engine that every run has, and what only a compile
//! has.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Instant;

use kiln_storage::ResultKey;
use kiln_storage::api::{EventsRequest, Outcome};
use kiln_storage::record::{Member, UnitName};

use crate::args::{Bypass, Invocation, Parsed};
use crate::config::{Config, Paths};
use crate::engine::{self, Engine, Place};
use crate::env::Env;
use crate::host;
use crate::local::{self, Faults};
use crate::memo::Memo;
use crate::notes::{self, Note, Notes};
use crate::roots::{Places, Roots, find_target};
use crate::stdin::{self, Source};
use crate::tool::{self, Tool};
use crate::unit::{self, Unit};

/// One run of the wrapper for one unit of rustc, from arguments to event.
#[derive(Debug)]
pub struct Session<'a> {
    /// What every run has.
    pub engine: Engine<'a>,
    /// Tool and arguments as given.
    pub invocation: Invocation,
    /// The arguments, understood.
    pub parsed: Parsed,
    /// The source, where it comes from standard input.
    pub source: Option<Source>,
    /// The compiler.
    pub tool: Tool,
    /// The unit.
    pub unit: Unit,
    /// Resolved colour of human-readable diagnostics.
    pub color: &'static str,
    /// Where to tell what was read, when a build script asks.
    pub notes: Option<Notes>,
    /// What the result depends on that this run has answered with, or stored.
    pub members: Option<Vec<Member>>,
    /// Whether the output directory was there before.
    pub had_out_dir: bool,
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

/// The stages that every run goes through ask the engine; those of a compile read on.
impl<'a> Deref for Session<'a> {
    type Target = Engine<'a>;

    fn deref(&self) -> &Self::Target {
        &self.engine
    }
}

impl DerefMut for Session<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.engine
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

fn roots(env: &Env, parsed: &Parsed, cwd: &Path, tool: &Tool) -> Roots {
    let target = find_target(&unit::out_dir(parsed, cwd), parsed.target.as_deref());
    let places = Places {
        workspace: parsed.input.is_relative().then(|| cwd.to_owned()),
        target: Some(target),
        sysroot: Some(tool.sysroot.clone()),
        out: None,
    };
    Roots::new(env, places)
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
            let processor = unit::wants_native(&parsed).then(host::processor).transpose();
            let processor =
                processor.map_err(|why| alone(Bypass::new("unknown-processor", why)))?;
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
                Ok((unit, named)) => Ok((tool, roots, unit, named, color, source)),
                Err(bypass) => Err((bypass, source)),
            }
        })();
        let (tool, roots, unit, named, color, source) = match opened {
            Ok(opened) => opened,
            Err((bypass, source)) => {
                return Err(Box::new(Refused { bypass, parsed: Some(parsed), source }));
            }
        };
        let mut engine = Engine::new(env, config, dir, Place { cwd, roots, named, memo }, clock);
        engine.width.clone_from(&parsed.width);
        engine.event.stem = unit::stem(&parsed);
        Ok(Self {
            engine,
            invocation,
            parsed,
            source,
            tool,
            color,
            notes: Notes::within(env, dir),
            members: None,
            had_out_dir: unit.out_dir.is_dir(),
            unit,
        })
    }

    /// The source, where it comes from standard input.
    pub fn source_bytes(&self) -> Option<&[u8]> {
        self.source.as_ref().map(|source| source.bytes.as_slice())
    }

    /// Tells what became of the unit: the Kiln around a build script, if there is one, and the server.
    pub fn report(
        &mut self,
        outcome: Outcome,
        reason: Option<(&str, String)>,
        result: Option<ResultKey>,
    ) {
        self.leave_note(outcome, reason.as_ref());
        self.engine.report(outcome, reason, result);
    }

    /// Tells the build script's Kiln what was read on its behalf.
    fn leave_note(&mut self, outcome: Outcome, reason: Option<&(&str, String)>) {
        let Some(notes) = self.notes.take() else { return };
        let members = self.members.as_ref().and_then(|members| {
            let mut members = notes::absolute(members, &self.roots, self.env)?;
            members.extend(self.tool.members());
            // It is in the key of a compile.
            members.extend(unit::wants_native(&self.parsed).then_some(Member::Processor));
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
    let name = parsed.map(|parsed| unit::name(env, parsed)).unwrap_or_default();
    report_bypass_of(env, config, dir, bypass, (name, parsed.and_then(unit::stem)));
}

/// Tells the server of a run that is handed to the tool, by what it is called and what its outputs begin
/// with.
pub fn report_bypass_of(
    env: &Env,
    config: &Config,
    dir: &Path,
    bypass: &Bypass,
    (name, stem): (UnitName, Option<String>),
) {
    let is_left_alone = Faults::new(dir).are_too_many();
    if is_left_alone && config.report.is_none() {
        return;
    }
    let cwd = env.cwd.clone().unwrap_or_default();
    let mut event = engine::event(env, config, &cwd, name);
    event.stem = stem;
    event.outcome = Outcome::Bypass;
    event.reason = Some(bypass.reason.to_owned());
    event.detail = Some(bypass.detail.chars().take(400).collect());
    engine::note(config, &event);
    if is_left_alone {
        return;
    }
    match local::connect(env, config) {
        Ok(mut client) => drop(engine::tell(&mut client, &EventsRequest { events: vec![event] })),
        Err(_) => Faults::new(dir).count(),
    }
}
