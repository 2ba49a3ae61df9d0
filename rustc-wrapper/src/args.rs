//! rustc's arguments: as given ([`split`]), then understood ([`Parsed`]).
//!
//! No I/O except [`expand`], which reads response files. What each flag means is in
//! [`table`]. Called by [`crate::wrapper`] and by [`crate::unit`].

mod parse;
pub mod table;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

pub use parse::{Parsed, parse};

/// Why a run is handed to the tool without caching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bypass {
    /// A word from docs/reasons.md.
    pub reason: &'static str,
    /// More for people.
    pub detail: String,
}

impl Bypass {
    /// A bypass with its reason and a detail.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// One crate given by `--extern`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extern {
    /// Options before the name, e.g. `priv` (without the colon); mostly empty.
    pub options: String,
    /// The name in the crate.
    pub name: String,
    /// The file, where one is given.
    pub path: Option<PathBuf>,
}

/// One directory given by `-L`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// `dependency`, `crate`, `native`, `framework` or `all`.
    pub kind: String,
    /// The directory.
    pub path: PathBuf,
}

/// The run of a tool, told apart from its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The program to run.
    pub tool: OsString,
    /// rustc's path, when the program is clippy-driver called as a workspace wrapper.
    pub inner: Option<OsString>,
    /// The arguments for the compiler proper.
    pub args: Vec<OsString>,
}

impl Invocation {
    /// The words that it was told apart from.
    pub fn argv(&self) -> Vec<OsString> {
        let inner = self.inner.iter();
        [&self.tool].into_iter().chain(inner).chain(&self.args).cloned().collect()
    }
}

fn stem(path: &OsStr) -> String {
    let name = PathBuf::from(path);
    name.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned())
}

/// Tells the tool from its arguments: `rustc ARGS…`, or `clippy-driver rustc ARGS…`.
///
/// # Errors
/// A bypass when another program than clippy-driver stands before rustc.
pub fn split(argv: &[OsString]) -> Result<Invocation, Bypass> {
    let Some((tool, rest)) = argv.split_first() else {
        return Err(Bypass::new("no-tool", "no program to run"));
    };
    let first = rest.first().filter(|word| {
        let text = word.to_string_lossy();
        !text.starts_with(['-', '@'])
            && (stem(word) == "rustc" || stem(tool) == "clippy-driver")
            && !text.ends_with(".rs")
    });
    match first {
        None => Ok(Invocation { tool: tool.clone(), inner: None, args: rest.to_vec() }),
        Some(rustc) if stem(tool) == "clippy-driver" => Ok(Invocation {
            tool: tool.clone(),
            inner: Some(rustc.clone()),
            args: rest[1..].to_vec(),
        }),
        Some(_) => Err(Bypass::new("unknown-wrapper", tool.to_string_lossy())),
    }
}

/// The arguments with `@file` replaced by the lines of the file, as rustc does, as text.
///
/// # Errors
/// A bypass when a file cannot be read or an argument is not UTF-8.
pub fn expand(args: &[OsString], cwd: &std::path::Path) -> Result<Vec<String>, Bypass> {
    let mut out = Vec::with_capacity(args.len());
    for arg in args {
        let text =
            arg.to_str().ok_or_else(|| Bypass::new("non-utf8-argument", arg.to_string_lossy()))?;
        match text.strip_prefix('@') {
            None => out.push(text.to_owned()),
            Some(file) => {
                let content = std::fs::read_to_string(cwd.join(file))
                    .map_err(|error| Bypass::new("argument-file", format!("{file}: {error}")))?;
                out.extend(content.lines().map(str::to_owned));
            }
        }
    }
    Ok(out)
}

/// Whether a run only asks for information: `-vV`, `--print`, the empty crate `___`.
pub fn is_probe(args: &[OsString]) -> bool {
    if args.is_empty() {
        return true;
    }
    let mut previous = None;
    args.iter().any(|arg| {
        let text = arg.to_string_lossy();
        let value = previous == Some("--crate-name") && text == "___";
        let print = |kind: &str| {
            !matches!(kind.split('=').next(), Some("native-static-libs" | "link-args"))
        };
        let prints = text.strip_prefix("--print=").is_some_and(print)
            || (previous == Some("--print") && print(&text));
        previous = match text.as_ref() {
            "--crate-name" => Some("--crate-name"),
            "--print" => Some("--print"),
            _ => None,
        };
        value
            || prints
            || text == "--crate-name=___"
            || table::flag(&text)
                .is_some_and(|row| row.role == table::Role::Probe && row.name != "--print")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(words: &[&str]) -> Vec<OsString> {
        words.iter().map(Into::into).collect()
    }

    #[test]
    fn tools_are_told_apart() {
        let plain = split(&os(&["/t/rustc", "--crate-name", "x", "src/lib.rs"])).unwrap();
        assert_eq!((plain.inner, plain.args.len()), (None, 3));
        let clippy = split(&os(&["/t/clippy-driver", "/t/rustc", "--crate-name", "x"])).unwrap();
        assert_eq!(clippy.argv(), os(&["/t/clippy-driver", "/t/rustc", "--crate-name", "x"]));
        assert_eq!((clippy.inner, clippy.args.len()), (Some("/t/rustc".into()), 2));
        assert_eq!(
            split(&os(&["/t/other", "rustc", "-vV"])).unwrap_err().reason,
            "unknown-wrapper"
        );
        assert_eq!(split(&os(&["rustc", "main.rs"])).unwrap().args, os(&["main.rs"]));
    }

    #[test]
    fn probes() {
        for probe in [
            &["-vV"][..],
            &["--version"],
            &["-", "--crate-name", "___", "--print=file-names"],
            &["--print", "sysroot"],
            &[],
        ] {
            assert!(is_probe(&os(probe)), "{probe:?}");
        }
        for unit in [&["--crate-name", "x", "a.rs"][..], &["a.rs", "--print=native-static-libs"]] {
            assert!(!is_probe(&os(unit)), "{unit:?}");
        }
    }
}
