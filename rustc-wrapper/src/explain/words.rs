//! The words of an explanation. Pure. Everything that comes out of an event is made to stay on its
//! line and to leave a terminal alone.

use kiln_storage::Digest;
use kiln_storage::api::{Cause, Outcome};
use kiln_storage::record::UnitName;
use serde::Serialize;

use super::stem_of;
use crate::say::inline;
use crate::variables::UNSET;

/// A cause with its words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// What differed.
    #[serde(flatten)]
    pub cause: Cause,
    /// It, for people.
    pub text: String,
}

impl Told {
    /// A cause with its words.
    pub fn new(cause: &Cause) -> Self {
        Self { cause: cause.clone(), text: inline(&text(cause)) }
    }
}

/// A unit for people: `serde 1.0.229 (lib)`.
pub fn called(unit: &UnitName) -> String {
    let mut text = match unit.crate_name.as_str() {
        "" => "a crate without a name".to_owned(),
        name => name.to_owned(),
    };
    if !unit.version.is_empty() {
        text.push_str(&format!(" {}", unit.version));
    }
    if !unit.kind.is_empty() {
        text.push_str(&format!(" ({})", unit.kind));
    }
    inline(&text)
}

/// What became of a unit that was not restored.
pub fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::HitLocal | Outcome::HitRemote | Outcome::Joined => "restored",
        Outcome::Miss => "compiled",
        Outcome::Bypass => "not cached",
        Outcome::Error => "compiled since Kiln failed",
    }
}

/// A path for people: relative to the workspace where it is in there.
fn path(token: &str) -> &str {
    token.strip_prefix("<workspace>/").unwrap_or(token)
}

/// Whether a build script has written the file.
fn is_generated(path: &str) -> bool {
    path.starts_with("<target>/") && path.contains("/build/") && path.contains("/out")
}

fn text(cause: &Cause) -> String {
    let Cause { kind, name, then, now } = cause;
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    let (before, after) = (value(then), value(now));
    match kind.as_str() {
        "file" if stem_of(name).is_some() && name.starts_with("<target>") => {
            let file = name.rsplit('/').next().unwrap_or(name);
            format!("crate file {file} is another one ({before} -> {after})")
        }
        "file" => changed(&format!("file {}", path(name)), &before, &after),
        "names" => changed(&format!("the names in {}", path(name)), &before, &after),
        "tree" if name == "<out>" => "OUT_DIR held something else before".to_owned(),
        "tree" => changed(&format!("files below {}", path(name)), &before, &after),
        "nearest-file" => changed(&format!("the file found for {}", path(name)), &before, &after),
        "program" => changed(&format!("program {name}"), &before, &after),
        "variable" => variable(name, &before, &after),
        "environment" if name.is_empty() => "other variables than before".to_owned(),
        "environment" => match (before.as_str(), after.as_str()) {
            (UNSET, _) => format!("variable {name} is new"),
            (_, UNSET) => format!("variable {name} is gone"),
            _ => variable(name, &before, &after),
        },
        "place" => format!("the place of {name}: the earlier result holds at its own place only"),
        "width" => "the width of diagnostics".to_owned(),
        "processor" => "another processor, for which code was made".to_owned(),
        "script" => format!("the build script is another program ({before} -> {after})"),
        "compiler" => format!("another compiler: {before} -> {after}"),
        "version" => format!("another version: {before} -> {after}"),
        "feature" => toggled(&format!("feature \"{name}\""), then, now),
        "argument" => argument(name, then, now),
        "order" => format!("the order of {name} arguments"),
        "crate" => match (then, now) {
            (Some(then), Some(now)) => format!("crate {name}: {then} -> {now}"),
            _ => toggled(&format!("dependency {name}"), then, now),
        },
        "gone" => "its earlier results are no longer stored (evicted or damaged)".to_owned(),
        "first" if then.is_some() => {
            format!("first compile as {after}: stored so far as {before}")
        }
        "first" => "first compile: nothing of the crate is stored yet".to_owned(),
        // A newer wrapper knows more kinds.
        other => format!("{other} {name}: {before} -> {after}"),
    }
}

fn changed(what: &str, before: &str, after: &str) -> String {
    match (before, after) {
        ("absent" | "none" | "not found", _) => format!("{what} appeared"),
        (_, "absent" | "none" | "not found") => format!("{what} is gone"),
        _ => format!("{what} changed ({before} -> {after})"),
    }
}

fn variable(name: &str, before: &str, after: &str) -> String {
    let shown = |value: &str| match Digest::is_short(value) {
        true => format!("set ({value})"),
        false => value.to_owned(),
    };
    match Digest::is_short(before) && Digest::is_short(after) {
        true => format!("variable {name} has another value ({before} -> {after})"),
        false => format!("variable {name}: {} -> {}", shown(before), shown(after)),
    }
}

fn toggled(what: &str, then: &Option<String>, now: &Option<String>) -> String {
    match (then, now) {
        (None, _) => format!("{what} added"),
        (_, None) => format!("{what} taken away"),
        (Some(then), Some(now)) => format!("{what}: {then} -> {now}"),
    }
}

