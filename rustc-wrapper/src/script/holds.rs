//! What holds the result of a script's run at its place: paths that it did not get from cargo, so that in
//! another checkout it would ask for the same path, and not for the same file below another root.
//!
//! Called by [`super::inputs`] when all members are found. It adds [`Member::Root`], and settles what stands
//! for the directories above a checkout.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kiln_storage::record::{Member, TokenPath};
use memchr::memmem::Finder;

use super::Run;
use super::inputs::Inputs;
use super::named::Named;
use super::paths::Paths;
use crate::members::find_program;
use crate::needles::Needles;
use crate::publish;
use crate::silent;

/// Directories that are where they are on every machine, with all that is in them.
const SYSTEM: &[&str] =
    &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/proc", "/sys", "/dev"];

/// The directory of the system where people put what they made themselves, which may name its place.
const LOCAL: &str = "/usr/local";

/// The roots that a path may be below.
const ROOTS: [&str; 7] = ["workspace", "package", "out", "target", "cargo", "home", "tmp"];

/// The roots that cargo tells a script, by its working directory and its variables; the widest first.
const TOLD_BY_CARGO: [&str; 4] = ["workspace", "package", "target", "out"];

/// Largest file that is looked through for places of roots, bytes.
const MAX_TEXT_BYTES: u64 = 4 * 1024 * 1024;

/// Whether a path is a directory above a root that cargo tells.
pub fn is_above(run: &Run<'_>, path: &str) -> bool {
    root_below(run, path).is_some()
}

/// The widest root below a directory that is itself in no such root, and not right below the top.
fn root_below(run: &Run<'_>, dir: &str) -> Option<&'static str> {
    let within = |(_, place): (_, &Path)| Path::new(dir).starts_with(place);
    if is_system(dir) || told_by_cargo(run).any(within) {
        return None;
    }
    told_by_cargo(run).find(|(_, place)| place.starts_with(dir)).map(|(root, _)| root)
}

/// The roots that cargo tells, with their places.
fn told_by_cargo<'r>(run: &'r Run<'_>) -> impl Iterator<Item = (&'static str, &'r Path)> {
    let place = |root| Some((root, Path::new(run.engine.roots.place(root)?)));
    TOLD_BY_CARGO.into_iter().filter_map(place)
}

/// What a run was told of places.
pub struct Told<'a> {
    run: &'a Run<'a>,
    paths: &'a Paths,
    /// Programs and shared objects that ran.
    code: &'a BTreeSet<PathBuf>,
    /// The values of the variables that were read, or may have been, and of PATH, which finds programs.
    values: Vec<&'a str>,
    named: Named<'a>,
}

impl<'a> Told<'a> {
    /// By the variables among the members, the code that ran, and the compilers that did not.
    pub fn new(
        run: &'a Run<'_>,
        paths: &'a Paths,
        (code, compilers): (&'a BTreeSet<PathBuf>, &'a BTreeSet<PathBuf>),
        members: &BTreeSet<Member>,
    ) -> Self {
        let names = members.iter().filter_map(|member| match member {
            Member::Env(name, _) => Some(name.as_str()),
            _ => None,
        });
        let mut names: BTreeSet<&str> = names.chain(["PATH"]).collect();
        // Of all variables nobody knows which were looked at.
        if members.iter().any(|member| matches!(member, Member::Environment(_))) {
            let lasts = |name: &&str| !silent::is_neutral(name) && !silent::is_of_session(name);
            names.extend(run.engine.env.names().filter(lasts));
        }
        let value = |name: &str| run.engine.env.get(name)?.to_str();
        let values: Vec<&str> = names.into_iter().filter_map(value).collect();
        let roots = told_by_cargo(run).map(|(_, place)| place).collect();
        let programs = code.iter().chain(compilers).map(PathBuf::as_path);
        let named = Named::new(roots, values.clone(), programs);
        Self { run, paths, code, values, named }
    }

