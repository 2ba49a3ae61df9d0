//! Running the real tool: standard error live to cargo and kept, standard output likewise.
//!
//! Knows nothing of keys or results. Signals end the tool with the wrapper; its status is passed
//! on as it is.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Instant;

use kiln_storage::limits::MAX_STREAM_BYTES;
use kiln_storage::record::Cost;

use crate::env::HIDDEN;
use crate::limits::MAX_COUNTED_PROCESSES;
use crate::spawn;
use crate::stdin::Source;

/// How a finished tool did.
#[derive(Debug)]
pub struct Finished {
    /// Its status.
    pub status: ExitStatus,
    /// All of its standard output, unless it was too long or not UTF-8.
    pub stdout: Option<String>,
    /// All of its standard error as the tool wrote it, likewise.
    pub stderr: Option<String>,
    /// What it cost.
    pub cost: Cost,
}

/// Bytes kept up to a bound.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    overflow: bool,
}

impl Kept {
    fn add(&mut self, bytes: &[u8]) {
        if self.overflow || self.bytes.len() + bytes.len() > MAX_STREAM_BYTES {
            self.overflow = true;
            self.bytes.clear();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn text(self) -> Option<String> {
        if self.overflow { None } else { String::from_utf8(self.bytes).ok() }
    }
}

/// The tool with its arguments, prepared but not started.
pub fn command(tool: impl AsRef<OsStr>, args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(tool);
    command.args(args);
    for name in HIDDEN {
        command.env_remove(name);
    }
    command
}

/// Copies lines as they come; each is changed by `show` on its way and kept as it was.
fn pump(from: impl Read, mut to: impl Write, show: impl Fn(&str) -> Option<String>) -> Kept {
    let mut kept = Kept::default();
    let mut from = BufReader::with_capacity(64 * 1024, from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match from.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return kept,
            Ok(_) => {}
        }
        kept.add(&line);
        let shown = std::str::from_utf8(&line).ok().and_then(&show);
        // cargo may have gone; the tool ends by itself then.
        let _ = to.write_all(shown.as_ref().map_or(&line[..], |s| s.as_bytes()));
        let _ = to.flush();
    }
}

/// Runs a command to its end, with these bytes as its standard input where there are some. `show` turns
/// a line of standard error into what people see; none leaves it as it is.
///
/// # Errors
/// When the tool cannot be started.
pub fn run(
    command: Command,
    stdin: Option<&[u8]>,
    show: impl Fn(&str) -> Option<String>,
) -> io::Result<Finished> {
    run_to(command, stdin, (io::stdout(), io::stderr()), show)
}

/// Runs a command to its end; people see nothing of it.
///
/// # Errors
/// When the tool cannot be started.
pub fn run_unseen(command: Command, stdin: Option<&[u8]>) -> io::Result<Finished> {
    run_to(command, stdin, (io::sink(), io::sink()), |_| None)
}

fn run_to(
    mut command: Command,
    stdin: Option<&[u8]>,
    (to_stdout, to_stderr): (impl Write + Send, impl Write),
    show: impl Fn(&str) -> Option<String>,
) -> io::Result<Finished> {
    if stdin.is_some() {
        command.stdin(Stdio::piped());
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn::die_with_parent(&mut command);
    let began = Instant::now();
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let pipe = child.stdin.take();
    let (out, err) = std::thread::scope(|scope| {
        if let (Some(mut pipe), Some(bytes)) = (pipe, stdin) {
            // A tool that does not read all of it hangs up.
            scope.spawn(move || drop(pipe.write_all(bytes)));
        }
        let out = scope.spawn(|| stdout.map(|pipe| pump(pipe, to_stdout, |_| None)));
        let err = stderr.map(|pipe| pump(pipe, to_stderr, show));
        (out.join().ok().flatten(), err)
    });
    let status = child.wait()?;
    let wall_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Finished {
        status,
        stdout: out.and_then(Kept::text),
        stderr: err.and_then(Kept::text),
        cost: Cost { wall_ms, cpu_ms: children_cpu_ms().unwrap_or(wall_ms) },
    })
}

/// User and system time of all children that ended, milliseconds.
fn children_cpu_ms() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(13)?.parse::<u64>().ok()? + fields.get(14)?.parse::<u64>().ok()?;
    Some(ticks * 1000 / rustix::param::clock_ticks_per_second().max(1))
}

