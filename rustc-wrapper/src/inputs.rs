//! The input set of a unit, found after it ran: what dep-info names, the crates given and everything
//! their metadata mentions, what the linker listed, the rows of [`crate::silent`], and what was
//! observed. Where a unit loads procedural macros and observation is not whole, its package and
//! workspace stand for what they read: the conservative way. A compile that was refused has a set of its
//! own making, [`find_of_failure`]; a run of a build script too, [`crate::script::inputs`].
//!
//! Errs on the side of more inputs: a superfluous one costs a miss, a missing one a false hit.

mod failed;
mod foreign;
mod natives;
mod observed;
mod places;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kiln_storage::record::{EnvForm, Member, TokenPath, TreeFilter, Variables};

pub use self::failed::find_of_failure;
use self::observed::Doubts;
use crate::args::Parsed;
use crate::closure::{closure, is_crate_file, mentions};
use crate::env::Env;
use crate::memo::Memo;
use crate::names::OutputNames;
use crate::objects::Classes;
use crate::observe::seen::Seen;
use crate::roots::Roots;
use crate::stdin::Source;
use crate::tool::Tool;
use crate::{depinfo, envuse, silent, sources};

/// Largest source that is scanned for uses of variables, bytes.
const MAX_SCANNED_SOURCE: u64 = 16 * 1024 * 1024;

/// A run of the tool, as far as it says what it read.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The arguments.
    pub parsed: &'a Parsed,
    /// The compiler.
    pub tool: &'a Tool,
    /// The roots.
    pub roots: &'a Roots,
    /// The environment.
    pub env: &'a Env,
    /// The working directory.
    pub cwd: &'a Path,
    /// The output directory.
    pub out_dir: &'a Path,
    /// Whether clippy-driver ran.
    pub clippy: bool,
    /// The source, where it comes from standard input.
    pub source: Option<&'a Source>,
    /// The text of the dep-info file.
    pub dep_info: &'a str,
    /// For a link step: the linker and its helpers, and the linker's list.
    pub link: Option<(&'a [Member], &'a str)>,
    /// Names of the outputs that were made.
    pub outputs: &'a [String],
    /// The run's private directory.
    pub private: &'a Path,
    /// Names of outputs that the unit may make.
    pub names: &'a OutputNames,
    /// What was observed, or why nothing was.
    pub seen: Result<&'a Seen, &'a str>,
    /// The classes of objects known on this machine, and the memo of digests.
    pub known: (&'a Classes, &'a Memo),
    /// A [`crate::stamp::barrier`] right before the tool was started, nanoseconds.
    pub started_ns: i128,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The members.
    pub members: BTreeSet<Member>,
    /// Variables that hold a root and are baked in, so that the result holds at one place only.
    pub pinned: Vec<String>,
    /// Why the set was not found by observation alone, where that matters; empty when it was.
    pub conservative: Vec<String>,
}

/// Why no input set could be made: the unit is not stored. The words are in docs/reasons.md.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Unknown {
    /// A word from docs/reasons.md.
    pub reason: &'static str,
    /// More for people.
    pub detail: String,
}

fn unknown(reason: &'static str, detail: impl ToString) -> Unknown {
    Unknown { reason, detail: detail.to_string() }
}

/// Finds the input set of a run.
///
/// # Errors
/// When something that was read cannot be named.
pub fn find(run: &Run<'_>) -> Result<Inputs, Unknown> {
    let mut inputs = Inputs::default();
    let info = depinfo::parse(run.dep_info).ok_or_else(|| unknown("no-dep-info", "unreadable"))?;
    for file in &info.files {
        let path = absolute(run, Path::new(file))?;
        if std::fs::metadata(&path).is_ok_and(|meta| !meta.is_file()) {
            return Err(unknown("special-file", path));
        }
        inputs.members.extend(sibling_module(run, &path).map(|p| file_member(run, &p)));
        inputs.members.insert(file_member(run, &path));
    }
    let sources = read_sources(run, &info);
    places::named(run, &info, &mut inputs);
    let doubts = observed::add(run, &info, &mut inputs)?;
    let assembly = sources.iter().find(|(_, text)| sources::includes_assembly(text));
    if let Some(source) = assembly.filter(|_| !doubts.why.is_empty()) {
        return Err(unknown("assembler-include", &source.0));
    }
    for file in &run.parsed.files {
        inputs.members.insert(file_member(run, &absolute(run, file)?));
    }
    target_descriptions(run, &mut inputs)?;
    let (loads_macros, crate_files) = crates(run, &mut inputs)?;
    variables(run, &info, &sources, &crate_files, &mut inputs);
    natives::searched(run, &sources, &mut inputs)?;
    if let Some((members, list)) = run.link {
        inputs.members.extend(members.iter().cloned());
        natives::linked(run, list, &mut inputs)?;
    }
    for name in silent::variables(run.link.is_some(), run.clippy) {
        inputs.members.insert(Member::Env(name.to_owned(), form_of_silent(name)));
    }
    if run.clippy {
        clippy(run, &mut inputs);
    }
    if loads_macros && !doubts.why.is_empty() {
        macros(run, &doubts, &mut inputs);
        inputs.conservative = doubts.why;
    }
    Ok(inputs)
}

