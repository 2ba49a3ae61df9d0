//! Questions that build scripts put to the compiler: is this a script's run, what version is it, and
//! does a compile that failed say something of its source; and what a question to the tool itself is answered ([`answer`]).
//!
//! A script tries out what the compiler knows. Its tries fail on purpose, and a failure is a result as
//! good as any, when it is the source that was refused and not this machine that failed. Called by
//! [`crate::wrapper`].

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use kiln_storage::record::Member;

use crate::args::Invocation;
use crate::compile;
use crate::config::Mode;
use crate::diagnostics::strip_json_ansi;
use crate::env::Env;
use crate::notes::{Note, Notes, absolute};
use crate::roots::Roots;
use crate::tool::{self, Said};
use crate::{say, stamp};

/// What cargo sets for a build script and for no compile.
const OF_SCRIPTS: &[&str] = &["OUT_DIR", "NUM_JOBS", "OPT_LEVEL", "HOST"];
/// What cargo sets for its own compiles alone, those of a build that a script starts among them.
const OF_COMPILES: &str = "CARGO_CRATE_NAME";

/// Whether a build script, or something that it started, asks.
pub fn is_of_script(env: &Env) -> bool {
    OF_SCRIPTS.iter().all(|name| env.get(name).is_some()) && env.get(OF_COMPILES).is_none()
}

/// A question to the tool passes through; what it says of itself is noted. The version is told without
/// it to a build script, when nothing changed since it was asked.
pub fn answer(env: &Env, mode: Mode, dir: &Path, invocation: &Invocation) -> ExitCode {
    let said = version(env, dir, invocation);
    if let Some((said, text)) = said.as_ref().and_then(|said| Some((said, said.text.as_ref()?)))
        && mode != Mode::Refresh
    {
        Notes::leave(env, dir, &Note::read(members_of(said, env, invocation)));
        say::replay_stdout(text);
        return ExitCode::SUCCESS;
    }
    let become_tool = || {
        Notes::leave(env, dir, &Note::became());
        compile::become_tool(&invocation.argv())
    };
    let telling = |arg: &OsString| arg == "-vV" || arg == "--print=sysroot";
    let telling = invocation.inner.is_none() && invocation.args.iter().any(telling);
    // What a child of this process reads counts for nobody.
    if said.is_none() && (!telling || Notes::within(env, dir).is_some()) {
        return become_tool();
    }
    let started_ns = stamp::coarse_now_ns();
    match compile::probe(&invocation.tool, &invocation.args) {
        Ok((status, stdout)) => {
            let mut note = Note::refused("the compiler's version is not known");
            if let (true, Some(stdout)) = (status.success(), stdout) {
                tool::note_probe(dir, env, &invocation.tool, &invocation.args, &stdout);
                let now = version(env, dir, invocation);
                if let Some(said) = said.filter(|said| said.is_still(now.as_ref())) {
                    said.keep(&stdout, started_ns);
                    note = Note::read(members_of(&said, env, invocation));
                }
            }
            Notes::leave(env, dir, &note);
            compile::exit_as(status)
        }
        Err(_) => become_tool(),
    }
}

/// Which question for the version this is; both forms of one are one.
fn question(args: &[OsString]) -> Option<&'static str> {
    let words: Option<Vec<&str>> = args.iter().map(|arg| arg.to_str()).collect();
    match words?.as_slice() {
        ["-V" | "--version"] => Some("--version"),
        ["-vV" | "-Vv"]
        | ["--version" | "-V", "--verbose" | "-v"]
        | ["--verbose" | "-v", "--version" | "-V"] => Some("-vV"),
        _ => None,
    }
}

/// A script's question for the version, with what the compiler said to it, if that is known, and can be
/// kept for the next one if not. None where the tool has to be asked as it is.
pub fn version(env: &Env, dir: &Path, invocation: &Invocation) -> Option<Said> {
    let question = question(&invocation.args).filter(|_| invocation.inner.is_none())?;
    is_of_script(env).then(|| tool::said(dir, env, &invocation.tool, question))?
}

