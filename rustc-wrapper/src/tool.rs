//! [`Tool`]: the identity of a compiler by what it is made of.
//!
//! Driver, its shared libraries, code generation back ends, the linker it carries, the standard
//! library of the target: all by content, through the memo, plus what the program says of itself
//! (`-vV`). Two toolchains with one `-vV` and other bytes are two tools.
//!
//! What a program says is asked once and kept in `KILN_DIR/tools` ([`Facts`]); every probe of
//! cargo that passes through Kiln brings it up to date, so that a stand-in that now runs another
//! compiler is noticed when cargo notices it. A hit starts no process.

mod content;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use kiln_storage::Digest;
use kiln_storage::encode::Encoder;
use kiln_storage::record::{EnvForm, Member, TokenPath};
use serde::{Deserialize, Serialize};

use crate::args::{Bypass, Parsed};
use crate::env::Env;
use crate::members::find_program;
use crate::memo::Memo;
use crate::stamp::stamp;

/// Deepest directory below the sysroot that is looked at.
const MAX_DEPTH: usize = 4;

/// What a rustup proxy chooses by.
const PROXY_VARIABLES: [&str; 2] = ["RUSTUP_TOOLCHAIN", "RUSTUP_HOME"];
/// What may change the version that a compiler tells.
const VERSION_VARIABLES: &[&str] = &[
    "RUSTC_BOOTSTRAP",
    "RUSTC_FORCE_RUSTC_VERSION",
    "RUSTC_OVERRIDE_VERSION_STRING",
    "RUSTC_LOG",
    "LD_PRELOAD",
];

/// A compiler, identified.
#[derive(Debug, Clone)]
pub struct Tool {
    /// Names the tool by content.
    pub digest: Digest,
    /// What it calls itself, e.g. `rustc 1.95.0 (59807616e 2026-04-14)`.
    pub version: String,
    /// Its sysroot.
    pub sysroot: PathBuf,
    /// `-<16 hexadecimal characters>` of the standard library's files: what every crate's metadata
    /// mentions, which shows that dependency names can be read from it.
    pub std_suffixes: Vec<String>,
    /// Paths of all files that the digest covers.
    files: BTreeSet<PathBuf>,
}

impl Tool {
    /// A tool of which only its identity matters, for tests.
    #[cfg(test)]
    pub(crate) fn of_digest(digest: Digest, sysroot: PathBuf) -> Self {
        let version = "rustc 1".to_owned();
        Self { digest, version, sysroot, std_suffixes: Vec::new(), files: BTreeSet::new() }
    }

    /// What its identity depends on.
    pub fn members(&self) -> Vec<Member> {
        members(self.files.iter())
    }

    /// Whether a file is part of the compiler as it is identified. A path may hold `..`.
    pub fn covers(&self, path: &str) -> bool {
        let mut plain = PathBuf::new();
        for part in Path::new(path).components() {
            match part {
                std::path::Component::ParentDir => drop(plain.pop()),
                part => plain.push(part),
            }
        }
        self.files.contains(&plain)
    }
}

/// A question for the version of a compiler whose files are all known.
#[derive(Debug, Clone)]
pub struct Said {
    /// What it said to the same question when it was made of the same files; none when it was not asked.
    pub text: Option<String>,
    /// Where the answer is kept.
    path: PathBuf,
    /// When the newest of its files was changed, nanoseconds since 1970.
    newest_ns: i128,
    /// Its files.
    parts: Vec<(String, PathBuf)>,
}

impl Said {
    /// Whether it is `now` still the same question to a compiler of the same files.
    pub fn is_still(&self, now: Option<&Self>) -> bool {
        now.is_some_and(|now| now.path == self.path)
    }

    /// Keeps the answer of a tool that was started at a time of the coarse clock, nanoseconds, and that
    /// [`Self::is_still`] what it was.
    pub fn keep(&self, text: &str, started_ns: i128) {
        if self.newest_ns < started_ns {
            write_whole(&self.path, text.as_bytes());
        }
    }

    /// What the answer depends on.
    pub fn members(&self) -> Vec<Member> {
        members(self.parts.iter().map(|(_, path)| path))
    }
}