/// These hold lists of directories that cargo puts together; what is found there counts itself.
fn form_of_silent(name: &str) -> EnvForm {
    match name {
        "LD_LIBRARY_PATH" | "CARGO_MANIFEST_DIR" => EnvForm::Tokens,
        _ => EnvForm::Raw,
    }
}

fn absolute(run: &Run<'_>, path: &Path) -> Result<String, Unknown> {
    let path = run.cwd.join(path);
    path.to_str().map(str::to_owned).ok_or_else(|| unknown("non-utf8-path", path.display()))
}

fn token(run: &Run<'_>, path: &str) -> TokenPath {
    TokenPath(run.roots.tokenise(path))
}

fn file_member(run: &Run<'_>, path: &str) -> Member {
    Member::File(token(run, path))
}

/// The other place of a module, which must stay absent: `foo.rs` and `foo/mod.rs` exclude each
/// other (E0761).
fn sibling_module(run: &Run<'_>, path: &str) -> Option<String> {
    let path = Path::new(path);
    if path.extension()? != "rs" || path == run.cwd.join(&run.parsed.input) {
        return None;
    }
    let other = match path.file_stem()?.to_str()? {
        "mod" => path.parent()?.with_extension("rs"),
        _ => path.with_extension("").join("mod.rs"),
    };
    other.to_str().map(str::to_owned)
}

/// A built-in target may be shadowed by a description of its name.
fn target_descriptions(run: &Run<'_>, inputs: &mut Inputs) -> Result<(), Unknown> {
    let Some(target) = run.parsed.target.as_deref().filter(|t| !t.ends_with(".json")) else {
        return Ok(());
    };
    for dir in run.env.text("RUST_TARGET_PATH").unwrap_or("").split(':').filter(|d| !d.is_empty()) {
        let path = Path::new(dir).join(format!("{target}.json"));
        inputs.members.insert(file_member(run, &absolute(run, &path)?));
    }
    let own = run.tool.sysroot.join("lib/rustlib").join(target).join("target.json");
    inputs.members.insert(file_member(run, &absolute(run, &own)?));
    Ok(())
}

/// The sources, as dep-info names them, with their texts as far as they are text.
type Sources = Vec<(String, String)>;

/// What stands for a source that cannot be scanned: every variable may be used in it.
const UNSCANNED: &str = "env!()";

fn variables(
    run: &Run<'_>,
    info: &depinfo::DepInfo,
    sources: &Sources,
    crate_files: &BTreeSet<PathBuf>,
    inputs: &mut Inputs,
) {
    for name in &info.variables {
        let value = run.env.get(name).and_then(|v| v.to_str());
        let rooted = value.is_some_and(|v| run.roots.occurs_in(v));
        // A macro of a dependency may use the variable in this crate.
        let included = || {
            envuse::include_only(name, sources.iter().map(|(_, text)| text.as_str()))
                && !crate_files
                    .iter()
                    .any(|file| mentions(file, name) && !only_includes(run, file, name))
        };
        let form = if rooted && included() { EnvForm::Tokens } else { EnvForm::Raw };
        if rooted && form == EnvForm::Raw {
            inputs.pinned.push(name.clone());
        }
        inputs.members.insert(Member::Env(name.clone(), form));
    }
}

/// Whether the sources of a crate file, told by cargo's dep-info beside it, use a variable to find
/// files only: then its macros do so too. Sources that cannot be read are a doubt.
fn only_includes(run: &Run<'_>, crate_file: &Path, name: &str) -> bool {
    let stem = crate_file.file_stem().and_then(|stem| stem.to_str());
    let Some(stem) = stem.map(|stem| stem.strip_prefix("lib").unwrap_or(stem)) else {
        return false;
    };
    let text = std::fs::read_to_string(crate_file.with_file_name(format!("{stem}.d")));
    let Some(info) = text.ok().and_then(|text| depinfo::parse(&text)) else { return false };
    info.files.iter().filter(|file| file.ends_with(".rs")).all(|file| {
        let source = std::fs::read_to_string(run.cwd.join(file));
        source.is_ok_and(|source| envuse::scan(name, &source) != envuse::Use::Elsewhere)
    })
}

