//! What a run of a build script read: all that the script and the programs it started asked for, and what
//! the compiles read that Kiln answered for it.
//!
//! Nothing is taken on trust: what could not be observed is a reason not to store. OUT_DIR is one member,
//! by what was in it before. Paths become tokens, so that the result holds in another checkout; where it
//! cannot be told that the script would ask for the same file there, the result is pinned to its place.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kiln_observer::log::{Kind, flags};
use kiln_storage::record::{EnvForm, Member, TokenPath, TreeFilter, Variables};

use super::holds::{self, Told};
use super::paths::{Lies, Links, Paths};
use super::{Run, effects, unknown};
use crate::inputs::Unknown;
use crate::notes::Note;
use crate::objects::Classes;
use crate::observe::found;
use crate::observe::made::Made;
use crate::observe::rules;
use crate::observe::seen::{Fact, Origin, Seen};
use crate::observe::unseen;
use crate::quick::QuickSet;
use crate::roots::tidy;

/// Variables that libc itself reads, where nobody can be seen to ask: for the locale, the time zone, how
/// options are read, and what its loader puts together.
const OF_LIBC: &[&str] = &[
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NUMERIC",
    "LC_TIME",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LOCPATH",
    "POSIXLY_CORRECT",
    "TZ",
];

/// What is known of a run that ended.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The log.
    pub seen: &'a Seen,
    /// What Kiln's own compiles within the run told.
    pub notes: &'a [Note],
    /// Processes that were Kiln and could not be observed.
    pub apart: &'a [u32],
    /// What is known of programs and shared objects.
    pub classes: &'a Classes,
    /// A [`crate::stamp::barrier`] right before it was started, nanoseconds.
    pub started_ns: i128,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The members.
    pub members: BTreeSet<Member>,
    /// What holds the result at its place, for people.
    pub pinned: Vec<String>,
}

impl Inputs {
    /// Pins the result to the place of a root.
    pub fn pin(&mut self, root: &str) {
        if self.members.insert(Member::Root(root.to_owned())) {
            self.pinned.push(format!("<{root}>"));
        }
    }
}

/// Finds the input set of a run.
///
/// # Errors
/// Why it is not stored: something unobserved, or something that a hit would not do.
pub fn find(run: &Run<'_>, observed: &Observed<'_>) -> Result<Inputs, Unknown> {
    let seen = observed.seen;
    if let Some(doubt) = found::doubts(seen).into_iter().next() {
        return Err(unknown("not-observed", doubt));
    }
    let paths = Paths::new(&run.out, &run.real_out);
    effects::check(run, seen, &paths, observed.started_ns)?;
    let mut finder = Finder {
        run,
        elsewhere: elsewhere(run),
        inputs: Inputs::default(),
        paths: &paths,
        made: Made::default(),
        code: BTreeSet::new(),
        helpers: BTreeSet::new(),
        compilers: BTreeSet::new(),
        links: Links::default(),
        above: BTreeSet::new(),
        taken: QuickSet::default(),
    };
    for fact in seen.facts.iter().filter(|fact| fact.origin != Origin::Own) {
        finder.take(fact)?;
    }
    finder.compiles(observed)?;
    finder.code(observed)?;
    let prior = Member::Tree(TokenPath("<out>".into()), TreeFilter::All);
    finder.inputs.members.insert(prior);
    if !finder.helpers.is_empty() {
        let variables = OF_LIBC.iter().map(|name| Member::Env((*name).into(), EnvForm::Tokens));
        finder.inputs.members.extend(variables);
    }
    let told = Told::new(run, &paths, (&finder.code, &finder.compilers), &finder.inputs.members);
    told.hold(finder.above, &mut finder.inputs);
    Ok(finder.inputs)
}

/// Where the shell was that started cargo. Tools ask for it to call their own directory as people do, and
/// use it only when it is that.
const PWD: &str = "PWD";

/// Where temporary files go, for tools that the script starts.
const TEMPORARY: [&str; 3] = ["TMPDIR", "TMP", "TEMP"];

struct Finder<'a> {
    run: &'a Run<'a>,
    /// The value of [`PWD`] when it is another directory than the package.
    elsewhere: Option<&'a str>,
    inputs: Inputs,
    paths: &'a Paths,
    made: Made<'a>,
    /// Programs and shared objects that ran.
    code: BTreeSet<PathBuf>,
    /// Those of them that were started as programs.
    helpers: BTreeSet<PathBuf>,
    /// Compilers that Kiln stood in for.
    compilers: BTreeSet<PathBuf>,
    links: Links<'a>,
    /// Directories that hold the checkout and were looked at, not into.
    above: BTreeSet<&'a str>,
    /// What is an input by now: each C compiler asks for the same headers.
    taken: QuickSet<(Origin, Kind, u8, &'a str)>,
}