/// Files of a compiler as members, and the names in their directories: one more library there is
/// another compiler.
fn members<'a>(files: impl Iterator<Item = &'a PathBuf> + Clone) -> Vec<Member> {
    let token = |path: &Path| Some(TokenPath(path.to_str()?.to_owned()));
    let libraries = files.clone().filter_map(|file| file.parent()).filter(|dir| {
        !dir.ends_with("bin") && dir.components().any(|part| part.as_os_str() == "lib")
    });
    let listings = libraries.collect::<BTreeSet<_>>().into_iter().filter_map(token);
    let files = files.filter_map(|file| token(file)).map(Member::File);
    files.chain(listings.map(Member::Listing)).collect()
}

/// The compiler as it was named on the command line, and what decides which one a proxy takes.
pub fn named(env: &Env, tool: &OsStr) -> Vec<Member> {
    let program = match tool.to_str() {
        Some(name) if !name.contains('/') => Some(Member::Program(name.to_owned())),
        _ => locate(env, tool)
            .and_then(|path| Some(Member::File(TokenPath(path.to_str()?.to_owned())))),
    };
    let variables = PROXY_VARIABLES.map(|name| Member::Env(name.to_owned(), EnvForm::Raw));
    program.into_iter().chain(variables).collect()
}

/// What a compiler said to a question, if the same files have been asked before. Starts nothing. None
/// when the compiler is not known yet, is a script, or a proxy that has to choose.
pub fn said(dir: &Path, env: &Env, tool: &OsStr, question: &str) -> Option<Said> {
    let program = locate(env, tool)?;
    let known = read_facts(&facts_path(dir, env, &program))?;
    let same = text_stamp(&program).is_some_and(|stamp| stamp == known.program);
    if !same
        || known.script
        || !known.version.starts_with("rustc ")
        || known.sysroot.is_empty()
        || is_undecided_proxy(env, &program)
    {
        return None;
    }
    let home = PathBuf::from(known.sysroot.trim_end());
    let mut key = Encoder::new("kiln tool said v1");
    key.text("question", question).text("program", program.to_str()?);
    // A stand-in that runs another compiler now is found out by a probe of cargo.
    key.text("version", &known.version).text("sysroot", &known.sysroot);
    for name in PROXY_VARIABLES.iter().chain(VERSION_VARIABLES) {
        key.optional(name, env.get(name).map(OsStr::as_encoded_bytes));
    }
    let host = host(&known.version);
    let mut parts = vec![("program".to_owned(), program)];
    parts.extend(files(&home, &home, host, host));
    let mut newest_ns = 0;
    for (label, path) in &parts {
        let meta = std::fs::metadata(path).ok();
        newest_ns = meta.as_ref().map_or(0, crate::stamp::changed_ns).max(newest_ns);
        let stamp = meta.as_ref().map(stamp);
        key.text("part", label).optional("stamp", stamp.as_ref().map(<[u8; 56]>::as_slice));
    }
    let path = dir.join("tools").join(format!("said-{}", key.finish()));
    Some(Said { text: std::fs::read_to_string(&path).ok(), path, newest_ns, parts })
}

/// What a program says of itself; empty where it was not asked yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Identity of the program file that said it.
    pub program: String,
    /// Output of `-vV`.
    pub version: String,
    /// Output of `--print sysroot`.
    pub sysroot: String,
    /// Whether the program is a script.
    pub script: bool,
}

/// The identity of a file without reading it; none when it cannot be looked at.
pub(crate) fn file_stamp(path: &Path) -> Option<[u8; 56]> {
    std::fs::metadata(path).ok().map(|meta| stamp(&meta))
}

/// The same as text.
fn text_stamp(path: &Path) -> Option<String> {
    Some(Digest::of(&file_stamp(path)?).to_string())
}

/// The file of a tool: itself, or what `PATH` finds.
pub fn locate(env: &Env, tool: &OsStr) -> Option<PathBuf> {
    let path = PathBuf::from(tool);
    if path.components().count() > 1 {
        let cwd = env.cwd.clone().unwrap_or_default();
        return Some(cwd.join(path));
    }
    find_program(env, tool.to_str()?)
}

