//! What a link step reads: the linker and its helpers beforehand, its inputs from the list that
//! the linker itself writes (`--dependency-file`, GNU ld, lld and mold).
//!
//! The extra argument changes no output. A linker that does not know it is left alone, and the
//! unit is not cached.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use kiln_storage::encode::Encoder;
use kiln_storage::record::{Member, TokenPath};
use serde::{Deserialize, Serialize};

use crate::args::{Bypass, Parsed};
use crate::env::Env;
use crate::members::find_program;
use crate::roots::Roots;

/// Programs and files of gcc and clang that take part in a link.
const HELPERS: &[&str] =
    &["collect2", "ld", "ld.bfd", "ld.gold", "ld.lld", "ld.mold", "lto-wrapper", "specs"];
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
    // Others have linkers of their own.
    let usual = ["-gnu", "-musl", "-gnueabihf", "-gnueabi", "-musleabihf", "-musleabi", "-gnux32"];
    if target != "linux"
        && !(target.contains("-linux-") && usual.iter().any(|end| target.ends_with(end)))
    {
        return Err(untraceable("only Linux targets with a C library are traced"));
    }
    if env.get("LLD_REPRODUCE").is_some() {
        return Err(untraceable("LLD_REPRODUCE makes it write a file beside the output"));
    }
    if let Some(flavor) =
        parsed.codegen_value("linker-flavor").filter(|f| !f.ends_with("cc") && *f != "gcc")
    {
        return Err(untraceable(&format!("-C linker-flavor={flavor}")));
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
    let list = list
        .to_str()
        .filter(|l| !l.contains([',', ' ']))
        .ok_or_else(|| untraceable("odd KILN_DIR"))?;
    let prefix = if direct { "" } else { "-Wl," };
    let mut members = vec![match linker.contains('/') {
        true => file_member(roots, &path.to_string_lossy()),
        false => Member::Program(linker),
    }];
    for dir in helper_dirs(env, parsed) {
        for helper in HELPERS {
            members.push(file_member(roots, &dir.join(helper).to_string_lossy()));
        }
    }
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
    let chooses =
        |w: &&str| w.starts_with("-fuse-ld") || w.starts_with("-B") || w.starts_with("--ld-path");
    parsed.link_args().into_iter().filter(chooses).map(str::to_owned).collect()
}

/// Directories that were named for helpers: they may appear there.
fn helper_dirs(env: &Env, parsed: &Parsed) -> Vec<PathBuf> {
    let cwd = env.cwd.clone().unwrap_or_default();
    let mut dirs = prefixed_dirs(&parsed.link_args(), &["-B"]);
    for variable in ["COMPILER_PATH", "GCC_EXEC_PREFIX"] {
        let list = env.text(variable).unwrap_or("");
        dirs.extend(list.split(':').filter(|d| !d.is_empty()).map(str::to_owned));
    }
    dirs.into_iter().map(|dir| cwd.join(dir)).collect()
}

/// The directories in which a linker looks for libraries by its arguments, in all their spellings.
pub fn search_dirs(link_args: &[&str]) -> Vec<String> {
    prefixed_dirs(
        link_args,
        &["-L", "--library-path=", "-library-path=", "--library-path", "-library-path", "-B"],
    )
}

/// Values of options in linker arguments: joined, after `=`, or as the next word.
fn prefixed_dirs(link_args: &[&str], options: &[&str]) -> Vec<String> {
    let split = link_args.iter().flat_map(|word| match word.strip_prefix("-Wl,") {
        Some(rest) => rest.split(',').collect::<Vec<_>>(),
        None => vec![*word],
    });
    let words: Vec<&str> = split.filter(|word| *word != "-Xlinker").collect();
    let mut dirs = Vec::new();
    for (i, word) in words.iter().enumerate() {
        let option = options.iter().find_map(|option| word.strip_prefix(option));
        match option {
            Some("") => dirs.extend(words.get(i + 1).map(|next| (*next).to_owned())),
            Some(value) => dirs.push(value.to_owned()),
            None => {}
        }
    }
    dirs
}

fn traits(dir: &Path, env: &Env, parsed: &Parsed, linker: &Path, direct: bool) -> Traits {
    let chosen = choosing(parsed);
    let mut encoder = Encoder::new("kiln linker traits v1");
    encoder.text("path", &linker.to_string_lossy()).list("chosen", &chosen);
    encoder.optional("stamp", crate::tool::file_stamp(linker).as_ref().map(<[u8; 56]>::as_slice));
    for variable in ["PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX"] {
        encoder.optional(variable, env.get(variable).map(std::ffi::OsStr::as_encoded_bytes));
    }
    // A helper that appears in a directory moves the time of the directory.
    for dir in helper_dirs(env, parsed) {
        encoder
            .optional("helpers", crate::tool::file_stamp(&dir).as_ref().map(<[u8; 56]>::as_slice));
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
    let mut command = crate::compile::command(linker, args);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
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
            let question = [chosen, &[format!("-print-prog-name={helper}")]].concat();
            if let Some(path) = run(linker, &question) {
                helpers.push(path.trim().to_owned());
            }
        }
        for helper in HELPER_FILES {
            let question = [chosen, &[format!("-print-file-name={helper}")]].concat();
            if let Some(path) = run(linker, &question) {
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
    fn library_directories_in_every_spelling() {
        let words = [
            "-L/a",
            "-Wl,-L/b",
            "-Wl,-L,/c",
            "-L",
            "/d",
            "--library-path=/e",
            "-Wl,--library-path,/f",
            "-Xlinker",
            "-L/g",
            "-B/h",
            "-lfoo",
        ];
        assert_eq!(search_dirs(&words), ["/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h"]);
    }

    #[test]
    fn lists_are_read() {
        let list = parse_list("out: \\\n  /a/x.o \\\n  /b\\ c/$$y.a \\\n  z\n\n/a/x.o:\n").unwrap();
        assert_eq!(list, ["/a/x.o", "/b c/$y.a", "z"].map(PathBuf::from));
        let odd = parse_list("out: \\\n  /a\\\\\\ b\\c \\\n  x\\#y\n").unwrap();
        assert_eq!(odd, ["/a\\ b\\c", "x#y"].map(PathBuf::from));
        assert_eq!(parse_list("nonsense"), None);
    }
}