impl<'a> Finder<'a> {
    fn take(&mut self, fact: &'a Fact) -> Result<(), Unknown> {
        let odd = || unknown("unknown-input", String::from_utf8_lossy(&fact.name));
        let name = std::str::from_utf8(&fact.name).map_err(|_| odd())?;
        if fact.kind == Kind::Variable {
            if name.contains('=') {
                return Err(odd());
            }
            let of_session = (name == PWD && self.elsewhere.is_some()) || TEMPORARY.contains(&name);
            let idle = fact.origin == Origin::Helper && of_session;
            if !rules::carries_jobserver(name) && !idle {
                self.variable(name);
            }
            return Ok(());
        }
        self.made.note(fact, name);
        if fact.kind == Kind::ProgramFailed && name.contains('/') && !name.starts_with('/') {
            return Err(unknown("not-observed", format!("{name} was to be started somewhere")));
        }
        self.links.note(fact, name);
        let lost = !effects::is_change(fact) && self.links.are_lost(name, !fact.has(flags::LINK));
        if lost || rules::is_of_other_process(name) {
            return Err(unknown("not-observed", format!("{name} cannot be told")));
        }
        let asked = (fact.origin, fact.kind, fact.flags, name);
        if self.taken.contains(&asked) {
            return Ok(());
        }
        let is_code = matches!(fact.kind, Kind::Object | Kind::Process);
        if is_code && name.starts_with('/') && !self.run.is_program(name) {
            self.code.insert(name.into());
        }
        if fact.kind == Kind::Process && fact.origin == Origin::Helper {
            self.helpers.insert(name.into());
        }
        if rules::is_environ_file(fact, name) {
            self.inputs.members.insert(Member::Environment(Variables::All));
        }
        if name == rules::PROCESSOR && fact.kind == Kind::Read {
            self.inputs.members.insert(Member::Processor);
        }
        let ignored = matches!(fact.kind, Kind::Network | Kind::Cwd)
            || effects::is_change(fact)
            || rules::tells_nothing(name)
            || self.elsewhere == Some(name)
            || rules::is_jobserver(self.run.engine.env, name)
            || self.run.is_program(name);
        if ignored {
            return Ok(());
        }
        let lies = match self.paths.lies(name) {
            Lies::Unknown if fact.has(flags::LINK) => self.paths.lies_itself(name),
            lies => lies,
        };
        match lies {
            Lies::Within => Ok(()),
            Lies::Unknown => Err(unknown("not-observed", format!("{name} cannot be told"))),
            Lies::Elsewhere(real) => {
                // The path as it was asked for is what counts; where it leads tells who made it.
                let is_made = self.made.covers(name) || real.is_some_and(|r| self.made.covers(&r));
                if is_made {
                    return Ok(());
                }
                self.path(fact, name)?;
                self.taken.insert(asked);
                Ok(())
            }
        }
    }

    fn path(&mut self, fact: &Fact, name: &'a str) -> Result<(), Unknown> {
        // As programs do that find out whether there is a link on the way to where they are.
        let at_link = fact.kind == Kind::Look && fact.has(flags::LINK);
        if at_link && !fact.has(flags::FAILED) && holds::is_above(self.run, name) {
            self.above.insert(name);
            return Ok(());
        }
        let asked = !matches!(fact.kind, Kind::Program | Kind::ProgramFailed);
        if asked && !fact.has(flags::FAILED) && !self.paths.is_there(name) {
            return Err(unknown("input-vanished", name));
        }
        let path = self.token(name);
        let members = &mut self.inputs.members;
        match fact.kind {
            Kind::List => drop(members.insert(Member::Listing(path))),
            Kind::Resolve if fact.has(flags::LINK) => drop(members.insert(Member::Link(path))),
            Kind::Resolve => drop(members.insert(Member::Resolved(path))),
            Kind::Program | Kind::ProgramFailed if !name.contains('/') => {
                members.insert(Member::Program(name.to_owned()));
            }
            Kind::Program if !name.starts_with('/') => {
                // It is relative to wherever it was started, mostly where the script was.
                let path = self.run.engine.cwd.join(name);
                let path = path.to_string_lossy();
                if !self.made.covers(&path) && self.paths.lies(&path) != Lies::Within {
                    let member = Member::File(self.token(&path));
                    self.inputs.members.insert(member);
                }
            }
            Kind::Object if !name.starts_with('/') => {
                return Err(unknown("not-observed", format!("{name} was loaded by its name")));
            }
            _ => {
                if fact.has(flags::LINK) {
                    members.insert(Member::Link(path.clone()));
                }
                let looked = matches!(fact.kind, Kind::Read | Kind::Look);
                let started = matches!(fact.kind, Kind::Program | Kind::ProgramFailed);
                let modes = started || (looked && path.0.starts_with('<'));
                if modes && !fact.has(flags::ABSENT) {
                    members.insert(Member::Mode(path.clone()));
                }
                members.insert(Member::File(path));
            }
        }
        Ok(())
    }

