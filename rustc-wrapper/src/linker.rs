//! What a link step reads: the linker and its helpers beforehand, its inputs from the list that
//! the linker itself writes (`--dependency-file`, GNU ld, lld and mold).
//!
//! The extra argument changes no output. A linker that does not know it is left alone, and the
//! unit is not cached.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln_storage::encode::Encoder;
use kiln_storage::record::{Member, TokenPath};
use serde::{Deserialize, Serialize};

use crate::args::{Bypass, Parsed};
use crate::env::Env;
use crate::members::find_program;
use crate::roots::Roots;

/// Programs and files of gcc and clang that take part in a link.
const HELPERS: &[&str] = &["collect2", "ld", "lto-wrapper", "ld.lld"];
const HELPER_FILES: &[&str] = &["liblto_plugin.so", "specs"];

/// How a link step is traced.
#[derive(Debug, Clone)]
pub struct LinkPlan {
    /// The linker and its helpers.
    pub members: Vec<Member>,
    /// The argument for rustc that makes the linker list what it reads.
    pub argument: String,
}

/// What was found out about a linker, kept in `KILN_DIR/tools`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Traits {
    traces: bool,
    helpers: Vec<String>,
}

fn file_member(roots: &Roots, path: &str) -> Member {
    Member::File(TokenPath(roots.tokenise(path)))
}

/// The linker that rustc will call, as it is named.
fn name(parsed: &Parsed) -> String {
    parsed.linker.clone().unwrap_or_else(|| "cc".into())
}

/// Plans a traced link step; `list` is where the linker shall write its list.
///
/// # Errors
/// A bypass when the link cannot be traced here.
pub fn plan(
    dir: &Path,
    env: &Env,
    parsed: &Parsed,
    roots: &Roots,
    list: &Path,
) -> Result<LinkPlan, Bypass> {
    let linker = name(parsed);
    let untraceable = |why: &str| Bypass::new("linker-untraceable", format!("{linker}: {why}"));
    let target = parsed.target.as_deref().unwrap_or(std::env::consts::OS);
    if !target.contains("linux") {
        return Err(untraceable("only Linux targets are traced"));
    }
    let direct = ["ld", "ld.lld", "rust-lld", "lld", "ld.bfd", "mold", "ld.mold"]
        .contains(&linker.rsplit('/').next().unwrap_or(""));
    let path = if linker.contains('/') {
        env.cwd.clone().unwrap_or_default().join(&linker)
    } else {
        find_program(env, &linker).ok_or_else(|| untraceable("not found"))?
    };
    let traits = traits(dir, env, parsed, &path, direct);
    if !traits.traces {
        return Err(untraceable("does not know --dependency-file"));
    }
    let list = list.to_str().filter(|l| !l.contains([',', ' '])).ok_or_else(|| untraceable("odd KILN_DIR"))?;
    let prefix = if direct { "" } else { "-Wl," };
    let mut members = vec![match linker.contains('/') {
        true => file_member(roots, &path.to_string_lossy()),
        false => Member::Program(linker),
    }];
    for helper in traits.helpers {
        members.push(match helper.contains('/') {
            true => file_member(roots, &helper),
            false => Member::Program(helper),
        });
    }
    Ok(LinkPlan { members, argument: format!("-Clink-arg={prefix}--dependency-file={list}") })
}

/// Arguments that choose the linker behind the C compiler.
fn choosing(parsed: &Parsed) -> Vec<String> {
    let chooses = |w: &&str| w.starts_with("-fuse-ld") || w.starts_with("-B") || w.starts_with("--ld-path");
    parsed.link_args().into_iter().filter(chooses).map(str::to_owned).collect()
}

fn traits(dir: &Path, env: &Env, parsed: &Parsed, linker: &Path, direct: bool) -> Traits {
    let chosen = choosing(parsed);
    let mut encoder = Encoder::new("kiln linker traits v1");
    encoder.text("path", &linker.to_string_lossy()).list("chosen", &chosen);
    encoder.optional("stamp", crate::tool::file_stamp(linker).as_ref().map(<[u8; 56]>::as_slice));
    for variable in ["PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX"] {
        encoder.optional(variable, env.get(variable).map(std::ffi::OsStr::as_encoded_bytes));
    }
    let memo = dir.join("tools").join(format!("linker-{}", encoder.finish()));
    if let Some(known) = std::fs::read(&memo).ok().and_then(|b| serde_json::from_slice(&b).ok()) {
        return known;
    }
    let traits = ask(linker, &chosen, direct);
    crate::tool::write_whole(&memo, &serde_json::to_vec(&traits).unwrap_or_default());
    traits
}

fn run(linker: &Path, args: &[String]) -> Option<String> {
    let mut command = Command::new(linker);
    let output = command.args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn ask(linker: &Path, chosen: &[String], direct: bool) -> Traits {
    let prefix = if direct { "" } else { "-Wl," };
    let mut question: Vec<String> = chosen.to_vec();
    question.push(format!("{prefix}--dependency-file=/dev/null"));
    question.push(format!("{prefix}--version"));
    let version = run(linker, &question).unwrap_or_default();
    let known = ["GNU ld", "LLD", "mold"].iter().any(|name| version.contains(name));
    let mut helpers = Vec::new();
    if !direct {
        for helper in HELPERS {
            if let Some(path) = run(linker, &[format!("-print-prog-name={helper}")]) {
                helpers.push(path.trim().to_owned());
            }
        }
        for helper in HELPER_FILES {
            if let Some(path) = run(linker, &[format!("-print-file-name={helper}")]) {
                helpers.extend(Some(path.trim().to_owned()).filter(|p| p.contains('/')));
            }
        }
    }
    Traits { traces: known, helpers }
}

/// The files in a linker's list. None when it is no such list.
pub fn parse_list(text: &str) -> Option<Vec<PathBuf>> {
    let joined = text.replace("\\\n", " ");
    let (_, files) = joined.lines().next()?.split_once(": ")?;
    let mut words: Vec<String> = vec![String::new()];
    let mut chars = files.chars().peekable();
    while let Some(c) = chars.next() {
        let last = words.len() - 1;
        match c {
            // Backslashes before a blank are doubled, and one more escapes the blank; elsewhere a
            // backslash is itself.
            '\\' => {
                let mut run = 1;
                while chars.next_if_eq(&'\\').is_some() {
                    run += 1;
                }
                let (kept, escaped) = match chars.peek() {
                    Some(' ') => (run / 2, run % 2 == 1),
                    Some('#') => (run - 1, true),
                    _ => (run, false),
                };
                words[last].extend(std::iter::repeat_n('\\', kept));
                if escaped {
                    words[last].extend(chars.next());
                }
            }
            '$' if chars.peek() == Some(&'$') => words[last].extend(chars.next()),
            ' ' | '\t' => words.push(String::new()),
            c => words[last].push(c),
        }
    }
    Some(words.into_iter().filter(|w| !w.is_empty()).map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let list = parse_list("out: \\\n  /a/x.o \\\n  /b\\ c/$$y.a \\\n  z\n\n/a/x.o:\n").unwrap();
        assert_eq!(list, ["/a/x.o", "/b c/$y.a", "z"].map(PathBuf::from));
        let odd = parse_list("out: \\\n  /a\\\\\\ b\\c \\\n  x\\#y\n").unwrap();
        assert_eq!(odd, ["/a\\ b\\c", "x#y"].map(PathBuf::from));
        assert_eq!(parse_list("nonsense"), None);
    }
}