/// User and system time of all that runs below this process, milliseconds.
pub fn running_cpu_ms() -> u64 {
    cpu_ms_below("self")
}

/// The same of a process: what its children took, their children, and so on. A build script waits while what it has
/// started works, and what that has started and waited for is a part of the work.
fn cpu_ms_below(process: &str) -> u64 {
    let mut below = children(process);
    let (mut ticks, mut looked) = (0, 0);
    while let Some(pid) = below.pop()
        && looked < MAX_COUNTED_PROCESSES
    {
        looked += 1;
        ticks += cpu_ticks(&pid).unwrap_or(0);
        below.extend(children(&pid));
    }
    ticks * 1000 / rustix::param::clock_ticks_per_second().max(1)
}

/// The children of a process, by their numbers.
fn children(process: &str) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    let lists = threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// User and system time of a process and of those of its children that ended, in the kernel's ticks.
fn cpu_ticks(pid: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
    fields.map(|field| field.parse::<u64>().ok()).sum()
}

/// Ends this process as the tool ended: same status, or the same signal.
pub fn exit_as(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        // An uncaught signal of the tool shows as such to cargo. Where raising it does not end this
        // process, the shell's number says the same.
        if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
        }
        return ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX));
    }
    ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))
}

/// Replaces this process by the tool. Returns only when that fails.
pub fn become_tool(argv: &[OsString]) -> ExitCode {
    use std::os::unix::process::CommandExt;
    let Some((tool, args)) = argv.split_first() else {
        return ExitCode::FAILURE;
    };
    let error = command(tool, args).exec();
    crate::say::error(&format!("cannot run {}: {error}", tool.to_string_lossy()), &[]);
    match error.kind() {
        io::ErrorKind::NotFound => ExitCode::from(127),
        _ => ExitCode::from(126),
    }
}

/// Runs the tool in place of this process, which has read of its standard input already.
pub fn stand_in(argv: &[OsString], source: Source) -> ExitCode {
    let Some((tool, args)) = argv.split_first() else {
        return ExitCode::FAILURE;
    };
    let mut command = command(tool, args);
    command.stdin(Stdio::piped());
    spawn::die_with_parent(&mut command);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(_) => return become_tool(argv),
    };
    if let Some(mut pipe) = child.stdin.take() {
        // Not waited for: whoever writes to standard input may never end, and the tool may not care.
        std::thread::spawn(move || {
            let begun = pipe.write_all(&source.bytes);
            if begun.is_ok() && !source.whole {
                let _ = io::copy(&mut io::stdin(), &mut pipe);
            }
        });
    }
    match child.wait() {
        Ok(status) => exit_as(status),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Runs a probe: its output passes through, and its standard output is returned.
///
/// # Errors
/// When the tool cannot be started.
pub fn probe(tool: &OsString, args: &[OsString]) -> io::Result<(ExitStatus, Option<String>)> {
    let mut command = command(tool, args);
    command.stdout(Stdio::piped());
    spawn::die_with_parent(&mut command);
    let mut child = command.spawn()?;
    let kept = child.stdout.take().map(|pipe| pump(pipe, io::stdout(), |_| None));
    Ok((child.wait()?, kept.and_then(Kept::text)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, kill_process_group};

    use super::*;

    /// A build script that runs make, which runs compilers: only these work.
    #[test]
    fn what_is_done_further_below_counts() {
        let script = "sh -c 'sh -c \"while :; do :; done\" & wait' & wait";
        let mut outer = Command::new("sh").args(["-c", script]).process_group(0).spawn().unwrap();
        let began = Instant::now();
        let mut counted = 0;
        while counted < 100 && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(10));
            counted = cpu_ms_below(&outer.id().to_string());
        }
        kill_process_group(Pid::from_child(&outer), Signal::KILL).unwrap();
        outer.wait().unwrap();
        assert!(counted >= 100, "{counted} ms");
    }
}
