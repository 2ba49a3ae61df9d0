//! [`Session`]: what the stages of a compile share: the engine that every run has, and what only a compile
//! has.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Instant;

use kiln_storage::api::{EventsRequest, Outcome};
use kiln_storage::record::UnitName;

use crate::args::{Bypass, Invocation, Parsed};
use crate::config::{Config, Paths};
use crate::engine::{self, Engine, Place};
use crate::env::Env;
use crate::host;
use crate::local::{self, Faults};
use crate::memo::Memo;
use crate::roots::{Places, Roots, find_target};
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
    /// The compiler.
    pub tool: Tool,
    /// The unit.
    pub unit: Unit,
    /// Resolved colour of human-readable diagnostics.
    pub color: &'static str,
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

impl<'a> Session<'a> {
    /// Understands an invocation: everything up to the unit.
    ///
    /// # Errors
    /// A bypass, with the arguments as far as they were understood.
    pub fn open(
        env: &'a Env,
        config: &'a Config,
        dir: &'a Path,
        invocation: Invocation,
    ) -> Result<Self, Box<(Bypass, Option<Parsed>)>> {
        let clock = Instant::now();
        let early = |bypass| Box::new((bypass, None));
        let cwd = env.cwd.clone().ok_or_else(|| early(Bypass::new("no-working-directory", "")))?;
        let words = crate::args::expand(&invocation.args, &cwd).map_err(early)?;
        let parsed =
            crate::args::parse(&words).map_err(|bypass| Box::new((bypass, crate_name(&words))))?;
        let memo = Memo::open(dir);
        let clippy = invocation.inner.is_some();
        let opened = (|| {
            let tool = tool::identify(dir, env, &invocation, &parsed, &memo)?;
            let target = find_target(&unit::out_dir(&parsed, &cwd), parsed.target.as_deref());
            let places = Places {
                workspace: parsed.input.is_relative().then(|| cwd.clone()),
                target: Some(target),
                sysroot: Some(tool.sysroot.clone()),
                out: None,
            };
            let roots = Roots::new(env, places);
            let color = color(&parsed);
            let processor = unit::wants_native(&parsed).then(host::processor).transpose();
            let processor = processor.map_err(|why| Bypass::new("unknown-processor", why))?;
            let identity = unit::Identity {
                parsed: &parsed,
                tool: &tool,
                roots: &roots,
                env,
                clippy,
                portable: config.paths == Paths::Portable,
                color,
                processor: processor.as_deref(),
            };
            let (unit, named) = Unit::new(&identity, &cwd)?;
            Ok((tool, roots, unit, named, color))
        })();
        let (tool, roots, unit, named, color) = match opened {
            Ok(opened) => opened,
            Err(bypass) => return Err(Box::new((bypass, Some(parsed)))),
        };
        let mut engine = Engine::new(env, config, dir, Place { cwd, roots, named, memo }, clock);
        engine.width.clone_from(&parsed.width);
        engine.event.stem = unit::stem(&parsed);
        Ok(Self { engine, invocation, parsed, tool, unit, color })
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
    let mut event = engine::event(config, &cwd, name);
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
