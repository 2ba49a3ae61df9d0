//! What holds the result of a script's run at its place: paths that it did not get from cargo, so that in
//! another checkout it would ask for the same path, and not for the same file below another root.
//!
//! Called by [`super::inputs`] when all members are found. It adds [`Member::Root`], and settles what stands
//! for the directories above a checkout.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use kiln_storage::record::{Member, TokenPath};
use memchr::memmem::{self, Finder};

use super::Run;
use super::inputs::Inputs;
use crate::members::find_program;
use crate::publish;
use crate::real_paths::RealPaths;
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
    /// Programs and shared objects that ran.
    code: &'a BTreeSet<PathBuf>,
    /// Compilers that Kiln stood in for.
    compilers: &'a BTreeSet<PathBuf>,
    /// The values of the variables that were read, or may have been, and of PATH, which finds programs.
    values: Vec<&'a str>,
    /// Directories that were asked for, and whether something tells of them.
    told: RefCell<HashMap<String, bool>>,
}

impl<'a> Told<'a> {
    /// By the variables among the members, the code that ran, and the compilers that did not.
    pub fn new(
        run: &'a Run<'_>,
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
        let values = names.into_iter().filter_map(value).collect();
        Self { run, code, compilers, values, told: RefCell::default() }
    }

    /// Pins what has to be pinned. `above` are directories above the checkout that were looked at.
    pub fn hold(&self, above: BTreeSet<&str>, inputs: &mut Inputs) {
        let (mut pins, named) = self.written_in_files(&above, inputs);
        for dir in above {
            let is_told = self.named(dir) || named.contains(dir);
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
        for TokenPath(path) in inputs.members.iter().filter_map(path_of) {
            match path.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
                Some((root @ ("home" | "cargo" | "tmp"), _)) => {
                    pins.extend(self.untold(root));
                    // The way there may have begun at the package, and gone up.
                    let real = self.run.engine.roots.resolve(path).unwrap_or_default();
                    if !real.to_str().is_some_and(|real| self.named(real)) {
                        pins.extend(["workspace", "package"]);
                    }
                }
                Some((root, _)) => pins.extend(self.untold(root)),
                None if self.named(path) => {}
                // It may be the way to the checkout as well, as in `/usr/src`.
                None if is_system(path) && self.fork(path).is_none() => {}
                // It may have been named relative to the package.
                None => pins.extend(["workspace", "package"]),
            }
        }
        for root in pins.into_iter().filter(|root| self.run.engine.roots.place(root).is_some()) {
            inputs.pin(root);
        }
    }

    /// Whether a variable named a path, or a directory that holds it; or the directory `bin` beside it, of
    /// which a program ran: that looks for what it was installed with.
    ///
    /// What holds the checkout, too, names nothing on the way there: elsewhere that is another way. A home
    /// names the settings in it, and not what lies beside the checkout.
    fn named(&self, path: &str) -> bool {
        let fork = self.fork(path);
        let beyond = |dir: &&str| fork.is_none_or(|fork| Path::new(dir).starts_with(fork));
        holders(path).filter(beyond).any(|dir| self.is_told(dir))
    }

    /// Whether a value or a program tells of a directory. Thousands of paths lie in few.
    fn is_told(&self, dir: &str) -> bool {
        if let Some(known) = self.told.borrow().get(dir) {
            return *known;
        }
        let is_told = names_in(&self.values, dir) || self.is_installed(dir);
        self.told.borrow_mut().insert(dir.to_owned(), is_told);
        is_told
    }