/// What an answered question depended on.
pub fn members_of(said: &Said, env: &Env, invocation: &Invocation) -> Vec<Member> {
    let named = tool::named(env, &invocation.tool);
    let members: Vec<Member> = said.members().into_iter().chain(named).collect();
    absolute(&members, &Roots::default(), env).unwrap_or_default()
}

/// What the compiler says when the machine failed it, with a code and a place or without.
const OF_MACHINE: &[&str] = &[
    "(os error",
    "internal compiler error",
    "memory than available to the compiler",
    "out of memory",
    "has been written to",
];

/// Whether every error that the compiler printed is one that its source, its arguments or the crates it
/// was given are to blame for.
///
/// An error with a code is one of the language; of those, `E0463` (a crate is not found) and its kin come
/// from looking through directories and files, which are inputs of a failure one by one. One without a
/// code has to name a place in a source: a parse error, a lint, a feature. All others, that nothing can be
/// written, that a linker fails, are of this machine, and so is whatever names an error of the system.
/// What is no diagnostic at all (a panic, a message of LLVM) is a doubt.
pub fn refuses_source(stderr: &str, json: bool) -> bool {
    if OF_MACHINE.iter().any(|words| stderr.contains(words)) {
        return false;
    }
    let errors = if json { json_errors(stderr) } else { human_errors(stderr) };
    errors.is_some_and(|errors| errors > 0)
}

/// The number of errors; none when there is one that counts against the machine.
fn json_errors(stderr: &str) -> Option<usize> {
    let mut errors = 0;
    for line in stderr.lines() {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        if value["$message_type"] != "diagnostic" {
            return None;
        }
        match value["level"].as_str()? {
            "error" if is_summary(value["message"].as_str()?) => {}
            "error" => {
                let placed = value["spans"].as_array().is_some_and(|spans| !spans.is_empty());
                let coded = value["code"]["code"].as_str().is_some_and(is_code);
                (placed || coded).then(|| errors += 1)?;
            }
            "warning" | "note" | "help" | "failure-note" => {}
            _ => return None,
        }
    }
    Some(errors)
}