    /// Pins what has to be pinned. `above` are directories above the checkout that were looked at.
    pub fn hold(&self, above: BTreeSet<&str>, inputs: &mut Inputs) {
        let (mut pins, named) = self.written_in_files(&above, inputs);
        for dir in above {
            let is_told = self.named.is_named(dir) || named.contains(dir);
            match root_below(self.run, dir).filter(|_| !is_told) {
                // The way to the checkout, looked at from there: it is one as long as no link is on it.
                Some(root) => inputs.members.extend([Member::Resolved(token(self.run, root))]),
                None => {
                    let path = TokenPath(self.run.engine.roots.tokenise(dir));
                    if path.0.starts_with('<') {
                        inputs.members.insert(Member::Mode(path.clone()));
                    }
                    inputs.members.extend([Member::Link(path.clone()), Member::File(path)]);
                }
            }
        }
        self.led_to(inputs, &mut pins);
        let mut roots = BTreeSet::new();
        for TokenPath(path) in inputs.members.iter().filter_map(path_of) {
            match path.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
                Some((root @ ("home" | "cargo" | "tmp"), _)) => {
                    roots.insert(root);
                    // The way there may have begun at the package, and gone up.
                    let real = self.run.engine.roots.resolve(path).unwrap_or_default();
                    if !real.to_str().is_some_and(|real| self.named.is_named(real)) {
                        pins.extend(["workspace", "package"]);
                    }
                }
                Some((root, _)) => drop(roots.insert(root)),
                None if self.named.is_named(path) => {}
                // It may be the way to the checkout as well, as in `/usr/src`.
                None if is_system(path) && !self.named.forks(path) => {}
                // It may have been named relative to the package.
                None => pins.extend(["workspace", "package"]),
            }
        }
        pins.extend(roots.into_iter().filter_map(|root| self.untold(root)));
        for root in pins.into_iter().filter(|root| self.run.engine.roots.place(root).is_some()) {
            inputs.pin(root);
        }
    }

    /// A root whose place nothing told the script: neither cargo, which tells the package and OUT_DIR
    /// (and so what lies above them), nor a variable.
    fn untold(&self, root: &str) -> Option<&'static str> {
        let root = ROOTS.into_iter().find(|name| *name == root)?;
        let place = self.run.engine.roots.place(root)?;
        let known = [&self.run.engine.cwd, &self.run.out];
        let told = known.iter().any(|inner| inner.starts_with(place))
            || self.values.iter().any(|value| value.contains(place));
        (!told).then_some(root)
    }

    /// Pins the roots that something elsewhere leads to by a link: what is found through it lies in this
    /// checkout, wherever the script runs.
    fn led_to(&self, inputs: &Inputs, pins: &mut BTreeSet<&'static str>) {
        let roots = &self.run.engine.roots;
        let places: Vec<(&'static str, PathBuf)> = told_by_cargo(self.run)
            .filter_map(|(root, place)| Some((root, place.canonicalize().ok()?)))
            .collect();
        for member in &inputs.members {
            let path = match member {
                Member::Program(name) => find_program(self.run.engine.env, name),
                member => {
                    let path = path_of(member).filter(|path| !is_in_told(path));
                    path.and_then(|path| roots.resolve(&path.0))
                }
            };
            let in_root = |path: &Path| told_by_cargo(self.run).any(|(_, p)| path.starts_with(p));
            let Some(path) = path.filter(|path| !in_root(path)) else { continue };
            let Some(real) = self.paths.leads(&path) else { continue };
            let within = places.iter().filter(|(_, place)| real.starts_with(place));
            pins.extend(within.map(|(root, _)| *root));
        }
    }

    /// Roots whose places are written in a file that was read, and those of some directories that are. Code
    /// names where it was built; what it finds by that counts where cargo tells the place.
    fn written_in_files<'d>(
        &self,
        dirs: &BTreeSet<&'d str>,
        inputs: &Inputs,
    ) -> (BTreeSet<&'static str>, BTreeSet<&'d str>) {
        let roots = publish::places(&self.run.engine);
        let dirs: Vec<&'d str> = dirs.iter().copied().collect();
        let all = roots.iter().map(|(_, place)| place.as_str()).chain(dirs.iter().copied());
        let needles = Needles::new(all.map(str::as_bytes));
        let (mut in_code, mut in_texts) = (needles.marks(), needles.marks());
        for member in &inputs.members {
            let Member::File(token) = member else { continue };
            let Some(path) = self.run.engine.roots.resolve(&token.0) else { continue };
            if is_system(&token.0) && !path.starts_with(LOCAL) {
                continue;
            }
            let marks = if self.code.contains(&path) { &mut in_code } else { &mut in_texts };
            self.mark_written(&path, &needles, marks);
        }
        let (mut found, mut named) = (BTreeSet::new(), BTreeSet::new());
        for (marks, among) in [(in_code, &TOLD_BY_CARGO[..]), (in_texts, &ROOTS)] {
            let (of_roots, of_dirs) = marks.split_at(roots.len());
            let written = roots.iter().zip(of_roots).filter(|(_, found)| **found);
            let known = |root: &str| among.iter().copied().find(|name| *name == root);
            found.extend(written.filter_map(|((root, _), _)| known(root)));
            named
                .extend(dirs.iter().zip(of_dirs).filter(|(_, found)| **found).map(|(dir, _)| *dir));
        }
        // The script may have a place in its own code.
        let program = (!dirs.is_empty()).then(|| std::fs::read(&self.run.program.real).ok());
        if let Some(bytes) = program.flatten() {
            // Texts in code follow each other with nothing between them.
            let ends = |at: usize, dir: &str| bytes.get(at + dir.len()) != Some(&b'/');
            let has = |dir: &&&str| Finder::new(*dir).find_iter(&bytes).any(|at| ends(at, dir));
            named.extend(dirs.iter().filter(has).copied());
        }
        (found, named)
    }

    /// Marks what is written in a file, where that is no large one. Its digest will be asked for next: the
    /// memo has it then.
    fn mark_written(&self, path: &Path, needles: &Needles<'_>, marks: &mut [bool]) {
        let engine = &self.run.engine;
        let Ok(meta) = path.metadata() else { return };
        if !meta.is_file() || meta.len() > MAX_TEXT_BYTES {
            return;
        }
        if engine.memo.get(&meta).is_some() {
            let bytes = std::fs::read(path).unwrap_or_default();
            needles.mark(&bytes, marks);
        } else if let Ok(scanned) = publish::hash(engine, path, needles) {
            marks.iter_mut().zip(scanned.found).for_each(|(mark, found)| *mark |= found);
        }
    }
}

fn token(run: &Run<'_>, root: &str) -> TokenPath {
    let place = run.engine.roots.place(root).unwrap_or_default();
    TokenPath(run.engine.roots.tokenise(place))
}

fn path_of(member: &Member) -> Option<&TokenPath> {
    match member {
        Member::File(path)
        | Member::Listing(path)
        | Member::Tree(path, _)
        | Member::Mode(path)
        | Member::Upward(path, _)
        | Member::Link(path)
        | Member::Place(path)
        | Member::Resolved(path) => Some(path),
        Member::Env(..)
        | Member::Program(_)
        | Member::Root(_)
        | Member::DiagnosticWidth
        | Member::Processor
        | Member::Environment(_) => None,
    }
}

fn is_system(path: &str) -> bool {
    // What lies right below the top is where it is, too.
    path.rfind('/') == Some(0) || SYSTEM.iter().any(|dir| Path::new(path).starts_with(dir))
}

/// Whether a token is that of a path in a root that cargo tells.
fn is_in_told(TokenPath(path): &TokenPath) -> bool {
    let root = path.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    root.is_some_and(|(root, _)| TOLD_BY_CARGO.contains(&root))
}
