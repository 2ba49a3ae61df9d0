//! [`Tool`]: the identity of a compiler by what it is made of.
//!
//! Driver, its shared libraries, code generation back ends, the linker it carries, the standard
//! library of the target: all by content, through the memo, plus what the program says of itself
//! (`-vV`). Two toolchains with one `-vV` and other bytes are two tools.
//!
//! What a program says is asked once and kept in `KILN_DIR/tools` ([`Facts`]); every probe of
//! cargo that passes through Kiln brings it up to date, so that a stand-in that now runs another
//! compiler is noticed when cargo notices it. A hit starts no process.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln_storage::Digest;
use kiln_storage::encode::Encoder;
use serde::{Deserialize, Serialize};

use crate::args::{Bypass, Parsed};
use crate::env::Env;
use crate::members::find_program;
use crate::memo::Memo;

/// Deepest directory below the sysroot that is looked at.
const MAX_DEPTH: usize = 4;

/// A compiler, identified.
#[derive(Debug, Clone)]
pub struct Tool {
    /// Names the tool by content.
    pub digest: Digest,
    /// Its sysroot.
    pub sysroot: PathBuf,
    /// `-<16 hexadecimal characters>` of the standard library's files: what every crate's metadata
    /// mentions, which shows that dependency names can be read from it.
    pub std_suffixes: Vec<String>,
}

/// What a program says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Identity of the program file that said it.
    pub program: String,
    /// Output of `-vV`.
    pub version: String,
    /// Output of `--print sysroot`.
    pub sysroot: String,
}

/// The identity of a file without reading it.
pub(crate) fn stamp(path: &Path) -> Option<String> {
    let m = std::fs::metadata(path).ok()?;
    Some(format!(
        "{}:{}:{}:{}.{}:{}.{}",
        m.dev(),
        m.ino(),
        m.size(),
        m.mtime(),
        m.mtime_nsec(),
        m.ctime(),
        m.ctime_nsec()
    ))
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
    let rustup = std::fs::metadata(program.with_file_name("rustup")).map(|m| (m.dev(), m.ino(), m.size()));
    match (own, rustup) {
        (Ok(a), Ok(b)) => a == b || (a.0 == b.0 && a.2 == b.2),
        _ => false,
    }
}

fn facts_path(dir: &Path, env: &Env, program: &Path) -> PathBuf {
    let mut encoder = Encoder::new("kiln tool facts v1");
    encoder.text("program", &program.to_string_lossy());
    for name in ["RUSTUP_TOOLCHAIN", "RUSTUP_HOME"] {
        encoder.optional(name, env.get(name).map(OsStr::as_encoded_bytes));
    }
    dir.join("tools").join(encoder.finish().to_string())
}

/// Notes what a probe that passed through said: keeps the facts up to date at no cost.
pub fn note_probe(dir: &Path, env: &Env, tool: &OsStr, args: &[OsString], stdout: &str) {
    let Some(program) = locate(env, tool) else { return };
    let Some(stamp) = stamp(&program) else { return };
    let path = facts_path(dir, env, &program);
    let Some(old) = read_facts(&path) else { return };
    let mut new = Facts { program: stamp, ..old.clone() };
    let asks = |what: &str| {
        args.iter().any(|a| a == what) || args.iter().any(|a| *a == *format!("--print={what}"))
    };
    if args.len() == 1 && asks("-vV") {
        new.version = stdout.to_owned();
    } else if asks("sysroot") {
        match stdout.lines().find(|line| line.starts_with('/')) {
            Some(line) => new.sysroot = line.to_owned(),
            None => return,
        }
    } else {
        return;
    }
    if new != old {
        write_facts(&path, &new);
    }
}

fn read_facts(path: &Path) -> Option<Facts> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn write_facts(path: &Path, facts: &Facts) {
    // Facts that cannot be kept are asked again next time.
    let Some(dir) = path.parent() else { return };
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let json = serde_json::to_vec(facts).unwrap_or_default();
    let _ = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&temporary, json))
        .and_then(|()| std::fs::rename(&temporary, path));
}