/// rustup's proxies choose a toolchain by this variable; without it by settings and directories.
fn is_undecided_proxy(env: &Env, program: &Path) -> bool {
    if env.get("RUSTUP_TOOLCHAIN").is_some() {
        return false;
    }
    let own = std::fs::metadata(program).map(|m| (m.dev(), m.ino(), m.size()));
    let rustup =
        std::fs::metadata(program.with_file_name("rustup")).map(|m| (m.dev(), m.ino(), m.size()));
    match (own, rustup) {
        (Ok(a), Ok(b)) => a == b || (a.0 == b.0 && a.2 == b.2),
        _ => false,
    }
}

fn facts_path(dir: &Path, env: &Env, program: &Path) -> PathBuf {
    let mut encoder = Encoder::new("kiln tool facts v2");
    encoder.text("program", &program.to_string_lossy());
    for name in PROXY_VARIABLES {
        encoder.optional(name, env.get(name).map(OsStr::as_encoded_bytes));
    }
    dir.join("tools").join(encoder.finish().to_string())
}

/// Notes what a probe that passed through said: keeps the facts up to date at no cost. Cargo asks both questions before
/// its first compile, so that on a fresh machine nobody has to.
pub fn note_probe(dir: &Path, env: &Env, tool: &OsStr, args: &[OsString], stdout: &str) {
    let Some(program) = locate(env, tool) else {
        return;
    };
    let Some(stamp) = text_stamp(&program) else {
        return;
    };
    let path = facts_path(dir, env, &program);
    let old = read_facts(&path);
    let first = || Facts { script: is_script(&program), ..Facts::default() };
    let mut new = Facts { program: stamp, ..old.clone().unwrap_or_else(first) };
    let asks = |what: &str| {
        args.iter().any(|a| a == what) || args.iter().any(|a| *a == *format!("--print={what}"))
    };
    if args.len() == 1 && asks("-vV") {
        new.version = stdout.to_owned();
    } else if asks("sysroot") && !args.iter().any(|a| a.to_string_lossy().starts_with("--sysroot"))
    {
        // One that is given (in RUSTFLAGS) is not the compiler's own.
        match stdout.lines().find(|line| line.starts_with('/')) {
            Some(line) => new.sysroot = line.to_owned(),
            None => return,
        }
    } else {
        return;
    }
    if old.as_ref() != Some(&new) {
        write_facts(&path, &new);
    }
}

fn read_facts(path: &Path) -> Option<Facts> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn write_facts(path: &Path, facts: &Facts) {
    write_whole(path, &serde_json::to_vec(facts).unwrap_or_default());
}

/// Writes a small file whole or not at all. One that cannot be kept is found out again next time.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) {
    let Some(dir) = path.parent() else { return };
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let _ = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&temporary, bytes))
        .and_then(|()| std::fs::rename(&temporary, path));
}

fn is_script(program: &Path) -> bool {
    let mut start = [0_u8; 2];
    let read = std::fs::File::open(program).and_then(|mut file| file.read_exact(&mut start));
    read.is_err() || start == *b"#!"
}

fn ask(tool: &OsStr, question: &[&str]) -> Option<String> {
    let mut command = crate::compile::command(tool, question);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = output.ok().filter(|o| o.status.success())?;
    String::from_utf8(output.stdout).ok()
}

fn facts(dir: &Path, env: &Env, tool: &OsStr, program: &Path) -> Option<Facts> {
    let stamp = text_stamp(program)?;
    let path = facts_path(dir, env, program);
    let known = read_facts(&path).filter(|f| f.program == stamp);
    let known = known.filter(|_| !is_undecided_proxy(env, program)).unwrap_or_default();
    if !known.version.is_empty() && !known.sysroot.is_empty() {
        return Some(known);
    }
    let or_ask = |known: String, question: &[&str]| match known.is_empty() {
        true => ask(tool, question),
        false => Some(known),
    };
    let version = or_ask(known.version, &["-vV"])?;
    let sysroot = or_ask(known.sysroot, &["--print", "sysroot"])?.trim_end().to_owned();
    let facts = Facts { program: stamp, version, sysroot, script: is_script(program) };
    write_facts(&path, &facts);
    Some(facts)
}

