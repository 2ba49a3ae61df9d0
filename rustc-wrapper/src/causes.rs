//! Why a unit was compiled: what differs from the nearest earlier result, found at the miss, while
//! everything is known. The event carries it; [`crate::explain`] reads it later.
//!
//! [`inputs`] compares members of records that did not hold, [`arguments`] the parts of unit keys
//! where there was no record. Called by [`crate::lookup`], on a miss only. Values of variables never
//! get into a cause: only digests of them.

pub mod arguments;
pub mod inputs;

use kiln_storage::api::Cause;
use kiln_storage::limits::{MAX_CAUSE_NAME_BYTES, MAX_CAUSE_VALUE_BYTES, MAX_CAUSES};

use crate::unit::parts::brief;

/// Every kind of cause, with what it means. `docs/explain.md` lists them.
pub const KINDS: &[(&str, &str)] = &[
    ("file", "the content of a file: a source, an included file, a library, a crate"),
    ("names", "the names in a directory"),
    ("tree", "names and contents of the files below a directory"),
    ("variable", "an environment variable that the compile, or the build script, reads"),
    ("program", "the program that a name finds through PATH, e.g. the linker"),
    ("nearest-file", "the nearest file of some name in a directory or above it"),
    ("place", "where something lies: the earlier result holds at its own place only"),
    ("link", "where a symbolic link leads"),
    ("mode", "the permissions of a file"),
    (
        "environment",
        "a variable of all that a macro or a build script may read; unnamed where not known which",
    ),
    ("width", "the width that diagnostics are wrapped at"),
    ("processor", "the processor of the machine, for which code was made"),
    ("script", "the program of a build script"),
    ("compiler", "the compiler: what it says of itself, and a digest of its files"),
    ("version", "the version of the package"),
    ("feature", "a feature of the package"),
    ("argument", "an argument of the compiler"),
    ("order", "the order of arguments of one kind"),
    ("crate", "the file name of a crate given by --extern: cargo made another unit of it"),
    ("gone", "the unit was stored, and its results were evicted or damaged"),
    ("first", "nothing of the crate is stored yet, or only as other kinds of units (then, now)"),
];

/// The causes of a miss: bounded, the most telling first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Causes {
    /// The causes that are named.
    pub named: Vec<Cause>,
    /// How many more there are.
    pub more: u64,
}

impl Causes {
    /// The first of all causes, each within its bounds.
    pub(crate) fn new(mut all: Vec<Cause>) -> Self {
        let more = all.len().saturating_sub(MAX_CAUSES) as u64;
        all.truncate(MAX_CAUSES);
        for cause in &mut all {
            cause.name = tail(&cause.name, MAX_CAUSE_NAME_BYTES);
            for value in [&mut cause.then, &mut cause.now].into_iter().flatten() {
                *value = brief(value, MAX_CAUSE_VALUE_BYTES);
            }
        }
        Self { named: all, more }
    }

    /// One cause without values.
    pub(crate) fn one(kind: &str) -> Self {
        Self::new(vec![Cause { kind: kind.to_owned(), ..Cause::default() }])
    }
}

/// The end of a text within a bound: of a path, the file name tells most.
fn tail(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let mut at = text.len() - max_bytes.saturating_sub('\u{2026}'.len_utf8());
    while !text.is_char_boundary(at) {
        at += 1;
    }
    format!("\u{2026}{}", &text[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_bounded() {
        let long = |n: usize| Cause {
            kind: "file".into(),
            name: format!("{}/{n}.rs", "\u{e9}".repeat(500)),
            then: Some("\u{e9}".repeat(500)),
            now: None,
        };
        let causes = Causes::new((0..MAX_CAUSES + 3).map(long).collect());
        assert_eq!((causes.named.len(), causes.more), (MAX_CAUSES, 3));
        for (n, cause) in causes.named.iter().enumerate() {
            assert!(cause.name.len() <= MAX_CAUSE_NAME_BYTES, "{cause:?}");
            assert!(cause.name.ends_with(&format!("/{n}.rs")), "{cause:?}");
            assert!(cause.then.as_ref().unwrap().len() <= MAX_CAUSE_VALUE_BYTES, "{cause:?}");
        }
    }

    #[test]
    fn every_kind_is_in_the_documentation() {
        let page = include_str!("../../docs/explain.md");
        for (kind, about) in KINDS {
            assert!(page.contains(&format!("| `{kind}` | {about} |")), "{kind}");
        }
        let mut seen = 0;
        for source in [
            include_str!("causes/arguments.rs"),
            include_str!("causes/inputs.rs"),
            include_str!("../../storage/src/parts.rs"),
        ] {
            let parts = source.split("cause(\"").skip(1).chain(source.split("one(\"").skip(1));
            for word in parts.map(|part| part.split('"').next().unwrap()) {
                seen += 1;
                assert!(KINDS.iter().any(|(kind, _)| *kind == word), "{word} is not listed");
            }
        }
        assert!(seen >= KINDS.len(), "the scan finds the words ({seen})");
    }
}
