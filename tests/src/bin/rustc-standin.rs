//! A transparent stand-in for rustc and clippy-driver: notes each run in `runs.jsonl` beside itself
//! and becomes the real program, which it finds in the directory that the file `toolchain` beside
//! it names.
//!
//! Two files beside it change a compile of crate `NAME` (never a probe): a socket `NAME.gate`, to
//! which it connects and where it waits until the other side hangs up, and a file `NAME.kill`,
//! which makes it end by SIGKILL. It must stay as transparent as that: it changes no argument, no
//! variable and no descriptor. Whether a build script started it, it knows by `HOST`, which cargo sets for
//! build scripts alone: what it looked up in `/proc` would count as read by the script.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a broken stand-in must fail the build"
)]
#![allow(clippy::disallowed_methods, reason = "it looks at one variable")]

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::json;

fn main() -> ExitCode {
    let own = std::env::current_exe().expect("the path of this program");
    let dir = own.parent().expect("a directory");
    let program = own.file_name().expect("a name");
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    note(dir, &program.to_string_lossy(), &args);
    if let Some(name) = crate_name(&args).filter(|name| name != "___") {
        if dir.join(format!("{name}.kill")).exists() {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
        let gate = dir.join(format!("{name}.gate"));
        // Not by trying: a build script must not use the network.
        if let Some(mut gate) = gate.exists().then(|| UnixStream::connect(gate).ok()).flatten() {
            let _ = gate.read(&mut [0]);
        }
    }
    let toolchain = std::fs::read_to_string(dir.join("toolchain")).expect("the file `toolchain`");
    let error = Command::new(Path::new(toolchain.trim_end()).join(program)).args(&args).exec();
    let _ = writeln!(std::io::stderr(), "rustc-standin: {error}");
    ExitCode::from(127)
}

fn note(dir: &Path, program: &str, args: &[OsString]) {
    let args: Vec<_> = args.iter().map(|a| a.to_string_lossy()).collect();
    let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("?"));
    let record = json!({
        "program": program, "pid": std::process::id(), "cwd": cwd.to_string_lossy(), "args": args,
        "of_build_script": std::env::var_os("HOST").is_some(),
    });
    let open = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("runs.jsonl"));
    // One write, so that records of concurrent runs do not mix.
    let _ = open.expect("a log").write_all(format!("{record}\n").as_bytes());
}

fn crate_name(args: &[OsString]) -> Option<String> {
    let at = args.iter().position(|a| a == "--crate-name")?;
    Some(args.get(at + 1)?.to_string_lossy().into_owned())
}
