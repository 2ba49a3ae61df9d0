//! A transparent stand-in for a tool that build scripts call (a C compiler, `ar`, `make` …): notes each
//! run in `tools.jsonl` beside itself and becomes the program of its own name that is found further on
//! in `PATH`. It changes no argument, no variable and no descriptor.

#![allow(clippy::expect_used, reason = "a broken stand-in must fail the build")]
#![allow(clippy::disallowed_methods, reason = "it looks for a program as the system does")]

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::json;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let own = std::env::current_exe().expect("the path of this program");
    let (dir, name) = (own.parent().expect("a directory"), own.file_name().expect("a name"));
    note(dir, name, &args);
    let Some(real) = further_on(dir, name) else {
        let _ = writeln!(std::io::stderr(), "{}: not found", name.display());
        return ExitCode::from(127);
    };
    // By its path: a C compiler looks for its parts beside its zeroth argument.
    let error = Command::new(real).args(&args).exec();
    let _ = writeln!(std::io::stderr(), "tool-standin: {error}");
    ExitCode::from(126)
}

fn note(dir: &Path, name: &OsStr, args: &[OsString]) {
    let args: Vec<_> = args.iter().map(|a| a.to_string_lossy()).collect();
    let cwd = std::env::current_dir().unwrap_or_default();
    let record =
        json!({ "program": name.to_string_lossy(), "args": args, "cwd": cwd.to_string_lossy() });
    let open = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("tools.jsonl"));
    // One write, so that records of concurrent runs do not mix.
    let _ = open.expect("a log").write_all(format!("{record}\n").as_bytes());
}

/// The program of this name in the directories of `PATH` behind this one.
fn further_on(dir: &Path, name: &OsStr) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let dirs = path.as_bytes().split(|b| *b == b':').map(|d| Path::new(OsStr::from_bytes(d)));
    let mut behind = dirs.skip_while(|d| *d != dir).filter(|d| *d != dir);
    behind.find_map(|d| Some(d.join(name)).filter(|file| file.is_file()))
}