    fn variable(&mut self, name: &str) {
        self.inputs.members.insert(Member::Env(name.to_owned(), EnvForm::Tokens));
    }

    fn token(&self, path: &str) -> TokenPath {
        TokenPath(self.run.engine.roots.tokenise(&tidy(path)))
    }

    /// What the compiles read that Kiln answered. Each of its processes has to have told.
    fn compiles(&mut self, observed: &Observed<'_>) -> Result<(), Unknown> {
        for pid in observed.seen.own.iter().chain(observed.apart) {
            let Some(note) = observed.notes.iter().find(|note| note.pid == *pid) else {
                return Err(unknown("not-observed", "a compile did not tell what it read"));
            };
            if let Some(why) = &note.refused {
                return Err(unknown("not-observed", format!("a compile in it: {why}")));
            }
            if note.became && observed.apart.contains(pid) {
                return Err(unknown("not-observed", "a compiler that Kiln handed over to"));
            }
            for member in &note.members {
                if let Member::File(TokenPath(path)) = member
                    && (path.ends_with("/rustc") || path.ends_with("/clippy-driver"))
                {
                    self.compilers.insert(path.into());
                }
                let member = self.of_compile(member);
                self.inputs.members.extend(member);
            }
        }
        Ok(())
    }

    /// A member of a compile, with this run's tokens; none for what the script itself made.
    fn of_compile(&self, member: &Member) -> Option<Member> {
        let own = |path: &TokenPath| {
            let is_own = self.made.covers(&path.0) || self.paths.lies(&path.0) == Lies::Within;
            (!is_own).then(|| self.token(&path.0))
        };
        Some(match member {
            Member::File(path) => Member::File(own(path)?),
            Member::Listing(path) => Member::Listing(own(path)?),
            Member::Tree(path, filter) => Member::Tree(own(path)?, *filter),
            Member::Mode(path) => Member::Mode(own(path)?),
            Member::Upward(path, names) => Member::Upward(own(path)?, names.clone()),
            Member::Link(path) => Member::Link(own(path)?),
            Member::Place(path) => Member::Place(own(path)?),
            Member::Resolved(path) => Member::Resolved(own(path)?),
            Member::Env(name, _) => Member::Env(name.clone(), EnvForm::Tokens),
            Member::Program(_) | Member::Environment(_) | Member::Processor => member.clone(),
            Member::Root(_) | Member::DiagnosticWidth => return None,
        })
    }

    /// What code may have done that was not seen; and what a library loaded by name brought along.
    fn code(&mut self, observed: &Observed<'_>) -> Result<(), Unknown> {
        let memo = &self.run.engine.memo;
        let own = self.run.program.real.clone();
        let mut left: Vec<PathBuf> = self.code.iter().cloned().chain([own.clone()]).collect();
        while let Some(path) = left.pop() {
            let doubt = |why: &str| unknown("not-observed", format!("{} {why}", path.display()));
            let is_program = self.helpers.contains(&path) || path == own;
            let unseen = unseen::of(&path, is_program, observed.classes, memo)
                .map_err(|error| doubt(&error.to_string()))?;
            if unseen.calls {
                return Err(doubt("makes system calls past libc"));
            }
            self.inputs.members.extend(unseen.variables.map(Member::Environment));
            for name in &unseen.needed {
                if self.code.iter().any(|code| code.ends_with(name)) {
                    continue;
                }
                let library = unseen::find_library(&path, name);
                let library = library.ok_or_else(|| doubt(&format!("loads {name}")))?;
                let member = Member::File(self.token(&library.to_string_lossy()));
                self.inputs.members.insert(member);
                self.code.insert(library.clone());
                left.push(library);
            }
        }
        Ok(())
    }
}

fn elsewhere<'a>(run: &'a Run<'_>) -> Option<&'a str> {
    let pwd = run.engine.env.text(PWD)?;
    let real = |path: &Path| path.canonicalize().ok();
    (real(Path::new(pwd)) != real(&run.engine.cwd)).then_some(pwd)
}