fn ask(tool: &OsStr, question: &[&str]) -> Option<String> {
    let output = Command::new(tool).args(question).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = output.ok().filter(|o| o.status.success())?;
    String::from_utf8(output.stdout).ok()
}

fn facts(dir: &Path, env: &Env, tool: &OsStr, program: &Path) -> Option<Facts> {
    let stamp = stamp(program)?;
    let path = facts_path(dir, env, program);
    if let Some(facts) = read_facts(&path).filter(|f| f.program == stamp)
        && !is_undecided_proxy(env, program)
    {
        return Some(facts);
    }
    let version = ask(tool, &["-vV"])?;
    let sysroot = ask(tool, &["--print", "sysroot"])?.trim_end().to_owned();
    let facts = Facts { program: stamp, version, sysroot };
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
    let unknown = |what: &str| Bypass::new("unknown-tool", format!("{}: {what}", rustc.to_string_lossy()));
    let program = locate(env, rustc).ok_or_else(|| unknown("not found"))?;
    let facts = facts(dir, env, rustc, &program).ok_or_else(|| unknown("does not answer -vV"))?;
    if !facts.version.starts_with("rustc ") {
        return Err(unknown("is no rustc"));
    }
    let sysroot = parsed.sysroot.clone().unwrap_or_else(|| PathBuf::from(facts.sysroot.trim_end()));
    let home = PathBuf::from(facts.sysroot.trim_end());
    let mut encoder = Encoder::new("kiln tool v1");
    encoder.text("version", &facts.version);
    let mut content = |label: &str, path: &Path| -> Result<(), Bypass> {
        let (digest, _) = memo.digest(path).map_err(|error| {
            Bypass::new("unknown-tool", format!("{}: {error}", path.display()))
        })?;
        encoder.text("part", label).digest("content", &digest);
        Ok(())
    };
    content("program", &program)?;
    if invocation.inner.is_some() {
        let driver = locate(env, &invocation.tool).ok_or_else(|| unknown("driver not found"))?;
        content("driver", &driver)?;
    }
    let host = host(&facts.version);
    let target = parsed.target.as_deref().filter(|t| !t.ends_with(".json")).unwrap_or(host);
    let mut files = Vec::new();
    let own_rustc = home.join("bin/rustc");
    if own_rustc.exists() {
        files.push(("bin/rustc".to_owned(), own_rustc));
    }
    list(&home.join("lib"), "lib", 1, &mut files);
    let host_lib = format!("lib/rustlib/{host}");
    for part in ["bin", "codegen-backends"] {
        list(&home.join(&host_lib).join(part), part, MAX_DEPTH, &mut files);
    }
    let std_dir = sysroot.join("lib/rustlib").join(target).join("lib");
    list(&std_dir, "std", 2, &mut files);
    files.sort_unstable();
    let mut std_suffixes = Vec::new();
    for (label, path) in &files {
        content(label, path)?;
        if label.starts_with("std/") {
            std_suffixes.extend(crate::closure::suffix(label).map(str::to_owned));
        }
    }
    Ok(Tool { digest: encoder.finish(), sysroot, std_suffixes })
}

fn host(version: &str) -> &str {
    version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or("unknown").trim()
}

/// The files in a directory, as label and path, down to a depth. Unreadable ones are left out: the
/// compiler could not read them either.
fn list(dir: &Path, label: &str, depth: usize, files: &mut Vec<(String, PathBuf)>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let label = format!("{label}/{}", entry.file_name().to_string_lossy());
        match std::fs::metadata(&path) {
            Ok(meta) if meta.is_file() => files.push((label, path)),
            Ok(meta) if meta.is_dir() && depth > 1 => list(&path, &label, depth - 1, files),
            _ => {}
        }
    }
}