    /// Where a path leaves the way to the checkout: the deepest directory that holds both.
    fn fork<'p>(&self, path: &'p str) -> Option<&'p str> {
        holders(path).find(|dir| self.holds_root(dir))
    }

    /// Whether a directory holds a root that cargo tells.
    fn holds_root(&self, dir: &str) -> bool {
        told_by_cargo(self.run).any(|(_, place)| place.starts_with(dir))
    }

    fn is_installed(&self, prefix: &str) -> bool {
        // What lies in there may as well have been found from the checkout.
        if self.holds_root(prefix) {
            return false;
        }
        let bin = format!("{prefix}/bin");
        let mut programs = self.code.iter().chain(self.compilers);
        programs.any(|program| program.parent() == Some(Path::new(&bin)))
            && self.values.iter().any(|value| has_dir(value, &bin))
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
        let mut real = RealPaths::default();
        for member in &inputs.members {
            let path = match member {
                Member::Program(name) => find_program(self.run.engine.env, name),
                member => path_of(member).and_then(|path| roots.resolve(&path.0)),
            };
            let in_root = |path: &Path| told_by_cargo(self.run).any(|(_, p)| path.starts_with(p));
            let Some(path) = path.filter(|path| !in_root(path)) else { continue };
            let Some(real) = real.of(&path) else { continue };
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
        // Made once: a script may have read thousands of files.
        let roots: Vec<_> = roots.iter().map(|(root, place)| (*root, Finder::new(place))).collect();
        let dirs: Vec<_> = dirs.iter().map(|dir| (*dir, Finder::new(*dir))).collect();
        let (mut found, mut named) = (BTreeSet::new(), BTreeSet::new());
        for member in &inputs.members {
            let Member::File(token) = member else { continue };
            let Some(path) = self.run.engine.roots.resolve(&token.0) else { continue };
            if is_system(&token.0) && !path.starts_with(LOCAL) {
                continue;
            }
            let is_code = self.code.contains(&path);
            let small = path.metadata().is_ok_and(|m| m.is_file() && m.len() <= MAX_TEXT_BYTES);
            let Some(bytes) = small.then(|| std::fs::read(&path).ok()).flatten() else { continue };
            let has = |place: &Finder<'_>| place.find(&bytes).is_some();
            let written = roots.iter().filter(|(_, place)| has(place));
            let among: &[&'static str] = if is_code { &TOLD_BY_CARGO } else { &ROOTS };
            let written = written.filter_map(|(root, _)| among.iter().find(|name| *name == root));
            found.extend(written);
            named.extend(dirs.iter().filter(|(_, place)| has(place)).map(|(dir, _)| *dir));
        }
        // The script may have a place in its own code.
        let program = (!dirs.is_empty()).then(|| std::fs::read(&self.run.program.real).ok());
        if let Some(bytes) = program.flatten() {
            // Texts in code follow each other with nothing between them.
            let ends = |at: usize, dir: &str| bytes.get(at + dir.len()) != Some(&b'/');
            let has = |(dir, place): &&(&str, Finder<'_>)| {
                place.find_iter(&bytes).any(|at| ends(at, dir))
            };
            named.extend(dirs.iter().filter(has).map(|(dir, _)| *dir));
        }
        (found, named)
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

/// Whether a directory is named in one of some values; a directory further down does not name it.
fn names_in(values: &[&str], dir: &str) -> bool {
    values.iter().any(|value| names(value, dir))
}

/// A path and the directories that hold it, of two components at least.
fn holders(path: &str) -> impl Iterator<Item = &str> {
    let deep = |dir: &&Path| dir.components().count() > 2;
    Path::new(path).ancestors().take_while(deep).filter_map(Path::to_str)
}

/// Whether a text names a directory, and nothing in it.
fn names(text: &str, dir: &str) -> bool {
    ends(text, dir).any(|rest| !rest.strip_prefix('/').unwrap_or(rest).starts_with(is_of_name))
}

/// Whether a text names a directory or something in it.
fn has_dir(text: &str, dir: &str) -> bool {
    ends(text, dir).any(|rest| !rest.starts_with(is_of_name))
}

/// What follows each place where a text has another one.
fn ends<'a>(text: &'a str, part: &'a str) -> impl Iterator<Item = &'a str> {
    memmem::find_iter(text.as_bytes(), part.as_bytes()).filter_map(|at| text.get(at + part.len()..))
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_by_what_holds_it() {
        let values = ["/a/bin:/b/c/bin", "-L/x/lib -l z", "/home/ann/"];
        for (path, want) in [
            ("/a/bin/cc", true),
            ("/b/c/bin/deep/er", true),
            ("/b/c/other", false),
            ("/a/binary", false),
            ("/x/lib/libz.a", true),
            ("/x/include", false),
            ("/home/ann/x", true),
            ("/home/anna/x", false),
            ("/a", false),
        ] {
            let is_named = holders(path).any(|dir| names_in(&values, dir));
            assert_eq!(is_named, want, "{path}");
        }
    }

    #[test]
    fn a_directory_is_named_by_what_is_in_it() {
        for (text, want) in [
            ("/a/b/bin", true),
            ("/a/b/bin/rustc", true),
            ("/x:/a/b/bin:/y", true),
            ("/a/b/binary", false),
            ("/a/b/bin-2/rustc", false),
            ("/a/b", false),
        ] {
            assert_eq!(has_dir(text, "/a/b/bin"), want, "{text}");
        }
    }
}