/// Identifies the tool of an invocation: rustc, or clippy-driver in front of rustc.
///
/// # Errors
/// A bypass when the program is no rustc or cannot be read.
pub fn identify(
    dir: &Path,
    env: &Env,
    invocation: &crate::args::Invocation,
    parsed: &Parsed,
    memo: &Memo,
) -> Result<Tool, Bypass> {
    let rustc = invocation.inner.as_ref().unwrap_or(&invocation.tool);
    let unknown =
        |what: &str| Bypass::new("unknown-tool", format!("{}: {what}", rustc.to_string_lossy()));
    let program = locate(env, rustc).ok_or_else(|| unknown("not found"))?;
    let facts = facts(dir, env, rustc, &program).ok_or_else(|| unknown("does not answer -vV"))?;
    if !facts.version.starts_with("rustc ") {
        return Err(unknown("is no rustc"));
    }
    if facts.script {
        return Err(Bypass::new("script-as-compiler", program.to_string_lossy()));
    }
    let sysroot = parsed.sysroot.clone().unwrap_or_else(|| PathBuf::from(facts.sysroot.trim_end()));
    let home = PathBuf::from(facts.sysroot.trim_end());
    let mut parts = vec![("program".to_owned(), program)];
    if invocation.inner.is_some() {
        let driver = locate(env, &invocation.tool).ok_or_else(|| unknown("driver not found"))?;
        // Its shared libraries stand beside it, mostly in the same toolchain.
        let own = driver.parent().and_then(Path::parent).filter(|own| *own != home);
        if let Some(own) = own {
            list(&own.join("lib"), "driver/lib", 1, &mut parts);
        }
        parts.push(("driver".to_owned(), driver));
    }
    let host = host(&facts.version);
    // A target description is known by its file name.
    let target = parsed.target.as_deref().unwrap_or(host);
    let target =
        target.strip_suffix(".json").map_or(target, |path| path.rsplit('/').next().unwrap_or(path));
    parts.extend(files(&home, &sysroot, host, target));
    let std_suffixes = parts.iter().filter(|(label, _)| label.starts_with("std/"));
    let std_suffixes = std_suffixes.filter_map(|(label, _)| crate::closure::suffix(label));
    let std_suffixes = std_suffixes.map(str::to_owned).collect();
    let digest = content::digest(dir, &facts.version, &parts, memo)
        .map_err(|(path, error)| unknown(&format!("{}: {error}", path.display())))?;
    let version = facts.version.lines().next().unwrap_or_default().to_owned();
    let files = parts.into_iter().map(|(_, path)| path).collect();
    Ok(Tool { digest, version, sysroot, std_suffixes, files })
}

/// The files that a toolchain is made of, as label and path, sorted.
fn files(home: &Path, sysroot: &Path, host: &str, target: &str) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    let own_rustc = home.join("bin/rustc");
    if own_rustc.exists() {
        files.push(("bin/rustc".to_owned(), own_rustc));
    }
    list(&home.join("lib"), "lib", 1, &mut files);
    let host_lib = home.join("lib/rustlib").join(host);
    for part in ["bin", "codegen-backends"] {
        list(&host_lib.join(part), part, MAX_DEPTH, &mut files);
    }
    list(&sysroot.join("lib/rustlib").join(target).join("lib"), "std", 2, &mut files);
    files.sort_unstable();
    files
}

fn host(version: &str) -> &str {
    version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or("unknown").trim()
}

/// The files in a directory, as label and path, down to a depth. Unreadable ones are left out: the
/// compiler could not read them either.
fn list(dir: &Path, label: &str, depth: usize, files: &mut Vec<(String, PathBuf)>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let label = format!("{label}/{}", entry.file_name().to_string_lossy());
        // Most are plain files, which their own stamp is asked of later.
        let is_dir = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => path.is_dir(),
            Ok(kind) => kind.is_dir(),
            Err(_) => continue,
        };
        match is_dir {
            false => files.push((label, path)),
            true if depth > 1 => list(&path, &label, depth - 1, files),
            true => {}
        }
    }
}