/// `E0554`.
fn is_code(code: &str) -> bool {
    code.strip_prefix('E')
        .is_some_and(|digits| digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// What the compiler says when it gives up.
fn is_summary(message: &str) -> bool {
    message.starts_with("aborting due to ")
}

/// What a line that begins at the left margin may begin with, besides an error: other diagnostics, a
/// numbered line of a source, what is left out of one, and what is said at the end.
const MARGIN: &[&str] = &[
    "warning:",
    "warning[",
    "note:",
    "help:",
    "...",
    "For more information about ",
    "Some errors have detailed explanations: ",
];

fn human_errors(stderr: &str) -> Option<usize> {
    // Colour is written out in this form.
    let plain = strip_json_ansi(&stderr.replace('\u{1b}', "\\u001b"));
    let (mut errors, mut placed) = (0, true);
    for line in plain.lines() {
        let (coded, message) = match line.strip_prefix("error") {
            Some(rest) => match rest.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
                Some((code, message)) => (is_code(code), message),
                None => (false, rest.strip_prefix(": ")?),
            },
            None => {
                let inside = line.starts_with(|c: char| c == ' ' || c.is_ascii_digit());
                // The place of another diagnostic is not that of the error before it.
                placed |= inside && line.trim_start().starts_with("--> ");
                let begins = MARGIN.iter().any(|start| line.starts_with(start));
                if line.is_empty() || inside || (begins && placed) {
                    continue;
                }
                return None;
            }
        };
        // The one before has no place.
        if !placed {
            return None;
        }
        placed = coded || is_summary(message);
        errors += usize::from(!is_summary(message));
    }
    placed.then_some(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_a_script_is_told_from_a_compile() {
        let script = [("OUT_DIR", "/o"), ("NUM_JOBS", "2"), ("OPT_LEVEL", "0"), ("HOST", "h")];
        assert!(is_of_script(&Env::of_pairs(script)));
        for without in 0..script.len() {
            let pairs = script.iter().enumerate().filter(|(at, _)| *at != without);
            assert!(!is_of_script(&Env::of_pairs(pairs.map(|(_, pair)| *pair))));
        }
        let nested = script.into_iter().chain([("CARGO_CRATE_NAME", "x")]);
        assert!(!is_of_script(&Env::of_pairs(nested)));
    }

    #[test]
    fn questions_for_the_version() {
        let ask = |line: &str| question(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for short in ["--version", "-V"] {
            assert_eq!(ask(short), Some("--version"));
        }
        for long in ["-vV", "-Vv", "--version --verbose", "--verbose --version", "-V -v"] {
            assert_eq!(ask(long), Some("-vV"));
        }
        for other in ["-v", "--print=sysroot", "--version x", "-vV --target=t", ""] {
            assert_eq!(ask(other), None, "{other}");
        }
    }

    const FEATURE: &str = "\
error[E0554]: `#![feature]` may not be used on the stable release channel
 --> build/probe.rs:6:1
  |
6 | #![feature(error_generic_member_access)]
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

error: aborting due to 1 previous error

For more information about this error, try `rustc --explain E0554`.
";

    #[test]
    fn errors_of_the_source_are_told_from_those_of_the_machine() {
        let end = "error: aborting due to 1 previous error\n\n";
        let parse = "error: expected item\n --> <anon>:1:1\n  |\n1 | x\n  | ^\n\n";
        let target = "error[E0463]: can't find crate for `std`\n  |\n  = note: the target\n\n";
        let colour = "\u{1b}[0m\u{1b}[1m\u{1b}[38;5;9merror\u{1b}[0m\u{1b}[0m: no\u{1b}[0m\n \
                      \u{1b}[0m--> \u{1b}[0ma.rs:1:1\n\n";
        for good in [FEATURE, parse, &format!("{parse}{end}"), target, colour] {
            assert!(refuses_source(good, false), "{good}");
        }
        let lint = "warning: unused\n --> a.rs:1:1\n\n";
        assert!(refuses_source(&format!("{lint}{parse}"), false));
        for bad in [
            "",
            end,
            lint,
            "error: linking with `cc` failed: exit status: 1\n  |\n  = note: cc\n\n",
            "error: linking with `cc` failed\n\nwarning: unused\n --> a.rs:1:1\n",
            "error[E0080]: evaluation failed: tried to allocate more memory than available to the \
             compiler\n --> a.rs:1:1\n",
            "error: couldn't create a temp dir: No space left on device (os error 28) at path\n",
            "error: couldn't read `x.txt`: Permission denied (os error 13)\n --> a.rs:1:1\n",
            "error: could not find native static library `x`, perhaps an -L flag is missing?\n",
            "error: internal compiler error: x\n --> a.rs:1:1\n",
            "thread 'rustc' panicked at x:\n",
            "LLVM ERROR: IO failure on output stream\n",
        ] {
            assert!(!refuses_source(bad, false), "{bad}");
        }
        // One of the machine is not outweighed by one of the source.
        let linking = "error: linking with `cc` failed\n\n";
        for both in [format!("{linking}{parse}"), format!("{parse}{linking}")] {
            assert!(!refuses_source(&both, false), "{both}");
        }
    }

    #[test]
    fn errors_in_json_likewise() {
        let one = |level: &str, code: &str, spans: &str, message: &str| {
            format!(
                "{{\"$message_type\":\"diagnostic\",\"level\":\"{level}\",\"code\":{code},\
                 \"spans\":{spans},\"message\":\"{message}\"}}\n"
            )
        };
        let (code, place) = ("{\"code\":\"E0463\"}", "[{\"file_name\":\"a.rs\"}]");
        let end = one("error", "null", "[]", "aborting due to 1 previous error");
        for good in [
            one("error", code, "[]", "can't find crate"),
            one("error", "null", place, "expected item") + &end,
            one("warning", "null", "[]", "x") + &one("error", code, place, "y"),
        ] {
            assert!(refuses_source(&good, true), "{good}");
        }
        for bad in [
            end.clone(),
            one("error", "null", "[]", "linking with `cc` failed"),
            one("error", "null", place, "couldn't read x: (os error 13)"),
            one("error: internal compiler error", "null", place, "x"),
            one("error", code, place, "x") + "panicked\n",
            one("error", code, place, "x") + "{\"$message_type\":\"artifact\"}\n",
        ] {
            assert!(!refuses_source(&bad, true), "{bad}");
        }
    }
}