fn read_sources(run: &Run<'_>, info: &depinfo::DepInfo) -> Sources {
    let read = |file: &String| {
        let path = run.cwd.join(file);
        let small = std::fs::metadata(&path).is_ok_and(|m| m.len() <= MAX_SCANNED_SOURCE);
        let text = small.then(|| std::fs::read_to_string(&path).ok()).flatten();
        // Bytes that are no text are included as bytes.
        let text = text.or_else(|| file.ends_with(".rs").then(|| UNSCANNED.to_owned()))?;
        Some((file.clone(), text))
    };
    let given =
        run.source.map(|source| ("-".to_owned(), source.text().unwrap_or(UNSCANNED).into()));
    info.files.iter().filter_map(read).chain(given).collect()
}

/// The crates given and all that their metadata mentions. Whether procedural macros are among
/// them, and the files.
fn crates(run: &Run<'_>, inputs: &mut Inputs) -> Result<(bool, BTreeSet<PathBuf>), Unknown> {
    let given: Vec<PathBuf> =
        run.parsed.externs.iter().filter_map(|e| Some(run.cwd.join(e.path.as_ref()?))).collect();
    let mut files: BTreeSet<PathBuf> = given.iter().cloned().collect();
    let dirs: Vec<PathBuf> = run
        .parsed
        .search
        .iter()
        .filter(|s| matches!(s.kind.as_str(), "dependency" | "crate" | "all"))
        .map(|s| run.cwd.join(&s.path))
        .collect();
    let given: Vec<&Path> = given.iter().map(PathBuf::as_path).collect();
    let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
    let found = closure(&given, &dirs, &run.tool.std_suffixes, run.parsed.takes_objects())
        .map_err(|error| unknown("unreadable-crate", error))?;
    files.extend(found.files);
    files.extend(found.named.into_iter().filter(|file| foreign::may_be_read(run, file)));
    for file in &files {
        inputs.members.insert(file_member(run, &absolute(run, file)?));
    }
    let shared = |f: &PathBuf| f.extension().is_some_and(|e| e == "so" || e == "dylib");
    // Crates that are found by name and not given: all there are count, and what they mention.
    let by_name = run.parsed.search.iter().filter(|s| matches!(s.kind.as_str(), "crate" | "all"));
    let by_name = by_name.map(|s| run.cwd.join(&s.path)).filter(|dir| holds_crates(dir));
    let everything = found.everything || by_name.count() > 0;
    if everything {
        for dir in &dirs {
            let dir = token(run, &absolute(run, dir)?);
            inputs.members.insert(Member::Tree(dir, TreeFilter::Crates));
        }
    }
    Ok((everything || files.iter().any(shared), files))
}

fn holds_crates(dir: &Path) -> bool {
    let named = |name: std::ffi::OsString| name.to_str().is_some_and(is_crate_file);
    std::fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| named(entry.file_name()))
}

fn clippy(run: &Run<'_>, inputs: &mut Inputs) {
    let names = [".clippy.toml", "clippy.toml"].map(str::to_owned).to_vec();
    for variable in ["CLIPPY_CONF_DIR", "CARGO_MANIFEST_DIR"] {
        if let Some(dir) = run.env.text(variable) {
            inputs.members.insert(Member::Upward(token(run, dir), names.clone()));
        }
    }
    if let Some(dir) = run.env.text("CARGO_MANIFEST_DIR") {
        inputs.members.insert(file_member(run, &format!("{dir}/Cargo.toml")));
    }
    inputs
        .members
        .insert(Member::Upward(TokenPath(run.roots.tokenise(&run.cwd.to_string_lossy())), names));
}

/// A procedural macro may read anything; where that is not known, its package, the workspace that
/// holds it, and all variables that last stand for it.
fn macros(run: &Run<'_>, doubts: &Doubts, inputs: &mut Inputs) {
    let package = run.env.text("CARGO_MANIFEST_DIR").map(str::to_owned);
    let package = package.unwrap_or_else(|| run.cwd.to_string_lossy().into_owned());
    let workspace = run.roots.place("workspace").filter(|w| Path::new(&package).starts_with(w));
    let place = workspace.unwrap_or(&package);
    inputs.members.insert(Member::Tree(token(run, place), TreeFilter::Package));
    if let Some(generated) = run.env.text("OUT_DIR") {
        inputs.members.insert(Member::Tree(token(run, generated), TreeFilter::All));
    }
    if !doubts.variables_known {
        inputs.members.insert(Member::Environment(Variables::Lasting));
    }
}