fn argument(name: &str, then: &Option<String>, now: &Option<String>) -> String {
    let with = |value: &str| match value {
        "given" => name.to_owned(),
        _ if name.starts_with('-') => format!("{name}={value}"),
        _ => format!("{name} {value}"),
    };
    match (then, now) {
        (None, None) => name.to_owned(),
        (None, Some(now)) => format!("argument {} added", with(now)),
        (Some(then), None) => format!("argument {} taken away", with(then)),
        (Some(then), Some(now)) => format!("argument {name}: {then} -> {now}"),
    }
}

/// What may be done about a cause.
pub(super) fn hint(cause: &Cause) -> Option<&'static str> {
    Some(match cause.kind.as_str() {
        "file" if is_generated(&cause.name) => {
            "a build script wrote it; when it writes the same again, the crate hits"
        }
        "file" | "names" | "nearest-file" | "version" | "feature" => return None,
        "tree" if cause.name == "<out>" => {
            "cargo does not empty OUT_DIR, and what a build script leaves in one that is not empty is \
             another result; see docs/build-scripts.md"
        }
        "environment" => {
            "a shell, make or the crate cc may look at any variable; those of a session or a run of CI do \
             not count (docs/build-scripts.md)"
        }
        "tree" => {
            "a whole directory counts where libraries are looked for, and for a crate with procedural \
             macros that cannot be observed; keep files that change by themselves outside of it"
        }
        "variable" if cause.name == "OUT_DIR" => {
            "the crate uses its place for more than include!, or may, and holds there only; see \
             docs/portable-results.md"
        }
        "variable" => {
            "a variable that is another one in each build (a date, a commit) makes each build compile \
             what reads it"
        }
        "program" => "another program, or an update of it: what it made is made again, once",
        "place" => {
            "docs/portable-results.md says what holds a result at its place, docs/build-scripts.md for runs \
             of build scripts"
        }
        "compiler" => "what is stored for the other toolchain stays; going back to it hits",
        "argument" if cause.name.starts_with("--check-cfg") => {
            "the package declares other features or configurations"
        }
        "argument" if cause.name.starts_with("--cfg") => {
            "the build script of the package says it (cargo::rustc-cfg), or it comes from RUSTFLAGS and cargo's \
             settings; each set of them is compiled once and kept beside the others"
        }
        "argument" | "order" => {
            "arguments come from the profile, RUSTFLAGS and cargo's settings; each set of them is \
             compiled once and kept beside the others"
        }
        "gone" => "KILN_CACHE_SIZE sets how much is kept; kiln stats shows how full the store is",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: &str, name: &str, then: Option<&str>, now: Option<&str>) -> String {
        let text = |value: Option<&str>| value.map(str::to_owned);
        Told::new(&Cause { kind: kind.into(), name: name.into(), then: text(then), now: text(now) })
            .text
    }

    #[test]
    fn causes_read_like_sentences() {
        let (a, b) = (Some("1a2b3c4d"), Some("5e6f7a8b"));
        for (text, want) in [
            (
                told("file", "<workspace>/src/a.rs", a, b),
                "file src/a.rs changed (1a2b3c4d -> 5e6f7a8b)",
            ),
            (told("file", "<workspace>/a.rs", Some("absent"), b), "file a.rs appeared"),
            (told("file", "<workspace>/a.rs", a, Some("absent")), "file a.rs is gone"),
            (told("variable", "KT", Some("unset"), Some("empty")), "variable KT: unset -> empty"),
            (told("variable", "KT", Some("unset"), b), "variable KT: unset -> set (5e6f7a8b)"),
            (told("variable", "KT", a, b), "variable KT has another value (1a2b3c4d -> 5e6f7a8b)"),
            (told("environment", "", a, b), "other variables than before"),
            (told("environment", "KT", Some("unset"), b), "variable KT is new"),
            (told("environment", "KT", a, Some("unset")), "variable KT is gone"),
            (
                told("environment", "KT", a, b),
                "variable KT has another value (1a2b3c4d -> 5e6f7a8b)",
            ),
            (told("feature", "x", None, Some("given")), "feature \"x\" added"),
            (told("argument", "-C opt-level", None, Some("3")), "argument -C opt-level=3 added"),
            (
                told("argument", "-C opt-level", Some("0"), Some("3")),
                "argument -C opt-level: 0 -> 3",
            ),
            (told("argument", "--cfg kt", Some("given"), None), "argument --cfg kt taken away"),
            (told("crate", "low", None, Some("liblow-1.rlib")), "dependency low added"),
        ] {
            assert_eq!(text, want);
        }
    }

    /// It need not come from RUSTFLAGS.
    #[test]
    fn a_cfg_may_be_of_a_build_script() {
        let of = |name: &str| {
            let cause = Cause { kind: "argument".into(), name: name.into(), then: None, now: None };
            hint(&cause).unwrap()
        };
        assert!(of("--cfg Py_3_11").contains("build script"));
        assert!(!of("--check-cfg cfg(a)").contains("build script"));
        assert!(!of("-C opt-level").contains("build script"));
    }

    #[test]
    fn hostile_names_stay_on_their_line() {
        let text = told("variable", "\u{1b}[2J\nKT", Some("unset"), Some("\u{9b}31m"));
        assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
        let unit = UnitName { crate_name: "a\u{1b}b\n".into(), ..UnitName::default() };
        assert!(!called(&unit).contains(|c: char| c.is_control()));
    }
}
